#include "pkg/sentry/syscalls/sigio.h"

#include <signal.h>
#include <sys/epoll.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "pkg/sentry/epoll/epoll.h"
#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/signal/signal.h"
#include "pkg/sentry/socket/socket.h"
#include "pkg/sentry/wait/wait.h"
#include "pkg/sync/mutex.h"

namespace redoubt::syscalls {
namespace {

// An epoll of our own watches every description of which somebody wants signals; an interest's data is the number of
// its owner in a table. (Linux keeps struct fown_struct in struct file.)
constexpr int kKey = 0;
constexpr uint32_t kChanges = EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET;
// Without O_ASYNC there is SIGURG still; hang-ups are reported all the same, once.
constexpr uint32_t kQuiet = EPOLLPRI | EPOLLET;

// The owner, and as whom it was set: kill(2)'s rules hold when the signal is sent.
struct Owner {
  int type = F_OWNER_PID;
  int id = 0;  // in the outermost PID namespace; 0: nobody
  uint32_t euid = 0;
  bool on = false;                             // O_ASYNC
  int signal = 0;                              // F_SETSIG
  int fd = -1;                                 // si_fd
  uint32_t marks = 0;                          // Socket::UrgentMarks that were told
  const vfs::FileDescription* file = nullptr;  // the interest's key, and no more
};

class Owners final {
 public:
  static Owners& Get() {
    static Owners* const owners = new Owners;
    return *owners;
  }
  uint64_t NewNumber() { return next_.fetch_add(1, std::memory_order_relaxed); }
  std::optional<Owner> Find(uint64_t number) {
    sync::MutexLock lock(mu_);
    auto it = owners_.find(number);
    return it != owners_.end() ? std::optional(it->second) : std::nullopt;
  }
  void Set(uint64_t number, const Owner& owner) {
    sync::MutexLock lock(mu_);
    owners_[number] = owner;
  }
  // Notes that so many marks have been told; false if they were before.
  bool NoteMarks(uint64_t number, uint32_t marks) {
    sync::MutexLock lock(mu_);
    auto it = owners_.find(number);
    return it != owners_.end() && std::exchange(it->second.marks, marks) != marks;
  }
  // Those of files that are watched no more go when there are twice as many as there were.
  void Sweep(const epoll::Epoll& watcher) {
    std::vector<std::pair<uint64_t, const vfs::FileDescription*>> all;
    {
      sync::MutexLock lock(mu_);
      if (owners_.size() < sweep_at_) return;
      for (const auto& [number, owner] : owners_) all.emplace_back(number, owner.file);
    }
    std::erase_if(all, [&](const auto& entry) {
      // Another file may be there by now, with a number of its own.
      RefPtr<vfs::FileDescription> file = watcher.Watched(kKey, entry.second);
      std::optional<epoll_event> event = file ? watcher.Find(kKey, *file) : std::nullopt;
      return event && event->data.u64 == entry.first;
    });
    sync::MutexLock lock(mu_);
    for (const auto& [number, file] : all) owners_.erase(number);
    sweep_at_ = std::max<size_t>(2 * owners_.size(), kLeast);
  }

