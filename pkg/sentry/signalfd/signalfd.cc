#include "pkg/sentry/signalfd/signalfd.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/signalfd.h>

#include <cstring>

#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/vfs/anon_inode.h"

namespace redoubt::signalfd {
namespace {

signalfd_siginfo Convert(const siginfo_t& info) {
  signalfd_siginfo out;
  std::memset(&out, 0, sizeof(out));
  out.ssi_signo = info.si_signo;
  out.ssi_errno = info.si_errno;
  out.ssi_code = info.si_code;
  if (info.si_code == SI_TIMER) {
    out.ssi_tid = info.si_timerid;
    out.ssi_overrun = info.si_overrun;
    out.ssi_int = info.si_int;
    out.ssi_ptr = reinterpret_cast<uint64_t>(info.si_ptr);
  } else if (info.si_signo == SIGCHLD) {
    out.ssi_pid = info.si_pid;
    out.ssi_uid = info.si_uid;
    out.ssi_status = info.si_status;
    out.ssi_utime = info.si_utime;
    out.ssi_stime = info.si_stime;
  } else if ((SignalBit(info.si_signo) & kSynchronous) != 0 && info.si_code > 0) {
    out.ssi_addr = reinterpret_cast<uint64_t>(info.si_addr);
  } else {
    out.ssi_pid = info.si_pid;
    out.ssi_uid = info.si_uid;
    out.ssi_int = info.si_int;
    out.ssi_ptr = reinterpret_cast<uint64_t>(info.si_ptr);
  }
  return out;
}

}  // namespace

SignalFd::SignalFd(RefPtr<kernel::ThreadGroup> group, SignalSet mask, int flags)
    : FileDescription(vfs::MakeAnonymousPath("anon_inode:[signalfd]"), O_RDWR | flags),
      group_(std::move(group)),
      mask_(mask) {}

void SignalFd::SetMask(SignalSet mask) {
  mask_.store(mask);
  group_->signal_queue.Notify(waiter::kIn);
}

std::string SignalFd::FdInfo() { return fmt::format("sigmask:\t{:016x}\n", mask_.load()); }

Result<size_t> SignalFd::Read(IoSequence& dst, vfs::IoFlags) {
  if (dst.remaining() < sizeof(signalfd_siginfo)) return Err(EINVAL);
  kernel::Task* task = kernel::Task::Current();
  if (task == nullptr) return Err(EAGAIN);
  size_t total = 0;
  while (dst.remaining() >= sizeof(signalfd_siginfo)) {
    Result<siginfo_t> info = task->TakeSignal(mask_.load());
    if (!info) {
      if (total == 0) return Err(info.error());
      break;
    }
    signalfd_siginfo out = Convert(*info);
    total += TRY(dst.CopyOut(std::as_bytes(std::span(&out, 1))));
  }
  return total;
}

waiter::EventMask SignalFd::Readiness(waiter::EventMask mask) {
  kernel::Task* task = kernel::Task::Current();
  SignalSet pending = 0;
  if (task != nullptr && &task->group() == group_.get()) {
    pending = task->PendingSet();
  } else {
    sync::MutexLock lock(group_->kernel().mu);
    pending = group_->pending.set();
  }
  return (pending & mask_.load()) != 0 ? mask & (waiter::kIn | waiter::kRdNorm) : 0;
}

RefPtr<vfs::FileDescription> Make(SignalSet mask, int flags) {
  return MakeRef<SignalFd>(kernel::Task::Current()->group_ref(), mask, flags);
}

}  // namespace redoubt::signalfd
