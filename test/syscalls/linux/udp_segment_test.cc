// UDP_SEGMENT and UDP_GRO (udp(7), linux/udp.h): many datagrams in one call.
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"

namespace redoubt::testing {
namespace {

constexpr size_t kMaxSegments = 128;  // UDP_MAX_SEGMENTS

std::string Pattern(size_t n) {
  std::string s(n, '\0');
  for (size_t i = 0; i < n; i++) s[i] = static_cast<char>(i * 7 + i / 256);
  return s;
}

class UdpSegments : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    from_.reset(socket(GetParam(), SOCK_DGRAM, 0));
    to_.reset(socket(GetParam(), SOCK_DGRAM, 0));
    sockaddr_storage name{};
    name.ss_family = static_cast<sa_family_t>(GetParam());
    socklen_t length = sizeof(sockaddr_in);
    if (v6()) {
      reinterpret_cast<sockaddr_in6*>(&name)->sin6_addr = in6addr_loopback;
      length = sizeof(sockaddr_in6);
    } else {
      reinterpret_cast<sockaddr_in*>(&name)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    }
    ASSERT_OK(bind(to_.get(), reinterpret_cast<sockaddr*>(&name), length));
    ASSERT_OK(getsockname(to_.get(), reinterpret_cast<sockaddr*>(&name), &length));
    ASSERT_OK(connect(from_.get(), reinterpret_cast<sockaddr*>(&name), length));
  }
  bool v6() const { return GetParam() == AF_INET6; }
  static int Set(const ScopedFd& s, int name, int value) {
    return setsockopt(s.get(), SOL_UDP, name, &value, sizeof(value));
  }
  static int Value(const ScopedFd& s, int name) {
    int value = -1;
    socklen_t length = sizeof(value);
    EXPECT_OK(getsockopt(s.get(), SOL_UDP, name, &value, &length));
    return value;
  }
  ssize_t Send(const std::string& data) { return send(from_.get(), data.data(), data.size(), 0); }
  // With ancillary data.
  template <typename T>
  ssize_t Send(const std::string& data, T segment) {
    iovec v{const_cast<char*>(data.data()), data.size()};
    union {
      char bytes[CMSG_SPACE(sizeof(segment))];
      cmsghdr align;
    } control{};
    msghdr m{.msg_iov = &v, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    control.align = {.cmsg_len = CMSG_LEN(sizeof(segment)), .cmsg_level = SOL_UDP, .cmsg_type = UDP_SEGMENT};
    std::memcpy(CMSG_DATA(&control.align), &segment, sizeof(segment));
    return sendmsg(from_.get(), &m, 0);
  }
  struct Received {
    std::string data;
    std::optional<int> segment;  // UDP_GRO
  };
  std::optional<Received> Receive(int flags = 0) {
    std::string room(70000, '\0');
    char control[128];
    iovec v{room.data(), room.size()};
    msghdr m{.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    const ssize_t n = recvmsg(to_.get(), &m, MSG_DONTWAIT | flags);
    if (n < 0) return std::nullopt;
    Received r;
    r.data = room.substr(0, static_cast<size_t>(n));
    if (const cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr) {
      EXPECT_EQ(c->cmsg_level, SOL_UDP);
      EXPECT_EQ(c->cmsg_type, UDP_GRO);
      EXPECT_EQ(c->cmsg_len, CMSG_LEN(sizeof(int)));
      int segment;
      std::memcpy(&segment, CMSG_DATA(c), sizeof(segment));
      r.segment = segment;
    }
    return r;
  }
  // All that there is: the datagrams' sizes, and their bytes in `all`.
  std::vector<size_t> Sizes(std::string* all = nullptr) {
    std::vector<size_t> sizes;
    while (std::optional<Received> r = Receive()) {
      EXPECT_FALSE(r->segment);
      sizes.push_back(r->data.size());
      if (all != nullptr) *all += r->data;
    }
    return sizes;
  }
  using SizeList = std::vector<size_t>;

  ScopedFd from_, to_;
};
INSTANTIATE_TEST_SUITE_P(Of, UdpSegments, ::testing::Values(AF_INET, AF_INET6),
                         [](const auto& i) { return i.param == AF_INET ? "Ipv4" : "Ipv6"; });

TEST_P(UdpSegments, OptionsAreNumbers) {
  EXPECT_EQ(Value(from_, UDP_SEGMENT), 0);
  for (int n : {1, 1400, 65535, 0}) {
    EXPECT_OK(Set(from_, UDP_SEGMENT, n));
    EXPECT_EQ(Value(from_, UDP_SEGMENT), n);
  }
  for (int n : {-1, 65536}) EXPECT_ERRNO(Set(from_, UDP_SEGMENT, n), EINVAL);
  const char byte = 1;
  EXPECT_ERRNO(setsockopt(from_.get(), SOL_UDP, UDP_SEGMENT, &byte, 1), EINVAL);
  EXPECT_EQ(Value(to_, UDP_GRO), 0);
  EXPECT_OK(Set(to_, UDP_GRO, 5));
  EXPECT_EQ(Value(to_, UDP_GRO), 1);
  EXPECT_OK(Set(to_, UDP_GRO, 0));
  EXPECT_EQ(Value(to_, UDP_GRO), 0);
}

TEST_P(UdpSegments, OneCallMakesMany) {
  ASSERT_OK(Set(from_, UDP_SEGMENT, 100));
  const std::string data = Pattern(250);
  ASSERT_RETURNS(Send(data), 250);
  std::string all;
  EXPECT_EQ(Sizes(&all), (SizeList{100, 100, 50}));
  EXPECT_EQ(all, data);
  for (size_t n : {0u, 50u, 100u}) {
    ASSERT_RETURNS(Send(Pattern(n)), static_cast<ssize_t>(n));
    EXPECT_EQ(Sizes(), SizeList{n});
  }
  ASSERT_RETURNS(Send(Pattern(101)), 101);
  EXPECT_EQ(Sizes(), (SizeList{100, 1}));
  ASSERT_RETURNS(Send(Pattern(200)), 200);
  EXPECT_EQ(Sizes(), (SizeList{100, 100}));
}

TEST_P(UdpSegments, SoManyAndNoMore) {
  ASSERT_OK(Set(from_, UDP_SEGMENT, 10));
  ASSERT_RETURNS(Send(Pattern(10 * kMaxSegments)), static_cast<ssize_t>(10 * kMaxSegments));
  EXPECT_EQ(Sizes().size(), kMaxSegments);
  EXPECT_ERRNO(Send(Pattern(10 * kMaxSegments + 1)), EINVAL);
  EXPECT_EQ(Sizes(), SizeList{});
}

TEST_P(UdpSegments, NotMoreThanADatagramCouldHave) {
  const size_t most = v6() ? 65527 : 65507;
  EXPECT_RETURNS(Send(Pattern(most), uint16_t{2000}), static_cast<ssize_t>(most));
  EXPECT_ERRNO(Send(Pattern(most + 1), uint16_t{2000}), EMSGSIZE);
}

TEST_P(UdpSegments, OneMessageSaysForItself) {
  ASSERT_RETURNS(Send(Pattern(250), uint16_t{100}), 250);
  EXPECT_EQ(Sizes(), (SizeList{100, 100, 50}));
  ASSERT_OK(Set(from_, UDP_SEGMENT, 200));
  ASSERT_RETURNS(Send(Pattern(250), uint16_t{125}), 250);
  EXPECT_EQ(Sizes(), (SizeList{125, 125}));
  ASSERT_RETURNS(Send(Pattern(250), uint16_t{0}), 250);
  EXPECT_EQ(Sizes(), SizeList{250});
  ASSERT_RETURNS(Send(Pattern(250)), 250);
  EXPECT_EQ(Sizes(), (SizeList{200, 50}));
  EXPECT_ERRNO(Send(Pattern(250), int{100}), EINVAL);
  EXPECT_ERRNO(Send(Pattern(250), uint8_t{100}), EINVAL);
}

TEST_P(UdpSegments, CorkedBytesAreCutTogether) {
  ASSERT_OK(Set(from_, UDP_CORK, 1));
  ASSERT_RETURNS(Send(Pattern(250), uint16_t{50}), 250);
  ASSERT_RETURNS(Send(Pattern(30)), 30);
  EXPECT_EQ(Sizes(), SizeList{});
  ASSERT_OK(Set(from_, UDP_CORK, 0));
  EXPECT_EQ(Sizes(), (SizeList{50, 50, 50, 50, 50, 30}));
}

TEST_P(UdpSegments, AreReceivedTogether) {
  ASSERT_OK(Set(to_, UDP_GRO, 1));
  const std::string data = Pattern(250);
  ASSERT_RETURNS(Send(data, uint16_t{100}), 250);
  for (int flags : {int{MSG_PEEK}, 0}) {
    std::optional<Received> r = Receive(flags);
    ASSERT_TRUE(r);
    EXPECT_EQ(r->data, data);
    EXPECT_EQ(r->segment, 100);
  }
  EXPECT_FALSE(Receive());
  // One alone is as ever.
  for (size_t n : {0u, 50u, 100u}) {
    ASSERT_RETURNS(Send(Pattern(n), uint16_t{100}), static_cast<ssize_t>(n));
    EXPECT_EQ(Sizes(), SizeList{n});
  }
  // Those of two calls are not joined.
  ASSERT_RETURNS(Send(data), 250);
  ASSERT_RETURNS(Send(data), 250);
  EXPECT_EQ(Sizes(), (SizeList{250, 250}));
  ASSERT_OK(Set(to_, UDP_GRO, 0));
  ASSERT_RETURNS(Send(data, uint16_t{100}), 250);
  EXPECT_EQ(Sizes(), (SizeList{100, 100, 50}));
}

TEST(UdpSegmentsOf, OtherProtocolsThereAreNone) {
  for (int type : {SOCK_RAW, SOCK_STREAM}) {
    ScopedFd s(socket(AF_INET, type, type == SOCK_RAW ? IPPROTO_UDP : 0));
    const int value = 100;
    EXPECT_ERRNO(setsockopt(s.get(), SOL_UDP, UDP_SEGMENT, &value, sizeof(value)), ENOPROTOOPT);
  }
}

}  // namespace
}  // namespace redoubt::testing
