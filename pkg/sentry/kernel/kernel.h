// The whole of one sandbox's Linux: the process tree and what all tasks share.
//
// Lock order (pkg/sync/ranks.h has the numbers): Kernel::mu > FdTable, FsContext > file systems > descriptors > memory
// > futex > wait queues > executor. Kernel::mu guards the process tree and all signal state (Linux's tasklist_lock and
// siglock in one); it is held for a few list operations at most and never while guest memory is touched.
#ifndef REDOUBT_PKG_SENTRY_KERNEL_KERNEL_H_
#define REDOUBT_PKG_SENTRY_KERNEL_KERNEL_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/fiber/fiber.h"
#include "pkg/platform/platform.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/futex/futex.h"
#include "pkg/sentry/kernel/container.h"
#include "pkg/sentry/kernel/pid_namespace.h"
#include "pkg/sentry/kernel/task.h"
#include "pkg/sentry/kernel/thread_group.h"
#include "pkg/sentry/pgalloc/memory_file.h"
#include "pkg/sentry/seccomp/seccomp_filter.h"
#include "pkg/sentry/vfs/vfs.h"
#include "pkg/sync/mutex.h"

namespace redoubt::loader {
class Vdso;
}

namespace redoubt::kernel {

// uname(2): programs choose by the release.
inline constexpr std::string_view kRelease = "6.6.0-redoubt";
inline constexpr std::string_view kVersion = "#1 SMP PREEMPT_DYNAMIC Redoubt";

// What a syscall number does. The table itself is a library above this one (pkg/sentry/syscalls).
using SyscallDispatcher = Result<uint64_t> (*)(Task& task, uint64_t number, const SyscallArgs& args);

class Kernel final {
 public:
  struct Options {
    platform::Platform* platform = nullptr;      // borrowed
    pgalloc::MemoryFile* memory_file = nullptr;  // borrowed
    fiber::Executor* executor = nullptr;         // borrowed
    SyscallDispatcher dispatcher = nullptr;
    loader::Vdso* vdso = nullptr;  // borrowed; none: programs get no vDSO
    std::string hostname = "redoubt";
    int cpus = 1;                              // what the guest sees
    uint64_t memory_size = uint64_t{4} << 30;  // bytes, as above
  };
  explicit Kernel(Options options);
  ~Kernel();
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;

  struct ProcessArgs {
    std::string filename;  // looked up as execve does, after `path_search`
    std::vector<std::string> argv, envv;
    std::string cwd = "/";
    RefPtr<auth::Credentials> creds;
    RefPtr<vfs::MountNamespace> mounts;
    vfs::Path root;  // default: the namespace's
    RefPtr<FdTable> fds;
    uint32_t umask = 022;
    std::vector<std::pair<int, limits::Limit>> limits;
    RefPtr<RefCounted> controlling_tty;  // of the session that it leads
    int oom_score_adj = 0;
    RefPtr<Container> container;  // none: one of its own
    bool held = false;            // it runs no instruction before Release
    bool no_new_privs = false;
    RefPtr<const SeccompFilter> seccomp;  // in force from its first instruction on
  };
  // Makes a process and starts it: the container's init if it is the first there. Errors are exec's (ENOENT, EACCES,
  // ENOEXEC...). ESRCH: the container has ended. From a fiber.
  Result<RefPtr<ThreadGroup>> CreateProcess(const ProcessArgs& args);
  // Parks the calling fiber until the group is a zombie, reaps it if it has no parent, and returns its wait(2) status.
  int WaitForExit(ThreadGroup& group);
  void Release(ThreadGroup& held) EXCLUDES(mu);
  // Kills every task, or those of one container, and waits until none is left. From a fiber.
  void KillAll(const Container* only = nullptr);

  platform::Platform& platform() const { return *options_.platform; }
  pgalloc::MemoryFile& memory_file() const { return *options_.memory_file; }
  fiber::Executor& executor() const { return *options_.executor; }
  loader::Vdso* vdso() const { return options_.vdso; }
  futex::Manager& futexes() { return futexes_; }
  int cpus() const { return options_.cpus; }
  // Bytes of memory the guest sees.
  uint64_t memory_size() const { return options_.memory_size; }
  Result<uint64_t> Dispatch(Task& task, uint64_t number, const SyscallArgs& args) {
    return options_.dispatcher(task, number, args);
  }

