// ptrace(2): stops for signals and system calls, registers, memory, single steps, and who may trace.
#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/tracee.h"

namespace redoubt::testing {
namespace {

void ContinueToExit(pid_t pid, int code) {
  EXPECT_OK(ptrace(PTRACE_CONT, pid, nullptr, nullptr));
  EXPECT_EQ(Status(pid), code << 8);
}

user_regs_struct Registers(pid_t pid) {
  user_regs_struct regs = {};
  EXPECT_OK(ptrace(PTRACE_GETREGS, pid, nullptr, &regs));
  return regs;
}

TEST(Ptrace, ASignalIsSeenTakenBackAndReplaced) {
  static int caught;
  caught = 0;
  pid_t pid = SpawnTraced([] {
    signal(SIGUSR1, [](int) { caught += 1; });
    signal(SIGUSR2, [](int) { caught += 10; });
    raise(SIGUSR1);  // delivered
    raise(SIGUSR1);  // taken away
    raise(SIGUSR1);  // made another
    return caught;
  });
  EXPECT_OK(ptrace(PTRACE_CONT, pid, nullptr, nullptr));
  EXPECT_EQ(Status(pid), Stop(SIGUSR1));
  EXPECT_OK(ptrace(PTRACE_CONT, pid, nullptr, Data(SIGUSR1)));
  EXPECT_EQ(Status(pid), Stop(SIGUSR1));
  EXPECT_OK(ptrace(PTRACE_CONT, pid, nullptr, nullptr));
  EXPECT_EQ(Status(pid), Stop(SIGUSR1));
  EXPECT_OK(ptrace(PTRACE_CONT, pid, nullptr, Data(SIGUSR2)));
  EXPECT_EQ(Status(pid), 11 << 8);
}

TEST(Ptrace, IgnoredSignalsStopToo) {
  pid_t pid = SpawnTraced([] {
    signal(SIGUSR1, SIG_IGN);
    raise(SIGUSR1);
    raise(SIGCHLD);
    return 3;
  });
  EXPECT_OK(ptrace(PTRACE_CONT, pid, nullptr, nullptr));
  EXPECT_EQ(Status(pid), Stop(SIGUSR1));
  EXPECT_OK(ptrace(PTRACE_CONT, pid, nullptr, Data(SIGUSR1)));
  EXPECT_EQ(Status(pid), Stop(SIGCHLD));
  ContinueToExit(pid, 3);
}

TEST(Ptrace, ABlockedInjectedSignalStaysPending) {
  pid_t pid = SpawnTraced([] {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    raise(SIGUSR1);
    sigpending(&set);
    return sigismember(&set, SIGUSR2) == 1 ? 4 : 5;
  });
  EXPECT_OK(ptrace(PTRACE_CONT, pid, nullptr, nullptr));
  EXPECT_EQ(Status(pid), Stop(SIGUSR1));
  EXPECT_OK(ptrace(PTRACE_CONT, pid, nullptr, Data(SIGUSR2)));
  EXPECT_EQ(Status(pid), 4 << 8);
}

TEST(Ptrace, SigInfoIsReadAndChanged) {
  static int code, value;
  pid_t pid = SpawnTraced([] {
    struct sigaction action = {};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = [](int, siginfo_t* info, void*) {
      code = info->si_code;
      value = info->si_value.sival_int;
    };
    sigaction(SIGUSR1, &action, nullptr);
    sigqueue(getpid(), SIGUSR1, sigval{.sival_int = 41});
    return code == SI_QUEUE && value == 42 ? 6 : 7;
  });
  EXPECT_OK(ptrace(PTRACE_CONT, pid, nullptr, nullptr));
  EXPECT_EQ(Status(pid), Stop(SIGUSR1));
  siginfo_t info = {};
  EXPECT_OK(ptrace(PTRACE_GETSIGINFO, pid, nullptr, &info));
  EXPECT_EQ(info.si_signo, SIGUSR1);
  EXPECT_EQ(info.si_code, SI_QUEUE);
  EXPECT_EQ(info.si_pid, pid);
  EXPECT_EQ(info.si_value.sival_int, 41);
  info.si_value.sival_int = 42;
  EXPECT_OK(ptrace(PTRACE_SETSIGINFO, pid, nullptr, &info));
  EXPECT_OK(ptrace(PTRACE_CONT, pid, nullptr, Data(SIGUSR1)));
  EXPECT_EQ(Status(pid), 6 << 8);
}

TEST(Ptrace, PendingSignalsAreListed) {
  pid_t pid = SpawnTraced([] { return 0; });
  sigset_t mask;
  sigfillset(&mask);
  uint64_t word = ~uint64_t{0};
  EXPECT_ERRNO(ptrace(PTRACE_SETSIGMASK, pid, Data(4), &word), EINVAL);
  EXPECT_OK(ptrace(PTRACE_SETSIGMASK, pid, Data(8), &word));
  uint64_t now = 0;
  EXPECT_OK(ptrace(PTRACE_GETSIGMASK, pid, Data(8), &now));
  EXPECT_EQ(now, ~((uint64_t{1} << (SIGKILL - 1)) | (uint64_t{1} << (SIGSTOP - 1))));
  EXPECT_OK(sigqueue(pid, SIGRTMIN, sigval{.sival_int = 1}));
  EXPECT_OK(sigqueue(pid, SIGRTMIN, sigval{.sival_int = 2}));
  siginfo_t infos[3] = {};
  __ptrace_peeksiginfo_args args = {.off = 0, .flags = PTRACE_PEEKSIGINFO_SHARED, .nr = 3};
  EXPECT_RETURNS(ptrace(PTRACE_PEEKSIGINFO, pid, &args, infos), 2);
  EXPECT_EQ(infos[0].si_value.sival_int, 1);
  EXPECT_EQ(infos[1].si_value.sival_int, 2);
  args.off = 1;
  EXPECT_RETURNS(ptrace(PTRACE_PEEKSIGINFO, pid, &args, infos), 1);
  EXPECT_EQ(infos[0].si_value.sival_int, 2);
  args = {.off = 0, .flags = 0, .nr = 3};
  EXPECT_RETURNS(ptrace(PTRACE_PEEKSIGINFO, pid, &args, infos), 0);
  args.flags = 2;
  EXPECT_ERRNO(ptrace(PTRACE_PEEKSIGINFO, pid, &args, infos), EINVAL);
  args = {.off = 0, .flags = 0, .nr = -1};
  EXPECT_ERRNO(ptrace(PTRACE_PEEKSIGINFO, pid, &args, infos), EINVAL);
  ContinueToExit(pid, 0);
}

TEST(Ptrace, MemoryIsReadAndWritten) {
  static long word = 0x1122334455667788;
  static const long constant = 77;
  pid_t pid = SpawnTraced([] { return word == 5 && *const_cast<const volatile long*>(&constant) == 6 ? 8 : 9; });
  errno = 0;
  EXPECT_EQ(ptrace(PTRACE_PEEKDATA, pid, &word, nullptr), 0x1122334455667788);
  EXPECT_EQ(errno, 0);
  EXPECT_OK(ptrace(PTRACE_POKEDATA, pid, &word, Data(5)));
  EXPECT_EQ(word, 0x1122334455667788) << "its own memory";
  // What it may not write itself.
  EXPECT_OK(ptrace(PTRACE_POKETEXT, pid, &constant, Data(6)));
  EXPECT_EQ(*const_cast<const volatile long*>(&constant), 77);
  EXPECT_ERRNO(ptrace(PTRACE_PEEKDATA, pid, Data(8), nullptr), EIO);
  EXPECT_ERRNO(ptrace(PTRACE_POKEDATA, pid, Data(8), nullptr), EIO);
  ContinueToExit(pid, 8);
}

TEST(Ptrace, RegistersAreReadAndChanged) {
  pid_t pid = SpawnTraced([] {
    long result = 1;
    // The tracer finds rbx at the breakpoint and changes it.
    asm volatile("movq $0x1234567, %%rbx; int3; movq %%rbx, %0" : "=r"(result) : : "rbx");
    return static_cast<int>(result);
  });
  EXPECT_OK(ptrace(PTRACE_CONT, pid, nullptr, nullptr));
  EXPECT_EQ(Status(pid), Stop(SIGTRAP));
  siginfo_t info = {};
  EXPECT_OK(ptrace(PTRACE_GETSIGINFO, pid, nullptr, &info));
  EXPECT_EQ(info.si_code, SI_KERNEL);
  user_regs_struct regs = Registers(pid);
  EXPECT_EQ(regs.rbx, 0x1234567u);
  EXPECT_EQ(regs.cs, 0x33u);
  EXPECT_EQ(regs.ss, 0x2bu);
  EXPECT_EQ(static_cast<int64_t>(regs.orig_rax), -1);
  // int3 is behind rip.
  errno = 0;
  EXPECT_EQ(ptrace(PTRACE_PEEKTEXT, pid, Data(static_cast<long>(regs.rip - 1)), nullptr) & 0xff, 0xcc);
  EXPECT_EQ(static_cast<uint64_t>(ptrace(PTRACE_PEEKUSER, pid, offsetof(user_regs_struct, rbx), nullptr)), 0x1234567u);
  regs.rbx = 10;
  EXPECT_OK(ptrace(PTRACE_SETREGS, pid, nullptr, &regs));
  EXPECT_EQ(Registers(pid).rbx, 10u);
  EXPECT_OK(ptrace(PTRACE_POKEUSER, pid, offsetof(user_regs_struct, rbx), 11));
  EXPECT_ERRNO(ptrace(PTRACE_PEEKUSER, pid, 3, nullptr), EIO);
  EXPECT_ERRNO(ptrace(PTRACE_PEEKUSER, pid, 4096, nullptr), EIO);
  EXPECT_ERRNO(ptrace(PTRACE_POKEUSER, pid, offsetof(user_regs_struct, fs_base), Data(-1)), EIO);
  ContinueToExit(pid, 11);
}

TEST(Ptrace, RegisterSets) {
  pid_t pid = SpawnTraced([] {
    double result = 0;
    asm volatile("movsd %1, %%xmm3; int3; movsd %%xmm3, %0" : "=m"(result) : "m"(*&(const double&)1.5) : "xmm3");
    return result == 2.5 ? 12 : 13;
  });
  EXPECT_OK(ptrace(PTRACE_CONT, pid, nullptr, nullptr));
  EXPECT_EQ(Status(pid), Stop(SIGTRAP));

  user_regs_struct general = {};
  iovec iov = {&general, sizeof(general) + 64};
  EXPECT_OK(ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &iov));
  EXPECT_EQ(iov.iov_len, sizeof(general));
  EXPECT_EQ(general.rip, Registers(pid).rip);
  iov = {&general, 8};
  EXPECT_OK(ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &iov));
  EXPECT_EQ(iov.iov_len, 8u);
  iov = {&general, 7};
  EXPECT_ERRNO(ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &iov), EINVAL);
  iov = {&general, sizeof(general)};
  EXPECT_ERRNO(ptrace(PTRACE_GETREGSET, pid, 0x7777, &iov), EINVAL);

  user_fpregs_struct fp = {};
  EXPECT_OK(ptrace(PTRACE_GETFPREGS, pid, nullptr, &fp));
  double value = 0;
  memcpy(&value, reinterpret_cast<char*>(fp.xmm_space) + 3 * 16, sizeof(value));
  EXPECT_EQ(value, 1.5);
  EXPECT_EQ(fp.mxcsr & 0x1f80, 0x1f80u);

  std::vector<char> state(16384);
  iov = {state.data(), state.size()};
  EXPECT_OK(ptrace(PTRACE_GETREGSET, pid, NT_X86_XSTATE, &iov));
  EXPECT_GE(iov.iov_len, 576u);
  uint64_t components = 0;
  memcpy(&components, &state[464], sizeof(components));
  EXPECT_EQ(components & 3, 3u);
  memcpy(&value, &state[160 + 3 * 16], sizeof(value));
  EXPECT_EQ(value, 1.5);
  value = 2.25;
  memcpy(&state[160 + 3 * 16], &value, sizeof(value));
  EXPECT_OK(ptrace(PTRACE_SETREGSET, pid, NT_X86_XSTATE, &iov));
  EXPECT_OK(ptrace(PTRACE_GETFPREGS, pid, nullptr, &fp));
  memcpy(&value, reinterpret_cast<char*>(fp.xmm_space) + 3 * 16, sizeof(value));
  EXPECT_EQ(value, 2.25);
  value = 2.5;
  memcpy(reinterpret_cast<char*>(fp.xmm_space) + 3 * 16, &value, sizeof(value));
  EXPECT_OK(ptrace(PTRACE_SETFPREGS, pid, nullptr, &fp));
  ContinueToExit(pid, 12);
}

