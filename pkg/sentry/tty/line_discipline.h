// The line discipline between a pseudo-terminal's two ends: termios(3), Linux's n_tty.
#ifndef REDOUBT_PKG_SENTRY_TTY_LINE_DISCIPLINE_H_
#define REDOUBT_PKG_SENTRY_TTY_LINE_DISCIPLINE_H_

#include <algorithm>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "pkg/abi/linux/termios.h"
#include "pkg/errors/errors.h"

namespace redoubt::tty {

// A pure state machine: bytes typed at the terminal (written to the master) go in at Input, and come out of Read for
// the program; what the program writes goes in at Output and comes out, mixed with echoes, of TakeOutput. Not
// thread-safe: the terminal's lock guards it.
class LineDiscipline final {
 public:
  static constexpr size_t kMaxInput = 4096;  // bytes typed and not yet read
  static constexpr size_t kReceived = 4095;
  static constexpr size_t kMaxOutput = 65536;  // bytes written and not yet taken by the master

  LineDiscipline();

  const abi::Termios& termios() const { return termios_; }
  // TCSETS; `flush`: TCSETSF drops unread input.
  void SetTermios(const abi::Termios& termios, bool flush);

  // Takes as many bytes as there is room for; returns how many. Signals that the bytes ask for (SIGINT, SIGQUIT,
  // SIGTSTP) are appended to `signals`.
  size_t Input(std::span<const std::byte> bytes, std::vector<int>& signals);
  // Room for at least one more byte of input.
  bool CanInput() const;

  // What a read of `size` bytes gets now: a line at most in canonical mode. EAGAIN if it must wait for more;
  // `partial_ok` (O_NONBLOCK, or the time-out of VTIME has passed): what there is, though fewer than VMIN.
  Result<std::string> Read(size_t size, bool partial_ok);
  bool CanRead() const;
  size_t ReadableBytes() const;
  // VTIME in tenths of a second if reads time out (not canonical), and whether the time runs only between bytes.
  uint8_t read_timeout() const;
  uint8_t read_minimum() const;

  // Takes as much as there is room for; returns how many bytes of `bytes`. None while output is stopped (^S).
  size_t Output(std::span<const std::byte> bytes);
  bool CanOutput() const;
  // For the master.
  std::string TakeOutput(size_t size);
  size_t PendingOutput() const { return stopped_ ? 0 : output_.size(); }

  // TCFLSH, TCXONC.
  void FlushInput();
  // As on Linux, whose master buffers what it can: the first kReceived bytes count as on the other side already, so
  // that the echo of a key that flushes is seen.
  void FlushOutput() { output_.resize(std::min(output_.size(), kReceived)); }
  void SetStopped(bool stopped) { stopped_ = stopped; }

 private:
  bool InputFlag(uint32_t f) const { return (termios_.c_iflag & f) != 0; }
  bool OutputFlag(uint32_t f) const { return (termios_.c_oflag & f) != 0; }
  bool LocalFlag(uint32_t f) const { return (termios_.c_lflag & f) != 0; }
  // Whether `c` is the control character `index`, which may be disabled.
  bool IsControl(uint8_t c, int index) const { return c != 0 && termios_.c_cc[index] == c; }

  void InputByte(uint8_t c, std::vector<int>& signals);
  void CanonicalByte(uint8_t c);
  void Erase(uint8_t c);
  void EraseOne();
  void FinishLine(uint8_t c, bool store);
  void Append(uint8_t c);
  void Echo(uint8_t c);
  void EchoRaw(uint8_t c) { OutputByte(c); }
  size_t Width(uint8_t c) const;
  void OutputByte(uint8_t c);

  struct Line {
    std::string text;  // with its delimiter, unless that was VEOF
  };

  abi::Termios termios_;
  std::deque<Line> lines_;  // canonical: finished
  std::string pending_;     // canonical: being typed; otherwise all input
  std::string output_;
  size_t column_ = 0;
  bool literal_next_ = false;
  bool stopped_ = false;
};

}  // namespace redoubt::tty

#endif  // REDOUBT_PKG_SENTRY_TTY_LINE_DISCIPLINE_H_
