// mount(2), umount2(2), statfs(2), chroot(2), pivot_root(2), xattr(7). Each test has a mount namespace of its own.
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstring>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"
#include "test/syscalls/util/temp_dir.h"

namespace redoubt::testing {
namespace {

int MountTmpfs(const std::string& at, unsigned long flags = 0, const char* options = nullptr) {
  return mount("source", at.c_str(), "tmpfs", flags, options);
}
int Bind(const std::string& from, const std::string& to, unsigned long flags = 0) {
  return mount(from.c_str(), to.c_str(), nullptr, MS_BIND | flags, nullptr);
}
int Remount(const std::string& at, unsigned long flags) {
  return mount(nullptr, at.c_str(), nullptr, MS_REMOUNT | flags, nullptr);
}
int Umount(const std::string& at, int flags = 0) { return umount2(at.c_str(), flags); }
bool Exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }
void MakeFile(const std::string& path, std::string_view content = "", mode_t mode = 0644) {
  ScopedFd fd(open(path.c_str(), O_CREAT | O_WRONLY, mode));
  ASSERT_OK(fd.get());
  ASSERT_RETURNS(write(fd.get(), content.data(), content.size()), content.size());
  ASSERT_OK(fchmod(fd.get(), mode));
}
struct stat Stat(const std::string& path) {
  struct stat st{};
  EXPECT_OK(stat(path.c_str(), &st));
  return st;
}
// The options of the uppermost mount there, as /proc/self/mounts tells them; empty if there is none.
std::string OptionsOf(const std::string& at) {
  std::string options;
  FILE* f = fopen("/proc/self/mounts", "re");
  char point[4096], text[4096];
  while (f != nullptr && fscanf(f, "%*s %4095s %*s %4095s %*d %*d", point, text) == 2) {
    if (at == point) options = text;
  }
  if (f != nullptr) fclose(f);
  return options;
}

class MountTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(unshare(CLONE_NEWNS));
    ASSERT_OK(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr));
    ASSERT_OK(MountTmpfs(dir.path(), 0, "mode=755"));
    at = dir.Dir("at");
    other = dir.Dir("other");
  }
  // The mounts end with the namespace; what was made is in them.
  void TearDown() override { umount2(dir.path().c_str(), MNT_DETACH); }

  TempDir dir;  // a tmpfs
  std::string at, other;
};

// tmpfs and mounting in general
// -----------------------------------------------------------------------------------------

TEST_F(MountTest, AMountHidesAndUmountShowsAgain) {
  MakeFile(at + "/below");
  ASSERT_OK(MountTmpfs(at));
  EXPECT_FALSE(Exists(at + "/below"));
  MakeFile(at + "/above");
  EXPECT_NE(Stat(at).st_dev, Stat(dir.path()).st_dev);
  ASSERT_OK(Umount(at));
  EXPECT_TRUE(Exists(at + "/below"));
  EXPECT_FALSE(Exists(at + "/above"));
}

TEST_F(MountTest, MountsStack) {
  ASSERT_OK(MountTmpfs(at));
  MakeFile(at + "/first");
  ASSERT_OK(MountTmpfs(at));
  EXPECT_FALSE(Exists(at + "/first"));
  ASSERT_OK(Umount(at));
  EXPECT_TRUE(Exists(at + "/first"));
}

TEST_F(MountTest, DotDotLeavesTheMount) {
  ASSERT_OK(MountTmpfs(at));
  EXPECT_EQ(Stat(at + "/..").st_ino, Stat(dir.path()).st_ino);
  ASSERT_OK(chdir(at.c_str()));
  char cwd[4096];
  ASSERT_OK(syscall(SYS_getcwd, cwd, sizeof(cwd)));
  EXPECT_EQ(at, cwd);
  ASSERT_OK(chdir("/"));
}

TEST_F(MountTest, MountErrors) {
  MakeFile(dir / "file");
  EXPECT_ERRNO(MountTmpfs(dir / "none"), ENOENT);
  EXPECT_ERRNO(MountTmpfs(dir / "file"), ENOTDIR);
  EXPECT_ERRNO(MountTmpfs(dir / "file/x"), ENOTDIR);
  EXPECT_ERRNO(mount("x", at.c_str(), "no such type", 0, nullptr), ENODEV);
  EXPECT_ERRNO(MountTmpfs(at, 0, "no_such_option"), EINVAL);
  EXPECT_ERRNO(MountTmpfs(at, 0, "size=many"), EINVAL);
  EXPECT_ERRNO(syscall(SYS_mount, "x", 8L, "tmpfs", 0, nullptr), EFAULT);
  EXPECT_ERRNO(syscall(SYS_mount, "x", at.c_str(), 8L, 0, nullptr), EFAULT);
  EXPECT_ERRNO(syscall(SYS_mount, "x", at.c_str(), nullptr, 0, nullptr), EINVAL);
  EXPECT_ERRNO(MountTmpfs(std::string(5000, 'x')), ENAMETOOLONG);
  ASSERT_OK(symlink("loop", (dir / "loop").c_str()));
  EXPECT_ERRNO(MountTmpfs(dir / "loop"), ELOOP);
  EXPECT_EQ(RunAsNobody([&] {
              EXPECT_ERRNO(MountTmpfs(at), EPERM);
              EXPECT_ERRNO(Umount(at), EPERM);
            }),
            0);
}

