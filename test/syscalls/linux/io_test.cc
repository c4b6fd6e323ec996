// read(2), write(2) and their vector and positioned kin, lseek(2), ftruncate(2), fallocate(2), sync calls, copy calls.
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"
#include "test/syscalls/util/temp_dir.h"

namespace redoubt::testing {
namespace {

void* const kBad = reinterpret_cast<void*>(8);

class Io : public ::testing::Test {
 protected:
  TempDir dir_;
  ScopedFd fd_ = dir_.Open("f", "0123456789");
  char buf_[64] = {};
};

TEST_F(Io, ReadAdvancesTheOffset) {
  ASSERT_RETURNS(read(fd_.get(), buf_, 4), 4);
  EXPECT_STREQ(buf_, "0123");
  ASSERT_RETURNS(read(fd_.get(), buf_, 40), 6);
  EXPECT_STREQ(buf_, "456789");
  EXPECT_RETURNS(read(fd_.get(), buf_, 40), 0);
}

TEST_F(Io, BadDescriptorFailsWithEbadf) {
  EXPECT_ERRNO(read(500, buf_, 1), EBADF);
  EXPECT_ERRNO(write(500, buf_, 1), EBADF);
  EXPECT_ERRNO(pread(500, buf_, 1, 0), EBADF);
  EXPECT_ERRNO(lseek(500, 0, SEEK_SET), EBADF);
  EXPECT_ERRNO(fsync(500), EBADF);
  EXPECT_ERRNO(ftruncate(500, 0), EBADF);
}

TEST_F(Io, WrongAccessModeFailsWithEbadf) {
  ScopedFd w(open((dir_ / "f").c_str(), O_WRONLY)), r(open((dir_ / "f").c_str(), O_RDONLY));
  EXPECT_ERRNO(read(w.get(), buf_, 1), EBADF);
  EXPECT_ERRNO(pread(w.get(), buf_, 1, 0), EBADF);
  EXPECT_ERRNO(write(r.get(), buf_, 1), EBADF);
  EXPECT_ERRNO(pwrite(r.get(), buf_, 1, 0), EBADF);
  EXPECT_ERRNO(ftruncate(r.get(), 0), EINVAL);
}

TEST_F(Io, BadBufferFailsWithEfault) {
  EXPECT_ERRNO(syscall(SYS_read, fd_.get(), kBad, 4), EFAULT);
  EXPECT_ERRNO(syscall(SYS_write, fd_.get(), kBad, 4), EFAULT);
  EXPECT_ERRNO(syscall(SYS_readv, fd_.get(), kBad, 1), EFAULT);
  iovec v{kBad, 4};
  EXPECT_ERRNO(readv(fd_.get(), &v, 1), EFAULT);
  EXPECT_RETURNS(lseek(fd_.get(), 0, SEEK_CUR), 0);
}

TEST_F(Io, ReadStopsAtAnUnmappedPage) {
  char* page = static_cast<char*>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_OK(munmap(page + 4096, 4096));
  int p[2];
  ASSERT_OK(pipe(p));
  memset(page, 'x', 4096);
  // A pipe takes what is there.
  EXPECT_RETURNS(write(p[1], page + 4090, 6), 6);
  // Files: Linux writes what it could copy.
  EXPECT_RETURNS(write(fd_.get(), page + 4090, 12), 6);
}

TEST_F(Io, ReadingADirectoryFailsWithEisdir) {
  ScopedFd d(open(dir_.path().c_str(), O_RDONLY));
  EXPECT_ERRNO(read(d.get(), buf_, 1), EISDIR);
  EXPECT_ERRNO(pread(d.get(), buf_, 1, 0), EISDIR);
}

TEST_F(Io, WriteExtendsAndSeekLeavesAHole) {
  ASSERT_RETURNS(lseek(fd_.get(), 20, SEEK_SET), 20);
  ASSERT_RETURNS(write(fd_.get(), "x", 1), 1);
  EXPECT_EQ(ReadAll(dir_ / "f"), std::string("0123456789") + std::string(10, '\0') + "x");
}

TEST_F(Io, PreadAndPwriteLeaveTheOffset) {
  ASSERT_RETURNS(pread(fd_.get(), buf_, 3, 5), 3);
  EXPECT_STREQ(buf_, "567");
  ASSERT_RETURNS(pwrite(fd_.get(), "ab", 2, 8), 2);
  EXPECT_RETURNS(lseek(fd_.get(), 0, SEEK_CUR), 0);
  EXPECT_EQ(ReadAll(dir_ / "f"), "01234567ab");
  EXPECT_RETURNS(pread(fd_.get(), buf_, 3, 100), 0);
}

TEST_F(Io, NegativeOffsetFailsWithEinval) {
  EXPECT_ERRNO(pread(fd_.get(), buf_, 1, -1), EINVAL);
  EXPECT_ERRNO(pwrite(fd_.get(), buf_, 1, -1), EINVAL);
  iovec v{buf_, 1};
  EXPECT_ERRNO(preadv(fd_.get(), &v, 1, -1), EINVAL);
}

TEST_F(Io, PositionedIoOnAPipeFailsWithEspipe) {
  int p[2];
  ASSERT_OK(pipe(p));
  EXPECT_ERRNO(pread(p[0], buf_, 1, 0), ESPIPE);
  EXPECT_ERRNO(pwrite(p[1], buf_, 1, 0), ESPIPE);
  EXPECT_ERRNO(lseek(p[0], 0, SEEK_SET), ESPIPE);
  iovec v{buf_, 1};
  EXPECT_ERRNO(preadv(p[0], &v, 1, 0), ESPIPE);
}

TEST_F(Io, VectorsScatterAndGather) {
  char a[3] = {}, b[5] = {};
  iovec v[3] = {{a, 2}, {nullptr, 0}, {b, 4}};
  ASSERT_RETURNS(readv(fd_.get(), v, 3), 6);
  EXPECT_STREQ(a, "01");
  EXPECT_STREQ(b, "2345");
  ASSERT_RETURNS(pwritev(fd_.get(), v, 3, 10), 6);
  EXPECT_EQ(ReadAll(dir_ / "f"), "0123456789012345");
}

TEST_F(Io, BadVectorsFailWithEinval) {
  iovec v[2] = {{buf_, SIZE_MAX / 2 + 1}, {buf_, 1}};
  EXPECT_ERRNO(readv(fd_.get(), v, 1), EINVAL);
  EXPECT_ERRNO(syscall(SYS_readv, fd_.get(), v, -1), EINVAL);
  EXPECT_ERRNO(syscall(SYS_readv, fd_.get(), v, 1025), EINVAL);
  EXPECT_ERRNO(syscall(SYS_writev, fd_.get(), v, IOV_MAX + 1), EINVAL);
  EXPECT_RETURNS(syscall(SYS_readv, fd_.get(), v, 0), 0);
}

TEST_F(Io, Preadv2WithMinusOneUsesTheOffset) {
  iovec v{buf_, 3};
  ASSERT_RETURNS(preadv2(fd_.get(), &v, 1, -1, 0), 3);
  EXPECT_RETURNS(lseek(fd_.get(), 0, SEEK_CUR), 3);
  EXPECT_ERRNO(preadv2(fd_.get(), &v, 1, 0, 0x40000000), EOPNOTSUPP);
}

TEST_F(Io, Pwritev2AppendsOnRequest) {
  char x[] = "xy";
  iovec v{x, 2};
  ASSERT_RETURNS(pwritev2(fd_.get(), &v, 1, 0, 0x10), 2);  // RWF_APPEND
  EXPECT_EQ(ReadAll(dir_ / "f"), "0123456789xy");
}

TEST_F(Io, LseekFromEveryOrigin) {
  EXPECT_RETURNS(lseek(fd_.get(), 4, SEEK_SET), 4);
  EXPECT_RETURNS(lseek(fd_.get(), -1, SEEK_CUR), 3);
  EXPECT_RETURNS(lseek(fd_.get(), -2, SEEK_END), 8);
  EXPECT_RETURNS(lseek(fd_.get(), 100, SEEK_END), 110);
}

TEST_F(Io, LseekBeforeTheStartFailsWithEinval) {
  EXPECT_ERRNO(lseek(fd_.get(), -1, SEEK_SET), EINVAL);
  EXPECT_ERRNO(lseek(fd_.get(), -11, SEEK_END), EINVAL);
  EXPECT_ERRNO(lseek(fd_.get(), 0, 99), EINVAL);
}

TEST_F(Io, SeekDataAndHole) {
  EXPECT_RETURNS(lseek(fd_.get(), 0, SEEK_DATA), 0);
  EXPECT_RETURNS(lseek(fd_.get(), 0, SEEK_HOLE), 10);
  EXPECT_ERRNO(lseek(fd_.get(), 10, SEEK_DATA), ENXIO);
  EXPECT_ERRNO(lseek(fd_.get(), 11, SEEK_HOLE), ENXIO);
}

TEST_F(Io, FtruncateShrinksAndGrowsWithZeros) {
  ASSERT_OK(ftruncate(fd_.get(), 3));
  ASSERT_OK(ftruncate(fd_.get(), 6));
  EXPECT_EQ(ReadAll(dir_ / "f"), std::string("012\0\0\0", 6));
  EXPECT_ERRNO(ftruncate(fd_.get(), -1), EINVAL);
  int p[2];
  ASSERT_OK(pipe(p));
  EXPECT_ERRNO(ftruncate(p[1], 0), EINVAL);
}

TEST_F(Io, TruncateByPath) {
  std::string f = dir_ / "f";
  ASSERT_OK(truncate(f.c_str(), 2));
  EXPECT_EQ(ReadAll(f), "01");
  EXPECT_ERRNO(truncate((dir_ / "none").c_str(), 0), ENOENT);
  EXPECT_ERRNO(truncate(dir_.path().c_str(), 0), EISDIR);
  EXPECT_ERRNO(truncate(f.c_str(), -1), EINVAL);
  EXPECT_EQ(RunAsNobody([&] { EXPECT_ERRNO(truncate(f.c_str(), 0), EACCES); }), 0);
}

TEST_F(Io, FileSizeLimitRaisesSigxfszAndFailsWithEfbig) {
  rlimit limit{5, 5};
  ASSERT_OK(setrlimit(RLIMIT_FSIZE, &limit));
  signal(SIGXFSZ, SIG_IGN);
  EXPECT_ERRNO(pwrite(fd_.get(), "x", 1, 5), EFBIG);
  EXPECT_RETURNS(pwrite(fd_.get(), "xyz", 3, 3), 2);
  EXPECT_ERRNO(ftruncate(fd_.get(), 20), EFBIG);
  int status = RunChild([&] {
    signal(SIGXFSZ, SIG_DFL);
    pwrite(fd_.get(), "x", 1, 5);
    return 0;
  });
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ) << status;
}

TEST_F(Io, FallocateGrowsTheFile) {
  ASSERT_OK(fallocate(fd_.get(), 0, 0, 5000));
  struct stat st;
  ASSERT_OK(fstat(fd_.get(), &st));
  EXPECT_EQ(st.st_size, 5000);
  ASSERT_OK(fallocate(fd_.get(), FALLOC_FL_KEEP_SIZE, 0, 9000));
  ASSERT_OK(fstat(fd_.get(), &st));
  EXPECT_EQ(st.st_size, 5000);
  EXPECT_ERRNO(fallocate(fd_.get(), 0, -1, 1), EINVAL);
  EXPECT_ERRNO(fallocate(fd_.get(), 0, 0, 0), EINVAL);
  int p[2];
  ASSERT_OK(pipe(p));
  EXPECT_ERRNO(fallocate(p[1], 0, 0, 1), ESPIPE);
}

TEST_F(Io, FallocatePunchesHoles) {
  ASSERT_OK(fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2, 3));
  EXPECT_EQ(ReadAll(dir_ / "f"), std::string("01\0\0\0"
                                             "56789",
                                             10));
}

