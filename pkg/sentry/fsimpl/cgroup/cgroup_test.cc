#include "pkg/sentry/fsimpl/cgroup/cgroup.h"

#include <linux/magic.h>

#include "pkg/sentry/fsimpl/testing/world.h"

namespace redoubt::cgroup {
namespace {

using fstest::Error;
using fstest::InFiber;
using fstest::World;

Usage NothingUsed() {
  auto zero = [] { return uint64_t{0}; };
  return {.memory = zero, .cpu_user_ns = zero, .cpu_system_ns = zero, .pids = zero};
}

TEST(Cgroup, ShowsLimits) {
  InFiber([] {
    World w(
        Create({.memory = (64 << 20) + 100, .cpu_quota = 150'000, .cpu_period = 50'000, .pids = 17}, NothingUsed()));
    EXPECT_EQ(w.ReadFile("/cgroup.controllers"), "cpu memory pids\n");
    EXPECT_EQ(w.ReadFile("/memory.max"), "67108864\n");
    EXPECT_EQ(w.ReadFile("/cpu.max"), "150000 50000\n");
    EXPECT_EQ(w.ReadFile("/pids.max"), "17\n");
    EXPECT_EQ(w.fs->Statfs()->f_type, CGROUP2_SUPER_MAGIC);
  });
}

TEST(Cgroup, SaysMaxWithoutLimits) {
  InFiber([] {
    World w(Create({}, NothingUsed()));
    EXPECT_EQ(w.ReadFile("/memory.max"), "max\n");
    EXPECT_EQ(w.ReadFile("/cpu.max"), "max 100000\n");
    EXPECT_EQ(w.ReadFile("/pids.max"), "max\n");
  });
}

TEST(Cgroup, ShowsWhatIsUsedNow) {
  InFiber([] {
    uint64_t used = 4096;
    World w(Create({}, {.memory = [&] { return used; },
                        .cpu_user_ns = [] { return uint64_t{3'000'000}; },
                        .cpu_system_ns = [] { return uint64_t{2'000}; },
                        .pids = [] { return uint64_t{5}; }}));
    EXPECT_EQ(w.ReadFile("/memory.current"), "4096\n");
    used = 8192;
    EXPECT_EQ(w.ReadFile("/memory.current"), "8192\n");
    EXPECT_EQ(w.ReadFile("/cpu.stat"), "usage_usec 3002\nuser_usec 3000\nsystem_usec 2\n");
    EXPECT_EQ(w.ReadFile("/pids.current"), "5\n");
  });
}

TEST(Cgroup, IsNotToBeChanged) {
  InFiber([] {
    World w(Create({}, NothingUsed()));
    EXPECT_NE(w.WriteFile("/memory.max", "1"), 0);
    EXPECT_EQ(w.ReadFile("/memory.max"), "max\n");
    EXPECT_EQ(w.Mkdir("/child"), EPERM);
    EXPECT_EQ(Error(w.Stat("/cgroup.procs")), ENOENT);
  });
}

}  // namespace
}  // namespace redoubt::cgroup
