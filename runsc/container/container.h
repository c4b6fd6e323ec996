// What the commands of runsc do to containers: the lifecycle of the OCI runtime specification (runtime.md). Each call
// locks the container, looks at its state, acts, and writes the state down; a call for which the container is in the
// wrong state fails and changes nothing.
#ifndef REDOUBT_RUNSC_CONTAINER_CONTAINER_H_
#define REDOUBT_RUNSC_CONTAINER_CONTAINER_H_

#include <expected>
#include <functional>
#include <string>
#include <vector>

#include "runsc/container/state.h"
#include "runsc/control/protocol.h"
#include "runsc/specutils/spec.h"

namespace redoubt::container {

// One line that names the container or the file, and what the command exits with.
struct Failure {
  std::string text;
  int code = 1;
};
template <typename T = void>
using Outcome = std::expected<T, Failure>;

enum class Network { kByConfig, kNone, kSandbox };
// Whose writes are kept apart: in memory, those below / in a file on the root's file system (kRootSelf).
enum class Overlay { kNone, kRoot, kRootSelf, kAll };

// What the flags before the command say.
struct Settings {
  std::string root;
  bool systemd_cgroup = false;
  bool ignore_cgroups = false;
  // kByConfig: kSandbox if the configuration has a network namespace.
  Network network = Network::kByConfig;
  Overlay overlay = Overlay::kNone;
  // Nobody but the container changes the root file system, the bind mounts.
  bool root_exclusive = false;
  bool mounts_exclusive = false;
  specutils::SandboxOptions options;
  int log_fd = -1;        // the Sentry's log
  int gofer_log_fd = -1;  // the gofer's
  // For what does not fail the command: one line.
  std::function<void(const std::string&)> warn;
  // For what takes long, while somebody watches; null: nobody does.
  std::function<void(const std::string&)> progress;
};

struct CreateArgs {
  std::string id;
  std::string bundle;
  std::string console_socket;
  std::string pid_file;
  int preserve_fds = 0;
};

// The container's first process is loaded and does not run yet.
Outcome<> Create(const Settings& settings, const CreateArgs& args);
Outcome<> Start(const Settings& settings, const std::string& id);

struct RunArgs {
  CreateArgs create;
  bool detach = false;
  bool keep = false;  // the container's state, once it has ended
};
// Both, and unless detached waits for the end and deletes it. The code to exit with. Passes signals on. To be called
// from a process with one thread.
Outcome<int> Run(const Settings& settings, const RunArgs& args);

// By the specification alone, with no state kept: `runsc do`.
Outcome<int> RunTransient(const Settings& settings, const specutils::Spec& spec);

Outcome<> Kill(const Settings& settings, const std::string& id, int signal, bool all);
Outcome<> Delete(const Settings& settings, const std::string& id, bool force);
Outcome<> Pause(const Settings& settings, const std::string& id);
Outcome<> Resume(const Settings& settings, const std::string& id);
Outcome<> Update(const Settings& settings, const std::string& id, const specutils::Resources& resources);

struct ExecArgs {
  std::string id;
  // Absent: as the container's own process, with `args` and what is set below.
  std::optional<specutils::Process> process;
  std::vector<std::string> args;
  std::string user;  // uid[:gid]
  std::string cwd;
  std::vector<std::string> env;
  std::vector<std::string> capabilities;
  std::vector<uint32_t> groups;
  bool terminal = false;
  bool no_new_privileges = false;
  bool detach = false;
  bool ignore_paused = false;
  int preserve_fds = 0;
  std::string console_socket;
  std::string pid_file;
};
// The code to exit with; 0 at once if detached.
Outcome<int> Exec(const Settings& settings, const ExecArgs& args);

// The state as it is now. Does not wait for commands that act on the container.
Outcome<State> Look(const Settings& settings, const std::string& id);
std::vector<State> List(const Settings& settings);

Outcome<std::vector<control::ProcessInfo>> Processes(const Settings& settings, const std::string& id);
// Those of the host that stand for processes of the container.
Outcome<std::vector<pid_t>> HostPids(const Settings& settings, const std::string& id);
// All of the host that are there for it: the one that stands for its first process, and all that this has started (the
// Sentry, its stubs, the gofer).
Outcome<std::vector<pid_t>> SandboxPids(const Settings& settings, const std::string& id);
struct Measured {
  control::Stats stats;
  std::optional<uint64_t> cgroup_memory;
  std::optional<uint64_t> oom_kills;
};
Outcome<Measured> Measure(const Settings& settings, const std::string& id);
Outcome<std::vector<control::Metric>> Metrics(const Settings& settings, const std::string& id);
Outcome<std::string> Stacks(const Settings& settings, const std::string& id);
// wait(2)'s status of the container's first process, once it has ended.
Outcome<int> Wait(const Settings& settings, const std::string& id);

}  // namespace redoubt::container

#endif  // REDOUBT_RUNSC_CONTAINER_CONTAINER_H_