TEST_F(Io, SyncCallsSucceedOnFilesAndRefusePipes) {
  EXPECT_OK(fsync(fd_.get()));
  EXPECT_OK(fdatasync(fd_.get()));
  EXPECT_OK(syncfs(fd_.get()));
  int p[2];
  ASSERT_OK(pipe(p));
  EXPECT_ERRNO(fsync(p[0]), EINVAL);
}

TEST_F(Io, SyncFileRangeChecksItsRange) {
  EXPECT_OK(sync_file_range(fd_.get(), 0, 0, 0));
  EXPECT_OK(sync_file_range(fd_.get(), 2, 4, SYNC_FILE_RANGE_WRITE));
  EXPECT_ERRNO(sync_file_range(fd_.get(), -1, 1, 0), EINVAL);
  EXPECT_ERRNO(sync_file_range(fd_.get(), 1, -1, 0), EINVAL);
  EXPECT_ERRNO(sync_file_range(fd_.get(), INT64_MAX, 1, 0), EINVAL);
  EXPECT_ERRNO(sync_file_range(fd_.get(), 0, 1, 8), EINVAL);
  EXPECT_ERRNO(sync_file_range(500, -1, 1, 8), EBADF);
  ScopedFd path(open(dir_.path().c_str(), O_PATH));
  EXPECT_ERRNO(sync_file_range(path.get(), 0, 1, 0), EBADF);
  int p[2];
  ASSERT_OK(pipe(p));
  EXPECT_ERRNO(sync_file_range(p[0], 0, 1, 0), ESPIPE);
}

