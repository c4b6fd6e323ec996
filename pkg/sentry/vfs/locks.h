// Advisory locks of one file: flock(2), and fcntl(2)'s record locks, traditional (POSIX) and of open file descriptions
// (OFD).
#ifndef REDOUBT_PKG_SENTRY_VFS_LOCKS_H_
#define REDOUBT_PKG_SENTRY_VFS_LOCKS_H_

#include <cstdint>
#include <list>
#include <optional>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/sync/mutex.h"
#include "pkg/waiter/waiter.h"

namespace redoubt::vfs {

enum class LockType { kRead, kWrite, kUnlock };
enum class LockWait { kNo, kYes };
enum class RecordKind { kPosix, kOfd };

struct RecordLock {
  static constexpr uint64_t kEndOfFile = UINT64_MAX;

  LockType type = LockType::kUnlock;
  RecordKind kind = RecordKind::kPosix;
  uint64_t start = 0;
  uint64_t end = kEndOfFile;    // exclusive; kEndOfFile: however large the file grows
  const void* owner = nullptr;  // POSIX: the descriptor table; OFD: the description. Only compared
  int pid = 0;                  // who asked; F_GETLK shows it, -1 for OFD locks
};

// Owned by the inode (Inode::locks). Waiting is interruptible (ERESTARTSYS). A blocked traditional lock that would
// close a circle of waiting processes fails with EDEADLK; flock and OFD locks, as in Linux, do not look for circles.
// Thread-safe.
class FileLocks final {
 public:
  // Record locks of a file: each call looks at all of them.
  static constexpr size_t kMaxRecords = 8192;

  FileLocks() = default;
  ~FileLocks();
  FileLocks(const FileLocks&) = delete;
  FileLocks& operator=(const FileLocks&) = delete;

  // flock(2): `owner` is the description. EAGAIN if another's lock is in the way and `wait` is kNo; as in Linux, a
  // conversion that fails has lost the old lock.
  Result<> Flock(const void* owner, LockType type, LockWait wait) EXCLUDES(mu_);
  // F_SETLK, F_SETLKW and their OFD kin. EAGAIN, EDEADLK, ENOLCK: the file has too many.
  Result<> SetRecord(const RecordLock& lock, LockWait wait) EXCLUDES(mu_);
  // F_GETLK: a lock that stands in the way of `lock`, if there is one.
  std::optional<RecordLock> TestRecord(const RecordLock& lock) EXCLUDES(mu_);
  // A descriptor of the file was closed: all traditional locks of its table go (fcntl(2)).
  void ReleasePosix(const void* owner) EXCLUDES(mu_);
  // The last descriptor of a description was closed: flock and OFD locks go.
  void ReleaseDescription(const void* owner) EXCLUDES(mu_);

 private:
  struct FlockEntry {
    const void* owner;
    LockType type;
  };
  // A traditional lock that waits, with an edge in the graph of waiting owners while blocked_by is not null.
  struct Blocked {
    const void* owner;
    const void* blocked_by;
  };

  const RecordLock* ConflictLocked(const RecordLock& lock) const REQUIRES(mu_);
  Result<> ApplyLocked(const RecordLock& lock) REQUIRES(mu_);
  // Something was released: waiters look again, and until then block on nobody.
  void WakeLocked() REQUIRES(mu_);
  template <typename Attempt>
  Result<> Wait(Attempt&& attempt);

  sync::Mutex mu_{sync::Rank::kFileLocks};
  std::vector<FlockEntry> flocks_ GUARDED_BY(mu_);
  std::vector<RecordLock> records_ GUARDED_BY(mu_);  // of one owner: disjoint
  std::list<Blocked> blocked_ GUARDED_BY(mu_);
  waiter::Queue queue_;
};

}  // namespace redoubt::vfs

#endif  // REDOUBT_PKG_SENTRY_VFS_LOCKS_H_
