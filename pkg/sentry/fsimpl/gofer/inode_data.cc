// The page cache of a regular file: reads, writes, mappings.
#include <fcntl.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "pkg/log/log.h"
#include "pkg/sentry/fsimpl/gofer/inode.h"

namespace redoubt::goferfs {
namespace {

// What one fill brings in at most: read ahead, aligned.
constexpr uint64_t kFillBytes = 128 << 10;
constexpr size_t kWriteBytes = 64 << 10;
constexpr uint64_t kMaxSize = INT64_MAX;

}  // namespace

Result<p9::File*> GoferInode::IoFile(bool writable) {
  if (write_file_) return write_file_.get();
  if (!writable && read_file_) return read_file_.get();
  RefPtr<p9::File> file = TRY(file_->OpenCopy(writable ? O_RDWR : O_RDONLY));
  p9::File* raw = file.get();
  (writable ? write_file_ : read_file_) = std::move(file);
  (writable ? has_write_file_ : has_read_file_).store(true);
  was_readable_.store(true);
  return raw;
}

Result<> GoferInode::PrepareOpen(bool writable) {
  // Most often this is all.
  if (!writable && was_readable_.load(std::memory_order_relaxed)) return IsFresh() ? Result<>() : Refresh();
  fiber::MutexLock lock(io_mu_);
  if (write_file_ || (!writable && read_file_)) return IsFresh() ? Result<>() : Refresh();
  // Fails now, not at the first read or write.
  p9::Attributes attributes;
  RefPtr<p9::File> file = TRY(file_->OpenCopy(writable ? O_RDWR : O_RDONLY, &attributes));
  (writable ? write_file_ : read_file_) = std::move(file);
  (writable ? has_write_file_ : has_read_file_).store(true);
  was_readable_.store(true);
  Update(attributes);
  return {};
}

void GoferInode::DescriptionClosed() {
  if (descriptions_.fetch_sub(1) != 1) return;
  if (has_write_file_.load()) {
    RefPtr<p9::File> write_file;
    fiber::MutexLock lock(io_mu_);
    if (descriptions_.load() > 0) return;
    (void)WriteBackLocked();
    write_file = std::move(write_file_);
    has_write_file_.store(false);
  }
  if (has_read_file_.load()) gofer().FileIdle(*this);
}

void GoferInode::CloseIdleFiles() {
  RefPtr<p9::File> read_file;
  RefPtr<p9::File> write_file;
  fiber::MutexLock lock(io_mu_);
  if (descriptions_.load() > 0) return;
  (void)WriteBackLocked();
  read_file = std::move(read_file_);
  write_file = std::move(write_file_);
  has_read_file_.store(false);
  has_write_file_.store(false);
}

Result<> GoferInode::Fill(uint64_t offset) {
  pgalloc::MemoryFile& memory = gofer().memory_file();
  uint64_t start = offset & ~(kFillBytes - 1);
  uint64_t end = 0;
  {
    sync::MutexLock lock(data_mu_);
    if (offset >= size_ || pages_.Find(PageRoundDown(offset), PageRoundDown(offset) + kPageSize).present) return {};
    end = std::min(start + kFillBytes, MustPageRoundUp(size_));
    // Only the hole around the page that is wanted.
    uint64_t at = start;
    while (at < PageRoundDown(offset)) {
      tmpfs::PageMap::Run run = pages_.Find(at, PageRoundDown(offset));
      if (run.present) start = run.end;
      at = run.end;
    }
    end = std::min(end, pages_.Find(PageRoundDown(offset), end).end);
  }
  p9::File* file = TRY(IoFile(false));
  memmap::FileRange range = TRY(memory.Allocate(end - start));
  uint64_t got = 0;
  while (got < range.length()) {
    Result<size_t> n = file->Read(range.length() - got, start + got, [&](std::span<const std::byte> data) {
      return memory.Write(range.start + got, data);
    });
    if (!n) {
      memory.DecRef(range);
      return Err(n.error());
    }
    if (*n == 0) break;
    got += *n;
  }
  sync::MutexLock lock(data_mu_);
  pages_.Insert(start, range);
  return {};
}

Result<size_t> GoferInode::ReadAt(IoSequence& dst, uint64_t offset) {
  pgalloc::MemoryFile& memory = gofer().memory_file();
  size_t done = 0;
  while (!dst.empty()) {
    tmpfs::PageMap::Run run;
    uint64_t length = 0;
    {
      sync::MutexLock lock(data_mu_);
      if (offset >= size_) break;
      uint64_t end = size_ - offset > dst.remaining() ? offset + dst.remaining() : size_;
      run = pages_.Find(offset, MustPageRoundUp(end));
      length = std::min(run.end, end) - offset;
      if (run.present) {
        run.end = MustPageRoundUp(offset + length);
        memory.IncRef(run.file_range());
      }
    }
    if (!run.present) {
      fiber::MutexLock io_lock(io_mu_);
      if (Result<> r = Fill(offset); !r) {
        if (done > 0) break;
        return Err(r.error());
      }
      continue;
    }
    Result<size_t> n = dst.CopyOut({memory.At(run.memory) + (offset - run.start), length});
    memory.DecRef(run.file_range());
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

Result<size_t> GoferInode::WriteAt(IoSequence& src, uint64_t offset, bool append, uint64_t* end) {
  pgalloc::MemoryFile& memory = gofer().memory_file();
  auto buffer = std::make_unique_for_overwrite<std::byte[]>(std::min<uint64_t>(src.remaining(), kWriteBytes));
  size_t done = 0;
  Result<> failure;
  while (!src.empty()) {
    // From the guest first, without the lock: its memory may be a mapping of this file.
    Result<size_t> copied = src.CopyIn(std::span(buffer.get(), std::min<uint64_t>(src.remaining(), kWriteBytes)));
    if (!copied) {
      failure = Err(copied.error());
      break;
    }
    fiber::MutexLock io_lock(io_mu_);
    if (append) {
      sync::MutexLock lock(data_mu_);
      offset = size_;
    }
    if (offset > kMaxSize - *copied) {
      failure = Err(EFBIG);
      break;
    }
    Result<p9::File*> file = IoFile(true);
    if (!file) {
      failure = Err(file.error());
      break;
    }
    size_t sent = 0;
    ExpireAttributes();
    while (sent < *copied) {
      Result<size_t> n = (*file)->Write(std::span(buffer.get() + sent, *copied - sent), offset + sent);
      if (!n || *n == 0) {
        failure = n ? Result<>(Err(EIO)) : Result<>(Err(n.error()));
        break;
      }
      sent += *n;
    }
    if (sent > 0) {
      sync::MutexLock lock(data_mu_);
      // What is cached is kept equal to what the server has.
      for (uint64_t at = offset; at < offset + sent;) {
        tmpfs::PageMap::Run run = pages_.Find(at, offset + sent);
        if (run.present)
          std::memcpy(memory.At(run.memory) + (at - run.start), buffer.get() + (at - offset), run.end - at);
        at = run.end;
      }
      size_ = std::max(size_, offset + sent);
    }
    done += sent;
    offset += sent;
    if (!failure) break;
  }
  if (done > 0) {
    ExpireAttributes();
    if (end != nullptr) *end = offset;
    return done;
  }
  TRY(failure);
  return size_t{0};
}

void GoferInode::DropPages(uint64_t start, uint64_t end) {
  pgalloc::MemoryFile& memory = gofer().memory_file();
  sync::MutexLock lock(data_mu_);
  uint64_t whole = MustPageRoundUp(start);
  if (whole != start) {
    tmpfs::PageMap::Run run = pages_.Find(start, whole);
    if (run.present) std::memset(memory.At(run.memory) + (start - run.start), 0, whole - start);
  }
  for (auto& [space, mappings] : mappings_) {
    for (const Mapping& m : mappings) {
      uint64_t from = std::max(whole, m.offset);
      uint64_t to = std::min(end, m.offset + m.range.length());
      if (from < to) space->Invalidate({m.range.start + (from - m.offset), m.range.start + (to - m.offset)}, true);
    }
  }
  for (memmap::FileRange r : pages_.Remove(whole, end)) memory.DecRef(r);
}

Result<> GoferInode::WriteBack() {
  if (type_ != S_IFREG) return {};
  {
    sync::MutexLock lock(data_mu_);
    if (dirty_.empty()) return {};
  }
  fiber::MutexLock lock(io_mu_);
  return WriteBackLocked();
}

Result<> GoferInode::WriteBackLocked() {
  pgalloc::MemoryFile& memory = gofer().memory_file();
  std::map<uint64_t, uint64_t> dirty;
  bool still_mapped = false;
  {
    sync::MutexLock lock(data_mu_);
    for (auto& [space, mappings] : mappings_) {
      for (const Mapping& m : mappings) still_mapped = still_mapped || m.writable;
    }
    // Pages that are mapped writable can be written again without a fault, so they stay on the list.
    dirty = still_mapped ? dirty_ : std::exchange(dirty_, {});
  }
  if (dirty.empty()) return {};
  p9::File* file = TRY(IoFile(true));
  ExpireAttributes();
  for (auto [start, end] : dirty) {
    for (uint64_t at = start; at < end;) {
      tmpfs::PageMap::Run run;
      {
        sync::MutexLock lock(data_mu_);
        uint64_t limit = std::min(end, size_);
        if (at >= limit) break;
        run = pages_.Find(at, MustPageRoundUp(limit));
        if (run.present) memory.IncRef(run.file_range());
        run.end = std::min(run.end, limit);
      }
      if (run.present) {
        memmap::FileRange held{run.memory, run.memory + MustPageRoundUp(run.end - run.start)};
        Result<> failure;
        for (uint64_t done = 0; done < run.end - run.start;) {
          Result<size_t> n =
              file->Write(std::span(memory.At(run.memory) + done, run.end - run.start - done), run.start + done);
          if (!n || *n == 0) {
            failure = n ? Result<>(Err(EIO)) : Result<>(Err(n.error()));
            break;
          }
          done += *n;
        }
        memory.DecRef(held);
        TRY(failure);
      }
      at = run.end;
    }
  }
  ExpireAttributes();
  return {};
}

Result<> GoferInode::Sync(bool data_only) {
  fiber::MutexLock lock(io_mu_);
  TRY(WriteBackLocked());
  if (!write_file_) return {};
  return write_file_->Fsync(data_only);
}

Result<> GoferInode::AddMapping(memmap::MappingSpace& space, AddrRange range, uint64_t offset, bool writable) {
  sync::MutexLock lock(data_mu_);
  mappings_[&space].push_back({range, offset, writable});
  return {};
}

void GoferInode::RemoveMapping(memmap::MappingSpace& space, AddrRange range, uint64_t offset, bool writable) {
  sync::MutexLock lock(data_mu_);
  auto it = mappings_.find(&space);
  if (it == mappings_.end()) return;
  std::vector<Mapping> kept;
  for (const Mapping& m : it->second) {
    bool same_line = m.range.start - m.offset == range.start - offset && m.writable == writable;
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

Result<memmap::FileRange> GoferInode::Translate(uint64_t offset, uint64_t length, AccessType access) {
  pgalloc::MemoryFile& memory = gofer().memory_file();
  for (int attempt = 0; attempt < 3; attempt++) {
    {
      sync::MutexLock lock(data_mu_);
      uint64_t end = MustPageRoundUp(size_);
      if (offset >= end) return Err(EIO);
      tmpfs::PageMap::Run run = pages_.Find(offset, std::min(end, offset + length));
      if (run.present) {
        memory.IncRef(run.file_range());
        if (access.write) {
          uint64_t& dirty_end = dirty_[run.start];
          dirty_end = std::max(dirty_end, run.end);
        }
        return run.file_range();
      }
    }
    fiber::MutexLock io_lock(io_mu_);
    TRY(Fill(offset));
  }
  return Err(EIO);
}

}  // namespace redoubt::goferfs
