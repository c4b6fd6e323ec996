// unix(7): socketpair(2), bind(2), listen(2), accept(2), connect(2), send(2), recv(2), shutdown(2), ancillary data,
// socket options.
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"
#include "test/syscalls/util/temp_dir.h"

namespace redoubt::testing {
namespace {

using std::string_view_literals::operator""sv;

struct Address {
  sockaddr_un un{};
  socklen_t length = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&un); }
};
// A path with its NUL, or an abstract name, which starts with one.
Address At(std::string_view name) {
  Address a;
  a.un.sun_family = AF_UNIX;
  EXPECT_LE(name.size(), sizeof(a.un.sun_path));
  std::memcpy(a.un.sun_path, name.data(), name.size());
  const bool is_path = !name.empty() && name[0] != '\0' && name.size() < sizeof(a.un.sun_path);
  a.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size() + (is_path ? 1 : 0));
  return a;
}
// No other test's, nor any other run's.
Address UniqueAbstract(std::string_view suffix = "") {
  return At(std::string(1, '\0') + "unix_socket_test." + std::to_string(getpid()) + std::string(suffix));
}
int Bind(const ScopedFd& s, const Address& a) { return bind(s.get(), a.get(), a.length); }
int Connect(const ScopedFd& s, const Address& a) { return connect(s.get(), a.get(), a.length); }

Address NameOf(const ScopedFd& s, int (*get)(int, sockaddr*, socklen_t*) = getsockname) {
  Address a;
  a.length = sizeof(a.un);
  EXPECT_OK(get(s.get(), reinterpret_cast<sockaddr*>(&a.un), &a.length));
  return a;
}
bool operator==(const Address& a, const Address& b) {
  return a.length == b.length && std::memcmp(&a.un, &b.un, a.length) == 0;
}
constexpr socklen_t kNoName = sizeof(sa_family_t);

ScopedFd Socket(int type) {
  ScopedFd s(socket(AF_UNIX, type, 0));
  EXPECT_OK(s.get());
  return s;
}
ScopedFd Bound(int type, const Address& a) {
  ScopedFd s = Socket(type);
  EXPECT_OK(Bind(s, a));
  return s;
}
ScopedFd Listener(int type, const Address& a, int backlog = 5) {
  ScopedFd s = Bound(type, a);
  EXPECT_OK(listen(s.get(), backlog));
  return s;
}
ScopedFd Accept(const ScopedFd& listener) {
  ScopedFd s(accept(listener.get(), nullptr, nullptr));
  EXPECT_OK(s.get());
  return s;
}

struct Pair {
  explicit Pair(int type) {
    int fds[2] = {-1, -1};
    EXPECT_OK(socketpair(AF_UNIX, type, 0, fds));
    a.reset(fds[0]);
    b.reset(fds[1]);
  }
  ScopedFd a, b;
};

void SetOption(const ScopedFd& s, int name, int value) {
  EXPECT_OK(setsockopt(s.get(), SOL_SOCKET, name, &value, sizeof(value)));
}
int GetOption(const ScopedFd& s, int name) {
  int value = -1;
  socklen_t length = sizeof(value);
  EXPECT_OK(getsockopt(s.get(), SOL_SOCKET, name, &value, &length));
  EXPECT_EQ(length, sizeof(value));
  return value;
}
void SetTimeout(const ScopedFd& s, int name, int ms) {
  timeval t{ms / 1000, ms % 1000 * 1000};
  EXPECT_OK(setsockopt(s.get(), SOL_SOCKET, name, &t, sizeof(t)));
}
ssize_t Send(const ScopedFd& s, std::string_view data, int flags = 0) {
  return send(s.get(), data.data(), data.size(), flags);
}
// What one recv returns, or the errno's name.
std::string Recv(const ScopedFd& s, int flags = 0, size_t room = 4096) {
  std::string data(room, '?');
  ssize_t n = recv(s.get(), data.data(), room, flags);
  if (n < 0) return ErrnoName(errno);
  data.resize(std::min(static_cast<size_t>(n), room));
  return data;
}
short PollOne(const ScopedFd& s, short events) {
  pollfd p{s.get(), events, 0};
  EXPECT_OK(poll(&p, 1, 0));
  return p.revents;
}
int Ioctl(const ScopedFd& s, unsigned long command) {
  int value = -1;
  EXPECT_OK(ioctl(s.get(), command, &value));
  return value;
}

constexpr const char* NameOfType(int type) {
  return type == SOCK_STREAM ? "Stream" : type == SOCK_DGRAM ? "Dgram" : "Seqpacket";
}
std::string TypeName(const ::testing::TestParamInfo<int>& param) { return NameOfType(param.param); }

class UnixSocket : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Type, UnixSocket, ::testing::Values(SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET), TypeName);
// With connections.
class UnixConnected : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Type, UnixConnected, ::testing::Values(SOCK_STREAM, SOCK_SEQPACKET), TypeName);
// With messages.
class UnixPacket : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Type, UnixPacket, ::testing::Values(SOCK_DGRAM, SOCK_SEQPACKET), TypeName);

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
  ASSERT_OK(setrlimit(RLIMIT_NOFILE, &limit));
  EXPECT_ERRNO(socket(AF_UNIX, SOCK_STREAM, 0), EMFILE);
  int fds[2];
  EXPECT_ERRNO(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), EMFILE);
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

// Datagrams -----------------------------------------------------------------------------------------------------------