TEST_F(MountTest, OptionsOfTmpfs) {
  ASSERT_OK(MountTmpfs(at, 0, "size=64k,mode=700,uid=4,gid=5,nr_inodes=10"));
  struct stat st = Stat(at);
  EXPECT_EQ(st.st_mode & 07777, 0700u);
  EXPECT_EQ(st.st_uid, 4u);
  EXPECT_EQ(st.st_gid, 5u);
  struct statfs fs;
  ASSERT_OK(statfs(at.c_str(), &fs));
  EXPECT_EQ(fs.f_type, TMPFS_MAGIC);
  EXPECT_EQ(fs.f_blocks * static_cast<uint64_t>(fs.f_bsize), 65536u);
  EXPECT_EQ(fs.f_files, 10u);
  EXPECT_EQ(fs.f_namelen, 255);
  ScopedFd fd(open((at + "/f").c_str(), O_CREAT | O_WRONLY, 0644));
  std::string data(65536, 'x');
  EXPECT_RETURNS(write(fd.get(), data.data(), data.size()), 65536);
  EXPECT_ERRNO(write(fd.get(), "x", 1), ENOSPC);
  ASSERT_OK(statfs(at.c_str(), &fs));
  EXPECT_EQ(fs.f_bfree, 0u);
  int made = 0;
  while (made < 20 && mknod((at + "/n" + std::to_string(made)).c_str(), S_IFREG | 0600, 0) == 0) made++;
  EXPECT_EQ(errno, ENOSPC);
  EXPECT_LT(made, 10);
}

TEST_F(MountTest, ProcMountsTellsThem) {
  ASSERT_OK(MountTmpfs(at, MS_NOSUID | MS_NODEV | MS_NOEXEC));
  std::string options = "," + OptionsOf(at) + ",";
  for (const char* option : {",rw,", ",nosuid,", ",nodev,", ",noexec,", ",relatime,"}) {
    EXPECT_THAT(options, ::testing::HasSubstr(option));
  }
  ASSERT_OK(Umount(at));
  EXPECT_EQ(OptionsOf(at), "");
}

