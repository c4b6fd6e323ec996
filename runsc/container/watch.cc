// What only looks: state, list, ps, events, wait, debug.
#include <fmt/format.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "runsc/container/internal.h"

namespace redoubt::container {

Outcome<State> Look(const Settings& settings, const std::string& id) {
  if (auto valid = Store::CheckId(id); !valid) return Fail(valid.error());
  Expected<State> state = Store(settings.root).Peek(id);
  if (!state) return Fail(state.error());
  return std::move(*state);
}

std::vector<State> List(const Settings& settings) { return Store(settings.root).List(); }

namespace {

Outcome<control::Reply> AskRunning(const Settings& settings, const std::string& id, control::Method method) {
  Outcome<State> state = Look(settings, id);
  if (!state) return std::unexpected(state.error());
  if (state->CurrentStatus() == Status::kStopped) return Fail(id, "container not running");
  return Ask(settings, *state, {.method = method});
}

}  // namespace

Outcome<std::vector<control::ProcessInfo>> Processes(const Settings& settings, const std::string& id) {
  Outcome<control::Reply> reply = AskRunning(settings, id, control::Method::kProcesses);
  if (!reply) return std::unexpected(reply.error());
  Result<std::vector<control::ProcessInfo>> list = control::ParseProcesses(reply->body);
  if (!list) return Fail(id, "internal error: its sandbox answers nonsense");
  return std::move(*list);
}

Outcome<std::vector<pid_t>> HostPids(const Settings& settings, const std::string& id) {
  Outcome<State> state = Look(settings, id);
  if (!state) return std::unexpected(state.error());
  std::vector<pid_t> pids;
  if (state->CurrentStatus() == Status::kStopped) return pids;
  pids.push_back(state->process.pid);
  for (const HostProcess& p : Store(settings.root).Execs(id)) pids.push_back(p.pid);
  return pids;
}

Outcome<std::vector<pid_t>> SandboxPids(const Settings& settings, const std::string& id) {
  Outcome<State> state = Look(settings, id);
  if (!state) return std::unexpected(state.error());
  if (state->CurrentStatus() == Status::kStopped) return Fail(id, "container not running");
  std::vector<pid_t> pids = {state->process.pid};
  for (size_t i = 0; i < pids.size(); i++) {
    std::error_code error;
    for (const auto& task : std::filesystem::directory_iterator(fmt::format("/proc/{}/task", pids[i]), error)) {
      // Of the thread that has started them (proc(5)).
      std::ifstream children(task.path() / "children");
      for (pid_t child = 0; children >> child;) pids.push_back(child);
    }
  }
  return pids;
}

Outcome<Measured> Measure(const Settings& settings, const std::string& id) {
  Outcome<State> state = Look(settings, id);
  if (!state) return std::unexpected(state.error());
  Outcome<control::Reply> reply = AskRunning(settings, id, control::Method::kStats);
  if (!reply) return std::unexpected(reply.error());
  Result<control::Stats> stats = control::ParseStats(reply->body);
  if (!stats) return Fail(id, "internal error: its sandbox answers nonsense");
  Measured measured{.stats = *stats, .cgroup_memory = {}, .oom_kills = {}};
  if (!state->cgroup_directories.empty()) {
    cgroup::Cgroup group(state->cgroup_directories);
    measured.cgroup_memory = group.MemoryUsage();
    measured.oom_kills = group.OomKills();
  }
  return measured;
}

Outcome<std::vector<control::Metric>> Metrics(const Settings& settings, const std::string& id) {
  Outcome<control::Reply> reply = AskRunning(settings, id, control::Method::kMetrics);
  if (!reply) return std::unexpected(reply.error());
  Result<std::vector<control::Metric>> metrics = control::ParseMetrics(reply->body);
  if (!metrics) return Fail(id, "internal error: its sandbox answers nonsense");
  return std::move(*metrics);
}

Outcome<std::string> Stacks(const Settings& settings, const std::string& id) {
  Outcome<control::Reply> reply = AskRunning(settings, id, control::Method::kStacks);
  if (!reply) return std::unexpected(reply.error());
  return reply->body;
}

Outcome<int> Wait(const Settings& settings, const std::string& id) {
  Outcome<State> state = Look(settings, id);
  if (!state) return std::unexpected(state.error());
  // The relay writes the status down before it ends.
  UniqueFd relay(static_cast<int>(syscall(SYS_pidfd_open, state->process.pid, 0)));
  if (relay && state->CurrentStatus() != Status::kStopped) {
    pollfd p{relay.get(), POLLIN, 0};
    while (poll(&p, 1, -1) < 0) {
    }
  }
  std::ifstream file(fmt::format("{}/{}/exit_status", settings.root, id));
  int status = 0;
  if (file >> status) return status;
  return Fail(id, "its sandbox was killed; how its process would have ended is not known");
}

}  // namespace redoubt::container
