// Filters of system calls: seccomp(2), prctl(2) PR_SET_SECCOMP, and what proc(5) tells of them. Filters cannot be taken
// off, so every one is in a child.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/ucontext.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"

namespace redoubt::testing {
namespace {

using Code = std::vector<sock_filter>;

// A call that the tests make of themselves only.
constexpr uint32_t kCall = SYS_getpgid;
long MakeCall() { return syscall(kCall, 0); }

constexpr sock_filter Load(size_t offset) { return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset)); }
constexpr sock_filter Return(uint32_t value) { return BPF_STMT(BPF_RET | BPF_K, value); }
constexpr size_t kNumber = offsetof(seccomp_data, nr);
constexpr size_t Argument(int i) { return offsetof(seccomp_data, args) + sizeof(uint64_t) * static_cast<size_t>(i); }

// `action` for the call, all others are allowed.
Code For(uint32_t call, uint32_t action) {
  return {Load(kNumber), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1), Return(action), Return(SECCOMP_RET_ALLOW)};
}
// The call's error number is 12 bits of that word.
Code Show(uint32_t call, size_t offset, uint32_t shift) {
  return {Load(kNumber),
          BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 1, 0),
          Return(SECCOMP_RET_ALLOW),
          Load(offset),
          BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, shift),
          BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xfff),
          BPF_STMT(BPF_ALU | BPF_OR | BPF_K, SECCOMP_RET_ERRNO),
          BPF_STMT(BPF_RET | BPF_A, 0)};
}

long Seccomp(unsigned operation, unsigned long flags, const void* arguments) {
  return syscall(SYS_seccomp, operation, flags, arguments);
}
long Install(Code code, unsigned long flags = 0) {
  sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
  return Seccomp(SECCOMP_SET_MODE_FILTER, flags, &program);
}

// The wait(2) status of a child that has the filter and then runs the body.
int Under(const Code& code, const std::function<int()>& body) {
  return RunChild([&] {
    const rlimit no_core{0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    EXPECT_OK(Install(code));
    return body();
  });
}
bool DiedOf(int status, int sig) { return WIFSIGNALED(status) && WTERMSIG(status) == sig; }

std::string StatusField(const std::string& name) {
  std::ifstream in("/proc/thread-self/status");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(name + ":\t")) return line.substr(name.size() + 2);
  }
  return "none";
}

// --- strict mode

TEST(SeccompStrict, ReadWriteAndExitAreLeft) {
  EXPECT_EQ(RunChild([] {
              int fds[2];
              EXPECT_OK(pipe(fds));
              EXPECT_OK(Seccomp(SECCOMP_SET_MODE_STRICT, 0, nullptr));
              char c = 'x';
              if (write(fds[1], &c, 1) != 1 || read(fds[0], &c, 1) != 1) syscall(SYS_exit, 1);
              syscall(SYS_exit, 0);
              return 2;
            }),
            0);
}

TEST(SeccompStrict, AnyOtherCallKills) {
  for (long call : {SYS_getpid, SYS_exit_group, SYS_close, SYS_prctl}) {
    EXPECT_TRUE(DiedOf(RunChild([&] {
                         EXPECT_OK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0));
                         syscall(call, 0);
                         syscall(SYS_exit, 0);
                         return 0;
                       }),
                       SIGKILL))
        << call;
  }
}

TEST(SeccompStrict, SignalHandlersReturn) {
  EXPECT_EQ(RunChild([] {
              signal(SIGSEGV, [](int) { signal(SIGSEGV, SIG_DFL); });
              struct sigaction action{};
              action.sa_sigaction = [](int, siginfo_t*, void* context) {
                auto* uc = static_cast<ucontext_t*>(context);
                uc->uc_mcontext.gregs[REG_RIP] += 2;  // ud2
              };
              action.sa_flags = SA_SIGINFO;
              EXPECT_OK(sigaction(SIGILL, &action, nullptr));
              EXPECT_OK(Seccomp(SECCOMP_SET_MODE_STRICT, 0, nullptr));
              asm volatile("ud2");
              syscall(SYS_exit, 0);
              return 1;
            }),
            0);
}

TEST(SeccompStrict, TakesNoFlagsAndNoArguments) {
  int x = 0;
  EXPECT_ERRNO(Seccomp(SECCOMP_SET_MODE_STRICT, 1, nullptr), EINVAL);
  EXPECT_ERRNO(Seccomp(SECCOMP_SET_MODE_STRICT, 0, &x), EINVAL);
}

