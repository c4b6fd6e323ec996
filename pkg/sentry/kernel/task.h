// A guest thread: Linux's task_struct. Each is one fiber, which alternates between Context::Switch and the syscall
// table.
#ifndef REDOUBT_PKG_SENTRY_KERNEL_TASK_H_
#define REDOUBT_PKG_SENTRY_KERNEL_TASK_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/fiber/fiber.h"
#include "pkg/platform/platform.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/auth/credentials.h"
#include "pkg/sentry/fdtable/fd_table.h"
#include "pkg/sentry/futex/futex.h"
#include "pkg/sentry/kernel/fs_context.h"
#include "pkg/sentry/kernel/thread_group.h"
#include "pkg/sentry/kernel/trace.h"
#include "pkg/sentry/mm/memory_manager.h"
#include "pkg/sentry/seccomp/seccomp_filter.h"
#include "pkg/sentry/signal/signal.h"
#include "pkg/sentry/vfs/vfs.h"
#include "pkg/sentry/wait/wait.h"

namespace redoubt::kernel {

class Kernel;

// The six arguments of a syscall, as they stand in rdi, rsi, rdx, r10, r8, r9.
struct SyscallArgs {
  uint64_t v[6];

  uint64_t U64(int i) const { return v[i]; }
  int64_t I64(int i) const { return static_cast<int64_t>(v[i]); }
  uint32_t U32(int i) const { return static_cast<uint32_t>(v[i]); }
  int32_t I32(int i) const { return static_cast<int32_t>(v[i]); }
  Addr Pointer(int i) const { return v[i]; }
  size_t Size(int i) const { return v[i]; }
};

// clone(2)'s arguments, from clone, clone3, fork and vfork.
struct CloneArgs {
  uint64_t flags = 0;  // CLONE_*, without the exit signal
  int exit_signal = 0;
  Addr stack = 0;  // the child's stack pointer; 0: the parent's
  Addr parent_tid = 0;
  Addr child_tid = 0;
  Addr pidfd = 0;
  uint64_t tls = 0;
};

// What the kernel's own fiber loop reads and writes only from the task's fiber, unless a comment says otherwise. Fields
// that other tasks read are guarded by Kernel::mu ("mu:").
class Task final : public RefCounted, public wait::Sleeper, public futex::Target {
 public:
  static Task* Current() { return static_cast<Task*>(wait::CurrentSleeper()); }

  Kernel& kernel() const { return kernel_; }
  // In the outermost PID namespace; gettid(2) is pid().number().
  int tid() const { return tid_.load(std::memory_order_relaxed); }
  ThreadGroup& group() const { return *group_; }
  const RefPtr<ThreadGroup>& group_ref() const { return group_; }
  PidNamespace& pid_ns() const { return group_->pid->ns(); }
  // By the task itself, or with Kernel::mu held: exec(2) may make it another.
  const Pid& pid() const { return *pid_; }
  // Those that have a number in this task's PID namespace; null.
  RefPtr<Task> FindTask(int tid) const;
  RefPtr<ThreadGroup> FindGroup(int tgid) const;
  // Where its children will be; unshare(2) and setns(2) change that, and not where the task itself is.
  RefPtr<PidNamespace> GetPidNamespaceForChildren() const;
  void SetPidNamespaceForChildren(RefPtr<PidNamespace> ns);

  // Own resources; by the task itself without a lock, by others through the locked getters.
  mm::MemoryManager& mm() const { return *mm_; }
  FdTable& fds() const { return *fds_; }
  FsContext& fs() const { return *fs_; }
  const auth::Credentials& creds() const { return *creds_; }
  // By the task itself only, while it is in the Sentry.
  platform::Registers& regs() {
    if (partial_) PullRegisters();
    return regs_;
  }
  platform::Context& context() { return *context_; }

