// tcp(7), socket(7): how streams end (SO_LINGER), urgent data, connections that begin with data (fast open).
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <string>
#include <thread>

#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/own_network.h"
#include "test/syscalls/util/scoped_fd.h"
#include "test/syscalls/util/tcp_pair.h"

namespace redoubt::testing {
namespace {

int64_t NowMs() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 + t.tv_nsec / 1'000'000;
}
void SleepMs(int ms) {
  timespec t{.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1'000'000L};
  while (nanosleep(&t, &t) != 0) {
  }
}
int SetInt(const ScopedFd& fd, int level, int name, int value) {
  return setsockopt(fd.get(), level, name, &value, sizeof(value));
}
int16_t Poll(const ScopedFd& fd, int16_t events, int timeout_ms = 0) {
  pollfd p{.fd = fd.get(), .events = events, .revents = 0};
  EXPECT_GE(poll(&p, 1, timeout_ms), 0);
  return p.revents;
}

using Tcp = TcpPair;

class Linger : public Tcp {
 protected:
  static void Set(const ScopedFd& fd, int seconds) {
    const linger l{.l_onoff = 1, .l_linger = seconds};
    ASSERT_OK(setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &l, sizeof(l)));
  }
  // As much as both buffers take.
  static size_t Fill(const ScopedFd& fd) {
    const std::string piece(65536, 'x');
    size_t total = 0;
    ssize_t n;
    while ((n = send(fd.get(), piece.data(), piece.size(), MSG_DONTWAIT)) > 0) total += static_cast<size_t>(n);
    return total;
  }
  static size_t ReadAll(const ScopedFd& fd) {
    std::string piece(65536, 'x');
    size_t total = 0;
    ssize_t n;
    while ((n = read(fd.get(), piece.data(), piece.size())) > 0) total += static_cast<size_t>(n);
    EXPECT_EQ(n, 0) << strerror(errno);
    return total;
  }
};

TEST_F(Linger, CloseWaitsAsLongAsThatForAPeerThatDoesNotRead) {
  Connect();
  Set(a_, 1);
  const size_t sent = Fill(a_);
  const int64_t start = NowMs();
  EXPECT_OK(close(a_.release()));
  const int64_t took = NowMs() - start;
  EXPECT_GE(took, 900);
  EXPECT_LT(took, 5000);
  // It goes on without the descriptor.
  EXPECT_EQ(ReadAll(b_), sent);
}

TEST_F(Linger, CloseReturnsWhenThePeerHasAll) {
  Connect();
  Set(a_, 30);
  const size_t sent = Fill(a_);
  std::thread reader([&] {
    SleepMs(300);
    EXPECT_EQ(ReadAll(b_), sent);
  });
  const int64_t start = NowMs();
  EXPECT_OK(close(a_.release()));
  const int64_t took = NowMs() - start;
  EXPECT_GE(took, 250);
  EXPECT_LT(took, 15000);
  reader.join();
}

TEST_F(Linger, CloseOfAnIdleConnectionReturnsAtOnce) {
  Connect();
  Set(a_, 30);
  const int64_t start = NowMs();
  EXPECT_OK(close(a_.release()));
  EXPECT_LT(NowMs() - start, 5000);
  char byte;
  EXPECT_RETURNS(read(b_.get(), &byte, 1), 0);
}

TEST_F(Linger, WaitsEvenIfCallsDoNot) {
  Connect();
  Set(a_, 1);
  ASSERT_OK(fcntl(a_.get(), F_SETFL, O_NONBLOCK));
  Fill(a_);
  const int64_t start = NowMs();
  EXPECT_OK(close(a_.release()));
  EXPECT_GE(NowMs() - start, 900);
}

TEST_F(Linger, OnlyTheLastDescriptorWaits) {
  Connect();
  Set(a_, 1);
  Fill(a_);
  ScopedFd copy(dup(a_.get()));
  int64_t start = NowMs();
  EXPECT_OK(close(a_.release()));
  EXPECT_LT(NowMs() - start, 500);
  start = NowMs();
  EXPECT_OK(close(copy.release()));
  EXPECT_GE(NowMs() - start, 900);
}

