#include "runsc/container/state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

namespace redoubt::container {
namespace {

using testing::HasSubstr;

class StoreTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/store-XXXXXX";
    root_ = mkdtemp(pattern.data());
  }
  std::string root_;
};

TEST_F(StoreTest, RemembersAContainer) {
  Store store(root_ + "/a/b");
  {
    Expected<Entry> entry = store.Create("c");
    ASSERT_TRUE(entry) << entry.error();
    entry->state().bundle = "/bundle";
    entry->state().process = HostProcess::Of(getpid());
    entry->state().status = Status::kRunning;
    ASSERT_TRUE(entry->Save());
    ASSERT_TRUE(entry->SaveConfig("{}"));
  }
  Expected<Entry> entry = store.Open("c");
  ASSERT_TRUE(entry) << entry.error();
  EXPECT_EQ(entry->state().bundle, "/bundle");
  EXPECT_EQ(entry->state().CurrentStatus(), Status::kRunning);
  EXPECT_EQ(*entry->LoadConfig(), "{}");
  EXPECT_THAT(entry->state().ToJson(false), HasSubstr("\"status\":\"running\""));
  EXPECT_EQ(store.List().size(), 1u);
  ASSERT_TRUE(entry->Remove());
  EXPECT_FALSE(store.Exists("c"));
}

TEST_F(StoreTest, RefusesASecondOneOfAName) {
  Store store(root_);
  {
    Expected<Entry> entry = store.Create("c");
    ASSERT_TRUE(entry && entry->Save());
  }
  Expected<Entry> second = store.Create("c");
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error(), "container \"c\" already exists");
  EXPECT_EQ(store.Open("d").error(), "container \"d\" does not exist");
  for (const char* bad : {"", ".", "..", "a/b", "a b", "\n"}) EXPECT_FALSE(store.Create(bad)) << bad;
}

TEST_F(StoreTest, TakesOverWhatAKilledCreateLeft) {
  Store store(root_);
  pid_t pid = fork();
  if (pid == 0) {
    Expected<Entry> entry = store.Create("c");
    kill(getpid(), SIGKILL);
  }
  waitpid(pid, nullptr, 0);
  EXPECT_FALSE(store.Exists("c"));
  EXPECT_TRUE(store.Create("c"));
}

TEST_F(StoreTest, SaysWhatIsDamaged) {
  Store store(root_);
  {
    Expected<Entry> entry = store.Create("c");
    ASSERT_TRUE(entry && entry->Save());
  }
  std::stringstream whole;
  whole << std::ifstream(root_ + "/c/state.json").rdbuf();
  std::string no_map = whole.str();
  const size_t map = no_map.find("\"uidMap\":\"\"");
  ASSERT_NE(map, std::string::npos) << no_map;
  no_map.insert(map + strlen("\"uidMap\":\""), "0 1");
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("[]"), std::string("{\"id\":5}"), no_map}) {
    std::ofstream(root_ + "/c/state.json") << text;
    Expected<Entry> entry = store.Open("c");
    ASSERT_FALSE(entry) << text;
    EXPECT_THAT(entry.error(), HasSubstr("/c/state.json: is damaged"));
    EXPECT_THAT(entry.error(), HasSubstr("delete --force"));
  }
  Expected<Entry> broken = store.OpenBroken("c");
  ASSERT_TRUE(broken);
  EXPECT_TRUE(broken->Remove());
}

TEST_F(StoreTest, AStatusOutlivesNoProcess) {
  pid_t pid = fork();
  if (pid == 0) {
    pause();
    _exit(0);
  }
  State state{.process = HostProcess::Of(pid), .status = Status::kRunning};
  EXPECT_EQ(state.CurrentStatus(), Status::kRunning);
  HostProcess other = state.process;
  other.started++;
  EXPECT_FALSE(other.Alive());
  kill(pid, SIGKILL);
  siginfo_t info;
  waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT);
  // A zombie already counts as gone.
  EXPECT_EQ(state.CurrentStatus(), Status::kStopped);
  EXPECT_THAT(state.ToJson(false), HasSubstr("\"pid\":0"));
  waitpid(pid, nullptr, 0);
}

TEST_F(StoreTest, OneAtATimeActs) {
  Store store(root_);
  ASSERT_TRUE(store.Create("c")->Save());
  std::atomic<int> inside{0}, most{0}, removed{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; i++) {
    threads.emplace_back([&] {
      for (int n = 0; n < 200; n++) {
        Expected<Entry> entry = n % 3 == 0 ? store.Create("c") : store.Open("c");
        if (!entry) continue;
        int now = ++inside;
        if (now > most) most = now;
        (void)entry->Save();
        if (n % 7 == 0 && entry->Remove()) removed++;
        inside--;
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(most, 1);
  EXPECT_GT(removed, 0);
}

}  // namespace
}  // namespace redoubt::container
