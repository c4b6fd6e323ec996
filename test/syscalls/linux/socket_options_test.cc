// socket(7), ip(7), ipv6(7): options that have a value and little else, by family; and what ancillary data says of one
// datagram.
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"

namespace redoubt::testing {
namespace {

struct Kind {
  const char* name;
  int family, type;
};
constexpr Kind kKinds[] = {{"Tcp", AF_INET, SOCK_STREAM},        {"Tcp6", AF_INET6, SOCK_STREAM},
                           {"Udp", AF_INET, SOCK_DGRAM},         {"Udp6", AF_INET6, SOCK_DGRAM},
                           {"UnixStream", AF_UNIX, SOCK_STREAM}, {"UnixDatagram", AF_UNIX, SOCK_DGRAM},
                           {"Netlink", AF_NETLINK, SOCK_RAW}};

class Option : public ::testing::TestWithParam<Kind> {
 protected:
  bool internet() const { return GetParam().family == AF_INET || GetParam().family == AF_INET6; }
  int Set(int name, int value) { return setsockopt(fd_.get(), SOL_SOCKET, name, &value, sizeof(value)); }
  // Its value, or the errno below zero.
  int Get(int name) {
    int value = 0;
    socklen_t length = sizeof(value);
    return getsockopt(fd_.get(), SOL_SOCKET, name, &value, &length) == 0 ? value : -errno;
  }
  ScopedFd fd_{socket(GetParam().family, GetParam().type | SOCK_CLOEXEC, 0)};
};
INSTANTIATE_TEST_SUITE_P(Of, Option, ::testing::ValuesIn(kKinds),
                         [](const auto& i) { return std::string(i.param.name); });

TEST_P(Option, PrioritiesAndMarksAreRemembered) {
  EXPECT_EQ(Get(SO_PRIORITY), 0);
  EXPECT_OK(Set(SO_PRIORITY, 5));
  EXPECT_EQ(Get(SO_PRIORITY), 5);
  EXPECT_EQ(Get(SO_MARK), 0);
  EXPECT_OK(Set(SO_MARK, 77));
  EXPECT_EQ(Get(SO_MARK), 77);
  EXPECT_EQ(RunAsNobody([this] {
              EXPECT_OK(Set(SO_PRIORITY, 6));
              EXPECT_ERRNO(Set(SO_PRIORITY, 7), EPERM);
              EXPECT_ERRNO(Set(SO_PRIORITY, -1), EPERM);
              EXPECT_ERRNO(Set(SO_MARK, 0), EPERM);
            }),
            0);
}

TEST_P(Option, EachSocketHasItsCookie) {
  std::set<uint64_t> cookies;
  ScopedFd other(socket(GetParam().family, GetParam().type | SOCK_CLOEXEC, 0));
  for (int fd : {fd_.get(), other.get(), fd_.get()}) {
    uint64_t cookie = 0;
    socklen_t length = sizeof(cookie);
    ASSERT_OK(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &length));
    EXPECT_EQ(length, sizeof(cookie));
    EXPECT_NE(cookie, 0u);
    cookies.insert(cookie);
  }
  EXPECT_EQ(cookies.size(), 2u);
  EXPECT_ERRNO(Set(SO_COOKIE, 1), ENOPROTOOPT);
}

TEST_P(Option, WithoutAPeerItsCredentialsAreNobodys) {
  ucred peer{.pid = 1, .uid = 1, .gid = 1};
  socklen_t length = sizeof(peer);
  ASSERT_OK(getsockopt(fd_.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length));
  EXPECT_EQ(peer.pid, 0);
  EXPECT_EQ(peer.uid, static_cast<uid_t>(-1));
  EXPECT_EQ(peer.gid, static_cast<gid_t>(-1));
}

TEST_P(Option, SomeAreOfSomeFamilies) {
  if (internet()) {
    EXPECT_ERRNO(Set(SO_PASSCRED, 1), EOPNOTSUPP);
    EXPECT_EQ(Get(SO_PASSCRED), -EOPNOTSUPP);
    EXPECT_OK(Set(SO_REUSEPORT, 1));
    EXPECT_OK(Set(SO_ZEROCOPY, 1));
  } else {
    EXPECT_OK(Set(SO_PASSCRED, 1));
    EXPECT_EQ(Get(SO_PASSCRED), 1);
    EXPECT_ERRNO(Set(SO_REUSEPORT, 1), EOPNOTSUPP);
    EXPECT_OK(Set(SO_REUSEPORT, 0));
    EXPECT_ERRNO(Set(SO_ZEROCOPY, 1), EOPNOTSUPP);
  }
  EXPECT_EQ(Get(SO_INCOMING_CPU), -1);
  EXPECT_OK(Set(SO_BSDCOMPAT, 1));  // obsolete
  EXPECT_EQ(Get(SO_BSDCOMPAT), 0);
}

class InternetOption : public Option {};
INSTANTIATE_TEST_SUITE_P(Of, InternetOption, ::testing::ValuesIn(kKinds, kKinds + 4),
                         [](const auto& i) { return std::string(i.param.name); });

TEST_P(InternetOption, AnInterfaceByItsNumber) {
  const int lo = static_cast<int>(if_nametoindex("lo"));
  EXPECT_EQ(Get(SO_BINDTOIFINDEX), 0);
  EXPECT_OK(Set(SO_BINDTOIFINDEX, lo));
  EXPECT_EQ(Get(SO_BINDTOIFINDEX), lo);
  char name[IFNAMSIZ] = {};
  socklen_t length = sizeof(name);
  ASSERT_OK(getsockopt(fd_.get(), SOL_SOCKET, SO_BINDTODEVICE, name, &length));
  EXPECT_STREQ(name, "lo");
  EXPECT_ERRNO(Set(SO_BINDTOIFINDEX, -1), EINVAL);
  EXPECT_OK(Set(SO_BINDTOIFINDEX, 0));
  EXPECT_EQ(Get(SO_BINDTOIFINDEX), 0);
}

TEST_P(InternetOption, PathMtuDiscoveryIsAsItWasSet) {
  const bool v6 = GetParam().family == AF_INET6;
  for (int level : {IPPROTO_IP, IPPROTO_IPV6}) {
    if (level == IPPROTO_IPV6 && !v6) continue;
    const int name = level == IPPROTO_IPV6 ? IPV6_MTU_DISCOVER : IP_MTU_DISCOVER;
    for (int value = IP_PMTUDISC_DONT; value <= IP_PMTUDISC_OMIT; value++) {
      EXPECT_OK(setsockopt(fd_.get(), level, name, &value, sizeof(value))) << value;
      int got = -1;
      socklen_t length = sizeof(got);
      EXPECT_OK(getsockopt(fd_.get(), level, name, &got, &length));
      EXPECT_EQ(got, value);
    }
    for (int value : {-1, IP_PMTUDISC_OMIT + 1}) {
      EXPECT_ERRNO(setsockopt(fd_.get(), level, name, &value, sizeof(value)), EINVAL);
    }
  }
}

// Datagrams ----------------------------------------------------------------------------------------------------------

struct Ancillary {
  int level, type;
  std::string data;
};
template <typename T>
std::string Bytes(const T& value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}

// A socket of `family` with a receiver on the loopback, which wants to know all there is to know.
class Datagrams : public ::testing::TestWithParam<int> {
 protected:
  bool v6() const { return GetParam() == AF_INET6; }
  void SetUp() override {
    receiver_.reset(socket(GetParam(), SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sender_.reset(socket(GetParam(), SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (v6()) {
      auto* a = reinterpret_cast<sockaddr_in6*>(&to_);
      a->sin6_family = AF_INET6;
      a->sin6_addr = in6addr_loopback;
      length_ = sizeof(*a);
    } else {
      auto* a = reinterpret_cast<sockaddr_in*>(&to_);
      a->sin_family = AF_INET;
      a->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      length_ = sizeof(*a);
    }
    ASSERT_OK(bind(receiver_.get(), Any(to_), length_));
    ASSERT_OK(getsockname(receiver_.get(), Any(to_), &length_));
    const int on = 1;
    const std::vector<int> wanted =
        v6() ? std::vector{IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS} : std::vector{IP_RECVTTL, IP_RECVTOS};
    for (int name : wanted)
      ASSERT_OK(setsockopt(receiver_.get(), v6() ? IPPROTO_IPV6 : IPPROTO_IP, name, &on, sizeof(on)));
  }
  static sockaddr* Any(sockaddr_storage& a) { return reinterpret_cast<sockaddr*>(&a); }
  // 0 or the errno.
  int Send(const std::vector<Ancillary>& ancillary, const std::string& text = "x") {
    std::string control;
    for (const Ancillary& a : ancillary) {
      cmsghdr header{.cmsg_len = CMSG_LEN(a.data.size()), .cmsg_level = a.level, .cmsg_type = a.type};
      std::string one = Bytes(header) + a.data;
      one.resize(CMSG_SPACE(a.data.size()));
      control += one;
    }
    iovec iov{const_cast<char*>(text.data()), text.size()};
    msghdr m{};
    m.msg_name = &to_;
    m.msg_namelen = length_;
    m.msg_iov = &iov;
    m.msg_iovlen = 1;
    m.msg_control = control.data();
    m.msg_controllen = control.size();
    return sendmsg(sender_.get(), &m, 0) < 0 ? errno : 0;
  }
  // What the next datagram came with.
  struct Received {
    std::string from;
    int ttl = -1, traffic_class = -1;
  };
  Received Receive() {
    Received r;
    char text[100];
    alignas(cmsghdr) char control[256];
    sockaddr_storage from{};
    iovec iov{text, sizeof(text)};
    msghdr m{};
    m.msg_name = &from;
    m.msg_namelen = sizeof(from);
    m.msg_iov = &iov;
    m.msg_iovlen = 1;
    m.msg_control = control;
    m.msg_controllen = sizeof(control);
    EXPECT_OK(recvmsg(receiver_.get(), &m, 0));
    char name[INET6_ADDRSTRLEN] = {};
    const void* address = v6() ? static_cast<const void*>(&reinterpret_cast<sockaddr_in6*>(&from)->sin6_addr)
                               : &reinterpret_cast<sockaddr_in*>(&from)->sin_addr;
    r.from = inet_ntop(GetParam(), address, name, sizeof(name));
    for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr; c = CMSG_NXTHDR(&m, c)) {
      int value = 0;
      std::memcpy(&value, CMSG_DATA(c), std::min(sizeof(value), c->cmsg_len - CMSG_LEN(0)));
      if (c->cmsg_type == (v6() ? IPV6_HOPLIMIT : IP_TTL)) r.ttl = value;
      if (c->cmsg_type == (v6() ? IPV6_TCLASS : IP_TOS)) r.traffic_class = value;
    }
    return r;
  }

  ScopedFd receiver_, sender_;
  sockaddr_storage to_{};
  socklen_t length_ = 0;
};
INSTANTIATE_TEST_SUITE_P(Of, Datagrams, ::testing::Values(AF_INET, AF_INET6),
                         [](const auto& i) { return std::string(i.param == AF_INET ? "Ipv4" : "Ipv6"); });

std::string PacketInfo(const char* source, int interface) {
  in_pktinfo info{};
  info.ipi_ifindex = interface;
  if (source != nullptr) inet_pton(AF_INET, source, &info.ipi_spec_dst);
  return Bytes(info);
}
std::string PacketInfo6(const char* source, int interface) {
  in6_pktinfo info{};
  info.ipi6_ifindex = static_cast<unsigned>(interface);
  if (source != nullptr) inet_pton(AF_INET6, source, &info.ipi6_addr);
  return Bytes(info);
}

TEST_P(Datagrams, SayTheirTtlAndClass) {
  const Ancillary ttl =
      v6() ? Ancillary{IPPROTO_IPV6, IPV6_HOPLIMIT, Bytes(33)} : Ancillary{IPPROTO_IP, IP_TTL, Bytes(33)};
  const Ancillary tos =
      v6() ? Ancillary{IPPROTO_IPV6, IPV6_TCLASS, Bytes(0x28)} : Ancillary{IPPROTO_IP, IP_TOS, Bytes(0x28)};
  EXPECT_EQ(Send({ttl, tos}), 0);
  Received r = Receive();
  EXPECT_EQ(r.ttl, 33);
  EXPECT_EQ(r.traffic_class, 0x28);
  // Of one datagram only.
  EXPECT_EQ(Send({}), 0);
  r = Receive();
  EXPECT_NE(r.ttl, 33);
  EXPECT_EQ(r.traffic_class, 0);
  for (int bad : {v6() ? -2 : 0, 256}) {
    EXPECT_EQ(Send({{ttl.level, ttl.type, Bytes(bad)}}), EINVAL) << bad;
  }
  EXPECT_EQ(Send({{ttl.level, ttl.type, std::string("\1\0\0", 3)}}), EINVAL);
  EXPECT_EQ(Send({{ttl.level, 9999, Bytes(1)}}), EINVAL);
  // Another protocol's.
  EXPECT_EQ(Send({{v6() ? IPPROTO_IP : IPPROTO_IPV6, 9999, Bytes(1)}}), 0);
  Receive();
}

TEST_P(Datagrams, SayWhereTheyLeave) {
  const int lo = static_cast<int>(if_nametoindex("lo"));
  auto info = [this](const char* v4_source, const char* v6_source, int interface) {
    return v6() ? Ancillary{IPPROTO_IPV6, IPV6_PKTINFO, PacketInfo6(v6_source, interface)}
                : Ancillary{IPPROTO_IP, IP_PKTINFO, PacketInfo(v4_source, interface)};
  };
  EXPECT_EQ(Send({info(nullptr, nullptr, lo)}), 0);
  EXPECT_EQ(Receive().from, v6() ? "::1" : "127.0.0.1");
  EXPECT_EQ(Send({info("127.0.0.1", "::1", 0)}), 0);
  EXPECT_EQ(Receive().from, v6() ? "::1" : "127.0.0.1");
  // An address that is not this host's; no such interface.
  EXPECT_EQ(Send({info("203.0.113.77", "2001:db8:77::1", 0)}), v6() ? EINVAL : ENETUNREACH);
  EXPECT_EQ(Send({info(nullptr, nullptr, 99999)}), ENODEV);
}

TEST(DatagramsOfIpv4, SayWhereTheyAreFrom) {
  ScopedFd receiver(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)),
      sender(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(to);
  ASSERT_OK(bind(receiver.get(), reinterpret_cast<sockaddr*>(&to), length));
  ASSERT_OK(getsockname(receiver.get(), reinterpret_cast<sockaddr*>(&to), &length));
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(in_pktinfo))] = {};
  cmsghdr* c = reinterpret_cast<cmsghdr*>(control);
  c->cmsg_level = IPPROTO_IP;
  c->cmsg_type = IP_PKTINFO;
  c->cmsg_len = CMSG_LEN(sizeof(in_pktinfo));
  in_pktinfo info{};
  inet_pton(AF_INET, "127.0.7.7", &info.ipi_spec_dst);
  std::memcpy(CMSG_DATA(c), &info, sizeof(info));
  iovec iov{const_cast<char*>("x"), 1};
  msghdr m{};
  m.msg_name = &to;
  m.msg_namelen = length;
  m.msg_iov = &iov;
  m.msg_iovlen = 1;
  m.msg_control = control;
  m.msg_controllen = sizeof(control);
  ASSERT_RETURNS(sendmsg(sender.get(), &m, 0), 1);
  sockaddr_in from{};
  length = sizeof(from);
  char byte;
  ASSERT_RETURNS(recvfrom(receiver.get(), &byte, 1, 0, reinterpret_cast<sockaddr*>(&from), &length), 1);
  EXPECT_STREQ(inet_ntoa(from.sin_addr), "127.0.7.7");
}

// RFC 3678: groups by struct group_req.
TEST_P(Datagrams, JoinGroupsOfEitherVersionByOneOption) {
  const int level = v6() ? IPPROTO_IPV6 : IPPROTO_IP;
  group_req request{};
  request.gr_interface = if_nametoindex("lo");
  if (v6()) {
    auto* a = reinterpret_cast<sockaddr_in6*>(&request.gr_group);
    a->sin6_family = AF_INET6;
    inet_pton(AF_INET6, "ff15::77", &a->sin6_addr);
  } else {
    auto* a = reinterpret_cast<sockaddr_in*>(&request.gr_group);
    a->sin_family = AF_INET;
    inet_pton(AF_INET, "239.1.7.7", &a->sin_addr);
  }
  auto change = [&](int name, size_t size = sizeof(group_req)) {
    return setsockopt(receiver_.get(), level, name, &request, static_cast<socklen_t>(size));
  };
  EXPECT_OK(change(MCAST_JOIN_GROUP));
  EXPECT_ERRNO(change(MCAST_JOIN_GROUP), EADDRINUSE);
  EXPECT_OK(change(MCAST_LEAVE_GROUP));
  EXPECT_ERRNO(change(MCAST_LEAVE_GROUP), EADDRNOTAVAIL);
  EXPECT_ERRNO(change(MCAST_JOIN_GROUP, sizeof(group_req) - 1), EINVAL);
  request.gr_interface = 99999;
  EXPECT_ERRNO(change(MCAST_JOIN_GROUP), ENODEV);
  request.gr_group.ss_family = AF_UNIX;
  EXPECT_LT(change(MCAST_JOIN_GROUP), 0);
}

TEST_P(Datagrams, OptionOfAllGroups) {
  const int level = v6() ? IPPROTO_IPV6 : IPPROTO_IP, name = v6() ? IPV6_MULTICAST_ALL : IP_MULTICAST_ALL;
  int value = -1;
  socklen_t length = sizeof(value);
  ASSERT_OK(getsockopt(receiver_.get(), level, name, &value, &length));
  EXPECT_EQ(value, 1);
  value = 0;
  EXPECT_OK(setsockopt(receiver_.get(), level, name, &value, sizeof(value)));
  ASSERT_OK(getsockopt(receiver_.get(), level, name, &value, &length));
  EXPECT_EQ(value, 0);
}

}  // namespace
}  // namespace redoubt::testing
