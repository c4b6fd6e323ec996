#include "pkg/platform/ptrace/context.h"

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>

#include "pkg/fiber/fiber.h"
#include "pkg/platform/fp_state_host.h"
#include "pkg/platform/ptrace/address_space.h"
#include "pkg/platform/ptrace/fault_amd64.h"
#include "pkg/platform/ptrace/placement.h"
#include "pkg/platform/ptrace/tracee_unsafe.h"
#include "pkg/platform/registers_amd64.h"

namespace redoubt::platform::ptrace {
namespace {

// Makes a running traced thread stop. Any signal would do, all are dropped; this one is not queued twice.
constexpr int kInterruptSignal = SIGURG;

std::atomic<uint64_t> g_next_id{1};

// Waits for a stop while the guest runs.
Result<Stop> WaitForGuest(pid_t tid) {
  fiber::BlockingRegion region;
  return WaitStop(tid);
}

// An exception of the guest's own, as opposed to a signal that someone on the host sent.
std::optional<siginfo_t> ExceptionAt(pid_t tid, const Stop& stop) {
  switch (stop.signal()) {
    case SIGSEGV:
    case SIGBUS:
    case SIGFPE:
    case SIGILL:
    case SIGTRAP:
      break;
    default:
      return std::nullopt;
  }
  Result<siginfo_t> info = GetSiginfo(tid);
  // Codes above 0 are the kernel's alone.
  if (!info || info->si_code <= 0) return std::nullopt;
  return *info;
}

}  // namespace

PtraceContext::PtraceContext() : id_(g_next_id.fetch_add(1, std::memory_order_relaxed)) {}

Result<TrapInfo> PtraceContext::Switch(AddressSpace& as, Registers& regs) {
  if (ConsumeInterrupt()) return TrapInfo{};
  SanitizeRegisters(regs);
  if (std::optional<TrapInfo> fault = CheckRegisters(regs)) return *fault;

  StubProcess& process = static_cast<PtraceAddressSpace&>(as).process();
  TracedThread& thread = *TRY(process.ThreadOfCaller());
  pid_t tid = thread.tid;
  TRY(LoadFpState(thread));
  regs.orig_rax = ~0ull;  // or the host might take rax for a restart code of its own
  if (Result<> r = SetRegisters(tid, regs); !r) {
    if (r.error() == Errno(EIO)) return GeneralProtectionFault();
    return Err(r.error());
  }

  if (!Enter(thread)) return TrapInfo{};
  TrapInfo info;
  Result<> result;
  NoteEntered(__builtin_ia32_rdtsc());
  Placement::OfCaller().Before(thread, process.host());
  for (;;) {
    result = ContinueEmulated(tid);
    if (!result) break;
    Result<Stop> stop = WaitForGuest(tid);
    if (!stop) {
      result = Err(stop.error());
      break;
    }
    if (stop->is_syscall()) {
      info.trap = Trap::kSyscall;
      break;
    }
    if (stop->event() == 0) {
      if (std::optional<siginfo_t> exception = ExceptionAt(tid, *stop)) {
        info.trap = Trap::kFault;
        info.signal = {exception->si_signo, exception->si_code, exception->si_addr};
        break;
      }
    }
    // A stray signal, a group stop from outside, or an interrupt.
    if (ConsumeInterrupt()) break;
  }
  NoteLeft(__builtin_ia32_rdtsc());
  Placement::OfCaller().After(thread);
  Leave();
  TRY(result);

  regs = TRY(GetRegisters(tid));
  TRY(SaveFpState(thread));
  if (info.trap == Trap::kFault) DescribeFault(regs, info);
  if (info.trap == Trap::kSyscall) {
    // `syscall` leaves rip in rcx; whatever else came here must be asked about.
    bool native = regs.cs == kUserCs && (regs.rcx == regs.rip || IsNativeSyscall(tid));
    if (!native) return GeneralProtectionFault();
  } else {
    regs.orig_rax = ~0ull;
  }
  return info;
}

bool PtraceContext::Enter(const TracedThread& thread) {
  sync::MutexLock lock(mu_);
  if (pending_) {
    pending_ = false;
    return false;
  }
  running_pid_ = thread.pid;
  running_tid_ = thread.tid;
  return true;
}

void PtraceContext::Leave() {
  sync::MutexLock lock(mu_);
  running_pid_ = 0;
  running_tid_ = 0;
}

bool PtraceContext::ConsumeInterrupt() {
  sync::MutexLock lock(mu_);
  return std::exchange(pending_, false);
}

void PtraceContext::Interrupt() {
  sync::MutexLock lock(mu_);
  if (pending_) return;
  pending_ = true;
  // Under the lock, so that the thread cannot have begun to serve another context. If it stops for a reason of its own
  // first, the signal stays pending in it and is dropped by whoever runs it next; pending_ stays with this context.
  if (running_tid_ != 0) syscall(SYS_tgkill, running_pid_, running_tid_, kInterruptSignal);
}

Result<> PtraceContext::LoadFpState(const TracedThread& thread) {
  if (thread.fp_context == id_ && thread.fp_version == fp_version_) return {};
  if (fp_.bytes.empty()) fp_ = InitialFpState();
  if (FpStateSize() == FpStateHostSize()) return SetFpState(thread.tid, fp_.bytes);
  std::vector<std::byte> whole = fp_.bytes;
  whole.resize(FpStateHostSize());
  return SetFpState(thread.tid, whole);
}

Result<> PtraceContext::SaveFpState(TracedThread& thread) {
  if (fp_.bytes.size() != FpStateSize()) fp_.bytes.resize(FpStateSize());
  TRY(GetFpState(thread.tid, fp_.bytes));
  // Older copies of this context's state, in threads that it used before, are stale now.
  fp_version_++;
  thread.fp_context = id_;
  thread.fp_version = fp_version_;
  return {};
}

Result<FpState> PtraceContext::PullFpState() {
  if (fp_.bytes.empty()) fp_ = InitialFpState();
  // The host may name features that are no part of a guest's state.
  FpState state = fp_;
  SanitizeFpState(state);
  return state;
}

Result<> PtraceContext::PushFpState(const FpState& state) {
  fp_ = state;
  SanitizeFpState(fp_);
  fp_version_++;
  return {};
}

}  // namespace redoubt::platform::ptrace
