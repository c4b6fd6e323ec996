// packet(7): frames as they go over the loopback. Natively in a network namespace of the test's own.
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/own_network.h"
#include "test/syscalls/util/scoped_fd.h"

namespace redoubt::testing {
namespace {

constexpr uint16_t kExperiment = 0x88b5;  // ETH_P_802_EX1
constexpr int kPort = 5791;

template <typename T>
const sockaddr* Any(const T& a) {
  return reinterpret_cast<const sockaddr*>(&a);
}
sockaddr_ll Link(int index, uint16_t protocol) {
  sockaddr_ll a{};
  a.sll_family = AF_PACKET;
  a.sll_protocol = htons(protocol);
  a.sll_ifindex = index;
  return a;
}

class Packet : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(EnterOwnNetwork());
    lo_ = static_cast<int>(if_nametoindex("lo"));
    ASSERT_GT(lo_, 0);
  }
  // Bound to the loopback.
  ScopedFd Open(int type, uint16_t protocol) const {
    ScopedFd s(socket(AF_PACKET, type | SOCK_CLOEXEC, 0));
    EXPECT_GE(s.get(), 0) << strerror(errno);
    timeval limit{.tv_sec = 10, .tv_usec = 0};
    EXPECT_OK(setsockopt(s.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)));
    const sockaddr_ll name = Link(lo_, protocol);
    EXPECT_OK(bind(s.get(), Any(name), sizeof(name)));
    return s;
  }
  // A datagram over IPv4's loopback, to a port where nobody is, from one where somebody is: an error comes back.
  void SendDatagram(const std::string& text) const {
    ScopedFd s(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(kPort);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_RETURNS(sendto(s.get(), text.data(), text.size(), 0, Any(to), sizeof(to)),
                   static_cast<ssize_t>(text.size()));
  }
  static std::string Frame(const std::string& text) {
    ether_header h{};
    h.ether_type = htons(kExperiment);
    return std::string(reinterpret_cast<const char*>(&h), sizeof(h)) + text;
  }
  static void Attach(const ScopedFd& s, std::vector<sock_filter> code) {
    sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
    ASSERT_OK(setsockopt(s.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)));
  }
  static void Set(const ScopedFd& s, int name, int value) {
    ASSERT_OK(setsockopt(s.get(), SOL_PACKET, name, &value, sizeof(value))) << name;
  }
  static int Get(const ScopedFd& s, int name, int given = 0) {
    socklen_t length = sizeof(given);
    return getsockopt(s.get(), SOL_PACKET, name, &given, &length) == 0 ? given : -errno;
  }

  int lo_ = 0;
};

struct Received {
  std::string bytes;
  sockaddr_ll from{};
  socklen_t from_length = 0;
  int flags = 0;
  tpacket_auxdata aux{};
  ssize_t result = -1;
  int error = 0;
};
Received Receive(const ScopedFd& s, int flags = 0, size_t room = 70000) {
  Received r;
  r.bytes.resize(room);
  iovec iov{r.bytes.data(), room};
  alignas(cmsghdr) char control[256];
  msghdr m{};
  m.msg_name = &r.from;
  m.msg_namelen = sizeof(r.from);
  m.msg_iov = &iov;
  m.msg_iovlen = 1;
  m.msg_control = control;
  m.msg_controllen = sizeof(control);
  r.result = recvmsg(s.get(), &m, flags);
  r.error = r.result < 0 ? errno : 0;
  r.bytes.resize(r.result < 0 ? 0 : std::min(room, static_cast<size_t>(r.result)));
  r.from_length = m.msg_namelen;
  r.flags = m.msg_flags;
  for (cmsghdr* c = CMSG_FIRSTHDR(&m); r.result >= 0 && c != nullptr; c = CMSG_NXTHDR(&m, c)) {
    if (c->cmsg_level == SOL_PACKET && c->cmsg_type == PACKET_AUXDATA) std::memcpy(&r.aux, CMSG_DATA(c), sizeof(r.aux));
  }
  return r;
}

TEST_F(Packet, NeedsTheCapability) {
  EXPECT_EQ(RunAsNobody([] {
              for (int type : {SOCK_RAW, SOCK_DGRAM}) EXPECT_ERRNO(socket(AF_PACKET, type, htons(ETH_P_ALL)), EPERM);
            }),
            0);
  EXPECT_ERRNO(socket(AF_PACKET, SOCK_STREAM, 0), ESOCKTNOSUPPORT);
}

