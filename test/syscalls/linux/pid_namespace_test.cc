// PID namespaces: pid_namespaces(7), clone(2), unshare(2), setns(2).
#include <dirent.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"
#include "test/syscalls/util/temp_dir.h"

namespace redoubt::testing {
namespace {

constexpr int kNobodyHasIt = 4'000'000;

long Clone3(uint64_t flags, uint64_t exit_signal = SIGCHLD) {
  clone_args args{};
  args.flags = flags;
  args.exit_signal = exit_signal;
  return syscall(SYS_clone3, &args, sizeof(args));
}

// Forks the first process of a new PID namespace; as Spawn does.
pid_t SpawnInit(const std::function<int()>& body) {
  // Spawn's reporting of failures in the child comes with fork(2), so the namespace is made by unshare(2), of a child
  // whose own children are elsewhere then.
  return Spawn([&] {
    if (unshare(CLONE_NEWPID) != 0) return 98;
    int status = RunChild(body);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
  });
}
// The exit status; 100 and the signal if it was killed by one.
int RunInit(const std::function<int()>& body) { return WEXITSTATUS(WaitFor(SpawnInit(body))); }

void WriteByte(int fd) { EXPECT_RETURNS(write(fd, "x", 1), 1); }
void ReadByte(int fd) {
  char c;
  EXPECT_RETURNS(read(fd, &c, 1), 1);
}

struct Pipe {
  Pipe() {
    int fds[2];
    EXPECT_OK(pipe(fds));
    in = ScopedFd(fds[0]);
    out = ScopedFd(fds[1]);
  }
  ScopedFd in, out;
};

std::string ReadAll(const std::string& path) {
  ScopedFd fd(open(path.c_str(), O_RDONLY));
  std::string text(8192, '\0');
  ssize_t n = read(fd.get(), text.data(), text.size());
  text.resize(n > 0 ? static_cast<size_t>(n) : 0);
  return text;
}
std::string Field(const std::string& status, const std::string& name) {
  size_t at = status.find("\n" + name + ":\t");
  if (at == std::string::npos) return "none";
  at += name.size() + 3;
  return status.substr(at, status.find('\n', at) - at);
}
std::string LinkOf(const std::string& path) {
  char text[128] = {};
  return readlink(path.c_str(), text, sizeof(text) - 1) > 0 ? text : "none";
}

TEST(PidNamespace, TheFirstProcessIsOneAndHasNoParent) {
  EXPECT_EQ(RunInit([] {
              EXPECT_EQ(getpid(), 1);
              EXPECT_EQ(syscall(SYS_gettid), 1);
              EXPECT_EQ(getppid(), 0);
              // Its group and session are those of a process outside.
              EXPECT_EQ(getpgrp(), 0);
              EXPECT_EQ(getsid(0), 0);
              int shared_by_children = 0;
              EXPECT_EQ(RunChild([&] {
                          EXPECT_EQ(getpid(), 2);
                          EXPECT_EQ(getppid(), 1);
                          shared_by_children = 1;
                          return 0;
                        }),
                        0);
              return 0;
            }),
            0);
}

TEST(PidNamespace, CloneMakesItAndTellsTheParentsNumber) {
  int pidfd = -1;
  pid_t parent_tid = 0;
  clone_args args{};
  args.flags = CLONE_NEWPID | CLONE_PIDFD | CLONE_PARENT_SETTID;
  args.pidfd = reinterpret_cast<uint64_t>(&pidfd);
  args.parent_tid = reinterpret_cast<uint64_t>(&parent_tid);
  args.exit_signal = SIGCHLD;
  long pid = syscall(SYS_clone3, &args, sizeof(args));
  if (pid == 0) _exit(getpid() == 1 ? 17 : 1);
  ASSERT_GT(pid, 1);
  EXPECT_EQ(parent_tid, pid);
  siginfo_t info{};
  EXPECT_OK(waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(pidfd), &info, WEXITED | WNOWAIT));
  EXPECT_EQ(info.si_pid, pid);
  EXPECT_EQ(WEXITSTATUS(WaitFor(static_cast<pid_t>(pid))), 17);
  close(pidfd);
}

TEST(PidNamespace, ChildSetTidIsTheChildsOwnNumber) {
  pid_t tid = 77;
  clone_args args{};
  args.flags = CLONE_NEWPID | CLONE_CHILD_SETTID;
  args.child_tid = reinterpret_cast<uint64_t>(&tid);
  args.exit_signal = SIGCHLD;
  long pid = syscall(SYS_clone3, &args, sizeof(args));
  if (pid == 0) _exit(tid == 1 ? 0 : 1);
  ASSERT_GT(pid, 1);
  EXPECT_EQ(WaitFor(static_cast<pid_t>(pid)), 0);
}

TEST(PidNamespace, NotForThreadsNorForJustAnybody) {
  EXPECT_ERRNO(Clone3(CLONE_NEWPID | CLONE_THREAD | CLONE_SIGHAND | CLONE_VM, 0), EINVAL);
  EXPECT_EQ(RunAsNobody([] {
              EXPECT_ERRNO(unshare(CLONE_NEWPID), EPERM);
              EXPECT_ERRNO(Clone3(CLONE_NEWPID), EPERM);
            }),
            0);
}

TEST(PidNamespace, UnshareMovesChildrenAndNotTheCaller) {
  EXPECT_EQ(RunChild([] {
              const pid_t self = getpid();
              const std::string own = LinkOf("/proc/self/ns/pid");
              EXPECT_EQ(LinkOf("/proc/self/ns/pid_for_children"), own);
              EXPECT_OK(unshare(CLONE_NEWPID));
              EXPECT_EQ(getpid(), self);
              EXPECT_EQ(LinkOf("/proc/self/ns/pid"), own);
              // A thread would be of another namespace than its process.
              EXPECT_ERRNO(Clone3(CLONE_THREAD | CLONE_SIGHAND | CLONE_VM, 0), EINVAL);
              Pipe ready, go;
              pid_t first = Spawn([&] {
                EXPECT_EQ(getpid(), 1);
                WriteByte(ready.out.get());
                ReadByte(go.in.get());
                return 0;
              });
              ReadByte(ready.in.get());
              EXPECT_NE(LinkOf("/proc/self/ns/pid_for_children"), own);
              EXPECT_EQ(LinkOf("/proc/self/ns/pid_for_children"), LinkOf("/proc/" + std::to_string(first) + "/ns/pid"));
              EXPECT_EQ(RunChild([] {
                          EXPECT_EQ(getpid(), 2);
                          EXPECT_EQ(getppid(), 0);
                          return 0;
                        }),
                        0);
              WriteByte(go.out.get());
              EXPECT_EQ(WaitFor(first), 0);
              // Its first process has ended: nobody can be made there any more.
              EXPECT_ERRNO(fork(), ENOMEM);
              return 0;
            }),
            0);
}

TEST(PidNamespace, UnshareTakesOneOnly) {
  EXPECT_EQ(RunChild([] {
              EXPECT_OK(unshare(CLONE_NEWPID));
              EXPECT_ERRNO(unshare(CLONE_NEWPID), EINVAL);
              EXPECT_ERRNO(Clone3(CLONE_NEWPID), EINVAL);
              return 0;
            }),
            0);
}

// user.max_pid_namespaces: namespaces(7).
TEST(PidNamespace, AUserHasOnlySoMany) {
  EXPECT_EQ(RunChild([] {
              // A user namespace has the setting for itself; the machine's is left alone. Where there are none, it is
              // the sandbox' own.
              EXPECT_TRUE(unshare(CLONE_NEWUSER) == 0 || errno == EINVAL) << errno;
              ScopedFd setting(open("/proc/sys/user/max_pid_namespaces", O_RDWR));
              EXPECT_OK(setting.get());
              std::string before(16, 0);
              before.resize(static_cast<size_t>(std::max<ssize_t>(pread(setting.get(), before.data(), 16, 0), 0)));
              EXPECT_GT(atoi(before.c_str()), 2);
              // One more than there are already: those of zombies that nobody has waited for.
              long pid = -1;
              for (int most = 1; pid < 0 && most < 1000; most++) {
                const std::string text = std::to_string(most);
                EXPECT_RETURNS(pwrite(setting.get(), text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
                pid = Clone3(CLONE_NEWPID);
                if (pid == 0) pause();
                EXPECT_TRUE(pid > 0 || errno == ENOSPC) << errno;
              }
              if (pid < 0) return 1;
              EXPECT_ERRNO(Clone3(CLONE_NEWPID), ENOSPC);
              EXPECT_ERRNO(unshare(CLONE_NEWPID), ENOSPC);
              EXPECT_OK(kill(static_cast<pid_t>(pid), SIGKILL));
              EXPECT_RETURNS(waitpid(static_cast<pid_t>(pid), nullptr, 0), pid);
              // Linux frees one some time after its last process.
              int made = -1;
              for (int i = 0; i < 1000 && (made = unshare(CLONE_NEWPID)) != 0; i++) usleep(10'000);
              EXPECT_EQ(made, 0);
              EXPECT_RETURNS(pwrite(setting.get(), before.data(), before.size(), 0),
                             static_cast<ssize_t>(before.size()));
              return 0;
            }),
            0);
}

TEST(PidNamespace, NestsThirtyTwoDeep) {
  EXPECT_EQ(RunInit([] {
              std::function<int(int)> deeper = [&](int depth) -> int {
                if (depth > 40) return 1;
                if (unshare(CLONE_NEWPID) != 0) return errno == ENOSPC && depth >= 28 ? 0 : 2;
                int status = RunChild([&] { return getpid() == 1 ? deeper(depth + 1) : 3; });
                return WIFEXITED(status) ? WEXITSTATUS(status) : 4;
              };
              return deeper(1);
            }),
            0);
}

TEST(PidNamespace, NumbersInsideAreNotThoseOutside) {
  const pid_t outside = getpid();
  EXPECT_EQ(RunInit([&] {
              if (outside > 4) {
                EXPECT_ERRNO(kill(outside, 0), ESRCH);
                EXPECT_ERRNO(syscall(SYS_pidfd_open, outside, 0), ESRCH);
                EXPECT_ERRNO(getpgid(outside), ESRCH);
                EXPECT_ERRNO(getsid(outside), ESRCH);
                EXPECT_ERRNO(syscall(SYS_tgkill, outside, outside, 0), ESRCH);
              }
              EXPECT_ERRNO(kill(kNobodyHasIt, 0), ESRCH);
              EXPECT_OK(kill(1, 0));
              EXPECT_OK(syscall(SYS_tgkill, 1, 1, 0));
              EXPECT_OK(setsid());
              EXPECT_EQ(getsid(0), 1);
              EXPECT_EQ(getpgrp(), 1);
              pid_t child = Spawn([] {
                EXPECT_EQ(getsid(0), 1);
                EXPECT_OK(setpgid(0, 0));
                EXPECT_EQ(getpgrp(), getpid());
                raise(SIGSTOP);
                return 0;
              });
              EXPECT_EQ(child, 2);
              int status = 0;
              EXPECT_RETURNS(waitpid(child, &status, WUNTRACED), child);
              EXPECT_EQ(getpgid(child), child);
              EXPECT_RETURNS(waitpid(-child, &status, WNOHANG), 0);
              EXPECT_OK(kill(-child, SIGCONT));
              EXPECT_RETURNS(waitpid(-child, &status, 0), child);
              EXPECT_EQ(status, 0);
              return 0;
            }),
            0);
}

// --- the first process

TEST(PidNamespaceInit, IgnoresFromInsideWhatItDoesNotHandle) {
  EXPECT_EQ(RunInit([] {
              for (int sig : {SIGTERM, SIGKILL, SIGSTOP, SIGSEGV, SIGTSTP, SIGRTMIN}) {
                EXPECT_OK(kill(1, sig));
                EXPECT_EQ(RunChild([&] {
                            EXPECT_OK(kill(1, sig));
                            EXPECT_OK(syscall(SYS_tgkill, 1, 1, sig));
                            return 0;
                          }),
                          0);
              }
              return 5;
            }),
            5);
}

TEST(PidNamespaceInit, TakesFromInsideWhatItHandles) {
  EXPECT_EQ(RunInit([] {
              static siginfo_t got;
              struct sigaction action{};
              action.sa_flags = SA_SIGINFO;
              action.sa_sigaction = [](int, siginfo_t* info, void*) { got = *info; };
              EXPECT_OK(sigaction(SIGTERM, &action, nullptr));
              EXPECT_EQ(RunChild([] {
                          EXPECT_OK(kill(1, SIGTERM));
                          return 0;
                        }),
                        0);
              WaitUntil([] { return got.si_signo == SIGTERM; });
              EXPECT_EQ(got.si_pid, 2);
              // What is blocked waits, whatever would be done about it.
              sigset_t set;
              sigemptyset(&set);
              sigaddset(&set, SIGUSR1);
              EXPECT_OK(sigprocmask(SIG_BLOCK, &set, nullptr));
              EXPECT_OK(kill(1, SIGUSR1));
              siginfo_t info;
              timespec no_time{};
              EXPECT_RETURNS(sigtimedwait(&set, &info, &no_time), SIGUSR1);
              return 0;
            }),
            0);
}

// The first process of a new namespace as a child of this one.
pid_t CloneInit() {
  long pid = Clone3(CLONE_NEWPID);
  if (pid == 0) {
    while (true) pause();
  }
  return static_cast<pid_t>(pid);
}

TEST(PidNamespaceInit, FromOutsideOnlyKillAndStopAreForced) {
  pid_t init = CloneInit();
  ASSERT_GT(init, 0);
  for (int sig : {SIGTERM, SIGINT, SIGUSR1, SIGTSTP}) EXPECT_OK(kill(init, sig));
  SleepMs(20);
  int status = 0;
  EXPECT_RETURNS(waitpid(init, &status, WNOHANG | WUNTRACED), 0);
  EXPECT_OK(kill(init, SIGSTOP));
  EXPECT_RETURNS(waitpid(init, &status, WUNTRACED), init);
  EXPECT_TRUE(WIFSTOPPED(status));
  EXPECT_OK(kill(init, SIGCONT));
  EXPECT_RETURNS(waitpid(init, &status, WCONTINUED), init);
  EXPECT_OK(kill(init, SIGKILL));
  EXPECT_EQ(WaitFor(init), SIGKILL);
}

TEST(PidNamespaceInit, ASenderOutsideHasNoNumber) {
  Pipe ready;
  long pid = Clone3(CLONE_NEWPID);
  if (pid == 0) {
    static siginfo_t got;
    struct sigaction action{};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = [](int, siginfo_t* info, void*) { got = *info; };
    sigaction(SIGTERM, &action, nullptr);
    (void)!write(ready.out.get(), "x", 1);
    while (got.si_signo == 0) pause();
    _exit(got.si_pid == 0 && got.si_code == SI_USER ? 0 : 1);
  }
  ASSERT_GT(pid, 0);
  ReadByte(ready.in.get());
  // Between its look and its pause it may miss one.
  int status = -1;
  WaitUntil([&] {
    kill(static_cast<pid_t>(pid), SIGTERM);
    return waitpid(static_cast<pid_t>(pid), &status, WNOHANG) == pid;
  });
  EXPECT_EQ(status, 0);
}

TEST(PidNamespaceInit, HasNoSiblings) {
  EXPECT_EQ(RunInit([] {
              EXPECT_ERRNO(Clone3(CLONE_PARENT, 0), EINVAL);
              return 0;
            }),
            0);
}

TEST(PidNamespaceInit, ItsOwnFaultsKillIt) {
  long pid = Clone3(CLONE_NEWPID);
  if (pid == 0) {
    *reinterpret_cast<volatile int*>(8) = 1;
    _exit(0);
  }
  ASSERT_GT(pid, 0);
  int status = WaitFor(static_cast<pid_t>(pid));
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGSEGV);
}

TEST(PidNamespaceInit, OrphansBecomeItsChildren) {
  EXPECT_EQ(RunInit([] {
              Pipe pipe;
              EXPECT_EQ(RunChild([&] {
                          const pid_t middle = getpid();
                          if (fork() == 0) {
                            while (getppid() == middle) usleep(1000);
                            (void)!write(pipe.out.get(), getppid() == 1 ? "y" : "n", 1);
                            _exit(6);
                          }
                          return 0;
                        }),
                        0);
              char c = 0;
              EXPECT_RETURNS(read(pipe.in.get(), &c, 1), 1);
              EXPECT_EQ(c, 'y');
              int status = 0;
              EXPECT_RETURNS(waitpid(-1, &status, 0), 3);
              EXPECT_EQ(WEXITSTATUS(status), 6);
              return 0;
            }),
            0);
}

TEST(PidNamespaceInit, ASubreaperOutsideDoesNotGetThem) {
  EXPECT_EQ(RunChild([] {
              EXPECT_OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
              EXPECT_EQ(RunInit([] {
                          EXPECT_EQ(RunChild([] {
                                      if (fork() == 0) _exit(6);
                                      return 0;
                                    }),
                                    0);
                          int status = 0;
                          EXPECT_RETURNS(waitpid(-1, &status, 0), 3);
                          return WEXITSTATUS(status);
                        }),
                        6);
              return 0;
            }),
            0);
}

TEST(PidNamespaceInit, NobodyOutlivesIt) {
  Pipe pipe;
  long pid = Clone3(CLONE_NEWPID);
  if (pid == 0) {
    for (int i = 0; i < 3; i++) {
      if (fork() != 0) continue;
      // In a group of its own, and one generation further.
      setsid();
      fork();
      signal(SIGTERM, SIG_IGN);
      (void)!write(pipe.out.get(), "x", 1);
      while (true) pause();
    }
    pipe.in.reset();
    pipe.out.reset();
    while (true) pause();
  }
  ASSERT_GT(pid, 0);
  pipe.out.reset();
  for (int i = 0; i < 6; i++) ReadByte(pipe.in.get());
  EXPECT_OK(kill(static_cast<pid_t>(pid), SIGKILL));
  EXPECT_EQ(WaitFor(static_cast<pid_t>(pid)), SIGKILL);
  // They were gone when it could be waited for: nobody holds the other end.
  pollfd p{pipe.in.get(), POLLIN, 0};
  EXPECT_RETURNS(poll(&p, 1, 0), 1);
  char c;
  EXPECT_RETURNS(read(pipe.in.get(), &c, 1), 0);
}

TEST(PidNamespaceInit, WhenItExitsToo) {
  Pipe pipe;
  EXPECT_EQ(RunInit([&] {
              if (fork() == 0) {
                while (true) pause();
              }
              return 9;
            }),
            9);
  pipe.out.reset();
  char c;
  EXPECT_RETURNS(read(pipe.in.get(), &c, 1), 0);
}

TEST(PidNamespaceInit, KillOfAllSparesIt) {
  EXPECT_EQ(RunInit([] {
              pid_t child = Spawn([] {
                while (true) pause();
                return 0;
              });
              // The caller is spared as well.
              EXPECT_EQ(RunChild([] {
                          EXPECT_OK(kill(-1, SIGKILL));
                          return 3;
                        }),
                        3 << 8);
              EXPECT_EQ(WaitFor(child), SIGKILL);
              EXPECT_ERRNO(kill(-1, SIGKILL), ESRCH);
              return 0;
            }),
            0);
}

// --- setns(2)

TEST(PidNamespaceSetns, GoesDownByFileAndByPidfd) {
  pid_t init = CloneInit();
  ASSERT_GT(init, 0);
  const std::string path = "/proc/" + std::to_string(init) + "/ns/pid";
  ScopedFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_GE(file.get(), 0);
  ScopedFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, init, 0)));
  ASSERT_GE(pidfd.get(), 0);
  int expected = 2;
  for (auto [fd, type] :
       {std::pair{file.get(), 0}, std::pair{file.get(), CLONE_NEWPID}, std::pair{pidfd.get(), CLONE_NEWPID}}) {
    EXPECT_EQ(RunChild([&, fd = fd, type = type] {
                EXPECT_OK(setns(fd, type));
                EXPECT_EQ(RunChild([&] {
                            EXPECT_EQ(getpid(), expected);
                            EXPECT_EQ(getppid(), 0);
                            return 0;
                          }),
                          0);
                return 0;
              }),
              0);
    expected++;
  }
  EXPECT_ERRNO(setns(file.get(), CLONE_NEWNS), EINVAL);
  EXPECT_ERRNO(setns(pidfd.get(), 0), EINVAL);
  EXPECT_ERRNO(setns(-1, 0), EBADF);
  Pipe pipe;
  EXPECT_ERRNO(setns(pipe.in.get(), 0), EINVAL);
  EXPECT_EQ(RunAsNobody([&] { EXPECT_ERRNO(setns(file.get(), CLONE_NEWPID), EPERM); }), 0);
  EXPECT_OK(kill(init, SIGKILL));
  EXPECT_EQ(WaitFor(init), SIGKILL);
  EXPECT_ERRNO(setns(pidfd.get(), CLONE_NEWPID), ESRCH);
  // The file keeps the namespace, in which nobody can live any more.
  EXPECT_EQ(RunChild([&] {
              EXPECT_OK(setns(file.get(), CLONE_NEWPID));
              EXPECT_ERRNO(fork(), ENOMEM);
              return 0;
            }),
            0);
}

