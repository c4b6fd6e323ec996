#include "pkg/waiter/waiter.h"

#include "pkg/log/log.h"

namespace redoubt::waiter {

Queue::~Queue() { CHECK(entries_.empty(), "a wait queue died with waiters"); }

void Queue::Register(Entry& entry) {
  sync::MutexLock lock(mu_);
  entries_.push_back(entry);
}

void Queue::Unregister(Entry& entry) {
  sync::MutexLock lock(mu_);
  if (entry.is_linked()) entries_.erase(entries_.iterator_to(entry));
}

void Queue::Notify(EventMask events) {
  sync::MutexLock lock(mu_);
  NotifyLocked(events);
}

void Queue::NotifyNested(EventMask events) {
  sync::MutexLockNested lock(mu_);
  NotifyLocked(events);
}

void Queue::NotifyLocked(EventMask events) {
  for (Entry& entry : entries_) {
    if ((entry.mask() & events) != 0) entry.Notify(entry.mask() & events);
  }
}

bool Queue::IsEmpty() const {
  sync::MutexLock lock(mu_);
  return entries_.empty();
}

}  // namespace redoubt::waiter
