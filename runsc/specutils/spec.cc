#include "runsc/specutils/spec.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "runsc/specutils/fields.h"

namespace redoubt::specutils {
namespace {

using OrderedJson = nlohmann::ordered_json;

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

void ParseCapabilities(Fields& f, const Json& caps, const char* key, uint64_t* out) {
  std::vector<std::string> names;
  f.Strings(caps, "process.capabilities", key, false, &names);
  for (const std::string& name : names) {
    // A capability of a newer kernel is no reason to refuse a container: it is not given.
    if (int n = CapabilityByName(name); n >= 0) *out |= uint64_t{1} << n;
  }
}

void ReadProcess(Fields& f, const Json& p, Process* out) {
  f.Bool(p, "process", "terminal", &out->terminal);
  if (const Json* user = f.Object(p, "process", "user", false)) {
    f.Number(*user, "process.user", "uid", false, &out->uid);
    f.Number(*user, "process.user", "gid", false, &out->gid);
    f.Number(*user, "process.user", "umask", false, &out->umask);
    if (const Json* groups = f.Array(*user, "process.user", "additionalGids", false)) {
      for (const Json& g : *groups) {
        if (!g.is_number_unsigned() || g.get<uint64_t>() > UINT32_MAX) {
          f.Fail("process.user.additionalGids", "must be numbers of 32 bits");
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
  f.Signed(p, "process", "oomScoreAdj", &out->oom_score_adj);
  if (const Json* size = f.Object(p, "process", "consoleSize", false)) {
    f.Number(*size, "process.consoleSize", "height", true, &out->console_rows);
    f.Number(*size, "process.consoleSize", "width", true, &out->console_columns);
  }
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

void ParseHookList(Fields& f, const Json& hooks, const char* key, std::vector<Hook>* out) {
  const Json* list = f.Array(hooks, "hooks", key, false);
  if (list == nullptr) return;
  for (size_t i = 0; i < list->size() && f.ok(); i++) {
    std::string path = fmt::format("hooks.{}[{}]", key, i);
    const Json& h = (*list)[i];
    if (!h.is_object()) {
      f.Fail(path, "must be an object");
      return;
    }
    Hook hook;
    f.String(h, path, "path", true, &hook.path);
    if (f.ok() && !hook.path.starts_with('/')) f.Fail(path + ".path", "must be an absolute path");
    f.Strings(h, path, "args", false, &hook.args);
    f.Strings(h, path, "env", false, &hook.env);
    f.Signed(h, path, "timeout", &hook.timeout_seconds);
    if (f.ok() && h.contains("timeout") && hook.timeout_seconds <= 0) f.Fail(path + ".timeout", "must be positive");
    out->push_back(std::move(hook));
  }
}

void ParseHooks(Fields& f, const Json& json, Hooks* out) {
  const Json* hooks = f.Object(json, "", "hooks", false);
  if (hooks == nullptr) return;
  ParseHookList(f, *hooks, "prestart", &out->prestart);
  ParseHookList(f, *hooks, "createRuntime", &out->create_runtime);
  ParseHookList(f, *hooks, "createContainer", &out->create_container);
  ParseHookList(f, *hooks, "startContainer", &out->start_container);
  ParseHookList(f, *hooks, "poststart", &out->poststart);
  ParseHookList(f, *hooks, "poststop", &out->poststop);
}

void ReadResources(Fields& f, const Json& r, const std::string& path, Resources* out) {
  if (const Json* memory = f.Object(r, path, "memory", false)) {
    f.Signed(*memory, path + ".memory", "limit", &out->memory_limit);
    f.Signed(*memory, path + ".memory", "swap", &out->memory_swap);
    f.Signed(*memory, path + ".memory", "reservation", &out->memory_reservation);
  }
  if (const Json* cpu = f.Object(r, path, "cpu", false)) {
    f.Signed(*cpu, path + ".cpu", "shares", &out->cpu_shares);
    f.Signed(*cpu, path + ".cpu", "quota", &out->cpu_quota);
    f.Signed(*cpu, path + ".cpu", "period", &out->cpu_period);
    f.String(*cpu, path + ".cpu", "cpus", false, &out->cpuset_cpus);
    f.String(*cpu, path + ".cpu", "mems", false, &out->cpuset_mems);
  }
  if (const Json* pids = f.Object(r, path, "pids", false)) f.Signed(*pids, path + ".pids", "limit", &out->pids_limit);
  f.StringMap(r, path, "unified", &out->unified);
}

void ParseSeccomp(Fields& f, const Json& s, Seccomp* out) {
  const std::string at = "linux.seccomp";
  f.String(s, at, "defaultAction", true, &out->default_action);
  f.Optional(s, at, "defaultErrnoRet", &out->default_error);
  f.Strings(s, at, "architectures", false, &out->architectures);
  f.Strings(s, at, "flags", false, &out->flags);
  f.String(s, at, "listenerPath", false, &out->listener_path);
  const Json* rules = f.Array(s, at, "syscalls", false);
  for (size_t i = 0; rules != nullptr && i < rules->size() && f.ok(); i++) {
    const std::string path = fmt::format("{}.syscalls[{}]", at, i);
    const Json& r = (*rules)[i];
    if (!r.is_object()) return f.Fail(path, "must be an object");
    Seccomp::Rule rule;
    f.Strings(r, path, "names", true, &rule.names);
    f.String(r, path, "action", true, &rule.action);
    f.Optional(r, path, "errnoRet", &rule.error);
    const Json* conditions = f.Array(r, path, "args", false);
    for (size_t j = 0; conditions != nullptr && j < conditions->size() && f.ok(); j++) {
      const std::string where = fmt::format("{}.args[{}]", path, j);
      const Json& c = (*conditions)[j];
      if (!c.is_object()) return f.Fail(where, "must be an object");
      Seccomp::Condition condition;
      f.Number(c, where, "index", true, &condition.index);
      f.Number(c, where, "value", true, &condition.value);
      f.Number(c, where, "valueTwo", false, &condition.value_two);
      f.String(c, where, "op", true, &condition.op);
      rule.conditions.push_back(std::move(condition));
    }
    out->rules.push_back(std::move(rule));
  }
}

void ParseIdMappings(Fields& f, const Json& o, const std::string& path, IdMappings* out) {
  for (auto [key, list] : {std::pair{"uidMappings", &out->uids}, std::pair{"gidMappings", &out->gids}}) {
    const Json* mappings = f.Array(o, path, key, false);
    if (mappings == nullptr || mappings->empty()) continue;
    const std::string at = path + "." + key;
    // Not read on and on: what is wrong with so many is said below.
    for (size_t i = 0; i < std::min(mappings->size(), kMaxIdMappings + 1) && f.ok(); i++) {
      const std::string where = fmt::format("{}[{}]", at, i);
      const Json& m = (*mappings)[i];
      if (!m.is_object()) return f.Fail(where, "must be an object");
      IdMapping& mapping = list->emplace_back();
      f.Number(m, where, "containerID", true, &mapping.inside);
      f.Number(m, where, "hostID", true, &mapping.outside);
      f.Number(m, where, "size", true, &mapping.size);
    }
    if (!f.ok()) return;
    if (std::string why = WhyInvalid(*list); !why.empty()) return f.Fail(at, why);
  }
  if (out->uids.empty() != out->gids.empty()) {
    f.Fail(path, "uidMappings and gidMappings must be given together");
  }
}

void ParseMount(Fields& f, const Json& m, const std::string& path, const std::string& bundle, Mount* mount) {
  f.String(m, path, "destination", true, &mount->destination);
  f.String(m, path, "type", false, &mount->type);
  f.String(m, path, "source", false, &mount->source);
  f.Strings(m, path, "options", false, &mount->options);
  if (f.ok() && !mount->destination.starts_with('/')) f.Fail(path + ".destination", "must be an absolute path");
  ParseIdMappings(f, m, path, &mount->mappings);
  if (!mount->mappings.empty()) mount->mapped = Mount::Mapped::kTop;
  for (const std::string& o : mount->options) {
    if (o == "idmap") mount->mapped = Mount::Mapped::kTop;
    if (o == "ridmap") mount->mapped = Mount::Mapped::kTree;
  }
  if (mount->mapped != Mount::Mapped::kNo && !mount->is_bind()) f.Fail(path, "only bind mounts can be ID-mapped");
  if (mount->is_bind() && !mount->source.starts_with('/')) mount->source = bundle + "/" + mount->source;
}

void ParseLinux(Fields& f, const Json& json, Spec* spec) {
  const Json* l = f.Object(json, "", "linux", false);
  if (l == nullptr) return;
  f.Strings(*l, "linux", "maskedPaths", false, &spec->masked_paths);
  f.Strings(*l, "linux", "readonlyPaths", false, &spec->read_only_paths);
  f.String(*l, "linux", "cgroupsPath", false, &spec->cgroups_path);
  ParseIdMappings(f, *l, "linux", &spec->id_mappings);
  std::map<std::string, std::string> sysctls;
  f.StringMap(*l, "linux", "sysctl", &sysctls);
  spec->sysctls.assign(sysctls.begin(), sysctls.end());
  if (const Json* r = f.Object(*l, "linux", "resources", false)) {
    ReadResources(f, *r, "linux.resources", &spec->resources);
  }
  if (const Json* s = f.Object(*l, "linux", "seccomp", false)) ParseSeccomp(f, *s, &spec->seccomp.emplace());
  const Json* namespaces = f.Array(*l, "linux", "namespaces", false);
  for (size_t i = 0; namespaces != nullptr && i < namespaces->size() && f.ok(); i++) {
    std::string path = fmt::format("linux.namespaces[{}]", i);
    if (!(*namespaces)[i].is_object()) {
      f.Fail(path, "must be an object");
      return;
    }
    Namespace ns;
    f.String((*namespaces)[i], path, "type", true, &ns.type);
    f.String((*namespaces)[i], path, "path", false, &ns.path);
    constexpr const char* kTypes[] = {"pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"};
    if (f.ok() && std::find(std::begin(kTypes), std::end(kTypes), ns.type) == std::end(kTypes)) {
      f.Fail(path + ".type", fmt::format("unknown namespace \"{}\"", ns.type));
    }
    for (const Namespace& other : spec->namespaces) {
      if (other.type == ns.type) f.Fail(path + ".type", fmt::format("\"{}\" is given twice", ns.type));
    }
    if (f.ok() && !ns.path.empty() && !ns.path.starts_with('/')) f.Fail(path + ".path", "must be an absolute path");
    spec->namespaces.push_back(std::move(ns));
  }
}

// Of what can be told without parsing: brackets outside of strings.
bool IsShallow(const std::string& text) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); i++) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') i++;
      quoted = c != '"';
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxDepth) return false;
    } else if (c == '}' || c == ']') {
      depth--;
    } else {
      quoted = c == '"';
    }
  }
  return true;
}

Expected<Json> ParseText(const std::string& text, const std::string& file_name) {
  if (text.size() > kMaxText) return std::unexpected(fmt::format("{}: is over {} MiB", file_name, kMaxText >> 20));
  if (!IsShallow(text)) return std::unexpected(fmt::format("{}: nested deeper than {}", file_name, kMaxDepth));
  try {
    Json json = Json::parse(text);
    if (!json.is_object()) return std::unexpected(file_name + ": must be a JSON object");
    return json;
  } catch (const Json::exception& e) {
    return std::unexpected(OneLine(fmt::format("{}: not valid JSON: {}", file_name, e.what())));
  }
}

}  // namespace

