// do.
#include <fmt/format.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>

#include "runsc/cmd/context.h"
#include "runsc/cmd/unknown.h"

namespace redoubt::cmd {
namespace {

specutils::Mount MakeMount(const char* destination, const char* type, std::vector<std::string> options) {
  return {.destination = destination, .type = type, .source = type, .options = std::move(options)};
}

struct DoArgs {
  std::string cwd, hostname, user;
  std::vector<std::string> env, rw, volumes;
  bool net = false;
};

// DIR of --rw: the same place inside, with nothing between writes and the host.
specutils::Expected<specutils::Mount> MakeBind(const std::string& source, std::string destination, bool read_only) {
  std::unique_ptr<char, decltype(&free)> real(realpath(source.c_str(), nullptr), free);
  if (!real) return std::unexpected(fmt::format("{}: {}", source, std::strerror(errno)));
  if (destination.empty()) destination = real.get();
  return specutils::Mount{.destination = std::move(destination),
                          .type = "bind",
                          .source = real.get(),
                          .options = {"rbind", read_only ? "ro" : "rw"}};
}

// SRC:DST[:ro|rw].
specutils::Expected<specutils::Mount> ParseVolume(const std::string& text) {
  const size_t first = text.find(':');
  const size_t second = first == std::string::npos ? first : text.find(':', first + 1);
  const std::string mode = second == std::string::npos ? "rw" : text.substr(second + 1);
  const std::string destination =
      first == std::string::npos ? ""
                                 : text.substr(first + 1, second == std::string::npos ? second : second - first - 1);
  if (first == 0 || !destination.starts_with('/') || (mode != "ro" && mode != "rw")) {
    return std::unexpected("must be SRC:DST or SRC:DST:ro, and DST an absolute path");
  }
  return MakeBind(text.substr(0, first), destination, mode == "ro");
}

// UID[:GID] or NAME[:GID], a name of this machine's passwd(5) file. Another one's groups are not the caller's.
specutils::Expected<void> SetUser(const std::string& text, specutils::Process& p) {
  const size_t colon = text.find(':');
  const std::string name = text.substr(0, colon);
  auto number = [](const std::string& digits, uint32_t* out) {
    auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), *out);
    return error == std::errc() && end == digits.data() + digits.size();
  };
  bool known = number(name, &p.uid);
  if (known) {
    p.gid = p.uid;
  } else {
    // Not getpwnam(3), for which a static program would need libraries at run time.
    std::ifstream passwd("/etc/passwd");
    for (std::string line; !known && std::getline(passwd, line);) {
      std::vector<std::string> fields(1);
      for (char c : line) c == ':' ? (void)fields.emplace_back() : fields.back().push_back(c);
      known = fields.size() > 3 && fields[0] == name && number(fields[2], &p.uid) && number(fields[3], &p.gid);
    }
  }
  if (!known) return std::unexpected(fmt::format("no user \"{}\" in /etc/passwd", name));
  if (colon != std::string::npos && !number(text.substr(colon + 1), &p.gid)) {
    return std::unexpected("must be USER or USER:GID, the group a number");
  }
  p.groups.clear();
  return {};
}

