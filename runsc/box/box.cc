#include "runsc/box/box.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "runsc/box/walls_unsafe.h"

namespace redoubt::box {
namespace {

constexpr uint64_t Bit(int capability) { return uint64_t{1} << capability; }
// What a file server that acts for all users of a container needs. Not CAP_DAC_READ_SEARCH, which opens files by
// handles, nor CAP_MKNOD, CAP_SYS_ADMIN (trusted.* attributes) and CAP_SETFCAP.
constexpr uint64_t kFileCapabilities = Bit(CAP_CHOWN) | Bit(CAP_DAC_OVERRIDE) | Bit(CAP_FOWNER) | Bit(CAP_FSETID);

constexpr char kHint[] =
    "the host may forbid it here (a container, sysctl user.max_*_namespaces, an LSM); --allow-weak-box does without";

// Collects what fails. The first failure that may not be is the box's.
class Builder final {
 public:
  explicit Builder(bool allow_weak) : allow_weak_(allow_weak) {}

  // Whether this namespace (CLONE_NEW*) is the process' own. What would change the host's must ask.
  bool Has(int flag) const { return (own_ & flag) != 0; }
  void Own(int flag) { own_ |= flag; }

  // False if the box cannot go on.
  bool Add(const char* wall, int error) {
    if (error == 0) return true;
    std::string line = fmt::format("{}: {}", wall, std::strerror(error));
    if (!allow_weak_) {
      failure_ = fmt::format("cannot build the box: {}; {}", line, kHint);
      return false;
    }
    missing_.push_back(std::move(line));
    return true;
  }
  std::unexpected<std::string> failure() { return std::unexpected(std::move(failure_)); }
  Missing Take() { return std::move(missing_); }

