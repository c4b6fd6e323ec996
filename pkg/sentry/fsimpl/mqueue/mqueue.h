// The file system of POSIX message queues, mq_overview(7): each queue is a file of its one directory.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_MQUEUE_MQUEUE_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_MQUEUE_MQUEUE_H_

#include <linux/mqueue.h>

#include <cstdint>
#include <memory>
#include <string_view>

#include "pkg/errors/errors.h"
#include "pkg/fiber/fiber.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/auth/credentials.h"
#include "pkg/sentry/ipc/posix_queue.h"
#include "pkg/sentry/vfs/file_description.h"
#include "pkg/sentry/vfs/inode.h"
#include "pkg/sentry/vfs/mount.h"

namespace redoubt::mqueue {

class MqueueFilesystem;
class QueueInode;

// All queues of an IPC namespace, which owns it, and the mount that nobody sees by which calls find them; whoever
// mounts the file system sees the same files. Thread-safe.
class Queues final {
 public:
  Queues();
  ~Queues();
  Queues(const Queues&) = delete;
  Queues& operator=(const Queues&) = delete;

  struct OpenOptions {
    int flags = 0;                  // of open(2)
    uint32_t mode = 0;              // without the umask
    const mq_attr* attr = nullptr;  // of a queue that is made; null: the default
  };
  // mq_open(2), with the name as the system call has it, without a slash. EACCES, EEXIST, EINVAL, EMFILE, ENAMETOOLONG,
  // ENOENT, ENOSPC. A QueueDescription, but with O_PATH.
  Result<RefPtr<vfs::FileDescription>> Open(const auth::Credentials& creds, std::string_view name,
                                            const OpenOptions& options);
  // mq_unlink(2): EACCES, ENAMETOOLONG, ENOENT, EPERM.
  Result<> Unlink(const auth::Credentials& creds, std::string_view name);
  RefPtr<vfs::Filesystem> filesystem() const;

 private:
  const RefPtr<MqueueFilesystem> fs_;
  const vfs::Path root_;
};

// A message queue descriptor. read(2) tells of the queue, write(2) is EINVAL.
class QueueDescription final : public vfs::FileDescription {
 public:
  QueueDescription(RefPtr<QueueInode> inode, vfs::Path path, int flags);
  ~QueueDescription() override;

  ipc::PosixQueue& queue() const;
  // As the queue's, which do not wait where the description is O_NONBLOCK.
  Result<> Send(std::unique_ptr<ipc::PosixMessage> message, fiber::Time deadline);
  Result<std::unique_ptr<ipc::PosixMessage>> Receive(fiber::Time deadline);
  // For what changes the time of the last access: mq_notify(2), mq_getsetattr(2).
  void TouchAccessed();

  Result<size_t> PRead(IoSequence& dst, uint64_t offset, vfs::IoFlags flags) override;
  Result<size_t> Write(IoSequence&, vfs::IoFlags) override { return Err(EINVAL); }
  Result<size_t> PWrite(IoSequence&, uint64_t, vfs::IoFlags) override { return Err(EINVAL); }
  Result<> Sync(bool) override { return Err(EINVAL); }
  // What the closing process has registered goes, whichever of its descriptors is closed.
  Result<> OnClose() override;
  waiter::EventMask Readiness(waiter::EventMask mask) override { return queue().Readiness(mask); }
  void RegisterWaiter(waiter::Entry& entry) override { queue().pollers().Register(entry); }
  void UnregisterWaiter(waiter::Entry& entry) override { queue().pollers().Unregister(entry); }
  bool SupportsEpoll() const override { return true; }

 private:
  ipc::PosixQueue::Deadline Until(fiber::Time deadline) const;

  const RefPtr<QueueInode> inode_;
};

}  // namespace redoubt::mqueue

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_MQUEUE_MQUEUE_H_
