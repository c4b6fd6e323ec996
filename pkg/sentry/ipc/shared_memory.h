// System V shared memory: shmget(2), shmat(2), shmctl(2).
#ifndef REDOUBT_PKG_SENTRY_IPC_SHARED_MEMORY_H_
#define REDOUBT_PKG_SENTRY_IPC_SHARED_MEMORY_H_

#include <sys/shm.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/sentry/auth/credentials.h"
#include "pkg/sentry/ipc/permissions.h"
#include "pkg/sentry/ipc/table.h"
#include "pkg/sentry/memmap/memmap.h"
#include "pkg/sentry/mm/shared_anonymous.h"
#include "pkg/sync/mutex.h"

namespace redoubt::ipc {

class SharedMemory;

// One segment. Held by the table until IPC_RMID, and then by its mappings. An attachment is what one shmat mapped and
// fork copied: it is known by where its first byte is, or would be, in which address space.
class Segment final : public memmap::MappingIdentity, public memmap::Mappable {
 public:
  Segment(SharedMemory& owner, pgalloc::MemoryFile& memory_file, int id, uint64_t size, const Permissions& permissions,
          int creator);

  const int id;
  uint64_t size() const { return size_; }

  // shmat(2)'s checks, which make it count as attached by `pid` now. EACCES, EIDRM.
  Result<> Attach(const auth::Credentials& creds, bool write, int pid) EXCLUDES(mu_);
  void Detached(int pid) EXCLUDES(mu_);
  // The pieces that are still mapped of what was attached at `addr` of `space`; empty if nothing was.
  std::vector<AddrRange> AttachedAt(const memmap::MappingSpace& space, Addr addr) EXCLUDES(mu_);

  Result<shmid_ds> Stat(const auth::Credentials& creds, bool check) EXCLUDES(mu_);
  Result<> Set(const auth::Credentials& creds, const ipc_perm& p) EXCLUDES(mu_);
  // No new attachments by key; goes with the last mapping.
  Result<> Remove(const auth::Credentials& creds) EXCLUDES(mu_);
  Result<> CheckUse(const auth::Credentials& creds, int flags) EXCLUDES(mu_);

  Result<> AddMapping(memmap::MappingSpace& space, AddrRange range, uint64_t offset, bool writable) override
      EXCLUDES(mu_);
  void RemoveMapping(memmap::MappingSpace& space, AddrRange range, uint64_t offset, bool writable) override
      EXCLUDES(mu_);
  Result<memmap::FileRange> Translate(uint64_t offset, uint64_t length, AccessType access) override;
  std::string MappedName() const override;
  uint64_t MappedDevice() const override { return 1; }
  uint64_t MappedInode() const override { return static_cast<uint64_t>(id); }
  Result<> MappedSync(uint64_t, uint64_t) override { return {}; }

 private:
  using AttachmentKey = std::pair<memmap::MappingSpace*, Addr>;

  SharedMemory& owner_;
  const uint64_t size_;  // as asked for; the pages cover it
  const key_t key_;
  const int creator_;
  const RefPtr<mm::SharedAnonymous> pages_;
  mutable sync::Mutex mu_{sync::Rank::kMappable};
  Permissions permissions_ GUARDED_BY(mu_);
  std::map<AttachmentKey, std::vector<AddrRange>> attachments_ GUARDED_BY(mu_);
  bool removed_ GUARDED_BY(mu_) = false;
  int last_pid_ GUARDED_BY(mu_) = 0;
  int64_t attach_time_ GUARDED_BY(mu_) = 0, detach_time_ GUARDED_BY(mu_) = 0, change_time_ GUARDED_BY(mu_) = 0;
};

// All segments of a namespace.
class SharedMemory final {
 public:
  static constexpr uint64_t kMaxSegments = 4096;           // SHMMNI
  static constexpr uint64_t kMaxSize = uint64_t{1} << 46;  // SHMMAX is larger than any address space; this is too

  explicit SharedMemory(pgalloc::MemoryFile& memory_file) : memory_file_(memory_file) {}

  // shmget(2): EACCES, EEXIST, EINVAL, ENOENT, ENOSPC.
  Result<RefPtr<Segment>> Get(key_t key, uint64_t size, int flags, const auth::Credentials& creds, int pid);
  Table<Segment>& table() { return table_; }

 private:
  friend class Segment;
  pgalloc::MemoryFile& memory_file_;
  Table<Segment> table_;
};

}  // namespace redoubt::ipc

#endif  // REDOUBT_PKG_SENTRY_IPC_SHARED_MEMORY_H_
