#include "runsc/specutils/spec.h"

#include <fmt/format.h>
#include <linux/capability.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

namespace redoubt::specutils {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kCapabilities[] = {"CAP_CHOWN",
                                         "CAP_DAC_OVERRIDE",
                                         "CAP_DAC_READ_SEARCH",
                                         "CAP_FOWNER",
                                         "CAP_FSETID",
                                         "CAP_KILL",
                                         "CAP_SETGID",
                                         "CAP_SETUID",
                                         "CAP_SETPCAP",
                                         "CAP_LINUX_IMMUTABLE",
                                         "CAP_NET_BIND_SERVICE",
                                         "CAP_NET_BROADCAST",
                                         "CAP_NET_ADMIN",
                                         "CAP_NET_RAW",
                                         "CAP_IPC_LOCK",
                                         "CAP_IPC_OWNER",
                                         "CAP_SYS_MODULE",
                                         "CAP_SYS_RAWIO",
                                         "CAP_SYS_CHROOT",
                                         "CAP_SYS_PTRACE",
                                         "CAP_SYS_PACCT",
                                         "CAP_SYS_ADMIN",
                                         "CAP_SYS_BOOT",
                                         "CAP_SYS_NICE",
                                         "CAP_SYS_RESOURCE",
                                         "CAP_SYS_TIME",
                                         "CAP_SYS_TTY_CONFIG",
                                         "CAP_MKNOD",
                                         "CAP_LEASE",
                                         "CAP_AUDIT_WRITE",
                                         "CAP_AUDIT_CONTROL",
                                         "CAP_SETFCAP",
                                         "CAP_MAC_OVERRIDE",
                                         "CAP_MAC_ADMIN",
                                         "CAP_SYSLOG",
                                         "CAP_WAKE_ALARM",
                                         "CAP_BLOCK_SUSPEND",
                                         "CAP_AUDIT_READ",
                                         "CAP_PERFMON",
                                         "CAP_BPF",
                                         "CAP_CHECKPOINT_RESTORE"};
static_assert(std::size(kCapabilities) == CAP_LAST_CAP + 1);

constexpr const char* kResources[] = {"RLIMIT_CPU",      "RLIMIT_FSIZE", "RLIMIT_DATA",   "RLIMIT_STACK",
                                      "RLIMIT_CORE",     "RLIMIT_RSS",   "RLIMIT_NPROC",  "RLIMIT_NOFILE",
                                      "RLIMIT_MEMLOCK",  "RLIMIT_AS",    "RLIMIT_LOCKS",  "RLIMIT_SIGPENDING",
                                      "RLIMIT_MSGQUEUE", "RLIMIT_NICE",  "RLIMIT_RTPRIO", "RLIMIT_RTTIME"};
static_assert(std::size(kResources) == RLIM_NLIMITS);

// What podman and Docker give a container by default.
constexpr const char* kDefaultCapabilities[] = {"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"};

// Reads typed fields; the first error is kept, with the JSON path it was found at.
class Fields final {
 public:
  explicit Fields(std::string file) : file_(std::move(file)) {}
  bool ok() const { return error_.empty(); }
  const std::string& error() const { return error_; }
  void Fail(const std::string& path, const std::string& what) {
    if (error_.empty()) error_ = fmt::format("{}: {}: {}", file_, path, what);
  }

  const Json* Find(const Json& object, const std::string& path, const char* key, bool required, Json::value_t type,
                   const char* type_name) {
    auto it = object.find(key);
    std::string at = path.empty() ? key : path + "." + key;
    if (it == object.end() || it->is_null()) {
      if (required) Fail(at, "missing");
      return nullptr;
    }
    bool number = type == Json::value_t::number_unsigned && it->is_number_integer();
    if (number && it->is_number_integer() && !it->is_number_unsigned()) {
      Fail(at, "must not be negative");
      return nullptr;
    }
    if (it->type() != type && !number) {
      Fail(at, fmt::format("must be {}, is {}", type_name, it->type_name()));
      return nullptr;
    }
    return &*it;
  }
  const Json* Object(const Json& o, const std::string& path, const char* key, bool required) {
    return Find(o, path, key, required, Json::value_t::object, "an object");
  }
  const Json* Array(const Json& o, const std::string& path, const char* key, bool required) {
    return Find(o, path, key, required, Json::value_t::array, "an array");
  }
  void String(const Json& o, const std::string& path, const char* key, bool required, std::string* out) {
    if (const Json* v = Find(o, path, key, required, Json::value_t::string, "a string")) *out = v->get<std::string>();
  }
  void Bool(const Json& o, const std::string& path, const char* key, bool* out) {
    if (const Json* v = Find(o, path, key, false, Json::value_t::boolean, "a boolean")) *out = v->get<bool>();
  }
  template <typename T>
  void Number(const Json& o, const std::string& path, const char* key, bool required, T* out) {
    const Json* v = Find(o, path, key, required, Json::value_t::number_unsigned, "a number");
    if (v == nullptr) return;
    uint64_t n = v->get<uint64_t>();
    if (n > std::numeric_limits<T>::max()) {
      Fail(path.empty() ? key : path + "." + key, fmt::format("{} is too large", n));
      return;
    }
    *out = static_cast<T>(n);
  }
  void Strings(const Json& o, const std::string& path, const char* key, bool required, std::vector<std::string>* out) {
    const Json* a = Array(o, path, key, required);
    if (a == nullptr) return;
    for (size_t i = 0; i < a->size(); i++) {
      if (!(*a)[i].is_string()) {
        Fail(fmt::format("{}.{}[{}]", path, key, i), "must be a string");
        return;
      }
      out->push_back((*a)[i].get<std::string>());
    }
  }

