#include "pkg/sentry/fsimpl/gofer/description.h"

#include <dirent.h>
#include <fcntl.h>

namespace redoubt::goferfs {
namespace {

// A directory of more entries is cut off rather than letting a server fill the Sentry's memory.
constexpr size_t kMaxEntries = 1 << 20;

}  // namespace

Result<vfs::FileDescription::Appended> RegularDescription::Append(IoSequence& src, vfs::IoFlags) {
  uint64_t end = 0;
  size_t n = TRY(inode_->WriteAt(src, 0, true, &end));
  return Appended{n, end};
}

// 9P2000.L cannot reserve space: growing the file is what can be done, and what posix_fallocate's users need.
Result<> RegularDescription::Allocate(int mode, uint64_t offset, uint64_t length) {
  if (mode != 0) return Err(EOPNOTSUPP);
  vfs::Attributes attributes = TRY(inode_->GetAttributes());
  if (offset + length <= attributes.size) return {};
  return inode_->SetAttributes({.size = offset + length});
}

Result<> RegularDescription::ConfigureMMap(mm::MMapOptions& options) {
  options.mappable = inode_.get();
  options.identity = RefPtr<memmap::MappingIdentity>(this);
  return {};
}

Result<> DirectoryDescription::Load() {
  RefPtr<p9::File> file = TRY(inode_->file().OpenCopy(O_RDONLY | O_DIRECTORY));
  entries_.clear();
  uint64_t offset = 0;
  while (entries_.size() < kMaxEntries) {
    std::vector<p9::DirectoryEntry> more = TRY(file->Readdir(offset));
    if (more.empty()) break;
    offset = more.back().offset;
    for (p9::DirectoryEntry& e : more) {
      if (e.name == "." || e.name == ".." || !p9::IsValidName(e.name)) continue;
      entries_.push_back(std::move(e));
    }
  }
  loaded_ = true;
  return {};
}

Result<> DirectoryDescription::Getdents(vfs::DirentSink& sink) {
  fiber::MutexLock lock(offset_lock());
  uint64_t at = offset();
  if (at == 0 || !loaded_) TRY(Load());
  uint64_t own = inode_->path();
  if (at == 0) {
    if (!sink.Add(".", own, DT_DIR, 1)) return {};
    set_offset(++at);
  }
  if (at == 1) {
    // The number of ".." is rarely looked at; the root's is its own.
    if (!sink.Add("..", own, DT_DIR, 2)) return {};
    set_offset(++at);
  }
  while (at - 2 < entries_.size()) {
    const p9::DirectoryEntry& e = entries_[at - 2];
    if (!sink.Add(e.name, e.qid.path, e.type, static_cast<int64_t>(at + 1))) return {};
    set_offset(++at);
  }
  return {};
}

}  // namespace redoubt::goferfs
