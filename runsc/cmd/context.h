// What the files of this library share: the flags before the command, and how a command fails.
#ifndef REDOUBT_RUNSC_CMD_CONTEXT_H_
#define REDOUBT_RUNSC_CMD_CONTEXT_H_

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "runsc/container/container.h"
#include "runsc/specutils/spec.h"

namespace CLI {
class App;
}

namespace redoubt::cmd {

inline constexpr char kVersion[] = "0.2";

struct Flags {
  std::string root;
  std::string log;
  std::string log_format = "text";
  std::string platform = "auto";
  std::string network;
  std::string debug_log;
  std::string rootless = "auto";
  std::string overlay2 = "none";
  std::string file_access = "shared";
  std::string file_access_mounts = "shared";
  bool systemd_cgroup = false;
  bool ignore_cgroups = false;
  bool debug = false;
  bool strace = false;
  std::string strace_syscalls;
  bool summary = false;
  // The command starts a sandbox, which logs.
  bool starts_sandbox = false;
  bool report_missing = false;
  bool rewrite = true;
  bool io_uring = true;
  bool allow_weak_box = false;
  int cpus = 0;
  uint64_t memory_mib = 0;
};

struct Context {
  Flags flags;
  // What followed the first "--" after do, exec or spec.
  std::optional<std::vector<std::string>> command;
  // What the command line asks for; set while it is parsed.
  std::function<int()> action;
};

// Writes the error to stderr and, for engines, to --log. Returns `code`.
int Fail(const Flags& flags, const std::string& what, int code = 1);
void Warn(const Flags& flags, const std::string& what);
int Finish(const Flags& flags, const container::Outcome<>& outcome);
int Finish(const Flags& flags, const container::Outcome<int>& outcome);

// Opens the debug log. The error says which flag is wrong.
specutils::Expected<container::Settings> ToSettings(const Flags& flags);
// The words of a guest's command, of which the parser has seen those before a "--" alone.
void AppendCommand(const Context& context, std::vector<std::string>& words);
// As a command that takes settings runs: an error of the flags ends it.
int With(const Flags& flags, const std::function<int(const container::Settings&)>& command);

// Each declares some commands, whose callbacks set Context::action.
void AddLifecycle(CLI::App& app, Context& context);
void AddProcesses(CLI::App& app, Context& context);
void AddWatching(CLI::App& app, Context& context);
void AddTransient(CLI::App& app, Context& context);
void AddSpec(CLI::App& app, Context& context);
void AddTools(CLI::App& app, Context& context);

void AddTop(CLI::App& app, Context& context);
void AddMetrics(CLI::App& app, Context& context);

std::string PrometheusText(const std::string& id, const std::vector<control::Metric>& metrics);
// What a guest has named, for a terminal: control characters are shown, not sent.
std::string Printable(const std::string& text);
// "500ms", "5s", "1m", "2". False: is none.
bool ParseInterval(const std::string& text, double* seconds);
// "TERM", "SIGTERM", "15", "RTMIN+3". -1: no such signal.
int ParseSignal(const std::string& text);

}  // namespace redoubt::cmd

#endif  // REDOUBT_RUNSC_CMD_CONTEXT_H_
