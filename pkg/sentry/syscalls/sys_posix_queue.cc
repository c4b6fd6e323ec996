// POSIX message queues: mq_open(3), mq_unlink(3), mq_send(3), mq_receive(3), mq_notify(3), mq_getsetattr(2).
#include <linux/mqueue.h>
#include <signal.h>

#include <array>
#include <memory>
#include <optional>
#include <utility>

#include "pkg/sentry/fsimpl/mqueue/mqueue.h"
#include "pkg/sentry/ipc/posix_queue.h"
#include "pkg/sentry/signal/signal.h"
#include "pkg/sentry/socket/netlink/reservation.h"
#include "pkg/sentry/syscalls/common.h"
#include "pkg/sentry/syscalls/handlers.h"
#include "pkg/sentry/syscalls/ipc_namespace.h"

namespace redoubt::syscalls {
namespace {

using mqueue::QueueDescription;

static_assert(sizeof(mq_attr) == 64 && sizeof(struct sigevent) == 64);

// SIGEV_NONE, and what the others share.
class Notification : public ipc::PosixNotification {
 public:
  Notification(Task& task, int method) : group_(task.group_ref()), method_(method) {}
  const void* owner() const final { return group_.get(); }
  void MessageCame() override {}
  void Removed() override {}
  int method() const final { return method_; }
  int signal() const override { return 0; }
  int OwnerPid() const final { return group_->pid->In(Task::Current()->pid_ns()); }

 protected:
  kernel::ThreadGroup& group() const { return *group_; }

 private:
  const RefPtr<kernel::ThreadGroup> group_;
  const int method_;
};

class SignalNotification final : public Notification {
 public:
  SignalNotification(Task& task, const struct sigevent& event)
      : Notification(task, SIGEV_SIGNAL), signal_(event.sigev_signo), value_(event.sigev_value) {
    sync::MutexLock lock(task.kernel().mu);
    handlers_ = task.group().handlers;
  }
  void MessageCame() override {
    if (signal_ == 0) return;
    const Task& sender = *Task::Current();
    siginfo_t info = MakeKillInfo(signal_, SI_MESGQ, sender.group().pid->In(group().pid->ns()), sender.creds().ruid);
    info.si_value = value_;
    kernel::Kernel& kernel = sender.kernel();
    sync::MutexLock lock(kernel.mu);
    // Another program does not know the signal.
    if (group().handlers == handlers_) (void)kernel.SendLocked(group(), nullptr, info);
  }
  int signal() const override { return signal_; }

 private:
  const int signal_;
  const sigval value_;
  RefPtr<kernel::SignalHandlers> handlers_;  // of the program that registered: execve(2) gives the process new ones
};

// SIGEV_THREAD: the C library has a thread that waits for the cookie on a socket of AF_NETLINK.
class CookieNotification final : public Notification {
 public:
  using Cookie = std::array<std::byte, NOTIFY_COOKIE_LEN>;
  CookieNotification(Task& task, const Cookie& cookie, std::unique_ptr<netlink::Reservation> place)
      : Notification(task, SIGEV_THREAD), cookie_(cookie), place_(std::move(place)) {}
  void MessageCame() override { Send(NOTIFY_WOKENUP); }
  void Removed() override { Send(NOTIFY_REMOVED); }

 private:
  void Send(int why) {
    cookie_.back() = static_cast<std::byte>(why);
    place_->Send(cookie_);
  }