std::string OneLine(std::string text) {
  constexpr size_t kLength = 1000;
  if (text.size() > kLength) text.replace(kLength, std::string::npos, "...");
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') c = '?';
  }
  return text;
}

bool Resources::empty() const {
  return !memory_limit && !memory_swap && !memory_reservation && !cpu_shares && !cpu_quota && !cpu_period &&
         cpuset_cpus.empty() && cpuset_mems.empty() && !pids_limit && unified.empty();
}

const Namespace* Spec::FindNamespace(const std::string& type) const {
  for (const Namespace& ns : namespaces) {
    if (ns.type == type) return &ns;
  }
  return nullptr;
}

bool Mount::is_bind() const {
  return type == "bind" ||
         std::any_of(options.begin(), options.end(), [](const std::string& o) { return o == "bind" || o == "rbind"; });
}

bool Mount::read_only() const {
  bool result = false;
  for (const std::string& o : options) {
    if (o == "ro" || o == "rro") result = true;
    if (o == "rw" || o == "rrw") result = false;
  }
  return result;
}

int CapabilityByName(const std::string& name) {
  for (size_t i = 0; i < std::size(kCapabilities); i++) {
    if (name == kCapabilities[i]) return static_cast<int>(i);
  }
  return -1;
}

const char* CapabilityName(int capability) { return kCapabilities[capability]; }

