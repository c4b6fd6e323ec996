// What the processor offers programs, as the auxiliary vector says it.
#ifndef REDOUBT_PKG_SENTRY_ARCH_HWCAP_H_
#define REDOUBT_PKG_SENTRY_ARCH_HWCAP_H_

#include <cstdint>

namespace redoubt::arch {

// AT_HWCAP: edx of cpuid's leaf 1.
uint64_t Hwcap();
// AT_HWCAP2: bit 1 if rdfsbase and its kin work in user mode, which the host decides.
uint64_t Hwcap2();

}  // namespace redoubt::arch

#endif  // REDOUBT_PKG_SENTRY_ARCH_HWCAP_H_
