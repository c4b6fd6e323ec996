// Which user and group IDs there are: user_namespaces(7).
#ifndef REDOUBT_PKG_SENTRY_AUTH_USER_NAMESPACE_H_
#define REDOUBT_PKG_SENTRY_AUTH_USER_NAMESPACE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "pkg/refs/refs.h"

namespace redoubt::auth {

// IDs from `first` on are those from `lower_first` on in the namespace above: Linux's struct uid_gid_extent.
struct IdExtent {
  uint32_t first = 0;
  uint32_t lower_first = 0;
  uint32_t count = 0;
};

// That of a container which was given one, made from outside. The Sentry deals in the IDs inside only; the host's own
// user namespace, in which the container's gofer is, makes them others (runsc/box). What is left to the Sentry is which
// IDs exist, and what /proc shows. Immutable.
class UserNamespace final : public RefCounted {
 public:
  UserNamespace(std::vector<IdExtent> uids, std::vector<IdExtent> gids);

  // Of -1 they know nothing: it is no ID, and no namespace has it.
  bool HasUid(uint32_t uid) const;
  bool HasGid(uint32_t gid) const;
  // /proc/PID/uid_map and gid_map, as those inside read them.
  std::string UidMap() const;
  std::string GidMap() const;
  // /proc/PID/ns/user: no other has it.
  uint64_t inode() const { return inode_; }

 private:
  const std::vector<IdExtent> uids_, gids_;
  const uint64_t inode_;
};

}  // namespace redoubt::auth

#endif  // REDOUBT_PKG_SENTRY_AUTH_USER_NAMESPACE_H_
