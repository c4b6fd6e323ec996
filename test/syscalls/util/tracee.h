// Children that this process traces (ptrace(2)), and what wait(2) says of them.
#ifndef REDOUBT_TEST_SYSCALLS_UTIL_TRACEE_H_
#define REDOUBT_TEST_SYSCALLS_UTIL_TRACEE_H_

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include <functional>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"

namespace redoubt::testing {

// Waits; the status.
inline int Status(pid_t pid) {
  int status = -1;
  EXPECT_THAT(waitpid(pid, &status, __WALL), SyscallReturns(pid));
  return status;
}

// A stop as wait(2) tells of it: for a signal; for a PTRACE_EVENT_*.
constexpr int Stop(int sig) { return sig << 8 | 0x7f; }
constexpr int EventStop(int event, int sig = SIGTRAP) { return Stop(sig | event << 8); }

// For ptrace's last argument.
inline void* Data(long value) { return reinterpret_cast<void*>(value); }

// A child that has asked to be traced and stopped itself; then it does `body` and exits with what that returns.
inline pid_t SpawnTraced(const std::function<int()>& body) {
  pid_t pid = Spawn([&] {
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) return 90;
    raise(SIGSTOP);
    return body();
  });
  EXPECT_EQ(Status(pid), Stop(SIGSTOP));
  return pid;
}

}  // namespace redoubt::testing

#endif  // REDOUBT_TEST_SYSCALLS_UTIL_TRACEE_H_
