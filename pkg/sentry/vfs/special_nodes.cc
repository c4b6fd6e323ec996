#include "pkg/sentry/vfs/special_nodes.h"

#include "pkg/sentry/vfs/device.h"

namespace redoubt::vfs {

namespace {
constinit SpecialNodeHooks hooks;
}  // namespace

void SetSpecialNodeHooks(const SpecialNodeHooks& h) { hooks = h; }

const auth::Credentials* CurrentCredentials() {
  return hooks.current_credentials != nullptr ? hooks.current_credentials() : nullptr;
}

bool CurrentIsCapable(int capability) {
  const auth::Credentials* creds = CurrentCredentials();
  return creds == nullptr || creds->HasCapability(capability);
}

Result<RefPtr<FileDescription>> OpenSpecialNode(Inode& inode, const Path& path, uint64_t rdev, int flags) {
  switch (inode.type()) {
    case S_IFIFO:
      if (hooks.open_fifo == nullptr) return Err(ENXIO);
      return hooks.open_fifo(inode, path, flags);
    case S_IFCHR:
      return OpenCharDevice(path, rdev, flags);
    default:
      // No block devices; a socket is connected to, not opened.
      return Err(ENXIO);
  }
}

}  // namespace redoubt::vfs
