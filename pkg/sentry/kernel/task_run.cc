// The loop of a task: guest, syscall or fault, signals, guest.
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "pkg/log/rate_limit.h"
#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/kernel/rewrite.h"
#include "pkg/sentry/kernel/task.h"
#include "pkg/sentry/time/clock.h"

namespace redoubt::kernel {

void Task::Start() {
  // The fiber holds the task until it has ended. fiber_ must be set before the body runs: others wake through it.
  RefPtr<Task> self(this);
  sync::MutexLock lock(kernel_.mu);
  fiber_ = kernel_.executor().Spawn(
      [self] {
        {
          sync::MutexLock started(self->kernel_.mu);
        }
        self->Run();
      },
      static_cast<wait::Sleeper*>(this), fiber::Executor::kDefaultStackSize);
}

void Task::Run() {
  state_since_.store(clock::Cycles(), std::memory_order_relaxed);
  if (child_tid_on_start_ != 0) {
    // CLONE_CHILD_SETTID: in the child's memory, before it runs (clone(2)); a bad address is ignored.
    (void)mm_->CopyOutObject<int32_t>(child_tid_on_start_, pid_->number());
  }
  mm_->GuestStarts();
  while (true) {
    ReturnToUser();
    if (exiting_) break;
    // Against Interrupt(): it sets interrupt_ and then looks at in_guest_; here the other way round, so one sees the
    // other.
    in_guest_.store(true, std::memory_order_seq_cst);
    if (interrupt_.load(std::memory_order_seq_cst) != 0) {
      in_guest_.store(false, std::memory_order_relaxed);
      continue;
    }
    Result<platform::TrapInfo> trap = context_->Switch(mm_->address_space(), regs_);
    in_guest_.store(false, std::memory_order_relaxed);
    AccountGuest();
    if (!trap) {
      // The platform lost the guest process (a stub was killed from outside, or the host ran out of memory).
      LOG_WARNING_LIMITED("task {}: the platform cannot go on: {}; killing the process", tid(), trap.error().name());
      sync::MutexLock lock(kernel_.mu);
      kernel_.KillGroupLocked(*group_, SIGKILL);
      continue;
    }
    switch (trap->trap) {
      case platform::Trap::kSyscall:
        partial_ = trap->partial;
        if (trap->hot) [[unlikely]] {
          RewriteCall(*mm_, regs_.rip - 2, regs_.orig_rax);
        }
        HandleSyscall();
        break;
      case platform::Trap::kFault:
        HandleFault(*trap);
        break;
      case platform::Trap::kInterrupted:
        break;
    }
  }
  TraceEvent(PTRACE_EVENT_EXIT, static_cast<uint64_t>(exit_status_));
  FinishExit();
}

void Task::AccountGuest() {
  const uint64_t since = state_since_.load(std::memory_order_relaxed);
  const uint64_t entered = context_->entered();
  const uint64_t left = context_->left();
  // It may have been interrupted before it entered.
  if (entered < since || left < entered) return;
  // Only this fiber writes these: no need of an atomic addition.
  system_cycles_.store(system_cycles_.load(std::memory_order_relaxed) + entered - since, std::memory_order_relaxed);
  user_cycles_.store(user_cycles_.load(std::memory_order_relaxed) + left - entered, std::memory_order_relaxed);
  state_since_.store(left, std::memory_order_relaxed);
}

void Task::PullRegisters() {
  partial_ = false;
  context_->PullRegisters(regs_);
}

void Task::HandleSyscall() {
  if (trace_work_.load(std::memory_order_relaxed) != 0) [[unlikely]] {
    if (TraceSyscallEntry()) MakeSyscall();
    TraceSyscallExit();
    return;
  }
  MakeSyscall();
  // It has let itself be traced, or somebody came meanwhile.
  if (trace_work_.load(std::memory_order_relaxed) != 0) [[unlikely]]
    TraceSyscallExit();
}

void Task::MakeSyscall() {
  // 32 bits, as Linux has it.
  syscall_number_ = static_cast<uint32_t>(regs_.orig_rax);
  SyscallArgs args{{regs_.rdi, regs_.rsi, regs_.rdx, regs_.r10, regs_.r8, regs_.r9}};
  regs_replaced_ = false;
  kernel_.CheckMemory(*this);
  Result<uint64_t> result = kernel_.Dispatch(*this, syscall_number_, args);
  if (regs_replaced_) return;  // execve, rt_sigreturn: the registers are already what the guest is to see
  if (result) {
    regs_.rax = *result;
    return;
  }
  regs_.rax = result.error().AsReturnValue();
  int code = result.error().value();
  if (code >= kErestartsys.value()) {
    restart_pending_ = true;
    restart_ = result.error();
  }
}

void Task::HandleFault(const platform::TrapInfo& trap) {
  syscall_number_ = ~uint64_t{0};
  int sig = trap.signal.signo;
  // Page faults are the only traps that mm may cure; si_code tells a real one from a non-canonical address (SI_KERNEL).
  bool page_fault = (sig == SIGSEGV && (trap.signal.code == SEGV_MAPERR || trap.signal.code == SEGV_ACCERR)) ||
                    (sig == SIGBUS && trap.signal.code == BUS_ADRERR);
  if (trap.trapno == platform::kTrapDebug && TraceStepGoesOn()) return;
  if (trap.trapno == platform::kTrapBreakpoint && LandOnPatch(*mm_, regs_)) return;
  siginfo_t info = MakeSigInfo(sig, trap.signal.code);
  info.si_addr = trap.signal.addr;
  if (page_fault) {
    Addr addr = reinterpret_cast<Addr>(trap.signal.addr);
    minor_faults_.fetch_add(1, std::memory_order_relaxed);
    Result<> handled = mm_->HandleUserFault(addr, trap.access, trap.access_known, regs_.rsp);
    if (handled || LeaveLostTrampoline(*mm_, regs_, addr)) return;
    switch (handled.error().value()) {
      case EFAULT:
        info = MakeSigInfo(SIGSEGV, SEGV_MAPERR);
        break;
      case EACCES:
        info = MakeSigInfo(SIGSEGV, SEGV_ACCERR);
        break;
      case ENOMEM:
        kernel_.OutOfMemory(*this);
        return;  // to fault again
      default:
        info = MakeSigInfo(SIGBUS, BUS_ADRERR);
        break;
    }
    info.si_addr = reinterpret_cast<void*>(addr);
  }
  fault_trapno_ = trap.trapno;
  fault_error_code_ = trap.error_code;
  fault_address_ = page_fault ? reinterpret_cast<Addr>(info.si_addr) : 0;
  ForceSignal(info);
}

}  // namespace redoubt::kernel