TEST(SeccompStrict, DoesNotFollowUponFilters) {
  EXPECT_EQ(Under(For(kCall, SECCOMP_RET_ERRNO | 1),
                  [] {
                    EXPECT_ERRNO(Seccomp(SECCOMP_SET_MODE_STRICT, 0, nullptr), EINVAL);
                    return 0;
                  }),
            0);
}

// --- who may add which filter

TEST(SeccompFilter, NeedsPrivilegeOrNoNewPrivs) {
  EXPECT_EQ(RunAsNobody([] {
              EXPECT_ERRNO(Install(For(kCall, SECCOMP_RET_ERRNO | 1)), EACCES);
              EXPECT_OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
              EXPECT_OK(Install(For(kCall, SECCOMP_RET_ERRNO | EXDEV)));
              EXPECT_ERRNO(MakeCall(), EXDEV);
            }),
            0);
}

TEST(SeccompFilter, BadArgumentsAreRefused) {
  Code code = For(kCall, SECCOMP_RET_ALLOW);
  sock_fprog program{0, code.data()};
  EXPECT_ERRNO(Seccomp(SECCOMP_SET_MODE_FILTER, 0, &program), EINVAL);
  program.len = BPF_MAXINSNS + 1;
  EXPECT_ERRNO(Seccomp(SECCOMP_SET_MODE_FILTER, 0, &program), EINVAL);
  EXPECT_ERRNO(Seccomp(SECCOMP_SET_MODE_FILTER, 0, reinterpret_cast<void*>(16)), EFAULT);
  program = {4, reinterpret_cast<sock_filter*>(16)};
  EXPECT_ERRNO(Seccomp(SECCOMP_SET_MODE_FILTER, 0, &program), EFAULT);
  program = {4, code.data()};
  EXPECT_ERRNO(Seccomp(SECCOMP_SET_MODE_FILTER, 1u << 20, &program), EINVAL);
  EXPECT_ERRNO(Seccomp(99, 0, &program), EINVAL);
  EXPECT_ERRNO(prctl(PR_SET_SECCOMP, 99, &program, 0, 0), EINVAL);
}

TEST(SeccompFilter, BadProgramsAreRefused) {
  EXPECT_ERRNO(Install({Load(kNumber)}), EINVAL);
  EXPECT_ERRNO(Install({Load(1), Return(0)}), EINVAL);
  EXPECT_ERRNO(Install({Load(sizeof(seccomp_data)), Return(0)}), EINVAL);
  EXPECT_ERRNO(Install({BPF_STMT(BPF_JMP | BPF_JA, 1), Return(0)}), EINVAL);
  EXPECT_ERRNO(Install({BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0), Return(0)}), EINVAL);
  EXPECT_ERRNO(Install({BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 0), Return(0)}), EINVAL);
  EXPECT_ERRNO(Install({BPF_STMT(BPF_LD | BPF_MEM, 0), Return(0)}), EINVAL);
}

TEST(SeccompFilter, AllTogetherAreBounded) {
  EXPECT_EQ(RunChild([] {
              const Code code(BPF_MAXINSNS, Return(SECCOMP_RET_ALLOW));
              int n = 0;
              while (n < 64 && Install(code) == 0) n++;
              EXPECT_EQ(errno, ENOMEM);
              EXPECT_GE(n, 2);
              EXPECT_LE(n, 8);
              // A small one still fits or not, but nothing else has changed.
              EXPECT_OK(MakeCall());
              return 0;
            }),
            0);
}

// --- what a filter sees

TEST(SeccompFilter, SeesTheArguments) {
  for (int i = 0; i < 6; i++) {
    for (uint32_t half : {0u, 4u}) {
      EXPECT_EQ(Under(Show(kCall, Argument(i) + half, 8),
                      [&] {
                        uint64_t a[6] = {};
                        a[i] = uint64_t{0xabc12} << (half * 8);
                        EXPECT_ERRNO(syscall(kCall, a[0], a[1], a[2], a[3], a[4], a[5]), 0xabc);
                        return 0;
                      }),
                0);
    }
  }
}

TEST(SeccompFilter, SeesTheArchitecture) {
  EXPECT_EQ(Under(Show(kCall, offsetof(seccomp_data, arch), 0),
                  [] {
                    EXPECT_ERRNO(MakeCall(), static_cast<int>(AUDIT_ARCH_X86_64 & 0xfff));
                    return 0;
                  }),
            0);
}