TEST(UnixDgram, SendtoReachesANameAndTellsTheSenders) {
  Address a = UniqueAbstract("a"), b = UniqueAbstract("b");
  ScopedFd receiver = Bound(SOCK_DGRAM, a), sender = Bound(SOCK_DGRAM, b), nameless = Socket(SOCK_DGRAM);
  ASSERT_RETURNS(sendto(sender.get(), "one", 3, 0, a.get(), a.length), 3);
  ASSERT_RETURNS(sendto(nameless.get(), "two", 3, 0, a.get(), a.length), 3);
  Address from;
  from.length = sizeof(from.un);
  char data[8];
  EXPECT_RETURNS(recvfrom(receiver.get(), data, 8, 0, reinterpret_cast<sockaddr*>(&from.un), &from.length), 3);
  EXPECT_EQ(from, b);
  from.length = sizeof(from.un);
  EXPECT_RETURNS(recvfrom(receiver.get(), data, 8, 0, reinterpret_cast<sockaddr*>(&from.un), &from.length), 3);
  EXPECT_EQ(from.length, 0u);
}

TEST(UnixDgram, ConnectSetsADefaultWhichUnspecClears) {
  Address a = UniqueAbstract("a"), b = UniqueAbstract("b");
  ScopedFd first = Bound(SOCK_DGRAM, a), second = Bound(SOCK_DGRAM, b), s = Socket(SOCK_DGRAM);
  EXPECT_ERRNO(Send(s, "x"), ENOTCONN);
  ASSERT_OK(Connect(s, a));
  EXPECT_RETURNS(Send(s, "1"), 1);
  ASSERT_OK(Connect(s, b));
  EXPECT_EQ(NameOf(s, getpeername), b);
  EXPECT_RETURNS(Send(s, "2"), 1);
  EXPECT_EQ(Recv(first), "1");
  EXPECT_EQ(Recv(second), "2");
  sockaddr none{};
  none.sa_family = AF_UNSPEC;
  ASSERT_OK(connect(s.get(), &none, sizeof(none)));
  EXPECT_ERRNO(Send(s, "x"), ENOTCONN);
}

TEST(UnixDgram, AConnectedReceiverRefusesOthers) {
  Address a = UniqueAbstract("a"), b = UniqueAbstract("b");
  ScopedFd receiver = Bound(SOCK_DGRAM, a), friendly = Bound(SOCK_DGRAM, b), stranger = Socket(SOCK_DGRAM);
  ASSERT_OK(Connect(receiver, b));
  EXPECT_ERRNO(sendto(stranger.get(), "x", 1, 0, a.get(), a.length), EPERM);
  EXPECT_ERRNO(Connect(stranger, a), EPERM);
  EXPECT_RETURNS(sendto(friendly.get(), "x", 1, 0, a.get(), a.length), 1);
}

TEST(UnixDgram, SendErrors) {
  TempDir dir;
  dir.File("file");
  ScopedFd s = Socket(SOCK_DGRAM);
  auto sendto_name = [&](const Address& a) { return sendto(s.get(), "x", 1, 0, a.get(), a.length); };
  EXPECT_ERRNO(sendto_name(At(dir / "none")), ENOENT);
  EXPECT_ERRNO(sendto_name(At(dir / "file")), ECONNREFUSED);
  EXPECT_ERRNO(sendto_name(UniqueAbstract()), ECONNREFUSED);
  ScopedFd stream = Listener(SOCK_STREAM, At(dir / "stream"));
  EXPECT_ERRNO(sendto_name(At(dir / "stream")), EPROTOTYPE);
  Address a = UniqueAbstract();
  EXPECT_ERRNO(sendto(s.get(), "x", 1, 0, a.get(), sizeof(sockaddr_un) + 1), EINVAL);
  EXPECT_ERRNO(sendto(s.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(8), a.length), EFAULT);
  ScopedFd receiver = Bound(SOCK_DGRAM, a);
  EXPECT_ERRNO(sendto(s.get(), reinterpret_cast<void*>(8), 1, 0, a.get(), a.length), EFAULT);
  EXPECT_ERRNO(sendto(s.get(), "x", 1, MSG_OOB, a.get(), a.length), EOPNOTSUPP);
  ASSERT_OK(Connect(s, a));
  receiver.reset();
  EXPECT_ERRNO(Send(s, "x"), ECONNREFUSED);
  EXPECT_ERRNO(Send(s, "x"), ENOTCONN);
}

TEST(UnixDgram, SendtoNeedsWriteAccessToTheNode) {
  TempDir dir;
  Address a = At(dir / "s");
  ScopedFd receiver = Bound(SOCK_DGRAM, a);
  ASSERT_OK(chmod((dir / "s").c_str(), 0755));
  EXPECT_EQ(RunAsNobody([&] { EXPECT_ERRNO(sendto(Socket(SOCK_DGRAM).get(), "x", 1, 0, a.get(), a.length), EACCES); }),
            0);
}

TEST(UnixDgram, AFullReceiverBlocksItsSenders) {
  Address a = UniqueAbstract();
  ScopedFd receiver = Bound(SOCK_DGRAM, a), s = Socket(SOCK_DGRAM);
  ASSERT_OK(Connect(s, a));
  int sent = 0;
  while (sent < 100000 && Send(s, "x", MSG_DONTWAIT) == 1) sent++;
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_GE(sent, 10);
  EXPECT_EQ(PollOne(s, POLLOUT), 0);
  SetTimeout(s, SO_SNDTIMEO, 20);
  EXPECT_ERRNO(Send(s, "x"), EAGAIN);
  SetTimeout(s, SO_SNDTIMEO, 0);
  std::thread reader([&] {
    SleepMs(20);
    for (int i = 0; i < sent; i++) Recv(receiver, MSG_DONTWAIT);
  });
  EXPECT_RETURNS(Send(s, "y"), 1);
  reader.join();
  EXPECT_EQ(PollOne(s, POLLOUT), POLLOUT);
}

