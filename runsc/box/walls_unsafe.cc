#include "runsc/box/walls_unsafe.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <linux/securebits.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

// <sys/mount.h> and <linux/mount.h> exclude each other in glibc 2.36.
extern "C" {
int mount(const char* source, const char* target, const char* type, unsigned long flags, const void* data) noexcept;
int umount2(const char* target, int flags) noexcept;
}

namespace redoubt::box {
namespace {

constexpr int kDetach = 2;  // MNT_DETACH

int Outcome(long result) { return result < 0 ? errno : 0; }

// "INSIDE OUTSIDE 1\n", without allocation.
size_t FormatMap(char* to, uint32_t inside, uint32_t outside) {
  size_t n = 0;
  for (uint32_t value : {inside, outside, uint32_t{1}}) {
    char digits[10];
    int count = 0;
    do {
      digits[count++] = static_cast<char>('0' + value % 10);
      value /= 10;
    } while (value != 0);
    while (count > 0) to[n++] = digits[--count];
    to[n++] = ' ';
  }
  to[n - 1] = '\n';
  return n;
}

int WriteFile(const char* path, const char* text, size_t size) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  int error = write(fd, text, size) == static_cast<ssize_t>(size) ? 0 : errno;
  close(fd);
  return error;
}

int SetCapabilities(uint64_t effective, uint64_t permitted) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  for (int i = 0; i < 2; i++) {
    data[i].effective = static_cast<uint32_t>(effective >> 32 * i);
    data[i].permitted = static_cast<uint32_t>(permitted >> 32 * i);
  }
  return Outcome(syscall(SYS_capset, &header, data));
}

uint64_t PermittedCapabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  if (syscall(SYS_capget, &header, data) != 0) return 0;
  return data[0].permitted | static_cast<uint64_t>(data[1].permitted) << 32;
}

}  // namespace

int BecomeUser(uid_t id) {
  if (int e = Outcome(setgroups(0, nullptr)); e != 0) return e;
  if (int e = Outcome(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)); e != 0) return e;
  if (int e = Outcome(setresgid(id, id, id)); e != 0) return e;
  if (int e = Outcome(setresuid(id, id, id)); e != 0) return e;
  // The change has taken the effective ones, and the right to open the own /proc.
  const uint64_t all = PermittedCapabilities();
  if (int e = SetCapabilities(all, all); e != 0) return e;
  return Outcome(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
}

int MapIds(uid_t uid, gid_t gid, uid_t inside_uid, gid_t inside_gid) {
  char text[40];
  // user_namespaces(7): who has no privilege outside must give up setgroups(2) first.
  if (int e = WriteFile("/proc/self/setgroups", "deny", 4); e != 0) return e;
  if (int e = WriteFile("/proc/self/uid_map", text, FormatMap(text, inside_uid, uid)); e != 0) return e;
  return WriteFile("/proc/self/gid_map", text, FormatMap(text, inside_gid, gid));
}

int NewUserNamespace(uid_t uid, gid_t gid, uid_t inside_uid, gid_t inside_gid) {
  if (int e = NewNamespace(CLONE_NEWUSER); e != 0) return e;
  if (int e = Outcome(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)); e != 0) return e;
  return MapIds(uid, gid, inside_uid, inside_gid);
}

int NewNamespace(int flag) { return Outcome(unshare(flag)); }

int MakeMountsPrivate() {
  constexpr unsigned long kRecursive = 16384, kPrivate = 1 << 18;  // MS_REC, MS_PRIVATE
  return Outcome(mount(nullptr, "/", nullptr, kRecursive | kPrivate, nullptr));
}

int EmptyRoot() {
  // Over a directory that is there, in this namespace alone.
  constexpr char kPlace[] = "/proc";
  constexpr unsigned long kFlags = 1 | 2 | 4 | 8;  // MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC
  if (int e = Outcome(mount("none", kPlace, "tmpfs", kFlags, "size=4k,nr_inodes=1,mode=555")); e != 0) return e;
  if (int e = Outcome(chdir(kPlace)); e != 0) return e;
  // pivot_root(2), "pivot_root(".", ".")": the old root ends up over the new one, and is taken away with all below it.
  if (int e = Outcome(syscall(SYS_pivot_root, ".", ".")); e != 0) return e;
  if (int e = Outcome(umount2(".", kDetach)); e != 0) return e;
  return Outcome(chdir("/"));
}

int NeutralHostname() {
  constexpr char kName[] = "redoubt";
  if (int e = Outcome(sethostname(kName, sizeof(kName) - 1)); e != 0) return e;
  return Outcome(setdomainname("", 0));
}

int DropCapabilities(uint64_t keep) {
  constexpr unsigned long kBits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                                  SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                                  SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
  int bits = Outcome(prctl(PR_SET_SECUREBITS, kBits, 0, 0, 0));
  int bounding = 0;
  for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++) {
    if ((keep >> cap & 1) == 0 && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0) bounding = errno;
  }
  const uint64_t kept = keep & PermittedCapabilities();
  if (int e = SetCapabilities(kept, kept); e != 0) return e;
  // Without the right to do these (rootless, weak) there is nothing that they could keep from coming back.
  return kept == 0 ? 0 : bits != 0 ? bits : bounding;
}

int CloneTree(const char* path, bool recursive) {
  const unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (recursive ? AT_RECURSIVE : 0);
  return static_cast<int>(syscall(SYS_open_tree, AT_FDCWD, path, flags));
}

int RestrictTree(int tree, uint64_t attributes) {
  mount_attr a{};
  a.attr_set = attributes;
  return Outcome(syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &a, sizeof(a)));
}

std::optional<Ids> RootlessIds() {
  Ids ids;
  auto outside_of_root = [](const char* path, uint32_t* outside) {
    char text[64] = {};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    const bool got = fd >= 0 && read(fd, text, sizeof(text) - 1) > 0;
    close(fd);
    // user_namespaces(7): "INSIDE OUTSIDE LENGTH", one line if there is one ID.
    uint32_t inside = 1, length = 0;
    return got && std::sscanf(text, "%u %u %u", &inside, outside, &length) == 3 && inside == 0 && length == 1;
  };
  if (!outside_of_root("/proc/self/uid_map", &ids.uid) || !outside_of_root("/proc/self/gid_map", &ids.gid)) {
    return std::nullopt;
  }
  return ids;
}

pid_t OutsidePid() {
  char text[16] = {};
  if (readlink("/proc/self", text, sizeof(text) - 1) <= 0) return 0;
  return static_cast<pid_t>(std::strtol(text, nullptr, 10));
}

}  // namespace redoubt::box
