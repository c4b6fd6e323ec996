#include "pkg/sentry/kernel/proc_view.h"

#include <linux/capability.h>

#include <algorithm>

#include "pkg/sentry/kernel/process_timers.h"
#include "pkg/sentry/kernel/ptrace.h"
#include "pkg/sentry/time/clock.h"
#include "pkg/sentry/tty/job_control.h"

namespace redoubt::kernel {
namespace {

// Handles are tasks that Find and Current gave out.
Task& ToTask(RefCounted& handle) { return static_cast<Task&>(handle); }

}  // namespace

std::vector<int> ProcView::Processes() {
  std::vector<int> ids;
  for (const RefPtr<ThreadGroup>& group : kernel_.Groups()) {
    if (int id = group->pid->In(*ns_); id != 0) ids.push_back(id);
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

std::vector<int> ProcView::Threads(int tgid) {
  std::vector<int> ids;
  RefPtr<ThreadGroup> group = kernel_.FindGroup(ns_->ToRoot(tgid));
  if (!group) return ids;
  const std::vector<RefPtr<Task>> tasks = kernel_.TasksOf(*group);
  {
    sync::MutexLock lock(kernel_.mu);
    for (const RefPtr<Task>& task : tasks) ids.push_back(task->pid().In(*ns_));
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

proc::TaskHandle ProcView::Find(int tid) { return kernel_.FindTask(ns_->ToRoot(tid)); }

proc::TaskHandle ProcView::Current() { return RefPtr<Task>(Task::Current()); }

bool ProcView::GetInfo(RefCounted& handle, bool whole_process, proc::TaskInfo* info) {
  Task& task = ToTask(handle);
  ThreadGroup& group = task.group();
  info->name = task.GetName();
  info->state = task.GetState();
  info->creds = task.GetCreds();
  info->user_namespace = group.container->user_ns;
  if (RefPtr<FsContext> fs = task.GetFs(); fs) info->umask = fs->umask();
  std::vector<RefPtr<Task>> tasks;
  RefPtr<RefCounted> terminal;
  Usage usage;
  {
    sync::MutexLock lock(kernel_.mu);
    if (group.reaped) return false;
    info->ns_tid = task.pid().NumbersFrom(*ns_);
    info->ns_tgid = group.pid->NumbersFrom(*ns_);
    if (info->ns_tid.empty() || info->ns_tgid.empty()) return false;
    info->tid = info->ns_tid[0];
    info->tgid = info->ns_tgid[0];
    info->ppid = group.parent != nullptr ? group.parent->pid->In(*ns_) : 0;
    if (group.process_group) {
      const Pid& session = *group.process_group->session->pid;
      info->process_group = group.process_group->pid->In(*ns_);
      info->session = session.In(*ns_);
      info->ns_process_group = group.process_group->pid->NumbersFrom(*ns_);
      info->ns_session = session.NumbersFrom(*ns_);
      terminal = group.ControllingTtyLocked();
    }
    info->exit_signal = group.exit_signal;
    info->exit_code = group.zombie ? group.exit_status : 0;
    info->threads = std::max<int>(1, static_cast<int>(group.tasks.size()));
    info->start_time = group.start_time;
    info->shared_pending = group.pending.set();
    info->pending = task.PendingLocked();
    info->tracer = task.TracerNumberLocked(*ns_);
    info->seccomp = task.seccomp_mode();
    info->seccomp_filters = static_cast<int>(task.SeccompFilterCountLocked());
    info->queued_signals = group.pending.queued();
    for (int sig = 1; sig <= kMaxSignal; sig++) {
      const SignalAction& action = (*group.handlers)[sig];
      if (action.is_ignored()) info->ignored |= SignalBit(sig);
      if (action.has_handler()) info->caught |= SignalBit(sig);
    }
    if (whole_process) {
      usage = group.usage;
      for (Task* t : group.tasks) tasks.emplace_back(t);
    } else {
      tasks.emplace_back(&task);
    }
    info->children_user_ns = group.children_usage.cpu.user;
    info->children_system_ns = group.children_usage.cpu.system;
    info->children_minor_faults = group.children_usage.minor_faults;
  }
  for (const RefPtr<Task>& t : tasks) {
    Usage u = t->GetUsage();
    usage.cpu += u.cpu;
    usage.minor_faults += u.minor_faults;
    usage.voluntary_switches += u.voluntary_switches;
  }
  info->user_ns = usage.cpu.user;
  info->system_ns = usage.cpu.system;
  info->minor_faults = usage.minor_faults;
  info->voluntary_switches = usage.voluntary_switches;
  info->blocked = task.signal_mask();
  info->no_new_privs = task.no_new_privs.load();
  info->nice = task.nice.load();
  info->cpu_mask = task.cpu_mask.load();
  info->personality = task.personality;
  info->dumpable = group.dumpable.load();
  info->oom_score_adj = group.oom_score_adj.load();
  info->timer_slack = task.timer_slack;
  if (auto* t = dynamic_cast<tty::Terminal*>(terminal.get()); t != nullptr) {
    info->terminal = t->device();
    info->terminal_foreground = ns_->FromRoot(t->foreground_process_group());
  }
  return info->creds != nullptr;
}

RefPtr<mm::MemoryManager> ProcView::GetMemory(RefCounted& task) { return ToTask(task).GetMm(); }
RefPtr<FdTable> ProcView::GetFds(RefCounted& task) { return ToTask(task).GetFds(); }

proc::TaskPlaces ProcView::GetPlaces(RefCounted& task) {
  RefPtr<FsContext> fs = ToTask(task).GetFs();
  if (!fs) return {};
  return {.root = fs->root(), .cwd = fs->cwd(), .mounts = ToTask(task).GetMountNamespace()};
}

std::array<limits::Limit, RLIM_NLIMITS> ProcView::GetLimits(RefCounted& task) {
  return ToTask(task).group().limits.All();
}

Result<> ProcView::CheckAccess(RefCounted& handle) {
  Task* caller = Task::Current();
  if (caller != nullptr && !CheckPtraceAccess(*caller, ToTask(handle), AccessBy::kFilesystemIds)) return Err(EACCES);
  return {};
}

Result<> ProcView::SetName(RefCounted& task, std::string name) {
  ToTask(task).SetName(std::move(name));
  return {};
}

Result<> ProcView::SetOomScoreAdj(RefCounted& task, int value) {
  ToTask(task).group().oom_score_adj.store(value);
  return {};
}

RefPtr<RefCounted> ProcView::Namespace(RefCounted& handle, std::string_view kind) {
  Task& task = ToTask(handle);
  if (kind == "pid") return RefPtr<PidNamespace>(&task.pid_ns());
  if (kind == "pid_for_children") return task.GetPidNamespaceForChildren();
  return nullptr;
}

uint64_t ProcView::NamespaceId(RefCounted& handle, std::string_view kind) {
  if (RefPtr<RefCounted> ns = Namespace(handle, kind)) return static_cast<PidNamespace&>(*ns).inode();
  if (kind == "user") {
    if (const auto& ns = ToTask(handle).group().container->user_ns) return ns->inode();
  }
  return KernelView::NamespaceId(handle, kind);
}

proc::SystemInfo ProcView::GetSystemInfo() {
  proc::SystemInfo info;
  info.memory_total = kernel_.memory_size();
  info.memory_free = info.memory_total - std::min(info.memory_total, kernel_.memory_file().usage());
  info.cpus = kernel_.cpus();
  // Of CLOCK_BOOTTIME, which is the host's and what start times are told in.
  info.uptime = clock::Boottime();
  info.boot_time = clock::Realtime() - info.uptime;
  info.forks = kernel_.forks.load();
  info.last_pid = ns_->last();
  info.tasks = 0;
  info.running = 0;
  for (const RefPtr<ThreadGroup>& group : kernel_.Groups()) {
    for (const RefPtr<Task>& task : kernel_.TasksOf(*group)) {
      Usage u = task->GetUsage();
      info.user_ns += u.cpu.user;
      info.system_ns += u.cpu.system;
      info.tasks++;
      if (task->GetState() == 'R') info.running++;
    }
  }
  uint64_t total = static_cast<uint64_t>(std::max<int64_t>(info.uptime, 0)) * static_cast<uint64_t>(info.cpus);
  info.idle_ns = total - std::min(total, info.user_ns + info.system_ns);
  return info;
}

Result<> ProcView::SetHostname(std::string name) {
  kernel_.SetHostname(std::move(name));
  return {};
}

Result<> ProcView::SetDomainname(std::string name) {
  kernel_.SetDomainname(std::move(name));
  return {};
}

// None of them lies on a block device.
std::vector<std::string> ProcView::Filesystems() {
  std::vector<std::string> types;
  for (const std::string& type : filesystems_()) types.push_back("nodev\t" + type);
  return types;
}

}  // namespace redoubt::kernel
