#include "pkg/platform/systrap/systrap.h"

#include <sys/auxv.h>
#include <sys/prctl.h>

#include <utility>

#include "pkg/log/log.h"
#include "pkg/platform/fp_state_host.h"
#include "pkg/platform/systrap/address_space.h"
#include "pkg/platform/systrap/context.h"
#include "pkg/platform/systrap/control.h"
#include "pkg/platform/systrap/host.h"

namespace redoubt::platform::systrap {
namespace {

constexpr unsigned long kHwcap2FsGsBase = 2;

class Systrap final : public Platform {
 public:
  Systrap(std::shared_ptr<Host> host, const Requirements& requirements)
      : host_(std::move(host)), requirements_(requirements) {}

  std::string_view name() const override { return "systrap"; }
  Result<RefPtr<AddressSpace>> NewAddressSpace() override {
    RefPtr<StubProcess> process = TRY(StubProcess::Create(host_));
    return RefPtr<AddressSpace>(MakeRef<SystrapAddressSpace>(std::move(process), requirements_));
  }
  Result<std::unique_ptr<Context>> NewContext() override { return std::make_unique<SystrapContext>(host_); }
  Addr min_user_address() const override { return kMinUserAddress; }
  Addr max_user_address() const override { return kMaxUserAddress; }
  fiber::EventSource* event_source() override { return host_.get(); }

 private:
  const std::shared_ptr<Host> host_;
  const Requirements requirements_;
};

}  // namespace

Result<std::unique_ptr<Platform>> Create(const Requirements& requirements) {
  if (requirements.memory_fd < 0) return Err(EBADF);
  if ((getauxval(AT_HWCAP2) & kHwcap2FsGsBase) == 0) {
    LOG_ERROR("systrap: the host does not let user code set segment bases (FSGSBASE); try --platform=ptrace");
    return Err(EOPNOTSUPP);
  }
  if (FpStateHostSize() > STUB_SLOT_FP_SIZE) {
    LOG_ERROR("systrap: the processor's extended state is larger than a slot has room for; try --platform=ptrace");
    return Err(EOPNOTSUPP);
  }
  std::shared_ptr<Host> host = TRY(Host::Create(requirements.memory_fd, requirements.spares));
  return std::unique_ptr<Platform>(new Systrap(std::move(host), requirements));
}

}  // namespace redoubt::platform::systrap