TEST(Ptrace, SystemCallsStopAtEntryAndExit) {
  pid_t pid = SpawnTraced([] {
    syscall(SYS_getppid);
    return 0;
  });
  EXPECT_OK(ptrace(PTRACE_SETOPTIONS, pid, nullptr, PTRACE_O_TRACESYSGOOD));
  bool seen = false;
  for (int i = 0; i < 100 && !seen; i++) {
    EXPECT_OK(ptrace(PTRACE_SYSCALL, pid, nullptr, nullptr));
    ASSERT_EQ(Status(pid), Stop(SIGTRAP | 0x80));
    user_regs_struct regs = Registers(pid);
    if (regs.orig_rax != SYS_getppid) continue;
    seen = true;
    EXPECT_EQ(static_cast<int64_t>(regs.rax), -ENOSYS);
    __ptrace_syscall_info info = {};
    EXPECT_THAT(ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info),
                SyscallReturns(offsetof(__ptrace_syscall_info, entry) + sizeof(info.entry)));
    EXPECT_EQ(info.op, PTRACE_SYSCALL_INFO_ENTRY);
    EXPECT_EQ(info.entry.nr, uint64_t{SYS_getppid});
    EXPECT_EQ(info.instruction_pointer, regs.rip);
    EXPECT_EQ(info.stack_pointer, regs.rsp);
    siginfo_t siginfo = {};
    EXPECT_OK(ptrace(PTRACE_GETSIGINFO, pid, nullptr, &siginfo));
    EXPECT_EQ(siginfo.si_code, SIGTRAP | 0x80);
    EXPECT_OK(ptrace(PTRACE_SYSCALL, pid, nullptr, nullptr));
    ASSERT_EQ(Status(pid), Stop(SIGTRAP | 0x80));
    regs = Registers(pid);
    EXPECT_EQ(regs.orig_rax, uint64_t{SYS_getppid});
    EXPECT_EQ(regs.rax, static_cast<uint64_t>(getpid()));
    EXPECT_OK(ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info));
    EXPECT_EQ(info.op, PTRACE_SYSCALL_INFO_EXIT);
    EXPECT_EQ(info.exit.rval, getpid());
    EXPECT_EQ(info.exit.is_error, 0);
  }
  EXPECT_TRUE(seen);
  ContinueToExit(pid, 0);
}

