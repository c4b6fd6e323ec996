// platform::AddressSpace over page tables in the machine's memory.
//
// The Sentry writes the entries itself; no vCPU takes part. An entry that comes is found by the next walk. For one that
// goes, the host's own mapping of the memory that it pointed to is dropped for a moment (FileMemory::Forget): KVM must
// then give up what was derived from it, shadow entries and TLBs of all vCPUs, before the call returns, and walks the
// page tables anew at the next access.
#ifndef REDOUBT_PKG_PLATFORM_KVM_ADDRESS_SPACE_H_
#define REDOUBT_PKG_PLATFORM_KVM_ADDRESS_SPACE_H_

#include <memory>
#include <span>
#include <utility>

#include "pkg/platform/kvm/machine.h"
#include "pkg/platform/platform.h"
#include "pkg/sync/mutex.h"

namespace redoubt::platform::kvm {

inline constexpr Addr kMinUserAddress = 0x10000;
inline constexpr Addr kMaxUserAddress = 0x7ffffffff000;
// Page tables that one guest process may have: each 2 MiB that it has ever touched costs one, and they are kept until
// its end. A call that begins below the limit is finished.
inline constexpr size_t kMaxTables = 65536;

// Owned by the guest's memory manager. Thread-safe.
class KvmAddressSpace final : public AddressSpace {
 public:
  KvmAddressSpace(std::shared_ptr<Machine> machine, int memory_fd, RefPtr<GuestTables> tables,
                  size_t max_tables = kMaxTables)
      : machine_(std::move(machine)), memory_fd_(memory_fd), max_tables_(max_tables), tables_(std::move(tables)) {}
  ~KvmAddressSpace() override { Release(); }

  Result<> MapFile(Addr addr, int fd, uint64_t offset, uint64_t length, AccessType access, bool populate) override;
  Result<> Unmap(Addr addr, uint64_t length) override;
  Result<> Batch(std::span<const MapOp> ops) override EXCLUDES(mu_);
  void Release() override EXCLUDES(mu_);

  // Null after Release.
  RefPtr<GuestTables> tables() EXCLUDES(mu_) {
    sync::MutexLock lock(mu_);
    return tables_;
  }
  // Copies guest memory at `addr` if all of it is mapped.
  bool Peek(Addr addr, std::span<std::byte> out) EXCLUDES(mu_);

 private:
  Result<> Apply(const MapOp& op, ring0::pagetables::Listener& lost) REQUIRES(mu_);

  const std::shared_ptr<Machine> machine_;
  const int memory_fd_;
  const size_t max_tables_;
  sync::Mutex mu_{sync::Rank::kAddressSpace};
  RefPtr<GuestTables> tables_ GUARDED_BY(mu_);
};

}  // namespace redoubt::platform::kvm

#endif  // REDOUBT_PKG_PLATFORM_KVM_ADDRESS_SPACE_H_
