#include "pkg/platform/ptrace/ptrace.h"

#include <utility>

#include "pkg/platform/ptrace/address_space.h"
#include "pkg/platform/ptrace/context.h"
#include "pkg/platform/ptrace/host.h"
#include "pkg/platform/ptrace/stub_amd64_unsafe.h"
#include "pkg/platform/ptrace/stub_process.h"

namespace redoubt::platform::ptrace {
namespace {

class PtracePlatform final : public Platform {
 public:
  explicit PtracePlatform(std::shared_ptr<Host> host) : host_(std::move(host)) {}

  std::string_view name() const override { return "ptrace"; }
  Result<RefPtr<AddressSpace>> NewAddressSpace() override {
    RefPtr<StubProcess> process = TRY(StubProcess::Create(host_));
    return RefPtr<AddressSpace>(MakeRef<PtraceAddressSpace>(std::move(process), host_->memory_fd()));
  }
  Result<std::unique_ptr<Context>> NewContext() override { return std::make_unique<PtraceContext>(); }
  Addr min_user_address() const override { return kMinUserAddress; }
  Addr max_user_address() const override { return kMaxUserAddress; }

 private:
  const std::shared_ptr<Host> host_;
};

}  // namespace

Result<std::unique_ptr<Platform>> Create(const Requirements& requirements) {
  if (requirements.memory_fd < 0) return Err(EBADF);
  return std::make_unique<PtracePlatform>(TRY(Host::Create(requirements.memory_fd)));
}

}  // namespace redoubt::platform::ptrace