TEST_P(UnixPacket, BoundariesArePreserved) {
  Pair p(GetParam());
  ASSERT_RETURNS(Send(p.a, "one"), 3);
  ASSERT_RETURNS(Send(p.a, ""), 0);
  ASSERT_RETURNS(Send(p.a, "three"), 5);
  EXPECT_EQ(Ioctl(p.b, FIONREAD), GetParam() == SOCK_DGRAM ? 3 : 8);
  EXPECT_EQ(Recv(p.b), "one");
  EXPECT_EQ(Recv(p.b), "");
  EXPECT_EQ(Recv(p.b), "three");
}

TEST_P(UnixPacket, WhatDoesNotFitIsLost) {
  Pair p(GetParam());
  ASSERT_RETURNS(Send(p.a, "abcdef"), 6);
  ASSERT_RETURNS(Send(p.a, "ghi"), 3);
  char data[4];
  iovec v{data, 4};
  msghdr m{};
  m.msg_iov = &v;
  m.msg_iovlen = 1;
  EXPECT_RETURNS(recvmsg(p.b.get(), &m, 0), 4);
  EXPECT_EQ(m.msg_flags & MSG_TRUNC, MSG_TRUNC);
  EXPECT_EQ(Recv(p.b), "ghi");
}

TEST_P(UnixPacket, MsgTruncReturnsTheRealLength) {
  Pair p(GetParam());
  ASSERT_RETURNS(Send(p.a, "abcdef"), 6);
  char data[2];
  EXPECT_RETURNS(recv(p.b.get(), data, 2, MSG_TRUNC | MSG_PEEK), 6);
  EXPECT_RETURNS(recv(p.b.get(), data, 2, MSG_TRUNC), 6);
  EXPECT_EQ(Recv(p.b, MSG_DONTWAIT), "EAGAIN");
}

TEST_P(UnixPacket, TooLongForTheBufferFailsWithEmsgsize) {
  Pair p(GetParam());
  std::string big(static_cast<size_t>(GetOption(p.a, SO_SNDBUF)), 'x');
  EXPECT_ERRNO(Send(p.a, big), EMSGSIZE);
}

TEST_P(UnixPacket, PacketsOf64KilobytesPass) {
  Pair p(GetParam());
  std::string data(65536, 'd');
  ASSERT_RETURNS(Send(p.a, data), 65536);
  EXPECT_EQ(Recv(p.b, 0, 100000), data);
}

TEST(UnixSeqpacket, AddressesOfSendtoAreIgnoredOnceConnected) {
  Pair p(SOCK_SEQPACKET);
  Address a = UniqueAbstract();
  EXPECT_RETURNS(sendto(p.a.get(), "x", 1, 0, a.get(), a.length), 1);
  EXPECT_EQ(Recv(p.b), "x");
}

// Streams -------------------------------------------------------------------------------------------------------------

TEST(UnixStream, BytesJoinAndSplit) {
  Pair p(SOCK_STREAM);
  ASSERT_RETURNS(Send(p.a, "abc"), 3);
  ASSERT_RETURNS(Send(p.a, "defgh"), 5);
  EXPECT_EQ(Ioctl(p.b, FIONREAD), 8);
  EXPECT_GT(Ioctl(p.a, SIOCOUTQ), 0);
  EXPECT_EQ(Recv(p.b, 0, 4), "abcd");
  EXPECT_EQ(Recv(p.b, 0, 2), "ef");
  EXPECT_EQ(Recv(p.b), "gh");
  EXPECT_EQ(Ioctl(p.a, SIOCOUTQ), 0);
}

TEST(UnixStream, WaitallWaitsForAll) {
  Pair p(SOCK_STREAM);
  std::thread writer([&] {
    Send(p.a, "abc");
    SleepMs(20);
    Send(p.a, "def");
  });
  EXPECT_EQ(Recv(p.b, MSG_WAITALL, 6), "abcdef");
  writer.join();
  Send(p.a, "gh");
  p.a.reset();
  EXPECT_EQ(Recv(p.b, MSG_WAITALL, 6), "gh");
}

TEST(UnixStream, LargeWritesWaitForTheReader) {
  Pair p(SOCK_STREAM);
  std::string data(1 << 20, '\0');
  for (size_t i = 0; i < data.size(); i++) data[i] = static_cast<char>(i * 7 + i / 251);
  std::thread writer([&] { EXPECT_RETURNS(Send(p.a, data), 1 << 20); });
  std::string got;
  while (got.size() < data.size()) {
    std::string piece = Recv(p.b, 0, 70000);
    ASSERT_FALSE(piece.empty());
    got += piece;
  }
  writer.join();
  EXPECT_TRUE(got == data);
}

TEST(UnixStream, AFullBufferFailsWithEagain) {
  Pair p(SOCK_STREAM);
  std::string block(4096, 'x');
  size_t sent = 0;
  while (sent < (64 << 20)) {
    ssize_t n = Send(p.a, block, MSG_DONTWAIT);
    if (n < 0) break;
    sent += static_cast<size_t>(n);
  }
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_GE(sent, 4096u);
  EXPECT_EQ(PollOne(p.a, POLLOUT), 0);
  SetTimeout(p.a, SO_SNDTIMEO, 20);
  EXPECT_ERRNO(Send(p.a, "x"), EAGAIN);
  while (sent > 0) sent -= Recv(p.b).size();
  EXPECT_EQ(PollOne(p.a, POLLOUT), POLLOUT);
}

TEST(UnixStream, ReadvAndWritevGather) {
  Pair p(SOCK_STREAM);
  char a[] = "abc", b[] = "de";
  iovec out[] = {{a, 3}, {b, 2}};
  EXPECT_RETURNS(writev(p.a.get(), out, 2), 5);
  char c[2], d[8];
  iovec in[] = {{c, 2}, {d, 8}};
  EXPECT_RETURNS(readv(p.b.get(), in, 2), 5);
  EXPECT_EQ(std::string_view(d, 3), "cde");
}