TEST_F(Linger, ShutdownDoesNotWait) {
  Connect();
  Set(a_, 10);
  Fill(a_);
  const int64_t start = NowMs();
  EXPECT_OK(shutdown(a_.get(), SHUT_WR));
  EXPECT_LT(NowMs() - start, 5000);
  Set(a_, 0);
}

TEST_F(Linger, TheEndOfAProcessDoesNotWait) {
  Connect();
  Set(a_, 30);
  Fill(a_);
  const int64_t start = NowMs();
  const pid_t child = fork();
  if (child == 0) {
    SleepMs(200);
    _exit(0);
  }
  // The child's is the last one.
  EXPECT_OK(close(a_.release()));
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_LT(NowMs() - start, 10000);
}

TEST_F(Linger, ASignalEndsTheWait) {
  Connect();
  Set(a_, 30);
  Fill(a_);
  struct sigaction action{};
  action.sa_handler = [](int) {};
  ASSERT_OK(sigaction(SIGALRM, &action, nullptr));
  const int64_t start = NowMs();
  alarm(1);
  EXPECT_OK(close(a_.release()));
  EXPECT_LT(NowMs() - start, 10000);
}

class Urgent : public Tcp {
 protected:
  void SetUp() override {
    Tcp::SetUp();
    Connect();
    sigemptyset(&set_);
    sigaddset(&set_, SIGURG);
    ASSERT_OK(sigprocmask(SIG_BLOCK, &set_, nullptr));
  }
  bool SignalComes(int milliseconds) {
    timespec t{.tv_sec = milliseconds / 1000, .tv_nsec = milliseconds % 1000 * 1'000'000L};
    return sigtimedwait(&set_, nullptr, &t) == SIGURG;
  }
  int AtMark() const {
    int at = -1;
    EXPECT_OK(ioctl(b_.get(), SIOCATMARK, &at));
    return at;
  }
  std::string Read(size_t n) const {
    std::string s(n, '\0');
    const ssize_t got = recv(b_.get(), s.data(), n, MSG_DONTWAIT);
    s.resize(got < 0 ? 0 : static_cast<size_t>(got));
    return s;
  }
  sigset_t set_{};
};

TEST_F(Urgent, TheOwnerGetsASignalForEachMark) {
  // Without O_ASYNC.
  ASSERT_OK(fcntl(b_.get(), F_SETOWN, getpid()));
  ASSERT_RETURNS(send(a_.get(), "plain", 5, 0), 5);
  EXPECT_FALSE(SignalComes(100));
  ASSERT_RETURNS(send(a_.get(), "!", 1, MSG_OOB), 1);
  EXPECT_TRUE(SignalComes(5000));
  EXPECT_EQ(Poll(b_, POLLPRI, 5000), POLLPRI);
  // What comes behind is nothing new.
  ASSERT_RETURNS(send(a_.get(), "more", 4, 0), 4);
  EXPECT_FALSE(SignalComes(100));
  ASSERT_RETURNS(send(a_.get(), "?", 1, MSG_OOB), 1);
  EXPECT_TRUE(SignalComes(5000));
}

TEST_F(Urgent, NobodyIsToldWithoutAnOwner) {
  ASSERT_RETURNS(send(a_.get(), "!", 1, MSG_OOB), 1);
  EXPECT_EQ(Poll(b_, POLLPRI, 5000), POLLPRI);
  EXPECT_FALSE(SignalComes(50));
  // Nor of what was there before the owner.
  ASSERT_OK(fcntl(b_.get(), F_SETOWN, getpid()));
  EXPECT_FALSE(SignalComes(50));
}

