#include "runsc/cmd/cli.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "pkg/log/log.h"
#include "runsc/sandbox/sandbox.h"
#include "runsc/specutils/spec.h"

namespace redoubt::cmd {
namespace {

constexpr char kVersionText[] = "runsc (Redoubt) 0.1\nspec: 1.0.2";
constexpr int kUsage = 1;

struct Flags {
  std::string root = "/run/runsc";
  std::string platform = "auto";
  std::string network;
  std::string debug_log;
  bool debug = false;
  bool strace = false;
  bool report_missing = false;
  bool rewrite = true;
  bool io_uring = true;
  int cpus = 0;
  uint64_t memory_mib = 0;
};

int Fail(const std::string& what, int code = kUsage) {
  fmt::print(stderr, "runsc: {}\n", what);
  return code;
}

// Levenshtein's distance.
size_t Distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); j++) row[j] = j;
  for (size_t i = 1; i <= a.size(); i++) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); j++) {
      size_t next = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = row[j];
      row[j] = next;
    }
  }
  return row[b.size()];
}

std::string Nearest(const std::string& word, const std::vector<std::string>& known) {
  std::string best;
  size_t best_distance = std::max<size_t>(3, word.size() / 2);
  for (const std::string& k : known) {
    if (size_t d = Distance(word, k); d < best_distance) {
      best_distance = d;
      best = k;
    }
  }
  return best;
}

std::vector<std::string> FlagNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* o : app.get_options()) {
    for (const std::string& n : o->get_lnames()) names.push_back("--" + n);
  }
  return names;
}

// An unknown word, with the nearest known one.
int Unknown(const std::string& word, const CLI::App& app, const CLI::App& sub) {
  if (word.starts_with('-')) {
    std::vector<std::string> names = FlagNames(sub);
    for (const std::string& n : FlagNames(app)) names.push_back(n);
    std::string name = word.substr(0, word.find('='));
    std::string nearest = Nearest(name, names);
    return Fail(fmt::format("unknown flag {}{}; see `runsc help {}`", name,
                            nearest.empty() ? "" : fmt::format(", did you mean {}?", nearest), sub.get_name()));
  }
  std::vector<std::string> commands;
  for (const CLI::App* c : app.get_subcommands(nullptr)) commands.push_back(c->get_name());
  std::string nearest = Nearest(word, commands);
  return Fail(fmt::format("unknown command \"{}\"{}; see `runsc help`", word,
                          nearest.empty() ? "" : fmt::format(", did you mean \"{}\"?", nearest)));
}

// Go's flag package takes -flag for --flag; engines use it. Up to the command only.
std::vector<std::string> Normalize(int argc, char** argv, const CLI::App& app) {
  std::vector<std::string> args(argv + 1, argv + argc);
  std::vector<std::string> known = FlagNames(app);
  for (std::string& a : args) {
    if (!a.starts_with('-')) break;
    if (a.starts_with("--") || a.size() <= 2) continue;
    std::string name = "-" + a.substr(0, a.find('='));
    if (std::find(known.begin(), known.end(), name) != known.end()) a = "-" + a;
  }
  return args;
}

specutils::Expected<specutils::SandboxOptions> ToOptions(const specutils::Spec& spec, const Flags& flags) {
  specutils::SandboxOptions o;
  o.platform = flags.platform;
  o.strace = flags.strace;
  o.log_level = static_cast<int>(flags.debug ? log::Level::kDebug : log::Level::kInfo);
  o.report_missing = flags.report_missing;
  o.rewrite = flags.rewrite;
  o.io_uring = flags.io_uring;
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof(set), &set);
  o.cpus = flags.cpus > 0 ? flags.cpus : std::max(1, CPU_COUNT(&set));
  uint64_t physical = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  o.memory = flags.memory_mib > 0 ? flags.memory_mib << 20 : physical;
  if (flags.platform != "auto" && flags.platform != "systrap" && flags.platform != "ptrace" &&
      flags.platform != "kvm") {
    return std::unexpected(
        fmt::format("unknown platform \"{}\"; there are: auto, systrap, ptrace, kvm", flags.platform));
  }
  if (!flags.network.empty() && flags.network != "none" && flags.network != "sandbox") {
    return std::unexpected(fmt::format("unknown network \"{}\"; there are: sandbox, none", flags.network));
  }
  // Without the flag, only a namespace that was named is taken over. In one that is to be new there is nothing to take.
  const bool is_new = spec.network_namespace && spec.network_namespace_path.empty();
  const bool wanted = flags.network.empty() ? !spec.network_namespace_path.empty() : flags.network == "sandbox";
  if (wanted && !is_new) o.network = specutils::NetworkMode::kSandbox;
  return o;
}

