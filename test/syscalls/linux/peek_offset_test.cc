// SO_PEEK_OFF: socket(7), on sockets of unix(7), udp(7) and tcp(7).
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <climits>
#include <string>
#include <thread>

#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"
#include "test/syscalls/util/unix_socket.h"

namespace redoubt::testing {
namespace {

struct Kind {
  const char* name;
  int family, type;
};

// A connected pair of sockets: what `a` sends `b` gets.
struct Ends {
  ScopedFd a, b;
};
Ends UdpEnds(int family) {
  Ends e;
  for (ScopedFd* s : {&e.a, &e.b}) s->reset(socket(family, SOCK_DGRAM, 0));
  sockaddr_storage name{};
  name.ss_family = static_cast<sa_family_t>(family);
  auto* in = reinterpret_cast<sockaddr_in*>(&name);
  auto* in6 = reinterpret_cast<sockaddr_in6*>(&name);
  if (family == AF_INET) {
    in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  } else {
    in6->sin6_addr = in6addr_loopback;
  }
  socklen_t length = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
  EXPECT_OK(bind(e.b.get(), reinterpret_cast<sockaddr*>(&name), length));
  EXPECT_OK(getsockname(e.b.get(), reinterpret_cast<sockaddr*>(&name), &length));
  EXPECT_OK(connect(e.a.get(), reinterpret_cast<sockaddr*>(&name), length));
  return e;
}
ScopedFd Listening(int family, sockaddr_storage& name, socklen_t& length) {
  ScopedFd s(socket(family, SOCK_STREAM, 0));
  EXPECT_OK(listen(s.get(), 1));
  length = sizeof(name);
  EXPECT_OK(getsockname(s.get(), reinterpret_cast<sockaddr*>(&name), &length));
  return s;
}
Ends TcpEnds(int family) {
  Ends e;
  sockaddr_storage name;
  socklen_t length;
  ScopedFd listener = Listening(family, name, length);
  e.a.reset(socket(family, SOCK_STREAM, 0));
  EXPECT_OK(connect(e.a.get(), reinterpret_cast<sockaddr*>(&name), length));
  e.b.reset(accept(listener.get(), nullptr, nullptr));
  EXPECT_OK(e.b.get());
  return e;
}
Ends EndsOf(const Kind& k) {
  if (k.family == AF_UNIX) {
    Pair p(k.type);
    return {std::move(p.a), std::move(p.b)};
  }
  return k.type == SOCK_DGRAM ? UdpEnds(k.family) : TcpEnds(k.family);
}

constexpr int kPeek = MSG_PEEK | MSG_DONTWAIT;
constexpr Kind kStreams[] = {
    {"Unix", AF_UNIX, SOCK_STREAM}, {"Tcp", AF_INET, SOCK_STREAM}, {"Tcp6", AF_INET6, SOCK_STREAM}};
constexpr Kind kPackets[] = {{"UnixDatagram", AF_UNIX, SOCK_DGRAM},
                             {"UnixSeqpacket", AF_UNIX, SOCK_SEQPACKET},
                             {"Udp", AF_INET, SOCK_DGRAM},
                             {"Udp6", AF_INET6, SOCK_DGRAM}};

class PeekOffset : public ::testing::TestWithParam<Kind> {
 protected:
  void SetUp() override { e_ = EndsOf(GetParam()); }
  int offset() { return GetOption(e_.b, SO_PEEK_OFF); }
  void SetOffset(int n) { SetOption(e_.b, SO_PEEK_OFF, n); }
  std::string Peek(size_t room = 64, int flags = 0) { return Recv(e_.b, kPeek | flags, room); }
  Ends e_;
};
class AnyPeekOffset : public PeekOffset {};
class StreamPeekOffset : public PeekOffset {};
class PacketPeekOffset : public PeekOffset {};
std::string NameOfKind(const ::testing::TestParamInfo<Kind>& i) { return i.param.name; }
INSTANTIATE_TEST_SUITE_P(OfStream, AnyPeekOffset, ::testing::ValuesIn(kStreams), NameOfKind);
INSTANTIATE_TEST_SUITE_P(OfPackets, AnyPeekOffset, ::testing::ValuesIn(kPackets), NameOfKind);
INSTANTIATE_TEST_SUITE_P(Of, StreamPeekOffset, ::testing::ValuesIn(kStreams), NameOfKind);
INSTANTIATE_TEST_SUITE_P(Of, PacketPeekOffset, ::testing::ValuesIn(kPackets), NameOfKind);

TEST_P(AnyPeekOffset, IsOffAtFirst) {
  EXPECT_EQ(offset(), -1);
  ASSERT_RETURNS(Send(e_.a, "abc"), 3);
  EXPECT_EQ(Peek(2), "ab");
  EXPECT_EQ(Peek(2), "ab");
  EXPECT_EQ(offset(), -1);
}

TEST_P(AnyPeekOffset, IsAnyNumber) {
  for (int n : {0, 7, INT_MAX, -1, -5, INT_MIN}) {
    SetOffset(n);
    EXPECT_EQ(offset(), n);
  }
  char byte = 0;
  EXPECT_ERRNO(setsockopt(e_.b.get(), SOL_SOCKET, SO_PEEK_OFF, &byte, sizeof(byte)), EINVAL);
}

TEST_P(AnyPeekOffset, GoesOnWithWhatIsPeeked) {
  ASSERT_RETURNS(Send(e_.a, "abcdef"), 6);
  SetOffset(0);
  EXPECT_EQ(Peek(2), "ab");
  EXPECT_EQ(offset(), 2);
  EXPECT_EQ(Peek(2), "cd");
  EXPECT_EQ(Peek(), "ef");
  EXPECT_EQ(offset(), 6);
  EXPECT_EQ(Peek(), "EAGAIN");
  // More comes.
  ASSERT_RETURNS(Send(e_.a, "gh"), 2);
  EXPECT_EQ(Peek(), "gh");
  EXPECT_EQ(offset(), 8);
  SetOffset(1);
  EXPECT_EQ(Peek(), GetParam().type == SOCK_STREAM ? "bcdefgh" : "bcdef");
}

TEST_P(AnyPeekOffset, ComesBackWithWhatIsTaken) {
  ASSERT_RETURNS(Send(e_.a, "abcdef"), 6);
  ASSERT_RETURNS(Send(e_.a, "ghi"), 3);
  SetOffset(7);
  EXPECT_EQ(Recv(e_.b, MSG_DONTWAIT, 6), "abcdef");
  EXPECT_EQ(offset(), 1);
  EXPECT_EQ(Peek(), "hi");
  EXPECT_EQ(offset(), 3);
  SetOffset(1);
  EXPECT_EQ(Recv(e_.b, MSG_DONTWAIT), "ghi");
  EXPECT_EQ(offset(), 0);
}

TEST_P(AnyPeekOffset, WaitsBehindWhatIsThere) {
  ASSERT_RETURNS(Send(e_.a, "abc"), 3);
  SetOffset(3);
  std::thread later([&] {
    usleep(50'000);
    EXPECT_RETURNS(Send(e_.a, "def"), 3);
  });
  EXPECT_EQ(Recv(e_.b, MSG_PEEK), "def");
  later.join();
  // As readable as ever.
  EXPECT_EQ(PollOne(e_.b, POLLIN), POLLIN);
}

TEST_P(AnyPeekOffset, SwitchedOffStaysWhereItIs) {
  ASSERT_RETURNS(Send(e_.a, "abc"), 3);
  SetOffset(-3);
  EXPECT_EQ(Peek(), "abc");
  EXPECT_EQ(Recv(e_.b, MSG_DONTWAIT), "abc");
  EXPECT_EQ(offset(), -3);
}

TEST_P(StreamPeekOffset, GoesAcrossPieces) {
  const std::string big(3000, 'x');
  ASSERT_RETURNS(Send(e_.a, "abc"), 3);
  ASSERT_RETURNS(Send(e_.a, big), 3000);
  ASSERT_RETURNS(Send(e_.a, "def"), 3);
  SetOffset(1);
  EXPECT_EQ(Peek(4), "bcxx");
  EXPECT_EQ(offset(), 5);
  SetOffset(3002);
  EXPECT_EQ(Peek(), "xdef");
  EXPECT_EQ(Recv(e_.b, MSG_DONTWAIT, 3004), "abc" + big + "d");
  EXPECT_EQ(offset(), 2);
  EXPECT_EQ(Peek(), "EAGAIN");
  SetOffset(0);
  EXPECT_EQ(Peek(), "ef");
}

TEST_P(StreamPeekOffset, FindsTheEnd) {
  ASSERT_RETURNS(Send(e_.a, "abc"), 3);
  ASSERT_OK(shutdown(e_.a.get(), SHUT_WR));
  SetOffset(2);
  EXPECT_EQ(Peek(), "c");
  EXPECT_EQ(Recv(e_.b, MSG_PEEK), "");
  EXPECT_EQ(offset(), 3);
}

TEST_P(PacketPeekOffset, PassesOverWholePackets) {
  for (const char* s : {"abc", "de", "fgh"}) ASSERT_OK(Send(e_.a, s));
  SetOffset(0);
  for (const char* s : {"abc", "de", "fgh", "EAGAIN"}) EXPECT_EQ(Peek(), s);
  EXPECT_EQ(offset(), 8);
  SetOffset(4);
  EXPECT_EQ(Peek(), "e");
  EXPECT_EQ(offset(), 5);
  EXPECT_EQ(Peek(1), "f");
  EXPECT_EQ(offset(), 6);
  EXPECT_EQ(Recv(e_.b, MSG_DONTWAIT), "abc");
  EXPECT_EQ(offset(), 3);
}

TEST_P(PacketPeekOffset, ShowsAnEmptyOneOnce) {
  for (const char* s : {"", "a", ""}) ASSERT_OK(Send(e_.a, s));
  SetOffset(0);
  for (const char* s : {"", "a", "", "EAGAIN"}) EXPECT_EQ(Peek(), s);
  SetOffset(0);
  EXPECT_EQ(Peek(), "a");
  SetOffset(-1);
  EXPECT_EQ(Peek(), "");
}

TEST_P(PacketPeekOffset, CountsWhatAReaderHadNoRoomFor) {
  ASSERT_RETURNS(Send(e_.a, "abcdef"), 6);
  ASSERT_RETURNS(Send(e_.a, "ghi"), 3);
  SetOffset(8);
  EXPECT_EQ(Recv(e_.b, MSG_DONTWAIT, 2), "ab");
  EXPECT_EQ(offset(), GetParam().family == AF_UNIX ? 2 : 6);
}

TEST_P(PacketPeekOffset, SaysHowLongAPacketIs) {
  char room[16];
  iovec v{room, 2};
  ASSERT_RETURNS(Send(e_.a, "abcdef"), 6);
  const bool unix_socket = GetParam().family == AF_UNIX;
  // How much is asked for behind the third byte, and what is said then.
  for (size_t asked : {2u, 3u, 4u}) {
    SetOffset(3);
    v.iov_len = asked;
    msghdr m{.msg_iov = &v, .msg_iovlen = 1};
    EXPECT_RETURNS(recvmsg(e_.b.get(), &m, kPeek | MSG_TRUNC), unix_socket ? 3 : 6) << asked;
    const bool cut = asked < 3 || (asked == 3 && !unix_socket);
    EXPECT_EQ(m.msg_flags & MSG_TRUNC, cut ? MSG_TRUNC : 0) << asked;
    EXPECT_EQ(offset(), unix_socket ? 3 + std::min<int>(asked, 3) : 9) << asked;
  }
}

TEST(PeekOffsetOf, AnAcceptedSocketIsItsListeners) {
  sockaddr_storage name;
  socklen_t length;
  ScopedFd listener = Listening(AF_INET, name, length);
  SetOption(listener, SO_PEEK_OFF, 3);
  ScopedFd a(socket(AF_INET, SOCK_STREAM, 0));
  ASSERT_OK(connect(a.get(), reinterpret_cast<sockaddr*>(&name), length));
  ScopedFd b(accept(listener.get(), nullptr, nullptr));
  EXPECT_EQ(GetOption(b, SO_PEEK_OFF), 3);
}

TEST(PeekOffsetOf, TcpCountsWhatIsThrownAway) {
  Ends e = TcpEnds(AF_INET);
  ASSERT_RETURNS(Send(e.a, "abcdef"), 6);
  SetOption(e.b, SO_PEEK_OFF, 4);
  EXPECT_RETURNS(recv(e.b.get(), nullptr, 3, MSG_TRUNC), 3);
  EXPECT_EQ(GetOption(e.b, SO_PEEK_OFF), 1);
  EXPECT_EQ(Recv(e.b, kPeek), "ef");
}

TEST(PeekOffsetOf, DescriptorsArePeekedWithTheirBytes) {
  Pair p(SOCK_STREAM);
  ASSERT_RETURNS(Send(p.a, "abc"), 3);
  union {
    char bytes[CMSG_SPACE(sizeof(int))];
    cmsghdr align;
  } control{};
  char byte = 'd';
  iovec v{&byte, 1};
  msghdr m{.msg_iov = &v, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
  cmsghdr* c = CMSG_FIRSTHDR(&m);
  *c = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
  const int sent = p.a.get();
  memcpy(CMSG_DATA(c), &sent, sizeof(sent));
  ASSERT_RETURNS(sendmsg(p.a.get(), &m, 0), 1);
  SetOption(p.b, SO_PEEK_OFF, 3);
  byte = 0;
  m.msg_controllen = sizeof(control);
  ASSERT_RETURNS(recvmsg(p.b.get(), &m, kPeek), 1);
  EXPECT_EQ(byte, 'd');
  ASSERT_EQ(m.msg_controllen, CMSG_SPACE(sizeof(int)));
  int got = -1;
  memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(got));
  EXPECT_OK(close(got));
  EXPECT_EQ(GetOption(p.b, SO_PEEK_OFF), 4);
}

// Those that have no such thing.
struct Other {
  const char* name;
  int family, type, protocol;
};
class WithoutPeekOffset : public ::testing::TestWithParam<Other> {};
INSTANTIATE_TEST_SUITE_P(Of, WithoutPeekOffset,
                         ::testing::Values(Other{"Netlink", AF_NETLINK, SOCK_RAW, 0},
                                           Other{"Raw", AF_INET, SOCK_RAW, IPPROTO_UDP},
                                           Other{"Raw6", AF_INET6, SOCK_RAW, IPPROTO_UDP},
                                           Other{"Packet", AF_PACKET, SOCK_RAW, 0}),
                         [](const auto& i) { return std::string(i.param.name); });
TEST_P(WithoutPeekOffset, SaySo) {
  ScopedFd s(socket(GetParam().family, GetParam().type, GetParam().protocol));
  ASSERT_OK(s.get());
  int value = 0;
  socklen_t length = sizeof(value);
  EXPECT_ERRNO(setsockopt(s.get(), SOL_SOCKET, SO_PEEK_OFF, &value, length), EOPNOTSUPP);
  EXPECT_ERRNO(getsockopt(s.get(), SOL_SOCKET, SO_PEEK_OFF, &value, &length), EOPNOTSUPP);
}

}  // namespace
}  // namespace redoubt::testing
