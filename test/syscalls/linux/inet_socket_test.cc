// ip(7), ipv6(7), tcp(7), udp(7), socket(7), netdevice(7): sockets of both IP versions over the loopback.
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"

namespace redoubt::testing {
namespace {

// An address of either family.
struct Name {
  sockaddr_storage storage{};
  socklen_t length = sizeof(storage);

  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  sockaddr_in& v4() { return reinterpret_cast<sockaddr_in&>(storage); }
  sockaddr_in6& v6() { return reinterpret_cast<sockaddr_in6&>(storage); }
  uint16_t port() { return ntohs(storage.ss_family == AF_INET ? v4().sin_port : v6().sin6_port); }
  void set_port(uint16_t port) { (storage.ss_family == AF_INET ? v4().sin_port : v6().sin6_port) = htons(port); }
  std::string text() {
    char buffer[INET6_ADDRSTRLEN] = "";
    const void* address = &v4().sin_addr;
    if (storage.ss_family == AF_INET6) address = &v6().sin6_addr;
    inet_ntop(storage.ss_family, address, buffer, sizeof(buffer));
    return buffer;
  }
};

Name Make(int family, const char* address, uint16_t port = 0) {
  Name name;
  name.storage.ss_family = static_cast<sa_family_t>(family);
  name.length = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
  void* to = &name.v4().sin_addr;
  if (family == AF_INET6) to = &name.v6().sin6_addr;
  EXPECT_EQ(inet_pton(family, address, to), 1);
  name.set_port(port);
  return name;
}

Name Loopback(int family, uint16_t port = 0) { return Make(family, family == AF_INET ? "127.0.0.1" : "::1", port); }
Name Any(int family, uint16_t port = 0) { return Make(family, family == AF_INET ? "0.0.0.0" : "::", port); }

Name LocalName(const ScopedFd& fd) {
  Name name;
  EXPECT_OK(getsockname(fd.get(), name.get(), &name.length));
  return name;
}

ScopedFd Bound(int family, int type) {
  ScopedFd s(socket(family, type, 0));
  EXPECT_OK(s.get());
  Name name = Loopback(family);
  EXPECT_OK(bind(s.get(), name.get(), name.length));
  return s;
}

ScopedFd Listener(int family, int backlog = 8) {
  ScopedFd s = Bound(family, SOCK_STREAM);
  EXPECT_OK(listen(s.get(), backlog));
  return s;
}

// Both ends of a connection.
struct Connection {
  ScopedFd a, b;  // the connecting one, the accepted one
};
Connection Connect(int family) {
  ScopedFd listener = Listener(family);
  Name name = LocalName(listener);
  Connection c{.a = ScopedFd(socket(family, SOCK_STREAM, 0))};
  EXPECT_OK(connect(c.a.get(), name.get(), name.length));
  c.b = ScopedFd(accept(listener.get(), nullptr, nullptr));
  EXPECT_OK(c.b.get());
  return c;
}

int16_t Poll(const ScopedFd& fd, int16_t events, int timeout_ms = 0) {
  pollfd p{.fd = fd.get(), .events = events};
  EXPECT_GE(poll(&p, 1, timeout_ms), 0);
  return p.revents;
}

int GetInt(const ScopedFd& fd, int level, int name) {
  int value = -12345;
  socklen_t length = sizeof(value);
  EXPECT_OK(getsockopt(fd.get(), level, name, &value, &length));
  return value;
}

int SetInt(const ScopedFd& fd, int level, int name, int value) {
  return setsockopt(fd.get(), level, name, &value, sizeof(value));
}

// A port with nobody behind it: bound for a moment.
uint16_t FreePort(int family, int type) { return LocalName(Bound(family, type)).port(); }

std::string FamilyName(const ::testing::TestParamInfo<int>& info) { return info.param == AF_INET ? "Ipv4" : "Ipv6"; }

class Inet : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Family, Inet, ::testing::Values(AF_INET, AF_INET6), FamilyName);

// Making and naming ---------------------------------------------------------------------------------------------------

TEST_P(Inet, SocketErrors) {
  EXPECT_ERRNO(socket(GetParam(), SOCK_STREAM, IPPROTO_UDP), EPROTONOSUPPORT);
  EXPECT_ERRNO(socket(GetParam(), SOCK_DGRAM, IPPROTO_TCP), EPROTONOSUPPORT);
  EXPECT_ERRNO(socket(GetParam(), SOCK_RDM, 0), ESOCKTNOSUPPORT);
  int fds[2];
  EXPECT_ERRNO(socketpair(GetParam(), SOCK_STREAM, 0, fds), EOPNOTSUPP);
}

TEST_P(Inet, TheSocketSaysWhatItIs) {
  ScopedFd s(socket(GetParam(), SOCK_STREAM, 0));
  EXPECT_EQ(GetInt(s, SOL_SOCKET, SO_DOMAIN), GetParam());
  EXPECT_EQ(GetInt(s, SOL_SOCKET, SO_TYPE), SOCK_STREAM);
  EXPECT_EQ(GetInt(s, SOL_SOCKET, SO_PROTOCOL), IPPROTO_TCP);
  ScopedFd d(socket(GetParam(), SOCK_DGRAM, 0));
  EXPECT_EQ(GetInt(d, SOL_SOCKET, SO_PROTOCOL), IPPROTO_UDP);
}

TEST_P(Inet, AnUnboundSocketHasTheUnspecifiedName) {
  for (int type : {SOCK_STREAM, SOCK_DGRAM}) {
    ScopedFd s(socket(GetParam(), type, 0));
    Name name = LocalName(s);
    EXPECT_EQ(name.storage.ss_family, GetParam());
    EXPECT_EQ(name.port(), 0);
    EXPECT_EQ(name.text(), GetParam() == AF_INET ? "0.0.0.0" : "::");
    EXPECT_ERRNO(getpeername(s.get(), name.get(), &name.length), ENOTCONN);
  }
}

TEST_P(Inet, BindErrors) {
  for (int type : {SOCK_STREAM, SOCK_DGRAM}) {
    ScopedFd s(socket(GetParam(), type, 0));
    Name elsewhere = Make(GetParam(), GetParam() == AF_INET ? "192.0.2.1" : "2001:db8::1");
    EXPECT_ERRNO(bind(s.get(), elsewhere.get(), elsewhere.length), EADDRNOTAVAIL);
    Name name = Loopback(GetParam());
    EXPECT_ERRNO(bind(s.get(), name.get(), 4), EINVAL);
    EXPECT_OK(bind(s.get(), name.get(), name.length));
    EXPECT_NE(LocalName(s).port(), 0);
    EXPECT_ERRNO(bind(s.get(), name.get(), name.length), EINVAL);
    ScopedFd other(socket(GetParam(), type, 0));
    Name taken = LocalName(s);
    EXPECT_ERRNO(bind(other.get(), taken.get(), taken.length), EADDRINUSE);
    Name wrong = Loopback(GetParam());
    wrong.storage.ss_family = AF_UNIX;
    EXPECT_ERRNO(bind(other.get(), wrong.get(), wrong.length), EAFNOSUPPORT);
  }
}

TEST_P(Inet, LowPortsNeedACapability) {
  if (geteuid() != 0) GTEST_SKIP() << "must be root to drop it";
  EXPECT_EQ(RunAsNobody([] {
              ScopedFd s(socket(GetParam(), SOCK_STREAM, 0));
              Name name = Loopback(GetParam(), 81);
              EXPECT_ERRNO(bind(s.get(), name.get(), name.length), EACCES);
            }),
            0);
}

// Streams -------------------------------------------------------------------------------------------------------------

TEST_P(Inet, ConnectAcceptAndNames) {
  ScopedFd listener = Listener(GetParam());
  Name name = LocalName(listener);
  ScopedFd a(socket(GetParam(), SOCK_STREAM, 0));
  ASSERT_OK(connect(a.get(), name.get(), name.length));
  EXPECT_ERRNO(connect(a.get(), name.get(), name.length), EISCONN);
  Name from;
  ScopedFd b(accept4(listener.get(), from.get(), &from.length, SOCK_CLOEXEC | SOCK_NONBLOCK));
  ASSERT_OK(b.get());
  EXPECT_RETURNS(fcntl(b.get(), F_GETFD), FD_CLOEXEC);
  EXPECT_RETURNS(fcntl(b.get(), F_GETFL), O_RDWR | O_NONBLOCK);
  EXPECT_EQ(from.port(), LocalName(a).port());
  EXPECT_EQ(from.text(), LocalName(a).text());
  Name peer;
  ASSERT_OK(getpeername(a.get(), peer.get(), &peer.length));
  EXPECT_EQ(peer.port(), name.port());
  EXPECT_EQ(peer.length, name.length);
  EXPECT_EQ(LocalName(b).port(), name.port());
}

TEST_P(Inet, BytesGoBothWays) {
  Connection c = Connect(GetParam());
  char buffer[16];
  EXPECT_RETURNS(write(c.a.get(), "hello", 5), 5);
  EXPECT_RETURNS(read(c.b.get(), buffer, sizeof(buffer)), 5);
  EXPECT_EQ(std::string(buffer, 5), "hello");
  EXPECT_RETURNS(send(c.b.get(), "back", 4, 0), 4);
  EXPECT_RETURNS(recv(c.a.get(), buffer, sizeof(buffer), 0), 4);
  EXPECT_EQ(std::string(buffer, 4), "back");
}

TEST_P(Inet, AConnectionToNobodyIsRefused) {
  ScopedFd s(socket(GetParam(), SOCK_STREAM, 0));
  Name name = Loopback(GetParam(), FreePort(GetParam(), SOCK_STREAM));
  EXPECT_ERRNO(connect(s.get(), name.get(), name.length), ECONNREFUSED);
  EXPECT_EQ(GetInt(s, SOL_SOCKET, SO_ERROR), 0);
}

TEST_P(Inet, ANonblockingConnectionToNobodyIsRefusedLater) {
  ScopedFd s(socket(GetParam(), SOCK_STREAM | SOCK_NONBLOCK, 0));
  Name name = Loopback(GetParam(), FreePort(GetParam(), SOCK_STREAM));
  EXPECT_ERRNO(connect(s.get(), name.get(), name.length), EINPROGRESS);
  EXPECT_EQ(Poll(s, POLLOUT, 5000), POLLOUT | POLLERR | POLLHUP);
  EXPECT_EQ(GetInt(s, SOL_SOCKET, SO_ERROR), ECONNREFUSED);
  EXPECT_EQ(GetInt(s, SOL_SOCKET, SO_ERROR), 0);
}

TEST_P(Inet, ANonblockingConnectionIsReportedByPoll) {
  ScopedFd listener = Listener(GetParam());
  Name name = LocalName(listener);
  ScopedFd s(socket(GetParam(), SOCK_STREAM | SOCK_NONBLOCK, 0));
  EXPECT_ERRNO(connect(s.get(), name.get(), name.length), EINPROGRESS);
  EXPECT_EQ(Poll(s, POLLOUT, 5000), POLLOUT);
  EXPECT_EQ(GetInt(s, SOL_SOCKET, SO_ERROR), 0);
  EXPECT_EQ(Poll(listener, POLLIN, 5000), POLLIN);
  EXPECT_OK(ScopedFd(accept(listener.get(), nullptr, nullptr)).get());
}

TEST_P(Inet, AcceptWithoutAConnection) {
  ScopedFd s = Bound(GetParam(), SOCK_STREAM);
  EXPECT_ERRNO(accept(s.get(), nullptr, nullptr), EINVAL);
  ASSERT_OK(listen(s.get(), 1));
  EXPECT_EQ(GetInt(s, SOL_SOCKET, SO_ACCEPTCONN), 1);
  ASSERT_OK(fcntl(s.get(), F_SETFL, O_NONBLOCK));
  EXPECT_ERRNO(accept(s.get(), nullptr, nullptr), EAGAIN);
  EXPECT_EQ(Poll(s, POLLIN | POLLOUT), 0);
  ScopedFd d = Bound(GetParam(), SOCK_DGRAM);
  EXPECT_ERRNO(accept(d.get(), nullptr, nullptr), EOPNOTSUPP);
  EXPECT_ERRNO(listen(d.get(), 1), EOPNOTSUPP);
}

TEST_P(Inet, ABlockedAcceptIsWoken) {
  ScopedFd listener = Listener(GetParam());
  Name name = LocalName(listener);
  std::thread t([&] {
    SleepMs(50);
    ScopedFd a(socket(GetParam(), SOCK_STREAM, 0));
    EXPECT_OK(connect(a.get(), name.get(), name.length));
    EXPECT_RETURNS(write(a.get(), "x", 1), 1);
  });
  ScopedFd b(accept(listener.get(), nullptr, nullptr));
  char c;
  EXPECT_RETURNS(read(b.get(), &c, 1), 1);
  t.join();
  EXPECT_RETURNS(read(b.get(), &c, 1), 0);
}

TEST_P(Inet, NotConnected) {
  ScopedFd s(socket(GetParam(), SOCK_STREAM, 0));
  char c = 'x';
  EXPECT_ERRNO(recv(s.get(), &c, 1, 0), ENOTCONN);
  EXPECT_ERRNO(send(s.get(), &c, 1, MSG_NOSIGNAL), EPIPE);
  EXPECT_ERRNO(shutdown(s.get(), SHUT_WR), ENOTCONN);
  EXPECT_ERRNO(shutdown(s.get(), 7), EINVAL);
  EXPECT_EQ(Poll(s, POLLIN | POLLOUT), POLLOUT | POLLHUP);
}

TEST_P(Inet, ShutdownForWritingIsEndOfFileForThePeer) {
  Connection c = Connect(GetParam());
  EXPECT_RETURNS(write(c.a.get(), "last", 4), 4);
  ASSERT_OK(shutdown(c.a.get(), SHUT_WR));
  char buffer[16];
  EXPECT_RETURNS(recv(c.b.get(), buffer, sizeof(buffer), MSG_WAITALL), 4);
  EXPECT_RETURNS(read(c.b.get(), buffer, sizeof(buffer)), 0);
  EXPECT_EQ(Poll(c.b, POLLIN | POLLOUT | POLLRDHUP), POLLIN | POLLOUT | POLLRDHUP);
  EXPECT_ERRNO(send(c.a.get(), "x", 1, MSG_NOSIGNAL), EPIPE);
  // The other way it still goes.
  EXPECT_RETURNS(write(c.b.get(), "y", 1), 1);
  EXPECT_RETURNS(read(c.a.get(), buffer, sizeof(buffer)), 1);
}

TEST_P(Inet, WritingToAShutSocketRaisesSigpipe) {
  EXPECT_EQ(RunChild([] {
              Connection c = Connect(GetParam());
              EXPECT_OK(shutdown(c.a.get(), SHUT_WR));
              EXPECT_ERRNO(send(c.a.get(), "x", 1, MSG_NOSIGNAL), EPIPE);
              signal(SIGPIPE, SIG_DFL);
              send(c.a.get(), "x", 1, 0);
              return 1;
            }),
            SIGPIPE);
}

TEST_P(Inet, UnreadBytesAtCloseResetTheConnection) {
  Connection c = Connect(GetParam());
  EXPECT_RETURNS(write(c.a.get(), "x", 1), 1);
  EXPECT_EQ(Poll(c.b, POLLIN, 5000), POLLIN);
  c.b.reset();
  EXPECT_NE(Poll(c.a, POLLIN, 5000) & POLLERR, 0);
  char byte;
  EXPECT_ERRNO(read(c.a.get(), &byte, 1), ECONNRESET);
  EXPECT_RETURNS(read(c.a.get(), &byte, 1), 0);
}

TEST_P(Inet, LingerOfZeroResets) {
  Connection c = Connect(GetParam());
  linger l{.l_onoff = 1, .l_linger = 0};
  ASSERT_OK(setsockopt(c.b.get(), SOL_SOCKET, SO_LINGER, &l, sizeof(l)));
  c.b.reset();
  char byte;
  EXPECT_ERRNO(read(c.a.get(), &byte, 1), ECONNRESET);
}

TEST_P(Inet, FlagsOfRecv) {
  Connection c = Connect(GetParam());
  char buffer[16] = {};
  EXPECT_ERRNO(recv(c.b.get(), buffer, 4, MSG_DONTWAIT), EAGAIN);
  EXPECT_RETURNS(write(c.a.get(), "abcdef", 6), 6);
  EXPECT_EQ(Poll(c.b, POLLIN, 5000), POLLIN);
  EXPECT_RETURNS(recv(c.b.get(), buffer, 4, MSG_PEEK), 4);
  EXPECT_EQ(std::string(buffer, 4), "abcd");
  int n = 0;
  EXPECT_OK(ioctl(c.b.get(), FIONREAD, &n));
  EXPECT_EQ(n, 6);
  EXPECT_RETURNS(recv(c.b.get(), nullptr, 2, MSG_TRUNC), 2);
  EXPECT_RETURNS(recv(c.b.get(), buffer, 16, 0), 4);
  EXPECT_EQ(std::string(buffer, 4), "cdef");
  std::thread t([&] {
    for (int i = 0; i < 4; ++i) {
      SleepMs(10);
      EXPECT_RETURNS(write(c.a.get(), "wxyz", 4), 4);
    }
  });
  EXPECT_RETURNS(recv(c.b.get(), buffer, 16, MSG_WAITALL), 16);
  t.join();
  EXPECT_EQ(std::string(buffer, 16), "wxyzwxyzwxyzwxyz");
}

TEST_P(Inet, AFaultLosesNothing) {
  Connection c = Connect(GetParam());
  EXPECT_RETURNS(write(c.a.get(), "abc", 3), 3);
  EXPECT_ERRNO(recv(c.b.get(), reinterpret_cast<void*>(8), 3, 0), EFAULT);
  char buffer[4];
  EXPECT_RETURNS(recv(c.b.get(), buffer, 4, 0), 3);
  EXPECT_ERRNO(send(c.a.get(), reinterpret_cast<void*>(8), 3, 0), EFAULT);
}

TEST_P(Inet, UrgentDataIsReadApart) {
  Connection c = Connect(GetParam());
  char byte = 0;
  EXPECT_ERRNO(recv(c.b.get(), &byte, 1, MSG_OOB), EINVAL);
  EXPECT_RETURNS(send(c.a.get(), "ab!", 3, MSG_OOB), 3);
  EXPECT_EQ(Poll(c.b, POLLPRI, 5000), POLLPRI);
  EXPECT_RETURNS(recv(c.b.get(), &byte, 1, MSG_OOB), 1);
  EXPECT_EQ(byte, '!');
  char buffer[8];
  EXPECT_RETURNS(recv(c.b.get(), buffer, sizeof(buffer), 0), 2);
  int at_mark = 0;
  EXPECT_OK(ioctl(c.b.get(), SIOCATMARK, &at_mark));
  EXPECT_EQ(at_mark, 1);
}

TEST_P(Inet, AFullBufferBlocksAndWakes) {
  Connection c = Connect(GetParam());
  ASSERT_OK(fcntl(c.a.get(), F_SETFL, O_NONBLOCK));
  std::vector<char> block(65536, 'z');
  size_t sent = 0;
  while (true) {
    ssize_t n = send(c.a.get(), block.data(), block.size(), 0);
    if (n < 0) break;
    sent += static_cast<size_t>(n);
    ASSERT_LT(sent, 64u << 20);
  }
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_EQ(Poll(c.a, POLLOUT), 0);
  size_t received = 0;
  while (received < sent) {
    ssize_t n = read(c.b.get(), block.data(), block.size());
    ASSERT_GT(n, 0);
    received += static_cast<size_t>(n);
  }
  EXPECT_EQ(received, sent);
  EXPECT_EQ(Poll(c.a, POLLOUT, 5000), POLLOUT);
}

TEST_P(Inet, ALargeTransferArrivesInOrder) {
  Connection c = Connect(GetParam());
  constexpr size_t kWords = 4 << 20;
  std::thread writer([&] {
    std::vector<uint32_t> words(100000);
    for (size_t at = 0; at < kWords;) {
      size_t n = std::min(words.size(), kWords - at);
      for (size_t i = 0; i < n; ++i) words[i] = static_cast<uint32_t>(at + i);
      ASSERT_EQ(write(c.a.get(), words.data(), n * 4), static_cast<ssize_t>(n * 4));
      at += n;
    }
    c.a.reset();
  });
  std::vector<uint32_t> words(30011);
  size_t at = 0, bad = 0;
  while (true) {
    ssize_t n = recv(c.b.get(), words.data(), words.size() * 4, MSG_WAITALL);
    if (n <= 0) {
      EXPECT_EQ(n, 0);
      break;
    }
    for (size_t i = 0; i < static_cast<size_t>(n) / 4; ++i) bad += words[i] != at++;
  }
  writer.join();
  EXPECT_EQ(at, kWords);
  EXPECT_EQ(bad, 0u);
}

TEST_P(Inet, AReceiveTimeoutEndsInEagain) {
  Connection c = Connect(GetParam());
  timeval tv{.tv_usec = 30000};
  ASSERT_OK(setsockopt(c.a.get(), SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
  char byte;
  int64_t before = NowMs();
  EXPECT_ERRNO(recv(c.a.get(), &byte, 1, 0), EAGAIN);
  EXPECT_GE(NowMs() - before, 29);
}

TEST_P(Inet, EdgesReachEpoll) {
  Connection c = Connect(GetParam());
  ScopedFd e(epoll_create1(0));
  epoll_event event{.events = EPOLLIN | EPOLLET | EPOLLRDHUP};
  ASSERT_OK(epoll_ctl(e.get(), EPOLL_CTL_ADD, c.b.get(), &event));
  EXPECT_RETURNS(epoll_wait(e.get(), &event, 1, 0), 0);
  for (int i = 0; i < 3; ++i) {
    EXPECT_RETURNS(write(c.a.get(), "x", 1), 1);
    EXPECT_RETURNS(epoll_wait(e.get(), &event, 1, 5000), 1);
    EXPECT_EQ(event.events, uint32_t{EPOLLIN});
    EXPECT_RETURNS(epoll_wait(e.get(), &event, 1, 0), 0);
  }
  c.a.reset();
  EXPECT_RETURNS(epoll_wait(e.get(), &event, 1, 5000), 1);
  EXPECT_NE(event.events & EPOLLRDHUP, 0u);
}

TEST_P(Inet, TcpOptions) {
  ScopedFd s(socket(GetParam(), SOCK_STREAM, 0));
  for (int name : {TCP_NODELAY, TCP_CORK}) {
    EXPECT_EQ(GetInt(s, IPPROTO_TCP, name), 0);
    EXPECT_OK(SetInt(s, IPPROTO_TCP, name, 1));
    EXPECT_EQ(GetInt(s, IPPROTO_TCP, name), 1);
  }
  for (int name : {TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_SYNCNT}) {
    EXPECT_OK(SetInt(s, IPPROTO_TCP, name, 7));
    EXPECT_EQ(GetInt(s, IPPROTO_TCP, name), 7);
    EXPECT_ERRNO(SetInt(s, IPPROTO_TCP, name, 0), EINVAL);
    EXPECT_ERRNO(SetInt(s, IPPROTO_TCP, name, 40000), EINVAL);
  }
  EXPECT_OK(SetInt(s, IPPROTO_TCP, TCP_USER_TIMEOUT, 1234));
  EXPECT_EQ(GetInt(s, IPPROTO_TCP, TCP_USER_TIMEOUT), 1234);
  EXPECT_ERRNO(SetInt(s, IPPROTO_TCP, TCP_MAXSEG, 10), EINVAL);
  EXPECT_OK(setsockopt(s.get(), IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
  char algorithm[16] = {};
  socklen_t length = sizeof(algorithm);
  EXPECT_OK(getsockopt(s.get(), IPPROTO_TCP, TCP_CONGESTION, algorithm, &length));
  EXPECT_STREQ(algorithm, "reno");
  EXPECT_ERRNO(setsockopt(s.get(), IPPROTO_TCP, TCP_CONGESTION, "none-such", 9), ENOENT);
  EXPECT_ERRNO(SetInt(s, IPPROTO_TCP, 9999, 1), ENOPROTOOPT);
  char byte = 1;
  EXPECT_ERRNO(setsockopt(s.get(), IPPROTO_TCP, TCP_NODELAY, &byte, 1), EINVAL);
}

TEST_P(Inet, TcpInfoNamesTheState) {
  Connection c = Connect(GetParam());
  tcp_info info{};
  socklen_t length = sizeof(info);
  ASSERT_OK(getsockopt(c.a.get(), IPPROTO_TCP, TCP_INFO, &info, &length));
  EXPECT_EQ(info.tcpi_state, TCP_ESTABLISHED);
  EXPECT_GT(info.tcpi_snd_mss, 500u);
}

TEST_P(Inet, AcceptedSocketsInheritOptions) {
  ScopedFd listener = Listener(GetParam());
  ASSERT_OK(SetInt(listener, IPPROTO_TCP, TCP_NODELAY, 1));
  ASSERT_OK(SetInt(listener, SOL_SOCKET, SO_KEEPALIVE, 1));
  Name name = LocalName(listener);
  ScopedFd a(socket(GetParam(), SOCK_STREAM, 0));
  ASSERT_OK(connect(a.get(), name.get(), name.length));
  ScopedFd b(accept(listener.get(), nullptr, nullptr));
  EXPECT_EQ(GetInt(b, IPPROTO_TCP, TCP_NODELAY), 1);
  EXPECT_EQ(GetInt(b, SOL_SOCKET, SO_KEEPALIVE), 1);
}

// The name of a listener that has gone, with one of its connections in TIME_WAIT.
Name InTimeWait(int family, int reuse) {
  ScopedFd listener(socket(family, SOCK_STREAM, 0));
  EXPECT_OK(SetInt(listener, SOL_SOCKET, SO_REUSEADDR, reuse));
  Name name = Loopback(family);
  EXPECT_OK(bind(listener.get(), name.get(), name.length));
  EXPECT_OK(listen(listener.get(), 1));
  name = LocalName(listener);
  ScopedFd a(socket(family, SOCK_STREAM, 0));
  EXPECT_OK(connect(a.get(), name.get(), name.length));
  ScopedFd b(accept(listener.get(), nullptr, nullptr));
  b.reset();  // closes first, so it is the one in TIME_WAIT
  char byte;
  EXPECT_RETURNS(read(a.get(), &byte, 1), 0);
  return name;
}

TEST_P(Inet, APortInTimeWaitIsTaken) {
  Name name = InTimeWait(GetParam(), 0);
  ScopedFd s(socket(GetParam(), SOCK_STREAM, 0));
  EXPECT_ERRNO(bind(s.get(), name.get(), name.length), EADDRINUSE);
}

TEST_P(Inet, APortInTimeWaitIsReusedWhereBothSaidSo) {
  Name name = InTimeWait(GetParam(), 1);
  ScopedFd s(socket(GetParam(), SOCK_STREAM, 0));
  ASSERT_OK(SetInt(s, SOL_SOCKET, SO_REUSEADDR, 1));
  EXPECT_OK(bind(s.get(), name.get(), name.length));
  EXPECT_OK(listen(s.get(), 1));
}

// Datagrams -----------------------------------------------------------------------------------------------------------

TEST_P(Inet, DatagramsKeepTheirBounds) {
  ScopedFd a = Bound(GetParam(), SOCK_DGRAM), b = Bound(GetParam(), SOCK_DGRAM);
  Name to = LocalName(b);
  EXPECT_RETURNS(sendto(a.get(), "first", 5, 0, to.get(), to.length), 5);
  EXPECT_RETURNS(sendto(a.get(), "", 0, 0, to.get(), to.length), 0);
  EXPECT_RETURNS(sendto(a.get(), "third", 5, 0, to.get(), to.length), 5);
  char buffer[16];
  Name from;
  EXPECT_RETURNS(recvfrom(b.get(), buffer, sizeof(buffer), 0, from.get(), &from.length), 5);
  EXPECT_EQ(std::string(buffer, 5), "first");
  EXPECT_EQ(from.port(), LocalName(a).port());
  EXPECT_EQ(from.text(), LocalName(a).text());
  EXPECT_RETURNS(recv(b.get(), buffer, sizeof(buffer), 0), 0);
  EXPECT_RETURNS(recv(b.get(), buffer, 2, MSG_PEEK | MSG_TRUNC), 5);
  iovec iov{.iov_base = buffer, .iov_len = 3};
  msghdr m{.msg_iov = &iov, .msg_iovlen = 1};
  EXPECT_RETURNS(recvmsg(b.get(), &m, 0), 3);
  EXPECT_EQ(m.msg_flags, MSG_TRUNC);
  EXPECT_ERRNO(recv(b.get(), buffer, 2, MSG_DONTWAIT), EAGAIN);
}

TEST_P(Inet, DatagramErrors) {
  ScopedFd a(socket(GetParam(), SOCK_DGRAM, 0));
  EXPECT_ERRNO(send(a.get(), "x", 1, 0), EDESTADDRREQ);
  Name to = Loopback(GetParam(), FreePort(GetParam(), SOCK_DGRAM));
  std::vector<char> huge(70000);
  EXPECT_ERRNO(sendto(a.get(), huge.data(), huge.size(), 0, to.get(), to.length), EMSGSIZE);
  if (GetParam() == AF_INET) {
    EXPECT_ERRNO(sendto(a.get(), "x", 1, MSG_OOB, to.get(), to.length), EOPNOTSUPP);
  }
  ASSERT_OK(connect(a.get(), to.get(), to.length));
  EXPECT_RETURNS(send(a.get(), "x", 1, 0), 1);
  EXPECT_NE(Poll(a, POLLIN, 5000) & POLLERR, 0);
  EXPECT_ERRNO(send(a.get(), "x", 1, 0), ECONNREFUSED);
}

TEST_P(Inet, AConnectedDatagramSocketHearsOnlyItsPeer) {
  ScopedFd a = Bound(GetParam(), SOCK_DGRAM), b(socket(GetParam(), SOCK_DGRAM, 0)), c = Bound(GetParam(), SOCK_DGRAM);
  // A port that was asked for: one that was chosen is given up with the peer.
  Name a_name = LocalName(a), b_name = Loopback(GetParam(), FreePort(GetParam(), SOCK_DGRAM));
  ASSERT_OK(bind(b.get(), b_name.get(), b_name.length));
  ASSERT_OK(connect(b.get(), a_name.get(), a_name.length));
  EXPECT_RETURNS(sendto(c.get(), "no", 2, 0, b_name.get(), b_name.length), 2);
  EXPECT_RETURNS(sendto(a.get(), "yes", 3, 0, b_name.get(), b_name.length), 3);
  char buffer[8];
  EXPECT_RETURNS(recv(b.get(), buffer, sizeof(buffer), 0), 3);
  EXPECT_ERRNO(recv(b.get(), buffer, sizeof(buffer), MSG_DONTWAIT), EAGAIN);
  sockaddr none{.sa_family = AF_UNSPEC};
  ASSERT_OK(connect(b.get(), &none, sizeof(none)));
  EXPECT_ERRNO(getpeername(b.get(), a_name.get(), &a_name.length), ENOTCONN);
  EXPECT_RETURNS(sendto(c.get(), "now", 3, 0, b_name.get(), b_name.length), 3);
  EXPECT_RETURNS(recv(b.get(), buffer, sizeof(buffer), 0), 3);
}

TEST_P(Inet, PiecesWithMoreToComeAreOneDatagram) {
  ScopedFd a = Bound(GetParam(), SOCK_DGRAM), b = Bound(GetParam(), SOCK_DGRAM);
  Name to = LocalName(b);
  ASSERT_OK(connect(a.get(), to.get(), to.length));
  EXPECT_RETURNS(send(a.get(), "one ", 4, MSG_MORE), 4);
  char buffer[16];
  EXPECT_ERRNO(recv(b.get(), buffer, sizeof(buffer), MSG_DONTWAIT), EAGAIN);
  EXPECT_RETURNS(send(a.get(), "two", 3, 0), 3);
  EXPECT_RETURNS(recv(b.get(), buffer, sizeof(buffer), 0), 7);
  EXPECT_EQ(std::string(buffer, 7), "one two");
}

TEST_P(Inet, ManyMessagesInOneCall) {
  ScopedFd a = Bound(GetParam(), SOCK_DGRAM), b = Bound(GetParam(), SOCK_DGRAM);
  Name to = LocalName(b);
  ASSERT_OK(connect(a.get(), to.get(), to.length));
  char text[] = "abc";
  iovec iov[3] = {{text, 1}, {text, 2}, {text, 3}};
  mmsghdr out[3] = {};
  for (int i = 0; i < 3; ++i) out[i].msg_hdr = {.msg_iov = &iov[i], .msg_iovlen = 1};
  EXPECT_RETURNS(sendmmsg(a.get(), out, 3, 0), 3);
  char buffers[3][8];
  iovec in_iov[3] = {{buffers[0], 8}, {buffers[1], 8}, {buffers[2], 8}};
  mmsghdr in[3] = {};
  for (int i = 0; i < 3; ++i) in[i].msg_hdr = {.msg_iov = &in_iov[i], .msg_iovlen = 1};
  EXPECT_RETURNS(recvmmsg(b.get(), in, 3, MSG_DONTWAIT, nullptr), 3);
  for (unsigned i = 0; i < 3; ++i) EXPECT_EQ(in[i].msg_len, i + 1);
}

TEST(InetDatagram, ThePacketsDestinationIsAncillaryData) {
  ScopedFd a = Bound(AF_INET, SOCK_DGRAM);
  ScopedFd b(socket(AF_INET, SOCK_DGRAM, 0));
  Name any = Any(AF_INET);
  ASSERT_OK(bind(b.get(), any.get(), any.length));
  ASSERT_OK(SetInt(b, IPPROTO_IP, IP_PKTINFO, 1));
  Name to = Make(AF_INET, "127.0.0.2", LocalName(b).port());
  ASSERT_RETURNS(sendto(a.get(), "x", 1, 0, to.get(), to.length), 1);
  char byte;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(in_pktinfo))];
  iovec iov{.iov_base = &byte, .iov_len = 1};
  msghdr m{.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
  ASSERT_RETURNS(recvmsg(b.get(), &m, 0), 1);
  cmsghdr* header = CMSG_FIRSTHDR(&m);
  ASSERT_NE(header, nullptr);
  EXPECT_EQ(header->cmsg_level, IPPROTO_IP);
  EXPECT_EQ(header->cmsg_type, IP_PKTINFO);
  in_pktinfo info;
  std::memcpy(&info, CMSG_DATA(header), sizeof(info));
  EXPECT_EQ(info.ipi_addr.s_addr, to.v4().sin_addr.s_addr);
  EXPECT_EQ(static_cast<unsigned>(info.ipi_ifindex), if_nametoindex("lo"));
}

// Options and both versions -------------------------------------------------------------------------------------------

TEST_P(Inet, HopLimitAndTrafficClass) {
  const bool v6 = GetParam() == AF_INET6;
  const int level = v6 ? IPPROTO_IPV6 : IPPROTO_IP;
  for (int type : {SOCK_STREAM, SOCK_DGRAM}) {
    ScopedFd s(socket(GetParam(), type, 0));
    const int ttl = v6 ? IPV6_UNICAST_HOPS : IP_TTL, tos = v6 ? IPV6_TCLASS : IP_TOS;
    EXPECT_EQ(GetInt(s, level, ttl), 64);
    EXPECT_OK(SetInt(s, level, ttl, 7));
    EXPECT_EQ(GetInt(s, level, ttl), 7);
    EXPECT_ERRNO(SetInt(s, level, ttl, 256), EINVAL);
    EXPECT_OK(SetInt(s, level, tos, 0x10));
    EXPECT_EQ(GetInt(s, level, tos), 0x10);
    EXPECT_ERRNO(SetInt(s, level, 9999, 1), ENOPROTOOPT);
    EXPECT_ERRNO(SetInt(s, 9999, 1, 1), ENOPROTOOPT);
  }
}

TEST(InetDualStack, AnIpv6ListenerTakesIpv4AsMapped) {
  ScopedFd listener(socket(AF_INET6, SOCK_STREAM, 0));
  EXPECT_EQ(GetInt(listener, IPPROTO_IPV6, IPV6_V6ONLY), 0);
  Name any = Any(AF_INET6);
  ASSERT_OK(bind(listener.get(), any.get(), any.length));
  EXPECT_ERRNO(SetInt(listener, IPPROTO_IPV6, IPV6_V6ONLY, 1), EINVAL);
  ASSERT_OK(listen(listener.get(), 1));
  ScopedFd a(socket(AF_INET, SOCK_STREAM, 0));
  Name to = Loopback(AF_INET, LocalName(listener).port());
  ASSERT_OK(connect(a.get(), to.get(), to.length));
  Name from;
  ScopedFd b(accept(listener.get(), from.get(), &from.length));
  ASSERT_OK(b.get());
  EXPECT_EQ(from.storage.ss_family, AF_INET6);
  EXPECT_EQ(from.text(), "::ffff:127.0.0.1");
}

TEST(InetDualStack, Ipv6OnlyLeavesTheIpv4PortFree) {
  ScopedFd six(socket(AF_INET6, SOCK_STREAM, 0));
  ASSERT_OK(SetInt(six, IPPROTO_IPV6, IPV6_V6ONLY, 1));
  Name any = Any(AF_INET6);
  ASSERT_OK(bind(six.get(), any.get(), any.length));
  ASSERT_OK(listen(six.get(), 1));
  ScopedFd four(socket(AF_INET, SOCK_STREAM, 0));
  Name same = Any(AF_INET, LocalName(six).port());
  EXPECT_OK(bind(four.get(), same.get(), same.length));
  ScopedFd a(socket(AF_INET6, SOCK_STREAM, 0));
  ASSERT_OK(SetInt(a, IPPROTO_IPV6, IPV6_V6ONLY, 1));
  Name mapped = Make(AF_INET6, "::ffff:127.0.0.1", LocalName(six).port());
  EXPECT_ERRNO(connect(a.get(), mapped.get(), mapped.length), ENETUNREACH);
}

// netdevice(7) --------------------------------------------------------------------------------------------------------

TEST(InetInterfaces, TheLoopbackIsDescribed) {
  ScopedFd s(socket(AF_INET, SOCK_DGRAM, 0));
  ifreq r{};
  strcpy(r.ifr_name, "lo");
  ASSERT_OK(ioctl(s.get(), SIOCGIFINDEX, &r));
  EXPECT_EQ(r.ifr_ifindex, 1);
  ASSERT_OK(ioctl(s.get(), SIOCGIFFLAGS, &r));
  EXPECT_EQ(r.ifr_flags & (IFF_UP | IFF_LOOPBACK | IFF_RUNNING), IFF_UP | IFF_LOOPBACK | IFF_RUNNING);
  ASSERT_OK(ioctl(s.get(), SIOCGIFADDR, &r));
  EXPECT_EQ(ntohl(reinterpret_cast<sockaddr_in&>(r.ifr_addr).sin_addr.s_addr), 0x7f000001u);
  ASSERT_OK(ioctl(s.get(), SIOCGIFNETMASK, &r));
  EXPECT_EQ(ntohl(reinterpret_cast<sockaddr_in&>(r.ifr_netmask).sin_addr.s_addr), 0xff000000u);
  ASSERT_OK(ioctl(s.get(), SIOCGIFMTU, &r));
  EXPECT_EQ(r.ifr_mtu, 65536);
  ASSERT_OK(ioctl(s.get(), SIOCGIFHWADDR, &r));
  EXPECT_EQ(r.ifr_hwaddr.sa_family, 772);
  r.ifr_ifindex = 1;
  strcpy(r.ifr_name, "");
  ASSERT_OK(ioctl(s.get(), SIOCGIFNAME, &r));
  EXPECT_STREQ(r.ifr_name, "lo");
  strcpy(r.ifr_name, "none-such");
  EXPECT_ERRNO(ioctl(s.get(), SIOCGIFFLAGS, &r), ENODEV);
}

TEST(InetInterfaces, TheListHasTheLoopback) {
  ScopedFd s(socket(AF_INET, SOCK_DGRAM, 0));
  ifconf conf{};
  ASSERT_OK(ioctl(s.get(), SIOCGIFCONF, &conf));
  ASSERT_GE(conf.ifc_len, static_cast<int>(sizeof(ifreq)));
  std::vector<ifreq> entries(static_cast<size_t>(conf.ifc_len) / sizeof(ifreq));
  conf.ifc_req = entries.data();
  ASSERT_OK(ioctl(s.get(), SIOCGIFCONF, &conf));
  bool found = false;
  for (const ifreq& e : entries) found |= strcmp(e.ifr_name, "lo") == 0;
  EXPECT_TRUE(found);
}

}  // namespace
}  // namespace redoubt::testing
