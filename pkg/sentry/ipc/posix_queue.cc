#include "pkg/sentry/ipc/posix_queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "pkg/sentry/limits/system.h"
#include "pkg/sentry/wait/wait.h"

namespace redoubt::ipc {
namespace {

// Messages of all queues, with what each costs besides its text: they outlive whoever sent them, so that killing a
// process would not give the memory back.
constexpr int64_t kMostInAll = 64 << 20;
constexpr int64_t kCost = 128;
constinit std::atomic<int64_t> in_all{0};

int64_t CostOf(size_t length) { return static_cast<int64_t>(length) + kCost; }

// sizeof(struct msg_msg) and sizeof(struct posix_msg_tree_node) on x86-64.
constexpr uint64_t kMessageHeader = 48;
constexpr uint64_t kTreeNode = 48;

}  // namespace

Result<std::unique_ptr<PosixMessage>> PosixMessage::Make(size_t length, uint32_t priority) {
  const int64_t cost = CostOf(length);
  if (in_all.fetch_add(cost, std::memory_order_relaxed) + cost > kMostInAll) {
    in_all.fetch_sub(cost, std::memory_order_relaxed);
    return Err(ENOMEM);
  }
  return std::unique_ptr<PosixMessage>(new PosixMessage(length, priority));
}

PosixMessage::~PosixMessage() { in_all.fetch_sub(CostOf(text_.size()), std::memory_order_relaxed); }

uint64_t PosixQueue::Size::Charge() const {
  const auto n = static_cast<uint64_t>(messages);
  return n * kMessageHeader + std::min<uint64_t>(n, MQ_PRIO_MAX) * kTreeNode + n * static_cast<uint64_t>(message_size);
}

Result<PosixQueue::Size> PosixQueue::CheckSize(const mq_attr* wanted, bool privileged) {
  const limits::System& system = limits::System::Get();
  const int64_t most = system.mq_msg_max.load(std::memory_order_relaxed);
  const int64_t largest = system.mq_msgsize_max.load(std::memory_order_relaxed);
  Size size{.messages = std::min(most, system.mq_msg_default.load(std::memory_order_relaxed)),
            .message_size = std::min(largest, system.mq_msgsize_default.load(std::memory_order_relaxed))};
  if (wanted != nullptr) size = {.messages = wanted->mq_maxmsg, .message_size = wanted->mq_msgsize};
  if (size.messages <= 0 || size.message_size <= 0 || size.messages > (privileged ? kMostMessages : most) ||
      size.message_size > (privileged ? kMostMessageSize : largest)) {
    return Err(EINVAL);
  }
  return size;
}

void PosixQueue::InsertLocked(std::unique_ptr<PosixMessage> message) {
  bytes_ += message->text().size();
  messages_.emplace(message->priority(), std::move(message));
}

std::unique_ptr<PosixMessage> PosixQueue::TakeFirstLocked() {
  std::unique_ptr<PosixMessage> message = std::move(messages_.begin()->second);
  messages_.erase(messages_.begin());
  bytes_ -= message->text().size();
  return message;
}

void PosixQueue::ServeLocked(Waiter& waiter) {
  waiter.unlink();
  waiter.served = true;
  waiter.fiber->Unpark();
}

Result<> PosixQueue::Sleep(Waiter& waiter, fiber::Time deadline) {
  while (true) {
    Result<> blocked = wait::Block(deadline);
    sync::MutexLock lock(mu_);
    if (waiter.served) return {};
    if (!blocked) {
      waiter.unlink();
      return blocked;
    }
  }
}

Result<> PosixQueue::Send(std::unique_ptr<PosixMessage> message, Deadline deadline) {
  RefPtr<PosixNotification> used;
  Waiter waiter;
  bool waits = false;
  {
    sync::MutexLock lock(mu_);
    if (!receivers_.empty()) {
      receivers_.front().message = std::move(message);
      ServeLocked(receivers_.front());
      return {};
    }
    waits = static_cast<int64_t>(messages_.size()) >= size_.messages;
    if (waits) {
      if (!deadline) return Err(EAGAIN);
      waiter.message = std::move(message);
      waiter.fiber = RefPtr<fiber::Fiber>(fiber::Current());
      senders_.push_back(waiter);
    } else {
      if (messages_.empty()) used = std::move(notification_);
      InsertLocked(std::move(message));
    }
  }
  if (waits) return Sleep(waiter, *deadline);
  if (used) used->MessageCame();
  pollers_.Notify(waiter::kIn | waiter::kRdNorm);
  return {};
}

Result<std::unique_ptr<PosixMessage>> PosixQueue::Receive(Deadline deadline) {
  Waiter waiter;
  bool waits = false;
  waiter::EventMask events = waiter::kOut | waiter::kWrNorm;
  {
    sync::MutexLock lock(mu_);
    waits = messages_.empty();
    if (waits) {
      if (!deadline) return Err(EAGAIN);
      waiter.fiber = RefPtr<fiber::Fiber>(fiber::Current());
      receivers_.push_back(waiter);
    } else {
      waiter.message = TakeFirstLocked();
      if (!senders_.empty()) {
        InsertLocked(std::move(senders_.front().message));
        ServeLocked(senders_.front());
        events = waiter::kIn | waiter::kRdNorm;
      }
    }
  }
  if (waits) {
    TRY(Sleep(waiter, *deadline));
  } else {
    pollers_.Notify(events);
  }
  return std::move(waiter.message);
}

Result<> PosixQueue::Register(RefPtr<PosixNotification> notification) {
  sync::MutexLock lock(mu_);
  if (notification_) return Err(EBUSY);
  notification_ = std::move(notification);
  return {};
}

void PosixQueue::Unregister(const void* owner) {
  RefPtr<PosixNotification> removed;
  {
    sync::MutexLock lock(mu_);
    if (!notification_ || notification_->owner() != owner) return;
    removed = std::move(notification_);
  }
  removed->Removed();
}

int64_t PosixQueue::messages() {
  sync::MutexLock lock(mu_);
  return static_cast<int64_t>(messages_.size());
}

std::string PosixQueue::Describe() {
  RefPtr<PosixNotification> n;
  uint64_t bytes = 0;
  {
    sync::MutexLock lock(mu_);
    n = notification_;
    bytes = bytes_;
  }
  return fmt::format("QSIZE:{:<10} NOTIFY:{:<5} SIGNO:{:<5} NOTIFY_PID:{:<6}\n", bytes, n ? n->method() : 0,
                     n ? n->signal() : 0, n ? n->OwnerPid() : 0);
}

waiter::EventMask PosixQueue::Readiness(waiter::EventMask mask) {
  const int64_t n = messages();
  waiter::EventMask ready = 0;
  if (n > 0) ready |= waiter::kIn | waiter::kRdNorm;
  if (n < size_.messages) ready |= waiter::kOut | waiter::kWrNorm;
  return ready & mask;
}

}  // namespace redoubt::ipc
