#include "runsc/sandbox/namespace_guard.h"

#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#ifndef NSFS_MAGIC
#define NSFS_MAGIC 0x6e736673
#endif

namespace redoubt::sandbox {
namespace {

constexpr char kRemedy[] =
    "use --network=none, or name a network namespace of the container's own in config.json, linux.namespaces";

std::unexpected<std::string> Refuse(const std::string& why) {
  return std::unexpected("--network=sandbox: " + why + "; " + kRemedy);
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

specutils::Expected<void> CheckTakeable(NamespaceChoice choice, std::optional<NamespaceId> target,
                                        std::optional<NamespaceId> of_process_1, std::optional<NamespaceId> caller) {
  if (!target) return Refuse("it cannot be told which network namespace this is");
  if (!of_process_1) {
    return Refuse("/proc/1/ns/net cannot be read, so it cannot be told whether this is the machine's own network");
  }
  if (!caller) return Refuse("/proc/self/ns/net cannot be read");
  if (*target == *of_process_1) {
    return Refuse("this is the machine's own network namespace, whose addresses would be taken from the machine");
  }
  if (choice == NamespaceChoice::kPath && *target == *caller) {
    return Refuse("the path leads to the namespace that runsc itself runs in");
  }
  return {};
}

}  // namespace redoubt::sandbox