  Cookie cookie_;
  const std::unique_ptr<netlink::Reservation> place_;
};

Result<RefPtr<ipc::PosixNotification>> MakeNotification(Task& task, Addr addr) {
  const auto event = TRY(task.mm().CopyInObject<struct sigevent>(addr));
  switch (event.sigev_notify) {
    case SIGEV_NONE:
      return RefPtr<ipc::PosixNotification>(MakeRef<Notification>(task, SIGEV_NONE));
    case SIGEV_SIGNAL:
      if (event.sigev_signo < 0 || event.sigev_signo > kMaxSignal) return Err(EINVAL);
      return RefPtr<ipc::PosixNotification>(MakeRef<SignalNotification>(task, event));
    case SIGEV_THREAD: {
      const auto cookie =
          TRY(task.mm().CopyInObject<CookieNotification::Cookie>(reinterpret_cast<Addr>(event.sigev_value.sival_ptr)));
      FdTable::File socket = TRY(task.File(event.sigev_signo));
      std::unique_ptr<netlink::Reservation> place = TRY(netlink::Reservation::Make(*socket, cookie.size()));
      return RefPtr<ipc::PosixNotification>(MakeRef<CookieNotification>(task, cookie, std::move(place)));
    }
    default:
      return Err(EINVAL);
  }
}

// EBADF, also for what is no message queue.
Result<RefPtr<QueueDescription>> QueueFile(Task& task, int fd) {
  RefPtr<QueueDescription> queue = RefCast<QueueDescription>(TRY(task.File(fd)));
  if (!queue) return Err(EBADF);
  return queue;
}

// The time of CLOCK_REALTIME that the call may give. EFAULT, EINVAL: looked at even where nothing has to wait.
Result<fiber::Time> CopyInDeadline(Task& task, Addr addr) {
  if (addr == 0) return fiber::kForever;
  const clock::Nanoseconds until = TRY(CopyInTimespec(task, addr)), now = clock::Realtime();
  return until <= now ? fiber::Now() : DeadlineAfter(until - now);
}

}  // namespace

Result<uint64_t> MqOpen(Task& task, const SyscallArgs& a) {
  std::optional<mq_attr> attr;
  if (a.Pointer(3) != 0) attr = TRY(task.mm().CopyInObject<mq_attr>(a.Pointer(3)));
  const std::string name = TRY(CopyInPath(task, a.Pointer(0)));
  const Task::WalkState walk = task.Walk();
  RefPtr<vfs::FileDescription> file = TRY(IpcNamespace(task)->posix_queues.Open(
      *walk.creds, name,
      {.flags = a.I32(1) & ~O_CLOEXEC, .mode = a.U32(2) & ~walk.umask, .attr = attr ? &*attr : nullptr}));
  return TRY(task.InstallFd(std::move(file), true));
}

Result<uint64_t> MqUnlink(Task& task, const SyscallArgs& a) {
  const std::string name = TRY(CopyInPath(task, a.Pointer(0)));
  TRY(IpcNamespace(task)->posix_queues.Unlink(task.creds(), name));
  return 0;
}

Result<uint64_t> MqTimedsend(Task& task, const SyscallArgs& a) {
  const fiber::Time deadline = TRY(CopyInDeadline(task, a.Pointer(4)));
  const size_t length = a.Size(2);
  const uint32_t priority = a.U32(3);
  if (priority >= MQ_PRIO_MAX) return Err(EINVAL);
  RefPtr<QueueDescription> file = TRY(QueueFile(task, a.I32(0)));
  if (!file->writable()) return Err(EBADF);
  if (length > static_cast<uint64_t>(file->queue().size().message_size)) return Err(EMSGSIZE);
  std::unique_ptr<ipc::PosixMessage> message = TRY(ipc::PosixMessage::Make(length, priority));
  TRY(task.mm().CopyInAll(a.Pointer(1), message->text()));
  TRY(file->Send(std::move(message), deadline));
  return 0;
}

Result<uint64_t> MqTimedreceive(Task& task, const SyscallArgs& a) {
  const fiber::Time deadline = TRY(CopyInDeadline(task, a.Pointer(4)));
  RefPtr<QueueDescription> file = TRY(QueueFile(task, a.I32(0)));
  if (!file->readable()) return Err(EBADF);
  if (a.Size(2) < static_cast<uint64_t>(file->queue().size().message_size)) return Err(EMSGSIZE);
  std::unique_ptr<ipc::PosixMessage> message = TRY(file->Receive(deadline));
  // It is gone, even if it cannot be told.
  if (a.Pointer(3) != 0) TRY(task.mm().CopyOutObject<uint32_t>(a.Pointer(3), message->priority()));
  TRY(task.mm().CopyOutAll(a.Pointer(1), message->text()));
  return message->text().size();
}

Result<uint64_t> MqNotify(Task& task, const SyscallArgs& a) {
  RefPtr<ipc::PosixNotification> notification;
  if (a.Pointer(1) != 0) notification = TRY(MakeNotification(task, a.Pointer(1)));
  RefPtr<QueueDescription> file = TRY(QueueFile(task, a.I32(0)));
  if (notification) {
    TRY(file->queue().Register(std::move(notification)));
  } else {
    file->queue().Unregister(&task.group());
  }
  file->TouchAccessed();
  return 0;
}

Result<uint64_t> MqGetsetattr(Task& task, const SyscallArgs& a) {
  std::optional<mq_attr> next;
  if (a.Pointer(1) != 0) {
    next = TRY(task.mm().CopyInObject<mq_attr>(a.Pointer(1)));
    if ((next->mq_flags & ~long{O_NONBLOCK}) != 0) return Err(EINVAL);
  }
  RefPtr<QueueDescription> file = TRY(QueueFile(task, a.I32(0)));
  mq_attr old = {};
  old.mq_flags = file->flags() & O_NONBLOCK;
  old.mq_maxmsg = file->queue().size().messages;
  old.mq_msgsize = file->queue().size().message_size;
  old.mq_curmsgs = file->queue().messages();
  if (next) {
    TRY(file->SetStatusFlags((file->flags() & ~O_NONBLOCK) | static_cast<int>(next->mq_flags)));
    file->TouchAccessed();
  }
  if (a.Pointer(2) != 0) TRY(task.mm().CopyOutObject(a.Pointer(2), old));
  return 0;
}

}  // namespace redoubt::syscalls
