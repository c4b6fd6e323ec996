#include "pkg/sentry/fsimpl/host/host.h"

#include <gtest/gtest.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "pkg/sentry/fsimpl/testing/world.h"
#include "pkg/sentry/wait/wait.h"

namespace redoubt::host {
namespace {

using fstest::Error;
using fstest::World;

// The poller's thread wakes fibers from outside, so these run on the real executor.
void InRealFiber(std::function<void()> body) {
  ::signal(SIGPIPE, SIG_IGN);
  auto executor = fiber::ThreadedExecutor::Create({});
  executor->Spawn(std::move(body));
  fiber::Join(*executor);
}

TEST(Host, PipeReadWaitsForTheOtherSide) {
  InRealFiber([] {
    int p[2];
    ASSERT_EQ(::pipe(p), 0);
    auto r = *Import(p[0], O_RDONLY, 0, 0);
    EXPECT_EQ(World::Read(*r), "error 11");
    EXPECT_EQ(r->Readiness(waiter::kIn), 0u);
    std::thread writer([&] {
      ::usleep(20000);
      ASSERT_EQ(::write(p[1], "late", 4), 4);
    });
    std::string buffer(10, '\0');
    BufferIo io(std::as_writable_bytes(std::span(buffer)));
    IoSequence dst(io, 0, 10);
    Result<size_t> n = wait::Retry(*r, waiter::kIn, fiber::kForever, [&] { return r->Read(dst, 0); });
    EXPECT_EQ(*n, 4u);
    writer.join();
    ::close(p[1]);
    EXPECT_TRUE(r->Readiness(waiter::kIn) & waiter::kHup);
    EXPECT_EQ(World::Read(*r), "");
    EXPECT_EQ(r->GetAttributes()->mode & S_IFMT, static_cast<uint32_t>(S_IFIFO));
    EXPECT_EQ(Error(r->Seek(0, SEEK_SET)), ESPIPE);
    EXPECT_EQ(World::PRead(*r, 0, 1), "error 29");
  });
}

TEST(Host, AFullPipeIsEagainAndABrokenOneEpipe) {
  InRealFiber([] {
    int p[2];
    ASSERT_EQ(::pipe(p), 0);
    auto w = *Import(p[1], O_WRONLY, 0, 0);
    int64_t total = 0;
    while (true) {
      int64_t n = World::Write(*w, std::string(10000, 'x'));
      if (n < 0) {
        EXPECT_EQ(n, -EAGAIN);
        break;
      }
      total += n;
    }
    EXPECT_GE(total, 60000);
    EXPECT_EQ(w->Readiness(waiter::kOut), 0u);
    ::close(p[0]);
    EXPECT_EQ(World::Write(*w, "x"), -EPIPE);
  });
}

TEST(Host, SocketsAndFiles) {
  InRealFiber([] {
    int s[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    auto a = *Import(s[0], O_RDWR, 5, 6);
    EXPECT_EQ(World::Read(*a), "error 11");
    EXPECT_EQ(World::Write(*a, "hi"), 2);
    char c[2];
    EXPECT_EQ(::read(s[1], c, 2), 2);
    ::close(s[1]);
    EXPECT_EQ(World::Read(*a), "");
    EXPECT_EQ(a->GetAttributes()->uid, 5u);

    char name[] = "/tmp/redoubt_host_test_XXXXXX";
    int fd = ::mkstemp(name);
    ASSERT_GE(fd, 0);
    ::unlink(name);
    auto f = *Import(fd, O_RDWR, 0, 0);
    EXPECT_EQ(World::Write(*f, "hello"), 5);
    EXPECT_EQ(World::PRead(*f, 1, 3), "ell");
    EXPECT_EQ(*f->Seek(0, SEEK_SET), 0u);
    EXPECT_EQ(World::Read(*f, 4), "hell");
    EXPECT_EQ(f->GetAttributes()->size, 5u);
    EXPECT_FALSE(f->SupportsEpoll());
    EXPECT_EQ(TerminalOf(*f), nullptr);
    int dir = ::open("/", O_RDONLY | O_DIRECTORY);
    EXPECT_EQ(Error(Import(dir, O_RDONLY, 0, 0)), EINVAL);
  });
}

TEST(Host, Terminals) {
  InRealFiber([] {
    World w;
    int master, slave;
    ASSERT_EQ(::openpty(&master, &slave, nullptr, nullptr, nullptr), 0);
    auto t = *Import(slave, O_RDWR, 0, 0);
    ASSERT_NE(TerminalOf(*t), nullptr);
    struct winsize size = {.ws_row = 30, .ws_col = 90, .ws_xpixel = 0, .ws_ypixel = 0};
    ASSERT_EQ(::ioctl(master, TIOCSWINSZ, &size), 0);
    std::string buffer(64, '\0');
    BufferIo io(std::as_writable_bytes(std::span(buffer)));
    EXPECT_EQ(Error(t->Ioctl(io, TIOCGWINSZ, 0)), 0);
    EXPECT_EQ(buffer[0], 30);
    EXPECT_EQ(buffer[2], 90);
    EXPECT_EQ(Error(t->Ioctl(io, TCGETS, 0)), 0);
    EXPECT_EQ(Error(t->Ioctl(io, TCSETSW, 0)), 0);
    EXPECT_EQ(Error(t->Ioctl(io, TCGETS, 60)), EFAULT);
    // Input injection and whatever else is not on the list.
    EXPECT_EQ(Error(t->Ioctl(io, TIOCSTI, 0)), ENOTTY);
    // Nobody's controlling terminal: there is no kernel here.
    EXPECT_EQ(Error(t->Ioctl(io, TIOCGPGRP, 0)), ENOTTY);
    EXPECT_EQ(World::Read(*t), "error 11");
    ASSERT_EQ(::write(master, "line\n", 5), 5);
    EXPECT_EQ(World::Read(*t), "line\n");
    EXPECT_EQ(World::Write(*t, "out"), 3);
    RefPtr<tty::Terminal> terminal = TerminalOf(*t);
    const vfs::Path t_path = w.root_path;
    // Another descriptor of the same terminal is the same terminal.
    auto twin = *Import(::dup(slave), O_WRONLY, 0, 0);
    EXPECT_EQ(TerminalOf(*twin), terminal);
    twin.reset();
    auto again = terminal->OpenTerminal(t_path, O_RDWR);
    ASSERT_TRUE(again);
    EXPECT_EQ(World::Write(**again, "2"), 1);
    again->reset();
    t.reset();
    EXPECT_EQ(Error(terminal->OpenTerminal(t_path, O_RDWR)), EIO);
    ::close(master);
  });
}

}  // namespace
}  // namespace redoubt::host
