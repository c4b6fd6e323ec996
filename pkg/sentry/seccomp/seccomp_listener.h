// Who is asked about system calls that a filter leaves to others: seccomp_unotify(2), Linux's struct notification.
#ifndef REDOUBT_PKG_SENTRY_SECCOMP_SECCOMP_LISTENER_H_
#define REDOUBT_PKG_SENTRY_SECCOMP_SECCOMP_LISTENER_H_

#include <linux/seccomp.h>

#include <cstdint>
#include <functional>
#include <list>
#include <optional>

#include "pkg/errors/errors.h"
#include "pkg/fiber/fiber.h"
#include "pkg/refs/refs.h"
#include "pkg/sync/mutex.h"
#include "pkg/waiter/waiter.h"

namespace redoubt {

// The place where tasks that make such a call meet those that have the descriptor. Held by the filter and by the
// descriptor's description; each says when it is gone. Thread-safe.
class SeccompListener final : public RefCounted {
 public:
  // SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: once a question is received, its task waits for an answer or its death.
  enum class Wait { kInterruptible, kKillableOnceReceived };
  explicit SeccompListener(Wait wait);

  // What the supervisor has decided; `proceed`: the call is made. Otherwise it returns `value`, as Linux would have it
  // in rax.
  struct Decision {
    bool proceed = false;
    int64_t value = 0;
  };
  // Puts the calling task's fiber to sleep, once; may wake spuriously. An error: a signal is there, or, with
  // `killable`, one that ends the task.
  using Sleep = std::function<Result<>(bool killable)>;
  // The calling task's fiber waits for an answer; `task` is it, for those who ask who. Nothing: nobody listens (any
  // more). Else an error of `sleep`: nobody will answer.
  Result<std::optional<Decision>> Ask(const seccomp_data& data, RefPtr<RefCounted> task, const Sleep& sleep)
      EXCLUDES(mu_);

  struct Question {
    uint64_t id;
    seccomp_data data;
    RefPtr<RefCounted> task;
  };
  // One that nobody has received yet. EAGAIN: there is none; ENOENT: nor will there be.
  Result<Question> Receive() EXCLUDES(mu_);
  // It could not be told: as if it had not been received.
  void Return(uint64_t id) EXCLUDES(mu_);
  // ENOENT: it waits no longer; EINPROGRESS: it has not been received, or is answered.
  Result<> Answer(uint64_t id, Decision decision) EXCLUDES(mu_);
  bool IsReceived(uint64_t id) EXCLUDES(mu_);

  // SECCOMP_IOCTL_NOTIF_ADDFD: `give` gives a descriptor to the task, which does not go on meanwhile, and returns its
  // number. With `answer` that is what the call returns. Errors as of Answer, and `give`'s, which leave all as it was.
  Result<int> Give(uint64_t id, bool answer, const std::function<Result<int>(RefCounted& task)>& give) EXCLUDES(mu_);

  // The last descriptor is closed: nobody will answer.
  void Detach() EXCLUDES(mu_);
  // No task has the filter any more: nobody will ask.
  void UsersGone() EXCLUDES(mu_);

  waiter::EventMask Readiness(waiter::EventMask mask) EXCLUDES(mu_);
  void RegisterWaiter(waiter::Entry& entry) { queue_.Register(entry); }
  void UnregisterWaiter(waiter::Entry& entry) { queue_.Unregister(entry); }

 private:
  enum class State { kNew, kReceived, kAnswered };
  struct Waiting {
    uint64_t id;
    seccomp_data data;
    RefPtr<RefCounted> task;
    RefPtr<fiber::Fiber> fiber;
    State state = State::kNew;
    int giving = 0;  // how many Give are under way
    std::optional<Decision> decision;
  };
  Waiting* FindLocked(uint64_t id) REQUIRES(mu_);
  // One that has been received and not been answered.
  Result<Waiting*> ReceivedLocked(uint64_t id) REQUIRES(mu_);
  // Until its question may go.
  Result<> AwaitAnswer(Waiting& own, const Sleep& sleep) EXCLUDES(mu_);

  const Wait wait_;
  sync::Mutex mu_{sync::Rank::kPipe};
  std::list<Waiting> waiting_ GUARDED_BY(mu_);  // one of each task that asks, in the order of their questions
  uint64_t next_id_ GUARDED_BY(mu_);
  bool detached_ GUARDED_BY(mu_) = false;
  bool users_gone_ GUARDED_BY(mu_) = false;
  waiter::Queue queue_;
};

}  // namespace redoubt

#endif  // REDOUBT_PKG_SENTRY_SECCOMP_SECCOMP_LISTENER_H_
