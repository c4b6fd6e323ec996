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
  RefPtr<Task> target = task.kernel().FindTask(pid);
  if (!target) return Err(ESRCH);
  return target;
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

Result<uint64_t> Getrandom(Task& task, const SyscallArgs& a) {
  if ((a.U32(2) & ~(GRND_NONBLOCK | GRND_RANDOM | 0x4u /* GRND_INSECURE */)) != 0) return Err(EINVAL);
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
  (void)TRY(TaskOrSelf(task, a.I32(0)));
  return SCHED_OTHER;
}

Result<uint64_t> SchedSetscheduler(Task& task, const SyscallArgs& a) {
  (void)TRY(TaskOrSelf(task, a.I32(0)));
  int32_t priority = TRY(task.mm().CopyInObject<int32_t>(a.Pointer(2)));
  switch (a.I32(1) & ~SCHED_RESET_ON_FORK) {
    case SCHED_OTHER:
    case SCHED_BATCH:
    case SCHED_IDLE:
      return priority == 0 ? Result<uint64_t>(0) : Err(EINVAL);
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
  if (a.I32(0) != PRIO_PROCESS) return 20 - task.nice.load();
  return 20 - TRY(TaskOrSelf(task, a.I32(1)))->nice.load();
}

Result<uint64_t> Setpriority(Task& task, const SyscallArgs& a) {
  if (a.U32(0) > PRIO_USER) return Err(EINVAL);
  int nice = std::clamp(a.I32(2), -20, 19);
  RefPtr<Task> target = a.I32(0) == PRIO_PROCESS ? TRY(TaskOrSelf(task, a.I32(1))) : RefPtr<Task>(&task);
  if (nice < target->nice.load() && !task.creds().HasCapability(CAP_SYS_NICE)) return Err(EACCES);
  target->nice.store(nice);
  return 0;
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