TEST_F(Packet, ItsNameIsWhereItIsBound) {
  ScopedFd s(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ARP)));
  sockaddr_ll name{};
  socklen_t length = sizeof(name);
  ASSERT_OK(getsockname(s.get(), reinterpret_cast<sockaddr*>(&name), &length));
  EXPECT_EQ(length, 12u);
  EXPECT_EQ(name.sll_family, AF_PACKET);
  EXPECT_EQ(name.sll_protocol, htons(ETH_P_ARP));
  EXPECT_EQ(name.sll_ifindex, 0);
  // Without a protocol the old one stays.
  sockaddr_ll to = Link(lo_, 0);
  ASSERT_OK(bind(s.get(), Any(to), sizeof(to)));
  length = sizeof(name);
  ASSERT_OK(getsockname(s.get(), reinterpret_cast<sockaddr*>(&name), &length));
  EXPECT_EQ(length, 18u);
  EXPECT_EQ(name.sll_protocol, htons(ETH_P_ARP));
  EXPECT_EQ(name.sll_ifindex, lo_);
  EXPECT_EQ(name.sll_hatype, ARPHRD_LOOPBACK);
  EXPECT_EQ(name.sll_halen, 6);
  EXPECT_ERRNO(bind(s.get(), Any(to), sizeof(to) - 1), EINVAL);
  to.sll_family = AF_INET;
  EXPECT_ERRNO(bind(s.get(), Any(to), sizeof(to)), EINVAL);
  to = Link(9999, ETH_P_IP);
  EXPECT_ERRNO(bind(s.get(), Any(to), sizeof(to)), ENODEV);
  EXPECT_ERRNO(getpeername(s.get(), reinterpret_cast<sockaddr*>(&name), &length), EOPNOTSUPP);
  to = Link(lo_, ETH_P_IP);
  EXPECT_ERRNO(connect(s.get(), Any(to), sizeof(to)), EOPNOTSUPP);
  EXPECT_ERRNO(listen(s.get(), 1), EOPNOTSUPP);
  EXPECT_ERRNO(shutdown(s.get(), SHUT_RD), EOPNOTSUPP);
}

TEST_F(Packet, SeesWhatGoesOverTheLoopbackTwice) {
  ScopedFd s = Open(SOCK_RAW, ETH_P_ALL);
  SendDatagram("hello");
  for (uint8_t type : {PACKET_OUTGOING, PACKET_HOST}) {
    const Received r = Receive(s);
    ASSERT_EQ(r.result, static_cast<ssize_t>(sizeof(ether_header) + sizeof(iphdr) + sizeof(udphdr) + 5));
    EXPECT_EQ(r.from_length, sizeof(sockaddr_ll));
    EXPECT_EQ(r.from.sll_family, AF_PACKET);
    EXPECT_EQ(r.from.sll_protocol, htons(ETH_P_IP));
    EXPECT_EQ(r.from.sll_ifindex, lo_);
    EXPECT_EQ(r.from.sll_hatype, ARPHRD_LOOPBACK);
    EXPECT_EQ(r.from.sll_pkttype, type);
    EXPECT_EQ(r.from.sll_halen, 6);
    EXPECT_EQ(r.bytes.substr(r.bytes.size() - 5), "hello");
    EXPECT_EQ(r.bytes.substr(0, 12), std::string(12, '\0'));
    EXPECT_EQ(r.bytes[sizeof(ether_header)], 0x45);
  }
}

TEST_F(Packet, CookedOnesHaveNoLinkHeader) {
  ScopedFd s = Open(SOCK_DGRAM, ETH_P_IP);
  SendDatagram("hello");
  // With a protocol of its own nothing that goes out.
  const Received r = Receive(s);
  ASSERT_EQ(r.result, static_cast<ssize_t>(sizeof(iphdr) + sizeof(udphdr) + 5));
  EXPECT_EQ(r.from.sll_pkttype, PACKET_HOST);
  EXPECT_EQ(r.bytes[0], 0x45);
}

TEST_F(Packet, WithoutAProtocolThereIsNothing) {
  ScopedFd s = Open(SOCK_RAW, 0);
  SendDatagram("hello");
  EXPECT_EQ(Receive(s, MSG_DONTWAIT).error, EAGAIN);
}

TEST_F(Packet, OutgoingOnesCanBeLeftOut) {
  ScopedFd s = Open(SOCK_RAW, ETH_P_ALL);
  Set(s, PACKET_IGNORE_OUTGOING, 1);
  EXPECT_EQ(Get(s, PACKET_IGNORE_OUTGOING), 1);
  int two = 2;
  EXPECT_ERRNO(setsockopt(s.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &two, sizeof(two)), EINVAL);
  SendDatagram("hello");
  EXPECT_EQ(Receive(s).from.sll_pkttype, PACKET_HOST);
}

