#include "pkg/sentry/mm/shared_anonymous.h"

#include <algorithm>
#include <atomic>

namespace redoubt::mm {
namespace {

// As for private memory (fault.cc): pages come in blocks, larger ones behind what is there.
constexpr uint64_t kWhole = uint64_t{1} << 20;
constexpr uint64_t kWindow = uint64_t{256} << 10;
constexpr uint64_t kMoreWindow = uint64_t{2} << 20;

uint64_t NextInode() {
  static std::atomic<uint64_t> next{1};
  return next.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

SharedAnonymous::SharedAnonymous(pgalloc::MemoryFile& memory_file, uint64_t size)
    : memory_file_(memory_file), size_(size), inode_(NextInode()), mu_(sync::Rank::kMappable) {}

SharedAnonymous::~SharedAnonymous() NO_THREAD_SAFETY_ANALYSIS {
  for (auto it = pages_.begin(); it != pages_.end(); ++it) {
    uint64_t offset = it->second.value.offset;
    memory_file_.DecRef({offset, offset + pages_.Length(it)});
  }
}

Result<memmap::FileRange> SharedAnonymous::Translate(uint64_t offset, uint64_t length, AccessType) {
  if (offset >= size_) return Err(EIO);
  length = std::min(length, size_ - offset);
  sync::MutexLock lock(mu_);
  auto it = pages_.Find(offset);
  if (it == pages_.end()) {
    const uint64_t window = offset > 0 && pages_.Find(offset - 1) != pages_.end() ? kMoreWindow : kWindow;
    uint64_t end = offset + length;
    if (size_ > kWhole) end = std::min(end, (offset / window + 1) * window);
    if (auto next = pages_.FirstEndingAfter(offset); next != pages_.end()) end = std::min(end, pages_.Start(next));
    Result<memmap::FileRange> range = memory_file_.Allocate(end - offset);
    if (!range && end - offset > kPageSize) {
      end = offset + kPageSize;
      range = memory_file_.Allocate(kPageSize);
    }
    if (!range) return range;
    it = pages_.Insert(offset, end, {range->start});
  }
  uint64_t start = it->second.value.After(offset - pages_.Start(it)).offset;
  memmap::FileRange result{start, start + std::min(length, pages_.End(it) - offset)};
  memory_file_.IncRef(result);
  return result;
}

}  // namespace redoubt::mm
