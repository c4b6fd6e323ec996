// The path walker: path_resolution(7), openat2(2). Private to the VFS.
#ifndef REDOUBT_PKG_SENTRY_VFS_PATH_WALK_H_
#define REDOUBT_PKG_SENTRY_VFS_PATH_WALK_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

#include "pkg/errors/errors.h"
#include "pkg/sentry/vfs/dentry.h"
#include "pkg/sentry/vfs/mount.h"
#include "pkg/sentry/vfs/path.h"
#include "pkg/sentry/vfs/vfs.h"

namespace redoubt::vfs {

// One walk, by a loop, of one name. Lives on the caller's stack. Two ways to use it: ToEnd(), or ToParent() and then,
// as often as the last component is a symbolic link to follow, Last() and Follow().
class PathWalk final {
 public:
  enum class LastType {
    kNormal,
    kDot,
    kDotDot,
    kNone,  // "/", or the place a magic link led to: path() is the result
  };

  PathWalk(const Walker& walker, const At& at) : walker_(walker), at_(at) {}
  PathWalk(const PathWalk&) = delete;
  PathWalk& operator=(const PathWalk&) = delete;

  // All components but the last. Afterwards path() is a directory that may be searched, unless last_type() is kNone.
  Result<> ToParent();
  // The whole name. ENOENT, ENOTDIR, ...
  Result<Path> ToEnd();

  // After ToParent:
  const Path& path() const { return path_; }
  LastType last_type() const { return last_type_; }
  std::string_view last() const { return last_; }
  bool trailing_slash() const { return trailing_slash_; }
  // The last component (mounts on it included); its dentry may be negative.
  Result<Path> Last();
  // Follows `link`, the last component: continues to the parent of what it names.
  Result<> Follow(const Path& link);

  // Counts renames, for RESOLVE_BENEATH.
  static std::atomic<uint64_t>& RenameCount();

 private:
  static constexpr int kMaxLinks = 40;

  Result<> Start();
  Result<> ToParentFromRest();
  Result<> Step(std::string_view name);
  Result<> StepUp();
  Result<> JumpToRoot();
  // True if a magic link moved path_; otherwise rest_ is what to walk next.
  Result<bool> FollowLink(const Path& link, bool slash_after);
  bool scoped() const;

  const Walker& walker_;
  const At& at_;
  bool started_ = false;
  Path path_;
  Path root_;
  std::string_view rest_;  // of at_.name or of buffer_
  std::string buffer_;
  std::string_view last_;
  LastType last_type_ = LastType::kNone;
  bool trailing_slash_ = false;
  int links_ = 0;
  uint64_t renames_at_start_ = 0;
};

}  // namespace redoubt::vfs

#endif  // REDOUBT_PKG_SENTRY_VFS_PATH_WALK_H_
