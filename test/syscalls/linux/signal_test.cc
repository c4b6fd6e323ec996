// Signals: sigaction(2), masks, sigaltstack(2), restarts (signal(7)), sigtimedwait(2), queueing, siginfo,
// floating-point state.
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"

namespace redoubt::testing {
namespace {

struct Seen {
  int signal, code, pid, value;
};
Seen seen[32];
volatile sig_atomic_t count;
sigjmp_buf escape;

void Record(int sig, siginfo_t* info, void*) {
  if (count < 32) seen[count] = {sig, info->si_code, info->si_pid, info->si_value.sival_int};
  count = count + 1;
}

void Handle(int sig, int flags = 0, void (*handler)(int, siginfo_t*, void*) = Record) {
  struct sigaction sa{};
  sa.sa_sigaction = handler;
  sa.sa_flags = flags | SA_SIGINFO;
  ASSERT_OK(sigaction(sig, &sa, nullptr));
}
sigset_t Set(std::initializer_list<int> signals) {
  sigset_t set;
  sigemptyset(&set);
  for (int s : signals) sigaddset(&set, s);
  return set;
}
void Block(std::initializer_list<int> signals) {
  sigset_t set = Set(signals);
  ASSERT_OK(sigprocmask(SIG_BLOCK, &set, nullptr));
}
void UnblockAll() {
  sigset_t none = Set({});
  ASSERT_OK(sigprocmask(SIG_SETMASK, &none, nullptr));
}
void AlarmIn(int ms) {
  itimerval t{{0, 0}, {0, ms * 1000}};
  ASSERT_OK(setitimer(ITIMER_REAL, &t, nullptr));
}

TEST(Sigaction, HandlerSeesTheSender) {
  Handle(SIGUSR1);
  ASSERT_OK(kill(getpid(), SIGUSR1));
  ASSERT_EQ(count, 1);
  EXPECT_EQ(seen[0].code, SI_USER);
  EXPECT_EQ(seen[0].pid, getpid());
  ASSERT_OK(raise(SIGUSR1));
  EXPECT_EQ(seen[1].code, SI_TKILL);
}

TEST(Sigaction, ErrorsOfArguments) {
  struct sigaction sa{};
  sa.sa_handler = SIG_IGN;
  EXPECT_ERRNO(sigaction(SIGKILL, &sa, nullptr), EINVAL);
  EXPECT_ERRNO(sigaction(SIGSTOP, &sa, nullptr), EINVAL);
  EXPECT_ERRNO(syscall(SYS_rt_sigaction, 0, nullptr, nullptr, 8), EINVAL);
  EXPECT_ERRNO(syscall(SYS_rt_sigaction, 65, nullptr, nullptr, 8), EINVAL);
  EXPECT_ERRNO(syscall(SYS_rt_sigaction, SIGUSR1, nullptr, nullptr, 4), EINVAL);
  EXPECT_ERRNO(syscall(SYS_rt_sigaction, SIGUSR1, 8L, nullptr, 8), EFAULT);
  EXPECT_OK(syscall(SYS_rt_sigaction, SIGKILL, nullptr, nullptr, 8));
}

TEST(Sigaction, ResethandRestoresTheDefault) {
  Handle(SIGUSR1, SA_RESETHAND);
  ASSERT_OK(raise(SIGUSR1));
  struct sigaction now{};
  ASSERT_OK(sigaction(SIGUSR1, nullptr, &now));
  EXPECT_EQ(now.sa_handler, SIG_DFL);
}

TEST(Sigaction, MaskIsBlockedDuringTheHandler) {
  static volatile sig_atomic_t inside = -1;
  struct sigaction sa{};
  sa.sa_handler = [](int) {
    raise(SIGUSR2);
    inside = count;
  };
  sa.sa_mask = Set({SIGUSR2});
  ASSERT_OK(sigaction(SIGUSR1, &sa, nullptr));
  Handle(SIGUSR2);
  ASSERT_OK(raise(SIGUSR1));
  EXPECT_EQ(inside, 0);
  EXPECT_EQ(count, 1);
}

TEST(Mask, StandardSignalsPendOnce) {
  Handle(SIGUSR1);
  Block({SIGUSR1});
  ASSERT_OK(raise(SIGUSR1));
  ASSERT_OK(raise(SIGUSR1));
  EXPECT_EQ(count, 0);
  sigset_t pending;
  ASSERT_OK(sigpending(&pending));
  EXPECT_TRUE(sigismember(&pending, SIGUSR1));
  UnblockAll();
  EXPECT_EQ(count, 1);
}

TEST(Mask, KillAndStopCannotBeBlocked) {
  Block({SIGKILL, SIGSTOP, SIGUSR1});
  sigset_t now;
  ASSERT_OK(sigprocmask(SIG_BLOCK, nullptr, &now));
  EXPECT_FALSE(sigismember(&now, SIGKILL) || sigismember(&now, SIGSTOP));
  EXPECT_TRUE(sigismember(&now, SIGUSR1));
}

TEST(Mask, ErrorsOfArguments) {
  sigset_t set = Set({});
  EXPECT_ERRNO(syscall(SYS_rt_sigprocmask, 9, &set, nullptr, 8), EINVAL);
  EXPECT_ERRNO(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, nullptr, 4), EINVAL);
  EXPECT_ERRNO(syscall(SYS_rt_sigprocmask, SIG_BLOCK, 8L, nullptr, 8), EFAULT);
}

TEST(Queue, RealTimeSignalsQueueInOrder) {
  Handle(SIGRTMIN);
  Block({SIGRTMIN});
  for (int i = 0; i < 3; i++) ASSERT_OK(sigqueue(getpid(), SIGRTMIN, {.sival_int = i}));
  UnblockAll();
  ASSERT_EQ(count, 3);
  for (int i = 0; i < 3; i++) {
    EXPECT_EQ(seen[i].value, i);
    EXPECT_EQ(seen[i].code, SI_QUEUE);
  }
}

TEST(Queue, LowerNumbersAreTakenFirst) {
  sigset_t set = Set({SIGUSR1, SIGRTMIN, SIGRTMIN + 3});
  Block({SIGUSR1, SIGRTMIN, SIGRTMIN + 3});
  ASSERT_OK(sigqueue(getpid(), SIGRTMIN + 3, {.sival_int = 1}));
  ASSERT_OK(sigqueue(getpid(), SIGRTMIN, {.sival_int = 2}));
  ASSERT_OK(kill(getpid(), SIGUSR1));
  siginfo_t info;
  EXPECT_RETURNS(sigwaitinfo(&set, &info), SIGUSR1);
  EXPECT_RETURNS(sigwaitinfo(&set, &info), SIGRTMIN);
  EXPECT_EQ(info.si_value.sival_int, 2);
  EXPECT_RETURNS(sigwaitinfo(&set, &info), SIGRTMIN + 3);
}

TEST(Queue, PendingLimitFailsWithEagain) {
  Block({SIGRTMIN});
  EXPECT_EQ(RunAsNobody([] {
              rlimit l{3, 3};
              EXPECT_OK(setrlimit(RLIMIT_SIGPENDING, &l));
              int sent = 0;
              while (sent < 100 && sigqueue(getpid(), SIGRTMIN, {.sival_int = 0}) == 0) sent++;
              EXPECT_EQ(errno, EAGAIN);
              EXPECT_LE(sent, 3);
            }),
            0);
}

TEST(Queue, ForgedKernelCodesFailWithEperm) {
  siginfo_t info{};
  info.si_code = SI_KERNEL;
  EXPECT_ERRNO(syscall(SYS_rt_sigqueueinfo, getppid(), SIGURG, &info), EPERM);
}

TEST(Sigtimedwait, TimesOutWithEagain) {
  sigset_t set = Set({SIGUSR1});
  Block({SIGUSR1});
  timespec t{0, 20000000};
  int64_t start = NowMs();
  EXPECT_ERRNO(sigtimedwait(&set, nullptr, &t), EAGAIN);
  EXPECT_GE(NowMs() - start, 19);
  timespec bad{0, -1};
  EXPECT_ERRNO(sigtimedwait(&set, nullptr, &bad), EINVAL);
}

TEST(Sigtimedwait, OtherSignalsInterrupt) {
  sigset_t set = Set({SIGUSR1});
  Block({SIGUSR1});
  Handle(SIGALRM);
  AlarmIn(20);
  timespec t{10, 0};
  EXPECT_ERRNO(sigtimedwait(&set, nullptr, &t), EINTR);
}

TEST(Sigsuspend, ReturnsAfterTheHandlerWithTheOldMask) {
  Handle(SIGUSR1);
  Block({SIGUSR1});
  ASSERT_OK(raise(SIGUSR1));
  sigset_t none = Set({}), now;
  EXPECT_ERRNO(sigsuspend(&none), EINTR);
  EXPECT_EQ(count, 1);
  ASSERT_OK(sigprocmask(SIG_BLOCK, nullptr, &now));
  EXPECT_TRUE(sigismember(&now, SIGUSR1));
}

TEST(Restart, ReadIsInterruptedWithoutSaRestart) {
  int p[2];
  ASSERT_OK(pipe(p));
  Handle(SIGALRM);
  AlarmIn(20);
  char c;
  EXPECT_ERRNO(read(p[0], &c, 1), EINTR);
}

int write_end;
TEST(Restart, ReadRestartsWithSaRestart) {
  int p[2];
  ASSERT_OK(pipe(p));
  write_end = p[1];
  Handle(SIGALRM, SA_RESTART, [](int, siginfo_t*, void*) {
    count = count + 1;
    (void)!write(write_end, "x", 1);
  });
  AlarmIn(20);
  char c = 0;
  EXPECT_RETURNS(read(p[0], &c, 1), 1);
  EXPECT_EQ(count, 1);
}

TEST(Restart, NeverForPollPauseAndNanosleep) {
  Handle(SIGALRM, SA_RESTART);
  AlarmIn(20);
  EXPECT_ERRNO(syscall(SYS_poll, nullptr, 0, 5000), EINTR);
  AlarmIn(20);
  EXPECT_ERRNO(pause(), EINTR);
  AlarmIn(20);
  timespec t{5, 0}, left{};
  EXPECT_ERRNO(nanosleep(&t, &left), EINTR);
  EXPECT_EQ(left.tv_sec, 4);
}

TEST(Restart, SleepGoesOnAfterStopAndContinue) {
  pid_t child = Spawn([] {
    timespec t{0, 100000000};
    int64_t start = NowMs();
    EXPECT_OK(nanosleep(&t, nullptr));
    EXPECT_GE(NowMs() - start, 99);
    return 0;
  });
  SleepMs(20);
  ASSERT_OK(kill(child, SIGSTOP));
  SleepMs(10);
  ASSERT_OK(kill(child, SIGCONT));
  EXPECT_EQ(WaitFor(child), 0);
}

constexpr size_t kAltSize = 64 << 10;
char* alt_low;
void UseAltStack() {
  alt_low = static_cast<char*>(mmap(nullptr, kAltSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  stack_t ss{.ss_sp = alt_low, .ss_flags = 0, .ss_size = kAltSize}, old{};
  ASSERT_OK(sigaltstack(&ss, &old));
  EXPECT_EQ(old.ss_flags, SS_DISABLE);
}

TEST(Sigaltstack, HandlerRunsOnIt) {
  UseAltStack();
  Handle(SIGUSR1, SA_ONSTACK, [](int, siginfo_t*, void*) {
    char here;
    stack_t now;
    if (&here >= alt_low && &here < alt_low + kAltSize) count = count + 1;
    if (sigaltstack(nullptr, &now) == 0 && now.ss_flags == SS_ONSTACK) count = count + 1;
    stack_t other{.ss_sp = alt_low, .ss_flags = 0, .ss_size = kAltSize};
    if (sigaltstack(&other, nullptr) == -1 && errno == EPERM) count = count + 1;
  });
  ASSERT_OK(raise(SIGUSR1));
  EXPECT_EQ(count, 3);
}

TEST(Sigaltstack, ErrorsOfArguments) {
  stack_t small{.ss_sp = nullptr, .ss_flags = 0, .ss_size = 100},
      flags{.ss_sp = nullptr, .ss_flags = 77, .ss_size = 1 << 16};
  EXPECT_ERRNO(sigaltstack(&small, nullptr), ENOMEM);
  EXPECT_ERRNO(sigaltstack(&flags, nullptr), EINVAL);
  EXPECT_ERRNO(syscall(SYS_sigaltstack, 8L, nullptr), EFAULT);
}

TEST(Sigaltstack, StackOverflowIsHandledOnIt) {
  rlimit l{1 << 20, 1 << 20};
  ASSERT_OK(setrlimit(RLIMIT_STACK, &l));
  UseAltStack();
  Handle(SIGSEGV, SA_ONSTACK, [](int, siginfo_t*, void*) { siglongjmp(escape, 1); });
  if (sigsetjmp(escape, 1) == 0) {
    // Pushes until the guard is hit.
    asm volatile("1: push %%rax; jmp 1b" ::: "memory");
  }
  SUCCEED();
}

void RecordAndEscape(int sig, siginfo_t* info, void*) {
  seen[0] = {sig, info->si_code, 0, 0};
  siglongjmp(escape, 1);
}

TEST(Faults, CodesOfTraps) {
  Handle(SIGFPE, 0, RecordAndEscape);
  Handle(SIGILL, 0, RecordAndEscape);
  Handle(SIGTRAP, 0, RecordAndEscape);
  if (sigsetjmp(escape, 1) == 0) {
    asm volatile("xor %%ecx, %%ecx; xor %%edx, %%edx; mov $1, %%eax; div %%ecx" ::: "eax", "ecx", "edx");
  }
  EXPECT_EQ(seen[0].signal, SIGFPE);
  EXPECT_EQ(seen[0].code, FPE_INTDIV);
  if (sigsetjmp(escape, 1) == 0) asm volatile("ud2");
  EXPECT_EQ(seen[0].signal, SIGILL);
  EXPECT_EQ(seen[0].code, ILL_ILLOPN);
  if (sigsetjmp(escape, 1) == 0) asm volatile("int3");
  EXPECT_EQ(seen[0].signal, SIGTRAP);
  EXPECT_EQ(seen[0].code, SI_KERNEL);
}

TEST(Faults, BlockedFaultKills) {
  int status = RunChild([] {
    Handle(SIGSEGV);
    Block({SIGSEGV});
    *reinterpret_cast<volatile int*>(16) = 1;
    return 0;
  });
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) << status;
}

TEST(Faults, HandlerMayChangeTheContext) {
  Handle(SIGILL, 0, [](int, siginfo_t*, void* context) {
    auto* uc = static_cast<ucontext_t*>(context);
    uc->uc_mcontext.gregs[REG_RIP] += 2;  // past ud2
    uc->uc_mcontext.gregs[REG_RAX] = 1234;
  });
  long rax = 0;
  asm volatile("ud2" : "+a"(rax));
  EXPECT_EQ(rax, 1234);
}

TEST(FloatingPoint, StateSurvivesHandlers) {
  Handle(SIGALRM, SA_RESTART, [](int, siginfo_t*, void*) {
    asm volatile("xorps %%xmm5, %%xmm5" ::: "xmm5");
    count = count + 1;
  });
  itimerval t{{0, 2000}, {0, 2000}};
  ASSERT_OK(setitimer(ITIMER_REAL, &t, nullptr));
  uint64_t in[2] = {0x1122334455667788, 0x99aabbccddeeff00}, out[2] = {};
  for (int64_t end = NowMs() + 80; NowMs() < end;) {
    uint64_t spins = 1000000;
    asm volatile("movups %2, %%xmm5\n1: dec %0\njnz 1b\nmovups %%xmm5, %1\n"
                 : "+r"(spins), "=m"(out)
                 : "m"(in)
                 : "xmm5");
    ASSERT_EQ(out[0], in[0]);
    ASSERT_EQ(out[1], in[1]);
  }
  EXPECT_GT(count, 3);
}

TEST(Sigchld, TellsHowTheChildEnded) {
  Block({SIGCHLD});
  sigset_t set = Set({SIGCHLD});
  pid_t pid = Spawn([] { return 3; });
  siginfo_t info{};
  ASSERT_RETURNS(sigwaitinfo(&set, &info), SIGCHLD);
  EXPECT_EQ(info.si_code, CLD_EXITED);
  EXPECT_EQ(info.si_pid, pid);
  EXPECT_EQ(info.si_status, 3);
  EXPECT_EQ(WaitFor(pid), 3 << 8);
  pid = Spawn([] { return raise(SIGKILL); });
  ASSERT_RETURNS(sigwaitinfo(&set, &info), SIGCHLD);
  EXPECT_EQ(info.si_code, CLD_KILLED);
  EXPECT_EQ(info.si_status, SIGKILL);
  WaitFor(pid);
}

TEST(Sigchld, StopsAreToldUnlessRefused) {
  Block({SIGCHLD});
  sigset_t set = Set({SIGCHLD});
  pid_t pid = Spawn([] {
    for (;;) pause();
    return 0;
  });
  ASSERT_OK(kill(pid, SIGSTOP));
  siginfo_t info{};
  ASSERT_RETURNS(sigwaitinfo(&set, &info), SIGCHLD);
  EXPECT_EQ(info.si_code, CLD_STOPPED);
  EXPECT_EQ(info.si_status, SIGSTOP);
  Handle(SIGCHLD, SA_NOCLDSTOP);
  ASSERT_OK(kill(pid, SIGCONT));
  timespec t{0, 50000000};
  EXPECT_ERRNO(sigtimedwait(&set, &info, &t), EAGAIN);
  ASSERT_OK(kill(pid, SIGKILL));
  WaitFor(pid);
}

TEST(ThreadSignals, SignalToOneThreadRunsThere) {
  static pthread_t target;
  static volatile sig_atomic_t where;
  Handle(SIGUSR1, 0, [](int, siginfo_t*, void*) { where = pthread_equal(pthread_self(), target) ? 1 : 2; });
  auto spin = [](void*) -> void* {
    while (where == 0) usleep(1000);
    return nullptr;
  };
  ASSERT_EQ(pthread_create(&target, nullptr, spin, nullptr), 0);
  ASSERT_EQ(pthread_kill(target, SIGUSR1), 0);
  pthread_join(target, nullptr);
  EXPECT_EQ(where, 1);
}

TEST(ThreadSignals, FatalSignalKillsAll) {
  int status = RunChild([] {
    pthread_t t;
    auto die = [](void*) -> void* {
      raise(SIGTERM);
      return nullptr;
    };
    pthread_create(&t, nullptr, die, nullptr);
    for (;;) pause();
    return 0;
  });
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM) << status;
}

TEST(Kill, ErrorsOfArguments) {
  EXPECT_ERRNO(kill(getpid(), 99), EINVAL);
  EXPECT_ERRNO(kill(99999, 0), ESRCH);
  EXPECT_ERRNO(kill(-99999, 0), ESRCH);
  EXPECT_ERRNO(syscall(SYS_tgkill, getpid(), 99999, 0), ESRCH);
  EXPECT_ERRNO(syscall(SYS_tgkill, -1, 1, 0), EINVAL);
  EXPECT_ERRNO(syscall(SYS_tkill, 0, 0), EINVAL);
  pid_t root = getpid();
  EXPECT_EQ(RunAsNobody([&] { EXPECT_ERRNO(kill(root, SIGURG), EPERM); }), 0);
}

}  // namespace
}  // namespace redoubt::testing
