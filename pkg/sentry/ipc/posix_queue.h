// POSIX message queues: mq_overview(7). A queue without its name, which is a file's (fsimpl/mqueue).
#ifndef REDOUBT_PKG_SENTRY_IPC_POSIX_QUEUE_H_
#define REDOUBT_PKG_SENTRY_IPC_POSIX_QUEUE_H_

#include <linux/mqueue.h>

#include <boost/intrusive/list.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/fiber/fiber.h"
#include "pkg/refs/refs.h"
#include "pkg/sync/mutex.h"
#include "pkg/waiter/waiter.h"

namespace redoubt::ipc {

// Charged from its making to its end, so that those of senders who wait count as well.
class PosixMessage final {
 public:
  // ENOMEM: all messages together would be too many bytes.
  static Result<std::unique_ptr<PosixMessage>> Make(size_t length, uint32_t priority);
  ~PosixMessage();
  PosixMessage(const PosixMessage&) = delete;
  PosixMessage& operator=(const PosixMessage&) = delete;

  uint32_t priority() const { return priority_; }
  std::span<std::byte> text() { return text_; }

 private:
  PosixMessage(size_t length, uint32_t priority) : priority_(priority), text_(length) {}

  const uint32_t priority_;
  std::vector<std::byte> text_;
};

// What mq_notify(3) has registered at a queue. Its calls come without the queue's lock.
class PosixNotification : public RefCounted {
 public:
  // The process, which only this names.
  virtual const void* owner() const = 0;
  // It is used up: a message came to the empty queue, and nobody waited for it. On the fiber of who sent it.
  virtual void MessageCame() = 0;
  // It was taken back, or its owner has closed the queue.
  virtual void Removed() = 0;

  // For read(2): SIGEV_*, a signal or 0, and the owner as the calling task sees it.
  virtual int method() const = 0;
  virtual int signal() const = 0;
  virtual int OwnerPid() const = 0;
};

// Linux's mqueue_inode_info. Owned by the file's inode, which lives while there is a name or a descriptor, and so
// longer than any who waits. A message that comes while somebody waits is handed to him who has waited longest, and a
// place that gets free to the sender who has: nobody who comes later gets in between. (Linux first asks for priorities
// of scheduling, which are not followed here.) Thread-safe.
class PosixQueue final {
 public:
  static constexpr int64_t kMostMessages = 65536;        // HARD_MSGMAX
  static constexpr int64_t kMostMessageSize = 16 << 20;  // HARD_MSGSIZEMAX, bytes

  struct Size {
    int64_t messages = 0;
    int64_t message_size = 0;
    // What a queue counts for RLIMIT_MSGQUEUE (getrlimit(2)).
    uint64_t Charge() const;
  };
  // Of a queue that is to be made: as `wanted`, or the default if null. EINVAL for more than fs.mqueue.msg_max and
  // msgsize_max, or with CAP_SYS_RESOURCE (`privileged`) the constants above.
  static Result<Size> CheckSize(const mq_attr* wanted, bool privileged);

  explicit PosixQueue(const Size& size) : size_(size) {}
  PosixQueue(const PosixQueue&) = delete;
  PosixQueue& operator=(const PosixQueue&) = delete;

  const Size& size() const { return size_; }

  // Until when to wait; nothing: not at all.
  using Deadline = std::optional<fiber::Time>;
  // EAGAIN, ETIMEDOUT, ERESTARTSYS. The message is no larger than size().message_size.
  Result<> Send(std::unique_ptr<PosixMessage> message, Deadline deadline) EXCLUDES(mu_);
  Result<std::unique_ptr<PosixMessage>> Receive(Deadline deadline) EXCLUDES(mu_);

  // EBUSY if there is one.
  Result<> Register(RefPtr<PosixNotification> notification) EXCLUDES(mu_);
  // That of `owner`, if it has one.
  void Unregister(const void* owner) EXCLUDES(mu_);

  int64_t messages() EXCLUDES(mu_);
  // What read(2) gives: mq_overview(7), "Mounting the message queue filesystem".
  std::string Describe() EXCLUDES(mu_);
  waiter::EventMask Readiness(waiter::EventMask mask) EXCLUDES(mu_);
  // For poll(2) and its kin; who sends and receives has no place there.
  waiter::Queue& pollers() { return pollers_; }

 private:
  // Who sleeps in Send or Receive: on his stack.
  struct Waiter : boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
    RefPtr<fiber::Fiber> fiber;
    std::unique_ptr<PosixMessage> message;  // to send, or received
    bool served = false;                    // by another, who has taken him off the list
  };
  using Waiters = boost::intrusive::list<Waiter, boost::intrusive::constant_time_size<false>>;

  // Parks until somebody has served `waiter`, which is on a list. ETIMEDOUT, ERESTARTSYS: nobody has, nor will.
  Result<> Sleep(Waiter& waiter, fiber::Time deadline) EXCLUDES(mu_);
  static void ServeLocked(Waiter& waiter);
  void InsertLocked(std::unique_ptr<PosixMessage> message) REQUIRES(mu_);
  std::unique_ptr<PosixMessage> TakeFirstLocked() REQUIRES(mu_);

  const Size size_;
  sync::Mutex mu_{sync::Rank::kIpc};
  // Highest first; those of one priority in the order of their coming.
  std::multimap<uint32_t, std::unique_ptr<PosixMessage>, std::greater<>> messages_ GUARDED_BY(mu_);
  uint64_t bytes_ GUARDED_BY(mu_) = 0;
  Waiters senders_ GUARDED_BY(mu_);    // only while the queue is full
  Waiters receivers_ GUARDED_BY(mu_);  // only while it is empty
  RefPtr<PosixNotification> notification_ GUARDED_BY(mu_);
  waiter::Queue pollers_;
};

}  // namespace redoubt::ipc

#endif  // REDOUBT_PKG_SENTRY_IPC_POSIX_QUEUE_H_
