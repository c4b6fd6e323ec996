#include "pkg/platform/bare_process_unsafe.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace redoubt::platform {
namespace {

constexpr int kMaxFds = 8;
// Above all that are renumbered to.
constexpr int kHighFd = 64;

}  // namespace

bool BecomeBare(pid_t parent, const int* fds, int count) {
  syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (syscall(SYS_getppid) != parent) return false;
  syscall(SYS_prctl, PR_SET_NAME, "redoubt-stub", 0, 0, 0);
  if (syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return false;
  // Signals sent from outside are to do nothing. The default action would kill: the host asks only whether the leader
  // is traced before it takes the short way. Exceptions are forced through all the same.
  uint64_t blocked = ~uint64_t{0};
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &blocked, nullptr, sizeof(blocked));
  KernelSigaction action;
  for (int signal = 1; signal <= 64; signal++) syscall(SYS_rt_sigaction, signal, &action, nullptr, sizeof(uint64_t));
  stack_t no_stack{};
  no_stack.ss_flags = SS_DISABLE;
  syscall(SYS_sigaltstack, &no_stack, nullptr);
  syscall(SYS_setsid);
  syscall(SYS_chdir, "/");
  rlimit no_core{0, 0};
  syscall(SYS_setrlimit, RLIMIT_CORE, &no_core);
  int high[kMaxFds];
  for (int i = 0; i < count; i++) {
    high[i] = static_cast<int>(syscall(SYS_fcntl, fds[i], F_DUPFD, kHighFd));
    if (high[i] < 0) return false;
  }
  for (int i = 0; i < count; i++) {
    if (syscall(SYS_dup2, high[i], i) != i) return false;
  }
  if (syscall(SYS_close_range, count, ~0u, 0) < 0) {
    rlimit files{};
    syscall(SYS_getrlimit, RLIMIT_NOFILE, &files);
    for (rlim_t fd = count; fd < files.rlim_max; fd++) syscall(SYS_close, fd);
  }
  // The kernel writes to what is registered; all of it is about to be unmapped.
  syscall(SYS_set_robust_list, nullptr, 3 * sizeof(void*));
  syscall(SYS_set_tid_address, nullptr);
  if (__rseq_size > 0) {
    char* area = static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset;
    constexpr int kUnregister = 1;
    // glibc registers the ABI's first 32 bytes whatever size it advertises.
    if (syscall(SYS_rseq, area, 32, kUnregister, RSEQ_SIG) < 0)
      syscall(SYS_rseq, area, __rseq_size, kUnregister, RSEQ_SIG);
  }
  return true;
}

}  // namespace redoubt::platform
