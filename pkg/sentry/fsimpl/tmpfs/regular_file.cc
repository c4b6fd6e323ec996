#include "pkg/sentry/fsimpl/tmpfs/regular_file.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <span>
#include <utility>

#include "pkg/sentry/memmap/mmap_options.h"

namespace redoubt::tmpfs {

namespace {

constexpr uint64_t kMaxSize = std::numeric_limits<int64_t>::max();
// How much a write or a fault allocates at once.
constexpr uint64_t kWriteBatch = 64 * kPageSize;
constexpr uint64_t kFaultBatch = 16 * kPageSize;

class RegularDescription final : public vfs::FileDescription {
 public:
  RegularDescription(RefPtr<RegularFile> file, vfs::Path path, int flags)
      : FileDescription(std::move(path), flags), file_(std::move(file)) {}

  Result<size_t> PRead(IoSequence& dst, uint64_t offset, vfs::IoFlags) override {
    Result<size_t> n = file_->ReadAt(dst, offset);
    if (n) file_->TouchAccessed(path(), flags());
    return n;
  }
  Result<size_t> PWrite(IoSequence& src, uint64_t offset, vfs::IoFlags) override { return file_->WriteAt(src, offset); }
  Result<Appended> Append(IoSequence& src, vfs::IoFlags) override { return file_->Append(src); }
  Result<> Allocate(int mode, uint64_t offset, uint64_t length) override {
    return file_->Allocate(mode, offset, length);
  }
  Result<uint64_t> Seek(int64_t offset, int whence) override {
    if (whence != SEEK_DATA && whence != SEEK_HOLE) return FileDescription::Seek(offset, whence);
    if (offset < 0) return Err(ENXIO);
    fiber::MutexLock lock(offset_lock());
    uint64_t at = TRY(file_->SeekDataOrHole(static_cast<uint64_t>(offset), whence == SEEK_DATA));
    set_offset(at);
    return at;
  }
  Result<> ConfigureMMap(mm::MMapOptions& options) override {
    if (options.shared && (file_->seals() & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))) {
      if (options.access.write) return Err(EPERM);
      options.max_access.write = false;
    }
    options.mappable = file_.get();
    options.identity = RefPtr<memmap::MappingIdentity>(this);
    file_->TouchAccessed(path(), flags());
    return {};
  }
  Result<> Sync(bool) override { return {}; }
  Result<uint64_t> Fcntl(int command, uint64_t arg) override {
    switch (command) {
      case F_GET_SEALS:
        return static_cast<uint64_t>(file_->seals());
      case F_ADD_SEALS:
        if (!writable()) return Err(EPERM);
        if (arg > INT32_MAX) return Err(EINVAL);
        TRY(file_->AddSeals(static_cast<int>(arg)));
        return 0;
      default:
        return Err(EINVAL);
    }
  }

 private:
  const RefPtr<RegularFile> file_;
};

}  // namespace

RegularFile::~RegularFile() {
  sync::MutexLock lock(data_mu_);
  fs().UnchargePages(pages_.pages());
  for (memmap::FileRange r : pages_.Remove(0, UINT64_MAX)) fs().DropPages(r);
}

Result<RefPtr<vfs::FileDescription>> RegularFile::Open(const vfs::Path& path, int flags) {
  return RefPtr<vfs::FileDescription>(MakeRef<RegularDescription>(RefPtr<RegularFile>(this), path, flags));
}

uint64_t RegularFile::size() const {
  sync::MutexLock lock(data_mu_);
  return size_;
}

Node::Size RegularFile::GetSize() const {
  sync::MutexLock lock(data_mu_);
  return {.size = size_, .blocks = pages_.pages() * (kPageSize / 512)};
}

Result<> RegularFile::SetAttributes(const vfs::AttributeChange& change) {
  if (change.mode && (seals() & kSealExec)) {
    const uint32_t mode = TRY(GetAttributes()).mode;
    if (((mode ^ *change.mode) & 0111) != 0) return Err(EPERM);
  }
  if (!change.size) return Node::SetAttributes(change);
  {
    fiber::MutexLock lock(write_lock_);
    TRY(TruncateLocked(*change.size));
  }
  vfs::AttributeChange rest = change;
  rest.size.reset();
  if (!rest.mtime) rest.mtime = clock::Realtime();
  return Node::SetAttributes(rest);
}

