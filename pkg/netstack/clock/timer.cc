#include "pkg/netstack/clock/timer.h"

#include "pkg/log/log.h"

namespace redoubt::netstack {

Timer::~Timer() { CHECK(index_ == kNotQueued, "a queued timer holds its owner"); }

// The orders below are sequentially consistent: either Schedule sees that the queue has let go of the timer and inserts
// it again, or the queue, which lets go first and looks at the deadline second, sees the new deadline.
void Timer::Schedule(Time deadline) {
  deadline_.store(deadline);
  if (queued_deadline_.load() <= deadline) return;
  queue_.Insert(*this, deadline);
}

void Timer::Disarm() { deadline_.store(kNever); }

void Timer::Cancel() {
  deadline_.store(kNever);
  if (queue_.Remove(*this)) owner_.DecRef();
}

TimerQueue::~TimerQueue() { CHECK(heap_.empty(), "timers outlive their queue"); }

void TimerQueue::Insert(Timer& timer, Time deadline) {
  Time before;
  Time after;
  {
    sync::MutexLock lock(mu_);
    before = next_.load(std::memory_order_relaxed);
    if (timer.index_ == Timer::kNotQueued) {
      timer.owner_.IncRef();
      timer.queued_deadline_.store(deadline);
      heap_.push_back(&timer);
      timer.index_ = heap_.size() - 1;
      SiftUp(timer.index_);
    } else if (deadline < timer.queued_deadline_.load()) {
      timer.queued_deadline_.store(deadline);
      SiftUp(timer.index_);
    }
    PublishLocked();
    after = next_.load(std::memory_order_relaxed);
  }
  if (after < before && hook_) hook_(after);
}

bool TimerQueue::Remove(Timer& timer) {
  sync::MutexLock lock(mu_);
  if (timer.index_ == Timer::kNotQueued) return false;
  RemoveLocked(timer);
  PublishLocked();
  return true;
}

size_t TimerQueue::RunTimers(Time now, size_t limit) {
  size_t ran = 0;
  // Looking is bounded as firing is: a timer that was only moved goes to its new place and cannot come back in this
  // call.
  for (;;) {
    if (ran == limit || next_.load(std::memory_order_acquire) > now) return ran;
    Timer* fire = nullptr;
    const RefCounted* release = nullptr;
    {
      sync::MutexLock lock(mu_);
      if (heap_.empty() || heap_[0]->queued_deadline_.load() > now) {
        PublishLocked();
        return ran;
      }
      Timer& timer = *heap_[0];
      RemoveLocked(timer);
      Time due = timer.deadline_.load();
      if (due == kNever) {
        release = &timer.owner_;
      } else if (due > now) {
        timer.queued_deadline_.store(due);
        heap_.push_back(&timer);
        timer.index_ = heap_.size() - 1;
        SiftUp(timer.index_);
      } else {
        release = &timer.owner_;
        if (timer.deadline_.compare_exchange_strong(due, kNever)) {
          fire = &timer;
        } else if (due != kNever) {
          // Moved just now by somebody who may have seen it queued.
          timer.queued_deadline_.store(due);
          heap_.push_back(&timer);
          timer.index_ = heap_.size() - 1;
          SiftUp(timer.index_);
          release = nullptr;
        }
      }
      PublishLocked();
    }
    if (fire != nullptr) {
      fire->callback_(fire->context_, now);
      ran++;
    }
    if (release != nullptr) release->DecRef();
  }
}

size_t TimerQueue::size() const {
  sync::MutexLock lock(mu_);
  return heap_.size();
}

void TimerQueue::RemoveLocked(Timer& timer) {
  size_t i = timer.index_;
  timer.index_ = Timer::kNotQueued;
  timer.queued_deadline_.store(kNever);
  Timer* last = heap_.back();
  heap_.pop_back();
  if (last == &timer) return;
  PlaceLocked(i, last);
  SiftUp(i);
  SiftDown(last->index_);
}

void TimerQueue::PlaceLocked(size_t i, Timer* timer) {
  heap_[i] = timer;
  timer->index_ = i;
}

void TimerQueue::SiftUp(size_t i) {
  Timer* timer = heap_[i];
  Time key = timer->queued_deadline_.load(std::memory_order_relaxed);
  while (i > 0) {
    size_t parent = (i - 1) / 2;
    if (heap_[parent]->queued_deadline_.load(std::memory_order_relaxed) <= key) break;
    PlaceLocked(i, heap_[parent]);
    i = parent;
  }
  PlaceLocked(i, timer);
}

void TimerQueue::SiftDown(size_t i) {
  Timer* timer = heap_[i];
  Time key = timer->queued_deadline_.load(std::memory_order_relaxed);
  for (;;) {
    size_t child = 2 * i + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && heap_[child + 1]->queued_deadline_.load(std::memory_order_relaxed) <
                                        heap_[child]->queued_deadline_.load(std::memory_order_relaxed)) {
      child++;
    }
    if (key <= heap_[child]->queued_deadline_.load(std::memory_order_relaxed)) break;
    PlaceLocked(i, heap_[child]);
    i = child;
  }
  PlaceLocked(i, timer);
}

void TimerQueue::PublishLocked() {
  next_.store(heap_.empty() ? kNever : heap_[0]->queued_deadline_.load(std::memory_order_relaxed),
              std::memory_order_release);
}

}  // namespace redoubt::netstack
