// The boot role of runsc: the Sentry. The composition root: the only place that names the platform, the file systems
// and the socket families that are linked in.
#ifndef REDOUBT_RUNSC_BOOT_BOOT_H_
#define REDOUBT_RUNSC_BOOT_BOOT_H_

namespace redoubt::boot {

// Started with the descriptors that runsc/sandbox/layout.h lists. Serves requests until the first container has ended,
// and then ends the process with 0; returns an exit code if it does not come to that.
int BootMain();

}  // namespace redoubt::boot

#endif  // REDOUBT_RUNSC_BOOT_BOOT_H_
