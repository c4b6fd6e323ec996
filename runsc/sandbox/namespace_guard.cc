#include "runsc/sandbox/namespace_guard.h"

#include <fmt/core.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <fstream>

#ifndef NSFS_MAGIC
#define NSFS_MAGIC 0x6e736673
#endif

namespace redoubt::sandbox {
namespace {

constexpr char kRemedy[] =
    "use --network=none, or name a network namespace of the container's own in config.json, linux.namespaces";
constexpr int kMaxAncestors = 1000;

std::unexpected<std::string> Refuse(const std::string& why) {
  return std::unexpected("--network=sandbox: " + why + "; " + kRemedy);
}

std::optional<NamespaceId> NamespaceOfProcess(pid_t pid) {
  return NamespaceOfFile(fmt::format("/proc/{}/ns/net", pid));
}

// 0 if it cannot be told.
pid_t ParentOf(pid_t pid) {
  std::ifstream in(fmt::format("/proc/{}/status", pid));
  for (std::string word; in >> word;) {
    if (word != "PPid:") continue;
    pid_t parent = 0;
    in >> parent;
    return in ? parent : 0;
  }
  return 0;
}

}  // namespace

std::optional<NamespaceId> NamespaceOfFile(const std::string& path) {
  struct stat st{};
  struct statfs fs{};
  if (statfs(path.c_str(), &fs) != 0 || fs.f_type != NSFS_MAGIC) return std::nullopt;
  if (stat(path.c_str(), &st) != 0) return std::nullopt;
  return NamespaceId{st.st_dev, st.st_ino};
}

std::optional<NamespaceId> NamespaceOfFd(int fd) {
  struct stat st{};
  struct statfs fs{};
  if (fstatfs(fd, &fs) != 0 || fs.f_type != NSFS_MAGIC || fstat(fd, &st) != 0) return std::nullopt;
  return NamespaceId{st.st_dev, st.st_ino};
}

std::optional<NamespaceId> NamespaceOfMachine() {
  if (std::optional<NamespaceId> of_process_1 = NamespaceOfProcess(1)) return of_process_1;
  std::optional<NamespaceId> outermost;
  pid_t pid = getppid();
  for (int i = 0; i < kMaxAncestors && pid > 0; i++, pid = ParentOf(pid)) {
    if (std::optional<NamespaceId> of_ancestor = NamespaceOfProcess(pid)) outermost = of_ancestor;
  }
  return outermost;
}

std::optional<bool> InInitialNamespace() {
  if (access("/proc/sys/net/core/somaxconn", F_OK) != 0) return std::nullopt;
  return access("/proc/sys/net/core/netdev_max_backlog", F_OK) == 0;
}

specutils::Expected<void> CheckTakeable(NamespaceChoice choice, const NamespaceEvidence& e) {
  if (!e.target || !e.target_is_initial) return Refuse("it cannot be told which network namespace this is");
  if (!e.caller) return Refuse("/proc/self/ns/net cannot be read");
  if (!e.machine) {
    return Refuse(
        "neither /proc/1/ns/net nor that of an ancestor can be read, so it cannot be told whether this is the "
        "machine's own network");
  }
  if (*e.target_is_initial || *e.target == *e.machine) {
    return Refuse("this is the machine's own network namespace, whose addresses would be taken from the machine");
  }
  if (choice == NamespaceChoice::kPath && *e.target == *e.caller) {
    return Refuse("the path leads to the namespace that runsc itself runs in");
  }
  return {};
}

}  // namespace redoubt::sandbox
