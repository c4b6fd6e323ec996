// TCP on the loopback: who listens, and both ends of a connection.
#ifndef REDOUBT_TEST_SYSCALLS_UTIL_TCP_PAIR_H_
#define REDOUBT_TEST_SYSCALLS_UTIL_TCP_PAIR_H_

#include <netinet/in.h>
#include <sys/socket.h>

#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"

namespace redoubt::testing {

class TcpPair : public ::testing::Test {
 protected:
  void SetUp() override {
    listener_.reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    name_.sin_family = AF_INET;
    name_.sin_addr.s_addr = htonl(address_);
    ASSERT_OK(bind(listener_.get(), name(), sizeof(name_)));
    socklen_t length = sizeof(name_);
    ASSERT_OK(getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&name_), &length));
    ASSERT_OK(listen(listener_.get(), 8));
  }
  void Connect() {
    a_.reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_OK(connect(a_.get(), name(), sizeof(name_)));
    b_.reset(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    ASSERT_OK(b_.get());
  }
  const sockaddr* name() const { return reinterpret_cast<const sockaddr*>(&name_); }

  in_addr_t address_ = INADDR_LOOPBACK;
  sockaddr_in name_{};
  ScopedFd listener_, a_, b_;
};

}  // namespace redoubt::testing

#endif  // REDOUBT_TEST_SYSCALLS_UTIL_TCP_PAIR_H_
