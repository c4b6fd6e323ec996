// Advisory locks: flock(2), fcntl(2)'s record locks, traditional and of open file descriptions.
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <thread>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"
#include "test/syscalls/util/temp_dir.h"

namespace redoubt::testing {
namespace {

struct flock Lock(short type, off_t start, off_t length) {
  struct flock l{};
  l.l_type = type;
  l.l_whence = SEEK_SET;
  l.l_start = start;
  l.l_len = length;
  return l;
}
int Set(int fd, int command, struct flock l) { return fcntl(fd, command, &l); }

TEST(Flock, DescriptionsExcludeEachOther) {
  TempDir dir;
  ScopedFd a = dir.Open("f");
  ScopedFd b(open((dir / "f").c_str(), O_RDWR));
  EXPECT_OK(flock(a.get(), LOCK_EX));
  EXPECT_THAT(flock(b.get(), LOCK_SH | LOCK_NB), SyscallFails(EWOULDBLOCK));
  EXPECT_OK(flock(a.get(), LOCK_SH));
  EXPECT_OK(flock(b.get(), LOCK_SH | LOCK_NB));
  EXPECT_THAT(flock(b.get(), LOCK_EX | LOCK_NB), SyscallFails(EWOULDBLOCK));
  EXPECT_OK(flock(a.get(), LOCK_UN));
  EXPECT_OK(flock(b.get(), LOCK_EX | LOCK_NB));
  EXPECT_THAT(flock(a.get(), 77), SyscallFails(EINVAL));
  EXPECT_THAT(flock(-1, LOCK_EX), SyscallFails(EBADF));
}

TEST(Flock, DuplicatesShareAndTheLastCloseReleases) {
  TempDir dir;
  ScopedFd a = dir.Open("f");
  ScopedFd b(open((dir / "f").c_str(), O_RDWR));
  ScopedFd copy(dup(a.get()));
  EXPECT_OK(flock(a.get(), LOCK_EX));
  a.reset();
  EXPECT_THAT(flock(b.get(), LOCK_EX | LOCK_NB), SyscallFails(EWOULDBLOCK));
  copy.reset();
  EXPECT_OK(flock(b.get(), LOCK_EX | LOCK_NB));
}

TEST(Flock, WaitsForTheHolder) {
  TempDir dir;
  ScopedFd a = dir.Open("f");
  ScopedFd b(open((dir / "f").c_str(), O_RDWR));
  EXPECT_OK(flock(a.get(), LOCK_EX));
  std::thread releaser([&] {
    SleepMs(40);
    flock(a.get(), LOCK_UN);
  });
  int64_t start = NowMs();
  EXPECT_OK(flock(b.get(), LOCK_EX));
  EXPECT_GE(NowMs() - start, 30);
  releaser.join();
}

TEST(RecordLock, RangesExcludeOtherProcesses) {
  TempDir dir;
  ScopedFd fd = dir.Open("f", "0123456789");
  EXPECT_OK(Set(fd.get(), F_SETLK, Lock(F_WRLCK, 2, 4)));
  pid_t holder = getpid();
  EXPECT_EQ(RunChild([&] {
              EXPECT_THAT(Set(fd.get(), F_SETLK, Lock(F_RDLCK, 0, 3)), SyscallFails(EAGAIN));
              EXPECT_OK(Set(fd.get(), F_SETLK, Lock(F_WRLCK, 0, 2)));
              EXPECT_OK(Set(fd.get(), F_SETLK, Lock(F_WRLCK, 6, 0)));
              struct flock test = Lock(F_WRLCK, 0, 100);
              EXPECT_OK(fcntl(fd.get(), F_GETLK, &test));
              EXPECT_EQ(test.l_type, F_WRLCK);
              EXPECT_EQ(test.l_start, 2);
              EXPECT_EQ(test.l_len, 4);
              EXPECT_EQ(test.l_pid, holder);
              return 0;
            }),
            0);
  // What the child held went with it.
  struct flock test = Lock(F_WRLCK, 6, 0);
  EXPECT_OK(fcntl(fd.get(), F_GETLK, &test));
  EXPECT_EQ(test.l_type, F_UNLCK);
}

TEST(RecordLock, SplitsAndJoins) {
  TempDir dir;
  ScopedFd fd = dir.Open("f");
  EXPECT_OK(Set(fd.get(), F_SETLK, Lock(F_WRLCK, 0, 100)));
  EXPECT_OK(Set(fd.get(), F_SETLK, Lock(F_UNLCK, 40, 20)));
  EXPECT_EQ(RunChild([&] {
              EXPECT_OK(Set(fd.get(), F_SETLK, Lock(F_WRLCK, 40, 20)));
              EXPECT_THAT(Set(fd.get(), F_SETLK, Lock(F_WRLCK, 39, 1)), SyscallFails(EAGAIN));
              EXPECT_THAT(Set(fd.get(), F_SETLK, Lock(F_WRLCK, 60, 1)), SyscallFails(EAGAIN));
              return 0;
            }),
            0);
}

TEST(RecordLock, AnyCloseReleases) {
  TempDir dir;
  ScopedFd fd = dir.Open("f");
  EXPECT_OK(Set(fd.get(), F_SETLK, Lock(F_WRLCK, 0, 0)));
  close(open((dir / "f").c_str(), O_RDONLY));
  EXPECT_EQ(RunChild([&] {
              EXPECT_OK(Set(fd.get(), F_SETLK, Lock(F_WRLCK, 0, 0)));
              return 0;
            }),
            0);
}

TEST(RecordLock, Errors) {
  TempDir dir;
  dir.File("f");
  ScopedFd r(open((dir / "f").c_str(), O_RDONLY));
  ScopedFd w(open((dir / "f").c_str(), O_WRONLY));
  EXPECT_THAT(Set(r.get(), F_SETLK, Lock(F_WRLCK, 0, 0)), SyscallFails(EBADF));
  EXPECT_THAT(Set(w.get(), F_SETLK, Lock(F_RDLCK, 0, 0)), SyscallFails(EBADF));
  EXPECT_THAT(Set(r.get(), F_SETLK, Lock(F_RDLCK, -1, 0)), SyscallFails(EINVAL));
  EXPECT_THAT(Set(r.get(), F_SETLK, Lock(99, 0, 0)), SyscallFails(EINVAL));
  EXPECT_THAT(fcntl(r.get(), F_SETLK, nullptr), SyscallFails(EFAULT));
}

TEST(RecordLock, DeadlockIsFound) {
  TempDir dir;
  ScopedFd fd = dir.Open("f");
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  EXPECT_OK(Set(fd.get(), F_SETLK, Lock(F_WRLCK, 0, 1)));
  pid_t child = Spawn([&] {
    EXPECT_OK(Set(fd.get(), F_SETLK, Lock(F_WRLCK, 1, 1)));
    char c = 'r';
    EXPECT_THAT(write(ready[1], &c, 1), SyscallReturns(1));
    EXPECT_OK(Set(fd.get(), F_SETLKW, Lock(F_WRLCK, 0, 1)));  // until the parent gives up
    return 0;
  });
  char c;
  EXPECT_THAT(read(ready[0], &c, 1), SyscallReturns(1));
  SleepMs(50);
  EXPECT_THAT(Set(fd.get(), F_SETLKW, Lock(F_WRLCK, 1, 1)), SyscallFails(EDEADLK));
  EXPECT_OK(Set(fd.get(), F_SETLK, Lock(F_UNLCK, 0, 1)));
  EXPECT_EQ(WaitFor(child), 0);
  close(ready[0]);
  close(ready[1]);
}

TEST(RecordLock, WaitingIsInterruptible) {
  TempDir dir;
  ScopedFd fd = dir.Open("f");
  EXPECT_OK(Set(fd.get(), F_SETLK, Lock(F_WRLCK, 0, 1)));
  EXPECT_EQ(RunChild([&] {
              struct sigaction action{};
              action.sa_handler = [](int) {};
              sigaction(SIGALRM, &action, nullptr);
              alarm(1);
              EXPECT_THAT(Set(fd.get(), F_SETLKW, Lock(F_WRLCK, 0, 1)), SyscallFails(EINTR));
              return 0;
            }),
            0);
}

TEST(OfdLock, BelongsToTheDescription) {
  TempDir dir;
  ScopedFd a = dir.Open("f");
  ScopedFd b(open((dir / "f").c_str(), O_RDWR));
  EXPECT_OK(Set(a.get(), F_OFD_SETLK, Lock(F_WRLCK, 0, 10)));
  EXPECT_THAT(Set(b.get(), F_OFD_SETLK, Lock(F_WRLCK, 5, 1)), SyscallFails(EAGAIN));
  struct flock test = Lock(F_WRLCK, 0, 0);
  EXPECT_OK(fcntl(b.get(), F_OFD_GETLK, &test));
  EXPECT_EQ(test.l_pid, -1);
  test = Lock(F_WRLCK, 0, 0);
  test.l_pid = 5;
  EXPECT_THAT(fcntl(b.get(), F_OFD_SETLK, &test), SyscallFails(EINVAL));
  a.reset();
  EXPECT_OK(Set(b.get(), F_OFD_SETLK, Lock(F_WRLCK, 5, 1)));
}

}  // namespace
}  // namespace redoubt::testing
