#include "pkg/platform/affinity.h"

#include <unistd.h>

namespace redoubt::platform {

const cpu_set_t& AllCpus() {
  static const cpu_set_t set = [] {
    cpu_set_t s;
    CPU_ZERO(&s);
    (void)sched_getaffinity(getpid(), sizeof(s), &s);
    return s;
  }();
  return set;
}

void LetRoam(pid_t tid) { (void)sched_setaffinity(tid, sizeof(cpu_set_t), &AllCpus()); }

bool TieTo(pid_t tid, int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  return sched_setaffinity(tid, sizeof(set), &set) == 0;
}

}  // namespace redoubt::platform
