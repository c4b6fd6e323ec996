#include <fcntl.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>

#include "runsc/console/console.h"
#include "runsc/container/internal.h"
#include "runsc/specutils/codec.h"

namespace redoubt::container {
namespace {

bool ParseNumber(std::string_view text, uint32_t* out) {
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return error == std::errc() && end == text.data() + text.size();
}

Outcome<specutils::Process> ProcessOf(const Entry& entry, const ExecArgs& args) {
  if (args.process) return *args.process;
  Outcome<specutils::Spec> spec = SpecOf(entry);
  if (!spec) return std::unexpected(spec.error());
  specutils::Process p = std::move(spec->process);
  p.args = args.args;
  p.terminal = args.terminal;
  if (!args.cwd.empty()) p.cwd = args.cwd;
  if (!p.cwd.starts_with('/')) return Fail(args.id, fmt::format("--cwd {}: must be an absolute path", p.cwd));
  for (const std::string& e : args.env) {
    if (e.find('=') == std::string::npos) return Fail(args.id, fmt::format("--env {}: is not NAME=VALUE", e));
    // A later one of the same name counts.
    std::string name = e.substr(0, e.find('=') + 1);
    std::erase_if(p.env, [&](const std::string& old) { return old.starts_with(name); });
    p.env.push_back(e);
  }
  if (!args.user.empty()) {
    size_t colon = args.user.find(':');
    std::string_view user(args.user);
    if (!ParseNumber(user.substr(0, colon), &p.uid) ||
        (colon != std::string::npos && !ParseNumber(user.substr(colon + 1), &p.gid))) {
      return Fail(args.id, fmt::format("--user {}: is not UID[:GID] in numbers", args.user));
    }
  }
  p.groups.insert(p.groups.end(), args.groups.begin(), args.groups.end());
  for (const std::string& name : args.capabilities) {
    int n = specutils::CapabilityByName(name.starts_with("CAP_") ? name : "CAP_" + name);
    if (n < 0) return Fail(args.id, fmt::format("--cap {}: unknown capability", name));
    uint64_t bit = uint64_t{1} << n;
    p.bounding |= bit;
    p.permitted |= bit;
    p.effective |= bit;
    p.ambient |= bit;
    p.inheritable |= bit;
  }
  // execve(2) of another user than root would drop them, as runc does.
  if (p.uid != 0 && args.capabilities.empty()) p.permitted = p.effective = p.permitted & p.ambient;
  if (args.no_new_privileges) p.no_new_privileges = true;
  return p;
}

}  // namespace

Outcome<int> Exec(const Settings& settings, const ExecArgs& args) {
  Expected<Entry> entry = Store(settings.root).Open(args.id);
  if (!entry) return Fail(entry.error());
  const State state = entry->state();
  Status now = state.CurrentStatus();
  if (now == Status::kPaused && !args.ignore_paused) return Fail(args.id, "cannot exec in a container that is paused");
  if (now != Status::kRunning && now != Status::kCreated && now != Status::kPaused) {
    return Fail(args.id, fmt::format("cannot exec in a container that is {}: container not running", Name(now)));
  }
  Outcome<specutils::Process> process = ProcessOf(*entry, args);
  if (!process) return std::unexpected(process.error());
  if (args.terminal) process->terminal = true;
  UniqueFd terminal;
  if (!args.console_socket.empty()) {
    if (!process->terminal)
      return Fail(args.id, "--console-socket is given, and neither --tty nor a terminal's process");
    Expected<UniqueFd> slave = console::Offer(args.console_socket, process->console_rows, process->console_columns);
    if (!slave) return Fail(args.id, slave.error());
    terminal = std::move(*slave);
  } else if (args.detach && process->terminal) {
    return Fail(args.id, "a terminal for a detached process needs --console-socket");
  }
  std::vector<UniqueFd> procs;
  if (!state.cgroup_directories.empty()) {
    Expected<std::vector<UniqueFd>> opened = cgroup::Cgroup(state.cgroup_directories).OpenProcs();
    if (opened) procs = std::move(*opened);
  }

  SignalsBlocked blocked;
  Outcome<control::Connection> connection = Connect(settings, state);
  if (!connection) return std::unexpected(connection.error());
  std::vector<int> fds = {0, 1, 2};
  if (terminal) fds = {terminal.get(), terminal.get(), terminal.get()};
  for (int i = 0; i < args.preserve_fds; i++) fds.push_back(3 + i);
  control::Request request{.method = control::Method::kExec,
                           .container = args.id,
                           .attach = true,
                           .ignore_paused = args.ignore_paused,
                           .preserved = static_cast<uint32_t>(args.preserve_fds),
                           .body = specutils::SerializeProcess(*process)};
  if (Result<> sent = connection->Send(control::Serialize(request), fds); !sent) {
    if (sent.error() == Errno(EBADF)) return Fail(args.id, "a descriptor that the process is to have is closed");
    return Fail(args.id, fmt::format("container not running: its sandbox takes no request ({})", sent.error().name()));
  }
  Outcome<control::Reply> reply = Answer(*connection, args.id);
  if (!reply) return std::unexpected(reply.error());
  timeval forever{};
  setsockopt(connection->fd(), SOL_SOCKET, SO_RCVTIMEO, &forever, sizeof(forever));

  if (args.detach) {
    fflush(nullptr);
    pid_t relay = fork();
    if (relay < 0) return Fail(args.id, fmt::format("fork: {}", std::strerror(errno)));
    if (relay == 0) {
      prctl(PR_SET_NAME, "runsc-relay");
      LeadSession(terminal.get());
      for (const UniqueFd& fd : procs) (void)!write(fd.get(), "0", 1);
      KeepOnly({connection->fd()}, true);
      sandbox::EndAs(sandbox::Relay(*connection, nullptr).status);
    }
    if (auto noted = entry->AddExec(HostProcess::Of(relay)); !noted) settings.warn(noted.error());
    if (auto written = WritePidFile(args.pid_file, relay); !written) {
      kill(relay, SIGKILL);
      return Fail(args.id, written.error());
    }
    return 0;
  }
  if (auto written = WritePidFile(args.pid_file, getpid()); !written) return Fail(args.id, written.error());
  // Others may act on the container meanwhile.
  entry = std::unexpected(std::string());
  sandbox::Ended ended = sandbox::Relay(*connection, nullptr);
  if (!ended.error.empty() && !state.process.Alive()) return Fail(args.id, "the container has ended", 128 + SIGKILL);
  if (!ended.error.empty()) return Fail(args.id, ended.error);
  return sandbox::ExitCode(ended.status);
}

}  // namespace redoubt::container
