// ptrace(2): attaching, group stops, events of fork, clone, exec, exit and seccomp, threads, and who is told of an end.
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstring>
#include <thread>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/tracee.h"

namespace redoubt::testing {
namespace {

void Continue(pid_t pid, int sig = 0) { EXPECT_OK(ptrace(PTRACE_CONT, pid, nullptr, Data(sig))); }

unsigned long Message(pid_t pid) {
  unsigned long message = 0;
  EXPECT_OK(ptrace(PTRACE_GETEVENTMSG, pid, nullptr, &message));
  return message;
}

// A child that sleeps until it is killed, or ends with 21 at a byte.
class Sleeper {
 public:
  Sleeper() {
    EXPECT_OK(pipe(fds_));
    pid_ = Spawn([this] {
      char c;
      return read(fds_[0], &c, 1) == 1 ? 21 : 22;
    });
    EXPECT_TRUE(WaitUntilAsleep(pid_, pid_));
  }
  ~Sleeper() {
    close(fds_[0]);
    close(fds_[1]);
  }
  pid_t pid() const { return pid_; }
  void End() {
    EXPECT_RETURNS(write(fds_[1], "", 1), 1);
    EXPECT_EQ(Status(pid_), 21 << 8);
  }

 private:
  int fds_[2];
  pid_t pid_;
};

TEST(PtraceAttach, StopsASleeperAndLetsItGo) {
  Sleeper child;
  ASSERT_OK(ptrace(PTRACE_ATTACH, child.pid(), nullptr, nullptr));
  siginfo_t info = {};
  EXPECT_OK(waitid(P_PID, child.pid(), &info, WSTOPPED | WNOWAIT));
  EXPECT_EQ(info.si_code, CLD_TRAPPED);
  EXPECT_EQ(info.si_status, SIGSTOP);
  EXPECT_EQ(info.si_pid, child.pid());
  EXPECT_EQ(Status(child.pid()), Stop(SIGSTOP));
  int status;
  EXPECT_RETURNS(waitpid(child.pid(), &status, WNOHANG | __WALL), 0) << "told once";
  EXPECT_OK(ptrace(PTRACE_DETACH, child.pid(), nullptr, nullptr));
  child.End();
}

TEST(PtraceAttach, DetachingWithASignalDeliversIt) {
  Sleeper child;
  ASSERT_OK(ptrace(PTRACE_ATTACH, child.pid(), nullptr, nullptr));
  EXPECT_EQ(Status(child.pid()), Stop(SIGSTOP));
  EXPECT_OK(ptrace(PTRACE_DETACH, child.pid(), nullptr, Data(SIGTERM)));
  EXPECT_EQ(Status(child.pid()), SIGTERM);
}

TEST(PtraceAttach, OfAStoppedProcess) {
  Sleeper child;
  kill(child.pid(), SIGSTOP);
  int status = 0;
  EXPECT_RETURNS(waitpid(child.pid(), &status, WUNTRACED), child.pid());
  EXPECT_EQ(status, Stop(SIGSTOP));
  ASSERT_OK(ptrace(PTRACE_ATTACH, child.pid(), nullptr, nullptr));
  EXPECT_EQ(Status(child.pid()), Stop(SIGSTOP));
  user_regs_struct regs;
  EXPECT_OK(ptrace(PTRACE_GETREGS, child.pid(), nullptr, &regs));
  EXPECT_OK(ptrace(PTRACE_DETACH, child.pid(), nullptr, nullptr));
  // Still in its group stop.
  EXPECT_OK(kill(child.pid(), SIGCONT));
  child.End();
}

TEST(PtraceAttach, AParentHearsOfAStopOnlyIfItAsks) {
  // SIGCHLD comes with a tracee's stop, unless the tracer has said SA_NOCLDSTOP.
  static std::atomic<int> count, code;
  count = 0;
  struct sigaction action = {}, old;
  action.sa_flags = SA_SIGINFO;
  action.sa_sigaction = [](int, siginfo_t* info, void*) {
    count++;
    code = info->si_code;
  };
  sigaction(SIGCHLD, &action, &old);
  Sleeper child;
  ASSERT_OK(ptrace(PTRACE_ATTACH, child.pid(), nullptr, nullptr));
  EXPECT_EQ(Status(child.pid()), Stop(SIGSTOP));
  WaitUntil([] { return count.load() == 1; });
  EXPECT_EQ(code.load(), CLD_TRAPPED);
  action.sa_flags |= SA_NOCLDSTOP;
  sigaction(SIGCHLD, &action, nullptr);
  kill(child.pid(), SIGUSR1);
  Continue(child.pid());
  EXPECT_EQ(Status(child.pid()), Stop(SIGUSR1));
  EXPECT_EQ(count.load(), 1);
  sigaction(SIGCHLD, &old, nullptr);
  EXPECT_OK(ptrace(PTRACE_DETACH, child.pid(), nullptr, nullptr));
  child.End();
}

TEST(PtraceSeize, DoesNotStopAndInterruptDoes) {
  Sleeper child;
  ASSERT_OK(ptrace(PTRACE_SEIZE, child.pid(), nullptr, nullptr));
  int status;
  EXPECT_RETURNS(waitpid(child.pid(), &status, WNOHANG | __WALL), 0);
  EXPECT_OK(ptrace(PTRACE_INTERRUPT, child.pid(), nullptr, nullptr));
  EXPECT_EQ(Status(child.pid()), EventStop(PTRACE_EVENT_STOP));
  siginfo_t info = {};
  EXPECT_OK(ptrace(PTRACE_GETSIGINFO, child.pid(), nullptr, &info));
  EXPECT_EQ(info.si_signo, SIGTRAP);
  EXPECT_EQ(info.si_code, SIGTRAP | PTRACE_EVENT_STOP << 8);
  Continue(child.pid());
  child.End();
}

TEST(PtraceSeize, GroupStopsAreListenedTo) {
  Sleeper child;
  const pid_t pid = child.pid();
  ASSERT_OK(ptrace(PTRACE_SEIZE, pid, nullptr, nullptr));
  EXPECT_OK(kill(pid, SIGTSTP));
  EXPECT_EQ(Status(pid), Stop(SIGTSTP));
  Continue(pid, SIGTSTP);
  EXPECT_EQ(Status(pid), EventStop(PTRACE_EVENT_STOP, SIGTSTP));
  EXPECT_OK(ptrace(PTRACE_LISTEN, pid, nullptr, nullptr));
  user_regs_struct regs;
  EXPECT_ERRNO(ptrace(PTRACE_GETREGS, pid, nullptr, &regs), ESRCH);
  // Its end is an event.
  EXPECT_OK(kill(pid, SIGCONT));
  EXPECT_EQ(Status(pid), EventStop(PTRACE_EVENT_STOP));
  Continue(pid);
  EXPECT_EQ(Status(pid), Stop(SIGCONT));
  Continue(pid, SIGCONT);
  // Interrupted while it listens.
  EXPECT_OK(kill(pid, SIGSTOP));
  EXPECT_EQ(Status(pid), Stop(SIGSTOP));
  Continue(pid, SIGSTOP);
  EXPECT_EQ(Status(pid), EventStop(PTRACE_EVENT_STOP, SIGSTOP));
  EXPECT_OK(ptrace(PTRACE_LISTEN, pid, nullptr, nullptr));
  EXPECT_OK(ptrace(PTRACE_INTERRUPT, pid, nullptr, nullptr));
  EXPECT_EQ(Status(pid), EventStop(PTRACE_EVENT_STOP, SIGSTOP));
  // And let run, though its group is stopped.
  Continue(pid);
  child.End();
}

TEST(PtraceAttached, AGroupStopHasNoSiginfo) {
  pid_t pid = SpawnTraced([] { return 23; });
  Continue(pid, SIGSTOP);
  EXPECT_EQ(Status(pid), Stop(SIGSTOP));
  siginfo_t info;
  EXPECT_ERRNO(ptrace(PTRACE_GETSIGINFO, pid, nullptr, &info), EINVAL);
  EXPECT_ERRNO(ptrace(PTRACE_LISTEN, pid, nullptr, nullptr), EIO);
  EXPECT_ERRNO(ptrace(PTRACE_INTERRUPT, pid, nullptr, nullptr), EIO);
  Continue(pid);
  EXPECT_EQ(Status(pid), 23 << 8);
}

TEST(PtraceEvents, ForkAttachesTheChild) {
  pid_t pid = SpawnTraced([] {
    pid_t child = fork();
    if (child == 0) _exit(24);
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return WEXITSTATUS(status) + 1;
  });
  ASSERT_OK(ptrace(PTRACE_SETOPTIONS, pid, nullptr, PTRACE_O_TRACEFORK));
  Continue(pid);
  ASSERT_EQ(Status(pid), EventStop(PTRACE_EVENT_FORK));
  const auto child = static_cast<pid_t>(Message(pid));
  EXPECT_EQ(Status(child), Stop(SIGSTOP));
  Continue(pid);
  Continue(child);
  EXPECT_EQ(Status(child), 24 << 8) << "the tracer is told first";
  int status = -1;
  while (true) {
    EXPECT_RETURNS(waitpid(pid, &status, 0), pid);
    if (!WIFSTOPPED(status)) break;
    EXPECT_EQ(status, Stop(SIGCHLD));
    Continue(pid, SIGCHLD);
  }
  EXPECT_EQ(status, 25 << 8) << "the parent then";
}

TEST(PtraceEvents, VforkAndItsEnd) {
  pid_t pid = SpawnTraced([] {
    pid_t child = vfork();
    if (child == 0) _exit(0);
    return 26;
  });
  ASSERT_OK(ptrace(PTRACE_SETOPTIONS, pid, nullptr, PTRACE_O_TRACEVFORK | PTRACE_O_TRACEVFORKDONE));
  Continue(pid);
  ASSERT_EQ(Status(pid), EventStop(PTRACE_EVENT_VFORK));
  const auto child = static_cast<pid_t>(Message(pid));
  EXPECT_EQ(Status(child), Stop(SIGSTOP));
  Continue(pid);
  Continue(child);
  EXPECT_EQ(Status(child), 0);
  // SIGCHLD, which is ignored, stops before or after.
  int status = Status(pid);
  if (status == Stop(SIGCHLD)) {
    Continue(pid);
    status = Status(pid);
  }
  EXPECT_EQ(status, EventStop(PTRACE_EVENT_VFORK_DONE));
  EXPECT_EQ(Message(pid), static_cast<unsigned long>(child));
  Continue(pid);
  status = Status(pid);
  if (status == Stop(SIGCHLD)) {
    Continue(pid);
    status = Status(pid);
  }
  EXPECT_EQ(status, 26 << 8);
}

TEST(PtraceEvents, SeizedChildrenBeginWithAnEvent) {
  int fds[2];
  ASSERT_OK(pipe(fds));
  pid_t pid = Spawn([&] {
    char c;
    if (read(fds[0], &c, 1) != 1) return 1;
    pid_t child = fork();
    if (child == 0) _exit(27);
    return 28;
  });
  ASSERT_OK(ptrace(PTRACE_SEIZE, pid, nullptr, PTRACE_O_TRACEFORK));
  EXPECT_RETURNS(write(fds[1], "", 1), 1);
  ASSERT_EQ(Status(pid), EventStop(PTRACE_EVENT_FORK));
  const auto child = static_cast<pid_t>(Message(pid));
  EXPECT_EQ(Status(child), EventStop(PTRACE_EVENT_STOP));
  Continue(pid);
  EXPECT_EQ(Status(pid), 28 << 8);
  Continue(child);
  EXPECT_EQ(Status(child), 27 << 8);
  close(fds[0]);
  close(fds[1]);
}

TEST(PtraceEvents, ThreadsAreFollowedToTheirEnd) {
  pid_t pid = SpawnTraced([] {
    std::thread([] {}).join();
    return 29;
  });
  ASSERT_OK(ptrace(PTRACE_SETOPTIONS, pid, nullptr, PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXIT));
  Continue(pid);
  ASSERT_EQ(Status(pid), EventStop(PTRACE_EVENT_CLONE));
  const auto tid = static_cast<pid_t>(Message(pid));
  EXPECT_EQ(Status(tid), Stop(SIGSTOP));
  user_regs_struct regs = {};
  EXPECT_OK(ptrace(PTRACE_GETREGS, tid, nullptr, &regs));
  EXPECT_EQ(regs.rax, 0u);
  Continue(tid);
  Continue(pid);
  EXPECT_EQ(Status(tid), EventStop(PTRACE_EVENT_EXIT));
  EXPECT_EQ(Message(tid), 0u);
  Continue(tid);
  // The end of the process may overtake it.
  EXPECT_THAT(Status(tid), ::testing::AnyOf(0, 29 << 8));
  EXPECT_EQ(Status(pid), EventStop(PTRACE_EVENT_EXIT));
  EXPECT_EQ(Message(pid), 29u << 8);
  Continue(pid);
  EXPECT_EQ(Status(pid), 29 << 8);
}

TEST(PtraceEvents, Exec) {
  for (long options : {long{0}, long{PTRACE_O_TRACEEXEC}}) {
    pid_t pid = SpawnTraced([] {
      execl("/bin/true", "true", nullptr);
      return 30;
    });
    ASSERT_OK(ptrace(PTRACE_SETOPTIONS, pid, nullptr, Data(options)));
    Continue(pid);
    if (options == 0) {
      EXPECT_EQ(Status(pid), Stop(SIGTRAP));
      siginfo_t info = {};
      EXPECT_OK(ptrace(PTRACE_GETSIGINFO, pid, nullptr, &info));
      EXPECT_EQ(info.si_code, SI_USER);
    } else {
      EXPECT_EQ(Status(pid), EventStop(PTRACE_EVENT_EXEC));
      EXPECT_EQ(Message(pid), static_cast<unsigned long>(pid));
    }
    // The new program is there, before its first instruction.
    user_regs_struct regs = {};
    EXPECT_OK(ptrace(PTRACE_GETREGS, pid, nullptr, &regs));
    errno = 0;
    EXPECT_EQ(ptrace(PTRACE_PEEKDATA, pid, Data(static_cast<long>(regs.rsp)), nullptr), 1) << "argc";
    EXPECT_EQ(errno, 0);
    Continue(pid);
    EXPECT_EQ(Status(pid), 0);
  }
}

TEST(PtraceEvents, ExecByAThreadTellsWhichItWas) {
  pid_t pid = SpawnTraced([] {
    std::thread([] { execl("/bin/true", "true", nullptr); }).join();
    return 31;
  });
  ASSERT_OK(ptrace(PTRACE_SETOPTIONS, pid, nullptr, PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC));
  Continue(pid);
  ASSERT_EQ(Status(pid), EventStop(PTRACE_EVENT_CLONE));
  const auto tid = static_cast<pid_t>(Message(pid));
  EXPECT_EQ(Status(tid), Stop(SIGSTOP));
  Continue(pid);
  Continue(tid);
  EXPECT_EQ(Status(pid), EventStop(PTRACE_EVENT_EXEC));
  EXPECT_EQ(Message(pid), static_cast<unsigned long>(tid));
  Continue(pid);
  EXPECT_EQ(Status(pid), 0);
  int status;
  EXPECT_ERRNO(waitpid(-1, &status, __WALL), ECHILD);
}

TEST(PtraceEvents, SeccompAsksTheTracer) {
  pid_t pid = SpawnTraced([] {
    sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | 77),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    sock_fprog program = {.len = 4, .filter = code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) return 1;
    if (syscall(SYS_getppid) != getpid()) return 2;  // made another call
    if (syscall(SYS_getppid) != 5678) return 3;      // answered by the tracer
    if (syscall(SYS_getppid) != getppid()) return 4;
    return 32;
  });
  ASSERT_OK(ptrace(PTRACE_SETOPTIONS, pid, nullptr, PTRACE_O_TRACESECCOMP));
  Continue(pid);
  ASSERT_EQ(Status(pid), EventStop(PTRACE_EVENT_SECCOMP));
  EXPECT_EQ(Message(pid), 77u);
  __ptrace_syscall_info info = {};
  EXPECT_OK(ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info));
  EXPECT_EQ(info.op, PTRACE_SYSCALL_INFO_SECCOMP);
  EXPECT_EQ(info.seccomp.nr, uint64_t{SYS_getppid});
  EXPECT_EQ(info.seccomp.ret_data, 77u);
  EXPECT_OK(ptrace(PTRACE_POKEUSER, pid, offsetof(user_regs_struct, orig_rax), SYS_getpid));
  Continue(pid);
  ASSERT_EQ(Status(pid), EventStop(PTRACE_EVENT_SECCOMP));
  EXPECT_OK(ptrace(PTRACE_POKEUSER, pid, offsetof(user_regs_struct, orig_rax), Data(-1)));
  EXPECT_OK(ptrace(PTRACE_POKEUSER, pid, offsetof(user_regs_struct, rax), 5678));
  Continue(pid);
  // Twice more: of the test's own call and the one it is compared with.
  for (int i = 0; i < 2; i++) {
    ASSERT_EQ(Status(pid), EventStop(PTRACE_EVENT_SECCOMP));
    Continue(pid);
  }
  EXPECT_EQ(Status(pid), 32 << 8);
}