// --strace without a place to write to goes to stderr.
specutils::Expected<int> OpenLog(const Flags& flags) {
  if (flags.debug_log.empty()) return flags.strace || flags.debug ? fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 64) : -1;
  mkdir(flags.debug_log.c_str(), 0755);
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  tm utc{};
  gmtime_r(&now.tv_sec, &utc);
  char stamp[32];
  strftime(stamp, sizeof(stamp), "%Y%m%d-%H%M%S", &utc);
  std::string path = fmt::format("{}/runsc.{}.{}.log", flags.debug_log, stamp, getpid());
  int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) return std::unexpected(fmt::format("--debug-log {}: {}", path, std::strerror(errno)));
  return fd;
}

int RunSpec(const specutils::Spec& spec, const Flags& flags) {
  auto options = ToOptions(spec, flags);
  if (!options) return Fail(options.error());
  auto log_fd = OpenLog(flags);
  if (!log_fd) return Fail(log_fd.error());
  return sandbox::Run(spec, *options, *log_fd);
}

specutils::Mount MakeMount(const char* destination, const char* type, std::vector<std::string> options) {
  return {.destination = destination, .type = type, .source = type, .options = std::move(options)};
}

// `runsc do`: this machine's files read-only, writes kept in memory, the caller's identity, environment and directory.
int Do(const std::vector<std::string>& command, const std::string& cwd, const Flags& flags) {
  specutils::Spec spec;
  spec.root_path = "/";
  spec.root_overlay = true;
  char host[65] = {};
  gethostname(host, 64);
  spec.hostname = host;
  spec.mounts = {MakeMount("/proc", "proc", {"nosuid", "nodev", "noexec"}),
                 MakeMount("/sys", "sysfs", {"nosuid", "nodev", "noexec", "ro"}),
                 MakeMount("/dev", "devtmpfs", {"nosuid"}), MakeMount("/dev/pts", "devpts", {"nosuid", "noexec"}),
                 MakeMount("/dev/shm", "tmpfs", {"nosuid", "nodev", "mode=1777"})};
  specutils::Process& p = spec.process;
  p.args = command;
  for (char** e = environ; *e != nullptr; e++) p.env.emplace_back(*e);
  if (!cwd.empty()) {
    p.cwd = cwd;
  } else {
    char buffer[4096];
    if (getcwd(buffer, sizeof(buffer)) != nullptr && buffer[0] == '/') p.cwd = buffer;
  }
  p.uid = geteuid();
  p.gid = getegid();
  std::vector<gid_t> groups(std::max(0, getgroups(0, nullptr)));
  int n = groups.empty() ? 0 : getgroups(static_cast<int>(groups.size()), groups.data());
  for (int i = 0; i < n; i++) p.groups.push_back(groups[i]);
  mode_t mask = umask(0);
  umask(mask);
  p.umask = mask;
  uint64_t all = (uint64_t{1} << (CAP_LAST_CAP + 1)) - 1;
  p.bounding = all;
  if (p.uid == 0) p.permitted = p.effective = all;
  return RunSpec(spec, flags);
}

int RunBundle(const std::string& bundle_flag, const std::string& id, const Flags& flags) {
  if (id.find('/') != std::string::npos) return Fail(fmt::format("invalid container ID \"{}\"", id));
  char buffer[4096];
  std::string bundle = bundle_flag;
  if (!bundle.starts_with('/')) {
    if (getcwd(buffer, sizeof(buffer)) == nullptr)
      return Fail(fmt::format("current directory: {}", std::strerror(errno)));
    bundle = bundle.empty() || bundle == "." ? buffer : fmt::format("{}/{}", buffer, bundle);
  }
  auto spec = specutils::LoadBundle(bundle);
  if (!spec) return Fail(spec.error(), sandbox::kSetupFailed);
  struct stat st{};
  if (stat(spec->root_path.c_str(), &st) != 0 || !S_ISDIR(st.st_mode)) {
    return Fail(fmt::format("{}/config.json: root.path: {}: {}", bundle, spec->root_path,
                            S_ISDIR(st.st_mode) || st.st_mode == 0 ? std::strerror(errno) : "not a directory"),
                sandbox::kSetupFailed);
  }
  return RunSpec(*spec, flags);
}

