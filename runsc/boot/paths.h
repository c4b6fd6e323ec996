// What a specification says of single places inside, beyond mounts (OCI runtime-spec, config-linux.md).
#ifndef REDOUBT_RUNSC_BOOT_PATHS_H_
#define REDOUBT_RUNSC_BOOT_PATHS_H_

#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/vfs/vfs.h"
#include "runsc/boot/failure.h"
#include "runsc/specutils/spec.h"

namespace redoubt::boot {

// linux.readonlyPaths and linux.maskedPaths: the first are mounted over themselves, read-only; the others are hidden,
// directories by an empty one, all else by /dev/null. What is not there is left out. From a fiber.
OrFailure<void> ProtectPaths(kernel::Kernel& kernel, vfs::MountNamespace& mounts, const specutils::Spec& spec);

// linux.sysctl: files of /proc/sys. Of those that Linux has and that mean nothing here the log tells. From a fiber.
OrFailure<void> SetSysctls(vfs::MountNamespace& mounts, const specutils::Spec& spec);

}  // namespace redoubt::boot

#endif  // REDOUBT_RUNSC_BOOT_PATHS_H_
