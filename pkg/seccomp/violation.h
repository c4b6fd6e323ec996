// What a process does that makes a system call which its filter does not allow: it says which, and ends.
#ifndef REDOUBT_PKG_SECCOMP_VIOLATION_H_
#define REDOUBT_PKG_SECCOMP_VIOLATION_H_

#include <cstdint>
#include <string_view>

namespace redoubt::seccomp {

// Exit status of a process that was ended so (128 + SIGSYS).
inline constexpr int kViolationStatus = 159;

struct ViolationHooks {
  // The name of a system call, empty if it has none; may be null.
  std::string_view (*name)(uint64_t number) = nullptr;
  // Told after the call's own line; for a backtrace. May be null. `context` is a ucontext_t.
  void (*report)(const void* context) = nullptr;
};

// From now on a trapped call is logged, with its arguments, and ends the process by exit_group(2). The calling thread,
// and those that it starts, take the signal even if all were blocked. To be called before the filter is installed, by a
// thread from which the others are started.
void InstallViolationHandler(const ViolationHooks& hooks);

}  // namespace redoubt::seccomp

#endif  // REDOUBT_PKG_SECCOMP_VIOLATION_H_
