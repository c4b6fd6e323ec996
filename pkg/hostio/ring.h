// An io_uring that fibers submit to and the threads of their executor take answers from (io_uring(7)).
//
// What it may do is fixed before its first use (IORING_REGISTER_RESTRICTIONS, io_uring_register(2)): read, write
// and fsync of registered files, and the change of that registration. Whoever takes this process over
// cannot make the kernel open, connect or map anything through it.
//
// A request belongs to the OS thread that submitted it: it is cancelled when that thread ends. Requests are therefore
// made again by those who find them cancelled.
#ifndef REDOUBT_PKG_HOSTIO_RING_H_
#define REDOUBT_PKG_HOSTIO_RING_H_

#include <liburing.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/fiber/event_source.h"
#include "pkg/sync/mutex.h"

namespace redoubt::hostio {

// Also the event source of the executor, together with another one, if there is one.
class Ring final : public fiber::EventSource {
 public:
  // Requests under way at once, and files registered. Beyond either the caller blocks a thread instead.
  static constexpr unsigned kEntries = 256;
  static constexpr unsigned kFiles = 1024;

  struct Request {
    uint8_t opcode;        // IORING_OP_READ, _WRITE or _FSYNC
    int slot;              // of Register
    void* data = nullptr;  // the caller's, until the answer
    uint32_t length = 0;   // bytes
    uint64_t offset = 0;   // bytes; of all ones: the file's position
    uint32_t flags = 0;    // IORING_FSYNC_*
  };

  // `other`: outlives this; may be null. EPERM, ENOSYS: the host forbids io_uring or has none. EINVAL: it is too old.
  static Result<std::unique_ptr<Ring>> Create(fiber::EventSource* other);
  ~Ring() override;

  // The slot for Request::slot; -1 if there is none free. The kernel holds the file until Unregister.
  int Register(int fd) EXCLUDES(mu_);
  void Unregister(int slot) EXCLUDES(mu_);

  // Makes one request and parks the current fiber until it is answered. The answer as of the system call, negative
  // errno on failure; -ECANCELED: the thread that made it has ended. False: not made, the ring is full.
  bool Do(const Request& request, int* result) EXCLUDES(mu_);

  // For tests of what the kernel refuses.
  io_uring& raw() { return ring_; }
  // Requests so far.
  uint64_t submitted() const { return submitted_.load(std::memory_order_relaxed); }

  // fiber::EventSource
  bool Poll() override;
  void SetAsleep(bool asleep) override;
  void Drain() override;
  int wake_fd() const override { return other_ != nullptr ? other_->wake_fd() : event_fd_; }
  void Wake() override;
  int event_fd() const override { return event_fd_; }
  int64_t SpinTime() override;

 private:
  explicit Ring(fiber::EventSource* other) : other_(other) {}
  Result<> Init();
  bool Reap();

  fiber::EventSource* const other_;
  int event_fd_ = -1;  // counts answers, and wakes; the other source's if there is one
  io_uring ring_{};
  bool made_ = false;
  // Submission.
  sync::Mutex mu_{sync::Rank::kLeaf};
  std::vector<int> free_slots_ GUARDED_BY(mu_);
  std::atomic<unsigned> under_way_{0};
  std::atomic<uint64_t> submitted_{0};
  // One thread takes answers at a time; another need not wait for it.
  std::atomic<bool> reaping_{false};
};

}  // namespace redoubt::hostio

#endif  // REDOUBT_PKG_HOSTIO_RING_H_
