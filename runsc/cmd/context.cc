#include "runsc/cmd/context.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "pkg/log/log.h"
#include "pkg/sentry/syscalls/table.h"

namespace redoubt::cmd {
namespace {

// containerd takes the last line that is an error, podman wants the whole file to be one object: one line is written,
// at the end of a command that fails.
void ToLog(const Flags& flags, const char* level, const std::string& what) {
  if (flags.log.empty()) return;
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  tm utc{};
  gmtime_r(&now.tv_sec, &utc);
  char time[32];
  strftime(time, sizeof(time), "%Y-%m-%dT%H:%M:%SZ", &utc);
  std::string line;
  if (flags.log_format == "json") {
    nlohmann::ordered_json json = {{"level", level}, {"msg", what}, {"time", time}};
    line = json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  } else {
    line = fmt::format("time=\"{}\" level={} msg={}\n", time, level, nlohmann::json(what).dump());
  }
  int fd = open(flags.log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  bool written = fd >= 0 && write(fd, line.data(), line.size()) == static_cast<ssize_t>(line.size());
  if (!written) fmt::print(stderr, "runsc: --log {}: {}\n", flags.log, std::strerror(errno));
  if (fd >= 0) close(fd);
}

struct Logs {
  int boot = -1;
  int gofer = -1;
};

specutils::Expected<int> OpenLog(const Flags& flags, const char* stamp, const char* role) {
  std::string path = fmt::format("{}/runsc.{}.{}.{}.log", flags.debug_log, stamp, getpid(), role);
  int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) return std::unexpected(fmt::format("--debug-log {}: {}", path, std::strerror(errno)));
  return fd;
}

// --strace without a place to write to goes to stderr.
specutils::Expected<Logs> OpenLogs(const Flags& flags) {
  if (!flags.starts_sandbox) return Logs{};
  if (flags.debug_log.empty()) {
    if (!flags.strace && !flags.debug && flags.strace_syscalls.empty()) return Logs{};
    const int fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 64);
    return Logs{.boot = fd, .gofer = fd};
  }
  mkdir(flags.debug_log.c_str(), 0755);
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  tm utc{};
  gmtime_r(&now.tv_sec, &utc);
  char stamp[32];
  strftime(stamp, sizeof(stamp), "%Y%m%d-%H%M%S", &utc);
  specutils::Expected<int> boot = OpenLog(flags, stamp, "boot");
  if (!boot) return std::unexpected(boot.error());
  specutils::Expected<int> gofer = OpenLog(flags, stamp, "gofer");
  if (!gofer) return std::unexpected(gofer.error());
  return Logs{.boot = *boot, .gofer = *gofer};
}

// Names of system calls, by commas.
specutils::Expected<std::vector<std::string>> ParseTraced(const std::string& text) {
  std::vector<std::string> names;
  std::istringstream in(text);
  for (std::string name; std::getline(in, name, ',');) {
    uint64_t n = 0;
    while (n < syscalls::kTableSize && (name.empty() || syscalls::Lookup(n).name != name)) n++;
    if (n == syscalls::kTableSize) {
      return std::unexpected(
          fmt::format("--strace-syscalls: no system call \"{}\"; `runsc syscalls` lists them", name));
    }
    names.push_back(name);
  }
  return names;
}

// Root of a user namespace that an ordinary user has made, as podman does, has no more rights to /run than he.
bool IsRootOfTheMachine() {
  if (geteuid() != 0) return false;
  std::ifstream map("/proc/self/uid_map");  // user_namespaces(7): "INSIDE OUTSIDE LENGTH"
  uint64_t inside = 0, outside = 0;
  return !(map >> inside >> outside) || outside == 0;
}

std::string DefaultRoot() {
  if (IsRootOfTheMachine()) return "/run/runsc";
  const char* runtime = getenv("XDG_RUNTIME_DIR");
  return runtime != nullptr && *runtime == '/' ? fmt::format("{}/runsc", runtime)
                                               : fmt::format("/tmp/runsc-{}", geteuid());
}

specutils::Expected<container::Overlay> ParseOverlay(const std::string& text) {
  if (text == "none") return container::Overlay::kNone;
  if (text == "root:memory") return container::Overlay::kRoot;
  if (text == "root:self") return container::Overlay::kRootSelf;
  if (text == "all:memory") return container::Overlay::kAll;
  constexpr const char* kThere = "there are: none, root:memory, root:self, all:memory";
  // Media that other runtimes know: files of bind mounts' own, or in a directory of the host.
  if (text.ends_with(":self") || text.find(":dir=") != std::string::npos) {
    return std::unexpected(fmt::format("--overlay2={}: the layer cannot be kept there; {}", text, kThere));
  }
  return std::unexpected(fmt::format("--overlay2={}: not known; {}", text, kThere));
}

specutils::Expected<bool> ParseAccess(const char* flag, const std::string& text) {
  if (text == "exclusive") return true;
  if (text == "shared") return false;
  return std::unexpected(fmt::format("{}={}: not known; there are: shared, exclusive", flag, text));
}

}  // namespace

int Fail(const Flags& flags, const std::string& what, int code) {
  fmt::print(stderr, "runsc: {}\n", what);
  ToLog(flags, "error", what);
  return code;
}

void Warn(const Flags&, const std::string& what) { fmt::print(stderr, "runsc: warning: {}\n", what); }

int Finish(const Flags& flags, const container::Outcome<>& outcome) {
  return outcome ? 0 : Fail(flags, outcome.error().text, outcome.error().code);
}

