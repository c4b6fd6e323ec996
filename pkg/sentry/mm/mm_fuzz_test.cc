// Random operations on several address spaces, against a model that keeps one byte for each page. The invariants are
// checked after each.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "pkg/sentry/mm/mm_test_util.h"
#include "test/fuzz/rounds.h"

namespace redoubt::mm {
namespace {

constexpr Addr kBase = 0x1000'0000;
constexpr uint64_t kPages = 96;
constexpr uint64_t kFilePages = 12;

struct ModelPage {
  AccessType access;
  bool shared = false;
  std::shared_ptr<char> value;  // one for all who share the page
  char initial = 0;             // what a private page becomes when it is dropped
  bool file = false;
  // A patch of the first byte: what was there, and the hidden range it leads to.
  std::optional<char> original;
  Addr hidden = 0;
};

struct Process {
  RefPtr<MemoryManager> mm;
  std::map<Addr, ModelPage> pages;
  std::vector<AddrRange> hidden;
};

class Fuzzer {
 public:
  explicit Fuzzer(uint32_t seed) : random_(seed) { processes_.push_back({w_.NewMm(), {}, {}}); }
  ~Fuzzer() {
    for (Process& p : processes_) p.mm->DropUser();
    processes_.clear();
  }

  void Step() {
    Process& p = processes_[random_() % processes_.size()];
    const uint32_t what = random_() % 18;
    // The platform may fail in anything but the guest's own accesses, which would then be errors.
    RefPtr<MemoryManager> mm = p.mm;
    if (what < 12 && random_() % 6 == 0) Guest(*mm).maps_left = static_cast<int>(random_() % 4);
    Do(p, what);
    Guest(*mm).maps_left = -1;
    for (Process& q : processes_) Check(q);
  }

 private:
  void Do(Process& p, uint32_t what) {
    switch (what) {
      case 0:
      case 1:
        Map(p);
        break;
      case 2:
        Unmap(p);
        break;
      case 3:
        Protect(p);
        break;
      case 4:
        Remap(p);
        break;
      case 5:
        DontNeed(p);
        break;
      case 6:
        if (processes_.size() < 4) Fork(p);
        break;
      case 7:
        if (processes_.size() > 1 && random_() % 2 == 0) Exit(random_() % processes_.size());
        break;
      case 8:
        MapText(p);
        break;
      case 9:
        Hide(p);
        break;
      case 10:
      case 11:
        Patch(p);
        break;
      default:
        for (int i = 0; i < 8; i++) Touch(p);
    }
  }
  Addr RandomPage() { return kBase + random_() % kPages * kPageSize; }
  uint64_t RandomLength() { return (1 + random_() % (random_() % 4 == 0 ? 40 : 6)) * kPageSize; }
  AccessType RandomAccess() {
    switch (random_() % 6) {
      case 0:
        return {};
      case 1:
        return kRead;
      case 2:
        return {.read = true, .execute = true};
      default:
        return kReadWrite;
    }
  }