TEST_F(Packet, LongFramesAreCut) {
  ScopedFd s = Open(SOCK_DGRAM, ETH_P_IP);
  SendDatagram(std::string(100, 'x'));
  const ssize_t whole = sizeof(iphdr) + sizeof(udphdr) + 100;
  Received r = Receive(s, MSG_PEEK, 10);
  EXPECT_EQ(r.result, 10);
  EXPECT_NE(r.flags & MSG_TRUNC, 0);
  int first = 0;
  EXPECT_OK(ioctl(s.get(), FIONREAD, &first));
  EXPECT_EQ(first, whole);
  r = Receive(s, MSG_TRUNC, 10);
  EXPECT_EQ(r.result, whole);
  EXPECT_NE(r.flags & MSG_TRUNC, 0);
  EXPECT_EQ(recv(s.get(), nullptr, 0, MSG_OOB), -1);
  EXPECT_EQ(errno, EINVAL);
}

TEST_F(Packet, RawOnesSendWholeFrames) {
  ScopedFd sender = Open(SOCK_RAW, 0);
  ScopedFd reader = Open(SOCK_RAW, kExperiment);
  const std::string frame = Frame("some bytes");
  ASSERT_RETURNS(send(sender.get(), frame.data(), frame.size(), 0), static_cast<ssize_t>(frame.size()));
  const Received r = Receive(reader);
  EXPECT_EQ(r.bytes, frame);
  EXPECT_EQ(r.from.sll_protocol, htons(kExperiment));
  EXPECT_EQ(r.from.sll_pkttype, PACKET_HOST);
  EXPECT_ERRNO(send(sender.get(), frame.data(), 13, 0), EINVAL);
  std::string large(65536 + 15, 'x');
  EXPECT_ERRNO(send(sender.get(), large.data(), large.size(), 0), EMSGSIZE);
  sockaddr_ll to = Link(9999, kExperiment);
  EXPECT_ERRNO(sendto(sender.get(), frame.data(), frame.size(), 0, Any(to), sizeof(to)), ENXIO);
  EXPECT_ERRNO(sendto(sender.get(), frame.data(), frame.size(), 0, Any(to), 19), EINVAL);
  ScopedFd unbound(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
  EXPECT_ERRNO(send(unbound.get(), frame.data(), frame.size(), 0), ENXIO);
}

TEST_F(Packet, DoesNotSeeItsOwnOutgoingFrames) {
  ScopedFd s = Open(SOCK_RAW, ETH_P_ALL);
  const std::string frame = Frame("x");
  ASSERT_RETURNS(send(s.get(), frame.data(), frame.size(), 0), static_cast<ssize_t>(frame.size()));
  EXPECT_EQ(Receive(s).from.sll_pkttype, PACKET_HOST);
  EXPECT_EQ(Receive(s, MSG_DONTWAIT).error, EAGAIN);
}

TEST_F(Packet, CookedOnesSendToALinkAddress) {
  ScopedFd sender = Open(SOCK_DGRAM, 0);
  ScopedFd reader = Open(SOCK_RAW, kExperiment);
  sockaddr_ll to = Link(lo_, kExperiment);
  to.sll_halen = 6;
  ASSERT_RETURNS(sendto(sender.get(), "text", 4, 0, Any(to), sizeof(to)), 4);
  EXPECT_EQ(Receive(reader).bytes, Frame("text"));
  to.sll_halen = 20;
  EXPECT_ERRNO(sendto(sender.get(), "text", 4, 0, Any(to), sizeof(to)), EINVAL);
}

TEST_F(Packet, AFilterChoosesAndCuts) {
  ScopedFd s = Open(SOCK_RAW, ETH_P_ALL);
  // Incoming UDP to our port: 30 bytes of it.
  Attach(s, {BPF_STMT(BPF_LD | BPF_B | BPF_ABS, static_cast<uint32_t>(SKF_AD_OFF + SKF_AD_PKTTYPE)),
             BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_HOST, 0, 8),
             BPF_STMT(BPF_LD | BPF_H | BPF_ABS, static_cast<uint32_t>(SKF_AD_OFF + SKF_AD_PROTOCOL)),
             BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 0, 6),
             BPF_STMT(BPF_LD | BPF_B | BPF_ABS, static_cast<uint32_t>(SKF_NET_OFF + 9)),
             BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_UDP, 0, 4), BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 14),
             BPF_STMT(BPF_LD | BPF_H | BPF_IND, 14 + 2), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kPort, 0, 1),
             BPF_STMT(BPF_RET | BPF_K, 30), BPF_STMT(BPF_RET | BPF_K, 0)});
  Set(s, PACKET_AUXDATA, 1);
  SendDatagram("hello");
  const Received r = Receive(s);
  EXPECT_EQ(r.result, 30);
  EXPECT_EQ(r.from.sll_pkttype, PACKET_HOST);
  EXPECT_EQ(r.flags & MSG_TRUNC, 0);
  EXPECT_EQ(r.aux.tp_len, sizeof(ether_header) + sizeof(iphdr) + sizeof(udphdr) + 5);
  EXPECT_EQ(r.aux.tp_snaplen, 30u);
  EXPECT_EQ(r.aux.tp_net, 14);
  EXPECT_EQ(r.aux.tp_status & (TP_STATUS_USER | TP_STATUS_VLAN_VALID), unsigned{TP_STATUS_USER});
  EXPECT_EQ(Receive(s, MSG_DONTWAIT).error, EAGAIN);
}