TEST(PidNamespaceSetns, NeverGoesUp) {
  ScopedFd own(open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC));
  ASSERT_GE(own.get(), 0);
  EXPECT_EQ(RunChild([&] {
              EXPECT_OK(setns(own.get(), CLONE_NEWPID));
              EXPECT_EQ(RunChild([] { return getpid() > 1 ? 0 : 1; }), 0);
              return 0;
            }),
            0);
  EXPECT_EQ(RunInit([&] {
              EXPECT_ERRNO(setns(own.get(), CLONE_NEWPID), EINVAL);
              return 0;
            }),
            0);
}

TEST(PidNamespaceSetns, FilesOfOneNamespaceAreOneInode) {
  pid_t init = CloneInit();
  ASSERT_GT(init, 0);
  struct stat self{}, parent{}, other{};
  EXPECT_OK(stat("/proc/self/ns/pid", &self));
  EXPECT_OK(stat(("/proc/" + std::to_string(getppid()) + "/ns/pid").c_str(), &parent));
  EXPECT_OK(stat(("/proc/" + std::to_string(init) + "/ns/pid").c_str(), &other));
  EXPECT_EQ(self.st_ino, parent.st_ino);
  EXPECT_NE(self.st_ino, other.st_ino);
  EXPECT_EQ(self.st_dev, other.st_dev);
  EXPECT_EQ(LinkOf("/proc/self/ns/pid"), "pid:[" + std::to_string(self.st_ino) + "]");
  kill(init, SIGKILL);
  WaitFor(init);
}