// Runs the child to the entry of call number `nr`.
void RunToCall(pid_t pid, uint64_t nr, __ptrace_request how = PTRACE_SYSCALL) {
  for (int i = 0; i < 100; i++) {
    ASSERT_OK(ptrace(how, pid, nullptr, nullptr));
    int status = Status(pid);
    ASSERT_TRUE(WIFSTOPPED(status));
    user_regs_struct regs = Registers(pid);
    if (regs.orig_rax == nr && static_cast<int64_t>(regs.rax) == -ENOSYS) return;
  }
  FAIL() << "the call was not made";
}

TEST(Ptrace, ASystemCallIsChangedOrLeftOut) {
  pid_t pid = SpawnTraced([] {
    // The first becomes getpid, of the second the result is the tracer's.
    if (syscall(SYS_getppid) != getpid()) return 1;
    if (syscall(SYS_getppid) != 1234) return 2;
    return 14;
  });
  RunToCall(pid, SYS_getppid);
  EXPECT_OK(ptrace(PTRACE_POKEUSER, pid, offsetof(user_regs_struct, orig_rax), SYS_getpid));
  EXPECT_OK(ptrace(PTRACE_SYSCALL, pid, nullptr, nullptr));
  EXPECT_EQ(Status(pid), Stop(SIGTRAP));
  RunToCall(pid, SYS_getppid);
  EXPECT_OK(ptrace(PTRACE_POKEUSER, pid, offsetof(user_regs_struct, orig_rax), -1));
  EXPECT_OK(ptrace(PTRACE_POKEUSER, pid, offsetof(user_regs_struct, rax), 1234));
  EXPECT_OK(ptrace(PTRACE_SYSCALL, pid, nullptr, nullptr));
  EXPECT_EQ(Status(pid), Stop(SIGTRAP));
  EXPECT_EQ(Registers(pid).rax, 1234u);
  ContinueToExit(pid, 14);
}