 private:
  const std::string file_;
  std::string error_;
};

void ParseCapabilities(Fields& f, const Json& caps, const char* key, uint64_t* out) {
  std::vector<std::string> names;
  f.Strings(caps, "process.capabilities", key, false, &names);
  for (const std::string& name : names) {
    // A capability of a newer kernel is no reason to refuse a container: it is not given.
    if (int n = CapabilityByName(name); n >= 0) *out |= uint64_t{1} << n;
  }
}

void ParseProcess(Fields& f, const Json& p, Process* out) {
  f.Bool(p, "process", "terminal", &out->terminal);
  if (const Json* user = f.Object(p, "process", "user", false)) {
    f.Number(*user, "process.user", "uid", false, &out->uid);
    f.Number(*user, "process.user", "gid", false, &out->gid);
    f.Number(*user, "process.user", "umask", false, &out->umask);
    if (const Json* groups = f.Array(*user, "process.user", "additionalGids", false)) {
      for (const Json& g : *groups) {
        if (!g.is_number_unsigned()) {
          f.Fail("process.user.additionalGids", "must be numbers");
          break;
        }
        out->groups.push_back(g.get<uint32_t>());
      }
    }
  }
  f.Strings(p, "process", "args", true, &out->args);
  if (f.ok() && out->args.empty()) f.Fail("process.args", "must not be empty");
  f.Strings(p, "process", "env", false, &out->env);
  f.String(p, "process", "cwd", true, &out->cwd);
  if (f.ok() && !out->cwd.starts_with('/')) f.Fail("process.cwd", "must be an absolute path");
  if (const Json* caps = f.Object(p, "process", "capabilities", false)) {
    ParseCapabilities(f, *caps, "bounding", &out->bounding);
    ParseCapabilities(f, *caps, "permitted", &out->permitted);
    ParseCapabilities(f, *caps, "effective", &out->effective);
    ParseCapabilities(f, *caps, "inheritable", &out->inheritable);
    ParseCapabilities(f, *caps, "ambient", &out->ambient);
  }
  f.Bool(p, "process", "noNewPrivileges", &out->no_new_privileges);
  if (const Json* limits = f.Array(p, "process", "rlimits", false)) {
    for (size_t i = 0; i < limits->size() && f.ok(); i++) {
      std::string path = fmt::format("process.rlimits[{}]", i);
      const Json& l = (*limits)[i];
      if (!l.is_object()) {
        f.Fail(path, "must be an object");
        break;
      }
      std::string type;
      Rlimit limit;
      f.String(l, path, "type", true, &type);
      f.Number(l, path, "soft", true, &limit.soft);
      f.Number(l, path, "hard", true, &limit.hard);
      limit.resource = ResourceByName(type);
      if (f.ok() && limit.resource < 0) f.Fail(path + ".type", fmt::format("unknown limit \"{}\"", type));
      for (const Rlimit& other : out->rlimits) {
        if (other.resource == limit.resource) f.Fail(path + ".type", fmt::format("\"{}\" is given twice", type));
      }
      if (f.ok() && limit.soft > limit.hard) f.Fail(path + ".soft", "is over the hard limit");
      out->rlimits.push_back(limit);
    }
  }
}

// Only the network namespace is a matter of the sandbox: the guest's others are all its own.
void ParseNamespaces(Fields& f, const Json& linux_part, Spec* out) {
  const Json* namespaces = f.Array(linux_part, "linux", "namespaces", false);
  for (size_t i = 0; namespaces != nullptr && i < namespaces->size() && f.ok(); i++) {
    const std::string path = fmt::format("linux.namespaces[{}]", i);
    const Json& n = (*namespaces)[i];
    if (!n.is_object()) {
      f.Fail(path, "must be an object");
      break;
    }
    std::string type;
    f.String(n, path, "type", true, &type);
    if (type != "network") continue;
    if (out->network_namespace) f.Fail(path + ".type", "\"network\" is given twice");
    out->network_namespace = true;
    f.String(n, path, "path", false, &out->network_namespace_path);
    if (!out->network_namespace_path.empty() && !out->network_namespace_path.starts_with('/')) {
      f.Fail(path + ".path", "must be an absolute path");
    }
  }
}

}  // namespace

