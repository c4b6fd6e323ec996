// seccomp(2): what becomes of a system call that a filter is asked about, and who has which filters.
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstring>

#include "pkg/log/log.h"
#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/kernel/task.h"

namespace redoubt::kernel {
namespace {

// Of SIGSYS; glibc's headers lack it.
constexpr int kSysSeccomp = 1;
// MAX_ERRNO: what a filter gives beyond counts as that.
constexpr uint16_t kMaxErrno = 4095;

bool StrictAllows(uint64_t number) {
  return number == SYS_read || number == SYS_write || number == SYS_exit || number == SYS_rt_sigreturn;
}

}  // namespace

std::optional<Result<uint64_t>> Task::CheckSeccomp(uint64_t* number_in_out, SyscallArgs* args_in_out,
                                                   bool after_tracer) {
  const uint64_t number = *number_in_out;
  const SyscallArgs& args = *args_in_out;
  // Of a task that is about to end, or that sees registers of before the call.
  constexpr auto kNoAnswer = Err(ENOSYS);
  if (seccomp_mode() == SECCOMP_MODE_STRICT) {
    if (StrictAllows(number)) return std::nullopt;
    LOG_INFO("task {} ({}): killed for system call {} in strict mode", tid(), name_, number);
    Exit(SIGKILL);
    return kNoAnswer;
  }
  const SeccompFilter* filters = seccomp_.load(std::memory_order_acquire);
  const auto nr = static_cast<uint32_t>(number);
  if (filters->AlwaysAllows(nr)) return std::nullopt;
  seccomp_data data{.nr = static_cast<int>(nr), .arch = AUDIT_ARCH_X86_64, .instruction_pointer = 0, .args = {}};
  std::memcpy(data.args, args.v, sizeof(data.args));
  if (filters->LoadsInstructionPointer()) data.instruction_pointer = regs().rip;
  const SeccompFilter::Verdict verdict = filters->Run(data);
  if (verdict.log || verdict.action == SECCOMP_RET_LOG) {
    LOG_DEBUG("task {} ({}): seccomp: system call {}: action {:#x}", tid(), name_, data.nr, verdict.action);
  }
  switch (verdict.action) {
    case SECCOMP_RET_ALLOW:
    case SECCOMP_RET_LOG:
      return std::nullopt;
    case SECCOMP_RET_ERRNO: {
      const Errno error(std::min(verdict.data, kMaxErrno));
      // Success, or a number that would be taken for a restart code, whose like no call returns.
      if (error.value() == 0 || error.value() >= kErestartsys.value()) return Result<uint64_t>(error.AsReturnValue());
      return Err(error);
    }
    case SECCOMP_RET_TRACE: {
      // Once more after the tracer has had it: what he makes of it is not above the filters.
      if (after_tracer) return std::nullopt;
      if (!TracesEvent(PTRACE_EVENT_SECCOMP)) return Err(ENOSYS);
      (void)regs();
      regs_.rax = Errno(ENOSYS).AsReturnValue();
      TraceEvent(PTRACE_EVENT_SECCOMP, verdict.data);
      if (IsDying()) return kNoAnswer;
      // -1: not to be made, and the result is what the tracer left there.
      if (static_cast<int32_t>(regs_.orig_rax) == -1) return Result<uint64_t>(regs_.rax);
      *number_in_out = syscall_number_ = regs_.orig_rax;
      *args_in_out = {{regs_.rdi, regs_.rsi, regs_.rdx, regs_.r10, regs_.r8, regs_.r9}};
      return CheckSeccomp(number_in_out, args_in_out, true);
    }
    case SECCOMP_RET_USER_NOTIF: {
      if (verdict.listener == nullptr) return Err(ENOSYS);
      data.instruction_pointer = regs().rip;
      Result<std::optional<SeccompListener::Decision>> decision = verdict.listener->Ask(
          data, RefPtr<RefCounted>(this), [this](bool killable) { return killable ? SleepKillable() : wait::Block(); });
      if (!decision) return Err(decision.error());
      if (!*decision) return Err(ENOSYS);
      if ((*decision)->proceed) return std::nullopt;
      return Result<uint64_t>(static_cast<uint64_t>((*decision)->value));
    }
    case SECCOMP_RET_TRAP: {
      // As if the call had not been made, but behind its instruction.
      regs().rax = number;
      regs_replaced_ = true;
      siginfo_t info = MakeSigInfo(SIGSYS, kSysSeccomp);
      info.si_errno = verdict.data;
      info.si_call_addr = reinterpret_cast<void*>(regs().rip);
      info.si_syscall = data.nr;
      info.si_arch = data.arch;
      ForceSignal(info);
      return kNoAnswer;
    }
    default: {
      LOG_INFO("task {} ({}): killed for system call {} by its seccomp filter", tid(), name_, data.nr);
      bool alone = false;
      {
        sync::MutexLock lock(kernel_.mu);
        alone = group_->tasks.size() == 1;
      }
      if (verdict.action == SECCOMP_RET_KILL_THREAD && !alone) {
        Exit(SIGSYS);
      } else {
        ExitGroup(SIGSYS);
      }
      return kNoAnswer;
    }
  }
}

bool Task::IsDying() const {
  sync::MutexLock lock(kernel_.mu);
  return group_->exiting || (group_->execing != nullptr && group_->execing != this);
}

// As wait::Block, but only what ends the task wakes it.
Result<> Task::SleepKillable() {
  auto must_end = [this] {
    sync::MutexLock lock(kernel_.mu);
    if (group_->exiting || (group_->execing != nullptr && group_->execing != this)) return true;
    for (int sig = 1; sig <= kMaxSignal; sig++) {
      const SignalSet bit = SignalBit(sig);
      if (((pending_.set() | group_->pending.set()) & bit & ~signal_mask()) == 0) continue;
      if ((*group_->handlers)[sig].is_default() && DefaultActionOf(sig) == DefaultAction::kTerminate) return true;
    }
    return false;
  };
  if (must_end()) return Err(kErestartsys);
  FallAsleep();
  fiber::Park();
  WakeUp();
  if (must_end()) return Err(kErestartsys);
  return {};
}

Result<> Task::EnterSeccompStrict() {
  sync::MutexLock lock(kernel_.mu);
  if (seccomp_filters_) return Err(EINVAL);
  seccomp_mode_.store(SECCOMP_MODE_STRICT, std::memory_order_release);
  return {};
}

Result<int> Task::AddSeccompFilter(RefPtr<SeccompFilter> filter, bool all_threads) {
  sync::MutexLock lock(kernel_.mu);
  if (seccomp_mode() == SECCOMP_MODE_STRICT) return Err(EINVAL);
  const SeccompFilter* own = seccomp_filters_.get();
  // One listener is enough to ask.
  if (filter->HasListener() && own != nullptr && own->HasListener()) return Err(EBUSY);
  TRY(filter->Attach(seccomp_filters_));
  if (!all_threads) {
    UseSeccompFiltersLocked(std::move(filter));
    return 0;
  }
  for (const Task* t : group_->tasks) {
    if (t->seccomp_mode() == SECCOMP_MODE_STRICT) return t->tid();
    if (t->seccomp_filters_ && !t->seccomp_filters_->IsPartOf(own)) return t->tid();
  }
  for (Task* t : group_->tasks) {
    if (no_new_privs.load()) t->no_new_privs.store(true);
    t->UseSeccompFiltersLocked(filter);
  }
  return 0;
}

void Task::UseSeccompFiltersLocked(RefPtr<const SeccompFilter> filters) {
  seccomp_.store(filters.get(), std::memory_order_release);
  seccomp_filters_ = std::move(filters);
  seccomp_mode_.store(SECCOMP_MODE_FILTER, std::memory_order_release);
}

void Task::InheritSeccompLocked(const Task& parent) {
  no_new_privs.store(parent.no_new_privs.load());
  if (parent.seccomp_filters_) UseSeccompFiltersLocked(parent.seccomp_filters_);
  seccomp_mode_.store(static_cast<uint8_t>(parent.seccomp_mode()), std::memory_order_release);
}

}  // namespace redoubt::kernel
