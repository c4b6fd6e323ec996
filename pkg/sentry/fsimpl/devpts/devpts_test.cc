#include "pkg/sentry/fsimpl/devpts/devpts.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include <cstring>

#include "pkg/abi/linux/termios.h"
#include "pkg/sentry/fsimpl/testing/world.h"
#include "pkg/sentry/wait/wait.h"

namespace redoubt::devpts {
namespace {

using fstest::Error;
using fstest::InFiber;
using fstest::World;

// One session of two process groups, of which the "current" one can be chosen.
class FakeJobs final : public tty::JobControl {
 public:
  FakeJobs() { tty::SetJobControl(this); }
  ~FakeJobs() override { tty::SetJobControl(nullptr); }
  Ids Current() override { return current; }
  int ToGuest(int id) override { return id - seen_less; }
  int FromGuest(int id) override { return id + seen_less; }
  void GiveUpTerminal() override { current.controlling_tty.reset(); }
  void SetControllingTerminal(RefPtr<RefCounted> t) override { current.controlling_tty = std::move(t); }
  void ClearControllingTerminal(int session) override { current.controlling_tty.reset(); }
  Result<> CheckProcessGroup(int group, int session) override {
    return group == 10 || group == 20 ? Result<>() : Err(ESRCH);
  }
  void SignalProcessGroup(int group, int sig) override { sent.emplace_back(group, sig); }
  void HangUpSessionLeader(int session) override { sent.emplace_back(-session, SIGHUP); }
  Result<> BackgroundAccess(int sig) override {
    sent.emplace_back(current.process_group, sig);
    return Err(kErestartsys);
  }
  Ids current;
  int seen_less = 0;  // how the current task's PID namespace counts
  std::vector<std::pair<int, int>> sent;
};

// ioctl with an int in and out.
Result<int> IntIoctl(vfs::FileDescription& f, uint32_t command, int value = 0) {
  std::byte memory[64] = {};
  std::memcpy(memory, &value, sizeof(value));
  BufferIo io(memory);
  TRY(f.Ioctl(io, command, 0));
  std::memcpy(&value, memory, sizeof(value));
  return value;
}

void InPts(const std::function<void(World&)>& body) {
  InFiber([&] {
    RegisterDevices();
    World w;
    ASSERT_EQ(w.Mkdir("/pts"), 0);
    ASSERT_TRUE(w.ns->MountAt(w.walker(), w.at("/pts"), Create({.slave_mode = 0620, .slave_gid = 5}), 0, "devpts"));
    body(w);
  });
}

struct Pair {
  RefPtr<vfs::FileDescription> master, slave;
};
Pair OpenPair(World& w) {
  Pair p;
  p.master = *w.Open("/pts/ptmx", O_RDWR);
  EXPECT_EQ(*IntIoctl(*p.master, TIOCSPTLCK, 0), 0);
  p.slave = *w.Open("/pts/" + std::to_string(*IntIoctl(*p.master, TIOCGPTN)), O_RDWR | O_NOCTTY);
  return p;
}

TEST(Devpts, NamesComeAndGoWithTheMaster) {
  InPts([](World& w) {
    EXPECT_EQ(w.List("/pts"), (std::vector<std::string>{".", "..", "ptmx"}));
    auto m0 = *w.Open("/pts/ptmx", O_RDWR), m1 = *w.Open("/pts/ptmx", O_RDWR);
    EXPECT_EQ(w.List("/pts"), (std::vector<std::string>{".", "..", "ptmx", "0", "1"}));
    EXPECT_EQ(*IntIoctl(*m1, TIOCGPTN), 1);
    EXPECT_EQ(w.Stat("/pts/1")->rdev, makedev(136, 1));
    EXPECT_EQ(w.Stat("/pts/1")->mode, S_IFCHR | 0620u);
    EXPECT_EQ(w.Stat("/pts/1")->gid, 5u);
    // Locked until unlockpt(3).
    EXPECT_EQ(*IntIoctl(*m0, TIOCGPTLCK), 1);
    EXPECT_EQ(Error(w.Open("/pts/0", O_RDWR)), EIO);
    EXPECT_EQ(*IntIoctl(*m0, TIOCSPTLCK, 0), 0);
    EXPECT_EQ(Error(w.Open("/pts/0", O_RDWR)), 0);
    EXPECT_EQ(Error(w.Open("/pts/00", O_RDWR)), ENOENT);
    EXPECT_EQ(Error(OpenPeer(*m0, O_RDWR)), 0);
    m0.reset();
    EXPECT_EQ(Error(w.Open("/pts/0", O_RDWR)), ENOENT);
    auto again = *w.Open("/pts/ptmx", O_RDWR);
    EXPECT_EQ(*IntIoctl(*again, TIOCGPTN), 0);
    EXPECT_EQ(w.Mkdir("/pts/x"), EPERM);
    ASSERT_TRUE(vfs::Chown(w.walker(), *w.Lookup("/pts/0"), 1000, -1));
    EXPECT_EQ(w.Stat("/pts/0")->uid, 1000u);
    // A node beside the mount point is as good as the one inside it.
    ASSERT_EQ(w.Mknod("/ptmx", S_IFCHR | 0666, makedev(5, 2)), 0);
    auto node = w.Open("/ptmx", O_RDWR);
    ASSERT_TRUE(node);
    EXPECT_EQ(*IntIoctl(**node, TIOCGPTN), 2);
  });
}

TEST(Devpts, BytesGoBothWays) {
  InPts([](World& w) {
    Pair p = OpenPair(w);
    EXPECT_EQ(World::Read(*p.slave), "error 11");
    EXPECT_EQ(World::Read(*p.master), "error 11");
    EXPECT_EQ(p.slave->Readiness(waiter::kIn | waiter::kOut), waiter::kOut);
    EXPECT_EQ(World::Write(*p.master, "hi\n"), 3);
    EXPECT_EQ(p.slave->Readiness(waiter::kIn), waiter::kIn);
    EXPECT_EQ(*IntIoctl(*p.slave, FIONREAD), 3);
    EXPECT_EQ(World::Read(*p.slave), "hi\n");
    EXPECT_EQ(World::Write(*p.slave, "out\n"), 4);
    EXPECT_EQ(p.master->Readiness(waiter::kIn), waiter::kIn);
    EXPECT_EQ(World::Read(*p.master), "hi\r\nout\r\n");
    EXPECT_EQ(Error(p.slave->Seek(0, SEEK_SET)), ESPIPE);
    EXPECT_EQ(World::PRead(*p.slave, 0, 1), "error 29");
    // A full terminal.
    int64_t total = 0, n;
    while ((n = World::Write(*p.slave, std::string(10000, 'x'))) > 0) total += n;
    EXPECT_EQ(n, -EAGAIN);
    EXPECT_GT(total, 4096);
    EXPECT_EQ(p.slave->Readiness(waiter::kOut), 0u);
  });
}

TEST(Devpts, AReaderSleepsUntilALineComes) {
  InPts([](World& w) {
    Pair p = OpenPair(w);
    fiber::CurrentExecutor()->Spawn([master = p.master] {
      for (const char* part : {"a", "b", "\n"}) {
        fiber::Yield();
        World::Write(*master, part);
      }
    });
    std::string buffer(10, '\0');
    BufferIo io(std::as_writable_bytes(std::span(buffer)));
    IoSequence dst(io, 0, 10);
    Result<size_t> n = wait::Retry(*p.slave, waiter::kIn, fiber::kForever, [&] { return p.slave->Read(dst, 0); });
    EXPECT_EQ(buffer.substr(0, n.value_or(0)), "ab\n");
  });
}

TEST(Devpts, TimedReads) {
  InPts([](World& w) {
    Pair p = OpenPair(w);
    std::byte memory[36];
    BufferIo io(memory);
    ASSERT_TRUE(p.slave->Ioctl(io, TCGETS, 0));
    abi::Termios t;
    std::memcpy(&t, memory, sizeof(t));
    t.c_lflag &= ~uint32_t{2 | 8};  // ICANON, ECHO
    t.c_cc[6 /* VMIN */] = 0;
    t.c_cc[5 /* VTIME */] = 3;
    std::memcpy(memory, &t, sizeof(t));
    ASSERT_TRUE(p.slave->Ioctl(io, TCSETS, 0));
    const fiber::Time start = fiber::Now();
    EXPECT_EQ(World::Read(*p.slave), "");
    EXPECT_GE(fiber::Now() - start, 300'000'000);
    World::Write(*p.master, "q");
    EXPECT_EQ(World::Read(*p.slave), "q");
    // With a minimum, the time runs after the first byte.
    t.c_cc[6] = 5;
    std::memcpy(memory, &t, sizeof(t));
    ASSERT_TRUE(p.slave->Ioctl(io, TCSETS, 0));
    World::Write(*p.master, "xy");
    EXPECT_EQ(World::Read(*p.slave), "xy");
  });
}

TEST(Devpts, ClosedEnds) {
  InPts([](World& w) {
    Pair p = OpenPair(w);
    World::Write(*p.slave, "last");
    p.slave.reset();
    EXPECT_EQ(p.master->Readiness(waiter::kIn), waiter::kIn | waiter::kHup);
    EXPECT_EQ(World::Read(*p.master), "last");
    EXPECT_EQ(World::Read(*p.master), "error 5");
    p.slave = *w.Open("/pts/0", O_RDWR | O_NOCTTY);
    EXPECT_EQ(World::Read(*p.master), "error 11");
    p.master.reset();
    EXPECT_EQ(World::Read(*p.slave), "");
    EXPECT_EQ(World::Write(*p.slave, "x"), -EIO);
    EXPECT_EQ(Error(IntIoctl(*p.slave, TIOCGWINSZ)), EIO);
    EXPECT_TRUE(p.slave->Readiness(0) & waiter::kHup);
  });
}

TEST(Devpts, JobControl) {
  InPts([](World& w) {
    FakeJobs jobs;
    jobs.current = {.session = 10, .process_group = 10, .session_leader = true};
    Pair p = OpenPair(w);
    EXPECT_EQ(Error(IntIoctl(*p.slave, TIOCGPGRP)), ENOTTY);
    // Opened without O_NOCTTY it becomes the session's.
    auto tty = *w.Open("/pts/0", O_RDWR);
    EXPECT_NE(jobs.current.controlling_tty, nullptr);
    EXPECT_EQ(*IntIoctl(*p.slave, TIOCGPGRP), 10);
    EXPECT_EQ(*IntIoctl(*p.slave, TIOCGSID), 10);
    World::Write(*p.master, "\x03");
    EXPECT_EQ(jobs.sent.back(), (std::pair{10, SIGINT}));
    EXPECT_EQ(Error(IntIoctl(*p.slave, TIOCSPGRP, 99)), ESRCH);
    jobs.seen_less = 9;
    EXPECT_EQ(*IntIoctl(*p.slave, TIOCGPGRP), 1);
    EXPECT_EQ(*IntIoctl(*p.slave, TIOCGSID), 1);
    EXPECT_EQ(Error(IntIoctl(*p.slave, TIOCSPGRP, 20)), ESRCH);
    EXPECT_EQ(*IntIoctl(*p.slave, TIOCSPGRP, 11), 11);
    jobs.seen_less = 0;
    EXPECT_EQ(*IntIoctl(*p.slave, TIOCGPGRP), 20);
    World::Write(*p.master, "\x1a\x1a");
    EXPECT_EQ(jobs.sent.back(), (std::pair{20, SIGTSTP}));
    EXPECT_EQ(jobs.sent.size(), 2u);
    // Group 10 is in the background now.
    EXPECT_EQ(World::Read(*p.slave), "error 512");
    EXPECT_EQ(jobs.sent.back(), (std::pair{10, SIGTTIN}));
    EXPECT_EQ(World::Write(*p.slave, "x"), 1);
    EXPECT_EQ(Error(IntIoctl(*p.slave, TIOCSPGRP, 10)), 512);
    EXPECT_EQ(jobs.sent.back(), (std::pair{10, SIGTTOU}));
    // A new size is told to the foreground.
    ASSERT_TRUE(IntIoctl(*p.master, TIOCSWINSZ, 0x500018));
    EXPECT_EQ(jobs.sent.back(), (std::pair{20, SIGWINCH}));
    EXPECT_EQ(*IntIoctl(*p.slave, TIOCGWINSZ), 0x500018);
    // Somebody else's session.
    jobs.current = {.session = 30, .process_group = 30, .session_leader = true};
    EXPECT_EQ(Error(IntIoctl(*p.slave, TIOCSCTTY)), EPERM);
    jobs.current = {.session = 10, .process_group = 10, .session_leader = true, .controlling_tty = nullptr};
    jobs.sent.clear();
    p.master.reset();
    ASSERT_EQ(jobs.sent.size(), 3u);
    EXPECT_EQ(jobs.sent[0], (std::pair{-10, SIGHUP}));
    EXPECT_EQ(jobs.sent[1], (std::pair{20, SIGHUP}));
    EXPECT_EQ(jobs.sent[2], (std::pair{20, SIGCONT}));
  });
}

TEST(Devpts, PacketMode) {
  InPts([](World& w) {
    Pair p = OpenPair(w);
    ASSERT_TRUE(IntIoctl(*p.master, TIOCPKT, 1));
    World::Write(*p.slave, "data");
    EXPECT_EQ(World::Read(*p.master), std::string("\0data", 5));
    std::byte memory[4];
    BufferIo io(memory);
    ASSERT_TRUE(p.slave->Ioctl(io, TCFLSH, 2 /* TCIOFLUSH */));
    EXPECT_EQ(p.master->Readiness(waiter::kPri), waiter::kPri);
    EXPECT_EQ(World::Read(*p.master), "\x03");
    EXPECT_EQ(World::Read(*p.master), "error 11");
  });
}

TEST(Devpts, MountData) {
  EXPECT_EQ(ParseOptions("newinstance,ptmxmode=0666,mode=0620,gid=5")->slave_mode, 0620u);
  EXPECT_EQ(ParseOptions("newinstance,ptmxmode=0666,mode=0620,gid=5")->slave_gid, 5);
  for (const char* bad : {"mode", "mode=9", "x=1", "gid=-1", "gid="})
    EXPECT_EQ(Error(ParseOptions(bad)), EINVAL) << bad;
}

}  // namespace
}  // namespace redoubt::devpts
