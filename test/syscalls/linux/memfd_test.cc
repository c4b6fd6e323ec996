// memfd_create(2) and the seals of fcntl(2).
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <string_view>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"
#include "test/syscalls/util/temp_dir.h"

namespace redoubt::testing {
namespace {

// Newer than the C library's headers.
constexpr unsigned kNoexecSeal = 8;  // MFD_NOEXEC_SEAL
constexpr unsigned kExec = 0x10;     // MFD_EXEC
constexpr int kSealExec = 0x20;      // F_SEAL_EXEC

ScopedFd Memfd(unsigned flags = MFD_ALLOW_SEALING, std::string_view content = "") {
  ScopedFd fd(memfd_create("test", flags));
  EXPECT_OK(fd.get());
  EXPECT_RETURNS(write(fd.get(), content.data(), content.size()), content.size());
  return fd;
}
ScopedFd Reopen(const ScopedFd& fd, int flags) {
  ScopedFd again(open(("/proc/self/fd/" + std::to_string(fd.get())).c_str(), flags));
  EXPECT_OK(again.get());
  return again;
}
int Seal(const ScopedFd& fd, int seals) { return fcntl(fd.get(), F_ADD_SEALS, seals); }

struct Mapping {
  Mapping(const ScopedFd& fd, int prot, int flags = MAP_SHARED, size_t size = 4096)
      : p(static_cast<char*>(mmap(nullptr, size, prot, flags, fd.get(), 0))), size(size), error(errno) {}
  ~Mapping() {
    if (ok()) munmap(p, size);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  bool ok() const { return p != MAP_FAILED; }
  char* p;
  size_t size;
  int error;
};

TEST(MemfdCreate, IsAnEmptyRegularFileWithoutLinks) {
  ScopedFd fd = Memfd(0);
  struct stat st;
  ASSERT_OK(fstat(fd.get(), &st));
  EXPECT_TRUE(S_ISREG(st.st_mode));
  EXPECT_EQ(st.st_mode & 0777, 0777u);
  EXPECT_EQ(st.st_nlink, 0u);
  EXPECT_EQ(st.st_size, 0);
  EXPECT_EQ(st.st_uid, getuid());
  EXPECT_EQ(fcntl(fd.get(), F_GETFL) & O_ACCMODE, O_RDWR);
}

TEST(MemfdCreate, CloexecIsOnRequest) {
  EXPECT_RETURNS(fcntl(Memfd(0).get(), F_GETFD), 0);
  EXPECT_RETURNS(fcntl(Memfd(MFD_CLOEXEC).get(), F_GETFD), FD_CLOEXEC);
}

TEST(MemfdCreate, TheNameIsForThoseWhoLook) {
  ScopedFd fd(memfd_create("some name", 0)), twin(memfd_create("some name", 0));
  ASSERT_OK(twin.get());
  char target[64] = {};
  ASSERT_OK(readlink(("/proc/self/fd/" + std::to_string(fd.get())).c_str(), target, sizeof(target) - 1));
  EXPECT_STREQ(target, "/memfd:some name (deleted)");
  Mapping m(fd, PROT_READ);
  EXPECT_NE(ReadAll("/proc/self/maps").find("/memfd:some name (deleted)"), std::string::npos);
}

TEST(MemfdCreate, NamesMayHave249Bytes) {
  EXPECT_OK(ScopedFd(memfd_create(std::string(249, 'n').c_str(), 0)).get());
  EXPECT_OK(ScopedFd(memfd_create("", 0)).get());
  EXPECT_OK(ScopedFd(memfd_create("with/slash", 0)).get());
  EXPECT_ERRNO(memfd_create(std::string(250, 'n').c_str(), 0), EINVAL);
}

TEST(MemfdCreate, Errors) {
  EXPECT_ERRNO(memfd_create("x", 0x4000), EINVAL);
  EXPECT_ERRNO(memfd_create("x", kExec | kNoexecSeal), EINVAL);
  EXPECT_ERRNO(syscall(SYS_memfd_create, 8L, 0), EFAULT);
}

TEST(MemfdCreate, NoexecSealTakesTheExecutableBits) {
  ScopedFd fd = Memfd(kNoexecSeal);
  struct stat st;
  ASSERT_OK(fstat(fd.get(), &st));
  EXPECT_EQ(st.st_mode & 0777, 0666u);
  EXPECT_RETURNS(fcntl(fd.get(), F_GET_SEALS), kSealExec);
  EXPECT_ERRNO(fchmod(fd.get(), 0777), EPERM);
  EXPECT_OK(fchmod(fd.get(), 0600));
}

TEST(MemfdCreate, ProgramsCanBeRunFromIt) {
  ScopedFd fd = Memfd(MFD_CLOEXEC, ReadAll("/bin/true"));
  EXPECT_EQ(RunChild([&] {
              char name[] = "true";
              char* argv[] = {name, nullptr};
              syscall(SYS_execveat, fd.get(), "", argv, environ, AT_EMPTY_PATH);
              return errno;
            }),
            0);
}

// Contents ------------------------------------------------------------------------------------------------------------

TEST(MemfdFile, ReopeningMakesAnotherDescription) {
  ScopedFd fd = Memfd(0, "0123456789");
  ScopedFd again = Reopen(fd, O_RDONLY);
  char c;
  EXPECT_RETURNS(read(again.get(), &c, 1), 1);
  EXPECT_EQ(c, '0');
  EXPECT_ERRNO(write(again.get(), "x", 1), EBADF);
  EXPECT_ERRNO(ftruncate(again.get(), 0), EINVAL);
  EXPECT_EQ(Mapping(again, PROT_READ | PROT_WRITE).error, EACCES);
}

TEST(MemfdFile, FileAndMappingAgree) {
  ScopedFd fd = Memfd(0);
  ASSERT_OK(ftruncate(fd.get(), 8192));
  Mapping m(fd, PROT_READ | PROT_WRITE, MAP_SHARED, 8192);
  ASSERT_TRUE(m.ok());
  ASSERT_RETURNS(pwrite(fd.get(), "abc", 3, 4095), 3);
  EXPECT_EQ(std::string_view(m.p + 4095, 3), "abc");
  m.p[8191] = 'z';
  char c;
  EXPECT_RETURNS(pread(fd.get(), &c, 1, 8191), 1);
  EXPECT_EQ(c, 'z');
  EXPECT_EQ(RunChild([&] {
              m.p[0] = 'c';
              return 0;
            }),
            0);
  EXPECT_EQ(m.p[0], 'c');
}

TEST(MemfdFile, PrivateMappingsKeepTheirWrites) {
  ScopedFd fd = Memfd(0, "file");
  Mapping m(fd, PROT_READ | PROT_WRITE, MAP_PRIVATE);
  m.p[0] = 'X';
  EXPECT_RETURNS(pwrite(fd.get(), "FILE", 4, 0), 4);
  EXPECT_EQ(m.p[0], 'X');
  char c;
  EXPECT_RETURNS(pread(fd.get(), &c, 1, 0), 1);
  EXPECT_EQ(c, 'F');
}

TEST(MemfdFile, ShrinkingTakesPagesOutOfMappings) {
  ScopedFd fd = Memfd(0);
  ASSERT_OK(ftruncate(fd.get(), 8192));
  Mapping m(fd, PROT_READ | PROT_WRITE, MAP_SHARED, 8192);
  std::memset(m.p, 'x', 8192);
  ASSERT_OK(ftruncate(fd.get(), 100));
  // The rest of the page is zero, the next is not there.
  EXPECT_EQ(m.p[99], 'x');
  EXPECT_EQ(m.p[100], 0);
  int status = RunChild([&] { return *const_cast<volatile char*>(m.p + 4096); });
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS) << status;
  char c = 'y';
  EXPECT_ERRNO(write(fd.get(), m.p + 4096, 1), EFAULT);
  // What is gone does not come back.
  ASSERT_OK(ftruncate(fd.get(), 8192));
  EXPECT_EQ(m.p[4096], 0);
  EXPECT_RETURNS(pread(fd.get(), &c, 1, 4096), 1);
  EXPECT_EQ(c, 0);
}

TEST(MemfdFile, ShrinkingDropsPrivateCopiesToo) {
  ScopedFd fd = Memfd(0);
  ASSERT_OK(ftruncate(fd.get(), 8192));
  Mapping m(fd, PROT_READ | PROT_WRITE, MAP_PRIVATE, 8192);
  m.p[4096] = 'x';
  ASSERT_OK(ftruncate(fd.get(), 4096));
  int status = RunChild([&] { return *const_cast<volatile char*>(m.p + 4096); });
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS) << status;
}

TEST(MemfdFile, IsSparse) {
  ScopedFd fd = Memfd(0);
  ASSERT_OK(ftruncate(fd.get(), off_t{1} << 40));
  struct stat st;
  ASSERT_OK(fstat(fd.get(), &st));
  EXPECT_EQ(st.st_size, off_t{1} << 40);
  EXPECT_EQ(st.st_blocks, 0);
  ASSERT_RETURNS(pwrite(fd.get(), "x", 1, off_t{1} << 39), 1);
  EXPECT_RETURNS(lseek(fd.get(), 0, SEEK_DATA), off_t{1} << 39);
  EXPECT_RETURNS(lseek(fd.get(), off_t{1} << 39, SEEK_HOLE), (off_t{1} << 39) + 4096);
  ASSERT_OK(fstat(fd.get(), &st));
  EXPECT_EQ(st.st_blocks, 8);
  EXPECT_OK(fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off_t{1} << 39, 4096));
  EXPECT_ERRNO(lseek(fd.get(), 0, SEEK_DATA), ENXIO);
  EXPECT_ERRNO(ftruncate(fd.get(), -1), EINVAL);
}

