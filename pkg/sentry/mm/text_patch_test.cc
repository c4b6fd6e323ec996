#include "pkg/sentry/mm/text_patch.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <optional>
#include <string>
#include <string_view>

#include "pkg/sentry/mm/mm_test_util.h"

namespace redoubt::mm {
namespace {

constexpr AccessType kReadExecute{.read = true, .execute = true};

class TextPatchTest : public MmTest {
 protected:
  void SetUp() override {
    text_ = MapFile(file_, 4, kReadExecute, false);
    std::optional<AddrRange> hidden = Hide();
    ASSERT_TRUE(hidden);
    hidden_ = *hidden;
  }
  void TearDown() override {
    ASSERT_TRUE(mm_->MUnmap(0x10000, FakePlatform::kMax - 0x10000));
    MmTest::TearDown();
  }
  std::optional<AddrRange> Hide(uint64_t pages = 2) {
    Result<AddrRange> r = mm_->MapHidden(text_, pages * kPage, uint64_t{1} << 31);
    if (!r) return std::nullopt;
    return *r;
  }
  static std::span<const std::byte> Bytes(std::string_view s) { return std::as_bytes(std::span(s)); }
  Result<> Patch(Addr a, std::string_view from, std::string_view to) {
    return mm_->PatchText(a, Bytes(from), Bytes(to), hidden_.start + 8);
  }
  // What the guest itself sees.
  std::string See(MemoryManager& mm, Addr a, size_t n) {
    Result<std::byte*> p = GuestPage(w_, mm, a, kReadExecute);
    return p ? std::string(reinterpret_cast<char*>(*p), n) : "";
  }
  std::string See(Addr a, size_t n) { return See(*mm_, a, n); }
  void ExpectNoPatch() {
    EXPECT_FALSE(mm_->FindPatch(text_));
    EXPECT_EQ(See(text_, 1), "A");
  }

