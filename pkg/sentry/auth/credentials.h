// User and group IDs and capabilities of a task: Linux's struct cred (credentials(7), capabilities(7)).
#ifndef REDOUBT_PKG_SENTRY_AUTH_CREDENTIALS_H_
#define REDOUBT_PKG_SENTRY_AUTH_CREDENTIALS_H_

#include <linux/capability.h>

#include <cstdint>
#include <vector>

#include "pkg/refs/refs.h"

namespace redoubt::auth {

using CapabilitySet = uint64_t;
inline constexpr CapabilitySet kAllCapabilities = (uint64_t{1} << (CAP_LAST_CAP + 1)) - 1;
constexpr CapabilitySet CapabilityBit(int capability) { return uint64_t{1} << capability; }

// Immutable once shared: a change makes a copy (Clone) and installs it in the task.
class Credentials final : public RefCounted {
 public:
  uint32_t ruid = 0, euid = 0, suid = 0, fsuid = 0;
  uint32_t rgid = 0, egid = 0, sgid = 0, fsgid = 0;
  std::vector<uint32_t> groups;  // supplementary
  CapabilitySet permitted = 0, effective = 0, inheritable = 0, ambient = 0, bounding = kAllCapabilities;
  uint32_t securebits = 0;
  bool keep_caps = false;  // PR_SET_KEEPCAPS

  // Root with every capability.
  static RefPtr<Credentials> Root();
  static RefPtr<Credentials> ForUser(uint32_t uid, uint32_t gid, std::vector<uint32_t> groups, CapabilitySet caps);
  RefPtr<Credentials> Clone() const;

  bool HasCapability(int capability) const { return (effective & CapabilityBit(capability)) != 0; }
  // By fsgid or a supplementary group.
  bool InGroup(uint32_t gid) const;

  // The rule of capabilities(7), "Effect of user ID changes on capabilities", after ruid/euid/suid/fsuid went from
  // `old` to *this.
  void FixCapabilitiesAfterSetuid(const Credentials& old);
};

}  // namespace redoubt::auth

#endif  // REDOUBT_PKG_SENTRY_AUTH_CREDENTIALS_H_
