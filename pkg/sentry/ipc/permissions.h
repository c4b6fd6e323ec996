// Who may use a System V object: sysvipc(7), struct ipc_perm.
#ifndef REDOUBT_PKG_SENTRY_IPC_PERMISSIONS_H_
#define REDOUBT_PKG_SENTRY_IPC_PERMISSIONS_H_

#include <sys/ipc.h>

#include <cstdint>

#include "pkg/errors/errors.h"
#include "pkg/sentry/auth/credentials.h"

namespace redoubt::ipc {

// Owner, creator and mode of one object. Guarded by the object's lock.
struct Permissions {
  key_t key = IPC_PRIVATE;
  uint32_t uid = 0, gid = 0, cuid = 0, cgid = 0;
  uint32_t mode = 0;  // 0777
  int id = 0;

  static Permissions Of(key_t key, uint32_t mode, const auth::Credentials& creds) {
    return {
        .key = key, .uid = creds.euid, .gid = creds.egid, .cuid = creds.euid, .cgid = creds.egid, .mode = mode & 0777};
  }
  // `may`: 4 to read, 2 to write, as in a mode. EACCES.
  Result<> Check(const auth::Credentials& creds, uint32_t may) const;
  // For IPC_SET and IPC_RMID: EPERM.
  Result<> CheckOwner(const auth::Credentials& creds) const;
  ipc_perm ToGuest() const;
};

}  // namespace redoubt::ipc

#endif  // REDOUBT_PKG_SENTRY_IPC_PERMISSIONS_H_
