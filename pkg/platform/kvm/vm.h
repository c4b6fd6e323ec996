// A virtual machine: its memory slots and what all its vCPUs have in common.
#ifndef REDOUBT_PKG_PLATFORM_KVM_VM_H_
#define REDOUBT_PKG_PLATFORM_KVM_VM_H_

#include <cstdint>
#include <memory>

#include "pkg/errors/errors.h"
#include "pkg/platform/kvm/api_unsafe.h"

namespace redoubt::platform::kvm {

// Guest-physical addresses. Nothing else is there.
inline constexpr uint64_t kRing0Physical = 0x100000;            // ring 0's pages, one slot
inline constexpr uint64_t kTablesPhysical = uint64_t{4} << 30;  // page tables (table_memory.h)
inline constexpr uint64_t kFilePhysical = uint64_t{64} << 30;   // the memory file (file_memory.h)
inline constexpr uint64_t kTableChunk = uint64_t{1} << 20;
inline constexpr uint64_t kMaxTableChunks = 1024;
inline constexpr uint64_t kFileChunk = uint64_t{64} << 20;
inline constexpr uint64_t kMaxFileChunks = 16384;
// Slot numbers.
inline constexpr uint32_t kRing0Slot = 0;
inline constexpr uint32_t kFirstTableSlot = 1;
inline constexpr uint32_t kFirstFileSlot = kFirstTableSlot + kMaxTableChunks;
inline constexpr uint32_t kSlots = kFirstFileSlot + kMaxFileChunks;
static_assert(kTablesPhysical + kTableChunk * kMaxTableChunks <= kFilePhysical);

// Thread-safe: KVM locks what it must.
class Vm final {
 public:
  // Logs why not: no /dev/kvm or no right to it (the error of open(2)), one that lacks what is needed (EOPNOTSUPP), or
  // a host that refuses (the error of the call).
  static Result<std::unique_ptr<Vm>> Create(Api& api);

  Api& api() const { return api_; }
  int fd() const { return vm_.get(); }
  // The processor that guests see: what KVM supports less what user code here cannot use.
  const CpuidTable& cpuid() const { return *cpuid_; }
  // XCR0 for guests: what the host has enabled for this process and KVM can keep.
  uint64_t xcr0() const { return xcr0_; }
  bool pcid() const { return pcid_; }
  // Bytes of KVM_GET_XSAVE2.
  size_t xsave_size() const { return xsave_size_; }
  size_t run_size() const { return run_size_; }
  int max_vcpus() const { return max_vcpus_; }
  // End of guest-physical addresses.
  uint64_t physical_end() const { return physical_end_; }

  Result<> AddSlot(uint32_t slot, uint64_t physical, std::byte* host, uint64_t size);
  Result<> RemoveSlot(uint32_t slot);

 private:
  explicit Vm(Api& api) : api_(api) {}
  Result<> Init();
  Result<> Require(const char* what, unsigned long capability, int least);
  void ReadCpuid();

  Api& api_;
  Fd kvm_;
  Fd vm_;
  std::unique_ptr<CpuidTable> cpuid_;
  uint64_t xcr0_ = 0;
  bool pcid_ = false;
  size_t xsave_size_ = 0;
  size_t run_size_ = 0;
  int max_vcpus_ = 0;
  uint64_t physical_end_ = 0;
};

}  // namespace redoubt::platform::kvm

#endif  // REDOUBT_PKG_PLATFORM_KVM_VM_H_
