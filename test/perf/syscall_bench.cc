// What a system call, and the usual things made of them, cost. The same binary runs natively and in sandboxes;
// tools/bench sets the figures side by side.
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <string>
#include <thread>

#include "test/perf/require.h"

namespace {

using redoubt::perf::Require;

constexpr size_t kPage = 4096;

void GetPpid(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(syscall(SYS_getppid));
}
BENCHMARK(GetPpid);

// From memory that is written and executed, as compilers at run time use: no platform rewrites the instruction there.
void GetPpidUnpatched(benchmark::State& state) {
  // mov $110, %eax; syscall; ret
  constexpr unsigned char kCode[] = {0xb8, 0x6e, 0, 0, 0, 0x0f, 0x05, 0xc3};
  void* page = mmap(nullptr, kPage, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  Require(page != MAP_FAILED, "mmap");
  std::memcpy(page, kCode, sizeof(kCode));
  auto call = reinterpret_cast<long (*)()>(page);
  Require(call() == getppid(), "getppid");
  for (auto _ : state) benchmark::DoNotOptimize(call());
  munmap(page, kPage);
}
BENCHMARK(GetPpidUnpatched);

void EpollWaitReady(benchmark::State& state) {
  int epoll = epoll_create1(0), event = eventfd(1, 0);
  epoll_event interest{.events = EPOLLIN, .data = {}}, ready;
  Require(epoll >= 0 && event >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, event, &interest) == 0, "epoll");
  for (auto _ : state) Require(epoll_wait(epoll, &ready, 1, -1) == 1, "epoll_wait");
  close(event);
  close(epoll);
}
BENCHMARK(EpollWaitReady);

// No system calls at all: what the platform takes from a program that only computes.
void Compute(benchmark::State& state) {
  uint64_t x = 88172645463325252;
  for (auto _ : state) {
    for (int i = 0; i < 10'000'000; i++) {
      x ^= x << 13;
      x ^= x >> 7;
      x ^= x << 17;
    }
    benchmark::DoNotOptimize(x);
  }
}
BENCHMARK(Compute)->Threads(1)->Threads(2)->UseRealTime()->MinTime(0.3);

// A cache line's way to another processor and back, with no system call at all: the least that a call costs which
// another processor answers. It says how near the machine's two processors are, which on a virtual machine changes with
// time.
void LineRoundTrip(benchmark::State& state) {
  struct alignas(128) Line {
    std::atomic<uint64_t> value{0};
  };
  static Line question, answer;
  question.value = answer.value = 0;
  std::thread other([] {
    for (uint64_t last = 0; last != UINT64_MAX;) {
      uint64_t asked = question.value.load();
      if (asked == last) continue;
      answer.value.store(last = asked);
    }
  });
  uint64_t n = 0;
  for (auto _ : state) {
    question.value.store(++n);
    while (answer.value.load() != n) continue;
  }
  question.value.store(UINT64_MAX);
  other.join();
}
BENCHMARK(LineRoundTrip)->UseRealTime();

void ClockGettime(benchmark::State& state) {
  timespec ts;
  for (auto _ : state) clock_gettime(CLOCK_MONOTONIC, &ts);
}
BENCHMARK(ClockGettime);

void OpenClose(benchmark::State& state, const char* directory) {
  std::string path = std::string(directory) + "/bench.XXXXXX";
  int made = mkstemp(path.data());
  Require(made >= 0, path.c_str());
  close(made);
  for (auto _ : state) {
    int fd = open(path.c_str(), O_RDONLY);
    Require(fd >= 0, "open");
    close(fd);
  }
  unlink(path.c_str());
}
BENCHMARK_CAPTURE(OpenClose, tmpfs, "/dev/shm");
BENCHMARK_CAPTURE(OpenClose, tmp, "/tmp");

// A file of the host's: this program.
void OpenCloseHost(benchmark::State& state) {
  for (auto _ : state) {
    int fd = open("/proc/self/exe", O_RDONLY);
    Require(fd >= 0, "open");
    close(fd);
  }
}
BENCHMARK(OpenCloseHost);

void ReadHost4K(benchmark::State& state) {
  int fd = open("/proc/self/exe", O_RDONLY);
  Require(fd >= 0, "open");
  char buffer[kPage];
  for (auto _ : state) Require(pread(fd, buffer, sizeof(buffer), 0) == sizeof(buffer), "pread");
  close(fd);
}
BENCHMARK(ReadHost4K);

void PipePingPong(benchmark::State& state) {
  int to[2], from[2];
  Require(pipe(to) == 0 && pipe(from) == 0, "pipe");
  pid_t pid = fork();
  Require(pid >= 0, "fork");
  if (pid == 0) {
    close(to[1]);
    char c;
    while (read(to[0], &c, 1) == 1) Require(write(from[1], &c, 1) == 1, "write");
    _exit(0);
  }
  char c = 'x';
  for (auto _ : state) {
    Require(write(to[1], &c, 1) == 1, "write");
    Require(read(from[0], &c, 1) == 1, "read");
  }
  for (int fd : {to[0], to[1], from[0], from[1]}) close(fd);
  waitpid(pid, nullptr, 0);
}
BENCHMARK(PipePingPong)->UseRealTime();

void FutexPingPong(benchmark::State& state) {
  std::atomic<uint32_t> turn{0};
  auto wait_while = [&](uint32_t value) {
    while (turn.load() == value) syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
  };
  auto wake = [&] { syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0); };
  std::thread other([&] {
    while (true) {
      wait_while(0);
      if (turn.load() == 2) return;
      turn.store(0);
      wake();
    }
  });
  for (auto _ : state) {
    turn.store(1);
    wake();
    wait_while(1);
  }
  turn.store(2);
  wake();
  other.join();
}
BENCHMARK(FutexPingPong)->UseRealTime();

