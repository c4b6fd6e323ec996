#include "pkg/platform/systrap/stub_process.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "pkg/log/log.h"
#include "pkg/platform/systrap/context.h"
#include "pkg/platform/systrap/manager_unsafe.h"

namespace redoubt::platform::systrap {

void Slot::Command(uint32_t operation, Waking waking) {
  c.operation = operation;
  // The thread looks for the number, then sets `sleeping`, then looks again: one of us sees the other.
  c.command.exchange(sequence, std::memory_order_seq_cst);
  sequence++;
  if (c.sleeping.load(std::memory_order_seq_cst) == 0) return;
  doorbell.fetch_add(1, std::memory_order_seq_cst);
  process.host().Place(*this);
  if (waking == Waking::kMayHandOver && process.host().HandOver(*this)) return;
  WakeWord(doorbell);
}

StubProcess::StubProcess(std::shared_ptr<Host> host, Host::Process process)
    : host_(std::move(host)), process_(process), command_(host_->control().command(process.area)) {}

Result<RefPtr<StubProcess>> StubProcess::Create(std::shared_ptr<Host> host) {
  Host::Process made = TRY(host->NewProcess());
  RefPtr<StubProcess> process(new StubProcess(std::move(host), made));
  process->host_->Watch(*process, made.ack);
  return process;
}

StubProcess::~StubProcess() { Kill(); }

Slot* StubProcess::FindWaiting() {
  // Who has the lock may have it for long: while a thread is made, or another context's state comes home.
  if (!slots_mu_.TryLock()) return nullptr;
  Slot* found = nullptr;
  for (auto& s : slots_) {
    if (found == nullptr && s->lease.load(std::memory_order_relaxed) == Slot::kHeld && s->Waits()) found = s.get();
  }
  slots_mu_.Unlock();
  return found;
}

Result<> StubProcess::Map(std::span<const CommandPage::Op> ops) {
  CHECK(ops.size() <= COMMAND_MAX_OPS, "too many for one command");
  Slot* slot = FindWaiting();
  sync::MutexLock lock(mu_);
  if (killed() || dead()) return Err(ESRCH);
  std::copy(ops.begin(), ops.end(), command_.ops);
  command_.count = static_cast<uint32_t>(ops.size());
  command_.ring = 0;
  if (slot == nullptr || !SendManagerAway(process_.pid, process_.place)) {
    BringManager(process_.pid, process_.place);
    PostCommand(command_, OP_MAP);
    return ReadAck(process_.ack);
  }
  command_.ring = ControlFile::DoorbellAddress(process_.area, slot->index);
  WriteCommand(command_, OP_MAP);
  slot->c.quiet.store(STUB_COMMAND + COMMAND_SEQUENCE, std::memory_order_seq_cst);
  // If it sleeps by now, it may not have seen the order; if not, it looks before it does.
  if (!slot->Hot()) WakeWord(command_.sequence);
  SpinForAck(command_, host_->control().slot(process_.area, 0).done, process_.ack);
  return ReadAck(process_.ack);
}

Result<Slot*> StubProcess::NewSlot() {
  int index = static_cast<int>(slots_.size());
  ControlFile& control = host_->control();
  auto slot =
      std::make_unique<Slot>(*this, index, control.slot(process_.area, index), control.doorbell(process_.area, index));
  if (index > 0) {
    sync::MutexLock lock(mu_);
    if (killed() || dead()) return Err(ESRCH);
    TRY(host_->StartThread(process_, index));
  }
  // Other threads of the guest may already have changed the word, hence the proof that it names one of the process'.
  const pid_t tid = static_cast<pid_t>(*const_cast<volatile uint32_t*>(&slot->c.signal_arch));
  if (tid > 0 && syscall(SYS_tgkill, process_.pid, tid, 0) == 0) slot->tid = tid;
  slots_.push_back(std::move(slot));
  return slots_.back().get();
}

Result<Slot*> StubProcess::TakeSlot(SystrapContext& context) {
  sync::MutexLock lock(slots_mu_);
  auto value = [&](Slot& s) {
    if (s.lease.load(std::memory_order_relaxed) != Slot::kResting) return 0;
    if (s.Hot()) return 4;
    if (s.owner.load(std::memory_order_relaxed) == &context) return 3;
    return s.owner.load(std::memory_order_relaxed) == nullptr ? 2 : 1;
  };
  Slot* best = nullptr;
  int best_value = 0;
  for (auto& s : slots_) {
    int v = value(*s);
    if (v > best_value) {
      best = s.get();
      best_value = v;
    }
  }
  int max = std::min(kMaxSlots, host_->cpus());
  if (best_value <= 1 && static_cast<int>(slots_.size()) < max) {
    best = TRY(NewSlot());
  } else if (best == nullptr) {
    return nullptr;
  } else {
    Slot::Lease resting = Slot::kResting;
    // Its owner may have gone on meanwhile. Then the caller tries again.
    if (!best->lease.compare_exchange_strong(resting, Slot::kHeld, std::memory_order_acquire)) return Err(EAGAIN);
    host_->NoteNotResting(*best);
  }
  SystrapContext* previous = best->owner.load(std::memory_order_relaxed);
  if (previous == &context) return best;
  // What the thread has of the previous context's state goes home first.
  if (previous != nullptr && !previous->SaveFrom(*best)) return Err(ESRCH);
  best->owner.store(&context, std::memory_order_relaxed);
  return best;
}

void StubProcess::AddWaiter(fiber::Fiber* fiber) {
  sync::MutexLock lock(slots_mu_);
  waiters_.push_back(fiber);
  waiter_count_.store(static_cast<int>(waiters_.size()), std::memory_order_relaxed);
}

void StubProcess::RemoveWaiter(fiber::Fiber* fiber) {
  sync::MutexLock lock(slots_mu_);
  std::erase(waiters_, fiber);
  waiter_count_.store(static_cast<int>(waiters_.size()), std::memory_order_relaxed);
}

void StubProcess::Resting(Slot& slot) {
  host_->NoteResting(slot);
  slot.lease.store(Slot::kResting, std::memory_order_seq_cst);
  if (waiter_count_.load(std::memory_order_seq_cst) == 0) return;
  sync::MutexLock lock(slots_mu_);
  if (!waiters_.empty()) waiters_.front()->Unpark();
}

void StubProcess::Abandon(Slot& slot, SystrapContext& context) {
  sync::MutexLock lock(slots_mu_);
  if (slot.owner.load(std::memory_order_relaxed) != &context) return;
  // Its owner is here, and takers hold the lock: the lease is free.
  (void)context.SaveFrom(slot);
  slot.owner.store(nullptr, std::memory_order_relaxed);
}

void StubProcess::Leave(SystrapContext& context) {
  sync::MutexLock lock(slots_mu_);
  for (auto& s : slots_) {
    if (s->owner.load(std::memory_order_relaxed) != &context) continue;
    s->owner.store(nullptr, std::memory_order_relaxed);
    // Held by the context itself, then.
    if (s->lease.load(std::memory_order_relaxed) == Slot::kHeld) {
      host_->NoteResting(*s);
      s->lease.store(Slot::kResting, std::memory_order_release);
    }
  }
  if (!waiters_.empty()) waiters_.front()->Unpark();
}

void StubProcess::PreemptOne() {
  sync::MutexLock lock(slots_mu_);
  if (slots_.empty()) return;
  Slot& slot = *slots_[next_preempted_++ % slots_.size()];
  if (slot.lease.load(std::memory_order_relaxed) != Slot::kHeld) return;
  slot.preempt.store(true, std::memory_order_relaxed);
  InterruptThread(slot);
}

void StubProcess::InterruptThread(Slot& slot) {
  if (slot.signalled.exchange(true, std::memory_order_seq_cst)) return;
  slot.c.interrupt.store(1, std::memory_order_seq_cst);
  // The process is not reaped before it is buried, so the numbers are still its own.
  if (!killed() && slot.tid > 0) syscall(SYS_tgkill, process_.pid, slot.tid, SIGURG);
}

void StubProcess::MarkDead() { dead_.store(true, std::memory_order_release); }

void StubProcess::Kill() {
  if (killed_.exchange(true, std::memory_order_acq_rel)) return;
  kill(process_.pid, SIGKILL);
  MarkDead();
  {
    // Whoever waits for the manager's answer hears its pipe close; nobody begins to wait after this.
    sync::MutexLock lock(mu_);
  }
  host_->Unwatch(*this, process_.ack);
  host_->ForgetSlots(*this);
  // A fiber may still wait for a guest that is beyond help: its pipe, whose end would tell, is watched no more.
  if (host_->waiting() > 0) host_->Wake();
  host_->Bury(process_);
}

}  // namespace redoubt::platform::systrap
