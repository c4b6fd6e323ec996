// Private to goferfs: an inode of any type and, for regular files, its page cache.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_GOFER_INODE_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_GOFER_INODE_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "pkg/fiber/fiber.h"
#include "pkg/p9/client.h"
#include "pkg/sentry/fsimpl/gofer/filesystem.h"
#include "pkg/sentry/fsimpl/tmpfs/page_map.h"
#include "pkg/sentry/memmap/memmap.h"
#include "pkg/sentry/usermem/usermem.h"
#include "pkg/sentry/vfs/inode.h"
#include "pkg/sync/mutex.h"

namespace redoubt::goferfs {

// Locks: io_mu_ (a fiber lock) makes fills, writes, truncations and write-back one at a time and is held across
// messages; it is not held while guest memory is touched, which may fault on this very file. attr_mu_ and data_mu_ are
// short.
class GoferInode final : public vfs::Inode, public memmap::Mappable, public IdleHook {
 public:
  GoferInode(GoferFilesystem& fs, RefPtr<p9::File> file, const p9::Attributes& attributes);
  ~GoferInode() override;

  uint32_t type() const override { return type_; }
  uint64_t path() const { return path_; }
  p9::File& file() const { return *file_; }

  Result<vfs::Attributes> GetAttributes() override;
  Result<> SetAttributes(const vfs::AttributeChange& change) override;
  // If others change the tree as well, a name is asked for again after some time.
  vfs::LookupCache lookup_cache() const override {
    return gofer().exclusive() ? vfs::LookupCache::kCached : vfs::LookupCache::kTimed;
  }
  fiber::Time lookup_lifetime() const override;
  Result<RefPtr<vfs::Inode>> Lookup(std::string_view name) override;
  Result<RefPtr<vfs::Inode>> LookupAgain(std::string_view name, vfs::Inode& known) override;
  Result<RefPtr<vfs::Inode>> Create(std::string_view name, const vfs::NewInode& n) override;
  Result<RefPtr<vfs::Inode>> Mkdir(std::string_view name, const vfs::NewInode& n) override;
  Result<RefPtr<vfs::Inode>> Symlink(std::string_view name, std::string_view target, const vfs::NewInode& n) override;
  Result<> Link(std::string_view name, vfs::Inode& target) override;
  Result<> Unlink(std::string_view name, vfs::Inode& child) override;
  Result<> Rmdir(std::string_view name, vfs::Inode& child) override;
  Result<> Rename(std::string_view old_name, vfs::Inode& child, vfs::Inode& new_parent, std::string_view new_name,
                  vfs::Inode* replaced, uint32_t flags) override;
  Result<std::string> Readlink() override;
  Result<RefPtr<vfs::FileDescription>> Open(const vfs::Path& path, int flags) override;
  Result<std::string> GetXattr(std::string_view name) override;
  Result<> SetXattr(std::string_view name, std::string_view value, int flags) override;
  Result<std::vector<std::string>> ListXattr() override;
  Result<> RemoveXattr(std::string_view name) override;
  Result<RefPtr<RefCounted>> bound_socket() override;
  Result<> set_bound_socket(RefPtr<RefCounted> socket) override;
  RefPtr<RefCounted>* fifo_slot() override { return &fifo_; }

  // Regular files.
  Result<size_t> ReadAt(IoSequence& dst, uint64_t offset);
  Result<size_t> WriteAt(IoSequence& src, uint64_t offset, bool append, uint64_t* end);
  Result<> WriteBack();
  Result<> Sync(bool data_only);
  // Descriptions come and go. When the last goes, a file opened for writing is closed at the server, since the host
  // does not execute one that somebody may write; one opened for reading stays for the next who opens it, unless too
  // many do (GoferFilesystem::FileIdle).
  void DescriptionOpened() { descriptions_.fetch_add(1); }
  void DescriptionClosed();
  // Gives back the files open at the server if nobody has this inode open.
  void CloseIdleFiles() EXCLUDES(io_mu_);

  // memmap::Mappable
  Result<> AddMapping(memmap::MappingSpace& space, AddrRange range, uint64_t offset, bool writable) override;
  void RemoveMapping(memmap::MappingSpace& space, AddrRange range, uint64_t offset, bool writable) override;
  Result<memmap::FileRange> Translate(uint64_t offset, uint64_t length, AccessType access) override;

 private:
  struct Mapping {
    AddrRange range;
    uint64_t offset;
    bool writable;
  };

  GoferFilesystem& gofer() const { return static_cast<GoferFilesystem&>(filesystem()); }
  Result<> Refresh();
  bool IsFresh() EXCLUDES(attr_mu_);
  // What the server has just said.
  void Update(const p9::Attributes& attributes) EXCLUDES(attr_mu_, data_mu_);
  void Adopt(const p9::Attributes& attributes) REQUIRES(attr_mu_);
  // What open(2) needs of the server: the attributes as of some time ago at most, and permission to read or write.
  Result<> PrepareOpen(bool writable) EXCLUDES(io_mu_);
  // Around every change of our own, so that the difference is not taken for somebody else's: before, for a refresh that
  // comes in between, and after.
  void ExpireAttributes() EXCLUDES(attr_mu_);
  // Brings in the page at `offset` and, ahead of it, more of the file. No effect past its end.
  Result<> Fill(uint64_t offset) REQUIRES(io_mu_);
  Result<p9::File*> IoFile(bool writable) REQUIRES(io_mu_);
  Result<> WriteBackLocked() REQUIRES(io_mu_);
  // Drops the pages of [start, end); the last page of what stays is zeroed behind the new end.
  void DropPages(uint64_t start, uint64_t end) EXCLUDES(data_mu_);
  Result<RefPtr<GoferInode>> Created(std::string_view name, const vfs::NewInode& n, bool set_mode);

  const RefPtr<p9::File> file_;  // never opened
  const uint32_t type_;
  const uint64_t path_;
  RefPtr<RefCounted> fifo_;  // guarded by the pipe package

  sync::Mutex attr_mu_{sync::Rank::kInode};
  vfs::Attributes attributes_ GUARDED_BY(attr_mu_);
  fiber::Time fresh_until_ GUARDED_BY(attr_mu_) = 0;
  uint64_t server_size_ GUARDED_BY(attr_mu_) = 0;
  clock::Nanoseconds server_mtime_ GUARDED_BY(attr_mu_) = 0;
  bool own_change_ GUARDED_BY(attr_mu_) = false;  // the next difference is our own doing
  std::string link_ GUARDED_BY(attr_mu_);         // of a symbolic link, once asked for: it never changes

  std::atomic<int> descriptions_{0};
  fiber::Mutex io_mu_;
  RefPtr<p9::File> read_file_ GUARDED_BY(io_mu_);
  RefPtr<p9::File> write_file_ GUARDED_BY(io_mu_);
  // Written with io_mu_, read without: whether there is one of each, so that a close finds out without a lock.
  std::atomic<bool> has_read_file_{false};
  std::atomic<bool> has_write_file_{false};
  std::atomic<bool> was_readable_{false};  // the server has let us open it for reading

  sync::Mutex data_mu_{sync::Rank::kMappable};
  uint64_t size_ GUARDED_BY(data_mu_) = 0;
  tmpfs::PageMap pages_ GUARDED_BY(data_mu_);
  std::map<uint64_t, uint64_t> dirty_ GUARDED_BY(data_mu_);  // [start, end) that shared mappings may have written
  std::map<memmap::MappingSpace*, std::vector<Mapping>> mappings_ GUARDED_BY(data_mu_);
};

}  // namespace redoubt::goferfs

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_GOFER_INODE_H_
