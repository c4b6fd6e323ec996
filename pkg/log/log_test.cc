#include "pkg/log/log.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

namespace redoubt {
namespace {

TEST(Log, WritesEnabledLinesOnly) {
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  log::Configure(fds[1], log::Level::kInfo);
  LOG_DEBUG("hidden {}", 1);
  LOG_INFO("shown {}", 2);
  close(fds[1]);
  log::Configure(STDERR_FILENO, log::Level::kWarning);
  char buf[512];
  ssize_t n = read(fds[0], buf, sizeof(buf));
  ASSERT_GT(n, 0);
  std::string text(buf, n);
  EXPECT_EQ(text.front(), 'I');
  EXPECT_NE(text.find("log_test.cc:"), std::string::npos);
  EXPECT_TRUE(text.ends_with("] shown 2\n")) << text;
  EXPECT_EQ(text.find("hidden"), std::string::npos);
  close(fds[0]);
}

TEST(LogDeathTest, CheckNamesTheInvariant) { EXPECT_DEATH(CHECK(1 + 1 == 3, "arithmetic"), "1 \\+ 1 == 3 arithmetic"); }

}  // namespace
}  // namespace redoubt
