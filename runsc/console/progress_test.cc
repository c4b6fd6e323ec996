#include "runsc/console/progress.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "pkg/fd/unique_fd.h"

namespace redoubt::console {
namespace {

int64_t NowMs() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 + t.tv_nsec / 1'000'000;
}

// stderr is a terminal of this test's; what is written there is read by Shown.
class ProgressTest : public testing::Test {
 protected:
  void SetUp() override {
    setenv("TERM", "xterm", 1);
    winsize size{.ws_row = 24, .ws_col = 20, .ws_xpixel = 0, .ws_ypixel = 0};
    int master = -1, slave = -1;
    ASSERT_EQ(openpty(&master, &slave, nullptr, nullptr, &size), 0);
    master_ = UniqueFd(master);
    fcntl(master, F_SETFL, O_NONBLOCK);
    own_ = UniqueFd(dup(STDERR_FILENO));
    dup2(slave, STDERR_FILENO);
    close(slave);
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    read_ = UniqueFd(ends[0]);
    write_ = UniqueFd(ends[1]);
  }
  void TearDown() override { dup2(own_.get(), STDERR_FILENO); }
  std::string Shown() {
    char buffer[256];
    const ssize_t n = read(master_.get(), buffer, sizeof(buffer));
    return {buffer, static_cast<size_t>(n > 0 ? n : 0)};
  }
  UniqueFd master_, own_, read_, write_;
};

TEST_F(ProgressTest, WhatIsThereAtOnceIsNotShown) {
  ASSERT_EQ(write(write_.get(), "x", 1), 1);
  {
    Progress progress("something");
    progress.Await(read_.get());
  }
  EXPECT_EQ(Shown(), "");
}

TEST_F(ProgressTest, ALineAfterASecondWhichIsWiped) {
  {
    const int64_t start = NowMs();
    Progress progress("waiting for something");
    progress.Await(read_.get());
    EXPECT_GE(NowMs() - start, 1000);
    // Cut, so that it is one line.
    EXPECT_EQ(Shown(), "\r\033[Kwaiting for somethi");
    EXPECT_EQ(progress.Due(), -1);
    progress.Await(read_.get());  // returns
    EXPECT_EQ(Shown(), "");
  }
  EXPECT_EQ(Shown(), "\r\033[K");
}

TEST_F(ProgressTest, NotWhereNobodyLooksOrItCannotBeWiped) {
  setenv("TERM", "dumb", 1);
  EXPECT_EQ(Progress("x").Due(), -1);
  setenv("TERM", "xterm", 1);
  EXPECT_GE(Progress("x").Due(), 0);
  dup2(write_.get(), STDERR_FILENO);
  EXPECT_EQ(Progress("x").Due(), -1);
}

}  // namespace
}  // namespace redoubt::console
