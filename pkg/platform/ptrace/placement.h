// Keeps a tracer and its traced thread on one processor while they take turns, and only then.
//
// Of the two, one runs at a time. Woken on another, idle processor each turn costs an interprocessor interrupt and a
// wake-up from idle: 50 us and more in a virtual machine, against 10 us on one processor. But a pair that is tied to a
// processor must not share it with others while one stands idle. So: a pair is tied after a short turn; untied for one
// turn every kRefresh, to let the host place both anew; and a watchdog unties what runs, or rests, for long.
//
// A thread that a tied OS thread starts inherits the tie: ThreadedExecutor's threads undo that as they begin.
#ifndef REDOUBT_PKG_PLATFORM_PTRACE_PLACEMENT_H_
#define REDOUBT_PKG_PLATFORM_PTRACE_PLACEMENT_H_

#include <sched.h>
#include <sys/types.h>

#include <atomic>
#include <cstdint>

#include "pkg/platform/ptrace/stub_process.h"

namespace redoubt::platform::ptrace {

// The calling OS thread's part. Used by it alone, but for Watch.
class Placement final {
 public:
  Placement();
  ~Placement();
  Placement(const Placement&) = delete;
  Placement& operator=(const Placement&) = delete;

  // Not to be cached across a park.
  [[gnu::noinline]] static Placement& OfCaller();
  // Notes what the process may use; before any of its threads is tied.
  static void Init();

  // Around one turn of `thread`, which begins and ends on this OS thread.
  void Before(TracedThread& thread, Host& host);
  void After(TracedThread& thread);
  // Ties the caller now and `tid`, a stopped or sleeping stub thread, with it: for exchanges with stub code, which are
  // always short. The processor, or -1 if none; what `tid` clones inherits the tie.
  int TieWith(pid_t tid, Host& host);

  // The watchdog's round. False: nothing is tied, so no more rounds are needed until it is poked.
  static bool Watch();
  static constexpr int64_t kWatchPeriod = 4'000'000;  // ns

 private:
  static constexpr int64_t kShortTurn = 200'000;
  static constexpr int64_t kRefresh = 20'000'000;

  void Untie();
  // False: not tied.
  bool Tie(int64_t now);
  void Publish(pid_t running, int64_t now, Host& host);

  const pid_t os_thread_;
  bool enabled_ = true;
  bool last_was_short_ = false;
  int cpu_ = -1;  // tied to; -1: not
  int64_t tied_at_ = 0;
  // Shared with the watchdog.
  std::atomic<bool> tied_{false};
  std::atomic<bool> untied_by_watchdog_{false};
  std::atomic<pid_t> running_{0};  // the traced thread whose turn it is
  std::atomic<int64_t> since_{0};  // when the turn, or the rest after it, began
};

}  // namespace redoubt::platform::ptrace

#endif  // REDOUBT_PKG_PLATFORM_PTRACE_PLACEMENT_H_
