#include "runsc/cgroup/cgroup.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>

namespace redoubt::cgroup {
namespace {

std::string ReadText(const std::string& path) {
  std::ifstream in(path);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::stringstream in(text);
  for (std::string part; std::getline(in, part, separator);) parts.push_back(part);
  return parts;
}

bool Has(const std::vector<std::string>& list, const std::string& word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

Expected<void> WriteFile(const std::string& path, const std::string& value) {
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (fd && write(fd.get(), value.data(), value.size()) == static_cast<ssize_t>(value.size())) return {};
  return std::unexpected(fmt::format("cgroup: \"{}\" to {}: {}", value, path, std::strerror(errno)));
}

// config-linux.md: shares of version 1, 2 to 262144, are weights of version 2, 1 to 10000.
uint64_t WeightOf(uint64_t shares) {
  shares = std::clamp<uint64_t>(shares, 2, 262144);
  return 1 + (shares - 2) * 9999 / 262142;
}

std::string OrMax(int64_t value) { return value < 0 ? "max" : std::to_string(value); }

// Version 1's cpuset wants its values before any process may enter: those of the parent.
void InheritCpuset(const std::string& directory) {
  for (const char* file : {"cpuset.cpus", "cpuset.mems"}) {
    std::string own = ReadText(directory + "/" + file);
    if (own.find_first_not_of(" \n") != std::string::npos) continue;
    std::string parent = ReadText(directory + "/../" + file);
    while (!parent.empty() && parent.back() == '\n') parent.pop_back();
    (void)WriteFile(directory + "/" + file, parent);
  }
}

// Version 2: a controller is there for children only if the parent says so.
void EnableControllers(const std::string& directory) {
  for (const std::string& c : Split(ReadText(directory + "/cgroup.controllers"), ' ')) {
    std::string name = c.substr(0, c.find('\n'));
    if (!name.empty()) (void)WriteFile(directory + "/cgroup.subtree_control", "+" + name);
  }
}

}  // namespace

std::vector<Hierarchy> ParseHierarchies(const std::string& mountinfo) {
  std::vector<Hierarchy> found;
  for (const std::string& line : Split(mountinfo, '\n')) {
    // proc(5): fields, " - ", type, source, super options.
    size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::vector<std::string> fields = Split(line.substr(0, dash), ' ');
    std::vector<std::string> rest = Split(line.substr(dash + 3), ' ');
    if (fields.size() < 5 || rest.size() < 3) continue;
    if (rest[0] == "cgroup2") {
      found.push_back({.mount_point = fields[4], .controllers = {}, .unified = true});
    } else if (rest[0] == "cgroup") {
      Hierarchy h{.mount_point = fields[4], .controllers = {}};
      for (const std::string& option : Split(rest[2], ',')) {
        if (option != "rw" && option != "ro" && option != "xattr") h.controllers.push_back(option);
      }
      found.push_back(std::move(h));
    }
  }
  return found;
}

std::vector<Hierarchy> HostHierarchies() { return ParseHierarchies(ReadText("/proc/self/mountinfo")); }

Expected<void> CheckDriver(bool systemd) {
  struct stat st{};
  if (!systemd || (lstat("/run/systemd/system", &st) == 0 && S_ISDIR(st.st_mode))) return {};
  return std::unexpected(
      std::string("--systemd-cgroup: systemd does not run on this host (there is no /run/systemd/system); leave the "
                  "flag out, and have the engine use its cgroupfs driver"));
}

Expected<std::string> ResolvePath(const std::string& cgroups_path, const std::string& id, bool systemd) {
  std::string path = cgroups_path.empty() ? "/" + id : cgroups_path;
  if (systemd && !cgroups_path.empty()) {
    std::vector<std::string> parts = Split(cgroups_path, ':');
    if (parts.size() != 3) {
      return std::unexpected(fmt::format(
          "linux.cgroupsPath: \"{}\" is not \"slice:prefix:name\", as --systemd-cgroup wants it", cgroups_path));
    }
    // systemd.slice(5): a-b.slice is in a.slice.
    std::string slice = parts[0].empty() ? "system.slice" : parts[0];
    std::string stem = slice.ends_with(".slice") ? slice.substr(0, slice.size() - 6) : slice;
    path.clear();
    for (size_t at = stem.find('-');; at = stem.find('-', at + 1)) {
      path += "/" + stem.substr(0, at) + ".slice";
      if (at == std::string::npos) break;
    }
    path += "/" + (parts[1].empty() ? parts[2] : parts[1] + "-" + parts[2]);
    if (!parts[2].ends_with(".slice")) path += ".scope";
  }
  if (!path.starts_with('/')) path = "/" + path;
  for (const std::string& part : Split(path, '/')) {
    if (part == "..") return std::unexpected(fmt::format("linux.cgroupsPath: \"{}\" has \"..\"", cgroups_path));
  }
  return path;
}

int CountCpus(const std::string& list) {
  int count = 0;
  for (const std::string& part : Split(list, ',')) {
    int first = 0, last = 0;
    switch (std::sscanf(part.c_str(), "%d-%d", &first, &last)) {
      case 1:
        count++;
        break;
      case 2:
        if (first < 0 || last < first || last > 4096) return 0;
        count += last - first + 1;
        break;
      default:
        return 0;
    }
  }
  return count;
}

Expected<std::vector<Setting>> SettingsV1(const specutils::Resources& r) {
  std::vector<Setting> s;
  auto add = [&](const char* controller, const char* file, const auto& value) {
    if (value) s.push_back({controller, file, std::to_string(*value)});
  };
  add("memory", "memory.limit_in_bytes", r.memory_limit);
  add("memory", "memory.memsw.limit_in_bytes", r.memory_swap);
  add("memory", "memory.soft_limit_in_bytes", r.memory_reservation);
  add("cpu", "cpu.shares", r.cpu_shares);
  add("cpu", "cpu.cfs_period_us", r.cpu_period);
  add("cpu", "cpu.cfs_quota_us", r.cpu_quota);
  if (!r.cpuset_cpus.empty()) s.push_back({"cpuset", "cpuset.cpus", r.cpuset_cpus});
  if (!r.cpuset_mems.empty()) s.push_back({"cpuset", "cpuset.mems", r.cpuset_mems});
  if (r.pids_limit) s.push_back({"pids", "pids.max", *r.pids_limit <= 0 ? "max" : std::to_string(*r.pids_limit)});
  return s;
}

Expected<std::vector<Setting>> SettingsV2(const specutils::Resources& r) {
  std::vector<Setting> s;
  if (r.memory_limit) s.push_back({"memory", "memory.max", OrMax(*r.memory_limit)});
  if (r.memory_swap) {
    // The limit of both in version 1, of swap alone in version 2.
    if (*r.memory_swap >= 0 && (!r.memory_limit || *r.memory_limit < 0 || *r.memory_swap < *r.memory_limit)) {
      return std::unexpected(std::string("linux.resources.memory.swap: must not be below memory.limit"));
    }
    s.push_back(
        {"memory", "memory.swap.max", *r.memory_swap < 0 ? "max" : std::to_string(*r.memory_swap - *r.memory_limit)});
  }
  if (r.memory_reservation) s.push_back({"memory", "memory.low", OrMax(*r.memory_reservation)});
  if (r.cpu_shares && *r.cpu_shares != 0) s.push_back({"cpu", "cpu.weight", std::to_string(WeightOf(*r.cpu_shares))});
  if (r.cpu_quota || r.cpu_period) {
    s.push_back(
        {"cpu", "cpu.max", fmt::format("{} {}", OrMax(r.cpu_quota.value_or(-1)), r.cpu_period.value_or(100000))});
  }
  if (!r.cpuset_cpus.empty()) s.push_back({"cpuset", "cpuset.cpus", r.cpuset_cpus});
  if (!r.cpuset_mems.empty()) s.push_back({"cpuset", "cpuset.mems", r.cpuset_mems});
  if (r.pids_limit) s.push_back({"pids", "pids.max", *r.pids_limit <= 0 ? "max" : std::to_string(*r.pids_limit)});
  for (const auto& [file, value] : r.unified) {
    if (file.find('/') != std::string::npos || file.starts_with("cgroup.")) {
      return std::unexpected(fmt::format("linux.resources.unified: \"{}\" is no resource", file));
    }
    s.push_back({file.substr(0, file.find('.')), file, value});
  }
  return s;
}

Expected<Cgroup> Cgroup::Create(const std::string& path) {
  std::vector<std::string> made;  // outermost first, per hierarchy
  std::vector<Hierarchy> hierarchies = HostHierarchies();
  if (hierarchies.empty()) {
    return std::unexpected(
        std::string("cgroup: none is mounted on this host; without linux.resources and "
                    "linux.cgroupsPath none is needed"));
  }
  for (const Hierarchy& h : hierarchies) {
    std::string directory = h.mount_point;
    for (const std::string& part : Split(path, '/')) {
      if (part.empty()) continue;
      if (h.unified) EnableControllers(directory);
      directory += "/" + part;
      if (mkdir(directory.c_str(), 0755) == 0) {
        made.push_back(directory);
      } else if (errno != EEXIST) {
        std::string error = fmt::format("cgroup: {}: {}", directory, std::strerror(errno));
        for (auto d = made.rbegin(); d != made.rend(); ++d) rmdir(d->c_str());
        return std::unexpected(error);
      }
      if (Has(h.controllers, "cpuset")) InheritCpuset(directory);
    }
    // Also the innermost one if it was there: it is what processes enter.
    if (!Has(made, directory)) made.push_back(directory);
  }
  std::reverse(made.begin(), made.end());
  return Cgroup(std::move(made));
}

std::optional<std::string> Cgroup::Directory(const std::string& controller, bool* unified) const {
  for (const Hierarchy& h : HostHierarchies()) {
    for (const std::string& d : directories_) {
      if (!d.starts_with(h.mount_point + "/")) continue;
      // The innermost stands first.
      bool has = h.unified ? Has(Split(ReadText(d + "/cgroup.controllers"), ' '), controller) ||
                                 Has(Split(ReadText(d + "/cgroup.controllers"), ' '), controller + "\n")
                           : Has(h.controllers, controller);
      if (has) {
        *unified = h.unified;
        return d;
      }
      break;
    }
  }
  return std::nullopt;
}

Expected<void> Cgroup::Set(const specutils::Resources& resources) const {
  auto v1 = SettingsV1(resources);
  if (!v1) return std::unexpected(v1.error());
  auto v2 = SettingsV2(resources);
  if (!v2) return std::unexpected(v2.error());
  for (const auto& [file, value] : resources.unified) {
    bool unified = false;
    if (!Directory(file.substr(0, file.find('.')), &unified) || !unified) {
      return std::unexpected(fmt::format(
          "cgroup: linux.resources.unified: {} is of version 2, which does not have it on this host", file));
    }
  }
  auto apply = [&](const std::vector<Setting>& settings, bool want_unified) -> Expected<void> {
    // A limit of memory may not be over that of memory and swap, so it depends on what was there which is to be first:
    // what is refused is tried again after the rest.
    std::vector<Setting> refused;
    for (const Setting& s : settings) {
      bool unified = false;
      std::optional<std::string> directory = Directory(s.controller, &unified);
      if (!directory) {
        return std::unexpected(
            fmt::format("cgroup: {} is to be limited, and this host has no {} controller", s.file, s.controller));
      }
      if (unified != want_unified) continue;
      const std::string path = *directory + "/" + s.file;
      // A kernel that does not count swap.
      if (s.file == "memory.memsw.limit_in_bytes" && access(path.c_str(), F_OK) != 0) continue;
      if (!WriteFile(path, s.value)) refused.push_back({s.controller, path, s.value});
    }
    for (const Setting& s : refused) {
      if (Expected<void> written = WriteFile(s.file, s.value); !written) return written;
    }
    return {};
  };
  if (auto done = apply(*v1, false); !done) return done;
  return apply(*v2, true);
}

Expected<std::vector<UniqueFd>> Cgroup::OpenProcs() const {
  std::vector<UniqueFd> fds;
  for (const Hierarchy& h : HostHierarchies()) {
    for (const std::string& d : directories_) {
      if (!d.starts_with(h.mount_point + "/")) continue;
      UniqueFd fd(open((d + "/cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC));
      if (!fd) return std::unexpected(fmt::format("cgroup: {}/cgroup.procs: {}", d, std::strerror(errno)));
      fds.push_back(std::move(fd));
      break;
    }
  }
  return fds;
}

Expected<void> Cgroup::Remove() const {
  std::string error;
  for (const std::string& d : directories_) {
    // EBUSY: a process that has just been killed is not gone yet, or (a parent) another container is in it.
    for (int tries = 0; tries < 50; tries++) {
      if (rmdir(d.c_str()) == 0 || errno == ENOENT || errno == ENOTEMPTY) {
        break;
      }
      bool has_children = false;
      if (DIR* dir = opendir(d.c_str()); dir != nullptr) {
        while (dirent* e = readdir(dir)) has_children |= e->d_type == DT_DIR && e->d_name[0] != '.';
        closedir(dir);
      }
      if (errno != EBUSY || has_children) break;
      if (tries == 49) error = fmt::format("cgroup: {}: {}", d, std::strerror(EBUSY));
      timespec t{.tv_sec = 0, .tv_nsec = 2'000'000};
      nanosleep(&t, nullptr);
    }
  }
  if (!error.empty()) return std::unexpected(error);
  return {};
}

std::optional<uint64_t> Cgroup::MemoryUsage() const {
  bool unified = false;
  std::optional<std::string> d = Directory("memory", &unified);
  if (!d) return std::nullopt;
  return std::strtoull(ReadText(*d + (unified ? "/memory.current" : "/memory.usage_in_bytes")).c_str(), nullptr, 10);
}

std::optional<uint64_t> Cgroup::OomKills() const {
  bool unified = false;
  std::optional<std::string> d = Directory("memory", &unified);
  if (!d) return std::nullopt;
  for (const std::string& line : Split(ReadText(*d + (unified ? "/memory.events" : "/memory.oom_control")), '\n')) {
    if (line.starts_with("oom_kill ")) return std::strtoull(line.c_str() + 9, nullptr, 10);
  }
  return std::nullopt;
}

}  // namespace redoubt::cgroup