Result<size_t> RegularFile::ReadAt(IoSequence& dst, uint64_t offset) {
  size_t done = 0;
  while (!dst.empty()) {
    PageMap::Run run;
    uint64_t length;
    {
      sync::MutexLock lock(data_mu_);
      if (offset >= size_) break;
      uint64_t end = size_ - offset > dst.remaining() ? offset + dst.remaining() : size_;
      run = pages_.Find(offset, MustPageRoundUp(end));
      length = std::min(run.end, end) - offset;
      if (run.present) {
        // Held so that the pages outlive a concurrent truncation.
        run.end = MustPageRoundUp(offset + length);
        fs().HoldPages(run.file_range());
      }
    }
    Result<size_t> n =
        run.present ? dst.CopyOut({fs().At(run.memory) + (offset - run.start), length}) : dst.ZeroOut(length);
    if (run.present) fs().DropPages(run.file_range());
    if (!n) {
      if (done > 0) break;
      return n;
    }
    done += *n;
    offset += *n;
    if (*n < length) break;
  }
  return done;
}

Result<size_t> RegularFile::WriteAt(IoSequence& src, uint64_t offset) {
  fiber::MutexLock lock(write_lock_);
  return WriteLocked(src, offset);
}

Result<vfs::FileDescription::Appended> RegularFile::Append(IoSequence& src) {
  fiber::MutexLock lock(write_lock_);
  const uint64_t at = size();
  size_t n = TRY(WriteLocked(src, at));
  return vfs::FileDescription::Appended{n, at + n};
}

Result<PageMap::Run> RegularFile::FillLocked(uint64_t offset, uint64_t limit, uint64_t max_length,
                                             TmpfsFilesystem::Medium medium) {
  PageMap::Run run = pages_.Find(offset, limit);
  if (run.present) return run;
  uint64_t length = std::min(MustPageRoundUp(run.end) - run.start, max_length);
  // Near a limit, whatever still fits, but a page at least.
  length = std::clamp(fs().FreePages() * kPageSize, kPageSize, length);
  TRY(fs().ChargePages(length / kPageSize));
  Result<memmap::FileRange> fresh = fs().Allocate(medium, length);
  if (!fresh && medium == TmpfsFilesystem::Medium::kDisk && length > kPageSize) {
    fs().UnchargePages(length / kPageSize - 1);
    length = kPageSize;
    fresh = fs().Allocate(medium, length);
  }
  if (!fresh) {
    fs().UnchargePages(length / kPageSize);
    return Err(fresh.error());
  }
  pages_.Insert(run.start, *fresh);
  return pages_.Find(offset, std::min(limit, run.start + length));
}

Result<size_t> RegularFile::WriteLocked(IoSequence& src, uint64_t offset) {
  if (src.empty()) return size_t{0};
  if (offset >= kMaxSize) return Err(EFBIG);
  src.TakeFirst(kMaxSize - offset);
  size_t done = 0;
  Result<> failure;
  while (!src.empty()) {
    PageMap::Run run;
    uint64_t length;
    {
      sync::MutexLock lock(data_mu_);
      uint64_t end = offset + src.remaining();
      if (seals_ & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) {
        failure = Err(EPERM);
        break;
      }
      if ((seals_ & F_SEAL_GROW) && end > size_) {
        // Page by page as on Linux: what would grow the file is refused as a whole.
        end = PageRoundDown(size_);
        if (offset >= end) {
          failure = Err(EPERM);
          break;
        }
      }
      Result<PageMap::Run> filled = FillLocked(offset, MustPageRoundUp(end), kWriteBatch, fs().default_medium());
      if (!filled) {
        failure = Err(filled.error());
        break;
      }
      run = *filled;
      length = std::min(run.end, end) - offset;
      run.end = MustPageRoundUp(offset + length);
      fs().HoldPages(run.file_range());
    }
    Result<size_t> n = src.CopyIn({fs().At(run.memory) + (offset - run.start), length});
    if (TmpfsFilesystem::MediumOf(run.memory) == TmpfsFilesystem::Medium::kDisk)
      FollowMoved(run, offset, n.value_or(0));
    fs().DropPages(run.file_range());
    if (!n) {
      failure = Err(n.error());
      break;
    }
    done += *n;
    offset += *n;
    {
      sync::MutexLock lock(data_mu_);
      size_ = std::max(size_, offset);
    }
    if (*n < length) break;
  }
  if (done > 0) {
    Written();
    return done;
  }
  TRY(failure);
  return done;
}

