#include "runsc/walls/walls.h"

#include <dirent.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>

namespace redoubt::walls {
namespace {

constexpr size_t kMaxRootEntries = 8;
constexpr size_t kMaxDescriptorsShown = 40;

// linux/capability.h, in order.
constexpr const char* kCapabilities[] = {"chown",
                                         "dac_override",
                                         "dac_read_search",
                                         "fowner",
                                         "fsetid",
                                         "kill",
                                         "setgid",
                                         "setuid",
                                         "setpcap",
                                         "linux_immutable",
                                         "net_bind_service",
                                         "net_broadcast",
                                         "net_admin",
                                         "net_raw",
                                         "ipc_lock",
                                         "ipc_owner",
                                         "sys_module",
                                         "sys_rawio",
                                         "sys_chroot",
                                         "sys_ptrace",
                                         "sys_pacct",
                                         "sys_admin",
                                         "sys_boot",
                                         "sys_nice",
                                         "sys_resource",
                                         "sys_time",
                                         "sys_tty_config",
                                         "mknod",
                                         "lease",
                                         "audit_write",
                                         "audit_control",
                                         "setfcap",
                                         "mac_override",
                                         "mac_admin",
                                         "syslog",
                                         "wake_alarm",
                                         "block_suspend",
                                         "audit_read",
                                         "perfmon",
                                         "bpf",
                                         "checkpoint_restore"};
static_assert(std::size(kCapabilities) == CAP_LAST_CAP + 1);

using Fields = std::map<std::string, std::string>;

// "Name:\tvalue" lines.
std::expected<Fields, std::string> ReadFields(const std::string& path) {
  std::ifstream in(path);
  if (!in) return std::unexpected(fmt::format("{}: {}", path, std::strerror(errno)));
  Fields fields;
  for (std::string line; std::getline(in, line);) {
    size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    size_t value = line.find_first_not_of(" \t", colon + 1);
    fields[line.substr(0, colon)] = value == std::string::npos ? "" : line.substr(value);
  }
  return fields;
}

uint64_t Number(const Fields& fields, const char* name, int base = 10) {
  auto it = fields.find(name);
  return it == fields.end() ? 0 : std::strtoull(it->second.c_str(), nullptr, base);
}

// The last word: of "NSpid: 12 1" the innermost.
uint64_t LastNumber(const Fields& fields, const char* name) {
  auto it = fields.find(name);
  if (it == fields.end()) return 0;
  return std::strtoull(it->second.c_str() + it->second.find_last_of(" \t") + 1, nullptr, 10);
}

std::string Link(const std::string& path) {
  char text[4096];
  ssize_t n = readlink(path.c_str(), text, sizeof(text));
  return n < 0 ? std::string() : std::string(text, static_cast<size_t>(n));
}

std::vector<std::string> Names(const std::string& directory, size_t most) {
  std::vector<std::string> names;
  std::unique_ptr<DIR, int (*)(DIR*)> d(opendir(directory.c_str()), &closedir);
  if (!d) return names;
  while (const dirent* e = readdir(d.get())) {
    if (std::strcmp(e->d_name, ".") == 0 || std::strcmp(e->d_name, "..") == 0) continue;
    if (names.size() == most) {
      names.push_back("...");
      break;
    }
    names.push_back(e->d_name);
  }
  return names;
}

int UnfilteredThreads(const std::string& proc) {
  int n = 0;
  for (const std::string& tid : Names(proc + "/task", SIZE_MAX)) {
    auto fields = ReadFields(fmt::format("{}/task/{}/status", proc, tid));
    if (fields && Number(*fields, "Seccomp") != 2) n++;
  }
  return n;
}

// proc(5), /proc/pid/mountinfo: fields 5 and 6, and after the "-" the type.
std::vector<std::string> Mounts(const std::string& proc) {
  std::vector<std::string> mounts;
  std::ifstream in(proc + "/mountinfo");
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string word, point, options, type;
    for (int i = 0; i < 4; i++) words >> word;
    words >> point >> options;
    while (words >> word && word != "-") {
    }
    words >> type;
    mounts.push_back(fmt::format("{} {} {}", point, type, options));
  }
  return mounts;
}

std::string Mark(bool good) { return good ? " " : "!"; }

}  // namespace

std::string CapabilityNames(uint64_t mask) {
  constexpr uint64_t kAll = (uint64_t{1} << std::size(kCapabilities)) - 1;
  if (mask == 0) return "none";
  if ((mask & kAll) == kAll) return "all";
  std::string names;
  for (size_t i = 0; i < 64; i++) {
    if ((mask >> i & 1) == 0) continue;
    names += names.empty() ? "" : " ";
    names += i < std::size(kCapabilities) ? kCapabilities[i] : fmt::format("{}", i);
  }
  return names;
}

