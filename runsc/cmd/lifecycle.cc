// create, start, run, kill, delete, pause, resume, update.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>
#include <iostream>
#include <iterator>
#include <memory>

#include "runsc/cmd/context.h"

namespace redoubt::cmd {
namespace {

specutils::Expected<std::string> Absolute(const std::string& path) {
  if (path.starts_with('/')) return path;
  char buffer[4096];
  if (getcwd(buffer, sizeof(buffer)) == nullptr) {
    return std::unexpected(fmt::format("current directory: {}", std::strerror(errno)));
  }
  return path.empty() || path == "." ? std::string(buffer) : fmt::format("{}/{}", buffer, path);
}

// Flags that engines pass and that ask for nothing here: there is no pivot_root and no session key ring to be had.
void AddIgnored(CLI::App& command) {
  auto ignored = std::make_shared<bool>();
  for (const char* name : {"--no-pivot", "--no-new-keyring", "--no-subreaper"}) {
    command.add_flag_callback(name, [ignored] { *ignored = true; }, "accepted, means nothing here");
  }
}

void AddCreateOptions(CLI::App& command, container::CreateArgs& args) {
  args.bundle = ".";
  command.add_option("--bundle,-b", args.bundle, "directory of config.json and the root file system")
      ->capture_default_str();
  command.add_option("--console-socket", args.console_socket,
                     "AF_UNIX socket to which the master of the container's terminal is sent");
  command.add_option("--pid-file", args.pid_file, "file to write the number of the container's process to");
  command.add_option("--preserve-fds", args.preserve_fds, "so many descriptors from 3 on are the container's, too")
      ->check(CLI::Range(0, 200));
  AddIgnored(command);
  command.add_option("ID", args.id, "the container's name")->required();
}

int WithBundle(Flags& flags, container::CreateArgs& args,
               const std::function<int(const container::Settings&)>& command) {
  specutils::Expected<std::string> bundle = Absolute(args.bundle);
  if (!bundle) return Fail(flags, bundle.error());
  flags.starts_sandbox = true;
  args.bundle = *bundle;
  return With(flags, command);
}

using Simple = container::Outcome<> (*)(const container::Settings&, const std::string&);

void AddSimple(CLI::App& app, Context& context, const char* name, const char* text, Simple what) {
  CLI::App* command = app.add_subcommand(name, text);
  auto id = std::make_shared<std::string>();
  command->add_option("ID", *id, "the container's name")->required();
  command->callback([&context, id, what] {
    context.action = [&context, id, what] {
      return With(context.flags, [&](const auto& settings) { return Finish(context.flags, what(settings, *id)); });
    };
  });
}

void AddCreate(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("create", "load a container, so that `start` can start it");
  auto args = std::make_shared<container::CreateArgs>();
  AddCreateOptions(*command, *args);
  command->callback([&context, args] {
    context.action = [&context, args] {
      return WithBundle(context.flags, *args, [&](const auto& settings) {
        return Finish(context.flags, container::Create(settings, *args));
      });
    };
  });
}

void AddRun(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("run", "create, start and await a container, and delete it then");
  auto args = std::make_shared<container::RunArgs>();
  AddCreateOptions(*command, args->create);
  command->add_flag("--detach,-d", args->detach, "return once it has started");
  command->add_flag("--keep", args->keep, "do not delete it at its end");
  command->callback([&context, args] {
    context.action = [&context, args] {
      return WithBundle(context.flags, args->create,
                        [&](const auto& settings) { return Finish(context.flags, container::Run(settings, *args)); });
    };
  });
}

void AddKill(CLI::App& app, Context& context) {
  struct Args {
    std::string id;
    std::string signal = "SIGTERM";
    bool all = false;
  };
  CLI::App* command = app.add_subcommand("kill", "send a signal to a container's first process");
  auto args = std::make_shared<Args>();
  command->add_flag("--all,-a", args->all, "to all of its processes");
  command->add_option("ID", args->id, "the container's name")->required();
  command->add_option("SIGNAL", args->signal, "by name or number")->capture_default_str();
  command->callback([&context, args] {
    context.action = [&context, args] {
      int signal = ParseSignal(args->signal);
      if (signal < 0) return Fail(context.flags, fmt::format("unknown signal \"{}\"", args->signal));
      return With(context.flags, [&](const auto& settings) {
        return Finish(context.flags, container::Kill(settings, args->id, signal, args->all));
      });
    };
  });
}

void AddDelete(CLI::App& app, Context& context) {
  struct Args {
    std::vector<std::string> ids;
    bool force = false;
  };
  CLI::App* command = app.add_subcommand("delete", "remove what is left of a container that has ended");
  auto args = std::make_shared<Args>();
  command->add_flag("--force,-f", args->force, "end it before; no error if there is none of that name");
  command->add_option("ID", args->ids, "the container's name; several may be given")->required();
  command->callback([&context, args] {
    context.action = [&context, args] {
      return With(context.flags, [&](const auto& settings) {
        int code = 0;
        for (const std::string& id : args->ids) {
          if (int c = Finish(context.flags, container::Delete(settings, id, args->force)); c != 0) code = c;
        }
        return code;
      });
    };
  });
}

void AddUpdate(CLI::App& app, Context& context) {
  struct Args {
    std::string id;
    std::string file;
    std::string memory, swap, reservation;
    std::optional<uint64_t> cpu_shares, cpu_period;
    std::optional<int64_t> cpu_quota, pids_limit;
    std::string cpus, mems;
  };
  CLI::App* command = app.add_subcommand("update", "change what a container's control groups hold it to");
  auto args = std::make_shared<Args>();
  command->add_option("--resources,-r", args->file, "file with the JSON object of linux.resources; -: stdin");
  command->add_option("--memory", args->memory, "bytes, with a suffix k, m or g; -1: no limit");
  command->add_option("--memory-swap", args->swap, "of memory and swap together");
  command->add_option("--memory-reservation", args->reservation, "below this it is not reclaimed from");
  command->add_option("--cpu-share", args->cpu_shares, "weight beside others, 2 to 262144");
  command->add_option("--cpu-period", args->cpu_period, "µs");
  command->add_option("--cpu-quota", args->cpu_quota, "µs of processor time in a period; -1: no limit");
  command->add_option("--cpuset-cpus", args->cpus, "processors, as 0-2,7");
  command->add_option("--cpuset-mems", args->mems, "memory nodes");
  command->add_option("--pids-limit", args->pids_limit, "processes of the host; -1: no limit");
  command->add_option("ID", args->id, "the container's name")->required();
  command->callback([&context, args] {
    context.action = [&context, args]() -> int {
      const Flags& flags = context.flags;
      specutils::Resources r;
      if (!args->file.empty()) {
        std::string text;
        if (args->file == "-") {
          text.assign(std::istreambuf_iterator<char>(std::cin), {});
        } else {
          specutils::Expected<std::string> read = specutils::ReadText(args->file);
          if (!read) return Fail(flags, fmt::format("--resources {}", read.error()));
          text = std::move(*read);
        }
        auto parsed = specutils::ParseResourcesConfig(text, args->file == "-" ? "stdin" : args->file);
        if (!parsed) return Fail(flags, parsed.error());
        r = std::move(*parsed);
      }
      for (auto [text, out, name] : {std::tuple{&args->memory, &r.memory_limit, "--memory"},
                                     std::tuple{&args->swap, &r.memory_swap, "--memory-swap"},
                                     std::tuple{&args->reservation, &r.memory_reservation, "--memory-reservation"}}) {
        if (text->empty()) continue;
        char* end = nullptr;
        errno = 0;
        int64_t value = std::strtoll(text->c_str(), &end, 10);
        int shift = *end == 'k' || *end == 'K'   ? 10
                    : *end == 'm' || *end == 'M' ? 20
                    : *end == 'g' || *end == 'G' ? 30
                                                 : 0;
        if (end == text->c_str() || errno != 0 || end[shift != 0 ? 1 : 0] != '\0' ||
            (value > 0 && value > INT64_MAX >> shift)) {
          return Fail(flags, fmt::format("{} {}: is no size", name, *text));
        }
        *out = value < 0 ? -1 : value << shift;
      }
      if (args->cpu_shares) r.cpu_shares = args->cpu_shares;
      if (args->cpu_period) r.cpu_period = args->cpu_period;
      if (args->cpu_quota) r.cpu_quota = args->cpu_quota;
      if (args->pids_limit) r.pids_limit = args->pids_limit;
      if (!args->cpus.empty()) r.cpuset_cpus = args->cpus;
      if (!args->mems.empty()) r.cpuset_mems = args->mems;
      return With(flags, [&](const auto& settings) { return Finish(flags, container::Update(settings, args->id, r)); });
    };
  });
}

}  // namespace

void AddLifecycle(CLI::App& app, Context& context) {
  AddCreate(app, context);
  AddSimple(app, context, "start", "start a container that `create` has made", container::Start);
  AddRun(app, context);
  AddKill(app, context);
  AddDelete(app, context);
  AddSimple(app, context, "pause", "stop all processes of a container where they are", container::Pause);
  AddSimple(app, context, "resume", "let a paused container go on", container::Resume);
  AddUpdate(app, context);
}

}  // namespace redoubt::cmd
