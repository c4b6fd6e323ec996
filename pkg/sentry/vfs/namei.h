// What the operations that take a path share. Private to the VFS.
#ifndef REDOUBT_PKG_SENTRY_VFS_NAMEI_H_
#define REDOUBT_PKG_SENTRY_VFS_NAMEI_H_

#include <functional>
#include <string>
#include <string_view>

#include "pkg/errors/errors.h"
#include "pkg/sentry/vfs/path_walk.h"
#include "pkg/sentry/vfs/vfs.h"

namespace redoubt::vfs {

// Whether `creds` owns the file or may act as if (CAP_FOWNER).
bool IsOwnerOrCapable(const auth::Credentials& creds, const Attributes& attrs);
// Write and search permission on a directory that is still there: EACCES, ENOENT.
Result<> CheckMayCreate(const auth::Credentials& creds, Dentry& dir);
// The same for removing `child`, with the sticky bit's rule and what unlink(2) (`rmdir` false) and rmdir(2) say about
// types: EPERM, ENOTDIR, EISDIR, EBUSY.
enum class Removal { kUnlink, kRmdir };
Result<> CheckMayRemove(const auth::Credentials& creds, Dentry& dir, Dentry& child, Removal removal);
// Owner, group and mode of a file made in `dir`: umask, set-group-ID directories.
Result<NewInode> PrepareNewInode(const Walker& walker, Inode& dir, uint32_t mode, uint64_t rdev);

// Makes the last component of `at`: EEXIST if there is one. `make` runs with the directory locked.
enum class NewKind { kDirectory, kOther };
Result<> CreateName(const Walker& walker, const At& at, NewKind kind,
                    const std::function<Result<RefPtr<Inode>>(Dentry& dir, std::string_view name)>& make);
// The same with checks on where it would be made.
Result<> CreateName(const Walker& walker, const At& at, NewKind kind,
                    const std::function<Result<>(const Path& dir)>& check,
                    const std::function<Result<RefPtr<Inode>>(Dentry& dir, std::string_view name)>& make);

// Linux's setattr_should_drop_suidgid: what a write or truncation by one without CAP_FSETID leaves of a regular file's
// mode.
uint32_t ModeAfterWrite(uint32_t mode);

}  // namespace redoubt::vfs

#endif  // REDOUBT_PKG_SENTRY_VFS_NAMEI_H_
