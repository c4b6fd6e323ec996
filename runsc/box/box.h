// The boxes: what the Sentry and the gofer give up of the host before they look at anything a guest has made.
// Namespaces of their own, an empty root, an identity that nobody else has (the Sentry), no capability but those the
// files need (the gofer), no privileges to be had, no descriptor but the donated ones, no core dump. Their system-call
// filters come later, as their last act (runsc/boot/confine.h, pkg/gofer/filter.h).
//
// A box is built in two steps: the process is born into a PID namespace (Vfork), since nobody can move to one; the rest
// it does itself, as the first thing in its main, while it has one thread (EnterSentryBox, EnterGoferBox).
#ifndef REDOUBT_RUNSC_BOX_BOX_H_
#define REDOUBT_RUNSC_BOX_BOX_H_

#include <signal.h>
#include <sys/syscall.h>
#include <sys/types.h>

#include <cstdint>
#include <expected>
#include <string>
#include <vector>

#include "runsc/box/user_namespace.h"

namespace redoubt::box {

// Why a wall does not stand where it should; one line a wall. Empty: all stand.
using Missing = std::vector<std::string>;

struct Options {
  // A wall that cannot be built is said in the log and done without. Otherwise it is an error.
  bool allow_weak = false;
  // pidfd_open(2) of the process with which this one is to die; -1: it dies with nobody.
  int parent_pidfd = -1;
  // Descriptors from this one on are closed.
  int first_closed = 3;
  // The gofer's: the user namespace it is to be in, and its IDs there. Empty: the host's.
  IdMaps ids;
  uid_t uid = 0;
  gid_t gid = 0;
  // The gofer's, without privileges: as whom the guest sees the one user there is. -1: as who he is outside.
  int64_t owner_uid = -1, owner_gid = -1;
};

// Namespaces that the child must be born into: CLONE_NEWPID, and without privileges CLONE_NEWUSER, which it needs for
// the others.
unsigned long BirthNamespaces();

// vfork(2) into the namespaces of BirthNamespaces(), or into none if the host refuses: the child finds out in its box.
// Inlined, so that the child, which shares the caller's stack until it executes, returns to no frame.
[[gnu::always_inline]] inline pid_t Vfork(unsigned long namespaces) {
  constexpr unsigned long kVm = 0x100, kVfork = 0x4000;
  auto clone = [](unsigned long flags) __attribute__((always_inline)) {
    long result;
    register long r10 asm("r10") = 0;
    register long r8 asm("r8") = 0;
    // SAFETY: as vfork(2). The return is in this frame, and below the stack pointer nothing of it is kept.
    asm volatile("syscall"
                 : "=a"(result)
                 : "a"(SYS_clone), "D"(flags), "S"(0), "d"(0), "r"(r10), "r"(r8)
                 : "rcx", "r11", "memory");
    return result;
  };
  long pid = clone(namespaces | kVm | kVfork | SIGCHLD);
  if (pid < 0 && namespaces != 0) pid = clone(kVm | kVfork | SIGCHLD);
  return static_cast<pid_t>(pid);
}

// In the child of Vfork, before it executes: dies with its parent (prctl(2), PR_SET_PDEATHSIG), of which it has a
// pidfd; and is root of the user namespace that it was born into, if it was, so that it may build the rest. False if
// the parent is dead already. Allocates nothing.
bool BeforeExec(int parent_pidfd, unsigned long namespaces, uid_t uid, gid_t gid);

// The calling process becomes what the Sentry is to be. Afterwards it has no file system, no network, no capability,
// and a user ID that nobody else has (65534 inside). An error is one line: which wall, why, what to try.
std::expected<Missing, std::string> EnterSentryBox(const Options& options);

// A tree that a gofer serves.
struct Tree {
  std::string path;
  bool read_only = false;
  // Owners as these IDs make them; with the mounts below if `maps_all`. Empty: as they are.
  IdMaps ids;
  bool maps_all = false;
  int fd = -1;  // out: O_PATH, the root of a mount of its own, from which no path leads out
};

// The same for the gofer, which keeps its user ID and the capabilities that files need; with `ids` it is nobody outside
// of them, so that files of others are closed to it as to anybody. The trees are opened, with what
// is mounted below them; nosuid, nodev, noexec, and read-only those that are. `self_fd`: /proc/self/fd, likewise, which
// becomes the working directory too.
std::expected<Missing, std::string> EnterGoferBox(const Options& options, std::vector<Tree>& trees, int& self_fd);

}  // namespace redoubt::box

#endif  // REDOUBT_RUNSC_BOX_BOX_H_