  // Snapshots for other tasks (/proc, kill): null after the task has exited.
  RefPtr<mm::MemoryManager> GetMm() const;
  RefPtr<FdTable> GetFds() const;
  RefPtr<FsContext> GetFs() const;
  RefPtr<const auth::Credentials> GetCreds() const;
  RefPtr<vfs::MountNamespace> GetMountNamespace() const;
  std::string GetName() const;
  char GetState() const;  // 'R', 'S', 'T', 't', 'Z' as in /proc/PID/stat
  Usage GetUsage() const;

  void SetCreds(RefPtr<auth::Credentials> creds);
  void SetName(std::string name);  // truncated to 15 bytes
  void SetFds(RefPtr<FdTable> fds);
  void SetFs(RefPtr<FsContext> fs);
  void SetMountNamespace(RefPtr<vfs::MountNamespace> ns);

  // For path syscalls: the walker holds references into `hold`.
  struct WalkState {
    vfs::Path root, cwd;
    RefPtr<const auth::Credentials> creds;
    uint32_t umask;
    vfs::Walker walker() const { return {*creds, root, umask}; }
  };
  WalkState Walk() const;
  // The start of an *at() call: AT_FDCWD or a directory descriptor (ENOTDIR is found by the walk). Absolute names
  // ignore it, but a bad descriptor with an absolute name is no error.
  Result<vfs::Path> AtStart(const WalkState& walk, int dirfd, std::string_view name) const;

  Result<FdTable::File> File(int fd) const { return fds_->Get(fd); }
  Result<int> InstallFd(FdTable::File file, bool cloexec, int from = 0);
  limits::Limit GetLimit(int resource) const { return group_->limits.Get(resource); }

  // Sleeping. InterruptPending is true while a deliverable signal, a group stop or death awaits the task.
  bool InterruptPending() const override { return (interrupt_.load(std::memory_order_acquire) & kAttention) != 0; }
  void FallAsleep() override;
  void WakeUp() override;

  // futex::Target
  Result<mm::FutexKey> GetFutexKey(Addr addr, bool is_private) override { return mm_->GetFutexKey(addr, is_private); }
  MemoryIo& io() override { return *mm_; }

  // --- life (task_clone.cc, task_exec.cc, task_exit.cc)
  // The child's number in this task's PID namespace.
  Result<int> Clone(const CloneArgs& args);
  // execve(2): on success the registers are those of the new program.
  Result<> Exec(vfs::Path start, std::string filename, std::vector<std::string> argv, std::vector<std::string> envv,
                int flags);
  // exit(2) and exit_group(2): the task ends when the syscall returns to the loop. `status` as wait(2) encodes it.
  void Exit(int status);
  void ExitGroup(int status);
  bool exiting() const { return exiting_; }

  // --- signals (task_signals.cc)
  SignalSet signal_mask() const { return mask_.load(std::memory_order_relaxed); }
  void SetSignalMask(SignalSet mask);
  // ppoll, sigsuspend, ...: installs a mask for the rest of the syscall; the old one returns after a handler's frame
  // has been built or, if none ran, at the end.
  void SetTemporaryMask(SignalSet mask);
  Result<SignalAction> SetSignalAction(int sig, const SignalAction* action);
  SignalStack& signal_stack() { return signal_stack_; }
  // rt_sigtimedwait(2): EAGAIN on time-out.
  Result<siginfo_t> SigTimedWait(SignalSet set, fiber::Time deadline);
  // Takes a pending signal of the set without waiting (signalfd): EAGAIN.
  Result<siginfo_t> TakeSignal(SignalSet set);
  SignalSet PendingSet() const;
  // Of this task alone; with Kernel::mu held.
  SignalSet PendingLocked() const { return pending_.set(); }
  // The task's own fault: cannot be blocked or ignored.
  void ForceSignal(siginfo_t info);
  // rt_sigreturn(2): registers, mask and extended state from the frame at rsp.
  Result<> SigReturn();

