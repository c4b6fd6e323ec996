// One virtual processor: its entry into ring 3, and what its exits mean.
//
// Between runs it stands in ring 0 at the trap that ended the last, or in ring 3 if a signal did. Its registers travel
// through the page shared with KVM (KVM_CAP_SYNC_REGS), so a turn is one host call: KVM_RUN.
#ifndef REDOUBT_PKG_PLATFORM_KVM_VCPU_UNSAFE_H_
#define REDOUBT_PKG_PLATFORM_KVM_VCPU_UNSAFE_H_

#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

#include "pkg/errors/errors.h"
#include "pkg/platform/kvm/vm.h"
#include "pkg/platform/platform.h"
#include "pkg/refs/refs.h"
#include "pkg/ring0/pagetables/pagetables.h"

namespace redoubt::platform::kvm {

// The page tables of an address space. A vCPU that has them loaded holds a reference, since it goes on walking them in
// ring 0 until it loads others.
class GuestTables final : public RefCounted {
 public:
  explicit GuestTables(ring0::pagetables::PageTables t);
  ring0::pagetables::PageTables tables;  // guarded by its address space
  const uint64_t id;                     // never 0, never used again
};

struct Exit {
  enum class Kind {
    kSyscall,
    kException,
    kInterrupted,  // by a signal, or before ring 3 was entered: the guest may go on from its registers
    kOwes,  // as kInterrupted, but an exception is on its way into the machine: Run must follow without Prepare, or the
            // next guest would have it. It ends in ring 0, some instructions from here
    kFailed,  // the host gave up; logged. The vCPU is set up anew when next used
  } kind = Kind::kFailed;
  // For kException.
  int vector = 0;
  uint64_t error_code = 0;
  Addr fault_address = 0;
};

// Used by one thread at a time, Kick excepted.
class Vcpu final {
 public:
  // `page` is the processor's own of ring 0 (ring0.h).
  static Result<std::unique_ptr<Vcpu>> Create(Vm& vm, int index, std::span<std::byte, kPageSize> page);
  ~Vcpu();
  Vcpu(const Vcpu&) = delete;
  Vcpu& operator=(const Vcpu&) = delete;

  // Loads a guest. `regs` must be sanitized and checked (registers_amd64.h). Run and Finish must follow.
  Result<> Prepare(const Registers& regs, const RefPtr<GuestTables>& tables);
  // Runs it until something happens. Blocks the OS thread.
  void Run();
  // What has happened; the guest's registers go to `regs`.
  Exit Finish(Registers& regs);

  // Makes the current or next Run end soon, with kInterrupted if nothing else ends it. Any thread.
  void Kick();
  // Later Kicks only.
  void ClearKick();

  // The extended state, in XSAVE's standard format, of Vm::xsave_size() bytes.
  Result<> GetFpState(std::span<std::byte> area);
  Result<> SetFpState(std::span<const std::byte> area);

  // Times that KVM_RUN was called.
  uint64_t runs() const { return runs_.load(std::memory_order_relaxed); }

 private:
  Vcpu(Vm& vm, int index, std::span<std::byte, kPageSize> page) : vm_(vm), index_(index), page_(page) {}
  Result<> Init();
  Result<> SetUp(uint64_t cr3);
  Result<> SetControlRegisters(kvm_sregs& s);
  uint64_t Cr3For(const GuestTables& tables);
  static uint64_t PcidOf(const GuestTables& tables) { return 1 + tables.id % (kPcids - 1); }
  Exit Fail(const char* what);
  // Ring 0 is where none of its code leads. A guest has brought it there by what should have been a fault of its own,
  // so that is what it gets, at address 0.
  Exit Lost(Registers& regs, const char* what);
  void CopyRegisters(Registers& regs) const;
  // A system call of 32-bit code: a general protection fault behind it.
  Exit Syscall32(Registers& regs) const;
  // Whether ring 3 at `rip` has made a system call; then `regs` are made those after it.
  static bool AtLstar(Addr rip, Registers& regs);

  static constexpr size_t kPcids = 64;

  Vm& vm_;
  const int index_;
  const std::span<std::byte, kPageSize> page_;
  Fd fd_;
  kvm_run* run_ = nullptr;
  // What CR3 points to, and what it will once ring 0 has loaded it; neither may go before.
  RefPtr<GuestTables> loaded_;
  RefPtr<GuestTables> next_;
  // Whose translations may be cached under each PCID: GuestTables::id.
  std::array<uint64_t, kPcids> pcid_owners_{};
  bool broken_ = true;            // must be set up
  int run_error_ = 0;             // errno of the last KVM_RUN, or 0
  std::atomic<pid_t> thread_{0};  // in Run
  std::atomic<uint64_t> runs_{0};
};

}  // namespace redoubt::platform::kvm

#endif  // REDOUBT_PKG_PLATFORM_KVM_VCPU_UNSAFE_H_
