// For platforms: the host's own idea of the extended state.
#ifndef REDOUBT_PKG_PLATFORM_FP_STATE_HOST_H_
#define REDOUBT_PKG_PLATFORM_FP_STATE_HOST_H_

#include <cstddef>

namespace redoubt::platform {

// Bytes of an XSAVE area with all features that the host has enabled: what an xsave of everything writes, and what the
// host's ptrace(2) wants. More than FpStateSize() where the host has features that guests have not (AMX's tiles).
size_t FpStateHostSize();

}  // namespace redoubt::platform

#endif  // REDOUBT_PKG_PLATFORM_FP_STATE_HOST_H_