 private:
  static constexpr size_t kLeast = 64;
  std::atomic<uint64_t> next_{1};
  sync::Mutex mu_{sync::Rank::kLeaf};
  std::unordered_map<uint64_t, Owner> owners_ GUARDED_BY(mu_);
  size_t sweep_at_ GUARDED_BY(mu_) = kLeast;
};

bool MaySignal(const Owner& owner, kernel::ThreadGroup& group) {
  if (owner.euid == 0) return true;
  RefPtr<kernel::Task> leader = group.kernel().FindTask(group.id);
  RefPtr<const auth::Credentials> creds = leader ? leader->GetCreds() : nullptr;
  return creds && (owner.euid == creds->ruid || owner.euid == creds->suid);
}

// To whom the owner names. Calls `send(task_or_group)` for each.
template <typename Send>
void ForEachTarget(kernel::Kernel& kernel, const Owner& owner, Send&& send) {
  if (owner.id == 0) return;
  if (owner.type == F_OWNER_TID) {
    RefPtr<kernel::Task> task = kernel.FindTask(owner.id);
    if (task && MaySignal(owner, task->group())) send(*task);
  } else if (owner.type == F_OWNER_PID) {
    RefPtr<kernel::ThreadGroup> group = kernel.FindGroup(owner.id);
    if (group && MaySignal(owner, *group)) send(*group);
  } else {
    for (const RefPtr<kernel::ThreadGroup>& group : kernel.Groups()) {
      bool member = false;
      {
        sync::MutexLock lock(kernel.mu);
        member = group->process_group && group->process_group->id == owner.id;
      }
      if (member && MaySignal(owner, *group)) send(*group);
    }
  }
}

Result<> Deliver(kernel::Kernel& kernel, kernel::Task& task, const siginfo_t& info) {
  return kernel.SendToTask(task, info);
}
Result<> Deliver(kernel::Kernel& kernel, kernel::ThreadGroup& group, const siginfo_t& info) {
  return kernel.SendToGroup(group, info);
}

// Signals whose si_code says something of their own (signal(7), sigaction(2)).
bool HasOwnCodes(int signal) {
  switch (signal) {
    case SIGILL:
    case SIGFPE:
    case SIGSEGV:
    case SIGBUS:
    case SIGTRAP:
    case SIGCHLD:
    case SIGSYS:
      return true;
    default:
      return false;
  }
}

// What F_SETSIG's signal says (sigaction(2), "SIGIO/SIGPOLL").
siginfo_t Describe(const Owner& owner, uint32_t events) {
  struct Reason {
    uint32_t event;
    int code;
    long band;
  };
  constexpr Reason kReasons[] = {{EPOLLPRI, POLL_PRI, EPOLLPRI | EPOLLRDBAND},
                                 {EPOLLERR, POLL_ERR, EPOLLERR},
                                 {EPOLLHUP, POLL_HUP, EPOLLHUP | EPOLLERR},
                                 {EPOLLIN | EPOLLRDHUP, POLL_IN, EPOLLIN | EPOLLRDNORM}};
  Reason reason{EPOLLOUT, POLL_OUT, EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND};
  for (const Reason& r : kReasons) {
    if ((events & r.event) != 0) {
      reason = r;
      break;
    }
  }
  siginfo_t info = MakeSigInfo(owner.signal, HasOwnCodes(owner.signal) ? SI_SIGIO : reason.code);
  info.si_band = reason.band;
  info.si_fd = owner.fd;
  return info;
}

void SendIo(kernel::Kernel& kernel, const Owner& owner, uint32_t events) {
  ForEachTarget(kernel, owner, [&](auto& target) {
    // fcntl(2): where the queue of real-time signals is full, SIGIO comes instead.
    if (owner.signal != 0 && Deliver(kernel, target, Describe(owner, events))) return;
    (void)Deliver(kernel, target, MakeSigInfo(SIGIO, SI_KERNEL));
  });
}

void Send(kernel::Kernel& kernel, const epoll::Epoll& watcher, const epoll_event& event) {
  const std::optional<Owner> owner = Owners::Get().Find(event.data.u64);
  if (!owner) return;
  uint32_t events = event.events;
  if ((events & EPOLLPRI) != 0) {
    RefPtr<socket::Socket> s = RefCast<socket::Socket>(watcher.Watched(kKey, owner->file));
    if (s && Owners::Get().NoteMarks(event.data.u64, s->UrgentMarks())) {
      ForEachTarget(kernel, *owner,
                    [&](auto& target) { (void)Deliver(kernel, target, MakeSigInfo(SIGURG, SI_KERNEL)); });
    } else if (s) {
      events &= ~uint32_t{EPOLLPRI};  // told before, and not read yet
    }
  }
  if (owner->on && events != 0) SendIo(kernel, *owner, events);
}

// What has changed, to the owners but `except`.
void SendAll(kernel::Kernel& kernel, epoll::Epoll& watcher, uint64_t except) {
  epoll_event events[16];
  while (size_t n = watcher.Take(events)) {
    for (const epoll_event& e : std::span(events, n)) {
      if (e.data.u64 != except) Send(kernel, watcher, e);
    }
    if (n < 16) break;
  }
}

// One for the process, never destroyed; with a fiber that sends what it finds.
epoll::Epoll& Watcher(kernel::Kernel& kernel) {
  static epoll::Epoll* const watcher = [&kernel] {
    epoll::Epoll* made = MakeRef<epoll::Epoll>(0).Release();
    kernel.executor().Spawn([&kernel, e = made] {
      while (true) {
        (void)wait::Retry(*e, waiter::kIn, fiber::kForever, [&]() -> Result<> {
          if (e->Readiness(waiter::kIn) == 0) return Err(EAGAIN);
          return {};
        });
        SendAll(kernel, *e, ~uint64_t{0});
      }
    });
    return made;
  }();
  return *watcher;
}

std::optional<Owner> Find(kernel::Kernel& kernel, const vfs::FileDescription& file) {
  std::optional<epoll_event> event = Watcher(kernel).Find(kKey, file);
  return event ? Owners::Get().Find(event->data.u64) : std::nullopt;
}

// Changes what there is, or begins. EINVAL: the file cannot be waited for.
template <typename Edit>
Result<> Change(kernel::Task& task, int fd, vfs::FileDescription& file, Edit&& edit) {
  if (!file.SupportsEpoll()) return Err(EINVAL);
  epoll::Epoll& watcher = Watcher(task.kernel());
  Owners& owners = Owners::Get();
  Owner owner{.on = (file.flags() & O_ASYNC) != 0, .fd = fd, .file = &file};
  if (auto* s = dynamic_cast<socket::Socket*>(&file)) owner.marks = s->UrgentMarks();
  std::optional<epoll_event> event = watcher.Find(kKey, file);
  const uint64_t number = event ? event->data.u64 : owners.NewNumber();
  if (event) owner = owners.Find(number).value_or(owner);
  edit(owner);
  const epoll_event wanted{.events = owner.on ? kChanges : kQuiet, .data = {.u64 = number}};
  Result<> changed =
      event ? watcher.Modify(kKey, file, wanted) : watcher.Add(kKey, RefPtr<vfs::FileDescription>(&file), wanted);
  // Two at once: the other one's stays.
  if (!changed) return changed;
  owners.Set(number, owner);
  owners.Sweep(watcher);
  // What holds already is no change.
  SendAll(task.kernel(), watcher, number);
  return {};
}

}  // namespace

Result<> SetSigioOwner(kernel::Task& task, int fd, vfs::FileDescription& file, const f_owner_ex& owner) {
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
  const uint32_t euid = task.creds().euid;
  return Change(task, fd, file, [&](Owner& o) {
    o.type = owner.type;
    o.id = id;
    o.euid = euid;
  });
}

f_owner_ex GetSigioOwner(kernel::Task& task, const vfs::FileDescription& file) {
  std::optional<Owner> owner = Find(task.kernel(), file);
  if (!owner) return {.type = F_OWNER_PID, .pid = 0};
  return {.type = static_cast<__pid_type>(owner->type), .pid = owner->id == 0 ? 0 : task.pid_ns().FromRoot(owner->id)};
}

Result<> SetSigioSignal(kernel::Task& task, int fd, vfs::FileDescription& file, uint64_t signal) {
  if (signal > kMaxSignal) return Err(EINVAL);
  return Change(task, fd, file, [&](Owner& o) { o.signal = static_cast<int>(signal); });
}

int GetSigioSignal(kernel::Task& task, const vfs::FileDescription& file) {
  std::optional<Owner> owner = Find(task.kernel(), file);
  return owner ? owner->signal : 0;
}

Result<> SetSigio(kernel::Task& task, int fd, vfs::FileDescription& file, bool on) {
  if (!Find(task.kernel(), file)) return {};  // nobody to send it to yet
  return Change(task, fd, file, [&](Owner& o) {
    o.on = on;
    if (on) o.fd = fd;
  });
}

}  // namespace redoubt::syscalls
