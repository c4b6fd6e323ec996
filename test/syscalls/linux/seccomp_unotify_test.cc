// Supervisors of system calls: seccomp_unotify(2), seccomp(2) with SECCOMP_FILTER_FLAG_NEW_LISTENER.
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <thread>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"

namespace redoubt::testing {
namespace {

// A call that the tests make of themselves only.
constexpr uint32_t kCall = SYS_getpgid;
long MakeCall(long argument = 0) { return syscall(kCall, argument); }

long Install(unsigned long flags, uint32_t action = SECCOMP_RET_USER_NOTIF, uint32_t call = kCall) {
  sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
                        BPF_STMT(BPF_RET | BPF_K, action), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  sock_fprog program{4, code};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

void SendFd(int socket, int fd) {
  char byte = 'x';
  iovec iov{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr m{};
  m.msg_iov = &iov;
  m.msg_iovlen = 1;
  m.msg_control = control;
  m.msg_controllen = sizeof(control);
  cmsghdr* c = CMSG_FIRSTHDR(&m);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(c), &fd, sizeof(int));
  EXPECT_EQ(sendmsg(socket, &m, 0), 1);
}
int ReceiveFd(int socket) {
  char byte = 0;
  iovec iov{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr m{};
  m.msg_iov = &iov;
  m.msg_iovlen = 1;
  m.msg_control = control;
  m.msg_controllen = sizeof(control);
  if (recvmsg(socket, &m, MSG_CMSG_CLOEXEC) != 1 || CMSG_FIRSTHDR(&m) == nullptr) return -1;
  int fd = -1;
  memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(int));
  return fd;
}

// A child under a filter whose calls this process is asked about; the child has no descriptor of the listener.
class Unotify : public ::testing::Test {
 protected:
  // `body` runs in the child once the listener is here.
  void Start(const std::function<int()>& body, unsigned long flags = 0) {
    int sockets[2];
    ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets));
    child_ = fork();
    if (child_ == 0) {
      const rlimit no_core{0, 0};
      setrlimit(RLIMIT_CORE, &no_core);
      close(sockets[0]);
      const int fd = static_cast<int>(Install(SECCOMP_FILTER_FLAG_NEW_LISTENER | flags));
      if (fd < 0) _exit(100);
      SendFd(sockets[1], fd);
      close(fd);
      close(sockets[1]);
      _exit(body());
    }
    close(sockets[1]);
    listener_.reset(ReceiveFd(sockets[0]));
    close(sockets[0]);
    ASSERT_GE(listener_.get(), 0);
  }
  void TearDown() override {
    if (child_ <= 0) return;
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
  }
  // The child's exit code, or minus the signal.
  int Wait() {
    int status = 0;
    EXPECT_EQ(waitpid(child_, &status, 0), child_);
    child_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  seccomp_notif Receive() {
    seccomp_notif n{};
    EXPECT_OK(ioctl(fd(), SECCOMP_IOCTL_NOTIF_RECV, &n));
    return n;
  }
  int Send(uint64_t id, int64_t val, int32_t error, uint32_t flags = 0) {
    seccomp_notif_resp r{.id = id, .val = val, .error = error, .flags = flags};
    return ioctl(fd(), SECCOMP_IOCTL_NOTIF_SEND, &r);
  }
  int AddFd(seccomp_notif_addfd a) { return ioctl(fd(), SECCOMP_IOCTL_NOTIF_ADDFD, &a); }
  short Poll(int timeout = 0) {
    pollfd p{fd(), POLLIN | POLLOUT, 0};
    EXPECT_OK(poll(&p, 1, timeout));
    return p.revents;
  }
  int fd() const { return listener_.get(); }

  ScopedFd listener_;
  pid_t child_ = -1;
};

TEST_F(Unotify, TheSupervisorSeesTheCallAndSaysWhatItReturns) {
  Start([] { return MakeCall(77) == 5 ? 0 : 1; });
  const seccomp_notif n = Receive();
  EXPECT_EQ(n.pid, static_cast<uint32_t>(child_));
  EXPECT_EQ(n.flags, 0u);
  EXPECT_EQ(n.data.nr, static_cast<int>(kCall));
  EXPECT_EQ(n.data.args[0], 77u);
  EXPECT_NE(n.data.instruction_pointer, 0u);
  EXPECT_OK(Send(n.id, 5, 0));
  EXPECT_EQ(Wait(), 0);
}

TEST_F(Unotify, OrThatItFails) {
  Start([] { return MakeCall() == -1 && errno == EXDEV ? 0 : 1; });
  const seccomp_notif n = Receive();
  // An error goes before a value.
  EXPECT_OK(Send(n.id, 5, -EXDEV));
  EXPECT_EQ(Wait(), 0);
}

TEST_F(Unotify, OrThatItIsToBeMade) {
  Start([] { return MakeCall() == getpgrp() ? 0 : 1; });
  const seccomp_notif n = Receive();
  EXPECT_ERRNO(Send(n.id, 1, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE), EINVAL);
  EXPECT_ERRNO(Send(n.id, 0, -1, SECCOMP_USER_NOTIF_FLAG_CONTINUE), EINVAL);
  EXPECT_ERRNO(Send(n.id, 0, 0, 2), EINVAL);
  EXPECT_OK(Send(n.id, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE));
  EXPECT_EQ(Wait(), 0);
}

TEST_F(Unotify, TheDescriptorIsWhatItIs) {
  Start([] { return 0; });
  EXPECT_EQ(fcntl(fd(), F_GETFL) & O_ACCMODE, O_RDWR);
  char link[64] = {};
  EXPECT_OK(readlink(("/proc/self/fd/" + std::to_string(fd())).c_str(), link, sizeof(link) - 1));
  EXPECT_STREQ(link, "anon_inode:seccomp notify");
  EXPECT_ERRNO(read(fd(), link, 8), EINVAL);
  EXPECT_ERRNO(write(fd(), link, 8), EINVAL);
  EXPECT_ERRNO(ioctl(fd(), _IO('!', 99), 0), EINVAL);
  uint64_t id = 5;
  EXPECT_ERRNO(ioctl(fd(), SECCOMP_IOCTL_NOTIF_ID_VALID, &id), ENOENT);
  EXPECT_ERRNO(Send(5, 0, 0), ENOENT);
  EXPECT_ERRNO(ioctl(fd(), SECCOMP_IOCTL_NOTIF_RECV, nullptr), EFAULT);
}

TEST_F(Unotify, OfWhatIsReceivedNothingMayBeAskedFor) {
  Start([] { return MakeCall() == 5 ? 0 : 1; });
  seccomp_notif n{};
  n.flags = 1;
  EXPECT_ERRNO(ioctl(fd(), SECCOMP_IOCTL_NOTIF_RECV, &n), EINVAL);
  n = Receive();
  EXPECT_OK(Send(n.id, 5, 0));
  EXPECT_EQ(Wait(), 0);
}

TEST_F(Unotify, PollTellsOfQuestionsAndOfAnswersThatAreDue) {
  Start([] { return MakeCall() == 5 ? 0 : 1; });
  ScopedFd epoll(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{.events = EPOLLIN, .data = {.u64 = 9}};
  ASSERT_OK(epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd(), &event));
  EXPECT_EQ(epoll_wait(epoll.get(), &event, 1, 10000), 1);
  EXPECT_EQ(Poll(), POLLIN);
  const seccomp_notif n = Receive();
  EXPECT_EQ(Poll(), POLLOUT);
  EXPECT_EQ(epoll_wait(epoll.get(), &event, 1, 0), 0);
  EXPECT_OK(Send(n.id, 5, 0));
  EXPECT_EQ(Wait(), 0);
  // Nobody has the filter any more.
  EXPECT_EQ(Poll(10000) & POLLHUP, POLLHUP);
}

TEST_F(Unotify, ATaskThatHasEndedAsksNoLonger) {
  Start([] { return MakeCall() == 5 ? 0 : 1; });
  const seccomp_notif n = Receive();
  EXPECT_OK(ioctl(fd(), SECCOMP_IOCTL_NOTIF_ID_VALID, &n.id));
  ASSERT_OK(kill(child_, SIGKILL));
  EXPECT_EQ(Wait(), -SIGKILL);
  EXPECT_ERRNO(ioctl(fd(), SECCOMP_IOCTL_NOTIF_ID_VALID, &n.id), ENOENT);
  EXPECT_ERRNO(Send(n.id, 5, 0), ENOENT);
  EXPECT_ERRNO(AddFd({.id = n.id}), ENOENT);
}

TEST_F(Unotify, ASignalEndsTheQuestion) {
  Start([] {
    struct sigaction action{};
    action.sa_handler = [](int) {};
    sigaction(SIGUSR1, &action, nullptr);
    if (MakeCall(1) != -1 || errno != EINTR) return 1;
    // With SA_RESTART it is asked again.
    action.sa_flags = SA_RESTART;
    sigaction(SIGUSR1, &action, nullptr);
    return MakeCall(2) == 7 ? 0 : 2;
  });
  const seccomp_notif first = Receive();
  ASSERT_OK(kill(child_, SIGUSR1));
  const seccomp_notif second = Receive();
  EXPECT_EQ(second.data.args[0], 2u);
  EXPECT_ERRNO(Send(first.id, 5, 0), ENOENT);
  ASSERT_OK(kill(child_, SIGUSR1));
  const seccomp_notif third = Receive();
  EXPECT_EQ(third.data.args[0], 2u);
  EXPECT_NE(third.id, second.id);
  EXPECT_OK(Send(third.id, 7, 0));
  EXPECT_EQ(Wait(), 0);
}

// Its child says what it is about by a byte in the pipe.
class UnotifyKillable : public Unotify {
 protected:
  void SetUp() override { ASSERT_OK(pipe2(pipe_, O_CLOEXEC)); }
  void TearDown() override {
    Unotify::TearDown();
    close(pipe_[0]);
    close(pipe_[1]);
  }
  void StartKillable(const std::function<int()>& body) { Start(body, SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV); }
  int pipe_[2];
};

TEST_F(UnotifyKillable, ASignalWaitsForTheAnswer) {
  StartKillable([this] {
    static int to = pipe_[1];
    struct sigaction action{};
    action.sa_handler = [](int) { (void)!write(to, "h", 1); };
    sigaction(SIGUSR1, &action, nullptr);
    return MakeCall() == 5 ? 0 : 1;
  });
  const seccomp_notif n = Receive();
  ASSERT_OK(kill(child_, SIGUSR1));
  usleep(20000);
  EXPECT_OK(ioctl(fd(), SECCOMP_IOCTL_NOTIF_ID_VALID, &n.id));
  pollfd handled{pipe_[0], POLLIN, 0};
  EXPECT_EQ(poll(&handled, 1, 0), 0);
  EXPECT_OK(Send(n.id, 5, 0));
  EXPECT_EQ(Wait(), 0);
  EXPECT_EQ(poll(&handled, 1, 0), 1);
}

TEST_F(UnotifyKillable, UntilItIsReceivedASignalEndsTheQuestion) {
  StartKillable([] {
    struct sigaction action{};
    action.sa_handler = [](int) {};
    sigaction(SIGUSR1, &action, nullptr);
    return MakeCall() == -1 && errno == EINTR ? 0 : 1;
  });
  EXPECT_EQ(Poll(10000), POLLIN);
  ASSERT_OK(kill(child_, SIGUSR1));
  EXPECT_EQ(Wait(), 0);
}

TEST_F(UnotifyKillable, WhatEndsTheProcessDoesNotWait) {
  for (int sig : {SIGKILL, SIGTERM, SIGRTMAX}) {
    StartKillable([] { return MakeCall() == 5 ? 0 : 1; });
    const seccomp_notif n = Receive();
    ASSERT_OK(kill(child_, sig));
    EXPECT_EQ(Wait(), -sig);
    EXPECT_ERRNO(Send(n.id, 5, 0), ENOENT);
  }
}

TEST_F(Unotify, NobodyIsWaitedForWhoCannotCome) {
  Start([] { return 0; });
  EXPECT_EQ(Wait(), 0);
  EXPECT_EQ(Poll(10000), POLLHUP);
  seccomp_notif n{};
  EXPECT_ERRNO(ioctl(fd(), SECCOMP_IOCTL_NOTIF_RECV, &n), ENOENT);
}

TEST_F(Unotify, AWaitingSupervisorHearsThatNobodyWillCome) {
  ScopedFd hold[2];
  int ends[2];
  ASSERT_OK(pipe2(ends, O_CLOEXEC));
  hold[0].reset(ends[0]);
  hold[1].reset(ends[1]);
  Start([&] {
    char c;
    return static_cast<int>(read(ends[0], &c, 1)) - 1;
  });
  std::thread later([&] {
    usleep(20000);
    EXPECT_EQ(write(ends[1], "x", 1), 1);
  });
  seccomp_notif n{};
  EXPECT_ERRNO(ioctl(fd(), SECCOMP_IOCTL_NOTIF_RECV, &n), ENOENT);
  later.join();
  EXPECT_EQ(Wait(), 0);
}

TEST_F(Unotify, WithoutAListenerItIsEnosys) {
  Start([] {
    if (MakeCall() != -1 || errno != ENOSYS) return 1;
    return MakeCall() == -1 && errno == ENOSYS ? 0 : 2;
  });
  (void)Receive();
  listener_.reset();
  EXPECT_EQ(Wait(), 0);
}

TEST_F(Unotify, DescriptorsAreGiven) {
  Start([] {
    // 9 and the lowest free one.
    if (MakeCall(1) != 0) return 1;
    struct stat a{}, b{};
    if (fstat(9, &a) != 0 || (fcntl(9, F_GETFD) & FD_CLOEXEC) == 0) return 2;
    const long fd = MakeCall(2);
    if (fd < 3 || fd == 9 || fstat(static_cast<int>(fd), &b) != 0) return 3;
    if ((fcntl(static_cast<int>(fd), F_GETFD) & FD_CLOEXEC) != 0) return 4;
    return a.st_ino == b.st_ino ? 0 : 5;
  });
  ScopedFd source(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  const auto src = static_cast<uint32_t>(source.get());
  const seccomp_notif n = Receive();
  EXPECT_ERRNO(AddFd({.id = n.id, .srcfd = src, .newfd = 9}), EINVAL);
  EXPECT_ERRNO(AddFd({.id = n.id, .flags = 4, .srcfd = src}), EINVAL);
  EXPECT_ERRNO(AddFd({.id = n.id, .srcfd = src, .newfd_flags = O_APPEND}), EINVAL);
  EXPECT_ERRNO(AddFd({.id = n.id, .srcfd = 9999}), EBADF);
  EXPECT_ERRNO(AddFd({.id = n.id + 1, .srcfd = src}), ENOENT);
  EXPECT_ERRNO(AddFd({.id = n.id, .flags = SECCOMP_ADDFD_FLAG_SETFD, .srcfd = src, .newfd = 1u << 30}), EBADF);
  EXPECT_RETURNS(
      AddFd({.id = n.id, .flags = SECCOMP_ADDFD_FLAG_SETFD, .srcfd = src, .newfd = 9, .newfd_flags = O_CLOEXEC}), 9);
  EXPECT_OK(Send(n.id, 0, 0));
  const seccomp_notif second = Receive();
  // The number is what the call returns.
  EXPECT_OK(AddFd({.id = second.id, .flags = SECCOMP_ADDFD_FLAG_SEND, .srcfd = src}));
  EXPECT_EQ(Wait(), 0);
}

TEST_F(Unotify, ADescriptorThatCannotBeGivenIsNoAnswer) {
  Start([] {
    rlimit none{3, 3};
    setrlimit(RLIMIT_NOFILE, &none);
    return MakeCall() == 5 ? 0 : 1;
  });
  const seccomp_notif n = Receive();
  EXPECT_ERRNO(AddFd({.id = n.id, .flags = SECCOMP_ADDFD_FLAG_SEND, .srcfd = 0}), EMFILE);
  EXPECT_ERRNO(AddFd({.id = n.id, .flags = SECCOMP_ADDFD_FLAG_SETFD, .srcfd = 0, .newfd = 3}), EBADF);
  EXPECT_OK(ioctl(fd(), SECCOMP_IOCTL_NOTIF_ID_VALID, &n.id));
  EXPECT_OK(Send(n.id, 5, 0));
  EXPECT_EQ(Wait(), 0);
}

TEST_F(Unotify, AQuestionThatIsNotReceivedIsNotAnswered) {
  Start([] { return MakeCall() == 5 ? 0 : 1; });
  const seccomp_notif first = Receive();
  EXPECT_OK(Send(first.id, 5, 0));
  EXPECT_EQ(Wait(), 0);
  Start([] { return MakeCall() == 5 && MakeCall() == 6 ? 0 : 1; });
  const seccomp_notif n = Receive();
  EXPECT_OK(Send(n.id, 5, 0));
  EXPECT_EQ(Poll(10000) & POLLIN, POLLIN);
  // IDs count up.
  uint64_t next = n.id + 1;
  EXPECT_ERRNO(Send(next, 6, 0), EINPROGRESS);
  EXPECT_ERRNO(AddFd({.id = next, .srcfd = 0}), EINPROGRESS);
  EXPECT_ERRNO(ioctl(fd(), SECCOMP_IOCTL_NOTIF_ID_VALID, &next), ENOENT);
  EXPECT_EQ(Receive().id, next);
  EXPECT_OK(Send(next, 6, 0));
  EXPECT_EQ(Wait(), 0);
}

TEST_F(Unotify, AnArgumentOfALaterVersionMustBeEmptyThere) {
  Start([] { return MakeCall() == 5 ? 0 : 1; });
  const seccomp_notif n = Receive();
  struct {
    seccomp_notif_addfd a;
    uint64_t more;
  } large{.a = {.id = n.id}, .more = 1};
  EXPECT_ERRNO(ioctl(fd(), _IOW('!', 3, char[sizeof(large)]), &large), E2BIG);
  large.more = 0;
  EXPECT_OK(ioctl(fd(), _IOW('!', 3, char[sizeof(large)]), &large));
  EXPECT_ERRNO(ioctl(fd(), _IOW('!', 3, char[16]), &large), EINVAL);
  EXPECT_OK(Send(n.id, 5, 0));
  EXPECT_EQ(Wait(), 0);
}

TEST_F(Unotify, ThreadsAskEachForItself) {
  Start([] {
    long results[8];
    std::thread threads[8];
    for (long i = 0; i < 8; i++) threads[i] = std::thread([i, &results] { results[i] = MakeCall(i); });
    for (std::thread& t : threads) t.join();
    for (long i = 0; i < 8; i++) {
      if (results[i] != 100 + i) return 1;
    }
    return 0;
  });
  seccomp_notif all[8];
  for (seccomp_notif& n : all) n = Receive();
  for (int i = 7; i >= 0; i--) {
    EXPECT_OK(Send(all[i].id, 100 + static_cast<int64_t>(all[i].data.args[0]), 0));
    // It may have woken up already.
    const int again = Send(all[i].id, 0, 0);
    EXPECT_TRUE(again == -1 && (errno == EINPROGRESS || errno == ENOENT)) << again << " " << errno;
  }
  EXPECT_EQ(Wait(), 0);
}

// Questions, answers and signals from all sides: none is lost, and none is answered twice.
TEST_F(Unotify, QuestionsAndSignalsInARace) {
  constexpr int kThreads = 4;
  constexpr long kCalls = 200;
  Start([] {
    struct sigaction action{};
    action.sa_handler = [](int) {};
    sigaction(SIGUSR1, &action, nullptr);
    std::thread threads[kThreads];
    std::atomic<int> wrong{0};
    for (int i = 0; i < kThreads; i++) {
      threads[i] = std::thread([&wrong, i] {
        for (long n = 0; n < kCalls; n++) {
          const long argument = i * kCalls + n;
          long result;
          while ((result = MakeCall(argument)) == -1 && errno == EINTR) {
          }
          if (result != argument + 1) wrong++;
        }
      });
    }
    for (std::thread& t : threads) t.join();
    return wrong.load();
  });
  // The handler is there once somebody asks.
  ASSERT_EQ(Poll(10000), POLLIN);
  std::atomic<bool> over{false};
  std::thread signals([&] {
    while (!over) {
      kill(child_, SIGUSR1);
      usleep(500);
    }
  });
  auto answer = [&] {
    while ((Poll() & POLLHUP) == 0) {
      seccomp_notif n{};
      if (ioctl(fd(), SECCOMP_IOCTL_NOTIF_RECV, &n) != 0) {
        // A signal came between, or all have ended.
        EXPECT_EQ(errno, ENOENT);
        continue;
      }
      const auto value = static_cast<int64_t>(n.data.args[0]) + 1;
      const bool sent = Send(n.id, value, 0) == 0;
      EXPECT_TRUE(sent || errno == ENOENT) << errno;
    }
  };
  std::thread supervisors[] = {std::thread(answer), std::thread(answer)};
  for (std::thread& t : supervisors) t.join();
  over = true;
  signals.join();
  EXPECT_EQ(Wait(), 0);
}

TEST(UnotifyInstall, OneListenerIsEnough) {
  EXPECT_EQ(RunChild([] {
              const long fd = Install(SECCOMP_FILTER_FLAG_NEW_LISTENER);
              EXPECT_OK(fd);
              EXPECT_EQ(fcntl(static_cast<int>(fd), F_GETFD), FD_CLOEXEC);
              EXPECT_ERRNO(Install(SECCOMP_FILTER_FLAG_NEW_LISTENER), EBUSY);
              // Nothing is left of the attempt.
              EXPECT_ERRNO(fcntl(static_cast<int>(fd) + 1, F_GETFD), EBADF);
              EXPECT_OK(Install(0, SECCOMP_RET_ALLOW));
              return 0;
            }),
            0);
}

TEST(UnotifyInstall, ForAllThreadsOnlyIfTheOneInTheWayIsNotNamed) {
  EXPECT_EQ(RunChild([] {
              EXPECT_ERRNO(Install(SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_TSYNC), EINVAL);
              EXPECT_OK(Install(SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_TSYNC |
                                SECCOMP_FILTER_FLAG_TSYNC_ESRCH));
              return 0;
            }),
            0);
}

TEST(UnotifyInstall, WaitingToBeKilledIsForListenersOnly) {
  EXPECT_EQ(RunChild([] {
              EXPECT_ERRNO(Install(SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV), EINVAL);
              return 0;
            }),
            0);
}

TEST(UnotifyInstall, TheActionIsAvailable) {
  uint32_t action = SECCOMP_RET_USER_NOTIF;
  EXPECT_OK(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action));
}

// The newest filter of those that ask has the say.
TEST(UnotifyInstall, AFilterWithoutAListenerAsksNobody) {
  EXPECT_EQ(RunChild([] {
              EXPECT_OK(Install(SECCOMP_FILTER_FLAG_NEW_LISTENER));
              EXPECT_OK(Install(0));
              EXPECT_ERRNO(MakeCall(), ENOSYS);
              return 0;
            }),
            0);
}

}  // namespace
}  // namespace redoubt::testing