TEST(SeccompFilter, SeesNumbersThatAreNoCalls) {
  EXPECT_EQ(Under(For(1000, SECCOMP_RET_ERRNO | EXDEV),
                  [] {
                    EXPECT_ERRNO(syscall(1000), EXDEV);
                    EXPECT_ERRNO(syscall(1001), ENOSYS);
                    return 0;
                  }),
            0);
}

// Often, so that a platform that makes frequent calls cheaper does so.
TEST(SeccompFilter, SeesTheInstructionPointerBehindTheCall) {
  for (uint32_t shift : {0u, 12u}) {
    EXPECT_EQ(Under(Show(kCall, offsetof(seccomp_data, instruction_pointer), shift),
                    [&] {
                      for (int i = 0; i < 2000; i++) {
                        long result;
                        uint64_t behind;
                        asm volatile(
                            "lea 1f(%%rip), %1\n"
                            "mov %2, %%eax\n"
                            "syscall\n"
                            "1: cmp $-4095, %%rax\n"
                            : "=&a"(result), "=&r"(behind)
                            : "i"(kCall), "D"(0)
                            : "rcx", "r11", "memory");
                        EXPECT_EQ(-result, static_cast<long>(behind >> shift & 0xfff)) << i;
                      }
                      return 0;
                    }),
              0);
  }
}

TEST(SeccompFilter, DecidesByAnArgument) {
  const Code code = {Load(kNumber),
                     BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_dup, 0, 3),
                     Load(Argument(0)),
                     BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 1),
                     Return(SECCOMP_RET_ERRNO | EXDEV),
                     Return(SECCOMP_RET_ALLOW)};
  EXPECT_EQ(Under(code,
                  [] {
                    EXPECT_OK(dup(0));
                    EXPECT_ERRNO(dup(1), EXDEV);
                    EXPECT_OK(dup(0));
                    return 0;
                  }),
            0);
}

// --- actions

TEST(SeccompAction, ErrnoIsReturnedAndTheCallNotMade) {
  EXPECT_EQ(Under(For(SYS_setpgid, SECCOMP_RET_ERRNO | EXDEV),
                  [] {
                    EXPECT_ERRNO(setpgid(0, 0), EXDEV);
                    EXPECT_NE(getpgrp(), getpid());
                    return 0;
                  }),
            0);
}

TEST(SeccompAction, ErrnoZeroIsSuccess) {
  EXPECT_EQ(Under(For(SYS_setpgid, SECCOMP_RET_ERRNO),
                  [] {
                    EXPECT_RETURNS(setpgid(0, 0), 0);
                    EXPECT_NE(getpgrp(), getpid());
                    return 0;
                  }),
            0);
}

TEST(SeccompAction, ErrnoIsAtMost4095) {
  EXPECT_EQ(Under(For(kCall, SECCOMP_RET_ERRNO | 0xffff),
                  [] {
                    EXPECT_ERRNO(MakeCall(), 4095);
                    return 0;
                  }),
            0);
}

TEST(SeccompAction, LogAllows) {
  EXPECT_EQ(Under(For(kCall, SECCOMP_RET_LOG),
                  [] {
                    EXPECT_RETURNS(MakeCall(), getpgrp());
                    return 0;
                  }),
            0);
}

TEST(SeccompAction, WithoutATracerTraceIsEnosys) {
  EXPECT_EQ(Under(For(kCall, SECCOMP_RET_TRACE | 7),
                  [] {
                    EXPECT_ERRNO(MakeCall(), ENOSYS);
                    return 0;
                  }),
            0);
}

TEST(SeccompAction, WithoutAListenerUserNotifIsEnosys) {
  EXPECT_EQ(Under(For(kCall, SECCOMP_RET_USER_NOTIF),
                  [] {
                    EXPECT_ERRNO(MakeCall(), ENOSYS);
                    return 0;
                  }),
            0);
}

TEST(SeccompAction, UnknownOnesKill) {
  EXPECT_TRUE(DiedOf(Under(For(kCall, 0x00010000), [] { return static_cast<int>(MakeCall()) * 0; }), SIGSYS));
}

TEST(SeccompAction, KillProcessAndKillThreadOfTheOnlyOneAreDeathBySigsys) {
  for (uint32_t action : {SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD}) {
    EXPECT_TRUE(DiedOf(Under(For(kCall, action),
                             [] {
                               // Nobody is asked.
                               signal(SIGSYS, SIG_IGN);
                               MakeCall();
                               return 0;
                             }),
                       SIGSYS));
  }
}

