// socket(7): SO_ATTACH_FILTER of TCP, AF_UNIX and AF_NETLINK. What programs may say, and packet sockets:
// packet_socket_test.
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"
#include "test/syscalls/util/tcp_pair.h"

namespace redoubt::testing {
namespace {

using Code = std::vector<sock_filter>;

const Code kNothing = {BPF_STMT(BPF_RET | BPF_K, 0)};
const Code kAll = {BPF_STMT(BPF_RET | BPF_K, 0xffffffff)};

int Attach(const ScopedFd& s, Code code) {
  sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
  return setsockopt(s.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
}
int Detach(const ScopedFd& s) {
  int unused = 0;
  return setsockopt(s.get(), SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof(unused));
}
// What is there now, or the errno's name for nothing.
std::string Read(const ScopedFd& s) {
  char bytes[100];
  const ssize_t n = recv(s.get(), bytes, sizeof(bytes), MSG_DONTWAIT);
  return n < 0 ? strerrorname_np(errno) : std::string(bytes, static_cast<size_t>(n));
}
bool Readable(const ScopedFd& s, int timeout_ms) {
  pollfd p{.fd = s.get(), .events = POLLIN, .revents = 0};
  return poll(&p, 1, timeout_ms) == 1;
}
void Send(const ScopedFd& s, const std::string& bytes) {
  EXPECT_RETURNS(send(s.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
}

using TcpFilter = TcpPair;

TEST_F(TcpFilter, WhatItRefusesIsLostAndComesAgain) {
  Connect();
  ASSERT_OK(Attach(b_, kNothing));
  Send(a_, "hello");
  EXPECT_FALSE(Readable(b_, 300));
  ASSERT_OK(Detach(b_));
  EXPECT_TRUE(Readable(b_, 10000));
  EXPECT_EQ(Read(b_), "hello");
}

TEST_F(TcpFilter, BeginsAtTheHeaderWhichStays) {
  Connect();
  // Two bytes behind the header, of those that are for the listener's port.
  ASSERT_OK(Attach(
      b_, {BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 2), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ntohs(name_.sin_port), 1, 0),
           BPF_STMT(BPF_RET | BPF_K, 0), BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 12), BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 2),
           BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0x3c), BPF_STMT(BPF_ALU | BPF_ADD | BPF_K, 2),
           BPF_STMT(BPF_RET | BPF_A, 0)}));
  Send(a_, "abcdef");
  ASSERT_TRUE(Readable(b_, 10000));
  EXPECT_EQ(Read(b_).substr(0, 2), "ab");
  ASSERT_OK(Attach(b_, {BPF_STMT(BPF_RET | BPF_K, 1)}));  // headers only
  Send(b_, "answers come");
  ASSERT_TRUE(Readable(a_, 10000));
  EXPECT_EQ(Read(a_), "answers come");
}

TEST_F(TcpFilter, SeesTheNetworkHeader) {
  Connect();
  // The sender's address: 127.0.0.1.
  ASSERT_OK(Attach(b_, {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(SKF_NET_OFF + 12)),
                        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, INADDR_LOOPBACK, 0, 1), BPF_STMT(BPF_RET | BPF_K, 0xffff),
                        BPF_STMT(BPF_RET | BPF_K, 0)}));
  Send(a_, "hello");
  ASSERT_TRUE(Readable(b_, 10000));
  EXPECT_EQ(Read(b_), "hello");
}

TEST_F(TcpFilter, AListenersIsThatOfWhoConnects) {
  ASSERT_OK(Attach(listener_, kNothing));
  ScopedFd refused(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  EXPECT_ERRNO(connect(refused.get(), name(), sizeof(name_)), EINPROGRESS);
  EXPECT_FALSE(Readable(listener_, 300));
  refused.reset();
  ASSERT_OK(Attach(listener_, kAll));
  Connect();
  sock_filter got[2] = {};
  socklen_t length = 2;
  ASSERT_OK(getsockopt(b_.get(), SOL_SOCKET, SO_GET_FILTER, got, &length));
  EXPECT_EQ(length, 1u);
  EXPECT_EQ(got[0].k, 0xffffffffu);
  EXPECT_OK(Detach(b_));
  EXPECT_ERRNO(Detach(b_), ENOENT);
}

struct Pair {
  explicit Pair(int type) {
    int fds[2] = {-1, -1};
    EXPECT_OK(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds));
    a.reset(fds[0]);
    b.reset(fds[1]);
  }
  ScopedFd a, b;
};