// This machine's files read-only, writes kept in memory, the caller's identity, environment and directory.
int Do(const std::vector<std::string>& command, const DoArgs& args, Flags& flags) {
  specutils::Spec spec;
  spec.root_path = "/";
  spec.root_overlay = true;
  char host[65] = {};
  gethostname(host, 64);
  spec.hostname = args.hostname.empty() ? host : args.hostname;
  spec.mounts = {MakeMount("/proc", "proc", {"nosuid", "nodev", "noexec"}),
                 MakeMount("/sys", "sysfs", {"nosuid", "nodev", "noexec", "ro"}),
                 MakeMount("/dev", "devtmpfs", {"nosuid"}), MakeMount("/dev/pts", "devpts", {"nosuid", "noexec"}),
                 MakeMount("/dev/shm", "tmpfs", {"nosuid", "nodev", "mode=1777"})};
  for (const std::string& directory : args.rw) {
    specutils::Expected<specutils::Mount> mount = MakeBind(directory, "", false);
    if (!mount) return Fail(flags, fmt::format("--rw {}", mount.error()));
    spec.mounts.push_back(std::move(*mount));
  }
  for (const std::string& volume : args.volumes) {
    specutils::Expected<specutils::Mount> mount = ParseVolume(volume);
    if (!mount) return Fail(flags, fmt::format("--volume {}: {}", volume, mount.error()));
    spec.mounts.push_back(std::move(*mount));
  }
  if (args.net) {
    if (flags.network == "none" || flags.network == "host") {
      return Fail(flags, fmt::format("--net contradicts --network={}", flags.network));
    }
    flags.network = "sandbox";
  }
  specutils::Process& p = spec.process;
  p.args = command;
  for (char** e = environ; *e != nullptr; e++) p.env.emplace_back(*e);
  for (const std::string& e : args.env) {
    const size_t equals = e.find('=');
    if (equals == 0 || equals == std::string::npos) return Fail(flags, fmt::format("--env {}: must be NAME=VALUE", e));
    std::erase_if(p.env, [&](const std::string& old) { return old.starts_with(e.substr(0, equals + 1)); });
    p.env.push_back(e);
  }
  if (!args.cwd.empty()) {
    p.cwd = args.cwd;
  } else {
    char buffer[4096];
    if (getcwd(buffer, sizeof(buffer)) != nullptr && buffer[0] == '/') p.cwd = buffer;
  }
  p.uid = geteuid();
  p.gid = getegid();
  std::vector<gid_t> groups(std::max(0, getgroups(0, nullptr)));
  int n = groups.empty() ? 0 : getgroups(static_cast<int>(groups.size()), groups.data());
  for (int i = 0; i < n; i++) p.groups.push_back(groups[i]);
  if (!args.user.empty()) {
    if (auto set = SetUser(args.user, p); !set)
      return Fail(flags, fmt::format("--user {}: {}", args.user, set.error()));
  }
  mode_t mask = umask(0);
  umask(mask);
  p.umask = mask;
  uint64_t all = (uint64_t{1} << (CAP_LAST_CAP + 1)) - 1;
  p.bounding = all;
  if (p.uid == 0) p.permitted = p.effective = all;
  flags.starts_sandbox = true;
  return With(flags, [&](const auto& settings) { return Finish(flags, container::RunTransient(settings, spec)); });
}

}  // namespace

void AddTransient(CLI::App& app, Context& context) {
  auto args = std::make_shared<DoArgs>();
  CLI::App* command = app.add_subcommand(
      "do", "run a command in a sandbox that shows this machine's files; what it writes is kept in memory");
  command->add_option("--rw", args->rw, "directory or file whose writes reach this machine; may be given again")
      ->type_name("DIR")
      ->allow_extra_args(false);
  command
      ->add_option("--volume", args->volumes,
                   "SRC of this machine is to be seen at DST, and written unless \":ro\" follows; may be given again")
      ->type_name("SRC:DST[:ro]")
      ->allow_extra_args(false);
  command->add_flag("--net", args->net,
                    "the interfaces of the current network namespace, as --network=sandbox; without it a loopback");
  command->add_option("--env,-e", args->env, "NAME=VALUE, beside the current environment; may be given again")
      ->allow_extra_args(false);
  command->add_option("--user,-u", args->user,
                      "user inside, by number or name, with or without :GID (default: the current one)");
  command->add_option("--cwd", args->cwd, "working directory (default: the current one)");
  command->add_option("--hostname", args->hostname, "host name inside (default: this machine's)");
  command->prefix_command();
  command->callback([&app, &context, args, command] {
    context.action = [&app, &context, args, command]() -> int {
      std::vector<std::string> words = command->remaining();
      if (!words.empty() && words.front().starts_with('-')) {
        return Fail(context.flags, UnknownWord(words.front(), app, *command));
      }
      AppendCommand(context, words);
      if (words.empty()) return Fail(context.flags, "do: no command given; try `runsc do uname -a`");
      return Do(words, *args, context.flags);
    };
  });
}

}  // namespace redoubt::cmd
