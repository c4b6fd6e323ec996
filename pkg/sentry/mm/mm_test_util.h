// What the memory manager's tests share: a world with a fake platform, a guest that accesses memory, and a file to map.
#ifndef REDOUBT_PKG_SENTRY_MM_MM_TEST_UTIL_H_
#define REDOUBT_PKG_SENTRY_MM_MM_TEST_UTIL_H_

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pkg/fiber/fiber.h"
#include "pkg/sentry/mm/fake_platform.h"
#include "pkg/sentry/mm/memory_manager.h"

namespace redoubt::mm {

// A file whose pages live in the memory file. Byte 0 of page i is 'A' + i.
class FakeFile final : public memmap::Mappable, public memmap::MappingIdentity {
 public:
  FakeFile(pgalloc::MemoryFile& memory, uint64_t pages) : memory_(memory) { Grow(pages); }
  ~FakeFile() override {
    EXPECT_TRUE(mappings_.empty()) << "mappings are left";
    Truncate(0);
  }

  void Grow(uint64_t pages) {
    while (pages_.size() < pages) {
      uint64_t offset = memory_.Allocate(kPageSize)->start;
      *memory_.At(offset) = static_cast<std::byte>('A' + pages_.size());
      pages_.push_back(offset);
    }
  }
  void Truncate(uint64_t pages) {
    std::vector<uint64_t> gone(pages_.begin() + pages, pages_.end());
    pages_.resize(pages);
    // The mappings' pages are asked for by page, since mappings are kept so.
    auto mappings = mappings_;
    for (auto& [key, count] : mappings) {
      auto [space, addr, offset, writable] = key;
      if (offset >= pages * kPageSize) space->Invalidate({addr, addr + kPageSize}, true);
    }
    for (uint64_t offset : gone) memory_.DecRef({offset, offset + kPageSize});
  }
  // Replaces the page's memory, as a cache that drops and reads again would.
  void Replace(uint64_t page, char c) {
    uint64_t fresh = memory_.Allocate(kPageSize)->start;
    *memory_.At(fresh) = static_cast<std::byte>(c);
    uint64_t old = std::exchange(pages_[page], fresh);
    auto mappings = mappings_;
    for (auto& [key, count] : mappings) {
      auto [space, addr, offset, writable] = key;
      if (offset == page * kPageSize) space->Invalidate({addr, addr + kPageSize}, false);
    }
    memory_.DecRef({old, old + kPageSize});
  }
  char Get(uint64_t page) { return static_cast<char>(*memory_.At(pages_[page])); }

  Result<> AddMapping(memmap::MappingSpace& space, AddrRange r, uint64_t offset, bool writable) override {
    for (uint64_t i = 0; i < r.length(); i += kPageSize) mappings_[{&space, r.start + i, offset + i, writable}]++;
    return {};
  }
  void RemoveMapping(memmap::MappingSpace& space, AddrRange r, uint64_t offset, bool writable) override {
    for (uint64_t i = 0; i < r.length(); i += kPageSize) {
      auto it = mappings_.find({&space, r.start + i, offset + i, writable});
      ASSERT_NE(it, mappings_.end()) << "a mapping is removed that was not added";
      if (--it->second == 0) mappings_.erase(it);
    }
  }
  Result<memmap::FileRange> Translate(uint64_t offset, uint64_t length, AccessType access) override {
    translations++;
    if (access.write) write_translations++;
    uint64_t page = offset / kPageSize;
    if (page >= pages_.size()) return Err(EIO);
    uint64_t start = pages_[page];
    uint64_t end = start + kPageSize;
    while (end - start < length && ++page < pages_.size() && pages_[page] == end) end += kPageSize;
    memory_.IncRef({start, end});
    // The file may change before the caller has put the pages anywhere.
    if (fiber::Current() != nullptr) fiber::Yield();
    return memmap::FileRange{start, end};
  }
  std::string MappedName() const override { return "/fake"; }
  uint64_t MappedDevice() const override { return 7; }
  uint64_t MappedInode() const override { return 42; }
  Result<> MappedSync(uint64_t offset, uint64_t length) override {
    synced.push_back({offset, length});
    return {};
  }

  std::vector<std::pair<uint64_t, uint64_t>> synced;
  int translations = 0;
  int write_translations = 0;

 private:
  using Key = std::tuple<memmap::MappingSpace*, Addr, uint64_t, bool>;
  pgalloc::MemoryFile& memory_;
  std::vector<uint64_t> pages_;
  std::map<Key, int> mappings_;
};

struct World {
  FakePlatform platform;
  std::unique_ptr<pgalloc::MemoryFile> memory = *pgalloc::MemoryFile::Create({});

  RefPtr<MemoryManager> NewMm() {
    RefPtr<MemoryManager> mm = *MemoryManager::Create(platform, *memory);
    mm->AddUser();
    return mm;
  }
  ~World() { EXPECT_EQ(memory->usage(), 0u) << "pages have leaked"; }
};

inline FakeAddressSpace& Guest(MemoryManager& mm) { return static_cast<FakeAddressSpace&>(mm.address_space()); }

// The guest's own load or store of one byte, faults included. The error is the fault's.
inline Result<std::byte*> GuestPage(World& w, MemoryManager& mm, Addr addr, AccessType want) {
  for (int tries = 0; tries < 3; tries++) {
    auto it = Guest(mm).pages.find(PageRoundDown(addr));
    if (it != Guest(mm).pages.end() && it->second.access.Allows(want)) {
      return w.memory->At(it->second.offset + (addr & kPageMask));
    }
    Guest(mm).faults++;
    TRY(mm.HandleUserFault(addr, want, true, 0));
  }
  ADD_FAILURE() << "a fault was handled, but the page is not mapped";
  return Err(EAGAIN);
}
inline Result<char> GuestRead(World& w, MemoryManager& mm, Addr addr) {
  return static_cast<char>(*TRY(GuestPage(w, mm, addr, kRead)));
}
inline Result<> GuestWrite(World& w, MemoryManager& mm, Addr addr, char c) {
  *TRY(GuestPage(w, mm, addr, kWrite)) = static_cast<std::byte>(c);
  return {};
}

inline constexpr uint64_t kPage = kPageSize;

// One address space, whose guest is the test.
class MmTest : public testing::Test {
 protected:
  void TearDown() override {
    mm_->CheckInvariants();
    mm_->DropUser();
    EXPECT_TRUE(Guest(*mm_).released);
    mm_.reset();
  }
  Addr Map(uint64_t pages, AccessType access = kReadWrite, bool shared = false) {
    return *mm_->MMap({.length = pages * kPage, .shared = shared, .access = access});
  }
  Addr MapFile(const RefPtr<FakeFile>& file, uint64_t pages, AccessType access, bool shared, uint64_t offset = 0) {
    return *mm_->MMap({.length = pages * kPage,
                       .shared = shared,
                       .access = access,
                       .mappable = file.get(),
                       .identity = file,
                       .offset = offset});
  }
  Result<char> Read(Addr a) { return GuestRead(w_, *mm_, a); }
  Result<> Write(Addr a, char c) { return GuestWrite(w_, *mm_, a, c); }

  World w_;
  RefPtr<MemoryManager> mm_ = w_.NewMm();
};

}  // namespace redoubt::mm

#endif  // REDOUBT_PKG_SENTRY_MM_MM_TEST_UTIL_H_
