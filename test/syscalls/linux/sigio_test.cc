// Signals for I/O: O_ASYNC, F_SETOWN, F_SETOWN_EX of fcntl(2), FIOASYNC.
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <thread>

#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"

namespace redoubt::testing {
namespace {

class Sigio : public ::testing::Test {
 protected:
  void SetUp() override {
    int pair[2];
    ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
    a_.reset(pair[0]);
    b_.reset(pair[1]);
    sigemptyset(&set_);
    sigaddset(&set_, SIGIO);
    ASSERT_OK(sigprocmask(SIG_BLOCK, &set_, &old_));
    Drain();
  }
  void TearDown() override {
    // Their end, too, is a change.
    a_.reset();
    b_.reset();
    Drain();
    sigprocmask(SIG_SETMASK, &old_, nullptr);
  }
  bool Take(int milliseconds) {
    timespec t{.tv_sec = milliseconds / 1000, .tv_nsec = milliseconds % 1000 * 1'000'000L};
    int sig = -1;
    while ((sig = sigtimedwait(&set_, nullptr, &t)) < 0 && errno == EINTR) {
    }
    return sig == SIGIO;
  }
  bool Comes() { return Take(5000); }
  bool DoesNotCome() { return !Take(100); }
  void Drain() {
    while (Take(0)) {
    }
  }
  void Async(int fd, bool on) {
    int flags = fcntl(fd, F_GETFL);
    ASSERT_OK(fcntl(fd, F_SETFL, on ? flags | O_ASYNC : flags & ~O_ASYNC));
  }

