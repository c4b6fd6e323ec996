// Identity and limits: setuid(2) and its family, setgroups(2), capabilities(7), getrlimit(2), prctl(2), setsid(2),
// setpgid(2).
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"

namespace redoubt::testing {
namespace {

struct Caps {
  uint32_t effective, permitted, inheritable;
};

// The raw call: glibc has no wrapper, and libcap would hide the versions.
long CapGet(uint32_t version, int pid, Caps* caps) {
  struct {
    uint32_t version;
    int pid;
  } header{version, pid};
  return syscall(SYS_capget, &header, caps);
}

TEST(Identity, SetuidByRootSetsAllThree) {
  EXPECT_EQ(RunChild([] {
              EXPECT_OK(setuid(1000));
              uid_t r, e, s;
              EXPECT_OK(getresuid(&r, &e, &s));
              EXPECT_EQ(r, 1000u);
              EXPECT_EQ(e, 1000u);
              EXPECT_EQ(s, 1000u);
              EXPECT_THAT(setuid(0), SyscallFails(EPERM));
              return 0;
            }),
            0);
}

TEST(Identity, SetuidOfInvalidIdFails) { EXPECT_THAT(syscall(SYS_setuid, -1), SyscallFails(EINVAL)); }

TEST(Identity, SeteuidCanGoBackToSaved) {
  EXPECT_EQ(RunChild([] {
              EXPECT_OK(setresuid(1000, 1000, 0));
              EXPECT_OK(setresuid(-1, 0, -1));
              EXPECT_EQ(geteuid(), 0u);
              EXPECT_EQ(getuid(), 1000u);
              return 0;
            }),
            0);
}

TEST(Identity, SetreuidChangesSavedWithReal) {
  EXPECT_EQ(RunChild([] {
              EXPECT_OK(setreuid(1000, 1001));
              uid_t r, e, s;
              EXPECT_OK(getresuid(&r, &e, &s));
              EXPECT_EQ(s, 1001u);
              EXPECT_THAT(setreuid(5, -1), SyscallFails(EPERM));
              EXPECT_OK(setreuid(1001, 1000));
              return 0;
            }),
            0);
}

TEST(Identity, SetresuidRefusesStrangers) {
  EXPECT_EQ(RunAsNobody([] {
              EXPECT_THAT(setresuid(1, -1, -1), SyscallFails(EPERM));
              EXPECT_THAT(setresgid(-1, 1, -1), SyscallFails(EPERM));
              EXPECT_OK(setresuid(kNobody, kNobody, kNobody));
            }),
            0);
}

TEST(Identity, GetresuidIntoNowhereFails) {
  EXPECT_THAT(syscall(SYS_getresuid, nullptr, nullptr, nullptr), SyscallFails(EFAULT));
}

TEST(Identity, SetfsuidReturnsTheOldOne) {
  EXPECT_EQ(RunChild([] {
              EXPECT_EQ(syscall(SYS_setfsuid, 1000), 0);
              EXPECT_EQ(syscall(SYS_setfsuid, -1), 1000);
              EXPECT_EQ(syscall(SYS_setfsgid, 1000), 0);
              EXPECT_EQ(syscall(SYS_setfsgid, -1), 1000);
              return 0;
            }),
            0);
}

TEST(Identity, GroupsAreKept) {
  EXPECT_EQ(RunChild([] {
              gid_t groups[] = {5, 9, 7};
              EXPECT_OK(syscall(SYS_setgroups, 3, groups));
              gid_t out[8];
              EXPECT_THAT(syscall(SYS_getgroups, 0, nullptr), SyscallReturns(3));
              EXPECT_THAT(syscall(SYS_getgroups, 2, out), SyscallFails(EINVAL));
              EXPECT_THAT(syscall(SYS_getgroups, -1, out), SyscallFails(EINVAL));
              EXPECT_THAT(syscall(SYS_getgroups, 8, nullptr), SyscallFails(EFAULT));
              EXPECT_THAT(syscall(SYS_getgroups, 8, out), SyscallReturns(3));
              EXPECT_THAT(syscall(SYS_setgroups, 65537, groups), SyscallFails(EINVAL));
              return 0;
            }),
            0);
  EXPECT_EQ(RunAsNobody([] {
              gid_t group = 5;
              EXPECT_THAT(syscall(SYS_setgroups, 1, &group), SyscallFails(EPERM));
            }),
            0);
}

TEST(Capabilities, LeavingRootLosesThem) {
  EXPECT_EQ(RunChild([] {
              Caps caps[2];
              EXPECT_OK(CapGet(_LINUX_CAPABILITY_VERSION_3, 0, caps));
              EXPECT_NE(caps[0].effective, 0u);
              EXPECT_OK(setuid(1000));
              EXPECT_OK(CapGet(_LINUX_CAPABILITY_VERSION_3, 0, caps));
              EXPECT_EQ(caps[0].effective, 0u);
              EXPECT_EQ(caps[0].permitted, 0u);
              return 0;
            }),
            0);
}

TEST(Capabilities, KeepcapsKeepsPermitted) {
  EXPECT_EQ(RunChild([] {
              EXPECT_OK(prctl(PR_SET_KEEPCAPS, 1));
              EXPECT_OK(setuid(1000));
              Caps caps[2];
              EXPECT_OK(CapGet(_LINUX_CAPABILITY_VERSION_3, 0, caps));
              EXPECT_EQ(caps[0].effective, 0u);
              EXPECT_NE(caps[0].permitted, 0u);
              return 0;
            }),
            0);
}

TEST(Capabilities, DroppedOnesDoNotComeBack) {
  EXPECT_EQ(RunChild([] {
              struct {
                uint32_t version = _LINUX_CAPABILITY_VERSION_3;
                int pid = 0;
              } header;
              Caps caps[2];
              EXPECT_OK(CapGet(_LINUX_CAPABILITY_VERSION_3, 0, caps));
              caps[0].effective &= ~(1u << CAP_KILL);
              caps[0].permitted &= ~(1u << CAP_KILL);
              EXPECT_OK(syscall(SYS_capset, &header, caps));
              caps[0].permitted |= 1u << CAP_KILL;
              EXPECT_THAT(syscall(SYS_capset, &header, caps), SyscallFails(EPERM));
              caps[0].permitted &= ~(1u << CAP_KILL);
              caps[0].effective |= 1u << CAP_KILL;
              EXPECT_THAT(syscall(SYS_capset, &header, caps), SyscallFails(EPERM));
              return 0;
            }),
            0);
}

TEST(Capabilities, UnknownVersionTellsThePreferredOne) {
  struct {
    uint32_t version = 0x12345678;
    int pid = 0;
  } header;
  Caps caps[2];
  EXPECT_THAT(syscall(SYS_capget, &header, caps), SyscallFails(EINVAL));
  EXPECT_EQ(header.version, static_cast<uint32_t>(_LINUX_CAPABILITY_VERSION_3));
  EXPECT_THAT(CapGet(_LINUX_CAPABILITY_VERSION_3, -1, caps), SyscallFails(EINVAL));
  EXPECT_THAT(CapGet(_LINUX_CAPABILITY_VERSION_3, 4194000, caps), SyscallFails(ESRCH));
}

TEST(Limits, SoftMayNotPassHard) {
  EXPECT_EQ(RunChild([] {
              rlimit limit{100, 200};
              EXPECT_OK(setrlimit(RLIMIT_NOFILE, &limit));
              rlimit out{};
              EXPECT_OK(getrlimit(RLIMIT_NOFILE, &out));
              EXPECT_EQ(out.rlim_cur, 100u);
              EXPECT_EQ(out.rlim_max, 200u);
              limit = {300, 200};
              EXPECT_THAT(setrlimit(RLIMIT_NOFILE, &limit), SyscallFails(EINVAL));
              EXPECT_THAT(syscall(SYS_getrlimit, 99, &out), SyscallFails(EINVAL));
              EXPECT_THAT(syscall(SYS_getrlimit, RLIMIT_CORE, nullptr), SyscallFails(EFAULT));
              return 0;
            }),
            0);
}

TEST(Limits, TheUnprivilegedCannotRaiseTheHardLimit) {
  EXPECT_EQ(RunAsNobody([] {
              rlimit limit{};
              EXPECT_OK(getrlimit(RLIMIT_CORE, &limit));
              limit.rlim_cur = limit.rlim_max = 0;
              EXPECT_OK(setrlimit(RLIMIT_CORE, &limit));
              limit.rlim_max = 1;
              EXPECT_THAT(setrlimit(RLIMIT_CORE, &limit), SyscallFails(EPERM));
            }),
            0);
}

TEST(Limits, NofileIsObeyedAndInherited) {
  EXPECT_EQ(RunChild([] {
              rlimit limit{16, 16};
              EXPECT_OK(setrlimit(RLIMIT_NOFILE, &limit));
              int last = -1;
              for (int fd; (fd = dup(0)) >= 0;) last = fd;
              EXPECT_EQ(errno, EMFILE);
              EXPECT_EQ(last, 15);
              return RunChild([] {
                rlimit inherited{};
                EXPECT_OK(getrlimit(RLIMIT_NOFILE, &inherited));
                EXPECT_EQ(inherited.rlim_cur, 16u);
                return 0;
              });
            }),
            0);
}

TEST(Limits, PrlimitOfAnotherProcess) {
  pid_t pid = Spawn([] {
    pause();
    return 0;
  });
  rlimit limit{77, 88}, old{};
  EXPECT_OK(prlimit(pid, RLIMIT_NOFILE, &limit, &old));
  EXPECT_OK(prlimit(pid, RLIMIT_NOFILE, nullptr, &old));
  EXPECT_EQ(old.rlim_cur, 77u);
  EXPECT_THAT(prlimit(4194000, RLIMIT_NOFILE, nullptr, &old), SyscallFails(ESRCH));
  kill(pid, SIGKILL);
  WaitFor(pid);
}

TEST(Limits, FileSizeLimitSignals) {
  EXPECT_EQ(RunChild([] {
              rlimit limit{10, 10};
              EXPECT_OK(setrlimit(RLIMIT_FSIZE, &limit));
              signal(SIGXFSZ, SIG_IGN);
              char name[] = "/tmp/limit_XXXXXX";
              ScopedFd fd(mkstemp(name));
              unlink(name);
              EXPECT_THAT(write(fd.get(), "0123456789abcdef", 16), SyscallReturns(10));
              EXPECT_THAT(write(fd.get(), "x", 1), SyscallFails(EFBIG));
              return 0;
            }),
            0);
}

TEST(Prctl, NameIsCutAtFifteen) {
  char name[16] = {};
  EXPECT_EQ(RunChild([&] {
              EXPECT_OK(prctl(PR_SET_NAME, "a name that is longer than that"));
              EXPECT_OK(prctl(PR_GET_NAME, name));
              EXPECT_STREQ(name, "a name that is ");
              EXPECT_THAT(prctl(PR_SET_NAME, nullptr), SyscallFails(EFAULT));
              return 0;
            }),
            0);
}

TEST(Prctl, OptionsCheckTheirArguments) {
  EXPECT_THAT(prctl(PR_SET_PDEATHSIG, 65), SyscallFails(EINVAL));
  EXPECT_THAT(prctl(PR_SET_DUMPABLE, 5), SyscallFails(EINVAL));
  EXPECT_THAT(prctl(PR_SET_KEEPCAPS, 2), SyscallFails(EINVAL));
  EXPECT_THAT(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), SyscallFails(EINVAL));
  EXPECT_THAT(prctl(PR_CAPBSET_READ, 1000), SyscallFails(EINVAL));
  EXPECT_THAT(prctl(12345), SyscallFails(EINVAL));
}

TEST(Prctl, NoNewPrivsStays) {
  EXPECT_EQ(RunChild([] {
              EXPECT_OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
              EXPECT_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
              return RunChild([] { return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? 0 : 1; });
            }),
            0);
}

TEST(Prctl, ParentDeathSignalArrives) {
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  pid_t parent = Spawn([&] {
    pid_t child = Spawn([&] {
      sigset_t set;
      sigemptyset(&set);
      sigaddset(&set, SIGUSR1);
      sigprocmask(SIG_BLOCK, &set, nullptr);
      EXPECT_OK(prctl(PR_SET_PDEATHSIG, SIGUSR1));
      char c = 'r';
      EXPECT_THAT(write(fds[1], &c, 1), SyscallReturns(1));
      int sig = 0;
      sigwait(&set, &sig);
      EXPECT_THAT(write(fds[1], &c, 1), SyscallReturns(1));
      return 0;
    });
    (void)child;
    SleepMs(50);
    _exit(0);
    return 0;
  });
  WaitFor(parent);
  close(fds[1]);
  char c;
  EXPECT_THAT(read(fds[0], &c, 1), SyscallReturns(1));
  EXPECT_THAT(read(fds[0], &c, 1), SyscallReturns(1));
  close(fds[0]);
}

TEST(Prctl, SubreaperAdoptsOrphans) {
  EXPECT_EQ(RunChild([] {
              EXPECT_OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
              pid_t middle = Spawn([] {
                Spawn([] {
                  SleepMs(50);
                  return 7;
                });
                _exit(0);
                return 0;
              });
              EXPECT_EQ(WaitFor(middle), 0);
              int status = 0;
              EXPECT_GT(wait(&status), 0);  // the grandchild
              EXPECT_EQ(WEXITSTATUS(status), 7);
              return 0;
            }),
            0);
}

TEST(Sessions, SetsidMakesALeader) {
  EXPECT_EQ(RunChild([] {
              EXPECT_THAT(setsid(), SyscallReturns(getpid()));
              EXPECT_EQ(getsid(0), getpid());
              EXPECT_EQ(getpgrp(), getpid());
              EXPECT_THAT(setsid(), SyscallFails(EPERM));
              EXPECT_THAT(setpgid(0, 0), SyscallFails(EPERM));
              return 0;
            }),
            0);
}

TEST(Sessions, SetpgidMovesAChild) {
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  pid_t child = Spawn([&] {
    close(fds[1]);
    char c;
    (void)!read(fds[0], &c, 1);
    return 0;
  });
  EXPECT_OK(setpgid(child, child));
  EXPECT_EQ(getpgid(child), child);
  EXPECT_THAT(setpgid(child, 4194000), SyscallFails(EPERM));
  EXPECT_THAT(setpgid(child, -1), SyscallFails(EINVAL));
  EXPECT_THAT(setpgid(4194000, 0), SyscallFails(ESRCH));
  EXPECT_THAT(getpgid(4194000), SyscallFails(ESRCH));
  EXPECT_THAT(getsid(4194000), SyscallFails(ESRCH));
  close(fds[0]);
  close(fds[1]);
  EXPECT_EQ(WaitFor(child), 0);
}

TEST(Sessions, SetpgidAfterExecFails) {
  int fds[2];
  ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
  pid_t child = Spawn([] {
    execlp("sleep", "sleep", "10", nullptr);
    return 1;
  });
  close(fds[1]);
  char c;
  EXPECT_THAT(read(fds[0], &c, 1), SyscallReturns(0));  // closed by the exec
  EXPECT_THAT(setpgid(child, child), SyscallFails(EACCES));
  close(fds[0]);
  kill(child, SIGKILL);
  WaitFor(child);
}

}  // namespace
}  // namespace redoubt::testing
