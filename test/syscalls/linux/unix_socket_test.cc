// unix(7): socket(2), socketpair(2), bind(2), listen(2), accept(2), connect(2), names and options.
#include "test/syscalls/util/unix_socket.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"
#include "test/syscalls/util/temp_dir.h"

namespace redoubt::testing {
namespace {

using std::string_view_literals::operator""sv;

class UnixSocket : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Type, UnixSocket, ::testing::Values(SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET), TypeName);

// With connections.
class UnixConnected : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Type, UnixConnected, ::testing::Values(SOCK_STREAM, SOCK_SEQPACKET), TypeName);

// Making them -------------------------------------------------------------------------------------------------------

TEST_P(UnixSocket, FlagsOfTheTypeAreApplied) {
  ScopedFd plain = Socket(GetParam());
  EXPECT_RETURNS(fcntl(plain.get(), F_GETFD), 0);
  EXPECT_RETURNS(fcntl(plain.get(), F_GETFL), O_RDWR);
  ScopedFd s = Socket(GetParam() | SOCK_CLOEXEC | SOCK_NONBLOCK);
  EXPECT_RETURNS(fcntl(s.get(), F_GETFD), FD_CLOEXEC);
  EXPECT_RETURNS(fcntl(s.get(), F_GETFL), O_RDWR | O_NONBLOCK);
  Pair p(GetParam() | SOCK_CLOEXEC | SOCK_NONBLOCK);
  for (const ScopedFd* fd : {&p.a, &p.b}) {
    EXPECT_RETURNS(fcntl(fd->get(), F_GETFD), FD_CLOEXEC);
    EXPECT_RETURNS(fcntl(fd->get(), F_GETFL), O_RDWR | O_NONBLOCK);
  }
}

TEST_P(UnixSocket, StatSaysItIsASocket) {
  ScopedFd s = Socket(GetParam());
  struct stat st;
  ASSERT_OK(fstat(s.get(), &st));
  EXPECT_TRUE(S_ISSOCK(st.st_mode));
  EXPECT_ERRNO(lseek(s.get(), 0, SEEK_SET), ESPIPE);
  char c;
  EXPECT_ERRNO(pread(s.get(), &c, 1, 0), ESPIPE);
}

TEST(UnixSocketErrors, OfSocket) {
  EXPECT_ERRNO(socket(AF_UNIX, 15, 0), EINVAL);
  EXPECT_ERRNO(socket(AF_UNIX, SOCK_RDM, 0), ESOCKTNOSUPPORT);
  EXPECT_ERRNO(socket(AF_UNIX, SOCK_STREAM | 0x1000, 0), EINVAL);
  EXPECT_ERRNO(socket(AF_UNIX, SOCK_STREAM, 77), EPROTONOSUPPORT);
  EXPECT_ERRNO(socket(9999, SOCK_STREAM, 0), EAFNOSUPPORT);
  EXPECT_ERRNO(socket(-1, SOCK_STREAM, 0), EAFNOSUPPORT);
  EXPECT_OK(ScopedFd(socket(AF_UNIX, SOCK_STREAM, PF_UNIX)).get());
}

TEST(UnixSocketErrors, OfSocketpair) {
  int fds[2];
  EXPECT_ERRNO(socketpair(AF_UNIX, SOCK_RDM, 0, fds), ESOCKTNOSUPPORT);
  EXPECT_ERRNO(socketpair(AF_UNIX, SOCK_STREAM | 0x1000, 0, fds), EINVAL);
  EXPECT_ERRNO(socketpair(AF_UNIX, SOCK_STREAM, 77, fds), EPROTONOSUPPORT);
  EXPECT_ERRNO(socketpair(9999, SOCK_STREAM, 0, fds), EAFNOSUPPORT);
  int before = dup(0);
  close(before);
  EXPECT_ERRNO(syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, 8L), EFAULT);
  int after = dup(0);
  EXPECT_EQ(before, after);  // nothing is left open
  close(after);
}