TEST(Ptrace, ASignalGivenAtACallsStopIsSent) {
  static int code;
  code = 0;
  pid_t pid = SpawnTraced([] {
    struct sigaction action = {};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = [](int, siginfo_t* info, void*) { code = info->si_code; };
    sigaction(SIGUSR1, &action, nullptr);
    syscall(SYS_getppid);
    return code == SI_KERNEL ? 25 : 26;
  });
  RunToCall(pid, SYS_getppid);
  EXPECT_OK(ptrace(PTRACE_CONT, pid, nullptr, Data(SIGUSR1)));
  // And so there is a stop for it.
  EXPECT_EQ(Status(pid), Stop(SIGUSR1));
  EXPECT_OK(ptrace(PTRACE_CONT, pid, nullptr, Data(SIGUSR1)));
  EXPECT_EQ(Status(pid), 25 << 8);
}

TEST(Ptrace, SysemuMakesNoCall) {
  pid_t pid = SpawnTraced([] { return syscall(SYS_getppid) == 4321 ? 15 : 16; });
  RunToCall(pid, SYS_getppid, PTRACE_SYSEMU);
  EXPECT_OK(ptrace(PTRACE_POKEUSER, pid, offsetof(user_regs_struct, rax), 4321));
  ContinueToExit(pid, 15);
}

