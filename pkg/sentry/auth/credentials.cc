#include "pkg/sentry/auth/credentials.h"

#include <linux/securebits.h>

#include <algorithm>

namespace redoubt::auth {

RefPtr<Credentials> Credentials::Root() { return ForUser(0, 0, {}, kAllCapabilities); }

RefPtr<Credentials> Credentials::ForUser(uint32_t uid, uint32_t gid, std::vector<uint32_t> groups, CapabilitySet caps) {
  RefPtr<Credentials> c = MakeRef<Credentials>();
  c->ruid = c->euid = c->suid = c->fsuid = uid;
  c->rgid = c->egid = c->sgid = c->fsgid = gid;
  c->groups = std::move(groups);
  c->permitted = caps;
  c->effective = caps;
  c->bounding = caps;
  return c;
}

RefPtr<Credentials> Credentials::Clone() const {
  RefPtr<Credentials> c = MakeRef<Credentials>();
  c->ruid = ruid;
  c->euid = euid;
  c->suid = suid;
  c->fsuid = fsuid;
  c->rgid = rgid;
  c->egid = egid;
  c->sgid = sgid;
  c->fsgid = fsgid;
  c->groups = groups;
  c->permitted = permitted;
  c->effective = effective;
  c->inheritable = inheritable;
  c->ambient = ambient;
  c->bounding = bounding;
  c->securebits = securebits;
  c->keep_caps = keep_caps;
  return c;
}

bool Credentials::InGroup(uint32_t gid) const {
  return fsgid == gid || std::find(groups.begin(), groups.end(), gid) != groups.end();
}

void Credentials::FixCapabilitiesAfterSetuid(const Credentials& old) {
  if ((securebits & SECBIT_NO_SETUID_FIXUP) != 0) return;
  bool had_root = old.ruid == 0 || old.euid == 0 || old.suid == 0;
  bool has_root = ruid == 0 || euid == 0 || suid == 0;
  if (had_root && !has_root) {
    if (!keep_caps) {
      permitted = 0;
      effective = 0;
    }
    ambient = 0;
  }
  if (old.euid == 0 && euid != 0) effective = 0;
  if (old.euid != 0 && euid == 0) effective = permitted;
  constexpr CapabilitySet kFsCapabilities = CapabilityBit(CAP_CHOWN) | CapabilityBit(CAP_MKNOD) |
                                            CapabilityBit(CAP_DAC_OVERRIDE) | CapabilityBit(CAP_DAC_READ_SEARCH) |
                                            CapabilityBit(CAP_FOWNER) | CapabilityBit(CAP_FSETID) |
                                            CapabilityBit(CAP_LINUX_IMMUTABLE) | CapabilityBit(CAP_MAC_OVERRIDE);
  if (old.fsuid == 0 && fsuid != 0) effective &= ~kFsCapabilities;
  if (old.fsuid != 0 && fsuid == 0) effective |= permitted & kFsCapabilities;
}

}  // namespace redoubt::auth
