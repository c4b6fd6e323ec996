#include "runsc/boot/service.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <optional>

#include "pkg/log/log.h"
#include "runsc/boot/inspect.h"
#include "runsc/specutils/codec.h"

namespace redoubt::boot {
namespace {

using control::Method;
using control::Reply;
using control::Request;

constexpr fiber::Time kStep = 100'000;            // between looks at what nobody tells of
constexpr fiber::Time kPatience = 1'000'000'000;  // with others' last answers when the sandbox ends

Reply ToReply(const Failure& failure) { return {.error = failure.text, .code = failure.code}; }

Reply ToReply(const OrFailure<void>& outcome) { return outcome ? Reply{} : ToReply(outcome.error()); }

// What comes by a process's own connection. A PID of 0 is that process.
Peer::OnSignal SignalsFor(RefPtr<Container> container, RefPtr<Process> process) {
  return [container, process](const Request& request) {
    const int pid = request.pid == 0 ? process->pid() : request.pid;
    if (OrFailure<void> r = container->Signal(pid, request.signal, request.all, request.keyboard); !r) {
      LOG_DEBUG("container {}: signal {} to {}: {}", container->id(), request.signal, pid, r.error().text);
    }
  };
}

// Whoever stood for the process outside has gone.
Peer::Gone KillerOf(RefPtr<Process> process) {
  return [process] { process->Signal(SIGKILL, false); };
}

}  // namespace

void Service::Handle(RefPtr<Peer> peer, Request request, Fds fds) {
  bool has_first = false;
  {
    sync::MutexLock lock(mu_);
    has_first = first_ != nullptr;
  }
  if (!has_first) {
    if (peer == first_peer_) {
      CreateFirst(peer, request, std::move(fds));
    } else {
      peer->Reply({.error = "the sandbox has no container yet"});
    }
    return;
  }
  if (request.method == Method::kCreate) {
    CreateOther(peer, request, std::move(fds));
    return;
  }
  RefPtr<Container> container = Find(request.container);
  if (!container) {
    peer->Reply({.error = "container does not exist"});
    return;
  }
  switch (request.method) {
    case Method::kExec:
      Exec(peer, *container, request, std::move(fds));
      break;
    case Method::kWait:
      Wait(peer, std::move(container), request);
      break;
    default:
      peer->Reply(Answer(*container, request, std::move(fds)));
  }
}

Reply Service::Answer(Container& container, const Request& request, Fds fds) {
  switch (request.method) {
    case Method::kStart:
      return ToReply(Start(container, request, std::move(fds)));
    case Method::kSignal:
      return ToReply(container.Signal(request.pid, request.signal, request.all, request.keyboard));
    case Method::kProcesses:
      return {.body = control::Serialize(Processes(kernel_, container.members()))};
    case Method::kPause:
      return ToReply(container.Pause());
    case Method::kResume:
      return ToReply(container.Resume());
    case Method::kStats:
      return {.body = control::Serialize(Stats(kernel_, container.members(), options_.memory))};
    case Method::kStacks:
      return {.body = Stacks(kernel_, container.members())};
    case Method::kMetrics:
      return {.body = control::Serialize(Metrics(kernel_, container.members(), options_.memory))};
    case Method::kDelete:
      return ToReply(Delete(container));
    default:
      return {.error = fmt::format("internal error: there is no request {}", static_cast<int>(request.method))};
  }
}

OrFailure<RefPtr<Container>> Service::Create(const Request& request, Fds fds, bool first) {
  specutils::Expected<specutils::Spec> spec = specutils::ParseSpec(request.body);
  if (!spec) return Fail(spec.error());
  const std::string& name = request.container;
  if (name.empty() || name.size() > kMaxName) return Fail("internal error: the container's name is empty or too long");
  {
    sync::MutexLock lock(mu_);
    if (containers_.contains(name)) return Fail("container with that name exists already");
    if (containers_.size() >= kMaxContainers) {
      return Fail(fmt::format("the sandbox has {} containers already", kMaxContainers));
    }
    containers_[name] = nullptr;
  }
  auto make = [&]() -> OrFailure<Container::Made> {
    if (first) {
      if (!spec->hostname.empty()) kernel_.SetHostname(spec->hostname);
      if (!spec->domainname.empty()) kernel_.SetDomainname(spec->domainname);
    } else if (!spec->hostname.empty() && spec->hostname != kernel_.hostname()) {
      LOG_WARNING("container {}: its hostname {} is not used: all containers of a sandbox share one", name,
                  spec->hostname);
    }
    if (request.start && first) {
      // There will be no kStart.
      fiber::MutexLock lock(start_mu_);
      configured_ = true;
    }
    OrFailure<RefPtr<kernel::PidNamespace>> pid_ns = PidNamespaceFor(spec->pid_namespace);
    if (!pid_ns) return std::unexpected(pid_ns.error());
    return Container::Create(kernel_, name, *pid_ns, *spec, std::move(fds), request.preserved, request.start);
  };
  OrFailure<Container::Made> made = make();
  sync::MutexLock lock(mu_);
  if (!made) {
    containers_.erase(name);
    return std::unexpected(made.error());
  }
  containers_[name] = made->container;
  if (first) first_ = made->container;
  return made->container;
}

OrFailure<RefPtr<kernel::PidNamespace>> Service::PidNamespaceFor(const specutils::PidNamespace& wanted) {
  using Kind = specutils::PidNamespace::Kind;
  switch (wanted.kind) {
    case Kind::kOwn:
      return MakeRef<kernel::PidNamespace>(RefPtr<kernel::PidNamespace>(&kernel_.root_pid_ns()));
    case Kind::kContainer: {
      RefPtr<Container> of = Find(wanted.container);
      if (!of) return Fail(fmt::format("linux.namespaces: pid: container \"{}\" does not exist", wanted.container));
      return of->members().pid_ns;
    }
    default:
      return RefPtr<kernel::PidNamespace>();
  }
}

void Service::CreateFirst(const RefPtr<Peer>& peer, const Request& request, Fds fds) {
  OrFailure<RefPtr<Container>> container = request.method == Method::kCreate
                                               ? Create(request, std::move(fds), true)
                                               : Fail("internal error: the first request is not for a container");
  if (!container) {
    peer->Reply(ToReply(container.error()));
    _exit(sandbox::kSetupFailed);
  }
  const RefPtr<Process>& init = (*container)->init();
  EndIsToCome();
  if (request.attach) peer->Attach(SignalsFor(*container, init), KillerOf(init));
  peer->Reply({.pid = init->pid()});
  int status = (*container)->AwaitEnd();
  EndHasBeenTold();
  EndSandbox(peer, request.attach, status);
}

void Service::CreateOther(const RefPtr<Peer>& peer, const Request& request, Fds fds) {
  OrFailure<RefPtr<Container>> container = Create(request, std::move(fds), false);
  if (!container) {
    peer->Reply(ToReply(container.error()));
    return;
  }
  const RefPtr<Process>& init = (*container)->init();
  EndIsToCome();
  if (request.attach) peer->Attach(SignalsFor(*container, init), KillerOf(init));
  peer->Reply({.pid = init->pid()});
  int status = (*container)->AwaitEnd();
  if (request.attach) peer->Finish({.status = status});
  EndHasBeenTold();
}

void Service::Exec(const RefPtr<Peer>& peer, Container& container, const Request& request, Fds fds) {
  specutils::Expected<specutils::Process> process = specutils::ParseProcess(request.body);
  OrFailure<RefPtr<Process>> made =
      process ? container.Exec(*process, std::move(fds), request.preserved, request.ignore_paused)
              : Fail(process.error());
  if (!made) {
    peer->Reply(ToReply(made.error()));
    return;
  }
  EndIsToCome();
  if (request.attach) peer->Attach(SignalsFor(RefPtr<Container>(&container), *made), KillerOf(*made));
  peer->Reply({.pid = (*made)->pid()});
  int status = container.AwaitExec(**made);
  if (request.attach) peer->Finish({.status = status});
  EndHasBeenTold();
}

void Service::Wait(const RefPtr<Peer>& peer, RefPtr<Container> container, const Request& request) {
  RefPtr<Process> process = container->Find(request.pid);
  const void* key = peer.get();
  if (process && process->AddWaiter(key, [peer](int status) { peer->Reply({.status = status}); })) {
    // A peer that goes first is forgotten.
    peer->AnswersLater([process, key] { process->RemoveWaiter(key); });
    return;
  }
  // Between its end and its being remembered: the end is near.
  while (process && container->Find(request.pid) == process) fiber::Park(fiber::Now() + kStep);
  if (std::optional<int> status = container->EndedStatus(request.pid)) {
    peer->Reply({.status = *status});
  } else {
    peer->Reply({.error = "no such process"});
  }
}

OrFailure<void> Service::Start(Container& container, const Request& request, Fds fds) {
  if (IsFirst(container)) {
    fiber::MutexLock lock(start_mu_);
    if (!configured_ && hooks_.configure) {
      if (OrFailure<void> r = hooks_.configure(request.body, std::move(fds)); !r) return r;
    }
    configured_ = true;
  }
  return container.Start();
}

OrFailure<void> Service::Delete(Container& container) {
  if (IsFirst(container)) return Fail("the sandbox's first container ends with the sandbox");
  kernel_.KillAll(&container.members());
  while (!container.HasEnded()) fiber::Park(fiber::Now() + kStep);
  sync::MutexLock lock(mu_);
  auto it = containers_.find(container.id());
  // Another request may have been quicker, and a new one of that name be there.
  if (it != containers_.end() && it->second.get() == &container) containers_.erase(it);
  return {};
}

RefPtr<Container> Service::Find(const std::string& name) {
  sync::MutexLock lock(mu_);
  auto it = containers_.find(name);
  return it != containers_.end() ? it->second : nullptr;
}

bool Service::IsFirst(const Container& container) {
  sync::MutexLock lock(mu_);
  return first_.get() == &container;
}

void Service::EndIsToCome() {
  sync::MutexLock lock(mu_);
  ends_to_come_++;
}

void Service::EndHasBeenTold() {
  sync::MutexLock lock(mu_);
  ends_to_come_--;
}

void Service::EndSandbox(const RefPtr<Peer>& peer, bool attached, int status) {
  kernel_.KillAll();
  const fiber::Time deadline = fiber::Now() + kPatience;
  auto told = [this] {
    sync::MutexLock lock(mu_);
    return ends_to_come_ == 0;
  };
  while (!told() && fiber::Now() < deadline) fiber::Park(fiber::Now() + kStep);
  RefPtr<Container> first;
  {
    sync::MutexLock lock(mu_);
    first = first_;
  }
  std::string words = hooks_.last_words ? hooks_.last_words(first->members()) : std::string();
  if (attached) {
    peer->Finish({.status = status, .body = std::move(words)});
  } else if (!words.empty()) {
    LOG_INFO("{}", words);
  }
  // Without destructors: guest processes are gone, and what is left goes with this one.
  fflush(stderr);
  _exit(0);
}

}  // namespace redoubt::boot