TEST(SeccompAction, KillProcessInAThreadEndsTheProcess) {
  EXPECT_TRUE(DiedOf(Under(For(kCall, SECCOMP_RET_KILL_PROCESS),
                           [] {
                             std::thread([] { MakeCall(); }).join();
                             return 0;
                           }),
                     SIGSYS));
}

TEST(SeccompAction, KillThreadEndsOneThread) {
  EXPECT_EQ(Under(For(kCall, SECCOMP_RET_KILL_THREAD),
                  [] {
                    std::atomic<pid_t> tid = 0;
                    std::thread t([&] {
                      tid = gettid();
                      MakeCall();
                      _exit(1);
                    });
                    WaitUntil([&] { return tid != 0 && syscall(SYS_tgkill, getpid(), tid.load(), 0) != 0; });
                    t.join();
                    return 0;
                  }),
            0);
}

siginfo_t trap_info;
greg_t trap_rax, trap_rip;
void OnTrap(int, siginfo_t* info, void* context) {
  trap_info = *info;
  auto* uc = static_cast<ucontext_t*>(context);
  trap_rax = uc->uc_mcontext.gregs[REG_RAX];
  trap_rip = uc->uc_mcontext.gregs[REG_RIP];
  uc->uc_mcontext.gregs[REG_RAX] = 1234;
}
void HandleTraps() {
  struct sigaction action{};
  action.sa_sigaction = OnTrap;
  action.sa_flags = SA_SIGINFO;
  EXPECT_OK(sigaction(SIGSYS, &action, nullptr));
}

TEST(SeccompAction, TrapTellsTheHandlerWhichCallItWas) {
  EXPECT_EQ(Under(For(kCall, SECCOMP_RET_TRAP | 77),
                  [] {
                    HandleTraps();
                    for (int i = 0; i < 200; i++) {
                      trap_info = {};
                      // What the handler leaves in rax is the result.
                      EXPECT_EQ(MakeCall(), 1234);
                      EXPECT_EQ(trap_info.si_signo, SIGSYS);
                      EXPECT_EQ(trap_info.si_code, 1 /* SYS_SECCOMP */);
                      EXPECT_EQ(trap_info.si_errno, 77);
                      EXPECT_EQ(trap_info.si_syscall, static_cast<int>(kCall));
                      EXPECT_EQ(trap_info.si_arch, static_cast<unsigned>(AUDIT_ARCH_X86_64));
                      EXPECT_EQ(trap_info.si_call_addr, reinterpret_cast<void*>(trap_rip));
                      EXPECT_EQ(trap_rax, static_cast<greg_t>(kCall));
                    }
                    return 0;
                  }),
            0);
}

TEST(SeccompAction, TrapKillsWhoHasNoHandlerOrDoesNotWantIt) {
  const auto call = [] {
    MakeCall();
    return 0;
  };
  EXPECT_TRUE(DiedOf(Under(For(kCall, SECCOMP_RET_TRAP), call), SIGSYS));
  EXPECT_TRUE(DiedOf(Under(For(kCall, SECCOMP_RET_TRAP),
                           [&] {
                             signal(SIGSYS, SIG_IGN);
                             return call();
                           }),
                     SIGSYS));
  EXPECT_TRUE(DiedOf(Under(For(kCall, SECCOMP_RET_TRAP),
                           [&] {
                             HandleTraps();
                             sigset_t set;
                             sigemptyset(&set);
                             sigaddset(&set, SIGSYS);
                             EXPECT_OK(sigprocmask(SIG_BLOCK, &set, nullptr));
                             return call();
                           }),
                     SIGSYS));
}

// --- several filters

TEST(SeccompFilters, TheStrictestActionCounts) {
  // In the order of their precedence, of those that a process survives.
  constexpr uint32_t kActions[] = {SECCOMP_RET_TRAP, SECCOMP_RET_ERRNO | EXDEV, SECCOMP_RET_TRACE, SECCOMP_RET_ALLOW};
  for (size_t i = 0; i < std::size(kActions); i++) {
    for (size_t j = 0; j < std::size(kActions); j++) {
      EXPECT_EQ(Under(For(kCall, kActions[i]),
                      [&] {
                        HandleTraps();
                        EXPECT_OK(Install(For(kCall, kActions[j])));
                        const long result = MakeCall();
                        switch (std::min(i, j)) {
                          case 0:
                            EXPECT_EQ(result, 1234);
                            break;
                          case 1:
                            EXPECT_ERRNO(result, EXDEV);
                            break;
                          case 2:
                            EXPECT_ERRNO(result, ENOSYS);
                            break;
                          default:
                            EXPECT_EQ(result, getpgrp());
                        }
                        return 0;
                      }),
                0)
          << i << " " << j;
    }
  }
}

