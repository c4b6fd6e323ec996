// The platform contract: run a guest context in an address space until it traps. One conformance suite
// (conformance_test) runs on every platform.
#ifndef REDOUBT_PKG_PLATFORM_PLATFORM_H_
#define REDOUBT_PKG_PLATFORM_PLATFORM_H_

#include <signal.h>
#include <sys/user.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/hostarch/hostarch.h"
#include "pkg/refs/refs.h"

namespace redoubt::platform {

// The general registers of a guest thread, as ptrace(2) PTRACE_GETREGS lays them out; fs_base and gs_base included.
// After a syscall rax is -ENOSYS and orig_rax the number, as at a Linux syscall-entry stop; rcx and r11 are clobbered.
using Registers = user_regs_struct;

// The extended (x87, SSE, AVX, ...) state in XSAVE's standard format (SDM vol. 1, 13.4). `bytes` is empty for the initial
// state. Valid in the Sentry only after Context::PullFpState; a change is seen by the guest after PushFpState.
struct FpState {
  std::vector<std::byte> bytes;
};
// Bytes of the XSAVE area for the features enabled on this host.
size_t FpStateSize();
// The state of a fresh process (fninit, MXCSR 0x1f80) as an XSAVE area of FpStateSize() bytes.
FpState InitialFpState();

enum class Trap {
  kSyscall,      // the guest executed `syscall`
  kFault,        // memory access or other exception: `fault` says which
  kInterrupted,  // Context::Interrupt was called, or a tick of preemption
};

struct TrapInfo {
  Trap trap = Trap::kInterrupted;
  // For kFault: the signal Linux would send (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP) with si_code, si_addr and, for page
  // faults, what the access was.
  siginfo_t signal{};
  AccessType access{};
  // x86 trap number and page-fault error code, for the signal frame (sigcontext trapno, err).
  uint64_t trapno = 0;
  uint64_t error_code = 0;
};

// The memory of a guest process as the platform sees it. Thread-safe.
class AddressSpace : public RefCounted {
 public:
  // Maps [addr, addr + length) of the guest onto `fd` at `offset`, shared, with `access`, replacing what was there. All page
  // aligned. `populate`: make page-table entries now. ENOMEM if the host has none. An access of none maps nothing.
  virtual Result<> MapFile(Addr addr, int fd, uint64_t offset, uint64_t length, AccessType access, bool populate) = 0;
  // Nothing mapped in the range is fine.
  virtual Result<> Unmap(Addr addr, uint64_t length) = 0;
  // The guest process is gone: frees host processes and memory. No Switch may be running or follow.
  virtual void Release() = 0;
};

// The execution state of one guest thread: everything but its general registers.
class Context {
 public:
  virtual ~Context() = default;

  // Runs the guest from `regs` in `as` until it traps; `regs` then holds its state. Called from a fiber; blocks the fiber.
  // An error is the platform's (a stub was killed from outside: ESRCH; the host is out of memory: ENOMEM), never the
  // guest's, and the guest process cannot go on.
  virtual Result<TrapInfo> Switch(AddressSpace& as, Registers& regs) = 0;

  // Makes the current or next Switch return kInterrupted soon. Any thread; not lost if it comes before Switch; several make one.
  virtual void Interrupt() = 0;

  // Extended state, needed by signal frames, clone and core dumps only. Called from the context's own fiber outside Switch.
  virtual Result<FpState> PullFpState() = 0;
  virtual Result<> PushFpState(const FpState& state) = 0;
};

struct Requirements {
  int memory_fd = -1;  // the memory file; MapFile's fd is this or one passed later (may need sending to a stub)
};

class Platform {
 public:
  virtual ~Platform() = default;
  virtual std::string_view name() const = 0;
  virtual Result<RefPtr<AddressSpace>> NewAddressSpace() = 0;
  virtual Result<std::unique_ptr<Context>> NewContext() = 0;
  // Guest addresses usable for mappings: [min, max).
  virtual Addr min_user_address() const = 0;
  virtual Addr max_user_address() const = 0;
};

}  // namespace redoubt::platform

#endif  // REDOUBT_PKG_PLATFORM_PLATFORM_H_
