// open(2), openat(2), close(2), dup(2), fcntl(2): descriptors and how they are made.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"
#include "test/syscalls/util/temp_dir.h"

namespace redoubt::testing {
namespace {

int Open(const std::string& path, int flags, mode_t mode = 0) { return open(path.c_str(), flags, mode); }

TEST(Open, MissingFileFailsWithEnoent) {
  TempDir dir;
  EXPECT_ERRNO(Open(dir / "none", O_RDONLY), ENOENT);
  EXPECT_ERRNO(Open(dir / "none/more", O_RDONLY), ENOENT);
  EXPECT_ERRNO(Open("", O_RDONLY), ENOENT);
}

TEST(Open, MissingDirectoryFailsWithEnoentEvenWhenCreating) {
  TempDir dir;
  EXPECT_ERRNO(Open(dir / "none/more", O_CREAT | O_RDWR, 0600), ENOENT);
}

TEST(Open, ExclusiveCreationOfAnExistingFileFailsWithEexist) {
  TempDir dir;
  std::string file = dir.File("f");
  EXPECT_ERRNO(Open(file, O_CREAT | O_EXCL | O_RDWR, 0600), EEXIST);
  ASSERT_OK(symlink("nowhere", (dir / "l").c_str()));
  EXPECT_ERRNO(Open(dir / "l", O_CREAT | O_EXCL | O_RDWR, 0600), EEXIST);
}

TEST(Open, CreationFollowsADanglingLink) {
  TempDir dir;
  ASSERT_OK(symlink("target", (dir / "l").c_str()));
  ScopedFd fd(Open(dir / "l", O_CREAT | O_RDWR, 0600));
  ASSERT_OK(fd.get());
  EXPECT_OK(access((dir / "target").c_str(), F_OK));
}

TEST(Open, WritingADirectoryFailsWithEisdir) {
  TempDir dir;
  EXPECT_ERRNO(Open(dir.path(), O_RDWR), EISDIR);
  EXPECT_ERRNO(Open(dir.path(), O_WRONLY), EISDIR);
  EXPECT_ERRNO(Open(dir.path(), O_RDONLY | O_CREAT, 0600), EISDIR);
}

TEST(Open, DirectoryFlagOnAFileFailsWithEnotdir) {
  TempDir dir;
  std::string file = dir.File("f");
  EXPECT_ERRNO(Open(file, O_RDONLY | O_DIRECTORY), ENOTDIR);
  EXPECT_ERRNO(Open(file + "/x", O_RDONLY), ENOTDIR);
  EXPECT_ERRNO(Open(file + "/", O_RDONLY), ENOTDIR);
}

TEST(Open, NofollowOfALinkFailsWithEloop) {
  TempDir dir;
  dir.File("f");
  ASSERT_OK(symlink("f", (dir / "l").c_str()));
  EXPECT_ERRNO(Open(dir / "l", O_RDONLY | O_NOFOLLOW), ELOOP);
}

TEST(Open, CircleOfLinksFailsWithEloop) {
  TempDir dir;
  ASSERT_OK(symlink("b", (dir / "a").c_str()));
  ASSERT_OK(symlink("a", (dir / "b").c_str()));
  EXPECT_ERRNO(Open(dir / "a", O_RDONLY), ELOOP);
}

TEST(Open, LongNamesFailWithEnametoolong) {
  TempDir dir;
  EXPECT_ERRNO(Open(dir / std::string(256, 'x'), O_RDONLY), ENAMETOOLONG);
  std::string deep = dir.path();
  while (deep.size() < 4096) deep += "/.";
  EXPECT_ERRNO(Open(deep, O_RDONLY), ENAMETOOLONG);
  ScopedFd fd(Open(dir / std::string(255, 'x'), O_CREAT | O_RDWR, 0600));
  EXPECT_OK(fd.get());
}

TEST(Open, BadAddressFailsWithEfault) {
  EXPECT_ERRNO(syscall(SYS_open, nullptr, O_RDONLY), EFAULT);
  EXPECT_ERRNO(syscall(SYS_open, -1L, O_RDONLY), EFAULT);
  EXPECT_ERRNO(syscall(SYS_openat, AT_FDCWD, 8L, O_RDONLY), EFAULT);
}

TEST(Open, BadDirectoryDescriptorFailsWithEbadf) {
  EXPECT_ERRNO(openat(-1, "x", O_RDONLY), EBADF);
  EXPECT_ERRNO(openat(900, "x", O_RDONLY), EBADF);
}

TEST(Open, AbsolutePathIgnoresTheDirectoryDescriptor) {
  TempDir dir;
  ScopedFd fd(openat(-1, dir.File("f").c_str(), O_RDONLY));
  EXPECT_OK(fd.get());
}

TEST(Open, FileAsDirectoryDescriptorFailsWithEnotdir) {
  TempDir dir;
  ScopedFd fd = dir.Open("f");
  EXPECT_ERRNO(openat(fd.get(), "x", O_RDONLY), ENOTDIR);
}

TEST(Open, RelativeToADescriptor) {
  TempDir dir;
  dir.File("f", "abc");
  ScopedFd d(Open(dir.path(), O_RDONLY | O_DIRECTORY));
  ScopedFd fd(openat(d.get(), "f", O_RDONLY));
  char c[4] = {};
  ASSERT_RETURNS(read(fd.get(), c, 4), 3);
  EXPECT_STREQ(c, "abc");
}

TEST(Open, NobodyIsDeniedWithEacces) {
  TempDir dir;
  std::string secret = dir.File("secret", "", 0600);
  std::string readable = dir.File("readable", "", 0644);
  std::string closed = dir.Dir("closed", 0700);
  dir.File("closed/f");
  EXPECT_EQ(RunAsNobody([&] {
              EXPECT_ERRNO(Open(secret, O_RDONLY), EACCES);
              EXPECT_ERRNO(Open(readable, O_RDWR), EACCES);
              EXPECT_ERRNO(Open(readable, O_RDONLY | O_TRUNC), EACCES);
              EXPECT_ERRNO(Open(closed + "/f", O_RDONLY), EACCES);
              EXPECT_ERRNO(Open(dir / "new", O_CREAT | O_RDWR, 0600), EACCES);
              EXPECT_OK(Open(readable, O_RDONLY));
            }),
            0);
}

TEST(Open, NoatimeOfAnothersFileFailsWithEperm) {
  TempDir dir;
  std::string file = dir.File("f");
  EXPECT_EQ(RunAsNobody([&] { EXPECT_ERRNO(Open(file, O_RDONLY | O_NOATIME), EPERM); }), 0);
}

TEST(Open, ExceedingTheLimitFailsWithEmfile) {
  ASSERT_OK(syscall(SYS_close_range, 3, ~0u, 0));
  rlimit limit{16, 4096};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = 16;
  ASSERT_OK(setrlimit(RLIMIT_NOFILE, &limit));
  int opened = 0;
  for (int i = 0; i < 20; i++) {
    int fd = open("/", O_RDONLY);
    if (fd < 0) break;
    EXPECT_LT(fd, 16);
    opened++;
  }
  EXPECT_EQ(opened, 13);
  EXPECT_ERRNO(open("/", O_RDONLY), EMFILE);
  EXPECT_ERRNO(dup(0), EMFILE);
  EXPECT_ERRNO(fcntl(0, F_DUPFD, 16), EINVAL);
  EXPECT_ERRNO(fcntl(0, F_DUPFD, 15), EMFILE);
  EXPECT_ERRNO(dup2(0, 16), EBADF);
  // The test runner has a report to write.
  ASSERT_OK(syscall(SYS_close_range, 3, ~0u, 0));
}

TEST(Open, UsesTheLowestFreeDescriptor) {
  ScopedFd a(open("/", O_RDONLY)), b(open("/", O_RDONLY)), c(open("/", O_RDONLY));
  int low = a.get();
  a.reset();
  b.reset();
  ScopedFd again(open("/", O_RDONLY));
  EXPECT_EQ(again.get(), low);
}

TEST(Open, CreationModeObeysTheUmask) {
  TempDir dir;
  umask(027);
  ScopedFd fd(Open(dir / "f", O_CREAT | O_RDWR, 04777));
  struct stat st;
  ASSERT_OK(fstat(fd.get(), &st));
  EXPECT_EQ(st.st_mode, S_IFREG | 04750u);
}

TEST(Open, CreatingReadOnlyFileStillWritable) {
  TempDir dir;
  ScopedFd fd(Open(dir / "f", O_CREAT | O_RDWR, 0400));
  ASSERT_OK(fd.get());
  EXPECT_RETURNS(write(fd.get(), "x", 1), 1);
}

TEST(Open, TruncateEmptiesTheFile) {
  TempDir dir;
  std::string file = dir.File("f", "content");
  ScopedFd fd(Open(file, O_WRONLY | O_TRUNC));
  struct stat st;
  ASSERT_OK(fstat(fd.get(), &st));
  EXPECT_EQ(st.st_size, 0);
}

TEST(Open, AppendWritesAtTheEnd) {
  TempDir dir;
  std::string file = dir.File("f", "one");
  ScopedFd fd(Open(file, O_WRONLY | O_APPEND));
  ASSERT_OK(lseek(fd.get(), 0, SEEK_SET));
  ASSERT_RETURNS(write(fd.get(), "two", 3), 3);
  EXPECT_EQ(ReadAll(file), "onetwo");
  EXPECT_RETURNS(lseek(fd.get(), 0, SEEK_CUR), 6);
}

TEST(Open, PathDescriptorAllowsNoIo) {
  TempDir dir;
  std::string file = dir.File("f", "abc");
  ScopedFd fd(Open(file, O_PATH));
  ASSERT_OK(fd.get());
  char c;
  struct stat st;
  EXPECT_ERRNO(read(fd.get(), &c, 1), EBADF);
  EXPECT_ERRNO(write(fd.get(), &c, 1), EBADF);
  EXPECT_ERRNO(fchmod(fd.get(), 0600), EBADF);
  EXPECT_ERRNO(ftruncate(fd.get(), 0), EBADF);
  EXPECT_ERRNO(ioctl(fd.get(), 0x5401, &st), EBADF);
  EXPECT_OK(fstat(fd.get(), &st));
  EXPECT_EQ(fcntl(fd.get(), F_GETFL) & O_PATH, O_PATH);
}

TEST(Open, PathAndNofollowNameALinkItself) {
  TempDir dir;
  ASSERT_OK(symlink("nowhere", (dir / "l").c_str()));
  ScopedFd fd(Open(dir / "l", O_PATH | O_NOFOLLOW));
  ASSERT_OK(fd.get());
  struct stat st;
  ASSERT_OK(fstat(fd.get(), &st));
  EXPECT_TRUE(S_ISLNK(st.st_mode));
}

TEST(Open, TmpfileHasNoName) {
  TempDir dir;
  ScopedFd fd(Open(dir.path(), O_TMPFILE | O_RDWR, 0600));
  ASSERT_OK(fd.get());
  struct stat st;
  ASSERT_OK(fstat(fd.get(), &st));
  EXPECT_EQ(st.st_nlink, 0u);
  EXPECT_RETURNS(write(fd.get(), "x", 1), 1);
}

TEST(Open, TmpfileWithoutWriteAccessFailsWithEinval) {
  TempDir dir;
  EXPECT_ERRNO(Open(dir.path(), O_TMPFILE | O_RDONLY, 0600), EINVAL);
}

TEST(Open, FifoForWritingWithoutReaderFailsWithEnxio) {
  TempDir dir;
  ASSERT_OK(mkfifo((dir / "p").c_str(), 0600));
  EXPECT_ERRNO(Open(dir / "p", O_WRONLY | O_NONBLOCK), ENXIO);
  ScopedFd reader(Open(dir / "p", O_RDONLY | O_NONBLOCK));
  ASSERT_OK(reader.get());
  ScopedFd writer(Open(dir / "p", O_WRONLY | O_NONBLOCK));
  EXPECT_OK(writer.get());
}

TEST(Open, FifoWaitsForTheOtherSide) {
  TempDir dir;
  std::string fifo = dir / "p";
  ASSERT_OK(mkfifo(fifo.c_str(), 0600));
  pid_t child = Spawn([&] {
    ScopedFd w(Open(fifo, O_WRONLY));
    EXPECT_RETURNS(write(w.get(), "hi", 2), 2);
    return 0;
  });
  ScopedFd r(Open(fifo, O_RDONLY));
  char c[3] = {};
  EXPECT_RETURNS(read(r.get(), c, 2), 2);
  EXPECT_EQ(WaitFor(child), 0);
  EXPECT_RETURNS(read(r.get(), c, 2), 0);
}

TEST(Open, CreatIsWriteOnlyAndTruncates) {
  TempDir dir;
  std::string file = dir.File("f", "abc");
  ScopedFd fd(creat(file.c_str(), 0600));
  EXPECT_EQ(fcntl(fd.get(), F_GETFL) & O_ACCMODE, O_WRONLY);
  EXPECT_EQ(ReadAll(file), "");
}

struct OpenHow {
  uint64_t flags = 0, mode = 0, resolve = 0;
};
constexpr uint64_t kNoSymlinks = 4, kBeneath = 8, kInRoot = 16;

int Openat2(int dirfd, const char* path, OpenHow how, size_t size = sizeof(OpenHow)) {
  return static_cast<int>(syscall(SYS_openat2, dirfd, path, &how, size));
}

TEST(Openat2, BeneathRefusesEscapes) {
  TempDir dir;
  dir.Dir("d");
  dir.File("d/f");
  ASSERT_OK(symlink("..", (dir / "d/up").c_str()));
  ScopedFd d(Open(dir / "d", O_PATH));
  ScopedFd ok(Openat2(d.get(), "f", {.resolve = kBeneath}));
  EXPECT_OK(ok.get());
  EXPECT_ERRNO(Openat2(d.get(), "..", {.resolve = kBeneath}), EXDEV);
  EXPECT_ERRNO(Openat2(d.get(), "up/d/f", {.resolve = kBeneath}), EXDEV);
  EXPECT_ERRNO(Openat2(d.get(), "/", {.resolve = kBeneath}), EXDEV);
}

TEST(Openat2, InRootTreatsTheDirectoryAsRoot) {
  TempDir dir;
  dir.Dir("d");
  dir.File("d/f");
  ASSERT_OK(symlink("/f", (dir / "d/abs").c_str()));
  ScopedFd d(Open(dir / "d", O_PATH));
  ScopedFd a(Openat2(d.get(), "/f", {.resolve = kInRoot})), b(Openat2(d.get(), "../../f", {.resolve = kInRoot})),
      c(Openat2(d.get(), "abs", {.resolve = kInRoot}));
  EXPECT_OK(a.get());
  EXPECT_OK(b.get());
  EXPECT_OK(c.get());
}

TEST(Openat2, NoSymlinksFailsWithEloop) {
  TempDir dir;
  dir.File("f");
  ASSERT_OK(symlink("f", (dir / "l").c_str()));
  ScopedFd d(Open(dir.path(), O_PATH));
  EXPECT_ERRNO(Openat2(d.get(), "l", {.resolve = kNoSymlinks}), ELOOP);
}

TEST(Openat2, BadArgumentsFail) {
  EXPECT_ERRNO(Openat2(AT_FDCWD, "/", {.flags = 1ull << 40}), EINVAL);
  EXPECT_ERRNO(Openat2(AT_FDCWD, "/", {.mode = 0600}), EINVAL);
  EXPECT_ERRNO(Openat2(AT_FDCWD, "/", {.flags = O_CREAT, .mode = 0200000}), EINVAL);
  EXPECT_ERRNO(Openat2(AT_FDCWD, "/", {.resolve = 1 << 20}), EINVAL);
  EXPECT_ERRNO(Openat2(AT_FDCWD, "/", {}, 8), EINVAL);
  struct {
    OpenHow how;
    uint64_t future = 1;
  } big;
  EXPECT_ERRNO(syscall(SYS_openat2, AT_FDCWD, "/", &big, sizeof(big)), E2BIG);
  EXPECT_ERRNO(syscall(SYS_openat2, AT_FDCWD, "/", nullptr, sizeof(OpenHow)), EFAULT);
}

TEST(Close, ClosedDescriptorFailsWithEbadf) {
  int fd = open("/", O_RDONLY);
  ASSERT_OK(close(fd));
  EXPECT_ERRNO(close(fd), EBADF);
  EXPECT_ERRNO(close(-1), EBADF);
  EXPECT_ERRNO(close(1 << 30), EBADF);
}

TEST(CloseRange, ClosesExactlyTheRange) {
  for (int fd = 20; fd < 30; fd++) ASSERT_OK(dup2(0, fd));
  ASSERT_OK(syscall(SYS_close_range, 22, 26, 0));
  for (int fd = 20; fd < 30; fd++) EXPECT_EQ(fcntl(fd, F_GETFD) >= 0, fd < 22 || fd > 26) << fd;
  ASSERT_OK(syscall(SYS_close_range, 27, ~0u, 4));  // CLOSE_RANGE_CLOEXEC
  EXPECT_RETURNS(fcntl(28, F_GETFD), FD_CLOEXEC);
  EXPECT_ERRNO(syscall(SYS_close_range, 5, 4, 0), EINVAL);
  EXPECT_ERRNO(syscall(SYS_close_range, 5, 6, 0x80), EINVAL);
}

TEST(Dup, SharesTheOffset) {
  TempDir dir;
  ScopedFd fd = dir.Open("f", "abcdef");
  ScopedFd copy(dup(fd.get()));
  char c[2];
  ASSERT_RETURNS(read(fd.get(), c, 2), 2);
  EXPECT_RETURNS(lseek(copy.get(), 0, SEEK_CUR), 2);
}

TEST(Dup, DoesNotCopyCloexec) {
  ScopedFd fd(open("/", O_RDONLY | O_CLOEXEC));
  ScopedFd copy(dup(fd.get()));
  EXPECT_RETURNS(fcntl(fd.get(), F_GETFD), FD_CLOEXEC);
  EXPECT_RETURNS(fcntl(copy.get(), F_GETFD), 0);
}

TEST(Dup, BadDescriptorFailsWithEbadf) {
  EXPECT_ERRNO(dup(-1), EBADF);
  EXPECT_ERRNO(dup(500), EBADF);
  EXPECT_ERRNO(dup2(500, 10), EBADF);
  EXPECT_ERRNO(dup2(0, -1), EBADF);
  EXPECT_ERRNO(dup2(0, 1 << 30), EBADF);
  EXPECT_ERRNO(dup3(500, 10, 0), EBADF);
}

TEST(Dup, Dup2ToItselfDoesNothing) {
  EXPECT_RETURNS(dup2(0, 0), 0);
  EXPECT_ERRNO(dup2(500, 500), EBADF);
}

TEST(Dup, Dup2ReplacesAnOpenDescriptor) {
  TempDir dir;
  ScopedFd a = dir.Open("a", "A"), b = dir.Open("b", "B");
  ASSERT_RETURNS(dup2(a.get(), b.get()), b.get());
  char c;
  ASSERT_RETURNS(read(b.get(), &c, 1), 1);
  EXPECT_EQ(c, 'A');
}

TEST(Dup, Dup3RefusesItselfAndUnknownFlags) {
  EXPECT_ERRNO(dup3(0, 0, 0), EINVAL);
  EXPECT_ERRNO(dup3(0, 10, O_APPEND), EINVAL);
  ASSERT_RETURNS(dup3(0, 10, O_CLOEXEC), 10);
  EXPECT_RETURNS(fcntl(10, F_GETFD), FD_CLOEXEC);
}

TEST(Fcntl, DupfdUsesTheFirstFreeFromTheArgument) {
  ASSERT_RETURNS(fcntl(0, F_DUPFD, 40), 40);
  EXPECT_RETURNS(fcntl(0, F_DUPFD_CLOEXEC, 40), 41);
  EXPECT_RETURNS(fcntl(41, F_GETFD), FD_CLOEXEC);
  EXPECT_ERRNO(fcntl(0, F_DUPFD, -1), EINVAL);
}

TEST(Fcntl, StatusFlagsAreReadAndChanged) {
  TempDir dir;
  ScopedFd fd = dir.Open("f", "", O_APPEND);
  EXPECT_EQ(fcntl(fd.get(), F_GETFL) & (O_ACCMODE | O_APPEND | O_CREAT), O_RDWR | O_APPEND);
  ASSERT_OK(fcntl(fd.get(), F_SETFL, O_NONBLOCK | O_WRONLY));
  EXPECT_EQ(fcntl(fd.get(), F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK), O_RDWR | O_NONBLOCK);
}

TEST(Fcntl, StatusFlagsAreSharedByCopies) {
  int p[2];
  ASSERT_OK(pipe(p));
  int copy = dup(p[0]);
  ASSERT_OK(fcntl(copy, F_SETFL, O_NONBLOCK));
  char c;
  EXPECT_ERRNO(read(p[0], &c, 1), EAGAIN);
}

TEST(Fcntl, UnknownCommandFailsWithEinval) { EXPECT_ERRNO(fcntl(0, 9999), EINVAL); }
TEST(Fcntl, BadDescriptorFailsWithEbadf) { EXPECT_ERRNO(fcntl(500, F_GETFD), EBADF); }

TEST(Fcntl, PipeSizeIsRoundedUp) {
  int p[2];
  ASSERT_OK(pipe(p));
  EXPECT_RETURNS(fcntl(p[0], F_GETPIPE_SZ), 65536);
  EXPECT_RETURNS(fcntl(p[0], F_SETPIPE_SZ, 5000), 8192);
  EXPECT_RETURNS(fcntl(p[1], F_GETPIPE_SZ), 8192);
  ScopedFd dir(open("/", O_RDONLY));
  EXPECT_ERRNO(fcntl(dir.get(), F_GETPIPE_SZ), EBADF);
}

flock Lock(short type, off_t start, off_t length) {
  flock l{};
  l.l_type = type;
  l.l_whence = SEEK_SET;
  l.l_start = start;
  l.l_len = length;
  return l;
}

TEST(RecordLock, ConflictsBetweenProcesses) {
  TempDir dir;
  ScopedFd fd = dir.Open("f", "0123456789");
  flock mine = Lock(F_WRLCK, 2, 4);
  ASSERT_OK(fcntl(fd.get(), F_SETLK, &mine));
  pid_t parent = getpid();
  EXPECT_EQ(RunChild([&] {
              flock other = Lock(F_RDLCK, 5, 1);
              EXPECT_ERRNO(fcntl(fd.get(), F_SETLK, &other), EAGAIN);
              other = Lock(F_RDLCK, 0, 0);
              EXPECT_OK(fcntl(fd.get(), F_GETLK, &other));
              EXPECT_EQ(other.l_type, F_WRLCK);
              EXPECT_EQ(other.l_start, 2);
              EXPECT_EQ(other.l_len, 4);
              EXPECT_EQ(other.l_pid, parent);
              other = Lock(F_WRLCK, 6, 0);
              EXPECT_OK(fcntl(fd.get(), F_SETLK, &other));
              return 0;
            }),
            0);
  flock probe = Lock(F_WRLCK, 0, 0);
  ASSERT_OK(fcntl(fd.get(), F_GETLK, &probe));
  EXPECT_EQ(probe.l_type, F_UNLCK);
}

TEST(RecordLock, WaitsUntilUnlocked) {
  TempDir dir;
  ScopedFd fd = dir.Open("f");
  flock lock = Lock(F_WRLCK, 0, 0);
  ASSERT_OK(fcntl(fd.get(), F_SETLK, &lock));
  pid_t child = Spawn([&] {
    flock l = Lock(F_WRLCK, 0, 0);
    EXPECT_OK(fcntl(fd.get(), F_SETLKW, &l));
    return 0;
  });
  SleepMs(30);
  lock.l_type = F_UNLCK;
  ASSERT_OK(fcntl(fd.get(), F_SETLK, &lock));
  EXPECT_EQ(WaitFor(child), 0);
}

TEST(RecordLock, DeadlockFailsWithEdeadlk) {
  TempDir dir;
  ScopedFd fd = dir.Open("f");
  int ready[2];
  ASSERT_OK(pipe(ready));
  flock a = Lock(F_WRLCK, 0, 1);
  ASSERT_OK(fcntl(fd.get(), F_SETLK, &a));
  pid_t child = Spawn([&] {
    flock b = Lock(F_WRLCK, 1, 1), wanted = Lock(F_WRLCK, 0, 1);
    EXPECT_OK(fcntl(fd.get(), F_SETLK, &b));
    EXPECT_RETURNS(write(ready[1], "x", 1), 1);
    EXPECT_OK(fcntl(fd.get(), F_SETLKW, &wanted));
    return 0;
  });
  char c;
  ASSERT_RETURNS(read(ready[0], &c, 1), 1);
  SleepMs(50);
  flock b = Lock(F_WRLCK, 1, 1);
  EXPECT_ERRNO(fcntl(fd.get(), F_SETLKW, &b), EDEADLK);
  a.l_type = F_UNLCK;
  ASSERT_OK(fcntl(fd.get(), F_SETLK, &a));
  EXPECT_EQ(WaitFor(child), 0);
}

TEST(RecordLock, ClosingAnyDescriptorOfTheFileDropsThem) {
  TempDir dir;
  ScopedFd fd = dir.Open("f");
  flock lock = Lock(F_WRLCK, 0, 0);
  ASSERT_OK(fcntl(fd.get(), F_SETLK, &lock));
  ASSERT_OK(close(Open(dir / "f", O_RDONLY)));
  EXPECT_EQ(RunChild([&] {
              flock l = Lock(F_WRLCK, 0, 0);
              EXPECT_OK(fcntl(fd.get(), F_SETLK, &l));
              return 0;
            }),
            0);
}

TEST(RecordLock, WrongAccessModeFailsWithEbadf) {
  TempDir dir;
  ScopedFd fd(Open(dir.File("f"), O_RDONLY));
  flock lock = Lock(F_WRLCK, 0, 0);
  EXPECT_ERRNO(fcntl(fd.get(), F_SETLK, &lock), EBADF);
  lock = Lock(77, 0, 0);
  EXPECT_ERRNO(fcntl(fd.get(), F_SETLK, &lock), EINVAL);
}

TEST(OpenFileLock, ConflictsBetweenDescriptionsOfOneProcess) {
  TempDir dir;
  ScopedFd a = dir.Open("f"), b(Open(dir / "f", O_RDWR));
  flock lock = Lock(F_WRLCK, 0, 0);
  ASSERT_OK(fcntl(a.get(), F_OFD_SETLK, &lock));
  EXPECT_ERRNO(fcntl(b.get(), F_OFD_SETLK, &lock), EAGAIN);
  a.reset();
  EXPECT_OK(fcntl(b.get(), F_OFD_SETLK, &lock));
}

}  // namespace
}  // namespace redoubt::testing
