// Interruptible sleeping: how any part of the Sentry waits on behalf of a guest thread without knowing what a Task is.
#ifndef REDOUBT_PKG_SENTRY_WAIT_WAIT_H_
#define REDOUBT_PKG_SENTRY_WAIT_WAIT_H_

#include "pkg/errors/errors.h"
#include "pkg/fiber/fiber.h"
#include "pkg/waiter/waiter.h"

namespace redoubt::wait {

// The guest thread of a fiber: kernel::Task implements it, and Fiber::local points to it.
class Sleeper {
 public:
  virtual ~Sleeper() = default;
  // A signal, a stop or the task's own death wants its attention; sleeping must end.
  virtual bool InterruptPending() const = 0;
  // Around every sleep, on the sleeper's own fiber: its CPU time stands still in between.
  virtual void FallAsleep() {}
  virtual void WakeUp() {}
};

// The Sleeper of the current fiber; null outside a task.
Sleeper* CurrentSleeper();

// Parks the current fiber once. kErestartsys if interrupted (before or while parked), ETIMEDOUT at the deadline,
// otherwise success, possibly spurious: callers loop over their condition. No sync::Mutex may be held.
Result<> Block(fiber::Time deadline = fiber::kForever);

// The loop around an operation that answers EAGAIN: registers on the object, tries, sleeps, tries again.
//   `object` has RegisterWaiter(Entry&) and UnregisterWaiter(Entry&). `attempt` returns a Result; any outcome but
//   EAGAIN ends the loop.
template <typename Object, typename Attempt>
auto Retry(Object& object, waiter::EventMask mask, fiber::Time deadline, Attempt&& attempt) -> decltype(attempt()) {
  // First without registering: most operations do not block.
  auto result = attempt();
  if (result || result.error() != Errno(EAGAIN)) return result;
  waiter::FiberEntry entry(mask | waiter::kErr | waiter::kHup);
  object.RegisterWaiter(entry);
  while (true) {
    result = attempt();
    if (result || result.error() != Errno(EAGAIN)) break;
    Result<> blocked = Block(deadline);
    if (!blocked) {
      // A last look: an event may have come together with the interruption or the time-out.
      result = attempt();
      if (!result && result.error() == Errno(EAGAIN)) result = Err(blocked.error());
      break;
    }
  }
  object.UnregisterWaiter(entry);
  return result;
}

}  // namespace redoubt::wait

#endif  // REDOUBT_PKG_SENTRY_WAIT_WAIT_H_
