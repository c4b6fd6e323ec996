#include "pkg/sentry/kernel/kernel.h"

#include <algorithm>

#include "pkg/log/log.h"
#include "pkg/sentry/kernel/process_timers.h"
#include "pkg/sentry/time/clock.h"

namespace redoubt::kernel {

Kernel::Kernel(Options options)
    : options_(std::move(options)), hostname_(options_.hostname), boot_time_(clock::Realtime()) {}

Kernel::~Kernel() {
  sync::MutexLock lock(mu);
  CHECK(tasks_.empty(), "the kernel died with tasks");
}

Result<RefPtr<ThreadGroup>> Kernel::CreateProcess(const ProcessArgs& args) {
  RefPtr<Container> container = args.container ? args.container : MakeRef<Container>("");
  PidNamespace& pid_ns = container->pid_ns ? *container->pid_ns : *root_pid_ns_;
  RefPtr<Pid> pid = TRY(pid_ns.Allocate());
  RefPtr<ThreadGroup> group = MakeRef<ThreadGroup>(*this, pid);
  RefPtr<Task> task(new Task(*this, group, pid));
  group->container = container;
  group->oom_score_adj = args.oom_score_adj;
  group->held = args.held;
  for (auto [resource, limit] : args.limits) {
    // Engines hand on their own infinity.
    if (resource == RLIMIT_NOFILE) {
      limit.soft = std::min(limit.soft, limits::kMaxFiles);
      limit.hard = std::min(limit.hard, limits::kMaxFiles);
    }
    TRY(group->limits.Set(resource, limit, true));
  }
  task->context_ = TRY(platform().NewContext());
  task->creds_ = args.creds;
  task->no_new_privs.store(args.no_new_privs);
  task->mount_ns_ = args.mounts;
  args.mounts->AddUser();
  vfs::Path root = args.root ? args.root : args.mounts->root();
  task->fs_ = MakeRef<FsContext>(root, root, args.umask);
  task->fds_ = args.fds;
  task->fds_->AddUser();
  // Undone if the program cannot be started.
  auto abandon = [&](Errno e) -> std::unexpected<Errno> {
    task->ReleaseMm();
    task->fds_->DropUser();
    args.mounts->DropUser();
    return Err(e);
  };
  Task::WalkState walk = task->Walk();
  Result<vfs::Path> cwd = vfs::Lookup(walk.walker(), {.start = root, .name = args.cwd});
  if (!cwd) return abandon(cwd.error());
  task->fs_->SetCwd(*cwd);
  if (Result<> r = task->Exec(*cwd, args.filename, args.argv, args.envv, 0); !r) return abandon(r.error());
  group->did_exec = false;
  group->made_from_outside = true;
  bool ended = false;
  {
    sync::MutexLock lock(mu);
    ended = container->ended || pid_ns.ended;
    if (!ended) {
      RefPtr<Session> session = MakeRef<Session>(pid);
      session->controlling_tty = args.controlling_tty;
      JoinProcessGroupLocked(*group, MakeRef<ProcessGroup>(pid, session));
      AddTaskLocked(*task);
      if (!container->init) container->init = group;
      if (args.seccomp) task->UseSeccompFiltersLocked(args.seccomp);
      task->RecomputeInterruptLocked();
    }
  }
  if (ended) return abandon(Errno(ESRCH));
  task->Start();
  return group;
}

int Kernel::WaitForExit(ThreadGroup& group) {
  struct Exits {
    ThreadGroup& group;
    void RegisterWaiter(waiter::Entry& e) { group.exit_events.Register(e); }
    void UnregisterWaiter(waiter::Entry& e) { group.exit_events.Unregister(e); }
  } exits{group};
  Result<int> status = wait::Retry(exits, waiter::kIn, fiber::kForever, [&]() -> Result<int> {
    sync::MutexLock lock(mu);
    if (!group.zombie) return Err(EAGAIN);
    if (!group.reaped && group.parent == nullptr) ReapLocked(group);
    return group.exit_status;
  });
  return status.value_or(SIGKILL);
}

void Kernel::KillAll(const Container* only) {
  struct Exits {
    waiter::Queue& queue;
    void RegisterWaiter(waiter::Entry& e) { queue.Register(e); }
    void UnregisterWaiter(waiter::Entry& e) { queue.Unregister(e); }
  } exits{exits_};
  (void)wait::Retry(exits, waiter::kIn, fiber::kForever, [&]() -> Result<> {
    sync::MutexLock lock(mu);
    std::vector<RefPtr<ThreadGroup>> groups;
    bool left = false;
    for (auto& [tid, task] : tasks_) {
      if (only != nullptr && task->group_->container.get() != only) continue;
      if (task->group_->leader == task.get()) groups.push_back(task->group_);
    }
    for (auto& group : groups) {
      if (group->zombie) {
        ReapLocked(*group);
      } else {
        KillGroupLocked(*group, SIGKILL);
        left = true;
      }
    }
    if (left) return Err(EAGAIN);
    return {};
  });
}

void Kernel::AddTaskLocked(Task& task) {
  tasks_.emplace(task.tid(), RefPtr<Task>(&task));
  if (task.group_->leader == nullptr) {
    task.group_->leader = &task;
    task.group_->start_time = clock::Boottime();
    const Pid& pid = *task.group_->pid;
    if (pid.ns().level() > 0 && pid.number() == 1) {
      pid.ns().init = task.group_.get();
      task.group_->unkillable = true;
    }
  }
  task.group_->tasks.push_back(&task);
  task.group_->running++;
  forks.fetch_add(1, std::memory_order_relaxed);
}

uint64_t Kernel::CountTasksOfLocked(uint32_t uid) {
  return static_cast<uint64_t>(std::ranges::count_if(
      tasks_, [uid](const auto& t) { return t.second->creds_ && t.second->creds_->ruid == uid; }));
}

RefPtr<Task> Kernel::FindTask(int tid) {
  sync::MutexLock lock(mu);
  auto it = tasks_.find(tid);
  return it != tasks_.end() ? it->second : nullptr;
}

RefPtr<ThreadGroup> Kernel::FindGroup(int tgid) {
  sync::MutexLock lock(mu);
  auto it = tasks_.find(tgid);
  if (it == tasks_.end() || it->second->group_->id != tgid) return nullptr;
  return it->second->group_;
}

RefPtr<ProcessGroup> Kernel::FindProcessGroupLocked(int pgid) {
  auto it = process_groups_.find(pgid);
  return it != process_groups_.end() ? RefPtr<ProcessGroup>(it->second) : nullptr;
}

std::vector<RefPtr<ThreadGroup>> Kernel::Groups() {
  std::vector<RefPtr<ThreadGroup>> groups;
  sync::MutexLock lock(mu);
  for (auto& [tid, task] : tasks_) {
    if (task->group_->leader == task.get()) groups.push_back(task->group_);
  }
  return groups;
}

std::vector<RefPtr<Task>> Kernel::TasksOf(ThreadGroup& group) {
  std::vector<RefPtr<Task>> tasks;
  sync::MutexLock lock(mu);
  if (group.leader != nullptr) tasks.emplace_back(group.leader);
  for (Task* t : group.tasks) {
    if (t != group.leader) tasks.emplace_back(t);
  }
  return tasks;
}

size_t Kernel::TaskCount() {
  sync::MutexLock lock(mu);
  return tasks_.size();
}

void Kernel::JoinProcessGroupLocked(ThreadGroup& group, RefPtr<ProcessGroup> pg) {
  LeaveProcessGroupLocked(group);
  if (pg->members.empty()) process_groups_[pg->id] = pg.get();
  pg->members.push_back(&group);
  group.process_group = std::move(pg);
}

void Kernel::LeaveProcessGroupLocked(ThreadGroup& group) {
  if (!group.process_group) return;
  RefPtr<ProcessGroup> pg = std::move(group.process_group);
  std::erase(pg->members, &group);
  if (pg->members.empty()) process_groups_.erase(pg->id);
}

Result<int> Kernel::SetSid(ThreadGroup& group) {
  sync::MutexLock lock(mu);
  if (process_groups_.contains(group.id)) return Err(EPERM);
  JoinProcessGroupLocked(group, MakeRef<ProcessGroup>(group.pid, MakeRef<Session>(group.pid)));
  group.gave_up_tty = false;
  return group.pid->number();
}

Result<> Kernel::SetPgid(ThreadGroup& caller, int pid, int pgid) {
  if (pgid < 0) return Err(EINVAL);
  const PidNamespace& ns = caller.pid->ns();
  sync::MutexLock lock(mu);
  pid = pid == 0 ? caller.id : ns.ToRoot(pid);
  pgid = pgid == 0 ? pid : ns.ToRoot(pgid);
  auto it = tasks_.find(pid);
  if (it == tasks_.end() || it->second->group_->id != pid) return Err(ESRCH);
  ThreadGroup& target = *it->second->group_;
  if (&target != &caller) {
    if (target.parent != &caller) return Err(ESRCH);
    if (target.process_group->session != caller.process_group->session) return Err(EPERM);
    if (target.did_exec) return Err(EACCES);
  }
  if (target.process_group->session->id == target.id) return Err(EPERM);  // a session leader
  RefPtr<ProcessGroup> pg = target.process_group;
  if (pg->id == pgid) return {};
  if (pgid == pid && !process_groups_.contains(pgid)) {
    pg = MakeRef<ProcessGroup>(target.pid, pg->session);
  } else {
    RefPtr<ProcessGroup> existing = FindProcessGroupLocked(pgid);
    if (!existing || existing->session != pg->session) return Err(EPERM);
    pg = existing;
  }
  JoinProcessGroupLocked(target, std::move(pg));
  return {};
}

Result<int> Kernel::GetPgid(ThreadGroup& caller, int pid) {
  const PidNamespace& ns = caller.pid->ns();
  sync::MutexLock lock(mu);
  if (pid == 0) return caller.process_group->pid->In(ns);
  auto it = tasks_.find(ns.ToRoot(pid));
  if (it == tasks_.end() || !it->second->group_->process_group) return Err(ESRCH);
  return it->second->group_->process_group->pid->In(ns);
}

Result<int> Kernel::GetSid(ThreadGroup& caller, int pid) {
  const PidNamespace& ns = caller.pid->ns();
  sync::MutexLock lock(mu);
  if (pid == 0) return caller.process_group->session->pid->In(ns);
  auto it = tasks_.find(ns.ToRoot(pid));
  if (it == tasks_.end() || !it->second->group_->process_group) return Err(ESRCH);
  return it->second->group_->process_group->session->pid->In(ns);
}

bool Kernel::IsOrphanedLocked(const ProcessGroup& pg) {
  for (const ThreadGroup* member : pg.members) {
    const ThreadGroup* parent = member->parent;
    if (parent == nullptr || member->zombie || !parent->process_group) continue;
    if (parent->process_group->session == pg.session && parent->process_group.get() != &pg) return false;
  }
  return true;
}

std::string Kernel::hostname() const {
  sync::MutexLock lock(names_mu_);
  return hostname_;
}

std::string Kernel::domainname() const {
  sync::MutexLock lock(names_mu_);
  return domainname_;
}

void Kernel::SetHostname(std::string name) {
  sync::MutexLock lock(names_mu_);
  hostname_ = std::move(name);
}

void Kernel::SetDomainname(std::string name) {
  sync::MutexLock lock(names_mu_);
  domainname_ = std::move(name);
}

ThreadGroup::ThreadGroup(Kernel& kernel, RefPtr<Pid> p) : pid(std::move(p)), id(pid->root_number()), kernel_(kernel) {
  handlers = MakeRef<SignalHandlers>();
  timers = std::make_unique<ProcessTimers>(*this);
}

ThreadGroup::~ThreadGroup() = default;

RefPtr<SignalHandlers> SignalHandlers::Clone() const {
  RefPtr<SignalHandlers> copy = MakeRef<SignalHandlers>();
  copy->actions_ = actions_;
  return copy;
}

void SignalHandlers::ResetForExec() {
  for (SignalAction& action : actions_) {
    if (!action.is_ignored()) action = SignalAction{};
    action.flags = 0;
    action.mask = 0;
  }
}

}  // namespace redoubt::kernel
