// Building blocks of file systems whose files are made up on the spot: procfs, sysfs, devpts.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_SYNTHETIC_SYNTHETIC_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_SYNTHETIC_SYNTHETIC_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/fiber/fiber.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/vfs/file_description.h"
#include "pkg/sentry/vfs/inode.h"
#include "pkg/sync/mutex.h"

namespace redoubt::synthetic {

// Hands out inode numbers.
class SyntheticFilesystem : public vfs::Filesystem {
 public:
  SyntheticFilesystem(std::string_view type_name, long magic) : type_name_(type_name), magic_(magic) {}
  std::string_view type_name() const override { return type_name_; }
  Result<struct statfs> Statfs() override;
  uint64_t NextIno() { return next_ino_.fetch_add(1, std::memory_order_relaxed); }

 private:
  const std::string_view type_name_;
  const long magic_;
  std::atomic<uint64_t> next_ino_{1};
};

// Owner and mode may change if `changeable` (devpts); otherwise EPERM.
enum class Changeable { kNo, kYes };
struct Owner {
  uint32_t uid = 0, gid = 0;
};

class SyntheticInode : public vfs::Inode {
 public:
  uint32_t type() const final { return mode_type_; }
  Result<vfs::Attributes> GetAttributes() override EXCLUDES(mu_);
  Result<> SetAttributes(const vfs::AttributeChange& change) override EXCLUDES(mu_);
  uint64_t ino() const { return ino_; }
  enum class Touched { kAccessed, kModified };

 protected:
  // `mode` holds type and permissions.
  SyntheticInode(SyntheticFilesystem& fs, uint32_t mode, Owner owner = {}, Changeable changeable = Changeable::kNo,
                 uint64_t rdev = 0);
  // Who owns it now: a task's, in /proc/PID.
  virtual Owner CurrentOwner() EXCLUDES(mu_);
  virtual uint64_t Size() { return 0; }
  virtual uint32_t Links() { return type() == S_IFDIR ? 2 : 1; }
  // Sets the times of access and change to now, and that of modification if it was.
  void Touch(Touched how) EXCLUDES(mu_);

 private:
  const uint64_t ino_;
  const uint32_t mode_type_;
  const uint64_t rdev_;
  const Changeable changeable_;
  sync::Mutex mu_{sync::Rank::kInode};
  uint32_t mode_ GUARDED_BY(mu_);
  Owner owner_ GUARDED_BY(mu_);
  clock::Nanoseconds atime_ GUARDED_BY(mu_), mtime_ GUARDED_BY(mu_), ctime_ GUARDED_BY(mu_);
};

// A directory of fixed children, added before anyone can see it, and others that come and go.
class Directory : public SyntheticInode {
 public:
  Directory(SyntheticFilesystem& fs, uint32_t permissions = 0555, Owner owner = {},
            Changeable changeable = Changeable::kNo)
      : SyntheticInode(fs, S_IFDIR | permissions, owner, changeable), fs_(fs) {}

  void Add(std::string name, RefPtr<SyntheticInode> child);
  SyntheticFilesystem& synthetic_filesystem() const { return fs_; }

  Result<RefPtr<vfs::Inode>> Lookup(std::string_view name) override;
  Result<RefPtr<vfs::FileDescription>> Open(const vfs::Path& path, int flags) override;
  // Refused as Linux's procfs refuses: not by permission but by kind.
  Result<RefPtr<vfs::Inode>> Create(std::string_view, const vfs::NewInode&) override { return Err(EACCES); }
  Result<RefPtr<vfs::Inode>> Mkdir(std::string_view, const vfs::NewInode&) override { return Err(EPERM); }
  Result<RefPtr<vfs::Inode>> Symlink(std::string_view, std::string_view, const vfs::NewInode&) override {
    return Err(EPERM);
  }
  Result<> Unlink(std::string_view, vfs::Inode&) override { return Err(EPERM); }
  Result<> Rmdir(std::string_view, vfs::Inode&) override { return Err(EPERM); }

  struct Entry {
    int64_t cookie;  // rises through the listing, and means the same name at all times
    std::string name;
    uint64_t ino;
    uint8_t type;  // DT_*
  };
  // All entries but "." and "..", fixed ones first. ENOENT if what the directory is about has gone.
  Result<std::vector<Entry>> List();

 protected:
  // Children beyond the fixed ones. Cookies from kDynamicCookie on. With any, lookup_cache() must be kUncached.
  static constexpr int64_t kDynamicCookie = int64_t{1} << 20;
  virtual Result<RefPtr<vfs::Inode>> LookupDynamic(std::string_view name) { return Err(ENOENT); }
  virtual Result<> ListDynamic(std::vector<Entry>& entries) { return {}; }
  uint32_t Links() override;

 private:
  SyntheticFilesystem& fs_;
  struct Child {
    std::string name;
    RefPtr<SyntheticInode> inode;
  };
  std::vector<Child> children_;  // never changes once seen
  std::map<std::string, size_t, std::less<>> by_name_;
};

// A file whose text is made when it is read from its start (seq_file): later reads of the same description go on in the
// same text.
class GeneratedFile : public SyntheticInode {
 public:
  GeneratedFile(SyntheticFilesystem& fs, uint32_t permissions, Owner owner = {}, uint64_t size = 0)
      : SyntheticInode(fs, S_IFREG | permissions, owner), size_(size) {}

  Result<RefPtr<vfs::FileDescription>> Open(const vfs::Path& path, int flags) override;
  // Truncating (open with O_TRUNC) is allowed where writing is, and means nothing.
  Result<> SetAttributes(const vfs::AttributeChange& change) override;

  virtual Result<std::string> Generate() = 0;
  // One write(2), at most a page.
  virtual Result<> Store(std::string_view text, uint64_t offset) { return Err(EINVAL); }

 protected:
  uint64_t Size() override { return size_; }

 private:
  const uint64_t size_;
};

// The same from functions. Without `store`, writing is EINVAL.
class FunctionFile final : public GeneratedFile {
 public:
  using Generator = std::function<Result<std::string>()>;
  using Storer = std::function<Result<>(std::string_view text)>;
  FunctionFile(SyntheticFilesystem& fs, uint32_t permissions, Generator generate, Storer store = nullptr,
               uint64_t size = 0)
      : GeneratedFile(fs, permissions, {}, size), generate_(std::move(generate)), store_(std::move(store)) {}
  Result<std::string> Generate() override { return generate_(); }
  Result<> Store(std::string_view text, uint64_t) override { return store_ ? store_(text) : Result<>(Err(EINVAL)); }

 private:
  const Generator generate_;
  const Storer store_;
};

class FixedSymlink final : public SyntheticInode {
 public:
  FixedSymlink(SyntheticFilesystem& fs, std::string target)
      : SyntheticInode(fs, S_IFLNK | 0777), target_(std::move(target)) {}
  Result<std::string> Readlink() override { return target_; }
  Result<RefPtr<vfs::FileDescription>> Open(const vfs::Path&, int) override { return Err(ELOOP); }

 protected:
  uint64_t Size() override { return target_.size(); }

 private:
  const std::string target_;
};

// Adds a FunctionFile that always shows `text`.
void AddText(Directory& directory, std::string name, std::string text, uint32_t permissions = 0444, uint64_t size = 0);

}  // namespace redoubt::synthetic

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_SYNTHETIC_SYNTHETIC_H_
