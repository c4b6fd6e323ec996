// IP_FREEBIND, IP_TRANSPARENT and their names in ipv6(7): addresses that this host does not have (ip(7)).
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>
#include <string>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/own_network.h"
#include "test/syscalls/util/scoped_fd.h"

namespace redoubt::testing {
namespace {

struct Kind {
  const char* name;
  int family, type;
};
constexpr Kind kKinds[] = {{"Tcp", AF_INET, SOCK_STREAM},  {"Udp", AF_INET, SOCK_DGRAM},
                           {"Raw", AF_INET, SOCK_RAW},     {"Tcp6", AF_INET6, SOCK_STREAM},
                           {"Udp6", AF_INET6, SOCK_DGRAM}, {"Raw6", AF_INET6, SOCK_RAW}};

struct Name {
  sockaddr_storage storage{};
  socklen_t length = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};
Name Of(int family, const char* address, uint16_t port) {
  Name n;
  n.storage.ss_family = static_cast<sa_family_t>(family);
  void* to;
  if (family == AF_INET) {
    auto* a = reinterpret_cast<sockaddr_in*>(&n.storage);
    a->sin_port = htons(port);
    to = &a->sin_addr;
    n.length = sizeof(*a);
  } else {
    auto* a = reinterpret_cast<sockaddr_in6*>(&n.storage);
    a->sin6_port = htons(port);
    to = &a->sin6_addr;
    n.length = sizeof(*a);
  }
  EXPECT_EQ(inet_pton(family, address, to), 1);
  return n;
}

class ForeignAddress : public ::testing::TestWithParam<Kind> {
 protected:
  static void SetUpTestSuite() { EnterOwnNetwork(); }
  bool v6() const { return GetParam().family == AF_INET6; }
  int level() const { return v6() ? IPPROTO_IPV6 : IPPROTO_IP; }
  int freebind() const { return v6() ? IPV6_FREEBIND : IP_FREEBIND; }
  int transparent() const { return v6() ? IPV6_TRANSPARENT : IP_TRANSPARENT; }
  ScopedFd New() const {
    ScopedFd s(socket(GetParam().family, GetParam().type, GetParam().type == SOCK_RAW ? IPPROTO_UDP : 0));
    EXPECT_OK(s.get());
    return s;
  }
  static int Set(const ScopedFd& s, int level, int name, int value) {
    return setsockopt(s.get(), level, name, &value, sizeof(value));
  }
  static int Get(const ScopedFd& s, int level, int name) {
    int value = -1;
    socklen_t length = sizeof(value);
    return getsockopt(s.get(), level, name, &value, &length) == 0 ? value : -errno;
  }
  Name foreign(uint16_t port = 0) const {
    return v6() ? Of(AF_INET6, "2001:db8::5", port) : Of(AF_INET, "203.0.113.5", port);
  }
  Name loopback(uint16_t port) const { return v6() ? Of(AF_INET6, "::1", port) : Of(AF_INET, "127.0.0.1", port); }
};
INSTANTIATE_TEST_SUITE_P(Of, ForeignAddress, ::testing::ValuesIn(kKinds),
                         [](const auto& i) { return std::string(i.param.name); });

TEST_P(ForeignAddress, OptionsAreSwitches) {
  ScopedFd s = New();
  for (int name : {freebind(), transparent()}) {
    EXPECT_EQ(Get(s, level(), name), 0);
    EXPECT_OK(Set(s, level(), name, 5));
    EXPECT_EQ(Get(s, level(), name), 1);
    EXPECT_OK(Set(s, level(), name, 0));
    EXPECT_EQ(Get(s, level(), name), 0);
    // One byte will do for ip(7)'s.
    const char byte = 1;
    EXPECT_EQ(setsockopt(s.get(), level(), name, &byte, sizeof(byte)), v6() ? -1 : 0);
    EXPECT_EQ(Get(s, level(), name), v6() ? 0 : 1);
    EXPECT_ERRNO(setsockopt(s.get(), level(), name, &byte, 0), EINVAL);
  }
}

TEST_P(ForeignAddress, OptionsOfTheOtherVersion) {
  ScopedFd s = New();
  if (!v6()) {
    EXPECT_ERRNO(Set(s, IPPROTO_IPV6, IPV6_FREEBIND, 1), ENOPROTOOPT);
    EXPECT_ERRNO(Set(s, IPPROTO_IPV6, IPV6_TRANSPARENT, 1), ENOPROTOOPT);
  } else if (GetParam().type == SOCK_RAW) {
    EXPECT_ERRNO(Set(s, IPPROTO_IP, IP_FREEBIND, 1), ENOPROTOOPT);
    EXPECT_ERRNO(Set(s, IPPROTO_IP, IP_TRANSPARENT, 1), ENOPROTOOPT);
  } else {
    // The same switch by another name.
    EXPECT_OK(Set(s, IPPROTO_IP, IP_FREEBIND, 1));
    EXPECT_OK(Set(s, IPPROTO_IP, IP_TRANSPARENT, 1));
    EXPECT_EQ(Get(s, IPPROTO_IPV6, IPV6_FREEBIND), 1);
    EXPECT_EQ(Get(s, IPPROTO_IPV6, IPV6_TRANSPARENT), 1);
  }
}

TEST_P(ForeignAddress, TransparencyIsForWhoManagesTheNetwork) {
  ScopedFd s = New();
  EXPECT_EQ(RunAsNobody([&] {
              EXPECT_OK(Set(s, level(), freebind(), 1));
              EXPECT_ERRNO(Set(s, level(), transparent(), 1), EPERM);
              EXPECT_OK(Set(s, level(), transparent(), 0));
            }),
            0);
}

TEST_P(ForeignAddress, IsNotToBeBoundWithout) {
  ScopedFd s = New();
  const Name name = foreign();
  EXPECT_ERRNO(bind(s.get(), name.get(), name.length), EADDRNOTAVAIL);
}

TEST_P(ForeignAddress, IsBoundWithEither) {
  for (int option : {freebind(), transparent()}) {
    ScopedFd s = New();
    const Name name = foreign();
    ASSERT_OK(Set(s, level(), option, 1));
    ASSERT_OK(bind(s.get(), name.get(), name.length));
    Name got;
    got.length = sizeof(got.storage);
    ASSERT_OK(getsockname(s.get(), reinterpret_cast<sockaddr*>(&got.storage), &got.length));
    ASSERT_EQ(got.length, name.length);
    const size_t at = v6() ? offsetof(sockaddr_in6, sin6_addr) : offsetof(sockaddr_in, sin_addr);
    EXPECT_EQ(std::memcmp(reinterpret_cast<const char*>(&got.storage) + at,
                          reinterpret_cast<const char*>(&name.storage) + at, v6() ? 16 : 4),
              0);
    if (GetParam().type == SOCK_STREAM) {
      EXPECT_OK(listen(s.get(), 1));
    }
  }
}

TEST_P(ForeignAddress, MappedIsOneOfIpv4) {
  if (!v6()) return;
  ScopedFd s = New();
  const Name name = Of(AF_INET6, "::ffff:203.0.113.5", 0);
  EXPECT_ERRNO(bind(s.get(), name.get(), name.length), EADDRNOTAVAIL);
  ASSERT_OK(Set(s, level(), freebind(), 1));
  if (GetParam().type == SOCK_RAW) {
    EXPECT_ERRNO(bind(s.get(), name.get(), name.length), EADDRNOTAVAIL);
  } else {
    EXPECT_OK(bind(s.get(), name.get(), name.length));
  }
}

// Whose packets may say that they are from there.
TEST_P(ForeignAddress, IsASourceOfIpv4OnlyIfTransparent) {
  if (GetParam().type == SOCK_STREAM && v6()) return;  // nobody would answer
  ScopedFd s = New();
  const Name name = foreign();
  ASSERT_OK(Set(s, level(), freebind(), 1));
  ASSERT_OK(bind(s.get(), name.get(), name.length));
  const Name to = loopback(9);
  if (!v6()) {
    EXPECT_ERRNO(connect(s.get(), to.get(), to.length), ENETUNREACH);
    if (GetParam().type == SOCK_STREAM) return;
    EXPECT_ERRNO(sendto(s.get(), "x", 1, 0, to.get(), to.length), ENETUNREACH);
    ASSERT_OK(Set(s, level(), transparent(), 1));
  }
  EXPECT_OK(connect(s.get(), to.get(), to.length));
  EXPECT_RETURNS(send(s.get(), "x", 1, 0), 1);
}

}  // namespace
}  // namespace redoubt::testing
