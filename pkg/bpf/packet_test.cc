// What socket filters have more than those of system calls.
#include "pkg/bpf/packet.h"

#include <gtest/gtest.h>
#include <linux/if_arp.h>
#include <linux/if_packet.h>

#include <vector>

#include "pkg/bpf/bpf.h"
#include "pkg/bpf/packet_of_bytes.h"

namespace redoubt::bpf {
namespace {

using Code = std::vector<sock_filter>;
constexpr sock_filter kReturnA = BPF_STMT(BPF_RET | BPF_A, 0);

sock_filter Stmt(int code, uint32_t k = 0) { return {static_cast<uint16_t>(code), 0, 0, k}; }
sock_filter Beside(uint32_t which, int size = BPF_W) { return Stmt(BPF_LD | size | BPF_ABS, SKF_AD_OFF + which); }

std::vector<std::byte> Bytes(std::initializer_list<int> values) {
  std::vector<std::byte> bytes;
  for (int v : values) bytes.push_back(static_cast<std::byte>(v));
  return bytes;
}
const std::vector<std::byte> kBytes = Bytes({0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0});

uint32_t Evaluate(const Code& code, const Packet& packet) {
  Result<Program> program = Program::CreateForPackets(code);
  EXPECT_TRUE(program);
  return program ? program->Run(packet) : 0xdead;
}
uint32_t Evaluate(const Code& code) { return Evaluate(code, PacketOfBytes(kBytes)); }
bool IsGood(const Code& code) { return Program::CreateForPackets(code).has_value(); }

TEST(Packet, LoadsBigEndianOfEachSize) {
  EXPECT_EQ(Evaluate({Stmt(BPF_LD | BPF_W | BPF_ABS, 1), kReturnA}), 0x3456789au);
  EXPECT_EQ(Evaluate({Stmt(BPF_LD | BPF_H | BPF_ABS, 6), kReturnA}), 0xdef0u);
  EXPECT_EQ(Evaluate({Stmt(BPF_LD | BPF_B | BPF_ABS, 7), kReturnA}), 0xf0u);
  EXPECT_EQ(Evaluate({Stmt(BPF_LDX | BPF_IMM, 3), Stmt(BPF_LD | BPF_H | BPF_IND, 1), kReturnA}), 0x9abcu);
  // X may be negative.
  EXPECT_EQ(Evaluate({Stmt(BPF_LDX | BPF_IMM, ~uint32_t{0}), Stmt(BPF_LD | BPF_B | BPF_IND, 1), kReturnA}), 0x12u);
  EXPECT_EQ(Evaluate({Stmt(BPF_LD | BPF_W | BPF_LEN), kReturnA}), 8u);
  EXPECT_EQ(Evaluate({Stmt(BPF_LDX | BPF_W | BPF_LEN), Stmt(BPF_MISC | BPF_TXA), kReturnA}), 8u);
}

TEST(Packet, TheLengthOfAHeaderIsFourTimesTheLowBits) {
  EXPECT_EQ(Evaluate({Stmt(BPF_LDX | BPF_B | BPF_MSH, 1), Stmt(BPF_MISC | BPF_TXA), kReturnA}), 16u);
}

TEST(Packet, ALoadBeyondTheEndEndsTheProgram) {
  for (const sock_filter& load :
       {Stmt(BPF_LD | BPF_W | BPF_ABS, 5), Stmt(BPF_LD | BPF_H | BPF_ABS, 7), Stmt(BPF_LD | BPF_B | BPF_ABS, 8),
        Stmt(BPF_LDX | BPF_B | BPF_MSH, 8), Stmt(BPF_LD | BPF_B | BPF_ABS, 0x7fffffff),
        Stmt(BPF_LD | BPF_W | BPF_IND, 0xfffffffe), Stmt(BPF_LD | BPF_B | BPF_ABS, 0x80000000)}) {
    EXPECT_EQ(Evaluate({load, Stmt(BPF_RET | BPF_K, 1)}), 0u) << load.code << " " << load.k;
  }
}

TEST(Packet, OffsetsCountFromTheNetworkHeaderToo) {
  PacketOfBytes packet(kBytes);
  packet.network_offset_ = 4;
  EXPECT_EQ(Evaluate({Stmt(BPF_LD | BPF_H | BPF_ABS, SKF_NET_OFF), kReturnA}, packet), 0x9abcu);
  EXPECT_EQ(Evaluate({Stmt(BPF_LD | BPF_H | BPF_ABS, SKF_LL_OFF), kReturnA}, packet), 0x1234u);
  EXPECT_EQ(Evaluate({Stmt(BPF_LD | BPF_B | BPF_ABS, SKF_NET_OFF + 4), kReturnA}, packet), 0u);
}

TEST(Packet, WhatIsKnownBesideTheBytes) {
  PacketOfBytes packet(kBytes);
  packet.protocol_ = 0x0806;
  packet.type_ = PACKET_OUTGOING;
  EXPECT_EQ(Evaluate({Beside(SKF_AD_PROTOCOL), kReturnA}, packet), 0x0806u);
  EXPECT_EQ(Evaluate({Beside(SKF_AD_PROTOCOL, BPF_H), kReturnA}, packet), 0x0806u);
  EXPECT_EQ(Evaluate({Beside(SKF_AD_PKTTYPE, BPF_B), kReturnA}, packet), uint32_t{PACKET_OUTGOING});
  // Without an interface there is no answer.
  EXPECT_EQ(Evaluate({Beside(SKF_AD_IFINDEX), Stmt(BPF_RET | BPF_K, 1)}, packet), 0u);
  EXPECT_EQ(Evaluate({Beside(SKF_AD_HATYPE), Stmt(BPF_RET | BPF_K, 1)}, packet), 0u);
  packet.interface_ = {{.index = 7, .hardware_type = ARPHRD_ETHER}};
  EXPECT_EQ(Evaluate({Beside(SKF_AD_IFINDEX), kReturnA}, packet), 7u);
  EXPECT_EQ(Evaluate({Beside(SKF_AD_HATYPE), kReturnA}, packet), uint32_t{ARPHRD_ETHER});
  EXPECT_EQ(Evaluate({Stmt(BPF_LD | BPF_IMM, 5), Beside(SKF_AD_VLAN_TAG_PRESENT), kReturnA}, packet), 0u);
  EXPECT_EQ(Evaluate({Stmt(BPF_LD | BPF_IMM, 0xff), Stmt(BPF_LDX | BPF_IMM, 0x0f), Beside(SKF_AD_ALU_XOR_X), kReturnA},
                     packet),
            0xf0u);
}

TEST(Packet, FindsNetlinkAttributes) {
  // Of types 3 and 0x8005, the second with one of type 1 in it.
  const std::vector<std::byte> bytes =
      Bytes({0, 0, 0, 0, 5, 0, 3, 0, 9, 0, 0, 0, 12, 0, 5, 0x80, 8, 0, 1, 0, 1, 2, 3, 4});
  auto find = [&](uint32_t from, uint32_t type, uint32_t which) {
    return Evaluate({Stmt(BPF_LDX | BPF_IMM, type), Stmt(BPF_LD | BPF_IMM, from), Beside(which), kReturnA},
                    PacketOfBytes(bytes));
  };
  EXPECT_EQ(find(4, 3, SKF_AD_NLATTR), 4u);
  EXPECT_EQ(find(4, 5, SKF_AD_NLATTR), 12u);
  EXPECT_EQ(find(4, 4, SKF_AD_NLATTR), 0u);
  EXPECT_EQ(find(100, 3, SKF_AD_NLATTR), 0u);
  EXPECT_EQ(find(12, 1, SKF_AD_NLATTR_NEST), 16u);
  EXPECT_EQ(find(12, 2, SKF_AD_NLATTR_NEST), 0u);
  EXPECT_EQ(find(~0u, 2, SKF_AD_NLATTR_NEST), 0u);
}

TEST(Packet, FindsThePayload) {
  auto offset = [](std::vector<std::byte> bytes, uint16_t protocol, int32_t network) {
    bytes.resize(80);
    PacketOfBytes packet(bytes);
    packet.protocol_ = protocol;
    packet.network_offset_ = network;
    return Evaluate({Beside(SKF_AD_PAY_OFFSET), kReturnA}, packet);
  };
  std::vector<std::byte> udp = Bytes({0x46, 0, 0, 0, 0, 0, 0x40, 0, 64, 17});
  EXPECT_EQ(offset(udp, 0x0800, 0), 24u + 8u);
  udp[6] = std::byte{0x20};  // a fragment
  EXPECT_EQ(offset(udp, 0x0800, 0), 24u);
  std::vector<std::byte> tcp = Bytes({0x60, 0, 0, 0, 0, 0, 6, 64});
  tcp.resize(53);
  tcp[52] = std::byte{0x80};
  EXPECT_EQ(offset(tcp, 0x86dd, 0), 40u + 32u);
  tcp.insert(tcp.begin(), 14, std::byte{0});
  EXPECT_EQ(offset(tcp, 0x86dd, 14), 14u + 40u + 32u);
  EXPECT_EQ(offset(udp, 0x0806, 0), 0u);
}

TEST(Packet, Remainders) {
  EXPECT_EQ(Evaluate({Stmt(BPF_LD | BPF_IMM, 17), Stmt(BPF_ALU | BPF_MOD | BPF_K, 5), kReturnA}), 2u);
  EXPECT_EQ(
      Evaluate({Stmt(BPF_LD | BPF_IMM, 17), Stmt(BPF_LDX | BPF_IMM, 7), Stmt(BPF_ALU | BPF_MOD | BPF_X), kReturnA}),
      3u);
  EXPECT_EQ(Evaluate({Stmt(BPF_LD | BPF_IMM, 17), Stmt(BPF_ALU | BPF_MOD | BPF_X), kReturnA}), 0u);
  EXPECT_FALSE(IsGood({Stmt(BPF_ALU | BPF_MOD | BPF_K, 0), kReturnA}));
}

TEST(Packet, OnlyWhatIsNamedBesideTheBytesIsLoaded) {
  EXPECT_TRUE(IsGood({Beside(SKF_AD_VLAN_TPID), kReturnA}));
  EXPECT_FALSE(IsGood({Beside(SKF_AD_MAX), kReturnA}));
  EXPECT_FALSE(IsGood({Beside(1), kReturnA}));
  EXPECT_TRUE(IsGood({Stmt(BPF_LD | BPF_B | BPF_IND, SKF_AD_OFF + 1), kReturnA}));
  EXPECT_FALSE(IsGood({Stmt(BPF_LDX | BPF_H | BPF_MSH), kReturnA}));
}

TEST(Packet, RecordsHaveNothingOfThis) {
  for (const sock_filter& f : {Stmt(BPF_LD | BPF_H | BPF_ABS), Stmt(BPF_LD | BPF_B | BPF_ABS),
                               Stmt(BPF_LD | BPF_W | BPF_IND), Stmt(BPF_LDX | BPF_B | BPF_MSH), Beside(SKF_AD_PROTOCOL),
                               Stmt(BPF_ALU | BPF_MOD | BPF_K, 3), Stmt(BPF_ALU | BPF_MOD | BPF_X)}) {
    EXPECT_FALSE(Program::Create(Code{f, kReturnA}, 16)) << f.code;
  }
}

}  // namespace
}  // namespace redoubt::bpf
