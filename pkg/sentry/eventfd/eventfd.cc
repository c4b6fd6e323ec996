#include "pkg/sentry/eventfd/eventfd.h"

#include <fcntl.h>
#include <fmt/format.h>

#include "pkg/sentry/vfs/anon_inode.h"

namespace redoubt::eventfd {
namespace {

constexpr uint64_t kMax = ~uint64_t{0} - 1;

}  // namespace

EventFd::EventFd(uint64_t initial, bool semaphore, int flags)
    : FileDescription(vfs::MakeAnonymousPath("anon_inode:[eventfd]"), O_RDWR | flags),
      semaphore_(semaphore),
      count_(initial) {}

std::string EventFd::FdInfo() {
  sync::MutexLock lock(mu_);
  return fmt::format("eventfd-count: {:16x}\neventfd-semaphore: {}\n", count_, semaphore_ ? 1 : 0);
}

Result<size_t> EventFd::Read(IoSequence& dst, vfs::IoFlags) {
  if (dst.remaining() < sizeof(uint64_t)) return Err(EINVAL);
  uint64_t value = 0;
  {
    sync::MutexLock lock(mu_);
    if (count_ == 0) return Err(EAGAIN);
    value = semaphore_ ? 1 : count_;
    count_ -= value;
  }
  queue_.Notify(waiter::kOut | waiter::kWrNorm);
  return dst.CopyOut(std::as_bytes(std::span(&value, 1)));
}

Result<size_t> EventFd::Write(IoSequence& src, vfs::IoFlags) {
  if (src.remaining() < sizeof(uint64_t)) return Err(EINVAL);
  uint64_t value = 0;
  // Tried again after EAGAIN: look at the value without consuming it.
  IoSequence peek = src;
  if (TRY(peek.CopyIn(std::as_writable_bytes(std::span(&value, 1)))) != sizeof(value)) return Err(EFAULT);
  if (value == ~uint64_t{0}) return Err(EINVAL);
  {
    sync::MutexLock lock(mu_);
    if (value > kMax - count_) return Err(EAGAIN);
    count_ += value;
  }
  src.DropFirst(src.remaining());
  queue_.Notify(waiter::kIn | waiter::kRdNorm);
  return sizeof(value);
}

waiter::EventMask EventFd::Readiness(waiter::EventMask mask) {
  sync::MutexLock lock(mu_);
  waiter::EventMask ready = 0;
  if (count_ > 0) ready |= waiter::kIn | waiter::kRdNorm;
  if (count_ < kMax) ready |= waiter::kOut | waiter::kWrNorm;
  return ready & mask;
}

RefPtr<vfs::FileDescription> Make(uint32_t initial, bool semaphore, int flags) {
  return MakeRef<EventFd>(initial, semaphore, flags);
}

}  // namespace redoubt::eventfd