TEST_F(MountTest, StatxTellsMountsApart) {
  ASSERT_OK(MountTmpfs(at));
  ASSERT_OK(mkdir((at + "/sub").c_str(), 0755));
  auto tell = [](const std::string& path) {
    struct statx s{};
    EXPECT_OK(statx(AT_FDCWD, path.c_str(), 0, STATX_BASIC_STATS | STATX_MNT_ID, &s));
    EXPECT_NE(s.stx_mask & STATX_MNT_ID, 0u);
    EXPECT_NE(s.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT, 0u);
    return std::pair(s.stx_mnt_id, (s.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0);
  };
  EXPECT_TRUE(tell(at).second);
  EXPECT_FALSE(tell(at + "/sub").second);
  EXPECT_EQ(tell(at).first, tell(at + "/sub").first);
  EXPECT_NE(tell(at).first, tell(dir.path()).first);
  // The same number is in /proc.
  ScopedFd fd(open(at.c_str(), O_RDONLY));
  EXPECT_THAT(ReadAll("/proc/self/fdinfo/" + std::to_string(fd.get())),
              ::testing::HasSubstr("mnt_id:\t" + std::to_string(tell(at).first) + "\n"));
  EXPECT_THAT("\n" + ReadAll("/proc/self/mountinfo"),
              ::testing::HasSubstr("\n" + std::to_string(tell(at).first) + " "));
}

TEST_F(MountTest, TheRootStays) {
  EXPECT_NE(Umount("/"), 0);
  EXPECT_TRUE(Exists("/etc"));
}

TEST_F(MountTest, MountPointsCannotBeRemoved) {
  ASSERT_OK(MountTmpfs(at));
  EXPECT_ERRNO(rmdir(at.c_str()), EBUSY);
  EXPECT_ERRNO(rename(at.c_str(), (dir / "new").c_str()), EBUSY);
  EXPECT_ERRNO(rename(other.c_str(), at.c_str()), EBUSY);
}

TEST_F(MountTest, OtherFileSystemsAreThere) {
  ASSERT_OK(mount("proc", at.c_str(), "proc", 0, nullptr));
  EXPECT_TRUE(Exists(at + "/self/stat"));
  ASSERT_OK(mount("sysfs", other.c_str(), "sysfs", 0, nullptr));
  EXPECT_TRUE(Exists(other + "/devices"));
  std::string pts = dir.Dir("pts");
  ASSERT_OK(mount("devpts", pts.c_str(), "devpts", 0, "newinstance,ptmxmode=0666,mode=620"));
  ScopedFd ptmx(open((pts + "/ptmx").c_str(), O_RDWR | O_NOCTTY));
  EXPECT_OK(ptmx.get());
  EXPECT_TRUE(Exists(pts + "/0"));
}

// Flags
// -----------------------------------------------------------------------------------------------------------------

TEST_F(MountTest, ReadOnlyRefusesEveryChange) {
  ASSERT_OK(MountTmpfs(at));
  const std::string file = at + "/file";
  MakeFile(file, "content", 0666);
  ASSERT_OK(mkdir((at + "/dir").c_str(), 0755));
  ASSERT_OK(Remount(at, MS_RDONLY));
  EXPECT_ERRNO(open(file.c_str(), O_WRONLY), EROFS);
  EXPECT_ERRNO(open((at + "/new").c_str(), O_CREAT | O_RDONLY, 0644), EROFS);
  EXPECT_ERRNO(truncate(file.c_str(), 0), EROFS);
  EXPECT_ERRNO(chmod(file.c_str(), 0600), EROFS);
  EXPECT_ERRNO(chown(file.c_str(), 1, 1), EROFS);
  EXPECT_ERRNO(utimensat(AT_FDCWD, file.c_str(), nullptr, 0), EROFS);
  EXPECT_ERRNO(unlink(file.c_str()), EROFS);
  EXPECT_ERRNO(rmdir((at + "/dir").c_str()), EROFS);
  EXPECT_ERRNO(mkdir((at + "/new").c_str(), 0755), EROFS);
  EXPECT_ERRNO(mknod((at + "/new").c_str(), S_IFIFO | 0644, 0), EROFS);
  EXPECT_ERRNO(symlink("x", (at + "/new").c_str()), EROFS);
  EXPECT_ERRNO(link(file.c_str(), (at + "/new").c_str()), EROFS);
  EXPECT_ERRNO(rename(file.c_str(), (at + "/new").c_str()), EROFS);
  EXPECT_ERRNO(setxattr(file.c_str(), "trusted.x", "y", 1, 0), EROFS);
  EXPECT_ERRNO(access(file.c_str(), W_OK), EROFS);
  sockaddr_un address{AF_UNIX, {}};
  strncpy(address.sun_path, (at + "/new").c_str(), sizeof(address.sun_path) - 1);
  ScopedFd s(socket(AF_UNIX, SOCK_STREAM, 0));
  EXPECT_ERRNO(bind(s.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), EROFS);
  EXPECT_EQ(ReadAll(file), "content");
  struct statvfs fs;
  ASSERT_OK(statvfs(at.c_str(), &fs));
  EXPECT_NE(fs.f_flag & ST_RDONLY, 0u);
  ASSERT_OK(Remount(at, 0));
  EXPECT_OK(chmod(file.c_str(), 0600));
}

TEST_F(MountTest, RemountingReadOnlyWhileSomebodyWritesFailsWithEbusy) {
  ASSERT_OK(MountTmpfs(at));
  ScopedFd writer(open((at + "/f").c_str(), O_CREAT | O_WRONLY, 0644));
  EXPECT_ERRNO(Remount(at, MS_RDONLY), EBUSY);
  writer.reset();
  EXPECT_OK(Remount(at, MS_RDONLY));
}

TEST_F(MountTest, RemountErrors) {
  EXPECT_ERRNO(Remount(at, MS_RDONLY), EINVAL);  // no mount point
  EXPECT_ERRNO(Remount(dir / "none", MS_RDONLY), ENOENT);
}

TEST_F(MountTest, NoexecKeepsProgramsFromRunning) {
  ASSERT_OK(MountTmpfs(at));
  MakeFile(at + "/true", ReadAll("/bin/true"), 0755);
  auto run = [&] {
    return RunChild([&] {
      execl((at + "/true").c_str(), "true", nullptr);
      return errno;
    });
  };
  EXPECT_EQ(run(), 0);
  ASSERT_OK(Remount(at, MS_NOEXEC));
  EXPECT_EQ(run(), W_EXITCODE(EACCES, 0));
  EXPECT_ERRNO(access((at + "/true").c_str(), X_OK), EACCES);
  ScopedFd fd(open((at + "/true").c_str(), O_RDONLY));
  EXPECT_EQ(mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd.get(), 0), MAP_FAILED);
  EXPECT_EQ(errno, EPERM);
  void* p = mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  EXPECT_ERRNO(mprotect(p, 4096, PROT_READ | PROT_EXEC), EACCES);
}

TEST_F(MountTest, NosuidIgnoresTheBits) {
  ASSERT_OK(MountTmpfs(at, 0, "mode=755"));
  MakeFile(at + "/whoami", ReadAll("/usr/bin/id"), 0755);
  ASSERT_OK(chmod((at + "/whoami").c_str(), 04755));
  auto effective = [&] {
    int p[2];
    EXPECT_OK(pipe(p));
    EXPECT_EQ(RunAsNobody([&] {
                dup2(p[1], 1);
                execl((at + "/whoami").c_str(), "id", "-u", nullptr);
                ADD_FAILURE() << "exec: " << ErrnoName(errno);
              }),
              0);
    close(p[1]);
    char text[16] = {};
    EXPECT_OK(read(p[0], text, sizeof(text) - 1));
    close(p[0]);
    return std::string(text);
  };
  EXPECT_EQ(effective(), "0\n");
  ASSERT_OK(Remount(at, MS_NOSUID));
  EXPECT_EQ(effective(), "65534\n");
}