void RegularFile::FollowMoved(const PageMap::Run& run, uint64_t offset, uint64_t length) {
  sync::MutexLock lock(data_mu_);
  const std::byte* written = fs().At(run.memory);
  for (const uint64_t end = offset + length; offset < end;) {
    const PageMap::Run now = pages_.Find(offset, end);
    if (now.present && now.memory != run.memory + (now.start - run.start)) {
      std::memcpy(fs().At(now.memory) + (offset - now.start), written + (offset - run.start), now.end - offset);
    }
    offset = now.end;
  }
}

Result<PageMap::Run> RegularFile::MoveToMemoryLocked(PageMap::Run run) {
  run.end = std::min(run.end, run.start + kFaultBatch);
  memmap::FileRange fresh = TRY(fs().Allocate(TmpfsFilesystem::Medium::kMemory, run.end - run.start));
  std::memcpy(fs().At(fresh.start), fs().At(run.memory), fresh.length());
  for (memmap::FileRange r : pages_.Remove(run.start, run.end)) fs().DropPages(r);
  pages_.Insert(run.start, fresh);
  run.memory = fresh.start;
  return run;
}

void RegularFile::InvalidateLocked(uint64_t start, uint64_t end, bool invalidate_private) {
  for (auto& [space, mappings] : mappings_) {
    for (const Mapping& m : mappings) {
      const uint64_t m_end = m.offset + m.range.length();
      const uint64_t from = std::max(start, m.offset), to = std::min(end, m_end);
      if (from >= to) continue;
      space->Invalidate({m.range.start + (from - m.offset), m.range.start + (to - m.offset)}, invalidate_private);
    }
  }
}

void RegularFile::PunchLocked(uint64_t start, uint64_t end, bool invalidate_private) {
  auto zero = [&](uint64_t from, uint64_t to) {
    if (from >= to) return;
    data_mu_.AssertHeld();
    PageMap::Run run = pages_.Find(from, to);
    if (run.present) std::memset(fs().At(run.memory) + (from - run.start), 0, to - from);
  };
  const uint64_t first_whole = start > UINT64_MAX - kPageSize ? PageRoundDown(UINT64_MAX) : MustPageRoundUp(start);
  const uint64_t last_whole = PageRoundDown(end);
  if (first_whole > last_whole) {
    zero(start, end);
    return;
  }
  zero(start, first_whole);
  zero(last_whole, end);
  if (first_whole == last_whole) return;
  // Mappings first, so that none shows a page that is no longer the file's.
  InvalidateLocked(first_whole, last_whole, invalidate_private);
  const uint64_t before = pages_.pages();
  std::vector<memmap::FileRange> removed = pages_.Remove(first_whole, last_whole);
  fs().UnchargePages(before - pages_.pages());
  for (memmap::FileRange r : removed) fs().DropPages(r);
}

Result<> RegularFile::TruncateLocked(uint64_t size) {
  if (size > kMaxSize) return Err(EFBIG);
  sync::MutexLock lock(data_mu_);
  if ((size < size_ && (seals_ & F_SEAL_SHRINK)) || (size > size_ && (seals_ & F_SEAL_GROW))) return Err(EPERM);
  const uint64_t old_size = std::exchange(size_, size);
  if (size >= old_size) return {};
  // Mappings may have been given pages beyond the end of the last one by nothing: Translate stops at the size rounded
  // up.
  PunchLocked(size, PageRoundDown(UINT64_MAX), true);
  return {};
}

Result<> RegularFile::Allocate(int mode, uint64_t offset, uint64_t length) {
  if (length == 0 || offset > kMaxSize) return Err(EINVAL);
  if (length > kMaxSize - offset) return Err(EFBIG);
  const uint64_t end = offset + length;
  fiber::MutexLock lock(write_lock_);
  if (mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)) {
    {
      sync::MutexLock data(data_mu_);
      if (seals_ & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) return Err(EPERM);
      PunchLocked(offset, std::max(end, offset), false);
    }
    Written();
    return {};
  }
  if (mode & ~FALLOC_FL_KEEP_SIZE) return Err(EOPNOTSUPP);
  const bool keep_size = mode & FALLOC_FL_KEEP_SIZE;
  const uint64_t pages_end = MustPageRoundUp(end);
  {
    sync::MutexLock data(data_mu_);
    if (end > size_ && (seals_ & F_SEAL_GROW)) return Err(EPERM);
    // Refuse at once what cannot fit, rather than fill all of memory first.
    uint64_t missing = 0;
    for (uint64_t at = PageRoundDown(offset); at < pages_end;) {
      PageMap::Run run = pages_.Find(at, pages_end);
      if (!run.present) missing += run.end - run.start;
      at = run.end;
    }
    if (missing / kPageSize > fs().FreePages()) return Err(ENOSPC);
  }
  std::vector<std::pair<uint64_t, uint64_t>> added;
  for (uint64_t at = PageRoundDown(offset); at < pages_end;) {
    // In pieces, to let readers and faults in between.
    sync::MutexLock data(data_mu_);
    const bool was_hole = !pages_.Find(at, pages_end).present;
    Result<PageMap::Run> run = FillLocked(at, pages_end, 1024 * kPageSize, fs().default_medium());
    if (!run) {
      for (auto [from, to] : added) PunchLocked(from, to, false);
      return Err(run.error());
    }
    if (was_hole) added.emplace_back(at, run->end);
    at = run->end;
  }
  {
    sync::MutexLock data(data_mu_);
    if (!keep_size) size_ = std::max(size_, end);
  }
  Written();
  return {};
}