int ResourceByName(const std::string& name) {
  for (size_t i = 0; i < std::size(kResources); i++) {
    if (name == kResources[i]) return static_cast<int>(i);
  }
  return -1;
}

Expected<Spec> ParseConfig(const std::string& text, const std::string& file_name, const std::string& bundle) {
  Expected<Json> parsed = ParseText(text, file_name);
  if (!parsed) return std::unexpected(parsed.error());
  const Json& json = *parsed;
  Fields f(file_name);
  Spec spec;
  f.String(json, "", "ociVersion", true, &spec.oci_version);
  if (f.ok() && !spec.oci_version.starts_with("1.")) {
    f.Fail("ociVersion", fmt::format("version {} is not supported, 1.x is", spec.oci_version));
  }
  if (const Json* process = f.Object(json, "", "process", true)) ReadProcess(f, *process, &spec.process);
  if (const Json* root = f.Object(json, "", "root", true)) {
    f.String(*root, "root", "path", true, &spec.root_path);
    f.Bool(*root, "root", "readonly", &spec.root_read_only);
  }
  if (!spec.root_path.starts_with('/')) spec.root_path = bundle + "/" + spec.root_path;
  f.String(json, "", "hostname", false, &spec.hostname);
  f.String(json, "", "domainname", false, &spec.domainname);
  f.StringMap(json, "", "annotations", &spec.annotations);
  ParseHooks(f, json, &spec.hooks);
  ParseLinux(f, json, &spec);
  if (const Json* mounts = f.Array(json, "", "mounts", false)) {
    for (size_t i = 0; i < mounts->size() && f.ok(); i++) {
      std::string path = fmt::format("mounts[{}]", i);
      const Json& m = (*mounts)[i];
      if (!m.is_object()) {
        f.Fail(path, "must be an object");
        break;
      }
      Mount mount;
      ParseMount(f, m, path, bundle, &mount);
      spec.mounts.push_back(std::move(mount));
    }
  }
  if (!f.ok()) return std::unexpected(f.error());
  return spec;
}

