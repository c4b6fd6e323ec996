#include "pkg/platform/kvm/kvm.h"

#include <cpuid.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "pkg/platform/kvm/address_space.h"
#include "pkg/platform/kvm/api_unsafe.h"
#include "pkg/platform/kvm/context.h"
#include "pkg/platform/kvm/machine.h"

namespace redoubt::platform::kvm {
namespace {

class Kvm final : public Platform {
 public:
  Kvm(std::shared_ptr<Machine> machine, int memory_fd) : machine_(std::move(machine)), memory_fd_(memory_fd) {}

  std::string_view name() const override { return "kvm"; }
  Result<RefPtr<AddressSpace>> NewAddressSpace() override {
    RefPtr<GuestTables> tables = TRY(machine_->NewTables());
    return RefPtr<AddressSpace>(MakeRef<KvmAddressSpace>(machine_, memory_fd_, std::move(tables)));
  }
  Result<std::unique_ptr<Context>> NewContext() override { return std::make_unique<KvmContext>(machine_); }
  Addr min_user_address() const override { return kMinUserAddress; }
  Addr max_user_address() const override { return kMaxUserAddress; }

 private:
  const std::shared_ptr<Machine> machine_;
  const int memory_fd_;
};

}  // namespace

Result<std::unique_ptr<Platform>> Create(const Requirements& requirements) { return Create(HostApi(), requirements); }

Result<std::unique_ptr<Platform>> Create(Api& api, const Requirements& requirements) {
  if (requirements.memory_fd < 0) return Err(EBADF);
  std::shared_ptr<Machine> machine = TRY(Machine::Create(api, requirements.memory_fd));
  return std::unique_ptr<Platform>(new Kvm(std::move(machine), requirements.memory_fd));
}

int OpenDevice() {
  int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  return fd >= 0 ? fd : -errno;
}

void UseDevice(int device) { SetHostDevice(device); }

bool HasHardware() {
  // VMX: SDM vol. 3, 24.6. SVM: APM vol. 2, 15.4.
  uint32_t a = 0, b = 0, c = 0, d = 0;
  bool vmx = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c >> 5 & 1) != 0;
  bool svm = __get_cpuid(0x80000001, &a, &b, &c, &d) != 0 && (c >> 2 & 1) != 0;
  return (vmx || svm) && (HostDevice() >= 0 || access("/dev/kvm", R_OK | W_OK) == 0);
}

}  // namespace redoubt::platform::kvm
