// From an OCI process to what the kernel is to start.
#ifndef REDOUBT_RUNSC_BOOT_PROGRAM_H_
#define REDOUBT_RUNSC_BOOT_PROGRAM_H_

#include <string>

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/vfs/vfs.h"
#include "runsc/boot/failure.h"
#include "runsc/specutils/spec.h"

namespace redoubt::boot {

// All that the process itself says: arguments, identity, limits, and the program, which is searched as execvp(3) does,
// in `mounts` and with the process's own PATH. Errors: working directory missing; program not found (127) or not to be
// executed (126); an ID that there is not. Looked for first and started once, since a process that fails to start has
// used up a number. From a fiber.
OrFailure<kernel::Kernel::ProcessArgs> PrepareProcess(const specutils::Process& process,
                                                      RefPtr<vfs::MountNamespace> mounts,
                                                      const kernel::Container& container);

// What to tell if the kernel could not start it after all.
Failure CannotStart(const specutils::Process& process, Errno error);

}  // namespace redoubt::boot

#endif  // REDOUBT_RUNSC_BOOT_PROGRAM_H_
