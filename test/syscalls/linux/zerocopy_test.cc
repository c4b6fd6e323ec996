// MSG_ZEROCOPY: send(2), socket(7), the kernel's Documentation/networking/msg_zerocopy.rst.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
// After netinet/in.h, whose structures it would define otherwise.
#include <linux/errqueue.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <string>

#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"

namespace redoubt::testing {
namespace {

struct Completion {
  uint32_t first, last;
  uint8_t code;
};

// A pair of connected sockets on the loopback, of which the first has SO_ZEROCOPY.
class Zerocopy : public ::testing::TestWithParam<std::pair<int, int>> {
 protected:
  void SetUp() override {
    const auto [family, type] = GetParam();
    ScopedFd listener(socket(family, type, 0));
    ASSERT_OK(listener.get());
    sockaddr_storage name{};
    name.ss_family = static_cast<sa_family_t>(family);
    if (family == AF_INET6) {
      reinterpret_cast<sockaddr_in6&>(name).sin6_addr = in6addr_loopback;
    } else {
      reinterpret_cast<sockaddr_in&>(name).sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    }
    socklen_t length = family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
    auto* address = reinterpret_cast<sockaddr*>(&name);
    ASSERT_OK(bind(listener.get(), address, length));
    ASSERT_OK(getsockname(listener.get(), address, &length));
    if (type == SOCK_STREAM) {
      ASSERT_OK(listen(listener.get(), 1));
    }
    sender_.reset(socket(family, type, 0));
    ASSERT_OK(connect(sender_.get(), address, length));
    if (type == SOCK_STREAM) {
      receiver_.reset(accept(listener.get(), nullptr, nullptr));
    } else {
      receiver_ = std::move(listener);
    }
    ASSERT_OK(receiver_.get());
    Enable(1);
  }
  void Enable(int on) { ASSERT_OK(setsockopt(sender_.get(), SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on))); }
  void Send(const std::string& bytes, int flags = MSG_ZEROCOPY) {
    EXPECT_RETURNS(send(sender_.get(), bytes.data(), bytes.size(), flags), static_cast<ssize_t>(bytes.size()));
    char got[64];
    size_t n = 0;
    // A completion comes when nobody needs the bytes any more.
    while (n < bytes.size()) {
      const ssize_t r = recv(receiver_.get(), got, sizeof(got), 0);
      ASSERT_GT(r, 0);
      n += static_cast<size_t>(r);
    }
  }
  // Waits a while for one.
  std::optional<Completion> Take(int timeout_ms = 5000) {
    pollfd p{.fd = sender_.get(), .events = 0, .revents = 0};
    if (poll(&p, 1, timeout_ms) != 1) return std::nullopt;
    EXPECT_EQ(p.revents, POLLERR);
    char control[256], byte;
    iovec iov{&byte, 1};
    msghdr m{};
    m.msg_iov = &iov;
    m.msg_iovlen = 1;
    m.msg_control = control;
    m.msg_controllen = sizeof(control);
    EXPECT_RETURNS(recvmsg(sender_.get(), &m, MSG_ERRQUEUE), 0);
    EXPECT_EQ(m.msg_flags, MSG_ERRQUEUE);
    const cmsghdr* c = CMSG_FIRSTHDR(&m);
    if (c == nullptr) return std::nullopt;
    const bool v6 = GetParam().first == AF_INET6;
    EXPECT_EQ(c->cmsg_level, v6 ? SOL_IPV6 : SOL_IP);
    EXPECT_EQ(c->cmsg_type, v6 ? IPV6_RECVERR : IP_RECVERR);
    sock_extended_err e;
    EXPECT_EQ(c->cmsg_len, CMSG_LEN(sizeof(e) + (v6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in))));
    std::memcpy(&e, CMSG_DATA(c), sizeof(e));
    EXPECT_EQ(e.ee_errno, 0u);
    EXPECT_EQ(e.ee_origin, SO_EE_ORIGIN_ZEROCOPY);
    return Completion{.first = e.ee_info, .last = e.ee_data, .code = e.ee_code};
  }
  ScopedFd sender_, receiver_;
};
INSTANTIATE_TEST_SUITE_P(Sockets, Zerocopy,
                         ::testing::Values(std::pair(AF_INET, SOCK_STREAM), std::pair(AF_INET6, SOCK_STREAM),
                                           std::pair(AF_INET, SOCK_DGRAM), std::pair(AF_INET6, SOCK_DGRAM)),
                         [](const auto& info) {
                           return std::string(info.param.second == SOCK_STREAM ? "Tcp" : "Udp") +
                                  (info.param.first == AF_INET6 ? "6" : "4");
                         });

TEST_P(Zerocopy, EachSendIsToldOnceInOrder) {
  for (int i = 0; i < 5; i++) Send("hello");
  uint32_t next = 0;
  while (next < 5) {
    std::optional<Completion> c = Take();
    ASSERT_TRUE(c);
    EXPECT_EQ(c->first, next);
    EXPECT_GE(c->last, c->first);
    // On the loopback the bytes are copied.
    EXPECT_EQ(c->code, SO_EE_CODE_ZEROCOPY_COPIED);
    next = c->last + 1;
  }
  EXPECT_EQ(next, 5u);
  EXPECT_FALSE(Take(0));
  char byte;
  EXPECT_ERRNO(recv(sender_.get(), &byte, 1, MSG_ERRQUEUE), EAGAIN);
  Send("again");
  std::optional<Completion> c = Take();
  ASSERT_TRUE(c);
  EXPECT_EQ(c->first, 5u);
}

TEST_P(Zerocopy, OnlyWithTheOptionAndTheFlag) {
  Send("without the flag", 0);
  EXPECT_FALSE(Take(50));
  Enable(0);
  Send("without the option");
  EXPECT_FALSE(Take(50));
  Enable(1);
  Send("with both");
  std::optional<Completion> c = Take();
  ASSERT_TRUE(c);
  EXPECT_EQ(c->first, 0u);
  EXPECT_EQ(c->last, 0u);
}

}  // namespace
}  // namespace redoubt::testing
