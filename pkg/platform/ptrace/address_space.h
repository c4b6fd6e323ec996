// platform::AddressSpace over a stub process.
#ifndef REDOUBT_PKG_PLATFORM_PTRACE_ADDRESS_SPACE_H_
#define REDOUBT_PKG_PLATFORM_PTRACE_ADDRESS_SPACE_H_

#include <utility>

#include "pkg/platform/platform.h"
#include "pkg/platform/ptrace/stub_process.h"

namespace redoubt::platform::ptrace {

// Owned by the guest's memory manager. Thread-safe.
class PtraceAddressSpace final : public AddressSpace {
 public:
  PtraceAddressSpace(RefPtr<StubProcess> process, int memory_fd)
      : process_(std::move(process)), memory_fd_(memory_fd) {}
  ~PtraceAddressSpace() override { Release(); }

  Result<> MapFile(Addr addr, int fd, uint64_t offset, uint64_t length, AccessType access, bool populate) override;
  Result<> Unmap(Addr addr, uint64_t length) override;
  void Release() override { process_->Kill(); }

  StubProcess& process() { return *process_; }

 private:
  const RefPtr<StubProcess> process_;
  const int memory_fd_;
};

}  // namespace redoubt::platform::ptrace

#endif  // REDOUBT_PKG_PLATFORM_PTRACE_ADDRESS_SPACE_H_