  // --- memory (oom.cc)
  // Bytes that guests use: their pages, and what the Sentry holds for them.
  uint64_t MemoryUsed() EXCLUDES(mu);
  // Once the Sentry's own memory has grown: OutOfMemory if all together is more than the memory file's limit. Cheap
  // otherwise.
  void CheckMemory(Task& caller) EXCLUDES(mu);
  // Kills the process that holds most, as its oom_score_adj has it (proc(5)), and waits until it has gone. Returns
  // early if that is the caller. From its fiber.
  void OutOfMemory(Task& caller) EXCLUDES(mu);

  // --- the tree
  sync::Mutex mu{sync::Rank::kTaskTree};
  PidNamespace& root_pid_ns() const { return *root_pid_ns_; }
  // By numbers of the outermost PID namespace, as in all below that does not say otherwise: what a guest means by a
  // number is PidNamespace::ToRoot's to say.
  RefPtr<Task> FindTask(int tid) EXCLUDES(mu);
  RefPtr<ThreadGroup> FindGroup(int tgid) EXCLUDES(mu);
  RefPtr<ProcessGroup> FindProcessGroupLocked(int pgid) REQUIRES(mu);
  template <typename F>
  void ForEachProcessGroupLocked(F&& f) REQUIRES(mu) {
    for (auto& [id, pg] : process_groups_) f(*pg);
  }
  std::vector<RefPtr<ThreadGroup>> Groups() EXCLUDES(mu);
  std::vector<RefPtr<Task>> TasksOf(ThreadGroup& group) EXCLUDES(mu);
  size_t TaskCount() EXCLUDES(mu);
  // setsid(2), setpgid(2), ..., with their errors. Numbers are the caller's.
  Result<int> SetSid(ThreadGroup& group) EXCLUDES(mu);
  Result<> SetPgid(ThreadGroup& caller, int pid, int pgid) EXCLUDES(mu);
  // ESRCH, ...
  Result<int> GetPgid(ThreadGroup& caller, int pid) EXCLUDES(mu);
  Result<int> GetSid(ThreadGroup& caller, int pid) EXCLUDES(mu);
  bool IsOrphanedLocked(const ProcessGroup& pg) REQUIRES(mu);

  // --- containers (container.cc)
  // When it returns no task of the container runs, nor will before Thaw; SIGKILL still ends them. Sleeps in system
  // calls go on: whatever they wait for may come, but the call returns after Thaw. From a fiber. ETIMEDOUT: some task
  // did not come to rest; all run again.
  Result<> Freeze(Container& container) EXCLUDES(mu);
  void Thaw(Container& container) EXCLUDES(mu);
  // To each process. Returns how many there were.
  size_t SignalAll(Container& container, const siginfo_t& info) EXCLUDES(mu);
  std::vector<RefPtr<ThreadGroup>> GroupsOf(const Container& container) EXCLUDES(mu);
  // Of all its tasks, the ended too.
  CpuTimes CpuOf(const Container& container) EXCLUDES(mu);

  // --- signals (signals.cc)
  // To a process, a thread or a process group. No permission check. EAGAIN: the queue of real-time signals is full.
  Result<> SendToGroup(ThreadGroup& group, const siginfo_t& info) EXCLUDES(mu);
  Result<> SendToTask(Task& task, const siginfo_t& info) EXCLUDES(mu);
  Result<> SendToProcessGroup(int pgid, const siginfo_t& info) EXCLUDES(mu);
  Result<> SendLocked(ThreadGroup& group, Task* target, const siginfo_t& info) REQUIRES(mu);
  // kill(2) with its permission rules; `sig` 0 only checks. `pid` is the caller's number.
  Result<> Kill(Task& caller, int pid, int sig) EXCLUDES(mu);
  Result<> Kill(Task& caller, ThreadGroup& group, int sig) EXCLUDES(mu);
  // All of the group die with `status` (wait(2) encoding).
  void KillGroupLocked(ThreadGroup& group, int status) REQUIRES(mu);

  // --- waiting (wait.cc)
  struct WaitArgs {
    int id_type;  // P_ALL, P_PID, P_PGID, P_PIDFD
    int id;       // the caller's number; P_PGID, 0: the caller's group; P_PIDFD: ThreadGroup::id
    int options;  // WEXITED | WSTOPPED | WCONTINUED | WNOHANG | WNOWAIT
  };
  struct WaitResult {
    int pid = 0;  // the caller's number; 0: WNOHANG and nothing to report
    int status = 0;
    uint32_t uid = 0;
    bool traced = false;  // a stop for ptrace(2)
    Usage usage;
  };
  Result<WaitResult> Wait(Task& caller, const WaitArgs& args) EXCLUDES(mu);

