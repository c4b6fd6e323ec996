// top.
#include <fmt/format.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <memory>

#include "runsc/cmd/context.h"

namespace redoubt::cmd {
namespace {

struct Sample {
  control::Stats stats;
  std::vector<control::ProcessInfo> processes;
  int64_t at = 0;  // CLOCK_MONOTONIC, ns
};

container::Outcome<Sample> Take(const container::Settings& settings, const std::string& id) {
  Sample sample;
  auto processes = container::Processes(settings, id);
  if (!processes) return std::unexpected(processes.error());
  auto measured = container::Measure(settings, id);
  if (!measured) return std::unexpected(measured.error());
  sample.processes = std::move(*processes);
  sample.stats = measured->stats;
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  sample.at = now.tv_sec * 1'000'000'000 + now.tv_nsec;
  return sample;
}

double Percent(uint64_t now, uint64_t before, int64_t elapsed) {
  if (now <= before || elapsed <= 0) return 0;
  return 100.0 * static_cast<double>(now - before) / static_cast<double>(elapsed);
}

// What changed between both samples, the busiest process first.
std::string Table(const std::string& id, const Sample& before, const Sample& now, size_t lines, size_t columns) {
  const int64_t elapsed = now.at - before.at;
  std::map<int, uint64_t> old_cpu;
  for (const control::ProcessInfo& p : before.processes) old_cpu[p.pid] = p.cpu_ns;
  struct Row {
    const control::ProcessInfo* process;
    double percent;
  };
  std::vector<Row> rows;
  for (const control::ProcessInfo& p : now.processes) {
    auto it = old_cpu.find(p.pid);
    rows.push_back({&p, Percent(p.cpu_ns, it != old_cpu.end() ? it->second : 0, elapsed)});
  }
  std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.percent > b.percent; });

  const control::Stats& s = now.stats;
  std::string text = fmt::format(
      "{}: {} processes, {} threads; processor {:.1f} %; memory {} of {} MiB\n"
      "{:>7} {:>7} {:>3} S {:>6} {:>9} {:>9} CMD\n",
      id, s.processes, s.threads,
      Percent(s.cpu_user_ns + s.cpu_system_ns, before.stats.cpu_user_ns + before.stats.cpu_system_ns, elapsed),
      s.memory >> 20, s.memory_limit >> 20, "PID", "UID", "THR", "CPU%", "RSS", "TIME");
  for (size_t i = 0; i < rows.size() && i + 2 < lines; i++) {
    const control::ProcessInfo& p = *rows[i].process;
    const uint64_t seconds = p.cpu_ns / 1'000'000'000;
    std::string line = fmt::format("{:>7} {:>7} {:>3} {} {:>6.1f} {:>8}K {:>3}:{:02}.{:02} {}", p.pid, p.uid, p.threads,
                                   Printable(std::string(1, p.state)), rows[i].percent, p.resident >> 10, seconds / 60,
                                   seconds % 60, p.cpu_ns / 10'000'000 % 100, Printable(p.command_line));
    text += line.substr(0, columns) + "\n";
  }
  return text;
}

// False once SIGINT or SIGTERM has come.
bool Pause(const sigset_t& ends, double seconds) {
  timespec t{.tv_sec = static_cast<time_t>(seconds),
             .tv_nsec = static_cast<long>((seconds - static_cast<double>(static_cast<time_t>(seconds))) * 1e9)};
  return sigtimedwait(&ends, nullptr, &t) < 0;
}

int Top(const Flags& flags, const container::Settings& settings, const std::string& id, double seconds, bool once) {
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGTERM);
  sigprocmask(SIG_BLOCK, &ends, nullptr);
  const bool screen = isatty(STDOUT_FILENO) && !once;
  container::Outcome<Sample> before = Take(settings, id);
  if (!before) return Fail(flags, before.error().text, before.error().code);
  while (Pause(ends, seconds)) {
    container::Outcome<Sample> now = Take(settings, id);
    if (!now) {
      container::Outcome<container::State> state = container::Look(settings, id);
      if (!once && (!state || state->CurrentStatus() == container::Status::kStopped)) return 0;
      return Fail(flags, now.error().text, now.error().code);
    }
    winsize size{};
    const bool sized = screen && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 && size.ws_col > 0;
    // console_codes(4): to the first line, and the rest of the screen erased.
    fmt::print("{}{}{}", screen ? "\033[H\033[J" : "",
               Table(id, *before, *now, sized ? size.ws_row : SIZE_MAX, sized ? size.ws_col : std::string::npos),
               screen || once ? "" : "\n");
    if (std::fflush(stdout) != 0 || once) return 0;
    before = std::move(now);
  }
  return 0;
}

}  // namespace

void AddTop(CLI::App& app, Context& context) {
  struct Args {
    std::string id, interval = "1s";
    bool once = false;
  };
  CLI::App* command = app.add_subcommand("top", "show a container's processes and what they use, again and again");
  auto args = std::make_shared<Args>();
  command->add_flag("--once", args->once, "one table, of one interval");
  command->add_option("--interval", args->interval, "how often, as 500ms, 5s, 1m")->capture_default_str();
  command->add_option("ID", args->id, "the container's name")->required();
  command->footer("Ends with ^C, or with the container.");
  command->callback([&context, args] {
    context.action = [&context, args]() -> int {
      double seconds = 0;
      if (!ParseInterval(args->interval, &seconds)) {
        return Fail(context.flags, fmt::format("--interval {}: is no time, as 500ms, 5s or 1m", args->interval));
      }
      return With(context.flags,
                  [&](const auto& settings) { return Top(context.flags, settings, args->id, seconds, args->once); });
    };
  });
}

}  // namespace redoubt::cmd
