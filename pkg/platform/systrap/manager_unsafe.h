// Talking to the manager of a stub: a command through memory, its answer through a pipe.
#ifndef REDOUBT_PKG_PLATFORM_SYSTRAP_MANAGER_UNSAFE_H_
#define REDOUBT_PKG_PLATFORM_SYSTRAP_MANAGER_UNSAFE_H_

#include <atomic>
#include <cstdint>

#include "pkg/errors/errors.h"
#include "pkg/platform/systrap/control.h"

namespace redoubt::platform::systrap {

// Wakes whoever waits for a change of a word of the control file.
void WakeWord(std::atomic<uint32_t>& word);
// Has the manager do `operation`, whose arguments are in place. One command at a time.
void PostCommand(CommandPage& command, uint32_t operation);
// Waits for its answer, an errno or none; some tens of microseconds. ESRCH if the process has died.
Result<> ReadAck(int pipe);

}  // namespace redoubt::platform::systrap

#endif  // REDOUBT_PKG_PLATFORM_SYSTRAP_MANAGER_UNSAFE_H_
