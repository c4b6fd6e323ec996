#include "runsc/specutils/codec.h"

#include <fmt/format.h>

#include <bit>
#include <optional>
#include <utility>

#include "runsc/msgpack/json.h"

namespace redoubt::specutils {
namespace {

using msgpack::Json;
using msgpack::Pack;

template <typename T, typename F>
Expected<T> Unpack(const std::string& bytes, const char* what, F&& fill) {
  auto value = msgpack::Unpack<T>(bytes, std::forward<F>(fill));
  if (!value) return std::unexpected(fmt::format("internal error: {}: {}", what, value.error()));
  return *std::move(value);
}

Json ToJson(const std::vector<IdMapping>& mappings) {
  Json json = Json::array();
  for (const IdMapping& m : mappings) json.push_back(Json::array({m.inside, m.outside, m.size}));
  return json;
}

void MappingsFrom(const Json& j, std::vector<IdMapping>& mappings) {
  for (const Json& m : j) mappings.push_back({m.at(0), m.at(1), m.at(2)});
}

Json ToJson(const Process& p) {
  Json rlimits = Json::array();
  for (const Rlimit& r : p.rlimits) rlimits.push_back(Json::array({r.resource, r.soft, r.hard}));
  return {{"terminal", p.terminal},
          {"uid", p.uid},
          {"gid", p.gid},
          {"groups", p.groups},
          {"umask", p.umask},
          {"args", p.args},
          {"env", p.env},
          {"cwd", p.cwd},
          {"caps", Json::array({p.bounding, p.permitted, p.effective, p.inheritable, p.ambient})},
          {"no_new_privileges", p.no_new_privileges},
          {"oom_score_adj", p.oom_score_adj},
          {"rlimits", rlimits}};
}

void FromJson(const Json& j, Process& p) {
  p.terminal = j.at("terminal");
  p.uid = j.at("uid");
  p.gid = j.at("gid");
  p.groups = j.at("groups").get<std::vector<uint32_t>>();
  p.umask = j.at("umask");
  p.args = j.at("args").get<std::vector<std::string>>();
  p.env = j.at("env").get<std::vector<std::string>>();
  p.cwd = j.at("cwd").get<std::string>();
  const Json& caps = j.at("caps");
  p.bounding = caps.at(0);
  p.permitted = caps.at(1);
  p.effective = caps.at(2);
  p.inheritable = caps.at(3);
  p.ambient = caps.at(4);
  p.no_new_privileges = j.at("no_new_privileges");
  p.oom_score_adj = j.at("oom_score_adj");
  for (const Json& r : j.at("rlimits")) p.rlimits.push_back({r.at(0), r.at(1), r.at(2)});
}

// 0: none.
template <typename T>
uint64_t Limit(const std::optional<T>& limit) {
  return limit && *limit > 0 ? static_cast<uint64_t>(*limit) : 0;
}
template <typename T>
void SetLimit(const Json& j, std::optional<T>& limit) {
  if (const uint64_t n = j.get<uint64_t>(); n > 0 && std::in_range<T>(n)) limit = static_cast<T>(n);
}

}  // namespace

std::string SerializeProcess(const Process& process) { return Pack(ToJson(process)); }

Expected<Process> ParseProcess(const std::string& bytes) { return Unpack<Process>(bytes, "process", FromJson); }

std::string SerializeSpec(const Spec& s) {
  Json mounts = Json::array();
  for (const Mount& m : s.mounts) {
    mounts.push_back({{"destination", m.destination},
                      {"type", m.type},
                      {"source", m.source},
                      {"options", m.options},
                      {"overlay", m.overlay},
                      {"exclusive", m.exclusive}});
  }
  Json sysctls = Json::array();
  for (const auto& [name, value] : s.sysctls) sysctls.push_back(Json::array({name, value}));
  std::vector<uint64_t> seccomp;
  for (const sock_filter& f : s.seccomp_program.code) seccomp.push_back(std::bit_cast<uint64_t>(f));
  return Pack({{"process", ToJson(s.process)},
               {"seccomp", seccomp},
               {"seccomp_log", s.seccomp_program.log},
               {"root_path", s.root_path},
               {"root_read_only", s.root_read_only},
               {"root_overlay", s.root_overlay},
               {"root_overlay_on_disk", s.root_overlay_on_disk},
               {"root_exclusive", s.root_exclusive},
               {"limits", Json::array({Limit(s.resources.memory_limit), Limit(s.resources.cpu_quota),
                                       Limit(s.resources.cpu_period), Limit(s.resources.pids_limit)})},
               {"hostname", s.hostname},
               {"domainname", s.domainname},
               {"uids", ToJson(s.id_mappings.uids)},
               {"gids", ToJson(s.id_mappings.gids)},
               {"pid_namespace", Json::array({static_cast<int>(s.pid_namespace.kind), s.pid_namespace.container})},
               {"masked_paths", s.masked_paths},
               {"read_only_paths", s.read_only_paths},
               {"sysctls", sysctls},
               {"mounts", mounts}});
}

Expected<Spec> ParseSpec(const std::string& bytes) {
  return Unpack<Spec>(bytes, "specification", [](const Json& j, Spec& s) {
    FromJson(j.at("process"), s.process);
    for (uint64_t f : j.at("seccomp").get<std::vector<uint64_t>>()) {
      s.seccomp_program.code.push_back(std::bit_cast<sock_filter>(f));
    }
    s.seccomp_program.log = j.at("seccomp_log");
    s.root_path = j.at("root_path").get<std::string>();
    s.root_read_only = j.at("root_read_only");
    s.root_overlay = j.at("root_overlay");
    s.root_overlay_on_disk = j.at("root_overlay_on_disk");
    s.root_exclusive = j.at("root_exclusive");
    const Json& limits = j.at("limits");
    SetLimit(limits.at(0), s.resources.memory_limit);
    SetLimit(limits.at(1), s.resources.cpu_quota);
    SetLimit(limits.at(2), s.resources.cpu_period);
    SetLimit(limits.at(3), s.resources.pids_limit);
    s.hostname = j.at("hostname").get<std::string>();
    s.domainname = j.at("domainname").get<std::string>();
    MappingsFrom(j.at("uids"), s.id_mappings.uids);
    MappingsFrom(j.at("gids"), s.id_mappings.gids);
    const Json& pid_namespace = j.at("pid_namespace");
    s.pid_namespace.kind = msgpack::EnumFrom(pid_namespace.at(0), PidNamespace::Kind::kContainer);
    s.pid_namespace.container = pid_namespace.at(1).get<std::string>();
    s.masked_paths = j.at("masked_paths").get<std::vector<std::string>>();
    s.read_only_paths = j.at("read_only_paths").get<std::vector<std::string>>();
    for (const Json& v : j.at("sysctls")) {
      s.sysctls.emplace_back(v.at(0).get<std::string>(), v.at(1).get<std::string>());
    }
    for (const Json& m : j.at("mounts")) {
      Mount& mount = s.mounts.emplace_back();
      mount.destination = m.at("destination").get<std::string>();
      mount.type = m.at("type").get<std::string>();
      mount.source = m.at("source").get<std::string>();
      mount.options = m.at("options").get<std::vector<std::string>>();
      mount.overlay = m.at("overlay");
      mount.exclusive = m.at("exclusive");
    }
  });
}

std::string SerializeOptions(const SandboxOptions& o) {
  return Pack({{"platform", o.platform},
               {"strace", o.strace},
               {"strace_only", o.strace_only},
               {"summary", o.summary},
               {"log_level", o.log_level},
               {"cpus", o.cpus},
               {"memory", o.memory},
               {"memory_reserve", o.memory_reserve},
               {"rewrite", o.rewrite},
               {"io_uring", o.io_uring},
               {"network", static_cast<uint8_t>(o.network)},
               {"allow_weak_box", o.allow_weak_box},
               {"kvm_device", o.kvm_device},
               {"report_missing", o.report_missing}});
}

Expected<SandboxOptions> ParseOptions(const std::string& bytes) {
  return Unpack<SandboxOptions>(bytes, "sandbox options", [](const Json& j, SandboxOptions& o) {
    o.platform = j.at("platform").get<std::string>();
    o.strace = j.at("strace");
    o.strace_only = j.at("strace_only").get<std::vector<std::string>>();
    o.summary = j.at("summary");
    o.log_level = j.at("log_level");
    o.cpus = j.at("cpus");
    o.memory = j.at("memory");
    o.memory_reserve = j.at("memory_reserve");
    o.report_missing = j.at("report_missing");
    o.allow_weak_box = j.at("allow_weak_box");
    o.kvm_device = j.at("kvm_device");
    o.network = msgpack::EnumFrom(j.at("network"), NetworkMode::kHost);
    o.rewrite = j.at("rewrite");
    o.io_uring = j.at("io_uring");
  });
}

}  // namespace redoubt::specutils
