#include "pkg/sentry/kernel/task.h"

#include <fcntl.h>

#include <algorithm>

#include "pkg/log/log.h"
#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/limits/system.h"
#include "pkg/sentry/time/clock.h"

namespace redoubt::kernel {

Task::Task(Kernel& kernel, RefPtr<ThreadGroup> group, RefPtr<Pid> pid)
    : kernel_(kernel),
      group_(std::move(group)),
      pid_(std::move(pid)),
      tid_(pid_->root_number()),
      state_since_(clock::Cycles()) {}

Task::~Task() = default;

RefPtr<Task> Task::FindTask(int tid) const { return kernel_.FindTask(pid_ns().ToRoot(tid)); }

RefPtr<ThreadGroup> Task::FindGroup(int tgid) const { return kernel_.FindGroup(pid_ns().ToRoot(tgid)); }

RefPtr<mm::MemoryManager> Task::GetMm() const {
  sync::MutexLock lock(kernel_.mu);
  return mm_;
}

RefPtr<FdTable> Task::GetFds() const {
  sync::MutexLock lock(kernel_.mu);
  return fds_;
}

RefPtr<FsContext> Task::GetFs() const {
  sync::MutexLock lock(kernel_.mu);
  return fs_;
}

RefPtr<const auth::Credentials> Task::GetCreds() const {
  sync::MutexLock lock(kernel_.mu);
  return creds_;
}

RefPtr<vfs::MountNamespace> Task::GetMountNamespace() const {
  sync::MutexLock lock(kernel_.mu);
  return mount_ns_;
}

std::string Task::GetName() const {
  sync::MutexLock lock(kernel_.mu);
  return name_;
}

char Task::GetState() const {
  sync::MutexLock lock(kernel_.mu);
  if (exited_) return 'Z';
  if (IsTracedLocked() && trace_->stopped) return 't';
  if (stop_parked_) return 'T';
  return asleep_.load(std::memory_order_relaxed) ? 'S' : 'R';
}

Usage Task::GetUsage() const {
  Usage u;
  uint64_t user = user_cycles_.load(std::memory_order_relaxed);
  uint64_t system = system_cycles_.load(std::memory_order_relaxed);
  // The stretch that is not accounted yet.
  uint64_t since = state_since_.load(std::memory_order_relaxed);
  uint64_t now = clock::Cycles();
  if (now > since) {
    if (in_guest_.load(std::memory_order_relaxed)) {
      const uint64_t entered = std::clamp(context_->entered(), since, now);
      system += entered - since;
      user += now - entered;
    } else if (Current() == this) {
      system += now - since;
    }
  }
  u.cpu.user = clock::FromCycles(user);
  u.cpu.system = clock::FromCycles(system);
  u.minor_faults = minor_faults_.load(std::memory_order_relaxed);
  u.voluntary_switches = switches_.load(std::memory_order_relaxed);
  return u;
}

void Task::FallAsleep() {
  if (context_) context_->Rest();
  uint64_t now = clock::Cycles();
  system_cycles_.fetch_add(now - state_since_.load(std::memory_order_relaxed), std::memory_order_relaxed);
  state_since_.store(now, std::memory_order_relaxed);
  switches_.fetch_add(1, std::memory_order_relaxed);
  asleep_.store(true, std::memory_order_relaxed);
}

void Task::WakeUp() {
  asleep_.store(false, std::memory_order_relaxed);
  state_since_.store(clock::Cycles(), std::memory_order_relaxed);
}

void Task::SetCreds(RefPtr<auth::Credentials> creds) {
  RefPtr<const auth::Credentials> installed = std::move(creds);
  sync::MutexLock lock(kernel_.mu);
  std::swap(creds_, installed);
  // prctl(2), PR_SET_DUMPABLE and PR_SET_PDEATHSIG: what others may look into is of another identity now.
  if (installed->euid != creds_->euid || installed->egid != creds_->egid || installed->fsuid != creds_->fsuid ||
      installed->fsgid != creds_->fsgid) {
    group_->dumpable.store(false);
    parent_death_signal.store(0);
  }
}

void Task::SetName(std::string name) {
  if (name.size() > 15) name.resize(15);
  sync::MutexLock lock(kernel_.mu);
  name_ = std::move(name);
}

void Task::SetFds(RefPtr<FdTable> fds) {
  fds->AddUser();
  {
    sync::MutexLock lock(kernel_.mu);
    std::swap(fds_, fds);
  }
  fds->DropUser();
}

void Task::SetFs(RefPtr<FsContext> fs) {
  sync::MutexLock lock(kernel_.mu);
  std::swap(fs_, fs);
}

void Task::SetMountNamespace(RefPtr<vfs::MountNamespace> ns) {
  ns->AddUser();
  {
    sync::MutexLock lock(kernel_.mu);
    std::swap(mount_ns_, ns);
  }
  ns->DropUser();
}

Task::WalkState Task::Walk() const { return {fs_->root(), fs_->cwd(), creds_, fs_->umask()}; }

Result<vfs::Path> Task::AtStart(const WalkState& walk, int dirfd, std::string_view name) const {
  if (name.starts_with('/') || dirfd == AT_FDCWD) return walk.cwd;
  FdTable::File file = TRY(fds_->Get(dirfd));
  return file->path();
}

Result<int> Task::InstallFd(FdTable::File file, bool cloexec, int from) {
  // proc(5), file-max. The one that would be too many is among them already.
  if (vfs::FileDescription::Count() > limits::System::Get().file_max.load(std::memory_order_relaxed) &&
      !creds_->HasCapability(CAP_SYS_ADMIN)) {
    return Err(ENFILE);
  }
  return fds_->Install(std::move(file), cloexec, GetLimit(RLIMIT_NOFILE).soft, from);
}

}  // namespace redoubt::kernel