int WriteSpec(const std::string& bundle, const std::vector<std::string>& args) {
  std::string file = bundle + "/config.json";
  int fd = open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0)
    return Fail(
        fmt::format("{}: {}", file, errno == EEXIST ? "is there already; not overwritten" : std::strerror(errno)));
  std::string text = specutils::DefaultConfig(args.empty() ? std::vector<std::string>{"sh"} : args);
  bool written = write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  if (close(fd) != 0 || !written) return Fail(fmt::format("{}: {}", file, std::strerror(errno)));
  return 0;
}

}  // namespace

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Runs programs on a Linux of their own, in user space.", "runsc");
  app.set_help_flag("--help,-h", "show this text");
  app.set_version_flag("--version,-v", kVersionText);
  app.footer("`runsc help COMMAND` tells more of each command.");
  app.require_subcommand(0, 1);
  app.allow_extras();
  app.add_option("--root", flags.root, "directory for the state of containers")->capture_default_str();
  app.add_option("--platform", flags.platform,
                 "how guest code is run: systrap (fast), ptrace (anywhere), kvm, or auto (the fastest that works)")
      ->envname("RUNSC_PLATFORM")
      ->capture_default_str();
  app.add_option(
      "--network", flags.network,
      "what network the guest has: sandbox (the interfaces of the network namespace that config.json names, or "
      "else of the current one, with a stack of the sandbox's own) or none (a loopback); default: sandbox if "
      "config.json names a namespace");
  app.add_option("--debug-log", flags.debug_log, "directory for log files");
  app.add_flag("--debug", flags.debug, "log more");
  app.add_flag("--strace", flags.strace, "log every system call of the guest (to stderr without --debug-log)");
  app.add_option("--rewrite", flags.rewrite,
                 "rewrite hot system call instructions of programs (systrap); false for programs that check their own "
                 "code, or REDOUBT_REWRITE=false in the environment of one")
      ->capture_default_str();
  app.add_option("--io-uring", flags.io_uring,
                 "reach host files through a restricted io_uring where the host has one; false: by threads that block")
      ->capture_default_str();
  app.add_flag("--report-missing", flags.report_missing,
               "at the end, list the calls that were made and are not implemented");
  app.add_option("--cpus", flags.cpus, "CPUs the guest sees (default: this process's)")->check(CLI::Range(1, 64));
  app.add_option("--memory", flags.memory_mib, "MiB of memory the guest may use (default: the host's)");

  std::string cwd;
  CLI::App* do_command = app.add_subcommand(
      "do", "run a command in a sandbox that shows this machine's files; what it writes is kept in memory");
  do_command->add_option("--cwd", cwd, "working directory (default: the current one)");
  do_command->prefix_command();

  std::string bundle = ".";
  std::string id;
  CLI::App* run_command = app.add_subcommand("run", "run the container of an OCI bundle and wait for it");
  run_command->add_option("--bundle,-b", bundle, "directory of config.json and the root file system")
      ->capture_default_str();
  run_command->add_option("ID", id, "the container's name")->required();

  std::string spec_bundle = ".";
  std::vector<std::string> spec_args;
  CLI::App* spec_command = app.add_subcommand("spec", "write a config.json to start from");
  spec_command->add_option("--bundle,-b", spec_bundle, "where to write it")->capture_default_str();
  spec_command->add_option("ARGS", spec_args, "the command it runs (after --)");

  std::string topic;
  CLI::App* help_command = app.add_subcommand("help", "tell of a command");
  help_command->add_option("COMMAND", topic);

  std::vector<std::string> args = Normalize(argc, argv, app);
  std::reverse(args.begin(), args.end());
  try {
    app.parse(args);
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", app.help());
    return 0;
  } catch (const CLI::CallForVersion&) {
    fmt::print("{}\n", kVersionText);
    return 0;
  } catch (const CLI::ExtrasError&) {
    CLI::App* used = app.get_subcommands().empty() ? &app : app.get_subcommands().front();
    std::vector<std::string> rest = used->remaining();
    if (rest.empty()) rest = app.remaining();
    return Unknown(rest.empty() ? "?" : rest.front(), app, *used);
  } catch (const CLI::ParseError& e) {
    return Fail(fmt::format("{}; see `runsc help`", e.what()));
  }
  if (!app.remaining().empty()) {
    return Unknown(app.remaining().front(), app, app);
  }
  if (*do_command) {
    std::vector<std::string> command = do_command->remaining();
    if (!command.empty() && command.front() == "--") {
      command.erase(command.begin());
    } else if (!command.empty() && command.front().starts_with('-')) {
      return Unknown(command.front(), app, *do_command);
    }
    if (command.empty()) return Fail("do: no command given; try `runsc do uname -a`");
    return Do(command, cwd, flags);
  }
  if (*run_command) return RunBundle(bundle, id, flags);
  if (*spec_command) return WriteSpec(spec_bundle, spec_args);
  if (*help_command && !topic.empty()) {
    for (CLI::App* c : app.get_subcommands(nullptr)) {
      if (c->get_name() != topic) continue;
      fmt::print("{}", c->help());
      return 0;
    }
    return Unknown(topic, app, app);
  }
  fmt::print("{}", app.help());
  return *help_command ? 0 : kUsage;
}

}  // namespace redoubt::cmd