TEST_F(Io, SendfileCopiesFromAFile) {
  ScopedFd out = dir_.Open("out");
  off_t offset = 2;
  ASSERT_RETURNS(sendfile(out.get(), fd_.get(), &offset, 5), 5);
  EXPECT_EQ(offset, 7);
  EXPECT_RETURNS(lseek(fd_.get(), 0, SEEK_CUR), 0);
  EXPECT_EQ(ReadAll(dir_ / "out"), "23456");
  ASSERT_RETURNS(sendfile(out.get(), fd_.get(), nullptr, 100), 10);
  EXPECT_RETURNS(lseek(fd_.get(), 0, SEEK_CUR), 10);
  EXPECT_RETURNS(sendfile(out.get(), fd_.get(), nullptr, 100), 0);
  EXPECT_ERRNO(sendfile(out.get(), 500, nullptr, 1), EBADF);
}

TEST_F(Io, CopyFileRangeCopiesWithinOffsets) {
  ScopedFd out = dir_.Open("out", "..........");
  loff_t from = 1, to = 3;
  ASSERT_RETURNS(copy_file_range(fd_.get(), &from, out.get(), &to, 4, 0), 4);
  EXPECT_EQ(from, 5);
  EXPECT_EQ(to, 7);
  EXPECT_EQ(ReadAll(dir_ / "out"), "...1234...");
  EXPECT_ERRNO(copy_file_range(fd_.get(), &from, out.get(), &to, 4, 1), EINVAL);
  from = 0, to = 2;
  EXPECT_ERRNO(copy_file_range(fd_.get(), &from, fd_.get(), &to, 4, 0), EINVAL);
}

