// One pseudo-terminal pair. Private to devpts.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_DEVPTS_PTY_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_DEVPTS_PTY_H_

#include <sys/sysmacros.h>

#include <cstdint>
#include <string>
#include <vector>

#include "pkg/abi/linux/termios.h"
#include "pkg/errors/errors.h"
#include "pkg/sentry/tty/job_control.h"
#include "pkg/sentry/tty/line_discipline.h"
#include "pkg/sentry/usermem/usermem.h"
#include "pkg/sentry/vfs/file_description.h"
#include "pkg/sync/mutex.h"
#include "pkg/waiter/waiter.h"

namespace redoubt::devpts {

// Both ends' state under one lock. The slave's inode and both kinds of descriptions hold it; the master's description,
// of which there is one, hangs it up when it goes.
class Pty final : public tty::Terminal {
 public:
  explicit Pty(uint32_t index) : index_(index) {}

  static constexpr uint32_t kSlaveMajor = 136;

  uint32_t index() const { return index_; }
  uint64_t device() const override { return makedev(kSlaveMajor, index_); }

  // The slave. EIO while locked or after the hang-up.
  Result<RefPtr<vfs::FileDescription>> OpenSlave(const vfs::Path& path, int flags) EXCLUDES(mu_);
  Result<RefPtr<vfs::FileDescription>> OpenTerminal(const vfs::Path& path, int flags) override;
  void SlaveClosed() EXCLUDES(mu_);
  Result<size_t> SlaveRead(IoSequence& dst, bool nonblocking) EXCLUDES(mu_);
  Result<size_t> SlaveWrite(IoSequence& src) EXCLUDES(mu_);
  Result<uint64_t> SlaveIoctl(MemoryIo& io, uint32_t command, uint64_t arg) EXCLUDES(mu_);
  waiter::EventMask SlaveReadiness(waiter::EventMask mask) EXCLUDES(mu_);
  waiter::Queue& slave_queue() { return slave_queue_; }

  // The master.
  void MasterClosed() EXCLUDES(mu_);
  Result<size_t> MasterRead(IoSequence& dst) EXCLUDES(mu_);
  Result<size_t> MasterWrite(IoSequence& src) EXCLUDES(mu_);
  Result<uint64_t> MasterIoctl(MemoryIo& io, uint32_t command, uint64_t arg) EXCLUDES(mu_);
  waiter::EventMask MasterReadiness(waiter::EventMask mask) EXCLUDES(mu_);
  waiter::Queue& master_queue() { return master_queue_; }

 private:
  static constexpr size_t kChunk = 4096;

  // What both ends answer alike. ENOTTY for anything else.
  Result<uint64_t> CommonIoctl(MemoryIo& io, uint32_t command, uint64_t arg) EXCLUDES(mu_);
  Result<uint64_t> SetTermios(const abi::Termios& termios, bool flush) EXCLUDES(mu_);
  // A read that VTIME bounds.
  Result<std::string> TimedRead(size_t size) EXCLUDES(mu_);
  void Flush(int queue) EXCLUDES(mu_);
  // Wakes whoever may go on after a change of the line discipline's state.
  void NotifyBoth();

  const uint32_t index_;
  mutable sync::Mutex mu_{sync::Rank::kTty};
  tty::LineDiscipline line_ GUARDED_BY(mu_);
  abi::WindowSize window_ GUARDED_BY(mu_) = {};
  bool locked_ GUARDED_BY(mu_) = true;  // TIOCSPTLCK; unlockpt(3)
  bool master_open_ GUARDED_BY(mu_) = true;
  int slaves_open_ GUARDED_BY(mu_) = 0;
  bool slave_closed_ GUARDED_BY(mu_) = false;  // was open, and no slave is any more
  bool packet_mode_ GUARDED_BY(mu_) = false;
  uint8_t packet_status_ GUARDED_BY(mu_) = 0;
  waiter::Queue slave_queue_;
  waiter::Queue master_queue_;
};

}  // namespace redoubt::devpts

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_DEVPTS_PTY_H_
