// Private to mqueue: the file system's inodes.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_MQUEUE_FILESYSTEM_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_MQUEUE_FILESYSTEM_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "pkg/sentry/fsimpl/mqueue/mqueue.h"
#include "pkg/sentry/fsimpl/synthetic/synthetic.h"
#include "pkg/sync/mutex.h"

namespace redoubt::mqueue {

class Root;

class MqueueFilesystem final : public synthetic::SyntheticFilesystem {
 public:
  MqueueFilesystem();
  ~MqueueFilesystem() override;
  RefPtr<vfs::Inode> root() override;
  Root& queues() const { return *root_; }

  // Of queues that there are, with those that are open and have no name any more. ENOSPC: fs.mqueue.queues_max, which
  // CAP_SYS_RESOURCE (`privileged`) may exceed, up to a number of our own.
  Result<> CountQueue(bool privileged);
  void UncountQueue() { count_.fetch_sub(1, std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> count_{0};
  const RefPtr<Root> root_;
};

class QueueInode final : public synthetic::SyntheticInode {
 public:
  // The caller has counted it, and charged `maker`, a user; its end gives both back.
  QueueInode(MqueueFilesystem& fs, const vfs::NewInode& n, const ipc::PosixQueue::Size& size, uint32_t maker);
  ~QueueInode() override;

  ipc::PosixQueue& queue() { return queue_; }
  void Unlinked() { links_.store(0, std::memory_order_relaxed); }
  using SyntheticInode::Touch;

  Result<> SetAttributes(const vfs::AttributeChange& change) override;
  Result<RefPtr<vfs::FileDescription>> Open(const vfs::Path& path, int flags) override;

 protected:
  uint64_t Size() override { return size_.load(std::memory_order_relaxed); }
  uint32_t Links() override { return links_.load(std::memory_order_relaxed); }

 private:
  MqueueFilesystem& fs_;
  const uint32_t maker_;
  std::atomic<uint64_t> size_{80};  // FILENT_SIZE
  std::atomic<uint32_t> links_{1};
  ipc::PosixQueue queue_;
};

// Its entries change with the directory's lock held; mu_ is for those who list them.
class Root final : public synthetic::Directory {
 public:
  explicit Root(MqueueFilesystem& fs) : Directory(fs, 01777, {}, synthetic::Changeable::kYes), fs_(fs) {}

  // `attr` may be null. EINVAL, EMFILE, ENOSPC.
  Result<RefPtr<vfs::Inode>> Make(std::string_view name, const vfs::NewInode& n, const mq_attr* attr) EXCLUDES(mu_);

  vfs::LookupCache lookup_cache() const override { return vfs::LookupCache::kUncached; }
  // What Linux's has no operation for is EPERM.
  Result<RefPtr<vfs::Inode>> Create(std::string_view name, const vfs::NewInode& n) override {
    if (!S_ISREG(n.mode)) return Err(EPERM);
    return Make(name, n, nullptr);
  }
  Result<> Unlink(std::string_view name, vfs::Inode& child) override EXCLUDES(mu_);
  Result<> Rename(std::string_view, vfs::Inode&, vfs::Inode&, std::string_view, vfs::Inode*, uint32_t) override {
    return Err(EPERM);
  }

 protected:
  Result<RefPtr<vfs::Inode>> LookupDynamic(std::string_view name) override EXCLUDES(mu_);
  Result<> ListDynamic(std::vector<Entry>& entries) override EXCLUDES(mu_);
  uint64_t Size() override EXCLUDES(mu_);

 private:
  struct Named {
    std::string name;
    RefPtr<QueueInode> inode;
  };

  MqueueFilesystem& fs_;
  sync::Mutex mu_{sync::Rank::kFileSystem};
  std::map<int64_t, Named> entries_ GUARDED_BY(mu_);  // by cookie, in the order of their making
  std::map<std::string, int64_t, std::less<>> by_name_ GUARDED_BY(mu_);
  int64_t next_ GUARDED_BY(mu_) = kDynamicCookie;
};

}  // namespace redoubt::mqueue

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_MQUEUE_FILESYSTEM_H_
