// ptrace(2).
#include <asm/prctl.h>
#include <elf.h>
#include <linux/audit.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "pkg/sentry/syscalls/common.h"
#include "pkg/sentry/syscalls/handlers.h"

namespace redoubt::syscalls {
namespace {

using kernel::Trace;
using platform::Registers;

constexpr uint64_t kOptions = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE |
                              PTRACE_O_TRACEEXEC | PTRACE_O_TRACEVFORKDONE | PTRACE_O_TRACEEXIT |
                              PTRACE_O_TRACESECCOMP | PTRACE_O_EXITKILL;
// asm/ptrace-abi.h and linux/ptrace.h; glibc's header has no names for them.
constexpr int kArchPrctl = 30;
constexpr size_t kFxsaveSize = sizeof(user_fpregs_struct);
// The kernel's struct user has two words behind glibc's.
constexpr uint64_t kUserSize = sizeof(struct user) + 2 * sizeof(uint64_t);
// Where an XSAVE area that a debugger sees says which components there are (the kernel's USER_XSTATE_XCR0_WORD).
constexpr size_t kXcr0Offset = 464;
constexpr size_t kMaxPeek = 1024;

Result<Registers> GetRegisters(Task& task, Task& tracee) {
  return task.WithTracee(tracee, [](Trace&, Registers& regs) -> Result<Registers> { return regs; });
}

Result<siginfo_t> GetSigInfo(Task& task, Task& tracee) {
  return task.WithTracee(tracee, [](Trace& trace, Registers&) -> Result<siginfo_t> {
    if (!trace.has_info) return Err(EINVAL);
    return trace.info;
  });
}

// The XSAVE area, whole.
Result<std::vector<std::byte>> GetFpState(Task& task, Task& tracee) {
  platform::FpState fp =
      TRY(task.WithTracee(tracee, [](Trace& trace, Registers&) -> Result<platform::FpState> { return trace.fp; }));
  if (fp.bytes.empty()) fp = platform::InitialFpState();
  const uint64_t features = platform::FpStateFeatures();
  std::memcpy(fp.bytes.data() + kXcr0Offset, &features, sizeof(features));
  return std::move(fp.bytes);
}

// The first bytes of the area become `bytes`.
Result<> SetFpState(Task& task, Task& tracee, std::span<const std::byte> bytes) {
  platform::FpState fp{.bytes = TRY(GetFpState(task, tracee))};
  std::memcpy(fp.bytes.data(), bytes.data(), std::min(bytes.size(), fp.bytes.size()));
  platform::SanitizeFpState(fp);
  return task.WithTracee(tracee, [&](Trace& trace, Registers&) -> Result<> {
    trace.fp = std::move(fp);
    trace.fp_changed = true;
    return {};
  });
}

Result<RefPtr<mm::MemoryManager>> MemoryOf(Task& task, Task& tracee) {
  TRY(GetRegisters(task, tracee));
  RefPtr<mm::MemoryManager> mm = tracee.GetMm();
  if (!mm) return Err(ESRCH);
  return mm;
}

Result<uint64_t> Peek(Task& task, Task& tracee, Addr addr, Addr to) {
  RefPtr<mm::MemoryManager> mm = TRY(MemoryOf(task, tracee));
  uint64_t word = 0;
  Result<size_t> n = mm->ForceCopyIn(addr, std::as_writable_bytes(std::span(&word, 1)));
  if (!n || *n != sizeof(word)) return Err(EIO);
  TRY(task.mm().CopyOutObject(to, word));
  return 0;
}

Result<uint64_t> Poke(Task& task, Task& tracee, Addr addr, uint64_t word) {
  RefPtr<mm::MemoryManager> mm = TRY(MemoryOf(task, tracee));
  Result<size_t> n = mm->ForceCopyOut(addr, std::as_bytes(std::span(&word, 1)));
  if (!n || *n != sizeof(word)) return Err(EIO);
  return 0;
}

// struct user: the registers, and the debug registers. The number of the one at `offset`; -1.
int DebugRegister(uint64_t offset) {
  constexpr uint64_t kStart = offsetof(struct user, u_debugreg);
  if (offset < kStart || offset >= sizeof(struct user)) return -1;
  return static_cast<int>((offset - kStart) / sizeof(uint64_t));
}

Result<uint64_t> PeekUser(Task& task, Task& tracee, uint64_t offset, Addr to) {
  if (offset % sizeof(uint64_t) != 0 || offset >= kUserSize) return Err(EIO);
  const uint64_t word = TRY(task.WithTracee(tracee, [&](Trace& trace, Registers& regs) -> Result<uint64_t> {
    uint64_t w = 0;
    if (const int n = DebugRegister(offset); n >= 0) {
      w = trace.debug[n];
    } else if (offset < sizeof(regs)) {
      std::memcpy(&w, reinterpret_cast<const std::byte*>(&regs) + offset, sizeof(w));
    }
    return w;
  }));
  TRY(task.mm().CopyOutObject(to, word));
  return 0;
}

Result<uint64_t> PokeUser(Task& task, Task& tracee, uint64_t offset, uint64_t word) {
  if (offset % sizeof(uint64_t) != 0 || offset >= kUserSize) return Err(EIO);
  Registers regs = TRY(GetRegisters(task, tracee));
  if (offset < sizeof(regs)) {
    std::memcpy(reinterpret_cast<std::byte*>(&regs) + offset, &word, sizeof(word));
    TRY(task.SetTraceeRegisters(tracee, regs));
    return 0;
  }
  const int n = DebugRegister(offset);
  // DR4 and DR5 are not there.
  if (n < 0 || n == 4 || n == 5) return Err(EIO);
  TRY(task.SetTraceeDebugRegister(tracee, n, word));
  return 0;
}

// PTRACE_GETREGSET and PTRACE_SETREGSET.
Result<uint64_t> RegisterSet(Task& task, Task& tracee, uint64_t type, Addr iov_addr, bool set) {
  iovec iov = TRY(task.mm().CopyInObject<iovec>(iov_addr));
  if (iov.iov_len % sizeof(uint64_t) != 0) return Err(EINVAL);
  Registers regs = TRY(GetRegisters(task, tracee));
  std::vector<std::byte> state;
  std::span<std::byte> whole;
  switch (type) {
    case NT_PRSTATUS:
      whole = std::as_writable_bytes(std::span(&regs, 1));
      break;
    case NT_PRFPREG:
    case NT_X86_XSTATE:
      state = TRY(GetFpState(task, tracee));
      whole = type == NT_PRFPREG ? std::span(state).first(kFxsaveSize) : std::span(state);
      break;
    default:
      return Err(EINVAL);
  }
  iov.iov_len = std::min(iov.iov_len, whole.size());
  const std::span<std::byte> part = whole.first(iov.iov_len);
  const Addr base = reinterpret_cast<Addr>(iov.iov_base);
  if (!set) {
    TRY(task.mm().CopyOutAll(base, part));
  } else {
    if (type == NT_X86_XSTATE && part.size() != whole.size()) return Err(EFAULT);
    TRY(task.mm().CopyInAll(base, part));
    if (type == NT_PRSTATUS) {
      TRY(task.SetTraceeRegisters(tracee, regs));
    } else {
      TRY(SetFpState(task, tracee, whole));
    }
  }
  TRY(task.mm().CopyOutObject(iov_addr, iov));
  return 0;
}

Result<uint64_t> PeekSigInfo(Task& task, Task& tracee, Addr args_addr, Addr to) {
  const auto args = TRY(task.mm().CopyInObject<__ptrace_peeksiginfo_args>(args_addr));
  if ((args.flags & ~uint32_t{PTRACE_PEEKSIGINFO_SHARED}) != 0 || args.nr < 0) return Err(EINVAL);
  const bool shared = (args.flags & PTRACE_PEEKSIGINFO_SHARED) != 0;
  const size_t most = std::min<size_t>(static_cast<size_t>(args.nr), kMaxPeek);
  const std::vector<siginfo_t> infos = TRY(task.PeekSignals(tracee, shared, args.off, most));
  uint64_t done = 0;
  for (const siginfo_t& info : infos) {
    if (Result<> r = task.mm().CopyOutObject(to + done * sizeof(info), info); !r) {
      return done > 0 ? Result<uint64_t>(done) : Err(r.error());
    }
    done++;
  }
  return done;
}

Result<uint64_t> GetSyscallInfo(Task& task, Task& tracee, size_t size, Addr to) {
  __ptrace_syscall_info info;
  std::memset(&info, 0, sizeof(info));
  size_t length = offsetof(__ptrace_syscall_info, entry);
  TRY(task.WithTracee(tracee, [&](Trace& trace, Registers& regs) -> Result<> {
    info.arch = AUDIT_ARCH_X86_64;
    info.instruction_pointer = regs.rip;
    info.stack_pointer = regs.rsp;
    const uint64_t args[] = {regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9};
    const int code = trace.has_info ? trace.info.si_code : 0;
    if (code == (SIGTRAP | 0x80) && trace.message == kernel::kMessageSyscallEntry) {
      info.op = PTRACE_SYSCALL_INFO_ENTRY;
      info.entry.nr = regs.orig_rax;
      std::copy(std::begin(args), std::end(args), info.entry.args);
      length = offsetof(__ptrace_syscall_info, entry) + sizeof(info.entry);
    } else if (code == (SIGTRAP | 0x80) && trace.message == kernel::kMessageSyscallExit) {
      info.op = PTRACE_SYSCALL_INFO_EXIT;
      info.exit.rval = static_cast<int64_t>(regs.rax);
      constexpr int64_t kMaxErrno = 4095;
      info.exit.is_error = info.exit.rval < 0 && info.exit.rval >= -kMaxErrno;
      length = offsetof(__ptrace_syscall_info, exit.is_error) + sizeof(info.exit.is_error);
    } else if (code == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8)) {
      info.op = PTRACE_SYSCALL_INFO_SECCOMP;
      info.seccomp.nr = regs.orig_rax;
      std::copy(std::begin(args), std::end(args), info.seccomp.args);
      info.seccomp.ret_data = static_cast<uint32_t>(trace.message);
      length = offsetof(__ptrace_syscall_info, seccomp.ret_data) + sizeof(info.seccomp.ret_data);
    }
    return {};
  }));
  TRY(task.mm().CopyOutAll(to, std::as_bytes(std::span(&info, 1)).first(std::min(size, length))));
  return length;
}

Result<uint64_t> TraceeArchPrctl(Task& task, Task& tracee, uint64_t value, int code) {
  Registers regs = TRY(GetRegisters(task, tracee));
  switch (code) {
    case ARCH_GET_FS:
    case ARCH_GET_GS:
      TRY(task.mm().CopyOutObject<uint64_t>(value, code == ARCH_GET_FS ? regs.fs_base : regs.gs_base));
      return 0;
    case ARCH_SET_FS:
    case ARCH_SET_GS:
      if (value >= task.kernel().platform().max_user_address()) return Err(EPERM);
      (code == ARCH_SET_FS ? regs.fs_base : regs.gs_base) = value;
      TRY(task.SetTraceeRegisters(tracee, regs));
      return 0;
    default:
      return Err(EINVAL);
  }
}

}  // namespace