// All types -----------------------------------------------------------------------------------------------------------

TEST_P(UnixSocket, PeekLeavesTheData) {
  Pair p(GetParam());
  ASSERT_RETURNS(Send(p.a, "data"), 4);
  EXPECT_EQ(Recv(p.b, MSG_PEEK), "data");
  EXPECT_EQ(Recv(p.b, MSG_PEEK, 2), "da");
  EXPECT_EQ(Recv(p.b), "data");
}

TEST_P(UnixSocket, NothingToReceiveFailsWithEagain) {
  Pair p(GetParam());
  EXPECT_EQ(Recv(p.a, MSG_DONTWAIT), "EAGAIN");
  SetTimeout(p.a, SO_RCVTIMEO, 30);
  int64_t start = NowMs();
  EXPECT_EQ(Recv(p.a), "EAGAIN");
  EXPECT_GE(NowMs() - start, 25);
  char c;
  EXPECT_ERRNO(read(p.a.get(), &c, 1), EAGAIN);
  ASSERT_OK(fcntl(p.b.get(), F_SETFL, O_NONBLOCK));
  EXPECT_EQ(Recv(p.b), "EAGAIN");
  EXPECT_ERRNO(read(p.b.get(), &c, 1), EAGAIN);
}

TEST_P(UnixSocket, ReceivingWaitsForData) {
  Pair p(GetParam());
  std::thread sender([&] {
    SleepMs(20);
    Send(p.a, "late");
  });
  EXPECT_EQ(Recv(p.b), "late");
  sender.join();
}

TEST_P(UnixSocket, TransferErrors) {
  Pair p(GetParam());
  EXPECT_ERRNO(send(p.a.get(), reinterpret_cast<void*>(8), 1, 0), EFAULT);
  ASSERT_RETURNS(Send(p.a, "x"), 1);
  EXPECT_ERRNO(recv(p.b.get(), reinterpret_cast<void*>(8), 1, 0), EFAULT);
  EXPECT_ERRNO(syscall(SYS_sendmsg, p.a.get(), 8L, 0), EFAULT);
  EXPECT_ERRNO(syscall(SYS_recvmsg, p.a.get(), 8L, 0), EFAULT);
  msghdr m{};
  m.msg_iovlen = 1025;
  EXPECT_ERRNO(sendmsg(p.a.get(), &m, 0), EMSGSIZE);
  EXPECT_ERRNO(recvmsg(p.a.get(), &m, 0), EMSGSIZE);
}

TEST_P(UnixSocket, PollTellsWhatIsPossible) {
  Pair p(GetParam());
  EXPECT_EQ(PollOne(p.a, POLLIN | POLLOUT | POLLRDHUP), POLLOUT);
  ASSERT_RETURNS(Send(p.b, "x"), 1);
  EXPECT_EQ(PollOne(p.a, POLLIN | POLLOUT | POLLRDHUP), POLLIN | POLLOUT);
}

volatile sig_atomic_t handled;
void HandleAlarm(int flags) {
  handled = 0;
  struct sigaction sa{};
  sa.sa_handler = [](int) { handled = handled + 1; };
  sa.sa_flags = flags;
  ASSERT_OK(sigaction(SIGALRM, &sa, nullptr));
}

TEST_P(UnixSocket, SignalsInterruptReceiving) {
  Pair p(GetParam());
  HandleAlarm(0);
  itimerval t{{0, 0}, {0, 20000}};
  ASSERT_OK(setitimer(ITIMER_REAL, &t, nullptr));
  EXPECT_EQ(Recv(p.a), "EINTR");
}

TEST_P(UnixSocket, SaRestartGoesOnReceivingUnlessTimed) {
  Pair p(GetParam());
  HandleAlarm(SA_RESTART);
  std::thread sender([&] {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    while (handled == 0) SleepMs(1);
    SleepMs(10);
    Send(p.b, "x");
  });
  itimerval t{{0, 0}, {0, 40000}};
  ASSERT_OK(setitimer(ITIMER_REAL, &t, nullptr));
  EXPECT_EQ(Recv(p.a), "x");
  sender.join();
  SetTimeout(p.a, SO_RCVTIMEO, 10000);
  ASSERT_OK(setitimer(ITIMER_REAL, &t, nullptr));
  EXPECT_EQ(Recv(p.a), "EINTR");
}

// The end of it -------------------------------------------------------------------------------------------------------

TEST_P(UnixConnected, CloseIsTheEndOfFile) {
  Pair p(GetParam());
  ASSERT_RETURNS(Send(p.a, "last"), 4);
  p.a.reset();
  EXPECT_EQ(PollOne(p.b, POLLIN | POLLOUT | POLLRDHUP), POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
  EXPECT_EQ(Recv(p.b), "last");
  EXPECT_EQ(Recv(p.b), "");
  EXPECT_EQ(Recv(p.b), "");
}

TEST_P(UnixConnected, ClosingWithUnreadDataResetsThePeer) {
  Pair p(GetParam());
  ASSERT_RETURNS(Send(p.a, "unread"), 6);
  p.b.reset();
  EXPECT_EQ(GetOption(p.a, SO_ERROR), ECONNRESET);
  EXPECT_EQ(GetOption(p.a, SO_ERROR), 0);
  EXPECT_EQ(Recv(p.a), "");
}

TEST_P(UnixConnected, SendingToAClosedPeerFailsWithEpipe) {
  Pair p(GetParam());
  p.b.reset();
  signal(SIGPIPE, SIG_IGN);
  EXPECT_ERRNO(Send(p.a, "x"), EPIPE);
  EXPECT_ERRNO(write(p.a.get(), "x", 1), EPIPE);
}

TEST_P(UnixSocket, OnlyStreamsRaiseSigpipe) {
  for (bool write_call : {false, true}) {
    int status = RunChild([&] {
      Pair p(GetParam());
      EXPECT_OK(shutdown(p.a.get(), SHUT_WR));
      EXPECT_ERRNO(Send(p.a, "x", MSG_NOSIGNAL), EPIPE);
      if (write_call) {
        EXPECT_ERRNO(write(p.a.get(), "x", 1), EPIPE);
      } else {
        EXPECT_ERRNO(Send(p.a, "x"), EPIPE);
      }
      return 0;
    });
    if (GetParam() == SOCK_STREAM) {
      EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE) << status;
    } else {
      EXPECT_EQ(status, 0);
    }
  }
}

