// Copying a file of the lower layer to the upper one.
#include <fcntl.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "pkg/sentry/fsimpl/overlay/inode.h"
#include "pkg/sentry/usermem/usermem.h"
#include "pkg/sentry/vfs/anon_inode.h"
#include "pkg/sentry/vfs/file_description.h"

namespace redoubt::overlay {

namespace {

constexpr size_t kBufferSize = 256 << 10;
// Zeros of this length and alignment become holes.
constexpr size_t kHole = 16 << 10;

bool IsZero(std::span<const std::byte> bytes) {
  return bytes.empty() ||
         (bytes[0] == std::byte{0} && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

Result<RefPtr<vfs::FileDescription>> OpenLayer(vfs::Inode& inode, int flags) {
  return inode.Open(vfs::MakeAnonymousPath(RefPtr<vfs::Inode>(&inode), "overlay"), flags | O_NOATIME);
}

Result<> WriteAll(vfs::FileDescription& file, std::span<std::byte> bytes, uint64_t offset) {
  while (!bytes.empty()) {
    BufferIo io(bytes);
    IoSequence src(io, 0, bytes.size());
    size_t n = TRY(file.PWrite(src, offset, 0));
    if (n == 0) return Err(EIO);
    bytes = bytes.subspan(n);
    offset += n;
  }
  return {};
}

// The first `limit` bytes of `from` to the empty file `to`; fewer if `from` is shorter.
Result<> CopyData(vfs::Inode& from, vfs::Inode& to, uint64_t limit) {
  if (limit == 0) return {};
  RefPtr<vfs::FileDescription> in = TRY(OpenLayer(from, O_RDONLY));
  RefPtr<vfs::FileDescription> out = TRY(OpenLayer(to, O_WRONLY));
  std::vector<std::byte> buffer(std::min<uint64_t>(limit, kBufferSize));
  uint64_t offset = 0;
  bool ends_in_hole = false;
  while (offset < limit) {
    BufferIo io(buffer);
    IoSequence dst(io, 0, std::min<uint64_t>(buffer.size(), limit - offset));
    const size_t n = TRY(in->PRead(dst, offset, 0));
    if (n == 0) break;
    for (size_t at = 0; at < n; at += kHole) {
      std::span<std::byte> piece = std::span(buffer).subspan(at, std::min(kHole, n - at));
      ends_in_hole = IsZero(piece);
      if (!ends_in_hole) TRY(WriteAll(*out, piece, offset + at));
    }
    offset += n;
  }
  if (ends_in_hole) TRY(to.SetAttributes({.size = offset}));
  return {};
}

class Collector final : public vfs::DirentSink {
 public:
  bool Add(std::string_view name, uint64_t ino, uint8_t type, int64_t) override {
    added = true;
    if (name != "." && name != "..") entries.push_back({std::string(name), ino, type});
    return true;
  }
  std::vector<DirectoryEntry> entries;
  bool added = false;
};

}  // namespace

Result<std::vector<DirectoryEntry>> ListLayer(vfs::Inode& directory) {
  RefPtr<vfs::FileDescription> file = TRY(OpenLayer(directory, O_RDONLY | O_DIRECTORY));
  Collector collector;
  do {
    collector.added = false;
    TRY(file->Getdents(collector));
  } while (collector.added);
  return std::move(collector.entries);
}

Result<> OverlayInode::CopyXattrs(vfs::Inode& twin) {
  Result<std::vector<std::string>> names = lower_->ListXattr();
  // A layer without extended attributes has none to copy.
  if (!names) return names.error() == Errno(EOPNOTSUPP) ? Result<>() : Err(names.error());
  for (const std::string& name : *names) {
    Result<std::string> value = lower_->GetXattr(name);
    if (value) {
      TRY(twin.SetXattr(name, *value, 0));
    } else if (value.error() != Errno(ENODATA) && value.error() != Errno(EOPNOTSUPP)) {
      return Err(value.error());
    }
  }
  return {};
}

Result<> OverlayInode::CopyContents(vfs::Inode& twin, const vfs::Attributes& attrs, uint64_t data_limit) {
  if (type_ == S_IFREG) TRY(CopyData(*lower_, twin, std::min(attrs.size, data_limit)));
  if (type_ == S_IFSOCK) {
    if (Result<RefPtr<RefCounted>> socket = lower_->bound_socket()) TRY(twin.set_bound_socket(*std::move(socket)));
  }
  TRY(CopyXattrs(twin));
  // Last: writing has changed the times, and perhaps set-ID bits.
  vfs::AttributeChange change;
  if (type_ != S_IFLNK) change.mode = attrs.mode & 07777;
  change.atime = attrs.atime;
  change.mtime = attrs.mtime;
  return twin.SetAttributes(change);
}

Result<> OverlayInode::RemoveFromWork(vfs::Inode& twin) {
  return IsDirectory() ? fs().work().Rmdir(WorkName(), twin) : fs().work().Unlink(WorkName(), twin);
}

Result<vfs::Inode*> OverlayInode::CopyUp(uint64_t data_limit) {
  if (vfs::Inode* up = upper()) return up;
  fiber::MutexLock lock(copy_mu_);
  if (vfs::Inode* up = upper()) return up;
  const vfs::Attributes attrs = TRY(lower_->GetAttributes());
  const vfs::NewInode n{.mode = attrs.mode, .uid = attrs.uid, .gid = attrs.gid, .rdev = attrs.rdev};
  work_id_ = fs().NextWorkId();
  vfs::Inode& work = fs().work();
  RefPtr<vfs::Inode> twin;
  if (type_ == S_IFDIR) {
    twin = TRY(work.Mkdir(WorkName(), n));
  } else if (type_ == S_IFLNK) {
    std::string target = TRY(lower_->Readlink());
    twin = TRY(work.Symlink(WorkName(), target, n));
  } else {
    twin = TRY(work.Create(WorkName(), n));
  }
  Result<> copied = CopyContents(*twin, attrs, data_limit);
  Result<vfs::Attributes> twin_attrs = twin->GetAttributes();
  if (copied && !twin_attrs) copied = Err(twin_attrs.error());
  if (!copied) {
    (void)RemoveFromWork(*twin);
    return Err(copied.error());
  }
  SetOrigin(attrs.ino, attrs.nlink, twin_attrs->ino);
  bool named;
  {
    sync::MutexLock fields(mu_);
    named = IsDirectory() ? !removed_ : LowerNamesLocked() > 0;
    in_work_ = named;
  }
  // Opened before its last name went: the copy lives as long as the description.
  if (!named) (void)RemoveFromWork(*twin);
  upper_ref_ = twin;
  fs().AddUpper(*this, *twin, twin_attrs->ino, attrs.ino);
  upper_.store(twin.get(), std::memory_order_release);
  if (named) fs().Pin(*this);
  return twin.get();
}

}  // namespace redoubt::overlay
