// A process that was made from outside: a container's first, or one that `exec` has put there.
#ifndef REDOUBT_RUNSC_BOOT_PROCESS_H_
#define REDOUBT_RUNSC_BOOT_PROCESS_H_

#include <functional>
#include <map>
#include <utility>

#include "pkg/refs/refs.h"
#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/tty/job_control.h"
#include "pkg/sync/mutex.h"

namespace redoubt::boot {

// Held by its container until it has ended and by those who deal with it. Thread-safe.
class Process final : public RefCounted {
 public:
  Process(RefPtr<kernel::ThreadGroup> group, RefPtr<tty::Terminal> terminal)
      : group_(std::move(group)), terminal_(std::move(terminal)) {}

  int pid() const { return group_->pid->number(); }  // in its PID namespace, the container's
  kernel::ThreadGroup& group() const { return *group_; }

  // From outside (kill(2): from no process of this PID namespace). What comes from a `keyboard` goes to the foreground
  // of the terminal that the process was given, if it was.
  void Signal(int sig, bool keyboard);
  bool HasEnded();

  // `f` is called once with the status, as wait(2) encodes it; false, and it is not kept: the process has ended.
  using Waiter = std::function<void(int status)>;
  bool AddWaiter(const void* key, Waiter f) EXCLUDES(mu_);
  void RemoveWaiter(const void* key) EXCLUDES(mu_);
  // Parks the calling fiber until the process has ended, which only one may do, and tells the waiters.
  int AwaitEnd() EXCLUDES(mu_);

 private:
  const RefPtr<kernel::ThreadGroup> group_;
  const RefPtr<tty::Terminal> terminal_;
  sync::Mutex mu_{sync::Rank::kLeaf};
  bool ended_ GUARDED_BY(mu_) = false;
  std::multimap<const void*, Waiter> waiters_ GUARDED_BY(mu_);
};

}  // namespace redoubt::boot

#endif  // REDOUBT_RUNSC_BOOT_PROCESS_H_
