#include "pkg/log/log.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "pkg/log/rate_limit.h"

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

TEST(RateLimit, AFewInEachIntervalAndTheNumberOfTheOthers) {
  log::RateLimit limit;
  for (uint32_t i = 0; i < log::RateLimit::kBurst; i++) EXPECT_EQ(limit.Take(1000 + i), 0u);
  for (int i = 0; i < 7; i++) EXPECT_EQ(limit.Take(2000), std::nullopt);
  EXPECT_EQ(limit.Take(1000 + log::RateLimit::kInterval - 1), std::nullopt);
  EXPECT_EQ(limit.Take(1000 + log::RateLimit::kInterval), 8u);
  EXPECT_EQ(limit.Take(1000 + log::RateLimit::kInterval), 0u);
}

TEST(RateLimit, EachLineOfTheSourceHasItsOwn) {
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  log::Configure(fds[1], log::Level::kWarning);
  for (int i = 0; i < 1000; i++) LOG_WARNING_LIMITED("flood {}", i);
  LOG_WARNING_LIMITED("other");
  close(fds[1]);
  log::Configure(STDERR_FILENO, log::Level::kWarning);
  std::string text(8192, 0);
  text.resize(read(fds[0], text.data(), text.size()));
  close(fds[0]);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), log::RateLimit::kBurst + 1) << text;
  EXPECT_NE(text.find("] flood 9\n"), std::string::npos);
  EXPECT_NE(text.find("] other\n"), std::string::npos);
}

TEST(LogDeathTest, CheckNamesTheInvariant) { EXPECT_DEATH(CHECK(1 + 1 == 3, "arithmetic"), "1 \\+ 1 == 3 arithmetic"); }

}  // namespace
}  // namespace redoubt