bool Mount::is_bind() const {
  return type == "bind" ||
         std::any_of(options.begin(), options.end(), [](const std::string& o) { return o == "bind" || o == "rbind"; });
}

bool Mount::read_only() const { return std::find(options.begin(), options.end(), "ro") != options.end(); }

int CapabilityByName(const std::string& name) {
  for (size_t i = 0; i < std::size(kCapabilities); i++) {
    if (name == kCapabilities[i]) return static_cast<int>(i);
  }
  return -1;
}

int ResourceByName(const std::string& name) {
  for (size_t i = 0; i < std::size(kResources); i++) {
    if (name == kResources[i]) return static_cast<int>(i);
  }
  return -1;
}

Expected<Spec> ParseConfig(const std::string& text, const std::string& file_name, const std::string& bundle) {
  Json json;
  try {
    json = Json::parse(text);
  } catch (const Json::parse_error& e) {
    return std::unexpected(fmt::format("{}: not valid JSON: {}", file_name, e.what()));
  }
  if (!json.is_object()) return std::unexpected(file_name + ": must be a JSON object");
  Fields f(file_name);
  Spec spec;
  f.String(json, "", "ociVersion", true, &spec.oci_version);
  if (f.ok() && !spec.oci_version.starts_with("1.")) {
    f.Fail("ociVersion", fmt::format("version {} is not supported, 1.x is", spec.oci_version));
  }
  if (const Json* process = f.Object(json, "", "process", true)) ParseProcess(f, *process, &spec.process);
  if (const Json* root = f.Object(json, "", "root", true)) {
    f.String(*root, "root", "path", true, &spec.root_path);
    f.Bool(*root, "root", "readonly", &spec.root_read_only);
  }
  if (!spec.root_path.starts_with('/')) spec.root_path = bundle + "/" + spec.root_path;
  f.String(json, "", "hostname", false, &spec.hostname);
  if (const Json* mounts = f.Array(json, "", "mounts", false)) {
    for (size_t i = 0; i < mounts->size() && f.ok(); i++) {
      std::string path = fmt::format("mounts[{}]", i);
      const Json& m = (*mounts)[i];
      if (!m.is_object()) {
        f.Fail(path, "must be an object");
        break;
      }
      Mount mount;
      f.String(m, path, "destination", true, &mount.destination);
      f.String(m, path, "type", false, &mount.type);
      f.String(m, path, "source", false, &mount.source);
      f.Strings(m, path, "options", false, &mount.options);
      if (f.ok() && !mount.destination.starts_with('/')) f.Fail(path + ".destination", "must be an absolute path");
      if (mount.is_bind() && !mount.source.starts_with('/')) mount.source = bundle + "/" + mount.source;
      spec.mounts.push_back(std::move(mount));
    }
  }
  if (const Json* linux_part = f.Object(json, "", "linux", false)) ParseNamespaces(f, *linux_part, &spec);
  if (!f.ok()) return std::unexpected(f.error());
  return spec;
}

Expected<Spec> LoadBundle(const std::string& bundle) {
  std::string file = bundle + "/config.json";
  std::ifstream in(file);
  if (!in) {
    return std::unexpected(
        fmt::format("{}: {}; `runsc spec --bundle {}` writes one to start from", file, std::strerror(errno), bundle));
  }
  std::string text(std::istreambuf_iterator<char>(in), {});
  return ParseConfig(text, file, bundle);
}

