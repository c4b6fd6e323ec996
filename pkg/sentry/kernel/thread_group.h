// A process: Linux's signal_struct and what the threads of a process share.
#ifndef REDOUBT_PKG_SENTRY_KERNEL_THREAD_GROUP_H_
#define REDOUBT_PKG_SENTRY_KERNEL_THREAD_GROUP_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "pkg/refs/refs.h"
#include "pkg/sentry/kernel/pid_namespace.h"
#include "pkg/sentry/kernel/session.h"
#include "pkg/sentry/limits/limits.h"
#include "pkg/sentry/signal/signal.h"
#include "pkg/waiter/waiter.h"

namespace redoubt::kernel {

class Container;
class Kernel;
class ProcessTimers;
class Task;

// Signal dispositions, shared with CLONE_SIGHAND. Guarded by Kernel::mu.
class SignalHandlers final : public RefCounted {
 public:
  SignalAction& operator[](int sig) { return actions_[sig - 1]; }
  const SignalAction& operator[](int sig) const { return actions_[sig - 1]; }
  RefPtr<SignalHandlers> Clone() const;
  // exec(2): handlers become SIG_DFL, ignored signals stay ignored.
  void ResetForExec();

 private:
  std::array<SignalAction, kMaxSignal> actions_{};
};

// CPU time used, in nanoseconds.
struct CpuTimes {
  uint64_t user = 0;
  uint64_t system = 0;
  CpuTimes& operator+=(const CpuTimes& o) {
    user += o.user;
    system += o.system;
    return *this;
  }
};

// Counters of getrusage(2) beyond CPU time.
struct Usage {
  CpuTimes cpu;
  uint64_t max_rss = 0;  // bytes
  uint64_t minor_faults = 0;
  uint64_t voluntary_switches = 0;
  uint64_t involuntary_switches = 0;
};

// Owned by its tasks, by the process tree until it is reaped, and by pidfds. All fields but the constant and atomic
// ones are guarded by Kernel::mu, which they cannot name here.
class ThreadGroup final : public RefCounted {
 public:
  ThreadGroup(Kernel& kernel, RefPtr<Pid> pid);
  ~ThreadGroup() override;

  Kernel& kernel() const { return kernel_; }
  const RefPtr<Pid> pid;
  const int id;  // TGID, in the outermost PID namespace; getpid(2) is pid->number()

  RefPtr<Container> container;  // set before others can see the group
  bool held = false;            // made from outside, and not let run yet (Kernel::Release)

  // The tree.
  Task* leader = nullptr;         // has the group's ID; outlives its own exit until the group is reaped
  std::vector<Task*> tasks;       // not yet exited
  int running = 0;                // of those, that have not begun to: the last of them ends what is the process's
  ThreadGroup* parent = nullptr;  // null for init and for the dead
  std::atomic<int> parent_id{0};  // getppid(2): 0 if the parent is of another PID namespace
  void SetParentLocked(ThreadGroup* p) {
    parent = p;
    parent_id.store(p != nullptr ? p->pid->In(pid->ns()) : 0, std::memory_order_relaxed);
  }
  std::vector<ThreadGroup*> children;  // not yet reaped
  int forked_by = 0;                   // TID of the thread of `parent` that made it
  RefPtr<ProcessGroup> process_group;
  bool child_subreaper = false;    // PR_SET_CHILD_SUBREAPER
  bool made_from_outside = false;  // by CreateProcess: reaped by WaitForExit
  bool did_exec = false;           // setpgid(2) by the parent: EACCES after
  bool gave_up_tty = false;        // TIOCNOTTY: the session's terminal is not this process's; inherited
  // The session's controlling terminal unless given up; null if there is none.
  RefPtr<RefCounted> ControllingTtyLocked() const {
    return process_group && !gave_up_tty ? process_group->session->controlling_tty : nullptr;
  }

  // Signals.
  RefPtr<SignalHandlers> handlers;
  PendingSignals pending;      // for any thread
  waiter::Queue signal_queue;  // signalfd: something became pending
  int exit_signal = SIGCHLD;   // to the parent at death; 0: none
  // The first process of a PID namespace: signals whose default action it has not changed do nothing to it, but for
  // SIGKILL and SIGSTOP from outside and what its own faults raise (pid_namespaces(7)).
  bool unkillable = false;

  // Job control. A stop begins with a signal; every task parks until SIGCONT or SIGKILL.
  bool stopped = false;              // a group stop is in force
  bool stop_reportable = false;      // wait(WUNTRACED) has not seen it
  bool continue_reportable = false;  // wait(WCONTINUED) has not seen it
  int stop_signal = 0;
  int stopped_tasks = 0;       // parked for it
  bool stop_complete = false;  // all have been

  // Death. exiting: all tasks are on their way out with exit_status. zombie: all have gone, waiting for wait(2).
  bool exiting = false;
  bool zombie = false;
  bool reaped = false;
  int exit_status = 0;  // as wait(2) encodes it
  bool core_dumped = false;
  Task* execing = nullptr;  // a task in exec that waits for the others to go

  Usage usage;                 // of exited tasks
  Usage children_usage;        // of reaped children, recursively
  waiter::Queue child_events;  // kIn: a child changed state, for this group's wait(2)
  waiter::Queue exit_events;   // kIn: this group became a zombie (pidfd)

  RefPtr<RefCounted> sem_undo;  // semop(2), SEM_UNDO: dropped, which undoes, when the last task ends

  limits::LimitSet limits;
  std::unique_ptr<ProcessTimers> timers;
  std::atomic<int> oom_score_adj{0};
  std::atomic<bool> dumpable{true};
  std::atomic<bool> no_huge_pages{false};  // PR_SET_THP_DISABLE: read back only
  int64_t start_time = 0;                  // CLOCK_BOOTTIME, ns

 private:
  Kernel& kernel_;
};

}  // namespace redoubt::kernel

#endif  // REDOUBT_PKG_SENTRY_KERNEL_THREAD_GROUP_H_
