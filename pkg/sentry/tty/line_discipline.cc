#include "pkg/sentry/tty/line_discipline.h"

#include <asm/termbits.h>
#include <signal.h>

#include <algorithm>
#include <cctype>
#include <utility>

namespace redoubt::tty {

namespace {

// tty_std_termios and n_tty's control characters.
abi::Termios DefaultTermios() {
  abi::Termios t = {};
  t.c_iflag = ICRNL | IXON;
  t.c_oflag = OPOST | ONLCR;
  t.c_cflag = B38400 | CS8 | CREAD;
  t.c_lflag = ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN;
  t.c_cc[VINTR] = 'C' - 64;
  t.c_cc[VQUIT] = '\\' - 64;
  t.c_cc[VERASE] = 0x7f;
  t.c_cc[VKILL] = 'U' - 64;
  t.c_cc[VEOF] = 'D' - 64;
  t.c_cc[VMIN] = 1;
  t.c_cc[VSTART] = 'Q' - 64;
  t.c_cc[VSTOP] = 'S' - 64;
  t.c_cc[VSUSP] = 'Z' - 64;
  t.c_cc[VREPRINT] = 'R' - 64;
  t.c_cc[VDISCARD] = 'O' - 64;
  t.c_cc[VWERASE] = 'W' - 64;
  t.c_cc[VLNEXT] = 'V' - 64;
  return t;
}

constexpr uint32_t kTabMask = TABDLY;

// A byte that continues a UTF-8 sequence.
bool IsContinuation(char c) { return (static_cast<uint8_t>(c) & 0xc0) == 0x80; }

}  // namespace

LineDiscipline::LineDiscipline() : termios_(DefaultTermios()) {}

void LineDiscipline::SetTermios(const abi::Termios& termios, bool flush) {
  const bool was_canonical = LocalFlag(ICANON);
  termios_ = termios;
  if (flush) FlushInput();
  if (was_canonical && !LocalFlag(ICANON)) {
    // What was typed can be read at once.
    std::string all;
    for (Line& line : lines_) all += line.text;
    lines_.clear();
    pending_.insert(0, all);
  } else if (!was_canonical && LocalFlag(ICANON) && !pending_.empty()) {
    // Linux: what is there becomes a line, to be read as it is.
    lines_.push_back({std::exchange(pending_, {})});
  }
  if (!InputFlag(IXON)) stopped_ = false;
}

void LineDiscipline::FlushInput() {
  lines_.clear();
  pending_.clear();
  literal_next_ = false;
}

bool LineDiscipline::CanInput() const {
  // In canonical mode erasing and the end of the line must always get through.
  return LocalFlag(ICANON) ? lines_.size() < kMaxInput && ReadableBytes() < 16 * kMaxInput
                           : pending_.size() < kMaxInput;
}

size_t LineDiscipline::Input(std::span<const std::byte> bytes, std::vector<int>& signals) {
  size_t n = 0;
  for (std::byte b : bytes) {
    if (!CanInput()) break;
    InputByte(static_cast<uint8_t>(b), signals);
    n++;
  }
  return n;
}

void LineDiscipline::InputByte(uint8_t c, std::vector<int>& signals) {
  if (InputFlag(ISTRIP)) c &= 0x7f;
  if (InputFlag(IUCLC) && LocalFlag(IEXTEN)) c = static_cast<uint8_t>(std::tolower(c));
  if (literal_next_) {
    literal_next_ = false;
    Append(c);
    Echo(c);
    return;
  }
  if (InputFlag(IXON)) {
    if (IsControl(c, VSTOP) && !(stopped_ && termios_.c_cc[VSTART] == termios_.c_cc[VSTOP])) {
      stopped_ = true;
      return;
    }
    if (IsControl(c, VSTART)) {
      stopped_ = false;
      return;
    }
    if (stopped_ && InputFlag(IXANY)) stopped_ = false;
  }
  if (LocalFlag(ISIG)) {
    const int sig = IsControl(c, VINTR) ? SIGINT : IsControl(c, VQUIT) ? SIGQUIT : IsControl(c, VSUSP) ? SIGTSTP : 0;
    if (sig != 0) {
      if (!LocalFlag(NOFLSH)) {
        FlushInput();
        FlushOutput();
      }
      stopped_ = false;
      if (LocalFlag(ECHO)) Echo(c);
      signals.push_back(sig);
      return;
    }
  }
  if (c == '\r') {
    if (InputFlag(IGNCR)) return;
    if (InputFlag(ICRNL)) c = '\n';
  } else if (c == '\n' && InputFlag(INLCR)) {
    c = '\r';
  }
  if (LocalFlag(ICANON)) {
    CanonicalByte(c);
    return;
  }
  Append(c);
  if (LocalFlag(ECHO)) Echo(c);
}

void LineDiscipline::CanonicalByte(uint8_t c) {
  const bool extended = LocalFlag(IEXTEN);
  if (IsControl(c, VERASE) || IsControl(c, VKILL) || (extended && IsControl(c, VWERASE))) {
    Erase(c);
    return;
  }
  if (extended && IsControl(c, VLNEXT)) {
    literal_next_ = true;
    if (LocalFlag(ECHO) && LocalFlag(ECHOCTL)) {
      EchoRaw('^');
      EchoRaw('\b');
    }
    return;
  }
  if (extended && IsControl(c, VREPRINT) && LocalFlag(ECHO)) {
    Echo(c);
    EchoRaw('\n');
    for (char p : pending_) Echo(static_cast<uint8_t>(p));
    return;
  }
  if (c == '\n') {
    if (LocalFlag(ECHO) || LocalFlag(ECHONL)) EchoRaw('\n');
    FinishLine(c, true);
    return;
  }
  if (IsControl(c, VEOF)) {
    FinishLine(c, false);
    return;
  }
  if (IsControl(c, VEOL) || (extended && IsControl(c, VEOL2))) {
    if (LocalFlag(ECHO)) Echo(c);
    FinishLine(c, true);
    return;
  }
  // The last place is for the end of the line.
  if (pending_.size() >= kMaxInput - 1) {
    if (InputFlag(IMAXBEL)) EchoRaw('\a');
    return;
  }
  Append(c);
  if (LocalFlag(ECHO)) Echo(c);
}

void LineDiscipline::Append(uint8_t c) {
  if (pending_.size() < kMaxInput) pending_ += static_cast<char>(c);
}

void LineDiscipline::FinishLine(uint8_t c, bool store) {
  if (store) pending_ += static_cast<char>(c);
  lines_.push_back({std::exchange(pending_, {})});
}

// Columns that the echo of `c` took.
size_t LineDiscipline::Width(uint8_t c) const {
  if (c == '\t') return 0;  // EraseOne counts
  if (c < 0x20 || c == 0x7f) return LocalFlag(ECHOCTL) ? 2 : 0;
  return 1;
}

void LineDiscipline::EraseOne() {
  std::string removed;
  do {
    removed.insert(removed.begin(), pending_.back());
    pending_.pop_back();
  } while (InputFlag(IUTF8) && IsContinuation(removed.front()) && !pending_.empty());
  if (!LocalFlag(ECHO)) return;
  if (!LocalFlag(ECHOE)) {
    Echo(termios_.c_cc[VERASE]);
    return;
  }
  const uint8_t c = static_cast<uint8_t>(removed.front());
  size_t width = Width(c);
  if (c == '\t') {
    // Back to where the text before it ends, counting from the last tab stop that is known.
    size_t at = 0;
    for (char p : pending_) at = p == '\t' ? (at | 7) + 1 : at + Width(static_cast<uint8_t>(p));
    width = 8 - (at & 7);
    for (size_t i = 0; i < width; i++) EchoRaw('\b');
    return;
  }
  for (size_t i = 0; i < width; i++) {
    EchoRaw('\b');
    EchoRaw(' ');
    EchoRaw('\b');
  }
}

void LineDiscipline::Erase(uint8_t c) {
  if (IsControl(c, VKILL)) {
    if (LocalFlag(ECHO) && !(LocalFlag(ECHOK) && LocalFlag(ECHOKE) && LocalFlag(ECHOE))) {
      pending_.clear();
      Echo(c);
      if (LocalFlag(ECHOK)) EchoRaw('\n');
      return;
    }
    while (!pending_.empty()) EraseOne();
    return;
  }
  if (IsControl(c, VWERASE)) {
    auto is_word = [](char p) { return std::isalnum(static_cast<uint8_t>(p)) || p == '_' || (p & 0x80) != 0; };
    while (!pending_.empty() && !is_word(pending_.back())) EraseOne();
    while (!pending_.empty() && is_word(pending_.back())) EraseOne();
    return;
  }
  if (!pending_.empty()) EraseOne();
}

void LineDiscipline::Echo(uint8_t c) {
  if (!LocalFlag(ECHO)) return;
  if (LocalFlag(ECHOCTL) && (c < 0x20 || c == 0x7f) && c != '\t' && c != '\n') {
    OutputByte('^');
    OutputByte(c ^ 0x40);
    return;
  }
  OutputByte(c);
}

bool LineDiscipline::CanRead() const {
  if (LocalFlag(ICANON)) return !lines_.empty();
  const size_t minimum = read_timeout() == 0 && read_minimum() > 0 ? read_minimum() : 1;
  return pending_.size() >= minimum;
}

size_t LineDiscipline::ReadableBytes() const {
  if (!LocalFlag(ICANON)) return pending_.size();
  size_t n = 0;
  for (const Line& line : lines_) n += line.text.size();
  return n;
}

uint8_t LineDiscipline::read_timeout() const { return LocalFlag(ICANON) ? 0 : termios_.c_cc[VTIME]; }
uint8_t LineDiscipline::read_minimum() const { return LocalFlag(ICANON) ? 1 : termios_.c_cc[VMIN]; }

Result<std::string> LineDiscipline::Read(size_t size, bool partial_ok) {
  if (LocalFlag(ICANON)) {
    if (lines_.empty()) return Err(EAGAIN);
    Line& line = lines_.front();
    if (line.text.size() <= size) {
      std::string text = std::move(line.text);
      lines_.pop_front();
      return text;
    }
    std::string text = line.text.substr(0, size);
    line.text.erase(0, size);
    return text;
  }
  const size_t wanted = std::min<size_t>(read_minimum(), size);
  if (pending_.size() < wanted && !(partial_ok && !pending_.empty())) return Err(EAGAIN);
  if (pending_.empty() && read_minimum() == 0 && read_timeout() > 0 && !partial_ok) return Err(EAGAIN);
  std::string text = pending_.substr(0, size);
  pending_.erase(0, size);
  return text;
}

void LineDiscipline::OutputByte(uint8_t c) {
  // Echoes of one who never reads them end here.
  if (output_.size() >= 2 * kMaxOutput) return;
  if (!OutputFlag(OPOST)) {
    output_ += static_cast<char>(c);
    return;
  }
  switch (c) {
    case '\n':
      if (OutputFlag(ONLCR)) {
        output_ += '\r';
        column_ = 0;
      }
      if (OutputFlag(ONLRET)) column_ = 0;
      break;
    case '\r':
      if (OutputFlag(ONOCR) && column_ == 0) return;
      if (OutputFlag(OCRNL)) {
        c = '\n';
        if (OutputFlag(ONLRET)) column_ = 0;
      } else {
        column_ = 0;
      }
      break;
    case '\t': {
      const size_t spaces = 8 - (column_ & 7);
      column_ += spaces;
      if ((termios_.c_oflag & kTabMask) == XTABS) {
        output_.append(spaces, ' ');
        return;
      }
      break;
    }
    case '\b':
      if (column_ > 0) column_--;
      break;
    default:
      if (OutputFlag(OLCUC)) c = static_cast<uint8_t>(std::toupper(c));
      if (c >= 0x20 && c != 0x7f && !IsContinuation(static_cast<char>(c))) column_++;
      break;
  }
  output_ += static_cast<char>(c);
}

bool LineDiscipline::CanOutput() const { return !stopped_ && output_.size() < kMaxOutput; }

size_t LineDiscipline::Output(std::span<const std::byte> bytes) {
  size_t n = 0;
  for (std::byte b : bytes) {
    if (!CanOutput()) break;
    OutputByte(static_cast<uint8_t>(b));
    n++;
  }
  return n;
}

std::string LineDiscipline::TakeOutput(size_t size) {
  if (stopped_) return {};
  std::string text = output_.substr(0, size);
  output_.erase(0, size);
  return text;
}

}  // namespace redoubt::tty
