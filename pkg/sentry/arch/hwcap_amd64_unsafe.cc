#include <cpuid.h>
#include <sys/auxv.h>

#include "pkg/sentry/arch/hwcap.h"

namespace redoubt::arch {

uint64_t Hwcap() {
  // SAFETY: cpuid only reads.
  uint32_t a = 0, b = 0, c = 0, d = 0;
  __get_cpuid(1, &a, &b, &c, &d);
  return d;
}

uint64_t Hwcap2() {
  constexpr uint64_t kFsGsBase = 2;
  return getauxval(AT_HWCAP2) & kFsGsBase;
}

}  // namespace redoubt::arch