TEST_F(MountTest, NodevKeepsDevicesShut) {
  ASSERT_OK(MountTmpfs(at));
  ASSERT_OK(mknod((at + "/null").c_str(), S_IFCHR | 0666, makedev(1, 3)));
  EXPECT_OK(ScopedFd(open((at + "/null").c_str(), O_RDWR)).get());
  ASSERT_OK(Remount(at, MS_NODEV));
  EXPECT_ERRNO(open((at + "/null").c_str(), O_RDWR), EACCES);
}

TEST_F(MountTest, NoatimeLeavesTheAccessTime) {
  ASSERT_OK(MountTmpfs(at, MS_STRICTATIME));
  const std::string file = at + "/f";
  MakeFile(file, "x");
  auto read_later = [&] {
    timespec old[2] = {{1000, 0}, {2000000000, 0}};
    EXPECT_OK(utimensat(AT_FDCWD, file.c_str(), old, 0));
    ReadAll(file);
    return Stat(file).st_atim.tv_sec;
  };
  EXPECT_GT(read_later(), 1000);
  ASSERT_OK(Remount(at, MS_NOATIME));
  EXPECT_EQ(read_later(), 1000);
}

// Bind mounts and moving
// --------------------------------------------------------------------------------------------------

TEST_F(MountTest, ABindMountIsTheSamePlace) {
  MakeFile(other + "/f", "x");
  ASSERT_OK(Bind(other, at));
  EXPECT_EQ(ReadAll(at + "/f"), "x");
  EXPECT_EQ(Stat(at).st_ino, Stat(other).st_ino);
  EXPECT_EQ(Stat(at).st_dev, Stat(other).st_dev);
  MakeFile(at + "/g", "y");
  EXPECT_EQ(ReadAll(other + "/g"), "y");
  // A place of its own for names, all the same.
  EXPECT_ERRNO(rename((at + "/f").c_str(), (other + "/h").c_str()), EXDEV);
  EXPECT_ERRNO(link((at + "/f").c_str(), (other + "/h").c_str()), EXDEV);
  EXPECT_EQ(Stat(at + "/..").st_ino, Stat(dir.path()).st_ino);
}

TEST_F(MountTest, FilesCanBeBound) {
  MakeFile(dir / "a", "A");
  MakeFile(dir / "b", "B");
  ASSERT_OK(Bind(dir / "a", dir / "b"));
  EXPECT_EQ(ReadAll(dir / "b"), "A");
  EXPECT_ERRNO(unlink((dir / "b").c_str()), EBUSY);
  EXPECT_ERRNO(Bind(dir / "a", at), ENOTDIR);
  EXPECT_ERRNO(Bind(at, dir / "a"), ENOTDIR);
  ASSERT_OK(Umount(dir / "b"));
  EXPECT_EQ(ReadAll(dir / "b"), "B");
}

TEST_F(MountTest, BindErrors) {
  EXPECT_ERRNO(Bind(dir / "none", at), ENOENT);
  EXPECT_ERRNO(Bind(at, dir / "none"), ENOENT);
  EXPECT_ERRNO(syscall(SYS_mount, nullptr, at.c_str(), nullptr, MS_BIND, nullptr), EINVAL);
}

TEST_F(MountTest, MountsBelowAreBoundOnRequestOnly) {
  ASSERT_OK(mkdir((other + "/sub").c_str(), 0755));
  ASSERT_OK(MountTmpfs(other + "/sub"));
  MakeFile(other + "/sub/f");
  ASSERT_OK(Bind(other, at));
  EXPECT_FALSE(Exists(at + "/sub/f"));
  ASSERT_OK(Umount(at));
  ASSERT_OK(Bind(other, at, MS_REC));
  EXPECT_TRUE(Exists(at + "/sub/f"));
}

TEST_F(MountTest, ABindMountCanBeReadOnlyAlone) {
  ASSERT_OK(Bind(other, at));
  ASSERT_OK(mount(nullptr, at.c_str(), nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY, nullptr));
  EXPECT_ERRNO(open((at + "/f").c_str(), O_CREAT | O_WRONLY, 0644), EROFS);
  MakeFile(other + "/f", "x");
  EXPECT_EQ(ReadAll(at + "/f"), "x");
  EXPECT_ERRNO(open((at + "/f").c_str(), O_WRONLY), EROFS);
}

TEST_F(MountTest, ABindMountTakesItsSourcesFlags) {
  ASSERT_OK(MountTmpfs(other, MS_NOEXEC | MS_NOSUID));
  ASSERT_OK(Bind(other, at));
  EXPECT_THAT(OptionsOf(at), ::testing::HasSubstr("noexec"));
}