// --- numbers that travel

// Credentials of messages and of peers, read on this side of the namespace and on the other.
TEST(PidNamespaceNumbers, CredentialsAreTheReaders) {
  int sv[2];
  ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
  ScopedFd outer(sv[0]), inner(sv[1]);
  const int on = 1;
  for (const ScopedFd* fd : {&outer, &inner}) {
    ASSERT_OK(setsockopt(fd->get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)));
  }
  auto receive = [](int fd) {
    char data[8];
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))];
    iovec iov{data, sizeof(data)};
    msghdr m{};
    m.msg_iov = &iov;
    m.msg_iovlen = 1;
    m.msg_control = control;
    m.msg_controllen = sizeof(control);
    EXPECT_OK(recvmsg(fd, &m, 0));
    ucred cred{.pid = -1, .uid = 0, .gid = 0};
    if (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr) std::memcpy(&cred, CMSG_DATA(c), sizeof(cred));
    return cred.pid;
  };
  auto peer = [](int fd) {
    ucred cred{};
    socklen_t length = sizeof(cred);
    EXPECT_OK(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &length));
    return cred.pid;
  };
  WriteByte(outer.get());
  long pid = Clone3(CLONE_NEWPID);
  if (pid == 0) {
    int failures = 0;
    if (receive(inner.get()) != 0) failures |= 1;
    if (peer(inner.get()) != 0) failures |= 2;
    if (write(inner.get(), "x", 1) != 1) failures |= 4;
    int own[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, own) != 0 || peer(own[0]) != 1) failures |= 8;
    _exit(failures);
  }
  ASSERT_GT(pid, 0);
  EXPECT_EQ(WaitFor(static_cast<pid_t>(pid)), 0);
  EXPECT_EQ(receive(outer.get()), pid) << "though it has ended";
  EXPECT_EQ(peer(outer.get()), getpid());
}

