// The platform contract: run a guest context in an address space until it traps. One conformance suite
// (conformance_test) runs on every platform.
#ifndef REDOUBT_PKG_PLATFORM_PLATFORM_H_
#define REDOUBT_PKG_PLATFORM_PLATFORM_H_

#include <signal.h>
#include <sys/user.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/fiber/event_source.h"
#include "pkg/hostarch/hostarch.h"
#include "pkg/platform/rewriter.h"
#include "pkg/refs/refs.h"

namespace redoubt::platform {

// The general registers of a guest thread, as ptrace(2) PTRACE_GETREGS lays them out; fs_base and gs_base included.
// After a syscall rax is -ENOSYS and orig_rax the number, as at a Linux syscall-entry stop; rcx and r11 are clobbered.
// Switch ignores orig_rax and never restarts anything by itself.
using Registers = user_regs_struct;

// The extended (x87, SSE, AVX, ...) state in XSAVE's standard format (SDM vol. 1, 13.4). `bytes` is empty for the
// initial state. Valid in the Sentry only after Context::PullFpState, which names no features but FpStateFeatures(); a
// change is seen by the guest after PushFpState.
struct FpState {
  std::vector<std::byte> bytes;
};
// fp_state_amd64_unsafe.cc:
// The features that may appear in the area: XCR0's, but for protection keys and AMX's tiles.
uint64_t FpStateFeatures();
// Bytes of the XSAVE area with them (fp_state_host.h: with all that the host has).
size_t FpStateSize();
// MXCSR bits that may be set; any other makes xrstor fault.
uint32_t FpStateMxcsrMask();
// The state of a fresh process (fninit, MXCSR 0x1f80) as an XSAVE area of FpStateSize() bytes.
FpState InitialFpState();
// Makes any bytes a state that xrstor accepts: sized, unsupported features and reserved bits cleared. Empty stays
// empty.
void SanitizeFpState(FpState& state);

enum class Trap {
  kSyscall,      // the guest executed `syscall`
  kFault,        // memory access or other exception: `fault` says which
  kInterrupted,  // Context::Interrupt was called, or a tick of preemption
};

// Exception vectors (SDM vol. 3, 6.3.1).
inline constexpr uint64_t kTrapDivide = 0;
inline constexpr uint64_t kTrapDebug = 1;
inline constexpr uint64_t kTrapBreakpoint = 3;
inline constexpr uint64_t kTrapInvalidOpcode = 6;
inline constexpr uint64_t kTrapGeneralProtection = 13;
inline constexpr uint64_t kTrapPageFault = 14;
inline constexpr uint64_t kTrapX87 = 16;
inline constexpr uint64_t kTrapAlignment = 17;
inline constexpr uint64_t kTrapSimd = 19;

struct TrapInfo {
  Trap trap = Trap::kInterrupted;
  // For kFault: the signal Linux would send (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP); a siginfo_t is too
  // large to be cleared at every system call.
  struct Signal {
    int signo = 0;
    int code = 0;
    void* addr = nullptr;
  } signal;
  // For page faults (trapno == kTrapPageFault): what the access was. If !access_known the platform could not tell a
  // read from a write and `access` says read; the memory manager then takes it for a write where the VMA is writable.
  AccessType access{};
  bool access_known = true;
  // x86 exception vector and page-fault error code, for the signal frame (sigcontext trapno, err).
  uint64_t trapno = 0;
  uint64_t error_code = 0;

  // A system call: its instruction has trapped so often that it is worth rewriting (AddressSpace::rewriter).
  bool hot = false;
  // A system call: of the registers only rax, orig_rax and the arguments were fetched. Whoever looks at others, or
  // changes any but rax, calls Context::PullRegisters first.
  bool partial = false;

