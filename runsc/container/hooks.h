// Hooks of the OCI specification (config.md, "POSIX-platform Hooks"): programs of the host that are told of a step of
// a container's life, by its state on their stdin.
#ifndef REDOUBT_RUNSC_CONTAINER_HOOKS_H_
#define REDOUBT_RUNSC_CONTAINER_HOOKS_H_

#include <string>
#include <vector>

#include "runsc/specutils/spec.h"

namespace redoubt::container {

// Runs them in order, each to its end. The error of the first that cannot be run, fails or takes too long (it is
// killed then) names it, with what it wrote to stderr; `kind` is for that text. Blocks.
specutils::Expected<void> RunHooks(const char* kind, const std::vector<specutils::Hook>& hooks,
                                   const std::string& state);

}  // namespace redoubt::container

#endif  // REDOUBT_RUNSC_CONTAINER_HOOKS_H_