TEST(SeccompFilters, OfEqualActionsTheNewestCounts) {
  EXPECT_EQ(Under(For(kCall, SECCOMP_RET_ERRNO | EXDEV),
                  [] {
                    EXPECT_OK(Install(For(kCall, SECCOMP_RET_ERRNO | ELOOP)));
                    EXPECT_ERRNO(MakeCall(), ELOOP);
                    return 0;
                  }),
            0);
}

TEST(SeccompFilters, ManyWork) {
  EXPECT_EQ(
      RunChild([] {
        for (int i = 0; i < 200; i++) {
          EXPECT_OK(Install(For(static_cast<uint32_t>(1000 + i), SECCOMP_RET_ERRNO | static_cast<uint32_t>(i + 1))));
        }
        for (int i = 0; i < 200; i++) EXPECT_ERRNO(syscall(1000 + i), i + 1);
        EXPECT_EQ(StatusField("Seccomp_filters"), "200");
        return 0;
      }),
      0);
}

// --- who has them

TEST(SeccompInheritance, ChildrenHaveThem) {
  EXPECT_EQ(Under(For(kCall, SECCOMP_RET_ERRNO | EXDEV),
                  [] {
                    EXPECT_EQ(RunChild([] {
                                EXPECT_ERRNO(MakeCall(), EXDEV);
                                EXPECT_OK(Install(For(SYS_getsid, SECCOMP_RET_ERRNO | ELOOP)));
                                EXPECT_ERRNO(getsid(0), ELOOP);
                                return 0;
                              }),
                              0);
                    // The child's own are its own.
                    EXPECT_OK(getsid(0));
                    return 0;
                  }),
            0);
}

TEST(SeccompInheritance, TheyOutliveExecve) {
  EXPECT_EQ(Under(For(kCall, SECCOMP_RET_ERRNO | EXDEV),
                  [] {
                    execl("/bin/grep", "grep", "-q", "^Seccomp_filters:.1$", "/proc/self/status", nullptr);
                    return 1;
                  }),
            0);
}

TEST(SeccompInheritance, NewThreadsHaveThemAndOldOnesHaveNot) {
  EXPECT_EQ(RunChild([] {
              std::atomic<int> step = 0;
              std::thread old([&] {
                WaitUntil([&] { return step == 1; });
                EXPECT_OK(MakeCall());
                EXPECT_EQ(StatusField("Seccomp"), "0");
              });
              EXPECT_OK(Install(For(kCall, SECCOMP_RET_ERRNO | EXDEV)));
              step = 1;
              std::thread([] { EXPECT_ERRNO(MakeCall(), EXDEV); }).join();
              old.join();
              EXPECT_ERRNO(MakeCall(), EXDEV);
              return 0;
            }),
            0);
}