TEST_F(Urgent, ReadingStopsAtTheMark) {
  ASSERT_RETURNS(send(a_.get(), "ab!", 3, MSG_OOB), 3);
  ASSERT_RETURNS(send(a_.get(), "cd", 2, 0), 2);
  ASSERT_EQ(Poll(b_, POLLPRI, 5000), POLLPRI);
  SleepMs(50);
  EXPECT_EQ(AtMark(), 0);
  EXPECT_EQ(Read(10), "ab");
  EXPECT_EQ(AtMark(), 1);
  EXPECT_EQ(Poll(b_, POLLPRI), POLLPRI);
  EXPECT_EQ(Read(10), "cd");
  EXPECT_EQ(AtMark(), 0);
  EXPECT_EQ(Poll(b_, POLLPRI), 0);
  char byte;
  EXPECT_ERRNO(recv(b_.get(), &byte, 1, MSG_OOB), EINVAL);
}

TEST_F(Urgent, TheByteIsReadOnceApart) {
  ASSERT_RETURNS(send(a_.get(), "x!", 2, MSG_OOB), 2);
  ASSERT_EQ(Poll(b_, POLLPRI, 5000), POLLPRI);
  char byte = 0;
  EXPECT_RETURNS(recv(b_.get(), &byte, 1, MSG_OOB | MSG_PEEK), 1);
  EXPECT_EQ(byte, '!');
  EXPECT_RETURNS(recv(b_.get(), &byte, 1, MSG_OOB), 1);
  EXPECT_ERRNO(recv(b_.get(), &byte, 1, MSG_OOB), EINVAL);
  EXPECT_EQ(Poll(b_, POLLPRI), 0);
}

TEST_F(Urgent, InlineItStaysInTheStream) {
  ASSERT_OK(SetInt(b_, SOL_SOCKET, SO_OOBINLINE, 1));
  ASSERT_OK(fcntl(b_.get(), F_SETOWN, getpid()));
  ASSERT_RETURNS(send(a_.get(), "ab!", 3, MSG_OOB), 3);
  EXPECT_TRUE(SignalComes(5000));
  ASSERT_RETURNS(send(a_.get(), "cd", 2, 0), 2);
  ASSERT_EQ(Poll(b_, POLLPRI, 5000), POLLPRI);
  SleepMs(50);
  char byte;
  EXPECT_ERRNO(recv(b_.get(), &byte, 1, MSG_OOB), EINVAL);
  EXPECT_EQ(Read(10), "ab");
  EXPECT_EQ(AtMark(), 1);
  EXPECT_EQ(Read(10), "!cd");
  EXPECT_EQ(AtMark(), 0);
}

// RFC 7413. Natively in a network namespace of its own, where the setting is.
class FastOpen : public Tcp {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(EnterOwnNetwork());
    Switch("3");
    // Each test has a server that no other one has got a cookie of: where there are no namespaces, clients remember.
    const std::string test = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    const size_t number = std::hash<std::string>()(test) & 0xffff;
    address_ = static_cast<in_addr_t>(0x7f4d0000 + (number | 1));
    Tcp::SetUp();
    ASSERT_OK(SetInt(listener_, IPPROTO_TCP, TCP_FASTOPEN, 8));
  }
  static void Switch(const char* bits) {
    ScopedFd f(open("/proc/sys/net/ipv4/tcp_fastopen", O_WRONLY));
    ASSERT_OK(f.get());
    ASSERT_OK(write(f.get(), bits, 1));
  }
  ScopedFd Client(int flags = 0) const { return ScopedFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0)); }
  ssize_t SendTo(const ScopedFd& s, const std::string& text, int flags = 0) const {
    return sendto(s.get(), text.data(), text.size(), MSG_FASTOPEN | flags, name(), sizeof(name_));
  }
  std::string AcceptAndRead() {
    b_.reset(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    EXPECT_OK(b_.get());
    char text[100];
    const ssize_t n = read(b_.get(), text, sizeof(text));
    return n < 0 ? strerror(errno) : std::string(text, static_cast<size_t>(n));
  }
  // So that there is a cookie.
  void Introduce() {
    ScopedFd s = Client();
    ASSERT_RETURNS(SendTo(s, "first"), 5);
    EXPECT_EQ(AcceptAndRead(), "first");
  }
  // What the client is told of its SYN: TCPI_OPT_SYN_DATA.
  static bool DataWasInTheSyn(const ScopedFd& s) {
    tcp_info info{};
    socklen_t length = sizeof(info);
    EXPECT_OK(getsockopt(s.get(), IPPROTO_TCP, TCP_INFO, &info, &length));
    return (info.tcpi_options & 32) != 0;
  }
};