  ScopedFd a_, b_;
  sigset_t set_, old_;
};

TEST_F(Sigio, TheOwnerIsReadBack) {
  EXPECT_EQ(fcntl(a_.get(), F_GETOWN), 0);
  ASSERT_OK(fcntl(a_.get(), F_SETOWN, getpid()));
  EXPECT_EQ(fcntl(a_.get(), F_GETOWN), getpid());
  f_owner_ex owner{};
  ASSERT_OK(fcntl(a_.get(), F_GETOWN_EX, &owner));
  EXPECT_EQ(owner.type, F_OWNER_PID);
  EXPECT_EQ(owner.pid, getpid());
  owner = {.type = F_OWNER_PGRP, .pid = getpgrp()};
  ASSERT_OK(fcntl(a_.get(), F_SETOWN_EX, &owner));
  owner = {};
  ASSERT_OK(fcntl(a_.get(), F_GETOWN_EX, &owner));
  EXPECT_EQ(owner.type, F_OWNER_PGRP);
  EXPECT_EQ(owner.pid, getpgrp());
  // Of the description: all of its descriptors have it.
  ScopedFd copy(dup(a_.get()));
  owner = {};
  ASSERT_OK(fcntl(copy.get(), F_GETOWN_EX, &owner));
  EXPECT_EQ(owner.pid, getpgrp());
  EXPECT_EQ(fcntl(b_.get(), F_GETOWN), 0);
}

TEST_F(Sigio, AnOwnerThatIsNot) {
  pid_t gone = fork();
  if (gone == 0) _exit(0);
  ASSERT_EQ(waitpid(gone, nullptr, 0), gone);
  EXPECT_ERRNO(fcntl(a_.get(), F_SETOWN, gone), ESRCH);
  f_owner_ex owner{.type = static_cast<__pid_type>(7), .pid = getpid()};
  EXPECT_ERRNO(fcntl(a_.get(), F_SETOWN_EX, &owner), EINVAL);
  EXPECT_ERRNO(fcntl(a_.get(), F_SETOWN, INT_MIN), EINVAL);
  EXPECT_ERRNO(fcntl(a_.get(), F_SETOWN_EX, nullptr), EFAULT);
}

TEST_F(Sigio, ComesWithInput) {
  ASSERT_OK(fcntl(a_.get(), F_SETOWN, getpid()));
  Async(a_.get(), true);
  EXPECT_EQ(fcntl(a_.get(), F_GETFL) & O_ASYNC, O_ASYNC);
  Drain();
  ASSERT_EQ(write(b_.get(), "x", 1), 1);
  EXPECT_TRUE(Comes());
  Drain();
  // Again, though the first has not been read.
  ASSERT_EQ(write(b_.get(), "y", 1), 1);
  EXPECT_TRUE(Comes());
}

TEST_F(Sigio, ComesWithTheEnd) {
  ASSERT_OK(fcntl(a_.get(), F_SETOWN, getpid()));
  Async(a_.get(), true);
  Drain();
  b_.reset();
  EXPECT_TRUE(Comes());
}

TEST_F(Sigio, NotWithoutAnOwnerOrTheFlag) {
  Async(a_.get(), true);
  ASSERT_EQ(write(b_.get(), "x", 1), 1);
  EXPECT_TRUE(DoesNotCome());
  ASSERT_OK(fcntl(a_.get(), F_SETOWN, getpid()));
  Drain();
  ASSERT_EQ(write(b_.get(), "x", 1), 1);
  EXPECT_TRUE(Comes());
  Async(a_.get(), false);
  Drain();
  ASSERT_EQ(write(b_.get(), "x", 1), 1);
  EXPECT_TRUE(DoesNotCome());
  EXPECT_EQ(fcntl(a_.get(), F_GETOWN), getpid());
  Async(a_.get(), true);
  ASSERT_OK(fcntl(a_.get(), F_SETOWN, 0));
  Drain();
  ASSERT_EQ(write(b_.get(), "x", 1), 1);
  EXPECT_TRUE(DoesNotCome());
}

TEST_F(Sigio, ByIoctl) {
  ASSERT_OK(fcntl(a_.get(), F_SETOWN, getpid()));
  int on = 1;
  ASSERT_OK(ioctl(a_.get(), FIOASYNC, &on));
  EXPECT_EQ(fcntl(a_.get(), F_GETFL) & O_ASYNC, O_ASYNC);
  Drain();
  ASSERT_EQ(write(b_.get(), "x", 1), 1);
  EXPECT_TRUE(Comes());
  on = 0;
  ASSERT_OK(ioctl(a_.get(), FIOASYNC, &on));
  EXPECT_EQ(fcntl(a_.get(), F_GETFL) & O_ASYNC, 0);
  EXPECT_ERRNO(ioctl(a_.get(), FIOASYNC, nullptr), EFAULT);
  ScopedFd file(open("/proc/self/exe", O_RDONLY));
  on = 1;
  EXPECT_ERRNO(ioctl(file.get(), FIOASYNC, &on), ENOTTY);
}

TEST_F(Sigio, OfAPipe) {
  int p[2];
  ASSERT_OK(pipe(p));
  ScopedFd r(p[0]), w(p[1]);
  ASSERT_OK(fcntl(r.get(), F_SETOWN, getpid()));
  Async(r.get(), true);
  Drain();
  ASSERT_EQ(write(w.get(), "x", 1), 1);
  EXPECT_TRUE(Comes());
}

TEST_F(Sigio, ToAThread) {
  std::atomic<pid_t> tid{0};
  std::atomic<bool> got{false}, done{false};
  std::thread thread([&] {
    tid = static_cast<pid_t>(syscall(SYS_gettid));
    timespec t{.tv_sec = 10, .tv_nsec = 0};
    got = sigtimedwait(&set_, nullptr, &t) == SIGIO;
    done = true;
  });
  while (tid == 0) usleep(1000);
  f_owner_ex owner{.type = F_OWNER_TID, .pid = tid};
  EXPECT_OK(fcntl(a_.get(), F_SETOWN_EX, &owner));
  Async(a_.get(), true);
  EXPECT_EQ(write(b_.get(), "x", 1), 1);
  thread.join();
  EXPECT_TRUE(got);
}

TEST_F(Sigio, ToAProcessGroup) {
  int ready[2];
  ASSERT_OK(pipe(ready));
  pid_t child = fork();
  if (child == 0) {
    setpgid(0, 0);
    (void)!write(ready[1], "x", 1);
    timespec t{.tv_sec = 10, .tv_nsec = 0};
    _exit(sigtimedwait(&set_, nullptr, &t) == SIGIO ? 0 : 1);
  }
  char c;
  ASSERT_EQ(read(ready[0], &c, 1), 1);
  ASSERT_OK(fcntl(a_.get(), F_SETOWN, -child));
  EXPECT_EQ(fcntl(a_.get(), F_GETOWN), -child);
  Async(a_.get(), true);
  ASSERT_EQ(write(b_.get(), "x", 1), 1);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(DoesNotCome());
  close(ready[0]);
  close(ready[1]);
}

TEST_F(Sigio, AnotherSignalSaysWhatAndWhere) {
  EXPECT_EQ(fcntl(a_.get(), F_GETSIG), 0);
  EXPECT_ERRNO(fcntl(a_.get(), F_SETSIG, 65), EINVAL);
  EXPECT_ERRNO(fcntl(a_.get(), F_SETSIG, -1), EINVAL);
  const int signal = SIGRTMIN + 3;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, signal);
  ASSERT_OK(sigprocmask(SIG_BLOCK, &set, nullptr));
  ASSERT_OK(fcntl(a_.get(), F_SETSIG, signal));
  EXPECT_EQ(fcntl(a_.get(), F_GETSIG), signal);
  ASSERT_OK(fcntl(a_.get(), F_SETOWN, getpid()));
  Async(a_.get(), true);
  siginfo_t info{};
  timespec none{}, limit{.tv_sec = 5, .tv_nsec = 0};
  while (sigtimedwait(&set, &info, &none) > 0) {
  }
  ASSERT_EQ(write(b_.get(), "x", 1), 1);
  ASSERT_EQ(sigtimedwait(&set, &info, &limit), signal);
  EXPECT_EQ(info.si_code, POLL_IN);
  EXPECT_EQ(info.si_fd, a_.get());
  EXPECT_EQ(info.si_band, POLLIN | POLLRDNORM);
  EXPECT_TRUE(DoesNotCome());  // not SIGIO as well
  // SIGIO by name says so, too.
  ASSERT_OK(fcntl(a_.get(), F_SETSIG, SIGIO));
  Drain();
  ASSERT_EQ(write(b_.get(), "y", 1), 1);
  ASSERT_EQ(sigtimedwait(&set_, &info, &limit), SIGIO);
  EXPECT_EQ(info.si_code, POLL_IN);
  EXPECT_EQ(info.si_fd, a_.get());
  ASSERT_OK(fcntl(a_.get(), F_SETSIG, 0));
  Drain();
  ASSERT_EQ(write(b_.get(), "z", 1), 1);
  ASSERT_EQ(sigtimedwait(&set_, &info, &limit), SIGIO);
  EXPECT_EQ(info.si_code, SI_KERNEL);
}

TEST_F(Sigio, SocketsHaveTheOwnerByIoctlToo) {
  int owner = getpid();
  ASSERT_OK(ioctl(a_.get(), SIOCSPGRP, &owner));
  EXPECT_EQ(fcntl(a_.get(), F_GETOWN), getpid());
  owner = -getpgrp();
  ASSERT_OK(ioctl(a_.get(), FIOSETOWN, &owner));
  owner = 0;
  ASSERT_OK(ioctl(a_.get(), SIOCGPGRP, &owner));
  EXPECT_EQ(owner, -getpgrp());
  owner = 0;
  ASSERT_OK(ioctl(a_.get(), FIOGETOWN, &owner));
  EXPECT_EQ(owner, -getpgrp());
  int p[2];
  ASSERT_OK(pipe(p));
  EXPECT_ERRNO(ioctl(p[0], SIOCSPGRP, &owner), ENOTTY);
  close(p[0]);
  close(p[1]);
}

TEST_F(Sigio, IsForgottenWithTheDescription) {
  for (int i = 0; i < 100; i++) {
    int pair[2];
    ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    EXPECT_EQ(fcntl(pair[0], F_GETOWN), 0);
    ASSERT_OK(fcntl(pair[0], F_SETOWN, getpid()));
    close(pair[0]);
    close(pair[1]);
  }
}

}  // namespace
}  // namespace redoubt::testing
