// What runsc is asked to run: the parts of an OCI runtime configuration (opencontainers/runtime-spec, config.md) that
// it acts on.
#ifndef REDOUBT_RUNSC_SPECUTILS_SPEC_H_
#define REDOUBT_RUNSC_SPECUTILS_SPEC_H_

#include <linux/filter.h>

#include <cstdint>
#include <expected>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runsc/specutils/id_mappings.h"

namespace redoubt::specutils {

struct Rlimit {
  int resource = 0;  // RLIMIT_*
  uint64_t soft = 0;
  uint64_t hard = 0;
};

struct Mount {
  std::string destination;
  std::string type;
  std::string source;  // on the host, for bind mounts
  std::vector<std::string> options;
  // Of bind mounts. Writes are kept in memory, over a tree that is not changed.
  bool overlay = false;
  // Nobody else changes the tree: what is known of it is not asked for again.
  bool exclusive = false;
  // Of bind mounts: an ID-mapped mount (mount_setattr(2), MOUNT_ATTR_IDMAP), with what is mounted below if it is kTree.
  // Without mappings of its own it has the container's.
  enum class Mapped : uint8_t { kNo, kTop, kTree };
  Mapped mapped = Mapped::kNo;
  IdMappings mappings;
  bool is_bind() const;
  bool read_only() const;
};

struct Process {
  bool terminal = false;
  uint32_t uid = 0;
  uint32_t gid = 0;
  std::vector<uint32_t> groups;
  uint32_t umask = 022;
  std::vector<std::string> args;
  std::vector<std::string> env;
  std::string cwd = "/";
  uint64_t bounding = 0, permitted = 0, effective = 0, inheritable = 0, ambient = 0;  // bit masks by capability number
  bool no_new_privileges = false;
  int oom_score_adj = 0;
  uint16_t console_rows = 0, console_columns = 0;  // 0: not said
  std::vector<Rlimit> rlimits;
};

// A program outside the sandbox that is told of a step of the container's life.
struct Hook {
  std::string path;
  std::vector<std::string> args;  // the first is argv[0]; none: the path
  std::vector<std::string> env;
  int timeout_seconds = 0;  // 0: none
};

struct Hooks {
  std::vector<Hook> prestart, create_runtime, create_container, start_container, poststart, poststop;
};

struct Namespace {
  std::string type;  // as config-linux.md has it: "network", "pid", ...
  std::string path;  // of an existing one; empty: a new one
};

// What control groups of the host hold the whole sandbox to; absent: not limited.
struct Resources {
  std::optional<int64_t> memory_limit;  // bytes; -1: none
  std::optional<int64_t> memory_swap;   // memory and swap
  std::optional<int64_t> memory_reservation;
  std::optional<uint64_t> cpu_shares;
  std::optional<int64_t> cpu_quota;    // µs in a period; -1: none
  std::optional<uint64_t> cpu_period;  // µs
  std::string cpuset_cpus, cpuset_mems;
  std::optional<int64_t> pids_limit;           // -1: none
  std::map<std::string, std::string> unified;  // files of cgroup v2
  bool empty() const;
};

// A filter of system calls, in the words of config-linux.md, "Seccomp". What the words mean is looked at when it is
// compiled (seccomp.h).
struct Seccomp {
  struct Condition {
    uint32_t index = 0;
    uint64_t value = 0, value_two = 0;
    std::string op;
  };
  struct Rule {
    std::vector<std::string> names;
    std::string action;
    std::optional<uint16_t> error;
    std::vector<Condition> conditions;
  };
  std::string default_action;
  std::optional<uint16_t> default_error;
  std::vector<std::string> architectures;
  std::vector<std::string> flags;
  std::string listener_path;
  std::vector<Rule> rules;
};

// The same as the Sentry gets it; empty: none.
struct SeccompProgram {
  std::vector<sock_filter> code;
  bool log = false;  // SECCOMP_FILTER_FLAG_LOG
};

// Where a container's processes get their numbers: pid_namespaces(7).
struct PidNamespace {
  enum class Kind : uint8_t { kSandbox, kOwn, kContainer };
  Kind kind = Kind::kSandbox;  // the sandbox's outermost, which containers without one of their own share
  std::string container;       // kContainer: that one's
};

struct Spec {
  std::string oci_version;
  Process process;
  std::string root_path;  // absolute
  bool root_read_only = false;
  // Writes below / are kept in memory, over a root that is not changed.
  bool root_overlay = false;
  bool root_overlay_on_disk = false;  // kept in a file without a name on the root's file system
  bool root_exclusive = false;        // as Mount::exclusive
  std::string hostname;
  std::string domainname;
  std::vector<Mount> mounts;
  // Of the container's user namespace; empty: it has none, and IDs are the host's. If an existing one is named they are
  // found out by the CLI.
  IdMappings id_mappings;
  PidNamespace pid_namespace;                // found out by the CLI
  std::vector<std::string> masked_paths;     // inside: empty, whatever is there
  std::vector<std::string> read_only_paths;  // inside
  std::vector<std::pair<std::string, std::string>> sysctls;
  SeccompProgram seccomp_program;  // made of `seccomp` by who creates the container
  // The CLI's business; the Sentry is not told.
  std::optional<Seccomp> seccomp;
  Hooks hooks;
  std::map<std::string, std::string> annotations;
  std::vector<Namespace> namespaces;
  const Namespace* FindNamespace(const std::string& type) const;  // null: that of the caller
  std::string cgroups_path;
  Resources resources;  // of which the Sentry is told what a guest may look for: memory, CPU time, tasks
};

// Where the guest's network comes from.
enum class NetworkMode : uint8_t {
  kNone,     // a loopback
  kSandbox,  // the interfaces of a network namespace, with the sandbox's own stack on them
};

// How the sandbox is to be run, whatever the container is.
struct SandboxOptions {
  std::string platform = "auto";
  bool rewrite = true;   // hot system call instructions
  bool io_uring = true;  // host files through a ring, if the host has it
  bool strace = false;
  std::vector<std::string> strace_only;  // names of calls; none: all
  int log_level = 2;                     // log::Level
  int cpus = 1;
  uint64_t memory = 0;          // bytes, as the guest sees its machine
  uint64_t memory_reserve = 0;  // of which its processes and what the Sentry holds for them may not use so many
  NetworkMode network = NetworkMode::kNone;
  bool report_missing = false;
  bool summary = false;         // that, and what was used
  bool allow_weak_box = false;  // a wall that the host does not let us build is done without
  int kvm_device = 0;           // 0: boot is given /dev/kvm; otherwise the errno of why not
};

// Errors are one line that names the file and the field.
template <typename T>
using Expected = std::expected<T, std::string>;

// A text that quotes what somebody else has written, for an error: control characters become '?', the end is cut off.
std::string OneLine(std::string text);

// Bounds of a text: bytes, and objects and arrays in one another.
inline constexpr size_t kMaxText = size_t{16} << 20;
inline constexpr int kMaxDepth = 32;

// A file's text, of which no more is read than ParseConfig and its like need to refuse it.
Expected<std::string> ReadText(const std::string& path);
// The text of BUNDLE/config.json.
Expected<std::string> ReadBundle(const std::string& bundle);
Expected<Spec> ParseConfig(const std::string& text, const std::string& file_name, const std::string& bundle);
// What `exec --process` and `update --resources` are given: config.json's "process" and "linux.resources" alone.
Expected<Process> ParseProcessConfig(const std::string& text, const std::string& file_name);
Expected<Resources> ParseResourcesConfig(const std::string& text, const std::string& file_name);
// What `runsc spec` writes.
std::string DefaultConfig(const std::vector<std::string>& args);

// Capability number of "CAP_CHOWN"; -1 if unknown. Resource number of "RLIMIT_NOFILE"; -1.
int CapabilityByName(const std::string& name);
const char* CapabilityName(int capability);
int ResourceByName(const std::string& name);

}  // namespace redoubt::specutils

#endif  // REDOUBT_RUNSC_SPECUTILS_SPEC_H_
