#include "pkg/sentry/fsimpl/copy/copy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "pkg/sentry/fsimpl/testing/world.h"
#include "pkg/sentry/fsimpl/tmpfs/tmpfs.h"

namespace redoubt::copy {
namespace {

using fstest::Error;
using fstest::InFiber;
using fstest::World;
using ::testing::UnorderedElementsAre;

// Copies /from of `w` to /to, a tmpfs of its own.
Result<> CopyTo(World& w, const tmpfs::Options& options = {}, const TreeLimits& limits = {}) {
  RefPtr<vfs::Filesystem> fs = tmpfs::Create(*w.memory, options);
  TRY(Tree(w.Lookup("/from")->inode(), *fs->root(), limits));
  EXPECT_EQ(w.Mkdir("/to"), 0);
  return w.ns->MountAt(w.walker(), w.at("/to"), fs, 0, "tmpfs");
}

TEST(CopyTree, KeepsNamesContentsOwnersModesAndTimes) {
  InFiber([] {
    World w;
    const std::string large = std::string(300'000, 'a') + std::string(40'000, '\0') + "end";
    w.Mkdir("/from");
    w.Mkdir("/from/d", 0751);
    w.Mkdir("/from/d/deep");
    w.WriteFile("/from/d/deep/f", large);
    w.WriteFile("/from/empty", "");
    w.Symlink("d/deep/f", "/from/link");
    w.Mknod("/from/pipe", S_IFIFO | 0600);
    EXPECT_EQ(Error(vfs::Chown(w.walker(), *w.Lookup("/from/d/deep/f"), 7, 8)), 0);
    EXPECT_EQ(Error(vfs::Chmod(w.walker(), *w.Lookup("/from/d/deep/f"), 04750)), 0);
    const vfs::Attributes directory = *w.Stat("/from/d");
    const vfs::Attributes file = *w.Stat("/from/d/deep/f");
    ASSERT_EQ(Error(CopyTo(w)), 0);
    EXPECT_THAT(w.List("/to"), UnorderedElementsAre(".", "..", "d", "empty", "link", "pipe"));
    EXPECT_EQ(w.ReadFile("/to/link"), large);
    EXPECT_EQ(w.ReadFile("/to/empty"), "");
    const vfs::Attributes copied = *w.Stat("/to/d/deep/f");
    EXPECT_EQ(copied.mode, file.mode);
    EXPECT_EQ(copied.uid, 7u);
    EXPECT_EQ(copied.gid, 8u);
    EXPECT_EQ(copied.mtime, file.mtime);
    EXPECT_EQ(w.Stat("/to/d")->mode, directory.mode);
    EXPECT_EQ(w.Stat("/to/d")->mtime, directory.mtime);
    EXPECT_EQ(w.Lstat("/to/pipe")->mode, S_IFIFO | 0600u);
    // A copy, not the thing itself.
    EXPECT_EQ(w.WriteFile("/to/empty", "x"), 0);
    EXPECT_EQ(w.ReadFile("/from/empty"), "");
  });
}

TEST(CopyTree, IsBounded) {
  InFiber([] {
    World w;
    w.Mkdir("/from");
    w.Mkdir("/from/a");
    w.Mkdir("/from/a/b");
    w.WriteFile("/from/f", std::string(20'000, 'x'));
    EXPECT_EQ(Error(CopyTo(w, {}, {.files = 2})), E2BIG);
    EXPECT_EQ(Error(CopyTo(w, {}, {.depth = 2})), ELOOP);
    EXPECT_EQ(Error(CopyTo(w, {.size_limit = 8192})), ENOSPC);
    EXPECT_EQ(Error(CopyTo(w, {.inode_limit = 2})), ENOSPC);
    EXPECT_EQ(Error(CopyTo(w, {}, {.files = 3, .depth = 3})), 0);
  });
}

}  // namespace
}  // namespace redoubt::copy
