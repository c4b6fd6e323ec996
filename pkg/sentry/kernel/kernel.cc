#include "pkg/sentry/kernel/kernel.h"

#include <algorithm>

#include "pkg/log/log.h"
#include "pkg/sentry/kernel/process_timers.h"
#include "pkg/sentry/time/clock.h"

namespace redoubt::kernel {
namespace {

// /proc/sys/kernel/pid_max on a 64-bit Linux.
constexpr int kPidMax = 1 << 22;

}  // namespace

Kernel::Kernel(Options options)
    : options_(std::move(options)), hostname_(options_.hostname), boot_time_(clock::Realtime()) {}

Kernel::~Kernel() {
  sync::MutexLock lock(mu);
  CHECK(tasks_.empty(), "the kernel died with tasks");
}

Result<RefPtr<ThreadGroup>> Kernel::CreateProcess(const ProcessArgs& args) {
  RefPtr<ThreadGroup> group;
  RefPtr<Task> task;
  {
    sync::MutexLock lock(mu);
    int tid = AllocateTidLocked();
    if (tid < 0) return Err(EAGAIN);
    group = MakeRef<ThreadGroup>(*this, tid);
    task = RefPtr<Task>(new Task(*this, group, tid));
  }
  group->container = args.container ? args.container : MakeRef<Container>("");
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
    Container& container = *group->container;
    ended = container.ended;
    if (!ended) {
      RefPtr<Session> session = MakeRef<Session>(group->id);
      session->controlling_tty = args.controlling_tty;
      JoinProcessGroupLocked(*group, MakeRef<ProcessGroup>(group->id, session));
      AddTaskLocked(*task);
      if (!container.init) container.init = group;
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

int Kernel::AllocateTidLocked() {
  int start = last_pid_.load(std::memory_order_relaxed);
  for (int i = 1; i < kPidMax; i++) {
    int tid = start + i;
    // Linux leaves the low ones to the kernel's own threads when it wraps.
    if (tid >= kPidMax) tid = 300 + (tid - kPidMax);
    if (tasks_.contains(tid) || process_groups_.contains(tid)) continue;
    last_pid_.store(tid, std::memory_order_relaxed);
    return tid;
  }
  return -1;
}

void Kernel::AddTaskLocked(Task& task) {
  tasks_.emplace(task.tid(), RefPtr<Task>(&task));
  if (task.group_->leader == nullptr) {
    task.group_->leader = &task;
    task.group_->start_time = clock::Boottime();
  }
  task.group_->tasks.push_back(&task);
  forks.fetch_add(1, std::memory_order_relaxed);
}

uint64_t Kernel::CountTasksOfLocked(uint32_t uid) {
  return static_cast<uint64_t>(
      std::ranges::count_if(tasks_, [uid](const auto& t) { return t.second->creds_ && t.second->creds_->ruid == uid; }));
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
  JoinProcessGroupLocked(group, MakeRef<ProcessGroup>(group.id, MakeRef<Session>(group.id)));
  group.gave_up_tty = false;
  return group.id;
}

Result<> Kernel::SetPgid(ThreadGroup& caller, int pid, int pgid) {
  if (pgid < 0) return Err(EINVAL);
  sync::MutexLock lock(mu);
  if (pid == 0) pid = caller.id;
  if (pgid == 0) pgid = pid;
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
    pg = MakeRef<ProcessGroup>(pgid, pg->session);
  } else {
    RefPtr<ProcessGroup> existing = FindProcessGroupLocked(pgid);
    if (!existing || existing->session != pg->session) return Err(EPERM);
    pg = existing;
  }
  JoinProcessGroupLocked(target, std::move(pg));
  return {};
}

Result<int> Kernel::GetPgid(ThreadGroup& caller, int pid) {
  sync::MutexLock lock(mu);
  if (pid == 0) return caller.process_group->id;
  auto it = tasks_.find(pid);
  if (it == tasks_.end() || !it->second->group_->process_group) return Err(ESRCH);
  return it->second->group_->process_group->id;
}

Result<int> Kernel::GetSid(ThreadGroup& caller, int pid) {
  sync::MutexLock lock(mu);
  if (pid == 0) return caller.process_group->session->id;
  auto it = tasks_.find(pid);
  if (it == tasks_.end() || !it->second->group_->process_group) return Err(ESRCH);
  return it->second->group_->process_group->session->id;
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

ThreadGroup::ThreadGroup(Kernel& kernel, int id) : id(id), kernel_(kernel) {
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
