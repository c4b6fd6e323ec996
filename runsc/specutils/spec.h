// What runsc is asked to run: the parts of an OCI runtime configuration (opencontainers/runtime-spec, config.md) that
// it acts on, and how the CLI hands them to the boot process.
#ifndef REDOUBT_RUNSC_SPECUTILS_SPEC_H_
#define REDOUBT_RUNSC_SPECUTILS_SPEC_H_

#include <cstdint>
#include <expected>
#include <string>
#include <utility>
#include <vector>

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
  std::vector<Rlimit> rlimits;
};

struct Spec {
  std::string oci_version;
  Process process;
  std::string root_path;  // absolute
  bool root_read_only = false;
  // Writes below / are kept in memory, over a root that is not changed.
  bool root_overlay = false;
  std::string hostname;
  std::vector<Mount> mounts;
  // linux.namespaces has one of type "network"; with a path, unless it is to be a new one.
  bool network_namespace = false;
  std::string network_namespace_path;
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
  int log_level = 2;  // log::Level
  int cpus = 1;
  uint64_t memory = 0;  // bytes the guest may use
  NetworkMode network = NetworkMode::kNone;
  bool report_missing = false;
};

// Errors are one line that names the file and the field.
template <typename T>
using Expected = std::expected<T, std::string>;

// BUNDLE/config.json.
Expected<Spec> LoadBundle(const std::string& bundle);
Expected<Spec> ParseConfig(const std::string& text, const std::string& file_name, const std::string& bundle);
// What `runsc spec` writes.
std::string DefaultConfig(const std::vector<std::string>& args);

// From the CLI to the boot process.
std::string Serialize(const Spec& spec, const SandboxOptions& options);
Expected<std::pair<Spec, SandboxOptions>> Deserialize(const std::string& text);

// Capability number of "CAP_CHOWN"; -1 if unknown. Resource number of "RLIMIT_NOFILE"; -1.
int CapabilityByName(const std::string& name);
int ResourceByName(const std::string& name);

}  // namespace redoubt::specutils

#endif  // REDOUBT_RUNSC_SPECUTILS_SPEC_H_
