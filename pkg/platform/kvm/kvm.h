// The KVM platform: guest code in ring 3 of a virtual machine, with a ring 0 of ours beneath it that does nothing but
// leave the machine (pkg/ring0). Each trap costs an exit to the Sentry. docs/kvm.md says what is mapped where and why
// that is safe.
//
// Differences from hardware that guests can see:
// - There is no 32-bit code segment; a far jump to one raises SIGSEGV, as do int 0x80 and (SIGILL on AMD) sysenter.
// - vmmcall returns an error in rax where the host knows it, instead of SIGILL.
// - A segment base in the kernel's half raises SIGSEGV when the guest is next entered.
#ifndef REDOUBT_PKG_PLATFORM_KVM_KVM_H_
#define REDOUBT_PKG_PLATFORM_KVM_KVM_H_

#include <memory>

#include "pkg/errors/errors.h"
#include "pkg/platform/platform.h"

namespace redoubt::platform::kvm {

// EBADF without a memory file. A host that lacks what is needed is an error with a line in the log that names it.
Result<std::unique_ptr<Platform>> Create(const Requirements& requirements);

class Api;
// With another way to the host, which outlives the platform: for tests.
Result<std::unique_ptr<Platform>> Create(Api& api, const Requirements& requirements);

// /dev/kvm for a process that cannot open it itself: a descriptor, or the errno negated.
int OpenDevice();
// Of such a process: Create uses this, of OpenDevice, and takes it over.
void UseDevice(int device);

// Whether the processor offers virtualization and /dev/kvm may be opened. Where it does not, KVM (if there is any) is
// emulated, and slower than every other platform. Microseconds.
bool HasHardware();

}  // namespace redoubt::platform::kvm

#endif  // REDOUBT_PKG_PLATFORM_KVM_KVM_H_
