// poll(2), ppoll(2), select(2), pselect6(2).
#include <poll.h>
#include <sys/select.h>

#include <memory>

#include "pkg/sentry/syscalls/common.h"
#include "pkg/sentry/syscalls/handlers.h"

namespace redoubt::syscalls {
namespace {

struct Polled {
  FdTable::File file;  // null: not to be looked at, or POLLNVAL
  waiter::EventMask mask = 0;
  waiter::EventMask ready = 0;
};

// Registers on every file once, looks, sleeps, looks again; the entries go when it returns.
class PollWait final {
 public:
  explicit PollWait(std::vector<Polled>& polled) : polled_(polled) {}
  ~PollWait() {
    for (size_t i = 0; i < entries_.size(); i++) {
      if (entries_[i]) polled_[i].file->UnregisterWaiter(*entries_[i]);
    }
  }
  PollWait(const PollWait&) = delete;
  PollWait& operator=(const PollWait&) = delete;

  // The number of files with an event; 0 at the deadline.
  Result<size_t> Wait(fiber::Time deadline, bool just_look) {
    size_t ready = Look();
    if (ready > 0 || just_look) return ready;
    entries_.resize(polled_.size());
    for (size_t i = 0; i < polled_.size(); i++) {
      if (!polled_[i].file) continue;
      entries_[i] = std::make_unique<waiter::FiberEntry>(polled_[i].mask);
      polled_[i].file->RegisterWaiter(*entries_[i]);
    }
    while (true) {
      ready = Look();
      if (ready > 0) return ready;
      Result<> r = wait::Block(deadline);
      if (r) continue;
      ready = Look();
      if (ready > 0 || r.error() == Errno(ETIMEDOUT)) return ready;
      return Err(r.error());
    }
  }

 private:
  size_t Look() {
    size_t ready = 0;
    for (Polled& p : polled_) {
      if (p.file) p.ready = p.file->Readiness(p.mask) & p.mask;
      if (p.ready != 0) ready++;
    }
    return ready;
  }

