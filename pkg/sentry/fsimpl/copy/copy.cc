#include "pkg/sentry/fsimpl/copy/copy.h"

#include <fcntl.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "pkg/sentry/usermem/usermem.h"
#include "pkg/sentry/vfs/anon_inode.h"
#include "pkg/sentry/vfs/file_description.h"

namespace redoubt::copy {

namespace {

constexpr size_t kBufferSize = 256 << 10;
// Zeros of this length and alignment become holes.
constexpr size_t kHole = 16 << 10;

bool IsZero(std::span<const std::byte> bytes) {
  return bytes.empty() ||
         (bytes[0] == std::byte{0} && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

Result<RefPtr<vfs::FileDescription>> OpenFile(vfs::Inode& inode, int flags) {
  return inode.Open(vfs::MakeAnonymousPath(RefPtr<vfs::Inode>(&inode), "copy"), flags | O_NOATIME);
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

// Last: writing has changed the times, and perhaps set-ID bits.
Result<> Finish(vfs::Inode& to, const vfs::Attributes& attrs) {
  vfs::AttributeChange change{.atime = attrs.atime, .mtime = attrs.mtime};
  if (!to.IsSymlink()) change.mode = attrs.mode & 07777;
  return to.SetAttributes(change);
}

// One entry that is no directory.
Result<> File(vfs::Inode& from, vfs::Inode& directory, const std::string& name, const vfs::Attributes& attrs) {
  const vfs::NewInode n{.mode = attrs.mode, .uid = attrs.uid, .gid = attrs.gid, .rdev = attrs.rdev};
  RefPtr<vfs::Inode> made;
  if (from.IsSymlink()) {
    std::string target = TRY(from.Readlink());
    made = TRY(directory.Symlink(name, target, n));
  } else {
    made = TRY(directory.Create(name, n));
    if (from.IsRegular()) TRY(Data(from, *made, attrs.size));
  }
  TRY(Xattrs(from, *made));
  return Finish(*made, attrs);
}

}  // namespace

Result<std::vector<DirectoryEntry>> List(vfs::Inode& directory) {
  RefPtr<vfs::FileDescription> file = TRY(OpenFile(directory, O_RDONLY | O_DIRECTORY));
  Collector collector;
  do {
    collector.added = false;
    TRY(file->Getdents(collector));
  } while (collector.added);
  return std::move(collector.entries);
}

Result<> Data(vfs::Inode& from, vfs::Inode& to, uint64_t limit) {
  if (limit == 0) return {};
  RefPtr<vfs::FileDescription> in = TRY(OpenFile(from, O_RDONLY));
  RefPtr<vfs::FileDescription> out = TRY(OpenFile(to, O_WRONLY));
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

Result<> Xattrs(vfs::Inode& from, vfs::Inode& to) {
  Result<std::vector<std::string>> names = from.ListXattr();
  if (!names) return names.error() == Errno(EOPNOTSUPP) ? Result<>() : Err(names.error());
  for (const std::string& name : *names) {
    Result<std::string> value = from.GetXattr(name);
    if (value) {
      TRY(to.SetXattr(name, *value, 0));
    } else if (value.error() != Errno(ENODATA) && value.error() != Errno(EOPNOTSUPP)) {
      return Err(value.error());
    }
  }
  return {};
}

Result<> Tree(vfs::Inode& from, vfs::Inode& to, const TreeLimits& limits) {
  struct Level {
    RefPtr<vfs::Inode> from, to;
    vfs::Attributes attrs;
    std::vector<DirectoryEntry> entries;
    size_t next = 0;
  };
  uint64_t files = 0;
  std::vector<Level> levels;
  auto enter = [&](RefPtr<vfs::Inode> source, RefPtr<vfs::Inode> copy, const vfs::Attributes& attrs) -> Result<> {
    if (levels.size() >= limits.depth) return Err(ELOOP);
    std::vector<DirectoryEntry> entries = TRY(List(*source));
    files += entries.size();
    if (files > limits.files) return Err(E2BIG);
    levels.push_back({std::move(source), std::move(copy), attrs, std::move(entries)});
    return {};
  };
  vfs::Attributes top = TRY(from.GetAttributes());
  TRY(enter(RefPtr<vfs::Inode>(&from), RefPtr<vfs::Inode>(&to), top));
  while (!levels.empty()) {
    Level& level = levels.back();
    if (level.next == level.entries.size()) {
      // A directory's times change with its entries, so it is finished after them. The top is its owner's.
      if (levels.size() > 1) TRY(Finish(*level.to, level.attrs));
      levels.pop_back();
      continue;
    }
    const std::string name = level.entries[level.next++].name;
    Result<RefPtr<vfs::Inode>> found = level.from->Lookup(name);
    if (!found && found.error() == Errno(ENOENT)) continue;
    RefPtr<vfs::Inode> child = TRY(std::move(found));
    const vfs::Attributes attrs = TRY(child->GetAttributes());
    if (!child->IsDirectory()) {
      TRY(File(*child, *level.to, name, attrs));
      continue;
    }
    RefPtr<vfs::Inode> made = TRY(level.to->Mkdir(name, {.mode = attrs.mode, .uid = attrs.uid, .gid = attrs.gid}));
    TRY(Xattrs(*child, *made));
    TRY(enter(std::move(child), std::move(made), attrs));
  }
  return {};
}

}  // namespace redoubt::copy
