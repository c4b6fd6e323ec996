#include "pkg/sentry/fsimpl/sys/sys.h"

#include <gtest/gtest.h>

#include "pkg/sentry/fsimpl/testing/world.h"

namespace redoubt::sys {
namespace {

using fstest::Error;
using fstest::InFiber;
using fstest::World;

TEST(Sys, CountsProcessors) {
  for (auto [cpus, list, mask] : {std::tuple{1, "0\n", "1\n"}, {2, "0-1\n", "3\n"}, {40, "0-39\n", "ff,ffffffff\n"}}) {
    InFiber([&] {
      World w(Create({.cpus = cpus}));
      EXPECT_EQ(w.ReadFile("/devices/system/cpu/online"), list);
      EXPECT_EQ(w.ReadFile("/devices/system/node/node0/cpumap"), mask);
      EXPECT_EQ(Error(w.Stat("/devices/system/cpu/cpu" + std::to_string(cpus - 1))), 0);
      EXPECT_EQ(Error(w.Stat("/devices/system/cpu/cpu" + std::to_string(cpus))), ENOENT);
    });
  }
}

TEST(Sys, IsReadOnlyByNature) {
  InFiber([] {
    World w(Create({}));
    EXPECT_EQ(w.ReadFile("/class/net/lo/mtu"), "65536\n");
    EXPECT_EQ(w.Stat("/class/net/lo/mtu")->size, 4096u);
    EXPECT_EQ(w.List("/fs/cgroup"), (std::vector<std::string>{".", ".."}));
    EXPECT_EQ(w.Mkdir("/fs/x"), EPERM);
    EXPECT_EQ(w.Touch("/fs/x"), EACCES);
    EXPECT_EQ(w.Unlink("/kernel/profiling"), EPERM);
    EXPECT_EQ(w.WriteFile("/kernel/profiling", "1"), EINVAL);
    EXPECT_EQ(Error(vfs::Chmod(w.walker(), *w.Lookup("/kernel"), 0)), EPERM);
  });
}

}  // namespace
}  // namespace redoubt::sys
