// seccomp(2).
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#include "pkg/sentry/seccomp/seccomp_filter.h"
#include "pkg/sentry/syscalls/common.h"
#include "pkg/sentry/syscalls/handlers.h"
#include "pkg/sentry/syscalls/seccomp_notify.h"

namespace redoubt::syscalls {
namespace {

constexpr uint64_t kFilterFlags = SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_LOG | SECCOMP_FILTER_FLAG_SPEC_ALLOW |
                                  SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_TSYNC_ESRCH |
                                  SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;

// struct sock_fprog as the guest has it.
struct FilterProgram {
  uint16_t length;
  uint16_t padding[3];
  uint64_t code;
};

Result<uint64_t> AddFilter(Task& task, uint64_t flags, Addr addr) {
  if ((flags & ~kFilterFlags) != 0) return Err(EINVAL);
  const bool listens = (flags & SECCOMP_FILTER_FLAG_NEW_LISTENER) != 0;
  const bool all_threads = (flags & SECCOMP_FILTER_FLAG_TSYNC) != 0;
  const bool killable = (flags & SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) != 0;
  if (killable && !listens) return Err(EINVAL);
  // Both have something to return: the descriptor, and the thread that is in the way.
  if (listens && all_threads && (flags & SECCOMP_FILTER_FLAG_TSYNC_ESRCH) == 0) return Err(EINVAL);
  FilterProgram program = TRY(task.mm().CopyInObject<FilterProgram>(addr));
  if (program.length == 0 || program.length > bpf::kMaxInstructions) return Err(EINVAL);
  if (!task.no_new_privs.load() && !task.creds().HasCapability(CAP_SYS_ADMIN)) return Err(EACCES);
  std::vector<sock_filter> code = TRY(task.mm().CopyInVector<sock_filter>(program.code, program.length));
  RefPtr<SeccompFilter> filter = TRY(SeccompFilter::Create(code, (flags & SECCOMP_FILTER_FLAG_LOG) != 0));
  int listener_fd = -1;
  if (listens) {
    RefPtr<SeccompListener> listener = MakeRef<SeccompListener>(killable ? SeccompListener::Wait::kKillableOnceReceived
                                                                         : SeccompListener::Wait::kInterruptible);
    filter->SetListener(listener);
    // First, since a filter that is in force stays.
    listener_fd = TRY(task.InstallFd(MakeRef<SeccompNotifyDescription>(std::move(listener)), true));
  }
  Result<int> added = task.AddSeccompFilter(std::move(filter), all_threads);
  if (added && *added == 0) return static_cast<uint64_t>(listens ? listener_fd : 0);
  if (listens) (void)task.fds().Close(listener_fd);
  if (!added) return Err(added.error());
  if ((flags & SECCOMP_FILTER_FLAG_TSYNC_ESRCH) != 0) return Err(ESRCH);
  return static_cast<uint64_t>(*added);
}

Result<uint64_t> IsActionAvailable(Task& task, Addr addr) {
  switch (TRY(task.mm().CopyInObject<uint32_t>(addr))) {
    case SECCOMP_RET_KILL_PROCESS:
    case SECCOMP_RET_KILL_THREAD:
    case SECCOMP_RET_TRAP:
    case SECCOMP_RET_ERRNO:
    case SECCOMP_RET_USER_NOTIF:
    case SECCOMP_RET_TRACE:
    case SECCOMP_RET_LOG:
    case SECCOMP_RET_ALLOW:
      return 0;
    default:
      return Err(EOPNOTSUPP);
  }
}

}  // namespace

Result<uint64_t> Seccomp(Task& task, const SyscallArgs& a) {
  const uint64_t flags = a.U32(1);
  switch (a.U32(0)) {
    case SECCOMP_SET_MODE_STRICT:
      if (flags != 0 || a.Pointer(2) != 0) return Err(EINVAL);
      TRY(task.EnterSeccompStrict());
      return 0;
    case SECCOMP_SET_MODE_FILTER:
      return AddFilter(task, flags, a.Pointer(2));
    case SECCOMP_GET_ACTION_AVAIL:
      if (flags != 0) return Err(EINVAL);
      return IsActionAvailable(task, a.Pointer(2));
    case SECCOMP_GET_NOTIF_SIZES: {
      if (flags != 0) return Err(EINVAL);
      const seccomp_notif_sizes sizes{.seccomp_notif = sizeof(seccomp_notif),
                                      .seccomp_notif_resp = sizeof(seccomp_notif_resp),
                                      .seccomp_data = sizeof(seccomp_data)};
      TRY(task.mm().CopyOutObject(a.Pointer(2), sizes));
      return 0;
    }
    default:
      return Err(EINVAL);
  }
}

}  // namespace redoubt::syscalls
