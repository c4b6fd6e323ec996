// platform::AddressSpace over a stub process.
#ifndef REDOUBT_PKG_PLATFORM_SYSTRAP_ADDRESS_SPACE_H_
#define REDOUBT_PKG_PLATFORM_SYSTRAP_ADDRESS_SPACE_H_

#include <utility>

#include "pkg/platform/platform.h"
#include "pkg/platform/systrap/rewriter_amd64.h"
#include "pkg/platform/systrap/stub_process.h"

namespace redoubt::platform::systrap {

// Owned by the guest's memory manager. Thread-safe.
class SystrapAddressSpace final : public AddressSpace {
 public:
  SystrapAddressSpace(RefPtr<StubProcess> process, const Requirements& requirements);
  ~SystrapAddressSpace() override { Release(); }

  Result<> MapFile(Addr addr, int fd, uint64_t offset, uint64_t length, AccessType access, bool populate) override;
  Result<> Unmap(Addr addr, uint64_t length) override;
  Result<> Batch(std::span<const MapOp> ops) override;
  Rewriter* rewriter() override { return &rewriter_; }
  void Inherit(AddressSpace& parent) override;
  void Release() override { process_->Kill(); }

  StubProcess& process() { return *process_; }
  SystrapRewriter& rewrites() { return rewriter_; }

 private:
  const RefPtr<StubProcess> process_;
  const int memory_fd_;
  SystrapRewriter rewriter_;
};

}  // namespace redoubt::platform::systrap

#endif  // REDOUBT_PKG_PLATFORM_SYSTRAP_ADDRESS_SPACE_H_