TEST(Ptrace, AnInterruptedCallGoesOn) {
  int fds[2];
  ASSERT_OK(pipe(fds));
  pid_t pid = SpawnTraced([&] {
    char c;
    return read(fds[0], &c, 1) == 1 ? c : 17;
  });
  RunToCall(pid, SYS_read);
  EXPECT_OK(ptrace(PTRACE_SYSCALL, pid, nullptr, nullptr));
  ASSERT_TRUE(WaitUntilAsleep(pid, pid));
  EXPECT_OK(kill(pid, SIGWINCH));
  EXPECT_EQ(Status(pid), Stop(SIGTRAP)) << "the call's end";
  EXPECT_EQ(static_cast<int64_t>(Registers(pid).rax), -512) << "ERESTARTSYS";
  EXPECT_OK(ptrace(PTRACE_CONT, pid, nullptr, nullptr));
  EXPECT_EQ(Status(pid), Stop(SIGWINCH));
  // As a debugger does who calls a function in between: what it puts back restarts the call.
  const user_regs_struct saved = Registers(pid);
  EXPECT_EQ(static_cast<int64_t>(saved.rax), -512);
  user_regs_struct other = saved;
  other.orig_rax = ~0ull;
  other.rax = 0;
  EXPECT_OK(ptrace(PTRACE_SETREGS, pid, nullptr, &other));
  EXPECT_OK(ptrace(PTRACE_SETREGS, pid, nullptr, &saved));
  EXPECT_OK(ptrace(PTRACE_CONT, pid, nullptr, Data(SIGWINCH)));
  EXPECT_RETURNS(write(fds[1], "\x12", 1), 1);
  EXPECT_EQ(Status(pid), 0x12 << 8);
  close(fds[0]);
  close(fds[1]);
}

TEST(Ptrace, SingleSteps) {
  pid_t pid = SpawnTraced([] {
    int result = 0;
    asm volatile("int3; xorl %%ecx, %%ecx; incl %%ecx; incl %%ecx; incl %%ecx; movl %%ecx, %0"
                 : "=r"(result)
                 :
                 : "rcx");
    return result;
  });
  EXPECT_OK(ptrace(PTRACE_CONT, pid, nullptr, nullptr));
  EXPECT_EQ(Status(pid), Stop(SIGTRAP));
  const uint64_t start = Registers(pid).rip;
  for (uint64_t n = 0; n < 4; n++) {
    EXPECT_OK(ptrace(PTRACE_SINGLESTEP, pid, nullptr, nullptr));
    EXPECT_EQ(Status(pid), Stop(SIGTRAP));
    siginfo_t info = {};
    EXPECT_OK(ptrace(PTRACE_GETSIGINFO, pid, nullptr, &info));
    EXPECT_EQ(info.si_code, TRAP_TRACE);
    const user_regs_struct regs = Registers(pid);
    EXPECT_EQ(regs.rip, start + 2 * (n + 1));
    EXPECT_EQ(regs.rcx, n);
    EXPECT_EQ(regs.eflags & 0x100, 0u) << "the flag is not shown";
  }
  ContinueToExit(pid, 3);
}

TEST(Ptrace, AStepOverASystemCallEndsBehindIt) {
  pid_t pid = SpawnTraced([] {
    long result = SYS_getppid;
    asm volatile("int3; syscall; nop" : "+a"(result) : : "rcx", "r11");
    return result == getppid() ? 18 : 19;
  });
  EXPECT_OK(ptrace(PTRACE_CONT, pid, nullptr, nullptr));
  EXPECT_EQ(Status(pid), Stop(SIGTRAP));
  const uint64_t start = Registers(pid).rip;
  EXPECT_OK(ptrace(PTRACE_SINGLESTEP, pid, nullptr, nullptr));
  EXPECT_EQ(Status(pid), Stop(SIGTRAP));
  EXPECT_EQ(Registers(pid).rip, start + 2);
  EXPECT_EQ(Registers(pid).rax, static_cast<uint64_t>(getpid()));
  EXPECT_OK(ptrace(PTRACE_SINGLESTEP, pid, nullptr, nullptr));
  EXPECT_EQ(Status(pid), Stop(SIGTRAP));
  EXPECT_EQ(Registers(pid).rip, start + 3);
  ContinueToExit(pid, 18);
}

TEST(Ptrace, AStepIntoAHandlerEndsAtItsFirstInstruction) {
  static volatile int caught;
  caught = 0;
  static const auto handler = +[](int) { caught = 20; };
  pid_t pid = SpawnTraced([] {
    signal(SIGUSR1, handler);
    raise(SIGUSR1);
    return caught;
  });
  EXPECT_OK(ptrace(PTRACE_CONT, pid, nullptr, nullptr));
  EXPECT_EQ(Status(pid), Stop(SIGUSR1));
  EXPECT_OK(ptrace(PTRACE_SINGLESTEP, pid, nullptr, Data(SIGUSR1)));
  EXPECT_EQ(Status(pid), Stop(SIGTRAP));
  EXPECT_EQ(Registers(pid).rip, reinterpret_cast<uint64_t>(handler));
  ContinueToExit(pid, 20);
}

