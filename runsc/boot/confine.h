// The first and the last thing that the Sentry does before it runs a guest: it takes from itself what it will not need.
#ifndef REDOUBT_RUNSC_BOOT_CONFINE_H_
#define REDOUBT_RUNSC_BOOT_CONFINE_H_

#include <cstdint>
#include <string_view>

#include "runsc/specutils/spec.h"

namespace redoubt::boot {

// The first: into the box (runsc/box), with what the sandbox was given. While there is one thread.
specutils::Expected<void> EnterBox(const specutils::SandboxOptions& options);

// Best on a fiber. Once everything that is ever opened is open, and before the first guest process exists: undumpable,
// and under the filter of the platform (Platform::name) and network, all threads. An error is one line for the user,
// and the guest must not be run.
specutils::Expected<void> Confine(std::string_view platform, std::string_view network);

// The name of a host's system call, for reports; empty if it has none. Async-signal-safe.
std::string_view SyscallName(uint64_t number);

}  // namespace redoubt::boot

#endif  // REDOUBT_RUNSC_BOOT_CONFINE_H_
