// The end of a task and of a process: exit(2), exit_group(2), wait(2)'s other side.
#include <algorithm>

#include "pkg/log/log.h"
#include "pkg/sentry/kernel/container.h"
#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/kernel/process_timers.h"
#include "pkg/sentry/kernel/task.h"
#include "pkg/sentry/kernel/tty.h"

namespace redoubt::kernel {
namespace {

// A list in guest memory is walked this far (the kernel's ROBUST_LIST_LIMIT).
constexpr int kRobustListLimit = 2048;
constexpr uint32_t kFutexWaiters = 0x80000000;
constexpr uint32_t kFutexOwnerDied = 0x40000000;
constexpr uint32_t kFutexTidMask = 0x3fffffff;

}  // namespace

void Task::Exit(int status) {
  exiting_ = true;
  exit_status_ = status;
}

void Task::ExitGroup(int status) {
  sync::MutexLock lock(kernel_.mu);
  kernel_.KillGroupLocked(*group_, status);
  exiting_ = true;
  exit_status_ = group_->exit_status;
}

void Kernel::KillGroupLocked(ThreadGroup& group, int status) {
  if (group.zombie) return;
  if (!group.exiting) {
    group.exiting = true;
    group.exit_status = status;
    group.stopped = false;
  }
  for (Task* task : group.tasks) {
    if (status == SIGKILL && task->IsTracedLocked()) task->trace_->killed = true;
    task->InterruptLocked();
  }
}

// get_robust_list(2): the words of mutexes this task held are marked, and one waiter of each is woken.
void Task::ExitRobustList() {
  if (robust_list == 0) return;
  struct Head {
    uint64_t next;
    int64_t futex_offset;
    uint64_t pending;
  };
  Result<Head> head = mm_->CopyInObject<Head>(robust_list);
  if (!head) return;
  auto handle = [&](Addr entry) {
    Addr word = entry + head->futex_offset;
    if (word % sizeof(uint32_t) != 0) return;
    Result<uint32_t> value = mm_->LoadU32(word);
    while (value && (*value & kFutexTidMask) == static_cast<uint32_t>(pid_->number())) {
      uint32_t next = (*value & kFutexWaiters) | kFutexOwnerDied;
      Result<uint32_t> found = mm_->CompareAndSwapU32(word, *value, next);
      if (!found) return;
      if (*found == *value) {
        if ((*value & kFutexWaiters) != 0) (void)kernel_.futexes().Wake(*this, word, false, 1, ~uint32_t{0});
        return;
      }
      value = found;
    }
  };
  // Bit 0 marks a PI mutex.
  Addr entry = head->next & ~Addr{1};
  for (int i = 0; i < kRobustListLimit && entry != robust_list; i++) {
    Result<uint64_t> next = mm_->CopyInObject<uint64_t>(entry);
    if (entry != (head->pending & ~Addr{1})) handle(entry);
    if (!next) return;
    entry = *next & ~Addr{1};
  }
  if (head->pending != 0) handle(head->pending & ~Addr{1});
}

void Task::ReleaseMm() {
  RefPtr<mm::MemoryManager> old;
  RefPtr<Task> vfork_parent;
  {
    sync::MutexLock lock(kernel_.mu);
    old = std::move(mm_);
    vfork_parent = std::move(vfork_parent_);
  }
  if (old) {
    uint64_t rss = old->max_resident_size();
    old->DropUser();
    sync::MutexLock lock(kernel_.mu);
    group_->usage.max_rss = std::max(group_->usage.max_rss, rss);
  }
  if (vfork_parent) {
    sync::MutexLock lock(kernel_.mu);
    if (vfork_parent->fiber_) vfork_parent->fiber_->Unpark();
  }
}

void Task::FinishExit() {
  bool last = false;
  RefPtr<RefCounted> sem_undo;
  {
    sync::MutexLock lock(kernel_.mu);
    last = --group_->running == 0;
    if (last) sem_undo = std::move(group_->sem_undo);
  }
  if (last) group_->timers->StopAll();
  sem_undo.reset();
  ExitRobustList();
  if (clear_child_tid != 0) {
    // Only for those who can see it: a thread library that joins.
    if (mm_->CopyOutObject<int32_t>(clear_child_tid, 0)) {
      (void)kernel_.futexes().Wake(*this, clear_child_tid, false, 1, ~uint32_t{0});
    }
  }
  ReleaseMm();
  RefPtr<FdTable> fds;
  RefPtr<FsContext> fs;
  RefPtr<vfs::MountNamespace> mounts;
  RefPtr<const SeccompFilter> filters;
  {
    sync::MutexLock lock(kernel_.mu);
    filters = std::move(seccomp_filters_);
    fds = std::move(fds_);
    fs = std::move(fs_);
    mounts = std::move(mount_ns_);
  }
  // Who supervises its calls need not wait until it is reaped.
  filters.reset();
  // What a close may wait for (SO_LINGER), one of an ending process does not.
  interrupt_.fetch_or(kAttention, std::memory_order_seq_cst);
  fds->DropUser();
  fs.reset();
  mounts->DropUser();
  context_.reset();

  RefPtr<Task> self(this);  // tasks_ may let go of it
  RefPtr<ThreadGroup> group = group_;
  RefPtr<RefCounted> hung_up_tty;
  {
    sync::MutexLock lock(kernel_.mu);
    EndPidNamespaceLocked();
    exited_ = true;
    uint64_t now = clock::Cycles();
    system_cycles_.fetch_add(now - state_since_.load(std::memory_order_relaxed), std::memory_order_relaxed);
    const CpuTimes cpu{static_cast<uint64_t>(clock::FromCycles(user_cycles_.load())),
                       static_cast<uint64_t>(clock::FromCycles(system_cycles_.load()))};
    group->usage.cpu += cpu;
    group->container->ended_cpu += cpu;
    group->usage.minor_faults += minor_faults_.load();
    LoseTraceesLocked();
    if (stop_taken_) {
      stop_taken_ = false;
      group->stopped_tasks--;
    }
    std::erase(group->tasks, this);
    if (group->leader == this && !group->exiting) group->exit_status = exit_status_;
    if (group->leader != this) {
      // A traced thread stays for the tracer's wait(2).
      if (IsTracedLocked() && !kernel_.TracerIgnoresEndLocked(*this)) {
        trace_->dead = true;
        const bool exited = (exit_status_ & 0x7f) == 0;
        kernel_.NotifyTracerLocked(*this, exited ? CLD_EXITED : CLD_KILLED,
                                   exited ? exit_status_ >> 8 : exit_status_ & 0x7f);
      } else {
        if (IsTracedLocked()) UnlinkTracerLocked();
        kernel_.tasks_.erase(tid());
      }
    }
    if (group->execing != nullptr) group->execing->InterruptLocked();
    if (group->tasks.empty()) {
      if (group->process_group && group->process_group->session->id == group->id) {
        hung_up_tty = std::move(group->process_group->session->controlling_tty);
      }
      kernel_.GroupExitedLocked(*group);
    } else if (group->stopped && !group->stop_complete &&
               group->stopped_tasks == static_cast<int>(group->tasks.size())) {
      // The last one that had not stopped has gone.
      kernel_.StopCompleteLocked(*group);
    }
  }
  if (hung_up_tty) HangUpControllingTty(*hung_up_tty);
}

// Kernel::mu is held on entry and exit, but not while parked.
void Task::EndPidNamespaceLocked() NO_THREAD_SAFETY_ANALYSIS {
  PidNamespace& ns = pid_ns();
  // Another task of the group may still be there: then that one will be the last.
  while (ns.init == group_.get() && group_->tasks.size() == 1) {
    ns.ended = true;
    bool left = false;
    for (auto& [tid, task] : kernel_.tasks_) {
      ThreadGroup& other = *task->group_;
      if (&other == group_.get() || other.zombie || other.pid->In(ns) == 0) continue;
      left = true;
      if (!other.exiting) kernel_.KillGroupLocked(other, SIGKILL);
    }
    std::vector<ThreadGroup*> children = group_->children;
    for (ThreadGroup* child : children) {
      if (child->zombie) kernel_.ReapLocked(*child);
    }
    if (!left) return;
    kernel_.mu.Unlock();
    FallAsleep();
    fiber::Park();
    WakeUp();
    kernel_.mu.Lock();
  }
}

// The child's process group if it is `parent` that keeps it from being orphaned (setpgid(2)), or one of those that do.
RefPtr<ProcessGroup> Kernel::KeptByLocked(const ThreadGroup& child, const ThreadGroup* parent) {
  if (parent == nullptr || !parent->process_group || !child.process_group) return nullptr;
  if (parent->process_group == child.process_group) return nullptr;
  if (parent->process_group->session != child.process_group->session) return nullptr;
  return child.process_group;
}

void Kernel::HangUpOrphansLocked(const std::vector<RefPtr<ProcessGroup>>& groups) {
  // POSIX: a stopped process group that becomes orphaned gets SIGHUP and SIGCONT. One that has been orphaned all along
  // does not.
  for (const RefPtr<ProcessGroup>& pg : groups) {
    if (!IsOrphanedLocked(*pg)) continue;
    bool any_stopped =
        std::any_of(pg->members.begin(), pg->members.end(), [](ThreadGroup* g) { return g->stopped && !g->zombie; });
    if (!any_stopped) continue;
    std::vector<ThreadGroup*> members = pg->members;
    for (ThreadGroup* member : members) {
      (void)SendLocked(*member, nullptr, MakeSigInfo(SIGHUP, SI_KERNEL));
      (void)SendLocked(*member, nullptr, MakeSigInfo(SIGCONT, SI_KERNEL));
    }
  }
}

void Kernel::GroupExitedLocked(ThreadGroup& group) {
  group.zombie = true;
  group.pending.Discard(~SignalSet{0});
  PidNamespace& ns = group.pid->ns();
  if (ns.init == &group) ns.init = nullptr;
  for (PidNamespace* above = &ns; above != nullptr; above = above->parent()) {
    // EndPidNamespaceLocked waits for that.
    if (!above->ended || above->init == nullptr) continue;
    for (Task* task : above->init->tasks) task->InterruptLocked();
  }
  // Orphans go to the nearest living subreaper (prctl(2), PR_SET_CHILD_SUBREAPER), else to the first process, of the
  // PID namespace; in the outermost, which has none, to that of the container.
  ThreadGroup* reaper = group.parent;
  while (reaper != nullptr && (!reaper->child_subreaper || reaper->zombie)) reaper = reaper->parent;
  if (reaper != nullptr && &reaper->pid->ns() != &ns) reaper = nullptr;
  Container& container = *group.container;
  const bool is_init = container.init.get() == &group;
  if (reaper == nullptr && ns.level() > 0) reaper = ns.init;
  if (reaper == nullptr && ns.level() == 0 && !is_init) reaper = container.init.get();
  std::vector<ThreadGroup*> children = std::move(group.children);
  group.children.clear();
  std::vector<RefPtr<ProcessGroup>> perhaps_orphaned;
  auto lose = [&](RefPtr<ProcessGroup> pg) {
    if (!pg || std::find(perhaps_orphaned.begin(), perhaps_orphaned.end(), pg) != perhaps_orphaned.end()) return;
    perhaps_orphaned.push_back(std::move(pg));
  };
  lose(KeptByLocked(group, group.parent));
  for (ThreadGroup* child : children) {
    lose(KeptByLocked(*child, &group));
    child->SetParentLocked(reaper);
    // prctl(2), PR_SET_PDEATHSIG.
    for (Task* t : child->tasks) {
      if (int sig = t->parent_death_signal.load(); sig != 0) (void)SendLocked(*child, t, MakeSigInfo(sig, SI_KERNEL));
    }
    if (reaper != nullptr) {
      reaper->children.push_back(child);
      child->exit_signal = SIGCHLD;
      if (child->zombie && !child->leader->IsTracedLocked()) NotifyParentLocked(*child, CLD_EXITED, child->exit_status);
    } else if (child->zombie && !child->leader->IsTracedLocked()) {
      ReapLocked(*child);
    }
  }
  HangUpOrphansLocked(perhaps_orphaned);
  // A session leader's foreground processes get SIGHUP with the terminal (HangUpControllingTty, by the caller).
  group.exit_events.Notify(waiter::kIn);
  exits_.Notify(waiter::kIn);
  if (is_init) {
    container.ended = true;
    container.init.reset();
    for (auto& [tid, task] : tasks_) {
      if (task->group_.get() != &group && task->group_->container.get() == &container) {
        KillGroupLocked(*task->group_, SIGKILL);
      }
    }
  }
  // Who traces it, and is not its parent, waits for it first.
  if (Task* leader = group.leader;
      leader != nullptr && leader->IsTracedLocked() && leader->trace_->tracer->group_.get() != group.parent) {
    if (TracerIgnoresEndLocked(*leader)) {
      leader->UnlinkTracerLocked();
    } else {
      const bool exited = (group.exit_status & 0x7f) == 0;
      NotifyTracerLocked(*leader, exited ? CLD_EXITED : CLD_KILLED,
                         exited ? group.exit_status >> 8 : group.exit_status & 0x7f);
      return;
    }
  }
  AnnounceZombieLocked(group);
}

bool Kernel::TracerIgnoresEndLocked(const Task& tracee) {
  const SignalAction& action = (*tracee.trace_->tracer->group_->handlers)[SIGCHLD];
  return action.is_ignored() || (action.flags & SA_NOCLDWAIT) != 0;
}

void Kernel::AnnounceZombieLocked(ThreadGroup& group) {
  if (group.parent == nullptr) {
    // Nobody will wait, except WaitForExit for the processes made from outside.
    if (!group.made_from_outside) ReapLocked(group);
    return;
  }
  const SignalAction& action = (*group.parent->handlers)[SIGCHLD];
  const PidNamespace& parents = group.parent->pid->ns();
  bool nobody_waits = (group.exit_signal == SIGCHLD && (action.is_ignored() || (action.flags & SA_NOCLDWAIT) != 0)) ||
                      (parents.ended && parents.init == group.parent);
  int status = group.exit_status;
  if ((status & 0x7f) == 0) {
    NotifyParentLocked(group, CLD_EXITED, status >> 8);
  } else {
    NotifyParentLocked(group, (status & 0x80) != 0 ? CLD_DUMPED : CLD_KILLED, status & 0x7f);
  }
  if (nobody_waits) ReapLocked(group);
}

void Kernel::ReapLocked(ThreadGroup& group) {
  CHECK(group.zombie && !group.reaped, "reaped twice or alive");
  group.reaped = true;
  if (group.leader != nullptr && group.leader->IsTracedLocked()) group.leader->UnlinkTracerLocked();
  if (group.parent != nullptr) {
    std::erase(group.parent->children, &group);
    Usage& total = group.parent->children_usage;
    for (const Usage* u : {&group.usage, &group.children_usage}) {
      total.cpu += u->cpu;
      total.minor_faults += u->minor_faults;
      total.max_rss = std::max(total.max_rss, u->max_rss);
    }
    group.parent->child_events.Notify(waiter::kIn);
    group.SetParentLocked(nullptr);
  }
  LeaveProcessGroupLocked(group);
  // Dropping the map's reference may free the leader and with it the group: last.
  RefPtr<ThreadGroup> keep(&group);
  tasks_.erase(group.id);
  exits_.Notify(waiter::kIn);
}

}  // namespace redoubt::kernel
