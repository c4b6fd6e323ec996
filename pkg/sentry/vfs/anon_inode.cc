#include "pkg/sentry/vfs/anon_inode.h"

#include <linux/magic.h>

#include <atomic>
#include <utility>

#include "pkg/sentry/vfs/dentry.h"
#include "pkg/sentry/vfs/file_description.h"
#include "pkg/sentry/vfs/mount.h"
#include "pkg/sync/mutex.h"

namespace redoubt::vfs {

namespace {

class AnonInode final : public Inode {
 public:
  AnonInode(Filesystem& fs, uint64_t ino, uint32_t mode, uint32_t uid, uint32_t gid)
      : Inode(fs),
        ino_(ino),
        type_(mode & S_IFMT),
        mode_(mode & 07777),
        uid_(uid),
        gid_(gid),
        time_(clock::Realtime()) {}

  uint32_t type() const override { return type_; }
  Result<Attributes> GetAttributes() override {
    sync::MutexLock lock(mu_);
    return Attributes{.mode = type_ | mode_,
                      .uid = uid_,
                      .gid = gid_,
                      .ino = ino_,
                      .dev = filesystem().dev(),
                      .atime = time_,
                      .mtime = time_,
                      .ctime = time_,
                      .btime = time_};
  }
  // fchmod and fchown of a socket or pipe.
  Result<> SetAttributes(const AttributeChange& change) override {
    if (change.size) return Err(EINVAL);
    sync::MutexLock lock(mu_);
    if (change.mode) mode_ = *change.mode & 07777;
    if (change.uid) uid_ = *change.uid;
    if (change.gid) gid_ = *change.gid;
    return {};
  }
  Result<RefPtr<FileDescription>> Open(const Path&, int) override { return Err(ENXIO); }

 private:
  const uint64_t ino_;
  const uint32_t type_;
  sync::Mutex mu_{sync::Rank::kInode};
  uint32_t mode_ GUARDED_BY(mu_);
  uint32_t uid_ GUARDED_BY(mu_);
  uint32_t gid_ GUARDED_BY(mu_);
  const clock::Nanoseconds time_;
};

class AnonFilesystem final : public Filesystem {
 public:
  std::string_view type_name() const override { return "anon_inodefs"; }
  RefPtr<Inode> root() override { return MakeRef<AnonInode>(*this, 1, S_IFDIR | 0555, 0, 0); }
  Result<struct statfs> Statfs() override {
    struct statfs s = {};
    s.f_type = ANON_INODE_FS_MAGIC;
    s.f_bsize = 4096;
    s.f_namelen = 255;
    return s;
  }
};

// Made once and never destroyed.
struct Anonymous {
  AnonFilesystem* fs;
  Mount* mount;
  std::atomic<uint64_t> next_ino{2};
};

Anonymous& Get() {
  static Anonymous* const anonymous = [] {
    RefPtr<AnonFilesystem> fs = MakeRef<AnonFilesystem>();
    auto* a = new Anonymous{.fs = fs.get(), .mount = nullptr};
    a->mount = Mount::Create(fs, 0, "none").Release();
    return a;
  }();
  return *anonymous;
}

}  // namespace

Filesystem& AnonymousFilesystem() { return *Get().fs; }

uint64_t NextAnonymousIno() { return Get().next_ino.fetch_add(1, std::memory_order_relaxed); }

Path MakeAnonymousPath(RefPtr<Inode> inode, std::string name) {
  return Path(RefPtr<Mount>(Get().mount), Dentry::MakeAnonymous(std::move(inode), std::move(name)));
}

Path MakeAnonymousPath(std::string name, uint32_t mode, uint32_t uid, uint32_t gid) {
  return MakeAnonymousPath(MakeRef<AnonInode>(*Get().fs, NextAnonymousIno(), mode, uid, gid), std::move(name));
}

Path MakeNumberedPath(std::string_view kind, uint32_t mode, uint32_t uid, uint32_t gid) {
  const uint64_t ino = NextAnonymousIno();
  std::string name = std::string(kind) + ":[" + std::to_string(ino) + "]";
  return MakeAnonymousPath(MakeRef<AnonInode>(*Get().fs, ino, mode, uid, gid), std::move(name));
}

}  // namespace redoubt::vfs