TEST(PidNamespaceNumbers, LocksOwnersAndSegments) {
  TempDir dir;
  ScopedFd file = dir.Open("file", "0123456789");
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_len = 50;
  ASSERT_OK(fcntl(file.get(), F_SETLK, &lock));
  int shm = shmget(IPC_PRIVATE, 4096, 0600);
  ASSERT_GE(shm, 0);
  EXPECT_EQ(RunInit([&] {
              // Of somebody who is not seen from here.
              struct flock found{};
              found.l_type = F_WRLCK;
              found.l_whence = SEEK_SET;
              EXPECT_OK(fcntl(file.get(), F_GETLK, &found));
              EXPECT_EQ(found.l_type, F_WRLCK);
              EXPECT_EQ(found.l_pid, 0);
              shmid_ds ds{};
              EXPECT_OK(shmctl(shm, IPC_STAT, &ds));
              EXPECT_EQ(ds.shm_cpid, 0);
              void* at = shmat(shm, nullptr, 0);
              EXPECT_NE(at, reinterpret_cast<void*>(-1));
              EXPECT_OK(shmctl(shm, IPC_STAT, &ds));
              EXPECT_EQ(ds.shm_lpid, 1);
              Pipe pipe;
              EXPECT_OK(fcntl(pipe.in.get(), F_SETOWN, 1));
              EXPECT_EQ(fcntl(pipe.in.get(), F_GETOWN), 1);
              EXPECT_ERRNO(fcntl(pipe.in.get(), F_SETOWN, kNobodyHasIt), ESRCH);
              // A lock of one's own namespace has its number.
              EXPECT_EQ(RunChild([&] {
                          struct flock second{};
                          second.l_type = F_WRLCK;
                          second.l_whence = SEEK_SET;
                          second.l_start = 100;
                          second.l_len = 1;
                          EXPECT_OK(fcntl(file.get(), F_SETLK, &second));
                          EXPECT_EQ(RunChild([&] {
                                      struct flock seen{};
                                      seen.l_type = F_WRLCK;
                                      seen.l_whence = SEEK_SET;
                                      seen.l_start = 100;
                                      seen.l_len = 1;
                                      EXPECT_OK(fcntl(file.get(), F_GETLK, &seen));
                                      EXPECT_EQ(seen.l_pid, getppid());
                                      return 0;
                                    }),
                                    0);
                          return 0;
                        }),
                        0);
              return 0;
            }),
            0);
  shmctl(shm, IPC_RMID, nullptr);
}

