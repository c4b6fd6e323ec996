// execve(2).
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "pkg/log/log.h"
#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/kernel/process_timers.h"
#include "pkg/sentry/kernel/task.h"
#include "pkg/sentry/loader/loader.h"
#include "pkg/sentry/vfs/watch.h"

namespace redoubt::kernel {
namespace {

Result<RefPtr<vfs::FileDescription>> OpenProgram(const vfs::Walker& walker, const vfs::At& at) {
  vfs::Path path = TRY(vfs::Lookup(walker, at));
  if (!path.inode().IsRegular()) return Err(EACCES);
  vfs::Attributes attributes = TRY(path.inode().GetAttributes());
  // Even root needs one x bit.
  if ((attributes.mode & 0111) == 0) return Err(EACCES);
  TRY(vfs::Access(walker, {.start = path, .name = "", .empty_ok = true}, X_OK));
  // Read by the kernel, so a program need not be readable for its user.
  RefPtr<vfs::FileDescription> file = TRY(path.inode().Open(path, O_RDONLY | O_LARGEFILE));
  vfs::NoteFile(*file, IN_OPEN);
  // Its headers will be.
  vfs::NoteFile(*file, IN_ACCESS);
  return file;
}

// capabilities(7), "Transformation of capabilities during execve()", without file capabilities.
RefPtr<auth::Credentials> CredsAfterExec(const auth::Credentials& old, const vfs::Attributes& file, bool allow_set_ids,
                                         bool* secure) {
  RefPtr<auth::Credentials> c = old.Clone();
  if (allow_set_ids) {
    if ((file.mode & S_ISUID) != 0) c->euid = file.uid;
    if ((file.mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP)) c->egid = file.gid;
  }
  c->suid = c->fsuid = c->euid;
  c->sgid = c->fsgid = c->egid;
  c->keep_caps = false;
  bool ids_changed = c->euid != old.euid || c->egid != old.egid;
  if (ids_changed) c->ambient = 0;
  if (c->ruid == 0 || c->euid == 0) {
    c->permitted = c->inheritable | c->bounding;
    c->effective = c->euid == 0 ? c->permitted : c->ambient;
  } else {
    c->permitted = c->ambient;
    c->effective = c->ambient;
  }
  *secure = c->euid != c->ruid || c->egid != c->rgid;
  return c;
}

}  // namespace

Result<> Task::KillOtherThreads() {
  {
    sync::MutexLock lock(kernel_.mu);
    if (group_->exiting || group_->execing != nullptr) return Err(kErestartnointr);
    if (group_->tasks.size() <= 1) return {};
    group_->execing = this;
    for (Task* t : group_->tasks) {
      if (t != this) t->InterruptLocked();
    }
  }
  while (true) {
    {
      sync::MutexLock lock(kernel_.mu);
      if (group_->exiting) {
        group_->execing = nullptr;
        return Err(kErestartnointr);
      }
      if (group_->tasks.size() == 1) {
        group_->execing = nullptr;
        if (group_->leader != this) {
          // The caller becomes the thread-group leader and takes its ID (execve(2)). Of the old one's end no tracer
          // hears (ptrace(2)).
          if (group_->leader->IsTracedLocked()) group_->leader->UnlinkTracerLocked();
          kernel_.tasks_.erase(tid());
          pid_ = group_->pid;
          tid_.store(group_->id);
          kernel_.tasks_[group_->id] = RefPtr<Task>(this);
          group_->leader = this;
        }
        return {};
      }
    }
    fiber::Park();
  }
}

// ptrace(2): set-ID bits count for nothing while somebody traces who could not do as much.
bool Task::MayGainPrivilegesTraced() const {
  sync::MutexLock lock(kernel_.mu);
  return !IsTracedLocked() || (trace_->tracer->creds_ && trace_->tracer->creds_->HasCapability(CAP_SYS_PTRACE));
}

void Task::ReportExec(int old_tid) {
  if (trace_work_.load(std::memory_order_relaxed) == 0) return;
  // Somebody may have come while the program was loaded.
  StopRewriting(*mm_);
  uint64_t message = 0;
  {
    sync::MutexLock lock(kernel_.mu);
    if (!IsTracedLocked()) return;
    trace_->debug = {};
    trace_work_.fetch_and(static_cast<uint8_t>(~kTraceWatch), std::memory_order_relaxed);
    trace_->stepping = false;  // the registers are new
    if ((trace_->options & PTRACE_O_TRACEEXEC) == 0) {
      if (!trace_->seized) {
        (void)kernel_.SendLocked(*group_, this, MakeKillInfo(SIGTRAP, SI_USER, pid_->number(), creds_->ruid));
      }
      return;
    }
    message = static_cast<uint64_t>(trace_->tracer->pid_ns().FromRoot(old_tid));
  }
  TraceEvent(PTRACE_EVENT_EXEC, message);
}

Result<> Task::Exec(vfs::Path start, std::string filename, std::vector<std::string> argv, std::vector<std::string> envv,
                    int flags) {
  WalkState walk = Walk();
  bool follow = (flags & AT_SYMLINK_NOFOLLOW) == 0;
  loader::Args args;
  if (!follow) {
    vfs::Path path = TRY(vfs::Lookup(walk.walker(), {.start = start, .name = filename, .follow = false}));
    if (path.inode().IsSymlink()) return Err(ELOOP);
  }
  args.file = TRY(OpenProgram(
      walk.walker(), {.start = start, .name = filename, .follow = follow, .empty_ok = (flags & AT_EMPTY_PATH) != 0}));
  args.open = [&](const std::string& name) { return OpenProgram(walk.walker(), {.start = walk.cwd, .name = name}); };
  args.filename = filename;
  args.argv = std::move(argv);
  args.envv = std::move(envv);
  args.random = [](std::span<std::byte> bytes) { CHECK(getrandom(bytes.data(), bytes.size(), 0) >= 0, "getrandom"); };
  args.randomize = (personality & ADDR_NO_RANDOMIZE) == 0;
  args.stack_limit = GetLimit(RLIMIT_STACK).soft;
  args.vdso = kernel_.vdso();
  bool is_script = false;
  {
    char magic[2] = {};
    BufferIo io(std::as_writable_bytes(std::span(magic)));
    IoSequence dst(io, 0, sizeof(magic));
    Result<size_t> n = args.file->PRead(dst, 0, 0);
    is_script = n && *n == 2 && magic[0] == '#' && magic[1] == '!';
  }
  vfs::Attributes attributes = TRY(args.file->GetAttributes());
  // execve(2): set-ID bits of a nosuid mount count for nothing.
  // user_namespaces(7): and those of an owner that there is not inside.
  if ((vfs::MountFlags(args.file->path()) & MS_NOSUID) != 0 || !group_->container->HasUid(attributes.uid) ||
      !group_->container->HasGid(attributes.gid)) {
    attributes.mode &= ~uint32_t{S_ISUID | S_ISGID};
  }
  bool secure = false;
  RefPtr<auth::Credentials> creds =
      CredsAfterExec(*creds_, attributes, !is_script && !no_new_privs.load() && MayGainPrivilegesTraced(), &secure);
  args.creds = creds.get();
  args.secure = secure;

  RefPtr<mm::MemoryManager> mm = TRY(mm::MemoryManager::Create(kernel_.platform(), kernel_.memory_file()));
  mm->AddUser();
  if (platform::Rewriter* rewriter = mm->address_space().rewriter(); rewriter != nullptr) {
    for (const std::string& e : args.envv) {
      if (e == "REDOUBT_REWRITE=false") rewriter->Disable();
    }
    if (trace_work_.load(std::memory_order_relaxed) != 0) rewriter->Disable();
  }
  mm->SetLimits({.address_space = GetLimit(RLIMIT_AS).soft,
                 .data = GetLimit(RLIMIT_DATA).soft,
                 .stack = GetLimit(RLIMIT_STACK).soft});
  Result<loader::Image> image = loader::Load(args, *mm);
  if (!image) {
    mm->DropUser();
    return Err(image.error());
  }
  const int old_tid = tid();
  // From here on there is no way back, except that the whole process is being killed.
  if (Result<> r = KillOtherThreads(); !r) {
    mm->DropUser();
    return r;
  }
  if (mm_) ExitRobustList();
  if (clear_child_tid != 0 && mm_ && mm_->CopyOutObject<int32_t>(clear_child_tid, 0)) {
    (void)kernel_.futexes().Wake(*this, clear_child_tid, false, 1, ~uint32_t{0});
  }
  ReleaseMm();
  group_->timers->DeletePosixTimers();
  {
    sync::MutexLock lock(kernel_.mu);
    mm_ = std::move(mm);
    creds_ = creds;
    // Another process may share the table (CLONE_SIGHAND without CLONE_THREAD).
    group_->handlers = group_->handlers->Clone();
    group_->handlers->ResetForExec();
    group_->did_exec = true;
    group_->exit_signal = SIGCHLD;
  }
  SetName(image->name);
  if (fds_->RefCount() > 1) SetFds(fds_->Clone());
  fds_->CloseOnExec();
  clear_child_tid = 0;
  robust_list = 0;
  robust_list_length = 0;
  child_tid_on_start_ = 0;
  signal_stack_ = SignalStack{};
  restart = nullptr;
  if (secure) parent_death_signal.store(0);
  group_->dumpable.store(!secure);
  regs() = image->regs;
  regs().orig_rax = ~uint64_t{0};
  regs_replaced_ = true;
  mm_->GuestStarts();
  TRY(context_->PushFpState(platform::InitialFpState()));
  ReportExec(old_tid);
  return {};
}

}  // namespace redoubt::kernel
