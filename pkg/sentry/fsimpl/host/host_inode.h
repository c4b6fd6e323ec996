// The inode of an imported host descriptor, which it owns. Private to host.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_HOST_HOST_INODE_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_HOST_HOST_INODE_H_

#include <cstdint>
#include <string>

#include "pkg/errors/errors.h"
#include "pkg/hostio/hostio.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/tty/job_control.h"
#include "pkg/sentry/usermem/usermem.h"
#include "pkg/sentry/vfs/inode.h"
#include "pkg/waiter/waiter.h"

namespace redoubt::host {

class HostTerminal;

// Several descriptions may be of one inode (/proc/PID/fd opened again). The host calls are in the _unsafe file.
class HostInode final : public vfs::Inode {
 public:
  enum class Kind { kRegular, kPipe, kSocket, kCharDevice, kTerminal };

  static Result<RefPtr<HostInode>> Create(int fd, uint32_t uid, uint32_t gid);
  ~HostInode() override;

  uint32_t type() const override { return type_; }
  Result<vfs::Attributes> GetAttributes() override;
  Result<> SetAttributes(const vfs::AttributeChange& change) override;
  Result<RefPtr<vfs::FileDescription>> Open(const vfs::Path& path, int flags) override;

  Kind kind() const { return kind_; }
  uint64_t ino() const { return ino_; }
  const RefPtr<HostTerminal>& terminal() const { return terminal_; }
  waiter::Queue& queue() { return queue_; }

  // The stream, or a regular file's shared offset. EAGAIN instead of blocking. At most kMaxTransfer bytes a call.
  Result<size_t> Read(IoSequence& dst);
  Result<size_t> Write(IoSequence& src, bool append);
  // Regular files.
  Result<size_t> PRead(IoSequence& dst, uint64_t offset);
  Result<size_t> PWrite(IoSequence& src, uint64_t offset);
  Result<uint64_t> Seek(int64_t offset, int whence);
  Result<> Sync();
  waiter::EventMask Poll(waiter::EventMask mask) const;
  // Bytes that can be read (FIONREAD).
  Result<int> Readable() const;
  // Terminals: a command of the allow-list with a struct of `size` bytes that goes in, out or both ways.
  Result<> TerminalIoctl(uint32_t command, void* argument) const;

 private:
  static constexpr size_t kMaxTransfer = 64 << 10;

  HostInode(vfs::Filesystem& fs, int fd, Kind kind, uint32_t type, uint32_t uid, uint32_t gid);
  template <typename Call>
  Result<size_t> ReadBy(IoSequence& dst, Call&& call);
  template <typename Call>
  Result<size_t> WriteBy(IoSequence& src, Call&& call);

  const int fd_;
  const hostio::Descriptor io_;
  const Kind kind_;
  const uint32_t type_;
  const uint32_t uid_, gid_;
  const uint64_t ino_;
  RefPtr<HostTerminal> terminal_;  // set once by Create
  waiter::Queue queue_;
  uint64_t poll_id_ = 0;
};

}  // namespace redoubt::host

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_HOST_HOST_INODE_H_