TEST(PidNamespaceNumbers, SignalsAndWaitTellTheReadersNumber) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  sigaddset(&set, SIGUSR1);
  EXPECT_EQ(RunChild([&] {
              sigprocmask(SIG_BLOCK, &set, nullptr);
              pid_t child = Spawn([] { return 4; });
              siginfo_t info;
              EXPECT_RETURNS(sigwaitinfo(&set, &info), SIGCHLD);
              EXPECT_EQ(info.si_pid, child);
              WaitFor(child);
              long pid = Clone3(CLONE_NEWPID);
              if (pid == 0) {
                // Inside, the first child is 2, in all that tells of it.
                pid_t inner = fork();
                if (inner == 0) _exit(5);
                siginfo_t told, waited;
                int failures = inner == 2 ? 0 : 1;
                if (sigwaitinfo(&set, &told) != SIGCHLD || told.si_pid != 2 || told.si_status != 5) failures |= 2;
                if (waitid(P_PID, 2, &waited, WEXITED) != 0 || waited.si_pid != 2) failures |= 4;
                _exit(failures);
              }
              EXPECT_RETURNS(sigwaitinfo(&set, &info), SIGCHLD);
              EXPECT_EQ(info.si_pid, pid);
              EXPECT_EQ(WaitFor(static_cast<pid_t>(pid)), 0);
              return 0;
            }),
            0);
}

