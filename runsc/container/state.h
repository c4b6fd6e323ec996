// What the CLI remembers of a container between its commands: a directory a container under --root.
//
//   ROOT/ID/state.json    this struct; replaced by renaming
//   ROOT/ID/config.json   the bundle's, as it was at create: exec's defaults, hooks
//   ROOT/ID/control.sock  where the Sentry listens (of the sandbox's first container)
//   ROOT/ID/network       what was taken over of the network namespace, to be given back at the end
//   ROOT/ID/lock          flock(2), held by each command while it looks and acts
//   ROOT/ID/execs/PID     a detached exec's process outside: when it started, so that a reused number is not taken for
//   it
#ifndef REDOUBT_RUNSC_CONTAINER_STATE_H_
#define REDOUBT_RUNSC_CONTAINER_STATE_H_

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "pkg/fd/unique_fd.h"
#include "runsc/specutils/spec.h"

namespace redoubt::container {

using specutils::Expected;

// A process of the host, told from a later one of the same number by when it started.
struct HostProcess {
  pid_t pid = 0;
  uint64_t started = 0;  // field 22 of /proc/PID/stat

  // 0 and false if there is none.
  static HostProcess Of(pid_t pid);
  // Not while it is a zombie.
  bool Alive() const;
};

// As runtime.md of the OCI specification names them, and "paused", which engines know.
enum class Status { kCreating, kCreated, kRunning, kPaused, kStopped };
const char* Name(Status status);

struct State {
  std::string id;
  std::string sandbox;  // ID of the container whose Sentry this one is in; its own for the first
  std::string bundle;
  std::string rootfs;
  std::string created;  // RFC 3339
  std::string owner;
  std::map<std::string, std::string> annotations;
  std::string cgroups_path;
  std::vector<std::string> cgroup_directories;  // made for it, to be removed with it
  specutils::IdMappings id_mappings;            // of its user namespace; empty: it has none
  HostProcess process;                          // stands for the container's first process outside
  HostProcess boot;                             // the Sentry
  bool takes_network = false;                   // start is to take over the network namespace
  uint64_t network_namespace = 0;               // which one it was: the inode of its file (namespaces(7))
  // What was last done with it; CurrentStatus() tells how it is.
  Status status = Status::kCreating;

  Status CurrentStatus() const;
  // The document that the specification gives to hooks, to `state` and to `list`.
  std::string ToJson(bool indent) const;
};

// A container's directory, locked: nobody else acts on the container meanwhile. Unlocked when it dies, also by SIGKILL.
class Entry final {
 public:
  const std::string& path() const { return path_; }
  State& state() { return state_; }
  const State& state() const { return state_; }
  std::string control_socket() const { return path_ + "/control.sock"; }
  // The error names the file.
  Expected<void> Save() const;
  Expected<void> SaveConfig(const std::string& text) const;
  Expected<std::string> LoadConfig() const;
  // What was taken over of the network namespace (specutils::SerializeNetwork); absent: nothing.
  Expected<void> SaveNetwork(const std::string& bytes) const;
  std::optional<std::string> LoadNetwork() const;
  // The container is gone: the whole directory.
  Expected<void> Remove();
  // Detached execs that are still there.
  std::vector<HostProcess> Execs() const;
  Expected<void> AddExec(const HostProcess& process) const;

 private:
  friend class Store;
  std::string path_;
  UniqueFd lock_;
  State state_;
};

// The directory of all containers.
class Store final {
 public:
  explicit Store(std::string root) : root_(std::move(root)) {}

  // Letters, digits and "_+-.", as runc; not "." or "..". The error says so.
  static Expected<void> CheckId(const std::string& id);

  // A new entry with status kCreating. One that a killed `create` has left half made is taken over.
  Expected<Entry> Create(const std::string& id) const;
  // "container "ID" does not exist", or why its state cannot be read. Waits while another command acts on it.
  Expected<Entry> Open(const std::string& id) const;
  // Also if its state cannot be read; the state is then empty but for the ID. For `delete --force`.
  Expected<Entry> OpenBroken(const std::string& id) const;
  bool Exists(const std::string& id) const;
  // Without the lock: as it was last saved.
  Expected<State> Peek(const std::string& id) const;
  // Detached execs of it that are still there.
  std::vector<HostProcess> Execs(const std::string& id) const;
  // Without locks: what each was when it was last saved.
  std::vector<State> List() const;

 private:
  Expected<Entry> Lock(const std::string& id) const;

  const std::string root_;
};

}  // namespace redoubt::container

#endif  // REDOUBT_RUNSC_CONTAINER_STATE_H_
