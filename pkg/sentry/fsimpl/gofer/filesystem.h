// Private to goferfs: the file system and its inode table.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_GOFER_FILESYSTEM_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_GOFER_FILESYSTEM_H_

#include <boost/intrusive/list.hpp>
#include <map>
#include <unordered_map>

#include "pkg/p9/client.h"
#include "pkg/sentry/fsimpl/gofer/gofer.h"
#include "pkg/sentry/pgalloc/memory_file.h"
#include "pkg/sentry/vfs/inode.h"
#include "pkg/sync/mutex.h"

namespace redoubt::goferfs {

class GoferInode;

// An inode's place among those that nobody has open.
struct IdleTag;
using IdleHook = boost::intrusive::list_base_hook<boost::intrusive::tag<IdleTag>>;

class GoferFilesystem final : public vfs::Filesystem {
 public:
  GoferFilesystem(RefPtr<p9::Client> client, pgalloc::MemoryFile& memory_file, Access access)
      : access_(access), client_(std::move(client)), memory_file_(memory_file) {}

  std::string_view type_name() const override { return "9p"; }
  RefPtr<vfs::Inode> root() override;
  Result<struct statfs> Statfs() override;

  Result<> Init();
  pgalloc::MemoryFile& memory_file() const { return memory_file_; }
  bool exclusive() const { return access_ == Access::kExclusive; }
  // The one inode of a file (hard links share it), made if need be from `file` and its attributes.
  RefPtr<GoferInode> InodeFor(RefPtr<p9::File> file, const p9::Attributes& attributes) EXCLUDES(mu_);
  void Forget(uint64_t path, GoferInode* inode) EXCLUDES(mu_);
  // `inode` has an open file at the server that nobody uses now. It keeps it for the next who opens it, but only so
  // many do: those of the inodes longest idle are given back.
  static constexpr size_t kMaxIdle = 256;
  void FileIdle(GoferInode& inode) EXCLUDES(mu_);

  // AF_UNIX sockets bound to nodes here, by Qid::path: they must outlive the inode, which the dentry cache may drop.
  RefPtr<RefCounted> BoundSocket(uint64_t path) EXCLUDES(mu_);
  void SetBoundSocket(uint64_t path, RefPtr<RefCounted> socket) EXCLUDES(mu_);

 private:
  RefPtr<GoferInode> FindLocked(const p9::Attributes& attributes) REQUIRES(mu_);

  const Access access_;
  const RefPtr<p9::Client> client_;
  pgalloc::MemoryFile& memory_file_;
  RefPtr<GoferInode> root_;  // keeps itself alive through the file system: dropped in Unmounted
  sync::Mutex mu_{sync::Rank::kFileSystem};
  std::unordered_map<uint64_t, GoferInode*> inodes_ GUARDED_BY(mu_);  // alive ones; each takes itself out
  // The same; longest idle first.
  boost::intrusive::list<IdleHook, boost::intrusive::base_hook<IdleHook>> idle_ GUARDED_BY(mu_);
  std::map<uint64_t, RefPtr<RefCounted>> sockets_ GUARDED_BY(mu_);
};

}  // namespace redoubt::goferfs

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_GOFER_FILESYSTEM_H_
