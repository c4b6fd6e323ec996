// Our stack against Linux's, over a real TAP device in a network namespace made for the test. Needs root.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "pkg/netstack/checksum/checksum.h"
#include "pkg/netstack/header/icmp.h"
#include "pkg/netstack/header/link.h"
#include "pkg/netstack/link/fd_link.h"
#include "pkg/netstack/link/sniffer.h"
#include "pkg/netstack/testing/network.h"

namespace redoubt::netstack {
namespace {

using testing::A;
using testing::Mac;
using testing::Text;

class HostClock final : public Clock {
 public:
  Time Now() const override {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * kSecond + t.tv_nsec;
  }
};

// Whether the device hands over virtio headers.
class TapTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (unshare(CLONE_NEWNET) != 0) GTEST_SKIP() << "no network namespace to be had: " << strerror(errno);
    tap_ = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (tap_ < 0) GTEST_SKIP() << "no /dev/net/tun: " << strerror(errno);
    ifreq r{};
    std::strcpy(r.ifr_name, "tap0");
    r.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | (GetParam() ? IFF_VNET_HDR : 0));
    ASSERT_EQ(ioctl(tap_, TUNSETIFF, &r), 0) << strerror(errno);
    if (GetParam()) {
      ASSERT_EQ(ioctl(tap_, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6), 0);
    }
    ASSERT_EQ(
        system(
            "ip addr add 192.0.2.1/24 dev tap0 && ip -6 addr add 2001:db8::1/64 dev tap0 nodad && ip link set tap0 up"),
        0);
    pcap_path_ = ::testing::TempDir() + "/tap_test.pcap";
    pcap_ = open(pcap_path_.c_str(), O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    ASSERT_GE(pcap_, 0);
    auto link = std::make_unique<FdLink>(FdLink::Options{.fd = tap_, .address = Mac(2), .virtio_header = GetParam()});
    link_ = link.get();
    inet_ = RegisterInet(stack_);
    ASSERT_TRUE(AddLoopback(stack_));
    timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    auto sniffer = std::make_unique<Sniffer>(
        std::move(link), clock_,
        Sniffer::Options{.fd = pcap_, .epoch = wall.tv_sec * kSecond + wall.tv_nsec - clock_.Now()});
    eth0_ = *stack_.AddInterface({.name = "eth0", .link = std::move(sniffer)});
    ASSERT_TRUE(eth0_->AddAddress({.prefix = {A("192.0.2.2"), 24}}));
    ASSERT_TRUE(eth0_->AddAddress({.prefix = {A("2001:db8::2"), 64}}));
    eth0_->SetUp(true);
    // Duplicate detection takes a second.
    ASSERT_TRUE(RunUntil([&] { return stack_.IsLocal(A("2001:db8::2")); }, 5 * kSecond));
  }
  void TearDown() override {
    stack_.Close();
    if (tap_ >= 0) close(tap_);
    if (pcap_ >= 0) close(pcap_);
  }
  // Serves the device and the timers until `done`.
  template <typename Done>
  bool RunUntil(Done done, Time limit) {
    Time end = clock_.Now() + limit;
    while (!done()) {
      Time now = clock_.Now();
      if (now >= end) return false;
      Time wait = std::min({stack_.timers().NextDeadline() - now, end - now, 20 * kMillisecond});
      pollfd p{.fd = tap_, .events = POLLIN};
      (void)poll(&p, 1, static_cast<int>(std::max<Time>(wait, 0) / kMillisecond));
      while (link_->DispatchReady()) {
      }
      stack_.timers().RunTimers(clock_.Now());
    }
    return true;
  }
  // Linux pings us: `size` bytes of payload. True if the answer is right.
  bool Ping(int family, size_t size, uint16_t sequence) {
    bool v4 = family == AF_INET;
    int s = socket(family, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC,
                   v4 ? static_cast<int>(IPPROTO_ICMP) : static_cast<int>(IPPROTO_ICMPV6));
    EXPECT_GE(s, 0);
    std::vector<std::byte> m(8 + size);
    for (size_t i = 0; i < size; i++) m[8 + i] = static_cast<std::byte>(i);
    header::Icmp{.type = static_cast<uint8_t>(v4 ? ICMP_ECHO : ICMP6_ECHO_REQUEST), .rest = 0x77770000u | sequence}
        .Write(m);
    if (v4) header::Store16(m, 2, static_cast<uint16_t>(~Sum(m)));
    sockaddr_in a4{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {}, .sin_zero = {}};
    inet_pton(AF_INET, "192.0.2.2", &a4.sin_addr);
    sockaddr_in6 a6{};
    a6.sin6_family = AF_INET6;
    inet_pton(AF_INET6, "2001:db8::2", &a6.sin6_addr);
    ssize_t sent = v4 ? sendto(s, m.data(), m.size(), 0, reinterpret_cast<sockaddr*>(&a4), sizeof(a4))
                      : sendto(s, m.data(), m.size(), 0, reinterpret_cast<sockaddr*>(&a6), sizeof(a6));
    EXPECT_EQ(sent, static_cast<ssize_t>(m.size())) << strerror(errno);
    bool right = false;
    RunUntil(
        [&] {
          std::vector<std::byte> got(70000);
          ssize_t n = recv(s, got.data(), got.size(), 0);
          if (n <= 0) return false;
          size_t skip = v4 ? 20 : 0;
          if (static_cast<size_t>(n) != skip + m.size()) return false;
          uint8_t type = header::Load8(got, skip);
          if (type != (v4 ? ICMP_ECHOREPLY : ICMP6_ECHO_REPLY) ||
              header::Load32(got, skip + 4) != (0x77770000u | sequence))
            return false;
          right = std::equal(m.begin() + 8, m.end(), got.begin() + static_cast<long>(skip) + 8);
          return right;
        },
        3 * kSecond);
    close(s);
    return right;
  }
  // Reads the capture back by the letter of the format; returns how many frames it has of each EtherType.
  std::map<uint16_t, size_t> CheckCapture() {
    std::ifstream in(pcap_path_, std::ios::binary);
    std::vector<char> chars((std::istreambuf_iterator<char>(in)), {});
    header::Bytes b = std::as_bytes(std::span(chars));
    std::map<uint16_t, size_t> seen;
    auto u32 = [&](size_t at) {
      uint32_t v;
      std::memcpy(&v, b.data() + at, 4);
      return v;
    };
    EXPECT_GE(b.size(), 24u);
    EXPECT_EQ(u32(0), 0xa1b23c4du);
    EXPECT_EQ(u32(4), 2u | 4u << 16);
    EXPECT_EQ(u32(20), 1u);
    size_t at = 24;
    uint64_t last = 0;
    time_t wall = time(nullptr);
    while (at < b.size()) {
      EXPECT_LE(at + 16, b.size());
      if (at + 16 > b.size()) return seen;
      uint64_t when = uint64_t{u32(at)} * kSecond + u32(at + 4);
      EXPECT_GE(when, last);
      EXPECT_LT(u32(at + 4), 1'000'000'000u);
      EXPECT_NEAR(static_cast<double>(u32(at)), static_cast<double>(wall), 60);
      last = when;
      size_t n = u32(at + 8);
      EXPECT_EQ(n, u32(at + 12));
      EXPECT_LE(at + 16 + n, b.size());
      if (at + 16 + n > b.size()) return seen;
      std::optional<header::Ethernet> e = header::Ethernet::Parse(b.subspan(at + 16, n));
      EXPECT_TRUE(e);
      if (e) seen[e->ethertype]++;
      at += 16 + n;
    }
    return seen;
  }

  int tap_ = -1, pcap_ = -1;
  std::string pcap_path_;
  HostClock clock_;
  SeededRandom random_{static_cast<uint64_t>(getpid())};
  Stack stack_{clock_, random_};
  Inet inet_;
  FdLink* link_ = nullptr;
  RefPtr<Interface> eth0_;
};
INSTANTIATE_TEST_SUITE_P(Headers, TapTest, ::testing::Bool(),
                         [](const auto& p) { return p.param ? "Virtio" : "Plain"; });

TEST_P(TapTest, LinuxPingsUs) {
  for (uint16_t i = 0; i < 3; i++) {
    EXPECT_TRUE(Ping(AF_INET, 56, i));
  }
  EXPECT_TRUE(Ping(AF_INET, 8000, 10)) << "fragments";
  for (uint16_t i = 0; i < 3; i++) {
    EXPECT_TRUE(Ping(AF_INET6, 56, i));
  }
  EXPECT_TRUE(Ping(AF_INET6, 8000, 10)) << "fragments";
  std::map<uint16_t, size_t> seen = CheckCapture();
  EXPECT_GE(seen[0x0806], 2u);
  EXPECT_GE(seen[0x0800], 6u + 12u);
  EXPECT_GE(seen[0x86dd], 6u + 12u);
  const std::string read = "tshark -r " + pcap_path_;
  EXPECT_EQ(system(("test $(" + read + " | wc -l) -ge 20").c_str()), 0) << "tshark cannot read what was captured";
  EXPECT_EQ(system(("test -z \"$(" + read + " -Y _ws.malformed)\"").c_str()), 0) << "malformed packets";
}

TEST_P(TapTest, UdpBothWaysWithLinux) {
  auto echo = UdpEndpoint::Create(*inet_.udp, Family::kIpv6);
  ASSERT_TRUE(echo->Bind({A("::"), 7}));
  for (const char* us : {"192.0.2.2", "2001:db8::2"}) {
    bool v4 = A(us).is_ipv4();
    int s = socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    sockaddr_in a4{};
    sockaddr_in6 a6{};
    a4.sin_family = AF_INET;
    a6.sin6_family = AF_INET6;
    a4.sin_port = a6.sin6_port = htons(7);
    inet_pton(AF_INET, us, &a4.sin_addr);
    inet_pton(AF_INET6, us, &a6.sin6_addr);
    ASSERT_EQ(v4 ? connect(s, reinterpret_cast<sockaddr*>(&a4), sizeof(a4))
                 : connect(s, reinterpret_cast<sockaddr*>(&a6), sizeof(a6)),
              0);
    for (size_t size : {1u, 1000u, 1472u, 9000u, 60000u}) {
      std::string text(size, 'u');
      ASSERT_EQ(send(s, text.data(), size, 0), static_cast<ssize_t>(size)) << strerror(errno);
      ASSERT_TRUE(RunUntil(
          [&] {
            auto p = echo->Receive();
            if (!p) return false;
            return echo->Send(std::move((*p)->data), SocketAddress{(*p)->source, (*p)->source_port}).has_value();
          },
          3 * kSecond))
          << us << " " << size;
      std::string back(70000, 0);
      ssize_t n = -1;
      RunUntil([&] { return (n = recv(s, back.data(), back.size(), 0)) >= 0; }, 3 * kSecond);
      ASSERT_EQ(n, static_cast<ssize_t>(size)) << us;
      EXPECT_EQ(back.substr(0, size), text);
    }
    // A port where nobody is: Linux hears our ICMP error.
    a4.sin_port = a6.sin6_port = htons(8);
    ASSERT_EQ(v4 ? connect(s, reinterpret_cast<sockaddr*>(&a4), sizeof(a4))
                 : connect(s, reinterpret_cast<sockaddr*>(&a6), sizeof(a6)),
              0);
    ASSERT_EQ(send(s, "x", 1, 0), 1);
    int error = 0;
    RunUntil(
        [&] {
          char c;
          ssize_t n = recv(s, &c, 1, 0);
          error = n < 0 ? errno : 0;
          return error != EAGAIN;
        },
        3 * kSecond);
    EXPECT_EQ(error, ECONNREFUSED) << us;
    close(s);
  }
  // And we hear Linux's.
  auto e = UdpEndpoint::Create(*inet_.udp, Family::kIpv4);
  ASSERT_TRUE(e->Connect({A("192.0.2.1"), 9}));
  ASSERT_TRUE(e->Send(Text("x")));
  EXPECT_TRUE(RunUntil([&] { return e->TakeError() == ECONNREFUSED; }, 3 * kSecond));
  e->Close();
  echo->Close();
}

}  // namespace
}  // namespace redoubt::netstack