TEST_F(Packet, FiltersAreAttachedReadAndLocked) {
  ScopedFd s = Open(SOCK_RAW, ETH_P_ALL);
  auto detach = [&] {
    int ignored = 0;
    return setsockopt(s.get(), SOL_SOCKET, SO_DETACH_FILTER, &ignored, sizeof(ignored));
  };
  EXPECT_ERRNO(detach(), ENOENT);
  std::vector<sock_filter> bad = {BPF_STMT(BPF_LD | BPF_IMM, 1)};
  sock_fprog program{1, bad.data()};
  EXPECT_ERRNO(setsockopt(s.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)), EINVAL);
  EXPECT_ERRNO(setsockopt(s.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program) - 1), EINVAL);
  program = {1, reinterpret_cast<sock_filter*>(8)};
  EXPECT_ERRNO(setsockopt(s.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)), EFAULT);
  program = {0, bad.data()};
  EXPECT_ERRNO(setsockopt(s.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)), EINVAL);
  Attach(s, {BPF_STMT(BPF_LD | BPF_IMM, 5), BPF_STMT(BPF_RET | BPF_A, 0)});
  sock_filter got[3] = {};
  socklen_t length = 0;  // in instructions
  ASSERT_OK(getsockopt(s.get(), SOL_SOCKET, SO_GET_FILTER, got, &length));
  EXPECT_EQ(length, 2u);
  length = 1;
  EXPECT_ERRNO(getsockopt(s.get(), SOL_SOCKET, SO_GET_FILTER, got, &length), EINVAL);
  length = 3;
  ASSERT_OK(getsockopt(s.get(), SOL_SOCKET, SO_GET_FILTER, got, &length));
  EXPECT_EQ(length, 2u);
  EXPECT_EQ(got[0].k, 5u);
  EXPECT_EQ(got[1].code, BPF_RET | BPF_A);
  EXPECT_OK(detach());
  EXPECT_ERRNO(detach(), ENOENT);
  Attach(s, {BPF_STMT(BPF_RET | BPF_K, 5)});
  int on = 1, off = 0;
  ASSERT_OK(setsockopt(s.get(), SOL_SOCKET, SO_LOCK_FILTER, &on, sizeof(on)));
  EXPECT_ERRNO(setsockopt(s.get(), SOL_SOCKET, SO_LOCK_FILTER, &off, sizeof(off)), EPERM);
  EXPECT_ERRNO(detach(), EPERM);
  std::vector<sock_filter> good = {BPF_STMT(BPF_RET | BPF_K, 1)};
  program = {1, good.data()};
  EXPECT_ERRNO(setsockopt(s.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)), EPERM);
  int extensions = 0;
  length = sizeof(extensions);
  ASSERT_OK(getsockopt(s.get(), SOL_SOCKET, SO_BPF_EXTENSIONS, &extensions, &length));
  EXPECT_EQ(extensions, SKF_AD_MAX);
}

TEST_F(Packet, FiltersOfUdpAreAboutItsHeaderToo) {
  ScopedFd udp(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  name.sin_port = htons(kPort);
  ASSERT_OK(bind(udp.get(), Any(name), sizeof(name)));
  // What begins with a 'b': two bytes.
  Attach(udp, {BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 8), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 'b', 0, 1),
               BPF_STMT(BPF_RET | BPF_K, 10), BPF_STMT(BPF_RET | BPF_K, 0)});
  SendDatagram("a first");
  SendDatagram("b second");
  char text[100];
  EXPECT_RETURNS(recv(udp.get(), text, sizeof(text), 0), 2);
  EXPECT_EQ(std::string(text, 2), "b ");
  EXPECT_ERRNO(recv(udp.get(), text, sizeof(text), MSG_DONTWAIT), EAGAIN);
}

