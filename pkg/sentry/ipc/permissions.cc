#include "pkg/sentry/ipc/permissions.h"

#include <linux/capability.h>

namespace redoubt::ipc {

Result<> Permissions::Check(const auth::Credentials& creds, uint32_t may) const {
  uint32_t granted = mode;
  if (creds.euid == cuid || creds.euid == uid) {
    granted >>= 6;
  } else if (creds.InGroup(cgid) || creds.InGroup(gid)) {
    granted >>= 3;
  }
  if ((may & ~granted & 7) != 0 && !creds.HasCapability(CAP_IPC_OWNER)) return Err(EACCES);
  return {};
}

Result<> Permissions::CheckOwner(const auth::Credentials& creds) const {
  if (creds.euid == cuid || creds.euid == uid || creds.HasCapability(CAP_SYS_ADMIN)) return {};
  return Err(EPERM);
}

ipc_perm Permissions::ToGuest() const {
  ipc_perm p = {};
  p.__key = key;
  p.uid = uid;
  p.gid = gid;
  p.cuid = cuid;
  p.cgid = cgid;
  p.mode = static_cast<unsigned short>(mode);
  p.__seq = static_cast<unsigned short>(id >> 15);
  return p;
}

}  // namespace redoubt::ipc