TEST(UnixSocketErrors, TooManyDescriptorsFailWithEmfile) {
  int next = dup(0);
  close(next);
  rlimit limit{static_cast<rlim_t>(next), static_cast<rlim_t>(next)};
  // In a child, since GoogleTest wants to open a file at the end.
  EXPECT_EQ(RunChild([&] {
              EXPECT_OK(setrlimit(RLIMIT_NOFILE, &limit));
              EXPECT_ERRNO(socket(AF_UNIX, SOCK_STREAM, 0), EMFILE);
              int fds[2];
              EXPECT_ERRNO(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), EMFILE);
              return 0;
            }),
            0);
}

TEST(UnixSocketErrors, OtherDescriptorsFailWithEnotsock) {
  ScopedFd file(open("/dev/null", O_RDWR));
  Address a = UniqueAbstract();
  char c = 0;
  int value = 0;
  socklen_t length = sizeof(value);
  msghdr m{};
  for (auto [fd, error] : {std::pair{file.get(), ENOTSOCK}, std::pair{-1, EBADF}, std::pair{1 << 20, EBADF}}) {
    EXPECT_ERRNO(bind(fd, a.get(), a.length), error);
    EXPECT_ERRNO(connect(fd, a.get(), a.length), error);
    EXPECT_ERRNO(listen(fd, 1), error);
    EXPECT_ERRNO(accept(fd, nullptr, nullptr), error);
    EXPECT_ERRNO(getsockname(fd, reinterpret_cast<sockaddr*>(&a.un), &a.length), error);
    EXPECT_ERRNO(getpeername(fd, reinterpret_cast<sockaddr*>(&a.un), &a.length), error);
    EXPECT_ERRNO(send(fd, &c, 1, 0), error);
    EXPECT_ERRNO(recv(fd, &c, 1, 0), error);
    EXPECT_ERRNO(sendmsg(fd, &m, 0), error);
    EXPECT_ERRNO(recvmsg(fd, &m, 0), error);
    EXPECT_ERRNO(shutdown(fd, SHUT_RD), error);
    EXPECT_ERRNO(getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &length), error);
    EXPECT_ERRNO(setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &value, sizeof(value)), error);
  }
}

// Names ---------------------------------------------------------------------------------------------------------------

TEST_P(UnixSocket, WithoutANameItsAddressIsTheFamily) {
  Pair p(GetParam());
  EXPECT_EQ(NameOf(p.a).length, kNoName);
  EXPECT_EQ(NameOf(p.a).un.sun_family, AF_UNIX);
  EXPECT_EQ(NameOf(p.a, getpeername).length, kNoName);
  EXPECT_EQ(NameOf(Socket(GetParam())).length, kNoName);
}

TEST_P(UnixSocket, BindMakesANode) {
  TempDir dir;
  umask(027);
  Address a = At(dir / "s");
  ScopedFd s = Bound(GetParam(), a);
  struct stat st;
  ASSERT_OK(lstat((dir / "s").c_str(), &st));
  EXPECT_EQ(st.st_mode, static_cast<mode_t>(S_IFSOCK | 0750));
  EXPECT_EQ(NameOf(s), a);
  // Which stays, and cannot be opened.
  s.reset();
  EXPECT_ERRNO(open((dir / "s").c_str(), O_RDWR), ENXIO);
  EXPECT_OK(unlink((dir / "s").c_str()));
}

TEST_P(UnixSocket, BindResolvesRelativePaths) {
  TempDir dir;
  ASSERT_OK(chdir(dir.path().c_str()));
  ScopedFd s = Bound(GetParam(), At("s"));
  EXPECT_OK(access((dir / "s").c_str(), F_OK));
  EXPECT_EQ(NameOf(s), At("s"));
}

TEST(UnixBind, PathsMayFillTheWholeAddress) {
  TempDir dir;
  ASSERT_OK(chdir(dir.path().c_str()));
  std::string name(108, 'n');
  ScopedFd s = Bound(SOCK_DGRAM, At(name));
  EXPECT_OK(access((dir / name).c_str(), F_OK));
  sockaddr_storage got{};
  socklen_t length = sizeof(got);
  ASSERT_OK(getsockname(s.get(), reinterpret_cast<sockaddr*>(&got), &length));
  EXPECT_EQ(length, offsetof(sockaddr_un, sun_path) + 109);  // unix(7): BUGS
}