// PACKET_FANOUT: a group's members share the frames.
class Fanout : public Packet {
 protected:
  static int Join(const ScopedFd& s, int id, int how) {
    const int value = id | how << 16;
    return setsockopt(s.get(), SOL_PACKET, PACKET_FANOUT, &value, sizeof(value));
  }
  // So many datagrams, each from another port; how many frames each of the sockets has got, by source port.
  std::vector<std::map<uint16_t, int>> Share(const std::vector<const ScopedFd*>& sockets, int datagrams) const {
    for (int i = 0; i < datagrams; i++) SendDatagram("x");
    std::vector<std::map<uint16_t, int>> got(sockets.size());
    for (size_t i = 0; i < sockets.size(); i++) {
      std::string frame(2000, '\0');
      ssize_t n;
      while ((n = recv(sockets[i]->get(), frame.data(), frame.size(), MSG_DONTWAIT)) > 0) {
        if (static_cast<size_t>(n) < sizeof(iphdr) + sizeof(udphdr) || frame[9] != IPPROTO_UDP) continue;
        udphdr udp;
        std::memcpy(&udp, frame.data() + sizeof(iphdr), sizeof(udp));
        got[i][ntohs(udp.source)]++;
      }
    }
    return got;
  }
  static int Sum(const std::map<uint16_t, int>& flows) {
    int sum = 0;
    for (const auto& [port, n] : flows) sum += n;
    return sum;
  }
};

TEST_F(Fanout, ByHashAFlowStaysWithItsSocket) {
  ScopedFd a = Open(SOCK_DGRAM, ETH_P_IP), b = Open(SOCK_DGRAM, ETH_P_IP);
  ASSERT_OK(Join(a, 77, PACKET_FANOUT_HASH));
  ASSERT_OK(Join(b, 77, PACKET_FANOUT_HASH));
  EXPECT_EQ(Get(a, PACKET_FANOUT), 77 | PACKET_FANOUT_HASH << 16);
  const auto got = Share({&a, &b}, 64);
  EXPECT_EQ(Sum(got[0]) + Sum(got[1]), 64);
  EXPECT_GT(Sum(got[0]), 0);
  EXPECT_GT(Sum(got[1]), 0);
  for (const auto& [port, n] : got[0]) EXPECT_FALSE(got[1].contains(port)) << port;
}