std::string DefaultConfig(const std::vector<std::string>& args) {
  Json caps = Json::array();
  for (const char* name : kDefaultCapabilities) caps.push_back(name);
  auto mount = [](const char* destination, const char* type, const char* source, std::vector<std::string> options) {
    return Json{{"destination", destination}, {"type", type}, {"source", source}, {"options", options}};
  };
  Json config = {
      {"ociVersion", "1.0.2"},
      {"process",
       {{"terminal", false},
        {"user", {{"uid", 0}, {"gid", 0}}},
        {"args", args},
        {"env", {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"}},
        {"cwd", "/"},
        {"capabilities",
         {{"bounding", caps},
          {"effective", caps},
          {"permitted", caps},
          {"inheritable", Json::array()},
          {"ambient", caps}}},
        {"rlimits", {{{"type", "RLIMIT_NOFILE"}, {"hard", 1024}, {"soft", 1024}}}},
        {"noNewPrivileges", true}}},
      {"root", {{"path", "rootfs"}, {"readonly", true}}},
      {"hostname", "runsc"},
      {"mounts",
       {mount("/proc", "proc", "proc", {}),
        mount("/dev", "tmpfs", "tmpfs", {"nosuid", "strictatime", "mode=755", "size=65536k"}),
        mount("/dev/pts", "devpts", "devpts", {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}),
        mount("/dev/shm", "tmpfs", "shm", {"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}),
        mount("/sys", "sysfs", "sysfs", {"nosuid", "noexec", "nodev", "ro"})}},
      {"linux",
       {{"namespaces",
         {{{"type", "pid"}}, {{"type", "network"}}, {{"type", "ipc"}}, {{"type", "uts"}}, {{"type", "mount"}}}}}},
  };
  return config.dump(4) + "\n";
}

std::string Serialize(const Spec& s, const SandboxOptions& o) {
  const Process& p = s.process;
  Json rlimits = Json::array();
  for (const Rlimit& r : p.rlimits) rlimits.push_back({r.resource, r.soft, r.hard});
  Json mounts = Json::array();
  for (const Mount& m : s.mounts) {
    mounts.push_back({{"destination", m.destination}, {"type", m.type}, {"source", m.source}, {"options", m.options}});
  }
  Json json = {{"terminal", p.terminal},
               {"uid", p.uid},
               {"gid", p.gid},
               {"groups", p.groups},
               {"umask", p.umask},
               {"args", p.args},
               {"env", p.env},
               {"cwd", p.cwd},
               {"caps", {p.bounding, p.permitted, p.effective, p.inheritable, p.ambient}},
               {"no_new_privileges", p.no_new_privileges},
               {"rlimits", rlimits},
               {"root_path", s.root_path},
               {"root_read_only", s.root_read_only},
               {"root_overlay", s.root_overlay},
               {"hostname", s.hostname},
               {"mounts", mounts},
               {"network_namespace", s.network_namespace},
               {"network_namespace_path", s.network_namespace_path},
               {"network", o.network},
               {"platform", o.platform},
               {"strace", o.strace},
               {"log_level", o.log_level},
               {"cpus", o.cpus},
               {"memory", o.memory},
               {"rewrite", o.rewrite},
               {"io_uring", o.io_uring},
               {"report_missing", o.report_missing}};
  // Not as text: arguments are bytes and need not be UTF-8.
  std::vector<uint8_t> packed = Json::to_msgpack(json);
  return std::string(packed.begin(), packed.end());
}

Expected<std::pair<Spec, SandboxOptions>> Deserialize(const std::string& text) {
  Spec s;
  SandboxOptions o;
  Process& p = s.process;
  try {
    Json j = Json::from_msgpack(text);
    p.terminal = j.at("terminal");
    p.uid = j.at("uid");
    p.gid = j.at("gid");
    p.groups = j.at("groups").get<std::vector<uint32_t>>();
    p.umask = j.at("umask");
    p.args = j.at("args").get<std::vector<std::string>>();
    p.env = j.at("env").get<std::vector<std::string>>();
    p.cwd = j.at("cwd");
    const Json& caps = j.at("caps");
    p.bounding = caps.at(0);
    p.permitted = caps.at(1);
    p.effective = caps.at(2);
    p.inheritable = caps.at(3);
    p.ambient = caps.at(4);
    p.no_new_privileges = j.at("no_new_privileges");
    for (const Json& r : j.at("rlimits")) p.rlimits.push_back({r.at(0), r.at(1), r.at(2)});
    s.root_path = j.at("root_path");
    s.root_read_only = j.at("root_read_only");
    s.root_overlay = j.at("root_overlay");
    s.hostname = j.at("hostname");
    for (const Json& m : j.at("mounts")) {
      s.mounts.push_back(
          {m.at("destination"), m.at("type"), m.at("source"), m.at("options").get<std::vector<std::string>>()});
    }
    s.network_namespace = j.at("network_namespace");
    s.network_namespace_path = j.at("network_namespace_path");
    o.network = j.at("network");
    o.platform = j.at("platform");
    o.strace = j.at("strace");
    o.log_level = j.at("log_level");
    o.cpus = j.at("cpus");
    o.memory = j.at("memory");
    o.report_missing = j.at("report_missing");
    o.rewrite = j.at("rewrite");
    o.io_uring = j.at("io_uring");
  } catch (const Json::exception& e) {
    return std::unexpected(fmt::format("internal error: launch configuration: {}", e.what()));
  }
  return std::make_pair(std::move(s), std::move(o));
}

}  // namespace redoubt::specutils
