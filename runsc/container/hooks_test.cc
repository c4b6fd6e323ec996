#include "runsc/container/hooks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <time.h>

#include <fstream>
#include <iterator>

namespace redoubt::container {
namespace {

specutils::Hook Shell(const std::string& script, int timeout = 0) {
  return {.path = "/bin/sh", .args = {"sh", "-c", script}, .env = {"A=b"}, .timeout_seconds = timeout};
}

TEST(Hooks, GetTheStateAndTheirEnvironment) {
  std::string file = testing::TempDir() + "/hook-output";
  std::string state(300'000, 's');  // more than a pipe holds
  auto ran = RunHooks("prestart", {Shell("(echo $A; cat | wc -c) > " + file)}, state);
  ASSERT_TRUE(ran) << ran.error();
  std::ifstream in(file);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), "b\n300000\n");
}

TEST(Hooks, NeedNotReadTheState) {
  signal(SIGPIPE, SIG_IGN);
  EXPECT_TRUE(RunHooks("prestart", {Shell("exec <&-; true")}, std::string(300'000, 's')));
}

TEST(Hooks, TheFirstFailureEndsThemAndSaysWhy) {
  std::string file = testing::TempDir() + "/hook-second";
  auto ran = RunHooks("createRuntime", {Shell("echo no such luck >&2; exit 3"), Shell("touch " + file)}, "{}");
  ASSERT_FALSE(ran);
  EXPECT_EQ(ran.error(), "createRuntime hook /bin/sh: exit status 3: no such luck");
  EXPECT_FALSE(std::ifstream(file));
  ran = RunHooks("poststop", {{.path = "/does/not/exist"}}, "{}");
  ASSERT_FALSE(ran);
  EXPECT_THAT(ran.error(), testing::HasSubstr("No such file or directory"));
  ran = RunHooks("poststop", {Shell("kill -9 $$")}, "{}");
  ASSERT_FALSE(ran);
  EXPECT_THAT(ran.error(), testing::HasSubstr("died of signal 9"));
}

TEST(Hooks, AreKilledWhenTheirTimeIsUp) {
  timespec before{}, after{};
  clock_gettime(CLOCK_MONOTONIC, &before);
  auto ran = RunHooks("poststart", {Shell("sleep 100", 1)}, "{}");
  clock_gettime(CLOCK_MONOTONIC, &after);
  ASSERT_FALSE(ran);
  EXPECT_THAT(ran.error(), testing::HasSubstr("did not end within 1 s"));
  EXPECT_LT(after.tv_sec - before.tv_sec, 20);
}

}  // namespace
}  // namespace redoubt::container
