#include "pkg/ring0/pagetables/pagetables.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <set>
#include <vector>

namespace redoubt::ring0::pagetables {
namespace {

constexpr uint64_t kBase = uint64_t{1} << 32;
constexpr AccessType kReadExecute{.read = true, .execute = true};

// Tables at made-up physical addresses.
class FakeMemory final : public Allocator {
 public:
  Result<PTEs*> NewPTEs() override {
    if (left == 0) return Err(ENOMEM);
    left--;
    auto table = std::make_unique<PTEs>();
    PTEs* p = table.get();
    uint64_t physical = next_;
    next_ += 3 * kPageSize;  // holes, so that a sum that is off hits nothing
    addresses_[p] = physical;
    tables_[physical] = std::move(table);
    return p;
  }
  void FreePTEs(PTEs* table) override {
    ASSERT_EQ(addresses_.count(table), 1u) << "freed twice or never made";
    uint64_t physical = addresses_[table];
    addresses_.erase(table);
    tables_.erase(physical);
    left++;
  }
  uint64_t PhysicalFor(const PTEs* table) override { return addresses_.at(const_cast<PTEs*>(table)); }
  PTEs* LookupPTEs(uint64_t physical) override { return tables_.at(physical).get(); }
  size_t live() const { return tables_.size(); }

  size_t left = 100'000;

 private:
  uint64_t next_ = kBase;
  std::map<PTEs*, uint64_t> addresses_;
  std::map<uint64_t, std::unique_ptr<PTEs>> tables_;
};

struct Page {
  uint64_t physical = 0;
  AccessType access;
  bool user = true;
  friend bool operator==(const Page&, const Page&) = default;
};

// What a processor does, from the manual and by itself: SDM vol. 3, 4.5 and 4.6. Also checks what must hold of every
// entry.
std::optional<Page> Simulate(FakeMemory& memory, uint64_t cr3, Addr addr) {
  uint64_t table = cr3;
  bool write = true, user = true, execute = true;
  for (int level = 4; level >= 1; level--) {
    uint64_t entry = memory.LookupPTEs(table)->entries[(addr >> (3 + 9 * level)) % 512];
    if (!(entry & 1)) {
      EXPECT_EQ(entry, 0u);
      return std::nullopt;
    }
    EXPECT_TRUE(entry & 0x20) << "a walker would write the accessed bit";
    EXPECT_EQ(entry & 0x7ff0000000000f18ull, 0u) << "reserved, ignored and caching bits";
    write &= (entry & 2) != 0;
    user &= (entry & 4) != 0;
    execute &= !(entry >> 63);
    bool leaf = level == 1 || (level == 2 && (entry & 0x80));
    if (level != 2) {
      EXPECT_FALSE(entry & 0x80);
    }
    if (leaf) {
      EXPECT_TRUE(entry & 0x40) << "a walker would write the dirty bit";
      uint64_t size = level == 1 ? 4096 : 2 << 20;
      uint64_t physical = entry & 0x000ffffffffff000;
      EXPECT_EQ(physical % size, 0u);
      return Page{physical + addr % size / 4096 * 4096, {.read = true, .write = write, .execute = execute}, user};
    }
    table = entry & 0x000ffffffffff000;
  }
  return std::nullopt;
}

class Losses final : public Listener {
 public:
  void Lost(Addr addr, uint64_t physical, uint64_t length) override {
    for (uint64_t i = 0; i < length; i += kPageSize) {
      EXPECT_TRUE(pages.emplace(addr + i, physical + i).second) << "reported twice";
    }
    calls++;
  }
  std::map<Addr, uint64_t> pages;
  int calls = 0;
};

struct Fixture : testing::Test {
  void Check(Addr addr, std::optional<Page> want) {
    EXPECT_EQ(Simulate(memory, tables.root_physical(), addr), want) << std::hex << addr;
    std::optional<Translation> t = tables.Walk(addr + 17);
    ASSERT_EQ(t.has_value(), want.has_value()) << std::hex << addr;
    if (!want) return;
    EXPECT_EQ(t->physical, want->physical + 17);
    EXPECT_EQ(t->access, want->access);
    EXPECT_EQ(t->user, want->user);
  }