TEST(SeccompTsync, GivesThemToAllThreads) {
  EXPECT_EQ(RunAsNobody([] {
              std::atomic<int> step = 0;
              std::thread old([&] {
                EXPECT_OK(MakeCall());
                step = 1;
                WaitUntil([&] { return step == 2; });
                EXPECT_ERRNO(MakeCall(), EXDEV);
                EXPECT_EQ(StatusField("Seccomp"), "2");
                // What entitles the one to it is passed on.
                EXPECT_RETURNS(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
              });
              WaitUntil([&] { return step == 1; });
              EXPECT_OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
              EXPECT_RETURNS(Install(For(kCall, SECCOMP_RET_ERRNO | EXDEV), SECCOMP_FILTER_FLAG_TSYNC), 0);
              step = 2;
              old.join();
            }),
            0);
}

TEST(SeccompTsync, ReachesAThreadThatDoesNotCome) {
  EXPECT_EQ(RunChild([] {
              std::atomic<bool> ready = false;
              std::atomic<bool> synced = false;
              std::thread busy([&] {
                ready = true;
                while (!synced) {
                }
                EXPECT_ERRNO(MakeCall(), EXDEV);
              });
              WaitUntil([&] { return ready.load(); });
              EXPECT_RETURNS(Install(For(kCall, SECCOMP_RET_ERRNO | EXDEV), SECCOMP_FILTER_FLAG_TSYNC), 0);
              synced = true;
              busy.join();
              return 0;
            }),
            0);
}

TEST(SeccompTsync, NamesTheThreadThatHasOthers) {
  EXPECT_EQ(RunChild([] {
              std::atomic<int> step = 0;
              std::atomic<pid_t> tid = 0;
              std::thread other([&] {
                tid = gettid();
                EXPECT_OK(Install(For(SYS_getsid, SECCOMP_RET_ERRNO | ELOOP)));
                step = 1;
                WaitUntil([&] { return step == 2; });
                EXPECT_OK(MakeCall());
              });
              WaitUntil([&] { return step == 1; });
              const Code code = For(kCall, SECCOMP_RET_ERRNO | EXDEV);
              EXPECT_RETURNS(Install(code, SECCOMP_FILTER_FLAG_TSYNC), tid.load());
              EXPECT_ERRNO(Install(code, SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH), ESRCH);
              // Nobody has it, not even who asked.
              EXPECT_OK(MakeCall());
              step = 2;
              other.join();
              return 0;
            }),
            0);
}

TEST(SeccompTsync, OlderFiltersOfTheCallersAreNoObstacle) {
  EXPECT_EQ(Under(For(SYS_getsid, SECCOMP_RET_ERRNO | ELOOP),
                  [] {
                    std::atomic<int> step = 0;
                    std::thread other([&] {
                      step = 1;
                      WaitUntil([&] { return step == 2; });
                      EXPECT_ERRNO(MakeCall(), EXDEV);
                      EXPECT_ERRNO(getsid(0), ELOOP);
                    });
                    WaitUntil([&] { return step == 1; });
                    EXPECT_OK(Install(For(SYS_getuid, SECCOMP_RET_ALLOW)));
                    EXPECT_RETURNS(Install(For(kCall, SECCOMP_RET_ERRNO | EXDEV), SECCOMP_FILTER_FLAG_TSYNC), 0);
                    step = 2;
                    other.join();
                    return 0;
                  }),
            0);
}

// --- what can be asked

TEST(SeccompInfo, ModesAndCountsAreTold) {
  EXPECT_EQ(RunChild([] {
              EXPECT_RETURNS(prctl(PR_GET_SECCOMP), 0);
              EXPECT_EQ(StatusField("Seccomp"), "0");
              EXPECT_EQ(StatusField("Seccomp_filters"), "0");
              Code code = For(kCall, SECCOMP_RET_ALLOW);
              sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
              EXPECT_OK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
              EXPECT_RETURNS(prctl(PR_GET_SECCOMP), 2);
              EXPECT_EQ(StatusField("Seccomp"), "2");
              EXPECT_EQ(StatusField("Seccomp_filters"), "1");
              EXPECT_OK(Install(code, SECCOMP_FILTER_FLAG_LOG | SECCOMP_FILTER_FLAG_SPEC_ALLOW));
              EXPECT_EQ(StatusField("Seccomp_filters"), "2");
              return 0;
            }),
            0);
}

TEST(SeccompInfo, ActionsAreTold) {
  for (uint32_t action : {SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_TRAP, SECCOMP_RET_ERRNO,
                          SECCOMP_RET_TRACE, SECCOMP_RET_LOG, SECCOMP_RET_ALLOW}) {
    EXPECT_OK(Seccomp(SECCOMP_GET_ACTION_AVAIL, 0, &action)) << action;
  }
  for (uint32_t action : {0x00010000u, 0x7fff0001u}) {
    EXPECT_ERRNO(Seccomp(SECCOMP_GET_ACTION_AVAIL, 0, &action), EOPNOTSUPP) << action;
  }
  uint32_t allow = SECCOMP_RET_ALLOW;
  EXPECT_ERRNO(Seccomp(SECCOMP_GET_ACTION_AVAIL, 1, &allow), EINVAL);
  EXPECT_ERRNO(Seccomp(SECCOMP_GET_ACTION_AVAIL, 0, nullptr), EFAULT);
}

TEST(SeccompInfo, SizesOfNotificationsAreTold) {
  seccomp_notif_sizes sizes{};
  EXPECT_OK(Seccomp(SECCOMP_GET_NOTIF_SIZES, 0, &sizes));
  EXPECT_EQ(sizes.seccomp_notif, sizeof(seccomp_notif));
  EXPECT_EQ(sizes.seccomp_notif_resp, sizeof(seccomp_notif_resp));
  EXPECT_EQ(sizes.seccomp_data, sizeof(seccomp_data));
  EXPECT_ERRNO(Seccomp(SECCOMP_GET_NOTIF_SIZES, 1, &sizes), EINVAL);
}

}  // namespace
}  // namespace redoubt::testing
