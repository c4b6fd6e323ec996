#include <gtest/gtest.h>
#include <linux/openat2.h>
#include <sys/mount.h>
#include <unistd.h>

#include "pkg/sentry/fsimpl/testing/world.h"
#include "pkg/sentry/vfs/dentry.h"

namespace redoubt::vfs {
namespace {

using fstest::Error;
using fstest::InFiber;
using fstest::World;

// /a/b/c (file), /a/d, /file, links of all kinds, a second tmpfs on /mnt with /mnt/in/x.
void Populate(World& w) {
  for (const char* d : {"/a", "/a/b", "/a/d", "/mnt", "/closed"}) ASSERT_EQ(w.Mkdir(d), 0) << d;
  for (const char* f : {"/a/b/c", "/file"}) ASSERT_EQ(w.Touch(f), 0) << f;
  ASSERT_EQ(w.Symlink("a/b", "/to_b"), 0);
  ASSERT_EQ(w.Symlink("/a/b/", "/to_b_slash"), 0);
  ASSERT_EQ(w.Symlink("file", "/to_file"), 0);
  ASSERT_EQ(w.Symlink("file/", "/to_file_slash"), 0);
  ASSERT_EQ(w.Symlink("nowhere", "/dangling"), 0);
  ASSERT_EQ(w.Symlink("loop2", "/loop1"), 0);
  ASSERT_EQ(w.Symlink("loop1", "/loop2"), 0);
  ASSERT_EQ(w.Symlink("..", "/a/up"), 0);
  ASSERT_EQ(w.Symlink("/", "/to_root"), 0);
  ASSERT_EQ(w.Symlink("../../../../file", "/a/b/escape"), 0);
  // 41 links in a row; the 40th from the end is the last that may be followed.
  ASSERT_EQ(w.Symlink("file", "/chain0"), 0);
  for (int i = 1; i <= 40; i++) {
    ASSERT_EQ(w.Symlink("chain" + std::to_string(i - 1), "/chain" + std::to_string(i)), 0);
  }
  ASSERT_TRUE(w.ns->MountAt(w.walker(), w.at("/mnt"), tmpfs::Create(*w.memory, {}), 0, "second"));
  ASSERT_EQ(w.Mkdir("/mnt/in"), 0);
  ASSERT_EQ(w.Touch("/mnt/in/x"), 0);
  ASSERT_EQ(w.Symlink("/a", "/mnt/out"), 0);
}

struct Case {
  const char* name;
  int error;
  const char* is = nullptr;  // the place's absolute name
  bool follow = true;
  uint64_t resolve = 0;
  const char* from = "/";
};

TEST(PathWalk, Table) {
  const std::string long_name(255, 'n'), too_long(256, 'n');
  std::string long_path;
  while (long_path.size() < 4094) long_path += "./";
  const std::string path_4095 = long_path + "a", path_4096 = long_path + "./";
  const Case kCases[] = {
      {"/", 0, "/"},
      {"///", 0, "/"},
      {"", ENOENT},
      {".", 0, "/"},
      {"..", 0, "/"},
      {"../..", 0, "/"},
      {"/a/b/c", 0, "/a/b/c"},
      {"//a///b//c", 0, "/a/b/c"},
      {"/a/./b/../b/c", 0, "/a/b/c"},
      {"/a/b/c/", ENOTDIR},
      {"/a/b/c/.", ENOTDIR},
      {"/a/b/c/..", ENOTDIR},
      {"/a/b/c/d", ENOTDIR},
      {"/a/b/", 0, "/a/b"},
      {"/a/none", ENOENT},
      {"/none/none", ENOENT},
      {"/none/..", ENOENT},
      {"/none/", ENOENT},
      {"c", 0, "/a/b/c", true, 0, "/a/b"},
      {"../d", 0, "/a/d", true, 0, "/a/b"},
      {"x", ENOTDIR, nullptr, true, 0, "/file"},
      {"/a", 0, "/a", true, 0, "/file"},
      // Symbolic links.
      {"/to_b", 0, "/a/b"},
      {"/to_b", 0, "/to_b", false},
      {"/to_b/", 0, "/a/b", false},
      {"/to_b/c", 0, "/a/b/c", false},
      {"/to_b/..", 0, "/a"},
      {"/to_b_slash", 0, "/a/b"},
      {"/to_b_slash", 0, "/to_b_slash", false},
      {"/to_file", 0, "/file"},
      {"/to_file/", ENOTDIR},
      {"/to_file/", ENOTDIR, nullptr, false},
      {"/to_file_slash", ENOTDIR},
      {"/dangling", ENOENT},
      {"/dangling", 0, "/dangling", false},
      {"/dangling/", ENOENT, nullptr, false},
      {"/loop1", ELOOP},
      {"/loop1", 0, "/loop1", false},
      {"/loop1/x", ELOOP, nullptr, false},
      {"/to_root", 0, "/"},
      {"/to_root/", 0, "/"},
      {"/to_root/to_root/a", 0, "/a"},
      {"/a/up/a/up/file", 0, "/file"},
      {"/a/b/escape", 0, "/file"},
      {"/chain39", 0, "/file"},
      {"/chain40", ELOOP},
      // Lengths.
      {long_name.c_str(), ENOENT},
      {too_long.c_str(), ENAMETOOLONG},
      {path_4095.c_str(), 0, "/a"},
      {path_4096.c_str(), ENAMETOOLONG},
      // Mounts.
      {"/mnt", 0, "/mnt"},
      {"/mnt/in/x", 0, "/mnt/in/x"},
      {"/mnt/..", 0, "/"},
      {"/mnt/../file", 0, "/file"},
      {"../../file", 0, "/file", true, 0, "/mnt/in"},
      {"/mnt/out/b", 0, "/a/b"},
      // openat2(2).
      {"/mnt/in", EXDEV, nullptr, true, RESOLVE_NO_XDEV},
      {"in/x", 0, "/mnt/in/x", true, RESOLVE_NO_XDEV, "/mnt"},
      {"..", EXDEV, nullptr, true, RESOLVE_NO_XDEV, "/mnt"},
      {"out", EXDEV, nullptr, true, RESOLVE_NO_XDEV, "/mnt"},
      {"/to_b/c", ELOOP, nullptr, true, RESOLVE_NO_SYMLINKS},
      {"/to_b", 0, "/to_b", false, RESOLVE_NO_SYMLINKS},
      {"b/c", 0, "/a/b/c", true, RESOLVE_BENEATH, "/a"},
      {"b/../d", 0, "/a/d", true, RESOLVE_BENEATH, "/a"},
      {"..", EXDEV, nullptr, true, RESOLVE_BENEATH, "/a"},
      {"b/../../file", EXDEV, nullptr, true, RESOLVE_BENEATH, "/a"},
      {"/a", EXDEV, nullptr, true, RESOLVE_BENEATH},
      {"b/escape", EXDEV, nullptr, true, RESOLVE_BENEATH, "/a"},
      {"to_root", EXDEV, nullptr, true, RESOLVE_BENEATH},
      {"/b/c", 0, "/a/b/c", true, RESOLVE_IN_ROOT, "/a"},
      {"../../b", 0, "/a/b", true, RESOLVE_IN_ROOT, "/a"},
      {"out", ENOENT, nullptr, true, RESOLVE_IN_ROOT, "/mnt"},
      {"/a/b/c", 0, "/a/b/c", true, RESOLVE_CACHED},
      {"/never_looked_up", EAGAIN, nullptr, true, RESOLVE_CACHED},
  };
  InFiber([&] {
    World w;
    Populate(w);
    for (const Case& c : kCases) {
      Path from = *w.Lookup(c.from);
      Result<Path> found =
          Lookup(w.walker(), {.start = from, .name = c.name, .follow = c.follow, .resolve = c.resolve});
      EXPECT_EQ(Error(found), c.error) << c.name << " from " << c.from << " resolve " << c.resolve;
      if (found && c.is != nullptr) {
        EXPECT_EQ(PathName(w.root_path, *found).name, c.is) << c.name;
      }
    }
  });
}

TEST(PathWalk, EmptyNameIsTheStartOnlyWhenAllowed) {
  InFiber([] {
    World w;
    Populate(w);
    Path file = *w.Lookup("/file");
    EXPECT_EQ(Error(Lookup(w.walker(), {.start = file, .name = ""})), ENOENT);
    EXPECT_EQ(*Lookup(w.walker(), {.start = file, .name = "", .empty_ok = true}), file);
  });
}

TEST(PathWalk, EveryDirectoryOnTheWayNeedsSearchPermission) {
  InFiber([] {
    World w;
    Populate(w);
    ASSERT_EQ(w.Mkdir("/closed/inner", 0777), 0);
    ASSERT_TRUE(Chmod(w.walker(), *w.Lookup("/closed"), 0600));
    Path inner = *w.Lookup("/closed/inner");
    w.BecomeUser(1000, 1000);
    EXPECT_EQ(Error(w.Lookup("/closed")), 0);
    EXPECT_EQ(Error(w.Lookup("/closed/")), 0);
    EXPECT_EQ(Error(w.Lookup("/closed/.")), EACCES);
    EXPECT_EQ(Error(w.Lookup("/closed/inner")), EACCES);
    EXPECT_EQ(Error(w.Lookup("/closed/none")), EACCES);
    w.cwd = inner;
    EXPECT_EQ(Error(w.Lookup(".")), 0);
    EXPECT_EQ(Error(w.Lookup("..")), 0);
    EXPECT_EQ(Error(w.Lookup("../inner")), EACCES);
  });
}

TEST(PathWalk, ARootBelowTheTopHoldsDotDot) {
  InFiber([] {
    World w;
    Populate(w);
    Path jail = *w.Lookup("/a");
    Walker jailed{*w.creds, jail};
    EXPECT_EQ(PathName(w.root_path, *Lookup(jailed, {.start = jail, .name = "../../b"})).name, "/a/b");
    EXPECT_EQ(PathName(w.root_path, *Lookup(jailed, {.start = jail, .name = "/b/c"})).name, "/a/b/c");
    EXPECT_EQ(Error(Lookup(jailed, {.start = jail, .name = "/file"})), ENOENT);
    EXPECT_EQ(Error(Lookup(jailed, {.start = jail, .name = "/up/b"})), 0);
    EXPECT_EQ(PathName(jail, w.root_path).name, "(unreachable)/");
    EXPECT_FALSE(PathName(jail, *w.Lookup("/file")).reachable);
  });
}

TEST(PathWalk, DirectoriesDeeperThanPathMaxComeDownWithoutRecursion) {
  InFiber([] {
    World w;
    constexpr int kDepth = 20000;
    for (int i = 0; i < kDepth; i++) {
      ASSERT_EQ(w.Mkdir("d"), 0);
      ASSERT_EQ(w.Chdir("d"), 0);
    }
    EXPECT_EQ(w.Cwd().size(), 2u * kDepth);
    w.cwd = Path();
    DentryCache::Get().Clear();
  });
}

}  // namespace
}  // namespace redoubt::vfs