TEST_F(Io, SpliceMovesBetweenPipeAndFile) {
  int p[2];
  ASSERT_OK(pipe(p));
  ASSERT_RETURNS(splice(fd_.get(), nullptr, p[1], nullptr, 4, 0), 4);
  ASSERT_RETURNS(read(p[0], buf_, 64), 4);
  EXPECT_STREQ(buf_, "0123");
  ASSERT_RETURNS(write(p[1], "ABC", 3), 3);
  loff_t offset = 7;
  ASSERT_RETURNS(splice(p[0], nullptr, fd_.get(), &offset, 3, 0), 3);
  EXPECT_EQ(ReadAll(dir_ / "f"), "0123456ABC");
  EXPECT_ERRNO(splice(fd_.get(), nullptr, fd_.get(), nullptr, 1, 0), EINVAL);
  EXPECT_ERRNO(splice(p[0], &offset, fd_.get(), nullptr, 1, 0), ESPIPE);
  EXPECT_ERRNO(splice(p[0], nullptr, fd_.get(), nullptr, 1, SPLICE_F_NONBLOCK), EAGAIN);
}

TEST_F(Io, FadviseChecksItsArguments) {
  EXPECT_EQ(posix_fadvise(fd_.get(), 0, 0, POSIX_FADV_SEQUENTIAL), 0);
  EXPECT_EQ(posix_fadvise(fd_.get(), 0, 0, 99), EINVAL);
  EXPECT_EQ(posix_fadvise(500, 0, 0, 0), EBADF);
  int p[2];
  ASSERT_OK(pipe(p));
  EXPECT_EQ(posix_fadvise(p[0], 0, 0, 0), ESPIPE);
}

TEST_F(Io, LargeTransfersAreWhole) {
  std::vector<char> out(3 << 20), in(3 << 20);
  for (size_t i = 0; i < out.size(); i++) out[i] = static_cast<char>(i * 7 + i / 4096);
  ASSERT_RETURNS(pwrite(fd_.get(), out.data(), out.size(), 1), out.size());
  ASSERT_RETURNS(pread(fd_.get(), in.data(), in.size(), 1), in.size());
  EXPECT_TRUE(in == out);
}

TEST(Devices, NullZeroFull) {
  ScopedFd null(open("/dev/null", O_RDWR)), zero(open("/dev/zero", O_RDWR)), full(open("/dev/full", O_RDWR));
  char c[4] = {1, 1, 1, 1};
  EXPECT_RETURNS(write(null.get(), c, 4), 4);
  EXPECT_RETURNS(read(null.get(), c, 4), 0);
  EXPECT_RETURNS(read(zero.get(), c, 4), 4);
  EXPECT_EQ(c[0] | c[1] | c[2] | c[3], 0);
  EXPECT_ERRNO(write(full.get(), c, 4), ENOSPC);
  EXPECT_RETURNS(read(full.get(), c, 4), 4);
}

}  // namespace
}  // namespace redoubt::testing
