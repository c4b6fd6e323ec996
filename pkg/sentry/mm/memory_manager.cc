#include "pkg/sentry/mm/memory_manager.h"

#include <algorithm>
#include <cstring>

#include "pkg/log/log.h"

namespace redoubt::mm {

using internal::PmaMap;
using internal::VmaMap;

namespace {

// Room kept above mmap's area for the stack: RLIMIT_STACK within these bounds (Linux's mmap_base).
constexpr uint64_t kMinStackRoom = uint64_t{128} << 20;

Addr MmapTop(const platform::Platform& platform, const Limits& limits) {
  uint64_t max_room = PageRoundDown(platform.max_user_address() / 6 * 5);
  uint64_t room = std::max(limits.stack, kMinStackRoom);
  room = room > max_room ? max_room : std::min(room + MemoryManager::kMostStackRandom, max_room);
  return platform.max_user_address() - MustPageRoundUp(room);
}

}  // namespace

MemoryManager::MemoryManager(platform::Platform& platform, pgalloc::MemoryFile& memory_file,
                             RefPtr<platform::AddressSpace> as)
    : platform_(platform), memory_file_(memory_file), as_(std::move(as)), active_mu_(sync::Rank::kActivePages) {
  mmap_top_ = MmapTop(platform_, limits_);
}

Result<RefPtr<MemoryManager>> MemoryManager::Create(platform::Platform& platform, pgalloc::MemoryFile& memory_file) {
  RefPtr<platform::AddressSpace> as = TRY(platform.NewAddressSpace());
  as->UseMemoryFile(memory_file.fd());
  return RefPtr<MemoryManager>(new MemoryManager(platform, memory_file, std::move(as)));
}

MemoryManager::~MemoryManager() NO_THREAD_SAFETY_ANALYSIS {
  CHECK(users_ == 0, "an address space died before its users");
  if (!torn_down_) Teardown();
}

void MemoryManager::AddUser() { users_.fetch_add(1, std::memory_order_relaxed); }

void MemoryManager::DropUser() {
  int before = users_.fetch_sub(1, std::memory_order_acq_rel);
  CHECK(before > 0, "an address space has lost a user twice");
  if (before == 1) Teardown();
}

void MemoryManager::Teardown() {
  fiber::MutexLock lock(mapping_mu_);
  if (torn_down_) return;
  torn_down_ = true;
  // The guest is gone, and with it all that it could reach.
  as_->Release();
  for (auto it = vmas_.begin(); it != vmas_.end(); it = vmas_.Erase(it)) {
    const internal::Vma& vma = it->second.value;
    if (vma.mappable == nullptr) continue;
    vma.mappable->RemoveMapping(*this, {VmaMap::Start(it), VmaMap::End(it)}, vma.offset,
                                vma.shared && vma.access.write);
  }
  virtual_size_ = 0;
  data_size_ = 0;
  brk_ = {};
  exec_info_ = {};
  hidden_ranges_ = 0;
  hidden_size_ = 0;
  sync::MutexLock active(active_mu_);
  for (auto it = pmas_.begin(); it != pmas_.end(); it = pmas_.Erase(it)) {
    uint64_t offset = it->second.value.offset;
    memory_file_.DecRef({offset, offset + PmaMap::Length(it)});
  }
  resident_ = 0;
  patches_.clear();
  inherited_.clear();
}

platform::AddressSpace& MemoryManager::address_space() { return *as_; }

void MemoryManager::SetLimits(const Limits& limits) {
  fiber::MutexLock lock(mapping_mu_);
  limits_ = limits;
  // As on Linux, the layout is decided once.
  if (!vmas_.empty()) return;
  mmap_top_ = MmapTop(platform_, limits_);
  gap_top_ = 0;
}

void MemoryManager::LowerMappings(uint64_t bytes) {
  fiber::MutexLock lock(mapping_mu_);
  CHECK(vmas_.empty(), "the layout of an address space in use");
  // Not where there is hardly any room.
  if (bytes < mmap_top_ / 4) mmap_top_ -= bytes;
  gap_top_ = 0;
}

std::vector<MapsEntry> MemoryManager::Maps() {
  fiber::MutexLock lock(mapping_mu_);
  std::vector<MapsEntry> entries;
  for (auto it = vmas_.begin(); it != vmas_.end(); ++it) {
    const internal::Vma& vma = it->second.value;
    if (vma.hidden != 0) continue;
    MapsEntry e{.range = {VmaMap::Start(it), VmaMap::End(it)},
                .access = vma.access,
                .shared = vma.shared,
                .offset = vma.offset,
                .name = vma.name};
    if (vma.identity) {
      e.name = vma.identity->MappedName();
      e.device = vma.identity->MappedDevice();
      e.inode = vma.identity->MappedInode();
    }
    entries.push_back(std::move(e));
  }
  sync::MutexLock active(active_mu_);
  for (MapsEntry& e : entries) {
    for (auto it = pmas_.FirstEndingAfter(e.range.start); it != pmas_.end() && PmaMap::Start(it) < e.range.end; ++it) {
      e.rss += e.range.Intersect({PmaMap::Start(it), PmaMap::End(it)}).length();
    }
  }
  return entries;
}

uint64_t MemoryManager::virtual_size() { return virtual_size_; }
uint64_t MemoryManager::resident_size() {
  uint64_t hidden = hidden_size_;
  return std::max<uint64_t>(resident_, hidden) - hidden;
}
uint64_t MemoryManager::max_resident_size() {
  uint64_t hidden = hidden_size_;
  return std::max<uint64_t>(max_resident_, hidden) - hidden;
}

void MemoryManager::SetExecInfo(ExecInfo info) {
  fiber::MutexLock lock(mapping_mu_);
  exec_info_ = std::move(info);
}

MemoryManager::ExecInfo MemoryManager::exec_info() {
  fiber::MutexLock lock(mapping_mu_);
  return exec_info_;
}

void MemoryManager::CheckInvariants() {
  fiber::MutexLock lock(mapping_mu_);
  uint64_t size = 0;
  uint64_t data = 0;
  uint64_t hidden = 0;
  size_t hidden_ranges = 0;
  for (auto it = vmas_.begin(); it != vmas_.end(); ++it) {
    const internal::Vma& vma = it->second.value;
    CHECK(IsPageAligned(VmaMap::Start(it)) && IsPageAligned(VmaMap::End(it)));
    CHECK(VmaMap::End(it) <= platform_.max_user_address() && VmaMap::Start(it) >= platform_.min_user_address());
    CHECK(!vma.shared || vma.mappable != nullptr, "shared memory without a Mappable");
    CHECK(vma.max_access.Allows(vma.access));
    if (vma.hidden != 0) {
      hidden += VmaMap::Length(it);
      hidden_ranges++;
      CHECK(vma.hidden == VmaMap::Start(it), "a part of a hidden range is missing");
      CHECK(vma.mappable == nullptr && !vma.access.write && vma.access.execute);
      continue;
    }
    size += VmaMap::Length(it);
    if (vma.is_data()) data += VmaMap::Length(it);
  }
  // The short cut of FindGap.
  for (auto it = vmas_.FirstEndingAfter(gap_top_); gap_top_ != 0 && it != vmas_.end() && VmaMap::End(it) < mmap_top_;
       ++it) {
    auto next = std::next(it);
    Addr top = next == vmas_.end() ? mmap_top_ : std::min(mmap_top_, VmaMap::Start(next));
    if (next != vmas_.end() && next->second.value.grows_down) continue;
    CHECK(top - VmaMap::End(it) <= longest_gap_, "a gap that would not be found");
  }
  CHECK(size == virtual_size_ && data == data_size_, "the sizes are wrong");
  CHECK(hidden == hidden_size_ && hidden_ranges == hidden_ranges_, "the hidden sizes are wrong");
  sync::MutexLock active(active_mu_);
  uint64_t resident = 0;
  for (auto it = pmas_.begin(); it != pmas_.end(); ++it) {
    const internal::Pma& pma = it->second.value;
    resident += PmaMap::Length(it);
    for (Addr page = PmaMap::Start(it); page < PmaMap::End(it); page += kPageSize) {
      auto v = vmas_.Find(page);
      CHECK(v != vmas_.end(), "a page without a VMA");
      const internal::Vma& vma = v->second.value;
      CHECK(pma.shared == vma.shared);
      CHECK(!(pma.shared && pma.private_copy));
      CHECK(vma.mappable != nullptr || pma.private_copy, "anonymous memory that is not private");
      CHECK(pma.access == internal::PmaAccess(vma.access, pma.writable), "a page's access is not its VMA's");
      uint32_t refs = memory_file_.RefCount(pma.offset + (page - PmaMap::Start(it)));
      CHECK(refs > 0, "a page without a reference");
      CHECK(!(pma.private_copy && pma.writable) || refs == 1, "a writable private page that others see");
    }
  }
  CHECK(resident == resident_, "the resident size is wrong");
  Addr last = 0;
  for (auto& [addr, patch] : patches_) {
    CHECK(addr >= last && addr == patch.addr && patch.length > 0, "patches overlap");
    last = patch.range().end;
    auto v = vmas_.Find(addr);
    CHECK(v != vmas_.end() && v->second.value.mappable != nullptr && !v->second.value.shared, "a patch outside text");
    CHECK(!v->second.value.access.write, "a patch in writable memory");
    auto h = vmas_.Find(patch.hidden);
    CHECK(h != vmas_.end() && h->second.value.hidden != 0, "a patch that leads nowhere");
    auto p = pmas_.Find(addr);
    CHECK(p != pmas_.end() && p->second.value.private_copy, "a patch in a page of the file");
    CHECK(std::memcmp(memory_file_.At(p->second.value.offset + (addr - PmaMap::Start(p))), patch.patched.data(),
                      patch.length) == 0,
          "a patch is not there");
  }
}

}  // namespace redoubt::mm