TEST_F(FastOpen, WithoutACookieItIsConnectAndSend) {
  ScopedFd s = Client();
  ASSERT_RETURNS(SendTo(s, "hello"), 5);
  EXPECT_EQ(AcceptAndRead(), "hello");
  EXPECT_FALSE(DataWasInTheSyn(s));
  EXPECT_ERRNO(SendTo(s, "again"), EISCONN);
}

TEST_F(FastOpen, WithACookieTheDataIsInTheSyn) {
  Introduce();
  ScopedFd s = Client();
  ASSERT_RETURNS(SendTo(s, "second"), 6);
  EXPECT_EQ(AcceptAndRead(), "second");
  EXPECT_TRUE(DataWasInTheSyn(s));
  ASSERT_RETURNS(write(b_.get(), "back", 4), 4);
  char text[10];
  EXPECT_RETURNS(read(s.get(), text, sizeof(text)), 4);
}

TEST_F(FastOpen, LongDataGoesOnBehind) {
  Introduce();
  ScopedFd s = Client();
  const std::string text(100'000, 'x');
  std::thread reader([&] {
    b_.reset(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    std::string got(text.size(), 0);
    EXPECT_RETURNS(recv(b_.get(), got.data(), got.size(), MSG_WAITALL), static_cast<ssize_t>(text.size()));
    EXPECT_EQ(got, text);
  });
  EXPECT_RETURNS(SendTo(s, text), static_cast<ssize_t>(text.size()));
  reader.join();
}

TEST_F(FastOpen, ACallThatDoesNotWait) {
  ScopedFd s = Client(SOCK_NONBLOCK);
  // Nothing of the data without a cookie.
  EXPECT_ERRNO(SendTo(s, "lost"), EINPROGRESS);
  EXPECT_EQ(Poll(s, POLLOUT, 5000), POLLOUT);
  ASSERT_RETURNS(write(s.get(), "then", 4), 4);
  EXPECT_EQ(AcceptAndRead(), "then");
  ScopedFd t = Client(SOCK_NONBLOCK);
  EXPECT_RETURNS(SendTo(t, "now"), 3);
  EXPECT_EQ(AcceptAndRead(), "now");
}

TEST_F(FastOpen, Errors) {
  ScopedFd s = Client();
  sockaddr none{};
  none.sa_family = AF_UNSPEC;
  EXPECT_ERRNO(sendto(s.get(), "x", 1, MSG_FASTOPEN, &none, sizeof(none)), EOPNOTSUPP);
  EXPECT_ERRNO(SetInt(s, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 2), EINVAL);
  Switch("0");
  EXPECT_ERRNO(SendTo(s, "x"), EOPNOTSUPP);
  Switch("3");
}

TEST_F(FastOpen, ConnectIsPutOffUntilThereIsData) {
  Introduce();
  ScopedFd s = Client();
  ASSERT_OK(SetInt(s, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1));
  ASSERT_OK(connect(s.get(), name(), sizeof(name_)));
  EXPECT_EQ(Poll(listener_, POLLIN, 100), 0);
  EXPECT_EQ(Poll(s, POLLIN | POLLOUT), POLLOUT);
  ASSERT_RETURNS(write(s.get(), "data", 4), 4);
  EXPECT_EQ(AcceptAndRead(), "data");
  EXPECT_TRUE(DataWasInTheSyn(s));
}

TEST_F(FastOpen, ConnectIsNotPutOffWithoutACookie) {
  ScopedFd s = Client();
  ASSERT_OK(SetInt(s, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1));
  ASSERT_OK(connect(s.get(), name(), sizeof(name_)));
  EXPECT_EQ(Poll(listener_, POLLIN, 5000), POLLIN);
  ASSERT_RETURNS(write(s.get(), "data", 4), 4);
  EXPECT_EQ(AcceptAndRead(), "data");
}

}  // namespace
}  // namespace redoubt::testing
