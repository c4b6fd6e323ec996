// Source-specific multicast: ip(7), RFC 3678.
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/own_network.h"
#include "test/syscalls/util/scoped_fd.h"

namespace redoubt::testing {
namespace {

constexpr const char* kGroup = "239.1.1.1";
constexpr const char* kGroup6 = "ff02::1:77";
// Two senders of this host.
constexpr const char* kFirst = "127.0.0.1";
constexpr const char* kSecond = "127.0.0.2";

in_addr Ip(const char* address) { return {inet_addr(address)}; }

class MulticastSource : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { EnterOwnNetwork(); }
  void SetUp() override {
    to_.reset(socket(AF_INET, SOCK_DGRAM, 0));
    name_.sin_family = AF_INET;
    socklen_t length = sizeof(name_);
    ASSERT_OK(bind(to_.get(), reinterpret_cast<sockaddr*>(&name_), length));
    ASSERT_OK(getsockname(to_.get(), reinterpret_cast<sockaddr*>(&name_), &length));
    name_.sin_addr = Ip(kGroup);
    lo_ = if_nametoindex("lo");
  }
  int Set(int name, const void* value, size_t length) {
    return setsockopt(to_.get(), IPPROTO_IP, name, value, static_cast<socklen_t>(length));
  }
  int Join() {
    const ip_mreq m{Ip(kGroup), Ip(kFirst)};
    return Set(IP_ADD_MEMBERSHIP, &m, sizeof(m));
  }
  int Source(int name, const char* source, const char* group = kGroup) {
    ip_mreq_source m{};
    m.imr_multiaddr = Ip(group);
    m.imr_interface = Ip(kFirst);
    m.imr_sourceaddr = Ip(source);
    return Set(name, &m, sizeof(m));
  }
  int GroupSource(int name, const char* source, int family = AF_INET) {
    group_source_req m{};
    m.gsr_interface = lo_;
    auto* group = reinterpret_cast<sockaddr_in*>(&m.gsr_group);
    group->sin_family = AF_INET;
    group->sin_addr = Ip(kGroup);
    auto* from = reinterpret_cast<sockaddr_in*>(&m.gsr_source);
    from->sin_family = static_cast<sa_family_t>(family);
    from->sin_addr = Ip(source);
    return Set(name, &m, sizeof(m));
  }
  // The option's value, by its struct; `extra` bytes more than its list takes.
  int Filter(uint32_t mode, const std::vector<const char*>& sources, int extra = 0) {
    std::vector<std::byte> bytes(offsetof(ip_msfilter, imsf_slist) + sources.size() * sizeof(in_addr));
    auto put = [&](size_t at, const auto& value) { std::memcpy(bytes.data() + at, &value, sizeof(value)); };
    put(offsetof(ip_msfilter, imsf_multiaddr), Ip(kGroup));
    put(offsetof(ip_msfilter, imsf_interface), Ip(kFirst));
    put(offsetof(ip_msfilter, imsf_fmode), mode);
    put(offsetof(ip_msfilter, imsf_numsrc), static_cast<uint32_t>(sources.size()));
    for (size_t i = 0; i < sources.size(); i++) put(offsetof(ip_msfilter, imsf_slist) + i * 4, Ip(sources[i]));
    bytes.resize(static_cast<size_t>(static_cast<int>(bytes.size()) + extra));
    return Set(IP_MSFILTER, bytes.data(), bytes.size());
  }
  struct Got {
    int error = 0;
    uint32_t mode = 0, count = 0;
    std::vector<std::string> sources;
  };
  Got GetFilter(uint32_t room) {
    std::vector<std::byte> bytes(offsetof(ip_msfilter, imsf_slist) + room * sizeof(in_addr));
    const in_addr group = Ip(kGroup), interface = Ip(kFirst);
    std::memcpy(bytes.data(), &group, 4);
    std::memcpy(bytes.data() + offsetof(ip_msfilter, imsf_interface), &interface, 4);
    std::memcpy(bytes.data() + offsetof(ip_msfilter, imsf_numsrc), &room, 4);
    auto length = static_cast<socklen_t>(bytes.size());
    if (getsockopt(to_.get(), IPPROTO_IP, IP_MSFILTER, bytes.data(), &length) != 0) return {.error = errno};
    Got got;
    std::memcpy(&got.mode, bytes.data() + offsetof(ip_msfilter, imsf_fmode), 4);
    std::memcpy(&got.count, bytes.data() + offsetof(ip_msfilter, imsf_numsrc), 4);
    for (size_t at = offsetof(ip_msfilter, imsf_slist); at + 4 <= length; at += 4) {
      in_addr source;
      std::memcpy(&source, bytes.data() + at, 4);
      got.sources.push_back(inet_ntoa(source));
    }
    return got;
  }
  // Which of the senders are heard.
  std::string Heard() {
    for (const char* source : {kFirst, kSecond}) {
      ScopedFd from(socket(AF_INET, SOCK_DGRAM, 0));
      sockaddr_in name{};
      name.sin_family = AF_INET;
      name.sin_addr = Ip(source);
      EXPECT_OK(bind(from.get(), reinterpret_cast<sockaddr*>(&name), sizeof(name)));
      const in_addr interface = Ip(kFirst);
      EXPECT_OK(setsockopt(from.get(), IPPROTO_IP, IP_MULTICAST_IF, &interface, sizeof(interface)));
      const char byte = source == kFirst ? '1' : '2';
      EXPECT_RETURNS(sendto(from.get(), &byte, 1, 0, reinterpret_cast<sockaddr*>(&name_), sizeof(name_)), 1);
    }
    std::string heard;
    char byte;
    while (recv(to_.get(), &byte, 1, MSG_DONTWAIT) == 1) heard += byte;
    return heard;
  }

