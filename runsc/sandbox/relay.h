// Stands outside for a process inside: a container's first, or one that `exec` has started. Engines know a container by
// the number of this process: they send signals to it and take its wait(2) status for the container's.
#ifndef REDOUBT_RUNSC_SANDBOX_RELAY_H_
#define REDOUBT_RUNSC_SANDBOX_RELAY_H_

#include <string>

#include "runsc/control/connection.h"
#include "runsc/sandbox/sandbox.h"

namespace redoubt::sandbox {

struct Ended {
  int status = 0;     // as wait(2) encodes it
  std::string text;   // of the Sentry, for stderr
  std::string error;  // something other than the process has ended it; one line
};

// To be called with every signal blocked. Passes this process's signals on to the one inside, those of the terminal to
// its foreground process group, until it has ended. `sandbox`: whose connection it is, to be taken down at the end;
// null for an exec.
Ended Relay(const control::Connection& connection, Sandbox* sandbox);

// As `run` exits: the guest's code, 128 + n for signal n.
int ExitCode(int status);
// Ends this process as the status says, by the same signal if it was one. Without a core dump.
[[noreturn]] void EndAs(int status);

}  // namespace redoubt::sandbox

#endif  // REDOUBT_RUNSC_SANDBOX_RELAY_H_