TEST_P(UnixConnected, ShutdownOfWritingIsThePeersEndOfFile) {
  Pair p(GetParam());
  ASSERT_RETURNS(Send(p.a, "last"), 4);
  ASSERT_OK(shutdown(p.a.get(), SHUT_WR));
  EXPECT_ERRNO(Send(p.a, "x", MSG_NOSIGNAL), EPIPE);
  EXPECT_EQ(PollOne(p.b, POLLIN | POLLRDHUP), POLLIN | POLLRDHUP);
  EXPECT_EQ(Recv(p.b), "last");
  EXPECT_EQ(Recv(p.b), "");
  // The other way is open.
  EXPECT_RETURNS(Send(p.b, "back"), 4);
  EXPECT_EQ(Recv(p.a), "back");
}

TEST_P(UnixConnected, ShutdownOfReadingStopsThePeer) {
  Pair p(GetParam());
  ASSERT_OK(shutdown(p.a.get(), SHUT_RD));
  EXPECT_EQ(Recv(p.a), "");
  EXPECT_ERRNO(Send(p.b, "x", MSG_NOSIGNAL), EPIPE);
  EXPECT_RETURNS(Send(p.a, "x"), 1);
  EXPECT_EQ(Recv(p.b), "x");
}

TEST_P(UnixConnected, ShutdownOfBothHangsUp) {
  Pair p(GetParam());
  ASSERT_OK(shutdown(p.a.get(), SHUT_RDWR));
  EXPECT_EQ(PollOne(p.a, POLLIN | POLLRDHUP), POLLIN | POLLRDHUP | POLLHUP);
  EXPECT_EQ(PollOne(p.b, POLLIN | POLLRDHUP), POLLIN | POLLRDHUP | POLLHUP);
  EXPECT_EQ(Recv(p.b), "");
}

TEST_P(UnixConnected, ShutdownWakesAReceiver) {
  Pair p(GetParam());
  std::thread ender([&] {
    SleepMs(20);
    shutdown(p.a.get(), SHUT_RD);
  });
  EXPECT_EQ(Recv(p.a), "");
  ender.join();
}

TEST(UnixShutdown, UnknownWaysFailWithEinval) {
  Pair p(SOCK_STREAM);
  EXPECT_ERRNO(shutdown(p.a.get(), 3), EINVAL);
  EXPECT_ERRNO(shutdown(p.a.get(), -1), EINVAL);
}

TEST_P(UnixConnected, ShutdownOfAListenerRefusesClients) {
  Address a = UniqueAbstract();
  ScopedFd listener = Listener(GetParam(), a);
  ASSERT_OK(shutdown(listener.get(), SHUT_RDWR));
  EXPECT_ERRNO(Connect(Socket(GetParam()), a), ECONNREFUSED);
  EXPECT_ERRNO(accept(listener.get(), nullptr, nullptr), EINVAL);
}

// Ancillary data ------------------------------------------------------------------------------------------------------

struct Control {
  int level = 0, type = 0;
  std::string data;
};

ssize_t SendWith(const ScopedFd& s, std::string_view data, const std::vector<Control>& control, int flags = 0) {
  std::vector<char> buffer;
  for (const Control& c : control) {
    size_t at = buffer.size();
    buffer.resize(at + CMSG_SPACE(c.data.size()));
    cmsghdr header{.cmsg_len = CMSG_LEN(c.data.size()), .cmsg_level = c.level, .cmsg_type = c.type};
    std::memcpy(buffer.data() + at, &header, sizeof(header));
    std::memcpy(buffer.data() + at + sizeof(header), c.data.data(), c.data.size());
  }
  iovec v{const_cast<char*>(data.data()), data.size()};
  msghdr m{};
  m.msg_iov = &v;
  m.msg_iovlen = 1;
  m.msg_control = buffer.empty() ? nullptr : buffer.data();
  m.msg_controllen = buffer.size();
  return sendmsg(s.get(), &m, flags);
}

struct Received {
  ssize_t n = -1;
  int error = 0;
  std::string data;
  int flags = 0;
  std::vector<Control> control;
  // Those of all SCM_RIGHTS; the test's to close.
  std::vector<int> fds() const {
    std::vector<int> all;
    for (const Control& c : control) {
      if (c.level != SOL_SOCKET || c.type != SCM_RIGHTS) continue;
      size_t at = all.size();
      all.resize(at + c.data.size() / sizeof(int));
      std::memcpy(all.data() + at, c.data.data(), c.data.size());
    }
    return all;
  }
  std::vector<ucred> creds() const {
    std::vector<ucred> all;
    for (const Control& c : control) {
      if (c.level != SOL_SOCKET || c.type != SCM_CREDENTIALS || c.data.size() != sizeof(ucred)) continue;
      std::memcpy(&all.emplace_back(), c.data.data(), sizeof(ucred));
    }
    return all;
  }
};

