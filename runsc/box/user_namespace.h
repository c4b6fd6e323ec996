// The host's user namespaces, for what stands for a container with mappings of IDs (user_namespaces(7)), and mounts
// that show other owners (mount_setattr(2), MOUNT_ATTR_IDMAP).
#ifndef REDOUBT_RUNSC_BOX_USER_NAMESPACE_H_
#define REDOUBT_RUNSC_BOX_USER_NAMESPACE_H_

#include <sys/types.h>

#include <string>

namespace redoubt::box {

// Texts for uid_map and gid_map.
struct IdMaps {
  std::string uids, gids;
  bool empty() const { return uids.empty(); }
};

// A descriptor of a new user namespace with these IDs, in which nobody is; -1 and errno. Needs CAP_SETUID and
// CAP_SETGID, /proc, and one thread: it forks.
int MakeUserNamespace(const IdMaps& ids);
// Moves there, as `uid` and `gid` of it, with all capabilities in it and none outside; 0 or an errno. For a process
// with one thread, which may not have been dumpable before and is afterwards.
int EnterUserNamespace(int user_namespace, uid_t uid, gid_t gid);
// Owners in a detached tree (open_tree(2)) are those that the namespace makes of them, also in the mounts below if
// `recursive`; 0 or an errno, EINVAL where a file system cannot.
int MapTree(int tree, int user_namespace, bool recursive);
// What the user namespace at `path` (/proc/PID/ns/user) maps, as those inside read it; 0 or an errno.
int ReadUserNamespace(const std::string& path, IdMaps* ids);
// Whether this process is in a user namespace with one ID, as an ordinary user can make it. Without privileges it can.
bool HasOneId();

}  // namespace redoubt::box

#endif  // REDOUBT_RUNSC_BOX_USER_NAMESPACE_H_
