// Places for descriptions that are in no tree: pipes, sockets, eventfd, ... Linux's anon_inodefs, pipefs and sockfs.
#ifndef REDOUBT_PKG_SENTRY_VFS_ANON_INODE_H_
#define REDOUBT_PKG_SENTRY_VFS_ANON_INODE_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "pkg/refs/refs.h"
#include "pkg/sentry/vfs/inode.h"
#include "pkg/sentry/vfs/path.h"

namespace redoubt::vfs {

// The internal file system, for inodes of a caller's own kind (a pipe's, which can be opened again through
// /proc/PID/fd).
Filesystem& AnonymousFilesystem();
// A fresh inode number of it.
uint64_t NextAnonymousIno();

// A place whose name in /proc/PID/fd is `name` as it stands: "anon_inode:[eventfd]". `mode` holds type and permissions;
// the inode cannot be opened again (ENXIO).
Path MakeAnonymousPath(std::string name, uint32_t mode = 0600, uint32_t uid = 0, uint32_t gid = 0);
// The same with the inode number in the name: kind "socket" gives "socket:[17]".
Path MakeNumberedPath(std::string_view kind, uint32_t mode, uint32_t uid = 0, uint32_t gid = 0);
// Around an inode of AnonymousFilesystem().
Path MakeAnonymousPath(RefPtr<Inode> inode, std::string name);

}  // namespace redoubt::vfs

#endif  // REDOUBT_PKG_SENTRY_VFS_ANON_INODE_H_
