#include "pkg/sentry/syscalls/sigio.h"

#include <signal.h>
#include <sys/epoll.h>

#include <optional>
#include <span>

#include "pkg/sentry/epoll/epoll.h"
#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/signal/signal.h"
#include "pkg/sentry/wait/wait.h"

namespace redoubt::syscalls {
namespace {

// An epoll of our own watches every description that has an owner; the owner is the interest's data, and so goes with
// the description. (Linux keeps struct fown_struct in struct file.)
constexpr int kKey = 0;
constexpr uint32_t kChanges = EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET;
constexpr uint32_t kQuiet = EPOLLET;  // hang-ups are reported all the same, once

// The owner, and as whom it was set: kill(2)'s rules hold when the signal is sent.
struct Owner {
  int type = F_OWNER_PID;
  int id = 0;  // in the outermost PID namespace; below 2^22, as all are
  uint32_t euid = 0;
  bool on = false;  // O_ASYNC

  epoll_event Event() const {
    return {.events = on ? kChanges : kQuiet,
            .data = {.u64 = static_cast<uint64_t>(type) << 62 | uint64_t{on} << 61 | static_cast<uint64_t>(id) << 32 |
                            euid}};
  }
  static Owner Of(const epoll_event& event) {
    const uint64_t data = event.data.u64;
    return {.type = static_cast<int>(data >> 62),
            .id = static_cast<int>(data >> 32 & 0x1fffffff),
            .euid = static_cast<uint32_t>(data),
            .on = (data >> 61 & 1) != 0};
  }
};

bool MaySignal(const Owner& owner, kernel::ThreadGroup& group) {
  if (owner.euid == 0) return true;
  RefPtr<kernel::Task> leader = group.kernel().FindTask(group.id);
  RefPtr<const auth::Credentials> creds = leader ? leader->GetCreds() : nullptr;
  return creds && (owner.euid == creds->ruid || owner.euid == creds->suid);
}

void Send(kernel::Kernel& kernel, const Owner& owner) {
  const siginfo_t info = MakeSigInfo(SIGIO, SI_KERNEL);
  if (owner.id == 0 || !owner.on) return;
  if (owner.type == F_OWNER_TID) {
    RefPtr<kernel::Task> task = kernel.FindTask(owner.id);
    if (task && MaySignal(owner, task->group())) (void)kernel.SendToTask(*task, info);
  } else if (owner.type == F_OWNER_PID) {
    RefPtr<kernel::ThreadGroup> group = kernel.FindGroup(owner.id);
    if (group && MaySignal(owner, *group)) (void)kernel.SendToGroup(*group, info);
  } else {
    for (const RefPtr<kernel::ThreadGroup>& group : kernel.Groups()) {
      bool member = false;
      {
        sync::MutexLock lock(kernel.mu);
        member = group->process_group && group->process_group->id == owner.id;
      }
      if (member && MaySignal(owner, *group)) (void)kernel.SendToGroup(*group, info);
    }
  }
}

// What has changed, to the owners but `except`.
void SendAll(kernel::Kernel& kernel, epoll::Epoll& epoll, uint64_t except) {
  epoll_event events[16];
  while (size_t n = epoll.Take(events)) {
    for (const epoll_event& e : std::span(events, n)) {
      if (e.data.u64 != except) Send(kernel, Owner::Of(e));
    }
    if (n < 16) break;
  }
}

// One for the process, never destroyed; with a fiber that sends what it finds.
epoll::Epoll& Watcher(kernel::Kernel& kernel) {
  static epoll::Epoll* watcher = [&kernel] {
    auto* made = new RefPtr<epoll::Epoll>(MakeRef<epoll::Epoll>(0));
    kernel.executor().Spawn([&kernel, e = made->get()] {
      while (true) {
        (void)wait::Retry(*e, waiter::kIn, fiber::kForever, [&]() -> Result<> {
          if (e->Readiness(waiter::kIn) == 0) return Err(EAGAIN);
          return {};
        });
        SendAll(kernel, *e, ~uint64_t{0});
      }
    });
    return made->get();
  }();
  return *watcher;
}

}  // namespace

Result<> SetSigioOwner(kernel::Task& task, vfs::FileDescription& file, const f_owner_ex& owner) {
  if (owner.type != F_OWNER_TID && owner.type != F_OWNER_PID && owner.type != F_OWNER_PGRP) return Err(EINVAL);
  if (owner.pid < 0) return Err(EINVAL);
  kernel::Kernel& kernel = task.kernel();
  const int id = task.pid_ns().ToRoot(owner.pid);
  if (owner.pid != 0) {
    bool there = false;
    if (owner.type == F_OWNER_TID) there = kernel.FindTask(id) != nullptr;
    if (owner.type == F_OWNER_PID) there = kernel.FindGroup(id) != nullptr;
    if (owner.type == F_OWNER_PGRP) {
      sync::MutexLock lock(kernel.mu);
      there = kernel.FindProcessGroupLocked(id) != nullptr;
    }
    if (!there) return Err(ESRCH);
  }
  if (!file.SupportsEpoll()) return Err(EINVAL);
  const epoll_event event =
      Owner{.type = owner.type, .id = id, .euid = task.creds().euid, .on = (file.flags() & O_ASYNC) != 0}.Event();
  epoll::Epoll& watcher = Watcher(kernel);
  Result<> changed = watcher.Modify(kKey, file, event);
  if (!changed) changed = watcher.Add(kKey, RefPtr<vfs::FileDescription>(&file), event);
  // What holds already is no change.
  SendAll(kernel, watcher, event.data.u64);
  return changed;
}

f_owner_ex GetSigioOwner(kernel::Task& task, const vfs::FileDescription& file) {
  std::optional<epoll_event> event = Watcher(task.kernel()).Find(kKey, file);
  if (!event) return {.type = F_OWNER_PID, .pid = 0};
  const Owner owner = Owner::Of(*event);
  return {.type = static_cast<__pid_type>(owner.type), .pid = task.pid_ns().FromRoot(owner.id)};
}

Result<> SetSigio(kernel::Task& task, vfs::FileDescription& file, bool on) {
  epoll::Epoll& watcher = Watcher(task.kernel());
  std::optional<epoll_event> event = watcher.Find(kKey, file);
  if (!event) return {};  // nobody to send it to yet
  Owner owner = Owner::Of(*event);
  owner.on = on;
  TRY(watcher.Modify(kKey, file, owner.Event()));
  SendAll(task.kernel(), watcher, owner.Event().data.u64);
  return {};
}

}  // namespace redoubt::syscalls
