// The processes of one sandbox, seen from the CLI: starts gofer and boot, passes signals on, takes both down together.
#ifndef REDOUBT_RUNSC_SANDBOX_SANDBOX_H_
#define REDOUBT_RUNSC_SANDBOX_SANDBOX_H_

#include <string>

#include "runsc/specutils/spec.h"

namespace redoubt::sandbox {

// Descriptors that boot is started with; gofer sockets follow, one per tree (the root, then bind mounts in order). With
// --network=sandbox then a file with the network's configuration and its packet sockets (runsc/boot/network.h).
inline constexpr int kConfigFd = 3;
inline constexpr int kLogFd = 4;
inline constexpr int kFirstGoferFd = 5;

// Exit codes of failures of our own (docker-run(1), "Exit Status").
inline constexpr int kSetupFailed = 125;

// Runs the container in a sandbox of its own and returns its exit code, 128 + n for a death by signal. Blocks.
// `log_fd`: -1 for none. Stdio is the guest's. No process is left behind, however this ends: the children die with
// their parent.
int Run(const specutils::Spec& spec, const specutils::SandboxOptions& options, int log_fd);

}  // namespace redoubt::sandbox

#endif  // REDOUBT_RUNSC_SANDBOX_SANDBOX_H_
