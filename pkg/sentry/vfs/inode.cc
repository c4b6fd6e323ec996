#include "pkg/sentry/vfs/inode.h"

#include <sys/sysmacros.h>
#include <unistd.h>

#include "pkg/sentry/vfs/dentry.h"
#include "pkg/sentry/vfs/locks.h"

namespace redoubt::vfs {

Inode::~Inode() { delete locks_.load(std::memory_order_relaxed); }

FileLocks& Inode::locks() {
  FileLocks* locks = locks_.load(std::memory_order_acquire);
  if (locks != nullptr) return *locks;
  auto* fresh = new FileLocks();
  if (locks_.compare_exchange_strong(locks, fresh, std::memory_order_acq_rel)) return *fresh;
  delete fresh;
  return *locks;
}

Result<> CheckModePermission(const Attributes& attrs, const auth::Credentials& creds, int may) {
  uint32_t bits;
  if (creds.fsuid == attrs.uid) {
    bits = attrs.mode >> 6;
  } else if (creds.InGroup(attrs.gid)) {
    bits = attrs.mode >> 3;
  } else {
    bits = attrs.mode;
  }
  if ((bits & 7 & static_cast<uint32_t>(may)) == static_cast<uint32_t>(may)) return {};
  const bool directory = S_ISDIR(attrs.mode);
  // Execution of a plain file needs some x bit, whatever the capabilities.
  if (creds.HasCapability(CAP_DAC_OVERRIDE) && (directory || (may & X_OK) == 0 || (attrs.mode & 0111) != 0)) return {};
  if (creds.HasCapability(CAP_DAC_READ_SEARCH) && (may == R_OK || (directory && (may & W_OK) == 0))) return {};
  return Err(EACCES);
}

Result<> Inode::CheckPermission(const auth::Credentials& creds, int may) {
  if (may == 0) return {};
  // Every step of every walk of a privileged task comes here.
  if (IsDirectory() && creds.HasCapability(CAP_DAC_OVERRIDE)) return {};
  Attributes attrs = TRY(GetAttributes());
  return CheckModePermission(attrs, creds, may);
}

namespace {
// 0 would look like no device at all.
constinit std::atomic<uint32_t> next_minor{1};
}  // namespace

Filesystem::Filesystem() : dev_(makedev(0, next_minor.fetch_add(1, std::memory_order_relaxed))) {}
Filesystem::~Filesystem() = default;

}  // namespace redoubt::vfs
