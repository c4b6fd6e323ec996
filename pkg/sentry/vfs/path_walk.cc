#include "pkg/sentry/vfs/path_walk.h"

#include <limits.h>
#include <linux/openat2.h>
#include <sys/mount.h>
#include <unistd.h>

#include <utility>

namespace redoubt::vfs {

namespace {

constinit std::atomic<uint64_t> rename_count{0};

#ifndef MS_NOSYMFOLLOW
constexpr uint64_t MS_NOSYMFOLLOW = 256;
#endif

void SkipSlashes(std::string_view& s) {
  size_t n = s.find_first_not_of('/');
  s.remove_prefix(n == std::string_view::npos ? s.size() : n);
}

}  // namespace

std::atomic<uint64_t>& PathWalk::RenameCount() { return rename_count; }

bool PathWalk::scoped() const { return (at_.resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT)) != 0; }

Result<> PathWalk::Start() {
  started_ = true;
  if (at_.name.size() >= PATH_MAX) return Err(ENAMETOOLONG);
  root_ = scoped() ? at_.start : walker_.root;
  if (scoped()) renames_at_start_ = rename_count.load(std::memory_order_acquire);
  rest_ = at_.name;
  if (at_.name.empty()) {
    if (!at_.empty_ok) return Err(ENOENT);
    path_ = at_.start;
    return {};
  }
  if (rest_.front() == '/') {
    if (at_.resolve & RESOLVE_BENEATH) return Err(EXDEV);
    path_ = root_;
  } else {
    path_ = at_.start;
  }
  return {};
}

Result<> PathWalk::ToParent() {
  if (!started_) TRY(Start());
  return ToParentFromRest();
}

Result<> PathWalk::ToParentFromRest() {
  SkipSlashes(rest_);
  last_type_ = LastType::kNone;
  if (rest_.empty()) return {};
  while (true) {
    Inode& dir = path_.inode();
    if (!dir.IsDirectory()) return Err(ENOTDIR);
    TRY(dir.CheckPermission(walker_.creds, X_OK));

    size_t length = rest_.find('/');
    std::string_view name = rest_.substr(0, length);
    rest_.remove_prefix(name.size());
    trailing_slash_ = !rest_.empty();
    SkipSlashes(rest_);
    if (rest_.empty()) {
      last_ = name;
      last_type_ = name == "." ? LastType::kDot : name == ".." ? LastType::kDotDot : LastType::kNormal;
      return {};
    }
    TRY(Step(name));
  }
}

// A component in the middle.
Result<> PathWalk::Step(std::string_view name) {
  if (name == ".") return {};
  if (name == "..") return StepUp();
  Path next(path_.mount, TRY(path_.dentry->Lookup(name, at_.resolve & RESOLVE_CACHED)));
  if (next.dentry->negative()) return Err(ENOENT);
  if (next.dentry->is_mountpoint()) {
    FollowMounts(next);
    if ((at_.resolve & RESOLVE_NO_XDEV) && next.mount != path_.mount) return Err(EXDEV);
  }
  if (next.inode().IsSymlink()) {
    TRY(FollowLink(next, true));
    SkipSlashes(rest_);
    return {};
  }
  path_ = std::move(next);
  return {};
}

Result<> PathWalk::StepUp() {
  if (path_ == root_) return at_.resolve & RESOLVE_BENEATH ? Result<>(Err(EXDEV)) : Result<>();
  while (path_.dentry == path_.mount->root()) {
    Path up;
    if (!path_.mount->Up(&up)) return {};  // the top of a namespace or of something detached
    if (at_.resolve & RESOLVE_NO_XDEV) return Err(EXDEV);
    path_ = std::move(up);
    if (path_ == root_) return at_.resolve & RESOLVE_BENEATH ? Result<>(Err(EXDEV)) : Result<>();
  }
  RefPtr<Dentry> parent = path_.dentry->parent();
  if (!parent) return {};
  // A directory renamed out from under a mount of a part of its file system must not be a way to the rest of it.
  if (path_.mount->root()->kind() != DentryKind::kRoot && !path_.mount->root()->IsAncestorOf(*parent)) {
    return Err(ENOENT);
  }
  path_.dentry = std::move(parent);
  FollowMounts(path_);
  // Below a root of its own, a concurrent rename could have moved this walk outside: let the caller try again.
  if (scoped() && rename_count.load(std::memory_order_acquire) != renames_at_start_) return Err(EAGAIN);
  return {};
}

Result<> PathWalk::JumpToRoot() {
  if (at_.resolve & RESOLVE_BENEATH) return Err(EXDEV);
  if ((at_.resolve & RESOLVE_NO_XDEV) && path_.mount != root_.mount) return Err(EXDEV);
  path_ = root_;
  return {};
}

Result<bool> PathWalk::FollowLink(const Path& link, bool slash_after) {
  if (++links_ > kMaxLinks) return Err(ELOOP);
  if (at_.resolve & RESOLVE_NO_SYMLINKS) return Err(ELOOP);
  if (link.mount->flags() & MS_NOSYMFOLLOW) return Err(ELOOP);
  Inode& inode = link.inode();
  if (inode.IsMagicLink()) {
    if (at_.resolve & RESOLVE_NO_MAGICLINKS) return Err(ELOOP);
    Path target = TRY(inode.FollowMagicLink());
    if (scoped()) return Err(EXDEV);
    if ((at_.resolve & RESOLVE_NO_XDEV) && target.mount != path_.mount) return Err(EXDEV);
    path_ = std::move(target);
    return true;
  }
  std::string text = TRY(inode.Readlink());
  if (text.empty()) return Err(ENOENT);
  if (text.size() >= PATH_MAX) return Err(ENAMETOOLONG);
  // rest_ may lie in buffer_.
  if (slash_after) text += '/';
  text += rest_;
  buffer_ = std::move(text);
  rest_ = buffer_;
  if (rest_.front() == '/') TRY(JumpToRoot());
  return false;
}

Result<Path> PathWalk::Last() {
  if (last_type_ == LastType::kNone || last_type_ == LastType::kDot) return path_;
  if (last_type_ == LastType::kDotDot) {
    TRY(StepUp());
    return path_;
  }
  Path next(path_.mount, TRY(path_.dentry->Lookup(last_, at_.resolve & RESOLVE_CACHED)));
  if (!next.dentry->negative() && next.dentry->is_mountpoint()) {
    FollowMounts(next);
    if ((at_.resolve & RESOLVE_NO_XDEV) && next.mount != path_.mount) return Err(EXDEV);
  }
  return next;
}

Result<> PathWalk::Follow(const Path& link) {
  if (TRY(FollowLink(link, trailing_slash_))) {
    last_type_ = LastType::kNone;
    return {};
  }
  return ToParentFromRest();
}

Result<Path> PathWalk::ToEnd() {
  TRY(ToParent());
  while (true) {
    const LastType type = last_type_;
    Path next = TRY(Last());
    if (type != LastType::kNormal) {
      // Only a magic link leaves a non-directory here with a slash after it.
      if (trailing_slash_ && !next.inode().IsDirectory()) return Err(ENOTDIR);
      return next;
    }
    if (next.dentry->negative()) return Err(ENOENT);
    if (next.inode().IsSymlink() && (at_.follow || trailing_slash_)) {
      TRY(Follow(next));
      continue;
    }
    if (trailing_slash_ && !next.inode().IsDirectory()) return Err(ENOTDIR);
    return next;
  }
}

}  // namespace redoubt::vfs