TEST_P(UnixSocket, AutobindGivesFiveDigits) {
  ScopedFd s = Socket(GetParam());
  Address none;
  none.un.sun_family = AF_UNIX;
  none.length = kNoName;
  ASSERT_OK(Bind(s, none));
  Address a = NameOf(s);
  EXPECT_EQ(a.length, kNoName + 6);
  EXPECT_EQ(a.un.sun_path[0], '\0');
  for (int i = 1; i < 6; i++) EXPECT_TRUE(strchr("0123456789abcdef", a.un.sun_path[i]) != nullptr);
  ScopedFd other = Socket(GetParam());
  ASSERT_OK(Bind(other, none));
  EXPECT_FALSE(NameOf(other) == a);
}

TEST_P(UnixSocket, EveryByteOfAbstractNamesCounts) {
  Address a = UniqueAbstract("\0x"sv), b = UniqueAbstract("\0y"sv);
  ScopedFd s = Bound(GetParam(), a);
  EXPECT_EQ(NameOf(s), a);
  EXPECT_OK(Bind(Socket(GetParam()), b));
  EXPECT_ERRNO(Bind(Socket(GetParam()), a), EADDRINUSE);
  s.reset();
  EXPECT_OK(Bind(Socket(GetParam()), a));
}

TEST_P(UnixSocket, BindErrors) {
  TempDir dir;
  dir.File("file");
  ScopedFd s = Socket(GetParam());
  Address a = At(dir / "file");
  EXPECT_ERRNO(Bind(s, a), EADDRINUSE);
  EXPECT_ERRNO(Bind(s, At(dir / "none/s")), ENOENT);
  EXPECT_ERRNO(Bind(s, At(dir / "file/s")), ENOTDIR);
  ASSERT_OK(symlink("loop", (dir / "loop").c_str()));
  EXPECT_ERRNO(Bind(s, At(dir / "loop/s")), ELOOP);
  ASSERT_OK(symlink("nothing", (dir / "dangling").c_str()));
  EXPECT_ERRNO(Bind(s, At(dir / "dangling")), EADDRINUSE);
  a = At(dir / "s");
  a.un.sun_family = AF_INET;
  EXPECT_ERRNO(Bind(s, a), EINVAL);
  EXPECT_ERRNO(bind(s.get(), a.get(), 1), EINVAL);
  EXPECT_ERRNO(bind(s.get(), a.get(), 0), EINVAL);
  EXPECT_ERRNO(bind(s.get(), a.get(), sizeof(sockaddr_un) + 1), EINVAL);
  EXPECT_ERRNO(bind(s.get(), a.get(), static_cast<socklen_t>(-1)), EINVAL);
  EXPECT_ERRNO(bind(s.get(), reinterpret_cast<sockaddr*>(8), a.length), EFAULT);
  // None of which has bound it.
  ASSERT_OK(Bind(s, At(dir / "s")));
  EXPECT_ERRNO(Bind(s, At(dir / "t")), EINVAL);
  EXPECT_ERRNO(Bind(s, UniqueAbstract()), EINVAL);
  EXPECT_ERRNO(access((dir / "t").c_str(), F_OK), ENOENT);
}

TEST(UnixBind, NeedsWriteAccessToTheDirectory) {
  TempDir dir;
  dir.Dir("closed", 0700);
  EXPECT_EQ(RunAsNobody([&] {
              EXPECT_ERRNO(Bind(Socket(SOCK_STREAM), At(dir / "s")), EACCES);
              EXPECT_ERRNO(Bind(Socket(SOCK_STREAM), At(dir / "closed/s")), EACCES);
            }),
            0);
}

TEST(UnixName, AddressesAreCutToTheRoom) {
  Address a = UniqueAbstract();
  ScopedFd s = Bound(SOCK_DGRAM, a);
  Address got;
  got.length = 5;
  ASSERT_OK(getsockname(s.get(), reinterpret_cast<sockaddr*>(&got.un), &got.length));
  EXPECT_EQ(got.length, a.length);
  EXPECT_EQ(std::memcmp(&got.un, &a.un, 5), 0);
  EXPECT_EQ(got.un.sun_path[3], '\0');
}

