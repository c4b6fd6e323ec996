// tmpfs(5): files in the sandbox's memory. Also what devtmpfs and memfd_create(2) are made of.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_TMPFS_TMPFS_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_TMPFS_TMPFS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "pkg/errors/errors.h"
#include "pkg/hostarch/hostarch.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/memmap/memmap.h"
#include "pkg/sentry/pgalloc/memory_file.h"
#include "pkg/sentry/vfs/file_description.h"
#include "pkg/sentry/vfs/inode.h"

namespace redoubt::tmpfs {

struct Options {
  std::string_view type_name = "tmpfs";  // static storage
  uint64_t size_limit = 0;               // bytes of file pages; 0: none
  uint64_t inode_limit = 0;              // 0: none. Extended attributes have a kilobyte for each together
  uint32_t root_mode = 01777;
  uint32_t root_uid = 0, root_gid = 0;
};

// tmpfs(5), nr_inodes: as many as half of `memory` has pages.
constexpr uint64_t DefaultInodes(uint64_t memory) { return memory / 2 / kPageSize; }

// Parses mount(2)'s data for tmpfs: "size=64m,nr_inodes=1k,mode=0755,uid=0,gid=0", where size may be a percentage of
// `memory` bytes. EINVAL for anything unknown or malformed. Mempolicy and huge-page options are accepted and have no
// effect.
Result<Options> ParseOptions(std::string_view data, uint64_t memory);

// `memory_file` is borrowed and must outlive the file system. With a `disk` (MemoryFile::CreateOnFile), pages of
// regular files are there, until they are mapped: then they move to the memory, and stay.
RefPtr<vfs::Filesystem> Create(pgalloc::MemoryFile& memory_file, const Options& options,
                               std::unique_ptr<pgalloc::MemoryFile> disk = nullptr);

// memfd_create(2): a description of a regular file without a name, shown as "/memfd:NAME (deleted)".
inline constexpr int kSealExec = 0x20;  // F_SEAL_EXEC, newer than the C library's headers
enum class Sealing { kForbidden, kAllowed };
Result<RefPtr<vfs::FileDescription>> CreateMemfd(pgalloc::MemoryFile& memory_file, std::string_view name,
                                                 Sealing sealing, uint32_t uid, uint32_t gid);

// fcntl(2) F_GET_SEALS, F_ADD_SEALS: EINVAL if the file is not of tmpfs; EPERM, EBUSY.
Result<int> GetSeals(vfs::Inode& inode);
Result<> AddSeals(vfs::Inode& inode, int seals);

}  // namespace redoubt::tmpfs

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_TMPFS_TMPFS_H_