int Finish(const Flags& flags, const container::Outcome<int>& outcome) {
  return outcome ? *outcome : Fail(flags, outcome.error().text, outcome.error().code);
}

specutils::Expected<container::Settings> ToSettings(const Flags& flags) {
  if (flags.platform != "auto" && flags.platform != "systrap" && flags.platform != "ptrace" &&
      flags.platform != "kvm") {
    return std::unexpected(
        fmt::format("unknown platform \"{}\"; there are: auto, systrap, ptrace, kvm", flags.platform));
  }
  if (!flags.network.empty() && flags.network != "none" && flags.network != "sandbox") {
    return std::unexpected(fmt::format("unknown network \"{}\"; there are: sandbox, none", flags.network));
  }
  specutils::Expected<container::Overlay> overlay = ParseOverlay(flags.overlay2);
  if (!overlay) return std::unexpected(overlay.error());
  specutils::Expected<bool> root_exclusive = ParseAccess("--file-access", flags.file_access);
  if (!root_exclusive) return std::unexpected(root_exclusive.error());
  specutils::Expected<bool> mounts_exclusive = ParseAccess("--file-access-mounts", flags.file_access_mounts);
  if (!mounts_exclusive) return std::unexpected(mounts_exclusive.error());
  specutils::Expected<std::vector<std::string>> traced = ParseTraced(flags.strace_syscalls);
  if (!traced) return std::unexpected(traced.error());
  specutils::Expected<Logs> logs = OpenLogs(flags);
  if (!logs) return std::unexpected(logs.error());
  container::Settings s;
  s.root = flags.root.empty() ? DefaultRoot() : flags.root;
  s.systemd_cgroup = flags.systemd_cgroup;
  s.ignore_cgroups = flags.ignore_cgroups;
  s.overlay = *overlay;
  s.root_exclusive = *root_exclusive;
  s.mounts_exclusive = *mounts_exclusive;
  s.log_fd = logs->boot;
  s.gofer_log_fd = logs->gofer;
  if (flags.network == "sandbox") s.network = container::Network::kSandbox;
  if (flags.network == "none") s.network = container::Network::kNone;
  s.warn = [&flags](const std::string& what) { Warn(flags, what); };
  if (isatty(STDERR_FILENO) != 0) {
    s.progress = [](const std::string& what) { fmt::print(stderr, "runsc: {}\n", what); };
  }
  specutils::SandboxOptions& o = s.options;
  o.platform = flags.platform;
  o.strace = flags.strace || !flags.strace_syscalls.empty();
  o.strace_only = *traced;
  o.summary = flags.summary;
  o.log_level = static_cast<int>(flags.debug ? log::Level::kDebug : log::Level::kInfo);
  o.report_missing = flags.report_missing;
  o.rewrite = flags.rewrite;
  o.io_uring = flags.io_uring;
  o.allow_weak_box = flags.allow_weak_box;
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof(set), &set);
  o.cpus = flags.cpus > 0 ? flags.cpus : std::max(1, CPU_COUNT(&set));
  uint64_t physical = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  o.memory = flags.memory_mib > 0 ? flags.memory_mib << 20 : physical;
  return s;
}

void AppendCommand(const Context& context, std::vector<std::string>& words) {
  if (!context.command) return;
  if (!words.empty()) words.push_back("--");  // the command's own
  words.insert(words.end(), context.command->begin(), context.command->end());
}

int With(const Flags& flags, const std::function<int(const container::Settings&)>& command) {
  specutils::Expected<container::Settings> settings = ToSettings(flags);
  if (!settings) return Fail(flags, settings.error());
  return command(*settings);
}

std::string Printable(const std::string& text) {
  std::string out;
  for (char c : text) {
    const auto u = static_cast<unsigned char>(c);
    if (u < 0x20 || u == 0x7f) {
      out += fmt::format("\\x{:02x}", u);
    } else {
      out += c;
    }
  }
  return out;
}

bool ParseInterval(const std::string& text, double* seconds) {
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *seconds);
  std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  if (unit == "ms") *seconds /= 1000;
  if (unit == "m") *seconds *= 60;
  return error == std::errc() && *seconds > 0 && *seconds < 1e6 &&
         (unit.empty() || unit == "s" || unit == "ms" || unit == "m");
}

int ParseSignal(const std::string& text) {
  std::string_view name(text);
  int number = 0;
  auto parse = [&](std::string_view digits) {
    auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    return error == std::errc() && end == digits.data() + digits.size();
  };
  if (parse(name)) return number >= 0 && number <= SIGRTMAX ? number : -1;
  if (name.starts_with("SIG")) name.remove_prefix(3);
  // signal(7) counts from 34 with glibc, which keeps two for itself.
  if (name == "RTMIN") return SIGRTMIN;
  if (name == "RTMAX") return SIGRTMAX;
  if (name.starts_with("RTMIN+") && parse(name.substr(6)))
    return SIGRTMIN + number <= SIGRTMAX ? SIGRTMIN + number : -1;
  if (name.starts_with("RTMAX-") && parse(name.substr(6)))
    return SIGRTMAX - number >= SIGRTMIN ? SIGRTMAX - number : -1;
  for (int sig = 1; sig < 32; sig++) {
    if (const char* abbreviation = sigabbrev_np(sig); abbreviation != nullptr && name == abbreviation) return sig;
  }
  return -1;
}

}  // namespace redoubt::cmd