TEST(UnixName, Errors) {
  ScopedFd s = Socket(SOCK_STREAM);
  Address a;
  auto* p = reinterpret_cast<sockaddr*>(&a.un);
  a.length = static_cast<socklen_t>(-1);
  EXPECT_ERRNO(getsockname(s.get(), p, &a.length), EINVAL);
  a.length = sizeof(a.un);
  EXPECT_ERRNO(getsockname(s.get(), reinterpret_cast<sockaddr*>(8), &a.length), EFAULT);
  EXPECT_ERRNO(getsockname(s.get(), p, reinterpret_cast<socklen_t*>(8)), EFAULT);
  EXPECT_ERRNO(getpeername(s.get(), p, &a.length), ENOTCONN);
}

// Connections ---------------------------------------------------------------------------------------------------------

TEST_P(UnixConnected, ConnectAndAcceptByPath) {
  TempDir dir;
  Address a = At(dir / "s");
  ScopedFd listener = Listener(GetParam(), a);
  ScopedFd client = Socket(GetParam());
  ASSERT_OK(Connect(client, a));
  Address peer;
  peer.length = sizeof(peer.un);
  ScopedFd server(accept(listener.get(), reinterpret_cast<sockaddr*>(&peer.un), &peer.length));
  ASSERT_OK(server.get());
  EXPECT_EQ(peer.length, kNoName);
  EXPECT_EQ(NameOf(server), a);
  EXPECT_EQ(NameOf(client, getpeername), a);
  EXPECT_EQ(NameOf(server, getpeername).length, kNoName);
  EXPECT_RETURNS(Send(client, "ping"), 4);
  EXPECT_EQ(Recv(server), "ping");
  EXPECT_RETURNS(Send(server, "pong"), 4);
  EXPECT_EQ(Recv(client), "pong");
}

TEST_P(UnixConnected, AcceptTellsTheClientsName) {
  Address a = UniqueAbstract("l"), c = UniqueAbstract("c");
  ScopedFd listener = Listener(GetParam(), a);
  ScopedFd client = Bound(GetParam(), c);
  ASSERT_OK(Connect(client, a));
  Address peer;
  peer.length = sizeof(peer.un);
  ScopedFd server(accept(listener.get(), reinterpret_cast<sockaddr*>(&peer.un), &peer.length));
  EXPECT_EQ(peer, c);
  EXPECT_EQ(NameOf(server, getpeername), c);
}

TEST_P(UnixConnected, WhatIsSentBeforeAcceptArrives) {
  Address a = UniqueAbstract();
  ScopedFd listener = Listener(GetParam(), a);
  ScopedFd client = Socket(GetParam());
  ASSERT_OK(Connect(client, a));
  ASSERT_RETURNS(Send(client, "early"), 5);
  client.reset();
  ScopedFd server = Accept(listener);
  EXPECT_EQ(Recv(server), "early");
  EXPECT_EQ(Recv(server), "");
}