TEST(Ptrace, ABreakpointIsSetAndRemoved) {
  static const auto function = +[](int x) __attribute__((noinline)) { return x + 1; };
  static auto volatile call = function;
  pid_t pid = SpawnTraced([] { return call(20) + call(20); });
  const long addr = reinterpret_cast<long>(function);
  errno = 0;
  const long text = ptrace(PTRACE_PEEKTEXT, pid, Data(addr), nullptr);
  ASSERT_EQ(errno, 0);
  EXPECT_OK(ptrace(PTRACE_POKETEXT, pid, Data(addr), Data((text & ~0xffL) | 0xcc)));
  EXPECT_OK(ptrace(PTRACE_CONT, pid, nullptr, nullptr));
  EXPECT_EQ(Status(pid), Stop(SIGTRAP));
  user_regs_struct regs = Registers(pid);
  EXPECT_EQ(regs.rip, static_cast<uint64_t>(addr + 1));
  EXPECT_EQ(regs.rdi & 0xffffffff, 20u);
  EXPECT_OK(ptrace(PTRACE_POKETEXT, pid, Data(addr), Data(text)));
  regs.rip--;
  EXPECT_OK(ptrace(PTRACE_SETREGS, pid, nullptr, &regs));
  ContinueToExit(pid, 42);
}

size_t DebugRegister(int n) { return offsetof(struct user, u_debugreg) + sizeof(long) * static_cast<size_t>(n); }

TEST(Ptrace, AWatchpointStopsBehindTheWrite) {
  static volatile uint32_t watched;
  static volatile uint32_t other;
  pid_t pid = SpawnTraced([] {
    for (uint32_t i = 0; i < 100; i++) other = other + i;
    watched = 1;
    other = 1;
    watched = 2;
    return 22;
  });
  errno = 0;
  EXPECT_EQ(ptrace(PTRACE_PEEKUSER, pid, DebugRegister(7), nullptr), 0);
  EXPECT_EQ(errno, 0);
  EXPECT_OK(ptrace(PTRACE_POKEUSER, pid, DebugRegister(1), &watched));
  // The second, enabled, of four bytes that are written.
  constexpr long kControl = 1 << 2 | 0b1101L << 20;
  EXPECT_OK(ptrace(PTRACE_POKEUSER, pid, DebugRegister(7), Data(kControl)));
  for (uint32_t value : {1u, 2u}) {
    EXPECT_OK(ptrace(PTRACE_CONT, pid, nullptr, nullptr));
    ASSERT_EQ(Status(pid), Stop(SIGTRAP));
    siginfo_t info = {};
    EXPECT_OK(ptrace(PTRACE_GETSIGINFO, pid, nullptr, &info));
    EXPECT_EQ(info.si_code, TRAP_HWBKPT);
    EXPECT_EQ(ptrace(PTRACE_PEEKUSER, pid, DebugRegister(6), nullptr) & 0xf, 2);
    EXPECT_OK(ptrace(PTRACE_POKEUSER, pid, DebugRegister(6), nullptr));
    errno = 0;
    EXPECT_EQ(static_cast<uint32_t>(ptrace(PTRACE_PEEKDATA, pid, &watched, nullptr)), value);
    EXPECT_EQ(errno, 0);
    EXPECT_EQ(Registers(pid).eflags & 0x100, 0u);
  }
  EXPECT_OK(ptrace(PTRACE_POKEUSER, pid, DebugRegister(7), nullptr));
  ContinueToExit(pid, 22);
}

TEST(Ptrace, AHardwareBreakpointStopsBeforeTheInstruction) {
  static const auto function = +[](int x) __attribute__((noinline)) { return x + 1; };
  static auto volatile call = function;
  pid_t pid = SpawnTraced([] { return call(20) + call(20); });
  EXPECT_OK(ptrace(PTRACE_POKEUSER, pid, DebugRegister(0), function));
  EXPECT_OK(ptrace(PTRACE_POKEUSER, pid, DebugRegister(7), Data(1)));
  for (int i = 0; i < 2; i++) {
    EXPECT_OK(ptrace(PTRACE_CONT, pid, nullptr, nullptr));
    ASSERT_EQ(Status(pid), Stop(SIGTRAP));
    EXPECT_EQ(Registers(pid).rip, reinterpret_cast<uint64_t>(function));
  }
  ContinueToExit(pid, 42);
}

