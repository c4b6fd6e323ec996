// The operations that take a path, on tmpfs: results and errnos.
#include "pkg/sentry/vfs/vfs.h"

#include <gtest/gtest.h>
#include <linux/fs.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "pkg/sentry/fsimpl/testing/world.h"
#include "pkg/sentry/vfs/anon_inode.h"
#include "pkg/sentry/vfs/device.h"

namespace redoubt::vfs {
namespace {

using fstest::Error;
using fstest::InFiber;
using fstest::World;

class VfsTest : public testing::Test {
 protected:
  static void Run(const std::function<void(World&)>& body) {
    InFiber([&] {
      World w;
      ASSERT_EQ(w.Mkdir("/d"), 0);
      ASSERT_EQ(w.WriteFile("/f", "hello"), 0);
      ASSERT_EQ(w.Symlink("f", "/l"), 0);
      body(w);
    });
  }
};

TEST_F(VfsTest, OpenErrors) {
  Run([](World& w) {
    EXPECT_EQ(Error(w.Open("/none", O_RDONLY)), ENOENT);
    EXPECT_EQ(Error(w.Open("/f", O_CREAT | O_EXCL | O_RDWR)), EEXIST);
    EXPECT_EQ(Error(w.Open("/l", O_CREAT | O_EXCL | O_RDWR)), EEXIST);
    EXPECT_EQ(Error(w.Open("/d", O_CREAT | O_RDONLY)), EISDIR);
    EXPECT_EQ(Error(w.Open("/d", O_WRONLY)), EISDIR);
    EXPECT_EQ(Error(w.Open("/d", O_RDWR)), EISDIR);
    EXPECT_EQ(Error(w.Open("/d/", O_CREAT | O_RDWR)), EISDIR);
    EXPECT_EQ(Error(w.Open("/new/", O_CREAT | O_RDWR)), EISDIR);
    EXPECT_EQ(Error(w.Open("/f/", O_RDONLY)), ENOTDIR);
    EXPECT_EQ(Error(w.Open("/f", O_RDONLY | O_DIRECTORY)), ENOTDIR);
    EXPECT_EQ(Error(w.Open("/l", O_RDONLY | O_NOFOLLOW)), ELOOP);
    EXPECT_EQ(Error(w.Open("/l", O_CREAT | O_RDONLY | O_NOFOLLOW)), ELOOP);
    EXPECT_EQ(Error(w.Open("/l", O_RDONLY | O_NOFOLLOW | O_DIRECTORY)), ENOTDIR);
    EXPECT_EQ(Error(w.Open("/l", O_PATH | O_NOFOLLOW)), 0);
    EXPECT_EQ(Error(w.Open("/x", O_CREAT | O_DIRECTORY | O_RDWR)), EINVAL);
    EXPECT_EQ(Error(w.Open("/..", O_CREAT | O_RDWR)), EISDIR);
    EXPECT_EQ(w.Mknod("/sock", S_IFSOCK | 0666), 0);
    EXPECT_EQ(Error(w.Open("/sock", O_RDONLY)), ENXIO);
    EXPECT_EQ(w.Mknod("/dev", S_IFCHR | 0666, makedev(250, 7)), 0);
    EXPECT_EQ(Error(w.Open("/dev", O_RDONLY)), ENXIO);
  });
}

TEST_F(VfsTest, CreateFollowsADanglingLink) {
  Run([](World& w) {
    ASSERT_EQ(w.Symlink("d/made", "/dangling"), 0);
    EXPECT_EQ(w.WriteFile("/dangling", "x"), 0);
    EXPECT_EQ(w.ReadFile("/d/made"), "x");
    ASSERT_EQ(w.Symlink("none/made", "/dangling2"), 0);
    EXPECT_EQ(w.WriteFile("/dangling2", "x"), ENOENT);
  });
}

TEST_F(VfsTest, OpenPermissionsAndModes) {
  Run([](World& w) {
    ASSERT_TRUE(Chmod(w.walker(), *w.Lookup("/"), 0777));
    w.umask = 027;
    ASSERT_EQ(w.Touch("/mine", 0666), 0);
    EXPECT_EQ(w.Stat("/mine")->mode, S_IFREG | 0640u);
    w.BecomeUser(1000, 1000);
    EXPECT_EQ(Error(w.Open("/mine", O_RDONLY)), EACCES);
    EXPECT_EQ(Error(w.Open("/f", O_RDONLY)), 0);
    EXPECT_EQ(Error(w.Open("/f", O_WRONLY)), EACCES);
    EXPECT_EQ(Error(w.Open("/f", O_RDONLY | O_TRUNC)), EACCES);
    EXPECT_EQ(Error(w.Open("/f", O_RDONLY | O_NOATIME)), EPERM);
    EXPECT_EQ(Error(w.Open("/d/x", O_CREAT | O_WRONLY)), EACCES);
    // A mode without write permission does not hinder who creates the file.
    auto created = w.Open("/ro", O_CREAT | O_RDWR, 0400);
    ASSERT_TRUE(created);
    EXPECT_EQ(World::Write(**created, "abc"), 3);
    EXPECT_EQ(Error(w.Open("/ro", O_WRONLY)), EACCES);
    EXPECT_EQ(w.Stat("/ro")->uid, 1000u);
  });
}

TEST_F(VfsTest, SetGroupIdDirectoryGivesItsGroup) {
  Run([](World& w) {
    ASSERT_TRUE(Chown(w.walker(), *w.Lookup("/d"), -1, 77));
    ASSERT_TRUE(Chmod(w.walker(), *w.Lookup("/d"), 02777));
    w.BecomeUser(1000, 1000);
    ASSERT_EQ(w.Touch("/d/f", 02775), 0);
    ASSERT_EQ(w.Mkdir("/d/sub", 0755), 0);
    EXPECT_EQ(w.Stat("/d/f")->gid, 77u);
    EXPECT_EQ(w.Stat("/d/f")->mode & 02000, 0u);
    EXPECT_EQ(w.Stat("/d/sub")->gid, 77u);
    EXPECT_EQ(w.Stat("/d/sub")->mode & 02000, 02000u);
  });
}

TEST_F(VfsTest, MakingErrors) {
  Run([](World& w) {
    EXPECT_EQ(w.Mkdir("/d"), EEXIST);
    EXPECT_EQ(w.Mkdir("/f"), EEXIST);
    EXPECT_EQ(w.Mkdir("/l"), EEXIST);
    EXPECT_EQ(w.Mkdir("/"), EEXIST);
    EXPECT_EQ(w.Mkdir("/d/."), EEXIST);
    EXPECT_EQ(w.Mkdir("/none/x"), ENOENT);
    EXPECT_EQ(w.Mkdir("/f/x"), ENOTDIR);
    EXPECT_EQ(w.Mkdir("/new/"), 0);
    EXPECT_EQ(w.Mknod("/node/", S_IFREG | 0600), ENOENT);
    EXPECT_EQ(w.Mknod("/node", S_IFDIR | 0600), EPERM);
    EXPECT_EQ(w.Mknod("/node", 0600), 0);
    EXPECT_EQ(w.Symlink("", "/s"), ENOENT);
    EXPECT_EQ(w.Symlink("x", "/s/"), ENOENT);
    EXPECT_EQ(w.Symlink("x", "/f"), EEXIST);
    EXPECT_EQ(w.Link("/f", "/d/f2"), 0);
    EXPECT_EQ(w.Stat("/f")->nlink, 2u);
    EXPECT_EQ(w.Link("/f", "/d/f2"), EEXIST);
    EXPECT_EQ(w.Link("/d", "/d2"), EPERM);
    EXPECT_EQ(w.Link("/none", "/n2"), ENOENT);
    w.BecomeUser(1, 1);
    EXPECT_EQ(w.Mkdir("/d/x"), EACCES);
    EXPECT_EQ(w.Mknod("/d/c", S_IFCHR | 0600, makedev(1, 3)), EACCES);
    EXPECT_EQ(w.Mknod("/c", S_IFCHR | 0600, makedev(1, 3)), EPERM);
    EXPECT_EQ(w.Mknod("/fifo", S_IFIFO | 0600), 0);
  });
}

TEST_F(VfsTest, RemovingErrors) {
  Run([](World& w) {
    EXPECT_EQ(w.Unlink("/d"), EISDIR);
    EXPECT_EQ(w.Unlink("/d/"), EISDIR);
    EXPECT_EQ(w.Unlink("/f/"), ENOTDIR);
    EXPECT_EQ(w.Unlink("/none"), ENOENT);
    EXPECT_EQ(w.Unlink("/."), EISDIR);
    EXPECT_EQ(w.Rmdir("/f"), ENOTDIR);
    EXPECT_EQ(w.Rmdir("/"), EBUSY);
    EXPECT_EQ(w.Rmdir("/d/."), EINVAL);
    EXPECT_EQ(w.Rmdir("/d/.."), ENOTEMPTY);
    ASSERT_EQ(w.Touch("/d/x"), 0);
    EXPECT_EQ(w.Rmdir("/d"), ENOTEMPTY);
    ASSERT_EQ(w.Unlink("/d/x"), 0);
    EXPECT_EQ(Error(w.Stat("/d/x")), ENOENT);
    EXPECT_EQ(w.Rmdir("/d/"), 0);
    EXPECT_EQ(Error(w.Stat("/d")), ENOENT);
    EXPECT_EQ(w.Unlink("/l"), 0);
    EXPECT_EQ(Error(w.Stat("/f")), 0);
  });
}

TEST_F(VfsTest, StickyDirectory) {
  Run([](World& w) {
    ASSERT_TRUE(Chmod(w.walker(), *w.Lookup("/d"), 01777));
    w.BecomeUser(1, 1);
    ASSERT_EQ(w.Touch("/d/ones", 0666), 0);
    w.BecomeUser(2, 2);
    ASSERT_EQ(w.Touch("/d/twos", 0666), 0);
    EXPECT_EQ(w.Unlink("/d/ones"), EPERM);
    EXPECT_EQ(w.Rename("/d/ones", "/d/x"), EPERM);
    EXPECT_EQ(w.Rename("/d/twos", "/d/ones"), EPERM);
    EXPECT_EQ(w.Rename("/d/twos", "/d/x"), 0);
    EXPECT_EQ(w.Unlink("/d/x"), 0);
  });
}

TEST_F(VfsTest, Rename) {
  Run([](World& w) {
    ASSERT_EQ(w.Mkdir("/d/sub"), 0);
    EXPECT_EQ(w.Rename("/none", "/x"), ENOENT);
    EXPECT_EQ(w.Rename("/d", "/d/sub/x"), EINVAL);
    EXPECT_EQ(w.Rename("/d", "/d"), 0);
    EXPECT_EQ(w.Rename("/d/sub", "/d"), ENOTEMPTY);
    EXPECT_EQ(w.Rename("/d/.", "/x"), EBUSY);
    EXPECT_EQ(w.Rename("/d", "/f"), ENOTDIR);
    EXPECT_EQ(w.Rename("/f", "/d"), EISDIR);
    EXPECT_EQ(w.Rename("/f/", "/x"), ENOTDIR);
    EXPECT_EQ(w.Rename("/f", "/x/"), ENOTDIR);
    EXPECT_EQ(w.Rename("/f", "/d", RENAME_NOREPLACE), EEXIST);
    EXPECT_EQ(w.Rename("/f", "/g", RENAME_NOREPLACE), 0);
    EXPECT_EQ(w.ReadFile("/g"), "hello");
    EXPECT_EQ(Error(w.Stat("/f")), ENOENT);
    EXPECT_EQ(w.Rename("/d", "/none", RENAME_EXCHANGE), ENOENT);
    EXPECT_EQ(w.Rename("/d", "/g", RENAME_EXCHANGE | RENAME_NOREPLACE), EINVAL);
    EXPECT_EQ(w.Rename("/d", "/g", 1u << 7), EINVAL);
    // A directory and a file change places.
    EXPECT_EQ(w.Rename("/d", "/g", RENAME_EXCHANGE), 0);
    EXPECT_EQ(w.ReadFile("/d"), "hello");
    EXPECT_TRUE(S_ISDIR(w.Stat("/g/sub")->mode));
    EXPECT_EQ(w.Rename("/g/sub", "/g", RENAME_EXCHANGE), EINVAL);
    // Over an empty directory, and link counts.
    ASSERT_EQ(w.Mkdir("/empty"), 0);
    EXPECT_EQ(w.Stat("/")->nlink, 4u);
    EXPECT_EQ(w.Rename("/g", "/empty"), 0);
    EXPECT_EQ(w.Stat("/")->nlink, 3u);
    EXPECT_EQ(w.Rename("/empty/sub", "/sub"), 0);
    EXPECT_EQ(w.Stat("/")->nlink, 4u);
    EXPECT_EQ(w.Stat("/empty")->nlink, 2u);
    // Two names of one file.
    ASSERT_EQ(w.Link("/d", "/d2"), 0);
    EXPECT_EQ(w.Rename("/d", "/d2"), 0);
    EXPECT_EQ(w.Stat("/d")->nlink, 2u);
  });
}

TEST_F(VfsTest, RenamedDirectoryKeepsItsPlaces) {
  Run([](World& w) {
    ASSERT_EQ(w.Mkdir("/d/in"), 0);
    ASSERT_EQ(w.Mkdir("/e"), 0);
    ASSERT_EQ(w.Chdir("/d/in"), 0);
    ASSERT_EQ(w.Rename("/d", "/e/moved"), 0);
    EXPECT_EQ(w.Cwd(), "/e/moved/in");
    EXPECT_EQ(PathName(w.root_path, *w.Lookup("../..")).name, "/e");
  });
}

TEST_F(VfsTest, DeletedWorkingDirectory) {
  Run([](World& w) {
    ASSERT_EQ(w.Chdir("/d"), 0);
    ASSERT_EQ(w.Rmdir("/d"), 0);
    EXPECT_EQ(w.Cwd(), "/d (deleted)");
    EXPECT_TRUE(PathName(w.root_path, w.cwd).deleted);
    EXPECT_EQ(w.Touch("x"), ENOENT);
    EXPECT_EQ(w.Mkdir("x"), ENOENT);
    EXPECT_EQ(Error(w.Lookup("x")), ENOENT);
    EXPECT_EQ(Error(w.Lookup(".")), 0);
    EXPECT_EQ(PathName(w.root_path, *w.Lookup("..")).name, "/");
    fstest::Names names;
    EXPECT_EQ(Error((*w.Open(".", O_RDONLY))->Getdents(names)), ENOENT);
    // A new directory of the same name is another.
    ASSERT_EQ(w.Mkdir("/d"), 0);
    EXPECT_EQ(Error(w.Lookup("x")), ENOENT);
  });
}

TEST_F(VfsTest, UnlinkedFileLivesOn) {
  Run([](World& w) {
    auto f = *w.Open("/f", O_RDWR);
    ASSERT_EQ(w.Unlink("/f"), 0);
    EXPECT_EQ(World::Read(*f), "hello");
    EXPECT_EQ(f->GetAttributes()->nlink, 0u);
    EXPECT_EQ(PathName(w.root_path, f->path()).name, "/f (deleted)");
    EXPECT_EQ(Error(Link(w.walker(), {.start = f->path(), .name = "", .empty_ok = true}, w.at("/again"))), ENOENT);
    uint64_t used = w.memory->usage();
    f.reset();
    EXPECT_LT(w.memory->usage(), used);
  });
}

TEST_F(VfsTest, TmpfileGetsItsNameByLinking) {
  Run([](World& w) {
    EXPECT_EQ(Error(w.Open("/d", O_TMPFILE | O_RDONLY)), EINVAL);
    EXPECT_EQ(Error(w.Open("/f", O_TMPFILE | O_RDWR)), ENOTDIR);
    auto f = w.Open("/d", O_TMPFILE | O_RDWR, 0600);
    ASSERT_TRUE(f);
    EXPECT_EQ(World::Write(**f, "data"), 4);
    EXPECT_TRUE(PathName(w.root_path, (*f)->path()).name.starts_with("/d/#"));
    EXPECT_EQ(w.List("/d"), (std::vector<std::string>{".", ".."}));
    ASSERT_TRUE(Link(w.walker(), {.start = (*f)->path(), .name = "", .empty_ok = true}, w.at("/d/named")));
    EXPECT_EQ(w.ReadFile("/d/named"), "data");
    EXPECT_EQ(w.Stat("/d/named")->nlink, 1u);
  });
}

TEST_F(VfsTest, ReadOnlyMount) {
  Run([](World& w) {
    ASSERT_TRUE(w.ns->RemountAt(w.walker(), w.at("/"), MS_RDONLY));
    EXPECT_EQ(w.Mkdir("/x"), EROFS);
    EXPECT_EQ(w.Mkdir("/d"), EEXIST);
    EXPECT_EQ(w.Touch("/x"), EROFS);
    EXPECT_EQ(Error(w.Open("/f", O_WRONLY)), EROFS);
    EXPECT_EQ(Error(w.Open("/f", O_RDONLY)), 0);
    EXPECT_EQ(w.Unlink("/f"), EROFS);
    EXPECT_EQ(w.Rename("/f", "/g"), EROFS);
    EXPECT_EQ(Error(Chmod(w.walker(), *w.Lookup("/f"), 0)), EROFS);
    EXPECT_EQ(Error(Truncate(w.walker(), *w.Lookup("/f"), 0)), EROFS);
    EXPECT_EQ(Error(Access(w.walker(), w.at("/f"), W_OK)), EROFS);
    EXPECT_EQ(Error(Access(w.walker(), w.at("/f"), R_OK)), 0);
  });
}

TEST_F(VfsTest, AttributeRules) {
  Run([](World& w) {
    ASSERT_TRUE(Chown(w.walker(), *w.Lookup("/f"), 1000, 1000));
    ASSERT_TRUE(Chmod(w.walker(), *w.Lookup("/f"), 06755));
    // A change of owner takes set-ID bits away, even root's.
    ASSERT_TRUE(Chown(w.walker(), *w.Lookup("/f"), 1000, -1));
    EXPECT_EQ(w.Stat("/f")->mode & 07777, 0755u);
    ASSERT_TRUE(Chmod(w.walker(), *w.Lookup("/f"), 0666));
    w.BecomeUser(2, 2);
    EXPECT_EQ(Error(Chmod(w.walker(), *w.Lookup("/f"), 0)), EPERM);
    EXPECT_EQ(Error(Chown(w.walker(), *w.Lookup("/f"), 2, -1)), EPERM);
    using Kind = TimeChange::Kind;
    EXPECT_TRUE(Utimes(w.walker(), *w.Lookup("/f"), {Kind::kNow}, {Kind::kNow}));
    EXPECT_EQ(Error(Utimes(w.walker(), *w.Lookup("/f"), {Kind::kSet, 5}, {Kind::kNow})), EPERM);
    w.BecomeUser(1000, 1000, {50});
    EXPECT_EQ(Error(Chown(w.walker(), *w.Lookup("/f"), -1, 60)), EPERM);
    EXPECT_EQ(Error(Chown(w.walker(), *w.Lookup("/f"), -1, 50)), 0);
    EXPECT_TRUE(Utimes(w.walker(), *w.Lookup("/f"), {Kind::kSet, 5}, {Kind::kOmit}));
    EXPECT_EQ(w.Stat("/f")->atime, 5);
    EXPECT_EQ(Error(Truncate(w.walker(), *w.Lookup("/d"), 0)), EISDIR);
    EXPECT_EQ(Error(Truncate(w.walker(), *w.Lookup("/f"), 2)), 0);
    EXPECT_EQ(w.ReadFile("/f"), "he");
  });
}

TEST_F(VfsTest, Xattrs) {
  Run([](World& w) {
    Path f = *w.Lookup("/f");
    EXPECT_EQ(Error(GetXattr(w.walker(), f, "user.a")), ENODATA);
    EXPECT_EQ(Error(SetXattr(w.walker(), f, "user.a", "1", XATTR_REPLACE)), ENODATA);
    EXPECT_EQ(Error(SetXattr(w.walker(), f, "user.a", "1", XATTR_CREATE)), 0);
    EXPECT_EQ(Error(SetXattr(w.walker(), f, "user.a", "1", XATTR_CREATE)), EEXIST);
    EXPECT_EQ(Error(SetXattr(w.walker(), f, "user.", "1", 0)), EINVAL);
    EXPECT_EQ(Error(SetXattr(w.walker(), f, "nonsense", "1", 0)), EOPNOTSUPP);
    EXPECT_EQ(Error(SetXattr(w.walker(), f, "user.big", std::string(70000, 'x'), 0)), E2BIG);
    EXPECT_EQ(Error(SetXattr(w.walker(), f, "trusted.t", "2", 0)), 0);
    EXPECT_EQ(*GetXattr(w.walker(), f, "user.a"), "1");
    EXPECT_EQ(ListXattr(w.walker(), f)->size(), 2u);
    Path l = *Lookup(w.walker(), w.at("/l", false));
    EXPECT_EQ(Error(SetXattr(w.walker(), l, "user.a", "1", 0)), EPERM);
    w.BecomeUser(1, 1);
    EXPECT_EQ(Error(GetXattr(w.walker(), f, "trusted.t")), ENODATA);
    EXPECT_EQ(Error(SetXattr(w.walker(), f, "trusted.t", "3", 0)), EPERM);
    EXPECT_EQ(Error(SetXattr(w.walker(), f, "user.a", "3", 0)), EACCES);
    EXPECT_EQ(*GetXattr(w.walker(), f, "user.a"), "1");
    EXPECT_EQ(ListXattr(w.walker(), f)->size(), 1u);
    w.BecomeRoot();
    EXPECT_EQ(Error(RemoveXattr(w.walker(), f, "user.a")), 0);
    EXPECT_EQ(Error(RemoveXattr(w.walker(), f, "user.a")), ENODATA);
  });
}

TEST_F(VfsTest, MountsStackMoveAndGo) {
  Run([](World& w) {
    auto mount = [&](std::string_view at, uint64_t flags = 0) {
      return Error(w.ns->MountAt(w.walker(), w.at(at), tmpfs::Create(*w.memory, {}), flags, "t"));
    };
    EXPECT_EQ(mount("/f"), ENOTDIR);
    EXPECT_EQ(mount("/none"), ENOENT);
    ASSERT_EQ(mount("/d"), 0);
    ASSERT_EQ(w.WriteFile("/d/one", "1"), 0);
    ASSERT_EQ(mount("/d"), 0);
    EXPECT_EQ(Error(w.Stat("/d/one")), ENOENT);
    EXPECT_EQ(w.Rmdir("/d"), EBUSY);
    EXPECT_EQ(w.Rename("/d", "/e"), EBUSY);
    EXPECT_EQ(Error(w.ns->UmountAt(w.walker(), w.at("/d"), 0)), 0);
    EXPECT_EQ(w.ReadFile("/d/one"), "1");
    ASSERT_EQ(w.Mkdir("/d/sub"), 0);
    ASSERT_EQ(mount("/d/sub"), 0);
    EXPECT_EQ(w.Rename("/f", "/d/f"), EXDEV);
    EXPECT_EQ(w.Link("/f", "/d/f"), EXDEV);
    EXPECT_EQ(Error(w.ns->UmountAt(w.walker(), w.at("/d"), 0)), EBUSY);
    EXPECT_EQ(Error(w.ns->UmountAt(w.walker(), w.at("/f"), 0)), EINVAL);
    EXPECT_EQ(w.ns->Mounts(w.root_path).size(), 3u);
    EXPECT_EQ(w.ns->Mounts(w.root_path)[2].mount_point, "/d/sub");
    ASSERT_EQ(w.Mkdir("/to"), 0);
    EXPECT_EQ(Error(w.ns->MoveAt(w.walker(), w.at("/d"), w.at("/d/sub"))), ELOOP);
    EXPECT_EQ(Error(w.ns->MoveAt(w.walker(), w.at("/d"), w.at("/to"))), 0);
    EXPECT_EQ(w.ns->Mounts(w.root_path)[2].mount_point, "/to/sub");
    EXPECT_EQ(w.ReadFile("/to/one"), "1");
    // In use: an open file keeps it busy; a lazy unmount leaves the file usable.
    auto f = *w.Open("/to/one", O_RDONLY);
    ASSERT_EQ(Error(w.ns->UmountAt(w.walker(), w.at("/to/sub"), 0)), 0);
    EXPECT_EQ(Error(w.ns->UmountAt(w.walker(), w.at("/to"), 0)), EBUSY);
    EXPECT_EQ(Error(w.ns->UmountAt(w.walker(), w.at("/to"), MNT_DETACH)), 0);
    EXPECT_EQ(World::Read(*f), "1");
    EXPECT_EQ(w.ns->Mounts(w.root_path).size(), 1u);
    w.BecomeUser(1, 1);
    EXPECT_EQ(mount("/d"), EPERM);
  });
}

TEST_F(VfsTest, BindMounts) {
  Run([](World& w) {
    ASSERT_EQ(w.Mkdir("/d/sub"), 0);
    ASSERT_EQ(w.Mkdir("/to"), 0);
    ASSERT_EQ(w.WriteFile("/d/sub/x", "x"), 0);
    ASSERT_TRUE(w.ns->MountAt(w.walker(), w.at("/d/sub"), tmpfs::Create(*w.memory, {}), 0, "t"));
    ASSERT_EQ(w.WriteFile("/d/sub/y", "y"), 0);
    ASSERT_TRUE(w.ns->BindAt(w.walker(), w.at("/d"), w.at("/to"), false));
    EXPECT_EQ(w.ReadFile("/to/sub/x"), "x");
    ASSERT_TRUE(w.ns->BindAt(w.walker(), w.at("/d"), w.at("/to"), true));
    EXPECT_EQ(w.ReadFile("/to/sub/y"), "y");
    EXPECT_EQ(w.ns->Mounts(w.root_path)[2].root, "/d");
    // A file over a file; read-only without touching the source.
    ASSERT_EQ(w.Touch("/target"), 0);
    EXPECT_EQ(Error(w.ns->BindAt(w.walker(), w.at("/f"), w.at("/to"), false)), ENOTDIR);
    ASSERT_TRUE(w.ns->BindAt(w.walker(), w.at("/f"), w.at("/target"), false));
    ASSERT_TRUE(w.ns->RemountAt(w.walker(), w.at("/target"), MS_RDONLY));
    EXPECT_EQ(w.ReadFile("/target"), "hello");
    EXPECT_EQ(w.WriteFile("/target", "no"), EROFS);
    EXPECT_EQ(w.WriteFile("/f", "yes"), 0);
    EXPECT_EQ(w.ReadFile("/target"), "yes");
    EXPECT_EQ(w.Unlink("/target"), EBUSY);
  });
}

TEST_F(VfsTest, ADirectoryRenamedOutOfABindMountIsNoWayOut) {
  Run([](World& w) {
    ASSERT_EQ(w.Mkdir("/d/sub"), 0);
    ASSERT_EQ(w.Mkdir("/d/sub/deep"), 0);
    ASSERT_EQ(w.Mkdir("/jail"), 0);
    ASSERT_TRUE(w.ns->BindAt(w.walker(), w.at("/d/sub"), w.at("/jail"), false));
    ASSERT_EQ(w.Chdir("/jail/deep"), 0);
    Path jail = *w.Lookup("/jail");
    ASSERT_EQ(w.Rename("/d/sub/deep", "/deep"), 0);
    Walker jailed{*w.creds, jail};
    EXPECT_EQ(Error(Lookup(jailed, {.start = w.cwd, .name = ".."})), ENOENT);
    EXPECT_EQ(Error(Lookup(jailed, {.start = w.cwd, .name = "../../f"})), ENOENT);
  });
}

TEST_F(VfsTest, PivotRoot) {
  Run([](World& w) {
    ASSERT_TRUE(w.ns->MountAt(w.walker(), w.at("/d"), tmpfs::Create(*w.memory, {}), 0, "new"));
    ASSERT_EQ(w.Mkdir("/d/old"), 0);
    ASSERT_EQ(w.WriteFile("/d/new_file", "n"), 0);
    ASSERT_EQ(w.Mkdir("/plain"), 0);
    EXPECT_EQ(Error(w.ns->PivotRoot(w.walker(), w.at("/plain"), w.at("/plain"))), EINVAL);
    EXPECT_EQ(Error(w.ns->PivotRoot(w.walker(), w.at("/"), w.at("/d/old"))), EBUSY);
    EXPECT_EQ(Error(w.ns->PivotRoot(w.walker(), w.at("/d"), w.at("/plain"))), EBUSY);
    ASSERT_EQ(Error(w.ns->PivotRoot(w.walker(), w.at("/d"), w.at("/d/old"))), 0);
    w.root_path = w.ns->root();
    EXPECT_EQ(w.ReadFile("/new_file"), "n");
    EXPECT_EQ(w.ReadFile("/old/f"), "hello");
    EXPECT_EQ(w.ns->Mounts(w.root_path)[1].mount_point, "/old");
    EXPECT_EQ(Error(w.ns->UmountAt(w.walker(), w.at("/old"), MNT_DETACH)), 0);
    EXPECT_EQ(w.ns->Mounts(w.root_path).size(), 1u);
  });
}

// What container engines do: the old root lies on the new one until it is unmounted by a name that leads below it.
TEST_F(VfsTest, PivotRootOntoTheNewRootItself) {
  Run([](World& w) {
    ASSERT_TRUE(w.ns->MountAt(w.walker(), w.at("/d"), tmpfs::Create(*w.memory, {}), 0, "t"));
    const Path next = *w.Lookup("/d");
    const At here{.start = next, .name = "."};
    ASSERT_EQ(Error(w.ns->PivotRoot(w.walker(), here, here)), 0);
    EXPECT_NE(w.ns->root(), next);
    w.root_path = next;
    EXPECT_EQ(Error(w.ns->UmountAt(w.walker(), here, MNT_DETACH)), 0);
    EXPECT_EQ(w.ns->root(), next);
    EXPECT_EQ(w.ns->Mounts(w.root_path).size(), 1u);
  });
}

TEST_F(VfsTest, WritersKeepAMountWritable) {
  Run([](World& w) {
    auto writer = *w.Open("/f", O_RDWR);
    EXPECT_EQ(Error(w.ns->RemountAt(w.walker(), w.at("/"), MS_RDONLY)), EBUSY);
    writer.reset();
    auto reader = *w.Open("/f", O_RDONLY);
    EXPECT_EQ(Error(w.ns->RemountAt(w.walker(), w.at("/"), MS_RDONLY)), 0);
    EXPECT_EQ(Error(w.Open("/f", O_RDWR)), EROFS);
  });
}

TEST_F(VfsTest, ACopiedNamespaceIsApart) {
  Run([](World& w) {
    ASSERT_TRUE(w.ns->MountAt(w.walker(), w.at("/d"), tmpfs::Create(*w.memory, {}), 0, "t"));
    ASSERT_EQ(w.WriteFile("/d/x", "x"), 0);
    Path root = w.root_path, cwd = *w.Lookup("/d");
    RefPtr<MountNamespace> copy = *w.ns->Copy({&root, &cwd});
    copy->AddUser();
    EXPECT_EQ(root, copy->root());
    EXPECT_NE(root.mount, w.root_path.mount);
    EXPECT_EQ(PathName(root, cwd).name, "/d");
    ASSERT_TRUE(w.ns->UmountAt(w.walker(), w.at("/d"), 0));
    Walker other{*w.creds, root};
    EXPECT_EQ(Error(Stat(other, {.start = root, .name = "/d/x"})), 0);
    EXPECT_EQ(Error(w.Stat("/d/x")), ENOENT);
    root = cwd = Path();
    copy->DropUser();
  });
}

TEST_F(VfsTest, NoDevNoExecNoSymFollow) {
  Run([](World& w) {
    ASSERT_TRUE(Chmod(w.walker(), *w.Lookup("/f"), 0755));
    EXPECT_TRUE(CheckExecutable(w.walker(), *w.Lookup("/f")));
    EXPECT_EQ(Error(CheckExecutable(w.walker(), *w.Lookup("/d"))), EACCES);
    ASSERT_EQ(w.Mknod("/dev", S_IFCHR | 0666, makedev(1, 3)), 0);
    ASSERT_TRUE(w.ns->RemountAt(w.walker(), w.at("/"), MS_NODEV | MS_NOEXEC | 256));
    EXPECT_EQ(Error(w.Open("/dev", O_RDONLY)), EACCES);
    EXPECT_EQ(Error(CheckExecutable(w.walker(), *w.Lookup("/f"))), EACCES);
    EXPECT_EQ(Error(Access(w.walker(), w.at("/f"), X_OK)), EACCES);
    EXPECT_EQ(Error(w.Lookup("/l")), ELOOP);
  });
}

TEST_F(VfsTest, AnonymousPlaces) {
  Run([](World& w) {
    Path p = MakeAnonymousPath("anon_inode:[eventfd]");
    EXPECT_EQ(PathName(w.root_path, p).name, "anon_inode:[eventfd]");
    Path s = MakeNumberedPath("socket", S_IFSOCK | 0777, 5, 6);
    Attributes a = *s.inode().GetAttributes();
    EXPECT_EQ(PathName(w.root_path, s).name, "socket:[" + std::to_string(a.ino) + "]");
    EXPECT_EQ(a.mode, S_IFSOCK | 0777u);
    EXPECT_EQ(a.uid, 5u);
    EXPECT_EQ(Error(OpenPath(w.walker(), s, {.flags = O_RDONLY})), ENXIO);
  });
}

TEST_F(VfsTest, PathDescriptionsAreOnlyPlaces) {
  Run([](World& w) {
    auto p = *w.Open("/f", O_PATH | O_RDWR | O_TRUNC);
    EXPECT_EQ(w.ReadFile("/f"), "hello");
    EXPECT_FALSE(p->readable());
    EXPECT_FALSE(p->writable());
    EXPECT_EQ(World::Read(*p), "error 9");
    EXPECT_EQ(p->flags(), O_PATH);
    EXPECT_EQ(p->GetAttributes()->size, 5u);
  });
}

}  // namespace
}  // namespace redoubt::vfs