TEST_P(UnixConnected, Accept4AppliesItsFlagsAndInheritsNone) {
  Address a = UniqueAbstract();
  ScopedFd listener = Listener(GetParam() | SOCK_NONBLOCK, a);
  ScopedFd c1 = Socket(GetParam()), c2 = Socket(GetParam());
  ASSERT_OK(Connect(c1, a));
  ASSERT_OK(Connect(c2, a));
  ScopedFd plain = Accept(listener);
  EXPECT_RETURNS(fcntl(plain.get(), F_GETFL), O_RDWR);
  EXPECT_RETURNS(fcntl(plain.get(), F_GETFD), 0);
  ScopedFd flagged(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  EXPECT_RETURNS(fcntl(flagged.get(), F_GETFL), O_RDWR | O_NONBLOCK);
  EXPECT_RETURNS(fcntl(flagged.get(), F_GETFD), FD_CLOEXEC);
  EXPECT_ERRNO(accept4(listener.get(), nullptr, nullptr, 1), EINVAL);
  EXPECT_ERRNO(accept(listener.get(), nullptr, nullptr), EAGAIN);
}

TEST_P(UnixConnected, AcceptErrors) {
  ScopedFd s = Socket(GetParam());
  EXPECT_ERRNO(accept(s.get(), nullptr, nullptr), EINVAL);
  Address a = UniqueAbstract();
  ScopedFd listener = Listener(GetParam(), a);
  ASSERT_OK(Connect(s, a));
  Address got;
  got.length = static_cast<socklen_t>(-1);
  EXPECT_ERRNO(accept(listener.get(), reinterpret_cast<sockaddr*>(&got.un), &got.length), EINVAL);
  EXPECT_ERRNO(accept(s.get(), nullptr, nullptr), EINVAL);
}

TEST_P(UnixConnected, ListenersHaveNoDataToCount) {
  ScopedFd listener = Listener(GetParam(), UniqueAbstract());
  int n;
  EXPECT_ERRNO(ioctl(listener.get(), FIONREAD, &n), EINVAL);
  EXPECT_EQ(Recv(listener, MSG_DONTWAIT), GetParam() == SOCK_STREAM ? "EINVAL" : "ENOTCONN");
  EXPECT_ERRNO(Send(listener, "x", MSG_NOSIGNAL), ENOTCONN);
}

TEST(UnixDgram, HasNoConnectionsToAccept) {
  ScopedFd s = Bound(SOCK_DGRAM, UniqueAbstract());
  EXPECT_ERRNO(listen(s.get(), 1), EOPNOTSUPP);
  EXPECT_ERRNO(accept(s.get(), nullptr, nullptr), EOPNOTSUPP);
}

TEST_P(UnixConnected, ListenErrors) {
  EXPECT_ERRNO(listen(Socket(GetParam()).get(), 1), EINVAL);  // has no name
  Pair p(GetParam());
  EXPECT_ERRNO(listen(p.a.get(), 1), EINVAL);
  ScopedFd listener = Listener(GetParam(), UniqueAbstract());
  EXPECT_OK(listen(listener.get(), 7));
}

TEST_P(UnixConnected, ConnectErrors) {
  TempDir dir;
  dir.File("file");
  ScopedFd s = Socket(GetParam() | SOCK_NONBLOCK);
  EXPECT_ERRNO(Connect(s, At(dir / "none")), ENOENT);
  EXPECT_ERRNO(Connect(s, At(dir / "file")), ECONNREFUSED);
  EXPECT_ERRNO(Connect(s, At(dir / "file/s")), ENOTDIR);
  EXPECT_ERRNO(Connect(s, UniqueAbstract()), ECONNREFUSED);
  ASSERT_OK(symlink("loop", (dir / "loop").c_str()));
  EXPECT_ERRNO(Connect(s, At(dir / "loop")), ELOOP);
  Address a = At(dir / "s");
  ScopedFd bound = Bound(GetParam(), a);
  EXPECT_ERRNO(Connect(s, a), ECONNREFUSED);  // does not listen
  ScopedFd dgram = Bound(SOCK_DGRAM, At(dir / "dgram"));
  EXPECT_ERRNO(Connect(s, At(dir / "dgram")), EPROTOTYPE);
  Address wrong = a;
  wrong.un.sun_family = AF_INET;
  EXPECT_ERRNO(Connect(s, wrong), EINVAL);
  EXPECT_ERRNO(connect(s.get(), a.get(), 1), EINVAL);
  EXPECT_ERRNO(connect(s.get(), a.get(), sizeof(sockaddr_un) + 1), EINVAL);
  EXPECT_ERRNO(connect(s.get(), reinterpret_cast<sockaddr*>(8), a.length), EFAULT);
  ASSERT_OK(listen(bound.get(), 5));
  EXPECT_OK(Connect(s, a));
  EXPECT_ERRNO(Connect(s, a), EISCONN);
  EXPECT_ERRNO(Connect(bound, a), EINVAL);
  ScopedFd late = Socket(GetParam());
  bound.reset();
  EXPECT_ERRNO(Connect(late, a), ECONNREFUSED);  // the node is still there
}

TEST_P(UnixConnected, ConnectFollowsSymbolicLinks) {
  TempDir dir;
  ScopedFd listener = Listener(GetParam(), At(dir / "s"));
  ASSERT_OK(symlink("s", (dir / "link").c_str()));
  EXPECT_OK(Connect(Socket(GetParam()), At(dir / "link")));
}

TEST_P(UnixConnected, ConnectNeedsWriteAccessToTheNode) {
  TempDir dir;
  ScopedFd listener = Listener(GetParam(), At(dir / "s"));
  ASSERT_OK(chmod((dir / "s").c_str(), 0755));
  EXPECT_EQ(RunAsNobody([&] { EXPECT_ERRNO(Connect(Socket(GetParam()), At(dir / "s")), EACCES); }), 0);
  ASSERT_OK(chmod((dir / "s").c_str(), 0722));
  EXPECT_EQ(RunAsNobody([&] { EXPECT_OK(Connect(Socket(GetParam()), At(dir / "s"))); }), 0);
}

TEST_P(UnixConnected, AFullBacklogBlocks) {
  Address a = UniqueAbstract();
  ScopedFd listener = Listener(GetParam(), a, 1);
  std::vector<ScopedFd> clients;
  // One more than the backlog: listen(2) calls it a hint.
  while (clients.size() < 10) {
    clients.push_back(Socket(GetParam() | SOCK_NONBLOCK));
    if (Connect(clients.back(), a) != 0) break;
  }
  EXPECT_ERRNO(Connect(clients.back(), a), EAGAIN);
  EXPECT_LE(clients.size(), 3u);
  ScopedFd timed = Socket(GetParam());
  SetTimeout(timed, SO_SNDTIMEO, 20);
  EXPECT_ERRNO(Connect(timed, a), EAGAIN);
  ScopedFd waiting = Socket(GetParam());
  std::thread connecter([&] { EXPECT_OK(Connect(waiting, a)); });
  SleepMs(20);
  Accept(listener);
  connecter.join();
}

TEST_P(UnixConnected, SignalsInterruptConnectingAndAccepting) {
  struct sigaction sa{};
  sa.sa_handler = [](int) {};
  ASSERT_OK(sigaction(SIGALRM, &sa, nullptr));
  auto alarm_soon = [] {
    itimerval t{{0, 0}, {0, 20000}};
    EXPECT_OK(setitimer(ITIMER_REAL, &t, nullptr));
  };
  Address a = UniqueAbstract();
  ScopedFd listener = Listener(GetParam(), a, 0);
  alarm_soon();
  EXPECT_ERRNO(accept(listener.get(), nullptr, nullptr), EINTR);
  ScopedFd first = Socket(GetParam()), second = Socket(GetParam());
  ASSERT_OK(Connect(first, a));
  alarm_soon();
  EXPECT_ERRNO(Connect(second, a), EINTR);
  Accept(listener);
  EXPECT_OK(Connect(second, a));
}

TEST_P(UnixConnected, AcceptWaitsForAClient) {
  Address a = UniqueAbstract();
  ScopedFd listener = Listener(GetParam(), a);
  EXPECT_EQ(PollOne(listener, POLLIN | POLLOUT), 0);
  ScopedFd client = Socket(GetParam());
  std::thread connecter([&] {
    SleepMs(20);
    EXPECT_OK(Connect(client, a));
  });
  EXPECT_OK(Accept(listener).get());
  connecter.join();
  ASSERT_OK(Connect(Socket(GetParam()), a));
  EXPECT_EQ(PollOne(listener, POLLIN | POLLOUT), POLLIN);
  Accept(listener);
  SetTimeout(listener, SO_RCVTIMEO, 20);
  EXPECT_ERRNO(accept(listener.get(), nullptr, nullptr), EAGAIN);
}

TEST_P(UnixConnected, ClosingTheListenerResetsThoseNotAccepted) {
  Address a = UniqueAbstract();
  ScopedFd listener = Listener(GetParam(), a);
  ScopedFd client = Socket(GetParam());
  ASSERT_OK(Connect(client, a));
  listener.reset();
  EXPECT_EQ(Recv(client), "ECONNRESET");
}

TEST_P(UnixConnected, ConnectionsOutliveTheName) {
  TempDir dir;
  Address a = At(dir / "s");
  ScopedFd listener = Listener(GetParam(), a);
  ScopedFd client = Socket(GetParam());
  ASSERT_OK(Connect(client, a));
  ScopedFd server = Accept(listener);
  ASSERT_OK(unlink((dir / "s").c_str()));
  listener.reset();
  EXPECT_ERRNO(Connect(Socket(GetParam()), a), ENOENT);
  EXPECT_RETURNS(Send(client, "x"), 1);
  EXPECT_EQ(Recv(server), "x");
  EXPECT_EQ(NameOf(server), a);
}

TEST_P(UnixConnected, UnconnectedTransferErrors) {
  ScopedFd s = Socket(GetParam());
  EXPECT_ERRNO(Send(s, "x", MSG_NOSIGNAL), ENOTCONN);
  EXPECT_EQ(Recv(s, MSG_DONTWAIT), GetParam() == SOCK_STREAM ? "EINVAL" : "ENOTCONN");
  EXPECT_EQ(PollOne(s, POLLIN | POLLOUT), GetParam() == SOCK_STREAM ? POLLOUT | POLLHUP : POLLOUT | POLLHUP);
}

TEST(UnixStream, SendtoWithAnAddressFails) {
  Address a = UniqueAbstract();
  ScopedFd listener = Listener(SOCK_STREAM, a);
  ScopedFd s = Socket(SOCK_STREAM);
  EXPECT_ERRNO(sendto(s.get(), "x", 1, 0, a.get(), a.length), EOPNOTSUPP);
  ASSERT_OK(Connect(s, a));
  EXPECT_ERRNO(sendto(s.get(), "x", 1, 0, a.get(), a.length), EISCONN);
}

// Options -------------------------------------------------------------------------------------------------------------

TEST_P(UnixSocket, OptionsTellWhatItIs) {
  ScopedFd s = Socket(GetParam());
  EXPECT_EQ(GetOption(s, SO_TYPE), GetParam());
  EXPECT_EQ(GetOption(s, SO_DOMAIN), AF_UNIX);
  EXPECT_EQ(GetOption(s, SO_PROTOCOL), 0);
  EXPECT_EQ(GetOption(s, SO_ERROR), 0);
  EXPECT_EQ(GetOption(s, SO_ACCEPTCONN), 0);
  EXPECT_EQ(GetOption(s, SO_RCVLOWAT), 1);
  if (GetParam() == SOCK_DGRAM) return;
  ScopedFd listener = Listener(GetParam(), UniqueAbstract());
  EXPECT_EQ(GetOption(listener, SO_ACCEPTCONN), 1);
}

TEST_P(UnixSocket, BufferSizesAreDoubled) {
  ScopedFd s = Socket(GetParam());
  SetOption(s, SO_SNDBUF, 10000);
  EXPECT_EQ(GetOption(s, SO_SNDBUF), 20000);
  SetOption(s, SO_RCVBUF, 10000);
  EXPECT_EQ(GetOption(s, SO_RCVBUF), 20000);
  SetOption(s, SO_SNDBUF, 0);
  EXPECT_GE(GetOption(s, SO_SNDBUF), 2048);
  SetOption(s, SO_SNDBUFFORCE, 20000);
  EXPECT_EQ(GetOption(s, SO_SNDBUF), 40000);
  EXPECT_EQ(RunAsNobody([&] {
              int size = 20000;
              EXPECT_ERRNO(setsockopt(s.get(), SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)), EPERM);
              EXPECT_ERRNO(setsockopt(s.get(), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)), EPERM);
            }),
            0);
}

