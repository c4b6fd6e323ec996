// What a live process may still do, as the kernel tells it in /proc and not as we meant it: for `runsc debug --walls`.
#ifndef REDOUBT_RUNSC_WALLS_WALLS_H_
#define REDOUBT_RUNSC_WALLS_WALLS_H_

#include <sys/types.h>

#include <cstdint>
#include <expected>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace redoubt::walls {

struct Walls {
  pid_t pid = 0;
  std::string name;
  pid_t inner_pid = 0;  // in its innermost PID namespace
  uint32_t uid = 0, gid = 0;
  uint64_t effective = 0, permitted = 0, bounding = 0;  // capabilities
  bool no_new_privs = false;
  int seccomp_mode = 0;     // 2: a filter
  int seccomp_filters = 0;  // how many, one over the other
  int threads = 0;
  int unfiltered_threads = 0;
  // By name as in /proc/PID/ns: whether it is another than the caller's.
  std::vector<std::pair<std::string, bool>> namespaces;
  std::vector<std::string> mounts;        // "MOUNT-POINT TYPE OPTIONS"
  std::vector<std::string> root_entries;  // names in its root, at most a few
  std::vector<std::pair<int, std::string>> descriptors;
  uint64_t core_limit = 0;  // bytes of a core dump
};

// An error is one line: of which process what could not be read, and why.
std::expected<Walls, std::string> Read(pid_t pid);

// For people: some lines for each process; what stands open has a mark.
std::string Describe(std::span<const Walls> processes);

// Both: every process that can be read, and a line for each that cannot.
std::string Describe(std::span<const pid_t> pids);

// The names of the capabilities in a mask, "none", or "all".
std::string CapabilityNames(uint64_t mask);

}  // namespace redoubt::walls

#endif  // REDOUBT_RUNSC_WALLS_WALLS_H_
