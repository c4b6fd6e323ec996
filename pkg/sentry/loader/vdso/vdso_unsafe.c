// The guest's vDSO (vdso(7)): clock calls that do not trap. Freestanding and position-independent; runs in the guest
// and may touch nothing but its arguments and the vvar page below it.
#include "vvar.h"

#define EXPORT __attribute__((visibility("default")))
#define NANOS_PER_SECOND 1000000000

enum {
  kClockRealtime = 0,
  kClockMonotonic = 1,
  kClockRealtimeCoarse = 5,
  kClockMonotonicCoarse = 6,
  kClockBoottime = 7,
  kSysGettimeofday = 96,
  kSysTime = 201,
  kSysClockGettime = 228,
  kSysGetcpu = 309,
};

struct timespec {
  int64_t tv_sec;
  int64_t tv_nsec;
};
struct timeval {
  int64_t tv_sec;
  int64_t tv_usec;
};
struct timezone {
  int32_t tz_minuteswest;
  int32_t tz_dsttime;
};

static long Syscall(long number, long a, long b, long c) {
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
  return result;
}

// Not before the loads above it.
static uint64_t ReadTsc(void) {
  uint32_t low, high;
  __asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
  return ((uint64_t)high << 32) | low;
}

static int64_t Offset(const volatile struct redoubt_vvar* vvar, long clock) {
  switch (clock) {
    case kClockRealtime:
    case kClockRealtimeCoarse:
      return vvar->realtime_offset;
    case kClockBoottime:
      return vvar->boottime_offset;
    default:
      return 0;
  }
}

// SAFETY: the Sentry maps the page right below the image, which begins with its ELF header.
static const volatile struct redoubt_vvar* Vvar(void) {
  const volatile struct redoubt_vvar* vvar;
  __asm__(".hidden __ehdr_start\n\tlea __ehdr_start-4096(%%rip), %0" : "=r"(vvar));
  return vvar;
}

// 0 if the vvar page cannot tell.
static int Read(long clock, int64_t* ns) {
  const volatile struct redoubt_vvar* vvar = Vvar();
  for (;;) {
    uint32_t sequence = __atomic_load_n(&vvar->sequence, __ATOMIC_ACQUIRE);
    if (sequence & 1) {
      __asm__ volatile("pause");
      continue;
    }
    uint32_t usable = vvar->usable;
    uint64_t base = vvar->base_tsc;
    uint64_t mult = vvar->mult;
    int64_t start = vvar->monotonic_base + Offset(vvar, clock);
    uint64_t now = ReadTsc();
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (__atomic_load_n(&vvar->sequence, __ATOMIC_RELAXED) != sequence) continue;
    if (!usable) return 0;
    // Another processor's counter may be a little behind the one that was published.
    uint64_t delta = now > base ? now - base : 0;
    *ns = start + (int64_t)(((unsigned __int128)delta * mult) >> REDOUBT_VVAR_SHIFT);
    return 1;
  }
}

EXPORT int __vdso_clock_gettime(int clock, struct timespec* ts) {
  int64_t ns;
  int ours = clock == kClockRealtime || clock == kClockMonotonic || clock == kClockBoottime ||
             clock == kClockRealtimeCoarse || clock == kClockMonotonicCoarse;
  if (!ours || !Read(clock, &ns)) return (int)Syscall(kSysClockGettime, clock, (long)ts, 0);
  ts->tv_sec = ns / NANOS_PER_SECOND;
  ts->tv_nsec = ns % NANOS_PER_SECOND;
  return 0;
}

EXPORT int __vdso_gettimeofday(struct timeval* tv, struct timezone* tz) {
  int64_t ns;
  if (!Read(kClockRealtime, &ns)) return (int)Syscall(kSysGettimeofday, (long)tv, (long)tz, 0);
  if (tv) {
    tv->tv_sec = ns / NANOS_PER_SECOND;
    tv->tv_usec = ns % NANOS_PER_SECOND / 1000;
  }
  if (tz) {
    tz->tz_minuteswest = 0;
    tz->tz_dsttime = 0;
  }
  return 0;
}

EXPORT long __vdso_time(long* result) {
  int64_t ns;
  if (!Read(kClockRealtime, &ns)) return Syscall(kSysTime, (long)result, 0, 0);
  long seconds = ns / NANOS_PER_SECOND;
  if (result) *result = seconds;
  return seconds;
}

// The processor that the guest is on is the kernel's to say: rdtscp would name the host's.
EXPORT long __vdso_getcpu(unsigned* cpu, unsigned* node, void* unused) {
  return Syscall(kSysGetcpu, (long)cpu, (long)node, (long)unused);
}

EXPORT int clock_gettime(int, struct timespec*) __attribute__((weak, alias("__vdso_clock_gettime")));
EXPORT int gettimeofday(struct timeval*, struct timezone*) __attribute__((weak, alias("__vdso_gettimeofday")));
EXPORT long time(long*) __attribute__((weak, alias("__vdso_time")));
EXPORT long getcpu(unsigned*, unsigned*, void*) __attribute__((weak, alias("__vdso_getcpu")));
