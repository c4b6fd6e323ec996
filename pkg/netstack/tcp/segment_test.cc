#include "pkg/netstack/tcp/segment.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "test/fuzz/rounds.h"

namespace redoubt::netstack::tcp {
namespace {

std::vector<std::byte> Make(std::initializer_list<int> values) {
  std::vector<std::byte> v;
  for (int x : values) v.push_back(static_cast<std::byte>(x));
  return v;
}

TEST(Seq, ComparesAcrossTheWrap) {
  EXPECT_TRUE(SeqLt(0xfffffff0, 5));
  EXPECT_TRUE(SeqGt(5, 0xfffffff0));
  EXPECT_TRUE(SeqLe(7, 7));
  EXPECT_EQ(SeqDiff(5, 0xfffffffb), 10);
  EXPECT_EQ(SeqMax(0xfffffff0, 5), 5u);
}

TEST(Segment, HeaderOnTheWire) {
  // RFC 9293 section 3.1.
  Segment s;
  s.seq = 0x01020304;
  s.ack = 0x05060708;
  s.flags = kAck | kPsh;
  s.window = 0x1234;
  s.urgent = 0x5678;
  s.options.mss = 1460;
  s.payload = Buffer::CopyOf(Make({0xaa}));
  Buffer b = BuildSegment(s, {.source = 0x8001, .destination = 80}, 40);
  EXPECT_GE(b.headroom(), 40u);
  std::vector<std::byte> bytes(b.size());
  b.CopyOut(0, bytes);
  EXPECT_EQ(bytes, Make({0x80, 0x01, 0,    80, 1, 2,    3,    4, 5, 6,    7,    8,   0x60,
                         0x18, 0x12, 0x34, 0,  0, 0x56, 0x78, 2, 4, 0x05, 0xb4, 0xaa}));
}

struct OptionCase {
  const char* what;
  std::vector<std::byte> bytes;
  bool syn;
  void (*check)(const Options&);
};

TEST(Options, Table) {
  const OptionCase kCases[] = {
      {"none", {}, true, [](const Options& o) { EXPECT_FALSE(o.mss || o.timestamp || o.window_scale); }},
      {"mss", Make({2, 4, 5, 180}), true, [](const Options& o) { EXPECT_EQ(o.mss, 1460); }},
      {"mss outside of a SYN", Make({2, 4, 5, 180}), false, [](const Options& o) { EXPECT_FALSE(o.mss); }},
      {"mss of 0", Make({2, 4, 0, 0}), true, [](const Options& o) { EXPECT_FALSE(o.mss); }},
      {"mss too long", Make({2, 5, 5, 180, 0}), true, [](const Options& o) { EXPECT_FALSE(o.mss); }},
      {"cut", Make({2, 4, 5}), true, [](const Options& o) { EXPECT_FALSE(o.mss); }},
      {"no length", Make({1, 1, 2}), true, [](const Options& o) { EXPECT_FALSE(o.mss); }},
      {"length 0", Make({99, 0, 2, 4, 5, 180}), true, [](const Options& o) { EXPECT_FALSE(o.mss); }},
      {"length 1", Make({99, 1, 2, 4, 5, 180}), true, [](const Options& o) { EXPECT_FALSE(o.mss); }},
      {"end of list", Make({0, 2, 4, 5, 180}), true, [](const Options& o) { EXPECT_FALSE(o.mss); }},
      {"unknown, skipped", Make({99, 3, 7, 2, 4, 5, 180}), true, [](const Options& o) { EXPECT_EQ(o.mss, 1460); }},
      {"scale beyond 14", Make({3, 3, 200}), true, [](const Options& o) { EXPECT_EQ(o.window_scale, 14); }},
      {"timestamp", Make({1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}), false,
       [](const Options& o) {
         EXPECT_TRUE(o.timestamp);
         EXPECT_EQ(o.ts_value, 1u);
         EXPECT_EQ(o.ts_echo, 2u);
       }},
      {"sack", Make({5, 10, 0, 0, 0, 1, 0, 0, 0, 9}), false,
       [](const Options& o) {
         ASSERT_EQ(o.sack_count, 1);
         EXPECT_EQ(o.sack[0], (SeqRange{1, 9}));
       }},
      {"sack of an odd length", Make({5, 9, 0, 0, 0, 1, 0, 0, 0}), false,
       [](const Options& o) { EXPECT_EQ(o.sack_count, 0); }},
      {"sack in a SYN", Make({5, 10, 0, 0, 0, 1, 0, 0, 0, 9}), true,
       [](const Options& o) { EXPECT_EQ(o.sack_count, 0); }},
      {"fast open request", Make({34, 2}), true,
       [](const Options& o) { EXPECT_TRUE(o.fast_open && o.fast_open->length == 0); }},
      {"fast open cookie", Make({34, 6, 1, 2, 3, 4}), true,
       [](const Options& o) { EXPECT_TRUE(o.fast_open && o.fast_open->length == 4 && o.fast_open->bytes[3] == 4); }},
      {"fast open, odd", Make({34, 7, 1, 2, 3, 4, 5}), true, [](const Options& o) { EXPECT_FALSE(o.fast_open); }},
  };
  for (const OptionCase& c : kCases) {
    SCOPED_TRACE(c.what);
    c.check(ParseOptions(c.bytes, c.syn));
  }
}

Segment RandomSegment(std::mt19937& rng) {
  Segment s;
  s.seq = static_cast<Seq>(rng());
  s.ack = static_cast<Seq>(rng());
  s.flags = static_cast<uint8_t>(rng());
  s.window = static_cast<uint16_t>(rng());
  s.urgent = static_cast<uint16_t>(rng());
  Options& o = s.options;
  if (rng() % 2 != 0) o.timestamp = true, o.ts_value = static_cast<uint32_t>(rng()), o.ts_echo = 7;
  if (s.Has(kSyn)) {
    if (rng() % 2 != 0) o.mss = static_cast<uint16_t>(1 + rng() % 65535);
    if (rng() % 2 != 0) o.window_scale = static_cast<uint8_t>(rng() % 15);
    o.sack_permitted = rng() % 2 != 0;
    if (rng() % 2 != 0) o.fast_open.emplace().length = static_cast<uint8_t>(rng() % 3 * 4);
  } else if (rng() % 2 != 0) {
    o.sack_count = static_cast<uint8_t>(rng() % (o.timestamp ? 4 : 5));
    for (SeqRange& r : o.sack) r = {static_cast<Seq>(rng()), static_cast<Seq>(rng())};
  }
  s.payload = Buffer::Allocate(rng() % 100);
  return s;
}

TEST(Segment, WhatIsBuiltIsParsed) {
  fuzz::Rounds(5000, [](uint64_t seed) {
    std::mt19937 rng(static_cast<uint32_t>(seed));
    Segment s = RandomSegment(rng);
    size_t size = s.payload.size();
    Buffer b = BuildSegment(s, {1, 2}, 0);
    Ports ports;
    std::optional<Segment> t = ParseSegment(std::move(b), &ports);
    ASSERT_TRUE(t);
    EXPECT_EQ(ports.destination, 2);
    EXPECT_EQ(t->seq, s.seq);
    EXPECT_EQ(t->ack, s.ack);
    EXPECT_EQ(t->flags, s.flags);
    EXPECT_EQ(t->window, s.window);
    EXPECT_EQ(t->urgent, s.urgent);
    EXPECT_EQ(t->payload.size(), size);
    EXPECT_EQ(t->options.mss, s.options.mss);
    EXPECT_EQ(t->options.window_scale, s.options.window_scale);
    EXPECT_EQ(t->options.sack_permitted, s.options.sack_permitted);
    EXPECT_EQ(t->options.timestamp, s.options.timestamp);
    EXPECT_EQ(t->options.ts_value, s.options.ts_value);
    ASSERT_EQ(t->options.sack_count, s.options.sack_count);
    for (size_t i = 0; i < s.options.sack_count; i++) EXPECT_EQ(t->options.sack[i], s.options.sack[i]);
    EXPECT_EQ(t->options.fast_open.has_value(), s.options.fast_open.has_value());
  });
}

TEST(Segment, MutatedBytesNeverOverrun) {
  // Under address sanitizer: views end where the bytes do. Options stay within what they may say.
  fuzz::Rounds(20'000, [](uint64_t seed) {
    std::mt19937 rng(static_cast<uint32_t>(seed));
    Segment s = RandomSegment(rng);
    Buffer b = BuildSegment(s, {1, 2}, 0);
    std::vector<std::byte> bytes(b.size());
    b.CopyOut(0, bytes);
    for (size_t flips = rng() % 6; flips > 0; flips--) bytes[rng() % bytes.size()] = static_cast<std::byte>(rng());
    bytes.resize(rng() % 3 == 0 ? rng() % (bytes.size() + 1) : bytes.size());
    size_t before = bytes.size();
    Buffer pieces;
    for (size_t at = 0; at < bytes.size();) {
      size_t n = std::min(bytes.size() - at, 1 + rng() % 30);
      pieces.Append(Buffer::CopyOf(std::span(bytes).subspan(at, n)));
      at += n;
    }
    Ports ports;
    std::optional<Segment> t = ParseSegment(std::move(pieces), &ports);
    if (!t) return;
    EXPECT_LE(t->payload.size() + kHeaderSize, before);
    EXPECT_LE(t->options.sack_count, kMaxSackBlocks);
    EXPECT_LE(t->options.window_scale.value_or(0), 14);
    if (t->options.fast_open) {
      EXPECT_LE(t->options.fast_open->length, 16);
    }
  });
}

}  // namespace
}  // namespace redoubt::netstack::tcp