Received RecvWith(const ScopedFd& s, int flags = 0, size_t control_room = 4096, size_t room = 4096) {
  Received r;
  std::vector<char> buffer(control_room);
  r.data.resize(room);
  iovec v{r.data.data(), room};
  msghdr m{};
  m.msg_iov = &v;
  m.msg_iovlen = 1;
  m.msg_control = control_room > 0 ? buffer.data() : nullptr;
  m.msg_controllen = control_room;
  r.n = recvmsg(s.get(), &m, flags);
  if (r.n < 0) {
    r.error = errno;
    return r;
  }
  r.data.resize(static_cast<size_t>(r.n));
  r.flags = m.msg_flags;
  for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr; c = CMSG_NXTHDR(&m, c)) {
    r.control.push_back(
        {c->cmsg_level, c->cmsg_type, std::string(reinterpret_cast<char*>(CMSG_DATA(c)), c->cmsg_len - CMSG_LEN(0))});
  }
  return r;
}

Control Rights(std::initializer_list<int> fds) {
  return {SOL_SOCKET, SCM_RIGHTS, std::string(reinterpret_cast<const char*>(std::data(fds)), fds.size() * sizeof(int))};
}
Control Credentials(pid_t pid, uid_t uid, gid_t gid) {
  ucred c{pid, uid, gid};
  return {SOL_SOCKET, SCM_CREDENTIALS, std::string(reinterpret_cast<char*>(&c), sizeof(c))};
}

TEST_P(UnixSocket, RightsPassOpenFiles) {
  TempDir dir;
  ScopedFd file = dir.Open("f", "0123456789");
  Pair p(GetParam());
  ASSERT_RETURNS(SendWith(p.a, "x", {Rights({file.get()})}), 1);
  ASSERT_OK(lseek(file.get(), 4, SEEK_SET));
  file.reset();
  Received r = RecvWith(p.b);
  EXPECT_EQ(r.data, "x");
  EXPECT_EQ(r.flags & MSG_CTRUNC, 0);
  ASSERT_EQ(r.fds().size(), 1u);
  ScopedFd got(r.fds()[0]);
  char c[2];
  EXPECT_RETURNS(read(got.get(), c, 2), 2);  // the description is the same, so is the offset
  EXPECT_EQ(std::string_view(c, 2), "45");
  EXPECT_RETURNS(fcntl(got.get(), F_GETFD), 0);
}

TEST_P(UnixSocket, RightsOfTwoPartsAndManyFilesArriveTogether) {
  Pair p(GetParam());
  ASSERT_RETURNS(SendWith(p.a, "x", {Rights({0, 1}), Rights({2})}), 1);
  Received r = RecvWith(p.b);
  EXPECT_EQ(r.control.size(), 1u);
  EXPECT_EQ(r.fds().size(), 3u);
}

