// Random operations on several address spaces, against a model that keeps one byte for each page. The invariants are
// checked after each.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <map>
#include <memory>
#include <random>
#include <vector>

#include "pkg/sentry/mm/mm_test_util.h"

namespace redoubt::mm {
namespace {

constexpr Addr kBase = 0x1000'0000;
constexpr uint64_t kPages = 96;

struct ModelPage {
  AccessType access;
  bool shared = false;
  std::shared_ptr<char> value;  // one for all who share the page
};

struct Process {
  RefPtr<MemoryManager> mm;
  std::map<Addr, ModelPage> pages;
};

class Fuzzer {
 public:
  explicit Fuzzer(uint32_t seed) : random_(seed) { processes_.push_back({w_.NewMm(), {}}); }
  ~Fuzzer() {
    for (Process& p : processes_) p.mm->DropUser();
    processes_.clear();
  }

  void Step() {
    Process& p = processes_[random_() % processes_.size()];
    switch (random_() % 14) {
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
      default:
        for (int i = 0; i < 8; i++) Touch(p);
    }
    for (Process& q : processes_) Check(q);
  }

 private:
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
    for (Addr a = o.addr; a < o.addr + o.length; a += kPageSize) {
      p.pages[a] = {o.access, o.shared, std::make_shared<char>(0)};
    }
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
      if (auto it = p.pages.find(a); it != p.pages.end()) it->second.access = access;
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
    p.pages[to] = p.pages[from];
    p.pages.erase(from);
  }
  void DontNeed(Process& p) {
    Addr start = RandomPage();
    uint64_t length = RandomLength();
    (void)p.mm->MAdvise(start, length, MADV_DONTNEED);
    for (Addr a = start; a < start + length; a += kPageSize) {
      auto it = p.pages.find(a);
      if (it != p.pages.end() && !it->second.shared) it->second.value = std::make_shared<char>(0);
    }
  }
  void Fork(Process& p) {
    Process child{*p.mm->Fork(), p.pages};
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
        ASSERT_EQ(static_cast<char>(b), *it->second.value);
      }
    }
  }

  // The invariants, and that whatever the guest can reach without a fault is what the model says.
  void Check(Process& p) {
    p.mm->CheckInvariants();
    EXPECT_EQ(p.mm->virtual_size(), p.pages.size() * kPageSize);
    for (auto& [a, mapped] : Guest(*p.mm).pages) {
      auto it = p.pages.find(a);
      ASSERT_NE(it, p.pages.end()) << "the guest sees unmapped memory";
      ASSERT_TRUE(internal::Effective(it->second.access).Allows(mapped.access));
      ASSERT_EQ(static_cast<char>(*w_.memory->At(mapped.offset)), *it->second.value);
    }
  }

  World w_;
  std::mt19937 random_;
  std::vector<Process> processes_;
};

TEST(MmFuzz, RandomOperationsAgreeWithTheModel) {
  for (uint32_t seed = 0; seed < 60; seed++) {
    SCOPED_TRACE(seed);
    Fuzzer fuzzer(seed);
    for (int step = 0; step < 250; step++) {
      fuzzer.Step();
      if (testing::Test::HasFailure()) return;
    }
  }
}

}  // namespace
}  // namespace redoubt::mm
