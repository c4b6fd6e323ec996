// The container's tree of files on the host, for those who join the mount namespace of the process that stands for it:
// `podman cp` does.
#ifndef REDOUBT_RUNSC_CONTAINER_TREE_H_
#define REDOUBT_RUNSC_CONTAINER_TREE_H_

#include "runsc/specutils/spec.h"

namespace redoubt::container {

// The calling process gets a mount namespace of its own, whose root is the container's, with its bind mounts where
// their mount points are there on the host. Nothing else of the host's files is in reach from then on. What the guest
// has mounted itself, and file systems in memory, are inside the Sentry and not seen. Without privileges
// nothing happens. The error says what could not be
// done.
specutils::Expected<void> EnterTree(const specutils::Spec& spec);

}  // namespace redoubt::container

#endif  // REDOUBT_RUNSC_CONTAINER_TREE_H_
