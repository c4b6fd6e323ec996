// The descriptors of a process: Linux's files_struct.
#ifndef REDOUBT_PKG_SENTRY_FDTABLE_FD_TABLE_H_
#define REDOUBT_PKG_SENTRY_FDTABLE_FD_TABLE_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/vfs/file_description.h"
#include "pkg/sync/mutex.h"

namespace redoubt {

// Shared by tasks with CLONE_FILES; each sharer is a user. When the last user leaves, every descriptor is closed.
// Thread-safe. Calls that close run vfs::FileDescription::OnClose (which may block the fiber) after the lock is
// released.
class FdTable final : public RefCounted {
 public:
  using File = RefPtr<vfs::FileDescription>;

  FdTable() = default;

  // EBADF.
  Result<File> Get(int fd) const;
  Result<bool> GetCloexec(int fd) const;
  Result<> SetCloexec(int fd, bool cloexec);

  // The lowest free descriptor >= `from` and < `limit` (RLIMIT_NOFILE): EMFILE if none, EINVAL if from >= limit.
  Result<int> Install(File file, bool cloexec, uint64_t limit, int from = 0);
  // dup2: closes what was there. EBADF if fd is not in [0, limit).
  Result<> InstallAt(int fd, File file, bool cloexec, uint64_t limit);
  Result<> Close(int fd);
  // close_range(2); `unshare` is the caller's business.
  void CloseRange(uint32_t first, uint32_t last, bool set_cloexec_only);
  void CloseOnExec();

  RefPtr<FdTable> Clone() const;
  void AddUser();
  void DropUser();

  struct Info {
    int fd;
    File file;
    bool cloexec;
  };
  std::vector<Info> List() const;
  // Open descriptors.
  size_t Count() const;

  // Called whenever a descriptor of any table is closed, with its table: releases POSIX record locks.
  using CloseHook = void (*)(FdTable& table, vfs::FileDescription& file);
  static void SetCloseHook(CloseHook hook);

 private:
  struct Slot {
    File file;
    bool cloexec = false;
  };
  static constexpr int kMaxFds = 1 << 20;

  void Closed(File file);

  mutable sync::Mutex mu_{sync::Rank::kFdTable};
  std::vector<Slot> slots_ GUARDED_BY(mu_);
  int first_free_hint_ GUARDED_BY(mu_) = 0;  // no free slot below it
  int users_ GUARDED_BY(mu_) = 0;
};

}  // namespace redoubt

#endif  // REDOUBT_PKG_SENTRY_FDTABLE_FD_TABLE_H_