TEST(PtraceEnd, ATracerThatDiesLetsGoOrKills) {
  for (bool kill_too : {false, true}) {
    Sleeper child;
    const pid_t pid = child.pid();
    EXPECT_EQ(RunChild([&] {
                EXPECT_OK(ptrace(PTRACE_SEIZE, pid, nullptr, kill_too ? PTRACE_O_EXITKILL : 0));
                EXPECT_OK(ptrace(PTRACE_INTERRUPT, pid, nullptr, nullptr));
                EXPECT_EQ(Status(pid), EventStop(PTRACE_EVENT_STOP));
                return 0;
              }),
              0);
    if (kill_too) {
      EXPECT_EQ(Status(pid), SIGKILL);
    } else {
      child.End();
    }
  }
}

TEST(PtraceEnd, TheTracerIsToldBeforeTheParent) {
  int ready[2], go[2];
  ASSERT_OK(pipe(ready));
  ASSERT_OK(pipe(go));
  Sleeper child;
  const pid_t pid = child.pid();
  pid_t tracer = Spawn([&] {
    EXPECT_OK(ptrace(PTRACE_SEIZE, pid, nullptr, nullptr));
    EXPECT_RETURNS(write(ready[1], "", 1), 1);
    siginfo_t info = {};
    EXPECT_OK(waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
    EXPECT_EQ(info.si_status, SIGKILL);
    EXPECT_RETURNS(write(ready[1], "", 1), 1);
    char c;
    EXPECT_RETURNS(read(go[0], &c, 1), 1);
    EXPECT_EQ(Status(pid), SIGKILL);
    int status;
    EXPECT_ERRNO(waitpid(pid, &status, 0), ECHILD);
    return 0;
  });
  char c;
  ASSERT_RETURNS(read(ready[0], &c, 1), 1);
  kill(pid, SIGKILL);
  ASSERT_RETURNS(read(ready[0], &c, 1), 1);
  int status = 0;
  EXPECT_RETURNS(waitpid(pid, &status, WNOHANG), 0);
  EXPECT_RETURNS(write(go[1], "", 1), 1);
  EXPECT_RETURNS(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, SIGKILL);
  EXPECT_EQ(WaitFor(tracer), 0);
  for (int fd : {ready[0], ready[1], go[0], go[1]}) close(fd);
}

TEST(PtraceEnd, AStoppedTraceeIsKilled) {
  pid_t pid = SpawnTraced([] { return 0; });
  EXPECT_OK(kill(pid, SIGKILL));
  EXPECT_EQ(Status(pid), SIGKILL);
}

// Whoever is watched makes threads that are not, and handlers of its signals run as they would.
TEST(PtraceClone, AWatchpointIsNotInherited) {
  static long watched;
  static volatile int handled, other;
  handled = 0;
  pid_t pid = SpawnTraced([] {
    signal(SIGUSR1, [](int) { handled = handled + 1; });
    std::thread([] { other = other + 1; }).join();
    raise(SIGUSR1);
    watched = 2;
    return handled == 1 ? 37 : 38;
  });
  const auto debug = [](int n) { return offsetof(struct user, u_debugreg) + sizeof(long) * static_cast<size_t>(n); };
  EXPECT_OK(ptrace(PTRACE_POKEUSER, pid, debug(0), &watched));
  EXPECT_OK(ptrace(PTRACE_POKEUSER, pid, debug(7), Data(1 | 0b1001L << 16)));
  Continue(pid);
  EXPECT_EQ(Status(pid), Stop(SIGUSR1));
  Continue(pid, SIGUSR1);
  EXPECT_EQ(Status(pid), Stop(SIGTRAP));
  errno = 0;
  EXPECT_EQ(ptrace(PTRACE_PEEKDATA, pid, &watched, nullptr), 2);
  EXPECT_EQ(errno, 0);
  Continue(pid);
  EXPECT_EQ(Status(pid), 37 << 8);
}

// clone(2), CLONE_PTRACE and CLONE_UNTRACED.
TEST(PtraceClone, FlagsAskForATracerOrForNone) {
  pid_t pid = SpawnTraced([] {
    auto child = static_cast<pid_t>(syscall(SYS_clone, CLONE_PTRACE | SIGCHLD, nullptr, nullptr, nullptr, 0));
    if (child == 0) _exit(33);
    auto hidden = static_cast<pid_t>(syscall(SYS_clone, CLONE_UNTRACED | SIGCHLD, nullptr, nullptr, nullptr, 0));
    if (hidden == 0) _exit(0);
    return waitpid(hidden, nullptr, 0) == hidden ? 34 : 35;
  });
  ASSERT_OK(ptrace(PTRACE_SETOPTIONS, pid, nullptr, PTRACE_O_EXITKILL));
  Continue(pid);
  // Whose stop comes first is open.
  bool child_stopped = false;
  int status = 0;
  for (pid_t who; (who = waitpid(-1, &status, __WALL)) > 0;) {
    if (who != pid) {
      if (status == Stop(SIGSTOP)) {
        child_stopped = true;
        Continue(who);
      } else {
        EXPECT_EQ(status, 33 << 8);
      }
    } else if (WIFSTOPPED(status)) {
      EXPECT_EQ(status, Stop(SIGCHLD));
      Continue(pid);
    } else {
      EXPECT_EQ(status, 34 << 8);
    }
  }
  EXPECT_EQ(errno, ECHILD);
  EXPECT_TRUE(child_stopped);
}

TEST(PtraceThreads, AnyThreadWaitsButOnlyTheTracerAsks) {
  Sleeper child;
  const pid_t pid = child.pid();
  ASSERT_OK(ptrace(PTRACE_SEIZE, pid, nullptr, nullptr));
  ASSERT_OK(ptrace(PTRACE_INTERRUPT, pid, nullptr, nullptr));
  std::thread([&] {
    int status = 0;
    EXPECT_ERRNO(waitpid(pid, &status, __WALL | __WNOTHREAD), ECHILD);
    EXPECT_EQ(Status(pid), EventStop(PTRACE_EVENT_STOP));
    EXPECT_ERRNO(ptrace(PTRACE_CONT, pid, nullptr, nullptr), ESRCH);
  }).join();
  Continue(pid);
  child.End();
}

TEST(PtraceThreads, OneOfManyIsTracedAlone) {
  struct Shared {
    std::atomic<pid_t> tid;
    std::atomic<bool> stop;
    std::atomic<long> rounds;
  };
  void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(page, MAP_FAILED);
  auto& shared = *static_cast<Shared*>(page);
  pid_t pid = Spawn([&] {
    std::thread other([&] {
      shared.tid = gettid();
      while (!shared.stop) sched_yield();
    });
    while (!shared.stop) {
      shared.rounds++;
      sched_yield();
    }
    other.join();
    return 36;
  });
  WaitUntil([&] { return shared.tid != 0; });
  const pid_t tid = shared.tid;
  ASSERT_OK(ptrace(PTRACE_SEIZE, tid, nullptr, nullptr));
  EXPECT_OK(ptrace(PTRACE_INTERRUPT, tid, nullptr, nullptr));
  EXPECT_EQ(Status(tid), EventStop(PTRACE_EVENT_STOP));
  const long before = shared.rounds;
  WaitUntil([&] { return shared.rounds > before + 10; });
  shared.stop = true;
  Continue(tid);
  // The end of the process may overtake it.
  EXPECT_THAT(Status(tid), ::testing::AnyOf(0, 36 << 8));
  EXPECT_EQ(Status(pid), 36 << 8);
  munmap(page, 4096);
}

}  // namespace
}  // namespace redoubt::testing
