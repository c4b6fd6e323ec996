#include "runsc/cgroup/cgroup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

namespace redoubt::cgroup {
namespace {

TEST(Hierarchies, AreReadFromMountinfo) {
  std::vector<Hierarchy> h = ParseHierarchies(
      "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
      "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
      "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
      "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\nbroken line\n");
  ASSERT_EQ(h.size(), 3u);
  EXPECT_EQ(h[0].mount_point, "/sys/fs/cgroup/cpu,cpuacct");
  EXPECT_THAT(h[0].controllers, testing::ElementsAre("cpu", "cpuacct"));
  EXPECT_THAT(h[1].controllers, testing::ElementsAre("name=systemd"));
  EXPECT_TRUE(h[2].unified);
}

TEST(Path, IsResolved) {
  EXPECT_EQ(ResolvePath("", "id", false), "/id");
  EXPECT_EQ(ResolvePath("a/b", "id", false), "/a/b");
  EXPECT_EQ(ResolvePath("machine.slice:libpod:abc", "id", true), "/machine.slice/libpod-abc.scope");
  EXPECT_EQ(ResolvePath("a-b-c.slice:cri:x", "id", true), "/a.slice/a-b.slice/a-b-c.slice/cri-x.scope");
  EXPECT_FALSE(ResolvePath("/a/../../b", "id", false));
  EXPECT_FALSE(ResolvePath("plain", "id", true));
}

TEST(Cpus, AreCounted) {
  EXPECT_EQ(CountCpus("0-2,7"), 4);
  EXPECT_EQ(CountCpus("3"), 1);
  EXPECT_EQ(CountCpus(""), 0);
  EXPECT_EQ(CountCpus("2-1"), 0);
  EXPECT_EQ(CountCpus("x"), 0);
}

TEST(Settings, SpeakBothVersions) {
  specutils::Resources r;
  r.memory_limit = 64 << 20;
  r.memory_swap = 96 << 20;
  r.cpu_shares = 1024;
  r.cpu_quota = 50000;
  r.pids_limit = 10;
  auto find = [](const std::vector<Setting>& s, const std::string& file) -> std::string {
    for (const Setting& x : s) {
      if (x.file == file) return x.value;
    }
    return "?";
  };
  auto v1 = SettingsV1(r);
  auto v2 = SettingsV2(r);
  ASSERT_TRUE(v1 && v2);
  EXPECT_EQ(find(*v1, "memory.memsw.limit_in_bytes"), std::to_string(96 << 20));
  EXPECT_EQ(find(*v2, "memory.swap.max"), std::to_string(32 << 20));
  EXPECT_EQ(find(*v1, "cpu.shares"), "1024");
  EXPECT_EQ(find(*v2, "cpu.weight"), "39");
  EXPECT_EQ(find(*v2, "cpu.max"), "50000 100000");
  EXPECT_EQ(find(*v2, "pids.max"), "10");
  r.memory_swap = 1;
  EXPECT_FALSE(SettingsV2(r));
  r.memory_swap = {};
  r.unified["../x"] = "1";
  EXPECT_FALSE(SettingsV2(r));
}

TEST(Cgroup, BoundsAProcessOnThisHost) {
  std::string path = "/runsc-test-" + std::to_string(getpid()) + "/inner";
  Expected<Cgroup> group = Cgroup::Create(path);
  ASSERT_TRUE(group) << group.error();
  specutils::Resources r;
  r.pids_limit = 1;
  r.memory_limit = 64 << 20;
  auto set = group->Set(r);
  ASSERT_TRUE(set) << set.error();
  // Memory and swap are raised and lowered together, whichever has to go first.
  for (int64_t mebibytes : {128, 32, 64}) {
    r.memory_limit = r.memory_swap = mebibytes << 20;
    set = group->Set(r);
    EXPECT_TRUE(set) << mebibytes << ": " << set.error();
  }
  specutils::Resources unknown;
  unknown.unified["nonesuch.max"] = "1";
  EXPECT_FALSE(group->Set(unknown)) << "a limit that nothing enforces";
  auto procs = group->OpenProcs();
  ASSERT_TRUE(procs) << procs.error();
  pid_t pid = fork();
  if (pid == 0) {
    for (const UniqueFd& fd : *procs) {
      if (write(fd.get(), "0", 1) != 1) _exit(2);
    }
    // The limit of one process is reached.
    _exit(fork() < 0 && errno == EAGAIN ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(group->MemoryUsage());
  auto removed = group->Remove();
  EXPECT_TRUE(removed) << removed.error();
  for (const std::string& d : group->directories()) EXPECT_NE(access(d.c_str(), F_OK), 0) << d;
}

}  // namespace
}  // namespace redoubt::cgroup