Result<uint64_t> Ptrace(Task& task, const SyscallArgs& a) {
  const int64_t request = a.I64(0);
  const Addr addr = a.Pointer(2);
  const uint64_t data = a.U64(3);
  const Addr to = a.Pointer(3);
  if (request == PTRACE_TRACEME) {
    TRY(task.TraceMe());
    return 0;
  }
  RefPtr<Task> tracee = task.FindTask(a.I32(1));
  if (!tracee) return Err(ESRCH);
  Task& t = *tracee;
  const int signal = data > INT32_MAX ? -1 : static_cast<int>(data);
  switch (request) {
    case PTRACE_ATTACH:
      TRY(task.Attach(t, false, 0));
      return 0;
    case PTRACE_SEIZE:
      if (addr != 0 || (data & ~kOptions) != 0) return Err(EIO);
      TRY(task.Attach(t, true, static_cast<uint32_t>(data)));
      return 0;
    case PTRACE_KILL:
      TRY(task.KillTracee(t));
      return 0;
    case PTRACE_INTERRUPT:
      TRY(task.InterruptTracee(t));
      return 0;
    case PTRACE_LISTEN:
      TRY(task.Listen(t));
      return 0;
    case PTRACE_DETACH:
      TRY(task.Detach(t, signal));
      return 0;
    case PTRACE_CONT:
      TRY(task.Resume(t, 0, signal));
      return 0;
    case PTRACE_SYSCALL:
      TRY(task.Resume(t, kernel::kTraceSyscall, signal));
      return 0;
    case PTRACE_SINGLESTEP:
      TRY(task.Resume(t, kernel::kTraceStep, signal));
      return 0;
    case PTRACE_SYSEMU:
      TRY(task.Resume(t, kernel::kTraceEmulate, signal));
      return 0;
    case PTRACE_SYSEMU_SINGLESTEP:
      TRY(task.Resume(t, kernel::kTraceEmulate | kernel::kTraceStep, signal));
      return 0;
    case PTRACE_PEEKTEXT:
    case PTRACE_PEEKDATA:
      return Peek(task, t, addr, to);
    case PTRACE_POKETEXT:
    case PTRACE_POKEDATA:
      return Poke(task, t, addr, data);
    case PTRACE_PEEKUSER:
      return PeekUser(task, t, addr, to);
    case PTRACE_POKEUSER:
      return PokeUser(task, t, addr, data);
    case PTRACE_GETREGS:
      TRY(task.mm().CopyOutObject(to, TRY(GetRegisters(task, t))));
      return 0;
    case PTRACE_SETREGS: {
      TRY(GetRegisters(task, t));
      const Registers regs = TRY(task.mm().CopyInObject<Registers>(to));
      TRY(task.SetTraceeRegisters(t, regs));
      return 0;
    }
    case PTRACE_GETFPREGS: {
      const std::vector<std::byte> state = TRY(GetFpState(task, t));
      TRY(task.mm().CopyOutAll(to, std::span(state).first(kFxsaveSize)));
      return 0;
    }
    case PTRACE_SETFPREGS: {
      TRY(GetRegisters(task, t));
      std::array<std::byte, kFxsaveSize> area;
      TRY(task.mm().CopyInAll(to, area));
      TRY(SetFpState(task, t, area));
      return 0;
    }
    case PTRACE_GETREGSET:
      return RegisterSet(task, t, addr, to, false);
    case PTRACE_SETREGSET:
      return RegisterSet(task, t, addr, to, true);
    case PTRACE_SETOPTIONS:
      TRY(task.WithTracee(t, [&](Trace& trace, Registers&) -> Result<> {
        if ((data & ~kOptions) != 0) return Err(EINVAL);
        trace.options = static_cast<uint32_t>(data);
        return {};
      }));
      return 0;
    case PTRACE_GETEVENTMSG: {
      const uint64_t message =
          TRY(task.WithTracee(t, [](Trace& trace, Registers&) -> Result<uint64_t> { return trace.message; }));
      TRY(task.mm().CopyOutObject(to, message));
      return 0;
    }
    case PTRACE_GETSIGINFO:
      TRY(task.mm().CopyOutObject(to, TRY(GetSigInfo(task, t))));
      return 0;
    case PTRACE_SETSIGINFO: {
      TRY(GetRegisters(task, t));
      const siginfo_t info = TRY(task.mm().CopyInObject<siginfo_t>(to));
      TRY(task.WithTracee(t, [&](Trace& trace, Registers&) -> Result<> {
        if (!trace.has_info) return Err(EINVAL);
        trace.info = info;
        return {};
      }));
      return 0;
    }
    case PTRACE_PEEKSIGINFO:
      return PeekSigInfo(task, t, addr, to);
    case PTRACE_GETSIGMASK:
      if (addr != sizeof(SignalSet)) return Err(EINVAL);
      TRY(task.mm().CopyOutObject(to, TRY(task.GetTraceeMask(t))));
      return 0;
    case PTRACE_SETSIGMASK: {
      TRY(GetRegisters(task, t));
      if (addr != sizeof(SignalSet)) return Err(EINVAL);
      TRY(task.SetTraceeMask(t, TRY(task.mm().CopyInObject<SignalSet>(to))));
      return 0;
    }
    case PTRACE_GET_SYSCALL_INFO:
      return GetSyscallInfo(task, t, addr, to);
    case kArchPrctl:
      return TraceeArchPrctl(task, t, addr, signal);
    default:
      // ESRCH first, as for all of them.
      TRY(GetRegisters(task, t));
      return Err(EIO);
  }
}

}  // namespace redoubt::syscalls
