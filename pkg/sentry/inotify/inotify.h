// inotify(7).
#ifndef REDOUBT_PKG_SENTRY_INOTIFY_INOTIFY_H_
#define REDOUBT_PKG_SENTRY_INOTIFY_INOTIFY_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "pkg/errors/errors.h"
#include "pkg/fiber/fiber.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/vfs/file_description.h"
#include "pkg/sentry/vfs/path.h"

namespace redoubt::inotify {

class Instance;

// An instance as programs have it open: its watches go with the last descriptor. Thread-safe.
class Inotify final : public vfs::FileDescription {
 public:
  // Charged to `owner`, as are its watches. `flags`: O_NONBLOCK. EMFILE: the owner has too many.
  static Result<RefPtr<Inotify>> Create(uint32_t owner, int flags);
  ~Inotify() override;

  // Gives the watch descriptor: a new one, or that of the watch which the file has already. `mask`: IN_* of what is to
  // be told, IN_EXCL_UNLINK, IN_MASK_ADD, IN_MASK_CREATE, IN_ONESHOT. EEXIST, ENOSPC. The file system may be asked.
  Result<int> AddWatch(const vfs::Path& path, uint32_t mask);
  // EINVAL: there is none.
  Result<> RemoveWatch(int descriptor);

  Result<size_t> Read(IoSequence& dst, vfs::IoFlags flags) override;
  Result<uint64_t> Seek(int64_t, int) override { return 0; }  // Linux: noop_llseek
  Result<uint64_t> Ioctl(MemoryIo& io, uint32_t command, uint64_t arg) override;
  std::string FdInfo() override;
  waiter::EventMask Readiness(waiter::EventMask mask) override;
  void RegisterWaiter(waiter::Entry& entry) override;
  void UnregisterWaiter(waiter::Entry& entry) override;
  bool SupportsEpoll() const override { return true; }

 private:
  Inotify(uint32_t owner, int flags);

  const RefPtr<Instance> instance_;
  fiber::Mutex add_mu_;  // one watch is added or changed at a time
};

}  // namespace redoubt::inotify

#endif  // REDOUBT_PKG_SENTRY_INOTIFY_INOTIFY_H_
