#include <algorithm>
#include <span>
#include <string_view>
#include <utility>

#include "pkg/sentry/fsimpl/mqueue/filesystem.h"
#include "pkg/sentry/kernel/task.h"

namespace redoubt::mqueue {

using Touched = synthetic::SyntheticInode::Touched;

QueueDescription::QueueDescription(RefPtr<QueueInode> inode, vfs::Path path, int flags)
    : FileDescription(std::move(path), flags), inode_(std::move(inode)) {}
QueueDescription::~QueueDescription() = default;

ipc::PosixQueue& QueueDescription::queue() const { return inode_->queue(); }

ipc::PosixQueue::Deadline QueueDescription::Until(fiber::Time deadline) const {
  if (nonblocking()) return std::nullopt;
  return deadline;
}

Result<> QueueDescription::Send(std::unique_ptr<ipc::PosixMessage> message, fiber::Time deadline) {
  TRY(queue().Send(std::move(message), Until(deadline)));
  inode_->Touch(Touched::kModified);
  return {};
}

Result<std::unique_ptr<ipc::PosixMessage>> QueueDescription::Receive(fiber::Time deadline) {
  std::unique_ptr<ipc::PosixMessage> message = TRY(queue().Receive(Until(deadline)));
  inode_->Touch(Touched::kModified);
  return message;
}

void QueueDescription::TouchAccessed() { inode_->Touch(Touched::kAccessed); }

Result<size_t> QueueDescription::PRead(IoSequence& dst, uint64_t offset, vfs::IoFlags) {
  const std::string text = queue().Describe();
  const std::string_view rest = std::string_view(text).substr(std::min<uint64_t>(offset, text.size()), dst.remaining());
  const size_t n = TRY(dst.CopyOut(std::as_bytes(std::span(rest))));
  TouchAccessed();
  return n;
}

Result<> QueueDescription::OnClose() {
  if (const kernel::Task* task = kernel::Task::Current()) queue().Unregister(&task->group());
  return {};
}

}  // namespace redoubt::mqueue
