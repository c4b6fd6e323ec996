// SO_TIMESTAMP, SO_TIMESTAMPNS, SO_TIMESTAMPING: socket(7), the kernel's Documentation/networking/timestamping.rst.
#include <netinet/in.h>
#include <netinet/ip.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
// After netinet/in.h, whose structures they would define otherwise.
#include <linux/errqueue.h>
#include <linux/net_tstamp.h>

#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"

namespace redoubt::testing {
namespace {

constexpr int kTimestampingNew = 65, kTimestampNew = 63, kTimestampNsNew = 64;
constexpr int kOptIdTcp = 1 << 16;
constexpr int kSent = SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE;
constexpr int kReceived = SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE;

int64_t RealtimeNow() {
  timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return t.tv_sec * 1'000'000'000 + t.tv_nsec;
}

struct Message {
  ssize_t result = -1;
  int flags = 0;
  std::string data;
  struct Control {
    int level, type;
    std::string data;
  };
  std::vector<Control> control;

  const Control* Find(int level, int type) const {
    for (const Control& c : control) {
      if (c.level == level && c.type == type) return &c;
    }
    return nullptr;
  }
  // The software time of a cmsg of that type.
  std::optional<int64_t> Time(int type) const {
    const Control* c = Find(SOL_SOCKET, type);
    if (c == nullptr) return std::nullopt;
    int64_t words[6] = {};
    std::memcpy(words, c->data.data(), std::min(c->data.size(), sizeof(words)));
    EXPECT_EQ(words[2] | words[3] | words[4] | words[5], 0);
    const bool micro = type == SO_TIMESTAMP || type == kTimestampNew;
    return words[0] * 1'000'000'000 + words[1] * (micro ? 1000 : 1);
  }
  std::optional<sock_extended_err> Error() const {
    for (const Control& c : control) {
      if ((c.level == IPPROTO_IP && c.type == IP_RECVERR) || (c.level == IPPROTO_IPV6 && c.type == IPV6_RECVERR)) {
        sock_extended_err e;
        std::memcpy(&e, c.data.data(), sizeof(e));
        return e;
      }
    }
    return std::nullopt;
  }
};
Message Get(const ScopedFd& s, int flags = 0) {
  Message m;
  char data[2048], control[1024];
  iovec v{data, sizeof(data)};
  msghdr h{.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
  m.result = recvmsg(s.get(), &h, flags);
  if (m.result < 0) return m;
  m.flags = h.msg_flags;
  m.data.assign(data, static_cast<size_t>(m.result));
  for (cmsghdr* c = CMSG_FIRSTHDR(&h); c != nullptr; c = CMSG_NXTHDR(&h, c)) {
    m.control.push_back({c->cmsg_level, c->cmsg_type,
                         std::string(reinterpret_cast<const char*>(CMSG_DATA(c)), c->cmsg_len - CMSG_LEN(0))});
  }
  return m;
}
// The next entry of the error queue, once there is one.
Message GetStamp(const ScopedFd& s) {
  pollfd p{s.get(), 0, 0};
  EXPECT_RETURNS(poll(&p, 1, 5000), 1);
  EXPECT_EQ(p.revents & POLLERR, POLLERR);
  return Get(s, MSG_ERRQUEUE);
}

int Set(const ScopedFd& s, int name, int value) { return setsockopt(s.get(), SOL_SOCKET, name, &value, sizeof(value)); }
int GetFlags(const ScopedFd& s, int name = SO_TIMESTAMPING) {
  int value[3] = {-1, -1, -1};
  socklen_t length = sizeof(value);
  EXPECT_OK(getsockopt(s.get(), SOL_SOCKET, name, value, &length));
  EXPECT_EQ(length, 8u);
  EXPECT_EQ(value[1], 0);
  return value[0];
}
int GetSwitch(const ScopedFd& s, int name) {
  int value = -1;
  socklen_t length = sizeof(value);
  EXPECT_OK(getsockopt(s.get(), SOL_SOCKET, name, &value, &length));
  return value;
}

class Timestamping : public ::testing::TestWithParam<int> {
 protected:
  bool v6() const { return GetParam() == AF_INET6; }
  void Name(sockaddr_storage& name, socklen_t& length) const {
    name = {};
    name.ss_family = static_cast<sa_family_t>(GetParam());
    if (v6()) {
      reinterpret_cast<sockaddr_in6*>(&name)->sin6_addr = in6addr_loopback;
      length = sizeof(sockaddr_in6);
    } else {
      reinterpret_cast<sockaddr_in*>(&name)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      length = sizeof(sockaddr_in);
    }
  }
  // a_ sends to b_.
  void Connect(int type) {
    sockaddr_storage name;
    socklen_t length;
    Name(name, length);
    auto* address = reinterpret_cast<sockaddr*>(&name);
    a_.reset(socket(GetParam(), type, 0));
    ScopedFd to(socket(GetParam(), type, 0));
    ASSERT_OK(bind(to.get(), address, length));
    ASSERT_OK(getsockname(to.get(), address, &length));
    if (type == SOCK_STREAM) {
      ASSERT_OK(listen(to.get(), 1));
    }
    ASSERT_OK(connect(a_.get(), address, length));
    if (type == SOCK_STREAM) {
      b_.reset(accept(to.get(), nullptr, nullptr));
      ASSERT_OK(b_.get());
    } else {
      b_ = std::move(to);
    }
  }
  void Send(std::string_view data) {
    ASSERT_RETURNS(send(a_.get(), data.data(), data.size(), 0), static_cast<ssize_t>(data.size()));
  }
  // A stamp without a frame: where it is of, and its number.
  void ExpectStamp(uint32_t place, uint32_t number) {
    const int64_t before = begin_;
    Message m = GetStamp(a_);
    EXPECT_EQ(m.data, "");
    EXPECT_EQ(m.flags & MSG_ERRQUEUE, MSG_ERRQUEUE);
    ASSERT_TRUE(m.Error());
    EXPECT_EQ(m.Error()->ee_errno, static_cast<uint32_t>(ENOMSG));
    EXPECT_EQ(m.Error()->ee_origin, SO_EE_ORIGIN_TIMESTAMPING);
    EXPECT_EQ(m.Error()->ee_info, place);
    EXPECT_EQ(m.Error()->ee_data, number);
    ASSERT_TRUE(m.Time(SO_TIMESTAMPING));
    EXPECT_GE(*m.Time(SO_TIMESTAMPING), before);
    EXPECT_LE(*m.Time(SO_TIMESTAMPING), RealtimeNow() + kClocks);
  }
  void ExpectNoStamp() { EXPECT_ERRNO(Get(a_, MSG_ERRQUEUE | MSG_DONTWAIT).result, EAGAIN); }
  size_t HeaderSize(size_t transport) const { return 14 + (v6() ? 40 : 20) + transport; }

  static constexpr int64_t kClocks = 1'000'000;  // between two clocks that are read one after the other
  const int64_t begin_ = RealtimeNow() - kClocks;
  ScopedFd a_, b_;
};
INSTANTIATE_TEST_SUITE_P(Of, Timestamping, ::testing::Values(AF_INET, AF_INET6),
                         [](const auto& i) { return i.param == AF_INET ? "Ipv4" : "Ipv6"; });

TEST_P(Timestamping, FlagsAreRemembered) {
  for (int type : {SOCK_DGRAM, SOCK_STREAM}) {
    Connect(type);
    EXPECT_EQ(GetFlags(a_), 0);
    EXPECT_OK(Set(a_, SO_TIMESTAMPING, kSent | SOF_TIMESTAMPING_RX_HARDWARE | SOF_TIMESTAMPING_RAW_HARDWARE));
    EXPECT_EQ(GetFlags(a_), kSent | SOF_TIMESTAMPING_RX_HARDWARE | SOF_TIMESTAMPING_RAW_HARDWARE);
    EXPECT_EQ(GetFlags(a_, kTimestampingNew), 0);
    EXPECT_ERRNO(Set(a_, SO_TIMESTAMPING, 1 << 20), EINVAL);
    EXPECT_ERRNO(Set(a_, SO_TIMESTAMPING, -1), EINVAL);
    EXPECT_ERRNO(Set(a_, SO_TIMESTAMPING, kOptIdTcp), EINVAL);
    EXPECT_ERRNO(Set(a_, SO_TIMESTAMPING, SOF_TIMESTAMPING_OPT_STATS), EINVAL);
    EXPECT_ERRNO(Set(a_, SO_TIMESTAMPING, SOF_TIMESTAMPING_BIND_PHC), EOPNOTSUPP);
    EXPECT_EQ(GetFlags(a_), kSent | SOF_TIMESTAMPING_RX_HARDWARE | SOF_TIMESTAMPING_RAW_HARDWARE);
    EXPECT_OK(Set(a_, kTimestampingNew, kReceived));
    EXPECT_EQ(GetFlags(a_), kReceived);
    EXPECT_EQ(GetFlags(a_, kTimestampingNew), kReceived);
    const char byte = 1;
    EXPECT_ERRNO(setsockopt(a_.get(), SOL_SOCKET, SO_TIMESTAMPING, &byte, 1), EINVAL);
    const int with_clock[2] = {kSent, 0};
    EXPECT_OK(setsockopt(a_.get(), SOL_SOCKET, SO_TIMESTAMPING, with_clock, sizeof(with_clock)));
    EXPECT_EQ(GetFlags(a_), kSent);
  }
}

TEST_P(Timestamping, SwitchesOfOneKindOnly) {
  Connect(SOCK_DGRAM);
  const int names[] = {SO_TIMESTAMP, SO_TIMESTAMPNS, kTimestampNew, kTimestampNsNew};
  auto all = [&] {
    std::string s;
    for (int name : names) s += static_cast<char>('0' + GetSwitch(a_, name));
    return s;
  };
  EXPECT_EQ(all(), "0000");
  EXPECT_OK(Set(a_, SO_TIMESTAMP, 1));
  EXPECT_EQ(all(), "1000");
  EXPECT_OK(Set(a_, SO_TIMESTAMPNS, 1));
  EXPECT_EQ(all(), "0100");
  EXPECT_OK(Set(a_, kTimestampNsNew, 1));
  EXPECT_EQ(all(), "0011");
  EXPECT_OK(Set(a_, kTimestampNew, 1));
  EXPECT_EQ(all(), "0010");
  EXPECT_OK(Set(a_, SO_TIMESTAMP, 0));
  EXPECT_EQ(all(), "0000");
}

TEST_P(Timestamping, DatagramsSayWhenTheyCame) {
  Connect(SOCK_DGRAM);
  struct {
    int name, value;
  } const ways[] = {{SO_TIMESTAMP, 1},  {SO_TIMESTAMPNS, 1},  {SO_TIMESTAMPING, kReceived},
                    {kTimestampNew, 1}, {kTimestampNsNew, 1}, {kTimestampingNew, kReceived}};
  for (const auto& way : ways) {
    ASSERT_OK(Set(b_, way.name, way.value));
    WaitUntil([&] {
      Send("first");
      return !Get(b_).control.empty();
    });
    Send("x");
    const int64_t after = RealtimeNow() + kClocks;
    usleep(2000);
    Message m = Get(b_);
    ASSERT_EQ(m.control.size(), 1u) << way.name;
    ASSERT_TRUE(m.Time(way.name)) << way.name;
    EXPECT_GE(*m.Time(way.name), begin_ - 1000);
    EXPECT_LE(*m.Time(way.name), after);
    EXPECT_OK(Set(b_, way.name, 0));
  }
  Send("x");
  EXPECT_TRUE(Get(b_).control.empty());
}

TEST_P(Timestamping, DatagramsAreStampedWhereTheyPass) {
  Connect(SOCK_DGRAM);
  ASSERT_OK(Set(a_, SO_TIMESTAMPING,
                kSent | SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_OPT_ID | SOF_TIMESTAMPING_OPT_TSONLY));
  for (uint32_t i = 0; i < 3; i++) {
    Send("hello");
    ExpectStamp(SCM_TSTAMP_SCHED, i);
    ExpectStamp(SCM_TSTAMP_SND, i);
  }
  ExpectNoStamp();
  EXPECT_EQ(GetSwitch(a_, SO_ERROR), 0);
  // As before; and numbered from the start when numbers come anew.
  ASSERT_OK(Set(a_, SO_TIMESTAMPING, kSent | SOF_TIMESTAMPING_OPT_ID | SOF_TIMESTAMPING_OPT_TSONLY));
  Send("x");
  ExpectStamp(SCM_TSTAMP_SND, 3);
  ASSERT_OK(Set(a_, SO_TIMESTAMPING, kSent | SOF_TIMESTAMPING_OPT_TSONLY));
  Send("x");
  ExpectStamp(SCM_TSTAMP_SND, 0);
  ASSERT_OK(Set(a_, SO_TIMESTAMPING, kSent | SOF_TIMESTAMPING_OPT_ID | SOF_TIMESTAMPING_OPT_TSONLY));
  Send("x");
  ExpectStamp(SCM_TSTAMP_SND, 0);
  ASSERT_OK(Set(a_, SO_TIMESTAMPING, SOF_TIMESTAMPING_SOFTWARE));
  Send("x");
  ExpectNoStamp();
}

TEST_P(Timestamping, TheFrameComesWithItsStamp) {
  Connect(SOCK_DGRAM);
  ASSERT_OK(Set(a_, SO_TIMESTAMPING, kSent | SOF_TIMESTAMPING_OPT_CMSG));
  const int on = 1;
  ASSERT_OK(setsockopt(a_.get(), v6() ? IPPROTO_IPV6 : IPPROTO_IP, v6() ? IPV6_RECVPKTINFO : IP_PKTINFO, &on, 4));
  Send("hello");
  Message m = GetStamp(a_);
  ASSERT_EQ(m.data.size(), HeaderSize(8) + 5);
  EXPECT_EQ(m.data.substr(HeaderSize(8)), "hello");
  EXPECT_EQ(m.data.substr(0, 12), std::string(12, '\0'));
  EXPECT_EQ(m.data.substr(12, 2), v6() ? "\x86\xdd" : std::string("\x08\0", 2));
  EXPECT_TRUE(m.Time(SO_TIMESTAMPING));
  ASSERT_TRUE(m.Error());
  EXPECT_EQ(m.Error()->ee_data, 0u);
  if (v6()) {
    const Message::Control* c = m.Find(IPPROTO_IPV6, IPV6_PKTINFO);
    ASSERT_NE(c, nullptr);
    in6_pktinfo info;
    ASSERT_EQ(c->data.size(), sizeof(info));
    std::memcpy(&info, c->data.data(), sizeof(info));
    EXPECT_EQ(info.ipi6_ifindex, 1u);
  } else {
    const Message::Control* c = m.Find(IPPROTO_IP, IP_PKTINFO);
    ASSERT_NE(c, nullptr);
    in_pktinfo info;
    ASSERT_EQ(c->data.size(), sizeof(info));
    std::memcpy(&info, c->data.data(), sizeof(info));
    EXPECT_EQ(info.ipi_ifindex, 1);
    EXPECT_EQ(info.ipi_addr.s_addr, htonl(INADDR_LOOPBACK));
    EXPECT_EQ(info.ipi_spec_dst.s_addr, htonl(INADDR_LOOPBACK));
  }
  // Cut to the reader's room.
  Send("hello");
  char room[20];
  iovec v{room, sizeof(room)};
  msghdr h{.msg_iov = &v, .msg_iovlen = 1};
  EXPECT_RETURNS(recvmsg(a_.get(), &h, MSG_ERRQUEUE), 20);
  EXPECT_EQ(h.msg_flags & MSG_TRUNC, MSG_TRUNC);
}

TEST_P(Timestamping, WithoutSoftwareTheTimeIsNotTold) {
  Connect(SOCK_DGRAM);
  ASSERT_OK(Set(a_, SO_TIMESTAMPING, SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_OPT_TSONLY));
  Send("x");
  Message m = GetStamp(a_);
  EXPECT_FALSE(m.Time(SO_TIMESTAMPING));
  EXPECT_TRUE(m.Error());
}

TEST_P(Timestamping, OneMessageAsksForItself) {
  for (int type : {SOCK_DGRAM, SOCK_STREAM}) {
    Connect(type);
    ASSERT_OK(
        Set(a_, SO_TIMESTAMPING, SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_ID | SOF_TIMESTAMPING_OPT_TSONLY));
    auto send = [&](uint32_t flags) {
      char byte = 'x';
      iovec v{&byte, 1};
      union {
        char bytes[CMSG_SPACE(sizeof(flags))];
        cmsghdr align;
      } control{};
      msghdr h{.msg_iov = &v, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
      *CMSG_FIRSTHDR(&h) = {
          .cmsg_len = CMSG_LEN(sizeof(flags)), .cmsg_level = SOL_SOCKET, .cmsg_type = SO_TIMESTAMPING};
      std::memcpy(CMSG_DATA(CMSG_FIRSTHDR(&h)), &flags, sizeof(flags));
      return sendmsg(a_.get(), &h, 0);
    };
    Send("x");
    ExpectNoStamp();
    EXPECT_RETURNS(send(SOF_TIMESTAMPING_TX_SOFTWARE), 1);
    ExpectStamp(SCM_TSTAMP_SND, type == SOCK_DGRAM ? 0 : 1);
    EXPECT_ERRNO(send(SOF_TIMESTAMPING_SOFTWARE), EINVAL);
    EXPECT_ERRNO(send(SOF_TIMESTAMPING_OPT_ID), EINVAL);
    EXPECT_RETURNS(send(0), 1);
    ExpectNoStamp();
  }
}

TEST_P(Timestamping, StreamsNumberBytes) {
  Connect(SOCK_STREAM);
  const int flags = kSent | SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_TX_ACK | SOF_TIMESTAMPING_OPT_ID |
                    SOF_TIMESTAMPING_OPT_TSONLY;
  Send("before");
  WaitUntil([&] { return recv(b_.get(), std::string(16, ' ').data(), 16, MSG_DONTWAIT) == 6; });
  ASSERT_OK(Set(a_, SO_TIMESTAMPING, flags | kOptIdTcp));
  uint32_t bytes = 0;
  for (std::string_view s : {"abcde", "fgh"}) {
    Send(s);
    bytes += static_cast<uint32_t>(s.size());
    ExpectStamp(SCM_TSTAMP_SCHED, bytes - 1);
    ExpectStamp(SCM_TSTAMP_SND, bytes - 1);
    ExpectStamp(SCM_TSTAMP_ACK, bytes - 1);
  }
  ExpectNoStamp();
}

TEST_P(Timestamping, StreamsHaveNoNumbersWithoutAConnection) {
  ScopedFd s(socket(GetParam(), SOCK_STREAM, 0));
  EXPECT_ERRNO(Set(s, SO_TIMESTAMPING, SOF_TIMESTAMPING_OPT_ID), EINVAL);
  EXPECT_OK(Set(s, SO_TIMESTAMPING, kSent));
  ASSERT_OK(listen(s.get(), 1));
  EXPECT_ERRNO(Set(s, SO_TIMESTAMPING, SOF_TIMESTAMPING_OPT_ID), EINVAL);
}

TEST_P(Timestamping, SegmentsComeWithTheirStamps) {
  Connect(SOCK_STREAM);
  ASSERT_OK(Set(a_, SO_TIMESTAMPING, kSent));
  Send("hello");
  Message m = GetStamp(a_);
  ASSERT_EQ(m.data.size(), HeaderSize(32) + 5);
  EXPECT_EQ(m.data.substr(HeaderSize(32)), "hello");
}

TEST_P(Timestamping, StreamsSayWhenBytesCame) {
  Connect(SOCK_STREAM);
  ASSERT_OK(Set(b_, SO_TIMESTAMPING, kReceived));
  WaitUntil([&] {
    Send("first");
    return !Get(b_).control.empty();
  });
  Send("abc");
  usleep(5000);
  Send("def");
  usleep(2000);
  auto read = [&](size_t n, int flags) {
    char room[16], control[256];
    iovec v{room, n};
    msghdr h{.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    EXPECT_OK(recvmsg(b_.get(), &h, flags | MSG_DONTWAIT));
    const cmsghdr* c = CMSG_FIRSTHDR(&h);
    if (c == nullptr) return int64_t{0};
    EXPECT_EQ(c->cmsg_type, SO_TIMESTAMPING);
    timespec t;
    std::memcpy(&t, CMSG_DATA(c), sizeof(t));
    return t.tv_sec * int64_t{1'000'000'000} + t.tv_nsec;
  };
  const int64_t all = read(16, MSG_PEEK);
  EXPECT_GE(all, begin_);
  EXPECT_LE(all, RealtimeNow() + kClocks);
  // Linux may have joined the two, which then have the later time.
  const int64_t first = read(3, 0);
  EXPECT_GE(first, begin_);
  EXPECT_LE(first, all + kClocks);
  EXPECT_NEAR(static_cast<double>(read(3, 0)), static_cast<double>(all), kClocks);
}

TEST_P(Timestamping, AnAcceptedSocketIsItsListeners) {
  sockaddr_storage name;
  socklen_t length;
  Name(name, length);
  auto* address = reinterpret_cast<sockaddr*>(&name);
  ScopedFd listener(socket(GetParam(), SOCK_STREAM, 0));
  ASSERT_OK(bind(listener.get(), address, length));
  ASSERT_OK(getsockname(listener.get(), address, &length));
  ASSERT_OK(listen(listener.get(), 1));
  ASSERT_OK(Set(listener, SO_TIMESTAMPING, kReceived));
  a_.reset(socket(GetParam(), SOCK_STREAM, 0));
  ASSERT_OK(connect(a_.get(), address, length));
  b_.reset(accept(listener.get(), nullptr, nullptr));
  EXPECT_EQ(GetFlags(b_), kReceived);
  // Linux begins to take times a little after the first socket wants them.
  WaitUntil([&] {
    Send("x");
    return Get(b_).Time(SO_TIMESTAMPING).has_value();
  });
}

TEST(TimestampingOfRaw, PacketsAreStamped) {
  ScopedFd s(socket(AF_INET, SOCK_RAW, 253)), to(socket(AF_INET, SOCK_RAW, 253));
  ASSERT_OK(s.get());
  ASSERT_OK(Set(to, SO_TIMESTAMPING, kReceived));
  ASSERT_OK(Set(s, SO_TIMESTAMPING, kSent | SOF_TIMESTAMPING_OPT_ID | SOF_TIMESTAMPING_OPT_TSONLY));
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  WaitUntil([&] {
    EXPECT_OK(sendto(s.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&name), sizeof(name)));
    EXPECT_TRUE(GetStamp(s).Time(SO_TIMESTAMPING));
    return Get(to).Time(SO_TIMESTAMPING).has_value();
  });
}

}  // namespace
}  // namespace redoubt::testing