  std::vector<Polled>& polled_;
  std::vector<std::unique_ptr<waiter::FiberEntry>> entries_;
};

Result<uint64_t> DoPoll(Task& task, Addr addr, uint32_t count, fiber::Time deadline, bool just_look) {
  if (count > task.GetLimit(RLIMIT_NOFILE).soft) return Err(EINVAL);
  std::vector<pollfd> fds = TRY(task.mm().CopyInVector<pollfd>(addr, count));
  std::vector<Polled> polled(count);
  for (size_t i = 0; i < count; i++) {
    if (fds[i].fd < 0) continue;
    Result<FdTable::File> file = task.File(fds[i].fd);
    if (!file || ((*file)->flags() & O_PATH) != 0) {
      polled[i].ready = POLLNVAL;
      continue;
    }
    polled[i].file = *file;
    polled[i].mask = static_cast<uint16_t>(fds[i].events) | POLLERR | POLLHUP;
  }
  size_t ready = 0;
  {
    PollWait wait(polled);
    Result<size_t> n = wait.Wait(deadline, just_look);
    if (!n) return Err(n.error() == kErestartsys ? kErestartnohand : n.error());
    ready = *n;
  }
  for (size_t i = 0; i < count; i++) fds[i].revents = static_cast<int16_t>(polled[i].ready);
  TRY(task.mm().CopyOutAll(addr, std::as_bytes(std::span(fds))));
  return ready;
}

// What select(2) counts as each kind.
constexpr waiter::EventMask kSelectIn = waiter::kIn | waiter::kRdNorm | waiter::kRdBand | waiter::kHup | waiter::kErr;
constexpr waiter::EventMask kSelectOut = waiter::kOut | waiter::kWrNorm | waiter::kWrBand | waiter::kErr;
constexpr waiter::EventMask kSelectExcept = waiter::kPri;

Result<uint64_t> DoSelect(Task& task, int count, const Addr (&sets)[3], fiber::Time deadline, bool just_look) {
  if (count < 0) return Err(EINVAL);
  count = std::min<int>(count, static_cast<int>(std::min<uint64_t>(task.GetLimit(RLIMIT_NOFILE).soft, 1 << 16)));
  size_t words = (static_cast<size_t>(count) + 63) / 64;
  constexpr waiter::EventMask kMasks[3] = {kSelectIn, kSelectOut, kSelectExcept};
  std::vector<uint64_t> in[3];
  for (int s = 0; s < 3; s++) {
    in[s].resize(words);
    if (sets[s] != 0) in[s] = TRY(task.mm().CopyInVector<uint64_t>(sets[s], words));
  }
  std::vector<Polled> polled;
  std::vector<int> numbers;
  for (int fd = 0; fd < count; fd++) {
    waiter::EventMask mask = 0;
    for (int s = 0; s < 3; s++) {
      if ((in[s][fd / 64] >> (fd % 64) & 1) != 0) mask |= kMasks[s];
    }
    if (mask == 0) continue;
    FdTable::File file = TRY(task.File(fd));
    if ((file->flags() & O_PATH) != 0) return Err(EBADF);
    polled.push_back({.file = std::move(file), .mask = mask});
    numbers.push_back(fd);
  }
  {
    PollWait wait(polled);
    Result<size_t> n = wait.Wait(deadline, just_look);
    if (!n) return Err(n.error() == kErestartsys ? kErestartnohand : n.error());
  }
  uint64_t bits = 0;
  std::vector<uint64_t> out[3];
  for (int s = 0; s < 3; s++) out[s].resize(words);
  for (size_t i = 0; i < polled.size(); i++) {
    int fd = numbers[i];
    for (int s = 0; s < 3; s++) {
      uint64_t bit = uint64_t{1} << (fd % 64);
      if ((in[s][fd / 64] & bit) != 0 && (polled[i].ready & kMasks[s]) != 0) {
        out[s][fd / 64] |= bit;
        bits++;
      }
    }
  }
  for (int s = 0; s < 3; s++) {
    if (sets[s] != 0) TRY(task.mm().CopyOutAll(sets[s], std::as_bytes(std::span(out[s]))));
  }
  return bits;
}

struct TimeoutArg {
  fiber::Time deadline = fiber::kForever;
  bool just_look = false;
};
TimeoutArg ToTimeout(clock::Nanoseconds t) { return {.deadline = DeadlineAfter(t), .just_look = t == 0}; }

clock::Nanoseconds Left(const TimeoutArg& t) { return std::max<int64_t>(t.deadline - fiber::Now(), 0); }

Result<> ApplySigmask(Task& task, Addr mask, size_t size) {
  if (mask == 0) return {};
  if (size != sizeof(SignalSet)) return Err(EINVAL);
  task.SetTemporaryMask(TRY(task.mm().CopyInObject<SignalSet>(mask)));
  return {};
}

}  // namespace

namespace {
// Its time-out is a plain argument, so a restart must not begin it anew.
Result<uint64_t> PollUntil(Task& task, Addr addr, uint32_t count, TimeoutArg t) {
  Result<uint64_t> r = DoPoll(task, addr, count, t.deadline, t.just_look);
  if (r || r.error() != kErestartnohand || t.deadline == fiber::kForever) return r;
  task.restart = [=](Task& again) { return PollUntil(again, addr, count, t); };
  return Err(kErestartRestartblock);
}
}  // namespace

Result<uint64_t> Poll(Task& task, const SyscallArgs& a) {
  TimeoutArg t;
  if (a.I32(2) >= 0) t = ToTimeout(int64_t{a.I32(2)} * 1'000'000);
  return PollUntil(task, a.Pointer(0), a.U32(1), t);
}

Result<uint64_t> Ppoll(Task& task, const SyscallArgs& a) {
  TimeoutArg t;
  if (a.Pointer(2) != 0) t = ToTimeout(TRY(CopyInTimespec(task, a.Pointer(2))));
  TRY(ApplySigmask(task, a.Pointer(3), a.Size(4)));
  Result<uint64_t> r = DoPoll(task, a.Pointer(0), a.U32(1), t.deadline, t.just_look);
  // The kernel updates the time-out (ppoll(2), NOTES); a read-only one is no error.
  if (a.Pointer(2) != 0) (void)CopyOutTimespec(task, a.Pointer(2), Left(t));
  return r;
}

Result<uint64_t> Select(Task& task, const SyscallArgs& a) {
  TimeoutArg t;
  if (a.Pointer(4) != 0) {
    timeval tv = TRY(task.mm().CopyInObject<timeval>(a.Pointer(4)));
    if (tv.tv_sec < 0 || tv.tv_usec < 0) return Err(EINVAL);
    t = ToTimeout(
        clock::FromTimespec({.tv_sec = tv.tv_sec + tv.tv_usec / 1'000'000, .tv_nsec = tv.tv_usec % 1'000'000 * 1000}));
  }
  Result<uint64_t> r = DoSelect(task, a.I32(0), {a.Pointer(1), a.Pointer(2), a.Pointer(3)}, t.deadline, t.just_look);
  if (a.Pointer(4) != 0) {
    timespec left = clock::ToTimespec(Left(t));
    (void)task.mm().CopyOutObject(a.Pointer(4), timeval{.tv_sec = left.tv_sec, .tv_usec = left.tv_nsec / 1000});
  }
  return r;
}

Result<uint64_t> Pselect6(Task& task, const SyscallArgs& a) {
  TimeoutArg t;
  if (a.Pointer(4) != 0) t = ToTimeout(TRY(CopyInTimespec(task, a.Pointer(4))));
  if (a.Pointer(5) != 0) {
    auto mask = TRY(task.mm().CopyInObject<std::array<uint64_t, 2>>(a.Pointer(5)));
    TRY(ApplySigmask(task, mask[0], mask[1]));
  }
  Result<uint64_t> r = DoSelect(task, a.I32(0), {a.Pointer(1), a.Pointer(2), a.Pointer(3)}, t.deadline, t.just_look);
  if (a.Pointer(4) != 0) (void)CopyOutTimespec(task, a.Pointer(4), Left(t));
  return r;
}

}  // namespace redoubt::syscalls
