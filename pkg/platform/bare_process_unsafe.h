// Turns the child of a fork of the Sentry into the bare beginning of a stub template.
#ifndef REDOUBT_PKG_PLATFORM_BARE_PROCESS_UNSAFE_H_
#define REDOUBT_PKG_PLATFORM_BARE_PROCESS_UNSAFE_H_

#include <signal.h>
#include <sys/types.h>

#include <cstdint>

namespace redoubt::platform {

// The kernel's struct sigaction; glibc's differs.
struct KernelSigaction {
  void (*handler)(int) = SIG_IGN;
  uint64_t flags = 0;
  void* restorer = nullptr;
  uint64_t mask = 0;
};

// For the child of a fork of a program with threads: raw system calls only, no lock, no allocation, no libc state. Asks
// to be killed with `parent`, blocks and ignores all signals, leaves the session and directory, gives up core dumps and
// what libc has registered with the host, and keeps of all descriptors only `fds`, renumbered from 0. False if the host
// refuses something.
[[gnu::no_sanitize("address", "undefined")]] bool BecomeBare(pid_t parent, const int* fds, int count);

}  // namespace redoubt::platform

#endif  // REDOUBT_PKG_PLATFORM_BARE_PROCESS_UNSAFE_H_
