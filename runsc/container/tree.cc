#include "runsc/container/tree.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/mount.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "pkg/fd/unique_fd.h"
#include "runsc/box/user_namespace.h"

namespace redoubt::container {
namespace {

std::unexpected<std::string> Fail(const std::string& what) {
  return std::unexpected(fmt::format("cannot show its files to others: {}: {}", what, std::strerror(errno)));
}

// open_tree(2): a detached copy of what is mounted there.
UniqueFd CopyOf(const std::string& path) {
  return UniqueFd(static_cast<int>(
      syscall(SYS_open_tree, AT_FDCWD, path.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE)));
}

}  // namespace

specutils::Expected<void> EnterTree(const specutils::Spec& spec) {
  if (unshare(CLONE_NEWNS) != 0) {
    // Of an ordinary user's container: who could join the namespace could not have made it either.
    if (errno == EPERM && geteuid() != 0) return {};
    return Fail("unshare");
  }
  // What happens here is nobody else's business.
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return Fail("mount");
  struct Bind {
    std::string destination;
    bool read_only;
    UniqueFd copy;
  };
  std::vector<Bind> binds;
  for (const specutils::Mount& m : spec.mounts) {
    if (!m.is_bind()) continue;
    binds.push_back({m.destination, m.read_only(), CopyOf(m.source)});
    if (!binds.back().copy) return Fail(m.source);
    if (m.mapped == specutils::Mount::Mapped::kNo) continue;
    UniqueFd ids(box::MakeUserNamespace(
        {.uids = specutils::MapText(m.mappings.uids), .gids = specutils::MapText(m.mappings.gids)}));
    if (!ids) return Fail(m.source);
    errno = box::MapTree(binds.back().copy.get(), ids.get(), m.mapped == specutils::Mount::Mapped::kTree);
    if (errno != 0) return Fail(m.source);
  }
  // By a descriptor: if the container's root is the host's, its name leads to what is underneath.
  UniqueFd root = CopyOf(spec.root_path);
  if (!root ||
      syscall(SYS_move_mount, root.get(), "", AT_FDCWD, spec.root_path.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0 ||
      fchdir(root.get()) != 0) {
    return Fail(spec.root_path);
  }
  // pivot_root(2), "pivot_root(".", ".")": the old root is on top of the new one until it is taken off.
  if (syscall(SYS_pivot_root, ".", ".") != 0) return Fail("pivot_root");
  if (umount2(".", MNT_DETACH) != 0 || chdir("/") != 0) return Fail("umount");
  for (const Bind& b : binds) {
    // A mount point that was made in memory is not there; symbolic links lead to where they lead inside.
    if (syscall(SYS_move_mount, b.copy.get(), "", AT_FDCWD, b.destination.c_str(),
                MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS) != 0) {
      if (errno == ENOENT || errno == ENOTDIR) continue;
      return Fail(b.destination);
    }
    if (b.read_only) (void)mount(nullptr, b.destination.c_str(), nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr);
  }
  if (spec.root_read_only) (void)mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr);
  return {};
}

}  // namespace redoubt::container
