// How many calls to the platform, of 5 to 10 us each, an operation of the guest may cost.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include "pkg/sentry/mm/mm_test_util.h"

namespace redoubt::mm {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

class PlatformBudget : public MmTest {
 protected:
  // Platform calls that `f` makes in `mm`.
  template <typename F>
  static int Calls(MemoryManager& mm, F&& f) {
    int before = Guest(mm).calls;
    f();
    return Guest(mm).calls - before;
  }
  template <typename F>
  int Calls(F&& f) {
    return Calls(*mm_, f);
  }
  void WriteAll(Addr a, uint64_t length) {
    for (Addr page = a; page < a + length; page += kPage) ASSERT_TRUE(Write(page, 'w'));
  }
};

TEST_F(PlatformBudget, WhatWasNeverTouchedCostsNothing) {
  EXPECT_EQ(Calls([&] {
              Addr a = Map(64);
              ASSERT_TRUE(mm_->MProtect(a, 4 * kPage, {}, false));
              ASSERT_TRUE(mm_->MAdvise(a, 4 * kPage, MADV_DONTNEED));
              Addr b = *mm_->MRemap(a + 8 * kPage, 4 * kPage, 100 * kPage, MREMAP_MAYMOVE, 0);
              ASSERT_TRUE(mm_->MUnmap(b, 100 * kPage));
              ASSERT_TRUE(mm_->MUnmap(a, 64 * kPage));
            }),
            0);
  // Neither does what the platform has forgotten already, or never knew since only the Sentry touched it.
  Addr c = Map(4);
  WriteAll(c, 4 * kPage);
  ASSERT_TRUE(mm_->MProtect(c, 4 * kPage, {}, false));
  EXPECT_EQ(Calls([&] { ASSERT_TRUE(mm_->MUnmap(c, 4 * kPage)); }), 0);
}

TEST_F(PlatformBudget, OneFaultAndOneUnmap) {
  for (uint64_t length : {kPage, 16 * kPage, kMiB}) {
    SCOPED_TRACE(length);
    Addr a = Map(length / kPage);
    EXPECT_EQ(Calls([&] { WriteAll(a, length); }), 1);
    EXPECT_EQ(Calls([&] { ASSERT_TRUE(mm_->MUnmap(a, length)); }), 1);
  }
  Addr a = Map(64 * kMiB / kPage);
  EXPECT_LE(Calls([&] { WriteAll(a, 64 * kMiB); }), 34);
  EXPECT_EQ(Calls([&] { ASSERT_TRUE(mm_->MAdvise(a, 64 * kMiB, MADV_DONTNEED)); }), 1);
  Addr shared = Map(kMiB / kPage, kReadWrite, true);
  EXPECT_EQ(Calls([&] { WriteAll(shared, kMiB); }), 1);
}

// Calls and faults of `times` small mappings, made, touched or not, and unmapped.
TEST_F(PlatformBudget, SmallMappingsThatAreTouchedSaveTheirFaults) {
  auto run = [&](int times, bool touched) {
    const int faults = Guest(*mm_).faults;
    const int calls = Calls([&] {
      for (int i = 0; i < times; i++) {
        Addr a = Map(1);
        if (touched) {
          ASSERT_TRUE(Write(a, 't'));
        }
        ASSERT_TRUE(mm_->MUnmap(a, kPage));
      }
    });
    return std::pair(calls, Guest(*mm_).faults - faults);
  };
  EXPECT_EQ(run(100, false), std::pair(0, 0)) << "nothing is expected of a program that has touched none";
  run(10, true);
  auto [calls, faults] = run(1600, true);
  EXPECT_EQ(calls, 2 * 1600);
  EXPECT_EQ(faults, 100) << "one in sixteen is left to itself";
  // A program that changes its ways is found out, and then it costs nothing.
  run(100, false);
  EXPECT_EQ(run(100, false), std::pair(0, 0));
  // Large ones are nobody's habit.
  run(10, true);
  EXPECT_EQ(Calls([&] { Map(17); }), 0);
  mm_->CheckInvariants();
}

TEST_F(PlatformBudget, FaultsOfTwoThreadsAreOneCall) {
  Addr a = Map(4);
  EXPECT_EQ(Calls([&] {
              for (int i = 0; i < 4; i++) ASSERT_TRUE(mm_->HandleUserFault(a + i * kPage, kWrite, true, 0));
            }),
            1);
  // A platform that has lost the page gets it again.
  Guest(*mm_).pages.clear();
  ASSERT_TRUE(Write(a, 'x'));
}

TEST_F(PlatformBudget, AStackOfAThreadUsesLittle) {
  Addr a = Map(8 * kMiB / kPage);
  WriteAll(a + 8 * kMiB - 4 * kPage, 4 * kPage);
  EXPECT_LE(w_.memory->usage(), 256u << 10);
}

TEST_F(PlatformBudget, ManyMappingsAreOneCall) {
  // Ten mappings side by side that cannot be one, all touched.
  Addr a = Map(30);
  for (int i = 1; i < 10; i += 2) ASSERT_TRUE(mm_->MAdvise(a + 3 * i * kPage, 3 * kPage, MADV_DONTFORK));
  WriteAll(a, 30 * kPage);
  EXPECT_EQ(mm_->Maps().size(), 10u);
  EXPECT_EQ(Calls([&] { ASSERT_TRUE(mm_->MProtect(a, 30 * kPage, kRead, false)); }), 1);
  EXPECT_EQ(Calls([&] { ASSERT_TRUE(mm_->MProtect(a, 30 * kPage, {}, false)); }), 1);
  EXPECT_EQ(Calls([&] { ASSERT_TRUE(mm_->MProtect(a, 30 * kPage, kReadWrite, false)); }), 0);
  WriteAll(a, 30 * kPage);
  EXPECT_EQ(Calls([&] { ASSERT_TRUE(mm_->MAdvise(a, 30 * kPage, MADV_DONTNEED)); }), 1);
  WriteAll(a, 30 * kPage);
  Addr b = 0x2000'0000;
  EXPECT_EQ(Calls([&] { ASSERT_TRUE(mm_->MRemap(a, 3 * kPage, 3 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, b)); }), 2);
  EXPECT_EQ(Calls([&] { ASSERT_TRUE(mm_->MUnmap(a, 30 * kPage)); }), 1);
}

TEST_F(PlatformBudget, AForkLeavesTheParentItsViewInOneCall) {
  std::vector<Addr> areas;
  for (int i = 0; i < 20; i++) {
    areas.push_back(Map(4));
    Map(1, {});
    WriteAll(areas.back(), 4 * kPage);
  }
  RefPtr<MemoryManager> child;
  EXPECT_EQ(Calls([&] { child = *mm_->Fork(); }), 1);
  child->AddUser();
  EXPECT_EQ(Calls([&] {
              for (Addr a : areas) ASSERT_EQ(Read(a), 'w');
            }),
            0)
      << "reading is no fault";
  EXPECT_EQ(Calls([&] { ASSERT_TRUE(Write(areas[0], 'p')); }), 1);
  // The child: what the parent used comes with the first fault, what is written one by one.
  EXPECT_EQ(Guest(*child).calls, 0);
  EXPECT_EQ(Calls(*child,
                  [&] {
                    for (Addr a : areas) ASSERT_EQ(GuestRead(w_, *child, a), 'w');
                  }),
            1);
  EXPECT_EQ(Calls(*child, [&] { ASSERT_TRUE(GuestWrite(w_, *child, areas[1], 'c')); }), 1);
  EXPECT_EQ(Read(areas[1]), 'w');
  child->CheckInvariants();
  child->DropUser();
}

// What was written after one fork is there after the next: the child starts with one call and has no fault, the parent
// neither.
TEST_F(PlatformBudget, PagesWrittenAfterForksAreForeseen) {
  std::vector<Addr> areas;
  for (int i = 0; i < 4; i++) {
    areas.push_back(Map(4));
    Map(1, {});
    WriteAll(areas.back(), 4 * kPage);
  }
  Addr by_parent = areas[0], by_child = areas[1], by_nobody = areas[2], named = areas[3];
  auto fork = [&](int parent_calls, int child_calls, bool foreseen) {
    RefPtr<MemoryManager> child;
    child = *mm_->Fork({named + 5});
    child->AddUser();
    EXPECT_EQ(Calls([&] {
                ASSERT_TRUE(Write(by_parent, 'p'));
                ASSERT_TRUE(Write(named, 'p'));
              }),
              parent_calls);
    EXPECT_EQ(Calls(*child,
                    [&] {
                      child->GuestStarts();
                      ASSERT_TRUE(GuestWrite(w_, *child, by_child, 'c'));
                      ASSERT_TRUE(GuestWrite(w_, *child, named, 'c'));
                    }),
              child_calls);
    EXPECT_EQ(Guest(*child).pages.at(by_parent).access.write, foreseen);
    EXPECT_FALSE(Guest(*child).pages.at(by_nobody).access.write) << "copied for nothing";
    // Each has its own.
    EXPECT_EQ(Read(by_child), 'w');
    EXPECT_EQ(Read(named), 'p');
    EXPECT_EQ(GuestRead(w_, *child, by_parent), foreseen ? 'p' : 'w');
    EXPECT_EQ(GuestRead(w_, *child, named), 'c');
    child->CheckInvariants();
    mm_->CheckInvariants();
    child->DropUser();
  };
  fork(1, 2, false);
  fork(0, 1, true);
  fork(0, 1, true);
  // Another thread might write meanwhile to what stays writable, and its later writes elsewhere would not be seen.
  mm_->AddUser();
  RefPtr<MemoryManager> child = *mm_->Fork({named});
  child->AddUser();
  child->GuestStarts();
  for (Addr page : {by_parent, by_child, named}) EXPECT_FALSE(Guest(*child).pages.at(page).access.write);
  EXPECT_FALSE(Guest(*mm_).pages.at(by_parent).access.write);
  child->DropUser();
  mm_->DropUser();
}

TEST_F(PlatformBudget, WhatExecWritesIsMappedByTheFirstFault) {
  auto file = MakeRef<FakeFile>(*w_.memory, 4);
  Addr text = MapFile(file, 2, {.read = true, .execute = true}, false);
  Addr data = MapFile(file, 2, kReadWrite, false, 2 * kPage);
  Addr stack = *mm_->MMap({.length = 32 * kPage, .grows_down = true, .access = kReadWrite});
  std::byte b[8]{};
  ASSERT_TRUE(mm_->CopyOutAll(stack + 31 * kPage, b));
  ASSERT_TRUE(mm_->CopyOutAll(data, b));
  ASSERT_TRUE(mm_->CopyOutAll(stack + 30 * kPage, b));
  EXPECT_EQ(Guest(*mm_).calls, 0);
  EXPECT_EQ(Read(text), 'A');
  EXPECT_EQ(Guest(*mm_).calls, 2);
  ASSERT_TRUE(Write(stack + 31 * kPage, 's'));
  ASSERT_TRUE(Write(data, 'd'));
  EXPECT_EQ(Read(data + kPage), 'D');
  EXPECT_EQ(Guest(*mm_).calls, 2);
  ASSERT_TRUE(mm_->MUnmap(text, 2 * kPage));
  ASSERT_TRUE(mm_->MUnmap(data, 2 * kPage));
}

TEST_F(PlatformBudget, WritingAFilesPrivatePageIsOneFault) {
  auto file = MakeRef<FakeFile>(*w_.memory, 64);
  ASSERT_TRUE(Write(Map(1), 'x'));
  Addr a = MapFile(file, 64, kReadWrite, false);
  EXPECT_EQ(Calls([&] {
              ASSERT_TRUE(Write(a, 'x'));
              ASSERT_EQ(Read(a + 63 * kPage), static_cast<char>('A' + 63));
            }),
            1);
  ASSERT_TRUE(mm_->MUnmap(a, 64 * kPage));
}

TEST_F(PlatformBudget, AFilesPagesBeforeAFaultComeAlong) {
  auto file = MakeRef<FakeFile>(*w_.memory, 64);
  ASSERT_TRUE(Write(Map(1), 'x'));
  Addr a = MapFile(file, 64, kRead, false);
  // Two, since the mapping may lie across a border.
  EXPECT_LE(Calls([&] {
              for (int i = 63; i >= 0; i--) ASSERT_EQ(Read(a + i * kPage), static_cast<char>('A' + i));
            }),
            2);
  ASSERT_TRUE(mm_->MUnmap(a, 64 * kPage));
}

TEST_F(PlatformBudget, AForkOfVeryManySegmentsIsBounded) {
  std::vector<Addr> areas;
  for (int i = 0; i < 300; i++) {
    areas.push_back(Map(1));
    Map(1, {});
    ASSERT_TRUE(Write(areas.back(), 'w'));
  }
  RefPtr<MemoryManager> child;
  EXPECT_LE(Calls([&] { child = *mm_->Fork(); }), 2);
  child->AddUser();
  for (Addr a : areas) {
    ASSERT_TRUE(Write(a, 'p'));
    ASSERT_EQ(GuestRead(w_, *child, a), 'w');
  }
  child->CheckInvariants();
  child->DropUser();
}

TEST_F(PlatformBudget, ACopyBringsItsSegmentAlong) {
  constexpr uint64_t kLength = 256 * kPage;
  EXPECT_EQ(Read(Map(1, kRead)), 0);
  Addr a = Map(kLength / kPage);
  ASSERT_TRUE(mm_->CopyOutAll(a, std::as_bytes(std::span("w", 1))));  // nothing that a guest has mapped
  ASSERT_TRUE(mm_->CopyOutAll(a + kLength - kPage, std::as_bytes(std::span("w", 1))));
  RefPtr<MemoryManager> parent = *mm_->Fork();
  ASSERT_TRUE(mm_->MProtect(a, kLength, {}, false));
  ASSERT_TRUE(mm_->MProtect(a, kLength, kReadWrite, false));
  EXPECT_EQ(Calls([&] {
              ASSERT_TRUE(Write(a + 100 * kPage, 'x'));
              ASSERT_EQ(Read(a), 'w');
              ASSERT_EQ(Read(a + kLength - kPage), 'w');
            }),
            1);
}

}  // namespace
}  // namespace redoubt::mm
