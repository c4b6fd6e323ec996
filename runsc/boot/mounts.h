// The container's tree: root, the mounts of the specification, and what every container needs.
#ifndef REDOUBT_RUNSC_BOOT_MOUNTS_H_
#define REDOUBT_RUNSC_BOOT_MOUNTS_H_

#include <string>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/fd/unique_fd.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/kernel/container.h"
#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/socket/inet/network.h"
#include "pkg/sentry/vfs/vfs.h"
#include "runsc/specutils/spec.h"

namespace redoubt::boot {

// Every type mount(2) knows, with the network that /proc/net tells of. Once; both live for ever.
void RegisterFilesystems(kernel::Kernel& kernel, inetsock::Network& network);

// From a fiber. `gofers`: sockets, the root's first, then the bind mounts' in order; taken over. `disk`: for the
// contents of files in the root's overlay; none: they are in memory. On failure the message says what could not be
// mounted and why.
specutils::Expected<RefPtr<vfs::MountNamespace>> MakeMounts(kernel::Kernel& kernel,
                                                            const RefPtr<kernel::Container>& container,
                                                            const specutils::Spec& spec, std::vector<UniqueFd> gofers,
                                                            UniqueFd disk);

}  // namespace redoubt::boot

#endif  // REDOUBT_RUNSC_BOOT_MOUNTS_H_
