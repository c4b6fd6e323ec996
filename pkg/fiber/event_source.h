// What an executor watches besides its own queue.
#ifndef REDOUBT_PKG_FIBER_EVENT_SOURCE_H_
#define REDOUBT_PKG_FIBER_EVENT_SOURCE_H_

#include <cstdint>

namespace redoubt::fiber {

// Where the threads of an executor learn of what happens outside: the traps of guests, which come through shared memory
// without a host call. Threads look (Poll) between fibers and before they sleep. Owned by whoever made it; outlives the
// executor.
class EventSource {
 public:
  virtual ~EventSource() = default;
  // Unparks the fibers whose events have come. True if there were any. Any thread of the executor, without locks;
  // must be cheap when nothing is awaited.
  virtual bool Poll() = 0;
  // True: no thread looks from now on, until false; an event must make wake_fd() readable meanwhile. Calls are
  // serialized; may be called under the executor's lock.
  virtual void SetAsleep(bool asleep) = 0;
  // After a sleep that ended because wake_fd() was readable: makes it unreadable again, and unparks as Poll does.
  virtual void Drain() = 0;
  virtual int wake_fd() const = 0;
  // Makes wake_fd() readable: adds to event_fd(), an eventfd(2) that others may add to as well.
  virtual void Wake() = 0;
  virtual int event_fd() const = 0;
  // For how long, in ns, a thread without work is to look before it sleeps.
  virtual int64_t SpinTime() = 0;
};

}  // namespace redoubt::fiber

#endif  // REDOUBT_PKG_FIBER_EVENT_SOURCE_H_
