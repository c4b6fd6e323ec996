// mmap(2) and kin: mappings, faults, copy on write, memfd_create(2).
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"
#include "test/syscalls/util/temp_dir.h"

namespace redoubt::testing {
namespace {

constexpr size_t kPage = 4096;
constexpr int kRw = PROT_READ | PROT_WRITE;

char* Map(size_t length, int prot = kRw, int flags = MAP_PRIVATE | MAP_ANONYMOUS, int fd = -1, off_t offset = 0) {
  void* p = mmap(nullptr, length, prot, flags, fd, offset);
  EXPECT_OK(reinterpret_cast<intptr_t>(p));
  return static_cast<char*>(p);
}
intptr_t Raw(void* addr, size_t length, int prot, int flags, int fd = -1, off_t offset = 0) {
  return reinterpret_cast<intptr_t>(mmap(addr, length, prot, flags, fd, offset));
}

// The signal and code that touching an address raises; {0, 0} if none.
struct Fault {
  int signal = 0, code = 0;
  void* address = nullptr;
};
sigjmp_buf escape;
Fault caught;
void OnFault(int sig, siginfo_t* info, void*) {
  caught = {sig, info->si_code, info->si_addr};
  siglongjmp(escape, 1);
}
Fault Touch(volatile char* p, bool write) {
  struct sigaction sa{};
  sa.sa_sigaction = OnFault;
  sa.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &sa, nullptr);
  sigaction(SIGBUS, &sa, nullptr);
  caught = {};
  if (sigsetjmp(escape, 1) == 0) {
    if (write) {
      *p = 1;
    } else {
      (void)*p;
    }
  }
  return caught;
}

TEST(Mmap, AnonymousMemoryIsZero) {
  char* p = Map(3 * kPage);
  for (size_t i = 0; i < 3 * kPage; i++) ASSERT_EQ(p[i], 0);
  p[kPage] = 1;
  EXPECT_OK(munmap(p, 3 * kPage));
  EXPECT_EQ(Touch(p, false).code, SEGV_MAPERR);
}

TEST(Mmap, ErrorsOfArguments) {
  EXPECT_ERRNO(Raw(nullptr, 0, kRw, MAP_PRIVATE | MAP_ANONYMOUS), EINVAL);
  EXPECT_ERRNO(Raw(nullptr, kPage, kRw, MAP_ANONYMOUS), EINVAL);
  EXPECT_ERRNO(Raw(nullptr, kPage, kRw, MAP_PRIVATE, -1), EBADF);
  EXPECT_ERRNO(Raw(nullptr, SIZE_MAX - kPage, kRw, MAP_PRIVATE | MAP_ANONYMOUS), ENOMEM);
  EXPECT_ERRNO(Raw(reinterpret_cast<void*>(0x1001), kPage, kRw, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED), EINVAL);
  EXPECT_ERRNO(syscall(SYS_mmap, nullptr, kPage, kRw, MAP_PRIVATE | MAP_ANONYMOUS, -1, 5), EINVAL);
  TempDir dir;
  std::string f = dir.File("f", "x");
  ScopedFd ro(open(f.c_str(), O_RDONLY)), wo(open(f.c_str(), O_WRONLY)), d(open(dir.path().c_str(), O_RDONLY));
  EXPECT_ERRNO(Raw(nullptr, kPage, kRw, MAP_SHARED, ro.get()), EACCES);
  EXPECT_ERRNO(Raw(nullptr, kPage, PROT_READ, MAP_PRIVATE, wo.get()), EACCES);
  EXPECT_ERRNO(Raw(nullptr, kPage, PROT_READ, MAP_PRIVATE, d.get()), ENODEV);
  int p[2];
  ASSERT_OK(pipe(p));
  EXPECT_ERRNO(Raw(nullptr, kPage, PROT_READ, MAP_PRIVATE, p[0]), ENODEV);
}

TEST(Mmap, FixedReplacesAndNoreplaceRefuses) {
  char* p = Map(3 * kPage);
  p[kPage] = 7;
  EXPECT_ERRNO(Raw(p + kPage, kPage, kRw, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE), EEXIST);
  EXPECT_EQ(p[kPage], 7);
  EXPECT_RETURNS(Raw(p + kPage, kPage, kRw, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED),
                 reinterpret_cast<intptr_t>(p + kPage));
  EXPECT_EQ(p[kPage], 0);
}

TEST(Mmap, FaultCodes) {
  char* p = Map(kPage, PROT_READ);
  Fault f = Touch(p + 5, true);
  EXPECT_EQ(f.signal, SIGSEGV);
  EXPECT_EQ(f.code, SEGV_ACCERR);
  EXPECT_EQ(f.address, p + 5);
  f = Touch(reinterpret_cast<char*>(16), false);
  EXPECT_EQ(f.signal, SIGSEGV);
  EXPECT_EQ(f.code, SEGV_MAPERR);
  EXPECT_EQ(f.address, reinterpret_cast<void*>(16));
  char* none = Map(kPage, PROT_NONE);
  EXPECT_EQ(Touch(none, false).code, SEGV_ACCERR);
  EXPECT_EQ(Touch(p, false).signal, 0);
}

TEST(Mmap, PastTheEndOfAFileRaisesSigbus) {
  TempDir dir;
  ScopedFd fd = dir.Open("f", "abc");
  char* p = Map(2 * kPage, kRw, MAP_SHARED, fd.get());
  EXPECT_EQ(p[3], 0);
  Fault f = Touch(p + kPage, false);
  EXPECT_EQ(f.signal, SIGBUS);
  EXPECT_EQ(f.code, BUS_ADRERR);
  ASSERT_OK(ftruncate(fd.get(), 2 * kPage));
  EXPECT_EQ(Touch(p + kPage, false).signal, 0);
  ASSERT_OK(ftruncate(fd.get(), 0));
  EXPECT_EQ(Touch(p, false).signal, SIGBUS);
}

TEST(Mmap, SharedFileMappingsAndFileIoAgree) {
  TempDir dir;
  ScopedFd fd = dir.Open("f", std::string(2 * kPage, 'a'));
  char* a = Map(2 * kPage, kRw, MAP_SHARED, fd.get());
  char* b = Map(kPage, PROT_READ, MAP_SHARED, fd.get(), kPage);
  a[kPage] = 'X';
  EXPECT_EQ(b[0], 'X');
  ASSERT_RETURNS(pwrite(fd.get(), "Y", 1, 5), 1);
  EXPECT_EQ(a[5], 'Y');
  char c = 0;
  ASSERT_RETURNS(pread(fd.get(), &c, 1, kPage), 1);
  EXPECT_EQ(c, 'X');
  EXPECT_OK(msync(a, 2 * kPage, MS_SYNC));
}

TEST(Mmap, PrivateFileMappingsKeepTheirWrites) {
  TempDir dir;
  ScopedFd fd = dir.Open("f", std::string(kPage, 'a'));
  char* p = Map(kPage, kRw, MAP_PRIVATE, fd.get());
  p[0] = 'X';
  char c = 0;
  ASSERT_RETURNS(pread(fd.get(), &c, 1, 0), 1);
  EXPECT_EQ(c, 'a');
  ASSERT_RETURNS(pwrite(fd.get(), "Z", 1, 0), 1);
  EXPECT_EQ(p[0], 'X');
}

TEST(Mmap, MappingOutlivesDescriptorAndName) {
  TempDir dir;
  ScopedFd fd = dir.Open("f", "hello");
  char* p = Map(kPage, PROT_READ, MAP_SHARED, fd.get());
  fd.reset();
  ASSERT_OK(unlink((dir / "f").c_str()));
  EXPECT_STREQ(p, "hello");
}

TEST(Mmap, ForkCopiesPrivateAndSharesShared) {
  char* priv = Map(kPage);
  char* shared = Map(kPage, kRw, MAP_SHARED | MAP_ANONYMOUS);
  priv[0] = shared[0] = 1;
  EXPECT_EQ(RunChild([&] {
              EXPECT_EQ(priv[0], 1);
              priv[0] = 2;
              shared[0] = 2;
              return 0;
            }),
            0);
  EXPECT_EQ(priv[0], 1);
  EXPECT_EQ(shared[0], 2);
}

TEST(Mmap, ParentsWritesAfterForkAreNotSeenByTheChild) {
  char* p = Map(64 * kPage);
  for (int i = 0; i < 64; i++) p[i * kPage] = static_cast<char>(i);
  int go[2];
  ASSERT_OK(pipe(go));
  pid_t child = Spawn([&] {
    char c;
    EXPECT_RETURNS(read(go[0], &c, 1), 1);
    for (int i = 0; i < 64; i++) EXPECT_EQ(p[i * kPage], i);
    return 0;
  });
  for (int i = 0; i < 64; i++) p[i * kPage] = 99;
  ASSERT_RETURNS(write(go[1], "x", 1), 1);
  EXPECT_EQ(WaitFor(child), 0);
}

TEST(Mmap, SystemCallsSeeCopyOnWriteToo) {
  char* p = Map(kPage);
  p[0] = 'a';
  int pipes[2];
  ASSERT_OK(pipe(pipes));
  ASSERT_RETURNS(write(pipes[1], "b", 1), 1);
  EXPECT_EQ(RunChild([&] {
              EXPECT_RETURNS(read(pipes[0], p, 1), 1);
              EXPECT_EQ(p[0], 'b');
              return 0;
            }),
            0);
  EXPECT_EQ(p[0], 'a');
}

TEST(Mmap, StackGrowsDown) {
  int status = RunChild([] {
    volatile char big[512 << 10];
    for (size_t i = sizeof(big); i > 0; i -= 1024) big[i - 1] = 1;
    return big[sizeof(big) - 1] - 1;
  });
  EXPECT_EQ(status, 0);
}

TEST(Mmap, ExecutableMemoryRuns) {
  char* p = Map(kPage);
  // mov $42, %eax; ret
  const unsigned char code[] = {0xb8, 42, 0, 0, 0, 0xc3};
  memcpy(p, code, sizeof(code));
  ASSERT_OK(mprotect(p, kPage, PROT_READ | PROT_EXEC));
  EXPECT_EQ(reinterpret_cast<int (*)()>(p)(), 42);
  ASSERT_OK(mprotect(p, kPage, PROT_READ | PROT_WRITE));
  p[1] = 43;
  ASSERT_OK(mprotect(p, kPage, PROT_READ | PROT_EXEC));
  EXPECT_EQ(reinterpret_cast<int (*)()>(p)(), 43);
}

TEST(Munmap, SplitsMappings) {
  char* p = Map(3 * kPage);
  ASSERT_OK(munmap(p + kPage, kPage));
  EXPECT_EQ(Touch(p, true).signal, 0);
  EXPECT_EQ(Touch(p + kPage, true).code, SEGV_MAPERR);
  EXPECT_EQ(Touch(p + 2 * kPage, true).signal, 0);
  EXPECT_OK(munmap(p, 3 * kPage));
  EXPECT_OK(munmap(p, 3 * kPage));
}

TEST(Munmap, ErrorsOfArguments) {
  char* p = Map(kPage);
  EXPECT_ERRNO(munmap(p + 1, kPage), EINVAL);
  EXPECT_ERRNO(munmap(p, 0), EINVAL);
}

TEST(Mprotect, ChangesAPart) {
  char* p = Map(3 * kPage);
  p[kPage] = 5;
  ASSERT_OK(mprotect(p + kPage, kPage, PROT_READ));
  EXPECT_EQ(Touch(p + kPage, true).code, SEGV_ACCERR);
  EXPECT_EQ(p[kPage], 5);
  EXPECT_EQ(Touch(p, true).signal, 0);
  ASSERT_OK(mprotect(p, 3 * kPage, kRw));
  EXPECT_EQ(Touch(p + kPage, true).signal, 0);
}

TEST(Mprotect, ErrorsOfArguments) {
  char* p = Map(2 * kPage);
  ASSERT_OK(munmap(p + kPage, kPage));
  EXPECT_ERRNO(mprotect(p, 2 * kPage, PROT_READ), ENOMEM);
  EXPECT_ERRNO(mprotect(p + 1, kPage, PROT_READ), EINVAL);
  EXPECT_ERRNO(mprotect(p, kPage, 0x100), EINVAL);
  TempDir dir;
  ScopedFd fd(open(dir.File("f", "x").c_str(), O_RDONLY));
  char* f = Map(kPage, PROT_READ, MAP_SHARED, fd.get());
  EXPECT_ERRNO(mprotect(f, kPage, kRw), EACCES);
}

TEST(Mremap, GrowsMovesAndShrinks) {
  char* p = Map(2 * kPage);
  p[0] = 1;
  p[kPage] = 2;
  char* q = static_cast<char*>(mremap(p, 2 * kPage, 64 * kPage, MREMAP_MAYMOVE));
  ASSERT_NE(q, MAP_FAILED);
  EXPECT_EQ(q[0], 1);
  EXPECT_EQ(q[kPage], 2);
  EXPECT_EQ(q[63 * kPage], 0);
  EXPECT_EQ(mremap(q, 64 * kPage, kPage, 0), q);
  EXPECT_EQ(Touch(q + kPage, false).code, SEGV_MAPERR);
  char* target = Map(kPage);
  EXPECT_EQ(mremap(q, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, target), target);
  EXPECT_EQ(target[0], 1);
  EXPECT_EQ(Touch(q, false).code, SEGV_MAPERR);
}

TEST(Mremap, ErrorsOfArguments) {
  auto remap = [](void* p, size_t from, size_t to, int flags, void* at = nullptr) {
    return syscall(SYS_mremap, p, from, to, flags, at);
  };
  char* p = Map(2 * kPage);
  EXPECT_ERRNO(remap(p + 1, kPage, kPage, 0), EINVAL);
  EXPECT_ERRNO(remap(p, kPage, 0, 0), EINVAL);
  EXPECT_ERRNO(remap(p, kPage, kPage, 0x80), EINVAL);
  EXPECT_ERRNO(remap(p, kPage, kPage, MREMAP_FIXED, p), EINVAL);
  EXPECT_ERRNO(remap(p, kPage, 2 * kPage, 0), ENOMEM);
  ASSERT_OK(munmap(p, 2 * kPage));
  EXPECT_ERRNO(remap(p, kPage, 2 * kPage, MREMAP_MAYMOVE), EFAULT);
}

TEST(Brk, GrowsAndShrinks) {
  char* start = static_cast<char*>(sbrk(0));
  ASSERT_OK(brk(start + 8 * kPage));
  start[7 * kPage] = 1;
  EXPECT_EQ(sbrk(0), start + 8 * kPage);
  ASSERT_OK(brk(start));
  ASSERT_OK(brk(start + 8 * kPage));
  EXPECT_EQ(start[7 * kPage], 0);
  EXPECT_EQ(syscall(SYS_brk, 1L), reinterpret_cast<long>(start + 8 * kPage));
}

TEST(Madvise, DontneedZeroesPrivateMemory) {
  char* p = Map(2 * kPage);
  p[0] = p[kPage] = 1;
  ASSERT_OK(madvise(p, kPage, MADV_DONTNEED));
  EXPECT_EQ(p[0], 0);
  EXPECT_EQ(p[kPage], 1);
  EXPECT_ERRNO(madvise(p + 1, kPage, MADV_DONTNEED), EINVAL);
  EXPECT_ERRNO(madvise(p, kPage, 9999), EINVAL);
  ASSERT_OK(munmap(p, 2 * kPage));
  EXPECT_ERRNO(madvise(p, kPage, MADV_DONTNEED), ENOMEM);
}

TEST(Madvise, DontforkAndWipeonfork) {
  char* gone = Map(kPage);
  char* wiped = Map(kPage);
  gone[0] = wiped[0] = 1;
  ASSERT_OK(madvise(gone, kPage, MADV_DONTFORK));
  ASSERT_OK(madvise(wiped, kPage, MADV_WIPEONFORK));
  EXPECT_EQ(RunChild([&] {
              EXPECT_EQ(wiped[0], 0);
              EXPECT_EQ(Touch(gone, false).code, SEGV_MAPERR);
              return 0;
            }),
            0);
  EXPECT_EQ(wiped[0], 1);
}

TEST(Mincore, TellsTouchedPages) {
  char* p = Map(2 * kPage);
  p[0] = 1;
  unsigned char v[2] = {9, 9};
  ASSERT_OK(mincore(p, 2 * kPage, v));
  EXPECT_EQ(v[0] & 1, 1);
  EXPECT_ERRNO(mincore(p + 1, kPage, v), EINVAL);
  EXPECT_ERRNO(syscall(SYS_mincore, p, kPage, 8L), EFAULT);
  ASSERT_OK(munmap(p, 2 * kPage));
  EXPECT_ERRNO(mincore(p, kPage, v), ENOMEM);
}

TEST(Msync, ErrorsOfArguments) {
  char* p = Map(kPage);
  EXPECT_OK(msync(p, kPage, MS_ASYNC));
  EXPECT_ERRNO(msync(p + 1, kPage, MS_SYNC), EINVAL);
  EXPECT_ERRNO(msync(p, kPage, MS_SYNC | MS_ASYNC), EINVAL);
  ASSERT_OK(munmap(p, kPage));
  EXPECT_ERRNO(msync(p, kPage, MS_SYNC), ENOMEM);
}

TEST(Mlock, IsAccepted) {
  char* p = Map(kPage);
  EXPECT_OK(mlock(p, kPage));
  EXPECT_OK(munlock(p, kPage));
}

TEST(Limits, AddressSpaceLimitFailsWithEnomem) {
  EXPECT_EQ(RunChild([] {
              rlimit l{256 << 20, 256 << 20};
              EXPECT_OK(setrlimit(RLIMIT_AS, &l));
              EXPECT_ERRNO(Raw(nullptr, 512 << 20, kRw, MAP_PRIVATE | MAP_ANONYMOUS), ENOMEM);
              return 0;
            }),
            0);
}

TEST(Memfd, HoldsDataWithoutAName) {
  ScopedFd fd(memfd_create("x", MFD_CLOEXEC));
  ASSERT_OK(fd.get());
  EXPECT_RETURNS(fcntl(fd.get(), F_GETFD), FD_CLOEXEC);
  ASSERT_OK(ftruncate(fd.get(), 2 * kPage));
  char* p = Map(2 * kPage, kRw, MAP_SHARED, fd.get());
  p[kPage] = 'z';
  char c = 0;
  ASSERT_RETURNS(pread(fd.get(), &c, 1, kPage), 1);
  EXPECT_EQ(c, 'z');
  struct stat st;
  ASSERT_OK(fstat(fd.get(), &st));
  EXPECT_EQ(st.st_size, static_cast<off_t>(2 * kPage));
}

TEST(Memfd, SealsForbid) {
  ScopedFd fd(memfd_create("x", MFD_ALLOW_SEALING));
  ASSERT_OK(ftruncate(fd.get(), kPage));
  EXPECT_RETURNS(fcntl(fd.get(), F_GET_SEALS), 0);
  ASSERT_OK(fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW));
  EXPECT_ERRNO(ftruncate(fd.get(), 0), EPERM);
  EXPECT_ERRNO(ftruncate(fd.get(), 2 * kPage), EPERM);
  EXPECT_ERRNO(pwrite(fd.get(), "x", 1, kPage), EPERM);
  char* p = Map(kPage, kRw, MAP_SHARED, fd.get());
  EXPECT_ERRNO(fcntl(fd.get(), F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
  ASSERT_OK(munmap(p, kPage));
  ASSERT_OK(fcntl(fd.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL));
  EXPECT_ERRNO(pwrite(fd.get(), "x", 1, 0), EPERM);
  EXPECT_ERRNO(Raw(nullptr, kPage, kRw, MAP_SHARED, fd.get()), EPERM);
  EXPECT_ERRNO(fcntl(fd.get(), F_ADD_SEALS, F_SEAL_GROW), EPERM);
}

TEST(Memfd, ErrorsOfArguments) {
  EXPECT_ERRNO(memfd_create("x", 0x80), EINVAL);
  EXPECT_ERRNO(memfd_create(std::string(250, 'x').c_str(), 0), EINVAL);
  EXPECT_ERRNO(syscall(SYS_memfd_create, 8L, 0), EFAULT);
  ScopedFd fd(memfd_create("x", 0));
  EXPECT_ERRNO(fcntl(fd.get(), F_ADD_SEALS, F_SEAL_GROW), EPERM);
}

}  // namespace
}  // namespace redoubt::testing