  // --- seccomp(2) (task_seccomp.cc)
  // SECCOMP_MODE_*; never goes back. Other threads of the process may set it (SECCOMP_FILTER_FLAG_TSYNC).
  int seccomp_mode() const { return seccomp_mode_.load(std::memory_order_acquire); }
  size_t SeccompFilterCountLocked() const { return seccomp_filters_ ? seccomp_filters_->count() : 0; }
  // In a mode but SECCOMP_MODE_DISABLED, before a call is made: what it returns without being made, or nothing if it is
  // to be made. The task may be about to end or to take a signal. A tracer may make another call of it
  // (SECCOMP_RET_TRACE).
  std::optional<Result<uint64_t>> CheckSeccomp(uint64_t* number, SyscallArgs* args, bool after_tracer = false);
  // EINVAL: it has filters.
  Result<> EnterSeccompStrict();
  // Puts the filter before those that are there; with `all_threads` for all threads of the process, together with
  // no_new_privs, or for none: then returns the TID of one whose filters are others, else 0. EINVAL: it is strict;
  // ENOMEM: too many.
  Result<int> AddSeccompFilter(RefPtr<SeccompFilter> filter, bool all_threads);
  // prctl(2), PR_SET_NO_NEW_PRIVS. Set by other threads too, as above.
  std::atomic<bool> no_new_privs{false};

  // --- ptrace(2), as the tracer (ptrace.cc)
  // PTRACE_TRACEME: the parent traces this. EPERM.
  Result<> TraceMe();
  // PTRACE_ATTACH, PTRACE_SEIZE. EPERM: it may not, or somebody traces it, or it is of its own process.
  Result<> Attach(Task& target, bool seize, uint32_t options);
  // Calls f(Trace&, platform::Registers&) with Kernel::mu held. ESRCH unless `target` is this task's tracee and
  // stopped.
  template <typename F>
  std::invoke_result_t<F, Trace&, platform::Registers&> WithTracee(Task& target, F&& f);
  // The tracee goes on, with what of kTrace... it is to meet; signal 0 is none. Both: ESRCH as above, EIO: no signal.
  Result<> Resume(Task& tracee, uint8_t work, int signal);
  Result<> Detach(Task& tracee, int signal);
  // PTRACE_KILL, PTRACE_INTERRUPT: whether it is stopped or not. ESRCH; EIO: it was not seized.
  Result<> KillTracee(Task& tracee);
  Result<> InterruptTracee(Task& tracee);
  // PTRACE_LISTEN. EIO: it is not in a stop with PTRACE_EVENT_STOP.
  Result<> Listen(Task& tracee);
  // Of the stopped tracee.
  Result<SignalSet> GetTraceeMask(Task& tracee);
  Result<> SetTraceeMask(Task& tracee, SignalSet mask);
  Result<> SetTraceeRegisters(Task& tracee, const platform::Registers& regs);
  // DR0 to DR7. EINVAL: no such place; ENOSPC: it asks for reads too, which are not seen.
  Result<> SetTraceeDebugRegister(Task& tracee, int n, uint64_t value);
  Result<std::vector<siginfo_t>> PeekSignals(Task& tracee, bool shared, uint64_t skip, size_t most);
  // Its tracer's number in `ns`; 0.
  int TracerNumberLocked(const PidNamespace& ns) const;
  bool IsTracedLocked() const { return trace_ && trace_->tracer != nullptr; }

  // --- odds and ends that syscalls keep in the task
  Addr clear_child_tid = 0;
  Addr robust_list = 0;
  uint64_t robust_list_length = 0;
  std::atomic<int> parent_death_signal{0};
  std::atomic<uint64_t> cpu_mask{~uint64_t{0}};
  std::atomic<int> nice{0};
  // What restart_syscall(2) does: goes on with a call whose time-out was relative, towards the deadline it has had from
  // the start. Set by the call that returns ERESTART_RESTARTBLOCK.
  std::function<Result<uint64_t>(Task&)> restart;
  uint64_t syscall_number() const { return syscall_number_; }
  // Personality, timer slack, ... that are only read back.
  uint32_t personality = 0;
  uint64_t timer_slack = 50'000;
  uint64_t default_timer_slack = 50'000;
  std::atomic<int> scheduling_policy{0};  // SCHED_OTHER; remembered, not followed

  // Wakes the task's fiber and gets it out of the guest.
  void Interrupt();

