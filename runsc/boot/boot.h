// The boot role of runsc: the Sentry. The composition root: the only place that names the platform, the file systems
// and the socket families that are linked in.
#ifndef REDOUBT_RUNSC_BOOT_BOOT_H_
#define REDOUBT_RUNSC_BOOT_BOOT_H_

namespace redoubt::boot {

// Started by sandbox::Run with the descriptors that sandbox.h lists, and every signal blocked. Returns the exit code of
// the container's process.
int BootMain();

}  // namespace redoubt::boot

#endif  // REDOUBT_RUNSC_BOOT_BOOT_H_
