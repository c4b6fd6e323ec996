// create, start, run.
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>

#include "runsc/console/console.h"
#include "runsc/console/progress.h"
#include "runsc/container/hooks.h"
#include "runsc/container/internal.h"
#include "runsc/container/tree.h"
#include "runsc/container/user_namespace.h"
#include "runsc/sandbox/network.h"
#include "runsc/specutils/network.h"
#include "runsc/specutils/seccomp.h"

namespace redoubt::container {
namespace {

std::string Now() {
  timespec t{};
  clock_gettime(CLOCK_REALTIME, &t);
  tm utc{};
  gmtime_r(&t.tv_sec, &utc);
  char text[32];
  strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc);
  return fmt::format("{}.{:09}Z", text, t.tv_nsec);
}

Expected<UniqueFd> Listen(const std::string& path) {
  std::string directory = path.substr(0, path.rfind('/'));
  UniqueFd fd(open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::string name = fmt::format("/proc/self/fd/{}{}", fd.get(), path.substr(directory.size()));
  std::memcpy(address.sun_path, name.c_str(), name.size() + 1);
  if (!fd || !socket || bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 ||
      listen(socket.get(), 128) != 0) {
    return std::unexpected(fmt::format("{}: {}", path, std::strerror(errno)));
  }
  return socket;
}

// What the gofer could only say when it is too late to say it well.
Expected<void> CheckPaths(const specutils::Spec& spec, const std::string& bundle) {
  struct stat st{};
  std::string file = bundle + "/config.json";
  if (stat(spec.root_path.c_str(), &st) != 0) {
    return std::unexpected(fmt::format("{}: root.path: {}: {}", file, spec.root_path, std::strerror(errno)));
  }
  if (!S_ISDIR(st.st_mode))
    return std::unexpected(fmt::format("{}: root.path: {}: not a directory", file, spec.root_path));
  for (size_t i = 0; i < spec.mounts.size(); i++) {
    const specutils::Mount& m = spec.mounts[i];
    if (m.is_bind() && stat(m.source.c_str(), &st) != 0) {
      return std::unexpected(fmt::format("{}: mounts[{}].source: {}: {}", file, i, m.source, std::strerror(errno)));
    }
  }
  return {};
}

// The engine's word for "this one belongs into that sandbox": containerd's and CRI-O's annotations, and for podman's
// pods and --network=container:NAME the network namespace, since a sandbox has one network.
std::string SandboxOf(const Store& store, const specutils::Spec& spec, const std::string& id) {
  auto find = [&](const char* key) {
    auto it = spec.annotations.find(key);
    return it != spec.annotations.end() ? it->second : std::string();
  };
  if (find("io.kubernetes.cri.container-type") == "container") return find("io.kubernetes.cri.sandbox-id");
  if (find("io.kubernetes.cri-o.ContainerType") == "container") {
    // podman names the pod where that has no infrastructure container.
    std::string sandbox = find("io.kubernetes.cri-o.SandboxID");
    if (store.Exists(sandbox) || find("io.container.manager") != "libpod") return sandbox;
  }
  if (const specutils::Namespace* network = spec.FindNamespace("network"); network != nullptr) {
    if (std::optional<State> other = ContainerNamedBy(store, network->path, "net")) return other->sandbox;
  }
  return id;
}

// See ContainerNamedBy.
Expected<specutils::PidNamespace> FindPidNamespace(const Store& store, const State& state,
                                                   const specutils::Spec& spec) {
  using Kind = specutils::PidNamespace::Kind;
  const specutils::Namespace* ns = spec.FindNamespace("pid");
  if (ns == nullptr) return specutils::PidNamespace{};
  if (ns->path.empty()) return specutils::PidNamespace{.kind = Kind::kOwn, .container = {}};
  if (std::optional<State> other = ContainerNamedBy(store, ns->path, "pid")) {
    if (other->sandbox == state.sandbox) {
      return specutils::PidNamespace{.kind = Kind::kContainer, .container = other->id};
    }
    return std::unexpected(fmt::format(
        "linux.namespaces: pid: {} is of container \"{}\", which is in another sandbox: containers can share "
        "PIDs only within one, and are in one if they share a network namespace",
        ns->path, other->id));
  }
  // A process that has ended and was not yet waited for still has a namespace to show.
  if (const pid_t pid = ProcessNamedBy(ns->path, "pid"); pid != 0 && !HostProcess::Of(pid).Alive()) {
    return std::unexpected(fmt::format("linux.namespaces: pid: {}: the process has ended", ns->path));
  }
  struct stat asked{}, own{};
  if (stat(ns->path.c_str(), &asked) != 0) {
    return std::unexpected(fmt::format("linux.namespaces: pid: {}: {}", ns->path, std::strerror(errno)));
  }
  // As if none were named.
  if (stat("/proc/self/ns/pid", &own) == 0 && asked.st_dev == own.st_dev && asked.st_ino == own.st_ino) {
    return specutils::PidNamespace{};
  }
  return std::unexpected(fmt::format(
      "linux.namespaces: pid: {} is of no container of this sandbox, and others cannot be joined", ns->path));
}

// Everything that a container on its way up has made so far; undone unless kept.
struct Construction {
  const Settings& settings;
  Entry entry;
  pid_t relay = -1;
  bool kept = false;
  explicit Construction(const Settings& s, Entry e) : settings(s), entry(std::move(e)) {}
  Construction(const Construction&) = delete;
  Construction& operator=(const Construction&) = delete;
  ~Construction() {
    if (kept) return;
    if (relay > 0) {
      kill(relay, SIGKILL);
      while (waitpid(relay, nullptr, 0) < 0 && errno == EINTR) {
      }
    }
    (void)Destroy(settings, entry);
  }
};

struct RelayPlan {
  const Settings& settings;
  const specutils::Spec& spec;
  const CreateArgs& args;
  bool foreground;
  bool enters_network;
  int terminal;  // -1: this process's own descriptors
  int listen_fd;
  int sentry_fd;  // a connection to the sandbox it is to be in; -1: a new one
  const std::vector<UniqueFd>& cgroup_procs;
  std::string directory;
  pid_t parent;
};

void Tell(const control::Connection& report, const control::Reply& reply) {
  (void)report.Send(control::Serialize(reply));
}

// Of the file that keeps the wait(2) status: a number, spaces, a newline.
constexpr ssize_t kStatusLength = 11;

// The forked process's whole life.
[[noreturn]] void RelayMain(const RelayPlan& plan, control::Connection report) {
  prctl(PR_SET_NAME, "runsc-relay");
  // Who forked it tells.
  console::Progress::Hide();
  auto give_up = [&](const std::string& why, int code) {
    Tell(report, {.error = why, .code = code});
    _exit(code);
  };
  if (plan.foreground) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != plan.parent) _exit(sandbox::kSetupFailed);
  }
  if (!plan.foreground || plan.terminal >= 0) LeadSession(plan.terminal);
  for (const UniqueFd& fd : plan.cgroup_procs) {
    if (write(fd.get(), "0", 1) != 1) give_up(fmt::format("cannot enter its cgroup: {}", std::strerror(errno)), 1);
  }
  if (plan.enters_network) {
    if (Expected<void> entered = EnterNetwork(plan.spec); !entered) give_up(entered.error(), 1);
  }
  // With room for what will be written there, whatever the disk is like by then.
  const std::string status_file = plan.directory + "/exit_status";
  UniqueFd status(open(status_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!status || pwrite(status.get(), "          \n", kStatusLength, 0) != kStatusLength) {
    give_up(fmt::format("{}: {}", status_file, std::strerror(errno)), 1);
  }
  sandbox::LaunchArgs launch{.spec = plan.spec,
                             .options = plan.settings.options,
                             .id = plan.args.id,
                             .preserved = plan.args.preserve_fds,
                             .log_fd = plan.settings.log_fd,
                             .gofer_log_fd = plan.settings.gofer_log_fd,
                             .listen_fd = plan.listen_fd,
                             .sentry_fd = plan.sentry_fd};
  if (plan.terminal >= 0) launch.stdio = {plan.terminal, plan.terminal, plan.terminal};
  Expected<sandbox::Sandbox> sandbox = sandbox::Sandbox::Launch(launch);
  if (!sandbox) give_up(sandbox.error(), sandbox::kSetupFailed);
  if (!plan.foreground) {
    if (Expected<void> entered = EnterTree(plan.spec); !entered) give_up(entered.error(), 1);
  }
  KeepOnly({report.fd(), sandbox->connection().fd(), sandbox->boot_pidfd(), sandbox->gofer_pidfd(),
            sandbox->gofer_reason_fd(), status.get()},
           !plan.foreground);

  Outcome<control::Reply> reply = FirstAnswer(*sandbox);
  if (!reply) give_up(reply.error().text, reply.error().code);
  reply->body = std::to_string(sandbox->boot());
  (void)report.Send(control::Serialize(*reply));
  // Until the command that wanted it has written down that it is there, and lets go of it: if it is killed before that,
  // nobody would know of this process.
  if (!report.Receive()) _exit(sandbox::kSetupFailed);
  report = control::Connection();

  sandbox::Ended ended = sandbox::Relay(sandbox->connection(), &*sandbox);
  const std::string text = fmt::format("{:<10}\n", ended.status);
  (void)!pwrite(status.get(), text.data(), text.size(), 0);
  fmt::print(stderr, "{}", ended.text);
  if (!ended.error.empty()) {
    fmt::print(stderr, "runsc: container \"{}\": {}\n", plan.args.id, ended.error);
    fflush(stderr);
    _exit(sandbox::kSetupFailed);
  }
  fflush(stderr);
  sandbox::EndAs(ended.status);
}

// What the processes of a sandbox take besides what the Sentry counts: programs, page tables, the host's own objects
// for them. Where the limit is met by those, the host kills the Sentry, and not the Sentry one of its guest's
// processes.
uint64_t Overhead(uint64_t limit) {
  constexpr uint64_t kFixed = 12 << 20;
  return std::min(limit / 2, kFixed + limit / 16);
}

// The guest's machine is as large as its control groups let it be.
specutils::SandboxOptions WithinLimits(specutils::SandboxOptions options, const specutils::Resources& r) {
  if (r.memory_limit && *r.memory_limit > 0) {
    const auto limit = static_cast<uint64_t>(*r.memory_limit);
    // Of two limits the smaller counts, however the guest's machine looks.
    const uint64_t within = std::min(options.memory, limit - Overhead(limit));
    options.memory = std::min(options.memory, limit);
    options.memory_reserve = options.memory - within;
  }
  if (r.cpu_quota && *r.cpu_quota > 0) {
    uint64_t period = r.cpu_period.value_or(100'000);
    uint64_t cpus = period == 0 ? 1 : (static_cast<uint64_t>(*r.cpu_quota) + period - 1) / period;
    options.cpus = std::min(options.cpus, static_cast<int>(std::clamp<uint64_t>(cpus, 1, 64)));
  }
  if (int n = cgroup::CountCpus(r.cpuset_cpus); n > 0) options.cpus = std::min(options.cpus, n);
  return options;
}

Outcome<pid_t> Make(const Settings& given, const CreateArgs& args, bool foreground) {
  Settings settings = given;
  if (auto valid = Store::CheckId(args.id); !valid) return Fail(valid.error());
  Expected<std::string> config = specutils::ReadBundle(args.bundle);
  if (!config) return Fail(args.id, config.error());
  Expected<specutils::Spec> spec = specutils::ParseConfig(*config, args.bundle + "/config.json", args.bundle);
  if (!spec) return Fail(args.id, spec.error());
  if (spec->seccomp) {
    Expected<specutils::SeccompProgram> program =
        specutils::CompileSeccomp(*spec->seccomp, args.bundle + "/config.json");
    if (!program) return Fail(args.id, program.error());
    spec->seccomp_program = std::move(*program);
  }
  if (Expected<void> there = CheckPaths(*spec, args.bundle); !there) return Fail(args.id, there.error());
  ApplyFileFlags(settings, *spec);
  settings.options = WithinLimits(settings.options, spec->resources);
  if (!foreground && spec->process.terminal && args.console_socket.empty()) {
    return Fail(args.id, "process.terminal is set and nobody watches it; give --console-socket");
  }
  if (!spec->process.terminal && !args.console_socket.empty()) {
    return Fail(args.id, "--console-socket is given and process.terminal is not set");
  }
  const specutils::Namespace* network = spec->FindNamespace("network");
  // A new one that nobody can reach before its end has nothing in it; without privileges there is nobody who could.
  const specutils::Hooks& hooks = spec->hooks;
  const bool can_be_reached =
      geteuid() == 0 && (!foreground || !hooks.prestart.empty() || !hooks.create_runtime.empty());
  const bool uses_host = settings.network == Network::kHost;
  // With the host's sockets it is a wall as well.
  const bool enters_network = network != nullptr && (!network->path.empty() || can_be_reached || uses_host);
  const bool takes_network =
      settings.network == Network::kSandbox || (settings.network == Network::kByConfig && enters_network);
  if (takes_network) settings.options.network = specutils::NetworkMode::kSandbox;
  if (uses_host) settings.options.network = specutils::NetworkMode::kHost;
  const Store store(settings.root);
  Expected<Entry> entry = store.Create(args.id);
  if (!entry) return Fail(entry.error());
  Construction made(settings, std::move(*entry));
  State& state = made.entry.state();
  state.sandbox = SandboxOf(store, *spec, args.id);
  state.bundle = args.bundle;
  state.rootfs = spec->root_path;
  state.created = Now();
  state.annotations = spec->annotations;
  state.takes_network = takes_network && state.sandbox == args.id;
  state.sees_network = uses_host && state.sandbox == args.id;
  auto failed = [&](const Expected<void>& e) { return Fail(args.id, e.error()); };
  Expected<specutils::PidNamespace> pid_namespace = FindPidNamespace(store, state, *spec);
  if (!pid_namespace) return Fail(args.id, pid_namespace.error());
  spec->pid_namespace = std::move(*pid_namespace);
  if (Expected<void> resolved = ResolveIdMappings(store, *spec); !resolved) return failed(resolved);
  state.id_mappings = spec->id_mappings;
  if (auto saved = made.entry.SaveConfig(*config); !saved) return failed(saved);
  if (auto saved = made.entry.Save(); !saved) return failed(saved);

  std::vector<UniqueFd> procs;
  if (!settings.ignore_cgroups && (!spec->cgroups_path.empty() || !spec->resources.empty())) {
    if (Expected<void> there = cgroup::CheckDriver(settings.systemd_cgroup); !there)
      return Fail(args.id, there.error());
    Expected<std::string> path = cgroup::ResolvePath(spec->cgroups_path, args.id, settings.systemd_cgroup);
    if (!path) return Fail(args.id, path.error());
    Expected<cgroup::Cgroup> group = cgroup::Cgroup::Create(*path);
    if (!group) return Fail(args.id, group.error());
    state.cgroups_path = *path;
    state.cgroup_directories = group->directories();
    // Written down before anything can go wrong with it.
    if (auto saved = made.entry.Save(); !saved) return failed(saved);
    if (auto set = group->Set(spec->resources); !set) return failed(set);
    Expected<std::vector<UniqueFd>> opened = group->OpenProcs();
    if (!opened) return Fail(args.id, opened.error());
    procs = std::move(*opened);
  }
  UniqueFd listener;
  control::Connection sentry;
  if (state.sandbox == args.id) {
    Expected<UniqueFd> listening = Listen(made.entry.control_socket());
    if (!listening) return Fail(args.id, listening.error());
    listener = std::move(*listening);
  } else {
    Outcome<State> root = Look(settings, state.sandbox);
    if (!root) return std::unexpected(root.error());
    Outcome<control::Connection> connection = Connect(settings, *root);
    if (!connection) return std::unexpected(connection.error());
    sentry = std::move(*connection);
    timeval forever{};
    setsockopt(sentry.fd(), SOL_SOCKET, SO_RCVTIMEO, &forever, sizeof(forever));
    state.boot = root->boot;
  }
  UniqueFd terminal;
  if (!args.console_socket.empty()) {
    Expected<UniqueFd> slave =
        console::Offer(args.console_socket, spec->process.console_rows, spec->process.console_columns);
    if (!slave) return Fail(args.id, slave.error());
    terminal = std::move(*slave);
  }

  Result<std::pair<control::Connection, control::Connection>> report = control::Connection::Pair();
  if (!report) return Fail(args.id, fmt::format("socketpair: {}", report.error().name()));
  RelayPlan plan{.settings = settings,
                 .spec = *spec,
                 .args = args,
                 .foreground = foreground,
                 .enters_network = enters_network,
                 .terminal = terminal.get(),
                 .listen_fd = listener.get(),
                 .sentry_fd = sentry.fd(),
                 .cgroup_procs = procs,
                 .directory = made.entry.path(),
                 .parent = getpid()};
  {
    SignalsBlocked blocked;
    fflush(nullptr);
    made.relay = fork();
    if (made.relay == 0) RelayMain(plan, std::move(report->second));
  }
  if (made.relay < 0) return Fail(args.id, fmt::format("fork: {}", std::strerror(errno)));
  report->second = control::Connection();
  state.process = HostProcess::Of(made.relay);
  Outcome<control::Reply> reply = Answer(report->first, args.id, kSetUp);
  if (!reply) return std::unexpected(reply.error());
  if (state.sandbox == args.id) state.boot = HostProcess::Of(std::atoi(reply->body.c_str()));
  if (auto saved = made.entry.Save(); !saved) return failed(saved);

  const std::string document = state.ToJson(false);
  for (auto [kind, hooks] :
       {std::pair{"prestart", &spec->hooks.prestart}, std::pair{"createRuntime", &spec->hooks.create_runtime},
        std::pair{"createContainer", &spec->hooks.create_container}}) {
    if (auto ran = RunHooks(kind, *hooks, document); !ran) return failed(ran);
  }
  state.status = Status::kCreated;
  if (auto saved = made.entry.Save(); !saved) return failed(saved);
  if (auto written = WritePidFile(args.pid_file, made.relay); !written) return failed(written);
  if (!report->first.Send("")) return Fail(args.id, "internal error: the process that stands for it has ended");
  made.kept = true;
  return made.relay;
}

// Waits for the relay, a child, and passes on what is sent to this process alone.
int AwaitRelay(pid_t relay) {
  sigset_t all;
  sigfillset(&all);
  while (true) {
    siginfo_t info;
    int sig = sigwaitinfo(&all, &info);
    int status = 0;
    if (sig == SIGCHLD && waitpid(relay, &status, WNOHANG) == relay) return status;
    // What the terminal sends goes to the whole process group, the relay included.
    if (sig > 0 && sig != SIGCHLD && info.si_code != SI_KERNEL) kill(relay, sig);
  }
}

}  // namespace

Outcome<> Create(const Settings& settings, const CreateArgs& args) {
  Outcome<pid_t> made = Make(settings, args, false);
  if (!made) return std::unexpected(made.error());
  return {};
}

namespace {

// At start and not before: Docker sets the namespace up in between.
Expected<UniqueFd> NetworkNamespaceOf(const State& state) {
  UniqueFd ns(open(fmt::format("/proc/{}/ns/net", state.process.pid).c_str(), O_RDONLY | O_CLOEXEC));
  if (!ns) return std::unexpected(fmt::format("its network namespace: {}", std::strerror(errno)));
  return ns;
}

Expected<sandbox::TakenNetwork> TakeNetwork(Entry& entry) {
  Expected<UniqueFd> opened = NetworkNamespaceOf(entry.state());
  if (!opened) return std::unexpected(opened.error());
  const UniqueFd& ns = *opened;
  struct stat st{};
  if (fstat(ns.get(), &st) != 0) return std::unexpected(fmt::format("its network namespace: {}", std::strerror(errno)));
  entry.state().network_namespace = st.st_ino;
  return sandbox::TakeNetwork(ns.get(), [&](const specutils::NetworkConfig& config) -> Expected<void> {
    if (auto saved = entry.Save(); !saved) return saved;
    return entry.SaveNetwork(specutils::SerializeNetwork(config));
  });
}

}  // namespace

Outcome<> Start(const Settings& settings, const std::string& id) {
  Expected<Entry> entry = Store(settings.root).Open(id);
  if (!entry) return Fail(entry.error());
  State& state = entry->state();
  if (Status now = state.CurrentStatus(); now != Status::kCreated) {
    return Fail(id, fmt::format("cannot start a container that is {}", Name(now)));
  }
  Outcome<specutils::Spec> spec = SpecOf(*entry);
  if (!spec) return std::unexpected(spec.error());
  if (auto ran = RunGuestHooks(settings, state, *spec); !ran) {
    // runtime.md: the container is stopped then, and goes on to its end.
    if (state.process.Alive()) kill(state.process.pid, SIGKILL);
    return Fail(id, ran.error());
  }
  control::Request request{.method = control::Method::kStart};
  std::vector<UniqueFd> sockets;
  if (state.takes_network) {
    Expected<sandbox::TakenNetwork> taken = TakeNetwork(*entry);
    if (!taken) return Fail(id, taken.error());
    request.body = specutils::SerializeNetwork(taken->config);
    sockets = std::move(taken->sockets);
  }
  if (state.sees_network) {
    Expected<UniqueFd> ns = NetworkNamespaceOf(state);
    if (!ns) return Fail(id, ns.error());
    Expected<specutils::NetworkConfig> seen = sandbox::LookAtNetwork(ns->get());
    if (!seen) return Fail(id, seen.error());
    request.body = specutils::SerializeNetwork(*seen);
  }
  // Written down before it is done: where there is no room for that, nothing has changed.
  state.status = Status::kRunning;
  if (auto saved = entry->Save(); !saved) return Fail(id, saved.error());
  Outcome<control::Reply> reply = Ask(settings, state, request, sockets);
  if (!reply) {
    state.status = Status::kCreated;
    (void)entry->Save();
    return std::unexpected(reply.error());
  }
  if (auto ran = RunHooks("poststart", spec->hooks.poststart, state.ToJson(false)); !ran) {
    settings.warn(fmt::format("container \"{}\": {}", id, ran.error()));
  }
  return {};
}

Outcome<int> Run(const Settings& given, const RunArgs& args) {
  SignalsBlocked blocked;
  Settings settings = given;
  std::optional<LogToStderr> log;
  if (!args.detach) log.emplace(settings);
  Outcome<pid_t> relay = Make(settings, args.create, !args.detach);
  if (!relay) {
    Failure failure = relay.error();
    if (failure.code == 1) failure.code = sandbox::kSetupFailed;
    return std::unexpected(failure);
  }
  const std::string& id = args.create.id;
  Outcome<> started = Start(settings, id);
  if (started && args.detach) return 0;
  // What it has left on the terminal must not be wiped.
  console::Progress::Hide();
  int status = 0;
  if (!started) {
    kill(*relay, SIGKILL);
    waitpid(*relay, &status, 0);
  } else {
    status = AwaitRelay(*relay);
  }
  if (!args.keep || !started) {
    if (Outcome<> gone = Delete(settings, id, true); !gone) settings.warn(gone.error().text);
  }
  if (!started) return std::unexpected(Failure{started.error().text, sandbox::kSetupFailed});
  return sandbox::ExitCode(status);
}

}  // namespace redoubt::container
