#include "pkg/sentry/fsimpl/host/host.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "pkg/abi/linux/termios.h"
#include "pkg/sentry/fsimpl/host/host_inode.h"
#include "pkg/sentry/fsimpl/host/host_terminal.h"
#include "pkg/sentry/fsimpl/host/poller.h"
#include "pkg/sentry/vfs/anon_inode.h"

namespace redoubt::host {

namespace {

class HostDescription final : public vfs::FileDescription {
 public:
  HostDescription(RefPtr<HostInode> inode, vfs::Path path, int flags)
      : FileDescription(std::move(path), flags), inode_(std::move(inode)) {}

  HostInode& host_inode() const { return *inode_; }

  Result<size_t> Read(IoSequence& dst, vfs::IoFlags) override {
    if (inode_->terminal()) TRY(inode_->terminal()->CheckForeground(SIGTTIN));
    return inode_->Read(dst);
  }
  Result<size_t> Write(IoSequence& src, vfs::IoFlags flags_of_call) override {
    if (inode_->terminal()) TRY(CheckTostop());
    if (inode_->kind() == HostInode::Kind::kRegular && (flags() & O_APPEND)) TRY(inode_->Seek(0, SEEK_END));
    return inode_->Write(src, false);
  }
  Result<size_t> PRead(IoSequence& dst, uint64_t offset, vfs::IoFlags) override { return inode_->PRead(dst, offset); }
  Result<size_t> PWrite(IoSequence& src, uint64_t offset, vfs::IoFlags) override { return inode_->PWrite(src, offset); }
  Result<uint64_t> Seek(int64_t offset, int whence) override { return inode_->Seek(offset, whence); }
  Result<> Sync(bool) override { return inode_->Sync(); }

  Result<uint64_t> Ioctl(MemoryIo& io, uint32_t command, uint64_t arg) override {
    if (command == FIONREAD) {
      TRY(io.CopyOutObject<int32_t>(arg, TRY(inode_->Readable())));
      return 0;
    }
    if (!inode_->terminal()) return Err(ENOTTY);
    return inode_->terminal()->Ioctl(*inode_, io, command, arg);
  }

  waiter::EventMask Readiness(waiter::EventMask mask) override { return inode_->Poll(mask); }
  void RegisterWaiter(waiter::Entry& entry) override { inode_->queue().Register(entry); }
  void UnregisterWaiter(waiter::Entry& entry) override { inode_->queue().Unregister(entry); }
  bool SupportsEpoll() const override { return inode_->kind() != HostInode::Kind::kRegular; }

 private:
  // With TOSTOP a background group that writes is stopped.
  Result<> CheckTostop() {
    abi::Termios termios;
    constexpr uint32_t kTostop = 0000400;
    if (!inode_->TerminalIoctl(TCGETS, &termios) || !(termios.c_lflag & kTostop)) return {};
    return inode_->terminal()->CheckForeground(SIGTTOU);
  }

  const RefPtr<HostInode> inode_;
};

vfs::Path PathOf(RefPtr<HostInode> inode) {
  std::string name = "host:[" + std::to_string(inode->ino()) + "]";
  return vfs::MakeAnonymousPath(std::move(inode), std::move(name));
}

}  // namespace

Result<RefPtr<vfs::FileDescription>> HostInode::Open(const vfs::Path& path, int flags) {
  if (terminal_) terminal_->MaybeBecomeControlling(flags);
  return RefPtr<vfs::FileDescription>(MakeRef<HostDescription>(RefPtr<HostInode>(this), path, flags));
}

Result<RefPtr<vfs::FileDescription>> HostTerminal::OpenTerminal(const vfs::Path& path, int flags) {
  RefPtr<HostInode> inode;
  {
    sync::MutexLock lock(mu_);
    if (inode_ == nullptr || !inode_->TryIncRef()) return Err(EIO);
    inode = RefPtr<HostInode>::Adopt(inode_);
  }
  return inode->Open(path, flags);
}

void HostTerminal::Forget(HostInode& inode) {
  sync::MutexLock lock(mu_);
  if (inode_ == &inode) inode_ = nullptr;
}

Result<uint64_t> HostTerminal::Ioctl(HostInode& inode, MemoryIo& io, uint32_t command, uint64_t arg) {
  if (auto handled = JobControlIoctl(io, command, arg, Side::kTerminal)) return *handled;
  auto get = [&]<typename T>(T value) -> Result<uint64_t> {
    TRY(inode.TerminalIoctl(command, &value));
    TRY(io.CopyOutObject(arg, value));
    return 0;
  };
  auto set = [&]<typename T>(T) -> Result<uint64_t> {
    T value = TRY(io.CopyInObject<T>(arg));
    TRY(CheckForeground(SIGTTOU));
    TRY(inode.TerminalIoctl(command, &value));
    return 0;
  };
  switch (command) {
    case TCGETS:
      return get(abi::Termios{});
    case TCSETS:
    case TCSETSW:
    case TCSETSF:
      return set(abi::Termios{});
    case abi::kTcgets2:
      return get(abi::Termios2{});
    case abi::kTcsets2:
    case abi::kTcsetsw2:
    case abi::kTcsetsf2:
      return set(abi::Termios2{});
    case TIOCGWINSZ:
      return get(abi::WindowSize{});
    case TIOCSWINSZ:
      // The size is the user's window's; a program that sets it sets it for its own kind.
      return set(abi::WindowSize{});
    case TIOCOUTQ:
      return get(int32_t{0});
    case TCSBRK:
    case TCXONC:
    case TCFLSH:
      TRY(CheckForeground(SIGTTOU));
      TRY(inode.TerminalIoctl(command, reinterpret_cast<void*>(arg & 3)));
      return 0;
    default:
      return Err(ENOTTY);
  }
}

Result<RefPtr<vfs::FileDescription>> Import(int fd, int flags, uint32_t uid, uint32_t gid) {
  RefPtr<HostInode> inode = TRY(HostInode::Create(fd, uid, gid));
  vfs::Path path = PathOf(inode);
  return RefPtr<vfs::FileDescription>(MakeRef<HostDescription>(std::move(inode), std::move(path), flags));
}

void Prepare() { Poller::Get().Start(); }

RefPtr<tty::Terminal> TerminalOf(vfs::FileDescription& file) {
  auto* description = dynamic_cast<HostDescription*>(&file);
  if (description == nullptr || !description->host_inode().terminal()) return nullptr;
  return description->host_inode().terminal();
}

}  // namespace redoubt::host