TEST_F(Fanout, ByTurns) {
  ScopedFd a = Open(SOCK_DGRAM, ETH_P_IP), b = Open(SOCK_DGRAM, ETH_P_IP);
  ASSERT_OK(Join(a, 78, PACKET_FANOUT_LB));
  ASSERT_OK(Join(b, 78, PACKET_FANOUT_LB));
  // Somebody who listens, or errors would take turns too.
  ScopedFd udp(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  name.sin_port = htons(kPort);
  ASSERT_OK(bind(udp.get(), Any(name), sizeof(name)));
  const auto got = Share({&a, &b}, 32);
  EXPECT_EQ(Sum(got[0]) + Sum(got[1]), 32);
  EXPECT_GE(Sum(got[0]), 8);
  EXPECT_GE(Sum(got[1]), 8);
}

TEST_F(Fanout, ByProcessorAllGoToOneOfThem) {
  ScopedFd a = Open(SOCK_DGRAM, ETH_P_IP), b = Open(SOCK_DGRAM, ETH_P_IP);
  ASSERT_OK(Join(a, 79, PACKET_FANOUT_CPU));
  ASSERT_OK(Join(b, 79, PACKET_FANOUT_CPU));
  const auto got = Share({&a, &b}, 16);
  EXPECT_EQ(Sum(got[0]) + Sum(got[1]), 16);
}

TEST_F(Fanout, WhoIsLeftGetsAll) {
  ScopedFd a = Open(SOCK_DGRAM, ETH_P_IP);
  {
    ScopedFd b = Open(SOCK_DGRAM, ETH_P_IP);
    ASSERT_OK(Join(b, 80, PACKET_FANOUT_LB));
    ASSERT_OK(Join(a, 80, PACKET_FANOUT_LB));
  }
  EXPECT_EQ(Sum(Share({&a}, 8)[0]), 8);
}

TEST_F(Fanout, OutgoingFramesMayBeLeftOut) {
  // Over the loopback each goes as one that leaves and as one that comes.
  ScopedFd a = Open(SOCK_DGRAM, ETH_P_ALL), all = Open(SOCK_DGRAM, ETH_P_ALL);
  ASSERT_OK(Join(a, 81, PACKET_FANOUT_HASH | 0x4000 /* PACKET_FANOUT_FLAG_IGNORE_OUTGOING */));
  const auto got = Share({&a, &all}, 8);
  EXPECT_EQ(Sum(got[0]), 8);
  EXPECT_EQ(Sum(got[1]), 16);
}

TEST_F(Fanout, Errors) {
  ScopedFd a = Open(SOCK_DGRAM, ETH_P_IP), b = Open(SOCK_DGRAM, ETH_P_IP), other = Open(SOCK_DGRAM, ETH_P_ARP);
  ScopedFd unbound(socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(Get(a, PACKET_FANOUT), 0);
  EXPECT_ERRNO(Join(unbound, 82, PACKET_FANOUT_HASH), EINVAL);
  ASSERT_OK(Join(a, 82, PACKET_FANOUT_HASH));
  EXPECT_ERRNO(Join(a, 82, PACKET_FANOUT_HASH), EALREADY);
  EXPECT_ERRNO(Join(b, 82, PACKET_FANOUT_LB), EINVAL);
  EXPECT_ERRNO(Join(b, 82, 99), EINVAL);
  EXPECT_ERRNO(Join(other, 82, PACKET_FANOUT_HASH), EINVAL);  // of another protocol
  const sockaddr_ll name = Link(lo_, ETH_P_IP);
  EXPECT_ERRNO(bind(a.get(), Any(name), sizeof(name)), EINVAL);
  const short few = 0;
  EXPECT_ERRNO(setsockopt(b.get(), SOL_PACKET, PACKET_FANOUT, &few, sizeof(few)), EINVAL);
}

TEST_F(Packet, MembershipsAreCounted) {
  ScopedFd s = Open(SOCK_RAW, ETH_P_ALL);
  packet_mreq request{};
  request.mr_ifindex = lo_;
  request.mr_type = PACKET_MR_PROMISC;
  auto change = [&](int name, size_t size = sizeof(packet_mreq)) {
    return setsockopt(s.get(), SOL_PACKET, name, &request, static_cast<socklen_t>(size));
  };
  EXPECT_OK(change(PACKET_ADD_MEMBERSHIP));
  EXPECT_OK(change(PACKET_ADD_MEMBERSHIP));
  EXPECT_OK(change(PACKET_DROP_MEMBERSHIP));
  EXPECT_OK(change(PACKET_DROP_MEMBERSHIP));
  EXPECT_OK(change(PACKET_DROP_MEMBERSHIP));  // one that is not there
  EXPECT_ERRNO(change(PACKET_ADD_MEMBERSHIP, sizeof(packet_mreq) - 1), EINVAL);
  request.mr_type = PACKET_MR_ALLMULTI;
  EXPECT_OK(change(PACKET_ADD_MEMBERSHIP));
  request.mr_ifindex = 9999;
  EXPECT_ERRNO(change(PACKET_ADD_MEMBERSHIP), ENODEV);
}

TEST_F(Packet, StatisticsStartAnewWhenTheyAreRead) {
  ScopedFd s = Open(SOCK_RAW, kExperiment);
  int small = 1;  // the least there is
  ASSERT_OK(setsockopt(s.get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)));
  ScopedFd sender = Open(SOCK_RAW, 0);
  const std::string frame = Frame(std::string(1000, 'x'));
  for (int i = 0; i < 50; i++) ASSERT_OK(send(sender.get(), frame.data(), frame.size(), 0));
  tpacket_stats statistics{};
  socklen_t length = sizeof(statistics);
  ASSERT_OK(getsockopt(s.get(), SOL_PACKET, PACKET_STATISTICS, &statistics, &length));
  EXPECT_EQ(length, sizeof(statistics));
  EXPECT_EQ(statistics.tp_packets, 50u);
  EXPECT_GT(statistics.tp_drops, 0u);
  EXPECT_LT(statistics.tp_drops, 50u);
  ASSERT_OK(getsockopt(s.get(), SOL_PACKET, PACKET_STATISTICS, &statistics, &length));
  EXPECT_EQ(statistics.tp_packets, 0u);
}

TEST_F(Packet, HeadersHaveALengthByVersion) {
  ScopedFd s = Open(SOCK_RAW, ETH_P_ALL);
  EXPECT_EQ(Get(s, PACKET_VERSION), TPACKET_V1);
  EXPECT_EQ(Get(s, PACKET_HDRLEN, TPACKET_V1), static_cast<int>(sizeof(tpacket_hdr)));
  EXPECT_EQ(Get(s, PACKET_HDRLEN, TPACKET_V2), static_cast<int>(sizeof(tpacket2_hdr)));
  EXPECT_EQ(Get(s, PACKET_HDRLEN, 77), -EINVAL);
  Set(s, PACKET_VERSION, TPACKET_V2);
  EXPECT_EQ(Get(s, PACKET_VERSION), TPACKET_V2);
  int bad = 77;
  EXPECT_ERRNO(setsockopt(s.get(), SOL_PACKET, PACKET_VERSION, &bad, sizeof(bad)), EINVAL);
  Set(s, PACKET_RESERVE, 32);
  EXPECT_EQ(Get(s, PACKET_RESERVE), 32);
  EXPECT_EQ(Get(s, 12345), -ENOPROTOOPT);
}

class PacketRing : public Packet {
 protected:
  static constexpr uint32_t kFrame = 2048, kBlock = 4096, kBlocks = 4;
  static constexpr tpacket_req kRequest{kBlock, kBlocks, kFrame, kBlock / kFrame* kBlocks};

  static int SetRing(const ScopedFd& s, const tpacket_req& request) {
    return setsockopt(s.get(), SOL_PACKET, PACKET_RX_RING, &request, sizeof(request));
  }
  // False: nothing came.
  static bool Wait(const ScopedFd& s, int milliseconds = 10000) {
    pollfd p{.fd = s.get(), .events = POLLIN, .revents = 0};
    return poll(&p, 1, milliseconds) == 1 && (p.revents & POLLIN) != 0;
  }
};

TEST_F(PacketRing, ItsShapeIsChecked) {
  ScopedFd s = Open(SOCK_RAW, kExperiment);
  Set(s, PACKET_VERSION, TPACKET_V2);
  for (const tpacket_req& bad : {tpacket_req{1000, 4, 500, 8}, tpacket_req{4096, 4, 2048, 7},
                                 tpacket_req{4096, 4, 16, 1024}, tpacket_req{4096, 4, 8192, 4},
                                 tpacket_req{4096, 4, 1001, 16}, tpacket_req{0, 4, 2048, 8}, tpacket_req{0, 0, 0, 8}}) {
    EXPECT_ERRNO(SetRing(s, bad), EINVAL) << bad.tp_block_size << " " << bad.tp_frame_size;
  }
  EXPECT_ERRNO(setsockopt(s.get(), SOL_PACKET, PACKET_RX_RING, &kRequest, sizeof(kRequest) - 1), EINVAL);
  EXPECT_EQ(mmap(nullptr, kBlock * kBlocks, PROT_READ | PROT_WRITE, MAP_SHARED, s.get(), 0), MAP_FAILED);
  EXPECT_EQ(errno, EINVAL);
  ASSERT_OK(SetRing(s, kRequest));
  EXPECT_ERRNO(SetRing(s, kRequest), EBUSY);
  int v = TPACKET_V1;
  EXPECT_ERRNO(setsockopt(s.get(), SOL_PACKET, PACKET_VERSION, &v, sizeof(v)), EBUSY);
  EXPECT_ERRNO(setsockopt(s.get(), SOL_PACKET, PACKET_RESERVE, &v, sizeof(v)), EBUSY);
  EXPECT_EQ(mmap(nullptr, kBlock, PROT_READ | PROT_WRITE, MAP_SHARED, s.get(), 0), MAP_FAILED);
  EXPECT_EQ(mmap(nullptr, kBlock, PROT_READ | PROT_WRITE, MAP_SHARED, s.get(), kBlock), MAP_FAILED);
  void* ring = mmap(nullptr, kBlock * kBlocks, PROT_READ | PROT_WRITE, MAP_SHARED, s.get(), 0);
  ASSERT_NE(ring, MAP_FAILED);
  const tpacket_req none{};
  EXPECT_ERRNO(SetRing(s, none), EBUSY);
  munmap(ring, kBlock * kBlocks);
  EXPECT_OK(SetRing(s, none));
  EXPECT_OK(SetRing(s, kRequest));
}

TEST_F(PacketRing, OneLargerThanTheMemoryIsRefused) {
  ScopedFd s = Open(SOCK_RAW, kExperiment);
  EXPECT_ERRNO(SetRing(s, {4096, 1 << 28, 4096, 1 << 28}), ENOMEM);
}

template <typename Header>
struct Layout;
template <>
struct Layout<tpacket_hdr> {
  static constexpr int kVersion = TPACKET_V1;
};
template <>
struct Layout<tpacket2_hdr> {
  static constexpr int kVersion = TPACKET_V2;
};

template <typename Header>
class PacketRingOf : public PacketRing {
 protected:
  // The status is shared with who fills the ring.
  static auto Status(Header* h) { return std::atomic_ref(h->tp_status); }
};
using Headers = ::testing::Types<tpacket_hdr, tpacket2_hdr>;
TYPED_TEST_SUITE(PacketRingOf, Headers);

TYPED_TEST(PacketRingOf, FramesComeInOrderUntilThereIsNoRoom) {
  using Header = TypeParam;
  using Self = PacketRingOf<TypeParam>;
  constexpr uint32_t kFrame = Self::kFrame, kSize = Self::kBlock * Self::kBlocks, kFrames = kSize / kFrame;
  ScopedFd s = this->Open(SOCK_RAW, kExperiment);
  Self::Set(s, PACKET_VERSION, Layout<Header>::kVersion);
  Self::Set(s, PACKET_RESERVE, 16);
  ASSERT_OK(Self::SetRing(s, Self::kRequest));
  void* memory = mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, s.get(), 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto place = [&](uint32_t i) { return reinterpret_cast<Header*>(static_cast<char*>(memory) + i * kFrame); };
  EXPECT_FALSE(Self::Wait(s, 0));
  ScopedFd sender = this->Open(SOCK_RAW, 0);
  auto send_one = [&](const std::string& text) {
    const std::string frame = Self::Frame(text);
    ASSERT_OK(send(sender.get(), frame.data(), frame.size(), 0));
  };
  // Two rounds, each place given back.
  for (uint32_t i = 0; i < 2 * kFrames; i++) {
    const std::string text = "frame " + std::to_string(i);
    send_one(text);
    ASSERT_TRUE(Self::Wait(s));
    Header* h = place(i % kFrames);
    ASSERT_NE(Self::Status(h).load() & TP_STATUS_USER, 0u) << i;
    EXPECT_EQ(h->tp_len, 14 + text.size());
    EXPECT_EQ(h->tp_snaplen, 14 + text.size());
    EXPECT_EQ(h->tp_net, h->tp_mac + 14);
    EXPECT_GT(h->tp_sec, 1'000'000'000u);
    EXPECT_EQ(std::string(reinterpret_cast<char*>(h) + h->tp_mac, h->tp_snaplen), Self::Frame(text));
    sockaddr_ll from;
    std::memcpy(&from, reinterpret_cast<char*>(h) + TPACKET_ALIGN(sizeof(Header)), sizeof(from));
    EXPECT_EQ(from.sll_family, AF_PACKET);
    EXPECT_EQ(from.sll_protocol, htons(kExperiment));
    EXPECT_EQ(from.sll_ifindex, this->lo_);
    EXPECT_EQ(from.sll_pkttype, PACKET_HOST);
    Self::Status(h).store(TP_STATUS_KERNEL);
    EXPECT_FALSE(Self::Wait(s, 0));
  }
  char byte;
  EXPECT_ERRNO(recv(s.get(), &byte, 1, MSG_DONTWAIT), EAGAIN);  // nothing goes the other way
  for (uint32_t i = 0; i < kFrames + 3; i++) send_one("x");
  tpacket_stats statistics{};
  socklen_t length = sizeof(statistics);
  ASSERT_OK(getsockopt(s.get(), SOL_PACKET, PACKET_STATISTICS, &statistics, &length));
  EXPECT_EQ(statistics.tp_packets, 3 * kFrames + 3);
  EXPECT_EQ(statistics.tp_drops, 3u);
  // A frame that is too long is cut.
  Self::Status(place(0)).store(TP_STATUS_KERNEL);
  send_one(std::string(3000, 'y'));
  EXPECT_EQ(place(0)->tp_len, 3014u);
  EXPECT_EQ(place(0)->tp_snaplen, kFrame - place(0)->tp_mac);
  munmap(memory, kSize);
}

TYPED_TEST(PacketRingOf, CookedFramesBeginAtTheNetworkHeader) {
  using Header = TypeParam;
  using Self = PacketRingOf<TypeParam>;
  ScopedFd s = this->Open(SOCK_DGRAM, kExperiment);
  Self::Set(s, PACKET_VERSION, Layout<Header>::kVersion);
  ASSERT_OK(Self::SetRing(s, Self::kRequest));
  constexpr uint32_t kSize = Self::kBlock * Self::kBlocks;
  void* memory = mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, s.get(), 0);
  ASSERT_NE(memory, MAP_FAILED);
  ScopedFd sender = this->Open(SOCK_RAW, 0);
  const std::string frame = Self::Frame("cooked");
  ASSERT_OK(send(sender.get(), frame.data(), frame.size(), 0));
  ASSERT_TRUE(Self::Wait(s));
  auto* h = static_cast<Header*>(memory);
  EXPECT_EQ(h->tp_mac, h->tp_net);
  EXPECT_EQ(std::string(static_cast<char*>(memory) + h->tp_mac, h->tp_snaplen), "cooked");
  // The memory is the ring's for as long as it is mapped.
  s.reset();
  EXPECT_EQ(h->tp_snaplen, 6u);
  munmap(memory, kSize);
}

}  // namespace
}  // namespace redoubt::testing
