#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <thread>
#include <vector>

#include "pkg/hostarch/hostarch.h"
#include "pkg/safecopy/safecopy_unsafe.h"

namespace redoubt::safecopy {
namespace {

enum class Hole { kUnmapped, kTruncated };

// Two pages of which the second faults: with SIGSEGV or with SIGBUS.
class SafecopyTest : public testing::TestWithParam<Hole> {
 protected:
  void SetUp() override {
    InstallFaultHandler();
    int fd = memfd_create("safecopy", MFD_CLOEXEC);
    ASSERT_GE(fd, 0);
    ASSERT_EQ(ftruncate(fd, 2 * kPageSize), 0);
    void* p = mmap(nullptr, 2 * kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ASSERT_NE(p, MAP_FAILED);
    page_ = static_cast<std::byte*>(p);
    hole_ = page_ + kPageSize;
    if (GetParam() == Hole::kTruncated) {
      ASSERT_EQ(ftruncate(fd, kPageSize), 0);
    } else {
      ASSERT_EQ(munmap(hole_, kPageSize), 0);
    }
    close(fd);
  }
  void TearDown() override { munmap(page_, GetParam() == Hole::kTruncated ? 2 * kPageSize : kPageSize); }

  std::byte* page_;
  std::byte* hole_;
};

TEST_P(SafecopyTest, CopiesMoveAllBytesBeforeTheFault) {
  std::vector<std::byte> buffer(kPageSize);
  for (size_t i = 0; i < buffer.size(); i++) buffer[i] = static_cast<std::byte>(i * 7);
  for (size_t before : {1, 2, 7, 8, 63, 64, 65, 500, 4095}) {
    EXPECT_EQ(CopyOut(hole_ - before, buffer), before);
    EXPECT_EQ(memcmp(hole_ - before, buffer.data(), before), 0);
    std::vector<std::byte> back(kPageSize, std::byte{0xee});
    EXPECT_EQ(CopyIn(back, hole_ - before), before);
    EXPECT_EQ(memcmp(back.data(), buffer.data(), before), 0);
    EXPECT_EQ(back[before], std::byte{0xee});
    EXPECT_EQ(CopyBetween(hole_ - before, page_, kPageSize), before);
    EXPECT_EQ(ZeroOut(hole_ - before, kPageSize), before);
    EXPECT_EQ(*(hole_ - 1), std::byte{0});
  }
}

TEST_P(SafecopyTest, NothingMovedIsEfault) {
  std::byte buffer[16];
  EXPECT_EQ(CopyIn(buffer, hole_).error(), Errno(EFAULT));
  EXPECT_EQ(CopyOut(hole_ + 5, buffer).error(), Errno(EFAULT));
  EXPECT_EQ(ZeroOut(hole_, 1).error(), Errno(EFAULT));
  EXPECT_EQ(CopyIn({}, hole_), 0u);
  EXPECT_EQ(ZeroOut(hole_, 0), 0u);
  EXPECT_EQ(CopyIn(buffer, nullptr).error(), Errno(EFAULT));
  // Not canonical: a general protection fault instead of a page fault.
  EXPECT_EQ(CopyIn(buffer, reinterpret_cast<void*>(0x8000'0000'0000'0000)).error(), Errno(EFAULT));
}

TEST_P(SafecopyTest, AtomicsWorkAndFault) {
  EXPECT_EQ(SwapU32(page_, 5), 0u);
  EXPECT_EQ(LoadU32(page_), 5u);
  EXPECT_EQ(CompareAndSwapU32(page_, 4, 9), 5u);
  EXPECT_EQ(LoadU32(page_), 5u);
  EXPECT_EQ(CompareAndSwapU32(page_, 5, 9), 5u);
  EXPECT_EQ(LoadU32(page_), 9u);
  EXPECT_EQ(LoadU32(page_ + 1).error(), Errno(EINVAL));
  EXPECT_EQ(SwapU32(page_ + 2, 0).error(), Errno(EINVAL));
  EXPECT_EQ(CompareAndSwapU32(page_ + 3, 0, 0).error(), Errno(EINVAL));
  EXPECT_EQ(LoadU32(hole_).error(), Errno(EFAULT));
  EXPECT_EQ(SwapU32(hole_, 0).error(), Errno(EFAULT));
  EXPECT_EQ(CompareAndSwapU32(hole_, 0, 0).error(), Errno(EFAULT));
}

INSTANTIATE_TEST_SUITE_P(Holes, SafecopyTest, testing::Values(Hole::kUnmapped, Hole::kTruncated),
                         [](const auto& p) { return p.param == Hole::kUnmapped ? "Segv" : "Bus"; });

TEST(Safecopy, AtomicsAreAtomic) {
  InstallFaultHandler();
  alignas(4) uint32_t word = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; t++) {
    threads.emplace_back([&] {
      for (int i = 0; i < 10000; i++) {
        uint32_t seen = *LoadU32(&word);
        for (;;) {
          uint32_t found = *CompareAndSwapU32(&word, seen, seen + 1);
          if (found == seen) break;
          seen = found;
        }
      }
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(word, 20000u);
}

TEST(SafecopyDeathTest, OtherFaultsStillKill) {
  InstallFaultHandler();
  void* p = mmap(nullptr, kPageSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(p, MAP_FAILED);
  EXPECT_DEATH({ *static_cast<volatile char*>(p) = 1; }, "");
  EXPECT_DEATH(raise(SIGBUS), "");
  munmap(p, kPageSize);
}

}  // namespace
}  // namespace redoubt::safecopy
