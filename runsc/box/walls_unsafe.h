// The walls one by one, as the boxes put them up (box.h). Each is 0 or the errno of what failed. For a process with one
// thread.
#ifndef REDOUBT_RUNSC_BOX_WALLS_UNSAFE_H_
#define REDOUBT_RUNSC_BOX_WALLS_UNSAFE_H_

#include <sys/types.h>

#include <cstdint>
#include <optional>

namespace redoubt::box {

// The user that a sandbox is inside its namespace.
inline constexpr uid_t kNobody = 65534;

// The first user ID of a range that systemd's "Users, Groups, UIDs and GIDs" leaves to nobody; the process' number is
// added.
inline constexpr uid_t kFirstOwnUid = 0x70000000;

// From root to `id`, with the capabilities kept. No supplementary groups.
int BecomeUser(uid_t id);
// A user namespace in which the caller's own IDs, and no others, exist, as `inside`. `uid`, `gid`: the caller's
// outside.
int NewUserNamespace(uid_t uid, gid_t gid, uid_t inside_uid, gid_t inside_gid);
// Writes /proc/self/{setgroups,uid_map,gid_map}. Allocates nothing.
int MapIds(uid_t uid, gid_t gid, uid_t inside_uid, gid_t inside_gid);
// unshare(2) of one CLONE_NEW*.
int NewNamespace(int flag);
// What is mounted or unmounted here or elsewhere stays there.
int MakeMountsPrivate();
// The root becomes an empty file system that cannot be written; nothing else is mounted.
int EmptyRoot();
// A name in the UTS namespace that tells nothing.
int NeutralHostname();
// All capability sets to `keep`, the bounding set included; no way to get more by executing.
int DropCapabilities(uint64_t keep);
// A detached copy of what is at `path`, with what is mounted below it if `recursive`: an O_PATH descriptor, or -1 and
// errno.
int CloneTree(const char* path, bool recursive);
// Sets MOUNT_ATTR_* on all mounts of a detached tree.
int RestrictTree(int tree, uint64_t attributes);
// The caller's own IDs outside, if it is root of a user namespace that has one ID only (BeforeExec of box.h).
struct Ids {
  uint32_t uid = 0;
  uint32_t gid = 0;
};
std::optional<Ids> RootlessIds();
// The number of this process as /proc's owner sees it; 0 if there is no /proc.
pid_t OutsidePid();

}  // namespace redoubt::box

#endif  // REDOUBT_RUNSC_BOX_WALLS_UNSAFE_H_