Expected<Process> ParseProcessConfig(const std::string& text, const std::string& file_name) {
  Expected<Json> json = ParseText(text, file_name);
  if (!json) return std::unexpected(json.error());
  Fields f(file_name);
  Process process;
  ReadProcess(f, *json, &process);
  if (!f.ok()) return std::unexpected(f.error());
  return process;
}

Expected<Resources> ParseResourcesConfig(const std::string& text, const std::string& file_name) {
  Expected<Json> json = ParseText(text, file_name);
  if (!json) return std::unexpected(json.error());
  Fields f(file_name);
  Resources resources;
  ReadResources(f, *json, "resources", &resources);
  if (!f.ok()) return std::unexpected(f.error());
  return resources;
}

Expected<std::string> ReadText(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::unexpected(fmt::format("{}: {}", path, std::strerror(errno)));
  std::string text;
  char buffer[16384];
  ssize_t n = 0;
  while (text.size() <= kMaxText && (n = read(fd, buffer, sizeof(buffer))) > 0) {
    text.append(buffer, static_cast<size_t>(n));
  }
  const int error = n < 0 ? errno : 0;
  close(fd);
  if (error != 0) return std::unexpected(fmt::format("{}: {}", path, std::strerror(error)));
  return text;
}

Expected<std::string> ReadBundle(const std::string& bundle) {
  Expected<std::string> text = ReadText(bundle + "/config.json");
  if (text) return text;
  return std::unexpected(fmt::format("{}; `runsc spec --bundle {}` writes one to start from", text.error(), bundle));
}

std::string DefaultConfig(const std::vector<std::string>& args) {
  OrderedJson caps = OrderedJson::array();
  for (const char* name : kDefaultCapabilities) caps.push_back(name);
  auto mount = [](const char* destination, const char* type, const char* source, std::vector<std::string> options) {
    return OrderedJson{{"destination", destination}, {"type", type}, {"source", source}, {"options", options}};
  };
  OrderedJson config = {
      {"ociVersion", "1.2.0"},
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
          {"inheritable", OrderedJson::array()},
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
       {{"maskedPaths",
         {"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
          "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"}},
        {"readonlyPaths", {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}},
        {"namespaces",
         {{{"type", "pid"}}, {{"type", "network"}}, {{"type", "ipc"}}, {{"type", "uts"}}, {{"type", "mount"}}}}}},
  };
  return config.dump(4) + "\n";
}

}  // namespace redoubt::specutils