  // --- uname(2)
  std::string hostname() const EXCLUDES(names_mu_);
  std::string domainname() const EXCLUDES(names_mu_);
  void SetHostname(std::string name) EXCLUDES(names_mu_);
  void SetDomainname(std::string name) EXCLUDES(names_mu_);

  int64_t boot_time() const { return boot_time_; }  // CLOCK_REALTIME at start, ns
  // System V objects (an ipc::Namespace, which this library need not know); made at the first use.
  RefPtr<RefCounted> ipc_namespace GUARDED_BY(mu);
  std::atomic<uint64_t> forks{0};
  std::atomic<uint64_t> context_switches{0};

 private:
  friend class Task;

  void AddTaskLocked(Task& task) REQUIRES(mu);
  // Tasks of the real user ID: RLIMIT_NPROC.
  uint64_t CountTasksOfLocked(uint32_t uid) REQUIRES(mu);
  void JoinProcessGroupLocked(ThreadGroup& group, RefPtr<ProcessGroup> pg) REQUIRES(mu);
  void LeaveProcessGroupLocked(ThreadGroup& group) REQUIRES(mu);
  // The last task of the group has gone.
  void GroupExitedLocked(ThreadGroup& group) REQUIRES(mu);
  // Tells the parent, or reaps it if nobody is to wait for it.
  void AnnounceZombieLocked(ThreadGroup& group) REQUIRES(mu);
  void ReapLocked(ThreadGroup& group) REQUIRES(mu);
  // The thread of the parent that made the child, or that took over when that ended; null.
  static Task* ParentThreadLocked(const ThreadGroup& child);
  // ptrace(2).
  void StopCompleteLocked(ThreadGroup& group) REQUIRES(mu);
  void NotifyTracerLocked(Task& tracee, int why, int status) REQUIRES(mu);
  // It is traced no more; one that has ended goes.
  void ReleaseTraceeLocked(Task& tracee) REQUIRES(mu);
  // Of a tracee that has ended: whether its tracer need not be waited for, as he ignores SIGCHLD.
  bool TracerIgnoresEndLocked(const Task& tracee) REQUIRES(mu);
  // Wait's answer for one tracee, if there is one.
  std::optional<WaitResult> WaitForTraceeLocked(Task& tracee, const PidNamespace& ns, int options) REQUIRES(mu);
  void NotifyParentLocked(ThreadGroup& group, int code, int status) REQUIRES(mu);
  void ContinueLocked(ThreadGroup& group) REQUIRES(mu);
  static RefPtr<ProcessGroup> KeptByLocked(const ThreadGroup& child, const ThreadGroup* parent);
  // Null: all are exempt.
  RefPtr<ThreadGroup> ChooseVictim() EXCLUDES(mu);
  void HangUpOrphansLocked(const std::vector<RefPtr<ProcessGroup>>& groups) REQUIRES(mu);

  Result<> KillLocked(Task& caller, ThreadGroup& group, int sig) REQUIRES(mu);
  bool IsReachedByKillAllLocked(const Task& caller, const ThreadGroup& group) REQUIRES(mu);

  const Options options_;
  const RefPtr<PidNamespace> root_pid_ns_ = MakeRef<PidNamespace>(nullptr);
  futex::Manager futexes_;
  std::map<int, RefPtr<Task>> tasks_ GUARDED_BY(mu);            // by TID; zombies' leaders included
  std::map<int, ProcessGroup*> process_groups_ GUARDED_BY(mu);  // with a member
  RefPtr<ThreadGroup> oom_victim_ GUARDED_BY(mu);               // killed for memory, not yet gone
  fiber::Time oom_deadline_ GUARDED_BY(mu) = 0;                 // when another may be
  waiter::Queue exits_;                                         // kIn: a group was reaped or became a zombie
  mutable sync::Mutex names_mu_{sync::Rank::kLeaf};
  std::string hostname_ GUARDED_BY(names_mu_);
  std::string domainname_ GUARDED_BY(names_mu_) = "(none)";
  const int64_t boot_time_;
};

template <typename F>
std::invoke_result_t<F, Trace&, platform::Registers&> Task::WithTracee(Task& target, F&& f) {
  sync::MutexLock lock(kernel_.mu);
  if (!target.IsTracedLocked() || target.trace_->tracer != this) return Err(ESRCH);
  if (!target.trace_->stopped || target.trace_->listening) return Err(ESRCH);
  return f(*target.trace_, target.regs_);
}

}  // namespace redoubt::kernel

#endif  // REDOUBT_PKG_SENTRY_KERNEL_KERNEL_H_
