#include "pkg/sentry/socket/netlink/port.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <vector>

namespace redoubt::netlink {
namespace {

constexpr size_t kLimit = 100;

std::vector<std::byte> Bytes(size_t n, int value) { return std::vector<std::byte>(n, static_cast<std::byte>(value)); }

TEST(Port, WhatIsReservedComesThoughTheQueueIsFull) {
  Port port;
  port.set_limit(kLimit);
  ASSERT_TRUE(port.Reserve(32));
  port.Deliver({Bytes(kLimit, 1)}, 0);
  port.Deliver({Bytes(1, 2)}, 0);  // lost
  port.DeliverReserved(Bytes(32, 3));
  EXPECT_EQ(port.Take(false).error(), Errno(ENOBUFS));
  EXPECT_EQ(port.Take(false)->bytes, Bytes(kLimit, 1));
  EXPECT_EQ(port.Take(false)->bytes, Bytes(32, 3));
  EXPECT_EQ(port.Take(false).error(), Errno(EAGAIN));
}

TEST(Port, ReservationsTakeRoom) {
  Port port;
  port.set_limit(kLimit);
  int reserved = 0;
  while (port.Reserve(32)) reserved++;
  EXPECT_EQ(reserved, 4);
  EXPECT_EQ(port.Reserve(32).error(), Errno(ENOMEM));
  port.Unreserve(32);
  ASSERT_TRUE(port.Reserve(32));
  // Until what was sent has been read.
  port.DeliverReserved(Bytes(32, 1));
  EXPECT_EQ(port.Reserve(32).error(), Errno(ENOMEM));
  EXPECT_TRUE(port.Take(false));
  EXPECT_TRUE(port.Reserve(32));
}

}  // namespace
}  // namespace redoubt::netlink
