// futex(2).
#include <linux/futex.h>

#include "pkg/sentry/syscalls/common.h"
#include "pkg/sentry/syscalls/handlers.h"

namespace redoubt::syscalls {
namespace {

Result<uint64_t> FutexWait(Task& task, Addr addr, bool is_private, uint32_t value, uint32_t bitset,
                           fiber::Time deadline) {
  Result<> r = task.kernel().futexes().Wait(task, addr, is_private, value, bitset, deadline);
  if (r) return 0;
  if (r.error() != kErestartsys || deadline == fiber::kForever) return Err(r.error());
  // With a time-out a handler ends the wait whatever SA_RESTART says; a stop does not.
  task.restart = [=](Task& t) { return FutexWait(t, addr, is_private, value, bitset, deadline); };
  return Err(kErestartRestartblock);
}

}  // namespace

Result<uint64_t> Futex(Task& task, const SyscallArgs& a) {
  Addr addr = a.Pointer(0);
  int op = a.I32(1);
  uint32_t value = a.U32(2);
  bool is_private = (op & FUTEX_PRIVATE_FLAG) != 0;
  bool realtime = (op & FUTEX_CLOCK_REALTIME) != 0;
  int command = op & FUTEX_CMD_MASK;
  if (realtime && command != FUTEX_WAIT && command != FUTEX_WAIT_BITSET) return Err(ENOSYS);
  futex::Manager& futexes = task.kernel().futexes();
  switch (command) {
    case FUTEX_WAIT:
    case FUTEX_WAIT_BITSET: {
      fiber::Time deadline = fiber::kForever;
      bool absolute = command == FUTEX_WAIT_BITSET;
      if (a.Pointer(3) != 0) {
        clock::Nanoseconds t = TRY(CopyInTimespec(task, a.Pointer(3)));
        if (absolute) {
          clock::Nanoseconds now = realtime ? clock::Realtime() : clock::Monotonic();
          deadline = t <= now ? fiber::Now() : DeadlineAfter(t - now);
        } else {
          deadline = DeadlineAfter(t);
        }
      }
      uint32_t bitset = absolute ? a.U32(5) : FUTEX_BITSET_MATCH_ANY;
      return FutexWait(task, addr, is_private, value, bitset, deadline);
    }
    case FUTEX_WAKE:
      return TRY(futexes.Wake(task, addr, is_private, value, FUTEX_BITSET_MATCH_ANY));
    case FUTEX_WAKE_BITSET:
      return TRY(futexes.Wake(task, addr, is_private, value, a.U32(5)));
    case FUTEX_REQUEUE:
    case FUTEX_CMP_REQUEUE: {
      if (a.I32(2) < 0 || a.I32(3) < 0) return Err(EINVAL);
      uint32_t expected = a.U32(5);
      return TRY(futexes.Requeue(task, addr, a.Pointer(4), is_private, value, a.U32(3),
                                 command == FUTEX_CMP_REQUEUE ? &expected : nullptr));
    }
    case FUTEX_WAKE_OP:
      return TRY(futexes.WakeOp(task, addr, a.Pointer(4), is_private, value, a.U32(3), a.U32(5)));
    default:
      // Priority inheritance: there are no priorities to inherit; glibc falls back or reports ENOTSUP.
      return Err(ENOSYS);
  }
}

}  // namespace redoubt::syscalls
