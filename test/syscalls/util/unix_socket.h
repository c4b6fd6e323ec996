// AF_UNIX sockets in few words: addresses, pairs, sending and receiving.
#ifndef REDOUBT_TEST_SYSCALLS_UTIL_UNIX_SOCKET_H_
#define REDOUBT_TEST_SYSCALLS_UTIL_UNIX_SOCKET_H_

#include <poll.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>

#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"

namespace redoubt::testing {

struct Address {
  sockaddr_un un{};
  socklen_t length = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&un); }
};
// A path with its NUL, or an abstract name, which starts with one.
inline Address At(std::string_view name) {
  Address a;
  a.un.sun_family = AF_UNIX;
  EXPECT_LE(name.size(), sizeof(a.un.sun_path));
  std::memcpy(a.un.sun_path, name.data(), name.size());
  const bool is_path = !name.empty() && name[0] != '\0' && name.size() < sizeof(a.un.sun_path);
  a.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size() + (is_path ? 1 : 0));
  return a;
}
// No other test's, nor any other run's.
inline Address UniqueAbstract(std::string_view suffix = "") {
  return At(std::string(1, '\0') + "unix_socket_test." + std::to_string(getpid()) + std::string(suffix));
}
inline int Bind(const ScopedFd& s, const Address& a) { return bind(s.get(), a.get(), a.length); }
inline int Connect(const ScopedFd& s, const Address& a) { return connect(s.get(), a.get(), a.length); }

inline Address NameOf(const ScopedFd& s, int (*get)(int, sockaddr*, socklen_t*) = getsockname) {
  Address a;
  a.length = sizeof(a.un);
  EXPECT_OK(get(s.get(), reinterpret_cast<sockaddr*>(&a.un), &a.length));
  return a;
}
inline bool operator==(const Address& a, const Address& b) {
  return a.length == b.length && std::memcmp(&a.un, &b.un, a.length) == 0;
}
inline constexpr socklen_t kNoName = sizeof(sa_family_t);

inline ScopedFd Socket(int type) {
  ScopedFd s(socket(AF_UNIX, type, 0));
  EXPECT_OK(s.get());
  return s;
}
inline ScopedFd Bound(int type, const Address& a) {
  ScopedFd s = Socket(type);
  EXPECT_OK(Bind(s, a));
  return s;
}
inline ScopedFd Listener(int type, const Address& a, int backlog = 5) {
  ScopedFd s = Bound(type, a);
  EXPECT_OK(listen(s.get(), backlog));
  return s;
}
inline ScopedFd Accept(const ScopedFd& listener) {
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

inline void SetOption(const ScopedFd& s, int name, int value) {
  EXPECT_OK(setsockopt(s.get(), SOL_SOCKET, name, &value, sizeof(value)));
}
inline int GetOption(const ScopedFd& s, int name) {
  int value = -1;
  socklen_t length = sizeof(value);
  EXPECT_OK(getsockopt(s.get(), SOL_SOCKET, name, &value, &length));
  EXPECT_EQ(length, sizeof(value));
  return value;
}
inline void SetTimeout(const ScopedFd& s, int name, int ms) {
  timeval t{ms / 1000, ms % 1000 * 1000};
  EXPECT_OK(setsockopt(s.get(), SOL_SOCKET, name, &t, sizeof(t)));
}
inline ssize_t Send(const ScopedFd& s, std::string_view data, int flags = 0) {
  return send(s.get(), data.data(), data.size(), flags);
}
// What one recv returns, or the errno's name.
inline std::string Recv(const ScopedFd& s, int flags = 0, size_t room = 4096) {
  std::string data(room, '?');
  ssize_t n = recv(s.get(), data.data(), room, flags);
  if (n < 0) return ErrnoName(errno);
  data.resize(std::min(static_cast<size_t>(n), room));
  return data;
}
inline short PollOne(const ScopedFd& s, short events) {
  pollfd p{s.get(), events, 0};
  EXPECT_OK(poll(&p, 1, 0));
  return p.revents;
}
inline int Ioctl(const ScopedFd& s, unsigned long command) {
  int value = -1;
  EXPECT_OK(ioctl(s.get(), command, &value));
  return value;
}

// The parameter of suites that run for each kind of socket, and its name.
inline constexpr const char* NameOfType(int type) {
  return type == SOCK_STREAM ? "Stream" : type == SOCK_DGRAM ? "Dgram" : "Seqpacket";
}
inline std::string TypeName(const ::testing::TestParamInfo<int>& param) { return NameOfType(param.param); }

}  // namespace redoubt::testing

#endif  // REDOUBT_TEST_SYSCALLS_UTIL_UNIX_SOCKET_H_
