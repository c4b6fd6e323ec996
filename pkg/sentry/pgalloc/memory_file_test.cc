#include "pkg/sentry/pgalloc/memory_file.h"

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
