// Crash reports of the Sentry.
#ifndef REDOUBT_RUNSC_BOOT_CRASH_H_
#define REDOUBT_RUNSC_BOOT_CRASH_H_

namespace redoubt::boot {

// From now on a failed CHECK and a fault of the Sentry's own write a backtrace to the log before the process dies of
// the signal. To be called before the memory file is made: its fault handler passes on what is not its own.
void InstallCrashHandler();

}  // namespace redoubt::boot

#endif  // REDOUBT_RUNSC_BOOT_CRASH_H_
