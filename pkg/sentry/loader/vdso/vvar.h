// The page that the Sentry shares with every guest process, right below the vDSO's code. C, since the vDSO is.
#ifndef REDOUBT_PKG_SENTRY_LOADER_VDSO_VVAR_H_
#define REDOUBT_PKG_SENTRY_LOADER_VDSO_VVAR_H_

#include <stdint.h>

#define REDOUBT_VVAR_SHIFT 32

// Monotonic time is monotonic_base + (tsc - base_tsc) * mult >> REDOUBT_VVAR_SHIFT.
struct redoubt_vvar {
  uint32_t sequence;  // odd while the rest is being changed
  uint32_t usable;    // 0: ask the kernel
  uint64_t base_tsc;
  uint64_t mult;
  int64_t monotonic_base;   // ns
  int64_t realtime_offset;  // CLOCK_REALTIME - CLOCK_MONOTONIC, ns
  int64_t boottime_offset;  // CLOCK_BOOTTIME - CLOCK_MONOTONIC, ns
};

#endif  // REDOUBT_PKG_SENTRY_LOADER_VDSO_VVAR_H_