// A descriptor of a process that is not seen from here.
TEST(PidNamespaceNumbers, PidfdsDoNotReachUp) {
  ScopedFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
  ASSERT_GE(pidfd.get(), 0);
  EXPECT_EQ(RunInit([&] {
              EXPECT_ERRNO(syscall(SYS_pidfd_send_signal, pidfd.get(), 0, nullptr, 0), EINVAL);
              return 0;
            }),
            0);
  EXPECT_OK(syscall(SYS_pidfd_send_signal, pidfd.get(), 0, nullptr, 0));
}

TEST(PidNamespaceNumbers, RobustListsGoByTheNumberInside) {
  struct Node {
    Node* next;
  };
  struct Shared {
    struct {
      Node* next;
      long offset;
      Node* pending;
    } head;
    Node node;
    std::atomic<uint32_t> word;
  };
  auto* shared = static_cast<Shared*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(shared, MAP_FAILED);
  long pid = Clone3(CLONE_NEWPID);
  if (pid == 0) {
    shared->head.next = &shared->node;
    shared->head.offset = static_cast<long>(offsetof(Shared, word) - offsetof(Shared, node));
    shared->head.pending = nullptr;
    shared->node.next = reinterpret_cast<Node*>(&shared->head);
    shared->word = 1;
    _exit(syscall(SYS_set_robust_list, &shared->head, sizeof(shared->head)) == 0 ? 0 : 1);
  }
  ASSERT_GT(pid, 0);
  EXPECT_EQ(WaitFor(static_cast<pid_t>(pid)), 0);
  EXPECT_EQ(shared->word.load(), 0x40000000u) << "FUTEX_OWNER_DIED";
  munmap(shared, 4096);
}

