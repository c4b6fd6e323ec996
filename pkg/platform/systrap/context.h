// platform::Context: runs a guest thread on a thread of the stub that it borrows.
#ifndef REDOUBT_PKG_PLATFORM_SYSTRAP_CONTEXT_H_
#define REDOUBT_PKG_PLATFORM_SYSTRAP_CONTEXT_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>

#include "pkg/platform/platform.h"
#include "pkg/platform/systrap/rewriter_amd64.h"
#include "pkg/platform/systrap/stub_process.h"
#include "pkg/sync/mutex.h"

namespace redoubt::platform::systrap {

// Owned by the guest's task; used by the task's fiber, save Interrupt, which is for any thread, and SaveFrom, which is
// for whoever takes this context's slot while it rests.
//
// States: without a slot; holding one (its thread waits for a command); running (the thread has the command to enter
// the guest, the fiber spins or is parked); resting (the slot may be taken). docs/platforms.md has the picture.
class SystrapContext final : public Context {
 public:
  explicit SystrapContext(std::shared_ptr<Host> host) : host_(std::move(host)) {}
  ~SystrapContext() override;

  Result<TrapInfo> Switch(AddressSpace& as, Registers& regs) override;
  void Interrupt() override;
  void Rest() override;
  void PullRegisters(Registers& regs) override;
  Result<FpState> PullFpState() override;
  Result<> PushFpState(const FpState& state) override;

  // What the slot and its thread hold of this context's state comes here. The caller has the slot's lease and the
  // process' lock. False if the process has died.
  bool SaveFrom(Slot& slot);

 private:
  // Makes process_ `process`, and slot_ one of its slots with the lease held. May park.
  Result<> HaveSlot(StubProcess& process);
  Result<> WaitForSlot();
  // Of two guest threads that take turns, one wakes the other shortly before it sleeps itself, and then its thread, or
  // its processor, serves the other at the price of a few switches. So before one is waked from sleep, give those that
  // run a moment to come and rest.
  void LetOthersRest();
  // The lease, if nobody has taken the slot.
  bool Reclaim();
  void LeaveProcess();
  // What a system call's event left in the slot goes to last_.
  void ReadRegisters(Slot& slot);
  // Writes the command that enters the guest.
  void Enter(Registers& regs);
  // Waits for the event; false if the process has died.
  bool AwaitEvent(Slot& slot);
  // Reads the event.
  enum class Taken { kTrap, kNothing, kBroken };  // kNothing: the guest is to be entered again
  Taken TakeEvent(Slot& slot, SystrapRewriter& rewrites, Registers& regs, TrapInfo& info);
  Taken TakeSignal(Slot& slot, SystrapRewriter& rewrites, Registers& regs, TrapInfo& info);
  bool ConsumeInterrupt() { return pending_.load(std::memory_order_relaxed) && pending_.exchange(false); }

  const std::shared_ptr<Host> host_;
  RefPtr<StubProcess> process_;  // changed under mu_
  // Null once someone has taken it, which happens under the process' lock.
  std::atomic<Slot*> slot_{nullptr};
  bool resting_ = false;  // the lease was given up by Rest
  // Of the time-stamp counter: since when (0: not by Rest), and how long rests are, averaged.
  uint64_t rested_at_ = 0, average_rest_ = 0;

  // The extended state: in the slot's thread, or in fp_ (empty: the initial state). In both after Pull.
  std::atomic<bool> fp_in_slot_{false};
  FpState fp_;

  // The last event was a rewritten system call and the thread still waits in it: if only rax has changed since, it
  // need not load its registers. Most calls need only their arguments, which travel with the event in one cache line;
  // the others stay where the thread has put them (partial_) until someone asks, or another takes the slot.
  bool can_return_ = false;
  bool partial_ = false;       // PullRegisters was not called since
  bool sent_partial_ = false;  // nor when the guest was entered
  std::atomic<bool> regs_in_slot_{false};
  Registers last_{};  // once they have been read
  // Where the trampoline of that call goes on, and the guest's address that stands for it.
  Addr tail_ = 0, tail_stands_for_ = 0;
  uint64_t fs_base_ = 0;

  std::atomic<bool> pending_{false};
  std::atomic<Slot*> running_{nullptr};
  sync::Mutex mu_{sync::Rank::kLeaf};
  fiber::Fiber* parked_ GUARDED_BY(mu_) = nullptr;  // while it waits for an event
};

}  // namespace redoubt::platform::systrap

#endif  // REDOUBT_PKG_PLATFORM_SYSTRAP_CONTEXT_H_