  void Map(Process& p) {
    MMapOptions o{.addr = RandomPage(),
                  .length = RandomLength(),
                  .fixed = true,
                  .shared = random_() % 3 == 0,
                  .populate = random_() % 4 == 0,
                  .access = RandomAccess()};
    ASSERT_EQ(p.mm->MMap(o), o.addr);
    Displace(p, {o.addr, o.addr + o.length});
    for (Addr a = o.addr; a < o.addr + o.length; a += kPageSize) {
      p.pages[a] = {o.access, o.shared, std::make_shared<char>(0)};
    }
  }
  void MapText(Process& p) {
    const uint64_t first = random_() % kFilePages;
    const uint64_t pages = 1 + random_() % (kFilePages - first);
    const AccessType access = random_() % 4 == 0 ? kReadWrite : AccessType{.read = true, .execute = true};
    MMapOptions o{.addr = RandomPage(),
                  .length = pages * kPageSize,
                  .fixed = true,
                  .access = access,
                  .mappable = file_.get(),
                  .identity = file_,
                  .offset = first * kPageSize};
    ASSERT_EQ(p.mm->MMap(o), o.addr);
    Displace(p, {o.addr, o.addr + o.length});
    for (uint64_t i = 0; i < pages; i++) {
      char c = static_cast<char>('A' + first + i);
      p.pages[o.addr + i * kPageSize] = {access, false, std::make_shared<char>(c), c, true};
    }
  }
  void Hide(Process& p) {
    if (p.hidden.size() > 3) return;
    // Often among the mappings.
    Addr near = RandomPage();
    Result<AddrRange> r =
        p.mm->MapHidden(near, (1 + random_() % 3) * kPageSize, random_() % 2 == 0 ? 64 << 10 : 1 << 20);
    if (!r) return;
    for (auto& [a, page] : p.pages) ASSERT_FALSE(r->Contains(a));
    for (AddrRange h : p.hidden) ASSERT_FALSE(r->Overlaps(h));
    p.hidden.push_back(*r);
    std::byte b{0x5a};
    for (Addr a = r->start; a < r->end; a += kPageSize) ASSERT_TRUE(p.mm->WriteHidden(a, std::span(&b, 1)));
  }
  void Patch(Process& p) {
    if (p.hidden.empty()) return;
    AddrRange hidden = p.hidden[random_() % p.hidden.size()];
    Addr a = RandomPage();
    auto it = p.pages.find(a);
    char c = static_cast<char>(random_());
    std::byte from = it == p.pages.end() ? std::byte{} : static_cast<std::byte>(*it->second.value);
    std::byte to = static_cast<std::byte>(c);
    Result<> r = p.mm->PatchText(a, std::span(&from, 1), std::span(&to, 1), hidden.start + random_() % kPageSize);
    if (it == p.pages.end()) {
      ASSERT_EQ(r.error(), Errno(EFAULT));
      return;
    }
    ModelPage& page = it->second;
    if (!page.file || page.access.write || !page.access.execute) {
      ASSERT_EQ(r.error(), Errno(EACCES));
    } else if (page.original) {
      ASSERT_EQ(r.error(), Errno(EAGAIN));
    } else if (!r && Guest(*p.mm).maps_left == 0) {
      ASSERT_EQ(r.error(), Errno(ENOMEM));  // could not be brought in
    } else {
      ASSERT_TRUE(r);
      page.original = std::exchange(*page.value, c);
      page.hidden = hidden.start;
    }
  }
  static bool IsHidden(Process& p, Addr a) {
    return std::ranges::any_of(p.hidden, [&](AddrRange h) { return h.Contains(a); });
  }
  static void Restore(ModelPage& page) {
    if (page.original) *page.value = *std::exchange(page.original, {});
  }
  // What MAP_FIXED does to hidden ranges.
  void Displace(Process& p, AddrRange range) {
    std::erase_if(p.hidden, [&](AddrRange h) {
      if (!h.Overlaps(range)) return false;
      for (auto& [a, page] : p.pages) {
        if (page.original && page.hidden == h.start) Restore(page);
      }
      return true;
    });
  }
  void Unmap(Process& p) {
    Addr start = RandomPage();
    uint64_t length = RandomLength();
    ASSERT_TRUE(p.mm->MUnmap(start, length));
    p.pages.erase(p.pages.lower_bound(start), p.pages.lower_bound(start + length));
  }
  void Protect(Process& p) {
    Addr start = RandomPage();
    uint64_t length = RandomLength();
    AccessType access = RandomAccess();
    bool whole = true;
    for (Addr a = start; a < start + length; a += kPageSize) whole &= p.pages.count(a) > 0;
    EXPECT_EQ(p.mm->MProtect(start, length, access, false).has_value(), whole);
    for (Addr a = start; a < start + length; a += kPageSize) {
      if (auto it = p.pages.find(a); it != p.pages.end()) {
        if (access.write && !it->second.access.write) Restore(it->second);
        it->second.access = access;
      }
    }
  }
  // A move of one page to elsewhere, which cannot meet the end of a shared object.
  void Remap(Process& p) {
    Addr from = RandomPage();
    Addr to = RandomPage();
    if (from == to) return;
    Result<Addr> r = p.mm->MRemap(from, kPageSize, kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED, to);
    ASSERT_EQ(r.has_value(), p.pages.count(from) > 0);
    if (!r) return;
    Displace(p, {to, to + kPageSize});
    Restore(p.pages[from]);
    p.pages[to] = p.pages[from];
    p.pages.erase(from);
  }
  void DontNeed(Process& p) {
    Addr start = RandomPage();
    uint64_t length = RandomLength();
    (void)p.mm->MAdvise(start, length, MADV_DONTNEED);
    for (Addr a = start; a < start + length; a += kPageSize) {
      auto it = p.pages.find(a);
      if (it == p.pages.end() || it->second.shared) continue;
      it->second.value = std::make_shared<char>(it->second.initial);
      it->second.original.reset();
    }
  }
  void Fork(Process& p) {
    Process child{*p.mm->Fork(), p.pages, p.hidden};
    child.mm->AddUser();
    for (auto& [a, page] : child.pages) {
      if (!page.shared) page.value = std::make_shared<char>(*page.value);
    }
    processes_.push_back(std::move(child));
  }
  void Exit(size_t i) {
    processes_[i].mm->DropUser();
    processes_.erase(processes_.begin() + static_cast<ptrdiff_t>(i));
  }

