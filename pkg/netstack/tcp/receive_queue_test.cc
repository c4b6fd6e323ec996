#include "pkg/netstack/tcp/receive_queue.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace redoubt::netstack::tcp {
namespace {

std::byte Pattern(uint64_t i) { return static_cast<std::byte>((i * 0x9e3779b97f4a7c15) >> 56); }

Buffer Piece(uint64_t from, size_t n, bool lie = false) {
  Buffer b = Buffer::Allocate(n);
  for (size_t v = 0; v < b.view_count(); v++) {
    for (std::byte& x : b.MutableView(v)) x = lie ? ~Pattern(from++) : Pattern(from++);
  }
  return b;
}

TEST(ReceiveQueue, InOrderNeedsNoPieces) {
  ReceiveQueue q;
  q.Start(0xfffffff0);
  EXPECT_EQ(q.Insert(0xfffffff0, Piece(0, 100)).in_order, 100u);
  EXPECT_EQ(q.next(), 0xfffffff0 + 100);
  EXPECT_FALSE(q.has_holes());
  EXPECT_EQ(q.readable().size(), 100u);
}

TEST(ReceiveQueue, ReportsDuplicates) {
  ReceiveQueue q;
  q.Start(0);
  q.Insert(0, Piece(0, 100));
  ReceiveQueue::Added a = q.Insert(50, Piece(50, 100));
  EXPECT_EQ(a.in_order, 50u);
  EXPECT_EQ(a.duplicate, (SeqRange{50, 100}));
  a = q.Insert(20, Piece(20, 10));
  EXPECT_EQ(a.in_order, 0u);
  EXPECT_EQ(a.duplicate, (SeqRange{20, 30}));
  q.Insert(300, Piece(300, 100));
  a = q.Insert(250, Piece(250, 100));
  EXPECT_TRUE(a.out_of_order);
  EXPECT_EQ(a.duplicate, (SeqRange{300, 350}));
}

TEST(ReceiveQueue, PiecesAreBounded) {
  ReceiveQueue q;
  q.Start(0);
  for (Seq i = 0; i < 2000; i++) q.Insert(10 + 2 * i, Piece(0, 1));
  EXPECT_EQ(q.piece_count(), ReceiveQueue::kMaxPieces);
  // Each took a small chunk, not the frame's.
  EXPECT_LE(q.memory(), ReceiveQueue::kMaxPieces * 512);
  EXPECT_TRUE(q.Insert(100'000, Piece(0, 1)).dropped);
  EXPECT_FALSE(q.Insert(0, Piece(0, 1)).dropped);
  q.Clear();
  EXPECT_EQ(q.memory(), 0u);
}

// Segments of a stream in any order, overlapping, some with other bytes the second time, against a map of bytes.
TEST(ReceiveQueue, RandomOperations) {
  for (uint32_t seed = 0; seed < 80; seed++) {
    std::mt19937 rng(seed);
    Seq start = static_cast<Seq>(rng());
    ReceiveQueue q;
    q.Start(start);
    constexpr size_t kTotal = 3000;
    std::vector<bool> have(kTotal);
    uint64_t read = 0;
    size_t next = 0;
    for (int step = 0; step < 400; step++) {
      size_t from = rng() % kTotal;
      if (rng() % 3 == 0) from = std::min(kTotal - 1, next + rng() % 50);
      size_t n = std::min<size_t>(kTotal - from, 1 + rng() % (rng() % 4 == 0 ? 600 : 60));
      bool known = true;
      for (size_t i = from; i < from + n; i++) known = known && have[i];
      // Bytes that we have are not taken again, whatever they say now.
      ReceiveQueue::Added added = q.Insert(start + static_cast<Seq>(from), Piece(from, n, known));
      ASSERT_FALSE(added.dropped);
      if (known) {
        ASSERT_EQ(added.in_order, 0u);
      }
      for (size_t i = from; i < from + n; i++) have[i] = true;
      size_t before = next;
      while (next < kTotal && have[next]) next++;
      ASSERT_EQ(added.in_order, next - before) << "seed " << seed << " step " << step;
      ASSERT_EQ(q.next(), start + static_cast<Seq>(next));
      size_t behind = 0;
      for (size_t i = next; i < kTotal; i++) behind += have[i] ? 1 : 0;
      ASSERT_EQ(q.out_of_order_bytes(), behind);
      SeqRange blocks[4];
      size_t count = q.SackBlocks(blocks);
      ASSERT_EQ(count, std::min<size_t>(4, q.piece_count()));
      for (size_t b = 0; b < count; b++) {
        size_t a = blocks[b].start - start, z = blocks[b].end - start;
        ASSERT_TRUE(a > next && z > a && z <= kTotal);
        for (size_t i = a; i < z; i++) ASSERT_TRUE(have[i]);
        ASSERT_TRUE(!have[a - 1] && (z == kTotal || !have[z]));
      }
      // The first block holds what came last (RFC 2018 section 4), if it is behind a hole.
      if (added.out_of_order) {
        Seq at = start + static_cast<Seq>(std::max(from, next));
        ASSERT_TRUE(SeqLe(blocks[0].start, at) && SeqLt(at, blocks[0].end));
      }
      if (rng() % 4 == 0) {
        Buffer out = q.readable().SplitFront(rng() % 200);
        for (size_t v = 0; v < out.view_count(); v++) {
          for (std::byte x : out.view(v)) ASSERT_EQ(x, Pattern(read++)) << "seed " << seed;
        }
      }
    }
  }
}

}  // namespace
}  // namespace redoubt::netstack::tcp
