#include "runsc/boot/container.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "pkg/sentry/fsimpl/dev/dev.h"
#include "pkg/sentry/fsimpl/host/host.h"
#include "pkg/sentry/signal/signal.h"
#include "runsc/boot/mounts.h"
#include "runsc/boot/paths.h"
#include "runsc/boot/program.h"
#include "runsc/boot/stdio.h"

namespace redoubt::boot {
namespace {

constexpr uint64_t kStdio = 3;

std::unexpected<Failure> NotRunning() { return Fail("container not running"); }

std::unexpected<Failure> Miscounted(size_t came, uint64_t expected) {
  return Fail(fmt::format("internal error: {} descriptors came with the request, not {}", came, expected));
}

// The first process's terminal is the container's console, and has its name: ttyname(3) finds no other. Without a
// /dev/console it has none.
void UseAsConsole(vfs::MountNamespace& mounts, const ImportedDescriptors& imported) {
  dev::SetConsole(imported.terminal);
  RefPtr<auth::Credentials> root = auth::Credentials::Root();
  vfs::Path start = mounts.root();
  Result<RefPtr<vfs::FileDescription>> console =
      vfs::Open({*root, start}, {.start = start, .name = "/dev/console"}, {.flags = O_RDWR | O_NOCTTY});
  if (!console) return;
  for (int fd : {0, 1, 2}) {
    Result<FdTable::File> file = imported.table->Get(fd);
    if (file && host::TerminalOf(**file) == imported.terminal) (void)imported.table->InstallAt(fd, *console, false, 3);
  }
}

std::vector<auth::IdExtent> ExtentsOf(const std::vector<specutils::IdMapping>& mappings) {
  std::vector<auth::IdExtent> extents;
  for (const specutils::IdMapping& m : mappings) extents.push_back({m.inside, m.outside, m.size});
  return extents;
}

// A user of a namespace, for as long as it looks around there.
class NamespaceUser final {
 public:
  explicit NamespaceUser(RefPtr<vfs::MountNamespace> mounts) : mounts_(std::move(mounts)) {}
  ~NamespaceUser() { mounts_->DropUser(); }
  NamespaceUser(const NamespaceUser&) = delete;
  NamespaceUser& operator=(const NamespaceUser&) = delete;

