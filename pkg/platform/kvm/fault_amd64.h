// Exceptions of ring 3 as Linux's signals.
#ifndef REDOUBT_PKG_PLATFORM_KVM_FAULT_AMD64_H_
#define REDOUBT_PKG_PLATFORM_KVM_FAULT_AMD64_H_

#include "pkg/platform/kvm/vcpu_unsafe.h"
#include "pkg/platform/platform.h"

namespace redoubt::platform::kvm {

// What Linux makes of exit.vector (arch/x86/kernel/traps.c's table of signals, as documented in sigaction(2) by
// si_code). `fp` is looked at for floating-point exceptions only, and may be empty otherwise.
TrapInfo DescribeException(const Exit& exit, const Registers& regs, const FpState& fp);

}  // namespace redoubt::platform::kvm

#endif  // REDOUBT_PKG_PLATFORM_KVM_FAULT_AMD64_H_