  RefPtr<FakeFile> file_ = MakeRef<FakeFile>(*w_.memory, 4);
  Addr text_ = 0;
  AddrRange hidden_;
};

TEST_F(TextPatchTest, APatchIsACopyOfThePage) {
  Addr other = MapFile(file_, 4, kReadExecute, false);
  const std::string zero(3, '\0');
  EXPECT_EQ(See(text_, 4), "A" + zero);
  uint64_t before = Guest(*mm_).pages.at(text_).offset;
  int calls = Guest(*mm_).calls;
  ASSERT_TRUE(Patch(text_, "A" + zero, "JUMP"));
  EXPECT_EQ(Guest(*mm_).calls, calls + 1) << "the old page is replaced, not unmapped";
  EXPECT_NE(Guest(*mm_).pages.at(text_).offset, before);
  EXPECT_EQ(Guest(*mm_).pages.at(text_).access, kReadExecute);
  EXPECT_EQ(See(text_, 4), "JUMP");
  EXPECT_EQ(file_->Get(0), 'A');
  EXPECT_EQ(See(other, 4), "A" + zero);
  // A second one of the same page: again not in place.
  before = Guest(*mm_).pages.at(text_).offset;
  ASSERT_TRUE(Patch(text_ + 100, zero, "abc"));
  EXPECT_NE(Guest(*mm_).pages.at(text_).offset, before);
  EXPECT_EQ(See(text_, 4), "JUMP");
  EXPECT_EQ(See(text_ + 100, 3), "abc");

  EXPECT_FALSE(mm_->FindPatch(text_ + 4));
  EXPECT_FALSE(mm_->FindPatch(text_ + 99));
  ASSERT_TRUE(mm_->FindPatch(text_ + 102));
  TextPatch p = *mm_->FindPatch(text_ + 3);
  EXPECT_EQ(p.addr, text_);
  EXPECT_EQ(p.length, 4);
  EXPECT_EQ(p.hidden, hidden_.start + 8);
  EXPECT_EQ(p.original[0], std::byte{'A'});
  EXPECT_EQ(p.patched[3], std::byte{'P'});
}

TEST_F(TextPatchTest, Errors) {
  const std::string zero(20, '\0');
  EXPECT_EQ(Patch(text_, "B", "J").error(), Errno(EAGAIN));
  EXPECT_EQ(Patch(text_, "", "").error(), Errno(EINVAL));
  EXPECT_EQ(Patch(text_, "A", "JJ").error(), Errno(EINVAL));
  EXPECT_EQ(Patch(text_ + 8, zero.substr(0, 17), std::string(17, 'J')).error(), Errno(EINVAL));
  EXPECT_EQ(Patch(text_ + kPage - 1, zero.substr(0, 2), "JJ").error(), Errno(EINVAL)) << "crosses a page";
  EXPECT_EQ(Patch(text_ + 64 * kPage, "A", "J").error(), Errno(EFAULT));
  EXPECT_EQ(Patch(hidden_.start, zero.substr(0, 1), "J").error(), Errno(EFAULT));
  EXPECT_EQ(mm_->PatchText(text_, Bytes("A"), Bytes("J"), hidden_.end).error(), Errno(EINVAL));
  Addr anonymous = Map(1, kReadExecute);
  EXPECT_EQ(Patch(anonymous, zero.substr(0, 1), "J").error(), Errno(EACCES));
  for (auto [access, shared] : {std::pair{kRead, false}, {kAnyAccess, false}, {kReadExecute, true}}) {
    Addr a = MapFile(file_, 1, access, shared);
    EXPECT_EQ(Patch(a, "A", "J").error(), Errno(EACCES));
  }
  ASSERT_TRUE(Patch(text_, "A", "J"));
  EXPECT_EQ(Patch(text_, "J", "K").error(), Errno(EAGAIN)) << "one patch over another";
  Addr end = MapFile(file_, 8, kReadExecute, false) + 5 * kPage;
  EXPECT_EQ(Patch(end, "A", "J").error(), Errno(EIO)) << "past the end of the file";
}

TEST_F(TextPatchTest, TheSentryAndDebuggersReadTheOriginal) {
  ASSERT_TRUE(Patch(text_ + 2, std::string(2, '\0'), "JJ"));
  char c[3];
  for (Addr a : {text_, text_ + 3}) {
    ASSERT_EQ(mm_->CopyIn(a, std::as_writable_bytes(std::span(c))), 3u);
    EXPECT_EQ(std::string(c, 3), std::string(a == text_ ? "A\0\0" : "\0\0\0", 3));
    ASSERT_EQ(mm_->ForceCopyIn(a, std::as_writable_bytes(std::span(c))), 3u);
    EXPECT_EQ(std::string(c, 3), std::string(a == text_ ? "A\0\0" : "\0\0\0", 3));
  }
  ASSERT_EQ(mm_->ForceCopyOut(text_ + 3, Bytes("!")), 1u);
  EXPECT_FALSE(mm_->FindPatch(text_ + 2));
  EXPECT_EQ(See(text_, 4), std::string("A\0\0!", 4));
}

TEST_F(TextPatchTest, PatchesGoWithTheirPage) {
  ASSERT_TRUE(Patch(text_, "A", "J"));
  ASSERT_TRUE(mm_->MAdvise(text_, kPage, MADV_DONTNEED));
  ExpectNoPatch();
  ASSERT_TRUE(Patch(text_, "A", "J"));
  MapFile(file_, 1, kReadExecute, false);
  ASSERT_TRUE(mm_->MMap({.addr = text_,
                         .length = kPage,
                         .fixed = true,
                         .access = kReadExecute,
                         .mappable = file_.get(),
                         .identity = file_}));
  ExpectNoPatch();
  ASSERT_TRUE(Patch(text_, "A", "J"));
  file_->Truncate(0);
  EXPECT_FALSE(mm_->FindPatch(text_));
  file_->Grow(4);
  ASSERT_TRUE(Patch(text_, "A", "J"));
  ASSERT_TRUE(mm_->MUnmap(text_, kPage));
  EXPECT_FALSE(mm_->FindPatch(text_));
}

TEST_F(TextPatchTest, MovedOrWritableTextIsRestored) {
  ASSERT_TRUE(Patch(text_, "A", "J"));
  ASSERT_TRUE(mm_->MProtect(text_, 4 * kPage, kRead, false));
  EXPECT_TRUE(mm_->FindPatch(text_));
  ASSERT_TRUE(mm_->MProtect(text_, 4 * kPage, kAnyAccess, false));
  ExpectNoPatch();
  ASSERT_TRUE(mm_->MProtect(text_, 4 * kPage, kReadExecute, false));
  ASSERT_TRUE(Patch(text_, "A", "J"));
  Addr to = 0x2000'0000;
  ASSERT_TRUE(mm_->MRemap(text_, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, to));
  EXPECT_EQ(See(to, 1), "A");
  EXPECT_FALSE(mm_->FindPatch(to));
  EXPECT_FALSE(mm_->FindPatch(text_));
}

TEST_F(TextPatchTest, HiddenMemoryIsHidden) {
  const uint64_t size = mm_->virtual_size();
  const uint64_t resident = mm_->resident_size();
  const size_t maps = mm_->Maps().size();
  const Addr h = hidden_.start;
  AddrRange more = *Hide();
  EXPECT_EQ(mm_->virtual_size(), size);
  EXPECT_EQ(mm_->resident_size(), resident);
  EXPECT_EQ(mm_->Maps().size(), maps);
  EXPECT_FALSE(more.Overlaps(hidden_));
  mm_->SetLimits({.address_space = size});
  EXPECT_TRUE(Hide());
  mm_->SetLimits({});

  EXPECT_EQ(mm_->MIncore(h, kPage).error(), Errno(ENOMEM));
  EXPECT_EQ(mm_->MProtect(h, kPage, kReadWrite, false).error(), Errno(ENOMEM));
  EXPECT_EQ(mm_->MAdvise(h, kPage, MADV_DONTNEED).error(), Errno(ENOMEM));
  EXPECT_EQ(mm_->MSync(h, kPage, MS_SYNC).error(), Errno(ENOMEM));
  EXPECT_EQ(mm_->MLock(h, kPage, true, false).error(), Errno(ENOMEM));
  EXPECT_TRUE(mm_->MLockAll(MCL_CURRENT));
  EXPECT_EQ(mm_->MRemap(h, kPage, 2 * kPage, MREMAP_MAYMOVE, 0).error(), Errno(EFAULT));
  ASSERT_TRUE(mm_->MUnlockAll());

  // It stays, and nothing is put there.
  ASSERT_TRUE(mm_->WriteHidden(h + 5, Bytes("code")));
  ASSERT_TRUE(mm_->MUnmap(h, 2 * kPage));
  ASSERT_TRUE(mm_->MUnmap(h + kPage, kPage));
  EXPECT_EQ(See(h + 5, 4), "code");
  EXPECT_NE(*mm_->MMap({.addr = h, .length = kPage}), h);
  EXPECT_EQ(mm_->MMap({.addr = h, .length = kPage, .no_replace = true}).error(), Errno(EEXIST));
  Addr below = *mm_->MMap({.addr = h - kPage, .length = kPage, .fixed = true, .access = kReadWrite});
  EXPECT_EQ(mm_->MRemap(below, kPage, 2 * kPage, 0, 0).error(), Errno(ENOMEM));

  // The guest runs and reads it, but nobody else writes it.
  EXPECT_EQ(Write(h, 'x').error(), Errno(EFAULT));
  EXPECT_EQ(mm_->CopyOut(h, Bytes("x")).error(), Errno(EFAULT));
  EXPECT_EQ(mm_->ForceCopyOut(h, Bytes("x")).error(), Errno(EFAULT));
  EXPECT_EQ(mm_->WriteHidden(h + 2 * kPage - 1, Bytes("xy")).error(), Errno(EFAULT));
  EXPECT_EQ(mm_->WriteHidden(text_, Bytes("x")).error(), Errno(EFAULT));
  EXPECT_TRUE(mm_->WriteHidden(h + kPage - 1, Bytes("xy"))) << "across pages";
}

TEST_F(TextPatchTest, WhoInsistsDisplacesHiddenMemory) {
  mm_->SetBrkStart(0x1000'0000);
  auto insist = [&](int way, Addr at) {
    switch (way) {
      case 0:
        return mm_->MMap({.addr = at, .length = kPage, .fixed = true, .access = kReadWrite}).has_value();
      case 1:
        return mm_->MRemap(Map(1), kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, at).has_value();
      case 2:
        mm_->SetBrkStart(at);
        return mm_->Brk(at + kPage) == at + kPage;
      default: {
        Addr top = at + 8 * kPage;
        mm_->SetLimits({.stack = 16 * kPage});
        if (!mm_->MMap({.addr = top, .length = kPage, .fixed = true, .grows_down = true, .access = kReadWrite}))
          return false;
        return Write(at - 2 * kPage, 'x').has_value();
      }
    }
  };
  for (int way = 0; way < 4; way++) {
    SCOPED_TRACE(way);
    AddrRange other = *mm_->MapHidden(0x2000'0000, kPage, 1 << 30);
    ASSERT_TRUE(Patch(text_, "A", "J"));
    ASSERT_TRUE(Patch(text_ + 9, std::string(1, '\0'), "J"));
    ASSERT_TRUE(Patch(text_ + 2 * kPage, "C", "J"));
    ASSERT_TRUE(mm_->PatchText(text_ + 4, Bytes(std::string_view("\0", 1)), Bytes("K"), other.start));
    ASSERT_TRUE(insist(way, hidden_.start + kPage));
    ExpectNoPatch();
    EXPECT_FALSE(mm_->FindPatch(text_ + 9));
    EXPECT_EQ(See(text_ + 2 * kPage, 1), "C");
    EXPECT_EQ(See(text_ + 4, 1), "K") << "leads elsewhere";
    EXPECT_EQ(Read(hidden_.start + kPage), 0);
    EXPECT_EQ(mm_->WriteHidden(hidden_.start, Bytes("x")).error(), Errno(EFAULT));
    EXPECT_EQ(Patch(text_, "A", "J").error(), Errno(EINVAL));
    mm_->CheckInvariants();
    ASSERT_TRUE(mm_->MUnmap(hidden_.start - kPage, 32 * kPage));
    ASSERT_TRUE(mm_->MAdvise(text_, kPage, MADV_DONTNEED));
    hidden_ = *Hide();
  }
}

TEST_F(TextPatchTest, WithoutMemoryThePatchIsUndoneInPlace) {
  auto memory = *pgalloc::MemoryFile::Create({.limit = 4 * kPage});
  RefPtr<MemoryManager> mm = *MemoryManager::Create(w_.platform, *memory);
  auto file = MakeRef<FakeFile>(*memory, 1);
  Addr a = *mm->MMap({.length = kPage, .access = kReadExecute, .mappable = file.get(), .identity = file});
  AddrRange hidden = *mm->MapHidden(a, kPage, 1 << 30);
  ASSERT_TRUE(mm->PatchText(a, Bytes("A"), Bytes("J"), hidden.start));
  EXPECT_EQ(mm->PatchText(a + 5, Bytes(std::string_view("\0", 1)), Bytes("J"), hidden.start), Result<>());
  ASSERT_TRUE(memory->Allocate(kPage));
  EXPECT_EQ(mm->PatchText(a + 9, Bytes(std::string_view("\0", 1)), Bytes("J"), hidden.start).error(), Errno(ENOMEM));
  ASSERT_TRUE(mm->MMap({.addr = hidden.start, .length = kPage, .fixed = true}));
  char c;
  ASSERT_TRUE(mm->CopyIn(a, std::as_writable_bytes(std::span(&c, 1))));
  EXPECT_EQ(c, 'A');
  EXPECT_FALSE(mm->FindPatch(a));
  mm->CheckInvariants();
}

TEST_F(TextPatchTest, ForkCopiesHiddenMemoryAndPatches) {
  ASSERT_TRUE(mm_->WriteHidden(hidden_.start, Bytes("code")));
  ASSERT_TRUE(Patch(text_, "A", "J"));
  RefPtr<MemoryManager> child = *mm_->Fork();
  child->AddUser();
  EXPECT_EQ(See(*child, text_, 1), "J");
  EXPECT_EQ(See(*child, hidden_.start, 4), "code");
  ASSERT_TRUE(child->FindPatch(text_));
  // Each has its own from now on.
  ASSERT_TRUE(child->WriteHidden(hidden_.start, Bytes("CODE")));
  EXPECT_EQ(See(hidden_.start, 4), "code");
  EXPECT_EQ(See(*child, hidden_.start, 4), "CODE");
  ASSERT_TRUE(child->MMap({.addr = hidden_.start, .length = kPage, .fixed = true}));
  EXPECT_FALSE(child->FindPatch(text_));
  EXPECT_EQ(See(*child, text_, 1), "A");
  EXPECT_EQ(See(text_, 1), "J");
  EXPECT_TRUE(mm_->FindPatch(text_));
  child->CheckInvariants();
  child->DropUser();
}

TEST_F(TextPatchTest, HiddenMemoryKeepsItsDistance) {
  // Below the mappings that grow downwards, not at their edge, and within reach.
  EXPECT_LT(hidden_.end, text_);
  EXPECT_GE(text_ - hidden_.end, uint64_t{1} << 20);
  EXPECT_LE(text_ - hidden_.start, uint64_t{1} << 31);
  // A program at a low address, with a heap above it.
  Addr program = 0x40'0000;
  ASSERT_TRUE(mm_->MMap({.addr = program, .length = 64 * kPage, .fixed = true}));
  mm_->SetBrkStart(program + 70 * kPage);
  AddrRange low = *mm_->MapHidden(program, 16 * kPage, uint64_t{1} << 31);
  EXPECT_LT(low.end, program);
  // No room below: far above the heap.
  ASSERT_TRUE(mm_->MMap({.addr = 0x10000, .length = program - 0x10000, .fixed = true}));
  AddrRange above = *mm_->MapHidden(program, 16 * kPage, uint64_t{1} << 31);
  EXPECT_GE(above.start, program + (uint64_t{1} << 30));
  EXPECT_LE(above.end, program + (uint64_t{1} << 31));
  // A tight reach.
  AddrRange tight = *mm_->MapHidden(program, 16 * kPage, 128 * kPage);
  EXPECT_LE(tight.end, program + 128 * kPage);
  EXPECT_GE(tight.start, program + 70 * kPage);
  EXPECT_EQ(mm_->MapHidden(program, 16 * kPage, 32 * kPage).error(), Errno(ENOMEM));
  EXPECT_EQ(mm_->MapHidden(program, 0, 32 * kPage).error(), Errno(EINVAL));
  // Not where a stack will be.
  Addr stack = *mm_->MMap({.length = 4 * kPage, .grows_down = true, .access = kReadWrite});
  AddrRange near_stack = *mm_->MapHidden(stack, kPage, uint64_t{1} << 31);
  EXPECT_LE(near_stack.end, stack - (8 << 20) + 4 * kPage);
}

}  // namespace
}  // namespace redoubt::mm
