#include "pkg/netstack/packet/packet.h"

#include <gtest/gtest.h>

namespace redoubt::netstack {
namespace {

Buffer Bytes(size_t n, uint8_t value) { return Buffer::CopyOf(std::vector<std::byte>(n, std::byte{value})); }

TEST(Packet, ComesBackFromThePoolAsNew) {
  Packet* first;
  {
    PacketPtr p = NewPacket(Bytes(10, 1));
    first = p.get();
    p->ttl = 9;
    p->offload.checksum = ChecksumState::kPartial;
    p->source = Address::Ipv4(1, 2, 3, 4);
  }
  PacketPtr q = NewPacket();
  EXPECT_EQ(q.get(), first);
  EXPECT_EQ(q->ttl, 0);
  EXPECT_EQ(q->offload.checksum, ChecksumState::kComplete);
  EXPECT_TRUE(q->source.empty());
  EXPECT_TRUE(q->data.empty());
}

TEST(Packet, CloneSharesBytesAndCopiesFields) {
  PacketPtr p = NewPacket(Bytes(10, 7));
  p->protocol = 17;
  p->transport_offset = 4;
  p->offload.segment_size = 1448;
  p->router_alert = true;
  PacketPtr q = ClonePacket(*p);
  EXPECT_EQ(q->data.view(0).data(), p->data.view(0).data());
  EXPECT_EQ(q->protocol, 17);
  EXPECT_EQ(q->transport_length(), 6u);
  EXPECT_EQ(q->offload.segment_size, 1448);
  EXPECT_TRUE(q->router_alert);
}

TEST(PacketList, KeepsOrderAndOwns) {
  PacketList list;
  for (uint8_t i = 0; i < 5; i++) list.PushBack(NewPacket(Bytes(1, i)));
  EXPECT_EQ(list.size(), 5u);
  PacketList moved = std::move(list);
  EXPECT_TRUE(list.empty());
  for (uint8_t i = 0; i < 3; i++) EXPECT_EQ(moved.PopFront()->data.view(0)[0], std::byte{i});
  moved.Clear();
  EXPECT_EQ(moved.PopFront(), nullptr);
}

}  // namespace
}  // namespace redoubt::netstack
