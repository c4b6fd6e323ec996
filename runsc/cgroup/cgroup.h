// Control groups of the host that hold a whole sandbox: cgroups(7), both versions. One directory in each hierarchy of
// version 1 that is mounted, or one of version 2.
#ifndef REDOUBT_RUNSC_CGROUP_CGROUP_H_
#define REDOUBT_RUNSC_CGROUP_CGROUP_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "pkg/fd/unique_fd.h"
#include "runsc/specutils/spec.h"

namespace redoubt::cgroup {

using specutils::Expected;

// Where the host has mounted control groups.
struct Hierarchy {
  std::string mount_point;
  std::vector<std::string> controllers;  // version 1; "name=systemd" too
  bool unified = false;                  // version 2
};
// From the text of /proc/self/mountinfo.
std::vector<Hierarchy> ParseHierarchies(const std::string& mountinfo);
std::vector<Hierarchy> HostHierarchies();

// With `systemd`, an error where it does not run (sd_booted(3)).
Expected<void> CheckDriver(bool systemd);
// `linux.cgroupsPath` as a path below each mount point. With `systemd`, "slice:prefix:name" is where systemd would have
// put it: /a.slice/a-b.slice/prefix-name.scope. Empty: "/ID".
Expected<std::string> ResolvePath(const std::string& cgroups_path, const std::string& id, bool systemd);

// How many processors a list as "0-2,7" names; 0 for an empty or malformed one.
int CountCpus(const std::string& list);

// The files that bound resources, and what is written to them, in order.
struct Setting {
  std::string controller;  // "memory", "cpu", "cpuset", "pids"
  std::string file;
  std::string value;
};
Expected<std::vector<Setting>> SettingsV1(const specutils::Resources& resources);
Expected<std::vector<Setting>> SettingsV2(const specutils::Resources& resources);

class Cgroup final {
 public:
  // Makes the directories with their parents. Parents that were there already are not removed at the end. The error
  // names the directory. Nothing is left behind by a failure.
  static Expected<Cgroup> Create(const std::string& path);
  // Of directories that `made` has told of.
  explicit Cgroup(std::vector<std::string> directories) : directories_(std::move(directories)) {}

  // Refuses what the host has no controller for, rather than not to enforce it.
  Expected<void> Set(const specutils::Resources& resources) const;
  // A process that writes "0" to each of these has entered.
  Expected<std::vector<UniqueFd>> OpenProcs() const;
  // Directories to remove, innermost first.
  const std::vector<std::string>& directories() const { return directories_; }
  // Waits a little for processes that are just ending. The error names what could not be removed.
  Expected<void> Remove() const;

  // Bytes in use, and how often the host has killed for want of memory; absent without that controller.
  std::optional<uint64_t> MemoryUsage() const;
  std::optional<uint64_t> OomKills() const;

 private:
  std::optional<std::string> Directory(const std::string& controller, bool* unified) const;

  std::vector<std::string> directories_;
};

}  // namespace redoubt::cgroup

#endif  // REDOUBT_RUNSC_CGROUP_CGROUP_H_
