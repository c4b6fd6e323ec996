#include "pkg/platform/kvm/vm.h"

#include <string_view>

#include "pkg/log/log.h"
#include "pkg/platform/platform.h"

namespace redoubt::platform::kvm {
namespace {

// Where KVM may put a TSS of its own for real mode (api.rst, KVM_SET_TSS_ADDR): below 4 GiB, used by nothing else.
constexpr uintptr_t kTssAddress = 0xfffbd000;
// Shadow pages that KVM may keep for us, of 8 KiB of the host's memory each, which the sandbox' control group pays and
// its own account does not see: so many that a hundred processes have theirs, so few that a bomb of them ends before
// the host ends the sandbox. Its default is a share of the slots' size, which is small at first.
constexpr uintptr_t kShadowPages = 4096;

// What KVM_SET_XSAVE reads at least.
constexpr int kLeastXsave = 4096;

// Bits of cpuid (SDM vol. 2, CPUID; APM vol. 3, appendix E).
constexpr uint32_t k1EcxMonitor = 1 << 3;
constexpr uint32_t k1EcxVmx = 1 << 5;
constexpr uint32_t k1EcxPdcm = 1 << 15;
constexpr uint32_t k1EcxPcid = 1 << 17;
constexpr uint32_t k1EcxX2apic = 1 << 21;
constexpr uint32_t k1EcxDeadline = 1 << 24;
constexpr uint32_t k1EcxHypervisor = uint32_t{1} << 31;
constexpr uint32_t k7EbxSgx = 1 << 2;
constexpr uint32_t k7EcxPku = 1 << 3;
constexpr uint32_t k7EcxWaitpkg = 1 << 5;
constexpr uint32_t k7EcxShadowStack = 1 << 7;
constexpr uint32_t k7EcxLa57 = 1 << 16;
constexpr uint32_t k7EdxIbt = 1 << 20;
constexpr uint32_t k80000001EcxSvm = 1 << 2;
constexpr uint32_t k80000001EcxMonitorx = 1 << 29;

constexpr char kElse[] = "the platforms systrap and ptrace need no KVM";

}  // namespace

Result<std::unique_ptr<Vm>> Vm::Create(Api& api) {
  std::unique_ptr<Vm> vm(new Vm(api));
  TRY(vm->Init());
  return vm;
}

Result<> Vm::Require(const char* what, unsigned long capability, int least) {
  Result<int> has = api_.Ioctl(vm_.get(), KVM_CHECK_EXTENSION, capability);
  if (has && *has >= least) return {};
  LOG_ERROR("kvm: the host's KVM lacks {}; {}", what, kElse);
  return Err(EOPNOTSUPP);
}

Result<> Vm::Init() {
  Result<Fd> opened = api_.Open();
  if (!opened) {
    const Errno e = opened.error();
    std::string_view why = e == Errno(ENOENT) || e == Errno(ENXIO) || e == Errno(ENODEV)
                               ? "this host has no KVM"
                               : (e == Errno(EACCES) || e == Errno(EPERM) ? "no right to use it" : "it does not open");
    LOG_ERROR("kvm: /dev/kvm: {} ({}); {}", why, e.name(), kElse);
    return Err(e);
  }
  kvm_ = std::move(*opened);
  Result<int> version = api_.Ioctl(kvm_.get(), KVM_GET_API_VERSION, 0);
  if (!version || *version != KVM_API_VERSION) {
    LOG_ERROR("kvm: /dev/kvm does not speak version {} of the interface; {}", KVM_API_VERSION, kElse);
    return Err(EOPNOTSUPP);
  }
  Result<int> made = api_.Ioctl(kvm_.get(), KVM_CREATE_VM, 0);
  if (!made) {
    LOG_ERROR("kvm: the host refuses a virtual machine ({}): virtualization may be disabled, or in use by others; {}",
              made.error().name(), kElse);
    return Err(made.error());
  }
  vm_ = Fd(*made);
  TRY(Require("memory slots enough (KVM_CAP_NR_MEMSLOTS; Linux 5.12)", KVM_CAP_NR_MEMSLOTS, kSlots));
  TRY(Require("synchronization with the host's memory (KVM_CAP_SYNC_MMU)", KVM_CAP_SYNC_MMU, 1));
  TRY(Require("registers in shared memory (KVM_CAP_SYNC_REGS; Linux 4.17)", KVM_CAP_SYNC_REGS,
              KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS));
  TRY(Require("KVM_CAP_IMMEDIATE_EXIT (Linux 4.13)", KVM_CAP_IMMEDIATE_EXIT, 1));
  TRY(Require("KVM_CAP_XCRS", KVM_CAP_XCRS, 1));
  TRY(Require("KVM_CAP_XSAVE2 (Linux 5.17)", KVM_CAP_XSAVE2, kLeastXsave));
  xsave_size_ = static_cast<size_t>(TRY(api_.Ioctl(vm_.get(), KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2)));
  max_vcpus_ = TRY(api_.Ioctl(vm_.get(), KVM_CHECK_EXTENSION, KVM_CAP_NR_VCPUS));
  if (Result<int> most = api_.Ioctl(vm_.get(), KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS); most && *most > max_vcpus_) {
    max_vcpus_ = *most;
  }
  run_size_ = static_cast<size_t>(TRY(api_.Ioctl(kvm_.get(), KVM_GET_VCPU_MMAP_SIZE, 0)));
  TRY(api_.Ioctl(vm_.get(), KVM_SET_TSS_ADDR, kTssAddress));
  TRY(api_.Ioctl(vm_.get(), KVM_SET_NR_MMU_PAGES, kShadowPages));

  cpuid_ = std::make_unique<CpuidTable>();
  cpuid_->count = CpuidTable::kMax;
  TRY(Ioctl(api_, kvm_.get(), kGetSupportedCpuid, cpuid_.get()));
  ReadCpuid();
  if ((xcr0_ & 3) != 3) {
    LOG_ERROR("kvm: the host's KVM gives its guests no XSAVE; {}", kElse);
    return Err(EOPNOTSUPP);
  }
  return {};
}

void Vm::ReadCpuid() {
  physical_end_ = uint64_t{1} << 36;
  uint32_t kept = 0;
  for (uint32_t i = 0; i < cpuid_->count; i++) {
    kvm_cpuid_entry2 e = cpuid_->entries[i];
    // KVM's own leaves: a guest has nobody to speak to.
    if ((e.function >> 28) == 4) continue;
    switch (e.function) {
      case 1:
        pcid_ = (e.ecx & k1EcxPcid) != 0;
        e.ecx &= ~(k1EcxMonitor | k1EcxVmx | k1EcxPdcm | k1EcxX2apic | k1EcxDeadline | k1EcxHypervisor);
        break;
      case 7:
        if (e.index != 0) break;
        e.ebx &= ~k7EbxSgx;
        e.ecx &= ~(k7EcxPku | k7EcxWaitpkg | k7EcxShadowStack | k7EcxLa57);
        e.edx &= ~k7EdxIbt;
        break;
      case 0xa:  // performance counters: there are none
        e.eax = e.ebx = e.ecx = e.edx = 0;
        break;
      case 0xd:
        if (e.index == 0) {
          xcr0_ = (uint64_t{e.edx} << 32 | e.eax) & FpStateFeatures();
          e.eax = static_cast<uint32_t>(xcr0_);
          e.edx = static_cast<uint32_t>(xcr0_ >> 32);
        }
        break;
      case 0x80000001:
        e.ecx &= ~(k80000001EcxSvm | k80000001EcxMonitorx);
        break;
      case 0x80000008:
        physical_end_ = uint64_t{1} << (e.eax & 0xff);
        break;
      default:
        break;
    }
    cpuid_->entries[kept++] = e;
  }
  cpuid_->count = kept;
}

Result<> Vm::AddSlot(uint32_t slot, uint64_t physical, std::byte* host, uint64_t size) {
  kvm_userspace_memory_region region{.slot = slot,
                                     .flags = 0,
                                     .guest_phys_addr = physical,
                                     .memory_size = size,
                                     .userspace_addr = reinterpret_cast<uint64_t>(host)};
  TRY(Ioctl(api_, vm_.get(), KVM_SET_USER_MEMORY_REGION, &region));
  return {};
}

Result<> Vm::RemoveSlot(uint32_t slot) { return AddSlot(slot, 0, nullptr, 0); }

}  // namespace redoubt::platform::kvm
