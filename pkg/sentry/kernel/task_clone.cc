// clone(2), fork(2), vfork(2).
#include <linux/sched.h>
#include <sys/ptrace.h>

#include "pkg/log/log.h"
#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/kernel/pidfd.h"
#include "pkg/sentry/kernel/process_timers.h"
#include "pkg/sentry/kernel/task.h"
#include "pkg/sentry/limits/system.h"

namespace redoubt::kernel {
namespace {

constexpr uint64_t kSupported = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_PIDFD | CLONE_VFORK |
                                CLONE_PARENT | CLONE_THREAD | CLONE_NEWNS | CLONE_SYSVSEM | CLONE_SETTLS |
                                CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID | CLONE_DETACHED | CLONE_UNTRACED |
                                CLONE_CHILD_SETTID | CLONE_IO | CLONE_CLEAR_SIGHAND | CLONE_NEWPID | CLONE_PTRACE;

Result<> CheckFlags(const CloneArgs& args, const auth::Credentials& creds) {
  uint64_t f = args.flags;
  if ((f & ~kSupported) != 0) return Err(EINVAL);
  if ((f & CLONE_SIGHAND) != 0 && (f & CLONE_VM) == 0) return Err(EINVAL);
  if ((f & CLONE_THREAD) != 0 && (f & CLONE_SIGHAND) == 0) return Err(EINVAL);
  if ((f & CLONE_SIGHAND) != 0 && (f & CLONE_CLEAR_SIGHAND) != 0) return Err(EINVAL);
  if ((f & CLONE_FS) != 0 && (f & CLONE_NEWNS) != 0) return Err(EINVAL);
  if ((f & CLONE_PIDFD) != 0 && (f & (CLONE_THREAD | CLONE_DETACHED)) != 0) return Err(EINVAL);
  if ((f & CLONE_NEWPID) != 0 && (f & CLONE_THREAD) != 0) return Err(EINVAL);
  if ((f & (CLONE_NEWNS | CLONE_NEWPID)) != 0 && !creds.HasCapability(CAP_SYS_ADMIN)) return Err(EPERM);
  if (args.exit_signal < 0 || args.exit_signal > kMaxSignal) return Err(EINVAL);
  return {};
}

}  // namespace

Result<int> Task::Clone(const CloneArgs& args) {
  TRY(CheckFlags(args, *creds_));
  const uint64_t flags = args.flags;
  const bool thread = (flags & CLONE_THREAD) != 0;
  // A thread is in its process' PID namespace.
  if (thread && pid_ns_for_children_ && pid_ns_for_children_.get() != &pid_ns()) return Err(EINVAL);
  RefPtr<PidNamespace> ns = pid_ns_for_children_ ? pid_ns_for_children_ : RefPtr<PidNamespace>(&pid_ns());
  if ((flags & CLONE_NEWPID) != 0) {
    if (ns.get() != &pid_ns()) return Err(EINVAL);
    ns = TRY(PidNamespace::Create(std::move(ns), creds_->euid));
  }
  RefPtr<Pid> pid = TRY(ns->Allocate());
  const int number = pid->In(pid_ns());

  std::unique_ptr<platform::Context> context = TRY(kernel_.platform().NewContext());
  // The child starts with the parent's extended state.
  TRY(context->PushFpState(TRY(context_->PullFpState())));
  const Addr tid_word = (flags & CLONE_CHILD_SETTID) != 0 ? args.child_tid : 0;
  RefPtr<mm::MemoryManager> mm = (flags & CLONE_VM) != 0 ? mm_ : TRY(mm_->Fork({regs().rsp, tid_word}));
  RefPtr<FdTable> fds = (flags & CLONE_FILES) != 0 ? fds_ : fds_->Clone();
  RefPtr<FsContext> fs = (flags & CLONE_FS) != 0 ? fs_ : fs_->Clone();
  RefPtr<vfs::MountNamespace> mounts = mount_ns_;
  if ((flags & CLONE_NEWNS) != 0) {
    vfs::Path root = fs->root();
    vfs::Path cwd = fs->cwd();
    mounts = TRY(mount_ns_->Copy({&root, &cwd}));
    fs->SetRoot(root);
    fs->SetCwd(cwd);
  }

  RefPtr<Task> child;
  {
    sync::MutexLock lock(kernel_.mu);
    // A process that is dying makes no more tasks; a pending signal is taken before the fork, so that a
    // Ctrl-C is not outrun by a fork loop.
    if (group_->exiting || (!thread && InterruptPending())) return Err(kErestartnointr);
    // clone(2): a sibling of the first process would have its parent outside.
    if ((flags & CLONE_PARENT) != 0 && group_->pid->ns().init == group_.get()) return Err(EINVAL);
    limits::Limit nproc = group_->limits.Get(RLIMIT_NPROC);
    if (kernel_.tasks_.size() >= nproc.soft && creds_->ruid != 0 && !creds_->HasCapability(CAP_SYS_RESOURCE) &&
        !creds_->HasCapability(CAP_SYS_ADMIN) && kernel_.CountTasksOfLocked(creds_->ruid) >= nproc.soft) {
      return Err(EAGAIN);
    }
    // Of anybody: the host has no more for the Sentry either.
    if (static_cast<int64_t>(kernel_.tasks_.size()) >= limits::System::Get().threads_max.load()) return Err(EAGAIN);
    RefPtr<ThreadGroup> group = thread ? group_ : MakeRef<ThreadGroup>(kernel_, pid);
    child = RefPtr<Task>(new Task(kernel_, group, pid));
    if (!thread) {
      group->container = group_->container;
      group->handlers = (flags & CLONE_SIGHAND) != 0 ? group_->handlers : group_->handlers->Clone();
      if ((flags & CLONE_CLEAR_SIGHAND) != 0) group->handlers->ResetForExec();
      group->exit_signal = args.exit_signal;
      group->limits.CopyFrom(group_->limits);
      group->oom_score_adj = group_->oom_score_adj.load();
      group->dumpable = group_->dumpable.load();
      group->no_huge_pages = group_->no_huge_pages.load();
      group->gave_up_tty = group_->gave_up_tty;
    }
  }
  child->context_ = std::move(context);
  child->mm_ = std::move(mm);
  child->fds_ = std::move(fds);
  child->fs_ = std::move(fs);
  child->creds_ = creds_;
  child->mount_ns_ = std::move(mounts);
  child->name_ = name_;
  child->mask_.store(mask_.load());
  child->cpu_mask.store(cpu_mask.load());
  child->nice.store(nice.load());
  child->personality = personality;
  child->timer_slack = child->default_timer_slack = timer_slack;
  child->scheduling_policy.store(scheduling_policy.load());
  // sigaltstack(2): inherited by a new process, not by a thread that shares memory (unless by vfork).
  if ((flags & (CLONE_VM | CLONE_VFORK)) != CLONE_VM) child->signal_stack_ = signal_stack_;
  child->regs_ = regs();
  child->regs_.rax = 0;
  child->regs_.orig_rax = ~uint64_t{0};
  child->regs_.eflags &= ~TracersTrapFlag();
  if (args.stack != 0) child->regs_.rsp = args.stack;
  if ((flags & CLONE_SETTLS) != 0) {
    if (args.tls >= kernel_.platform().max_user_address()) return Err(EPERM);
    child->regs_.fs_base = args.tls;
  }
  if ((flags & CLONE_CHILD_CLEARTID) != 0) child->clear_child_tid = args.child_tid;
  if ((flags & CLONE_CHILD_SETTID) != 0) child->child_tid_on_start_ = args.child_tid;
  if ((flags & CLONE_VFORK) != 0) child->vfork_parent_ = RefPtr<Task>(this);

  int pidfd = -1;
  if ((flags & CLONE_PIDFD) != 0) {
    pidfd = TRY(InstallFd(MakePidfd(child->group_), true));
    if (Result<> r = mm_->CopyOutObject<int32_t>(args.pidfd, pidfd); !r) {
      (void)fds_->Close(pidfd);
      return Err(r.error());
    }
  }
  if ((flags & CLONE_PARENT_SETTID) != 0) {
    // As in Linux a bad address does not undo the clone.
    (void)mm_->CopyOutObject<int32_t>(args.parent_tid, number);
  }

  child->mm_->AddUser();
  child->fds_->AddUser();
  child->mount_ns_->AddUser();
  Result<> failed;
  std::optional<int> traced;
  int number_to_tracer = 0;
  {
    sync::MutexLock lock(kernel_.mu);
    if (group_->exiting || (group_->execing != nullptr && group_->execing != this)) {
      failed = Err(kErestartnointr);
    } else if (ns->ended) {
      failed = Err(ENOMEM);  // pid_namespaces(7)
    } else {
      child->InheritSeccompLocked(*this);
      kernel_.AddTaskLocked(*child);
      if (!thread) {
        ThreadGroup* parent = (flags & CLONE_PARENT) != 0 ? group_->parent : group_.get();
        child->group_->SetParentLocked(parent);
        child->group_->forked_by = (flags & CLONE_PARENT) != 0 ? group_->forked_by : tid();
        if (parent != nullptr) parent->children.push_back(child->group_.get());
        kernel_.JoinProcessGroupLocked(*child->group_, group_->process_group);
      }
      traced = TraceOfChildLocked(args);
      if (traced) {
        Task& tracer = *trace_->tracer;
        child->LinkTracerLocked(tracer, trace_->seized, trace_->options);
        number_to_tracer = child->pid_->In(tracer.pid_ns());
        if (trace_->seized) {
          child->trace_->trap_pending = true;
        } else {
          (void)child->pending_.Add(MakeSigInfo(SIGSTOP, SI_KERNEL));
        }
      }
      // A stop or a shared signal that came meanwhile.
      child->RecomputeInterruptLocked();
    }
  }
  if (!failed) {
    child->mm_->DropUser();
    child->fds_->DropUser();
    child->mount_ns_->DropUser();
    return Err(failed.error());
  }
  if (traced) StopRewriting(*child->mm_);
  child->Start();
  if (traced && *traced != 0) TraceEvent(*traced, static_cast<uint64_t>(number_to_tracer));

  if ((flags & CLONE_VFORK) != 0) {
    // Uninterruptible but for death: the child runs on the parent's stack (vfork(2)).
    while (true) {
      {
        sync::MutexLock lock(kernel_.mu);
        if (child->vfork_parent_ == nullptr || group_->exiting) break;
      }
      FallAsleep();
      fiber::Park();
      WakeUp();
    }
    TraceEvent(PTRACE_EVENT_VFORK_DONE, static_cast<uint64_t>(number_to_tracer));
  }
  return number;
}

void Task::SetPidNamespaceForChildren(RefPtr<PidNamespace> ns) {
  sync::MutexLock lock(kernel_.mu);
  std::swap(pid_ns_for_children_, ns);
}

RefPtr<PidNamespace> Task::GetPidNamespaceForChildren() const {
  sync::MutexLock lock(kernel_.mu);
  return pid_ns_for_children_ ? pid_ns_for_children_ : RefPtr<PidNamespace>(&pid_ns());
}

}  // namespace redoubt::kernel