TEST_P(UnixSocket, SwitchesAreRemembered) {
  ScopedFd s = Socket(GetParam());
  for (int name : {SO_REUSEADDR, SO_BROADCAST, SO_OOBINLINE, SO_KEEPALIVE, SO_PASSCRED}) {
    EXPECT_EQ(GetOption(s, name), 0) << name;
    SetOption(s, name, 5);
    EXPECT_EQ(GetOption(s, name), 1) << name;
    SetOption(s, name, 0);
    EXPECT_EQ(GetOption(s, name), 0) << name;
  }
}

TEST(UnixOption, TimeoutsAndLingerAreRemembered) {
  ScopedFd s = Socket(SOCK_STREAM);
  timeval t{3, 500000}, got{};
  socklen_t length = sizeof(got);
  for (int name : {SO_RCVTIMEO, SO_SNDTIMEO}) {
    ASSERT_OK(getsockopt(s.get(), SOL_SOCKET, name, &got, &length));
    EXPECT_EQ(got.tv_sec, 0);
    ASSERT_OK(setsockopt(s.get(), SOL_SOCKET, name, &t, sizeof(t)));
    ASSERT_OK(getsockopt(s.get(), SOL_SOCKET, name, &got, &length));
    EXPECT_EQ(length, sizeof(got));
    EXPECT_EQ(got.tv_sec, 3);
    EXPECT_EQ(got.tv_usec, 500000);
    timeval bad{0, 1000000};
    EXPECT_ERRNO(setsockopt(s.get(), SOL_SOCKET, name, &bad, sizeof(bad)), EDOM);
    EXPECT_ERRNO(setsockopt(s.get(), SOL_SOCKET, name, &t, sizeof(t) - 1), EINVAL);
  }
  linger l{1, 7}, got_linger{};
  ASSERT_OK(setsockopt(s.get(), SOL_SOCKET, SO_LINGER, &l, sizeof(l)));
  length = sizeof(got_linger);
  ASSERT_OK(getsockopt(s.get(), SOL_SOCKET, SO_LINGER, &got_linger, &length));
  EXPECT_EQ(got_linger.l_onoff, 1);
  EXPECT_EQ(got_linger.l_linger, 7);
}

