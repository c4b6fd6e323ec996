// do.
#include <fmt/format.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "runsc/cmd/context.h"
#include "runsc/cmd/unknown.h"

namespace redoubt::cmd {
namespace {

specutils::Mount MakeMount(const char* destination, const char* type, std::vector<std::string> options) {
  return {.destination = destination, .type = type, .source = type, .options = std::move(options)};
}

// This machine's files read-only, writes kept in memory, the caller's identity, environment and directory.
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
  return With(flags, [&](const auto& settings) { return Finish(flags, container::RunTransient(settings, spec)); });
}

}  // namespace

void AddTransient(CLI::App& app, Context& context) {
  auto cwd = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand(
      "do", "run a command in a sandbox that shows this machine's files; what it writes is kept in memory");
  command->add_option("--cwd", *cwd, "working directory (default: the current one)");
  command->prefix_command();
  command->callback([&app, &context, cwd, command] {
    context.action = [&app, &context, cwd, command]() -> int {
      std::vector<std::string> words = command->remaining();
      if (!words.empty() && words.front() == "--") {
        words.erase(words.begin());
      } else if (!words.empty() && words.front().starts_with('-')) {
        return Fail(context.flags, UnknownWord(words.front(), app, *command));
      }
      if (words.empty()) return Fail(context.flags, "do: no command given; try `runsc do uname -a`");
      return Do(words, *cwd, context.flags);
    };
  });
}

}  // namespace redoubt::cmd