TEST_P(UnixSocket, CmsgCloexecIsApplied) {
  Pair p(GetParam());
  ASSERT_RETURNS(SendWith(p.a, "x", {Rights({0})}), 1);
  Received r = RecvWith(p.b, MSG_CMSG_CLOEXEC);
  ASSERT_EQ(r.fds().size(), 1u);
  EXPECT_RETURNS(fcntl(r.fds()[0], F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(r.flags & MSG_CMSG_CLOEXEC, MSG_CMSG_CLOEXEC);
}

TEST_P(UnixSocket, RightsReachOtherProcesses) {
  Pair p(GetParam());
  int pipe_fds[2];
  ASSERT_OK(pipe(pipe_fds));
  EXPECT_EQ(RunChild([&] {
              int mine[2];
              EXPECT_OK(pipe(mine));
              EXPECT_RETURNS(write(mine[1], "hello", 5), 5);
              EXPECT_RETURNS(SendWith(p.a, "x", {Rights({mine[0]})}), 1);
              return 0;
            }),
            0);
  Received r = RecvWith(p.b);
  ASSERT_EQ(r.fds().size(), 1u);
  char data[8];
  EXPECT_RETURNS(read(r.fds()[0], data, 8), 5);
}

TEST_P(UnixSocket, TooLittleRoomCutsRights) {
  for (auto [room, count] : {std::pair{size_t{0}, size_t{0}},
                             {CMSG_LEN(0), size_t{0}},
                             {CMSG_LEN(4), size_t{1}},
                             {CMSG_SPACE(8), size_t{2}}}) {
    Pair p(GetParam());
    int pipe_fds[2];
    ASSERT_OK(pipe(pipe_fds));
    ASSERT_RETURNS(SendWith(p.a, "x", {Rights({pipe_fds[1], pipe_fds[1], pipe_fds[1]})}), 1);
    Received r = RecvWith(p.b, 0, room);
    EXPECT_EQ(r.flags & MSG_CTRUNC, MSG_CTRUNC) << room;
    ASSERT_EQ(r.fds().size(), count) << room;
    for (int fd : r.fds()) close(fd);
    // Those that did not fit are closed.
    close(pipe_fds[1]);
    char c;
    EXPECT_RETURNS(read(pipe_fds[0], &c, 1), 0);
  }
}

TEST_P(UnixSocket, PlainReadsDropRights) {
  Pair p(GetParam());
  int pipe_fds[2];
  ASSERT_OK(pipe(pipe_fds));
  ASSERT_RETURNS(SendWith(p.a, "x", {Rights({pipe_fds[1]})}), 1);
  close(pipe_fds[1]);
  char c;
  EXPECT_RETURNS(read(p.b.get(), &c, 1), 1);
  EXPECT_RETURNS(read(pipe_fds[0], &c, 1), 0);
}

TEST_P(UnixSocket, ClosingTheReceiverDropsRights) {
  Pair p(GetParam());
  int pipe_fds[2];
  ASSERT_OK(pipe(pipe_fds));
  ASSERT_RETURNS(SendWith(p.a, "x", {Rights({pipe_fds[1]})}), 1);
  close(pipe_fds[1]);
  p.b.reset();
  char c;
  EXPECT_RETURNS(read(pipe_fds[0], &c, 1), 0);
}

TEST_P(UnixSocket, ASocketSentIntoItselfIsCollected) {
  int pipe_fds[2];
  ASSERT_OK(pipe(pipe_fds));
  {
    Pair p(GetParam());
    ASSERT_RETURNS(SendWith(p.a, "x", {Rights({p.b.get(), p.a.get(), pipe_fds[1]})}), 1);
    close(pipe_fds[1]);
  }
  // Linux collects when a socket is closed, and lately from a work queue.
  Pair another(SOCK_STREAM);
  another.a.reset();
  pollfd poll_fd{pipe_fds[0], POLLIN, 0};
  EXPECT_RETURNS(poll(&poll_fd, 1, 5000), 1);
  char c;
  EXPECT_RETURNS(read(pipe_fds[0], &c, 1), 0);
}

TEST_P(UnixSocket, PeekDuplicatesRights) {
  Pair p(GetParam());
  ASSERT_RETURNS(SendWith(p.a, "x", {Rights({0})}), 1);
  EXPECT_EQ(RecvWith(p.b, MSG_PEEK).fds().size(), 1u);
  EXPECT_EQ(RecvWith(p.b).fds().size(), 1u);
}

TEST_P(UnixSocket, RightsErrors) {
  Pair p(GetParam());
  EXPECT_ERRNO(SendWith(p.a, "x", {Rights({-1})}), EBADF);
  EXPECT_ERRNO(SendWith(p.a, "x", {Rights({0, 1 << 20})}), EBADF);
  std::vector<int> many(254, 0);
  Control too_many{SOL_SOCKET, SCM_RIGHTS, std::string(reinterpret_cast<char*>(many.data()), many.size() * 4)};
  EXPECT_ERRNO(SendWith(p.a, "x", {too_many}), EINVAL);  // unix(7): SCM_MAX_FD
  EXPECT_ERRNO(SendWith(p.a, "x", {{SOL_SOCKET, 99, "data"}}), EINVAL);
  EXPECT_EQ(Recv(p.b, MSG_DONTWAIT), "EAGAIN");
}

TEST_P(UnixSocket, AsManyAs253FilesPass) {
  Pair p(GetParam());
  std::vector<int> many(253, 0);
  Control control{SOL_SOCKET, SCM_RIGHTS, std::string(reinterpret_cast<char*>(many.data()), many.size() * 4)};
  ASSERT_RETURNS(SendWith(p.a, "x", {control}), 1);
  EXPECT_EQ(RecvWith(p.b).fds().size(), 253u);
}

TEST_P(UnixSocket, ControlErrors) {
  Pair p(GetParam());
  msghdr m{};
  char data = 'x';
  iovec v{&data, 1};
  m.msg_iov = &v;
  m.msg_iovlen = 1;
  cmsghdr header{.cmsg_len = 4, .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
  m.msg_control = &header;
  m.msg_controllen = sizeof(header);
  EXPECT_ERRNO(sendmsg(p.a.get(), &m, 0), EINVAL);
  header.cmsg_len = 4096;
  EXPECT_ERRNO(sendmsg(p.a.get(), &m, 0), EINVAL);
  m.msg_control = reinterpret_cast<void*>(8);
  EXPECT_ERRNO(sendmsg(p.a.get(), &m, 0), EFAULT);
  m.msg_controllen = size_t{1} << 31;
  EXPECT_ERRNO(sendmsg(p.a.get(), &m, 0), ENOBUFS);
}

TEST_P(UnixSocket, AReceiverOutOfDescriptorsGetsWhatItHasRoomFor) {
  Pair p(GetParam());
  ASSERT_RETURNS(SendWith(p.a, "x", {Rights({0, 0, 0})}), 1);
  int next = dup(0);
  close(next);
  rlimit limit{static_cast<rlim_t>(next) + 1, static_cast<rlim_t>(next) + 1};
  ASSERT_OK(setrlimit(RLIMIT_NOFILE, &limit));
  Received r = RecvWith(p.b);
  EXPECT_EQ(r.data, "x");
  EXPECT_EQ(r.fds().size(), 1u);
  EXPECT_EQ(r.flags & MSG_CTRUNC, MSG_CTRUNC);
}

TEST(UnixStream, RightsEndWhatOneCallReceives) {
  Pair p(SOCK_STREAM);
  ASSERT_RETURNS(Send(p.a, "ab"), 2);
  ASSERT_RETURNS(SendWith(p.a, "cd", {Rights({0})}), 2);
  ASSERT_RETURNS(Send(p.a, "ef"), 2);
  Received r = RecvWith(p.b);
  EXPECT_EQ(r.data, "abcd");
  EXPECT_EQ(r.fds().size(), 1u);
  EXPECT_EQ(Recv(p.b), "ef");
}

TEST_P(UnixSocket, PasscredDeliversTheSender) {
  Pair p(GetParam());
  SetOption(p.b, SO_PASSCRED, 1);
  EXPECT_EQ(GetOption(p.b, SO_PASSCRED), 1);
  pid_t child = Spawn([&] {
    EXPECT_RETURNS(Send(p.a, "x"), 1);
    return 0;
  });
  EXPECT_EQ(WaitFor(child), 0);
  Received r = RecvWith(p.b);
  ASSERT_EQ(r.creds().size(), 1u);
  EXPECT_EQ(r.creds()[0].pid, child);
  EXPECT_EQ(r.creds()[0].uid, getuid());
  EXPECT_EQ(r.creds()[0].gid, getgid());
}

TEST_P(UnixSocket, WithoutPasscredThereAreNone) {
  Pair p(GetParam());
  ASSERT_RETURNS(SendWith(p.a, "x", {Credentials(getpid(), getuid(), getgid())}), 1);
  EXPECT_TRUE(RecvWith(p.b).control.empty());
}

TEST_P(UnixSocket, TheSuperuserMayNameOthersAsSender) {
  Pair p(GetParam());
  SetOption(p.b, SO_PASSCRED, 1);
  pid_t parent = getppid();
  ASSERT_RETURNS(SendWith(p.a, "x", {Credentials(parent, 5, 6)}), 1);
  Received r = RecvWith(p.b);
  ASSERT_EQ(r.creds().size(), 1u);
  EXPECT_EQ(r.creds()[0].pid, parent);
  EXPECT_EQ(r.creds()[0].uid, 5u);
  EXPECT_EQ(r.creds()[0].gid, 6u);
}

TEST_P(UnixSocket, CredentialsThatAreNotOnesOwnFailWithEperm) {
  Pair p(GetParam());
  EXPECT_EQ(RunAsNobody([&] {
              EXPECT_RETURNS(SendWith(p.a, "x", {Credentials(getpid(), kNobody, kNobody)}), 1);
              EXPECT_ERRNO(SendWith(p.a, "x", {Credentials(getppid(), kNobody, kNobody)}), EPERM);
              EXPECT_ERRNO(SendWith(p.a, "x", {Credentials(getpid(), 0, kNobody)}), EPERM);
              EXPECT_ERRNO(SendWith(p.a, "x", {Credentials(getpid(), kNobody, 0)}), EPERM);
            }),
            0);
  Control cut = Credentials(getpid(), 0, 0);
  cut.data.resize(8);
  EXPECT_ERRNO(SendWith(p.a, "x", {cut}), EINVAL);
}

TEST(UnixStream, BytesOfDifferentSendersDoNotMixWithPasscred) {
  Pair p(SOCK_STREAM);
  SetOption(p.b, SO_PASSCRED, 1);
  ASSERT_RETURNS(Send(p.a, "ab"), 2);
  EXPECT_EQ(RunAsNobody([&] { EXPECT_RETURNS(Send(p.a, "cd"), 2); }), 0);
  Received r = RecvWith(p.b);
  EXPECT_EQ(r.data, "ab");
  r = RecvWith(p.b);
  EXPECT_EQ(r.data, "cd");
  ASSERT_EQ(r.creds().size(), 1u);
  EXPECT_EQ(r.creds()[0].uid, kNobody);
}

TEST_P(UnixSocket, PeercredOfAPairIsTheMaker) {
  Pair p(GetParam());
  ucred c{};
  socklen_t length = sizeof(c);
  ASSERT_OK(getsockopt(p.a.get(), SOL_SOCKET, SO_PEERCRED, &c, &length));
  EXPECT_EQ(length, sizeof(c));
  EXPECT_EQ(c.pid, getpid());
  EXPECT_EQ(c.uid, getuid());
  EXPECT_EQ(c.gid, getgid());
}

TEST_P(UnixConnected, PeercredIsOfConnectAndListen) {
  Address a = UniqueAbstract();
  ScopedFd listener = Listener(GetParam(), a);
  pid_t parent = getpid();
  int ready[2];
  ASSERT_OK(pipe(ready));
  pid_t child = Spawn([&] {
    ScopedFd client = Socket(GetParam());  // made as root
    EXPECT_OK(setresgid(kNobody, kNobody, kNobody));
    EXPECT_OK(setresuid(kNobody, kNobody, kNobody));
    EXPECT_OK(Connect(client, a));
    ucred c{};
    socklen_t length = sizeof(c);
    EXPECT_OK(getsockopt(client.get(), SOL_SOCKET, SO_PEERCRED, &c, &length));
    EXPECT_EQ(c.pid, parent);
    EXPECT_EQ(c.uid, 0u);
    char byte;
    close(ready[1]);
    EXPECT_RETURNS(read(ready[0], &byte, 1), 0);
    return 0;
  });
  ScopedFd server = Accept(listener);
  ucred c{};
  socklen_t length = sizeof(c);
  ASSERT_OK(getsockopt(server.get(), SOL_SOCKET, SO_PEERCRED, &c, &length));
  EXPECT_EQ(c.pid, child);
  EXPECT_EQ(c.uid, kNobody);
  EXPECT_EQ(c.gid, kNobody);
  close(ready[1]);
  EXPECT_EQ(WaitFor(child), 0);
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

// Many at once --------------------------------------------------------------------------------------------------------

TEST_P(UnixPacket, ManyMessagesInOneCall) {
  Pair p(GetParam());
  char out[3][2] = {"a", "b", "c"};
  iovec v[3];
  mmsghdr m[3]{};
  for (int i = 0; i < 3; i++) {
    v[i] = {out[i], 1};
    m[i].msg_hdr.msg_iov = &v[i];
    m[i].msg_hdr.msg_iovlen = 1;
  }
  EXPECT_RETURNS(sendmmsg(p.a.get(), m, 3, 0), 3);
  EXPECT_EQ(m[2].msg_len, 1u);
  char in[3][8];
  for (int i = 0; i < 3; i++) v[i] = {in[i], 8};
  EXPECT_RETURNS(recvmmsg(p.b.get(), m, 2, 0, nullptr), 2);
  EXPECT_EQ(in[1][0], 'b');
  // The third, and what is there is all there is.
  EXPECT_RETURNS(recvmmsg(p.b.get(), m, 3, MSG_WAITFORONE, nullptr), 1);
  EXPECT_EQ(in[0][0], 'c');
  EXPECT_ERRNO(recvmmsg(p.b.get(), m, 3, MSG_DONTWAIT, nullptr), EAGAIN);
  timespec bad{0, -1};
  EXPECT_ERRNO(recvmmsg(p.b.get(), m, 3, 0, &bad), EINVAL);
}

}  // namespace
}  // namespace redoubt::testing
