// The Sentry's own accesses to guest memory.
#include <algorithm>

#include "pkg/safecopy/safecopy_unsafe.h"
#include "pkg/sentry/mm/memory_manager.h"
#include "pkg/sentry/mm/pages.h"

namespace redoubt::mm {

using internal::Pma;
using internal::PmaMap;

namespace {

// Bytes moved at most while the pages' lock is held: other threads' faults wait for it.
constexpr uint64_t kMaxPerLock = uint64_t{128} << 10;

bool Permits(const Pma& pma, AccessType want, bool force) {
  if (!force) return pma.access.Allows(want);
  return !want.write || pma.access.write || (!pma.shared && pma.writable);
}

}  // namespace

template <typename F>
Result<size_t> MemoryManager::Access(Addr addr, uint64_t length, AccessType want, Mode mode, std::byte* read,
                                     F&& move) {
  if (length == 0) return 0;
  length = std::min(length, -addr - 1);  // whatever wraps around is not mapped
  uint64_t done = 0;
  while (done < length) {
    bool missing = false;
    {
      sync::MutexLock active(active_mu_);
      uint64_t limit = std::min(length, done + kMaxPerLock);
      if (mode == Mode::kForce && want.write) RestorePatches({addr + done, addr + limit}, kEverywhere);
      PmaIterator it = pmas_.Find(addr + done);
      while (done < limit) {
        const Addr at = addr + done;
        if (it != pmas_.end() && PmaMap::End(it) <= at) ++it;
        if (it == pmas_.end() || PmaMap::Start(it) > at || !Permits(it->second.value, want, mode == Mode::kForce)) {
          missing = true;
          break;
        }
        uint64_t n = std::min(limit - done, PmaMap::End(it) - at);
        std::byte* pages = memory_file_.At(it->second.value.offset + (at - PmaMap::Start(it)));
        Result<size_t> moved = move(pages, n, done);
        if (moved && read != nullptr && !patches_.empty()) HidePatches({at, at + *moved}, read + done);
        if (moved) done += *moved;
        if (!moved || *moved < n) {  // the host has no memory for the page
          if (done == 0) return Err(EFAULT);
          return done;
        }
      }
    }
    if (!missing) continue;
    fiber::MutexLock lock(mapping_mu_);
    if (!Fault(addr + done, want, mode)) {
      if (done == 0) return Err(EFAULT);
      return done;
    }
  }
  return done;
}

Result<size_t> MemoryManager::CopyOut(Addr addr, std::span<const std::byte> src) {
  return Access(addr, src.size(), kWrite, Mode::kNormal, nullptr,
                [&](std::byte* p, size_t n, size_t done) { return safecopy::CopyOut(p, src.subspan(done, n)); });
}

Result<size_t> MemoryManager::CopyIn(Addr addr, std::span<std::byte> dst) {
  return Access(addr, dst.size(), kRead, Mode::kNormal, dst.data(),
                [&](std::byte* p, size_t n, size_t done) { return safecopy::CopyIn(dst.subspan(done, n), p); });
}

Result<size_t> MemoryManager::ZeroOut(Addr addr, uint64_t length) {
  return Access(addr, length, kWrite, Mode::kNormal, nullptr,
                [&](std::byte* p, size_t n, size_t) { return safecopy::ZeroOut(p, n); });
}

Result<size_t> MemoryManager::ForceCopyOut(Addr addr, std::span<const std::byte> src) {
  return Access(addr, src.size(), kWrite, Mode::kForce, nullptr,
                [&](std::byte* p, size_t n, size_t done) { return safecopy::CopyOut(p, src.subspan(done, n)); });
}

Result<size_t> MemoryManager::ForceCopyIn(Addr addr, std::span<std::byte> dst) {
  return Access(addr, dst.size(), kRead, Mode::kForce, dst.data(),
                [&](std::byte* p, size_t n, size_t done) { return safecopy::CopyIn(dst.subspan(done, n), p); });
}

template <typename F>
Result<uint32_t> MemoryManager::AccessWord(Addr addr, AccessType want, F&& f) {
  if ((addr & 3) != 0) return Err(EINVAL);
  uint32_t value = 0;
  TRY(Access(addr, sizeof(value), want, Mode::kNormal, nullptr, [&](std::byte* p, size_t n, size_t) -> Result<size_t> {
    value = TRY(f(p));
    return n;
  }));
  return value;
}

Result<uint32_t> MemoryManager::LoadU32(Addr addr) {
  return AccessWord(addr, kRead, [](std::byte* p) { return safecopy::LoadU32(p); });
}

Result<uint32_t> MemoryManager::SwapU32(Addr addr, uint32_t value) {
  return AccessWord(addr, kWrite, [&](std::byte* p) { return safecopy::SwapU32(p, value); });
}

Result<uint32_t> MemoryManager::CompareAndSwapU32(Addr addr, uint32_t expected, uint32_t value) {
  return AccessWord(addr, kWrite, [&](std::byte* p) { return safecopy::CompareAndSwapU32(p, expected, value); });
}

Result<FutexKey> MemoryManager::GetFutexKey(Addr addr, bool is_private) {
  if ((addr & 3) != 0) return Err(EINVAL);
  if (addr >= platform_.max_user_address()) return Err(EFAULT);
  if (is_private) return FutexKey{.space = this, .offset = addr};
  for (;;) {
    {
      sync::MutexLock active(active_mu_);
      PmaIterator it = pmas_.Find(addr);
      if (it != pmas_.end() && it->second.value.access.read) {
        const Pma& pma = it->second.value;
        // Private memory asked for as shared: futex(2) allows it, and nobody else can mean the same word.
        if (!pma.shared) return FutexKey{.space = this, .offset = addr};
        return FutexKey{.space = nullptr, .offset = pma.offset + (addr - PmaMap::Start(it))};
      }
    }
    fiber::MutexLock lock(mapping_mu_);
    if (!Fault(addr, kRead, Mode::kNormal)) return Err(EFAULT);
  }
}

}  // namespace redoubt::mm
