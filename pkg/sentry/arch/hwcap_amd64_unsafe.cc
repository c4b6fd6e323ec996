#include <cpuid.h>

#include "pkg/sentry/arch/hwcap.h"

namespace redoubt::arch {

uint64_t Hwcap() {
  // SAFETY: cpuid only reads.
  uint32_t a = 0, b = 0, c = 0, d = 0;
  __get_cpuid(1, &a, &b, &c, &d);
  return d;
}

}  // namespace redoubt::arch