 private:
  const bool allow_weak_;
  int own_ = 0;
  Missing missing_;
  std::string failure_;
};

struct Namespace {
  int flag;
  const char* wall;
};
constexpr Namespace kNamespaces[] = {
    {CLONE_NEWNS, "mount namespace"},    {CLONE_NEWIPC, "IPC namespace"},       {CLONE_NEWUTS, "UTS namespace"},
    {CLONE_NEWNET, "network namespace"}, {CLONE_NEWCGROUP, "cgroup namespace"},
};

// In one call, which is quicker; one by one to find what the host refuses.
bool NewNamespaces(Builder& b) {
  int all = 0;
  for (const Namespace& n : kNamespaces) all |= n.flag;
  if (NewNamespace(all) == 0) {
    b.Own(all);
    return true;
  }
  for (const Namespace& n : kNamespaces) {
    const int error = NewNamespace(n.flag);
    if (error == 0) b.Own(n.flag);
    if (!b.Add(n.wall, error)) return false;
  }
  return true;
}

bool CloseOffMounts(Builder& b) { return !b.Has(CLONE_NEWNS) || b.Add("private mounts", MakeMountsPrivate()); }

bool LeaveTheHost(Builder& b) {
  if (b.Has(CLONE_NEWNS) && !b.Add("an empty root", EmptyRoot())) return false;
  return !b.Has(CLONE_NEWUTS) || b.Add("host name", NeutralHostname());
}

// Of a dead process nothing more may happen here.
void DieWith(int parent_pidfd) {
  if (parent_pidfd < 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  pollfd p{parent_pidfd, POLLIN, 0};
  if (poll(&p, 1, 0) > 0) _exit(1);
}

int NoCore() {
  rlimit none{};
  return setrlimit(RLIMIT_CORE, &none) != 0 ? errno : 0;
}

int NoNewPrivileges() { return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ? errno : 0; }

int CloseFrom(int first) { return close_range(static_cast<unsigned>(first), ~0U, 0) != 0 ? errno : 0; }

// Both boxes' end: what needs no privilege, and the end of privileges.
bool Finish(Builder& b, uint64_t capabilities) {
  return b.Add("capabilities", DropCapabilities(capabilities)) && b.Add("no_new_privs", NoNewPrivileges()) &&
         b.Add("no core dumps", NoCore());
}

int MapIdsOf(const Tree& tree) {
  if (tree.ids.empty()) return 0;
  const int user_namespace = MakeUserNamespace(tree.ids);
  if (user_namespace < 0) return errno;
  const int error = MapTree(tree.fd, user_namespace, tree.maps_all);
  close(user_namespace);
  return error;
}

}  // namespace

unsigned long BirthNamespaces() { return geteuid() == 0 ? CLONE_NEWPID : CLONE_NEWUSER | CLONE_NEWPID; }

bool BeforeExec(int parent_pidfd, unsigned long namespaces, uid_t uid, gid_t gid) {
  // Root of a namespace keeps its capabilities as it executes. If it cannot be mapped, the box will say so.
  if ((namespaces & CLONE_NEWUSER) != 0 && getpid() == 1) (void)MapIds(uid, gid, 0, 0);
  if (parent_pidfd < 0) return true;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  pollfd p{parent_pidfd, POLLIN, 0};
  return poll(&p, 1, 0) == 0;
}

std::expected<Missing, std::string> EnterSentryBox(const Options& options) {
  Builder b(options.allow_weak);
  // A process of the host's own PID namespace is never number 1 but for init, whose sandbox nobody starts.
  if (!b.Add("PID namespace", getpid() == 1 ? 0 : EPERM)) return b.failure();
  if (!b.Add("descriptors", CloseFrom(options.first_closed))) return b.failure();
  if (geteuid() == 0) {
    // IDs that nobody else has, where the host has so many; without privileges there are the caller's own only, and the
    // user namespace must do.
    const pid_t number = OutsidePid();
    if (number > 0 && BecomeUser(kFirstOwnUid + static_cast<uid_t>(number)) != 0) (void)BecomeUser(kNobody);
  }
  const uid_t uid = geteuid();
  const gid_t gid = getegid();
  if (!b.Add("user namespace", NewUserNamespace(uid, gid, kNobody, kNobody))) return b.failure();
  if (!NewNamespaces(b)) return b.failure();
  if (!CloseOffMounts(b) || !LeaveTheHost(b)) return b.failure();
  if (!Finish(b, 0)) return b.failure();
  // The change of the user has undone what was asked before (prctl(2), PR_SET_PDEATHSIG).
  DieWith(options.parent_pidfd);
  return b.Take();
}

std::expected<Missing, std::string> EnterGoferBox(const Options& options, std::vector<Tree>& trees, int& self_fd) {
  Builder b(options.allow_weak);
  if (!b.Add("PID namespace", getpid() == 1 ? 0 : EPERM)) return b.failure();
  if (!b.Add("descriptors", CloseFrom(options.first_closed))) return b.failure();
  int user_namespace = -1;
  if (!options.ids.empty() && (user_namespace = MakeUserNamespace(options.ids)) < 0) {
    return std::unexpected(fmt::format("cannot make the container's user namespace: {}", std::strerror(errno)));
  }
  // Without privileges: the owner of files is to be seen as who he is; all others are nobody, to us and to the guest.
  const std::optional<Ids> rootless = options.ids.empty() ? RootlessIds() : std::nullopt;
  if (rootless) {
    const uid_t uid = options.owner_uid < 0 ? rootless->uid : static_cast<uid_t>(options.owner_uid);
    const gid_t gid = options.owner_gid < 0 ? rootless->gid : static_cast<gid_t>(options.owner_gid);
    if (!b.Add("user namespace", NewUserNamespace(0, 0, uid, gid))) return b.failure();
  }
  if (!NewNamespaces(b) || !CloseOffMounts(b)) return b.failure();
  auto open_tree = [&](const char* path, bool recursive, uint64_t attributes) {
    int fd = CloneTree(path, recursive);
    int error = fd < 0 ? errno : RestrictTree(fd, attributes);
    if (fd < 0 && (error == EPERM || error == ENOSYS)) fd = open(path, O_PATH | O_CLOEXEC);
    return std::pair(fd, error);
  };
  for (Tree& tree : trees) {
    auto [fd, error] =
        open_tree(tree.path.c_str(), true,
                  MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | (tree.read_only ? MOUNT_ATTR_RDONLY : 0));
    if (fd < 0) return std::unexpected(fmt::format("cannot serve {}: {}", tree.path, std::strerror(error)));
    tree.fd = fd;
    if (!b.Add("a mount of the tree's own", error)) return b.failure();
    if (const int e = MapIdsOf(tree); e != 0) {
      return std::unexpected(fmt::format("cannot map the IDs of {}: {}{}", tree.path, std::strerror(e),
                                         e == EINVAL ? "; its file system may not have ID-mapped mounts" : ""));
    }
  }
  auto [fd, error] = open_tree("/proc/self/fd", false, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
  if (fd < 0) {
    return std::unexpected(
        fmt::format("/proc/self/fd: {}; the gofer needs /proc mounted on the host", std::strerror(error)));
  }
  self_fd = fd;
  if (!b.Add("a mount of /proc/self/fd's own", error)) return b.failure();
  if (!LeaveTheHost(b)) return b.failure();
  if (fchdir(self_fd) != 0) return std::unexpected(fmt::format("/proc/self/fd: {}", std::strerror(errno)));
  if (user_namespace >= 0) {
    if (const int e = EnterUserNamespace(user_namespace, options.uid, options.gid); e != 0) {
      return std::unexpected(fmt::format("cannot enter the container's user namespace: {}", std::strerror(e)));
    }
    close(user_namespace);
    // What was asked when it was started is forgotten with the identity (prctl(2), PR_SET_PDEATHSIG).
    prctl(PR_SET_PDEATHSIG, SIGKILL);
  }
  if (!Finish(b, rootless ? 0 : kFileCapabilities)) return b.failure();
  DieWith(options.parent_pidfd);
  return b.Take();
}

}  // namespace redoubt::box