TEST_F(MountTest, MountsCanBeMoved) {
  ASSERT_OK(MountTmpfs(at));
  MakeFile(at + "/f");
  ASSERT_OK(mkdir((at + "/sub").c_str(), 0755));
  EXPECT_ERRNO(mount(at.c_str(), (at + "/sub").c_str(), nullptr, MS_MOVE, nullptr), ELOOP);
  ASSERT_OK(mount(at.c_str(), other.c_str(), nullptr, MS_MOVE, nullptr));
  EXPECT_FALSE(Exists(at + "/f"));
  EXPECT_TRUE(Exists(other + "/f"));
  EXPECT_ERRNO(mount(at.c_str(), other.c_str(), nullptr, MS_MOVE, nullptr), EINVAL);
}

TEST_F(MountTest, NamespacesAreApart) {
  EXPECT_EQ(RunChild([&] {
              EXPECT_OK(unshare(CLONE_NEWNS));
              EXPECT_OK(MountTmpfs(at));
              MakeFile(at + "/f");
              EXPECT_TRUE(Exists(at + "/f"));
              return 0;
            }),
            0);
  EXPECT_FALSE(Exists(at + "/f"));
  EXPECT_EQ(OptionsOf(at), "");
  EXPECT_EQ(RunAsNobody([] { EXPECT_ERRNO(unshare(CLONE_NEWNS), EPERM); }), 0);
}

// Unmounting
// --------------------------------------------------------------------------------------------------------------

TEST_F(MountTest, UmountErrors) {
  EXPECT_ERRNO(Umount(at), EINVAL);
  EXPECT_ERRNO(Umount(dir / "none"), ENOENT);
  EXPECT_ERRNO(Umount(at, 0x1000), EINVAL);
  ASSERT_OK(MountTmpfs(at));
  EXPECT_ERRNO(Umount(at, MNT_EXPIRE | MNT_DETACH), EINVAL);
  EXPECT_ERRNO(Umount(at, MNT_EXPIRE | MNT_FORCE), EINVAL);
  EXPECT_ERRNO(syscall(SYS_umount2, 8L, 0), EFAULT);
  ASSERT_OK(symlink("at", (dir / "link").c_str()));
  EXPECT_ERRNO(Umount(dir / "link", UMOUNT_NOFOLLOW), EINVAL);
  EXPECT_OK(Umount(dir / "link"));
}

TEST_F(MountTest, BusyMountsStay) {
  ASSERT_OK(MountTmpfs(at));
  ScopedFd file(open((at + "/f").c_str(), O_CREAT | O_RDWR, 0644));
  EXPECT_ERRNO(Umount(at), EBUSY);
  file.reset();
  ASSERT_OK(chdir(at.c_str()));
  EXPECT_ERRNO(Umount(at), EBUSY);
  ASSERT_OK(chdir("/"));
  ASSERT_OK(mkdir((at + "/sub").c_str(), 0755));
  ASSERT_OK(MountTmpfs(at + "/sub"));
  EXPECT_ERRNO(Umount(at), EBUSY);
  ASSERT_OK(Umount(at + "/sub"));
  file.reset(open((at + "/f").c_str(), O_RDWR));
  void* p = mmap(nullptr, 4096, PROT_READ, MAP_SHARED, file.get(), 0);
  file.reset();
  EXPECT_ERRNO(Umount(at), EBUSY);
  ASSERT_OK(munmap(p, 4096));
  EXPECT_OK(Umount(at));
}

TEST_F(MountTest, DetachedMountsLiveWithTheirUsers) {
  ASSERT_OK(MountTmpfs(at));
  ASSERT_OK(mkdir((at + "/sub").c_str(), 0755));
  ASSERT_OK(MountTmpfs(at + "/sub"));
  ScopedFd inside(open(at.c_str(), O_RDONLY | O_DIRECTORY));
  ScopedFd file(open((at + "/f").c_str(), O_CREAT | O_RDWR, 0644));
  ASSERT_OK(Umount(at, MNT_DETACH));
  EXPECT_FALSE(Exists(at + "/f"));
  EXPECT_RETURNS(write(file.get(), "x", 1), 1);
  EXPECT_OK(faccessat(inside.get(), "f", F_OK, 0));
  EXPECT_ERRNO(Umount(at), EINVAL);
}

TEST_F(MountTest, ExpiryTakesTwoCalls) {
  ASSERT_OK(MountTmpfs(at));
  EXPECT_ERRNO(Umount(at, MNT_EXPIRE), EAGAIN);
  Exists(at + "/f");  // a use between
  EXPECT_ERRNO(Umount(at, MNT_EXPIRE), EAGAIN);
  EXPECT_OK(Umount(at, MNT_EXPIRE));
}

// statfs
// ------------------------------------------------------------------------------------------------------------------

