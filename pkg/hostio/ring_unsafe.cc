#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <iterator>

#include "pkg/fiber/fiber.h"
#include "pkg/hostio/ring.h"
#include "pkg/log/log.h"

namespace redoubt::hostio {
namespace {

// On the stack of the fiber that waits.
struct Pending {
  fiber::Fiber* fiber;
  int result = 0;
  std::atomic<bool> done{false};
};

io_uring_restriction Allow(uint16_t opcode, uint8_t what) {
  io_uring_restriction r{};
  r.opcode = opcode;
  r.sqe_op = what;  // of one union with register_op and sqe_flags
  return r;
}

}  // namespace

Result<std::unique_ptr<Ring>> Ring::Create(fiber::EventSource* other) {
  std::unique_ptr<Ring> ring(new Ring(other));
  TRY(ring->Init());
  return ring;
}

Result<> Ring::Init() {
  io_uring_params params{};
  params.flags = IORING_SETUP_R_DISABLED | IORING_SETUP_CLAMP;
  if (int r = io_uring_queue_init_params(kEntries, &ring_, &params); r < 0) return Err(-r);
  made_ = true;
  // Guest processes are copies of this one's first state and must not share its rings.
  if (int r = io_uring_ring_dontfork(&ring_); r < 0) return Err(-r);
  event_fd_ = other_ != nullptr ? other_->event_fd() : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (event_fd_ < 0) return ErrFromHost();
  if (int r = io_uring_register_files_sparse(&ring_, kFiles); r < 0) return Err(-r);
  // What blocks in the kernel does so in threads of its own: few, however many requests there are.
  unsigned workers[2] = {4, 4};
  if (int r = io_uring_register_iowq_max_workers(&ring_, workers); r < 0) return Err(-r);
  if (int r = io_uring_register_eventfd(&ring_, event_fd_); r < 0) return Err(-r);
  io_uring_restriction allowed[] = {
      Allow(IORING_RESTRICTION_SQE_OP, IORING_OP_READ),
      Allow(IORING_RESTRICTION_SQE_OP, IORING_OP_WRITE),
      Allow(IORING_RESTRICTION_SQE_OP, IORING_OP_FSYNC),
      Allow(IORING_RESTRICTION_SQE_FLAGS_REQUIRED, IOSQE_FIXED_FILE),
      Allow(IORING_RESTRICTION_REGISTER_OP, IORING_REGISTER_FILES_UPDATE),
  };
  if (int r = io_uring_register_restrictions(&ring_, allowed, std::size(allowed)); r < 0) return Err(-r);
  if (int r = io_uring_enable_rings(&ring_); r < 0) return Err(-r);
  sync::MutexLock lock(mu_);
  for (int i = kFiles - 1; i >= 0; i--) free_slots_.push_back(i);
  return {};
}

Ring::~Ring() {
  CHECK(under_way_.load() == 0, "a ring died before its requests");
  if (made_) io_uring_queue_exit(&ring_);
  if (event_fd_ >= 0 && other_ == nullptr) close(event_fd_);
}

int Ring::Register(int fd) {
  sync::MutexLock lock(mu_);
  if (free_slots_.empty()) return -1;
  int slot = free_slots_.back();
  if (io_uring_register_files_update(&ring_, slot, &fd, 1) != 1) return -1;
  free_slots_.pop_back();
  return slot;
}

void Ring::Unregister(int slot) {
  sync::MutexLock lock(mu_);
  int none = -1;
  // A slot that cannot be emptied is not used again.
  if (io_uring_register_files_update(&ring_, slot, &none, 1) == 1) free_slots_.push_back(slot);
}

bool Ring::Do(const Request& request, int* result) {
  Pending pending{.fiber = fiber::Current()};
  {
    sync::MutexLock lock(mu_);
    // No more than the completion queue holds, so that no answer is ever lost or put off.
    if (under_way_.load(std::memory_order_relaxed) >= kEntries) return false;
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    if (sqe == nullptr) return false;
    io_uring_prep_rw(request.opcode, sqe, request.slot, request.data, request.length, request.offset);
    sqe->flags = IOSQE_FIXED_FILE;
    sqe->rw_flags = static_cast<int>(request.flags);  // of one union with fsync_flags
    io_uring_sqe_set_data(sqe, &pending);
    under_way_.fetch_add(1, std::memory_order_relaxed);
    int r;
    do {
      r = io_uring_submit(&ring_);
    } while (r == -EINTR || r == -EAGAIN);
    // The entry stands in the ring: there is no way back.
    CHECK(r == 1, "io_uring_submit failed");
    submitted_.fetch_add(1, std::memory_order_relaxed);
  }
  // The kernel may have answered within the call.
  Reap();
  bool parked = false;
  while (!pending.done.load(std::memory_order_acquire)) {
    fiber::Park();
    parked = true;
  }
  // The parks may have taken a wake meant for a loop further up the stack, which then must look again.
  if (parked) fiber::Current()->Unpark();
  *result = pending.result;
  return true;
}

bool Ring::Reap() {
  if (under_way_.load(std::memory_order_relaxed) == 0) return false;
  bool any = false;
  // Whoever finds the flag taken leaves his answer to the holder, who looks again after giving it back.
  while (io_uring_cq_ready(&ring_) > 0 && !reaping_.exchange(true, std::memory_order_acquire)) {
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(&ring_, &cqe) == 0 && cqe != nullptr) {
      auto* pending = static_cast<Pending*>(io_uring_cqe_get_data(cqe));
      pending->result = cqe->res;
      RefPtr<fiber::Fiber> f(pending->fiber);
      io_uring_cqe_seen(&ring_, cqe);
      under_way_.fetch_sub(1, std::memory_order_relaxed);
      // SAFETY: after this the fiber may go on, and `pending` with its stack.
      pending->done.store(true, std::memory_order_release);
      f->Unpark();
      any = true;
    }
    reaping_.store(false, std::memory_order_seq_cst);
  }
  return any;
}

bool Ring::Poll() {
  bool mine = Reap();
  bool others = other_ != nullptr && other_->Poll();
  return mine || others;
}

void Ring::SetAsleep(bool asleep) {
  // The ring's own answers always wake: its event counter stands from before the thread sleeps.
  if (other_ != nullptr) other_->SetAsleep(asleep);
}

void Ring::Drain() {
  if (other_ != nullptr) {
    other_->Drain();
  } else {
    uint64_t count;
    // SAFETY: 8 bytes into a local; EAGAIN if nothing was counted.
    (void)!read(event_fd_, &count, sizeof(count));
  }
  Reap();
}

void Ring::Wake() {
  uint64_t one = 1;
  // SAFETY: 8 bytes from a local; it fails only when the counter is full, after 2^64 of these.
  (void)!write(event_fd_, &one, sizeof(one));
}

int64_t Ring::SpinTime() { return other_ != nullptr ? other_->SpinTime() : 0; }

}  // namespace redoubt::hostio
