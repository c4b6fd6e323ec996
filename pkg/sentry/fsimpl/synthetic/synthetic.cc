#include "pkg/sentry/fsimpl/synthetic/synthetic.h"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "pkg/sentry/vfs/dentry.h"

namespace redoubt::synthetic {

namespace {

class DirectoryDescription final : public vfs::FileDescription {
 public:
  DirectoryDescription(RefPtr<Directory> directory, vfs::Path path, int flags)
      : FileDescription(std::move(path), flags), directory_(std::move(directory)) {}

  Result<size_t> PRead(IoSequence&, uint64_t, vfs::IoFlags) override { return Err(EISDIR); }

  Result<> Getdents(vfs::DirentSink& sink) override {
    fiber::MutexLock lock(offset_lock());
    std::vector<Directory::Entry> entries = TRY(directory_->List());
    int64_t at = static_cast<int64_t>(offset());
    if (at == 0) {
      if (!sink.Add(".", directory_->ino(), DT_DIR, 1)) return {};
      set_offset(static_cast<uint64_t>(at = 1));
    }
    if (at == 1) {
      RefPtr<vfs::Dentry> parent = path().dentry->parent();
      uint64_t ino = directory_->ino();
      if (parent) {
        Result<vfs::Attributes> attrs = parent->inode().GetAttributes();
        if (attrs) ino = attrs->ino;
      }
      if (!sink.Add("..", ino, DT_DIR, 2)) return {};
      set_offset(static_cast<uint64_t>(at = 2));
    }
    for (const Directory::Entry& e : entries) {
      if (e.cookie + 2 < at) continue;
      if (!sink.Add(e.name, e.ino, e.type, e.cookie + 3)) break;
      set_offset(static_cast<uint64_t>(e.cookie + 3));
    }
    return {};
  }

  Result<uint64_t> Seek(int64_t offset, int whence) override {
    fiber::MutexLock lock(offset_lock());
    if (whence == SEEK_CUR) {
      if (__builtin_add_overflow(offset, static_cast<int64_t>(this->offset()), &offset)) return Err(EINVAL);
    } else if (whence != SEEK_SET) {
      return Err(EINVAL);
    }
    if (offset < 0) return Err(EINVAL);
    set_offset(static_cast<uint64_t>(offset));
    return static_cast<uint64_t>(offset);
  }

 private:
  const RefPtr<Directory> directory_;
};

class GeneratedDescription final : public vfs::FileDescription {
 public:
  GeneratedDescription(RefPtr<GeneratedFile> file, vfs::Path path, int flags)
      : FileDescription(std::move(path), flags), file_(std::move(file)) {}

  Result<size_t> PRead(IoSequence& dst, uint64_t offset, vfs::IoFlags) override {
    fiber::MutexLock lock(text_mu_);
    if (offset == 0 || !have_text_) {
      text_ = TRY(file_->Generate());
      have_text_ = true;
    }
    if (offset >= text_.size()) return size_t{0};
    std::string_view rest = std::string_view(text_).substr(offset, dst.remaining());
    return dst.CopyOut(std::as_bytes(std::span(rest)));
  }

  Result<size_t> PWrite(IoSequence& src, uint64_t offset, vfs::IoFlags) override {
    std::string text(std::min<uint64_t>(src.remaining(), kMaxWrite), '\0');
    if (text.empty()) return size_t{0};
    size_t n = TRY(src.CopyIn(std::as_writable_bytes(std::span(text))));
    text.resize(n);
    TRY(file_->Store(text, offset));
    return n;
  }

  // From a made-up end: only SEEK_SET and SEEK_CUR.
  Result<uint64_t> Seek(int64_t offset, int whence) override {
    if (whence != SEEK_SET && whence != SEEK_CUR) return Err(EINVAL);
    return FileDescription::Seek(offset, whence);
  }