TEST_F(MountTest, StatfsErrors) {
  MakeFile(dir / "file");
  struct statfs fs;
  EXPECT_ERRNO(statfs((dir / "none").c_str(), &fs), ENOENT);
  EXPECT_ERRNO(statfs((dir / "file/x").c_str(), &fs), ENOTDIR);
  EXPECT_ERRNO(syscall(SYS_statfs, at.c_str(), 8L), EFAULT);
  EXPECT_ERRNO(syscall(SYS_statfs, 8L, &fs), EFAULT);
  EXPECT_ERRNO(fstatfs(-1, &fs), EBADF);
  EXPECT_ERRNO(statfs(std::string(5000, 'x').c_str(), &fs), ENAMETOOLONG);
  std::string closed = dir.Dir("closed", 0700);
  EXPECT_EQ(RunAsNobody([&] { EXPECT_ERRNO(statfs((closed + "/x").c_str(), &fs), EACCES); }), 0);
}

TEST_F(MountTest, StatfsOfADescriptorAgrees) {
  ScopedFd fd(open(at.c_str(), O_RDONLY));
  struct statfs a, b;
  ASSERT_OK(statfs(at.c_str(), &a));
  ASSERT_OK(fstatfs(fd.get(), &b));
  EXPECT_EQ(a.f_type, b.f_type);
  EXPECT_EQ(a.f_blocks, b.f_blocks);
  EXPECT_EQ(a.f_bsize, 4096);
  EXPECT_GE(a.f_bfree, a.f_bavail);
  ScopedFd path(open(at.c_str(), O_PATH));
  EXPECT_OK(fstatfs(path.get(), &b));
  int p[2];
  ASSERT_OK(pipe(p));
  ASSERT_OK(fstatfs(p[0], &b));
  EXPECT_EQ(b.f_type, PIPEFS_MAGIC);
}

// chroot and pivot_root
// ---------------------------------------------------------------------------------------------------

TEST_F(MountTest, ChrootErrors) {
  MakeFile(dir / "file");
  EXPECT_ERRNO(chroot((dir / "none").c_str()), ENOENT);
  EXPECT_ERRNO(chroot((dir / "file").c_str()), ENOTDIR);
  EXPECT_ERRNO(syscall(SYS_chroot, 8L), EFAULT);
  std::string closed = dir.Dir("closed", 0700);
  EXPECT_EQ(RunAsNobody([&] {
              EXPECT_ERRNO(chroot(at.c_str()), EPERM);
              EXPECT_ERRNO(chroot(closed.c_str()), EACCES);
            }),
            0);
}

TEST_F(MountTest, ChrootIsInheritedAndConfines) {
  MakeFile(at + "/inside");
  EXPECT_EQ(RunChild([&] {
              EXPECT_OK(chroot(at.c_str()));
              EXPECT_OK(chdir("/"));
              EXPECT_TRUE(Exists("/inside"));
              EXPECT_TRUE(Exists("/../../inside"));
              EXPECT_EQ(RunChild([] {
                          EXPECT_TRUE(Exists("/inside"));
                          EXPECT_FALSE(Exists("/etc"));
                          return 0;
                        }),
                        0);
              return 0;
            }),
            0);
  EXPECT_TRUE(Exists("/etc"));
}

int PivotRoot(const std::string& new_root, const std::string& put_old) {
  return static_cast<int>(syscall(SYS_pivot_root, new_root.c_str(), put_old.c_str()));
}

TEST_F(MountTest, PivotRootSwapsTheRoots) {
  ASSERT_OK(MountTmpfs(at));
  MakeFile(at + "/new root");
  ASSERT_OK(mkdir((at + "/old").c_str(), 0755));
  EXPECT_EQ(RunChild([&] {
              EXPECT_OK(unshare(CLONE_NEWNS));
              EXPECT_OK(chdir("/"));
              EXPECT_OK(PivotRoot(at, at + "/old"));
              EXPECT_TRUE(Exists("/new root"));
              EXPECT_TRUE(Exists("new root"));  // the working directory has moved, too
              EXPECT_TRUE(Exists("/old/etc"));
              EXPECT_FALSE(Exists("/etc"));
              EXPECT_OK(Umount("/old", MNT_DETACH));
              EXPECT_FALSE(Exists("/old/etc"));
              return 0;
            }),
            0);
  EXPECT_TRUE(Exists("/etc"));
}

TEST_F(MountTest, PivotRootCanStackTheOldOnTheNew) {
  ASSERT_OK(MountTmpfs(at));
  MakeFile(at + "/new root");
  EXPECT_EQ(RunChild([&] {
              EXPECT_OK(unshare(CLONE_NEWNS));
              EXPECT_OK(chdir(at.c_str()));
              EXPECT_OK(PivotRoot(".", "."));
              EXPECT_OK(Umount(".", MNT_DETACH));
              EXPECT_TRUE(Exists("/new root"));
              EXPECT_FALSE(Exists("/etc"));
              return 0;
            }),
            0);
}

