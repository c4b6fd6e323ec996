#include "pkg/sentry/fsimpl/devpts/pty.h"

#include <asm/termbits.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "pkg/sentry/wait/wait.h"

namespace redoubt::devpts {

namespace {

constexpr uint32_t kTostop = 0000400;
// TIOCPKT's bits (ioctl_tty(2)).
constexpr uint8_t kPacketFlushRead = 1, kPacketFlushWrite = 2, kPacketStop = 4, kPacketStart = 8;

class SlaveDescription final : public vfs::FileDescription {
 public:
  SlaveDescription(RefPtr<Pty> pty, vfs::Path path, int flags)
      : FileDescription(std::move(path), flags), pty_(std::move(pty)) {}
  ~SlaveDescription() override { pty_->SlaveClosed(); }

  Result<size_t> Read(IoSequence& dst, vfs::IoFlags) override { return pty_->SlaveRead(dst, nonblocking()); }
  Result<size_t> Write(IoSequence& src, vfs::IoFlags) override { return pty_->SlaveWrite(src); }
  Result<uint64_t> Seek(int64_t, int) override { return Err(ESPIPE); }
  Result<uint64_t> Ioctl(MemoryIo& io, uint32_t command, uint64_t arg) override {
    return pty_->SlaveIoctl(io, command, arg);
  }
  waiter::EventMask Readiness(waiter::EventMask mask) override { return pty_->SlaveReadiness(mask); }
  void RegisterWaiter(waiter::Entry& entry) override { pty_->slave_queue().Register(entry); }
  void UnregisterWaiter(waiter::Entry& entry) override { pty_->slave_queue().Unregister(entry); }
  bool SupportsEpoll() const override { return true; }

