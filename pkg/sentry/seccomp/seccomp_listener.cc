#include "pkg/sentry/seccomp/seccomp_listener.h"

#include <time.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace redoubt {
namespace {

constexpr waiter::EventMask kReadable = waiter::kIn | waiter::kRdNorm;
constexpr waiter::EventMask kAnswerable = waiter::kOut | waiter::kWrNorm;

}  // namespace

// Linux starts at random, so that an ID is of one listener only.
SeccompListener::SeccompListener(Wait wait) : wait_(wait) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  uint64_t x = (static_cast<uint64_t>(now.tv_sec) << 30 ^ static_cast<uint64_t>(now.tv_nsec)) * 0x9e3779b97f4a7c15;
  sync::MutexLock lock(mu_);
  next_id_ = x ^ x >> 29;
}

Result<std::optional<SeccompListener::Decision>> SeccompListener::Ask(const seccomp_data& data, RefPtr<RefCounted> task,
                                                                      const Sleep& sleep) {
  std::list<Waiting>::iterator own;
  {
    sync::MutexLock lock(mu_);
    if (detached_) return std::optional<Decision>();
    waiting_.push_back(
        {.id = next_id_++, .data = data, .task = std::move(task), .fiber = RefPtr<fiber::Fiber>(fiber::Current())});
    own = std::prev(waiting_.end());
  }
  queue_.Notify(kReadable);
  const Result<> waited = AwaitAnswer(*own, sleep);
  // Its task is let go of without the lock.
  std::list<Waiting> mine;
  bool detached = false;
  {
    sync::MutexLock lock(mu_);
    mine.splice(mine.begin(), waiting_, own);
    detached = detached_;
  }
  if (mine.front().decision) return mine.front().decision;
  if (detached) return std::optional<Decision>();
  return Err(waited.error());
}

Result<> SeccompListener::AwaitAnswer(Waiting& own, const Sleep& sleep) {
  bool killable = false;
  Result<> slept;
  while (true) {
    bool leave = false;
    {
      sync::MutexLock lock(mu_);
      leave = detached_ || own.decision || !slept;
      if (!slept && !killable && wait_ == Wait::kKillableOnceReceived && own.state != State::kNew) {
        // The signal that woke us can wait.
        killable = true;
        slept = {};
        leave = detached_ || own.decision;
      }
      if (leave && own.giving == 0) {
        // Whoever looks for it from now on finds it answered.
        own.state = State::kAnswered;
        return slept;
      }
    }
    if (leave) {
      // For a moment only.
      fiber::Park();
    } else {
      slept = sleep(killable);
    }
  }
}

Result<SeccompListener::Question> SeccompListener::Receive() {
  std::optional<Question> question;
  {
    sync::MutexLock lock(mu_);
    for (Waiting& w : waiting_) {
      if (w.state != State::kNew) continue;
      w.state = State::kReceived;
      question = Question{w.id, w.data, w.task};
      break;
    }
    if (!question) return Err(users_gone_ ? ENOENT : EAGAIN);
  }
  queue_.Notify(kAnswerable);
  return *std::move(question);
}

void SeccompListener::Return(uint64_t id) {
  {
    sync::MutexLock lock(mu_);
    Waiting* w = FindLocked(id);
    if (w == nullptr || w->state != State::kReceived) return;
    w->state = State::kNew;
  }
  queue_.Notify(kReadable);
}

Result<> SeccompListener::Answer(uint64_t id, Decision decision) {
  sync::MutexLock lock(mu_);
  Waiting* w = TRY(ReceivedLocked(id));
  w->state = State::kAnswered;
  w->decision = decision;
  w->fiber->Unpark();
  return {};
}

Result<int> SeccompListener::Give(uint64_t id, bool answer, const std::function<Result<int>(RefCounted& task)>& give) {
  Waiting* w = nullptr;
  {
    sync::MutexLock lock(mu_);
    w = TRY(ReceivedLocked(id));
    w->giving++;
    // Nobody else can answer now.
    if (answer) w->state = State::kAnswered;
  }
  // It stays: Ask does not return before.
  Result<int> given = give(*w->task);
  sync::MutexLock lock(mu_);
  w->giving--;
  if (answer && given) {
    w->decision = Decision{.proceed = false, .value = *given};
  } else if (answer) {
    w->state = State::kReceived;
  }
  w->fiber->Unpark();
  return given;
}

bool SeccompListener::IsReceived(uint64_t id) {
  sync::MutexLock lock(mu_);
  return ReceivedLocked(id).has_value();
}

void SeccompListener::Detach() {
  {
    sync::MutexLock lock(mu_);
    detached_ = true;
    for (Waiting& w : waiting_) w.fiber->Unpark();
  }
}

void SeccompListener::UsersGone() {
  {
    sync::MutexLock lock(mu_);
    users_gone_ = true;
  }
  queue_.Notify(waiter::kHup);
}

waiter::EventMask SeccompListener::Readiness(waiter::EventMask mask) {
  sync::MutexLock lock(mu_);
  waiter::EventMask ready = users_gone_ ? waiter::kHup : 0;
  for (const Waiting& w : waiting_) {
    if (w.state == State::kNew) ready |= kReadable;
    if (w.state == State::kReceived) ready |= kAnswerable;
  }
  return ready & mask;
}

SeccompListener::Waiting* SeccompListener::FindLocked(uint64_t id) {
  auto it = std::find_if(waiting_.begin(), waiting_.end(), [id](const Waiting& w) { return w.id == id; });
  return it != waiting_.end() ? &*it : nullptr;
}

Result<SeccompListener::Waiting*> SeccompListener::ReceivedLocked(uint64_t id) {
  Waiting* w = FindLocked(id);
  if (w == nullptr) return Err(ENOENT);
  if (w->state != State::kReceived) return Err(EINPROGRESS);
  return w;
}

}  // namespace redoubt
