// exec, ps, wait.
#include <fmt/format.h>
#include <sys/wait.h>
#include <time.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>

#include "runsc/cmd/context.h"

namespace redoubt::cmd {
namespace {

void AddExec(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("exec", "run one more process in a container");
  struct Args {
    container::ExecArgs exec;
    std::string process_file;
  };
  auto args = std::make_shared<Args>();
  container::ExecArgs& e = args->exec;
  command->add_option("--process,-p", args->process_file, "file with the JSON object of config.json's `process`");
  command->add_flag("--detach,-d", e.detach, "return once it has started");
  command->add_flag("--tty,-t", e.terminal, "its stdin, stdout and stderr are a terminal");
  command->add_option("--user,-u", e.user, "UID[:GID], in numbers");
  command->add_option("--additional-gids,-g", e.groups, "more groups; may be given again");
  command->add_option("--cwd", e.cwd, "working directory");
  command->add_option("--env,-e", e.env, "NAME=VALUE; may be given again")->allow_extra_args(false);
  command->add_option("--cap,-c", e.capabilities, "a capability more; may be given again")->allow_extra_args(false);
  command->add_flag("--no-new-privs", e.no_new_privileges, "execve gives it nothing that it does not have");
  command->add_flag("--ignore-paused", e.ignore_paused, "also in a container that is paused; it waits for `resume`");
  command->add_option("--pid-file", e.pid_file, "file to write the number of the process that stands for it to");
  command->add_option("--console-socket", e.console_socket, "AF_UNIX socket to which the terminal's master is sent");
  command->add_option("--preserve-fds", e.preserve_fds, "so many descriptors from 3 on are the process's, too")
      ->check(CLI::Range(0, 200));
  for (const char* name : {"--process-label", "--apparmor", "--cgroup"}) {
    command->add_option_function<std::string>(name, [](const std::string&) {}, "accepted, means nothing here");
  }
  command->add_option("ID", e.id, "the container's name")->required();
  command->prefix_command();
  command->footer("The command and its arguments follow the ID; without --process they are needed.");
  command->callback([&context, args, command] {
    context.action = [&context, args, command]() -> int {
      const Flags& flags = context.flags;
      args->exec.args = command->remaining();
      AppendCommand(context, args->exec.args);
      if (!args->process_file.empty()) {
        specutils::Expected<std::string> text = specutils::ReadText(args->process_file);
        if (!text) return Fail(flags, fmt::format("--process {}", text.error()));
        auto process = specutils::ParseProcessConfig(*text, args->process_file);
        if (!process) return Fail(flags, process.error());
        args->exec.process = std::move(*process);
      } else if (args->exec.args.empty()) {
        return Fail(flags, fmt::format("exec: no command given; try `runsc exec {} sh`", args->exec.id));
      }
      return With(flags, [&](const auto& settings) { return Finish(flags, container::Exec(settings, args->exec)); });
    };
  });
}

std::string Clock(int64_t ns) {
  time_t seconds = ns / 1'000'000'000;
  tm local{};
  localtime_r(&seconds, &local);
  char text[16];
  strftime(text, sizeof(text), "%H:%M", &local);
  return text;
}

void AddPs(CLI::App& app, Context& context) {
  struct Args {
    std::string id;
    std::string format = "table";
    std::vector<std::string> ps_options;
  };
  CLI::App* command = app.add_subcommand("ps", "list a container's processes");
  auto args = std::make_shared<Args>();
  command
      ->add_option("--format,-f", args->format,
                   "table: as they are inside; json: the numbers of those that stand for them on the host")
      ->check(CLI::IsMember({"table", "json"}))
      ->capture_default_str();
  command->add_option("ID", args->id, "the container's name")->required();
  command->add_option("OPTIONS", args->ps_options, "of ps(1): accepted, the table is always this one");
  command->callback([&context, args] {
    context.action = [&context, args] {
      const Flags& flags = context.flags;
      return With(flags, [&](const auto& settings) {
        if (args->format == "json") {
          container::Outcome<std::vector<pid_t>> pids = container::HostPids(settings, args->id);
          if (!pids) return Fail(flags, pids.error().text, pids.error().code);
          fmt::print("{}\n", nlohmann::json(*pids).dump());
          return 0;
        }
        auto list = container::Processes(settings, args->id);
        if (!list) return Fail(flags, list.error().text, list.error().code);
        fmt::print("{:<8} {:>7} {:>7} {:>3} S {:>8} {:>5} {:>9} CMD\n", "UID", "PID", "PPID", "THR", "RSS", "STIME",
                   "TIME");
        for (const control::ProcessInfo& p : *list) {
          uint64_t seconds = p.cpu_ns / 1'000'000'000;
          fmt::print("{:<8} {:>7} {:>7} {:>3} {} {:>7}K {:>5} {:>3}:{:02}.{:02} {}\n", p.uid, p.pid, p.parent,
                     p.threads, p.state, p.resident >> 10, Clock(p.started_ns), seconds / 60, seconds % 60,
                     p.cpu_ns / 10'000'000 % 100, Printable(p.command_line));
        }
        return 0;
      });
    };
  });
}

void AddWait(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("wait", "wait until a container's first process has ended");
  auto id = std::make_shared<std::string>();
  command->add_option("ID", *id, "the container's name")->required();
  command->footer("Prints its exit status as JSON; it is 128 + n if signal n has ended it.");
  command->callback([&context, id] {
    context.action = [&context, id] {
      return With(context.flags, [&](const auto& settings) {
        container::Outcome<int> status = container::Wait(settings, *id);
        if (!status) return Fail(context.flags, status.error().text, status.error().code);
        int code = WIFEXITED(*status) ? WEXITSTATUS(*status) : 128 + WTERMSIG(*status);
        fmt::print("{}\n", nlohmann::ordered_json{{"id", *id}, {"exitStatus", code}}.dump());
        return 0;
      });
    };
  });
}

}  // namespace

void AddProcesses(CLI::App& app, Context& context) {
  AddExec(app, context);
  AddPs(app, context);
  AddWait(app, context);
}

}  // namespace redoubt::cmd