TEST(MemfdFile, PunchedHolesAreZeroInMappings) {
  ScopedFd fd = Memfd(0);
  ASSERT_OK(ftruncate(fd.get(), 8192));
  Mapping m(fd, PROT_READ | PROT_WRITE, MAP_SHARED, 8192);
  std::memset(m.p, 'x', 8192);
  ASSERT_OK(fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096));
  EXPECT_EQ(m.p[4095], 'x');
  EXPECT_EQ(m.p[4096], 0);
}

TEST(MemfdFile, LivesAsLongAsItsLastUser) {
  ScopedFd fd = Memfd(0, "still here");
  Mapping m(fd, PROT_READ);
  fd.reset();
  EXPECT_EQ(std::string_view(m.p, 10), "still here");
}

// Seals ---------------------------------------------------------------------------------------------------------------

TEST(MemfdSeal, NoneAtFirstAndAllForbiddenUnlessAllowed) {
  EXPECT_RETURNS(fcntl(Memfd(MFD_ALLOW_SEALING).get(), F_GET_SEALS), 0);
  ScopedFd fd = Memfd(0);
  EXPECT_RETURNS(fcntl(fd.get(), F_GET_SEALS), F_SEAL_SEAL);
  EXPECT_ERRNO(Seal(fd, F_SEAL_WRITE), EPERM);
}