class PacketsOfUnix : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Type, PacketsOfUnix, ::testing::Values(SOCK_DGRAM, SOCK_SEQPACKET));

TEST_P(PacketsOfUnix, AreLostOrCut) {
  Pair p(GetParam());
  // Three bytes of those that begin with a 'b'.
  ASSERT_OK(Attach(p.b, {BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 'b', 0, 1),
                         BPF_STMT(BPF_RET | BPF_K, 3), BPF_STMT(BPF_RET | BPF_K, 0)}));
  Send(p.a, "a first");
  Send(p.a, "b second");
  Send(p.a, "bc");
  EXPECT_EQ(Read(p.b), "b s");
  EXPECT_EQ(Read(p.b), "bc");
  EXPECT_EQ(Read(p.b), "EAGAIN");
  // Only what is received is filtered.
  Send(p.b, "anything");
  EXPECT_EQ(Read(p.a), "anything");
  ASSERT_OK(Detach(p.b));
  Send(p.a, "a third");
  EXPECT_EQ(Read(p.b), "a third");
}

// (One of SOCK_SEQPACKET is the stream's end.)
TEST(DatagramsOfUnix, ThatAreEmptyAreFilteredToo) {
  Pair p(SOCK_DGRAM);
  ASSERT_OK(Attach(p.b, kAll));
  Send(p.a, "");
  EXPECT_EQ(Read(p.b), "");
  ASSERT_OK(Attach(p.b, kNothing));
  Send(p.a, "");
  EXPECT_EQ(Read(p.b), "EAGAIN");
}

TEST_P(PacketsOfUnix, TakeTheirDescriptorsWithThem) {
  Pair p(GetParam());
  ASSERT_OK(Attach(p.b, kNothing));
  int ends[2];
  ASSERT_OK(pipe(ends));
  ScopedFd read_end(ends[0]), write_end(ends[1]);
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  iovec iov{const_cast<char*>("x"), 1};
  msghdr m{};
  m.msg_iov = &iov;
  m.msg_iovlen = 1;
  m.msg_control = control;
  m.msg_controllen = sizeof(control);
  cmsghdr* c = CMSG_FIRSTHDR(&m);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(c), &ends[1], sizeof(int));
  EXPECT_RETURNS(sendmsg(p.a.get(), &m, 0), 1);
  write_end.reset();
  EXPECT_TRUE(Readable(read_end, 5000));  // the end of file: nobody can write any more
  char byte;
  EXPECT_RETURNS(read(read_end.get(), &byte, 1), 0);
}

TEST(UnixFilter, StreamsHaveNoUseForOne) {
  Pair p(SOCK_STREAM);
  ASSERT_OK(Attach(p.b, kNothing));
  Send(p.a, "hello");
  EXPECT_EQ(Read(p.b), "hello");
  EXPECT_OK(Detach(p.b));
}

TEST(UnixFilter, ALockHolds) {
  Pair p(SOCK_DGRAM);
  ASSERT_OK(Attach(p.b, kAll));
  const int on = 1;
  ASSERT_OK(setsockopt(p.b.get(), SOL_SOCKET, SO_LOCK_FILTER, &on, sizeof(on)));
  EXPECT_ERRNO(Attach(p.b, kNothing), EPERM);
  EXPECT_ERRNO(Detach(p.b), EPERM);
}

TEST(NetlinkFilter, AnswersAreFiltered) {
  ScopedFd s(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  struct {
    nlmsghdr header;
    ifinfomsg link;
  } request{};
  request.header.nlmsg_len = sizeof(request);
  request.header.nlmsg_type = RTM_GETLINK;
  request.header.nlmsg_flags = NLM_F_REQUEST;
  request.link.ifi_index = 1;
  ASSERT_OK(Attach(s, kNothing));
  EXPECT_RETURNS(send(s.get(), &request, sizeof(request), 0), static_cast<ssize_t>(sizeof(request)));
  EXPECT_EQ(Read(s), "EAGAIN");
  // RTM_NEWLINK is 16, in the machine's byte order.
  ASSERT_OK(Attach(s, {BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 4), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, RTM_NEWLINK, 0, 1),
                       BPF_STMT(BPF_RET | BPF_K, sizeof(nlmsghdr)), BPF_STMT(BPF_RET | BPF_K, 0)}));
  EXPECT_RETURNS(send(s.get(), &request, sizeof(request), 0), static_cast<ssize_t>(sizeof(request)));
  EXPECT_EQ(Read(s).size(), sizeof(nlmsghdr));
}

}  // namespace
}  // namespace redoubt::testing
