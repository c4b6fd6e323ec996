#include "pkg/platform/ptrace/template_unsafe.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pkg/log/log.h"
#include "pkg/platform/bare_process_unsafe.h"
#include "pkg/platform/ptrace/stub_amd64_unsafe.h"
#include "pkg/platform/ptrace/tracee_unsafe.h"

namespace redoubt::platform::ptrace {
namespace {

// Second line of defence: guest system calls are never executed, and these are all that stub code needs. gettimeofday,
// time and getcpu are what the host's vsyscall page does for guest code that calls it.
constexpr int kFilterNr = offsetof(seccomp_data, nr);
constexpr int kFilterArch = offsetof(seccomp_data, arch);
#define ALLOW(number) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
sock_filter g_filter[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kFilterArch),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kFilterNr),
    ALLOW(SYS_mmap),
    ALLOW(SYS_munmap),
    ALLOW(SYS_pause),
    ALLOW(SYS_clone),
    ALLOW(SYS_prctl),
    ALLOW(SYS_exit),
    ALLOW(SYS_restart_syscall),
    ALLOW(SYS_gettimeofday),
    ALLOW(SYS_time),
    ALLOW(SYS_getcpu),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
};
#undef ALLOW

// SAFETY: runs in the child of a fork of a program with threads: raw system calls only, no lock, no allocation. What it
// leaves (stack, libc) is unmapped at its end. The sanitizers would make calls that the filter kills.
[[noreturn, gnu::no_sanitize("address", "undefined")]] void TemplateMain(int memory_fd, int go_fd, pid_t parent) {
  char byte = 0;
  // The parent has attached once the byte comes; end of file says it gave up.
  if (syscall(SYS_read, go_fd, &byte, 1) != 1) syscall(SYS_exit_group, 2);
  if (!BecomeBare(parent, &memory_fd, 1)) syscall(SYS_exit_group, 3);
  if (!MapStubPage()) syscall(SYS_exit_group, 5);
  sock_fprog program{sizeof(g_filter) / sizeof(g_filter[0]), g_filter};
  if (syscall(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) < 0) syscall(SYS_exit_group, 6);
  EnterStub();
}

// Lets it run to the int3 after its munmap, then idle.
Result<> Settle(pid_t pid, int go_fd) {
  TRY(Attach(pid));
  TRY(Continue(pid));
  char byte = 1;
  if (write(go_fd, &byte, 1) != 1) return ErrFromHost();
  for (;;) {
    Stop stop = TRY(WaitStop(pid));
    if (stop.event() == 0 && stop.signal() == SIGTRAP) break;
    TRY(Continue(pid));
  }
  Registers regs = TRY(GetRegisters(pid));
  if (regs.rax != 0) {
    LOG_ERROR("the stub template could not unmap the Sentry's memory: {}", Errno(-static_cast<int>(regs.rax)).name());
    return Err(EINVAL);
  }
  TRY(SetRegisters(pid, StubRegisters(StubIdle())));
  // The int3 has unblocked SIGTRAP.
  TRY(SetSignalMask(pid, ~uint64_t{0}));
  return Detach(pid);
}

}  // namespace

Result<pid_t> SpawnTemplate(int memory_fd) {
  int go[2];
  if (pipe2(go, O_CLOEXEC) < 0) return ErrFromHost();
  pid_t parent = getpid();
  // SAFETY: fork without libc's handlers. No exit signal, so that nothing but a wait that names it hears of it.
  long pid = syscall(SYS_clone, 0, 0, 0, 0, 0);
  if (pid == 0) {
    syscall(SYS_close, go[1]);
    TemplateMain(memory_fd, go[0], parent);
  }
  if (pid < 0) {
    std::unexpected<Errno> error = ErrFromHost();
    close(go[0]);
    close(go[1]);
    return error;
  }
  close(go[0]);
  Result<> settled = Settle(static_cast<pid_t>(pid), go[1]);
  close(go[1]);
  if (!settled) {
    kill(static_cast<pid_t>(pid), SIGKILL);
    Reap(static_cast<pid_t>(pid));
    return Err(settled.error());
  }
  return static_cast<pid_t>(pid);
}

}  // namespace redoubt::platform::ptrace