TEST(UnixOption, Errors) {
  ScopedFd s = Socket(SOCK_STREAM);
  int value = 1;
  socklen_t length = sizeof(value);
  EXPECT_ERRNO(getsockopt(s.get(), SOL_SOCKET, 9999, &value, &length), ENOPROTOOPT);
  EXPECT_ERRNO(setsockopt(s.get(), SOL_SOCKET, 9999, &value, sizeof(value)), ENOPROTOOPT);
  EXPECT_ERRNO(getsockopt(s.get(), 6 /* IPPROTO_TCP */, 1, &value, &length), EOPNOTSUPP);
  EXPECT_ERRNO(setsockopt(s.get(), 6, 1, &value, sizeof(value)), EOPNOTSUPP);
  EXPECT_ERRNO(setsockopt(s.get(), SOL_SOCKET, SO_PASSCRED, &value, 3), EINVAL);
  EXPECT_ERRNO(setsockopt(s.get(), SOL_SOCKET, SO_PASSCRED, reinterpret_cast<void*>(8), 4), EFAULT);
  EXPECT_ERRNO(setsockopt(s.get(), SOL_SOCKET, SO_TYPE, &value, sizeof(value)), ENOPROTOOPT);
  EXPECT_ERRNO(setsockopt(s.get(), SOL_SOCKET, SO_ERROR, &value, sizeof(value)), ENOPROTOOPT);
  EXPECT_ERRNO(setsockopt(s.get(), SOL_SOCKET, SO_ACCEPTCONN, &value, sizeof(value)), ENOPROTOOPT);
  EXPECT_ERRNO(getsockopt(s.get(), SOL_SOCKET, SO_TYPE, &value, reinterpret_cast<socklen_t*>(8)), EFAULT);
  EXPECT_ERRNO(getsockopt(s.get(), SOL_SOCKET, SO_TYPE, reinterpret_cast<void*>(8), &length), EFAULT);
  length = static_cast<socklen_t>(-1);
  EXPECT_ERRNO(getsockopt(s.get(), SOL_SOCKET, SO_TYPE, &value, &length), EINVAL);
  // Less room than the value needs.
  char bytes[4] = {9, 9, 9, 9};
  length = 1;
  EXPECT_OK(getsockopt(s.get(), SOL_SOCKET, SO_TYPE, bytes, &length));
  EXPECT_EQ(length, 1u);
  EXPECT_EQ(bytes[0], SOCK_STREAM);
  EXPECT_EQ(bytes[1], 9);
}

}  // namespace
}  // namespace redoubt::testing