  bool is_page_fault() const { return trap == Trap::kFault && trapno == kTrapPageFault; }
};

// One change of a guest's mappings: as MapFile, or as Unmap if `access` is none. The file is the memory file.
struct MapOp {
  Addr addr = 0;
  uint64_t length = 0;
  uint64_t offset = 0;
  AccessType access{};
  bool populate = false;
};

// The memory of a guest process as the platform sees it. Thread-safe.
class AddressSpace : public RefCounted {
 public:
  // Maps [addr, addr + length) of the guest onto `fd` at `offset`, shared, with `access`, replacing what was there. All
  // page aligned. `populate`: make page-table entries now. ENOMEM if the host has none. An access of none maps nothing.
  // EINVAL for a range outside the platform's usable addresses or an fd that the platform was not created with. Bounded
  // work in the host, but it does not park, so mm may hold its locks. ESRCH if the host process was killed from
  // outside.
  virtual Result<> MapFile(Addr addr, int fd, uint64_t offset, uint64_t length, AccessType access, bool populate) = 0;
  // Nothing mapped in the range is fine.
  virtual Result<> Unmap(Addr addr, uint64_t length) = 0;
  // All of `ops` in order, for about the price of one where the platform can. Stops at the first error: those before it
  // are done, the others are not. Of the memory file given to UseMemoryFile.
  virtual Result<> Batch(std::span<const MapOp> ops) {
    for (const MapOp& op : ops) {
      if (op.access.any()) {
        TRY(MapFile(op.addr, memory_file_, op.offset, op.length, op.access, op.populate));
      } else {
        TRY(Unmap(op.addr, op.length));
      }
    }
    return {};
  }
  // The fd for Batch. The memory manager calls it once, before anything else.
  void UseMemoryFile(int fd) { memory_file_ = fd; }
  // For platforms that can make hot system call instructions cheaper; null elsewhere. Lives as long as this.
  virtual Rewriter* rewriter() { return nullptr; }
  // This one's memory is a copy of the parent's (fork), rewritten text included. Called once, early.
  virtual void Inherit(AddressSpace& parent) {}
  // The guest process is gone: frees host processes and memory. No Switch may be running or follow.
  virtual void Release() = 0;

 private:
  int memory_file_ = -1;
};

// The execution state of one guest thread: everything but its general registers.
class Context {
 public:
  virtual ~Context() = default;

  // Runs the guest from `regs` in `as` until it traps; `regs` then holds its state. Called from a fiber; blocks the
  // fiber. An error is the platform's (a stub was killed from outside: ESRCH; the host is out of memory: ENOMEM), never
  // the guest's, and the guest process cannot go on.
  // After a trap that was `partial` and no PullRegisters the guest goes on with its own registers and the rax of
  // `regs`.
  virtual Result<TrapInfo> Switch(AddressSpace& as, Registers& regs) = 0;

  // Makes the current or next Switch return kInterrupted soon. Any thread; not lost if it comes before Switch; several
  // make one.
  virtual void Interrupt() = 0;

  // The guest thread is about to sleep in the Sentry: what the platform keeps ready for its return may serve others.
  // Only a hint. Called as PullFpState is.
  virtual void Rest() {}

  // Completes the registers after a trap that was `partial`: all but rax, orig_rax, the arguments and fs_base. As
  // PullFpState otherwise.
  virtual void PullRegisters(Registers& regs) {}

  // Extended state, needed by signal frames, clone and core dumps only. Called from the context's own fiber outside
  // Switch.
  virtual Result<FpState> PullFpState() = 0;
  virtual Result<> PushFpState(const FpState& state) = 0;

  // When Switch last entered the guest, and when the guest trapped, by the time-stamp counter. For accounting, and good
  // to some ten nanoseconds, so that a platform need not read the counter while the guest waits. Any thread.
  uint64_t entered() const { return entered_.load(std::memory_order_relaxed); }
  uint64_t left() const { return left_.load(std::memory_order_relaxed); }

 protected:
  void NoteEntered(uint64_t cycles) { entered_.store(cycles, std::memory_order_relaxed); }
  void NoteLeft(uint64_t cycles) { left_.store(cycles, std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> entered_{0}, left_{0};
};

struct Requirements {
  int spares = 0;       // stub processes that are kept ready for new address spaces, where the platform has such
  bool rewrite = true;  // hot system call instructions, where the platform can
  int memory_fd = -1;   // the memory file; MapFile's fd is this or one passed later (may need sending to a stub)
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
  // What the executor of the fibers that call Switch must watch, or null. Owned by the platform.
  virtual fiber::EventSource* event_source() { return nullptr; }
};

}  // namespace redoubt::platform

#endif  // REDOUBT_PKG_PLATFORM_PLATFORM_H_