TEST(Ptrace, DebugRegistersAreChecked) {
  pid_t pid = SpawnTraced([] { return 0; });
  EXPECT_ERRNO(ptrace(PTRACE_POKEUSER, pid, DebugRegister(0), Data(-1)), EINVAL);
  EXPECT_ERRNO(ptrace(PTRACE_POKEUSER, pid, DebugRegister(4), nullptr), EIO);
  EXPECT_OK(ptrace(PTRACE_POKEUSER, pid, DebugRegister(0), Data(0x10001)));
  EXPECT_ERRNO(ptrace(PTRACE_POKEUSER, pid, DebugRegister(7), Data(1 | 0b1101L << 16)), EINVAL) << "not aligned";
  EXPECT_ERRNO(ptrace(PTRACE_POKEUSER, pid, DebugRegister(7), Data(1 | 0b0100L << 16)), EINVAL) << "two bytes of text";
  EXPECT_OK(ptrace(PTRACE_KILL, pid, nullptr, nullptr));
  EXPECT_EQ(Status(pid), SIGKILL);
}

TEST(Ptrace, AWatchpointOfATracerThatDiesIsForgotten) {
  static long watched;
  int fds[2];
  ASSERT_OK(pipe(fds));
  pid_t pid = Spawn([&] {
    char c;
    return read(fds[0], &c, 1) == 1 ? 23 : 24;
  });
  ASSERT_TRUE(WaitUntilAsleep(pid, pid));
  EXPECT_EQ(RunChild([&] {
              EXPECT_OK(ptrace(PTRACE_ATTACH, pid, nullptr, nullptr));
              EXPECT_EQ(Status(pid), Stop(SIGSTOP));
              EXPECT_OK(ptrace(PTRACE_POKEUSER, pid, DebugRegister(0), &watched));
              EXPECT_OK(ptrace(PTRACE_POKEUSER, pid, DebugRegister(7), Data(1 | 0b1101L << 16)));
              EXPECT_OK(ptrace(PTRACE_CONT, pid, nullptr, nullptr));
              return 0;
            }),
            0);
  EXPECT_RETURNS(write(fds[1], "", 1), 1);
  EXPECT_EQ(Status(pid), 23 << 8);
  close(fds[0]);
  close(fds[1]);
}

// Steps, calls and breakpoints are of the program's own text, though the system may have made something else of it.
TEST(Ptrace, HotCallsLookAsTheyAre) {
  void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(page, MAP_FAILED);
  auto& made = *static_cast<std::atomic<int>*>(page);
  pid_t pid = Spawn([&] {
    while (true) {
      syscall(SYS_getppid);
      made.fetch_add(1);
    }
    return 0;
  });
  WaitUntil([&] { return made.load() > 1000; });
  ASSERT_OK(ptrace(PTRACE_ATTACH, pid, nullptr, nullptr));
  EXPECT_EQ(Status(pid), Stop(SIGSTOP));
  int calls = 0;
  for (int i = 0; i < 200; i++) {
    user_regs_struct regs = Registers(pid);
    errno = 0;
    const auto text = static_cast<uint64_t>(ptrace(PTRACE_PEEKTEXT, pid, Data(static_cast<long>(regs.rip)), nullptr));
    ASSERT_EQ(errno, 0);
    const bool call = (text & 0xffff) == 0x050f;
    ASSERT_OK(ptrace(PTRACE_SINGLESTEP, pid, nullptr, nullptr));
    ASSERT_EQ(Status(pid), Stop(SIGTRAP));
    if (call) {
      calls++;
      EXPECT_EQ(Registers(pid).rip, regs.rip + 2);
      EXPECT_EQ(Registers(pid).rax, static_cast<uint64_t>(getpid()));
    }
  }
  EXPECT_GT(calls, 0);
  EXPECT_OK(ptrace(PTRACE_KILL, pid, nullptr, nullptr));
  EXPECT_EQ(Status(pid), SIGKILL);
  munmap(page, 4096);
}

