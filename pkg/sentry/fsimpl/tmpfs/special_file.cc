#include "pkg/sentry/fsimpl/tmpfs/special_file.h"

#include <utility>

#include "pkg/sentry/vfs/special_nodes.h"

namespace redoubt::tmpfs {

Result<RefPtr<vfs::FileDescription>> SpecialFile::Open(const vfs::Path& path, int flags) {
  return vfs::OpenSpecialNode(*this, path, rdev_, flags);
}

Result<RefPtr<RefCounted>> SpecialFile::bound_socket() {
  sync::MutexLock lock(slot_mu_);
  if (type() != S_IFSOCK || !socket_) return Err(ECONNREFUSED);
  return socket_;
}

Result<> SpecialFile::set_bound_socket(RefPtr<RefCounted> socket) {
  if (type() != S_IFSOCK) return Err(EOPNOTSUPP);
  {
    sync::MutexLock lock(slot_mu_);
    std::swap(socket_, socket);
  }
  return {};
}

}  // namespace redoubt::tmpfs