// --- proc(5)

std::vector<std::string> Numbers(const std::string& dir) {
  std::vector<std::string> names;
  if (DIR* d = opendir(dir.c_str()); d != nullptr) {
    while (dirent* e = readdir(d)) {
      if (isdigit(e->d_name[0])) names.emplace_back(e->d_name);
    }
    closedir(d);
  }
  return names;
}

TEST(PidNamespaceProc, AMountShowsTheNamespaceOfWhoMountedIt) {
  TempDir dir;
  Pipe ready, go;
  // A mount of one's own namespace, and one made inside.
  EXPECT_EQ(RunChild([&] {
              EXPECT_OK(unshare(CLONE_NEWPID | CLONE_NEWNS));
              EXPECT_OK(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr));
              const std::string self = "/proc/" + std::to_string(getpid()) + "/status";
              return WEXITSTATUS(RunChild([&] {
                EXPECT_OK(setsid());
                EXPECT_OK(mount("proc", dir.path().c_str(), "proc", 0, nullptr));
                pid_t child = Spawn([] {
                  while (true) pause();
                  return 0;
                });
                EXPECT_EQ(Numbers(dir.path()), (std::vector<std::string>{"1", "2"}));
                EXPECT_EQ(LinkOf(dir / "self"), "1");
                EXPECT_EQ(LinkOf(dir / "thread-self"), "1/task/1");
                EXPECT_EQ(Field(ReadAll(dir / "2/status"), "PPid"), "1");
                EXPECT_EQ(Field(ReadAll(dir / "2/status"), "NSpid"), "2");
                EXPECT_EQ(Field(ReadAll(dir / "2/status"), "NSpgid"), "1");
                EXPECT_EQ(Field(ReadAll(dir / "2/status"), "NSsid"), "1");
                EXPECT_EQ(ReadAll(dir / "2/stat").substr(0, 2), "2 ");
                EXPECT_EQ(Numbers(dir / "2/task"), (std::vector<std::string>{"2"}));
                EXPECT_EQ(LinkOf(dir / "2/ns/pid"), LinkOf(dir / "self/ns/pid"));
                // The old mount is of the namespace outside, and there the reader has another number.
                EXPECT_FALSE(ReadAll(self).empty());
                const std::string outside = LinkOf("/proc/self");
                EXPECT_NE(outside, "1");
                const std::string numbers = Field(ReadAll("/proc/self/status"), "NSpid");
                EXPECT_EQ(numbers, outside + "\t1");
                EXPECT_EQ(Field(ReadAll("/proc/self/status"), "NSsid"), outside + "\t1");
                kill(child, SIGKILL);
                WaitFor(child);
                EXPECT_EQ(Numbers(dir.path()), (std::vector<std::string>{"1"}));
                EXPECT_OK(umount(dir.path().c_str()));
                return 0;
              }));
            }),
            0);
}

TEST(PidNamespaceProc, WhoIsNotInTheMountsNamespaceHasNoSelfThere) {
  TempDir dir;
  EXPECT_EQ(RunChild([&] {
              EXPECT_OK(unshare(CLONE_NEWPID | CLONE_NEWNS));
              EXPECT_OK(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr));
              Pipe ready, go;
              pid_t init = Spawn([&] {
                EXPECT_OK(mount("proc", dir.path().c_str(), "proc", 0, nullptr));
                WriteByte(ready.out.get());
                ReadByte(go.in.get());
                return 0;
              });
              ReadByte(ready.in.get());
              EXPECT_EQ(LinkOf(dir / "self"), "none");
              EXPECT_EQ(Numbers(dir.path()), (std::vector<std::string>{"1"}));
              WriteByte(go.out.get());
              EXPECT_EQ(WaitFor(init), 0);
              EXPECT_TRUE(Numbers(dir.path()).empty());
              EXPECT_OK(umount(dir.path().c_str()));
              return 0;
            }),
            0);
}

}  // namespace
}  // namespace redoubt::testing