  // What the task is about, for a person who looks for what hangs. Read while the task may run: any part may be from
  // another moment than the rest.
  struct Activity {
    bool in_guest = false;
    bool asleep = false;
    bool frozen = false;
    bool stopped = false;
    uint64_t syscall_number = 0;  // the last one; under way if the task is asleep and neither frozen nor stopped
    SyscallArgs args{};
    bool registers_known = false;  // rip and rsp are those of the last trap
    uint64_t rip = 0, rsp = 0;
  };
  Activity GetActivity() const;

 private:
  friend class Kernel;
  friend class ThreadGroup;

  Task(Kernel& kernel, RefPtr<ThreadGroup> group, RefPtr<Pid> pid);
  ~Task() override;

  // task_run.cc
  void Start();
  void Run();
  void HandleSyscall();
  void MakeSyscall();
  void HandleFault(const platform::TrapInfo& trap);
  // Signals, stops and death, before the guest runs again.
  void ReturnToUser();
  // What a Switch has cost, to user and system time.
  void AccountGuest();
  void PullRegisters();

  // task_signals.cc; all with Kernel::mu held.
  std::optional<siginfo_t> TakePendingLocked(SignalSet allowed);
  void RecomputeInterruptLocked();
  bool WantsSignalLocked(int sig) const;
  void DeliverHandler(const siginfo_t& info, const SignalAction& action);
  void StopLocked();
  void InterruptLocked();

  // task_trace.cc, as the tracee; those with Kernel::mu held give it up while parked.
  enum class TraceStop { kSignal, kEvent, kExit };
  // A ptrace-stop, if the task is traced: parks until its tracer lets it go on or the task must end. `why` is CLD_*.
  // Returns the signal that it is to get; 0.
  int TraceStopLocked(TraceStop kind, int code, int why, const siginfo_t* info, uint64_t message);
  // A stop for a PTRACE_EVENT_* but PTRACE_EVENT_STOP; nothing if the option is not set.
  void TraceEvent(int event, uint64_t message);
  bool TracesEvent(int event) const;
  // execve(2) has made a new program of it.
  void ReportExec(int old_tid);
  bool MayGainPrivilegesTraced() const;
  // A group stop, or PTRACE_EVENT_STOP.
  void TrapStopLocked();
  // What the tracer makes of a signal that was taken.
  std::optional<siginfo_t> TraceSignalLocked(const siginfo_t& info);
  // False: the call is not to be made, and rax is what it returns.
  bool TraceSyscallEntry();
  void TraceSyscallExit();
  // The bit of eflags that is the tracer's; 0.
  uint64_t TracersTrapFlag() const;
  // The trap flag in the registers, where it is ours.
  bool TakeTrapFlag();
  void SetTrapFlag();
  // After a trap of the trap flag: whether that was ours and there is nothing to tell of it.
  bool TraceStepGoesOn();
  // Whether a watchpoint has been hit, of which the status register then tells.
  bool CheckWatchpoints(bool only_look);
  void CountStopLocked();
  // ptrace.cc; with Kernel::mu held.
  void LinkTracerLocked(Task& tracer, bool seized, uint32_t options);
  void UnlinkTracerLocked();
  // At the tracer's end.
  void LoseTraceesLocked();
  // Hidden text and patches would be seen by who debugs.
  static void StopRewriting(mm::MemoryManager& mm);
  // Whether a new task is traced from its start, and with which event (0: CLONE_PTRACE asked for it).
  std::optional<int> TraceOfChildLocked(const CloneArgs& args) const;

  // container.cc; all with Kernel::mu held.
  bool MustFreezeLocked() const;
  // Frozen from the guest's next instruction on, which what the task does or waits for in the Sentry need not know.
  void FreezeLocked();
  void ThawLocked();
  // Neither in the guest, nor will it be while it is frozen, nor at work in the Sentry.
  bool IsAtRestLocked() const;
  // Parks the task while it is frozen.
  void ParkFrozenLocked();

