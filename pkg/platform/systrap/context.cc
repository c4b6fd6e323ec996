#include "pkg/platform/systrap/context.h"

#include <linux/audit.h>
#include <poll.h>
#include <signal.h>
#include <x86intrin.h>

#include <algorithm>
#include <cstring>

#include "pkg/fiber/fiber.h"
#include "pkg/log/rate_limit.h"
#include "pkg/platform/registers_amd64.h"
#include "pkg/platform/systrap/address_space.h"
#include "pkg/platform/systrap/manager_unsafe.h"
#include "pkg/platform/systrap/template_unsafe.h"

namespace redoubt::platform::systrap {
namespace {

// How long others wait before a thread that computes is made to give its turn.
constexpr fiber::Time kTurn = 5'000'000;
// A guest that does not come out when told to has broken its stub.
constexpr fiber::Time kPatience = 10'000'000'000;
// Some 50 us, and some 3.
constexpr uint64_t kSpinCycles = 150'000;
constexpr uint64_t kShortSpinCycles = 9'000;
// Looks for an answer without a pause between them; a call that does nothing comes back within.
constexpr uint32_t kQuickLooks = 30;

// A rest that is longer is not worth spinning through: some 100 us.
constexpr uint64_t kLongRestCycles = 300'000;

// How long to wait before a thread is waked from sleep: some 8 us.
constexpr uint64_t kLetRestCycles = 24'000;

constexpr uint64_t kErrorWrite = 2;
constexpr uint64_t kErrorFetch = 16;

// By how a command is answered by code of the stub alone: it spins or is being waked.
bool WaitForStub(Slot& slot) {
  const uint64_t spins = slot.process.host().cpus() > 1 ? 20'000 : 0;
  for (uint64_t n = 0; !slot.Posted(); n++) {
    if (slot.process.dead()) return false;
    if (n < spins) {
      __builtin_ia32_pause();
    } else {
      // It has lost its processor.
      timespec ts{.tv_sec = 0, .tv_nsec = 50'000};
      (void)ppoll(nullptr, 0, &ts, nullptr);
      if (n > spins + 100'000) {
        // It only pretends to be in the stub. Nobody is to wait for it again.
        LOG_WARNING_LIMITED("systrap: a guest thread does not obey; killing its process {}", slot.process.pid());
        slot.process.MarkDead();
        return false;
      }
    }
  }
  return true;
}

}  // namespace

SystrapContext::~SystrapContext() { LeaveProcess(); }

void SystrapContext::LeaveProcess() {
  if (!process_) return;
  if (Slot* slot = slot_.load(std::memory_order_acquire); slot != nullptr && !resting_) {
    if (!SaveFrom(*slot)) fp_in_slot_.store(false);
  } else if (slot != nullptr && Reclaim() && !SaveFrom(*slot)) {
    fp_in_slot_.store(false);
  }
  process_->Leave(*this);
  slot_.store(nullptr);
  can_return_ = false;
  RefPtr<StubProcess> old;
  sync::MutexLock lock(mu_);
  running_.store(nullptr);
  old = std::move(process_);
}

bool SystrapContext::Reclaim() {
  resting_ = false;
  Slot* slot = slot_.load(std::memory_order_acquire);
  if (slot == nullptr) return false;
  Slot::Lease expected = Slot::kResting;
  if (slot->lease.compare_exchange_strong(expected, Slot::kHeld, std::memory_order_acquire)) {
    if (slot_.load(std::memory_order_acquire) == slot) {
      host_->NoteNotResting(*slot);
      return true;
    }
    // Taken, and at rest again as somebody else's.
    slot->lease.store(Slot::kResting, std::memory_order_release);
  }
  // Being taken: the one who takes it holds this lock until our state is saved.
  process_->Settle();
  return false;
}

Result<> SystrapContext::HaveSlot(StubProcess& process) {
  if (process_.get() != &process) {
    LeaveProcess();
    sync::MutexLock lock(mu_);
    process_ = RefPtr<StubProcess>(&process);
  }
  Slot* slot = slot_.load(std::memory_order_acquire);
  if (resting_ && slot != nullptr) {
    // A thread that spins beats one's own that sleeps; TakeSlot knows.
    if (slot->Hot() && Reclaim())
      slot = slot_.load(std::memory_order_acquire);
    else if (!slot->Hot() || slot_.load() == nullptr)
      slot = nullptr;
  }
  if (resting_ && rested_at_ != 0) {
    const uint64_t rested = std::min<uint64_t>(__rdtsc() - rested_at_, 8 * kLongRestCycles);
    average_rest_ = average_rest_ - average_rest_ / 4 + rested / 4;
    rested_at_ = 0;
  }
  if (slot != nullptr && !resting_) {
    if (!slot->preempt.load(std::memory_order_relaxed)) return {};
    slot->preempt.store(false, std::memory_order_relaxed);
    if (!process.HasWaiters()) return {};
    resting_ = true;
    process.Resting(*slot);
  }
  LetOthersRest();
  return WaitForSlot();
}

void SystrapContext::LetOthersRest() {
  if (host_->waiting() == 0 || host_->cpus() == 1) return;
  const uint64_t start = __rdtsc();
  while (__rdtsc() - start < kLetRestCycles && !host_->AnyResting()) {
    const uint64_t spin = __rdtsc();
    __builtin_ia32_pause();
    bool yield = host_->Poll() || fiber::WorkWaits(false);
    fiber::NoteSpun(__rdtsc() - spin);
    if (yield) fiber::Yield();
  }
}

Result<> SystrapContext::WaitForSlot() {
  fiber::Fiber* self = nullptr;
  Result<> result;
  for (bool first = true;; first = false) {
    Result<Slot*> slot = process_->TakeSlot(*this);
    if (!slot && slot.error() == Errno(EAGAIN)) continue;
    if (!slot) {
      result = Err(slot.error());
      break;
    }
    if (*slot != nullptr) {
      Slot* old = slot_.load(std::memory_order_acquire);
      if (old != nullptr && old != *slot) process_->Abandon(*old, *this);
      slot_.store(*slot, std::memory_order_release);
      resting_ = false;
      if (old != *slot) can_return_ = false;
      break;
    }
    if (self == nullptr) {
      self = fiber::Current();
      process_->AddWaiter(self);
      continue;
    }
    if (!first && process_->dead()) {
      result = Err(ESRCH);
      break;
    }
    if (pending_.load(std::memory_order_relaxed)) {
      result = Err(EINTR);
      break;
    }
    if (fiber::Park(fiber::Now() + kTurn) == fiber::ParkResult::kTimedOut) process_->PreemptOne();
  }
  if (self != nullptr) process_->RemoveWaiter(self);
  return result;
}

void SystrapContext::ReadRegisters(Slot& slot) {
  SlotControl& c = slot.c;
  Registers& regs = last_;
  regs.rbx = c.rbx;
  regs.rbp = c.rbp;
  regs.r12 = c.r12;
  regs.r13 = c.r13;
  regs.r14 = c.r14;
  regs.r15 = c.r15;
  regs.rsp = c.rsp;
  regs.rip = c.rip;
  regs.cs = kUserCs;
  regs.ss = kUserDs;
  uint64_t eflags;
  memcpy(&eflags, reinterpret_cast<std::byte*>(&c) + SLOT_SCRATCH_TOP - 8, sizeof(eflags));
  regs.eflags = eflags;
  SanitizeRegisters(regs);
  // As `syscall` leaves them.
  regs.rcx = regs.rip;
  regs.r11 = regs.eflags;
  tail_ = c.trampoline + TRAMPOLINE_TAIL;
  tail_stands_for_ = regs.rip;
  regs_in_slot_.store(false, std::memory_order_relaxed);
}

void SystrapContext::PullRegisters(Registers& regs) {
  if (!partial_) return;
  partial_ = false;
  if (resting_ && slot_.load(std::memory_order_acquire) != nullptr) (void)Reclaim();
  if (regs_in_slot_.load(std::memory_order_acquire)) ReadRegisters(*slot_.load(std::memory_order_relaxed));
  for (auto r : {&Registers::rax, &Registers::orig_rax, &Registers::rdi, &Registers::rsi, &Registers::rdx,
                 &Registers::r10, &Registers::r8, &Registers::r9, &Registers::fs_base, &Registers::gs_base})
    last_.*r = regs.*r;
  regs = last_;
}

void SystrapContext::Enter(Registers& regs) {
  Slot& slot = *slot_.load(std::memory_order_relaxed);
  SlotControl& c = slot.c;
  const bool fp_in_slot = fp_in_slot_.load(std::memory_order_relaxed);
  sent_partial_ = false;
  if (can_return_ && fp_in_slot) {
    sent_partial_ = partial_;
    if (!partial_) {
      last_.rax = regs.rax;
      last_.orig_rax = regs.orig_rax;
    }
    if (partial_ || memcmp(&last_, &regs, sizeof(regs)) == 0) {
      partial_ = false;
      c.result = regs.rax;
      slot.Command(OP_RETURN, Slot::Waking::kMayHandOver);
      return;
    }
  }
  PullRegisters(regs);
  SlotControl::Resume& r = c.resume;
  r.rax = regs.rax;
  r.rbx = regs.rbx;
  r.rcx = regs.rcx;
  r.rdx = regs.rdx;
  r.rsi = regs.rsi;
  r.rdi = regs.rdi;
  r.rbp = regs.rbp;
  r.r8 = regs.r8;
  r.r9 = regs.r9;
  r.r10 = regs.r10;
  r.r11 = regs.r11;
  r.r12 = regs.r12;
  r.r13 = regs.r13;
  r.r14 = regs.r14;
  r.r15 = regs.r15;
  r.fs_base = fs_base_ = regs.fs_base;
  // Rewritten calls find their slot by gs. A guest that has its own there makes none (AddressSpace::Rewrite).
  r.gs_base = regs.gs_base != 0 ? regs.gs_base : slot.guest_address();
  r.load_fp = fp_in_slot ? 0 : 1;
  // The guest's own instruction there may have moved.
  r.rip = regs.rip == tail_stands_for_ && tail_ < kTaskSize ? tail_ : regs.rip;
  tail_stands_for_ = 0;
  r.cs = regs.cs;
  r.eflags = regs.eflags;
  r.rsp = regs.rsp;
  r.ss = regs.ss;
  if (!fp_in_slot) {
    if (fp_.bytes.empty()) fp_ = InitialFpState();
    memcpy(slot.fp_to_load(), fp_.bytes.data(), fp_.bytes.size());
  }
  can_return_ = false;
  slot.Command(OP_RESUME, Slot::Waking::kMayHandOver);
}

bool SystrapContext::AwaitEvent(Slot& slot) {
  const uint64_t limit = host_->cpus() == 1 ? 0 : host_->waiting() + 1 < host_->cpus() ? kSpinCycles : kShortSpinCycles;
  // Whatever is done here before the event comes costs nothing.
  const uint64_t start = __rdtsc();
  uint64_t now = start;
  NoteEntered(start);
  for (uint32_t n = 0; !slot.Posted(); n++) {
    now = __rdtsc();
    if (n < kQuickLooks) continue;
    if (fiber::WorkWaits((n & 63) == 63)) break;
    __builtin_ia32_pause();
    if ((n & 15) != 15) continue;
    if (now - start > limit || slot.process.dead()) break;
    host_->Poll();
  }
  fiber::NoteSpun(now - start);
  // Handed over to a thread that did not obey.
  if (!slot.Posted() && slot.c.sleeping.load(std::memory_order_relaxed) != 0) WakeWord(slot.doorbell);
  if (!slot.Posted()) {
    Host::Waiting waiting{.slot = &slot, .fiber = fiber::Current()};
    fiber::Time patience = fiber::kForever;
    do {
      // Anew each time: who is waked is no longer looked after, and the guest may have taken its event back.
      host_->Await(waiting);
      {
        sync::MutexLock lock(mu_);
        parked_ = waiting.fiber;
      }
      if (patience == fiber::kForever && pending_.load()) patience = fiber::Now() + kPatience;
      if (!slot.Posted() && !slot.process.dead()) (void)fiber::Park(patience);
      // Whatever woke it: the guest may do that again and again.
      if (!slot.Posted() && fiber::Now() >= patience) {
        LOG_WARNING_LIMITED("systrap: a guest thread does not answer; killing its process {}", slot.process.pid());
        slot.process.MarkDead();
      }
      {
        sync::MutexLock lock(mu_);
        parked_ = nullptr;
      }
      host_->Forget(waiting);
    } while (!slot.Posted() && !slot.process.dead());
    now = __rdtsc();
  }
  if (!slot.Posted()) return false;
  NoteLeft(now);
  slot.c.taken.store(slot.sequence, std::memory_order_relaxed);
  return true;
}

Result<TrapInfo> SystrapContext::Switch(AddressSpace& as, Registers& regs) {
  if (ConsumeInterrupt()) return TrapInfo{};
  if (!partial_) {
    SanitizeRegisters(regs);
    if (std::optional<TrapInfo> fault = CheckRegisters(regs)) return *fault;
  }
  regs.orig_rax = ~uint64_t{0};
  StubProcess& process = static_cast<SystrapAddressSpace&>(as).process();
  Result<TrapInfo> info;
  for (;;) {
    if (Result<> have = HaveSlot(process); !have) {
      if (have.error() == Errno(EINTR) && ConsumeInterrupt()) return TrapInfo{};
      if (have.error() == Errno(EINTR)) continue;
      return Err(have.error());
    }
    Slot& slot = *slot_.load(std::memory_order_relaxed);
    if (slot.signalled.load(std::memory_order_relaxed)) {
      slot.c.interrupt.store(0, std::memory_order_relaxed);
      slot.signalled.store(false, std::memory_order_relaxed);
    }
    // Against Interrupt: it sets pending_ and then looks at running_; one sees the other.
    running_.store(&slot, std::memory_order_seq_cst);
    if (pending_.load(std::memory_order_seq_cst) && ConsumeInterrupt()) {
      running_.store(nullptr, std::memory_order_relaxed);
      return TrapInfo{};
    }
    Enter(regs);
    bool came = AwaitEvent(slot);
    running_.store(nullptr, std::memory_order_relaxed);
    if (!came) return Err(ESRCH);
    Taken taken = TakeEvent(slot, static_cast<SystrapAddressSpace&>(as).rewrites(), regs, *info);
    if (taken == Taken::kTrap) return info;
    if (taken == Taken::kBroken) {
      process.MarkDead();
      return Err(ESRCH);
    }
    if (ConsumeInterrupt()) return TrapInfo{};
    // Rare, but a guest can make such events up without end.
    fiber::Yield();
  }
}

SystrapContext::Taken SystrapContext::TakeEvent(Slot& slot, SystrapRewriter& rewrites, Registers& regs,
                                                TrapInfo& info) {
  SlotControl& c = slot.c;
  // Each field is read once, whatever the guest does to it meanwhile.
  switch (*const_cast<volatile uint32_t*>(&c.kind)) {
    case KIND_SYSCALL: {
      regs.orig_rax = c.rax;
      regs.rax = static_cast<uint64_t>(-ENOSYS);
      regs.rdi = c.rdi;
      regs.rsi = c.rsi;
      regs.rdx = c.rdx;
      regs.r10 = c.r10;
      regs.r8 = c.r8;
      regs.r9 = c.r9;
      fp_in_slot_.store(true, std::memory_order_relaxed);
      regs_in_slot_.store(true, std::memory_order_relaxed);
      can_return_ = true;
      partial_ = true;
      info.trap = Trap::kSyscall;
      info.partial = true;
      return Taken::kTrap;
    }
    case KIND_SIGNAL:
      fp_in_slot_.store(true, std::memory_order_relaxed);
      regs_in_slot_.store(false, std::memory_order_relaxed);
      can_return_ = false;
      return TakeSignal(slot, rewrites, regs, info);
    case KIND_NOT_ENTERED:
      // The registers are as they were; so is fp_, if it was to be loaded.
      can_return_ = false;
      if (sent_partial_) {
        partial_ = true;
        PullRegisters(regs);
      }
      return Taken::kNothing;
    default:
      // Said once for a process, whatever its threads do.
      if (!slot.process.dead())
        LOG_WARNING_LIMITED("systrap: the guest has broken its stub; killing its process {}", slot.process.pid());
      return Taken::kBroken;
  }
}

SystrapContext::Taken SystrapContext::TakeSignal(Slot& slot, SystrapRewriter& rewrites, Registers& regs,
                                                 TrapInfo& info) {
  SlotControl& c = slot.c;
  const uint32_t signo = *const_cast<volatile uint32_t*>(&c.signo);
  const int32_t code = *const_cast<volatile int32_t*>(&c.signal_code);
  const uint64_t rip = *const_cast<volatile uint64_t*>(&c.rip);
  if (rip == Stub().iret && signo == SIGSEGV) {  // the registers were not loaded
    info = GeneralProtectionFault();
    return Taken::kTrap;
  }
  regs.rax = c.rax;
  regs.rbx = c.rbx;
  regs.rcx = c.rcx;
  regs.rdx = c.rdx;
  regs.rsi = c.rsi;
  regs.rdi = c.rdi;
  regs.rbp = c.rbp;
  regs.r8 = c.r8;
  regs.r9 = c.r9;
  regs.r10 = c.r10;
  regs.r11 = c.r11;
  regs.r12 = c.r12;
  regs.r13 = c.r13;
  regs.r14 = c.r14;
  regs.r15 = c.r15;
  regs.rsp = c.rsp;
  regs.rip = rip;
  regs.eflags = c.eflags;
  regs.cs = c.cs & 0xffff;
  regs.fs_base = fs_base_ = c.fs_base;
  const uint64_t gs_base = c.gs_base;
  regs.gs_base = gs_base == slot.guest_address() ? 0 : gs_base;
  regs.orig_rax = ~uint64_t{0};
  bool in_trampoline = false;
  // Its pages come and go like others; a page fault is told as it is.
  const bool page_fault = (signo == SIGSEGV || signo == SIGBUS) && c.trapno == kTrapPageFault;
  if (std::optional<Addr> stands_for = page_fault ? std::nullopt : rewrites.InGuest(rip)) {
    in_trampoline = true;
    regs.rip = *stands_for;
  }
  info.trap = Trap::kFault;
  switch (signo) {
    case SIGSYS:
      if (code <= 0) return Taken::kNothing;
      if (c.signal_arch != AUDIT_ARCH_X86_64 || regs.cs != kUserCs) {
        info = GeneralProtectionFault();
        return Taken::kTrap;
      }
      SanitizeRegisters(regs);
      regs.orig_rax = regs.rax;
      regs.rax = static_cast<uint64_t>(-ENOSYS);
      info.trap = Trap::kSyscall;
      // A guest that uses gs itself cannot be found by it.
      info.hot = regs.gs_base == 0 && rewrites.IsHot(rip - 2);
      return Taken::kTrap;
    case SIGSEGV:
    case SIGBUS:
    case SIGFPE:
    case SIGILL:
    case SIGTRAP:
      break;
    default:
      // An interrupt, the caller's or one that came late. A turn that is over.
      return Taken::kNothing;
  }
  // A signal that somebody on the host sent: codes above 0 are the kernel's alone.
  if (code <= 0) return Taken::kNothing;
  // A single step within a trampoline is none of the guest's.
  if (in_trampoline && signo == SIGTRAP) {
    regs.rip = rip;
    return Taken::kNothing;
  }
  info.signal.signo = static_cast<int>(signo);
  info.signal.code = code;
  info.signal.addr = reinterpret_cast<void*>(c.signal_addr);
  info.trapno = c.trapno;
  info.error_code = c.error;
  if (info.trapno == kTrapPageFault) {
    // The host says si_addr for some faults only in cr2's page.
    info.signal.addr = reinterpret_cast<void*>(c.cr2);
    info.access = (info.error_code & kErrorFetch) != 0   ? kExecute
                  : (info.error_code & kErrorWrite) != 0 ? kWrite
                                                         : kRead;
  }
  return Taken::kTrap;
}

void SystrapContext::Interrupt() {
  if (pending_.exchange(true, std::memory_order_seq_cst)) return;
  sync::MutexLock lock(mu_);
  // Under the lock the process stays. If the thread serves another context by now, that one goes on after a look.
  if (Slot* slot = running_.load(std::memory_order_seq_cst); slot != nullptr) slot->process.InterruptThread(*slot);
  // Patience with a guest that does not come out begins now.
  if (parked_ != nullptr) parked_->Unpark();
}

void SystrapContext::Rest() {
  Slot* slot = slot_.load(std::memory_order_relaxed);
  if (slot == nullptr || resting_) return;
  resting_ = true;
  rested_at_ = __rdtsc();
  process_->Resting(*slot);
  // As it has been lately. A thread that spins in vain takes a processor from those that have something to do.
  if (average_rest_ > kLongRestCycles) host_->SendToSleep(*slot);
}

bool SystrapContext::SaveFrom(Slot& slot) {
  if (regs_in_slot_.load(std::memory_order_relaxed)) ReadRegisters(slot);
  if (fp_in_slot_.load(std::memory_order_relaxed)) {
    // A thread that sleeps has saved it already.
    if (slot.c.sleeping.load(std::memory_order_acquire) == 0) {
      slot.Command(OP_SAVE_FP, Slot::Waking::kByCaller);
      if (!WaitForStub(slot)) return false;
    }
    fp_.bytes.resize(FpStateSize());
    memcpy(fp_.bytes.data(), slot.fp_saved(), fp_.bytes.size());
    SanitizeFpState(fp_);
    fp_in_slot_.store(false, std::memory_order_relaxed);
  }
  slot_.store(nullptr, std::memory_order_release);
  return true;
}

Result<FpState> SystrapContext::PullFpState() {
  Slot* slot = slot_.load(std::memory_order_acquire);
  if (slot != nullptr && resting_ && !Reclaim()) slot = nullptr;
  if (slot != nullptr && fp_in_slot_.load(std::memory_order_relaxed)) {
    if (!SaveFrom(*slot)) return Err(ESRCH);
    // It is there as well, still.
    slot_.store(slot, std::memory_order_release);
    fp_in_slot_.store(true, std::memory_order_relaxed);
  }
  if (fp_.bytes.empty()) fp_ = InitialFpState();
  return fp_;
}

Result<> SystrapContext::PushFpState(const FpState& state) {
  Slot* slot = slot_.load(std::memory_order_acquire);
  // Whoever takes the slot must not overwrite what is set here.
  if (slot != nullptr && resting_) (void)Reclaim();
  fp_ = state;
  SanitizeFpState(fp_);
  fp_in_slot_.store(false, std::memory_order_relaxed);
  return {};
}

}  // namespace redoubt::platform::systrap
