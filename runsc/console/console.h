// A terminal for a container that an engine watches: --console-socket.
#ifndef REDOUBT_RUNSC_CONSOLE_CONSOLE_H_
#define REDOUBT_RUNSC_CONSOLE_CONSOLE_H_

#include <string>

#include "pkg/fd/unique_fd.h"
#include "runsc/specutils/spec.h"

namespace redoubt::console {

// Makes a pseudo-terminal (pty(7)), sends its master by SCM_RIGHTS to whoever listens at `socket`, as runc's
// terminals.md has it, and returns the slave. `rows` and `columns` 0: as it comes.
specutils::Expected<UniqueFd> Offer(const std::string& socket, uint16_t rows, uint16_t columns);

}  // namespace redoubt::console

#endif  // REDOUBT_RUNSC_CONSOLE_CONSOLE_H_
