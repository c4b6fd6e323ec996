// What the processor offers programs, as the auxiliary vector says it.
#ifndef REDOUBT_PKG_SENTRY_ARCH_HWCAP_H_
#define REDOUBT_PKG_SENTRY_ARCH_HWCAP_H_

#include <cstdint>

namespace redoubt::arch {

// AT_HWCAP: edx of cpuid's leaf 1.
uint64_t Hwcap();
// AT_HWCAP2: nothing. The bit for wrgsbase in user mode stays clear, as a program that sets gs by it would lose its
// slot (platform/systrap); by arch_prctl(2) it may.
inline constexpr uint64_t kHwcap2 = 0;

}  // namespace redoubt::arch

#endif  // REDOUBT_PKG_SENTRY_ARCH_HWCAP_H_