TEST(Ptrace, OnlyATracerAsksAndOnlyOfTheStopped) {
  int fds[2];
  ASSERT_OK(pipe(fds));
  pid_t pid = Spawn([&] {
    char c;
    return static_cast<int>(read(fds[0], &c, 1));
  });
  user_regs_struct regs;
  EXPECT_ERRNO(ptrace(PTRACE_GETREGS, pid, nullptr, &regs), ESRCH) << "not traced";
  EXPECT_ERRNO(ptrace(PTRACE_CONT, pid, nullptr, nullptr), ESRCH);
  EXPECT_ERRNO(ptrace(PTRACE_ATTACH, getpid(), nullptr, nullptr), EPERM);
  EXPECT_ERRNO(ptrace(PTRACE_ATTACH, 0x3fffffff, nullptr, nullptr), ESRCH);
  EXPECT_ERRNO(ptrace(PTRACE_SEIZE, pid, 1, nullptr), EIO);
  EXPECT_ERRNO(ptrace(PTRACE_SEIZE, pid, nullptr, Data(1L << 30)), EIO);
  ASSERT_OK(ptrace(PTRACE_SEIZE, pid, nullptr, nullptr));
  EXPECT_ERRNO(ptrace(PTRACE_GETREGS, pid, nullptr, &regs), ESRCH) << "not stopped";
  EXPECT_ERRNO(ptrace(PTRACE_SEIZE, pid, nullptr, nullptr), EPERM) << "traced already";
  EXPECT_ERRNO(ptrace(PTRACE_LISTEN, pid, nullptr, nullptr), ESRCH);
  ASSERT_OK(ptrace(PTRACE_INTERRUPT, pid, nullptr, nullptr));
  EXPECT_EQ(Status(pid), Stop(SIGTRAP | PTRACE_EVENT_STOP << 8));
  EXPECT_ERRNO(ptrace(PTRACE_CONT, pid, nullptr, 65), EIO);
  EXPECT_ERRNO(ptrace(PTRACE_SETOPTIONS, pid, nullptr, Data(1L << 30)), EINVAL);
  EXPECT_ERRNO(ptrace(static_cast<__ptrace_request>(0x7777), pid, nullptr, nullptr), EIO);
  EXPECT_ERRNO(ptrace(PTRACE_GETREGS, pid, nullptr, 8), EFAULT);
  EXPECT_ERRNO(ptrace(PTRACE_SETREGS, pid, nullptr, 8), EFAULT);
  // Another than the tracer.
  EXPECT_EQ(RunChild([&] {
              EXPECT_ERRNO(ptrace(PTRACE_GETREGS, pid, nullptr, &regs), ESRCH);
              EXPECT_ERRNO(ptrace(PTRACE_ATTACH, pid, nullptr, nullptr), EPERM);
              return 0;
            }),
            0);
  EXPECT_OK(ptrace(PTRACE_DETACH, pid, nullptr, nullptr));
  EXPECT_RETURNS(write(fds[1], "", 1), 1);
  EXPECT_EQ(Status(pid), 1 << 8);
  EXPECT_EQ(RunChild([] {
              EXPECT_OK(ptrace(PTRACE_TRACEME, 0, nullptr, nullptr));
              EXPECT_ERRNO(ptrace(PTRACE_TRACEME, 0, nullptr, nullptr), EPERM);
              return 0;
            }),
            0);
  close(fds[0]);
  close(fds[1]);
}

TEST(Ptrace, OthersProcessesAreOutOfReach) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to become another";
  pid_t pid = Spawn([] {
    pause();
    return 0;
  });
  EXPECT_EQ(RunAsNobody([&] {
              EXPECT_ERRNO(ptrace(PTRACE_ATTACH, pid, nullptr, nullptr), EPERM);
              EXPECT_ERRNO(ptrace(PTRACE_SEIZE, pid, nullptr, nullptr), EPERM);
            }),
            0);
  kill(pid, SIGKILL);
  EXPECT_EQ(Status(pid), SIGKILL);
  // Of one's own too, once it is not dumpable.
  EXPECT_EQ(RunAsNobody([] {
              int fds[2];
              ASSERT_OK(pipe(fds));
              pid_t own = Spawn([&] {
                prctl(PR_SET_DUMPABLE, 0);
                EXPECT_RETURNS(write(fds[1], "", 1), 1);
                pause();
                return 0;
              });
              char c;
              EXPECT_RETURNS(read(fds[0], &c, 1), 1);
              EXPECT_ERRNO(ptrace(PTRACE_ATTACH, own, nullptr, nullptr), EPERM);
              kill(own, SIGKILL);
              EXPECT_EQ(Status(own), SIGKILL);
            }),
            0);
}

std::string StatusField(pid_t pid, const std::string& name) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  std::string line;
  while (std::getline(file, line)) {
    if (line.starts_with(name + ":\t")) return line.substr(name.size() + 2);
  }
  return "";
}

TEST(Ptrace, ProcSaysWhoTraces) {
  pid_t pid = SpawnTraced([] { return 0; });
  EXPECT_EQ(StatusField(pid, "TracerPid"), std::to_string(getpid()));
  EXPECT_EQ(StatusField(pid, "State"), "t (tracing stop)");
  EXPECT_OK(ptrace(PTRACE_DETACH, pid, nullptr, nullptr));
  EXPECT_EQ(Status(pid), 0);
}

}  // namespace
}  // namespace redoubt::testing
