#include "runsc/walls/walls.h"

#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

namespace redoubt::walls {
namespace {

// A child that does `what` and waits; its walls, and its number.
std::expected<Walls, std::string> WallsOf(const std::function<void()>& what) {
  int ready[2];
  EXPECT_EQ(pipe(ready), 0);
  pid_t pid = fork();
  if (pid == 0) {
    what();
    (void)!write(ready[1], "", 1);
    for (;;) pause();
  }
  char byte;
  EXPECT_EQ(read(ready[0], &byte, 1), 1);
  auto walls = Read(pid);
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
  close(ready[0]);
  close(ready[1]);
  return walls;
}

bool Own(const Walls& w, const std::string& name) {
  for (const auto& [n, own] : w.namespaces) {
    if (n == name) return own;
  }
  ADD_FAILURE() << "no namespace " << name;
  return false;
}

TEST(Walls, AProcessWithoutAny) {
  auto w = WallsOf([] {});
  ASSERT_TRUE(w) << w.error();
  EXPECT_FALSE(w->no_new_privs);
  EXPECT_NE(w->effective, 0u);
  EXPECT_EQ(w->unfiltered_threads, 1);
  EXPECT_FALSE(Own(*w, "net"));
  EXPECT_FALSE(w->root_entries.empty());
  EXPECT_FALSE(w->mounts.empty());
  const std::string text = Describe(std::span(&*w, 1));
  EXPECT_NE(text.find("! namespaces: own none; the caller's user pid mnt net ipc uts cgroup\n"), std::string::npos)
      << text;
  EXPECT_NE(text.find("! no_new_privs: no\n"), std::string::npos) << text;
  EXPECT_NE(text.find("! system-call filters: 0; threads without: 1 of 1\n"), std::string::npos) << text;
}

TEST(Walls, WhatStandsIsSeen) {
  auto w = WallsOf([] {
    rlimit none{};
    setrlimit(RLIMIT_CORE, &none);
    if (unshare(CLONE_NEWNET | CLONE_NEWUTS) != 0) _exit(1);
    prctl(PR_CAPBSET_DROP, CAP_SYS_BOOT, 0, 0, 0);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  });
  ASSERT_TRUE(w) << w.error();
  EXPECT_TRUE(w->no_new_privs);
  EXPECT_TRUE(Own(*w, "net"));
  EXPECT_TRUE(Own(*w, "uts"));
  EXPECT_FALSE(Own(*w, "ipc"));
  EXPECT_EQ(w->bounding >> CAP_SYS_BOOT & 1, 0u);
  EXPECT_EQ(w->core_limit, 0u);
  bool pipe_seen = false;
  for (const auto& [fd, what] : w->descriptors) pipe_seen = pipe_seen || what.starts_with("pipe:");
  EXPECT_TRUE(pipe_seen);
}

TEST(Walls, CapabilitiesHaveNames) {
  EXPECT_EQ(CapabilityNames(0), "none");
  EXPECT_EQ(CapabilityNames(uint64_t{1} << CAP_CHOWN | uint64_t{1} << CAP_CHECKPOINT_RESTORE),
            "chown checkpoint_restore");
  EXPECT_EQ(CapabilityNames(uint64_t{1} << 60), "60");
  EXPECT_EQ(CapabilityNames(~uint64_t{0}), "all");
}

TEST(Walls, WhoIsGoneIsALine) {
  pid_t pid = fork();
  if (pid == 0) _exit(0);
  waitpid(pid, nullptr, 0);
  const std::string text = Describe(std::span<const pid_t>(&pid, 1));
  EXPECT_TRUE(text.starts_with("process " + std::to_string(pid) + ": ")) << text;
  EXPECT_NE(text.find("No such file"), std::string::npos) << text;
}

}  // namespace
}  // namespace redoubt::walls
