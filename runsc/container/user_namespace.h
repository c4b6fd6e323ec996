// Which IDs of a container are which on the host.
#ifndef REDOUBT_RUNSC_CONTAINER_USER_NAMESPACE_H_
#define REDOUBT_RUNSC_CONTAINER_USER_NAMESPACE_H_

#include "runsc/container/internal.h"
#include "runsc/container/state.h"
#include "runsc/specutils/spec.h"

namespace redoubt::container {

// From what the configuration says of the container's user namespace and its mounts to mappings: in
// `spec.id_mappings` those of the namespace, also if it names an existing one, and in each ID-mapped mount its own.
// With the caller's one ID only, as an ordinary user has it, there is nothing to map.
Expected<void> ResolveIdMappings(const Store& store, specutils::Spec& spec);

}  // namespace redoubt::container

#endif  // REDOUBT_RUNSC_CONTAINER_USER_NAMESPACE_H_
