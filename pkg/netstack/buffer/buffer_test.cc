#include "pkg/netstack/buffer/buffer.h"

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace redoubt::netstack {
namespace {

std::span<const std::byte> Bytes(const std::string& s) { return std::as_bytes(std::span(s)); }

std::string Text(const Buffer& b) {
  std::string s(b.size(), '?');
  EXPECT_EQ(b.CopyOut(0, std::as_writable_bytes(std::span(s))), s.size());
  return s;
}

TEST(Buffer, PrependUsesHeadroomInPlace) {
  Buffer b = Buffer::CopyOf(Bytes("payload"), 64);
  EXPECT_EQ(b.headroom(), 64u);
  const std::byte* before = b.view(0).data();
  std::memcpy(b.Prepend(4), "tcp ", 4);
  EXPECT_EQ(b.view_count(), 1u);
  EXPECT_EQ(b.view(0).data() + 4, before);
  std::memcpy(b.Prepend(3), "ip ", 3);
  EXPECT_EQ(Text(b), "ip tcp payload");
}

TEST(Buffer, PrependLeavesSharedBytesAlone) {
  Buffer b = Buffer::CopyOf(Bytes("payload"), 64);
  Buffer c = b.Clone();
  std::memcpy(b.Prepend(4), "one ", 4);
  std::memcpy(c.Prepend(4), "two ", 4);
  EXPECT_EQ(Text(b), "one payload");
  EXPECT_EQ(Text(c), "two payload");
  // The new chunk has room for more headers.
  EXPECT_GE(b.headroom(), 64u);
  std::memcpy(b.Prepend(3), "ip ", 3);
  EXPECT_EQ(b.view_count(), 2u);
}

TEST(Buffer, AppendFillsTheLastChunk) {
  Buffer b;
  for (int i = 0; i < 100; i++) b.Append(Bytes("abcd"));
  EXPECT_EQ(b.view_count(), 1u);
  Buffer head = b.SplitFront(200);
  // The tail still owns the end of the chunk; the head must not write there.
  head.Append(Bytes("HEAD"));
  b.Append(Bytes("TAIL"));
  EXPECT_EQ(Text(head).substr(196), "abcdHEAD");
  EXPECT_EQ(Text(b).substr(196), "abcdTAIL");
  EXPECT_EQ(b.view_count(), 1u);
}

TEST(Buffer, OnlyOneCloneMayGrowInPlace) {
  Buffer a = Buffer::CopyOf(Bytes("x"));
  Buffer b = a.Clone();
  a.Append(Bytes("aaaa"));
  b.Append(Bytes("bbbb"));
  EXPECT_EQ(Text(a), "xaaaa");
  EXPECT_EQ(Text(b), "xbbbb");
}

TEST(Buffer, NeighbouringSlicesJoinAgain) {
  Buffer b = Buffer::CopyOf(Bytes("0123456789"));
  Buffer joined = b.Slice(0, 4);
  joined.Append(b.Slice(4, 3));
  joined.Append(b.Slice(7, 99));
  EXPECT_EQ(joined.view_count(), 1u);
  EXPECT_EQ(Text(joined), "0123456789");
}

TEST(Buffer, PullUpAndMakeWritable) {
  Buffer b = Buffer::CopyOf(Bytes("abc"));
  b.Append(Buffer::CopyOf(Bytes("def")));
  ASSERT_EQ(b.view_count(), 2u);
  EXPECT_TRUE(b.PullUp(7).empty());
  ASSERT_EQ(b.PullUp(4).size(), 4u);
  EXPECT_EQ(std::memcmp(b.PullUp(4).data(), "abcd", 4), 0);
  Buffer c = b.Clone();
  b.MakeWritable(2)[1] = std::byte{'B'};
  EXPECT_EQ(Text(b), "aBcdef");
  EXPECT_EQ(Text(c), "abcdef");
}

TEST(Buffer, AppendFromKeepsWhatWasCopied) {
  Buffer b;
  int calls = 0;
  auto copy = [&](std::span<std::byte> to) -> Result<size_t> {
    if (++calls == 2) return Err(EFAULT);
    return to.size();
  };
  EXPECT_EQ(b.AppendFrom(Chunk::kLarge + 10, copy), Chunk::kLarge);
  EXPECT_EQ(b.size(), Chunk::kLarge);
  calls = 1;
  EXPECT_EQ(b.AppendFrom(5, copy), Result<size_t>(Err(EFAULT)));
  EXPECT_EQ(b.AppendFrom(5, [](std::span<std::byte>) -> Result<size_t> { return 2; }), 2u);
  EXPECT_EQ(b.size(), Chunk::kLarge + 2);
}

TEST(Buffer, IovecsFollowTheViews) {
  Buffer b = Buffer::CopyOf(Bytes("abc"));
  b.Append(Buffer::CopyOf(Bytes("defg")));
  iovec iov[3];
  ASSERT_EQ(b.ToIovec(2, iov), 2u);
  EXPECT_EQ(std::string(static_cast<char*>(iov[0].iov_base), iov[0].iov_len), "c");
  EXPECT_EQ(std::string(static_cast<char*>(iov[1].iov_base), iov[1].iov_len), "defg");
  EXPECT_EQ(b.ToIovec(0, std::span(iov, 1)), 1u);
  EXPECT_EQ(b.ToIovec(7, iov), 0u);
}

TEST(Buffer, SmallPiecesAreCopiedTogether) {
  Buffer queue;
  for (int i = 0; i < 1000; i++) queue.AppendCompact(Buffer::CopyOf(Bytes("tiny"), 1500));
  EXPECT_LE(queue.memory(), 3 * queue.size() + 2 * Chunk::kMedium);
  Buffer big = Buffer::Allocate(60'000);
  Buffer part = big.Slice(100, 10);
  part.Compact();
  EXPECT_LE(part.memory(), 512u);
  // What continues the last view is not copied.
  Buffer joined = big.Slice(0, 10);
  joined.AppendCompact(big.Slice(10, 10));
  EXPECT_EQ(joined.view_count(), 1u);
  EXPECT_EQ(joined.view(0).data(), big.view(0).data());
}

// Lists of operations on a few buffers, against strings.
TEST(Buffer, RandomOperationsMatchStrings) {
  for (uint32_t seed = 0; seed < 120; seed++) {
    std::mt19937 rng(seed);
    auto below = [&](size_t n) { return static_cast<size_t>(rng() % n); };
    Buffer b[3];
    std::string s[3];
    auto text = [&] {
      std::string t(below(8) == 0 ? below(200'000) : below(600), '\0');
      for (char& c : t) c = static_cast<char>(rng());
      return t;
    };
    for (int step = 0; step < 100; step++) {
      size_t i = below(3), j = below(3);
      if (s[i].size() > 1'000'000) b[i].CapLength(100), s[i].resize(100);
      switch (below(12)) {
        case 10:
          b[i].Compact();
          break;
        case 11:
          if (i != j) {
            b[i].AppendCompact(std::move(b[j]));
            s[i] += s[j], s[j].clear();
          }
          break;
        case 0: {
          std::string t = text();
          b[i].Append(Bytes(t)), s[i] += t;
          break;
        }
        case 1: {
          std::string t = text();
          b[i] = Buffer::CopyOf(Bytes(t), below(200)), s[i] = t;
          break;
        }
        case 2: {
          size_t n = below(s[i].size() + 2);
          b[i].TrimFront(n), s[i].erase(0, n);
          break;
        }
        case 3: {
          size_t n = below(s[i].size() + 2);
          b[i].CapLength(n);
          if (n < s[i].size()) s[i].resize(n);
          break;
        }
        case 4:
          if (i != j) b[i] = b[j].Clone(), s[i] = s[j];
          break;
        case 5: {
          size_t at = below(s[j].size() + 1), n = below(s[j].size() + 2);
          Buffer part = b[j].Slice(at, n);
          b[i].Append(std::move(part)), s[i] += s[j].substr(at, n);
          break;
        }
        case 6:
          if (i != j) {
            size_t n = below(s[j].size() + 2);
            b[i] = b[j].SplitFront(n);
            s[i] = s[j].substr(0, n), s[j].erase(0, n);
          }
          break;
        case 7: {
          size_t n = 1 + below(100);
          std::memset(b[i].Prepend(n), static_cast<int>(seed), n);
          s[i].insert(0, n, static_cast<char>(seed));
          break;
        }
        case 8: {
          size_t n = std::min<size_t>(s[i].size(), 1 + below(3000));
          for (std::byte& x : b[i].MakeWritable(n)) x ^= std::byte{1};
          for (size_t k = 0; k < n; k++) s[i][k] ^= 1;
          break;
        }
        case 9:
          if (i != j) {
            b[i].Prepend(std::move(b[j]));
            s[i] = s[j] + s[i], s[j].clear();
          }
          break;
      }
      for (int k = 0; k < 3; k++) {
        ASSERT_EQ(b[k].size(), s[k].size()) << "seed " << seed << " step " << step;
        ASSERT_TRUE(Text(b[k]) == s[k]) << "seed " << seed << " step " << step;
        for (size_t v = 0; v < b[k].view_count(); v++) ASSERT_FALSE(b[k].view(v).empty());
      }
    }
  }
}

TEST(ChunkPool, SteadyPathAllocatesNothing) {
  auto round = [] {
    for (int i = 0; i < 1000; i++) {
      Buffer b = Buffer::Allocate(64'000, 100);
      Buffer c = b.Slice(100, 1000);
      c.Prepend(60);
    }
  };
  round();
  uint64_t before = GetChunkPoolStats().allocated_bytes;
  round();
  EXPECT_EQ(GetChunkPoolStats().allocated_bytes, before);
}

TEST(ChunkPool, TheCacheIsBoundedAndCanBeGivenBack) {
  uint64_t before = GetChunkPoolStats().allocated_bytes;
  {
    std::vector<Buffer> many;
    for (int i = 0; i < 1000; i++) many.push_back(Buffer::Allocate(Chunk::kLarge));
    EXPECT_GE(GetChunkPoolStats().allocated_bytes, before + 1000 * Chunk::kLarge - (8 << 20));
  }
  EXPECT_LE(GetChunkPoolStats().cached_bytes, 8u << 20);
  TrimChunkPool();
  EXPECT_EQ(GetChunkPoolStats().allocated_bytes, 0u);
}

TEST(ChunkPool, ThreadsPassChunksOn) {
  std::atomic<bool> corrupt{false};
  auto work = [&](uint32_t seed) {
    std::mt19937 rng(seed);
    std::vector<std::pair<Buffer, std::byte>> held;
    for (int i = 0; i < 3000; i++) {
      std::byte mark{static_cast<uint8_t>(rng())};
      Buffer b = Buffer::Allocate(1 + rng() % 3000);
      for (size_t v = 0; v < b.view_count(); v++) std::ranges::fill(b.MutableView(v), mark);
      held.emplace_back(b.Clone(), mark);
      if (held.size() > 40) {
        auto& [old, m] = held[rng() % held.size()];
        for (size_t v = 0; v < old.view_count(); v++) {
          for (std::byte x : old.view(v)) corrupt = corrupt || x != m;
        }
        std::swap(held[rng() % held.size()], held.back());
        held.pop_back();
      }
    }
    // Freed by the other thread's successor, through the shared list.
    return held;
  };
  for (uint32_t round = 0; round < 4; round++) {
    std::vector<std::pair<Buffer, std::byte>> left, right;
    std::thread a([&] { left = work(2 * round); });
    std::thread b([&] { right = work(2 * round + 1); });
    a.join(), b.join();
  }
  EXPECT_FALSE(corrupt);
  TrimChunkPool();
  EXPECT_EQ(GetChunkPoolStats().allocated_bytes, 0u);
}

}  // namespace
}  // namespace redoubt::netstack
