// The memory file on a memfd. Pages are committed by the host when somebody first touches them, so an allocation costs
// nothing but bookkeeping; freed pages are punched out in batches, which is what makes them zero again.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "pkg/log/log.h"
#include "pkg/safecopy/safecopy_unsafe.h"
#include "pkg/sentry/pgalloc/free_ranges.h"
#include "pkg/sentry/pgalloc/memory_file.h"
#include "pkg/sync/mutex.h"

namespace redoubt::pgalloc {
namespace {

using memmap::FileRange;

constexpr uint64_t kChunkSize = uint64_t{16} << 20;
constexpr uint64_t kPagesPerChunk = kChunkSize / kPageSize;
// Virtual addresses taken in the Sentry: the largest of these that the host grants.
constexpr uint64_t kMaxReserve = uint64_t{1} << 40;
constexpr uint64_t kMinReserve = uint64_t{1} << 30;
// Freed memory that may stay committed before it is given back.
constexpr uint64_t kMaxDirty = uint64_t{2} << 20;

class MemoryFileImpl final : public MemoryFile {
 public:
  MemoryFileImpl(int fd, std::byte* base, uint64_t reserve, uint64_t limit)
      : fd_(fd), base_(base), reserve_(reserve), limit_(limit), mu_(sync::Rank::kMemoryFile) {}
  ~MemoryFileImpl() override {
    munmap(base_, reserve_);
    close(fd_);
  }

  Result<FileRange> Allocate(uint64_t length) override EXCLUDES(mu_);
  void IncRef(FileRange range) override EXCLUDES(mu_);
  void DecRef(FileRange range) override EXCLUDES(mu_);
  uint32_t RefCount(uint64_t offset) override EXCLUDES(mu_) {
    sync::MutexLock lock(mu_);
    return Count(offset);
  }
  std::byte* At(uint64_t offset) override { return base_ + offset; }
  int fd() const override { return fd_; }
  uint64_t usage() const override { return usage_.load(std::memory_order_relaxed); }
  uint64_t limit() const override { return limit_; }

 private:
  uint32_t& Count(uint64_t offset) REQUIRES(mu_) {
    uint64_t page = offset / kPageSize;
    CHECK(page / kPagesPerChunk < chunks_.size(), "an offset past the memory file");
    return chunks_[page / kPagesPerChunk][page % kPagesPerChunk];
  }
  // Adds chunks until `length` bytes are free at the end.
  bool Grow(uint64_t length) REQUIRES(mu_);
  // Gives dirty pages back to the host and makes them free. Lets go of the lock in between.
  void Clean() EXCLUDES(mu_);

  const int fd_;
  std::byte* const base_;
  const uint64_t reserve_;
  const uint64_t limit_;
  std::atomic<uint64_t> usage_{0};

  sync::Mutex mu_;
  std::vector<std::unique_ptr<uint32_t[]>> chunks_ GUARDED_BY(mu_);  // references of each page
  FreeRanges free_ GUARDED_BY(mu_);                                  // zero
  FreeRanges dirty_ GUARDED_BY(mu_);                                 // no references, old contents
};

bool MemoryFileImpl::Grow(uint64_t length) {
  uint64_t size = chunks_.size() * kChunkSize;
  uint64_t missing = length - free_.TailBefore(size);
  if (missing > reserve_ - size) return false;
  uint64_t added = (missing + kChunkSize - 1) / kChunkSize * kChunkSize;
  if (added > reserve_ - size) return false;
  if (ftruncate(fd_, static_cast<off_t>(size + added)) != 0) return false;
  for (uint64_t i = 0; i < added / kChunkSize; i++) chunks_.push_back(std::make_unique<uint32_t[]>(kPagesPerChunk));
  free_.Add({size, size + added});
  return true;
}

Result<FileRange> MemoryFileImpl::Allocate(uint64_t length) {
  if (length == 0 || !IsPageAligned(length)) return Err(EINVAL);
  for (bool cleaned = false;; cleaned = true) {
    {
      sync::MutexLock lock(mu_);
      uint64_t used = usage_.load(std::memory_order_relaxed);
      if (length > limit_ || used > limit_ - length) return Err(ENOMEM);
      std::optional<FileRange> range = free_.Take(length);
      // Dirty pages first if there are enough that one of their ranges may do, then new ones.
      if (!range && (cleaned || dirty_.total() < length) && Grow(length)) range = free_.Take(length);
      if (range) {
        for (uint64_t offset = range->start; offset < range->end; offset += kPageSize) Count(offset) = 1;
        usage_.store(used + length, std::memory_order_relaxed);
        return *range;
      }
      if (cleaned) return Err(ENOMEM);
    }
    Clean();
  }
}

void MemoryFileImpl::IncRef(FileRange range) {
  sync::MutexLock lock(mu_);
  for (uint64_t offset = range.start; offset < range.end; offset += kPageSize) {
    uint32_t& count = Count(offset);
    CHECK(count > 0 && count < UINT32_MAX, "a reference on a page without one");
    count++;
  }
}

void MemoryFileImpl::DecRef(FileRange range) {
  bool clean;
  {
    sync::MutexLock lock(mu_);
    uint64_t freed = 0;
    uint64_t run = range.start;  // where the current run of freed pages began
    for (uint64_t offset = range.start; offset <= range.end; offset += kPageSize) {
      bool frees = false;
      if (offset < range.end) {
        uint32_t& count = Count(offset);
        CHECK(count > 0, "a page's reference was dropped twice");
        frees = --count == 0;
      }
      if (frees) continue;
      if (run < offset) {
        dirty_.Add({run, offset});
        freed += offset - run;
      }
      run = offset + kPageSize;
    }
    usage_.store(usage_.load(std::memory_order_relaxed) - freed, std::memory_order_relaxed);
    clean = freed > 0 && dirty_.total() >= kMaxDirty;
  }
  if (clean) Clean();
}

void MemoryFileImpl::Clean() {
  std::vector<FileRange> ranges;
  {
    sync::MutexLock lock(mu_);
    while (std::optional<FileRange> range = dirty_.TakeAny()) ranges.push_back(*range);
  }
  for (FileRange r : ranges) {
    // SAFETY: nobody has a reference on these pages, so nobody maps them any more but the Sentry's own view.
    int rc = fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(r.start),
                       static_cast<off_t>(r.length()));
    if (rc == 0) continue;
    // Zero is what counts; that the host keeps the memory is only a pity.
    LOG_WARNING("cannot give {} bytes of guest memory back: errno {}", r.length(), errno);
    CHECK(safecopy::ZeroOut(base_ + r.start, r.length()) == r.length());
  }
  sync::MutexLock lock(mu_);
  for (FileRange r : ranges) free_.Add(r);
}

}  // namespace

Result<std::unique_ptr<MemoryFile>> MemoryFile::Create(const Options& options) {
  safecopy::InstallFaultHandler();
  int fd = memfd_create("redoubt-memory", MFD_CLOEXEC);
  if (fd < 0) return ErrFromHost();
  // SAFETY: a mapping past the end of the file is legal; touching it is SIGBUS, and Grow comes before every use.
  for (uint64_t reserve = kMaxReserve; reserve >= kMinReserve; reserve /= 2) {
    void* base = mmap(nullptr, reserve, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (base == MAP_FAILED) continue;
    // What a core dump of the Sentry would otherwise hold.
    madvise(base, reserve, MADV_DONTDUMP);
    return std::make_unique<MemoryFileImpl>(fd, static_cast<std::byte*>(base), reserve, options.limit);
  }
  close(fd);
  return Err(ENOMEM);
}

}  // namespace redoubt::pgalloc
