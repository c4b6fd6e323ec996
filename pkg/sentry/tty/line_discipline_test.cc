#include "pkg/sentry/tty/line_discipline.h"

#include <asm/termbits.h>
#include <gtest/gtest.h>
#include <signal.h>

namespace redoubt::tty {
namespace {

struct Tty {
  LineDiscipline line;
  std::vector<int> signals;

  void Type(std::string_view s) { line.Input(std::as_bytes(std::span(s)), signals); }
  std::string Screen() { return line.TakeOutput(100000); }
  // What a program reads: "EAGAIN" if it would wait.
  std::string Read(size_t size = 1000) {
    Result<std::string> r = line.Read(size, false);
    return r ? *r : "EAGAIN";
  }
  void Write(std::string_view s) { line.Output(std::as_bytes(std::span(s))); }
  void Local(uint32_t off, uint32_t on = 0) {
    abi::Termios t = line.termios();
    t.c_lflag = (t.c_lflag & ~off) | on;
    line.SetTermios(t, false);
  }
  void Raw(uint8_t min, uint8_t time) {
    abi::Termios t = line.termios();
    t.c_lflag &= ~uint32_t{ICANON | ECHO | ISIG};
    t.c_cc[VMIN] = min;
    t.c_cc[VTIME] = time;
    line.SetTermios(t, false);
  }
};

TEST(LineDiscipline, ALineIsReadWhenItIsFinished) {
  Tty t;
  t.Type("hel");
  EXPECT_EQ(t.Read(), "EAGAIN");
  EXPECT_FALSE(t.line.CanRead());
  t.Type("lo\rnext\n");
  EXPECT_EQ(t.Screen(), "hello\r\nnext\r\n");
  EXPECT_EQ(t.Read(3), "hel");
  EXPECT_EQ(t.Read(), "lo\n");
  EXPECT_EQ(t.Read(), "next\n");
  EXPECT_EQ(t.Read(), "EAGAIN");
}

TEST(LineDiscipline, EndOfFileEndsALineWithoutBeingRead) {
  Tty t;
  t.Type("ab\x04");
  EXPECT_EQ(t.Read(), "ab");
  t.Type("\x04");
  EXPECT_TRUE(t.line.CanRead());
  EXPECT_EQ(t.Read(), "");
  EXPECT_EQ(t.Read(), "EAGAIN");
}

TEST(LineDiscipline, Editing) {
  Tty t;
  t.Type("abc\x7f\x7fX\n");
  EXPECT_EQ(t.Screen(), "abc\b \b\b \bX\r\n");
  EXPECT_EQ(t.Read(), "aX\n");
  t.Type("\x7f\x7f");
  EXPECT_EQ(t.Screen(), "");
  t.Type("one two  \x17three\n");
  EXPECT_EQ(t.Read(), "one three\n");
  t.Screen();
  t.Type(
      "gone\x15"
      "kept\n");
  EXPECT_EQ(t.Read(), "kept\n");
  EXPECT_EQ(t.Screen(), "gone\b \b\b \b\b \b\b \bkept\r\n");
  // A control character echoes as two columns and is erased as two.
  t.Type("\x01\x7f\n");
  EXPECT_EQ(t.Screen(), "^A\b \b\b \b\r\n");
  EXPECT_EQ(t.Read(), "\n");
  // Literal next.
  t.Type("\x16\x03\n");
  EXPECT_EQ(t.Read(), "\x03\n");
  EXPECT_TRUE(t.signals.empty());
  t.Screen();
  t.Type("ab\x12");
  EXPECT_EQ(t.Screen(), "ab^R\r\nab");
}

TEST(LineDiscipline, ErasesWholeUtf8Characters) {
  Tty t;
  abi::Termios termios = t.line.termios();
  termios.c_iflag |= IUTF8;
  t.line.SetTermios(termios, false);
  t.Type("a\xc3\xa9\x7f\n");
  EXPECT_EQ(t.Read(), "a\n");
}

TEST(LineDiscipline, SignalsFlush) {
  Tty t;
  t.Type("typed\x03");
  EXPECT_EQ(t.signals, std::vector<int>{SIGINT});
  EXPECT_EQ(t.Screen(), "typed^C");
  t.Type("\n");
  EXPECT_EQ(t.Read(), "\n");
  t.Type("\x1a\x1c");
  EXPECT_EQ(t.signals, (std::vector<int>{SIGINT, SIGTSTP, SIGQUIT}));
  t.Local(0, NOFLSH);
  t.Type("kept\x03\n");
  EXPECT_EQ(t.Read(), "kept\n");
  t.Local(ISIG);
  t.Type("\x03\n");
  EXPECT_EQ(t.Read(), "\x03\n");
}

TEST(LineDiscipline, OutputProcessing) {
  Tty t;
  t.Write("a\nb\tc");
  EXPECT_EQ(t.Screen(), "a\r\nb\tc");
  abi::Termios termios = t.line.termios();
  termios.c_oflag |= XTABS;
  t.line.SetTermios(termios, false);
  t.Write("\r12\tx");
  EXPECT_EQ(t.Screen(), "\r12      x");
  termios.c_oflag = 0;
  t.line.SetTermios(termios, false);
  t.Write("a\n");
  EXPECT_EQ(t.Screen(), "a\n");
}

TEST(LineDiscipline, FlowControl) {
  Tty t;
  t.Type("\x13");
  EXPECT_FALSE(t.line.CanOutput());
  t.Write("x");
  EXPECT_EQ(t.Screen(), "");
  t.Type("\x11");
  t.Write("y");
  EXPECT_EQ(t.Screen(), "y");
}

TEST(LineDiscipline, RawMinimum) {
  Tty t;
  t.Raw(3, 0);
  t.Type("ab");
  EXPECT_EQ(t.Read(), "EAGAIN");
  EXPECT_EQ(*t.line.Read(10, true), "ab");
  t.Type("c\r\x03");
  EXPECT_EQ(t.Read(), "c\n\x03");
  t.Raw(0, 0);
  EXPECT_EQ(t.Read(), "");
  // A read smaller than the minimum needs only its own size.
  t.Raw(5, 0);
  t.Type("xy");
  EXPECT_EQ(t.Read(2), "xy");
  EXPECT_EQ(t.Screen(), "");
}

TEST(LineDiscipline, SwitchingModesKeepsWhatWasTyped) {
  Tty t;
  t.Type("line\npart");
  t.Raw(1, 0);
  EXPECT_EQ(t.Read(), "line\npart");
  t.Type("abc");
  t.Local(0, ICANON);
  EXPECT_EQ(t.Read(), "abc");
}

TEST(LineDiscipline, FlushingKeepsWhatTheMasterHasReceived) {
  Tty t;
  t.Type("\003\003");
  EXPECT_EQ(t.Screen(), "^C^C");
  std::string output(10000, 'z');
  EXPECT_EQ(t.line.Output(std::as_bytes(std::span(output))), output.size());
  t.Type("\003");
  EXPECT_EQ(t.Screen(), std::string(LineDiscipline::kReceived, 'z') + "^C");
}

TEST(LineDiscipline, BoundsHold) {
  Tty t;
  t.Type(std::string(10000, 'x') + "\n");
  std::string line = t.Read(20000);
  EXPECT_EQ(line.size(), LineDiscipline::kMaxInput);
  EXPECT_EQ(line.back(), '\n');
  t.Screen();
  t.Raw(1, 0);
  std::string flood(10000, 'y');
  EXPECT_EQ(t.line.Input(std::as_bytes(std::span(flood)), t.signals), LineDiscipline::kMaxInput);
  std::string output(2 * LineDiscipline::kMaxOutput, 'z');
  EXPECT_EQ(t.line.Output(std::as_bytes(std::span(output))), LineDiscipline::kMaxOutput);
}

}  // namespace
}  // namespace redoubt::tty
