// The system: uname(2), sysinfo(2), sethostname(2), getrandom(2), getrlimit(2), sched_*(2), getcpu(2), membarrier(2),
// ...
#include <linux/membarrier.h>
#include <sched.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

#include <cstring>

#include "pkg/sentry/syscalls/common.h"
#include "pkg/sentry/syscalls/handlers.h"

namespace redoubt::syscalls {
namespace {

constexpr size_t kNameMax = 64;  // __NEW_UTS_LEN

void CopyName(char (&out)[65], std::string_view text) {
  std::memset(out, 0, sizeof(out));
  std::memcpy(out, text.data(), std::min(text.size(), kNameMax));
}

Result<RefPtr<Task>> TaskOrSelf(Task& task, int pid) {
  if (pid < 0) return Err(EINVAL);
  if (pid == 0) return RefPtr<Task>(&task);
  RefPtr<Task> target = task.FindTask(pid);
  if (!target) return Err(ESRCH);
  return target;
}

// sched(7), setpriority(2): the target is of the caller's effective user, or the caller may do it to anybody. EPERM.
Result<> CheckMayAdjust(Task& task, Task& target) {
  if (&target == &task) return {};
  RefPtr<const auth::Credentials> theirs = target.GetCreds();
  const uint32_t mine = task.creds().euid;
  if (theirs && (mine == theirs->euid || mine == theirs->ruid)) return {};
  return task.creds().HasCapability(CAP_SYS_NICE) ? Result<>() : Err(EPERM);
}

// Those whom getpriority(2) and setpriority(2) are about. ESRCH if there are none.
Result<std::vector<RefPtr<Task>>> PriorityTargets(Task& task, int which, int who) {
  std::vector<RefPtr<Task>> targets;
  if (which == PRIO_PROCESS) {
    if (who < 0) return Err(ESRCH);
    targets.push_back(TRY(TaskOrSelf(task, who)));
    return targets;
  }
  kernel::Kernel& kernel = task.kernel();
  auto group_id = [&](kernel::ThreadGroup& group) {
    sync::MutexLock lock(kernel.mu);
    return group.process_group ? group.process_group->id : 0;
  };
  if (which == PRIO_PGRP) {
    who = who == 0 ? group_id(task.group()) : task.pid_ns().ToRoot(who);
  } else if (who == 0) {
    who = static_cast<int>(task.creds().ruid);
  }
  for (const auto& group : kernel.Groups()) {
    if (group->pid->In(task.pid_ns()) == 0 || (which == PRIO_PGRP && group_id(*group) != who)) continue;
    for (RefPtr<Task>& t : kernel.TasksOf(*group)) {
      if (which == PRIO_USER) {
        RefPtr<const auth::Credentials> creds = t->GetCreds();
        if (!creds || creds->ruid != static_cast<uint32_t>(who)) continue;
      }
      targets.push_back(std::move(t));
    }
  }
  if (targets.empty()) return Err(ESRCH);
  return targets;
}

void ApplyMemoryLimits(Task& task) {
  task.mm().SetLimits({.address_space = task.GetLimit(RLIMIT_AS).soft,
                       .data = task.GetLimit(RLIMIT_DATA).soft,
                       .stack = task.GetLimit(RLIMIT_STACK).soft});
}

}  // namespace

Result<uint64_t> Uname(Task& task, const SyscallArgs& a) {
  utsname u;
  std::memset(&u, 0, sizeof(u));
  CopyName(u.sysname, "Linux");
  CopyName(u.nodename, task.kernel().hostname());
  CopyName(u.release, kernel::kRelease);
  CopyName(u.version, kernel::kVersion);
  CopyName(u.machine, "x86_64");
  CopyName(u.domainname, task.kernel().domainname());
  TRY(task.mm().CopyOutObject(a.Pointer(0), u));
  return 0;
}

Result<uint64_t> Sethostname(Task& task, const SyscallArgs& a) {
  if (!task.creds().HasCapability(CAP_SYS_ADMIN)) return Err(EPERM);
  if (a.U64(1) > kNameMax) return Err(EINVAL);
  std::vector<char> name = TRY(task.mm().CopyInVector<char>(a.Pointer(0), a.Size(1)));
  task.kernel().SetHostname(std::string(name.data(), name.size()));
  return 0;
}

Result<uint64_t> Setdomainname(Task& task, const SyscallArgs& a) {
  if (!task.creds().HasCapability(CAP_SYS_ADMIN)) return Err(EPERM);
  if (a.U64(1) > kNameMax) return Err(EINVAL);
  std::vector<char> name = TRY(task.mm().CopyInVector<char>(a.Pointer(0), a.Size(1)));
  task.kernel().SetDomainname(std::string(name.data(), name.size()));
  return 0;
}

Result<uint64_t> Sysinfo(Task& task, const SyscallArgs& a) {
  struct sysinfo info;
  std::memset(&info, 0, sizeof(info));
  kernel::Kernel& k = task.kernel();
  info.uptime = clock::Boottime() / 1'000'000'000;
  info.totalram = k.memory_size();
  info.freeram = k.memory_size() - std::min(k.memory_size(), k.memory_file().usage());
  info.procs = static_cast<uint16_t>(std::min<size_t>(k.TaskCount(), UINT16_MAX));
  info.mem_unit = 1;
  TRY(task.mm().CopyOutObject(a.Pointer(0), info));
  return 0;
}

// The kernel's log: there is one, and it is empty.
Result<uint64_t> Syslog(Task& task, const SyscallArgs& a) {
  enum { kClose, kOpen, kRead, kReadAll, kReadClear, kClear, kConsoleOff, kConsoleOn, kConsoleLevel, kUnread, kSize };
  constexpr int kLogSize = 1 << 17;
  const int type = a.I32(0), length = a.I32(2);
  if (type != kReadAll && type != kSize && !task.creds().HasCapability(CAP_SYSLOG) &&
      !task.creds().HasCapability(CAP_SYS_ADMIN)) {
    return Err(EPERM);
  }
  switch (type) {
    case kRead:
    case kReadAll:
    case kReadClear:
      if (a.Pointer(1) == 0 || length < 0) return Err(EINVAL);
      if (length == 0) return 0;
      (void)TRY(Buffer(task, a.Pointer(1), static_cast<size_t>(length)));
      if (type != kRead) return 0;
      while (true) TRY(wait::Block());  // for a message that never comes
    case kConsoleLevel:
      return length >= 1 && length <= 8 ? Result<uint64_t>(0) : Err(EINVAL);
    case kClose:
    case kOpen:
    case kClear:
    case kConsoleOff:
    case kConsoleOn:
    case kUnread:
      return 0;
    case kSize:
      return kLogSize;
    default:
      return Err(EINVAL);
  }
}

Result<uint64_t> Getrandom(Task& task, const SyscallArgs& a) {
  if ((a.U32(2) & ~(GRND_NONBLOCK | GRND_RANDOM | GRND_INSECURE)) != 0) return Err(EINVAL);
  if ((a.U32(2) & (GRND_RANDOM | GRND_INSECURE)) == (GRND_RANDOM | GRND_INSECURE)) return Err(EINVAL);
  IoSequence dst = TRY(Buffer(task, a.Pointer(0), std::min<size_t>(a.Size(1), 33554431)));
  uint64_t total = 0;
  std::byte chunk[256];
  while (!dst.empty()) {
    size_t n = std::min<uint64_t>(sizeof(chunk), dst.remaining());
    if (getrandom(chunk, n, 0) != static_cast<ssize_t>(n)) return Err(EIO);
    Result<size_t> put = dst.CopyOut(std::span(chunk, n));
    if (!put) return total > 0 ? Result<uint64_t>(total) : Err(EFAULT);
    total += *put;
    if (*put < n) break;
    if (task.InterruptPending() && total > 0) break;
  }
  return total;
}

Result<uint64_t> Prlimit64(Task& task, const SyscallArgs& a) {
  if (a.U32(1) >= RLIM_NLIMITS) return Err(EINVAL);
  RefPtr<Task> target = TRY(TaskOrSelf(task, a.I32(0)));
  if (&target->group() != &task.group()) {
    const auth::Credentials& c = task.creds();
    RefPtr<const auth::Credentials> t = target->GetCreds();
    bool same = c.ruid == t->euid && c.ruid == t->suid && c.ruid == t->ruid && c.rgid == t->egid && c.rgid == t->sgid &&
                c.rgid == t->rgid;
    if (!same && !c.HasCapability(CAP_SYS_RESOURCE)) return Err(EPERM);
  }
  limits::Limit old = target->GetLimit(a.I32(1));
  if (a.Pointer(2) != 0) {
    limits::Limit next = TRY(task.mm().CopyInObject<limits::Limit>(a.Pointer(2)));
    TRY(target->group().limits.Set(a.I32(1), next, task.creds().HasCapability(CAP_SYS_RESOURCE)));
    if (&target->group() == &task.group()) ApplyMemoryLimits(task);
  }
  if (a.Pointer(3) != 0) TRY(task.mm().CopyOutObject(a.Pointer(3), old));
  return 0;
}

Result<uint64_t> Getrlimit(Task& task, const SyscallArgs& a) {
  if (a.U32(0) >= RLIM_NLIMITS) return Err(EINVAL);
  TRY(task.mm().CopyOutObject(a.Pointer(1), task.GetLimit(a.I32(0))));
  return 0;
}

Result<uint64_t> Setrlimit(Task& task, const SyscallArgs& a) {
  if (a.U32(0) >= RLIM_NLIMITS) return Err(EINVAL);
  limits::Limit next = TRY(task.mm().CopyInObject<limits::Limit>(a.Pointer(1)));
  TRY(task.group().limits.Set(a.I32(0), next, task.creds().HasCapability(CAP_SYS_RESOURCE)));
  ApplyMemoryLimits(task);
  return 0;
}

Result<uint64_t> SchedYield(Task&, const SyscallArgs&) {
  fiber::Yield();
  return 0;
}

Result<uint64_t> SchedGetaffinity(Task& task, const SyscallArgs& a) {
  if (a.Size(1) < sizeof(uint64_t) || a.Size(1) % sizeof(uint64_t) != 0) return Err(EINVAL);
  RefPtr<Task> target = TRY(TaskOrSelf(task, a.I32(0)));
  int cpus = task.kernel().cpus();
  uint64_t all = cpus >= 64 ? ~uint64_t{0} : (uint64_t{1} << cpus) - 1;
  TRY(task.mm().CopyOutObject<uint64_t>(a.Pointer(2), target->cpu_mask.load() & all));
  return sizeof(uint64_t);
}

Result<uint64_t> SchedSetaffinity(Task& task, const SyscallArgs& a) {
  RefPtr<Task> target = TRY(TaskOrSelf(task, a.I32(0)));
  TRY(CheckMayAdjust(task, *target));
  uint64_t mask = 0;
  size_t n = std::min<size_t>(a.Size(1), sizeof(mask));
  TRY(task.mm().CopyInAll(a.Pointer(2), std::as_writable_bytes(std::span(&mask, 1)).first(n)));
  int cpus = task.kernel().cpus();
  uint64_t all = cpus >= 64 ? ~uint64_t{0} : (uint64_t{1} << cpus) - 1;
  if ((mask & all) == 0) return Err(EINVAL);
  // Remembered, not followed: which host CPU runs a guest thread is the executor's choice.
  target->cpu_mask.store(mask & all);
  return 0;
}

Result<uint64_t> SchedGetscheduler(Task& task, const SyscallArgs& a) {
  return TRY(TaskOrSelf(task, a.I32(0)))->scheduling_policy.load();
}

Result<uint64_t> SchedSetscheduler(Task& task, const SyscallArgs& a) {
  RefPtr<Task> target = TRY(TaskOrSelf(task, a.I32(0)));
  int32_t priority = TRY(task.mm().CopyInObject<int32_t>(a.Pointer(2)));
  switch (a.I32(1) & ~SCHED_RESET_ON_FORK) {
    case SCHED_OTHER:
    case SCHED_BATCH:
    case SCHED_IDLE:
      if (priority != 0) return Err(EINVAL);
      TRY(CheckMayAdjust(task, *target));
      target->scheduling_policy.store(a.I32(1));
      return 0;
    case SCHED_FIFO:
    case SCHED_RR:
      return Err(EPERM);
    default:
      return Err(EINVAL);
  }
}

Result<uint64_t> SchedGetparam(Task& task, const SyscallArgs& a) {
  (void)TRY(TaskOrSelf(task, a.I32(0)));
  if (a.Pointer(1) == 0) return Err(EINVAL);
  TRY(task.mm().CopyOutObject<int32_t>(a.Pointer(1), 0));
  return 0;
}

Result<uint64_t> SchedSetparam(Task& task, const SyscallArgs& a) {
  (void)TRY(TaskOrSelf(task, a.I32(0)));
  if (a.Pointer(1) == 0) return Err(EINVAL);
  return TRY(task.mm().CopyInObject<int32_t>(a.Pointer(1))) == 0 ? Result<uint64_t>(0) : Err(EINVAL);
}

Result<uint64_t> SchedGetPriorityMax(Task&, const SyscallArgs& a) {
  switch (a.I32(0)) {
    case SCHED_FIFO:
    case SCHED_RR:
      return 99;
    case SCHED_OTHER:
    case SCHED_BATCH:
    case SCHED_IDLE:
      return 0;
    default:
      return Err(EINVAL);
  }
}

Result<uint64_t> SchedGetPriorityMin(Task&, const SyscallArgs& a) {
  switch (a.I32(0)) {
    case SCHED_FIFO:
    case SCHED_RR:
      return 1;
    case SCHED_OTHER:
    case SCHED_BATCH:
    case SCHED_IDLE:
      return 0;
    default:
      return Err(EINVAL);
  }
}

Result<uint64_t> Getpriority(Task& task, const SyscallArgs& a) {
  if (a.U32(0) > PRIO_USER) return Err(EINVAL);
  // The highest of all, which is the lowest nice value; shifted so that it is no error.
  int nice = 19;
  for (const RefPtr<Task>& t : TRY(PriorityTargets(task, a.I32(0), a.I32(1)))) nice = std::min(nice, t->nice.load());
  return 20 - nice;
}

Result<uint64_t> Setpriority(Task& task, const SyscallArgs& a) {
  if (a.U32(0) > PRIO_USER) return Err(EINVAL);
  int nice = std::clamp(a.I32(2), -20, 19);
  // All are tried; an error of any is reported.
  Result<uint64_t> outcome = 0;
  const auto floor = 20 - static_cast<int64_t>(std::min<uint64_t>(task.GetLimit(RLIMIT_NICE).soft, 40));
  for (const RefPtr<Task>& t : TRY(PriorityTargets(task, a.I32(0), a.I32(1)))) {
    if (Result<> may = CheckMayAdjust(task, *t); !may) {
      outcome = Err(may.error());
    } else if (nice < t->nice.load() && nice < floor && !task.creds().HasCapability(CAP_SYS_NICE)) {
      outcome = Err(EACCES);
    } else {
      t->nice.store(nice);
    }
  }
  return outcome;
}

Result<uint64_t> Getcpu(Task& task, const SyscallArgs& a) {
  if (a.Pointer(0) != 0) TRY(task.mm().CopyOutObject<uint32_t>(a.Pointer(0), 0));
  if (a.Pointer(1) != 0) TRY(task.mm().CopyOutObject<uint32_t>(a.Pointer(1), 0));
  return 0;
}

Result<uint64_t> Personality(Task& task, const SyscallArgs& a) {
  uint32_t old = task.personality;
  if (a.U32(0) != 0xffffffff) task.personality = a.U32(0);
  return old;
}

Result<uint64_t> Membarrier(Task& task, const SyscallArgs& a) {
  // A trap of the calling thread orders its own accesses; that the others are ordered too would need each of them to
  // trap, so only the query is answered and no command is offered.
  if (a.I32(0) == MEMBARRIER_CMD_QUERY) return 0;
  return Err(EINVAL);
}

}  // namespace redoubt::syscalls