std::expected<Walls, std::string> Read(pid_t pid) {
  const std::string proc = fmt::format("/proc/{}", pid);
  auto fields = ReadFields(proc + "/status");
  if (!fields) return std::unexpected(fmt::format("process {}: {}", pid, fields.error()));
  Walls w;
  w.pid = pid;
  w.name = (*fields)["Name"];
  w.inner_pid = static_cast<pid_t>(LastNumber(*fields, "NSpid"));
  w.uid = static_cast<uint32_t>(Number(*fields, "Uid"));
  w.gid = static_cast<uint32_t>(Number(*fields, "Gid"));
  w.effective = Number(*fields, "CapEff", 16);
  w.permitted = Number(*fields, "CapPrm", 16);
  w.bounding = Number(*fields, "CapBnd", 16);
  w.no_new_privs = Number(*fields, "NoNewPrivs") != 0;
  w.seccomp_mode = static_cast<int>(Number(*fields, "Seccomp"));
  w.seccomp_filters = static_cast<int>(Number(*fields, "Seccomp_filters"));
  w.threads = static_cast<int>(Number(*fields, "Threads"));
  w.unfiltered_threads = UnfilteredThreads(proc);
  for (const char* name : {"user", "pid", "mnt", "net", "ipc", "uts", "cgroup"}) {
    const std::string its = Link(fmt::format("{}/ns/{}", proc, name));
    // Of the same owner, or of root's, the links can be read; who may not look is told so.
    if (its.empty())
      return std::unexpected(fmt::format("process {}: {}/ns/{}: {}", pid, proc, name, std::strerror(errno)));
    w.namespaces.emplace_back(name, its != Link(fmt::format("/proc/self/ns/{}", name)));
  }
  w.mounts = Mounts(proc);
  w.root_entries = Names(proc + "/root/", kMaxRootEntries);
  for (const std::string& fd : Names(proc + "/fd", SIZE_MAX)) {
    w.descriptors.emplace_back(std::atoi(fd.c_str()), Link(proc + "/fd/" + fd));
  }
  std::sort(w.descriptors.begin(), w.descriptors.end());
  rlimit core{};
  w.core_limit = prlimit(pid, RLIMIT_CORE, nullptr, &core) == 0 ? core.rlim_cur : RLIM_INFINITY;
  return w;
}

std::string Describe(std::span<const Walls> processes) {
  std::string text;
  for (const Walls& w : processes) {
    text += fmt::format("{} (pid {}, inside {}), user {}, group {}\n", w.name, w.pid, w.inner_pid, w.uid, w.gid);
    std::string own, shared;
    for (const auto& [name, its_own] : w.namespaces) (its_own ? own : shared) += " " + name;
    text += fmt::format("  {} namespaces: own{}; the caller's{}\n", Mark(shared.empty()), own.empty() ? " none" : own,
                        shared.empty() ? " none" : shared);
    text += fmt::format("  {} capabilities: {}; can ever get: {}\n", Mark(w.effective == 0 && w.permitted == 0),
                        CapabilityNames(w.effective | w.permitted), CapabilityNames(w.bounding));
    text += fmt::format("  {} no_new_privs: {}\n", Mark(w.no_new_privs), w.no_new_privs ? "yes" : "no");
    text += fmt::format("  {} system-call filters: {}; threads without: {} of {}\n",
                        Mark(w.seccomp_mode == 2 && w.unfiltered_threads == 0), w.seccomp_filters, w.unfiltered_threads,
                        w.threads);
    text += fmt::format("  {} root: {}\n", Mark(w.root_entries.empty()),
                        w.root_entries.empty() ? "empty" : fmt::format("{}", fmt::join(w.root_entries, " ")));
    for (size_t i = 0; i < w.mounts.size() && i < kMaxRootEntries; i++)
      text += fmt::format("      mount {}\n", w.mounts[i]);
    if (w.mounts.size() > kMaxRootEntries)
      text += fmt::format("      and {} more\n", w.mounts.size() - kMaxRootEntries);
    text += fmt::format("  {} core dumps: {}\n", Mark(w.core_limit == 0), w.core_limit == 0 ? "none" : "possible");
    text += fmt::format("    descriptors: {}\n", w.descriptors.size());
    for (size_t i = 0; i < w.descriptors.size() && i < kMaxDescriptorsShown; i++) {
      text += fmt::format("      {} {}\n", w.descriptors[i].first, w.descriptors[i].second);
    }
    if (w.descriptors.size() > kMaxDescriptorsShown) {
      text += fmt::format("      and {} more\n", w.descriptors.size() - kMaxDescriptorsShown);
    }
  }
  return text;
}

std::string Describe(std::span<const pid_t> pids) {
  std::string text;
  for (pid_t pid : pids) {
    auto walls = Read(pid);
    text += walls ? Describe(std::span(&*walls, 1)) : walls.error() + "\n";
  }
  return text;
}

}  // namespace redoubt::walls
