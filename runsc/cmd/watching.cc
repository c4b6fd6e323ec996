// state, list, events, debug.
#include <fmt/format.h>
#include <time.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "runsc/cmd/context.h"
#include "runsc/walls/walls.h"

namespace redoubt::cmd {
namespace {

using Json = nlohmann::ordered_json;

void AddState(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("state", "print a container's state as JSON");
  auto id = std::make_shared<std::string>();
  command->add_option("ID", *id, "the container's name")->required();
  command->callback([&context, id] {
    context.action = [&context, id] {
      return With(context.flags, [&](const auto& settings) {
        container::Outcome<container::State> state = container::Look(settings, *id);
        if (!state) return Fail(context.flags, state.error().text, state.error().code);
        fmt::print("{}\n", state->ToJson(true));
        return 0;
      });
    };
  });
}

void AddList(CLI::App& app, Context& context) {
  struct Args {
    std::string format = "table";
    bool quiet = false;
  };
  CLI::App* command = app.add_subcommand("list", "list the containers of this --root");
  auto args = std::make_shared<Args>();
  command->add_option("--format,-f", args->format, "table or json")
      ->check(CLI::IsMember({"table", "json"}))
      ->capture_default_str();
  command->add_flag("--quiet,-q", args->quiet, "names only");
  command->callback([&context, args] {
    context.action = [&context, args] {
      return With(context.flags, [&](const auto& settings) {
        std::vector<container::State> states = container::List(settings);
        if (args->quiet) {
          for (const auto& s : states) fmt::print("{}\n", s.id);
        } else if (args->format == "json") {
          Json all = Json::array();
          for (const auto& s : states) all.push_back(Json::parse(s.ToJson(false)));
          fmt::print("{}\n", all.dump());
        } else {
          size_t width = 2;
          for (const auto& s : states) width = std::max(width, s.id.size());
          fmt::print("{:<{}} {:>8} {:<8} {:<30} {}\n", "ID", width, "PID", "STATUS", "CREATED", "BUNDLE");
          for (const auto& s : states) {
            container::Status now = s.CurrentStatus();
            fmt::print("{:<{}} {:>8} {:<8} {:<30} {}\n", s.id, width,
                       now == container::Status::kStopped ? 0 : s.process.pid, container::Name(now), s.created,
                       s.bundle);
          }
        }
        return 0;
      });
    };
  });
}

// The shape that runc prints and engines read.
Json StatsEvent(const std::string& id, const container::Measured& m) {
  const control::Stats& s = m.stats;
  Json memory = {{"usage", {{"usage", m.cgroup_memory.value_or(s.memory)}, {"limit", s.memory_limit}}}};
  return {{"type", "stats"},
          {"id", id},
          {"data",
           {{"cpu",
             {{"usage",
               {{"total", s.cpu_user_ns + s.cpu_system_ns}, {"kernel", s.cpu_system_ns}, {"user", s.cpu_user_ns}}}}},
            {"memory", memory},
            {"pids", {{"current", s.processes}}}}}};
}

void AddEvents(CLI::App& app, Context& context) {
  struct Args {
    std::string id;
    std::string interval = "5s";
    bool stats = false;
  };
  CLI::App* command = app.add_subcommand("events", "print what a container uses, as lines of JSON");
  auto args = std::make_shared<Args>();
  command->add_flag("--stats", args->stats, "once, and end");
  command->add_option("--interval", args->interval, "how often, as 500ms, 5s, 1m")->capture_default_str();
  command->add_option("ID", args->id, "the container's name")->required();
  command->footer("Ends with the container. Kills for want of memory appear as lines of type \"oom\".");
  command->callback([&context, args] {
    context.action = [&context, args]() -> int {
      const Flags& flags = context.flags;
      double seconds = 0;
      if (!ParseInterval(args->interval, &seconds)) {
        return Fail(flags, fmt::format("--interval {}: is no time, as 500ms, 5s or 1m", args->interval));
      }
      return With(flags, [&](const auto& settings) {
        uint64_t kills = 0;
        for (bool first = true;; first = false) {
          container::Outcome<container::Measured> m = container::Measure(settings, args->id);
          if (!m) {
            container::Outcome<container::State> state = container::Look(settings, args->id);
            bool ended = !state || state->CurrentStatus() == container::Status::kStopped;
            if (!first && ended) return 0;
            return Fail(flags, m.error().text, m.error().code);
          }
          fmt::print("{}\n", StatsEvent(args->id, *m).dump());
          if (m->oom_kills.value_or(0) > kills && !first)
            fmt::print("{}\n", Json{{"type", "oom"}, {"id", args->id}}.dump());
          kills = m->oom_kills.value_or(0);
          std::fflush(stdout);
          if (args->stats) return 0;
          timespec t{.tv_sec = static_cast<time_t>(seconds),
                     .tv_nsec = static_cast<long>((seconds - static_cast<double>(static_cast<time_t>(seconds))) * 1e9)};
          nanosleep(&t, nullptr);
        }
      });
    };
  });
}

void AddDebug(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("debug", "look into a running sandbox");
  struct Args {
    std::string id;
    bool stacks = false;
    bool walls = false;
  };
  auto args = std::make_shared<Args>();
  command->add_flag("--walls", args->walls,
                    "what each process of the sandbox may still do, as the host's kernel has it");
  command->add_flag("--stacks", args->stacks, "what each task does, and what it waits for");
  command->add_option("ID", args->id, "the container's name")->required();
  command->callback([&context, args] {
    context.action = [&context, args]() -> int {
      const Flags& flags = context.flags;
      if (!args->stacks && !args->walls) {
        return Fail(flags, "debug: nothing asked for; there are: --stacks, --walls");
      }
      return With(flags, [&](const auto& settings) {
        if (args->walls) {
          container::Outcome<std::vector<pid_t>> pids = container::SandboxPids(settings, args->id);
          if (!pids) return Fail(flags, pids.error().text, pids.error().code);
          fmt::print("{}", walls::Describe(*pids));
          if (!args->stacks) return 0;
        }
        container::Outcome<std::string> text = container::Stacks(settings, args->id);
        if (!text) return Fail(flags, text.error().text, text.error().code);
        std::string line;
        for (std::istringstream in(*text); std::getline(in, line);) fmt::print("{}\n", Printable(line));
        return 0;
      });
    };
  });
}

}  // namespace

void AddWatching(CLI::App& app, Context& context) {
  AddState(app, context);
  AddList(app, context);
  AddEvents(app, context);
  AddDebug(app, context);
}

}  // namespace redoubt::cmd
