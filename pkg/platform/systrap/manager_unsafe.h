// Talking to the manager of a stub: a command through memory, its answer through a pipe.
#ifndef REDOUBT_PKG_PLATFORM_SYSTRAP_MANAGER_UNSAFE_H_
#define REDOUBT_PKG_PLATFORM_SYSTRAP_MANAGER_UNSAFE_H_

#include <sys/types.h>

#include <atomic>
#include <cstdint>

#include "pkg/errors/errors.h"
#include "pkg/platform/systrap/control.h"

namespace redoubt::platform::systrap {

// Where a manager may run: on one processor, or not on one; -1: no such.
struct ManagerPlace {
  int at = -1;
  int off = -1;
};

// Brings a manager, which is about to get a command, to the caller's processor, and keeps the caller there: the two
// then take turns at the price of a switch, where the wake-up of an idle processor costs ten times as much. Every now
// and then the caller is set free for a moment, so that the host can place it anew.
void BringManager(pid_t manager, ManagerPlace& place);
// Keeps a manager off the caller's processor, and the caller there, which is about to spin for its answer. False if it
// has nowhere else to go.
bool SendManagerAway(pid_t manager, ManagerPlace& place);
// The manager, and the threads that it makes, may run anywhere.
void FreeManager(pid_t manager, ManagerPlace& place);
// Keeps `tid` off the processor that the caller is at, and the caller there. `kept_off` is the processor that it was
// kept off before (-1: none). A thread that is waked by one that then spins must not queue up behind it, with another
// processor idle: the host corrects that only after milliseconds. True if that was changed.
bool KeepOff(pid_t tid, std::atomic<int>& kept_off);

// Wakes whoever waits for a change of a word of the control file.
void WakeWord(std::atomic<uint32_t>& word);
// Has the manager do `operation`, whose arguments are in place (`ring` among them). One command at a time.
void PostCommand(CommandPage& command, uint32_t operation);
// Waits for its answer, an errno or none; some tens of microseconds. ESRCH if the process has died.
Result<> ReadAck(int pipe);

// The same where the manager is waked by one of its process' guest threads, which spins and makes room for it: that
// costs switches between threads of one process; and its processor is the only one that has their memory in use, so
// that none need be interrupted when that changes.
// As PostCommand, without waking.
void WriteCommand(CommandPage& command, uint32_t operation);
// Before ReadAck: spins until the answer is there. The guest can see to it that the manager sleeps on: then the caller
// wakes it, in the end. `done`: SlotControl::done of the first slot.
void SpinForAck(CommandPage& command, const std::atomic<uint32_t>& done, int pipe);

}  // namespace redoubt::platform::systrap

#endif  // REDOUBT_PKG_PLATFORM_SYSTRAP_MANAGER_UNSAFE_H_
