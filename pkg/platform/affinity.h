// On which processors threads may run: for platforms whose guests' threads take turns with the Sentry's.
#ifndef REDOUBT_PKG_PLATFORM_AFFINITY_H_
#define REDOUBT_PKG_PLATFORM_AFFINITY_H_

#include <sched.h>
#include <sys/types.h>

namespace redoubt::platform {

// What the process may use, as it was at the first call: before any of its threads is tied.
const cpu_set_t& AllCpus();
// `tid` 0 is the caller. Lets a thread run on all of them.
void LetRoam(pid_t tid);
// On `cpu` only. False if the host refuses.
bool TieTo(pid_t tid, int cpu);

}  // namespace redoubt::platform

#endif  // REDOUBT_PKG_PLATFORM_AFFINITY_H_