  FakeMemory memory;
  PageTables tables = *PageTables::Create(memory);
  Losses losses;
};
using PageTablesTest = Fixture;

TEST_F(PageTablesTest, MapsWhatWasAskedAndNoMore) {
  ASSERT_TRUE(tables.Map(0x400000, 3 * kPageSize, 0x10000, {kReadExecute}, losses));
  Check(0x3ff000, std::nullopt);
  for (uint64_t i = 0; i < 3; i++) Check(0x400000 + i * kPageSize, Page{0x10000 + i * kPageSize, kReadExecute});
  Check(0x403000, std::nullopt);
  EXPECT_EQ(tables.tables(), 4u);
  EXPECT_TRUE(losses.pages.empty()) << "nothing was there";
}

TEST_F(PageTablesTest, RightsAreThoseOfTheArchitecture) {
  const AccessType write_only{.write = true}, execute_only{.execute = true};
  ASSERT_TRUE(tables.Map(0, kPageSize, 0, {kRead}, losses));
  ASSERT_TRUE(tables.Map(0x1000, kPageSize, 0x1000, {write_only}, losses));
  ASSERT_TRUE(tables.Map(0x2000, kPageSize, 0x2000, {execute_only}, losses));
  ASSERT_TRUE(tables.Map(0x3000, kPageSize, 0x3000, {.access = kAnyAccess, .user = false}, losses));
  Check(0, Page{0, kRead});
  Check(0x1000, Page{0x1000, kReadWrite});
  Check(0x2000, Page{0x2000, kReadExecute});
  Check(0x3000, Page{0x3000, kAnyAccess, false});
}

TEST_F(PageTablesTest, SupervisorTablesAreNotForUsers) {
  const Addr kernel = 0xffffff8000000000;
  ASSERT_TRUE(tables.Map(kernel, kPageSize, 0x5000, {.access = kRead, .user = false}, losses));
  Check(kernel, Page{0x5000, kRead, false});
  PTEs* root = memory.LookupPTEs(tables.root_physical());
  EXPECT_EQ(root->entries[511] & kUser, 0u);
}

TEST_F(PageTablesTest, BadRanges) {
  auto refused = [&](Addr addr, uint64_t length, uint64_t physical = 0) {
    EXPECT_EQ(tables.Map(addr, length, physical, {kRead}, losses).error(), Errno(EINVAL)) << std::hex << addr;
  };
  refused(0, 0);
  refused(1, kPageSize);
  refused(0, 100);
  refused(0, kPageSize, 1);
  refused(0x7ffffffff000, 2 * kPageSize);
  refused(0x800000000000, kPageSize);
  refused(0xffff7ffffffff000, kPageSize);
  refused(0xfffffffffffff000, 2 * kPageSize);
  refused(0, kPageSize, uint64_t{1} << 52);
  refused(0, 2 * kPageSize, (uint64_t{1} << 52) - kPageSize);
  EXPECT_EQ(tables.Unmap(0x7ffffffff000, 2 * kPageSize, losses).error(), Errno(EINVAL));
  EXPECT_EQ(tables.Protect(5, kPageSize, kRead, losses).error(), Errno(EINVAL));
  EXPECT_FALSE(tables.Walk(0x800000000000));
  EXPECT_EQ(tables.tables(), 1u);
}

TEST_F(PageTablesTest, TheEndsOfBothHalves) {
  for (Addr addr : {Addr{0}, Addr{0x7ffffffff000}, Addr{0xffff800000000000}, Addr{0xfffffffffffff000}}) {
    ASSERT_TRUE(tables.Map(addr, kPageSize, 0x7000, {kRead}, losses)) << std::hex << addr;
    Check(addr, Page{0x7000, kRead});
    ASSERT_TRUE(tables.Unmap(addr, kPageSize, losses));
    EXPECT_EQ(losses.pages.count(addr), 1u) << std::hex << addr;
    Check(addr, std::nullopt);
  }
}

TEST_F(PageTablesTest, ReportsOnlyWhatIsLost) {
  auto map = [&](uint64_t physical, AccessType access) {
    losses.pages.clear();
    EXPECT_TRUE(tables.Map(0x1000, kPageSize, physical, {access}, losses));
    return losses.pages.size();
  };
  EXPECT_EQ(map(0, kRead), 0u) << "new";
  EXPECT_EQ(map(0, kRead), 0u) << "the same";
  EXPECT_EQ(map(0, kReadWrite), 0u) << "more";
  EXPECT_EQ(map(0, kAnyAccess), 0u) << "more";
  EXPECT_EQ(map(0, kReadWrite), 1u) << "no longer executable";
  EXPECT_EQ(map(0, kReadExecute), 1u) << "no longer writable";
  EXPECT_EQ(map(0x1000, kReadExecute), 1u) << "elsewhere";
  EXPECT_EQ(losses.pages[0x1000], 0u) << "what was there before";
  losses.pages.clear();
  ASSERT_TRUE(tables.Protect(0x1000, kPageSize, kRead, losses));
  EXPECT_EQ(losses.pages.size(), 1u);
  ASSERT_TRUE(tables.Protect(0x1000, kPageSize, kAnyAccess, losses));
  EXPECT_EQ(losses.calls, 4);
}

TEST_F(PageTablesTest, ProtectChangesOnlyWhatIsMapped) {
  ASSERT_TRUE(tables.Map(0x1000, kPageSize, 0x9000, {kReadWrite}, losses));
  ASSERT_TRUE(tables.Map(0x5000, kPageSize, 0x8000, {.access = kReadWrite, .user = false}, losses));
  ASSERT_TRUE(tables.Protect(0, 16 * kPageSize, kReadExecute, losses));
  Check(0, std::nullopt);
  Check(0x1000, Page{0x9000, kReadExecute});
  Check(0x5000, Page{0x8000, kReadExecute, false});
  losses.pages.clear();
  ASSERT_TRUE(tables.Protect(0, 16 * kPageSize, {}, losses));
  EXPECT_EQ(losses.pages.size(), 2u);
  Check(0x1000, std::nullopt);
}

TEST_F(PageTablesTest, HugePagesWhereAligned) {
  const uint64_t huge = kHugePageSize;
  const MapOptions options{.access = kReadWrite, .huge = true};
  ASSERT_TRUE(tables.Map(huge - kPageSize, 2 * huge, 8 * huge - kPageSize, options, losses));
  EXPECT_EQ(tables.Walk(huge)->size, huge);
  EXPECT_EQ(tables.Walk(huge - kPageSize)->size, kPageSize);
  EXPECT_EQ(tables.Walk(2 * huge)->size, kPageSize) << "the rest is less than a huge page";
  for (Addr a = 0; a < 4 * huge; a += 31 * kPageSize) {
    bool in = a >= huge - kPageSize && a < 3 * huge - kPageSize;
    Check(a, in ? std::optional(Page{a + 7 * huge, kReadWrite}) : std::nullopt);
  }
  EXPECT_EQ(tables.tables(), 5u);
  // Physically not aligned.
  ASSERT_TRUE(tables.Map(uint64_t{1} << 30, huge, kPageSize, options, losses));
  EXPECT_EQ(tables.Walk(uint64_t{1} << 30)->size, kPageSize);
}

TEST_F(PageTablesTest, HugePagesAreSplit) {
  const uint64_t huge = kHugePageSize;
  ASSERT_TRUE(tables.Map(0, huge, 0, {.access = kReadWrite, .huge = true}, losses));
  ASSERT_TRUE(tables.Unmap(5 * kPageSize, kPageSize, losses));
  EXPECT_EQ(losses.pages.size(), 1u) << "the others are as they were";
  for (Addr a = 0; a < huge; a += kPageSize) {
    Check(a, a == 5 * kPageSize ? std::nullopt : std::optional(Page{a, kReadWrite}));
  }
  // Whole ones need no split.
  ASSERT_TRUE(tables.Map(huge, huge, huge, {.access = kReadWrite, .huge = true}, losses));
  size_t before = tables.tables();
  ASSERT_TRUE(tables.Protect(huge, huge, kRead, losses));
  Check(huge, Page{huge, kRead});
  losses.pages.clear();
  ASSERT_TRUE(tables.Unmap(huge, huge, losses));
  EXPECT_EQ(tables.tables(), before);
  Check(huge, std::nullopt);
}

TEST_F(PageTablesTest, NoMemory) {
  memory.left = 0;
  EXPECT_EQ(PageTables::Create(memory).error(), Errno(ENOMEM));
  memory.left = 2;
  EXPECT_EQ(tables.Map(0, kPageSize, 0, {kRead}, losses).error(), Errno(ENOMEM));
  memory.left = 1;
  ASSERT_TRUE(tables.Map(0, kPageSize, 0, {kRead}, losses)) << "goes on with what is there";
  Check(0, Page{0, kRead});
  memory.left = 3;
  ASSERT_TRUE(tables.Map(uint64_t{1} << 40, kHugePageSize, 0, {.access = kRead, .huge = true}, losses));
  memory.left = 0;
  EXPECT_EQ(tables.Unmap(uint64_t{1} << 40, kPageSize, losses).error(), Errno(ENOMEM));
  Check(uint64_t{1} << 40, Page{0, kRead});
  EXPECT_TRUE(losses.pages.empty());
}

TEST_F(PageTablesTest, SharedUpperHalf) {
  const Addr kernel = 0xffffff8000000000;
  {
    PageTables other = *PageTables::Create(memory);
    ASSERT_TRUE(tables.Map(kernel, kPageSize, 0x5000, {.access = kRead, .user = false}, losses));
    other.ShareUpperHalf(tables);
    ASSERT_TRUE(other.Map(0x1000, kPageSize, 0x6000, {kRead}, losses));
    EXPECT_EQ(Simulate(memory, other.root_physical(), kernel), (Page{0x5000, kRead, false}));
    EXPECT_EQ(other.Map(kernel, kPageSize, 0, {kRead}, losses).error(), Errno(EINVAL)) << "it is not its own";
    EXPECT_EQ(other.Unmap(kernel, kPageSize, losses).error(), Errno(EINVAL));
    Check(0x1000, std::nullopt);
    // Later, below what is shared.
    ASSERT_TRUE(tables.Map(kernel + kPageSize, kPageSize, 0x7000, {.access = kRead, .user = false}, losses));
    EXPECT_EQ(Simulate(memory, other.root_physical(), kernel + kPageSize), (Page{0x7000, kRead, false}));
  }
  Check(kernel, Page{0x5000, kRead, false});
}

TEST(PageTables, FreesAllItsTables) {
  FakeMemory memory;
  {
    PageTables a = *PageTables::Create(memory);
    Losses losses;
    for (Addr addr : {Addr{0}, Addr{1} << 30, Addr{1} << 39, Addr{0xffff800000000000}}) {
      ASSERT_TRUE(a.Map(addr, kHugePageSize + kPageSize, 0, {.access = kRead, .huge = true}, losses));
    }
    EXPECT_EQ(memory.live(), a.tables());
    PageTables b = std::move(a);
  }
  EXPECT_EQ(memory.live(), 0u);
}

// Operations drawn at random against a map of pages. Losses must be just those entries that no longer hold: each page
// that a walker has seen before and that has lost something is reported, no other.
TEST(PageTables, RandomOperations) {
  for (uint32_t seed = 0; seed < 12; seed++) {
    std::mt19937 random(seed);
    FakeMemory memory;
    auto tables = std::make_unique<PageTables>(*PageTables::Create(memory));
    std::map<Addr, Page> model;
    // Around borders of tables of all levels, in both halves.
    const Addr bases[] = {0, (Addr{1} << 30) - kHugePageSize, (Addr{1} << 39) - kHugePageSize, 0xffff800000000000};
    for (int step = 0; step < 150; step++) {
      const Addr base = bases[random() % std::size(bases)];
      const bool whole = random() % 4 == 0;
      const Addr addr = base + (whole ? random() % 3 * kHugePageSize : random() % 1500 * kPageSize);
      const uint64_t pages = whole ? 512 : 1 + random() % (random() % 8 == 0 ? 600 : 20);
      const uint64_t length = pages * kPageSize;
      const AccessType access{.read = true, .write = random() % 2 == 0, .execute = random() % 2 == 0};
      const uint64_t physical = whole ? random() % 64 * kHugePageSize : random() % 5000 * kPageSize;
      std::map<Addr, Page> before = model;
      Losses losses;
      switch (random() % 4) {
        case 0:
        case 1: {
          MapOptions options{.access = access, .huge = random() % 2 == 0};
          ASSERT_TRUE(tables->Map(addr, length, physical, options, losses));
          for (uint64_t i = 0; i < length; i += kPageSize) model[addr + i] = {physical + i, access};
          break;
        }
        case 2:
          ASSERT_TRUE(tables->Unmap(addr, length, losses));
          model.erase(model.lower_bound(addr), model.lower_bound(addr + length));
          break;
        case 3:
          ASSERT_TRUE(tables->Protect(addr, length, access, losses));
          for (auto it = model.lower_bound(addr); it != model.end() && it->first < addr + length; ++it) {
            it->second.access = access;
          }
          break;
      }
      std::map<Addr, uint64_t> lost;
      for (const auto& [a, page] : before) {
        auto now = model.find(a);
        if (now == model.end() || now->second.physical != page.physical || !now->second.access.Allows(page.access)) {
          lost[a] = page.physical;
        }
      }
      // Of a huge page all is lost at once, since all of it changes at once.
      ASSERT_EQ(losses.pages, lost) << "seed " << seed << " step " << step;
      for (int i = 0; i < 40; i++) {
        const Addr a = base + random() % 2200 * kPageSize;
        auto it = model.find(a);
        std::optional<Page> want = it == model.end() ? std::nullopt : std::optional(it->second);
        ASSERT_EQ(Simulate(memory, tables->root_physical(), a), want) << "seed " << seed << " step " << step;
      }
    }
    for (const auto& [a, page] : model) ASSERT_EQ(Simulate(memory, tables->root_physical(), a), page);
    ASSERT_EQ(memory.live(), tables->tables());
    tables.reset();
    ASSERT_EQ(memory.live(), 0u);
  }
}

}  // namespace
}  // namespace redoubt::ring0::pagetables
