// One stub process: the host's side of a guest address space.
//
// Its leader is the manager: it runs stub code only, takes no signals and obeys the command page, which the guest can
// read but not write. It answers over a pipe that no other thread of the process may write to. Its other threads run
// guest code: each has a slot, in which it and the Sentry talk (control.h). Contexts borrow slots: a context keeps the
// slot it ran on for as long as it may soon run again, and others take it while the context rests.
//
// Death: SIGKILL by Kill; the leader's parent-death signal when the Sentry dies.
#ifndef REDOUBT_PKG_PLATFORM_SYSTRAP_STUB_PROCESS_H_
#define REDOUBT_PKG_PLATFORM_SYSTRAP_STUB_PROCESS_H_

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/fiber/fiber.h"
#include "pkg/hostarch/hostarch.h"
#include "pkg/platform/platform.h"
#include "pkg/platform/systrap/control.h"
#include "pkg/platform/systrap/host.h"
#include "pkg/refs/refs.h"
#include "pkg/sync/mutex.h"

namespace redoubt::platform::systrap {

class StubProcess;
class SystrapContext;

// A thread of a stub that runs guest code. Owned by its process.
struct Slot {
  // Who may write commands: the holder's fiber. Whoever moves a lease from kResting has it.
  enum Lease : int {
    kHeld,     // a context's, which runs or will soon run
    kResting,  // a context's that sleeps; may be taken, once its extended state has been saved
  };

  Slot(StubProcess& p, int i, SlotControl& control, std::atomic<uint32_t>& bell)
      : process(p), index(i), c(control), doorbell(bell) {}

  // Has the thread do `operation`, whose arguments are in place. One that sleeps may be waked by another stub's thread,
  // which cannot be relied upon (Host::HandOver), if kMayHandOver.
  enum class Waking { kMayHandOver, kByCaller };
  void Command(uint32_t operation, Waking waking);
  // It waits for a command, awake. For those who do not hold the lease: only a guess.
  bool Waits() const {
    return Hot() && c.event.load(std::memory_order_relaxed) != c.command.load(std::memory_order_relaxed);
  }
  // The event that answers the last command has come.
  bool Posted() const { return c.event.load(std::memory_order_acquire) == sequence; }
  // The thread spins or runs: it need not be waked.
  bool Hot() const { return c.sleeping.load(std::memory_order_relaxed) == 0; }
  Addr guest_address() const { return kSlots + index * kSlotSize; }
  // The XSAVE areas.
  std::byte* fp_saved() { return reinterpret_cast<std::byte*>(&c) + STUB_SLOT_FP; }
  std::byte* fp_to_load() { return reinterpret_cast<std::byte*>(&c) + STUB_SLOT_FP_LOAD; }

  StubProcess& process;
  const int index;
  SlotControl& c;
  std::atomic<uint32_t>& doorbell;
  pid_t tid = -1;                 // -1: not known, so it can be neither interrupted nor placed
  std::atomic<int> kept_off{-1};  // a processor (KeepOff)
  // The event that the thread will post next. It starts with 1, of its own accord.
  uint32_t sequence = 1;
  std::atomic<Lease> lease{kHeld};
  // Guarded by the host's lock: which doorbell the thread was told to ring before it sleeps.
  std::atomic<uint32_t>* to_ring = nullptr;
  // A signal was sent since the thread was last let into the guest. More would only pile up on its signal stack.
  std::atomic<bool> signalled{false};
  std::atomic<bool> preempt{false};  // others wait: the holder is to rest
  // Changed under the process' lock by the holder of the lease.
  std::atomic<SystrapContext*> owner{nullptr};
};

// Thread-safe. Counted by the address space and by contexts that have a slot.
class StubProcess final : public RefCounted {
 public:
  static Result<RefPtr<StubProcess>> Create(std::shared_ptr<Host> host);
  ~StubProcess() override;

  // Maps or, where the access is none, unmaps; in order, up to the first error. ESRCH after death.
  Result<> Map(std::span<const CommandPage::Op> ops) EXCLUDES(slots_mu_, mu_);

  // A slot for `context`, which has none here: one that rests or a new thread; null if there are as many as may be.
  // The slot's lease is held, its owner is set, and what it had of another context's state is saved.
  Result<Slot*> TakeSlot(SystrapContext& context) EXCLUDES(slots_mu_);
  // Registers a fiber to be woken when a slot may be had.
  void AddWaiter(fiber::Fiber* fiber) EXCLUDES(slots_mu_);
  void RemoveWaiter(fiber::Fiber* fiber) EXCLUDES(slots_mu_);
  bool HasWaiters() const { return waiter_count_.load(std::memory_order_relaxed) > 0; }
  // The context gives its slot up for good, or rests and others wait.
  void Resting(Slot& slot) EXCLUDES(slots_mu_);
  // `context` has another slot from now on and gives up this one, which rests unless somebody takes it just now.
  void Abandon(Slot& slot, SystrapContext& context) EXCLUDES(slots_mu_);
  // The context goes away, or runs elsewhere from now on.
  void Leave(SystrapContext& context) EXCLUDES(slots_mu_);
  // Ends the turn of one thread, in rotation, for others that wait.
  void PreemptOne() EXCLUDES(slots_mu_);
  // Waits out a TakeSlot that takes from the caller.
  void Settle() EXCLUDES(slots_mu_) { sync::MutexLock lock(slots_mu_); }

  // Makes the thread leave the guest, or not enter it.
  void InterruptThread(Slot& slot);

  // Kills and buries it. Idempotent. No thread may be running a guest, unless the guest is beyond help.
  void Kill();
  bool killed() const { return killed_.load(std::memory_order_acquire); }
  bool dead() const { return dead_.load(std::memory_order_acquire); }
  // It has died of itself or was killed from outside.
  void MarkDead();
  pid_t pid() const { return process_.pid; }
  int area() const { return process_.area; }
  Host& host() const { return *host_; }

 private:
  StubProcess(std::shared_ptr<Host> host, Host::Process process);
  Result<Slot*> NewSlot() REQUIRES(slots_mu_) EXCLUDES(mu_);
  // One whose thread spins while the Sentry is about something for its guest, and may make room for the manager. Null:
  // there is none, or it cannot be told now. Only a guess.
  Slot* FindWaiting() EXCLUDES(slots_mu_);

  const std::shared_ptr<Host> host_;
  Host::Process process_;  // its place is guarded by mu_
  CommandPage& command_;
  std::atomic<bool> killed_{false};
  std::atomic<bool> dead_{false};

  // Held while the manager works.
  sync::Mutex mu_{sync::Rank::kAddressSpace};

  // Held while a slot's state is moved: its thread runs stub code only.
  sync::Mutex slots_mu_{sync::Rank::kSlots};
  std::vector<std::unique_ptr<Slot>> slots_ GUARDED_BY(slots_mu_);
  std::deque<fiber::Fiber*> waiters_ GUARDED_BY(slots_mu_);
  size_t next_preempted_ GUARDED_BY(slots_mu_) = 0;
  std::atomic<int> waiter_count_{0};
};

}  // namespace redoubt::platform::systrap

#endif  // REDOUBT_PKG_PLATFORM_SYSTRAP_STUB_PROCESS_H_