 private:
  const RefPtr<vfs::MountNamespace> mounts_;
};

}  // namespace

OrFailure<Container::Made> Container::Create(kernel::Kernel& kernel, const std::string& id,
                                             RefPtr<kernel::PidNamespace> pid_ns, const specutils::Spec& spec,
                                             std::vector<UniqueFd> fds, uint32_t preserved, bool start) {
  uint64_t trees = 1;
  for (const specutils::Mount& m : spec.mounts) trees += m.is_bind() ? 1 : 0;
  const uint64_t expected = kStdio + preserved + trees + (spec.root_overlay_on_disk ? 1 : 0);
  if (fds.size() != expected) return Miscounted(fds.size(), expected);
  UniqueFd disk;
  if (spec.root_overlay_on_disk) {
    disk = std::move(fds.back());
    fds.pop_back();
  }
  std::vector<UniqueFd> gofers(std::make_move_iterator(fds.end() - static_cast<ptrdiff_t>(trees)),
                               std::make_move_iterator(fds.end()));
  fds.resize(fds.size() - trees);

  RefPtr<const auth::UserNamespace> user_ns;
  if (!spec.id_mappings.empty()) {
    user_ns = MakeRef<auth::UserNamespace>(ExtentsOf(spec.id_mappings.uids), ExtentsOf(spec.id_mappings.gids));
  }
  RefPtr<Container> container(
      new Container(kernel, MakeRef<kernel::Container>(id, std::move(pid_ns), std::move(user_ns))));
  if (!spec.seccomp_program.code.empty()) {
    Result<RefPtr<SeccompFilter>> filter = SeccompFilter::Create(spec.seccomp_program.code, spec.seccomp_program.log);
    if (!filter) return Fail(fmt::format("linux.seccomp: the filter is not valid: {}", filter.error().name()));
    container->seccomp_ = std::move(*filter);
  }
  specutils::Expected<RefPtr<vfs::MountNamespace>> mounts =
      MakeMounts(kernel, container->members_, spec, std::move(gofers), std::move(disk));
  if (!mounts) return Fail(mounts.error());
  container->mounts_ = *mounts;
  auto abandon = [&](Failure failure) {
    container->mounts_->DropUser();
    return std::unexpected(std::move(failure));
  };
  if (OrFailure<void> r = SetSysctls(**mounts, spec); !r) return abandon(r.error());
  if (OrFailure<void> r = ProtectPaths(kernel, **mounts, spec); !r) return abandon(r.error());
  OrFailure<RefPtr<Process>> init = container->StartProcess(spec.process, std::move(fds), !start);
  if (!init) return abandon(init.error());
  container->init_ = *init;
  {
    sync::MutexLock lock(container->mu_);
    container->started_ = start;
  }
  return Made{.container = container, .init = *init};
}

OrFailure<RefPtr<Process>> Container::StartProcess(const specutils::Process& process, std::vector<UniqueFd> fds,
                                                   bool held) {
  OrFailure<kernel::Kernel::ProcessArgs> args = PrepareProcess(process, mounts_, *members_);
  if (!args) return std::unexpected(args.error());
  OrFailure<ImportedDescriptors> imported = ImportDescriptors(std::move(fds), process.uid, process.gid);
  if (!imported) return std::unexpected(imported.error());
  if (imported->terminal && !init_) UseAsConsole(*mounts_, *imported);
  args->fds = imported->table;
  args->controlling_tty = imported->terminal;
  args->container = members_;
  args->seccomp = seccomp_;
  // Held in any case until the terminal is its own: a program that reads at once must not find itself in the
  // background.
  args->held = held || imported->terminal;
  Result<RefPtr<kernel::ThreadGroup>> group = kernel_.CreateProcess(*args);
  if (!group && group.error() == Errno(ESRCH)) return NotRunning();
  if (!group) return std::unexpected(CannotStart(process, group.error()));
  if (imported->terminal) {
    imported->terminal->SetForeground((*group)->id, (*group)->id);
    if (!held) kernel_.Release(**group);
  }
  RefPtr<Process> made = MakeRef<Process>(*group, imported->terminal);
  sync::MutexLock lock(mu_);
  processes_[made->pid()] = made;
  return made;
}

OrFailure<void> Container::Start() {
  {
    sync::MutexLock lock(mu_);
    if (ended_) return NotRunning();
    if (started_) return Fail("container has been started already");
    started_ = true;
  }
  kernel_.Release(init_->group());
  return {};
}

OrFailure<RefPtr<Process>> Container::Exec(const specutils::Process& process, std::vector<UniqueFd> fds,
                                           uint32_t preserved, bool ignore_paused) {
  const uint64_t expected = kStdio + preserved;
  if (fds.size() != expected) return Miscounted(fds.size(), expected);
  {
    sync::MutexLock lock(mu_);
    if (ended_) return NotRunning();
    mounts_->AddUser();
  }
  NamespaceUser user(mounts_);
  if (!ignore_paused) {
    sync::MutexLock lock(kernel_.mu);
    if (members_->frozen) return Fail("container is paused");
  }
  return StartProcess(process, std::move(fds), false);
}

int Container::AwaitEnd() {
  int status = init_->AwaitEnd();
  kernel_.KillAll(members_.get());
  {
    sync::MutexLock lock(mu_);
    ended_ = true;
    Remember(init_->pid(), status);
  }
  mounts_->DropUser();
  return status;
}

int Container::AwaitExec(Process& process) {
  int status = process.AwaitEnd();
  sync::MutexLock lock(mu_);
  Remember(process.pid(), status);
  return status;
}

void Container::Remember(int pid, int status) {
  processes_.erase(pid);
  statuses_.emplace_back(pid, status);
  if (statuses_.size() > kRemembered) statuses_.pop_front();
}

bool Container::HasEnded() {
  sync::MutexLock lock(mu_);
  return ended_;
}

RefPtr<Process> Container::Find(int pid) {
  sync::MutexLock lock(mu_);
  auto it = processes_.find(pid == 0 ? init_->pid() : pid);
  return it != processes_.end() ? it->second : nullptr;
}

std::optional<int> Container::EndedStatus(int pid) {
  if (pid == 0) pid = init_->pid();
  sync::MutexLock lock(mu_);
  for (auto it = statuses_.rbegin(); it != statuses_.rend(); ++it) {
    if (it->first == pid) return it->second;
  }
  return std::nullopt;
}

OrFailure<void> Container::Signal(int pid, int sig, bool all, bool keyboard) {
  if (sig < 0 || sig > kMaxSignal) return Fail(fmt::format("there is no signal {}", sig));
  if (HasEnded()) return all ? NotRunning() : Fail("process already finished");
  const siginfo_t info = MakeKillInfo(sig, SI_USER, 0, 0);
  if (all) {
    if (sig != 0) kernel_.SignalAll(*members_, info);
    return {};
  }
  if (RefPtr<Process> process = Find(pid)) {
    if (process->HasEnded()) return Fail("process already finished");
    if (sig != 0) process->Signal(sig, keyboard);
    return {};
  }
  if (EndedStatus(pid)) return Fail("process already finished");
  RefPtr<kernel::ThreadGroup> group = kernel_.FindGroup(pid_ns().ToRoot(pid));
  if (!group || group->container.get() != members_.get()) return Fail("no such process");
  if (sig != 0) (void)kernel_.SendToGroup(*group, info);
  return {};
}

OrFailure<void> Container::Pause() {
  if (HasEnded()) return NotRunning();
  if (Result<> r = kernel_.Freeze(*members_); !r) {
    return Fail("cannot pause: a process is busy in a system call that does not come to an end; see the debug log");
  }
  return {};
}

OrFailure<void> Container::Resume() {
  if (HasEnded()) return NotRunning();
  kernel_.Thaw(*members_);
  return {};
}

}  // namespace redoubt::boot
