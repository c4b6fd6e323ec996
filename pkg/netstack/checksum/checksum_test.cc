#include "pkg/netstack/checksum/checksum.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace redoubt::netstack {
namespace {

std::vector<std::byte> Make(std::initializer_list<int> values) {
  std::vector<std::byte> v;
  for (int x : values) v.push_back(static_cast<std::byte>(x));
  return v;
}

// Word by word, as the RFC states it.
uint16_t Reference(std::span<const std::byte> b, uint32_t sum = 0) {
  for (size_t i = 0; i < b.size(); i += 2) {
    uint32_t word = std::to_integer<uint32_t>(b[i]) << 8;
    if (i + 1 < b.size()) word |= std::to_integer<uint32_t>(b[i + 1]);
    sum += word;
    sum = (sum & 0xffff) + (sum >> 16);
  }
  return static_cast<uint16_t>(sum);
}

TEST(Checksum, ExampleOfRfc1071) {
  EXPECT_EQ(Sum(Make({0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7})), 0xddf2);
  EXPECT_EQ(Sum(std::span<const std::byte>()), 0);
  EXPECT_EQ(Sum(Make({0xab})), 0xab00);
}

TEST(Checksum, AnyLengthAndAlignment) {
  std::mt19937 rng(1);
  std::vector<std::byte> bytes(70'000);
  for (std::byte& b : bytes) b = static_cast<std::byte>(rng());
  for (size_t n = 0; n < 300; n++) {
    for (size_t at = 0; at < 9; at++) {
      std::span part = std::span(bytes).subspan(at, n);
      uint16_t initial = static_cast<uint16_t>(rng());
      ASSERT_EQ(Sum(part, initial), Reference(part, initial)) << n << " at " << at;
    }
  }
  EXPECT_EQ(Sum(bytes), Reference(bytes));
  // All ones: every addition carries.
  std::vector<std::byte> ones(65'535, std::byte{0xff});
  EXPECT_EQ(Sum(ones), Reference(ones));
}

TEST(Checksum, OddViewsOfABuffer) {
  std::mt19937 rng(2);
  for (int round = 0; round < 500; round++) {
    std::vector<std::byte> all;
    Buffer b;
    for (size_t pieces = 1 + rng() % 6; pieces > 0; pieces--) {
      std::vector<std::byte> piece(rng() % 70);
      for (std::byte& x : piece) x = static_cast<std::byte>(rng());
      all.insert(all.end(), piece.begin(), piece.end());
      b.Append(Buffer::CopyOf(piece));
    }
    size_t offset = rng() % (all.size() + 1);
    ASSERT_EQ(Sum(b, offset), Reference(std::span(all).subspan(offset))) << round;
  }
}

TEST(Checksum, PseudoHeaders) {
  // 192.0.2.1 to 198.51.100.2, TCP, 20 bytes.
  EXPECT_EQ(PseudoHeaderSum(Make({192, 0, 2, 1}), Make({198, 51, 100, 2}), 6, 20),
            Reference(Make({192, 0, 2, 1, 198, 51, 100, 2, 0, 6, 0, 20})));
  std::vector<std::byte> source(16, std::byte{0x20}), destination(16, std::byte{0xfe});
  std::vector<std::byte> header = source;
  header.insert(header.end(), destination.begin(), destination.end());
  std::vector<std::byte> tail = Make({0, 1, 0x11, 0x70, 0, 0, 0, 17});
  header.insert(header.end(), tail.begin(), tail.end());
  EXPECT_EQ(PseudoHeaderSum(source, destination, 17, 70'000), Reference(header));
}

TEST(Checksum, IncrementalUpdate) {
  // The example of RFC 1624 section 4: the old method gives 0xffff here.
  EXPECT_EQ(UpdateChecksum(0xdd2f, 0x5555, 0x3285), 0x0000);
  std::mt19937 rng(3);
  for (int round = 0; round < 10'000; round++) {
    std::vector<std::byte> header(20);
    for (std::byte& b : header) b = static_cast<std::byte>(rng());
    uint16_t check = static_cast<uint16_t>(~Sum(header));
    size_t at = 2 * (rng() % 10);
    uint16_t before =
        static_cast<uint16_t>(std::to_integer<int>(header[at]) << 8 | std::to_integer<int>(header[at + 1]));
    uint16_t after = static_cast<uint16_t>(rng());
    header[at] = static_cast<std::byte>(after >> 8);
    header[at + 1] = static_cast<std::byte>(after);
    ASSERT_EQ(UpdateChecksum(check, before, after), static_cast<uint16_t>(~Sum(header)));
  }
}

}  // namespace
}  // namespace redoubt::netstack
