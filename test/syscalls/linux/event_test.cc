// pipe(2), poll(2), select(2), epoll(7), eventfd(2), timerfd_create(2), signalfd(2).
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"
#include "test/syscalls/util/temp_dir.h"

namespace redoubt::testing {
namespace {

struct PipePair {
  explicit PipePair(int flags = 0) {
    int p[2] = {-1, -1};
    EXPECT_OK(pipe2(p, flags));
    r.reset(p[0]);
    w.reset(p[1]);
  }
  ScopedFd r, w;
};

short PollOne(int fd, short events, int timeout = 0) {
  pollfd p{fd, events, 0};
  EXPECT_OK(poll(&p, 1, timeout));
  return p.revents;
}

TEST(Pipe, FlagsAreApplied) {
  PipePair p(O_CLOEXEC | O_NONBLOCK);
  char c;
  EXPECT_RETURNS(fcntl(p.r.get(), F_GETFD), FD_CLOEXEC);
  EXPECT_ERRNO(read(p.r.get(), &c, 1), EAGAIN);
  int fds[2];
  EXPECT_ERRNO(pipe2(fds, O_APPEND), EINVAL);
  EXPECT_ERRNO(syscall(SYS_pipe, 8L), EFAULT);
}

TEST(Pipe, WrongEndFailsWithEbadf) {
  PipePair p;
  char c = 0;
  EXPECT_ERRNO(write(p.r.get(), &c, 1), EBADF);
  EXPECT_ERRNO(read(p.w.get(), &c, 1), EBADF);
}

TEST(Pipe, EndOfFileWhenTheWritersAreGone) {
  PipePair p;
  ASSERT_RETURNS(write(p.w.get(), "ab", 2), 2);
  p.w.reset();
  char c[4];
  EXPECT_RETURNS(read(p.r.get(), c, 4), 2);
  EXPECT_RETURNS(read(p.r.get(), c, 4), 0);
}

TEST(Pipe, WritingWithoutReadersRaisesSigpipe) {
  PipePair p;
  p.r.reset();
  int status = RunChild([&] {
    EXPECT_OK(write(p.w.get(), "x", 1));
    return 0;
  });
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE) << status;
  signal(SIGPIPE, SIG_IGN);
  EXPECT_ERRNO(write(p.w.get(), "x", 1), EPIPE);
}

TEST(Pipe, FullPipeFailsWithEagain) {
  PipePair p(O_NONBLOCK);
  char block[4096] = {};
  for (int i = 0; i < 16; i++) ASSERT_RETURNS(write(p.w.get(), block, 4096), 4096);
  EXPECT_ERRNO(write(p.w.get(), block, 1), EAGAIN);
  EXPECT_EQ(PollOne(p.w.get(), POLLOUT), 0);
  ASSERT_RETURNS(read(p.r.get(), block, 4096), 4096);
  EXPECT_EQ(PollOne(p.w.get(), POLLOUT), POLLOUT);
}

TEST(Pipe, FionreadCounts) {
  PipePair p;
  ASSERT_RETURNS(write(p.w.get(), "abc", 3), 3);
  int n = 0;
  ASSERT_OK(syscall(SYS_ioctl, p.r.get(), 0x541B, &n));
  EXPECT_EQ(n, 3);
}

TEST(Poll, ReportsEachCondition) {
  PipePair p;
  EXPECT_EQ(PollOne(p.r.get(), POLLIN), 0);
  EXPECT_EQ(PollOne(p.w.get(), POLLOUT | POLLIN), POLLOUT);
  ASSERT_RETURNS(write(p.w.get(), "x", 1), 1);
  EXPECT_EQ(PollOne(p.r.get(), POLLIN), POLLIN);
  p.w.reset();
  EXPECT_EQ(PollOne(p.r.get(), POLLIN), POLLIN | POLLHUP);
  EXPECT_EQ(PollOne(999, POLLIN), POLLNVAL);
  EXPECT_EQ(PollOne(-1, POLLIN), 0);
  PipePair q;
  q.r.reset();
  EXPECT_EQ(PollOne(q.w.get(), POLLOUT), POLLOUT | POLLERR);
}

TEST(Poll, TimesOut) {
  PipePair p;
  pollfd f{p.r.get(), POLLIN, 0};
  int64_t start = NowMs();
  EXPECT_RETURNS(poll(&f, 1, 30), 0);
  EXPECT_GE(NowMs() - start, 29);
}

// Of all the ways to wait for descriptors; signal(7) has epoll_wait(2) fail with EINTR here.
TEST(Poll, StopsDoNotProlongTheTimeout) {
  PipePair p;
  pid_t children[3];
  for (int way = 0; way < 3; way++) {
    children[way] = Spawn([&] {
      const int64_t start = NowMs();
      if (way == 0) {
        pollfd fd{p.r.get(), POLLIN, 0};
        EXPECT_RETURNS(poll(&fd, 1, 600), 0);
      } else if (way == 1) {
        timespec t{0, 600000000};
        EXPECT_RETURNS(ppoll(nullptr, 0, &t, nullptr), 0);
      } else {
        timeval t{0, 600000};
        EXPECT_RETURNS(select(0, nullptr, nullptr, nullptr, &t), 0);
      }
      const int64_t took = NowMs() - start;
      EXPECT_GE(took, 599);
      EXPECT_LT(took, 1050);
      return 0;
    });
  }
  for (pid_t child : children) ASSERT_TRUE(WaitUntilAsleep(child, child));
  SleepMs(500);
  for (pid_t child : children) {
    ASSERT_OK(kill(child, SIGSTOP));
    int status;
    ASSERT_RETURNS(waitpid(child, &status, WUNTRACED), child);
    ASSERT_OK(kill(child, SIGCONT));
  }
  for (pid_t child : children) EXPECT_EQ(WaitFor(child), 0);
}

TEST(Poll, WakesWhenDataComes) {
  PipePair p;
  pid_t child = Spawn([&] {
    SleepMs(20);
    return write(p.w.get(), "x", 1) == 1 ? 0 : 1;
  });
  pollfd f{p.r.get(), POLLIN, 0};
  EXPECT_RETURNS(poll(&f, 1, 10000), 1);
  EXPECT_EQ(WaitFor(child), 0);
}

TEST(Poll, ErrorsOfArguments) {
  EXPECT_ERRNO(syscall(SYS_poll, 8L, 1, 0), EFAULT);
  EXPECT_ERRNO(syscall(SYS_poll, 8L, 1 << 30, 0), EINVAL);
  timespec bad{0, 1000000000};
  EXPECT_ERRNO(syscall(SYS_ppoll, nullptr, 0, &bad, nullptr, 8), EINVAL);
  sigset_t set;
  sigemptyset(&set);
  timespec zero{};
  EXPECT_ERRNO(syscall(SYS_ppoll, nullptr, 0, &zero, &set, 4), EINVAL);
}

volatile sig_atomic_t handled;
void Count(int) { handled = handled + 1; }

TEST(Poll, PpollInstallsTheMaskOnlyWhileItWaits) {
  struct sigaction sa{};
  sa.sa_handler = Count;
  ASSERT_OK(sigaction(SIGUSR1, &sa, nullptr));
  sigset_t block, none;
  sigemptyset(&none);
  sigemptyset(&block);
  sigaddset(&block, SIGUSR1);
  ASSERT_OK(sigprocmask(SIG_BLOCK, &block, nullptr));
  ASSERT_OK(raise(SIGUSR1));
  EXPECT_EQ(handled, 0);
  EXPECT_ERRNO(ppoll(nullptr, 0, nullptr, &none), EINTR);
  EXPECT_EQ(handled, 1);
  sigset_t now;
  ASSERT_OK(sigprocmask(SIG_BLOCK, nullptr, &now));
  EXPECT_TRUE(sigismember(&now, SIGUSR1));
}

TEST(Select, ReportsReadyDescriptors) {
  PipePair p;
  ASSERT_RETURNS(write(p.w.get(), "x", 1), 1);
  fd_set r, w;
  FD_ZERO(&r);
  FD_ZERO(&w);
  FD_SET(p.r.get(), &r);
  FD_SET(p.w.get(), &w);
  timeval tv{1, 0};
  EXPECT_RETURNS(select(p.w.get() + 1, &r, &w, nullptr, &tv), 2);
  EXPECT_TRUE(FD_ISSET(p.r.get(), &r) && FD_ISSET(p.w.get(), &w));
}

TEST(Select, ErrorsOfArguments) {
  fd_set r;
  FD_ZERO(&r);
  // A number within the descriptor table: Linux does not look at what lies behind it.
  int closed = dup(0);
  close(closed);
  FD_SET(closed, &r);
  timeval zero{};
  EXPECT_ERRNO(select(closed + 1, &r, nullptr, nullptr, &zero), EBADF);
  EXPECT_ERRNO(select(-1, nullptr, nullptr, nullptr, &zero), EINVAL);
  timeval bad{-1, 0};
  EXPECT_ERRNO(select(0, nullptr, nullptr, nullptr, &bad), EINVAL);
  EXPECT_ERRNO(syscall(SYS_select, 10, 8L, nullptr, nullptr, &zero), EFAULT);
}

TEST(Select, ClearsTheSetsOnTimeout) {
  PipePair p;
  fd_set r;
  FD_ZERO(&r);
  FD_SET(p.r.get(), &r);
  timeval tv{0, 10000};
  EXPECT_RETURNS(select(p.r.get() + 1, &r, nullptr, nullptr, &tv), 0);
  EXPECT_FALSE(FD_ISSET(p.r.get(), &r));
  EXPECT_EQ(tv.tv_sec * 1000000 + tv.tv_usec, 0);
}

class EpollTest : public ::testing::Test {
 protected:
  int Ctl(int op, int fd, uint32_t events, uint64_t data = 0) {
    epoll_event e{events, {.u64 = data}};
    return epoll_ctl(ep_.get(), op, fd, &e);
  }
  int Wait(int timeout = 0) { return epoll_wait(ep_.get(), events_, 8, timeout); }
  ScopedFd ep_{epoll_create1(EPOLL_CLOEXEC)};
  PipePair p_;
  epoll_event events_[8];
};

TEST_F(EpollTest, LevelTriggersAgainAndEdgeDoesNot) {
  PipePair q;
  ASSERT_OK(Ctl(EPOLL_CTL_ADD, p_.r.get(), EPOLLIN, 1));
  ASSERT_OK(Ctl(EPOLL_CTL_ADD, q.r.get(), EPOLLIN | EPOLLET, 2));
  EXPECT_RETURNS(Wait(), 0);
  ASSERT_RETURNS(write(p_.w.get(), "x", 1), 1);
  ASSERT_RETURNS(write(q.w.get(), "x", 1), 1);
  EXPECT_RETURNS(Wait(), 2);
  EXPECT_RETURNS(Wait(), 1);
  EXPECT_EQ(events_[0].data.u64, 1u);
  ASSERT_RETURNS(write(q.w.get(), "x", 1), 1);
  EXPECT_RETURNS(Wait(), 2);
}

TEST_F(EpollTest, OneshotIsRearmedByModification) {
  ASSERT_OK(Ctl(EPOLL_CTL_ADD, p_.r.get(), EPOLLIN | EPOLLONESHOT));
  ASSERT_RETURNS(write(p_.w.get(), "x", 1), 1);
  EXPECT_RETURNS(Wait(), 1);
  EXPECT_RETURNS(Wait(), 0);
  ASSERT_OK(Ctl(EPOLL_CTL_MOD, p_.r.get(), EPOLLIN | EPOLLONESHOT));
  EXPECT_RETURNS(Wait(), 1);
}

TEST_F(EpollTest, ClosingTheLastDescriptorRemoves) {
  ASSERT_RETURNS(write(p_.w.get(), "x", 1), 1);
  ASSERT_OK(Ctl(EPOLL_CTL_ADD, p_.r.get(), EPOLLIN));
  int copy = dup(p_.r.get());
  p_.r.reset();
  EXPECT_RETURNS(Wait(), 1);
  close(copy);
  EXPECT_RETURNS(Wait(), 0);
}

TEST_F(EpollTest, ErrorsOfCtl) {
  EXPECT_ERRNO(Ctl(EPOLL_CTL_MOD, p_.r.get(), EPOLLIN), ENOENT);
  EXPECT_ERRNO(Ctl(EPOLL_CTL_DEL, p_.r.get(), 0), ENOENT);
  ASSERT_OK(Ctl(EPOLL_CTL_ADD, p_.r.get(), EPOLLIN));
  EXPECT_ERRNO(Ctl(EPOLL_CTL_ADD, p_.r.get(), EPOLLIN), EEXIST);
  EXPECT_ERRNO(Ctl(EPOLL_CTL_ADD, 999, EPOLLIN), EBADF);
  EXPECT_ERRNO(Ctl(EPOLL_CTL_ADD, ep_.get(), EPOLLIN), EINVAL);
  EXPECT_ERRNO(Ctl(77, p_.w.get(), EPOLLIN), EINVAL);
  EXPECT_ERRNO(epoll_ctl(p_.r.get(), EPOLL_CTL_ADD, p_.w.get(), events_), EINVAL);
  EXPECT_ERRNO(syscall(SYS_epoll_ctl, ep_.get(), EPOLL_CTL_ADD, p_.w.get(), 8L), EFAULT);
  TempDir dir;
  ScopedFd file = dir.Open("f");
  EXPECT_ERRNO(Ctl(EPOLL_CTL_ADD, file.get(), EPOLLIN), EPERM);
}

TEST_F(EpollTest, CirclesFailWithEloop) {
  ScopedFd other(epoll_create1(0));
  ASSERT_OK(Ctl(EPOLL_CTL_ADD, other.get(), EPOLLIN));
  epoll_event e{EPOLLIN, {}};
  EXPECT_ERRNO(epoll_ctl(other.get(), EPOLL_CTL_ADD, ep_.get(), &e), ELOOP);
}

TEST_F(EpollTest, ErrorsOfWaitAndCreate) {
  EXPECT_ERRNO(epoll_wait(ep_.get(), events_, 0, 0), EINVAL);
  EXPECT_ERRNO(epoll_wait(p_.r.get(), events_, 1, 0), EINVAL);
  EXPECT_ERRNO(epoll_wait(999, events_, 1, 0), EBADF);
  ASSERT_OK(Ctl(EPOLL_CTL_ADD, p_.w.get(), EPOLLOUT));
  EXPECT_ERRNO(syscall(SYS_epoll_wait, ep_.get(), 8L, 1, 0), EFAULT);
  EXPECT_ERRNO(syscall(SYS_epoll_create, 0), EINVAL);
  EXPECT_ERRNO(epoll_create1(1), EINVAL);
}

TEST_F(EpollTest, NestedEpollIsReadable) {
  ScopedFd outer(epoll_create1(0));
  ASSERT_OK(Ctl(EPOLL_CTL_ADD, p_.r.get(), EPOLLIN));
  epoll_event e{EPOLLIN, {.u64 = 5}};
  ASSERT_OK(epoll_ctl(outer.get(), EPOLL_CTL_ADD, ep_.get(), &e));
  EXPECT_RETURNS(epoll_wait(outer.get(), events_, 8, 0), 0);
  ASSERT_RETURNS(write(p_.w.get(), "x", 1), 1);
  EXPECT_RETURNS(epoll_wait(outer.get(), events_, 8, 1000), 1);
  EXPECT_EQ(PollOne(outer.get(), POLLIN), POLLIN);
}

TEST_F(EpollTest, WaitWakesFromAnotherThread) {
  ASSERT_OK(Ctl(EPOLL_CTL_ADD, p_.r.get(), EPOLLIN));
  std::thread t([&] {
    SleepMs(20);
    EXPECT_RETURNS(write(p_.w.get(), "x", 1), 1);
  });
  EXPECT_RETURNS(Wait(10000), 1);
  t.join();
}

TEST(Eventfd, CountsAndBlocksAtTheMaximum) {
  ScopedFd fd(eventfd(3, EFD_NONBLOCK));
  uint64_t v = 4;
  ASSERT_RETURNS(write(fd.get(), &v, 8), 8);
  ASSERT_RETURNS(read(fd.get(), &v, 8), 8);
  EXPECT_EQ(v, 7u);
  EXPECT_ERRNO(read(fd.get(), &v, 8), EAGAIN);
  v = ~uint64_t{0};
  EXPECT_ERRNO(write(fd.get(), &v, 8), EINVAL);
  v = ~uint64_t{0} - 1;
  ASSERT_RETURNS(write(fd.get(), &v, 8), 8);
  v = 1;
  EXPECT_ERRNO(write(fd.get(), &v, 8), EAGAIN);
  EXPECT_ERRNO(read(fd.get(), &v, 4), EINVAL);
  EXPECT_ERRNO(eventfd(0, 77), EINVAL);
  EXPECT_RETURNS(lseek(fd.get(), 5, SEEK_SET), 0);
}

TEST(Eventfd, SemaphoreGivesOnes) {
  ScopedFd fd(eventfd(2, EFD_NONBLOCK | EFD_SEMAPHORE));
  uint64_t v = 0;
  for (int i = 0; i < 2; i++) {
    ASSERT_RETURNS(read(fd.get(), &v, 8), 8);
    EXPECT_EQ(v, 1u);
  }
  EXPECT_ERRNO(read(fd.get(), &v, 8), EAGAIN);
}

TEST(Timerfd, ExpiresAndCounts) {
  ScopedFd fd(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
  uint64_t n = 0;
  EXPECT_ERRNO(read(fd.get(), &n, 8), EAGAIN);
  itimerspec t{{0, 5000000}, {0, 5000000}};
  ASSERT_OK(timerfd_settime(fd.get(), 0, &t, nullptr));
  SleepMs(30);
  EXPECT_EQ(PollOne(fd.get(), POLLIN), POLLIN);
  ASSERT_RETURNS(read(fd.get(), &n, 8), 8);
  EXPECT_GE(n, 4u);
  itimerspec now;
  ASSERT_OK(timerfd_gettime(fd.get(), &now));
  EXPECT_EQ(now.it_interval.tv_nsec, 5000000);
  t = {};
  ASSERT_OK(timerfd_settime(fd.get(), 0, &t, &now));
  EXPECT_EQ(now.it_interval.tv_nsec, 5000000);
  EXPECT_ERRNO(read(fd.get(), &n, 8), EAGAIN);
}

TEST(Timerfd, AbsoluteTimeInThePastExpiresAtOnce) {
  ScopedFd fd(timerfd_create(CLOCK_MONOTONIC, 0));
  itimerspec t{{0, 0}, {0, 1}};
  ASSERT_OK(timerfd_settime(fd.get(), TFD_TIMER_ABSTIME, &t, nullptr));
  uint64_t n = 0;
  ASSERT_RETURNS(read(fd.get(), &n, 8), 8);
  EXPECT_EQ(n, 1u);
}

TEST(Timerfd, ErrorsOfArguments) {
  EXPECT_ERRNO(timerfd_create(99, 0), EINVAL);
  EXPECT_ERRNO(timerfd_create(CLOCK_MONOTONIC, 1), EINVAL);
  ScopedFd fd(timerfd_create(CLOCK_MONOTONIC, 0));
  itimerspec bad{{0, 0}, {0, 1000000000}}, good{};
  EXPECT_ERRNO(timerfd_settime(fd.get(), 0, &bad, nullptr), EINVAL);
  EXPECT_ERRNO(timerfd_settime(fd.get(), 99, &good, nullptr), EINVAL);
  EXPECT_ERRNO(timerfd_settime(0, 0, &good, nullptr), EINVAL);
  EXPECT_ERRNO(timerfd_settime(999, 0, &good, nullptr), EBADF);
  uint64_t n;
  EXPECT_ERRNO(read(fd.get(), &n, 4), EINVAL);
}

TEST(Signalfd, ReadsPendingSignals) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigaddset(&set, SIGRTMIN);
  ASSERT_OK(sigprocmask(SIG_BLOCK, &set, nullptr));
  ScopedFd fd(signalfd(-1, &set, SFD_NONBLOCK));
  signalfd_siginfo info[3];
  EXPECT_ERRNO(read(fd.get(), info, sizeof(info)), EAGAIN);
  sigval v{.sival_int = 42};
  ASSERT_OK(sigqueue(getpid(), SIGRTMIN, v));
  ASSERT_OK(kill(getpid(), SIGUSR1));
  EXPECT_EQ(PollOne(fd.get(), POLLIN), POLLIN);
  ASSERT_RETURNS(read(fd.get(), info, sizeof(info)), 2 * sizeof(info[0]));
  EXPECT_EQ(info[0].ssi_signo, static_cast<uint32_t>(SIGUSR1));
  EXPECT_EQ(info[0].ssi_pid, static_cast<uint32_t>(getpid()));
  EXPECT_EQ(info[1].ssi_int, 42);
  EXPECT_EQ(info[1].ssi_code, SI_QUEUE);
  EXPECT_ERRNO(read(fd.get(), info, 10), EINVAL);
}

TEST(Signalfd, ErrorsOfArguments) {
  sigset_t set;
  sigemptyset(&set);
  EXPECT_ERRNO(signalfd(-1, &set, 1), EINVAL);
  EXPECT_ERRNO(signalfd(999, &set, 0), EBADF);
  EXPECT_ERRNO(signalfd(0, &set, 0), EINVAL);
  EXPECT_ERRNO(syscall(SYS_signalfd4, -1, &set, 4, 0), EINVAL);
}

}  // namespace
}  // namespace redoubt::testing