TEST_F(MountTest, PivotRootErrors) {
  ASSERT_OK(mkdir((at + "/old").c_str(), 0755));
  EXPECT_ERRNO(PivotRoot(at, at + "/old"), EINVAL);  // no mount point
  ASSERT_OK(MountTmpfs(at));
  ASSERT_OK(mkdir((at + "/old").c_str(), 0755));
  MakeFile(at + "/file");
  EXPECT_ERRNO(PivotRoot(at, other), EINVAL);  // not at or below the new root
  EXPECT_ERRNO(PivotRoot(at, at + "/none"), ENOENT);
  EXPECT_ERRNO(PivotRoot(dir / "none", at + "/old"), ENOENT);
  EXPECT_ERRNO(PivotRoot(at, at + "/file"), ENOTDIR);
  EXPECT_ERRNO(PivotRoot("/", "/"), EBUSY);
  EXPECT_ERRNO(PivotRoot(at, "/"), EBUSY);
  EXPECT_EQ(RunAsNobody([&] { EXPECT_ERRNO(PivotRoot(at, at + "/old"), EPERM); }), 0);
}

// Extended attributes
// -----------------------------------------------------------------------------------------------------

class XattrTest : public MountTest {
 protected:
  void SetUp() override {
    MountTest::SetUp();
    file = dir / "file";
    MakeFile(file, "", 0666);
  }
  std::string Get(const std::string& path, const char* name) {
    char value[256];
    ssize_t n = getxattr(path.c_str(), name, value, sizeof(value));
    return n < 0 ? ErrnoName(errno) : std::string(value, static_cast<size_t>(n));
  }
  static std::set<std::string> Names(const char* list, ssize_t n) {
    std::set<std::string> names;
    for (ssize_t i = 0; i < n; i += static_cast<ssize_t>(strlen(list + i)) + 1) names.insert(list + i);
    // What a security module adds is not the test's.
    std::erase_if(names, [](const std::string& name) { return name.starts_with("security."); });
    return names;
  }
  std::string file;
};

TEST_F(XattrTest, ValuesAreKept) {
  for (const char* name : {"user.a", "trusted.b"}) {
    ASSERT_OK(setxattr(file.c_str(), name, "value", 5, 0));
    EXPECT_EQ(Get(file, name), "value");
    ASSERT_OK(setxattr(file.c_str(), name, "", 0, 0));
    EXPECT_EQ(Get(file, name), "");
    ASSERT_OK(setxattr(file.c_str(), name, "new\0value", 9, 0));
    EXPECT_EQ(Get(file, name), std::string("new\0value", 9));
  }
  char list[256];
  ssize_t n = listxattr(file.c_str(), list, sizeof(list));
  EXPECT_EQ(Names(list, n), (std::set<std::string>{"user.a", "trusted.b"}));
  ASSERT_OK(removexattr(file.c_str(), "user.a"));
  EXPECT_EQ(Get(file, "user.a"), "ENODATA");
  EXPECT_EQ(Get(file, "trusted.b"), std::string("new\0value", 9));
}

TEST_F(XattrTest, DescriptorsDoAsWell) {
  ScopedFd fd(open(file.c_str(), O_RDONLY));
  ASSERT_OK(fsetxattr(fd.get(), "user.a", "v", 1, 0));
  char value[8], list[256];
  EXPECT_RETURNS(fgetxattr(fd.get(), "user.a", value, 8), 1);
  ssize_t n = flistxattr(fd.get(), list, sizeof(list));
  EXPECT_EQ(Names(list, n), (std::set<std::string>{"user.a"}));
  EXPECT_OK(fremovexattr(fd.get(), "user.a"));
  EXPECT_ERRNO(fremovexattr(fd.get(), "user.a"), ENODATA);
  EXPECT_ERRNO(fgetxattr(-1, "user.a", value, 8), EBADF);
  EXPECT_ERRNO(fsetxattr(-1, "user.a", value, 8, 0), EBADF);
  EXPECT_ERRNO(flistxattr(-1, list, 8), EBADF);
  ScopedFd path(open(file.c_str(), O_PATH));
  EXPECT_ERRNO(fgetxattr(path.get(), "user.a", value, 8), EBADF);
}

TEST_F(XattrTest, LinksHaveTheirOwn) {
  const std::string link = dir / "link";
  ASSERT_OK(symlink("file", link.c_str()));
  ASSERT_OK(setxattr(link.c_str(), "trusted.x", "file", 4, 0));
  ASSERT_OK(lsetxattr(link.c_str(), "trusted.x", "link", 4, 0));
  EXPECT_EQ(Get(link, "trusted.x"), "file");
  char value[8], list[256];
  EXPECT_RETURNS(lgetxattr(link.c_str(), "trusted.x", value, 8), 4);
  EXPECT_EQ(std::string_view(value, 4), "link");
  EXPECT_EQ(Names(list, llistxattr(link.c_str(), list, sizeof(list))), (std::set<std::string>{"trusted.x"}));
  EXPECT_OK(lremovexattr(link.c_str(), "trusted.x"));
  EXPECT_EQ(Get(file, "trusted.x"), "file");
  // User attributes are for files and directories.
  EXPECT_ERRNO(lsetxattr(link.c_str(), "user.x", "v", 1, 0), EPERM);
  EXPECT_OK(setxattr(at.c_str(), "user.x", "v", 1, 0));
  ASSERT_OK(mkfifo((dir / "fifo").c_str(), 0666));
  EXPECT_ERRNO(setxattr((dir / "fifo").c_str(), "user.x", "v", 1, 0), EPERM);
  EXPECT_ERRNO(getxattr((dir / "fifo").c_str(), "user.x", value, 8), ENODATA);
}

