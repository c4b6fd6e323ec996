#include "pkg/sentry/mm/memory_manager.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>
#include <random>

#include "pkg/sentry/mm/mm_test_util.h"

namespace redoubt::mm {
namespace {

TEST_F(MmTest, AnonymousMemoryIsZeroAndKeepsWhatIsWritten) {
  Addr a = Map(4);
  EXPECT_EQ(Read(a), 0);
  EXPECT_TRUE(Write(a + 3 * kPage, 'x'));
  EXPECT_EQ(Read(a + 3 * kPage), 'x');
  EXPECT_EQ(Read(a + 4 * kPage).error(), Errno(EFAULT));
  EXPECT_EQ(mm_->virtual_size(), 4 * kPage);
}

TEST_F(MmTest, OneFaultBringsInItsNeighbours) {
  Addr a = Map(16);
  ASSERT_TRUE(Write(a, 'x'));
  int calls = Guest(*mm_).calls;
  for (int i = 0; i < 16; i++) ASSERT_TRUE(Write(a + i * kPage, 'y'));
  EXPECT_LE(Guest(*mm_).calls, calls + 1);
}

TEST_F(MmTest, BadMMapArguments) {
  EXPECT_EQ(mm_->MMap({.length = 0}).error(), Errno(EINVAL));
  EXPECT_EQ(mm_->MMap({.length = ~uint64_t{0}}).error(), Errno(ENOMEM));
  EXPECT_EQ(mm_->MMap({.length = uint64_t{1} << 48}).error(), Errno(ENOMEM));
  EXPECT_EQ(mm_->MMap({.addr = 0x20001, .length = kPage, .fixed = true}).error(), Errno(EINVAL));
  EXPECT_EQ(mm_->MMap({.addr = 0, .length = kPage, .fixed = true}).error(), Errno(EPERM));
  EXPECT_EQ(mm_->MMap({.addr = FakePlatform::kMax, .length = kPage, .fixed = true}).error(), Errno(ENOMEM));
  EXPECT_EQ(mm_->MMap({.length = kPage, .offset = 1}).error(), Errno(EINVAL));
  EXPECT_EQ(mm_->MMap({.length = 2 * kPage, .offset = ~kPageMask}).error(), Errno(EOVERFLOW));
  EXPECT_EQ(mm_->MMap({.length = kPage, .access = kReadWrite, .max_access = kRead}).error(), Errno(EACCES));
}

TEST_F(MmTest, HintsFixedAndNoReplace) {
  Addr a = Map(2);
  // A hint that is taken is only a hint.
  EXPECT_NE(*mm_->MMap({.addr = a, .length = kPage}), a);
  EXPECT_EQ(mm_->MMap({.addr = a, .length = kPage, .no_replace = true}).error(), Errno(EEXIST));
  Addr free = a - 64 * kPage;
  EXPECT_EQ(*mm_->MMap({.addr = free, .length = kPage}), free);
  ASSERT_TRUE(Write(a, 'x'));
  ASSERT_TRUE(Write(a + kPage, 'y'));
  EXPECT_EQ(*mm_->MMap({.addr = a, .length = kPage, .fixed = true, .access = kRead}), a);
  EXPECT_EQ(Read(a), 0);
  EXPECT_EQ(Read(a + kPage), 'y');
  Addr low = *mm_->MMap({.length = kPage, .map_32bit = true});
  EXPECT_LT(low, 0x8000'0000u);
}

// The highest gap that is large enough, as on Linux, whatever came before.
TEST_F(MmTest, MappingsGoToTheHighestGap) {
  for (uint32_t seed = 0; seed < 20; seed++) {
    std::mt19937 random(seed);
    const Addr top = Map(1) + kPage;
    const Addr base = top - 400 * kPage;
    for (int step = 0; step < 300; step++) {
      const uint64_t most = random() % 8 == 0 ? 30 : 4;
      const uint64_t length = (1 + random() % most) * kPage;
      const Addr at = base + random() % 370 * kPage;
      switch (random() % 5) {
        case 0:
        case 1:
          ASSERT_TRUE(mm_->MUnmap(at, length));
          break;
        case 2:
          ASSERT_TRUE(mm_->MMap({.addr = at, .length = length, .fixed = true, .access = kRead}));
          break;
        default: {
          std::vector<MapsEntry> maps = mm_->Maps();
          Addr high = top;
          for (auto it = maps.rbegin(); it != maps.rend(); ++it) {
            if (high >= it->range.end + length) break;
            high = it->range.start;
          }
          ASSERT_EQ(*mm_->MMap({.length = length, .access = kReadWrite}), high - length) << seed << " " << step;
        }
      }
      mm_->CheckInvariants();
    }
    ASSERT_TRUE(mm_->MUnmap(top - (uint64_t{1} << 30), uint64_t{1} << 30));
  }
}

TEST_F(MmTest, UnmapSplitsAndForgetsPages) {
  Addr a = Map(3);
  for (int i = 0; i < 3; i++) ASSERT_TRUE(Write(a + i * kPage, 'x'));
  EXPECT_EQ(mm_->MUnmap(a + 1, kPage).error(), Errno(EINVAL));
  EXPECT_EQ(mm_->MUnmap(a, 0).error(), Errno(EINVAL));
  EXPECT_EQ(mm_->MUnmap(a, ~uint64_t{0} - kPage).error(), Errno(EINVAL));
  ASSERT_TRUE(mm_->MUnmap(a + kPage, kPage));
  EXPECT_EQ(Read(a + kPage).error(), Errno(EFAULT));
  EXPECT_EQ(Read(a), 'x');
  EXPECT_EQ(Read(a + 2 * kPage), 'x');
  EXPECT_EQ(mm_->Maps().size(), 2u);
  EXPECT_EQ(w_.memory->usage(), 2 * kPage);
  ASSERT_TRUE(mm_->MUnmap(a, 3 * kPage));
  EXPECT_EQ(w_.memory->usage(), 0u);
}

TEST_F(MmTest, ProtectionHolds) {
  Addr a = Map(3);
  ASSERT_TRUE(Write(a + kPage, 'x'));
  ASSERT_TRUE(mm_->MProtect(a + kPage, kPage, kRead, false));
  EXPECT_EQ(Read(a + kPage), 'x');
  EXPECT_EQ(Write(a + kPage, 'y').error(), Errno(EACCES));
  EXPECT_EQ(mm_->CopyOut(a + kPage, std::as_bytes(std::span("z", 1))).error(), Errno(EFAULT));
  ASSERT_TRUE(mm_->MProtect(a, 3 * kPage, {}, false));
  EXPECT_EQ(Read(a + kPage).error(), Errno(EACCES));
  ASSERT_TRUE(mm_->MProtect(a, 3 * kPage, kReadWrite, false));
  EXPECT_EQ(Read(a + kPage), 'x');
  EXPECT_TRUE(Write(a + kPage, 'y'));
  EXPECT_EQ(mm_->Maps().size(), 1u);
  EXPECT_EQ(mm_->MProtect(a, 4 * kPage, kRead, false).error(), Errno(ENOMEM));
  EXPECT_EQ(mm_->MProtect(a + 1, kPage, kRead, false).error(), Errno(EINVAL));
  EXPECT_EQ(mm_->MProtect(a, kPage, kRead, true).error(), Errno(EINVAL));
  Addr exec = Map(1, kRead);
  EXPECT_EQ(mm_->HandleUserFault(exec, kExecute, true, 0).error(), Errno(EACCES));
}

TEST_F(MmTest, MaxAccessBoundsProtect) {
  auto file = MakeRef<FakeFile>(*w_.memory, 1);
  Addr a = *mm_->MMap({.length = kPage,
                       .shared = true,
                       .access = kRead,
                       .max_access = kRead,
                       .mappable = file.get(),
                       .identity = file});
  EXPECT_EQ(mm_->MProtect(a, kPage, kReadWrite, false).error(), Errno(EACCES));
  ASSERT_TRUE(mm_->MUnmap(a, kPage));
}

TEST_F(MmTest, ForkCopiesOnWrite) {
  Addr a = Map(40);
  for (int i = 0; i < 40; i++) ASSERT_TRUE(Write(a + i * kPage, 'p'));
  RefPtr<MemoryManager> child = *mm_->Fork();
  child->AddUser();
  EXPECT_EQ(w_.memory->usage(), 40 * kPage) << "nothing is copied yet";
  EXPECT_EQ(GuestRead(w_, *child, a), 'p');
  ASSERT_TRUE(GuestWrite(w_, *child, a, 'c'));
  EXPECT_EQ(Read(a), 'p');
  ASSERT_TRUE(Write(a + kPage, 'q'));
  EXPECT_EQ(GuestRead(w_, *child, a + kPage), 'p');
  // The Sentry's own writes are copied as well, and seen by the guest.
  EXPECT_EQ(GuestRead(w_, *child, a + 39 * kPage), 'p');
  ASSERT_TRUE(child->CopyOutAll(a + 39 * kPage, std::as_bytes(std::span("s", 1))));
  EXPECT_EQ(GuestRead(w_, *child, a + 39 * kPage), 's');
  EXPECT_EQ(Read(a + 39 * kPage), 'p');
  child->CheckInvariants();
  child->DropUser();
  // Alone again: written in place.
  uint64_t usage = w_.memory->usage();
  for (int i = 0; i < 40; i++) ASSERT_TRUE(Write(a + i * kPage, 'r'));
  EXPECT_EQ(w_.memory->usage(), usage);
}

TEST_F(MmTest, ForkSharesSharedMemory) {
  Addr a = Map(2, kReadWrite, true);
  ASSERT_TRUE(Write(a, 'p'));
  RefPtr<MemoryManager> child = *mm_->Fork();
  child->AddUser();
  ASSERT_TRUE(GuestWrite(w_, *child, a + kPage, 'c'));
  EXPECT_EQ(Read(a + kPage), 'c');
  EXPECT_EQ(GuestRead(w_, *child, a), 'p');
  EXPECT_EQ(*mm_->GetFutexKey(a + 8, false), *child->GetFutexKey(a + 8, false));
  EXPECT_FALSE(*mm_->GetFutexKey(a + 8, true) == *child->GetFutexKey(a + 8, true));
  EXPECT_EQ(mm_->Maps()[0].name, "/dev/zero (deleted)");
  child->DropUser();
}

TEST_F(MmTest, AdviceOnFork) {
  Addr a = Map(1);
  Addr b = Map(1);
  ASSERT_TRUE(mm_->MAdvise(a, kPage, MADV_DONTFORK));
  ASSERT_TRUE(mm_->MAdvise(b, kPage, MADV_WIPEONFORK));
  ASSERT_TRUE(Write(a, 'x'));
  ASSERT_TRUE(Write(b, 'x'));
  RefPtr<MemoryManager> child = *mm_->Fork();
  child->AddUser();
  EXPECT_EQ(GuestRead(w_, *child, a).error(), Errno(EFAULT));
  EXPECT_EQ(GuestRead(w_, *child, b), 0);
  EXPECT_EQ(Read(b), 'x');
  child->CheckInvariants();
  child->DropUser();
}

TEST_F(MmTest, PrivateFilePagesAreCopiedWhenWritten) {
  auto file = MakeRef<FakeFile>(*w_.memory, 4);
  Addr a = MapFile(file, 4, kReadWrite, false);
  EXPECT_EQ(Read(a + 2 * kPage), 'C');
  ASSERT_TRUE(Write(a + 2 * kPage, 'x'));
  ASSERT_TRUE(Write(a, 'y'));
  EXPECT_EQ(file->Get(2), 'C');
  EXPECT_EQ(file->Get(0), 'A');
  EXPECT_EQ(Read(a + 2 * kPage), 'x');
  EXPECT_EQ(file->write_translations, 0);
  // What a debugger writes through a read-only mapping is a copy too.
  Addr text = MapFile(file, 1, {.read = true, .execute = true}, false);
  ASSERT_EQ(mm_->ForceCopyOut(text, std::as_bytes(std::span("!", 1))), 1u);
  EXPECT_EQ(Read(text), '!');
  EXPECT_EQ(file->Get(0), 'A');
  EXPECT_EQ(Write(text, 'x').error(), Errno(EACCES));
  mm_->CheckInvariants();
  ASSERT_TRUE(mm_->MUnmap(a, 4 * kPage));
  ASSERT_TRUE(mm_->MUnmap(text, kPage));
}

TEST_F(MmTest, SharedFilePagesAreWrittenThroughAndAskedForFirst) {
  auto file = MakeRef<FakeFile>(*w_.memory, 4);
  Addr a = MapFile(file, 2, kReadWrite, true, kPage);
  EXPECT_EQ(Read(a), 'B');
  EXPECT_EQ(file->write_translations, 0);
  ASSERT_TRUE(Write(a, 'x'));
  EXPECT_EQ(file->write_translations, 1);
  EXPECT_EQ(file->Get(1), 'x');
  ASSERT_TRUE(mm_->MSync(a, 2 * kPage, MS_SYNC));
  EXPECT_EQ(file->synced, (std::vector<std::pair<uint64_t, uint64_t>>{{kPage, 2 * kPage}}));
  MapsEntry e = mm_->Maps()[0];
  EXPECT_EQ(e.name, "/fake");
  EXPECT_EQ(e.inode, 42u);
  EXPECT_EQ(e.offset, kPage);
  ASSERT_TRUE(mm_->MProtect(a, kPage, kRead, false));
  ASSERT_TRUE(mm_->MUnmap(a, 2 * kPage));
}

TEST_F(MmTest, PastTheEndOfAFileIsEio) {
  auto file = MakeRef<FakeFile>(*w_.memory, 2);
  Addr a = MapFile(file, 4, kReadWrite, true);
  EXPECT_EQ(Read(a + kPage), 'B');
  EXPECT_EQ(Read(a + 2 * kPage).error(), Errno(EIO));
  std::byte b[16];
  EXPECT_EQ(mm_->CopyIn(a + 2 * kPage, b).error(), Errno(EFAULT));
  file->Truncate(1);
  EXPECT_EQ(Read(a + kPage).error(), Errno(EIO));
  EXPECT_EQ(Read(a), 'A');
  file->Grow(3);
  EXPECT_EQ(Read(a + 2 * kPage), 'C');
  ASSERT_TRUE(mm_->MUnmap(a, 4 * kPage));
}

TEST_F(MmTest, InvalidationKeepsPrivateCopiesUnlessTruncated) {
  auto file = MakeRef<FakeFile>(*w_.memory, 2);
  Addr a = MapFile(file, 2, kReadWrite, false);
  ASSERT_TRUE(Write(a, 'x'));
  file->Replace(0, 'n');
  EXPECT_EQ(Read(a), 'x');
  file->Truncate(0);
  EXPECT_EQ(Read(a).error(), Errno(EIO));
  ASSERT_TRUE(mm_->MUnmap(a, 2 * kPage));
}

TEST_F(MmTest, StacksGrowToTheirLimit) {
  mm_->SetLimits({.stack = 100 * kPage});
  Addr a = *mm_->MMap({.length = 4 * kPage, .grows_down = true, .access = kReadWrite, .name = "[stack]"});
  Addr top = a + 4 * kPage;
  EXPECT_TRUE(Write(a - 3 * kPage, 'x'));
  EXPECT_TRUE(Write(top - 100 * kPage, 'x'));
  EXPECT_EQ(Write(top - 101 * kPage, 'x').error(), Errno(EFAULT));
  auto maps = mm_->Maps();
  ASSERT_EQ(maps.size(), 1u);
  EXPECT_EQ(maps[0].name, "[stack]");
  EXPECT_EQ(maps[0].range.end, top);
}

TEST_F(MmTest, StacksKeepTheirDistance) {
  mm_->SetLimits({.stack = 1000 * kPage});
  Addr a = *mm_->MMap({.length = 4 * kPage, .grows_down = true, .access = kReadWrite});
  Addr below = a - 300 * kPage;
  ASSERT_EQ(*mm_->MMap({.addr = below, .length = kPage, .fixed = true, .access = kRead}), below);
  EXPECT_EQ(Write(below + kPage, 'x').error(), Errno(EFAULT));
  EXPECT_TRUE(Write(below + 257 * kPage, 'x'));
  EXPECT_EQ(Write(below + 256 * kPage, 'x').error(), Errno(EFAULT));
}

TEST_F(MmTest, LimitsAreEnomem) {
  mm_->SetLimits({.address_space = 10 * kPage, .data = 6 * kPage});
  Map(4, kRead);
  Map(5);
  EXPECT_EQ(mm_->MMap({.length = 2 * kPage, .access = kRead}).error(), Errno(ENOMEM));
  mm_->SetLimits({.data = 6 * kPage});
  EXPECT_EQ(mm_->MMap({.length = 2 * kPage, .access = kReadWrite}).error(), Errno(ENOMEM));
  EXPECT_TRUE(mm_->MMap({.length = 2 * kPage, .access = kRead}));
  EXPECT_TRUE(mm_->MMap({.length = 2 * kPage, .shared = true, .access = kReadWrite}));
}

TEST_F(MmTest, BrkMovesAndNeverFails) {
  Addr start = 0x1000'0000;
  mm_->SetBrkStart(start);
  EXPECT_EQ(mm_->Brk(0), start);
  EXPECT_EQ(mm_->Brk(start + 100), start + 100);
  EXPECT_TRUE(Write(start, 'x'));
  EXPECT_EQ(mm_->Brk(start + 3 * kPage), start + 3 * kPage);
  EXPECT_TRUE(Write(start + 2 * kPage, 'x'));
  EXPECT_EQ(mm_->Maps().size(), 1u);
  EXPECT_EQ(mm_->Maps()[0].name, "[heap]");
  EXPECT_EQ(mm_->Brk(start + kPage), start + kPage);
  EXPECT_EQ(Read(start + kPage).error(), Errno(EFAULT));
  EXPECT_EQ(mm_->Brk(start + 3 * kPage), start + 3 * kPage);
  EXPECT_EQ(Read(start + 2 * kPage), 0) << "memory given back comes again as zeroes";
  EXPECT_EQ(mm_->Brk(start - 1), start + 3 * kPage);
  ASSERT_TRUE(mm_->MMap({.addr = start + 8 * kPage, .length = kPage, .fixed = true}));
  EXPECT_EQ(mm_->Brk(start + 9 * kPage), start + 3 * kPage);
}

TEST_F(MmTest, MRemapGrowsShrinksAndMoves) {
  Addr a = Map(4);
  for (int i = 0; i < 4; i++) ASSERT_TRUE(Write(a + i * kPage, static_cast<char>('0' + i)));
  EXPECT_EQ(mm_->MRemap(a, 4 * kPage, 2 * kPage, 0, 0), a);
  EXPECT_EQ(Read(a + 2 * kPage).error(), Errno(EFAULT));
  EXPECT_EQ(mm_->MRemap(a, 2 * kPage, 3 * kPage, 0, 0), a);
  EXPECT_EQ(Read(a + kPage), '1');
  EXPECT_EQ(Read(a + 2 * kPage), 0);
  ASSERT_TRUE(mm_->MMap({.addr = a + 3 * kPage, .length = kPage, .fixed = true}));
  EXPECT_EQ(mm_->MRemap(a, 3 * kPage, 8 * kPage, 0, 0).error(), Errno(ENOMEM));
  Addr b = *mm_->MRemap(a, 3 * kPage, 8 * kPage, MREMAP_MAYMOVE, 0);
  EXPECT_NE(b, a);
  EXPECT_EQ(Read(b + kPage), '1');
  EXPECT_EQ(Read(b + 7 * kPage), 0);
  EXPECT_EQ(Read(a).error(), Errno(EFAULT));
  Addr c = 0x2000'0000;
  EXPECT_EQ(mm_->MRemap(b + kPage, kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, c), c);
  EXPECT_EQ(Read(c), '1');
  EXPECT_EQ(Read(b), '0');
  EXPECT_EQ(Read(b + kPage).error(), Errno(EFAULT));
}

TEST_F(MmTest, MRemapErrors) {
  Addr a = Map(2);
  EXPECT_EQ(mm_->MRemap(a + 1, kPage, kPage, 0, 0).error(), Errno(EINVAL));
  EXPECT_EQ(mm_->MRemap(a, kPage, 0, 0, 0).error(), Errno(EINVAL));
  EXPECT_EQ(mm_->MRemap(a, kPage, kPage, 64, 0).error(), Errno(EINVAL));
  EXPECT_EQ(mm_->MRemap(a, kPage, kPage, MREMAP_FIXED, 0).error(), Errno(EINVAL));
  EXPECT_EQ(mm_->MRemap(a, 2 * kPage, kPage, MREMAP_FIXED | MREMAP_MAYMOVE, a + kPage).error(), Errno(EINVAL));
  EXPECT_EQ(mm_->MRemap(a + 16 * kPage, kPage, 2 * kPage, MREMAP_MAYMOVE, 0).error(), Errno(EFAULT));
  EXPECT_EQ(mm_->MRemap(a, 3 * kPage, 4 * kPage, MREMAP_MAYMOVE, 0).error(), Errno(EFAULT));
  EXPECT_EQ(mm_->MRemap(a, 0, kPage, MREMAP_MAYMOVE, 0).error(), Errno(EINVAL));
}

TEST_F(MmTest, MRemapOfSharedMemoryDuplicates) {
  Addr a = Map(2, kReadWrite, true);
  ASSERT_TRUE(Write(a, 'x'));
  Addr b = *mm_->MRemap(a, 0, 2 * kPage, MREMAP_MAYMOVE, 0);
  EXPECT_EQ(Read(b), 'x');
  ASSERT_TRUE(Write(b + kPage, 'y'));
  EXPECT_EQ(Read(a + kPage), 'y');
}

TEST_F(MmTest, Advice) {
  Addr a = Map(2);
  ASSERT_TRUE(Write(a, 'x'));
  ASSERT_TRUE(mm_->MAdvise(a, kPage, MADV_DONTNEED));
  EXPECT_EQ(Read(a), 0);
  EXPECT_EQ(mm_->MAdvise(a, kPage, 9999).error(), Errno(EINVAL));
  EXPECT_EQ(mm_->MAdvise(a + 1, kPage, MADV_NORMAL).error(), Errno(EINVAL));
  EXPECT_EQ(mm_->MAdvise(a, 3 * kPage, MADV_NORMAL).error(), Errno(ENOMEM));
  Addr s = Map(1, kReadWrite, true);
  ASSERT_TRUE(Write(s, 'x'));
  ASSERT_TRUE(mm_->MAdvise(s, kPage, MADV_DONTNEED));
  EXPECT_EQ(Read(s), 'x') << "shared memory stays";
  EXPECT_EQ(mm_->MAdvise(s, kPage, MADV_FREE).error(), Errno(EINVAL));
  EXPECT_EQ(mm_->MAdvise(s, kPage, MADV_WIPEONFORK).error(), Errno(EINVAL));
  ASSERT_TRUE(mm_->MAdvise(a, 2 * kPage, MADV_POPULATE_WRITE));
  EXPECT_EQ(mm_->MIncore(a, 2 * kPage), (std::vector<uint8_t>{1, 1}));
  EXPECT_EQ(mm_->MIncore(a + 64 * kPage, kPage).error(), Errno(ENOMEM));
  EXPECT_EQ(mm_->MIncore(a, uint64_t{1} << 60).error(), Errno(ENOMEM));
  EXPECT_EQ(mm_->MSync(a, kPage, 64).error(), Errno(EINVAL));
  EXPECT_EQ(mm_->MSync(a, kPage, MS_ASYNC | MS_SYNC).error(), Errno(EINVAL));
  EXPECT_EQ(mm_->MSync(a + 64 * kPage, kPage, MS_SYNC).error(), Errno(ENOMEM));
  ASSERT_TRUE(mm_->MLock(a + 5, kPage, true, false));
  EXPECT_EQ(mm_->MAdvise(a, kPage, MADV_DONTNEED).error(), Errno(EINVAL));
  EXPECT_EQ(mm_->MSync(a, kPage, MS_INVALIDATE).error(), Errno(EBUSY));
  ASSERT_TRUE(mm_->MUnlockAll());
  EXPECT_EQ(mm_->MLockAll(0).error(), Errno(EINVAL));
  EXPECT_EQ(mm_->MLock(~uint64_t{0} - 10, 100, true, false).error(), Errno(EINVAL));
}

TEST_F(MmTest, CopiesStopAtTheFirstBadAddress) {
  Addr a = Map(2);
  ASSERT_TRUE(mm_->MProtect(a + kPage, kPage, {}, false));
  std::vector<std::byte> b(2 * kPage, std::byte{7});
  EXPECT_EQ(mm_->CopyOut(a + 10, b), kPage - 10);
  EXPECT_EQ(mm_->CopyIn(a, b), kPage);
  EXPECT_EQ(mm_->ZeroOut(a + kPage, 1).error(), Errno(EFAULT));
  EXPECT_EQ(mm_->CopyIn(~uint64_t{0} - 5, b).error(), Errno(EFAULT));
  EXPECT_EQ(mm_->CopyIn(uint64_t{1} << 63, b).error(), Errno(EFAULT));
  EXPECT_EQ(mm_->CopyIn(0, b).error(), Errno(EFAULT));
  EXPECT_EQ(mm_->CopyIn(0, {}), 0u);
  EXPECT_EQ(mm_->ForceCopyIn(a + kPage, std::span(b).first(8)), 8u);
  // Large ones go in pieces.
  Addr big = Map(1000);
  std::vector<std::byte> big_buffer(1000 * kPage, std::byte{9});
  EXPECT_EQ(mm_->CopyOut(big, big_buffer), 1000 * kPage);
  std::vector<std::byte> back(1000 * kPage);
  EXPECT_EQ(mm_->CopyIn(big, back), 1000 * kPage);
  EXPECT_EQ(back, big_buffer);
}

TEST_F(MmTest, Words) {
  Addr a = Map(1);
  EXPECT_EQ(mm_->SwapU32(a, 5), 0u);
  EXPECT_EQ(mm_->CompareAndSwapU32(a, 5, 6), 5u);
  EXPECT_EQ(mm_->LoadU32(a), 6u);
  EXPECT_EQ(mm_->LoadU32(a + 2).error(), Errno(EINVAL));
  EXPECT_EQ(mm_->GetFutexKey(a + 1, true).error(), Errno(EINVAL));
  EXPECT_EQ(mm_->GetFutexKey(a + 64 * kPage, false).error(), Errno(EFAULT));
  ASSERT_TRUE(mm_->MProtect(a, kPage, kRead, false));
  EXPECT_EQ(mm_->LoadU32(a), 6u);
  EXPECT_EQ(mm_->SwapU32(a, 1).error(), Errno(EFAULT));
}

TEST_F(MmTest, UnknownAccessIsAWriteWhereThatIsAllowed) {
  Addr a = Map(1);
  RefPtr<MemoryManager> child = *mm_->Fork();
  ASSERT_TRUE(mm_->HandleUserFault(a, kRead, false, 0));
  EXPECT_TRUE(Guest(*mm_).pages.at(a).access.write);
  Addr r = Map(1, kRead);
  EXPECT_TRUE(mm_->HandleUserFault(r, kRead, false, 0));
}

TEST_F(MmTest, AFailingPlatformIsAnErrorAndNothingStaleIsSeen) {
  Addr a = Map(1);
  ASSERT_TRUE(Write(a, 'x'));
  Guest(*mm_).fail_maps = true;
  EXPECT_EQ(Write(Map(1), 'y').error(), Errno(ENOMEM));
  ASSERT_TRUE(mm_->MProtect(a, kPage, kRead, false));
  EXPECT_EQ(Guest(*mm_).pages.count(a), 0u);
  Guest(*mm_).fail_maps = false;
  EXPECT_EQ(Read(a), 'x');
}

TEST(Mm, OutOfMemoryIsEnomem) {
  FakePlatform platform;
  auto memory = *pgalloc::MemoryFile::Create({.limit = 3 * kPage});
  RefPtr<MemoryManager> mm = *MemoryManager::Create(platform, *memory);
  Addr a = *mm->MMap({.length = 8 * kPage, .access = kReadWrite});
  for (int i = 0; i < 3; i++) EXPECT_TRUE(mm->HandleUserFault(a + i * kPage, kWrite, true, 0));
  EXPECT_EQ(mm->HandleUserFault(a + 3 * kPage, kWrite, true, 0).error(), Errno(ENOMEM));
}

TEST(Mm, ReferencesOutliveUsers) {
  World w;
  RefPtr<MemoryManager> mm = w.NewMm();
  Addr a = *mm->MMap({.length = kPage, .access = kReadWrite});
  ASSERT_TRUE(GuestWrite(w, *mm, a, 'x'));
  mm->DropUser();
  EXPECT_TRUE(mm->Maps().empty());
  EXPECT_EQ(mm->LoadU32(a).error(), Errno(EFAULT));
  EXPECT_EQ(mm->MMap({.length = kPage}).error(), Errno(ENOMEM));
  EXPECT_FALSE(mm->Fork());
}

// A page is being brought in while the file changes under it.
TEST(Mm, InvalidationDuringAFaultIsSeen) {
  for (uint64_t seed = 0; seed < 300; seed++) {
    World w;
    RefPtr<MemoryManager> mm = w.NewMm();
    auto file = MakeRef<FakeFile>(*w.memory, 1);
    auto e = fiber::MakeDeterministicExecutor(seed);
    Addr a = *mm->MMap({.length = kPage, .access = kRead, .mappable = file.get(), .identity = file});
    bool replaced = false;
    e->Spawn([&] {
      char c = *GuestRead(w, *mm, a);
      EXPECT_TRUE(c == 'A' || (replaced && c == 'n')) << c;
    });
    e->Spawn([&] {
      fiber::Yield();
      file->Replace(0, 'n');
      replaced = true;
    });
    ASSERT_EQ(fiber::RunUntilIdle(*e), 0u);
    EXPECT_EQ(*GuestRead(w, *mm, a), 'n') << seed;
    mm->CheckInvariants();
    mm->DropUser();
  }
}

}  // namespace
}  // namespace redoubt::mm
