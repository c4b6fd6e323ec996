#include <linux/fs.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "pkg/sentry/vfs/namei.h"
#include "pkg/sentry/vfs/watch.h"

namespace redoubt::vfs {

namespace {

// Renames between directories are one at a time, so that what is an ancestor of what holds still (Linux's
// s_vfs_rename_mutex).
fiber::Mutex& RenameLock() {
  static fiber::Mutex* const mutex = new fiber::Mutex();
  return *mutex;
}

// Both parents' locks, and with `a` and `b` different, the rename lock.
class RenameLocks final {
 public:
  RenameLocks(Dentry& a, Dentry& b) NO_THREAD_SAFETY_ANALYSIS : first_(&a), second_(&b) {
    if (&a == &b) {
      second_ = nullptr;
      first_->dir_lock().Lock();
      return;
    }
    RenameLock().Lock();
    // An ancestor first; unrelated ones by address.
    if (b.IsAncestorOf(a) || (!a.IsAncestorOf(b) && std::less<Dentry*>()(&b, &a))) std::swap(first_, second_);
    first_->dir_lock().Lock();
    second_->dir_lock().Lock();
  }
  ~RenameLocks() NO_THREAD_SAFETY_ANALYSIS {
    if (second_ != nullptr) second_->dir_lock().Unlock();
    first_->dir_lock().Unlock();
    if (second_ != nullptr) RenameLock().Unlock();
  }

 private:
  Dentry* first_;
  Dentry* second_;
};

Result<> CheckTypes(const Dentry& from, const Dentry& to) {
  const bool from_dir = from.inode().IsDirectory();
  const bool to_dir = to.inode().IsDirectory();
  if (from_dir && !to_dir) return Err(ENOTDIR);
  if (!from_dir && to_dir) return Err(EISDIR);
  return {};
}

// Of one name of the two that an exchange moves, or of the only one.
void NoteMove(const Inode& child, const Inode& old_dir, std::string_view old_name, const Inode& new_dir,
              std::string_view new_name, const Inode* replaced) {
  if (!AnyWatches()) return;
  const uint32_t directory = child.IsDirectory() ? IN_ISDIR : 0;
  const uint32_t cookie = NewRenameCookie();
  NoteEntry(old_dir, old_name, IN_MOVED_FROM | directory, cookie);
  NoteEntry(new_dir, new_name, IN_MOVED_TO | directory, cookie);
  if (replaced != nullptr) NoteInode(*replaced, IN_ATTRIB);
  NoteInode(child, IN_MOVE_SELF);
}

}  // namespace

Result<> Rename(const Walker& walker, const At& from_at, const At& to_at, uint32_t flags) {
  if (flags & ~uint32_t{RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT}) return Err(EINVAL);
  if ((flags & RENAME_EXCHANGE) && (flags & (RENAME_NOREPLACE | RENAME_WHITEOUT))) return Err(EINVAL);
  // Whiteouts are for file systems that can be the upper layer of a host's overlay; none here is.
  if (flags & RENAME_WHITEOUT) return Err(EINVAL);
  const bool exchange = flags & RENAME_EXCHANGE;

  PathWalk from(walker, from_at), to(walker, to_at);
  TRY(from.ToParent());
  TRY(to.ToParent());
  if (from.path().mount != to.path().mount) return Err(EXDEV);
  if (from.last_type() != PathWalk::LastType::kNormal) return Err(EBUSY);
  if (to.last_type() != PathWalk::LastType::kNormal) return Err(flags & RENAME_NOREPLACE ? EEXIST : EBUSY);
  TRY(CheckWritableMount(from.path()));

  Dentry& old_dir = *from.path().dentry;
  Dentry& new_dir = *to.path().dentry;
  RefPtr<Dentry> child, target;  // dropped without the locks
  RenameLocks locks(old_dir, new_dir);
  child = TRY(old_dir.LookupLocked(from.last()));
  if (child->negative()) return Err(ENOENT);
  target = TRY(new_dir.LookupLocked(to.last()));
  if ((flags & RENAME_NOREPLACE) && !target->negative()) return Err(EEXIST);
  if (exchange) {
    if (target->negative()) return Err(ENOENT);
    if (!target->inode().IsDirectory() && to.trailing_slash()) return Err(ENOTDIR);
  }
  if (!child->inode().IsDirectory()) {
    if (from.trailing_slash()) return Err(ENOTDIR);
    if (!exchange && to.trailing_slash()) return Err(ENOTDIR);
  }
  // Into itself; over an ancestor of itself.
  if (child->IsAncestorOf(new_dir)) return Err(EINVAL);
  if (!target->negative() && target->IsAncestorOf(old_dir)) return Err(exchange ? EINVAL : ENOTEMPTY);

  // Two names of one file: nothing to do (rename(2)).
  if (!target->negative() && child->inode_ref() == target->inode_ref()) return {};
  TRY(CheckMayRemove(walker.creds, old_dir, *child, child->inode().IsDirectory() ? Removal::kRmdir : Removal::kUnlink));
  if (target->negative()) {
    TRY(CheckMayCreate(walker.creds, new_dir));
  } else {
    if (!exchange) TRY(CheckTypes(*child, *target));
    TRY(CheckMayRemove(walker.creds, new_dir, *target,
                       target->inode().IsDirectory() ? Removal::kRmdir : Removal::kUnlink));
  }
  // The ".." of a directory that moves is written.
  if (&old_dir != &new_dir) {
    if (child->inode().IsDirectory()) TRY(child->inode().CheckPermission(walker.creds, W_OK));
    if (exchange && target->inode().IsDirectory()) TRY(target->inode().CheckPermission(walker.creds, W_OK));
  }

  Inode* replaced = target->negative() ? nullptr : &target->inode();
  auto rename = [&]() -> Result<> {
    TRY(old_dir.inode().Rename(from.last(), child->inode(), new_dir.inode(), to.last(), replaced, flags));
    PathWalk::RenameCount().fetch_add(1, std::memory_order_acq_rel);
    if (exchange) {
      Dentry::Exchange(*child, *target);
      NoteMove(child->inode(), old_dir.inode(), from.last(), new_dir.inode(), to.last(), nullptr);
      NoteMove(target->inode(), new_dir.inode(), to.last(), old_dir.inode(), from.last(), nullptr);
    } else {
      Dentry::Move(*child, new_dir, to.last());
      NoteMove(child->inode(), old_dir.inode(), from.last(), new_dir.inode(), to.last(), replaced);
    }
    return {};
  };
  if (!exchange && replaced != nullptr && replaced->IsDirectory()) {
    // As for rmdir: it must stay empty until it is gone.
    fiber::MutexLock lock(target->dir_lock());
    return rename();
  }
  return rename();
}

}  // namespace redoubt::vfs
