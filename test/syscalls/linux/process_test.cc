// Processes: fork(2), vfork(2), clone3(2), execve(2), exit(2), wait4(2), waitid(2), pidfds.
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"
#include "test/syscalls/util/temp_dir.h"

namespace redoubt::testing {
namespace {

TEST(Fork, TheChildHasACopy) {
  int value = 1;
  auto* shared = static_cast<int*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  pid_t parent = getpid();
  EXPECT_EQ(RunChild([&] {
              value = 2;
              *shared = 3;
              EXPECT_EQ(getppid(), parent);
              EXPECT_NE(getpid(), parent);
              return 0;
            }),
            0);
  EXPECT_EQ(value, 1);
  EXPECT_EQ(*shared, 3);
  munmap(shared, 4096);
}

TEST(Fork, DescriptorsShareTheirOffset) {
  TempDir dir;
  ScopedFd fd = dir.Open("file", "0123456789");
  lseek(fd.get(), 0, SEEK_SET);
  EXPECT_EQ(RunChild([&] {
              char c[3];
              EXPECT_THAT(read(fd.get(), c, 3), SyscallReturns(3));
              return 0;
            }),
            0);
  EXPECT_THAT(lseek(fd.get(), 0, SEEK_CUR), SyscallReturns(3));
}

TEST(Vfork, TheParentWaitsForExec) {
  static std::atomic<int> step;
  step = 0;
  pid_t pid = vfork();
  if (pid == 0) {
    usleep(30'000);
    step = 1;
    _exit(9);
  }
  EXPECT_EQ(step, 1);  // same memory, and it came first
  EXPECT_EQ(WEXITSTATUS(WaitFor(pid)), 9);
}

TEST(Clone3, ChecksItsArguments) {
  clone_args args{};
  EXPECT_THAT(syscall(SYS_clone3, &args, 8), SyscallFails(EINVAL));
  EXPECT_THAT(syscall(SYS_clone3, &args, 1 << 20), SyscallFails(E2BIG));
  EXPECT_THAT(syscall(SYS_clone3, nullptr, sizeof(args)), SyscallFails(EFAULT));
  args.flags = CLONE_THREAD;
  EXPECT_THAT(syscall(SYS_clone3, &args, sizeof(args)), SyscallFails(EINVAL));
  args.flags = CLONE_SIGHAND;
  EXPECT_THAT(syscall(SYS_clone3, &args, sizeof(args)), SyscallFails(EINVAL));
  args.flags = 0;
  args.exit_signal = 100;
  EXPECT_THAT(syscall(SYS_clone3, &args, sizeof(args)), SyscallFails(EINVAL));
  args.exit_signal = SIGCHLD;
  args.stack = 0x1000;
  EXPECT_THAT(syscall(SYS_clone3, &args, sizeof(args)), SyscallFails(EINVAL));
}

TEST(Clone3, PidfdNamesTheChild) {
  int pidfd = -1;
  clone_args args{};
  args.flags = CLONE_PIDFD;
  args.pidfd = reinterpret_cast<uint64_t>(&pidfd);
  args.exit_signal = SIGCHLD;
  long pid = syscall(SYS_clone3, &args, sizeof(args));
  if (pid == 0) {
    pause();
    _exit(0);
  }
  ASSERT_GT(pid, 0);
  pollfd p{pidfd, POLLIN, 0};
  EXPECT_THAT(poll(&p, 1, 0), SyscallReturns(0));
  EXPECT_OK(syscall(SYS_pidfd_send_signal, pidfd, SIGTERM, nullptr, 0));
  EXPECT_THAT(poll(&p, 1, 5000), SyscallReturns(1));
  siginfo_t info{};
  EXPECT_OK(waitid(static_cast<idtype_t>(P_PIDFD), pidfd, &info, WEXITED));
  EXPECT_EQ(info.si_pid, pid);
  EXPECT_EQ(info.si_code, CLD_KILLED);
  EXPECT_EQ(info.si_status, SIGTERM);
  EXPECT_THAT(syscall(SYS_pidfd_send_signal, pidfd, 0, nullptr, 0), SyscallFails(ESRCH));
  close(pidfd);
}

TEST(Pidfd, OpenChecksItsArguments) {
  EXPECT_THAT(syscall(SYS_pidfd_open, -1, 0), SyscallFails(EINVAL));
  EXPECT_THAT(syscall(SYS_pidfd_open, 4194000, 0), SyscallFails(ESRCH));
  EXPECT_THAT(syscall(SYS_pidfd_open, getpid(), 12345), SyscallFails(EINVAL));
  EXPECT_THAT(syscall(SYS_pidfd_send_signal, 0, 0, nullptr, 0), SyscallFails(EBADF));
}

TEST(Exec, ReplacesTheProgram) {
  pid_t pid = Spawn([] {
    execlp("sh", "sh", "-c", "exit $1", "sh", "42", nullptr);
    return 1;
  });
  EXPECT_EQ(WEXITSTATUS(WaitFor(pid)), 42);
}

TEST(Exec, Errors) {
  TempDir dir;
  char* argv[] = {const_cast<char*>("x"), nullptr};
  EXPECT_THAT(execve((dir / "none").c_str(), argv, nullptr), SyscallFails(ENOENT));
  EXPECT_THAT(execve(dir.path().c_str(), argv, nullptr), SyscallFails(EACCES));
  EXPECT_THAT(execve(dir.File("plain", "text", 0644).c_str(), argv, nullptr), SyscallFails(EACCES));
  EXPECT_THAT(execve(dir.File("noexec", "text", 0755).c_str(), argv, nullptr), SyscallFails(ENOEXEC));
  EXPECT_THAT(execve(dir.File("empty", "", 0755).c_str(), argv, nullptr), SyscallFails(ENOEXEC));
  EXPECT_THAT(execve(dir.File("half", "\177ELF\2\1\1", 0755).c_str(), argv, nullptr), SyscallFails(ENOEXEC));
  EXPECT_THAT(execve(dir.File("bad", "#!/none/interpreter\n", 0755).c_str(), argv, nullptr), SyscallFails(ENOENT));
  EXPECT_THAT(execve((dir / "plain/x").c_str(), argv, nullptr), SyscallFails(ENOTDIR));
  EXPECT_THAT(execve(std::string(5000, 'a').c_str(), argv, nullptr), SyscallFails(ENAMETOOLONG));
  EXPECT_THAT(syscall(SYS_execve, nullptr, argv, nullptr), SyscallFails(EFAULT));
  EXPECT_THAT(syscall(SYS_execve, "/bin/true", 8, nullptr), SyscallFails(EFAULT));
  std::string loop = dir / "loop";
  ASSERT_OK(symlink("loop", loop.c_str()));
  EXPECT_THAT(execve(loop.c_str(), argv, nullptr), SyscallFails(ELOOP));
  std::string huge(200'000, 'x');
  char* big[] = {const_cast<char*>("x"), huge.data(), nullptr};
  EXPECT_THAT(execve("/bin/true", big, nullptr), SyscallFails(E2BIG));
}

TEST(Exec, ScriptsGetTheirArguments) {
  TempDir dir;
  std::string script = dir.File("script", "#!/bin/sh -e\n[ \"$1\" = one ] && [ \"$0\" = \"$SELF\" ] && exit 5\n", 0755);
  pid_t pid = Spawn([&] {
    setenv("SELF", script.c_str(), 1);
    execl(script.c_str(), "ignored", "one", nullptr);
    return 1;
  });
  EXPECT_EQ(WEXITSTATUS(WaitFor(pid)), 5);
}

TEST(Exec, ClosesAndResets) {
  EXPECT_EQ(RunChild([] {
              int kept = dup(0);
              int closed = fcntl(0, F_DUPFD_CLOEXEC, 0);
              signal(SIGUSR1, SIG_IGN);
              signal(SIGUSR2, [](int) {});
              std::string test = "test -e /proc/self/fd/" + std::to_string(kept) + " && ! test -e /proc/self/fd/" +
                                 std::to_string(closed) + " && kill -USR1 $$ && exit 0; exit 3";
              execlp("sh", "sh", "-c", test.c_str(), nullptr);
              return 1;
            }),
            0);
}

TEST(Exec, OtherThreadsEnd) {
  EXPECT_EQ(RunChild([] {
              std::vector<std::thread> threads;
              for (int i = 0; i < 8; i++) threads.emplace_back([] { pause(); });
              // From a thread that is not the leader, which gets the leader's number.
              std::thread([] {
                std::string test = "[ $$ = " + std::to_string(getpid()) + " ] && [ $(ls /proc/$$/task | wc -l) = 1 ]";
                execlp("sh", "sh", "-c", test.c_str(), nullptr);
              }).join();
              return 1;
            }),
            0);
}

TEST(Exit, StatusIsOneByte) {
  EXPECT_EQ(WEXITSTATUS(RunChild([] { return 0x1ff; })), 0xff);
  EXPECT_EQ(RunChild([] {
              std::thread([] { syscall(SYS_exit_group, 3); }).join();
              return 0;
            }),
            3 << 8);
}

TEST(Exit, TheLeadersExitDoesNotEndTheProcess) {
  EXPECT_EQ(RunChild([] {
              std::thread([] {
                usleep(30'000);
                syscall(SYS_exit_group, 4);
              }).detach();
              syscall(SYS_exit, 0);
              return 0;
            }),
            4 << 8);
}

TEST(Wait, Errors) {
  EXPECT_THAT(wait4(-1, nullptr, 0, nullptr), SyscallFails(ECHILD));
  EXPECT_THAT(wait4(-1, nullptr, 0x100, nullptr), SyscallFails(EINVAL));
  EXPECT_THAT(waitpid(getpid(), nullptr, 0), SyscallFails(ECHILD));
  siginfo_t info;
  EXPECT_THAT(waitid(P_ALL, 0, &info, 0), SyscallFails(EINVAL));
  EXPECT_THAT(syscall(SYS_waitid, 77, 0, &info, WEXITED, nullptr), SyscallFails(EINVAL));
  EXPECT_THAT(syscall(SYS_waitid, P_PIDFD, 9999, &info, WEXITED, nullptr), SyscallFails(EBADF));
}

TEST(Wait, NohangAndNowait) {
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  pid_t pid = Spawn([&] {
    close(fds[1]);
    char c;
    (void)!read(fds[0], &c, 1);
    return 6;
  });
  EXPECT_THAT(waitpid(pid, nullptr, WNOHANG), SyscallReturns(0));
  siginfo_t info;
  memset(&info, 0xff, sizeof(info));
  EXPECT_OK(waitid(P_PID, pid, &info, WEXITED | WNOHANG));
  EXPECT_EQ(info.si_pid, 0);
  close(fds[1]);
  close(fds[0]);
  EXPECT_OK(waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
  EXPECT_EQ(info.si_status, 6);
  EXPECT_EQ(info.si_code, CLD_EXITED);
  EXPECT_EQ(info.si_signo, SIGCHLD);
  int status = 0;
  EXPECT_THAT(waitpid(pid, &status, 0), SyscallReturns(pid));
  EXPECT_EQ(WEXITSTATUS(status), 6);
  EXPECT_THAT(waitpid(pid, &status, 0), SyscallFails(ECHILD));
}

TEST(Wait, StopsAndContinues) {
  pid_t pid = Spawn([] {
    while (true) pause();
    return 0;
  });
  int status = 0;
  ASSERT_OK(kill(pid, SIGSTOP));
  EXPECT_THAT(waitpid(pid, &status, WUNTRACED), SyscallReturns(pid));
  EXPECT_TRUE(WIFSTOPPED(status));
  EXPECT_EQ(WSTOPSIG(status), SIGSTOP);
  EXPECT_THAT(waitpid(pid, &status, WUNTRACED | WNOHANG), SyscallReturns(0));  // told once
  ASSERT_OK(kill(pid, SIGCONT));
  EXPECT_THAT(waitpid(pid, &status, WCONTINUED), SyscallReturns(pid));
  EXPECT_TRUE(WIFCONTINUED(status));
  ASSERT_OK(kill(pid, SIGSTOP));
  ASSERT_OK(kill(pid, SIGKILL));  // also of the stopped
  EXPECT_THAT(waitpid(pid, &status, 0), SyscallReturns(pid));
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
}

TEST(Wait, ByProcessGroup) {
  pid_t a = Spawn([] {
    setpgid(0, 0);
    return 1;
  });
  setpgid(a, a);
  pid_t b = Spawn([] { return 2; });
  int status = 0;
  EXPECT_THAT(waitpid(-a, &status, 0), SyscallReturns(a));
  EXPECT_THAT(waitpid(-a, &status, 0), SyscallFails(ECHILD));
  EXPECT_THAT(waitpid(0, &status, 0), SyscallReturns(b));
}

TEST(Wait, IgnoredChildrenAreNotZombies) {
  EXPECT_EQ(RunChild([] {
              signal(SIGCHLD, SIG_IGN);
              pid_t pid = Spawn([] { return 0; });
              EXPECT_THAT(waitpid(pid, nullptr, 0), SyscallFails(ECHILD));
              return 0;
            }),
            0);
}

TEST(Wait, UsageOfChildren) {
  pid_t pid = Spawn([] {
    int64_t end = NowMs() + 60;
    while (NowMs() < end) {
    }
    return 0;
  });
  rusage usage{};
  int status = 0;
  EXPECT_THAT(wait4(pid, &status, 0, &usage), SyscallReturns(pid));
  EXPECT_GT(usage.ru_utime.tv_sec * 1'000'000 + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec, 10'000);
  EXPECT_GT(usage.ru_maxrss, 0);
  rusage all{};
  EXPECT_OK(getrusage(RUSAGE_CHILDREN, &all));
  EXPECT_GE(all.ru_utime.tv_sec * 1'000'000 + all.ru_utime.tv_usec, usage.ru_utime.tv_usec);
  EXPECT_THAT(getrusage(77, &all), SyscallFails(EINVAL));
  EXPECT_THAT(syscall(SYS_getrusage, RUSAGE_SELF, nullptr), SyscallFails(EFAULT));
}

TEST(Wait, InterruptedByASignal) {
  struct sigaction action{};
  action.sa_handler = [](int) {};
  sigaction(SIGALRM, &action, nullptr);
  pid_t pid = Spawn([] {
    pause();
    return 0;
  });
  alarm(1);
  EXPECT_THAT(waitpid(pid, nullptr, 0), SyscallFails(EINTR));
  kill(pid, SIGKILL);
  WaitFor(pid);
}

TEST(Orphans, GoToInit) {
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  pid_t middle = Spawn([&] {
    pid_t first = getpid();
    Spawn([&] {
      while (getppid() == first) usleep(1000);
      char c = 'y';
      EXPECT_THAT(write(fds[1], &c, 1), SyscallReturns(1));
      return 0;
    });
    _exit(0);
    return 0;
  });
  WaitFor(middle);
  close(fds[1]);
  char c = 0;
  EXPECT_THAT(read(fds[0], &c, 1), SyscallReturns(1));
  EXPECT_EQ(c, 'y');
  close(fds[0]);
}

}  // namespace
}  // namespace redoubt::testing
