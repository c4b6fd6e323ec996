// Crash reports of the Sentry.
#ifndef REDOUBT_RUNSC_BOOT_CRASH_H_
#define REDOUBT_RUNSC_BOOT_CRASH_H_

#include <cstdint>
#include <string_view>

namespace redoubt::boot {

// From now on a failed CHECK and a fault of the Sentry's own write a backtrace to the log before the process dies of
// the signal, and so does a system call that its filter does not allow. To be called by the main thread, before the
// memory file is made: its fault handler passes on what is not its own. `syscall_name`: for reports; may be null.
void InstallCrashHandler(std::string_view (*syscall_name)(uint64_t number) = nullptr);

}  // namespace redoubt::boot

#endif  // REDOUBT_RUNSC_BOOT_CRASH_H_