void ForkExitWait(benchmark::State& state) {
  for (auto _ : state) {
    pid_t pid = fork();
    if (pid == 0) _exit(0);
    Require(pid > 0 && waitpid(pid, nullptr, 0) == pid, "fork");
  }
}
BENCHMARK(ForkExitWait)->UseRealTime();

// The child does nothing: this program, which is dynamic, or the static one that lies beside it.
void ForkExecWait(benchmark::State& state, bool is_static) {
  std::string path = "/proc/self/exe";
  if (is_static) {
    char self[4096];
    ssize_t n = readlink(path.c_str(), self, sizeof(self));
    Require(n > 0, "readlink");
    path = std::string(self, n);
    path = path.substr(0, path.rfind('/')) + "/static_exit";
    Require(access(path.c_str(), X_OK) == 0, path.c_str());
  }
  for (auto _ : state) {
    pid_t pid = vfork();
    if (pid == 0) {
      char* argv[] = {path.data(), const_cast<char*>("--exit"), nullptr};
      execve(path.c_str(), argv, environ);
      _exit(1);
    }
    int status = 0;
    Require(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0, "exec");
  }
}
BENCHMARK_CAPTURE(ForkExecWait, dynamic, false)->UseRealTime();
BENCHMARK_CAPTURE(ForkExecWait, static, true)->UseRealTime();

void MmapMunmap(benchmark::State& state) {
  for (auto _ : state) {
    void* p = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    Require(p != MAP_FAILED, "mmap");
    munmap(p, kPage);
  }
}
BENCHMARK(MmapMunmap);

// First touch of fresh memory: tools/bench divides by the pages.
void Touch(benchmark::State& state) {
  size_t size = static_cast<size_t>(state.range(0));
  for (auto _ : state) {
    char* p = static_cast<char*>(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    Require(p != MAP_FAILED, "mmap");
    for (size_t i = 0; i < size; i += kPage) p[i] = 1;
    munmap(p, size);
  }
}
BENCHMARK(Touch)->Arg(kPage)->Arg(1 << 20);

void ThreadCreateJoin(benchmark::State& state) {
  for (auto _ : state) std::thread([] {}).join();
}
BENCHMARK(ThreadCreateJoin)->UseRealTime();

void SignalSelf(benchmark::State& state) {
  signal(SIGUSR1, [](int) {});
  for (auto _ : state) raise(SIGUSR1);
}
BENCHMARK(SignalSelf);

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--exit") == 0) return 0;  // ForkExecWait's child
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