TEST(MemfdSeal, TheyAddUp) {
  ScopedFd fd = Memfd();
  EXPECT_OK(Seal(fd, F_SEAL_SHRINK));
  EXPECT_OK(Seal(fd, F_SEAL_SHRINK | F_SEAL_GROW));
  EXPECT_RETURNS(fcntl(fd.get(), F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW);
  EXPECT_OK(Seal(fd, F_SEAL_SEAL));
  EXPECT_RETURNS(fcntl(Reopen(fd, O_RDONLY).get(), F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  EXPECT_ERRNO(Seal(fd, F_SEAL_WRITE), EPERM);
  EXPECT_ERRNO(Seal(fd, 0), EPERM);
}

TEST(MemfdSeal, Errors) {
  ScopedFd fd = Memfd();
  EXPECT_ERRNO(Seal(fd, 0x1000), EINVAL);
  EXPECT_ERRNO(Seal(Reopen(fd, O_RDONLY), F_SEAL_WRITE), EPERM);
  int p[2];
  ASSERT_OK(pipe(p));
  EXPECT_ERRNO(fcntl(p[1], F_ADD_SEALS, F_SEAL_WRITE), EINVAL);
  EXPECT_ERRNO(fcntl(p[1], F_GET_SEALS), EINVAL);
  EXPECT_ERRNO(fcntl(-1, F_GET_SEALS), EBADF);
}

TEST(MemfdSeal, ShrinkForbidsShrinking) {
  ScopedFd fd = Memfd(MFD_ALLOW_SEALING, "0123456789");
  ASSERT_OK(Seal(fd, F_SEAL_SHRINK));
  EXPECT_ERRNO(ftruncate(fd.get(), 9), EPERM);
  EXPECT_ERRNO(open(("/proc/self/fd/" + std::to_string(fd.get())).c_str(), O_RDWR | O_TRUNC), EPERM);
  EXPECT_OK(ftruncate(fd.get(), 10));
  EXPECT_OK(ftruncate(fd.get(), 20));
  EXPECT_RETURNS(pwrite(fd.get(), "x", 1, 100), 1);
}

TEST(MemfdSeal, GrowForbidsGrowing) {
  ScopedFd fd = Memfd(MFD_ALLOW_SEALING, "0123456789");
  ASSERT_OK(Seal(fd, F_SEAL_GROW));
  EXPECT_ERRNO(ftruncate(fd.get(), 11), EPERM);
  EXPECT_ERRNO(write(fd.get(), "x", 1), EPERM);
  EXPECT_ERRNO(pwrite(fd.get(), "xy", 2, 9), EPERM);
  EXPECT_ERRNO(fallocate(fd.get(), 0, 0, 11), EPERM);
  EXPECT_RETURNS(pwrite(fd.get(), "x", 1, 9), 1);
  EXPECT_ERRNO(fallocate(fd.get(), FALLOC_FL_KEEP_SIZE, 0, 4096), EPERM);
  EXPECT_OK(ftruncate(fd.get(), 5));
}

TEST(MemfdSeal, WriteForbidsWriting) {
  ScopedFd fd = Memfd(MFD_ALLOW_SEALING, "0123456789");
  ASSERT_OK(Seal(fd, F_SEAL_WRITE));
  EXPECT_ERRNO(pwrite(fd.get(), "x", 1, 0), EPERM);
  EXPECT_ERRNO(fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4), EPERM);
  EXPECT_EQ(Mapping(fd, PROT_READ | PROT_WRITE).error, EPERM);
  // Sizes are other seals' business.
  EXPECT_OK(ftruncate(fd.get(), 20));
  EXPECT_OK(ftruncate(fd.get(), 5));
  Mapping private_copy(fd, PROT_READ | PROT_WRITE, MAP_PRIVATE);
  ASSERT_TRUE(private_copy.ok());
  private_copy.p[0] = 'x';
  Mapping shared(fd, PROT_READ);
  ASSERT_TRUE(shared.ok());
  EXPECT_EQ(shared.p[0], '0');
  EXPECT_ERRNO(mprotect(shared.p, 4096, PROT_READ | PROT_WRITE), EACCES);
}

TEST(MemfdSeal, WriteWaitsForNoWritableMapping) {
  ScopedFd fd = Memfd(MFD_ALLOW_SEALING, "x");
  {
    Mapping m(fd, PROT_READ | PROT_WRITE);
    EXPECT_ERRNO(Seal(fd, F_SEAL_WRITE), EBUSY);
  }
  EXPECT_OK(Seal(fd, F_SEAL_WRITE));
}

TEST(MemfdSeal, WriteWaitsForMappingsThatCouldBeMadeWritable) {
  ScopedFd fd = Memfd(MFD_ALLOW_SEALING, "x");
  Mapping m(fd, PROT_READ | PROT_WRITE);
  EXPECT_OK(mprotect(m.p, 4096, PROT_READ));
  EXPECT_ERRNO(Seal(fd, F_SEAL_WRITE), EBUSY);
}

TEST(MemfdSeal, WriteIsForGood) {
  ScopedFd fd = Memfd(MFD_ALLOW_SEALING, "x");
  Mapping m(fd, PROT_READ | PROT_WRITE);
  ASSERT_OK(mprotect(m.p, 4096, PROT_READ));
  if (Seal(fd, F_SEAL_WRITE) == 0) {
    EXPECT_NE(mprotect(m.p, 4096, PROT_READ | PROT_WRITE), 0);
  }
}

TEST(MemfdSeal, MappingsOfForkedChildrenCount) {
  ScopedFd fd = Memfd(MFD_ALLOW_SEALING, "x");
  int p[2];
  ASSERT_OK(pipe(p));
  pid_t child;
  {
    Mapping m(fd, PROT_READ | PROT_WRITE);
    child = Spawn([&] {
      close(p[1]);
      char c;
      EXPECT_RETURNS(read(p[0], &c, 1), 0);
      return 0;
    });
  }
  EXPECT_ERRNO(Seal(fd, F_SEAL_WRITE), EBUSY);
  close(p[1]);
  EXPECT_EQ(WaitFor(child), 0);
  EXPECT_OK(Seal(fd, F_SEAL_WRITE));
}

TEST(MemfdSeal, PrivateWritableMappingsDoNotKeepItFromBeingSealed) {
  ScopedFd fd = Memfd(MFD_ALLOW_SEALING, "x");
  Mapping m(fd, PROT_READ | PROT_WRITE, MAP_PRIVATE);
  EXPECT_OK(Seal(fd, F_SEAL_WRITE));
}

TEST(MemfdSeal, FutureWriteLeavesMappingsThatExist) {
  ScopedFd fd = Memfd(MFD_ALLOW_SEALING, "x");
  Mapping before(fd, PROT_READ | PROT_WRITE);
  ASSERT_OK(Seal(fd, F_SEAL_FUTURE_WRITE));
  before.p[0] = 'y';
  EXPECT_EQ(before.p[0], 'y');
  EXPECT_ERRNO(pwrite(fd.get(), "z", 1, 0), EPERM);
  EXPECT_EQ(Mapping(fd, PROT_READ | PROT_WRITE).error, EPERM);
  // Those are inherited, split and moved.
  EXPECT_EQ(RunChild([&] {
              before.p[0] = 'z';
              before.p[0] = 'y';
              return 0;
            }),
            0);
  EXPECT_OK(mprotect(before.p, 4096, PROT_READ));
  EXPECT_OK(mprotect(before.p, 4096, PROT_READ | PROT_WRITE));
  Mapping after(fd, PROT_READ);
  ASSERT_TRUE(after.ok());
  EXPECT_EQ(after.p[0], 'y');
  EXPECT_ERRNO(mprotect(after.p, 4096, PROT_READ | PROT_WRITE), EACCES);
}

TEST(MemfdSeal, ExecKeepsTheExecutableBits) {
  ScopedFd fd = Memfd();
  ASSERT_OK(fchmod(fd.get(), 0640));
  ASSERT_OK(Seal(fd, kSealExec));
  EXPECT_ERRNO(fchmod(fd.get(), 0740), EPERM);
  EXPECT_OK(fchmod(fd.get(), 0600));
}

TEST(MemfdSeal, ExecOfAnExecutableSealsItsContentToo) {
  ScopedFd fd = Memfd();
  ASSERT_OK(Seal(fd, kSealExec));  // of mode 0777
  EXPECT_RETURNS(fcntl(fd.get(), F_GET_SEALS),
                 kSealExec | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE);
}

}  // namespace
}  // namespace redoubt::testing
