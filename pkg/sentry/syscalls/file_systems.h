// The file systems that mount(2) can make, by type. Filled by the composition root, so that this library links none of
// them.
#ifndef REDOUBT_PKG_SENTRY_SYSCALLS_FILE_SYSTEMS_H_
#define REDOUBT_PKG_SENTRY_SYSCALLS_FILE_SYSTEMS_H_

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/vfs/inode.h"

namespace redoubt::syscalls {

using FilesystemFactory =
    std::function<Result<RefPtr<vfs::Filesystem>>(std::string_view source, std::string_view options)>;

// Before any task runs.
void RegisterFilesystem(std::string type, FilesystemFactory factory);
// ENODEV for an unknown type (mount(2)).
Result<RefPtr<vfs::Filesystem>> MakeFilesystem(const std::string& type, std::string_view source,
                                               std::string_view options);
std::vector<std::string> RegisteredFilesystems();

}  // namespace redoubt::syscalls

#endif  // REDOUBT_PKG_SENTRY_SYSCALLS_FILE_SYSTEMS_H_