  // task_seccomp.cc; with Kernel::mu held.
  void UseSeccompFiltersLocked(RefPtr<const SeccompFilter> filters);
  void InheritSeccompLocked(const Task& parent);
  // Without it.
  bool IsDying() const;
  Result<> SleepKillable();

  // task_exit.cc
  void FinishExit();
  void ReleaseMm();
  void ExitRobustList();
  // Of the last task of a PID namespace's first process: kills all others there and parks until they have gone
  // (pid_namespaces(7)).
  void EndPidNamespaceLocked();
  Result<> KillOtherThreads();

  Kernel& kernel_;
  RefPtr<ThreadGroup> group_;
  RefPtr<Pid> pid_;  // mu: changed by the task itself
  std::atomic<int> tid_;
  RefPtr<fiber::Fiber> fiber_;  // mu: set at start
  std::unique_ptr<platform::Context> context_;
  // Use regs(), save for what every system call brings: rax, orig_rax, the arguments.
  platform::Registers regs_{};
  bool partial_ = false;  // Context::PullRegisters was not called since

  // Changed by the task itself under Kernel::mu, so it may read them without.
  RefPtr<mm::MemoryManager> mm_;
  RefPtr<FdTable> fds_;
  RefPtr<FsContext> fs_;
  RefPtr<const auth::Credentials> creds_;
  RefPtr<vfs::MountNamespace> mount_ns_;
  RefPtr<PidNamespace> pid_ns_for_children_;  // null: the task's own
  std::string name_;

  // Why not to go (on) into the guest. kAttention ends sleeps too. Written under mu.
  static constexpr uint32_t kAttention = 1;  // a signal, a stop, death
  static constexpr uint32_t kFreeze = 2;
  std::atomic<uint32_t> interrupt_{0};
  std::atomic<SignalSet> mask_{0};  // written by the task under mu
  std::optional<SignalSet> saved_mask_;
  PendingSignals pending_;     // mu
  SignalSet sigwait_set_ = 0;  // mu: signals that rt_sigtimedwait waits for
  SignalStack signal_stack_;
  bool stop_parked_ = false;    // mu: counted in group_->stopped_tasks
  bool freeze_parked_ = false;  // mu
  bool exiting_ = false;
  bool exited_ = false;  // mu
  int exit_status_ = 0;

  // ptrace(2).
  std::unique_ptr<Trace> trace_;        // mu; null until it is traced
  std::vector<Task*> tracees_;          // mu
  std::atomic<uint8_t> trace_work_{0};  // kTrace...; written under mu
  bool stop_taken_ = false;             // mu: of a tracee: counted in group_->stopped_tasks, though it may run

  std::atomic<uint8_t> seccomp_mode_{0};         // written under mu
  RefPtr<const SeccompFilter> seccomp_filters_;  // mu
  // The same, for the task itself, which reads it without a lock: whatever takes its place refers to it.
  std::atomic<const SeccompFilter*> seccomp_{nullptr};

  uint64_t syscall_number_ = ~uint64_t{0};
  bool regs_replaced_ = false;    // the syscall has set all registers itself (execve, rt_sigreturn)
  Errno restart_{EINTR};          // the restart code, if restart_pending_
  bool restart_pending_ = false;  // regs_.rax holds a restart code
  Addr child_tid_on_start_ = 0;   // CLONE_CHILD_SETTID
  // Of the last fault, for the signal frame.
  uint64_t fault_trapno_ = 0;
  uint64_t fault_error_code_ = 0;
  Addr fault_address_ = 0;

  RefPtr<Task> vfork_parent_;  // mu: sleeps until this task no longer uses its memory (vfork(2))

  std::atomic<bool> in_guest_{false};
  std::atomic<bool> asleep_{false};
  // Of clock::Cycles.
  std::atomic<uint64_t> state_since_{0};
  std::atomic<uint64_t> user_cycles_{0};
  std::atomic<uint64_t> system_cycles_{0};
  std::atomic<uint64_t> minor_faults_{0};
  std::atomic<uint64_t> switches_{0};
};

}  // namespace redoubt::kernel

#endif  // REDOUBT_PKG_SENTRY_KERNEL_TASK_H_