  // One access, by the guest or by the Sentry for it.
  void Touch(Process& p) {
    Addr a = RandomPage();
    auto it = p.pages.find(a);
    const bool write = random_() % 2 == 0;
    const bool by_sentry = random_() % 3 == 0;
    if (!write && IsHidden(p, a)) return;  // may be read
    const bool allowed = it != p.pages.end() && (write ? it->second.access.write : it->second.access.any());
    if (write) {
      char c = static_cast<char>(random_());
      std::byte b = static_cast<std::byte>(c);
      bool ok = by_sentry ? p.mm->CopyOut(a, std::span(&b, 1)).has_value() : GuestWrite(w_, *p.mm, a, c).has_value();
      ASSERT_EQ(ok, allowed);
      if (ok) *it->second.value = c;
    } else {
      std::byte b{};
      bool ok;
      if (by_sentry) {
        ok = p.mm->CopyIn(a, std::span(&b, 1)).has_value();
      } else {
        Result<char> got = GuestRead(w_, *p.mm, a);
        ok = got.has_value();
        if (ok) b = static_cast<std::byte>(*got);
      }
      ASSERT_EQ(ok, allowed);
      if (ok) {
        // The Sentry does not see patches.
        ASSERT_EQ(static_cast<char>(b), by_sentry && it->second.original ? *it->second.original : *it->second.value);
      }
    }
  }

  // The invariants, and that whatever the guest can reach without a fault is what the model says.
  void Check(Process& p) {
    p.mm->CheckInvariants();
    EXPECT_EQ(p.mm->virtual_size(), p.pages.size() * kPageSize);
    for (auto& [a, page] : p.pages) {
      std::optional<TextPatch> patch = p.mm->FindPatch(a);
      ASSERT_EQ(patch.has_value(), page.original.has_value());
      ASSERT_EQ(patch ? static_cast<char>(patch->original[0]) : 0, page.original.value_or(0));
    }
    for (auto& [a, mapped] : Guest(*p.mm).pages) {
      if (IsHidden(p, a)) {
        ASSERT_TRUE(mapped.access.execute && !mapped.access.write);
        ASSERT_EQ(*w_.memory->At(mapped.offset), std::byte{0x5a});
        continue;
      }
      auto it = p.pages.find(a);
      ASSERT_NE(it, p.pages.end()) << "the guest sees unmapped memory";
      ASSERT_TRUE(internal::Effective(it->second.access).Allows(mapped.access));
      ASSERT_EQ(static_cast<char>(*w_.memory->At(mapped.offset)), *it->second.value);
    }
  }

  World w_;
  RefPtr<FakeFile> file_ = MakeRef<FakeFile>(*w_.memory, kFilePages);
  std::mt19937 random_;
  std::vector<Process> processes_;
};

TEST(MmFuzz, RandomOperationsAgreeWithTheModel) {
  fuzz::Rounds(100, [](uint64_t seed) {
    Fuzzer fuzzer(static_cast<uint32_t>(seed));
    for (int step = 0; step < 250; step++) {
      fuzzer.Step();
      if (testing::Test::HasFailure()) return;
    }
  });
}

}  // namespace
}  // namespace redoubt::mm
