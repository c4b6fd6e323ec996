#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "pkg/log/log.h"
#include "runsc/console/progress.h"
#include "runsc/container/hooks.h"
#include "runsc/container/internal.h"
#include "runsc/sandbox/network.h"
#include "runsc/specutils/network.h"

namespace redoubt::container {

std::unexpected<Failure> Fail(const std::string& id, const std::string& text, int code) {
  return std::unexpected(Failure{fmt::format("container \"{}\": {}", id, text), code});
}

LogToStderr::LogToStderr(Settings& settings) {
  if (settings.log_fd >= 0) return;
  copy_ = UniqueFd(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3));
  settings.log_fd = settings.gofer_log_fd = copy_.get();
  settings.options.log_level = static_cast<int>(log::Level::kError);
}

Outcome<control::Connection> Connect(const Settings& settings, const State& state) {
  // Any length of --root: the name is relative to a descriptor.
  UniqueFd directory(open((settings.root + "/" + state.sandbox).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  timeval patience{.tv_sec = kAnswerSeconds, .tv_usec = 0};
  setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::string path = fmt::format("/proc/self/fd/{}/control.sock", directory.get());
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  if (!directory || connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    // The Sentry is gone, or just going.
    if (!directory || errno == ECONNREFUSED || errno == ENOENT) return Fail(state.id, "container not running");
    return Fail(state.id, fmt::format("cannot reach its sandbox: {}", std::strerror(errno)));
  }
  return control::Connection(std::move(socket));
}

Outcome<control::Reply> Answer(const control::Connection& connection, const std::string& id, const char* what) {
  console::Progress progress(fmt::format("container \"{}\": {}", id, what));
  progress.Await(connection.fd());
  Result<control::Packet> packet = connection.Receive();
  if (!packet && packet.error() == Errno(EAGAIN)) {
    return Fail(id,
                fmt::format("its sandbox has not answered for {} s; `runsc kill {} KILL` ends it", kAnswerSeconds, id));
  }
  if (!packet) return Fail(id, "container not running: its sandbox has just ended");
  Result<control::Reply> reply = control::ParseReply(packet->bytes);
  if (!reply) return Fail(id, "internal error: its sandbox answers nonsense");
  if (!reply->error.empty()) return Fail(id, reply->error, reply->code != 0 ? reply->code : 1);
  return std::move(*reply);
}

Outcome<control::Reply> FirstAnswer(sandbox::Sandbox& sandbox) {
  std::optional<console::Progress> progress(kSetUp);
  progress->Await(sandbox.connection().fd());
  Result<control::Packet> packet = sandbox.connection().Receive();
  Result<control::Reply> reply = packet ? control::ParseReply(packet->bytes) : Err(packet.error());
  progress.reset();
  if (!reply || !reply->error.empty()) {
    if (std::string why = sandbox.WhyNoGofer(); !why.empty()) return Fail(why, sandbox::kSetupFailed);
  }
  if (!reply) {
    return Fail(fmt::format("internal error: the sandbox has ended without a word: {}; run again with --debug-log DIR "
                            "for the reason",
                            sandbox.AwaitEnd(1000)),
                sandbox::kSetupFailed);
  }
  if (!reply->error.empty()) return Fail(reply->error, reply->code);
  return std::move(*reply);
}

Outcome<control::Reply> Ask(const Settings& settings, const State& state, const control::Request& request,
                            const std::vector<UniqueFd>& fds) {
  Outcome<control::Connection> connection = Connect(settings, state);
  if (!connection) return std::unexpected(connection.error());
  control::Request named = request;
  named.container = state.id;
  std::vector<int> numbers;
  for (const UniqueFd& fd : fds) numbers.push_back(fd.get());
  if (Result<> sent = connection->Send(control::Serialize(named), numbers); !sent) {
    return Fail(state.id, fmt::format("container not running: its sandbox takes no request ({})", sent.error().name()));
  }
  return Answer(*connection, state.id);
}

void LeadSession(int terminal) {
  setsid();
  if (terminal >= 0) ioctl(terminal, TIOCSCTTY, 0);
}

void KeepOnly(std::vector<int> keep, bool quiet) {
  if (quiet) {
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd : {0, 1, 2}) dup2(null, fd);
  }
  std::sort(keep.begin(), keep.end());
  unsigned first = 3;
  for (int fd : keep) {
    if (fd < static_cast<int>(first)) continue;
    if (static_cast<unsigned>(fd) > first) close_range(first, static_cast<unsigned>(fd) - 1, 0);
    first = static_cast<unsigned>(fd) + 1;
  }
  close_range(first, ~0U, 0);
}

Expected<void> EnterNetwork(const specutils::Spec& spec) {
  const specutils::Namespace* ns = spec.FindNamespace("network");
  if (ns == nullptr) return {};
  if (ns->path.empty()) {
    if (unshare(CLONE_NEWNET) == 0) return {};
    return std::unexpected(fmt::format("cannot make a network namespace: {}", std::strerror(errno)));
  }
  UniqueFd fd(open(ns->path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd && setns(fd.get(), CLONE_NEWNET) == 0) return {};
  return std::unexpected(fmt::format("cannot enter the network namespace {}: {}", ns->path, std::strerror(errno)));
}

pid_t ProcessNamedBy(const std::string& path, const std::string& kind) {
  pid_t pid = 0;
  if (std::sscanf(path.c_str(), "/proc/%d/", &pid) != 1 || path != fmt::format("/proc/{}/ns/{}", pid, kind)) return 0;
  return pid;
}

std::optional<State> ContainerNamedBy(const Store& store, const std::string& path, const std::string& kind) {
  const pid_t pid = ProcessNamedBy(path, kind);
  if (pid == 0) return {};
  for (State& state : store.List()) {
    std::vector<HostProcess> standing = store.Execs(state.id);
    standing.push_back(state.process);
    if (std::ranges::any_of(standing, [pid](const HostProcess& p) { return p.pid == pid && p.Alive(); })) {
      return std::move(state);
    }
  }
  return {};
}

Expected<void> WritePidFile(const std::string& path, pid_t pid) {
  if (path.empty()) return {};
  // Whoever waits for the file finds it whole.
  std::string fresh = path + ".new";
  std::string text = std::to_string(pid);
  // The directory may be one that a guest writes to: whatever lies there is not followed.
  (void)unlink(fresh.c_str());
  UniqueFd fd(open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!fd || write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
      rename(fresh.c_str(), path.c_str()) != 0) {
    const int error = errno;
    unlink(fresh.c_str());
    return std::unexpected(fmt::format("--pid-file {}: {}", path, std::strerror(error)));
  }
  return {};
}

void ApplyFileFlags(const Settings& settings, specutils::Spec& spec) {
  if (settings.overlay != Overlay::kNone) spec.root_overlay = true;
  spec.root_overlay_on_disk = settings.overlay == Overlay::kRootSelf;
  spec.root_exclusive = settings.root_exclusive;
  for (specutils::Mount& m : spec.mounts) {
    if (!m.is_bind()) continue;
    m.overlay = settings.overlay == Overlay::kAll && !m.read_only();
    m.exclusive = settings.mounts_exclusive;
  }
}

Outcome<specutils::Spec> SpecOf(const Entry& entry) {
  Expected<std::string> text = entry.LoadConfig();
  if (!text) return Fail(entry.state().id, text.error());
  Expected<specutils::Spec> spec = specutils::ParseConfig(*text, entry.path() + "/config.json", entry.state().bundle);
  if (!spec) return Fail(entry.state().id, spec.error());
  return std::move(*spec);
}

namespace {

// Waits until it is gone, at most so long.
bool AwaitGone(const std::string& id, const HostProcess& process, int milliseconds) {
  UniqueFd fd(static_cast<int>(syscall(SYS_pidfd_open, process.pid, 0)));
  if (!fd || !process.Alive()) return true;
  console::Progress progress(fmt::format("container \"{}\": waiting for process {} to end", id, process.pid));
  progress.Await(fd.get());
  pollfd p{fd.get(), POLLIN, 0};
  return poll(&p, 1, milliseconds) > 0;
}

// To the namespace that the configuration names; one made for the container has gone with it.
void GiveBackNetwork(const Settings& settings, const Entry& entry) {
  std::optional<std::string> bytes = entry.LoadNetwork();
  if (!bytes) return;
  Expected<specutils::NetworkConfig> config = specutils::DeserializeNetwork(*bytes);
  Outcome<specutils::Spec> spec = SpecOf(entry);
  const specutils::Namespace* ns = spec ? spec->FindNamespace("network") : nullptr;
  if (!config || ns == nullptr || ns->path.empty()) return;
  UniqueFd fd(open(ns->path.c_str(), O_RDONLY | O_CLOEXEC));
  // There may be another of that name by now.
  struct stat st{};
  if (!fd || fstat(fd.get(), &st) != 0 || st.st_ino != entry.state().network_namespace) return;
  if (Expected<void> r = sandbox::GiveBackNetwork(fd.get(), *config); !r) {
    settings.warn(fmt::format("container \"{}\": {}; the interfaces in {} were left without addresses",
                              entry.state().id, r.error(), ns->path));
  }
}

// What the state does not tell: its Sentry may be there all the same, and ends its processes if asked.
void EndUnknown(const Settings& settings, const State& state) {
  State guess = state;
  guess.sandbox = state.id;
  Outcome<control::Connection> connection = Connect(settings, guess);
  if (!connection) return;
  control::Request request{.method = control::Method::kSignal, .container = state.id, .signal = SIGKILL, .all = true};
  (void)connection->Send(control::Serialize(request));
  // Until it is gone, or says that it has no such container.
  while (Outcome<control::Reply> reply = Answer(*connection, state.id)) {
  }
}

}  // namespace

namespace {

// In another's sandbox, which goes on: its Sentry keeps the name until it is told.
void Forget(const Settings& settings, const State& state) {
  if (state.sandbox == state.id || !state.boot.Alive()) return;
  Outcome<control::Connection> connection = Connect(settings, state);
  if (!connection) return;  // it has just ended
  control::Request request{.method = control::Method::kDelete, .container = state.id};
  if (!connection->Send(control::Serialize(request))) return;
  console::Progress progress(fmt::format("container \"{}\": {}", state.id, kAnswering));
  progress.Await(connection->fd());
  Result<control::Packet> packet = connection->Receive();
  Result<control::Reply> reply = packet ? control::ParseReply(packet->bytes) : Err(packet.error());
  // One that never was made there is not known there.
  if (reply && (reply->error.empty() || reply->error == "container does not exist")) return;
  if (!state.boot.Alive()) return;
  settings.warn(fmt::format("container \"{}\": its sandbox does not let go of it: {}", state.id,
                            reply ? reply->error : std::string(reply.error().name())));
}

}  // namespace

Outcome<> Destroy(const Settings& settings, Entry& entry) {
  State& state = entry.state();
  if (state.process.pid == 0) EndUnknown(settings, state);
  std::vector<HostProcess> processes = entry.Execs();
  processes.push_back(state.process);
  if (state.sandbox == state.id) processes.push_back(state.boot);
  for (const HostProcess& p : processes) {
    if (p.Alive()) kill(p.pid, SIGKILL);
  }
  for (const HostProcess& p : processes) {
    if (!AwaitGone(state.id, p, 10'000)) return Fail(state.id, fmt::format("process {} does not end", p.pid));
  }
  Forget(settings, state);
  if (Outcome<specutils::Spec> spec = SpecOf(entry)) {
    if (Expected<void> ran = RunHooks("poststop", spec->hooks.poststop, state.ToJson(false)); !ran) {
      settings.warn(fmt::format("container \"{}\": {}", state.id, ran.error()));
    }
  }
  GiveBackNetwork(settings, entry);
  if (Expected<void> removed = cgroup::Cgroup(state.cgroup_directories).Remove(); !removed) {
    return Fail(state.id, removed.error());
  }
  if (Expected<void> removed = entry.Remove(); !removed) return Fail(state.id, removed.error());
  return {};
}

}  // namespace redoubt::container
