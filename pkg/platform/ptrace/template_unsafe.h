// The template: one pristine stub process per platform, from which the others are cloned, so that the Sentry's page
// tables are copied once, while they are small, and no stub ever holds anything of the Sentry's.
#ifndef REDOUBT_PKG_PLATFORM_PTRACE_TEMPLATE_UNSAFE_H_
#define REDOUBT_PKG_PLATFORM_PTRACE_TEMPLATE_UNSAFE_H_

#include <sys/types.h>

#include "pkg/errors/errors.h"

namespace redoubt::platform::ptrace {

// The memory file's descriptor number in every stub; they have no other.
inline constexpr int kStubMemoryFd = 0;

// Forks it. It has only the stub page and the memory file, a session of its own, all signals ignored and
// blocked, no new privileges, and a filter that allows what stub code asks for; it idles, untraced, and
// dies with the calling OS thread, which must therefore live as long as the platform.
Result<pid_t> SpawnTemplate(int memory_fd);

}  // namespace redoubt::platform::ptrace

#endif  // REDOUBT_PKG_PLATFORM_PTRACE_TEMPLATE_UNSAFE_H_