 private:
  const RefPtr<Pty> pty_;
};

}  // namespace

Result<RefPtr<vfs::FileDescription>> Pty::OpenSlave(const vfs::Path& path, int flags) {
  {
    sync::MutexLock lock(mu_);
    if (locked_ || !master_open_) return Err(EIO);
    slaves_open_++;
    slave_closed_ = false;
  }
  RefPtr<vfs::FileDescription> file = MakeRef<SlaveDescription>(RefPtr<Pty>(this), path, flags);
  MaybeBecomeControlling(flags);
  return file;
}

Result<RefPtr<vfs::FileDescription>> Pty::OpenTerminal(const vfs::Path& path, int flags) {
  return OpenSlave(path, flags | O_NOCTTY);
}

void Pty::SlaveClosed() {
  {
    sync::MutexLock lock(mu_);
    if (--slaves_open_ > 0) return;
    slave_closed_ = true;
  }
  master_queue_.Notify(waiter::kIn | waiter::kRdNorm | waiter::kHup);
}

void Pty::MasterClosed() {
  {
    sync::MutexLock lock(mu_);
    master_open_ = false;
    line_.FlushInput();
    line_.FlushOutput();
  }
  slave_queue_.Notify(waiter::kIn | waiter::kOut | waiter::kHup | waiter::kErr | waiter::kRdNorm | waiter::kWrNorm);
  Disconnect();
}

void Pty::NotifyBoth() {
  slave_queue_.Notify(SlaveReadiness(waiter::kAll));
  master_queue_.Notify(MasterReadiness(waiter::kAll));
}

Result<std::string> Pty::TimedRead(size_t size) {
  waiter::FiberEntry entry(waiter::kIn | waiter::kHup | waiter::kErr);
  slave_queue_.Register(entry);
  Result<std::string> result = Err(EAGAIN);
  size_t seen = 0;
  fiber::Time deadline = fiber::kForever;
  while (true) {
    bool due = fiber::Now() >= deadline;
    {
      sync::MutexLock lock(mu_);
      if (!master_open_) {
        result = std::string();
        break;
      }
      result = line_.Read(size, due);
      if (result || due) break;
      const size_t have = line_.ReadableBytes();
      // With a minimum the clock runs from byte to byte; without one, from the start.
      if ((line_.read_minimum() == 0 && deadline == fiber::kForever) || (line_.read_minimum() > 0 && have != seen)) {
        deadline = fiber::Now() + line_.read_timeout() * int64_t{100'000'000};
      }
      seen = have;
    }
    Result<> slept = wait::Block(deadline);
    if (!slept && slept.error() != Errno(ETIMEDOUT)) {
      sync::MutexLock lock(mu_);
      result = line_.Read(size, true);
      // Nothing read: the signal comes first.
      if (!result || result->empty()) result = Err(slept.error());
      break;
    }
  }
  slave_queue_.Unregister(entry);
  return result;
}

Result<size_t> Pty::SlaveRead(IoSequence& dst, bool nonblocking) {
  TRY(CheckForeground(SIGTTIN));
  if (dst.empty()) return size_t{0};
  const size_t size = std::min<uint64_t>(dst.remaining(), tty::LineDiscipline::kMaxInput);
  bool timed;
  Result<std::string> text = Err(EAGAIN);
  {
    sync::MutexLock lock(mu_);
    if (!master_open_) return size_t{0};
    text = line_.Read(size, nonblocking);
    timed = line_.read_timeout() > 0 && !nonblocking;
  }
  if (!text && timed) text = TimedRead(size);
  if (!text) return Err(text.error());
  // The master may type again.
  master_queue_.Notify(waiter::kOut | waiter::kWrNorm);
  if (text->empty()) return size_t{0};
  return dst.CopyOut(std::as_bytes(std::span(*text)));
}

Result<size_t> Pty::SlaveWrite(IoSequence& src) {
  bool tostop;
  {
    sync::MutexLock lock(mu_);
    tostop = (line_.termios().c_lflag & kTostop) != 0;
  }
  if (tostop) TRY(CheckForeground(SIGTTOU));
  std::array<std::byte, kChunk> buffer;
  size_t done = 0;
  while (!src.empty()) {
    IoSequence part = src.First(std::min<uint64_t>(src.remaining(), buffer.size()));
    Result<size_t> copied = part.CopyIn(std::span(buffer).first(part.remaining()));
    if (!copied) return done > 0 ? Result<size_t>(done) : copied;
    size_t taken;
    {
      sync::MutexLock lock(mu_);
      if (!master_open_) return Err(EIO);
      taken = line_.Output(std::span(buffer).first(*copied));
    }
    src.DropFirst(taken);
    done += taken;
    if (taken > 0) master_queue_.Notify(waiter::kIn | waiter::kRdNorm);
    if (taken < *copied) break;
  }
  if (done == 0 && !src.empty()) return Err(EAGAIN);
  return done;
}

waiter::EventMask Pty::SlaveReadiness(waiter::EventMask mask) {
  sync::MutexLock lock(mu_);
  waiter::EventMask ready = 0;
  if (!master_open_) {
    ready = waiter::kIn | waiter::kOut | waiter::kHup | waiter::kErr | waiter::kRdNorm | waiter::kWrNorm;
  } else {
    if (line_.CanRead()) ready |= waiter::kIn | waiter::kRdNorm;
    if (line_.CanOutput()) ready |= waiter::kOut | waiter::kWrNorm;
  }
  return ready & (mask | waiter::kErr | waiter::kHup);
}

Result<size_t> Pty::MasterRead(IoSequence& dst) {
  if (dst.empty()) return size_t{0};
  std::string text;
  {
    sync::MutexLock lock(mu_);
    size_t size = std::min<uint64_t>(dst.remaining(), kChunk);
    if (packet_mode_) {
      if (packet_status_ != 0) {
        text = static_cast<char>(std::exchange(packet_status_, 0));
      } else {
        text = line_.TakeOutput(size - 1);
        if (!text.empty() || (size == 1 && line_.PendingOutput() > 0)) text.insert(text.begin(), '\0');
      }
    } else {
      text = line_.TakeOutput(size);
    }
    if (text.empty()) return Err(slave_closed_ ? EIO : EAGAIN);
  }
  slave_queue_.Notify(waiter::kOut | waiter::kWrNorm);
  return dst.CopyOut(std::as_bytes(std::span(text)));
}

Result<size_t> Pty::MasterWrite(IoSequence& src) {
  std::array<std::byte, kChunk> buffer;
  size_t done = 0;
  std::vector<int> signals;
  while (!src.empty()) {
    IoSequence part = src.First(std::min<uint64_t>(src.remaining(), buffer.size()));
    Result<size_t> copied = part.CopyIn(std::span(buffer).first(part.remaining()));
    if (!copied) {
      if (done > 0) break;
      return copied;
    }
    size_t taken;
    {
      sync::MutexLock lock(mu_);
      taken = line_.Input(std::span(buffer).first(*copied), signals);
    }
    src.DropFirst(taken);
    done += taken;
    if (taken < *copied) break;
  }
  // A thousand ^C typed at once are one.
  for (size_t i = 0; i < signals.size(); i++) {
    if (std::find(signals.begin(), signals.begin() + i, signals[i]) == signals.begin() + i)
      SignalForeground(signals[i]);
  }
  if (done > 0) NotifyBoth();
  if (done == 0 && !src.empty()) return Err(EAGAIN);
  return done;
}

waiter::EventMask Pty::MasterReadiness(waiter::EventMask mask) {
  sync::MutexLock lock(mu_);
  waiter::EventMask ready = 0;
  if (line_.PendingOutput() > 0 || packet_status_ != 0) ready |= waiter::kIn | waiter::kRdNorm;
  if (packet_status_ != 0) ready |= waiter::kPri;
  if (slave_closed_) ready |= waiter::kHup;
  if (line_.CanInput()) ready |= waiter::kOut | waiter::kWrNorm;
  return ready & (mask | waiter::kErr | waiter::kHup);
}

Result<uint64_t> Pty::SetTermios(const abi::Termios& termios, bool flush) {
  {
    sync::MutexLock lock(mu_);
    line_.SetTermios(termios, flush);
  }
  NotifyBoth();
  return 0;
}

void Pty::Flush(int queue) {
  {
    sync::MutexLock lock(mu_);
    if (queue == TCIFLUSH || queue == TCIOFLUSH) {
      line_.FlushInput();
      if (packet_mode_) packet_status_ |= kPacketFlushRead;
    }
    if (queue == TCOFLUSH || queue == TCIOFLUSH) {
      line_.FlushOutput();
      if (packet_mode_) packet_status_ |= kPacketFlushWrite;
    }
  }
  NotifyBoth();
}

Result<uint64_t> Pty::CommonIoctl(MemoryIo& io, uint32_t command, uint64_t arg) {
  abi::Termios termios;
  abi::WindowSize window;
  {
    sync::MutexLock lock(mu_);
    termios = line_.termios();
    window = window_;
  }
  constexpr uint32_t kSpeed = 38400;
  switch (command) {
    case TCGETS:
      TRY(io.CopyOutObject(arg, termios));
      return 0;
    case abi::kTcgets2: {
      abi::Termios2 t2 = {termios.c_iflag, termios.c_oflag, termios.c_cflag, termios.c_lflag, termios.c_line, {},
                          kSpeed,          kSpeed};
      std::ranges::copy(termios.c_cc, t2.c_cc);
      TRY(io.CopyOutObject(arg, t2));
      return 0;
    }
    case TCSETS:
    case TCSETSW:
    case TCSETSF:
      return SetTermios(TRY(io.CopyInObject<abi::Termios>(arg)), command == TCSETSF);
    case abi::kTcsets2:
    case abi::kTcsetsw2:
    case abi::kTcsetsf2: {
      abi::Termios2 t2 = TRY(io.CopyInObject<abi::Termios2>(arg));
      termios = {t2.c_iflag, t2.c_oflag, t2.c_cflag, t2.c_lflag, t2.c_line, {}};
      std::ranges::copy(t2.c_cc, termios.c_cc);
      return SetTermios(termios, command == abi::kTcsetsf2);
    }
    case TIOCGWINSZ:
      TRY(io.CopyOutObject(arg, window));
      return 0;
    case TIOCSWINSZ: {
      abi::WindowSize fresh = TRY(io.CopyInObject<abi::WindowSize>(arg));
      bool changed;
      {
        sync::MutexLock lock(mu_);
        changed = fresh.rows != window_.rows || fresh.columns != window_.columns ||
                  fresh.x_pixels != window_.x_pixels || fresh.y_pixels != window_.y_pixels;
        window_ = fresh;
      }
      if (changed) SignalForeground(SIGWINCH);
      return 0;
    }
    case TCFLSH:
      if (arg != TCIFLUSH && arg != TCOFLUSH && arg != TCIOFLUSH) return Err(EINVAL);
      Flush(static_cast<int>(arg));
      return 0;
    case TCSBRK:  // no line to break; output counts as drained once it is with the master
    case TCSBRKP:
    case TIOCSBRK:
    case TIOCCBRK:
    case TIOCEXCL:
    case TIOCNXCL:
      return 0;
    case TIOCGETD:
      TRY(io.CopyOutObject<int32_t>(arg, 0));
      return 0;
    case TIOCSETD:
      return TRY(io.CopyInObject<int32_t>(arg)) == 0 ? Result<uint64_t>(0) : Err(EINVAL);
    default:
      return Err(ENOTTY);
  }
}

Result<uint64_t> Pty::SlaveIoctl(MemoryIo& io, uint32_t command, uint64_t arg) {
  {
    sync::MutexLock lock(mu_);
    if (!master_open_) return Err(EIO);
  }
  if (auto handled = JobControlIoctl(io, command, arg, Side::kTerminal)) return *handled;
  switch (command) {
    case FIONREAD: {
      int32_t n;
      {
        sync::MutexLock lock(mu_);
        n = static_cast<int32_t>(line_.ReadableBytes());
      }
      TRY(io.CopyOutObject(arg, n));
      return 0;
    }
    case TIOCOUTQ: {
      int32_t n;
      {
        sync::MutexLock lock(mu_);
        n = static_cast<int32_t>(line_.PendingOutput());
      }
      TRY(io.CopyOutObject(arg, n));
      return 0;
    }
    case TCXONC: {
      TRY(CheckForeground(SIGTTOU));
      if (arg > TCION) return Err(EINVAL);
      if (arg == TCIOFF || arg == TCION) return 0;  // asks the typist to stop; the queue's bound does that
      {
        sync::MutexLock lock(mu_);
        line_.SetStopped(arg == TCOOFF);
        if (packet_mode_) packet_status_ |= arg == TCOOFF ? kPacketStop : kPacketStart;
      }
      NotifyBoth();
      return 0;
    }
    case TCSETS:
    case TCSETSW:
    case TCSETSF:
    case abi::kTcsets2:
    case abi::kTcsetsw2:
    case abi::kTcsetsf2:
    case TCFLSH:
      TRY(CheckForeground(SIGTTOU));
      break;
    default:
      break;
  }
  return CommonIoctl(io, command, arg);
}

Result<uint64_t> Pty::MasterIoctl(MemoryIo& io, uint32_t command, uint64_t arg) {
  if (auto handled = JobControlIoctl(io, command, arg, Side::kMaster)) return *handled;
  switch (command) {
    case TIOCGPTN:
      TRY(io.CopyOutObject<uint32_t>(arg, index_));
      return 0;
    case TIOCSPTLCK: {
      const int32_t lock_it = TRY(io.CopyInObject<int32_t>(arg));
      sync::MutexLock lock(mu_);
      locked_ = lock_it != 0;
      return 0;
    }
    case TIOCGPTLCK: {
      int32_t locked;
      {
        sync::MutexLock lock(mu_);
        locked = locked_;
      }
      TRY(io.CopyOutObject(arg, locked));
      return 0;
    }
    case TIOCPKT: {
      const int32_t on = TRY(io.CopyInObject<int32_t>(arg));
      sync::MutexLock lock(mu_);
      if (on != 0 && !packet_mode_) packet_status_ = 0;
      packet_mode_ = on != 0;
      return 0;
    }
    case TIOCGPKT: {
      int32_t on;
      {
        sync::MutexLock lock(mu_);
        on = packet_mode_;
      }
      TRY(io.CopyOutObject(arg, on));
      return 0;
    }
    case TIOCSIG: {
      if (arg != SIGINT && arg != SIGQUIT && arg != SIGTSTP) return Err(EINVAL);
      SignalForeground(static_cast<int>(arg));
      return 0;
    }
    case FIONREAD:
    case TIOCOUTQ: {
      int32_t n;
      {
        sync::MutexLock lock(mu_);
        n = static_cast<int32_t>(command == FIONREAD ? line_.PendingOutput() : 0);
      }
      TRY(io.CopyOutObject(arg, n));
      return 0;
    }
    default:
      return CommonIoctl(io, command, arg);
  }
}

}  // namespace redoubt::devpts