 private:
  static constexpr uint64_t kMaxWrite = 4096;
  const RefPtr<GeneratedFile> file_;
  fiber::Mutex text_mu_;
  bool have_text_ GUARDED_BY(text_mu_) = false;
  std::string text_ GUARDED_BY(text_mu_);
};

}  // namespace

Result<struct statfs> SyntheticFilesystem::Statfs() {
  struct statfs s = {};
  s.f_type = magic_;
  s.f_bsize = s.f_frsize = 4096;
  s.f_namelen = 255;
  return s;
}

SyntheticInode::SyntheticInode(SyntheticFilesystem& fs, uint32_t mode, Owner owner, Changeable changeable,
                               uint64_t rdev)
    : Inode(fs),
      ino_(fs.NextIno()),
      mode_type_(mode & S_IFMT),
      rdev_(rdev),
      changeable_(changeable),
      mode_(mode & 07777),
      owner_(owner),
      atime_(clock::Realtime()),
      mtime_(atime_),
      ctime_(atime_) {}

Owner SyntheticInode::CurrentOwner() {
  sync::MutexLock lock(mu_);
  return owner_;
}

Result<vfs::Attributes> SyntheticInode::GetAttributes() {
  const Owner owner = CurrentOwner();
  const uint64_t size = Size();
  const uint32_t links = Links();
  sync::MutexLock lock(mu_);
  return vfs::Attributes{.mode = mode_type_ | mode_,
                         .uid = owner.uid,
                         .gid = owner.gid,
                         .nlink = links,
                         .ino = ino_,
                         .dev = filesystem().dev(),
                         .rdev = rdev_,
                         .size = size,
                         .blksize = 1024,
                         .atime = atime_,
                         .mtime = mtime_,
                         .ctime = ctime_,
                         .btime = ctime_};
}

Result<> SyntheticInode::SetAttributes(const vfs::AttributeChange& change) {
  if (changeable_ == Changeable::kNo || change.size) return Err(EPERM);
  const clock::Nanoseconds now = clock::Realtime();
  sync::MutexLock lock(mu_);
  if (change.mode) mode_ = *change.mode & 07777;
  if (change.uid) owner_.uid = *change.uid;
  if (change.gid) owner_.gid = *change.gid;
  if (change.atime) atime_ = *change.atime;
  if (change.mtime) mtime_ = *change.mtime;
  ctime_ = now;
  return {};
}

void SyntheticInode::Touch(Touched how) {
  const clock::Nanoseconds now = clock::Realtime();
  sync::MutexLock lock(mu_);
  atime_ = ctime_ = now;
  if (how == Touched::kModified) mtime_ = now;
}

void Directory::Add(std::string name, RefPtr<SyntheticInode> child) {
  by_name_.emplace(name, children_.size());
  children_.push_back({std::move(name), std::move(child)});
}

uint32_t Directory::Links() {
  uint32_t links = 2;
  for (const Child& c : children_) links += c.inode->IsDirectory();
  return links;
}

Result<RefPtr<vfs::Inode>> Directory::Lookup(std::string_view name) {
  auto it = by_name_.find(name);
  if (it != by_name_.end()) return RefPtr<vfs::Inode>(children_[it->second].inode);
  return LookupDynamic(name);
}

Result<std::vector<Directory::Entry>> Directory::List() {
  std::vector<Entry> entries;
  entries.reserve(children_.size());
  for (size_t i = 0; i < children_.size(); i++) {
    const SyntheticInode& inode = *children_[i].inode;
    entries.push_back(
        {static_cast<int64_t>(i), children_[i].name, inode.ino(), static_cast<uint8_t>(IFTODT(inode.type()))});
  }
  TRY(ListDynamic(entries));
  return entries;
}

Result<RefPtr<vfs::FileDescription>> Directory::Open(const vfs::Path& path, int flags) {
  return RefPtr<vfs::FileDescription>(MakeRef<DirectoryDescription>(RefPtr<Directory>(this), path, flags));
}

Result<RefPtr<vfs::FileDescription>> GeneratedFile::Open(const vfs::Path& path, int flags) {
  return RefPtr<vfs::FileDescription>(MakeRef<GeneratedDescription>(RefPtr<GeneratedFile>(this), path, flags));
}

Result<> GeneratedFile::SetAttributes(const vfs::AttributeChange& change) {
  if (change.size && !change.uid && !change.gid) return {};
  return SyntheticInode::SetAttributes(change);
}

void AddText(Directory& directory, std::string name, std::string text, uint32_t permissions, uint64_t size) {
  auto generate = [text = std::move(text)]() -> Result<std::string> { return text; };
  directory.Add(std::move(name), MakeRef<FunctionFile>(directory.synthetic_filesystem(), permissions,
                                                       std::move(generate), nullptr, size));
}

}  // namespace redoubt::synthetic
