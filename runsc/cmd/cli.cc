#include "runsc/cmd/cli.h"

#include <fmt/format.h>
#include <signal.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string>
#include <vector>

#include "runsc/cmd/context.h"
#include "runsc/cmd/unknown.h"

namespace redoubt::cmd {
namespace {

const std::string& VersionText() {
  static const std::string text = fmt::format("runsc version {} (Redoubt)\nspec: 1.2.0", kVersion);
  return text;
}

// The first word that names a command: what stands before it are flags of runsc.
std::vector<std::string>::iterator FindCommand(std::vector<std::string>& args, const CLI::App& app) {
  const std::vector<const CLI::App*> commands = app.get_subcommands([](const CLI::App*) { return true; });
  return std::find_if(args.begin(), args.end(), [&](const std::string& word) {
    return std::any_of(commands.begin(), commands.end(), [&](const CLI::App* c) { return c->get_name() == word; });
  });
}

// Go's flag package takes -flag for --flag; engines use it. Up to the command only.
std::vector<std::string> Normalize(int argc, char** argv, const CLI::App& app) {
  std::vector<std::string> args(argv + 1, argv + argc);
  std::vector<std::string> known = FlagNames(app);
  const auto command = FindCommand(args, app);
  for (auto a = args.begin(); a != command; ++a) {
    if (!a->starts_with('-') || a->starts_with("--") || a->size() <= 2) continue;
    std::string name = "-" + a->substr(0, a->find('='));
    if (std::find(known.begin(), known.end(), name) != known.end()) *a = "-" + *a;
  }
  return args;
}

// What follows the first "--" after a command that runs one of the guest's, cut off from `args`: CLI11 would take words
// of it for commands of ours.
std::optional<std::vector<std::string>> CutCommand(std::vector<std::string>& args, const CLI::App& app) {
  auto command = FindCommand(args, app);
  if (command == args.end() || (*command != "do" && *command != "exec" && *command != "spec")) return std::nullopt;
  auto dashes = std::find(command, args.end(), "--");
  if (dashes == args.end()) return std::nullopt;
  std::vector<std::string> rest(dashes + 1, args.end());
  args.erase(dashes, args.end());
  return rest;
}

void AddFlags(CLI::App& app, Flags& flags) {
  app.add_option("--root", flags.root, "directory for the state of containers (/run/runsc, or one of the user's)");
  app.add_option("--log", flags.log, "file to which an error is written, too, for engines");
  app.add_option("--log-format", flags.log_format, "of that file: text or json")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  app.add_option("--platform", flags.platform,
                 "how guest code is run: systrap (fast), ptrace (anywhere), kvm, or auto (the fastest that works)")
      ->envname("RUNSC_PLATFORM")
      ->capture_default_str();
  app.add_option(
      "--network", flags.network,
      "what network the guest has: sandbox (the interfaces of the network namespace that config.json names, or "
      "else of the current one, with a stack of the sandbox's own), host (sockets of the host's stack in that "
      "namespace: the guest reaches what the host does) or none (a loopback); default: sandbox if config.json has a "
      "network namespace");
  app.add_option(
         "--overlay2", flags.overlay2,
         "where writes of a container go: none (to the root file system and the bind mounts themselves), "
         "root:memory (those below / are kept in memory, and gone with the container), root:self (those below / are "
         "kept in a file without a name on the root file system's disk, and gone as well) or all:memory (those "
         "to bind mounts too)")
      ->capture_default_str();
  app.add_option("--file-access", flags.file_access,
                 "who changes the root file system: shared (others do, too: what the sandbox knows of it is asked for "
                 "again after a second) or exclusive (the container alone: nothing is asked for twice)")
      ->capture_default_str();
  app.add_option("--file-access-mounts", flags.file_access_mounts, "the same of the bind mounts")
      ->capture_default_str();
  app.add_option("--debug-log", flags.debug_log,
                 "directory for log files, one for each of the sandbox's processes: NAME.boot.log, NAME.gofer.log");
  app.add_flag("--debug", flags.debug, "log more");
  app.add_flag("--strace", flags.strace, "log every system call of the guest (to stderr without --debug-log)");
  app.add_option("--strace-syscalls", flags.strace_syscalls, "the same for those calls only: names, by commas")
      ->type_name("NAME,...");
  app.add_option("--rewrite", flags.rewrite,
                 "rewrite hot system call instructions of programs (systrap); false for programs that check their own "
                 "code, or REDOUBT_REWRITE=false in the environment of one")
      ->capture_default_str();
  app.add_option("--io-uring", flags.io_uring,
                 "reach host files through a restricted io_uring where the host has one; false: by threads that block")
      ->capture_default_str();
  app.add_flag("--allow-weak-box", flags.allow_weak_box,
               "run also where the host does not let the sandbox have all its walls; the log says which are missing");
  app.add_flag("--report-missing", flags.report_missing,
               "at the end, list the calls that were made and are not implemented");
  app.add_flag("--summary", flags.summary,
               "at the end, say how many calls were made, what time they took, and which are not implemented");
  app.add_option("--cpus", flags.cpus, "CPUs the guest sees (default: this process's)")->check(CLI::Range(1, 64));
  app.add_option("--memory", flags.memory_mib, "MiB of memory the guest may use (default: the host's)");
  app.add_flag("--systemd-cgroup", flags.systemd_cgroup,
               "linux.cgroupsPath is \"slice:prefix:name\"; the directories are made where systemd would make "
               "them, without asking it; an error where systemd does not run");
  app.add_flag("--ignore-cgroups", flags.ignore_cgroups, "make no control groups: nothing bounds the sandbox");
  app.add_option("--rootless", flags.rootless,
                 "true, false or auto: accepted; who runs it decides, and an ordinary user needs no flag")
      ->capture_default_str();
  app.add_option_function<std::string>("--criu", [](const std::string&) {}, "accepted, means nothing here");
}

}  // namespace

int Main(int argc, char** argv) {
  // Whoever reads what this writes may be gone.
  signal(SIGPIPE, SIG_IGN);
  Context context;
  CLI::App app("Runs programs on a Linux of their own, in user space.", "runsc");
  app.set_help_flag("--help,-h", "show this text");
  app.set_version_flag("--version,-v", VersionText());
  app.footer("`runsc help COMMAND` tells more of each command.");
  app.require_subcommand(0, 1);
  app.allow_extras();
  AddFlags(app, context.flags);
  AddTransient(app, context);
  AddLifecycle(app, context);
  AddProcesses(app, context);
  AddWatching(app, context);
  AddTop(app, context);
  AddMetrics(app, context);
  AddSpec(app, context);
  AddTools(app, context);
  std::string topic;
  CLI::App* help_command = app.add_subcommand("help", "tell of a command");
  help_command->add_option("COMMAND", topic);

  std::vector<std::string> args = Normalize(argc, argv, app);
  context.command = CutCommand(args, app);
  // Once `help` has been parsed, the library's help is that of `help`.
  if (args.empty() || args == std::vector<std::string>{"help"}) {
    fmt::print("{}", app.help());
    return args.empty() ? 1 : 0;
  }
  std::reverse(args.begin(), args.end());
  try {
    app.parse(args);
  } catch (const CLI::CallForHelp&) {
    const std::vector<CLI::App*> used = app.get_subcommands();
    fmt::print("{}", used.empty() ? app.help() : used.front()->help("runsc"));
    return 0;
  } catch (const CLI::CallForVersion&) {
    fmt::print("{}\n", VersionText());
    return 0;
  } catch (const CLI::ExtrasError&) {
    CLI::App* used = app.get_subcommands().empty() ? &app : app.get_subcommands().front();
    std::vector<std::string> rest = used->remaining();
    if (rest.empty()) rest = app.remaining();
    return Fail(context.flags, UnknownWord(rest.empty() ? "?" : rest.front(), app, *used));
  } catch (const CLI::ParseError& e) {
    return Fail(context.flags, fmt::format("{}; see `runsc help`", e.what()));
  }
  if (!app.remaining().empty()) return Fail(context.flags, UnknownWord(app.remaining().front(), app, app));
  if (context.action) return context.action();
  if (*help_command && !topic.empty()) {
    for (CLI::App* c : app.get_subcommands(nullptr)) {
      if (c->get_name() != topic) continue;
      fmt::print("{}", c->help("runsc"));
      return 0;
    }
    return Fail(context.flags, UnknownWord(topic, app, app));
  }
  return Fail(context.flags, "no command given; see `runsc help`");
}

}  // namespace redoubt::cmd
