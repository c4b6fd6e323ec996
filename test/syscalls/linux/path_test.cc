// Names: mkdir, rmdir, unlink, rename, link, symlink, readlink, getdents64, getcwd, chdir; and what stat, chmod, chown,
// utimensat, access, statx tell and change.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <set>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"
#include "test/syscalls/util/temp_dir.h"

namespace redoubt::testing {
namespace {

class Path : public ::testing::Test {
 protected:
  const char* At(const char* name) {
    static std::string kept[8];
    static int next = 0;
    std::string& s = kept[next++ % 8];
    s = dir_ / name;
    return s.c_str();
  }
  struct stat Stat(const char* name) {
    struct stat st{};
    EXPECT_OK(lstat(At(name), &st));
    return st;
  }
  TempDir dir_;
};

TEST_F(Path, MkdirMakesAnEmptyDirectory) {
  umask(022);
  ASSERT_OK(mkdir(At("d"), 0777));
  struct stat st = Stat("d");
  EXPECT_EQ(st.st_mode, S_IFDIR | 0755u);
  EXPECT_EQ(st.st_nlink, 2u);
  EXPECT_EQ(Stat(".").st_nlink, 3u);
}

TEST_F(Path, MkdirErrors) {
  dir_.File("f");
  EXPECT_ERRNO(mkdir(At("f"), 0700), EEXIST);
  EXPECT_ERRNO(mkdir(At("."), 0700), EEXIST);
  EXPECT_ERRNO(mkdir("/", 0700), EEXIST);
  EXPECT_ERRNO(mkdir(At("none/d"), 0700), ENOENT);
  EXPECT_ERRNO(mkdir(At("f/d"), 0700), ENOTDIR);
  EXPECT_ERRNO(mkdir("", 0700), ENOENT);
  ASSERT_OK(symlink("nowhere", At("l")));
  EXPECT_ERRNO(mkdir(At("l"), 0700), EEXIST);
  EXPECT_OK(mkdir(At("slash/"), 0700));
  EXPECT_EQ(RunAsNobody([&] { EXPECT_ERRNO(mkdir(At("d"), 0700), EACCES); }), 0);
}

TEST_F(Path, MkdirInheritsSetgid) {
  ASSERT_OK(mkdir(At("g"), 0755));
  ASSERT_OK(chown(At("g"), 0, 1234));
  ASSERT_OK(chmod(At("g"), 02755));
  ASSERT_OK(mkdir(At("g/d"), 0755));
  EXPECT_EQ(Stat("g/d").st_gid, 1234u);
  EXPECT_TRUE(Stat("g/d").st_mode & S_ISGID);
}

TEST_F(Path, RmdirErrors) {
  dir_.Dir("d");
  dir_.File("d/f");
  EXPECT_ERRNO(rmdir(At("d")), ENOTEMPTY);
  EXPECT_ERRNO(rmdir(At("d/f")), ENOTDIR);
  EXPECT_ERRNO(rmdir(At("none")), ENOENT);
  EXPECT_ERRNO(rmdir(At("d/.")), EINVAL);
  EXPECT_ERRNO(rmdir(At("d/..")), ENOTEMPTY);
  EXPECT_ERRNO(rmdir("/"), EBUSY);
  ASSERT_OK(unlink(At("d/f")));
  EXPECT_OK(rmdir(At("d/")));
}

TEST_F(Path, UnlinkErrors) {
  dir_.Dir("d");
  dir_.File("f");
  EXPECT_ERRNO(unlink(At("d")), EISDIR);
  EXPECT_ERRNO(unlink(At("none")), ENOENT);
  EXPECT_ERRNO(unlink(At("f/x")), ENOTDIR);
  EXPECT_ERRNO(unlink(At("f/")), ENOTDIR);
  EXPECT_ERRNO(unlinkat(AT_FDCWD, At("f"), AT_REMOVEDIR), ENOTDIR);
  EXPECT_ERRNO(unlinkat(AT_FDCWD, At("f"), 0x4000), EINVAL);
  EXPECT_EQ(RunAsNobody([&] { EXPECT_ERRNO(unlink(At("f")), EACCES); }), 0);
  EXPECT_OK(unlinkat(AT_FDCWD, At("d"), AT_REMOVEDIR));
}

TEST_F(Path, UnlinkedFileLivesWhileOpen) {
  ScopedFd fd = dir_.Open("f", "abc");
  ASSERT_OK(unlink(At("f")));
  char c[4] = {};
  EXPECT_RETURNS(read(fd.get(), c, 4), 3);
  struct stat st;
  ASSERT_OK(fstat(fd.get(), &st));
  EXPECT_EQ(st.st_nlink, 0u);
}

TEST_F(Path, StickyDirectoryProtectsOthersFiles) {
  ASSERT_OK(mkdir(At("s"), 0));
  ASSERT_OK(chmod(At("s"), 01777));
  dir_.File("s/f");
  EXPECT_EQ(RunAsNobody([&] {
              EXPECT_ERRNO(unlink(At("s/f")), EPERM);
              EXPECT_ERRNO(rename(At("s/f"), At("s/g")), EPERM);
            }),
            0);
}

TEST_F(Path, RenameReplacesAFile) {
  dir_.File("a", "A");
  dir_.File("b", "B");
  ASSERT_OK(rename(At("a"), At("b")));
  EXPECT_EQ(ReadAll(dir_ / "b"), "A");
  EXPECT_ERRNO(access(At("a"), F_OK), ENOENT);
}

TEST_F(Path, RenameOfTwoLinksToOneFileDoesNothing) {
  dir_.File("a");
  ASSERT_OK(link(At("a"), At("b")));
  ASSERT_OK(rename(At("a"), At("b")));
  EXPECT_OK(access(At("a"), F_OK));
}

TEST_F(Path, RenameErrors) {
  dir_.File("f");
  dir_.Dir("d");
  dir_.Dir("full");
  dir_.File("full/x");
  EXPECT_ERRNO(rename(At("none"), At("x")), ENOENT);
  EXPECT_ERRNO(rename(At("f"), At("d")), EISDIR);
  EXPECT_ERRNO(rename(At("d"), At("f")), ENOTDIR);
  EXPECT_ERRNO(rename(At("d"), At("full")), ENOTEMPTY);
  EXPECT_ERRNO(rename(At("d"), At("d/sub")), EINVAL);
  EXPECT_ERRNO(rename(At("full/x"), At("full/x/y")), ENOTDIR);
  EXPECT_ERRNO(rename(At("full"), At("full/../full/z")), EINVAL);
  EXPECT_ERRNO(rename(At("f"), At("none/g")), ENOENT);
  EXPECT_ERRNO(rename(At("d/."), At("e")), EBUSY);
  EXPECT_ERRNO(rename(At("d"), At("full/..")), EBUSY);
  EXPECT_ERRNO(rename(At("f"), At("g/")), ENOTDIR);
  EXPECT_OK(rename(At("full"), At("d")));
  EXPECT_OK(access(At("d/x"), F_OK));
}

TEST_F(Path, Renameat2Flags) {
  dir_.File("a", "A");
  dir_.File("b", "B");
  EXPECT_ERRNO(renameat2(AT_FDCWD, At("a"), AT_FDCWD, At("b"), RENAME_NOREPLACE), EEXIST);
  ASSERT_OK(renameat2(AT_FDCWD, At("a"), AT_FDCWD, At("b"), RENAME_EXCHANGE));
  EXPECT_EQ(ReadAll(dir_ / "a"), "B");
  EXPECT_ERRNO(renameat2(AT_FDCWD, At("a"), AT_FDCWD, At("none"), RENAME_EXCHANGE), ENOENT);
  EXPECT_ERRNO(renameat2(AT_FDCWD, At("a"), AT_FDCWD, At("b"), RENAME_EXCHANGE | RENAME_NOREPLACE), EINVAL);
  EXPECT_ERRNO(renameat2(AT_FDCWD, At("a"), AT_FDCWD, At("b"), 0x100), EINVAL);
}

TEST_F(Path, LinkCountsAndErrors) {
  dir_.File("f");
  dir_.Dir("d");
  ASSERT_OK(link(At("f"), At("g")));
  EXPECT_EQ(Stat("f").st_nlink, 2u);
  EXPECT_EQ(Stat("f").st_ino, Stat("g").st_ino);
  EXPECT_ERRNO(link(At("f"), At("g")), EEXIST);
  EXPECT_ERRNO(link(At("d"), At("h")), EPERM);
  EXPECT_ERRNO(link(At("none"), At("h")), ENOENT);
  EXPECT_ERRNO(link(At("f"), At("none/h")), ENOENT);
  EXPECT_ERRNO(linkat(AT_FDCWD, At("f"), AT_FDCWD, At("h"), 0x10), EINVAL);
  ASSERT_OK(symlink("f", At("l")));
  ASSERT_OK(link(At("l"), At("l2")));
  EXPECT_TRUE(S_ISLNK(Stat("l2").st_mode));
  ASSERT_OK(linkat(AT_FDCWD, At("l"), AT_FDCWD, At("l3"), AT_SYMLINK_FOLLOW));
  EXPECT_TRUE(S_ISREG(Stat("l3").st_mode));
}

TEST_F(Path, SymlinkAndReadlink) {
  ASSERT_OK(symlink("some/where", At("l")));
  char buf[32] = {};
  EXPECT_RETURNS(readlink(At("l"), buf, sizeof(buf)), 10);
  EXPECT_STREQ(buf, "some/where");
  EXPECT_RETURNS(readlink(At("l"), buf, 4), 4);
  EXPECT_EQ(Stat("l").st_size, 10);
  EXPECT_ERRNO(symlink("x", At("l")), EEXIST);
  EXPECT_ERRNO(symlink("", At("e")), ENOENT);
  EXPECT_ERRNO(symlink("x", At("none/e")), ENOENT);
  dir_.File("f");
  EXPECT_ERRNO(readlink(At("f"), buf, 4), EINVAL);
  EXPECT_ERRNO(readlink(At("none"), buf, 4), ENOENT);
  EXPECT_ERRNO(syscall(SYS_readlink, At("l"), buf, 0), EINVAL);
  EXPECT_ERRNO(syscall(SYS_readlink, At("l"), 8L, 5), EFAULT);
}

TEST_F(Path, FortyLinksAreFollowedAndNoMore) {
  dir_.File("l0");
  for (int i = 1; i <= 41; i++) {
    std::string to = "l" + std::to_string(i - 1), from = dir_ / ("l" + std::to_string(i));
    ASSERT_OK(symlink(to.c_str(), from.c_str()));
  }
  EXPECT_OK(access(At("l40"), F_OK));
  EXPECT_ERRNO(access(At("l41"), F_OK), ELOOP);
}

TEST_F(Path, GetdentsListsEverythingOnce) {
  std::set<std::string> expected = {".", ".."};
  for (int i = 0; i < 300; i++) {
    std::string name = "file" + std::to_string(i);
    dir_.File(name);
    expected.insert(name);
  }
  ScopedFd d(open(dir_.path().c_str(), O_RDONLY | O_DIRECTORY));
  for (int round = 0; round < 2; round++) {
    std::multiset<std::string> got;
    alignas(8) char buf[512];
    for (;;) {
      long n = syscall(SYS_getdents64, d.get(), buf, sizeof(buf));
      ASSERT_OK(n);
      if (n == 0) break;
      for (long at = 0; at < n;) {
        auto* e = reinterpret_cast<dirent64*>(buf + at);
        got.insert(e->d_name);
        EXPECT_EQ(e->d_type, e->d_name[0] == '.' ? DT_DIR : DT_REG);
        at += e->d_reclen;
      }
    }
    EXPECT_EQ(got, (std::multiset<std::string>(expected.begin(), expected.end())));
    ASSERT_RETURNS(lseek(d.get(), 0, SEEK_SET), 0);
  }
}

TEST_F(Path, GetdentsErrors) {
  char buf[256];
  ScopedFd d(open(dir_.path().c_str(), O_RDONLY)), f = dir_.Open("f");
  EXPECT_ERRNO(syscall(SYS_getdents64, f.get(), buf, sizeof(buf)), ENOTDIR);
  EXPECT_ERRNO(syscall(SYS_getdents64, 500, buf, sizeof(buf)), EBADF);
  EXPECT_ERRNO(syscall(SYS_getdents64, d.get(), buf, 10), EINVAL);
  EXPECT_ERRNO(syscall(SYS_getdents64, d.get(), 8L, 256), EFAULT);
}

TEST_F(Path, GetdentsOfARemovedDirectoryFailsWithEnoent) {
  dir_.Dir("d");
  ScopedFd d(open(At("d"), O_RDONLY));
  ASSERT_OK(rmdir(At("d")));
  char buf[256];
  EXPECT_ERRNO(syscall(SYS_getdents64, d.get(), buf, sizeof(buf)), ENOENT);
  EXPECT_ERRNO(openat(d.get(), "x", O_CREAT | O_RDWR, 0600), ENOENT);
}

TEST_F(Path, ChdirAndGetcwd) {
  dir_.Dir("d");
  dir_.File("f");
  char buf[256];
  ASSERT_OK(chdir(At("d")));
  EXPECT_RETURNS(syscall(SYS_getcwd, buf, sizeof(buf)), (dir_ / "d").size() + 1);
  EXPECT_EQ(buf, dir_ / "d");
  EXPECT_ERRNO(syscall(SYS_getcwd, buf, 3), ERANGE);
  EXPECT_ERRNO(syscall(SYS_getcwd, 8L, 256), EFAULT);
  EXPECT_ERRNO(chdir("none"), ENOENT);
  EXPECT_ERRNO(chdir("../f"), ENOTDIR);
  ASSERT_OK(rename(At("d"), At("e")));
  ASSERT_OK(syscall(SYS_getcwd, buf, sizeof(buf)));
  EXPECT_EQ(buf, dir_ / "e");
  ASSERT_OK(rmdir(At("e")));
  EXPECT_ERRNO(syscall(SYS_getcwd, buf, sizeof(buf)), ENOENT);
  ScopedFd f(open(At("f"), O_RDONLY));
  EXPECT_ERRNO(fchdir(f.get()), ENOTDIR);
  EXPECT_ERRNO(fchdir(500), EBADF);
  ScopedFd d(open(dir_.path().c_str(), O_RDONLY));
  ASSERT_OK(fchdir(d.get()));
  EXPECT_OK(access("f", F_OK));
}

TEST_F(Path, ChdirWithoutSearchPermissionFailsWithEacces) {
  dir_.Dir("d", 0700);
  EXPECT_EQ(RunAsNobody([&] { EXPECT_ERRNO(chdir(At("d")), EACCES); }), 0);
}

TEST_F(Path, ChrootConfines) {
  dir_.Dir("d");
  dir_.File("d/f");
  EXPECT_EQ(RunChild([&] {
              EXPECT_OK(chroot(At("d")));
              EXPECT_OK(chdir("/"));
              EXPECT_OK(access("/f", F_OK));
              EXPECT_OK(access("/../../f", F_OK));
              return 0;
            }),
            0);
  EXPECT_ERRNO(chroot(At("none")), ENOENT);
  EXPECT_ERRNO(chroot(At("d/f")), ENOTDIR);
  EXPECT_EQ(RunAsNobody([&] { EXPECT_ERRNO(chroot("/"), EPERM); }), 0);
}

TEST_F(Path, StatErrors) {
  struct stat st;
  EXPECT_ERRNO(stat(At("none"), &st), ENOENT);
  EXPECT_ERRNO(fstat(500, &st), EBADF);
  EXPECT_ERRNO(syscall(SYS_stat, "/", 8L), EFAULT);
  EXPECT_ERRNO(syscall(SYS_stat, 8L, &st), EFAULT);
  EXPECT_ERRNO(fstatat(AT_FDCWD, "/", &st, 0x40), EINVAL);
  EXPECT_ERRNO(fstatat(AT_FDCWD, "", &st, 0), ENOENT);
  EXPECT_OK(fstatat(AT_FDCWD, "", &st, AT_EMPTY_PATH));
}

TEST_F(Path, StatTellsSizeTypeAndBlocks) {
  ScopedFd fd = dir_.Open("f", std::string(10000, 'x'));
  struct stat st = Stat("f");
  EXPECT_TRUE(S_ISREG(st.st_mode));
  EXPECT_EQ(st.st_size, 10000);
  EXPECT_GE(st.st_blksize, 512);
  EXPECT_EQ(st.st_uid, geteuid());
  struct stat other;
  ASSERT_OK(fstat(fd.get(), &other));
  EXPECT_EQ(st.st_ino, other.st_ino);
  EXPECT_EQ(st.st_dev, other.st_dev);
}

TEST_F(Path, StatxTellsWhatStatDoes) {
  dir_.File("f", "abc", 0640);
  struct statx x{};
  ASSERT_OK(statx(AT_FDCWD, At("f"), 0, STATX_BASIC_STATS, &x));
  struct stat st = Stat("f");
  EXPECT_EQ(x.stx_mask & STATX_BASIC_STATS, STATX_BASIC_STATS);
  EXPECT_EQ(x.stx_mode, st.st_mode);
  EXPECT_EQ(x.stx_size, 3u);
  EXPECT_EQ(x.stx_ino, st.st_ino);
  EXPECT_EQ(makedev(x.stx_dev_major, x.stx_dev_minor), st.st_dev);
  EXPECT_EQ(x.stx_mtime.tv_sec, st.st_mtim.tv_sec);
  EXPECT_ERRNO(statx(AT_FDCWD, At("f"), 0x40, STATX_BASIC_STATS, &x), EINVAL);
  EXPECT_ERRNO(statx(AT_FDCWD, At("f"), 0, 0x80000000u, &x), EINVAL);
  EXPECT_ERRNO(statx(AT_FDCWD, At("f"), AT_STATX_SYNC_TYPE, 0, &x), EINVAL);
  EXPECT_ERRNO(statx(AT_FDCWD, At("none"), 0, 0, &x), ENOENT);
}

TEST_F(Path, ChmodChangesTheMode) {
  dir_.File("f");
  ASSERT_OK(chmod(At("f"), 04711));
  EXPECT_EQ(Stat("f").st_mode, S_IFREG | 04711u);
  ScopedFd fd(open(At("f"), O_RDONLY));
  ASSERT_OK(fchmod(fd.get(), 0600));
  EXPECT_EQ(Stat("f").st_mode, S_IFREG | 0600u);
  EXPECT_ERRNO(chmod(At("none"), 0600), ENOENT);
  EXPECT_ERRNO(fchmod(500, 0600), EBADF);
  EXPECT_EQ(RunAsNobody([&] { EXPECT_ERRNO(chmod(At("f"), 0777), EPERM); }), 0);
}

TEST_F(Path, ChownChangesOwnersAndClearsSetuid) {
  dir_.File("f");
  ASSERT_OK(chmod(At("f"), 06755));
  ASSERT_OK(chown(At("f"), 12, 34));
  struct stat st = Stat("f");
  EXPECT_EQ(st.st_uid, 12u);
  EXPECT_EQ(st.st_gid, 34u);
  EXPECT_EQ(st.st_mode & 07777, 0755u);
  ASSERT_OK(chown(At("f"), -1, 56));
  EXPECT_EQ(Stat("f").st_uid, 12u);
  EXPECT_EQ(Stat("f").st_gid, 56u);
  ASSERT_OK(symlink("f", At("l")));
  ASSERT_OK(lchown(At("l"), 7, 7));
  EXPECT_EQ(Stat("l").st_uid, 7u);
  EXPECT_EQ(Stat("f").st_uid, 12u);
  EXPECT_ERRNO(chown(At("none"), 1, 1), ENOENT);
  EXPECT_ERRNO(fchownat(AT_FDCWD, At("f"), 1, 1, 0x40), EINVAL);
  EXPECT_EQ(RunAsNobody([&] { EXPECT_ERRNO(chown(At("f"), 1, 1), EPERM); }), 0);
}

TEST_F(Path, WritingClearsSetuidOfTheUnprivileged) {
  dir_.File("f", "", 0666);
  ASSERT_OK(chmod(At("f"), 06777));
  EXPECT_EQ(RunAsNobody([&] {
              ScopedFd fd(open(At("f"), O_WRONLY));
              EXPECT_RETURNS(write(fd.get(), "x", 1), 1);
            }),
            0);
  EXPECT_EQ(Stat("f").st_mode & 06000, 0u);
}

TEST_F(Path, UtimensatSetsTimes) {
  dir_.File("f");
  timespec ts[2] = {{1000, 123456789}, {2000, 987654321}};
  ASSERT_OK(utimensat(AT_FDCWD, At("f"), ts, 0));
  struct stat st = Stat("f");
  EXPECT_EQ(st.st_atim.tv_sec, 1000);
  EXPECT_EQ(st.st_atim.tv_nsec, 123456789);
  EXPECT_EQ(st.st_mtim.tv_nsec, 987654321);
  timespec omit[2] = {{0, UTIME_OMIT}, {0, UTIME_NOW}};
  ASSERT_OK(utimensat(AT_FDCWD, At("f"), omit, 0));
  EXPECT_EQ(Stat("f").st_atim.tv_sec, 1000);
  EXPECT_GT(Stat("f").st_mtim.tv_sec, 1000000);
  timespec bad[2] = {{0, 1000000000}, {0, 0}};
  EXPECT_ERRNO(utimensat(AT_FDCWD, At("f"), bad, 0), EINVAL);
  EXPECT_ERRNO(utimensat(AT_FDCWD, At("none"), ts, 0), ENOENT);
  EXPECT_ERRNO(utimensat(AT_FDCWD, At("f"), ts, 0x40), EINVAL);
  timeval tv[2] = {{5, 6}, {7, 8}};
  ASSERT_OK(utimes(At("f"), tv));
  EXPECT_EQ(Stat("f").st_mtim.tv_nsec, 8000);
  EXPECT_EQ(RunAsNobody([&] {
              EXPECT_ERRNO(utimensat(AT_FDCWD, At("f"), ts, 0), EPERM);
              EXPECT_ERRNO(utimensat(AT_FDCWD, At("f"), nullptr, 0), EACCES);
            }),
            0);
}

TEST_F(Path, TimesFollowUse) {
  dir_.File("f");
  timespec old[2] = {{1000, 0}, {1000, 0}};
  ASSERT_OK(utimensat(AT_FDCWD, At("f"), old, 0));
  ScopedFd fd(open(At("f"), O_RDWR));
  ASSERT_RETURNS(write(fd.get(), "x", 1), 1);
  EXPECT_GT(Stat("f").st_mtim.tv_sec, 1000);
  ASSERT_OK(utimensat(AT_FDCWD, dir_.path().c_str(), old, 0));
  dir_.File("g");
  EXPECT_GT(Stat(".").st_mtim.tv_sec, 1000);
}

TEST_F(Path, AccessChecksTheRealUser) {
  dir_.File("rw", "", 0600);
  dir_.File("x", "", 0755);
  EXPECT_OK(access(At("rw"), R_OK | W_OK));
  EXPECT_ERRNO(access(At("rw"), X_OK), EACCES);
  EXPECT_OK(access(At("x"), X_OK));
  EXPECT_ERRNO(access(At("none"), F_OK), ENOENT);
  EXPECT_ERRNO(access(At("rw"), 010), EINVAL);
  EXPECT_ERRNO(access(At("rw/x"), F_OK), ENOTDIR);
  EXPECT_EQ(RunChild([&] {
              EXPECT_OK(setresuid(kNobody, 0, 0));
              EXPECT_ERRNO(access(At("rw"), R_OK), EACCES);
              EXPECT_OK(syscall(SYS_faccessat2, AT_FDCWD, At("rw"), R_OK, AT_EACCESS));
              return 0;
            }),
            0);
}

TEST_F(Path, MknodMakesNodes) {
  ASSERT_OK(mknod(At("p"), S_IFIFO | 0600, 0));
  EXPECT_TRUE(S_ISFIFO(Stat("p").st_mode));
  ASSERT_OK(mknod(At("r"), 0600, 0));
  EXPECT_TRUE(S_ISREG(Stat("r").st_mode));
  ASSERT_OK(mknod(At("s"), S_IFSOCK | 0600, 0));
  EXPECT_TRUE(S_ISSOCK(Stat("s").st_mode));
  EXPECT_ERRNO(mknod(At("p"), S_IFIFO | 0600, 0), EEXIST);
  EXPECT_ERRNO(mknod(At("d"), S_IFDIR | 0600, 0), EPERM);
  EXPECT_ERRNO(mknod(At("d"), S_IFLNK | 0600, 0), EINVAL);
}

TEST_F(Path, StatfsTellsTheKind) {
  struct statfs s{};
  ASSERT_OK(statfs(dir_.path().c_str(), &s));
  EXPECT_GT(s.f_bsize, 0);
  EXPECT_GE(s.f_namelen, 255);
  EXPECT_ERRNO(statfs(At("none"), &s), ENOENT);
  EXPECT_ERRNO(fstatfs(500, &s), EBADF);
}

TEST_F(Path, ExtendedAttributes) {
  dir_.File("f");
  char buf[64] = {};
  ASSERT_OK(setxattr(At("f"), "user.a", "value", 5, 0));
  EXPECT_RETURNS(getxattr(At("f"), "user.a", buf, sizeof(buf)), 5);
  EXPECT_STREQ(buf, "value");
  EXPECT_RETURNS(getxattr(At("f"), "user.a", nullptr, 0), 5);
  EXPECT_ERRNO(getxattr(At("f"), "user.a", buf, 2), ERANGE);
  EXPECT_ERRNO(getxattr(At("f"), "user.none", buf, 2), ENODATA);
  EXPECT_ERRNO(setxattr(At("f"), "user.a", "v", 1, XATTR_CREATE), EEXIST);
  EXPECT_ERRNO(setxattr(At("f"), "user.b", "v", 1, XATTR_REPLACE), ENODATA);
  EXPECT_ERRNO(setxattr(At("f"), "nonsense", "v", 1, 0), EOPNOTSUPP);
  EXPECT_RETURNS(listxattr(At("f"), buf, sizeof(buf)), 7);
  EXPECT_STREQ(buf, "user.a");
  ASSERT_OK(removexattr(At("f"), "user.a"));
  EXPECT_ERRNO(removexattr(At("f"), "user.a"), ENODATA);
}

TEST_F(Path, FlockConflictsBetweenDescriptions) {
  dir_.File("f");
  ScopedFd a(open(At("f"), O_RDONLY)), b(open(At("f"), O_RDONLY));
  ASSERT_OK(syscall(SYS_flock, a.get(), 2));  // LOCK_EX
  EXPECT_ERRNO(syscall(SYS_flock, b.get(), 1 | 4), EWOULDBLOCK);
  ASSERT_OK(syscall(SYS_flock, a.get(), 1));
  EXPECT_OK(syscall(SYS_flock, b.get(), 1 | 4));
  EXPECT_ERRNO(syscall(SYS_flock, b.get(), 2 | 4), EWOULDBLOCK);
  ASSERT_OK(syscall(SYS_flock, a.get(), 8));
  EXPECT_OK(syscall(SYS_flock, b.get(), 2 | 4));
  EXPECT_ERRNO(syscall(SYS_flock, b.get(), 77), EINVAL);
  EXPECT_ERRNO(syscall(SYS_flock, 500, 1), EBADF);
}

}  // namespace
}  // namespace redoubt::testing
