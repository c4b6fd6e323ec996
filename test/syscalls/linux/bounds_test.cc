// What a user may make the kernel hold, where Linux itself says so: pipes' pages, queued signals and timers, processes,
// mappings. What a system as a whole may hold is tried in test/programs/bounds_test.sh.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"

namespace redoubt::testing {
namespace {

int64_t Sysctl(const std::string& name) {
  int64_t value = -1;
  std::ifstream("/proc/sys/" + name) >> value;
  return value;
}

void RaiseLimitOfFiles() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  EXPECT_OK(setrlimit(RLIMIT_NOFILE, &limit));
}

TEST(Bounds, PipesPastTheSoftLimitAreSmall) {
  RaiseLimitOfFiles();
  EXPECT_EQ(RunAsNobody([] {
              const int64_t pages = Sysctl("fs/pipe-user-pages-soft");
              ASSERT_GT(pages, 0);
              int64_t large = 0;
              int ends[2];
              while (large <= pages / 16) {
                ASSERT_OK(pipe(ends));
                if (fcntl(ends[0], F_GETPIPE_SZ) < 65536) break;
                large++;
              }
              EXPECT_GT(large, 0);
              EXPECT_LE(large, pages / 16);
              EXPECT_LE(fcntl(ends[0], F_GETPIPE_SZ), 8192);
              EXPECT_ERRNO(fcntl(ends[0], F_SETPIPE_SZ, 65536), EPERM);
              // PIPE_BUF bytes go in all the same.
              const std::string bytes(4096, 'x');
              EXPECT_RETURNS(write(ends[1], bytes.data(), bytes.size()), 4096);
              close(ends[0]);
              close(ends[1]);
              // What is closed is free again.
              close(ends[0] - 2);
              close(ends[1] - 2);
              ASSERT_OK(pipe(ends));
              EXPECT_EQ(fcntl(ends[0], F_GETPIPE_SZ), 65536);
            }),
            0);
}

TEST(Bounds, PipesAreNoLargerThanTheSystemAllows) {
  EXPECT_EQ(RunAsNobody([] {
              int ends[2];
              ASSERT_OK(pipe(ends));
              const int64_t most = Sysctl("fs/pipe-max-size");
              EXPECT_RETURNS(fcntl(ends[0], F_SETPIPE_SZ, static_cast<int>(most)), most);
              EXPECT_ERRNO(fcntl(ends[0], F_SETPIPE_SZ, static_cast<int>(2 * most)), EPERM);
              EXPECT_ERRNO(fcntl(ends[0], F_SETPIPE_SZ, -1), EINVAL);
            }),
            0);
}

int Queue() { return sigqueue(getpid(), SIGRTMIN + 1, sigval{}); }

// getrlimit(2), RLIMIT_SIGPENDING: of the user, over all of its processes.
TEST(Bounds, QueuedSignalsAreCountedByUser) {
  EXPECT_EQ(RunAsNobody([] {
              rlimit limit{16, 16};
              ASSERT_OK(setrlimit(RLIMIT_SIGPENDING, &limit));
              sigset_t set;
              sigemptyset(&set);
              sigaddset(&set, SIGRTMIN + 1);
              sigaddset(&set, SIGRTMIN + 2);
              ASSERT_OK(sigprocmask(SIG_BLOCK, &set, nullptr));
              int queued = 0;
              while (queued <= 16 && Queue() == 0) queued++;
              EXPECT_GT(queued, 0);
              EXPECT_LE(queued, 16);
              EXPECT_ERRNO(Queue(), EAGAIN);
              // Another process of the same user has no room either, nor has a timer.
              EXPECT_EQ(RunChild([] {
                          EXPECT_ERRNO(Queue(), EAGAIN);
                          return 0;
                        }),
                        0);
              timer_t timer;
              EXPECT_ERRNO(timer_create(CLOCK_MONOTONIC, nullptr, &timer), EAGAIN);
              // kill(2) gets through, once.
              EXPECT_OK(kill(getpid(), SIGRTMIN + 2));
              EXPECT_OK(kill(getpid(), SIGRTMIN + 2));
              timespec none{};
              EXPECT_RETURNS(sigtimedwait(&set, nullptr, &none), SIGRTMIN + 1);
              EXPECT_OK(timer_create(CLOCK_MONOTONIC, nullptr, &timer));
              EXPECT_ERRNO(Queue(), EAGAIN);
              EXPECT_OK(timer_delete(timer));
              EXPECT_OK(Queue());
              for (int i = 0; i < queued; i++) EXPECT_RETURNS(sigtimedwait(&set, nullptr, &none), SIGRTMIN + 1);
              EXPECT_RETURNS(sigtimedwait(&set, nullptr, &none), SIGRTMIN + 2);
              EXPECT_ERRNO(sigtimedwait(&set, nullptr, &none), EAGAIN);
            }),
            0);
}

// getrlimit(2), RLIMIT_NPROC: threads of the user; those of others do not count.
TEST(Bounds, ProcessesAreCountedByUser) {
  std::atomic<bool> done{false};
  std::vector<std::thread> others;
  for (int i = 0; i < 40; i++) {
    others.emplace_back([&] {
      while (!done.load()) SleepMs(10);
    });
  }
  EXPECT_EQ(RunAsNobody([] {
              rlimit limit{30, 30};
              ASSERT_OK(setrlimit(RLIMIT_NPROC, &limit));
              std::vector<pid_t> children;
              while (children.size() <= 30) {
                const pid_t pid = fork();
                if (pid == 0) {
                  for (;;) pause();
                }
                if (pid < 0) break;
                children.push_back(pid);
              }
              EXPECT_EQ(errno, EAGAIN);
              EXPECT_LT(children.size(), 30u);
              EXPECT_GT(children.size(), 5u);
              for (pid_t pid : children) {
                kill(pid, SIGKILL);
                waitpid(pid, nullptr, 0);
              }
            }),
            0);
  done.store(true);
  for (std::thread& t : others) t.join();
}

// proc(5), max_map_count.
TEST(Bounds, MappingsAreCounted) {
  const int64_t most = Sysctl("vm/max_map_count");
  ASSERT_GT(most, 0);
  if (most > 100'000) GTEST_SKIP() << "a host with " << most << " mappings";
  std::vector<void*> mapped;
  while (mapped.size() <= static_cast<size_t>(most)) {
    // Neighbours are not alike, so that they stay two.
    const int access = mapped.size() % 2 == 0 ? PROT_READ : PROT_READ | PROT_WRITE;
    void* p = mmap(nullptr, 4096, access, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) break;
    mapped.push_back(p);
  }
  const int error = errno;
  const size_t count = mapped.size();
  for (void* p : mapped) munmap(p, 4096);
  EXPECT_EQ(error, ENOMEM);
  EXPECT_LE(count, static_cast<size_t>(most));
  EXPECT_GT(count, static_cast<size_t>(most) - 1000);
}

TEST(Bounds, CountsOfVectorsAndDescriptors) {
  int ends[2];
  ASSERT_OK(pipe(ends));
  std::vector<iovec> many(1025);
  EXPECT_ERRNO(writev(ends[1], many.data(), 1025), EINVAL);
  EXPECT_OK(writev(ends[1], many.data(), 1024));
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  pollfd one{};
  EXPECT_ERRNO(poll(&one, limit.rlim_cur + 1, 0), EINVAL);
}

}  // namespace
}  // namespace redoubt::testing
