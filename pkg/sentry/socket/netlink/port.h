// Ports of netlink sockets, and who hears of what: the kernel's side of a socket.
#ifndef REDOUBT_PKG_SENTRY_SOCKET_NETLINK_PORT_H_
#define REDOUBT_PKG_SENTRY_SOCKET_NETLINK_PORT_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "pkg/bpf/bpf.h"
#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sync/mutex.h"
#include "pkg/waiter/waiter.h"

namespace redoubt::netlink {

struct Datagram {
  std::vector<std::byte> bytes;
  uint32_t group = 0;  // 0: to this port alone
};

// What a socket is to receive. Held by the socket, and by the registry while it has a number. Thread-safe.
class Port final : public RefCounted {
 public:
  static constexpr uint32_t kMaxGroup = 64;

  // What the kernel says of itself is lost, and the reader told, once there is more than so many bytes unread; an
  // answer that was asked for is queued whole, if there was room before it.
  void set_limit(size_t bytes) { limit_.store(bytes, std::memory_order_relaxed); }
  void Deliver(std::vector<std::vector<std::byte>> datagrams, uint32_t group) EXCLUDES(mu_);
  // Room for a datagram that is certain to come, and will be delivered whatever the filter is: ENOMEM if there is none.
  Result<> Reserve(size_t bytes) EXCLUDES(mu_);
  // Of so many bytes; or gives the room back.
  void DeliverReserved(std::vector<std::byte> datagram) EXCLUDES(mu_);
  void Unreserve(size_t bytes) EXCLUDES(mu_);
  // Which datagrams are delivered, and how much of them; null: all.
  void SetFilter(std::shared_ptr<const bpf::Program> filter) EXCLUDES(mu_);
  // EAGAIN; ENOBUFS once after a loss. With `peek` it stays.
  Result<Datagram> Take(bool peek) EXCLUDES(mu_);
  bool Readable() const EXCLUDES(mu_);
  size_t FirstSize() const EXCLUDES(mu_);
  int TakeError() EXCLUDES(mu_);
  waiter::Queue& waiters() { return waiters_; }

  // Groups 1 to kMaxGroup, a bit each.
  std::atomic<uint64_t> groups{0};
  std::atomic<uint32_t> number{0};  // 0: none yet
  std::atomic<bool> no_enobufs{false};

 private:
  std::atomic<size_t> limit_{0};
  mutable sync::Mutex mu_{sync::Rank::kLeaf};
  std::deque<Datagram> queue_ GUARDED_BY(mu_);
  size_t bytes_ GUARDED_BY(mu_) = 0;  // unread, and reserved
  bool overrun_ GUARDED_BY(mu_) = false;
  std::shared_ptr<const bpf::Program> filter_ GUARDED_BY(mu_);
  waiter::Queue waiters_;
};

// The numbers of all sockets of one protocol.
class PortRegistry final {
 public:
  static constexpr size_t kMaxPorts = 65536;

  // EADDRINUSE. 0: `wish` if it is free, else one of the kernel's choice.
  Result<> Add(Port& port, uint32_t number, uint32_t wish) EXCLUDES(mu_);
  void Remove(const Port& port) EXCLUDES(mu_);
  // To every member.
  void Multicast(uint32_t group, const std::vector<std::vector<std::byte>>& datagrams) EXCLUDES(mu_);
  bool HasMembers(uint32_t group) const EXCLUDES(mu_);

 private:
  mutable sync::Mutex mu_{sync::Rank::kSocket};
  std::map<uint32_t, RefPtr<Port>> ports_ GUARDED_BY(mu_);
  uint32_t next_ GUARDED_BY(mu_) = 0xffffefff;  // as Linux: numbers that are no PID, downwards
};

}  // namespace redoubt::netlink

#endif  // REDOUBT_PKG_SENTRY_SOCKET_NETLINK_PORT_H_