TEST_F(XattrTest, FlagsChooseCreationOrReplacement) {
  EXPECT_ERRNO(setxattr(file.c_str(), "user.a", "v", 1, XATTR_REPLACE), ENODATA);
  ASSERT_OK(setxattr(file.c_str(), "user.a", "v", 1, XATTR_CREATE));
  EXPECT_ERRNO(setxattr(file.c_str(), "user.a", "w", 1, XATTR_CREATE), EEXIST);
  ASSERT_OK(setxattr(file.c_str(), "user.a", "w", 1, XATTR_REPLACE));
  EXPECT_ERRNO(setxattr(file.c_str(), "user.a", "w", 1, 4), EINVAL);
}

TEST_F(XattrTest, SizesAreToldAndChecked) {
  ASSERT_OK(setxattr(file.c_str(), "user.a", "value", 5, 0));
  char small[4];
  EXPECT_RETURNS(getxattr(file.c_str(), "user.a", nullptr, 0), 5);
  EXPECT_ERRNO(getxattr(file.c_str(), "user.a", small, 4), ERANGE);
  EXPECT_GE(listxattr(file.c_str(), nullptr, 0), 7);
  EXPECT_ERRNO(listxattr(file.c_str(), small, 4), ERANGE);
  std::string big(65537, 'x');
  EXPECT_ERRNO(setxattr(file.c_str(), "user.b", big.data(), big.size(), 0), E2BIG);
  EXPECT_OK(setxattr(file.c_str(), ("user." + std::string(250, 'n')).c_str(), "v", 1, 0));
  EXPECT_ERRNO(setxattr(file.c_str(), ("user." + std::string(251, 'n')).c_str(), "v", 1, 0), ERANGE);
  EXPECT_ERRNO(setxattr(file.c_str(), "", "v", 1, 0), ERANGE);
}

TEST_F(XattrTest, Errors) {
  char value[8];
  EXPECT_ERRNO(getxattr((dir / "none").c_str(), "user.a", value, 8), ENOENT);
  EXPECT_ERRNO(getxattr((file + "/x").c_str(), "user.a", value, 8), ENOTDIR);
  EXPECT_ERRNO(getxattr(file.c_str(), "user.a", value, 8), ENODATA);
  EXPECT_ERRNO(removexattr(file.c_str(), "user.a"), ENODATA);
  EXPECT_ERRNO(setxattr(file.c_str(), "unknown.a", "v", 1, 0), EOPNOTSUPP);
  EXPECT_ERRNO(getxattr(file.c_str(), "unknown.a", value, 8), EOPNOTSUPP);
  EXPECT_ERRNO(setxattr(file.c_str(), "noprefix", "v", 1, 0), EOPNOTSUPP);
  EXPECT_ERRNO(syscall(SYS_setxattr, file.c_str(), 8L, "v", 1, 0), EFAULT);
  EXPECT_ERRNO(syscall(SYS_setxattr, file.c_str(), "user.a", 8L, 1, 0), EFAULT);
  ASSERT_OK(setxattr(file.c_str(), "user.a", "v", 1, 0));
  EXPECT_ERRNO(syscall(SYS_getxattr, file.c_str(), "user.a", 8L, 8), EFAULT);
}

TEST_F(XattrTest, PermissionsAreTheFilesOrTheSuperusers) {
  ASSERT_OK(setxattr(file.c_str(), "user.a", "v", 1, 0));
  ASSERT_OK(setxattr(file.c_str(), "trusted.a", "v", 1, 0));
  ASSERT_OK(chmod(file.c_str(), 0644));
  EXPECT_EQ(RunAsNobody([&] {
              char value[8], list[256];
              EXPECT_RETURNS(getxattr(file.c_str(), "user.a", value, 8), 1);
              EXPECT_ERRNO(setxattr(file.c_str(), "user.a", "w", 1, 0), EACCES);
              EXPECT_ERRNO(removexattr(file.c_str(), "user.a"), EACCES);
              EXPECT_ERRNO(getxattr(file.c_str(), "trusted.a", value, 8), ENODATA);
              EXPECT_ERRNO(setxattr(file.c_str(), "trusted.a", "w", 1, 0), EPERM);
              EXPECT_EQ(Names(list, listxattr(file.c_str(), list, sizeof(list))), (std::set<std::string>{"user.a"}));
            }),
            0);
  ASSERT_OK(chmod(file.c_str(), 0600));
  EXPECT_EQ(RunAsNobody([&] {
              char value[8];
              EXPECT_ERRNO(getxattr(file.c_str(), "user.a", value, 8), EACCES);
            }),
            0);
}

}  // namespace
}  // namespace redoubt::testing
