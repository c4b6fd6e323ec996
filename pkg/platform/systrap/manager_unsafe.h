// Talking to the manager of a stub: a command through memory, its answer through a pipe.
#ifndef REDOUBT_PKG_PLATFORM_SYSTRAP_MANAGER_UNSAFE_H_
#define REDOUBT_PKG_PLATFORM_SYSTRAP_MANAGER_UNSAFE_H_

#include <sys/types.h>

#include <atomic>
#include <cstdint>

#include "pkg/errors/errors.h"
#include "pkg/platform/systrap/control.h"

namespace redoubt::platform::systrap {

// Brings a manager, which is about to get a command, to the caller's processor, and keeps the caller there: the two
// then take turns at the price of a switch, where the wake-up of an idle processor costs ten times as much. `last` is
// where the manager was brought before (-1: nowhere). Every now and then the caller is set free for a moment, so that
// the host can place it anew.
void BringManager(pid_t manager, int& last);
// Keeps `tid` off the processor that the caller is at, and the caller there. `kept_off` is the processor that it was
// kept off before (-1: none). A thread that is waked by one that then spins must not queue up behind it, with another
// processor idle: the host corrects that only after milliseconds. True if that was changed.
bool KeepOff(pid_t tid, std::atomic<int>& kept_off);

// Wakes whoever waits for a change of a word of the control file.
void WakeWord(std::atomic<uint32_t>& word);
// Has the manager do `operation`, whose arguments are in place. One command at a time.
void PostCommand(CommandPage& command, uint32_t operation);
// Waits for its answer, an errno or none; some tens of microseconds. ESRCH if the process has died.
Result<> ReadAck(int pipe);

}  // namespace redoubt::platform::systrap

#endif  // REDOUBT_PKG_PLATFORM_SYSTRAP_MANAGER_UNSAFE_H_
