#include <limits.h>
#include <linux/xattr.h>
#include <unistd.h>

#include "pkg/sentry/vfs/namei.h"
#include "pkg/sentry/vfs/watch.h"

namespace redoubt::vfs {

namespace {

enum class Use { kRead, kWrite };

// xattr(7): who may use which name space.
Result<> CheckXattr(const Walker& walker, const Path& path, std::string_view name, Use use) {
  if (name.empty() || name.size() > XATTR_NAME_MAX) return Err(ERANGE);
  Inode& inode = path.inode();
  if (use == Use::kWrite) TRY(CheckWritableMount(path));
  const auth::Credentials& creds = walker.creds;
  if (name.starts_with(XATTR_SECURITY_PREFIX)) {
    if (use == Use::kRead) return {};
    const int needed = name == XATTR_NAME_CAPS ? CAP_SETFCAP : CAP_SYS_ADMIN;
    return creds.HasCapability(needed) ? Result<>() : Err(EPERM);
  }
  if (name.starts_with(XATTR_SYSTEM_PREFIX)) return {};
  if (name.starts_with(XATTR_TRUSTED_PREFIX)) {
    if (creds.HasCapability(CAP_SYS_ADMIN)) return {};
    return Err(use == Use::kRead ? ENODATA : EPERM);
  }
  if (name.starts_with(XATTR_USER_PREFIX)) {
    if (name.size() == std::string_view(XATTR_USER_PREFIX).size()) return Err(EINVAL);
    if (!inode.IsRegular() && !inode.IsDirectory()) return Err(use == Use::kRead ? ENODATA : EPERM);
    if (use == Use::kWrite && inode.IsDirectory()) {
      Attributes attrs = TRY(inode.GetAttributes());
      if ((attrs.mode & S_ISVTX) && !IsOwnerOrCapable(creds, attrs)) return Err(EPERM);
    }
    return inode.CheckPermission(creds, use == Use::kRead ? R_OK : W_OK);
  }
  return Err(EOPNOTSUPP);
}

}  // namespace

Result<std::string> GetXattr(const Walker& walker, const Path& path, std::string_view name) {
  TRY(CheckXattr(walker, path, name, Use::kRead));
  return path.inode().GetXattr(name);
}

Result<> SetXattr(const Walker& walker, const Path& path, std::string_view name, std::string_view value, int flags) {
  if (flags & ~(XATTR_CREATE | XATTR_REPLACE)) return Err(EINVAL);
  if (value.size() > XATTR_SIZE_MAX) return Err(E2BIG);
  TRY(CheckXattr(walker, path, name, Use::kWrite));
  TRY(path.inode().SetXattr(name, value, flags));
  NoteDentry(*path.dentry, IN_ATTRIB);
  return {};
}

Result<> RemoveXattr(const Walker& walker, const Path& path, std::string_view name) {
  TRY(CheckXattr(walker, path, name, Use::kWrite));
  TRY(path.inode().RemoveXattr(name));
  NoteDentry(*path.dentry, IN_ATTRIB);
  return {};
}

Result<std::vector<std::string>> ListXattr(const Walker& walker, const Path& path) {
  std::vector<std::string> names = TRY(path.inode().ListXattr());
  if (!walker.creds.HasCapability(CAP_SYS_ADMIN)) {
    std::erase_if(names, [](const std::string& n) { return n.starts_with(XATTR_TRUSTED_PREFIX); });
  }
  return names;
}

}  // namespace redoubt::vfs