Result<uint64_t> RegularFile::SeekDataOrHole(uint64_t offset, bool data) {
  sync::MutexLock lock(data_mu_);
  if (offset >= size_) return Err(ENXIO);
  if (!data) return pages_.NextHole(offset, size_);
  uint64_t at = pages_.NextData(offset, size_);
  if (at >= size_) return Err(ENXIO);
  return at;
}

int RegularFile::seals() const {
  sync::MutexLock lock(data_mu_);
  return seals_;
}

void RegularFile::AllowSealing() {
  sync::MutexLock lock(data_mu_);
  seals_ &= ~F_SEAL_SEAL;
}

Result<> RegularFile::AddSeals(int seals) {
  constexpr int kContent = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE;
  if (seals & ~(F_SEAL_SEAL | kSealExec | kContent)) return Err(EINVAL);
  const bool executable = (TRY(GetAttributes()).mode & 0111) != 0;
  // No write may be half done.
  fiber::MutexLock writes(write_lock_);
  sync::MutexLock lock(data_mu_);
  if (seals_ & F_SEAL_SEAL) return Err(EPERM);
  if ((seals & F_SEAL_WRITE) && !(seals_ & F_SEAL_WRITE)) {
    for (const auto& [space, mappings] : mappings_) {
      if (std::ranges::any_of(mappings, &Mapping::writable)) return Err(EBUSY);
    }
  }
  // What stays executable stays what it is.
  if ((seals & kSealExec) && executable) seals |= kContent;
  seals_ |= seals;
  return {};
}

Result<> RegularFile::AddMapping(memmap::MappingSpace& space, AddrRange range, uint64_t offset, bool writable) {
  sync::MutexLock lock(data_mu_);
  // F_SEAL_FUTURE_WRITE was looked at by mmap: what was mapped before may be split and inherited.
  if (writable && (seals_ & F_SEAL_WRITE)) return Err(EPERM);
  mappings_[&space].push_back({range, offset, writable});
  return {};
}

// `range` may be a part of what was added, or span several neighbours of it.
void RegularFile::RemoveMapping(memmap::MappingSpace& space, AddrRange range, uint64_t offset, bool writable) {
  sync::MutexLock lock(data_mu_);
  auto it = mappings_.find(&space);
  if (it == mappings_.end()) return;
  std::vector<Mapping> kept;
  for (const Mapping& m : it->second) {
    const bool same_line = m.range.start - m.offset == range.start - offset && m.writable == writable;
    if (!same_line || !m.range.Overlaps(range)) {
      kept.push_back(m);
      continue;
    }
    if (m.range.start < range.start) kept.push_back({{m.range.start, range.start}, m.offset, writable});
    if (m.range.end > range.end) {
      kept.push_back({{range.end, m.range.end}, m.offset + (range.end - m.range.start), writable});
    }
  }
  if (kept.empty()) {
    mappings_.erase(it);
  } else {
    it->second = std::move(kept);
  }
}

Result<memmap::FileRange> RegularFile::Translate(uint64_t offset, uint64_t length, AccessType access) {
  sync::MutexLock lock(data_mu_);
  const uint64_t end = MustPageRoundUp(size_);
  if (offset >= end) return Err(EIO);
  constexpr auto kMemory = TmpfsFilesystem::Medium::kMemory;
  PageMap::Run run = TRY(FillLocked(offset, std::min(end, offset + length), kFaultBatch, kMemory));
  if (TmpfsFilesystem::MediumOf(run.memory) != kMemory) run = TRY(MoveToMemoryLocked(run));
  fs().HoldPages(run.file_range());
  return run.file_range();
}

}  // namespace redoubt::tmpfs
