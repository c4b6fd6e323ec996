// Terminals: pty(7), termios(3), ioctl_tty(2), controlling terminals and job control (credentials(7), setsid(2)).
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <thread>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"
#include "test/syscalls/util/temp_dir.h"

namespace redoubt::testing {
namespace {

// A pair whose slave nobody controls, unless a session opens it.
struct Pty {
  Pty() : master(open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC)) {
    EXPECT_OK(master.get());
    int unlocked = 0;
    EXPECT_OK(ioctl(master.get(), TIOCSPTLCK, &unlocked));
    EXPECT_OK(ioctl(master.get(), TIOCGPTN, &number));
    name = "/dev/pts/" + std::to_string(number);
  }
  ScopedFd Open(int flags = O_NOCTTY) const {
    ScopedFd fd(open(name.c_str(), O_RDWR | flags));
    EXPECT_OK(fd.get());
    return fd;
  }
  ScopedFd master;
  int number = -1;
  std::string name;
};

termios Get(const ScopedFd& fd) {
  termios t{};
  EXPECT_OK(tcgetattr(fd.get(), &t));
  return t;
}
void Change(const ScopedFd& fd, const std::function<void(termios&)>& change, int when = TCSANOW) {
  termios t = Get(fd);
  change(t);
  EXPECT_OK(tcsetattr(fd.get(), when, &t));
}
void MakeRaw(const ScopedFd& fd, unsigned char min = 1, unsigned char time = 0) {
  Change(fd, [&](termios& t) {
    cfmakeraw(&t);
    t.c_cc[VMIN] = min;
    t.c_cc[VTIME] = time;
  });
}
void NoEcho(const ScopedFd& fd) {
  Change(fd, [](termios& t) { t.c_lflag &= ~static_cast<tcflag_t>(ECHO); });
}

void Write(const ScopedFd& fd, std::string_view data) {
  EXPECT_RETURNS(write(fd.get(), data.data(), data.size()), data.size());
}
// What one read returns once there is something: data goes from side to side in the background on Linux.
std::string Read(const ScopedFd& fd, size_t room = 4096) {
  pollfd p{fd.get(), POLLIN, 0};
  if (poll(&p, 1, 5000) != 1) return "nothing to read";
  std::string data(room, '?');
  ssize_t n = read(fd.get(), data.data(), room);
  if (n < 0) return ErrnoName(errno);
  data.resize(static_cast<size_t>(n));
  return data;
}
// Reads until `wanted` bytes are there.
std::string ReadAllOf(const ScopedFd& fd, size_t wanted) {
  std::string all;
  while (all.size() < wanted) {
    std::string piece = Read(fd);
    all += piece;
    if (piece.empty() || piece == "nothing to read" || piece == "EIO") break;
  }
  return all;
}
short PollFor(const ScopedFd& fd, short events, int ms = 5000) {
  pollfd p{fd.get(), events, 0};
  EXPECT_OK(poll(&p, 1, ms));
  return p.revents;
}
int Count(const ScopedFd& fd, unsigned long command) {
  int n = -1;
  EXPECT_OK(ioctl(fd.get(), command, &n));
  return n;
}

// Other sessions and groups are out of the reach of the main that ends what tests leave behind.
void DieWithParent() { EXPECT_OK(prctl(PR_SET_PDEATHSIG, SIGKILL)); }

// Runs `body` as the leader of a new session.
int RunSession(const std::function<void()>& body) {
  return RunChild([&] {
    DieWithParent();
    EXPECT_OK(setsid());
    body();
    return 0;
  });
}
// A child in a process group of its own, which it is in when this returns.
pid_t SpawnJob(const std::function<int()>& body) {
  pid_t pid = Spawn([&] {
    DieWithParent();
    setpgid(0, 0);
    return body();
  });
  EXPECT_OK(setpgid(pid, pid));
  return pid;
}
int WaitForStop(pid_t pid) {
  int status = 0;
  EXPECT_RETURNS(waitpid(pid, &status, WUNTRACED), pid);
  EXPECT_TRUE(WIFSTOPPED(status)) << status;
  return WSTOPSIG(status);
}

volatile sig_atomic_t seen[65];
void CountSignal(int sig) {
  struct sigaction sa{};
  sa.sa_handler = [](int s) { seen[s] = seen[s] + 1; };
  EXPECT_OK(sigaction(sig, &sa, nullptr));
}

// Pairs ---------------------------------------------------------------------------------------------------------------

TEST(Pty, MastersGetNumbersOfTheirOwn) {
  Pty a, b;
  EXPECT_NE(a.number, b.number);
  struct stat st;
  ASSERT_OK(stat(a.name.c_str(), &st));
  EXPECT_TRUE(S_ISCHR(st.st_mode));
  EXPECT_EQ(major(st.st_rdev), 136u);
  EXPECT_EQ(minor(st.st_rdev), static_cast<unsigned>(a.number));
  EXPECT_EQ(st.st_uid, getuid());
  char name[64];
  ASSERT_EQ(ptsname_r(a.master.get(), name, sizeof(name)), 0);
  EXPECT_EQ(a.name, name);
}

TEST(Pty, BothSidesAreTerminals) {
  Pty pty;
  ScopedFd slave = pty.Open();
  EXPECT_EQ(isatty(pty.master.get()), 1);
  EXPECT_EQ(isatty(slave.get()), 1);
  char name[64];
  EXPECT_EQ(ttyname_r(slave.get(), name, sizeof(name)), 0);
  EXPECT_EQ(pty.name, name);
  ScopedFd null(open("/dev/null", O_RDWR));
  EXPECT_EQ(isatty(null.get()), 0);
  EXPECT_EQ(errno, ENOTTY);
  EXPECT_EQ(isatty(-1), 0);
  EXPECT_EQ(errno, EBADF);
}

TEST(Pty, TheSlaveIsLockedAtFirst) {
  ScopedFd master(open("/dev/ptmx", O_RDWR | O_NOCTTY));
  int number, locked = 0;
  ASSERT_OK(ioctl(master.get(), TIOCGPTN, &number));
  ASSERT_OK(ioctl(master.get(), TIOCGPTLCK, &locked));
  EXPECT_EQ(locked, 1);
  const std::string name = "/dev/pts/" + std::to_string(number);
  EXPECT_ERRNO(open(name.c_str(), O_RDWR | O_NOCTTY), EIO);
  ASSERT_EQ(unlockpt(master.get()), 0);
  EXPECT_OK(ScopedFd(open(name.c_str(), O_RDWR | O_NOCTTY)).get());
}

TEST(Pty, TheSlaveGoesWithItsMaster) {
  Pty pty;
  pty.master.reset();
  EXPECT_ERRNO(open(pty.name.c_str(), O_RDWR | O_NOCTTY), ENOENT);
}

TEST(Pty, ThePeerCanBeOpenedByDescriptor) {
  Pty pty;
  ScopedFd peer(ioctl(pty.master.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  ASSERT_OK(peer.get());
  EXPECT_RETURNS(fcntl(peer.get(), F_GETFD), FD_CLOEXEC);
  char name[64];
  EXPECT_EQ(ttyname_r(peer.get(), name, sizeof(name)), 0);
  EXPECT_EQ(pty.name, name);
}

TEST(Pty, DataGoesBothWays) {
  Pty pty;
  ScopedFd slave = pty.Open();
  MakeRaw(slave);
  Write(pty.master, "to slave");
  EXPECT_EQ(ReadAllOf(slave, 8), "to slave");
  Write(slave, "to master");
  EXPECT_EQ(ReadAllOf(pty.master, 9), "to master");
}

TEST(Pty, LargeTransfersAreWhole) {
  Pty pty;
  ScopedFd slave = pty.Open();
  MakeRaw(slave);
  std::string data(100000, '\0');
  for (size_t i = 0; i < data.size(); i++) data[i] = static_cast<char>(i * 31 + i / 257);
  std::thread writer([&] {
    for (size_t at = 0; at < data.size();) {
      ssize_t n = write(pty.master.get(), data.data() + at, data.size() - at);
      if (n <= 0) break;
      at += static_cast<size_t>(n);
    }
  });
  EXPECT_TRUE(ReadAllOf(slave, data.size()) == data);
  writer.join();
  std::thread back([&] { Write(slave, data); });
  EXPECT_TRUE(ReadAllOf(pty.master, data.size()) == data);
  back.join();
}

TEST(Pty, NothingToReadFailsWithEagain) {
  Pty pty;
  ScopedFd slave = pty.Open(O_NOCTTY | O_NONBLOCK);
  char c;
  EXPECT_ERRNO(read(slave.get(), &c, 1), EAGAIN);
  ASSERT_OK(fcntl(pty.master.get(), F_SETFL, O_NONBLOCK));
  EXPECT_ERRNO(read(pty.master.get(), &c, 1), EAGAIN);
  EXPECT_EQ(PollFor(slave, POLLIN | POLLOUT, 0), POLLOUT);
  EXPECT_EQ(PollFor(pty.master, POLLIN | POLLOUT, 0), POLLOUT);
  EXPECT_ERRNO(lseek(slave.get(), 0, SEEK_SET), ESPIPE);
}

TEST(Pty, TheMasterReadsEioOnceAllSlavesAreClosed) {
  Pty pty;
  ScopedFd slave = pty.Open();
  Write(slave, "last");
  slave.reset();
  EXPECT_EQ(ReadAllOf(pty.master, 4), "last");
  EXPECT_EQ(Read(pty.master), "EIO");
  EXPECT_EQ(PollFor(pty.master, POLLIN) & POLLHUP, POLLHUP);
  // Until one is opened again.
  slave = pty.Open();
  Write(slave, "more");
  EXPECT_EQ(ReadAllOf(pty.master, 4), "more");
}

TEST(Pty, TheSlaveHangsUpOnceTheMasterIsClosed) {
  Pty pty;
  ScopedFd slave = pty.Open();
  pty.master.reset();
  char c = 'x';
  EXPECT_RETURNS(read(slave.get(), &c, 1), 0);
  EXPECT_ERRNO(write(slave.get(), &c, 1), EIO);
  termios t;
  EXPECT_ERRNO(tcgetattr(slave.get(), &t), EIO);
  EXPECT_EQ(PollFor(slave, POLLIN | POLLOUT), POLLIN | POLLOUT | POLLERR | POLLHUP);
}

TEST(Pty, ClosingTheMasterWakesReaders) {
  Pty pty;
  ScopedFd slave = pty.Open();
  std::thread closer([&] {
    SleepMs(20);
    pty.master.reset();
  });
  char c;
  // A reader caught on its way out may see the other side go before the hang-up.
  EXPECT_TRUE(read(slave.get(), &c, 1) == 0 || errno == EIO);
  closer.join();
}

TEST(Pty, PacketModeMarksDataAndFlushes) {
  Pty pty;
  ScopedFd slave = pty.Open();
  int on = 1;
  ASSERT_OK(ioctl(pty.master.get(), TIOCPKT, &on));
  EXPECT_EQ(Count(pty.master, TIOCGPKT), 1);
  Write(slave, "data");
  EXPECT_EQ(Read(pty.master), std::string("\0data", 5));
  ASSERT_OK(tcflush(slave.get(), TCIFLUSH));
  EXPECT_EQ(PollFor(pty.master, POLLPRI), POLLPRI);
  std::string control = Read(pty.master);
  ASSERT_EQ(control.size(), 1u);
  EXPECT_EQ(control[0] & TIOCPKT_FLUSHREAD, TIOCPKT_FLUSHREAD);
}

// Termios -------------------------------------------------------------------------------------------------------------

TEST(Termios, StartsCanonicalWithEcho) {
  Pty pty;
  termios t = Get(pty.Open());
  EXPECT_EQ(t.c_lflag & (ISIG | ICANON | ECHO | ECHOE | ECHOK | IEXTEN), ISIG | ICANON | ECHO | ECHOE | ECHOK | IEXTEN);
  EXPECT_EQ(t.c_iflag & (ICRNL | IXON), ICRNL | IXON);
  EXPECT_EQ(t.c_oflag & (OPOST | ONLCR), OPOST | ONLCR);
  EXPECT_EQ(t.c_cflag & (CSIZE | CREAD), CS8 | CREAD);
  EXPECT_EQ(t.c_cc[VINTR], 3);
  EXPECT_EQ(t.c_cc[VQUIT], 0x1c);
  EXPECT_EQ(t.c_cc[VERASE], 0x7f);
  EXPECT_EQ(t.c_cc[VKILL], 0x15);
  EXPECT_EQ(t.c_cc[VEOF], 4);
  EXPECT_EQ(t.c_cc[VSUSP], 0x1a);
  EXPECT_EQ(t.c_cc[VMIN], 1);
  EXPECT_EQ(t.c_cc[VTIME], 0);
  EXPECT_EQ(cfgetospeed(&t), static_cast<speed_t>(B38400));
}

TEST(Termios, IsSharedByBothSides) {
  Pty pty;
  ScopedFd slave = pty.Open();
  Change(pty.master, [](termios& t) {
    t.c_cc[VINTR] = 'x';
    cfsetospeed(&t, B9600);
    cfsetispeed(&t, B9600);
  });
  EXPECT_EQ(Get(slave).c_cc[VINTR], 'x');
  termios t = Get(slave);
  EXPECT_EQ(cfgetospeed(&t), static_cast<speed_t>(B9600));
}

TEST(Termios, Errors) {
  Pty pty;
  ScopedFd slave = pty.Open();
  ScopedFd null(open("/dev/null", O_RDWR));
  termios t;
  EXPECT_ERRNO(tcgetattr(null.get(), &t), ENOTTY);
  EXPECT_ERRNO(tcgetattr(-1, &t), EBADF);
  EXPECT_ERRNO(ioctl(slave.get(), TCGETS, 8L), EFAULT);
  EXPECT_ERRNO(ioctl(slave.get(), TCSETS, 8L), EFAULT);
  EXPECT_ERRNO(ioctl(slave.get(), TIOCGWINSZ, 8L), EFAULT);
  EXPECT_ERRNO(ioctl(slave.get(), 0xdeadL, 0), ENOTTY);
  EXPECT_ERRNO(ioctl(slave.get(), TIOCGPTN, &t), ENOTTY);
  EXPECT_ERRNO(tcflush(slave.get(), 99), EINVAL);
  EXPECT_ERRNO(tcflow(slave.get(), 99), EINVAL);
}

TEST(Termios, CanonicalReadsAreLines) {
  Pty pty;
  ScopedFd slave = pty.Open(O_NOCTTY | O_NONBLOCK);
  NoEcho(slave);
  Write(pty.master, "not yet");
  SleepMs(20);
  char c;
  EXPECT_ERRNO(read(slave.get(), &c, 1), EAGAIN);
  Write(pty.master, "\nsecond\n");
  EXPECT_EQ(Read(slave), "not yet\n");
  EXPECT_EQ(Read(slave, 3), "sec");
  EXPECT_EQ(Count(slave, FIONREAD), 4);
  EXPECT_EQ(Read(slave), "ond\n");
  EXPECT_ERRNO(read(slave.get(), &c, 1), EAGAIN);
}

TEST(Termios, EofEndsWhatIsThere) {
  Pty pty;
  ScopedFd slave = pty.Open();
  NoEcho(slave);
  Write(pty.master, "abc\004");
  EXPECT_EQ(Read(slave), "abc");
  Write(pty.master, "\004");
  EXPECT_EQ(Read(slave), "");
  Write(pty.master, "more\n");
  EXPECT_EQ(Read(slave), "more\n");
}

TEST(Termios, LinesAreEdited) {
  Pty pty;
  ScopedFd slave = pty.Open();
  NoEcho(slave);
  Write(pty.master, "abx\177c\n");
  EXPECT_EQ(Read(slave), "abc\n");
  Write(pty.master, "gone\025kept\n");
  EXPECT_EQ(Read(slave), "kept\n");
  Write(pty.master, "one two\027three\n");
  EXPECT_EQ(Read(slave), "one three\n");
  Write(pty.master, "\026\003\n");  // VLNEXT: ^C as it is
  EXPECT_EQ(Read(slave), "\003\n");
}

TEST(Termios, InputIsMapped) {
  Pty pty;
  ScopedFd slave = pty.Open();
  NoEcho(slave);
  Write(pty.master, "a\r");
  EXPECT_EQ(Read(slave), "a\n");
  Change(slave, [](termios& t) { t.c_iflag = (t.c_iflag & ~static_cast<tcflag_t>(ICRNL)) | IGNCR; });
  Write(pty.master, "b\rc\n");
  EXPECT_EQ(Read(slave), "bc\n");
  Change(slave, [](termios& t) { t.c_iflag = ISTRIP; });
  Write(pty.master, "\xe1\n");
  EXPECT_EQ(Read(slave), "a\n");
}

TEST(Termios, InputIsEchoed) {
  Pty pty;
  ScopedFd slave = pty.Open();
  Write(pty.master, "ab\001\n");
  EXPECT_EQ(ReadAllOf(pty.master, 6), "ab^A\r\n");
  Write(pty.master, "x\177");
  EXPECT_EQ(ReadAllOf(pty.master, 4), "x\b \b");
  Change(slave, [](termios& t) { t.c_lflag = (t.c_lflag & ~static_cast<tcflag_t>(ECHO)) | ECHONL; });
  Write(pty.master, "secret\n");
  EXPECT_EQ(ReadAllOf(pty.master, 2), "\r\n");
}

TEST(Termios, OutputIsMapped) {
  Pty pty;
  ScopedFd slave = pty.Open();
  Write(slave, "a\nb");
  EXPECT_EQ(ReadAllOf(pty.master, 4), "a\r\nb");
  Change(slave, [](termios& t) { t.c_oflag &= ~static_cast<tcflag_t>(OPOST); });
  Write(slave, "c\nd");
  EXPECT_EQ(ReadAllOf(pty.master, 3), "c\nd");
}

TEST(Termios, TcsaflushDropsInput) {
  Pty pty;
  ScopedFd slave = pty.Open(O_NOCTTY | O_NONBLOCK);
  NoEcho(slave);
  for (bool by_tcflush : {false, true}) {
    Write(pty.master, "typed ahead\n");
    EXPECT_EQ(PollFor(slave, POLLIN), POLLIN);
    if (by_tcflush) {
      EXPECT_OK(tcflush(slave.get(), TCIFLUSH));
    } else {
      Change(slave, [](termios&) {}, TCSAFLUSH);
    }
    char c;
    EXPECT_ERRNO(read(slave.get(), &c, 1), EAGAIN);
  }
  Write(pty.master, "kept\n");
  EXPECT_EQ(PollFor(slave, POLLIN), POLLIN);
  Change(slave, [](termios&) {}, TCSADRAIN);
  EXPECT_EQ(Read(slave), "kept\n");
}

TEST(Termios, RawReadsDoNotWaitForALine) {
  Pty pty;
  ScopedFd slave = pty.Open();
  MakeRaw(slave);
  Write(pty.master, "a\003\r");
  EXPECT_EQ(ReadAllOf(slave, 3), "a\003\r");
}

TEST(Termios, WithoutMinimumAndTimeReadsReturnAtOnce) {
  Pty pty;
  ScopedFd slave = pty.Open();
  MakeRaw(slave, 0, 0);
  char c;
  EXPECT_RETURNS(read(slave.get(), &c, 1), 0);
  Write(pty.master, "x");
  EXPECT_EQ(Read(slave), "x");
}

TEST(Termios, WithTimeOnlyReadsReturnEmptyWhenItPasses) {
  Pty pty;
  ScopedFd slave = pty.Open();
  MakeRaw(slave, 0, 1);
  char c;
  const int64_t start = NowMs();
  EXPECT_RETURNS(read(slave.get(), &c, 1), 0);
  EXPECT_GE(NowMs() - start, 80);
}

TEST(Termios, AMinimumIsWaitedFor) {
  Pty pty;
  ScopedFd slave = pty.Open();
  MakeRaw(slave, 4, 0);
  std::thread writer([&] {
    Write(pty.master, "ab");
    SleepMs(30);
    Write(pty.master, "cd");
  });
  char data[8];
  EXPECT_RETURNS(read(slave.get(), data, 8), 4);
  writer.join();
}

TEST(Termios, WithMinimumAndTimeAPauseEndsTheRead) {
  Pty pty;
  ScopedFd slave = pty.Open();
  MakeRaw(slave, 4, 1);
  std::thread writer([&] {
    SleepMs(150);  // the clock starts with the first byte only
    Write(pty.master, "a");
  });
  char data[8];
  const int64_t start = NowMs();
  EXPECT_RETURNS(read(slave.get(), data, 8), 1);
  EXPECT_GE(NowMs() - start, 230);
  writer.join();
}

TEST(Termios, LeavingCanonicalModeFreesWhatWasTyped) {
  Pty pty;
  ScopedFd slave = pty.Open();
  NoEcho(slave);
  Write(pty.master, "half");
  SleepMs(20);
  MakeRaw(slave);
  EXPECT_EQ(ReadAllOf(slave, 4), "half");
}

TEST(Termios, OutputStopsAndGoesOn) {
  Pty pty;
  ScopedFd slave = pty.Open();
  ASSERT_OK(fcntl(pty.master.get(), F_SETFL, O_NONBLOCK));
  NoEcho(slave);
  ASSERT_OK(tcflow(slave.get(), TCOOFF));
  EXPECT_EQ(PollFor(slave, POLLOUT, 10), 0);
  std::thread writer([&] { Write(slave, "held"); });
  EXPECT_EQ(PollFor(pty.master, POLLIN, 30), 0);
  ASSERT_OK(tcflow(slave.get(), TCOON));
  EXPECT_EQ(ReadAllOf(pty.master, 4), "held");
  writer.join();
  // The same by ^S and ^Q.
  Write(pty.master, "\023");
  WaitUntil([&] { return PollFor(slave, POLLOUT, 0) == 0; });
  std::thread again([&] { Write(slave, "again"); });
  EXPECT_EQ(PollFor(pty.master, POLLIN, 30), 0);
  Write(pty.master, "\021");
  EXPECT_EQ(ReadAllOf(pty.master, 5), "again");
  again.join();
}

TEST(Termios, OutputThatIsNotReadIsCounted) {
  Pty pty;
  ScopedFd slave = pty.Open();
  Write(slave, "12345");
  EXPECT_EQ(PollFor(pty.master, POLLIN), POLLIN);
  EXPECT_EQ(Count(pty.master, FIONREAD), 5);
  EXPECT_OK(tcdrain(slave.get()));
}

// Window size ---------------------------------------------------------------------------------------------------------

TEST(WindowSize, IsSharedByBothSides) {
  Pty pty;
  ScopedFd slave = pty.Open();
  winsize w{};
  ASSERT_OK(ioctl(slave.get(), TIOCGWINSZ, &w));
  EXPECT_EQ(w.ws_row, 0);
  w = {24, 80, 640, 480};
  ASSERT_OK(ioctl(pty.master.get(), TIOCSWINSZ, &w));
  w = {};
  ASSERT_OK(ioctl(slave.get(), TIOCGWINSZ, &w));
  EXPECT_EQ(w.ws_row, 24);
  EXPECT_EQ(w.ws_col, 80);
  EXPECT_EQ(w.ws_xpixel, 640);
  EXPECT_EQ(w.ws_ypixel, 480);
}

TEST(WindowSize, ChangesAreSignalled) {
  Pty pty;
  EXPECT_EQ(RunSession([&] {
              CountSignal(SIGWINCH);
              ScopedFd slave = pty.Open(0);
              winsize w{24, 80, 0, 0};
              EXPECT_OK(ioctl(pty.master.get(), TIOCSWINSZ, &w));
              WaitUntil([] { return seen[SIGWINCH] == 1; });
              EXPECT_OK(ioctl(pty.master.get(), TIOCSWINSZ, &w));  // no change
              w.ws_row = 25;
              EXPECT_OK(ioctl(slave.get(), TIOCSWINSZ, &w));
              WaitUntil([] { return seen[SIGWINCH] == 2; });
            }),
            0);
}

// Controlling terminals -----------------------------------------------------------------------------------------------

TEST(ControllingTerminal, ALeaderGetsWhatItOpens) {
  Pty pty;
  EXPECT_EQ(RunSession([&] {
              EXPECT_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
              ScopedFd slave = pty.Open(0);
              EXPECT_RETURNS(tcgetsid(slave.get()), getpid());
              EXPECT_RETURNS(tcgetpgrp(slave.get()), getpid());
              ScopedFd tty(open("/dev/tty", O_RDWR));
              EXPECT_OK(tty.get());
              Write(tty, "through /dev/tty");
              EXPECT_EQ(ReadAllOf(pty.master, 16), "through /dev/tty");
              // The master's side may ask, too.
              EXPECT_RETURNS(tcgetpgrp(pty.master.get()), getpid());
              EXPECT_RETURNS(tcgetsid(pty.master.get()), getpid());
            }),
            0);
}

TEST(ControllingTerminal, NocttyPreventsThat) {
  Pty pty;
  EXPECT_EQ(RunSession([&] {
              ScopedFd slave = pty.Open(O_NOCTTY);
              EXPECT_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
              EXPECT_ERRNO(tcgetsid(slave.get()), ENOTTY);
              EXPECT_ERRNO(tcgetpgrp(slave.get()), ENOTTY);
              EXPECT_ERRNO(tcsetpgrp(slave.get(), getpid()), ENOTTY);
              EXPECT_OK(ioctl(slave.get(), TIOCSCTTY, 0));
              EXPECT_RETURNS(tcgetsid(slave.get()), getpid());
              EXPECT_OK(ioctl(slave.get(), TIOCSCTTY, 0));  // again
            }),
            0);
}

TEST(ControllingTerminal, OthersDoNotGetOne) {
  Pty pty;
  EXPECT_EQ(RunSession([&] {
              EXPECT_EQ(RunChild([&] {
                          ScopedFd slave = pty.Open(0);
                          EXPECT_ERRNO(tcgetsid(slave.get()), ENOTTY);
                          EXPECT_ERRNO(ioctl(slave.get(), TIOCSCTTY, 0), EPERM);
                          return 0;
                        }),
                        0);
            }),
            0);
}

TEST(ControllingTerminal, ALeaderHasOne) {
  Pty first, second;
  EXPECT_EQ(RunSession([&] {
              ScopedFd a = first.Open(0), b = second.Open(0);
              EXPECT_RETURNS(tcgetsid(a.get()), getpid());
              EXPECT_ERRNO(tcgetsid(b.get()), ENOTTY);
              EXPECT_ERRNO(ioctl(b.get(), TIOCSCTTY, 0), EPERM);
            }),
            0);
}

TEST(ControllingTerminal, AnothersIsTakenOnlyByForce) {
  Pty pty;
  EXPECT_EQ(RunSession([&] {
              ScopedFd slave = pty.Open(0);
              EXPECT_EQ(RunSession([&] {
                          EXPECT_ERRNO(tcgetsid(slave.get()), ENOTTY);
                          EXPECT_ERRNO(ioctl(slave.get(), TIOCSCTTY, 0), EPERM);
                          EXPECT_OK(ioctl(slave.get(), TIOCSCTTY, 1));
                          EXPECT_RETURNS(tcgetsid(slave.get()), getpid());
                        }),
                        0);
              EXPECT_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
            }),
            0);
}

TEST(ControllingTerminal, ChildrenShareItUntilASessionOfTheirOwn) {
  Pty pty;
  EXPECT_EQ(RunSession([&] {
              ScopedFd slave = pty.Open(0);
              pid_t leader = getpid();
              EXPECT_EQ(RunChild([&] {
                          EXPECT_RETURNS(tcgetsid(slave.get()), leader);
                          EXPECT_OK(ScopedFd(open("/dev/tty", O_RDWR)).get());
                          EXPECT_OK(setsid());
                          EXPECT_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
                          EXPECT_ERRNO(tcgetsid(slave.get()), ENOTTY);
                          return 0;
                        }),
                        0);
            }),
            0);
}

TEST(ControllingTerminal, ProcTellsIt) {
  Pty pty;
  EXPECT_EQ(RunSession([&] {
              ScopedFd slave = pty.Open(0);
              std::string stat = ReadAll("/proc/self/stat");
              int session = 0, tty = 0, foreground = 0;
              EXPECT_EQ(sscanf(stat.c_str() + stat.rfind(')'), ") %*c %*d %*d %d %d %d", &session, &tty, &foreground),
                        3);
              EXPECT_EQ(session, getpid());
              EXPECT_EQ(static_cast<unsigned>(tty), makedev(136, static_cast<unsigned>(pty.number)));
              EXPECT_EQ(foreground, getpid());
            }),
            0);
}

TEST(ControllingTerminal, LeadersGiveItUpForAll) {
  Pty pty;
  EXPECT_EQ(RunSession([&] {
              CountSignal(SIGHUP);
              CountSignal(SIGCONT);
              ScopedFd slave = pty.Open(0);
              EXPECT_OK(ioctl(slave.get(), TIOCNOTTY));
              WaitUntil([] { return seen[SIGHUP] == 1 && seen[SIGCONT] == 1; });
              EXPECT_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
              EXPECT_ERRNO(ioctl(slave.get(), TIOCNOTTY), ENOTTY);
              EXPECT_ERRNO(tcgetsid(slave.get()), ENOTTY);
            }),
            0);
}

TEST(ControllingTerminal, OthersGiveItUpForThemselves) {
  Pty pty;
  EXPECT_EQ(RunSession([&] {
              ScopedFd slave = pty.Open(0);
              EXPECT_EQ(RunChild([&] {
                          EXPECT_OK(ioctl(slave.get(), TIOCNOTTY));
                          EXPECT_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
                          return 0;
                        }),
                        0);
              EXPECT_OK(ScopedFd(open("/dev/tty", O_RDWR)).get());
            }),
            0);
}

TEST(ControllingTerminal, TheLeadersExitHangsUpTheForeground) {
  Pty pty;
  int p[2];
  ASSERT_OK(pipe(p));
  EXPECT_EQ(RunSession([&] {
              ScopedFd slave = pty.Open(0);
              signal(SIGTTOU, SIG_IGN);
              pid_t job = SpawnJob([&] {
                EXPECT_OK(prctl(PR_SET_PDEATHSIG, 0));
                CountSignal(SIGHUP);
                close(p[0]);
                Write(ScopedFd(dup(p[1])), "r");
                WaitUntil([] { return seen[SIGHUP] == 1; });
                // The session has no terminal any more.
                EXPECT_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
                Write(ScopedFd(dup(p[1])), ::testing::Test::HasFailure() ? "f" : "h");
                return 0;
              });
              EXPECT_OK(tcsetpgrp(slave.get(), job));
              char c;
              EXPECT_RETURNS(read(p[0], &c, 1), 1);
            }),
            0);
  close(p[1]);
  char c = 0;
  EXPECT_RETURNS(read(p[0], &c, 1), 1);
  EXPECT_EQ(c, 'h');
}

TEST(ControllingTerminal, ClosingTheMasterHangsUpTheSession) {
  Pty pty;
  int p[2];
  ASSERT_OK(pipe(p));
  pid_t leader = Spawn([&] {
    DieWithParent();
    EXPECT_OK(setsid());
    pty.master.reset();
    CountSignal(SIGHUP);
    CountSignal(SIGCONT);
    ScopedFd slave = pty.Open(0);
    Write(ScopedFd(dup(p[1])), "r");
    WaitUntil([] { return seen[SIGHUP] == 1 && seen[SIGCONT] == 1; });
    char c;
    EXPECT_RETURNS(read(slave.get(), &c, 1), 0);
    return 0;
  });
  char c;
  EXPECT_RETURNS(read(p[0], &c, 1), 1);
  pty.master.reset();
  EXPECT_EQ(WaitFor(leader), 0);
}

// Job control ---------------------------------------------------------------------------------------------------------

TEST(JobControl, KeysSignalTheForeground) {
  Pty pty;
  EXPECT_EQ(RunSession([&] {
              ScopedFd slave = pty.Open(0);
              for (int sig : {SIGINT, SIGQUIT, SIGTSTP}) CountSignal(sig);
              Write(pty.master, "\003");
              WaitUntil([] { return seen[SIGINT] == 1; });
              Write(pty.master, "\034");
              WaitUntil([] { return seen[SIGQUIT] == 1; });
              Write(pty.master, "\032");
              WaitUntil([] { return seen[SIGTSTP] == 1; });
              EXPECT_EQ(ReadAllOf(pty.master, 6), "^C^\\^Z");
              // And drop what was typed before.
              Write(pty.master, "typed\003line\n");
              EXPECT_EQ(Read(slave), "line\n");
              Change(slave, [](termios& t) { t.c_lflag &= ~static_cast<tcflag_t>(ISIG); });
              Write(pty.master, "\003\n");
              EXPECT_EQ(Read(slave), "\003\n");
              EXPECT_EQ(seen[SIGINT], 2);
            }),
            0);
}

TEST(JobControl, OnlyTheForegroundIsSignalled) {
  Pty pty;
  EXPECT_EQ(RunSession([&] {
              ScopedFd slave = pty.Open(0);
              pid_t job = SpawnJob([] {
                pause();
                return 0;
              });
              CountSignal(SIGINT);
              EXPECT_OK(tcsetpgrp(slave.get(), job));
              Write(pty.master, "\003");
              int status = WaitFor(job);
              EXPECT_TRUE(WIFSIGNALED(status)) << status;
              EXPECT_EQ(seen[SIGINT], 0);
            }),
            0);
}

TEST(JobControl, MastersSendSignals) {
  Pty pty;
  EXPECT_EQ(RunSession([&] {
              ScopedFd slave = pty.Open(0);
              CountSignal(SIGINT);
              EXPECT_OK(ioctl(pty.master.get(), TIOCSIG, SIGINT));
              WaitUntil([] { return seen[SIGINT] == 1; });
              EXPECT_ERRNO(ioctl(pty.master.get(), TIOCSIG, SIGKILL), EINVAL);
            }),
            0);
}

TEST(JobControl, TcsetpgrpErrors) {
  Pty pty;
  EXPECT_EQ(RunSession([&] {
              ScopedFd slave = pty.Open(0);
              EXPECT_ERRNO(tcsetpgrp(slave.get(), -1), EINVAL);
              EXPECT_ERRNO(tcsetpgrp(slave.get(), 0x3fffffff), ESRCH);
              int p[2];
              EXPECT_OK(pipe(p));
              pid_t other = Spawn([&] {
                DieWithParent();
                EXPECT_OK(setsid());
                Write(ScopedFd(dup(p[1])), "r");
                pause();
                return 0;
              });
              char c;
              EXPECT_RETURNS(read(p[0], &c, 1), 1);
              EXPECT_ERRNO(tcsetpgrp(slave.get(), other), EPERM);
              kill(other, SIGKILL);
              WaitFor(other);
              ScopedFd null(open("/dev/null", O_RDWR));
              EXPECT_ERRNO(tcsetpgrp(null.get(), getpid()), ENOTTY);
            }),
            0);
}

TEST(JobControl, BackgroundReadsStopUntilInTheForeground) {
  Pty pty;
  EXPECT_EQ(RunSession([&] {
              ScopedFd slave = pty.Open(0);
              signal(SIGTTOU, SIG_IGN);
              pid_t job = SpawnJob([&] {
                EXPECT_EQ(Read(slave), "line\n");
                return 0;
              });
              Write(pty.master, "line\n");
              EXPECT_EQ(WaitForStop(job), SIGTTIN);
              EXPECT_OK(tcsetpgrp(slave.get(), job));
              EXPECT_OK(kill(job, SIGCONT));
              EXPECT_EQ(WaitFor(job), 0);
              EXPECT_OK(tcsetpgrp(slave.get(), getpgrp()));
            }),
            0);
}

TEST(JobControl, BackgroundReadsFailWithEioIfSigttinIsIgnoredOrBlocked) {
  Pty pty;
  EXPECT_EQ(RunSession([&] {
              ScopedFd slave = pty.Open(0);
              for (bool ignored : {false, true}) {
                pid_t job = SpawnJob([&] {
                  if (ignored) {
                    signal(SIGTTIN, SIG_IGN);
                  } else {
                    sigset_t set;
                    sigemptyset(&set);
                    sigaddset(&set, SIGTTIN);
                    sigprocmask(SIG_BLOCK, &set, nullptr);
                  }
                  char c;
                  EXPECT_ERRNO(read(slave.get(), &c, 1), EIO);
                  return 0;
                });
                EXPECT_EQ(WaitFor(job), 0);
              }
            }),
            0);
}

TEST(JobControl, BackgroundReadsOfOrphansFailWithEio) {
  Pty pty;
  int p[2];
  ASSERT_OK(pipe(p));
  EXPECT_EQ(RunSession([&] {
              ScopedFd slave = pty.Open(0);
              // Its parent is of another session once this child has gone.
              EXPECT_EQ(RunChild([&] {
                          SpawnJob([&, parent = getpid()] {
                            EXPECT_OK(prctl(PR_SET_PDEATHSIG, 0));
                            WaitUntil([=] { return getppid() != parent; });
                            char c;
                            EXPECT_ERRNO(read(slave.get(), &c, 1), EIO);
                            Write(ScopedFd(dup(p[1])), ::testing::Test::HasFailure() ? "f" : "o");
                            return 0;
                          });
                          SleepMs(50);  // past the prctl
                          return 0;
                        }),
                        0);
              char c = 0;
              EXPECT_RETURNS(read(p[0], &c, 1), 1);
              EXPECT_EQ(c, 'o');
            }),
            0);
}

// A process group that stays behind stopped, with nobody to continue it: setpgid(2).
TEST(JobControl, StoppedOrphansAreHungUpAndContinued) {
  int p[2];
  ASSERT_OK(pipe(p));
  EXPECT_EQ(RunSession([&] {
              EXPECT_EQ(RunChild([&] {
                          CountSignal(SIGHUP);
                          CountSignal(SIGCONT);
                          pid_t job = SpawnJob([&] {
                            EXPECT_OK(prctl(PR_SET_PDEATHSIG, 0));
                            raise(SIGSTOP);
                            WaitUntil([] { return seen[SIGHUP] == 1 && seen[SIGCONT] == 1; });
                            Write(ScopedFd(dup(p[1])), ::testing::Test::HasFailure() ? "f" : "o");
                            return 0;
                          });
                          WaitForStop(job);
                          return 0;
                        }),
                        0);
              char c = 0;
              EXPECT_RETURNS(read(p[0], &c, 1), 1);
              EXPECT_EQ(c, 'o');
            }),
            0);
}

TEST(JobControl, KeysDoNotStopOrphans) {
  Pty pty;
  EXPECT_EQ(RunSession([&] {
              // A session's leader has its parent elsewhere, so its group is orphaned.
              ScopedFd slave = pty.Open(0);
              for (int sig : {SIGTSTP, SIGTTIN, SIGTTOU}) EXPECT_OK(raise(sig));
              Write(pty.master, "\032still here\n");
              EXPECT_EQ(Read(slave), "still here\n");
            }),
            0);
}

TEST(JobControl, BackgroundWritesStopOnlyWithTostop) {
  Pty pty;
  EXPECT_EQ(RunSession([&] {
              ScopedFd slave = pty.Open(0);
              pid_t job = SpawnJob([&] {
                Write(slave, "free");
                return 0;
              });
              EXPECT_EQ(WaitFor(job), 0);
              EXPECT_EQ(ReadAllOf(pty.master, 4), "free");
              Change(slave, [](termios& t) { t.c_lflag |= TOSTOP; });
              job = SpawnJob([&] {
                Write(slave, "held");
                return 0;
              });
              EXPECT_EQ(WaitForStop(job), SIGTTOU);
              EXPECT_OK(tcsetpgrp(slave.get(), job));
              EXPECT_OK(kill(job, SIGCONT));
              EXPECT_EQ(WaitFor(job), 0);
              EXPECT_EQ(ReadAllOf(pty.master, 4), "held");
            }),
            0);
}

TEST(JobControl, BackgroundChangesStop) {
  Pty pty;
  EXPECT_EQ(RunSession([&] {
              ScopedFd slave = pty.Open(0);
              for (int what = 0; what < 3; what++) {
                pid_t job = SpawnJob([&] {
                  termios t = Get(slave);  // looking is allowed
                  if (what == 0) tcsetattr(slave.get(), TCSANOW, &t);
                  if (what == 1) tcsetpgrp(slave.get(), getpgrp());
                  if (what == 2) tcflush(slave.get(), TCIFLUSH);
                  return 0;
                });
                EXPECT_EQ(WaitForStop(job), SIGTTOU) << what;
                kill(job, SIGKILL);
                WaitFor(job);
              }
            }),
            0);
}

TEST(JobControl, BackgroundChangesAreAllowedIfSigttouIsIgnoredOrBlocked) {
  Pty pty;
  EXPECT_EQ(RunSession([&] {
              ScopedFd slave = pty.Open(0);
              pid_t job = SpawnJob([&] {
                signal(SIGTTOU, SIG_IGN);
                Change(slave, [](termios& t) { t.c_cc[VINTR] = 'q'; });
                EXPECT_OK(tcsetpgrp(slave.get(), getpgrp()));
                return 0;
              });
              EXPECT_EQ(WaitFor(job), 0);
              EXPECT_EQ(Get(slave).c_cc[VINTR], 'q');
              EXPECT_RETURNS(tcgetpgrp(slave.get()), job);
            }),
            0);
}

TEST(JobControl, HandlersOfSigttinInterruptTheRead) {
  Pty pty;
  EXPECT_EQ(RunSession([&] {
              ScopedFd slave = pty.Open(0);
              pid_t job = SpawnJob([&] {
                CountSignal(SIGTTIN);
                char c;
                EXPECT_ERRNO(read(slave.get(), &c, 1), EINTR);
                EXPECT_EQ(seen[SIGTTIN], 1);
                return 0;
              });
              EXPECT_EQ(WaitFor(job), 0);
            }),
            0);
}

}  // namespace
}  // namespace redoubt::testing
