// eventfd(2).
#ifndef REDOUBT_PKG_SENTRY_EVENTFD_EVENTFD_H_
#define REDOUBT_PKG_SENTRY_EVENTFD_EVENTFD_H_

#include <cstdint>

#include "pkg/refs/refs.h"
#include "pkg/sentry/vfs/file_description.h"
#include "pkg/sync/mutex.h"

namespace redoubt::eventfd {

class EventFd final : public vfs::FileDescription {
 public:
  EventFd(uint64_t initial, bool semaphore, int flags);

  Result<size_t> Read(IoSequence& dst, vfs::IoFlags flags) override;
  Result<size_t> Write(IoSequence& src, vfs::IoFlags flags) override;
  Result<uint64_t> Seek(int64_t, int) override { return 0; }  // Linux: noop_llseek
  std::string FdInfo() override;
  waiter::EventMask Readiness(waiter::EventMask mask) override;
  void RegisterWaiter(waiter::Entry& entry) override { queue_.Register(entry); }
  void UnregisterWaiter(waiter::Entry& entry) override { queue_.Unregister(entry); }
  bool SupportsEpoll() const override { return true; }

 private:
  const bool semaphore_;
  sync::Mutex mu_{sync::Rank::kPipe};
  uint64_t count_ GUARDED_BY(mu_);
  waiter::Queue queue_;
};

// `flags`: O_NONBLOCK.
RefPtr<vfs::FileDescription> Make(uint32_t initial, bool semaphore, int flags);

}  // namespace redoubt::eventfd

#endif  // REDOUBT_PKG_SENTRY_EVENTFD_EVENTFD_H_
