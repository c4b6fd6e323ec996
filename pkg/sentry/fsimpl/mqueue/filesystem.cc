#include "pkg/sentry/fsimpl/mqueue/filesystem.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <unistd.h>

#include <utility>

#include "pkg/sentry/kernel/task.h"
#include "pkg/sentry/limits/system.h"
#include "pkg/sentry/vfs/dentry.h"
#include "pkg/sentry/vfs/vfs.h"

namespace redoubt::mqueue {
namespace {

constexpr long kMagic = 0x19800202;  // MQUEUE_MAGIC, which the headers do not have
constexpr uint64_t kEntrySize = 20;  // DIRENT_SIZE

// Whom a new queue is charged to, and what he may.
struct Maker {
  uint32_t uid = 0;
  uint64_t limit = UINT64_MAX;
  bool privileged = true;
};

// The Sentry itself, unless a task is at work.
Maker CurrentMaker() {
  const kernel::Task* task = kernel::Task::Current();
  if (task == nullptr) return {};
  return {.uid = task->creds().ruid,
          .limit = task->GetLimit(RLIMIT_MSGQUEUE).soft,
          .privileged = task->creds().HasCapability(CAP_SYS_RESOURCE)};
}

// A name of the one directory, as Linux looks it up there.
Result<> CheckName(std::string_view name) {
  if (name.empty()) return Err(ENOENT);
  if (name == "." || name == ".." || name.find('/') != name.npos) return Err(EACCES);
  return {};
}

int AccessOf(int flags) {
  switch (flags & O_ACCMODE) {
    case O_RDONLY:
      return R_OK;
    case O_WRONLY:
      return W_OK;
    default:
      return R_OK | W_OK;
  }
}

}  // namespace

MqueueFilesystem::MqueueFilesystem() : SyntheticFilesystem("mqueue", kMagic), root_(MakeRef<Root>(*this)) {}
MqueueFilesystem::~MqueueFilesystem() = default;

RefPtr<vfs::Inode> MqueueFilesystem::root() { return root_; }

Result<> MqueueFilesystem::CountQueue(bool privileged) {
  using limits::System;
  const int64_t most = privileged ? System::kMostQueues : System::Get().mq_queues_max.load(std::memory_order_relaxed);
  if (count_.fetch_add(1, std::memory_order_relaxed) < most) return {};
  UncountQueue();
  return Err(ENOSPC);
}

QueueInode::QueueInode(MqueueFilesystem& fs, const vfs::NewInode& n, const ipc::PosixQueue::Size& size, uint32_t maker)
    : SyntheticInode(fs, n.mode, {.uid = n.uid, .gid = n.gid}, synthetic::Changeable::kYes),
      fs_(fs),
      maker_(maker),
      queue_(size) {}

QueueInode::~QueueInode() {
  limits::MessageQueuesOfUsers().Uncharge(maker_, queue_.size().Charge());
  fs_.UncountQueue();
}

// Linux notes what truncate(2) says as the file's size, which means nothing.
Result<> QueueInode::SetAttributes(const vfs::AttributeChange& change) {
  vfs::AttributeChange rest = change;
  rest.size.reset();
  TRY(SyntheticInode::SetAttributes(rest));
  if (change.size) size_.store(*change.size, std::memory_order_relaxed);
  return {};
}

Result<RefPtr<vfs::FileDescription>> QueueInode::Open(const vfs::Path& path, int flags) {
  if ((flags & O_DIRECT) != 0) return Err(EINVAL);
  return RefPtr<vfs::FileDescription>(MakeRef<QueueDescription>(RefPtr<QueueInode>(this), path, flags));
}

Result<RefPtr<vfs::Inode>> Root::Make(std::string_view name, const vfs::NewInode& n, const mq_attr* attr) {
  const Maker maker = CurrentMaker();
  const ipc::PosixQueue::Size size = TRY(ipc::PosixQueue::CheckSize(attr, maker.privileged));
  TRY(fs_.CountQueue(maker.privileged));
  if (!limits::MessageQueuesOfUsers().Charge(maker.uid, size.Charge(), maker.limit)) {
    fs_.UncountQueue();
    return Err(EMFILE);
  }
  RefPtr<QueueInode> inode = MakeRef<QueueInode>(fs_, n, size, maker.uid);
  {
    sync::MutexLock lock(mu_);
    entries_.emplace(next_, Named{std::string(name), inode});
    by_name_.emplace(name, next_++);
  }
  Touch(Touched::kModified);
  return RefPtr<vfs::Inode>(std::move(inode));
}

Result<> Root::Unlink(std::string_view name, vfs::Inode& child) {
  RefPtr<QueueInode> gone;
  {
    sync::MutexLock lock(mu_);
    auto it = by_name_.find(name);
    if (it == by_name_.end()) return Err(ENOENT);
    gone = std::move(entries_.at(it->second).inode);
    entries_.erase(it->second);
    by_name_.erase(it);
  }
  gone->Unlinked();
  Touch(Touched::kModified);
  return {};
}

Result<RefPtr<vfs::Inode>> Root::LookupDynamic(std::string_view name) {
  sync::MutexLock lock(mu_);
  auto it = by_name_.find(name);
  if (it == by_name_.end()) return Err(ENOENT);
  return RefPtr<vfs::Inode>(entries_.at(it->second).inode);
}

Result<> Root::ListDynamic(std::vector<Entry>& entries) {
  sync::MutexLock lock(mu_);
  for (const auto& [cookie, named] : entries_) entries.push_back({cookie, named.name, named.inode->ino(), DT_REG});
  return {};
}

uint64_t Root::Size() {
  sync::MutexLock lock(mu_);
  return (entries_.size() + 2) * kEntrySize;
}

Queues::Queues()
    : fs_(MakeRef<MqueueFilesystem>()), root_([this] {
        RefPtr<vfs::Mount> mount = vfs::Mount::Create(fs_, 0, "mqueue");
        RefPtr<vfs::Dentry> root = mount->root();
        return vfs::Path(std::move(mount), std::move(root));
      }()) {}

Queues::~Queues() = default;

RefPtr<vfs::Filesystem> Queues::filesystem() const { return fs_; }

Result<RefPtr<vfs::FileDescription>> Queues::Open(const auth::Credentials& creds, std::string_view name,
                                                  const OpenOptions& options) {
  const int flags = options.flags;
  TRY(CheckName(name));
  Root& root = fs_->queues();
  TRY(root.CheckPermission(creds, X_OK));
  vfs::Path path = root_;
  {
    vfs::Dentry& dir = *root_.dentry;
    fiber::MutexLock lock(dir.dir_lock());
    path.dentry = TRY(dir.LookupLocked(name));
    if (path.dentry->negative()) {
      if ((flags & O_CREAT) == 0) return Err(ENOENT);
      TRY(root.CheckPermission(creds, W_OK | X_OK));
      const vfs::NewInode n{.mode = S_IFREG | (options.mode & 07777), .uid = creds.fsuid, .gid = creds.fsgid};
      path.dentry = dir.Insert(name, TRY(root.Make(name, n, options.attr)));
    } else {
      if ((flags & O_CREAT) != 0 && (flags & O_EXCL) != 0) return Err(EEXIST);
      if ((flags & O_ACCMODE) == O_ACCMODE) return Err(EINVAL);
      TRY(path.inode().CheckPermission(creds, AccessOf(flags)));
    }
  }
  if ((flags & O_PATH) != 0) return vfs::OpenPath({creds, root_}, path, {.flags = flags});
  return path.inode().Open(path, flags & ~(O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC));
}

Result<> Queues::Unlink(const auth::Credentials& creds, std::string_view name) {
  TRY(CheckName(name));
  return vfs::Unlink({creds, root_}, {.start = root_, .name = name});
}

}  // namespace redoubt::mqueue
