#include "pkg/sentry/pgalloc/memory_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <map>
#include <random>
#include <thread>
#include <vector>

namespace redoubt::pgalloc {
namespace {

using memmap::FileRange;

std::unique_ptr<MemoryFile> Make(uint64_t limit = uint64_t{1} << 40) {
  auto file = MemoryFile::Create({.limit = limit});
  EXPECT_TRUE(file);
  return std::move(*file);
}

uint64_t Committed(MemoryFile& file) {
  struct stat st;
  EXPECT_EQ(fstat(file.fd(), &st), 0);
  return static_cast<uint64_t>(st.st_blocks) * 512;
}

std::unique_ptr<MemoryFile> MakeOnDisk() {
  const int fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);
  EXPECT_GE(fd, 0);
  auto file = MemoryFile::CreateOnFile(fd);
  EXPECT_TRUE(file);
  return std::move(*file);
}

TEST(MemoryFileOnDisk, RoomIsTakenBeforeItIsUsedAndGivenBack) {
  auto file = MakeOnDisk();
  FileRange a = *file->Allocate(uint64_t{16} << 20);
  EXPECT_GE(Committed(*file), a.length());
  memset(file->At(a.start), 0xaa, a.length());
  file->DecRef(a);
  EXPECT_LT(Committed(*file), uint64_t{8} << 20);
  FileRange b = *file->Allocate(uint64_t{1} << 20);
  for (uint64_t i = 0; i < b.length(); i += 512) ASSERT_EQ(*file->At(b.start + i), std::byte{0});
  EXPECT_EQ(file->usage(), b.length());
  EXPECT_FALSE(file->Recycle(kPageSize));
  file->DecRef(b);
}

TEST(MemoryFile, PagesAreZeroAndTheirOwn) {
  auto file = Make();
  FileRange a = *file->Allocate(3 * kPageSize);
  FileRange b = *file->Allocate(kPageSize);
  EXPECT_EQ(a.length(), 3 * kPageSize);
  EXPECT_TRUE(a.end <= b.start || b.end <= a.start);
  EXPECT_EQ(*file->At(a.start + 5), std::byte{0});
  memset(file->At(a.start), 0xaa, a.length());
  EXPECT_EQ(*file->At(b.start), std::byte{0});
  EXPECT_EQ(file->usage(), 4 * kPageSize);
  file->DecRef(a);
  file->DecRef(b);
  EXPECT_EQ(file->usage(), 0u);
}

TEST(MemoryFile, WhatIsWrittenIsInPlaceAndTheRestIsZero) {
  for (bool disk : {false, true}) {
    auto file = disk ? MakeOnDisk() : Make();
    FileRange before = *file->Allocate(kPageSize);
    FileRange range = *file->Allocate(3 * kPageSize);
    std::vector<std::byte> bytes(kPageSize + 100, std::byte{7});
    ASSERT_TRUE(file->Write(range.start + kPageSize - 50, bytes));
    for (uint64_t i = 0; i < range.length(); i++) {
      const bool written = i >= kPageSize - 50 && i < 2 * kPageSize + 50;
      ASSERT_EQ(*file->At(range.start + i), written ? std::byte{7} : std::byte{0}) << i;
    }
    EXPECT_EQ(*file->At(before.start + kPageSize - 1), std::byte{0});
    EXPECT_TRUE(file->Write(range.start, {}));
    file->DecRef(before);
    file->DecRef(range);
  }
}

TEST(MemoryFile, BadLengths) {
  auto file = Make();
  EXPECT_EQ(file->Allocate(0).error(), Errno(EINVAL));
  EXPECT_EQ(file->Allocate(100).error(), Errno(EINVAL));
  EXPECT_EQ(file->Allocate(uint64_t{1} << 50).error(), Errno(ENOMEM));
}

TEST(MemoryFile, TheLimitIsEnomemAndFreeingHelps) {
  auto file = Make(10 * kPageSize);
  FileRange a = *file->Allocate(8 * kPageSize);
  EXPECT_EQ(file->Allocate(3 * kPageSize).error(), Errno(ENOMEM));
  FileRange b = *file->Allocate(2 * kPageSize);
  file->DecRef({a.start, a.start + kPageSize});
  EXPECT_TRUE(file->Allocate(kPageSize));
  file->DecRef(b);
}

TEST(MemoryFile, CountsEachPage) {
  auto file = Make();
  FileRange a = *file->Allocate(4 * kPageSize);
  file->IncRef({a.start + kPageSize, a.start + 3 * kPageSize});
  EXPECT_EQ(file->RefCount(a.start), 1u);
  EXPECT_EQ(file->RefCount(a.start + kPageSize), 2u);
  std::vector<uint32_t> counts(3);
  file->RefCounts({a.start + kPageSize, a.end}, counts);
  EXPECT_EQ(counts, (std::vector<uint32_t>{2, 2, 1}));
  file->DecRef(a);
  EXPECT_EQ(file->usage(), 2 * kPageSize);
  file->DecRef({a.start + kPageSize, a.start + 3 * kPageSize});
  EXPECT_EQ(file->usage(), 0u);
}

TEST(MemoryFile, FreedMemoryGoesBackToTheHost) {
  auto file = Make();
  constexpr uint64_t kSize = uint64_t{32} << 20;
  FileRange a = *file->Allocate(kSize);
  memset(file->At(a.start), 1, a.length());
  EXPECT_GE(Committed(*file), kSize);
  file->DecRef(a);
  EXPECT_LT(Committed(*file), kSize / 4);
}

TEST(MemoryFile, UntouchedMemoryCostsNothing) {
  auto file = Make();
  FileRange a = *file->Allocate(uint64_t{1} << 30);
  EXPECT_EQ(Committed(*file), 0u);
  file->DecRef(a);
}

TEST(MemoryFile, FreedMemoryIsRecycled) {
  auto file = Make();
  FileRange a = *file->Allocate(64 * kPageSize);
  // Two islands of committed pages.
  for (uint64_t page : {3, 4, 5, 40}) memset(file->At(a.start + page * kPageSize), 0xaa, kPageSize);
  const uint64_t committed = Committed(*file);
  file->DecRef(a);
  EXPECT_EQ(file->usage(), 0u);
  EXPECT_EQ(Committed(*file), committed) << "it is not given back yet";
  FileRange b = *file->Allocate(64 * kPageSize);
  EXPECT_EQ(b, a);
  for (uint64_t i = b.start; i < b.end; i++) ASSERT_EQ(*file->At(i), std::byte{0});
  file->DecRef(b);

  EXPECT_FALSE(file->Recycle(100 * kPageSize));
  EXPECT_FALSE(file->Recycle(0));
  FileRange c = *file->Recycle(2 * kPageSize);
  EXPECT_EQ(c.start, a.start);
  EXPECT_EQ(file->RefCount(c.start + kPageSize), 1u);
  EXPECT_EQ(file->usage(), 2 * kPageSize);
  file->DecRef(c);
  auto small = Make(2 * kPageSize);
  FileRange d = *small->Allocate(2 * kPageSize);
  small->DecRef({d.start, d.start + kPageSize});
  EXPECT_FALSE(small->Recycle(2 * kPageSize)) << "not past the limit";
}

TEST(MemoryFile, LittleFreedMemoryIsKept) {
  auto file = Make();
  std::vector<FileRange> ranges;
  for (int i = 0; i < 4096; i++) {
    ranges.push_back(*file->Allocate(kPageSize));
    memset(file->At(ranges.back().start), 1, kPageSize);
  }
  // Every other page, so that nothing joins.
  for (size_t i = 0; i < ranges.size(); i += 2) file->DecRef(ranges[i]);
  for (size_t i = 1; i < ranges.size(); i += 2) file->DecRef(ranges[i]);
  EXPECT_LE(Committed(*file), uint64_t{4} << 20);
}

TEST(MemoryFileDeathTest, DroppingTwiceIsFatal) {
  auto file = Make();
  FileRange a = *file->Allocate(kPageSize);
  file->DecRef(a);
  EXPECT_DEATH(file->DecRef(a), "dropped twice");
}

// Random allocations and frees: no page is given out twice, and every page given out is zero.
TEST(MemoryFile, RandomOperations) {
  for (uint32_t seed = 0; seed < 20; seed++) {
    std::mt19937 random(seed);
    auto file = Make();
    std::map<uint64_t, uint32_t> refs;  // the model
    for (int step = 0; step < 400; step++) {
      if (refs.empty() || random() % 3 == 0) {
        uint64_t pages = random() % 20 == 0 ? 5000 : 1 + random() % 40;
        FileRange r = *file->Allocate(pages * kPageSize);
        for (uint64_t p = r.start; p < r.end; p += kPageSize) {
          ASSERT_EQ(refs.count(p), 0u);
          refs[p] = 1;
          if (pages > 100) continue;
          for (uint64_t i = 0; i < kPageSize; i += 512) ASSERT_EQ(*file->At(p + i), std::byte{0});
          memset(file->At(p), 0x5a, kPageSize);
        }
      } else {
        auto it = refs.lower_bound(random() % (uint64_t{40} << 20));
        if (it == refs.end()) it = refs.begin();
        uint64_t start = it->first;
        uint64_t end = start;
        uint64_t want = 1 + random() % 60;
        while (it != refs.end() && it->first == end && want-- > 0) {
          end += kPageSize;
          ++it;
        }
        bool inc = random() % 4 == 0;
        inc ? file->IncRef({start, end}) : file->DecRef({start, end});
        for (uint64_t p = start; p < end; p += kPageSize) {
          refs[p] += inc ? 1 : -1;
          if (refs[p] == 0) refs.erase(p);
        }
      }
      ASSERT_EQ(file->usage(), refs.size() * kPageSize);
    }
  }
}

TEST(MemoryFile, ThreadsShareIt) {
  auto file = Make();
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; t++) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 300; i++) {
        FileRange r = *file->Allocate((1 + i % 64) * kPageSize);
        for (uint64_t p = r.start; p < r.end; p += kPageSize) {
          ASSERT_EQ(*file->At(p), std::byte{0});
          *file->At(p) = std::byte(t + 1);
        }
        for (uint64_t p = r.start; p < r.end; p += kPageSize) ASSERT_EQ(*file->At(p), std::byte(t + 1));
        file->DecRef(r);
      }
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(file->usage(), 0u);
}

}  // namespace
}  // namespace redoubt::pgalloc
