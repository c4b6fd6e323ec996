#include "pkg/sentry/socket/netlink/port.h"

#include "pkg/sentry/socket/filter.h"

namespace redoubt::netlink {

void Port::Deliver(std::vector<std::vector<std::byte>> datagrams, uint32_t group) {
  std::shared_ptr<const bpf::Program> filter;
  {
    sync::MutexLock lock(mu_);
    filter = filter_;
  }
  if (filter != nullptr) {
    std::erase_if(datagrams, [&](std::vector<std::byte>& d) {
      const std::optional<size_t> kept = socket::RunFilter(*filter, d);
      if (kept) d.resize(*kept);
      return !kept;
    });
  }
  if (datagrams.empty()) return;
  waiter::EventMask events = waiter::kIn | waiter::kRdNorm;
  {
    sync::MutexLock lock(mu_);
    if (bytes_ > limit_.load(std::memory_order_relaxed)) {
      if (no_enobufs.load(std::memory_order_relaxed)) return;
      overrun_ = true;
      events = waiter::kErr;
    } else {
      for (std::vector<std::byte>& d : datagrams) {
        bytes_ += d.size();
        queue_.push_back({std::move(d), group});
      }
    }
  }
  waiters_.Notify(events);
}

Result<> Port::Reserve(size_t bytes) {
  sync::MutexLock lock(mu_);
  if (bytes_ > limit_.load(std::memory_order_relaxed)) return Err(ENOMEM);
  bytes_ += bytes;
  return {};
}

void Port::DeliverReserved(std::vector<std::byte> datagram) {
  {
    sync::MutexLock lock(mu_);
    queue_.push_back({std::move(datagram), 0});
  }
  waiters_.Notify(waiter::kIn | waiter::kRdNorm);
}

void Port::Unreserve(size_t bytes) {
  sync::MutexLock lock(mu_);
  bytes_ -= bytes;
}

void Port::SetFilter(std::shared_ptr<const bpf::Program> filter) {
  sync::MutexLock lock(mu_);
  filter_.swap(filter);
}

Result<Datagram> Port::Take(bool peek) {
  sync::MutexLock lock(mu_);
  if (overrun_) {
    overrun_ = false;
    return Err(ENOBUFS);
  }
  if (queue_.empty()) return Err(EAGAIN);
  if (peek) return queue_.front();
  Datagram d = std::move(queue_.front());
  queue_.pop_front();
  bytes_ -= d.bytes.size();
  return d;
}

bool Port::Readable() const {
  sync::MutexLock lock(mu_);
  return overrun_ || !queue_.empty();
}

size_t Port::FirstSize() const {
  sync::MutexLock lock(mu_);
  return queue_.empty() ? 0 : queue_.front().bytes.size();
}

int Port::TakeError() {
  sync::MutexLock lock(mu_);
  return std::exchange(overrun_, false) ? ENOBUFS : 0;
}

Result<> PortRegistry::Add(Port& port, uint32_t number, uint32_t wish) {
  sync::MutexLock lock(mu_);
  if (ports_.size() >= kMaxPorts) return Err(ENOMEM);
  if (number != 0) {
    if (ports_.contains(number)) return Err(EADDRINUSE);
  } else {
    number = wish;
    while (number == 0 || ports_.contains(number)) number = next_--;
  }
  ports_[number] = RefPtr<Port>(&port);
  port.number.store(number);
  return {};
}

void PortRegistry::Remove(const Port& port) {
  RefPtr<Port> gone;
  sync::MutexLock lock(mu_);
  auto it = ports_.find(port.number.load());
  if (it == ports_.end() || it->second.get() != &port) return;
  gone = std::move(it->second);
  ports_.erase(it);
}

void PortRegistry::Multicast(uint32_t group, const std::vector<std::vector<std::byte>>& datagrams) {
  std::vector<RefPtr<Port>> members;
  {
    sync::MutexLock lock(mu_);
    for (const auto& [number, port] : ports_) {
      if ((port->groups.load() >> (group - 1) & 1) != 0) members.push_back(port);
    }
  }
  for (const RefPtr<Port>& port : members) port->Deliver(datagrams, group);
}

bool PortRegistry::HasMembers(uint32_t group) const {
  sync::MutexLock lock(mu_);
  for (const auto& [number, port] : ports_) {
    if ((port->groups.load() >> (group - 1) & 1) != 0) return true;
  }
  return false;
}

}  // namespace redoubt::netlink