  ScopedFd to_;
  sockaddr_in name_{};
  unsigned lo_ = 0;
};

TEST_F(MulticastSource, OnlySourcesThatWereAskedForAreHeard) {
  ASSERT_OK(Source(IP_ADD_SOURCE_MEMBERSHIP, kSecond));
  EXPECT_EQ(Heard(), "2");
  ASSERT_OK(Source(IP_ADD_SOURCE_MEMBERSHIP, kFirst));
  EXPECT_EQ(Heard(), "12");
  EXPECT_ERRNO(Source(IP_ADD_SOURCE_MEMBERSHIP, kFirst), EADDRNOTAVAIL);
  ASSERT_OK(Source(IP_DROP_SOURCE_MEMBERSHIP, kSecond));
  EXPECT_EQ(Heard(), "1");
  EXPECT_ERRNO(Source(IP_DROP_SOURCE_MEMBERSHIP, kSecond), EADDRNOTAVAIL);
  EXPECT_ERRNO(Source(IP_BLOCK_SOURCE, kSecond), EINVAL);
  EXPECT_ERRNO(Source(IP_UNBLOCK_SOURCE, kFirst), EINVAL);
  EXPECT_ERRNO(Join(), EADDRINUSE);
  // The last one leaves the group.
  ASSERT_OK(Source(IP_DROP_SOURCE_MEMBERSHIP, kFirst));
  EXPECT_EQ(GetFilter(1).error, EADDRNOTAVAIL);
}

TEST_F(MulticastSource, BlockedOnesAreNot) {
  EXPECT_ERRNO(Source(IP_BLOCK_SOURCE, kFirst), EINVAL);
  ASSERT_OK(Join());
  EXPECT_EQ(Heard(), "12");
  ASSERT_OK(Source(IP_BLOCK_SOURCE, kFirst));
  EXPECT_EQ(Heard(), "2");
  EXPECT_ERRNO(Source(IP_BLOCK_SOURCE, kFirst), EADDRNOTAVAIL);
  EXPECT_ERRNO(Source(IP_ADD_SOURCE_MEMBERSHIP, kSecond), EINVAL);
  EXPECT_ERRNO(Source(IP_UNBLOCK_SOURCE, kSecond), EADDRNOTAVAIL);
  ASSERT_OK(Source(IP_UNBLOCK_SOURCE, kFirst));
  EXPECT_EQ(Heard(), "12");
  // A list that there was stays one of that kind.
  EXPECT_ERRNO(Source(IP_ADD_SOURCE_MEMBERSHIP, kSecond), EINVAL);
  ASSERT_OK(Filter(MCAST_EXCLUDE, {}));
  ASSERT_OK(Source(IP_ADD_SOURCE_MEMBERSHIP, kSecond));
  EXPECT_EQ(Heard(), "2");
}

TEST_F(MulticastSource, RequestsAreChecked) {
  EXPECT_ERRNO(Source(IP_ADD_SOURCE_MEMBERSHIP, kFirst, "10.0.0.1"), EINVAL);
  EXPECT_ERRNO(Source(IP_BLOCK_SOURCE, kFirst, "10.0.0.1"), EINVAL);
  ip_mreq_source m{};
  m.imr_multiaddr = Ip(kGroup);
  m.imr_interface = Ip(kFirst);
  char long_one[sizeof(m) + 1] = {};
  std::memcpy(long_one, &m, sizeof(m));
  EXPECT_ERRNO(Set(IP_ADD_SOURCE_MEMBERSHIP, &m, sizeof(m) - 1), EINVAL);
  EXPECT_ERRNO(Set(IP_ADD_SOURCE_MEMBERSHIP, long_one, sizeof(long_one)), EINVAL);
  m.imr_interface = Ip("203.0.113.77");
  EXPECT_ERRNO(Set(IP_ADD_SOURCE_MEMBERSHIP, &m, sizeof(m)), ENODEV);
  int value;
  socklen_t length = sizeof(value);
  EXPECT_ERRNO(getsockopt(to_.get(), IPPROTO_IP, IP_BLOCK_SOURCE, &value, &length), ENOPROTOOPT);
}

TEST_F(MulticastSource, ListsAreShort) {
  for (int i = 0; i < 10; i++) {
    ASSERT_OK(Source(IP_ADD_SOURCE_MEMBERSHIP, ("10.0.0." + std::to_string(i + 1)).c_str()));
  }
  EXPECT_ERRNO(Source(IP_ADD_SOURCE_MEMBERSHIP, "10.0.0.11"), ENOBUFS);
  EXPECT_OK(Filter(MCAST_INCLUDE, std::vector<const char*>(10, kFirst)));
  EXPECT_ERRNO(Filter(MCAST_INCLUDE, std::vector<const char*>(11, kFirst)), ENOBUFS);
  EXPECT_EQ(Heard(), "1");
}

TEST_F(MulticastSource, AWholeFilterAtOnce) {
  EXPECT_ERRNO(Filter(MCAST_EXCLUDE, {kFirst}), EINVAL);
  ASSERT_OK(Join());
  EXPECT_EQ(GetFilter(2).mode, static_cast<uint32_t>(MCAST_EXCLUDE));
  EXPECT_EQ(GetFilter(2).count, 0u);
  ASSERT_OK(Filter(MCAST_INCLUDE, {kSecond, "10.0.0.9"}));
  EXPECT_EQ(Heard(), "2");
  const Got got = GetFilter(3);
  EXPECT_EQ(got.mode, static_cast<uint32_t>(MCAST_INCLUDE));
  EXPECT_EQ(got.count, 2u);
  EXPECT_EQ(got.sources, (std::vector<std::string>{kSecond, "10.0.0.9"}));
  EXPECT_EQ(GetFilter(1).count, 2u);
  EXPECT_EQ(GetFilter(1).sources, std::vector<std::string>{kSecond});
  EXPECT_EQ(GetFilter(0).sources, std::vector<std::string>{});
  ASSERT_OK(Filter(MCAST_EXCLUDE, {kSecond}, 100));
  EXPECT_EQ(Heard(), "1");
  EXPECT_ERRNO(Filter(MCAST_EXCLUDE, {kSecond}, -1), EINVAL);
  EXPECT_ERRNO(Filter(2, {kSecond}), EINVAL);
  int small[2] = {};
  EXPECT_ERRNO(Set(IP_MSFILTER, small, sizeof(small)), EINVAL);
  // To include nothing is to leave.
  ASSERT_OK(Filter(MCAST_INCLUDE, {}));
  EXPECT_EQ(GetFilter(1).error, EADDRNOTAVAIL);
  EXPECT_ERRNO(Filter(MCAST_INCLUDE, {}), EADDRNOTAVAIL);
}

TEST_F(MulticastSource, ByOptionsOfEitherVersion) {
  EXPECT_ERRNO(GroupSource(MCAST_LEAVE_SOURCE_GROUP, kFirst), EINVAL);
  ASSERT_OK(GroupSource(MCAST_JOIN_SOURCE_GROUP, kFirst));
  EXPECT_EQ(Heard(), "1");
  EXPECT_ERRNO(GroupSource(MCAST_JOIN_SOURCE_GROUP, kFirst), EADDRNOTAVAIL);
  EXPECT_ERRNO(GroupSource(MCAST_JOIN_SOURCE_GROUP, kFirst, AF_INET6), EADDRNOTAVAIL);
  EXPECT_ERRNO(GroupSource(MCAST_BLOCK_SOURCE, kFirst), EINVAL);
  ASSERT_OK(GroupSource(MCAST_LEAVE_SOURCE_GROUP, kFirst));
  ASSERT_OK(Join());
  ASSERT_OK(GroupSource(MCAST_BLOCK_SOURCE, kFirst));
  EXPECT_EQ(Heard(), "2");
  ASSERT_OK(GroupSource(MCAST_UNBLOCK_SOURCE, kFirst));
  EXPECT_EQ(Heard(), "12");
  // The filter, by struct group_filter.
  std::vector<std::byte> bytes(offsetof(group_filter, gf_slist) + sizeof(sockaddr_storage));
  auto* f = reinterpret_cast<group_filter*>(bytes.data());
  f->gf_interface = lo_;
  auto* group = reinterpret_cast<sockaddr_in*>(&f->gf_group);
  group->sin_family = AF_INET;
  group->sin_addr = Ip(kGroup);
  f->gf_fmode = MCAST_EXCLUDE;
  f->gf_numsrc = 1;
  sockaddr_in source{};
  source.sin_addr = Ip(kSecond);
  std::memcpy(bytes.data() + offsetof(group_filter, gf_slist), &source, sizeof(source));
  EXPECT_ERRNO(Set(MCAST_MSFILTER, bytes.data(), bytes.size()), EADDRNOTAVAIL);  // of no family
  source.sin_family = AF_INET;
  std::memcpy(bytes.data() + offsetof(group_filter, gf_slist), &source, sizeof(source));
  ASSERT_OK(Set(MCAST_MSFILTER, bytes.data(), bytes.size()));
  EXPECT_EQ(Heard(), "1");
  std::memset(bytes.data() + offsetof(group_filter, gf_slist), 0, sizeof(sockaddr_storage));
  f->gf_fmode = 77;
  auto length = static_cast<socklen_t>(bytes.size());
  ASSERT_OK(getsockopt(to_.get(), IPPROTO_IP, MCAST_MSFILTER, bytes.data(), &length));
  EXPECT_EQ(length, bytes.size());
  EXPECT_EQ(f->gf_fmode, static_cast<uint32_t>(MCAST_EXCLUDE));
  EXPECT_EQ(f->gf_numsrc, 1u);
  EXPECT_EQ(std::memcmp(bytes.data() + offsetof(group_filter, gf_slist), &source, sizeof(source)), 0);
}

TEST_F(MulticastSource, OfIpv6) {
  ScopedFd s(socket(AF_INET6, SOCK_DGRAM, 0));
  sockaddr_in6 name{};
  name.sin6_family = AF_INET6;
  socklen_t length = sizeof(name);
  ASSERT_OK(bind(s.get(), reinterpret_cast<sockaddr*>(&name), length));
  ASSERT_OK(getsockname(s.get(), reinterpret_cast<sockaddr*>(&name), &length));
  ASSERT_EQ(inet_pton(AF_INET6, kGroup6, &name.sin6_addr), 1);
  name.sin6_scope_id = lo_;
  auto change = [&](int option, const char* source) {
    group_source_req m{};
    m.gsr_interface = lo_;
    sockaddr_in6 a{};
    a.sin6_family = AF_INET6;
    a.sin6_addr = name.sin6_addr;
    std::memcpy(&m.gsr_group, &a, sizeof(a));
    inet_pton(AF_INET6, source, &a.sin6_addr);
    std::memcpy(&m.gsr_source, &a, sizeof(a));
    return setsockopt(s.get(), IPPROTO_IPV6, option, &m, sizeof(m));
  };
  EXPECT_ERRNO(change(MCAST_BLOCK_SOURCE, "::1"), EINVAL);
  ASSERT_OK(change(MCAST_JOIN_SOURCE_GROUP, "fe80::5"));
  ASSERT_OK(change(MCAST_JOIN_SOURCE_GROUP, "::1"));
  for (int i = 2; i < 64; i++) {
    char source[INET6_ADDRSTRLEN];
    snprintf(source, sizeof(source), "fe80::1:%x", i);
    ASSERT_OK(change(MCAST_JOIN_SOURCE_GROUP, source));
  }
  EXPECT_ERRNO(change(MCAST_JOIN_SOURCE_GROUP, "fe80::2:1"), ENOBUFS);
}

}  // namespace
}  // namespace redoubt::testing
