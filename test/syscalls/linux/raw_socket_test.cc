// raw(7), icmp(7): sockets of IP protocols, and echo requests as datagrams, over the loopback.
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/icmp.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"

namespace redoubt::testing {
namespace {

sockaddr_in Loopback4(uint16_t port = 0) {
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_port = htons(port);
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return a;
}
sockaddr_in6 Loopback6() {
  sockaddr_in6 a{};
  a.sin6_family = AF_INET6;
  a.sin6_addr = in6addr_loopback;
  return a;
}
template <typename T>
const sockaddr* Any(const T& a) {
  return reinterpret_cast<const sockaddr*>(&a);
}
uint16_t Checksum(const std::string& s) {
  uint32_t sum = 0;
  for (size_t i = 0; i < s.size(); i += 2) {
    uint16_t word = 0;
    std::memcpy(&word, s.data() + i, std::min<size_t>(2, s.size() - i));
    sum += word;
  }
  while ((sum >> 16) != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}
std::string Echo(uint8_t type, uint16_t id, uint16_t sequence, const std::string& text, bool checksum = true) {
  icmphdr h{};
  h.type = type;
  h.un.echo.id = htons(id);
  h.un.echo.sequence = htons(sequence);
  std::string s(reinterpret_cast<const char*>(&h), sizeof(h));
  s += text;
  uint16_t sum = checksum ? Checksum(s) : 0;
  std::memcpy(s.data() + 2, &sum, sizeof(sum));
  return s;
}
ScopedFd Socket(int family, int type, int protocol) {
  ScopedFd s(socket(family, type | SOCK_CLOEXEC, protocol));
  EXPECT_GE(s.get(), 0) << strerror(errno);
  timeval limit{.tv_sec = 10, .tv_usec = 0};
  setsockopt(s.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  return s;
}
std::string Receive(const ScopedFd& s, int flags = 0) {
  std::string buffer(70000, '\0');
  ssize_t n = recv(s.get(), buffer.data(), buffer.size(), flags);
  if (n < 0) return ErrnoName(errno);
  buffer.resize(static_cast<size_t>(n));
  return buffer;
}
// The ICMP message of a packet with an IPv4 header, which is checked.
std::string Icmp4(const std::string& packet) {
  EXPECT_GE(packet.size(), sizeof(iphdr) + sizeof(icmphdr));
  if (packet.size() < sizeof(iphdr)) return "";
  iphdr ip;
  std::memcpy(&ip, packet.data(), sizeof(ip));
  EXPECT_EQ(ip.version, 4);
  EXPECT_EQ(ip.protocol, IPPROTO_ICMP);
  EXPECT_EQ(ntohs(ip.tot_len), packet.size());
  EXPECT_EQ(ip.daddr, htonl(INADDR_LOOPBACK));
  return packet.substr(ip.ihl * 4u);
}

TEST(Raw, NeedsTheCapability) {
  EXPECT_EQ(RunAsNobody([] {
              for (int family : {AF_INET, AF_INET6}) {
                EXPECT_THAT(socket(family, SOCK_RAW, family == AF_INET ? int{IPPROTO_ICMP} : int{IPPROTO_ICMPV6}),
                            SyscallFails(EPERM));
              }
            }),
            0);
  EXPECT_THAT(socket(AF_INET, SOCK_RAW, 0), SyscallFails(EPROTONOSUPPORT));
}

TEST(Raw, SeesRequestAndAnswerWithTheirHeaders) {
  ScopedFd s = Socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
  const std::string request = Echo(ICMP_ECHO, 4711, 1, "hello");
  const sockaddr_in to = Loopback4();
  ASSERT_EQ(sendto(s.get(), request.data(), request.size(), 0, Any(to), sizeof(to)),
            static_cast<ssize_t>(request.size()));
  // On a loopback the request comes by as well.
  EXPECT_EQ(Icmp4(Receive(s)), request);
  EXPECT_EQ(Icmp4(Receive(s)), Echo(ICMP_ECHOREPLY, 4711, 1, "hello"));
}

TEST(Raw, TheFilterKeepsTypesOut) {
  ScopedFd s = Socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
  icmp_filter filter{.data = ~(1u << ICMP_ECHOREPLY)};
  ASSERT_EQ(setsockopt(s.get(), SOL_RAW, ICMP_FILTER, &filter, sizeof(filter)), 0);
  icmp_filter got{};
  socklen_t length = sizeof(got);
  ASSERT_EQ(getsockopt(s.get(), SOL_RAW, ICMP_FILTER, &got, &length), 0);
  EXPECT_EQ(got.data, filter.data);
  EXPECT_EQ(length, sizeof(got));
  const std::string request = Echo(ICMP_ECHO, 4712, 1, "filtered");
  const sockaddr_in to = Loopback4();
  ASSERT_EQ(connect(s.get(), Any(to), sizeof(to)), 0);
  ASSERT_EQ(send(s.get(), request.data(), request.size(), 0), static_cast<ssize_t>(request.size()));
  EXPECT_EQ(Icmp4(Receive(s)), Echo(ICMP_ECHOREPLY, 4712, 1, "filtered"));
  EXPECT_EQ(Receive(s, MSG_DONTWAIT), ErrnoName(EAGAIN));
}

TEST(Raw, OfIpv6HaveNoHeaderAndGetTheirChecksum) {
  ScopedFd s = Socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);
  icmp6_filter filter;
  ICMP6_FILTER_SETBLOCKALL(&filter);
  ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &filter);
  ASSERT_EQ(setsockopt(s.get(), IPPROTO_ICMPV6, ICMP6_FILTER, &filter, sizeof(filter)), 0);
  const std::string request = Echo(ICMP6_ECHO_REQUEST, 4713, 1, "six", false);
  const sockaddr_in6 to = Loopback6();
  ASSERT_EQ(sendto(s.get(), request.data(), request.size(), 0, Any(to), sizeof(to)),
            static_cast<ssize_t>(request.size()));
  std::string reply = Receive(s);
  ASSERT_EQ(reply.size(), request.size());
  EXPECT_EQ(static_cast<uint8_t>(reply[0]), ICMP6_ECHO_REPLY);
  EXPECT_NE(reply.substr(2, 2), std::string(2, '\0')) << "a checksum";
  EXPECT_EQ(reply.substr(4), request.substr(4));
}

TEST(Raw, HeadersMayBeTheirOwn) {
  ScopedFd icmp = Socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
  for (int on : {1, 0}) {
    EXPECT_EQ(setsockopt(icmp.get(), IPPROTO_IP, IP_HDRINCL, &on, sizeof(on)), 0);
    int got = -1;
    socklen_t length = sizeof(got);
    EXPECT_EQ(getsockopt(icmp.get(), IPPROTO_IP, IP_HDRINCL, &got, &length), 0);
    EXPECT_EQ(got, on);
  }
  ScopedFd listener = Socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in name = Loopback4();
  ASSERT_EQ(bind(listener.get(), Any(name), sizeof(name)), 0);
  socklen_t length = sizeof(name);
  ASSERT_EQ(getsockname(listener.get(), reinterpret_cast<sockaddr*>(&name), &length), 0);
  // UDP by hand; without a checksum, which IPv4 allows.
  const std::string text = "by hand";
  const uint16_t udp[4] = {htons(9999), name.sin_port, htons(static_cast<uint16_t>(8 + text.size())), 0};
  iphdr ip{};
  ip.version = 4;
  ip.ihl = 5;
  ip.ttl = 3;
  ip.protocol = IPPROTO_UDP;
  ip.daddr = htonl(INADDR_LOOPBACK);
  ip.saddr = htonl(INADDR_LOOPBACK);
  std::string packet(reinterpret_cast<const char*>(&ip), sizeof(ip));
  packet += std::string(reinterpret_cast<const char*>(udp), sizeof(udp)) + text;
  ScopedFd raw = Socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
  ASSERT_EQ(sendto(raw.get(), packet.data(), packet.size(), 0, Any(name), sizeof(name)),
            static_cast<ssize_t>(packet.size()));
  char buffer[100];
  sockaddr_in from{};
  length = sizeof(from);
  ASSERT_EQ(recvfrom(listener.get(), buffer, sizeof(buffer), 0, reinterpret_cast<sockaddr*>(&from), &length),
            static_cast<ssize_t>(text.size()));
  EXPECT_EQ(std::string(buffer, text.size()), text);
  EXPECT_EQ(from.sin_port, htons(9999));
}

TEST(Raw, CopiesOfWhatUdpGets) {
  ScopedFd raw = Socket(AF_INET, SOCK_RAW, IPPROTO_UDP), udp = Socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in name = Loopback4();
  ASSERT_EQ(bind(udp.get(), Any(name), sizeof(name)), 0);
  socklen_t length = sizeof(name);
  ASSERT_EQ(getsockname(udp.get(), reinterpret_cast<sockaddr*>(&name), &length), 0);
  ASSERT_EQ(sendto(udp.get(), "both", 4, 0, Any(name), sizeof(name)), 4);
  EXPECT_EQ(Receive(udp), "both");
  // Others' datagrams pass by too.
  bool found = false;
  for (int i = 0; i < 100 && !found; i++) {
    std::string packet = Receive(raw);
    found = packet.size() == 20 + 8 + 4 && packet.substr(28) == "both";
  }
  EXPECT_TRUE(found);
}

TEST(Raw, NamesAndErrors) {
  ScopedFd s = Socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
  EXPECT_THAT(send(s.get(), "x", 1, 0), SyscallFails(EDESTADDRREQ));
  sockaddr_in name{};
  socklen_t length = sizeof(name);
  EXPECT_THAT(getpeername(s.get(), reinterpret_cast<sockaddr*>(&name), &length), SyscallFails(ENOTCONN));
  sockaddr_in other = Loopback4();
  other.sin_addr.s_addr = inet_addr("192.0.2.55");
  EXPECT_THAT(bind(s.get(), Any(other), sizeof(other)), SyscallFails(EADDRNOTAVAIL));
  const sockaddr_in own = Loopback4();
  EXPECT_EQ(bind(s.get(), Any(own), sizeof(own)), 0);
  length = sizeof(name);
  EXPECT_EQ(getsockname(s.get(), reinterpret_cast<sockaddr*>(&name), &length), 0);
  EXPECT_EQ(name.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
  EXPECT_EQ(ntohs(name.sin_port), IPPROTO_ICMP);
  EXPECT_THAT(listen(s.get(), 1), SyscallFails(EOPNOTSUPP));
}

// Linux lets nobody at first (net.ipv4.ping_group_range): in a network of its own everybody. A sandbox has no such
// file, and everybody may.
void InNetworkWithPing(const std::function<void()>& body) {
  EXPECT_EQ(RunChild([&] {
              if (unshare(CLONE_NEWNET) == 0) {
                ScopedFd control = Socket(AF_INET, SOCK_DGRAM, 0);
                ifreq r{};
                std::strcpy(r.ifr_name, "lo");
                r.ifr_flags = IFF_UP;
                EXPECT_EQ(ioctl(control.get(), SIOCSIFFLAGS, &r), 0);
                ScopedFd range(open("/proc/sys/net/ipv4/ping_group_range", O_WRONLY));
                if (range.get() >= 0) {
                  EXPECT_EQ(write(range.get(), "0 2147483647", 12), 12);
                }
              }
              body();
              return ::testing::Test::HasFailure() ? 1 : 0;
            }),
            0);
}

TEST(Ping, TheKernelFillsInTheIdentifier) {
  InNetworkWithPing([] {
    for (int family : {AF_INET, AF_INET6}) {
      const bool v4 = family == AF_INET;
      ScopedFd s = Socket(family, SOCK_DGRAM, v4 ? int{IPPROTO_ICMP} : int{IPPROTO_ICMPV6});
      const uint8_t request_type = v4 ? uint8_t{ICMP_ECHO} : uint8_t{ICMP6_ECHO_REQUEST};
      const uint8_t reply_type = v4 ? uint8_t{ICMP_ECHOREPLY} : uint8_t{ICMP6_ECHO_REPLY};
      sockaddr_in own4 = Loopback4(4242);
      sockaddr_in6 own6 = Loopback6();
      own6.sin6_port = htons(4242);
      ASSERT_EQ(v4 ? bind(s.get(), Any(own4), sizeof(own4)) : bind(s.get(), Any(own6), sizeof(own6)), 0);
      const std::string request = Echo(request_type, 1, 7, "datagram", false);
      const sockaddr_in to4 = Loopback4();
      const sockaddr_in6 to6 = Loopback6();
      ASSERT_EQ(v4 ? connect(s.get(), Any(to4), sizeof(to4)) : connect(s.get(), Any(to6), sizeof(to6)), 0);
      ASSERT_EQ(send(s.get(), request.data(), request.size(), 0), static_cast<ssize_t>(request.size()));
      std::string reply = Receive(s);
      ASSERT_EQ(reply.size(), request.size()) << reply;
      EXPECT_EQ(static_cast<uint8_t>(reply[0]), reply_type);
      icmphdr h;
      std::memcpy(&h, reply.data(), sizeof(h));
      EXPECT_EQ(ntohs(h.un.echo.id), 4242) << "the port";
      EXPECT_EQ(ntohs(h.un.echo.sequence), 7);
      EXPECT_EQ(reply.substr(8), "datagram");
      // Nothing but echo requests.
      const std::string other = Echo(reply_type, 1, 7, "datagram", false);
      EXPECT_THAT(send(s.get(), other.data(), other.size(), 0), SyscallFails(EINVAL));
    }
  });
}

}  // namespace
}  // namespace redoubt::testing
