#include "pkg/sentry/wait/wait.h"

namespace redoubt::wait {

Sleeper* CurrentSleeper() {
  fiber::Fiber* f = fiber::Current();
  return f != nullptr ? static_cast<Sleeper*>(f->local) : nullptr;
}

Result<> Block(fiber::Time deadline) {
  Sleeper* sleeper = CurrentSleeper();
  // Interrupting sets the condition first and unparks second, so one of the two looks sees it.
  if (sleeper != nullptr && sleeper->InterruptPending()) return Err(kErestartsys);
  if (sleeper != nullptr) sleeper->FallAsleep();
  fiber::ParkResult parked = fiber::Park(deadline);
  if (sleeper != nullptr) sleeper->WakeUp();
  if (sleeper != nullptr && sleeper->InterruptPending()) return Err(kErestartsys);
  if (parked == fiber::ParkResult::kTimedOut) return Err(ETIMEDOUT);
  return {};
}

}  // namespace redoubt::wait
