// Copying between file systems below their names: what overlayfs copies up, and a tmpfs that starts as a copy.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_COPY_COPY_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_COPY_COPY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/sentry/vfs/inode.h"

namespace redoubt::copy {

// One entry of a directory.
struct DirectoryEntry {
  std::string name;
  uint64_t ino;
  uint8_t type;
};
// All but "." and "..".
Result<std::vector<DirectoryEntry>> List(vfs::Inode& directory);

// The first `limit` bytes of `from` to the empty file `to`; fewer if `from` is shorter. Long runs of zeros become
// holes.
Result<> Data(vfs::Inode& from, vfs::Inode& to, uint64_t limit);

// All extended attributes. A source without any has none to copy.
Result<> Xattrs(vfs::Inode& from, vfs::Inode& to);

// What a copy of a tree may be at most: E2BIG for more files, ELOOP for deeper ones.
struct TreeLimits {
  uint64_t files = 100'000;
  uint32_t depth = 128;
};
// Everything in the directory `from`, with owners, modes and times, to the empty directory `to`; hard links become
// files of their own, and names that are gone when they are looked at are left out. The contents are bounded by what
// `to`'s file system takes. From a fiber; nobody else may see `to` yet.
Result<> Tree(vfs::Inode& from, vfs::Inode& to, const TreeLimits& limits = {});

}  // namespace redoubt::copy

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_COPY_COPY_H_
