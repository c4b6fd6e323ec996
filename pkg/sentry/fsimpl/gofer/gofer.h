// The gofer file system: a tree served over 9P2000.L by a process of its own.
//
// Caching: the page cache of a regular file, its attributes and its name are the Sentry's, so opening, reading and
// closing a file that is in use cost no message. Names and attributes are asked for again after a second, and when the
// attributes show that somebody else changed the file its pages are dropped (Linux's NFS works so). A file that was
// opened for reading stays open at the server for some time. Writes go through to the server at once; pages written by
// shared mappings go at msync, fsync, close and when the file is no longer used.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_GOFER_GOFER_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_GOFER_GOFER_H_

#include "pkg/errors/errors.h"
#include "pkg/p9/client.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/pgalloc/memory_file.h"
#include "pkg/sentry/vfs/inode.h"

namespace redoubt::goferfs {

enum class Access {
  kShared,     // others change the tree as well: names and attributes are believed for a second
  kExclusive,  // nobody else does: they are believed for ever, and so are pages
};
// The file system of the tree that `client` attaches to. From a fiber. `memory_file` is borrowed and must outlive it.
Result<RefPtr<vfs::Filesystem>> Create(RefPtr<p9::Client> client, pgalloc::MemoryFile& memory_file,
                                       Access access = Access::kShared);

}  // namespace redoubt::goferfs

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_GOFER_GOFER_H_
