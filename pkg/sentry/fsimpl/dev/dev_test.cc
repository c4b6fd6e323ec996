#include "pkg/sentry/fsimpl/dev/dev.h"

#include <gtest/gtest.h>
#include <sys/sysmacros.h>

#include <algorithm>

#include "pkg/sentry/fsimpl/testing/world.h"
#include "pkg/sentry/memmap/mmap_options.h"

namespace redoubt::dev {
namespace {

using fstest::Error;
using fstest::InFiber;
using fstest::World;

void InDev(const std::function<void(World&)>& body) {
  InFiber([&] {
    RegisterDevices({});
    World w;
    ASSERT_EQ(w.Mkdir("/dev"), 0);
    ASSERT_TRUE(w.ns->MountAt(w.walker(), w.at("/dev"), *CreateDevtmpfs(*w.memory), 0, "udev"));
    body(w);
  });
}

TEST(Dev, NullZeroFull) {
  InDev([](World& w) {
    auto null = *w.Open("/dev/null", O_RDWR | O_TRUNC);
    EXPECT_EQ(World::Read(*null), "");
    EXPECT_EQ(World::Write(*null, "gone"), 4);
    EXPECT_EQ(*null->Seek(100, SEEK_SET), 0u);
    auto zero = *w.Open("/dev/zero", O_RDWR);
    EXPECT_EQ(World::Read(*zero, 5000), std::string(5000, '\0'));
    EXPECT_EQ(World::PRead(*zero, 1 << 30, 3), std::string(3, '\0'));
    mm::MMapOptions options{.offset = 4096};
    ASSERT_TRUE(zero->ConfigureMMap(options));
    EXPECT_EQ(options.mappable, nullptr);
    EXPECT_EQ(Error(null->ConfigureMMap(options)), ENODEV);
    auto full = *w.Open("/dev/full", O_RDWR);
    EXPECT_EQ(World::Write(*full, "x"), -ENOSPC);
    EXPECT_EQ(World::Read(*full, 2), std::string(2, '\0'));
  });
}

TEST(Dev, RandomBytesDiffer) {
  InDev([](World& w) {
    auto a = *w.Open("/dev/urandom", O_RDONLY), b = *w.Open("/dev/random", O_RDONLY);
    std::string x = World::Read(*a, 3000), y = World::Read(*b, 3000);
    EXPECT_EQ(x.size(), 3000u);
    EXPECT_NE(x, y);
    EXPECT_GT(std::ranges::count_if(x, [](char c) { return c != 0; }), 2500);
  });
}

TEST(Dev, NodesAndLinks) {
  InDev([](World& w) {
    EXPECT_EQ(w.Stat("/dev/null")->rdev, makedev(1, 3));
    EXPECT_EQ(w.Stat("/dev/null")->mode, S_IFCHR | 0666u);
    EXPECT_EQ(*vfs::Readlink(w.walker(), w.at("/dev/stdin", false)), "/proc/self/fd/0");
    EXPECT_EQ(Error(w.Open("/dev/tty", O_RDWR)), ENXIO);
    EXPECT_EQ(Error(w.Open("/dev/console", O_RDWR)), ENXIO);
    // A node elsewhere with the same number is the same device; an unknown one is none.
    ASSERT_EQ(w.Mknod("/n", S_IFCHR | 0666, makedev(1, 3)), 0);
    EXPECT_EQ(World::Write(**w.Open("/n", O_WRONLY), "x"), 1);
    ASSERT_EQ(w.Mknod("/m", S_IFCHR | 0666, makedev(1, 1)), 0);
    EXPECT_EQ(Error(w.Open("/m", O_RDONLY)), ENXIO);
  });
}

}  // namespace
}  // namespace redoubt::dev
