// A guest that makes hostile system calls (grammar.h), from several threads that share memory, descriptors and a file
// system. What is looked for is not an answer but the end of the sandbox.
//
//   syscall_fuzz SECONDS [SEED]
//
// A worker process makes some thousand calls and is killed; the next has the next seed. Each seed is written before it
// is used, so that a run that the sandbox does not survive can be repeated: syscall_fuzz 0 SEED runs one worker.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <string_view>
#include <thread>
#include <vector>

#include "test/fuzz/grammar.h"

namespace redoubt {
namespace {

constexpr int kThreads = 4;
constexpr int kCallsPerThread = 3000;
constexpr int kWorkerSeconds = 2;
constexpr int kTickMs = 2;  // how long a call may wait
const int kTick = SIGRTMAX;
constexpr int kPatience = 30;  // seconds until who was killed must be gone

// Maps it.
fuzz::Arena MakeArena() {
  constexpr size_t kSize = fuzz::Arena::kSize;
  void* start = mmap(nullptr, 5 * kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  fuzz::Arena a(reinterpret_cast<uint64_t>(start));
  auto at = [](uint64_t addr) { return reinterpret_cast<void*>(addr); };
  mmap(at(a.shared), kSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  mprotect(at(a.read_only), kSize, PROT_READ);
  mprotect(at(a.none), kSize, PROT_NONE);
  munmap(at(a.hole), kSize);
  return a;
}

// Descriptors of every kind, from 3 on.
void OpenAll() {
  int pair[2];
  (void)!pipe(pair);
  for (int type : {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET}) (void)socketpair(AF_UNIX, type | SOCK_NONBLOCK, 0, pair);
  for (int family : {AF_INET, AF_INET6, AF_UNIX, AF_NETLINK, AF_PACKET}) {
    for (int type : {SOCK_STREAM, SOCK_DGRAM, SOCK_RAW}) (void)socket(family, type | SOCK_NONBLOCK, 0);
  }
  (void)eventfd(0, EFD_NONBLOCK);
  (void)epoll_create1(0);
  (void)timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
  (void)inotify_init1(IN_NONBLOCK);
  sigset_t set;
  sigemptyset(&set);
  (void)signalfd(-1, &set, SFD_NONBLOCK);
  (void)memfd_create("fuzz", MFD_ALLOW_SEALING);
  for (const char* path : {"/tmp/fuzz", "/", "/proc/self", "/dev/ptmx", "/proc/self/mem"})
    (void)open(path, O_RDONLY | O_NONBLOCK);
  (void)open("/tmp/fuzz/file", O_RDWR | O_CREAT, 0600);
}

// A process that the worker may trace; it goes with it.
pid_t MakeVictim() {
  pid_t pid = fork();
  if (pid != 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  while (true) {
    for (int i = 0; i < 100; i++) (void)getppid();
    usleep(1000);
  }
}

[[noreturn]] void Worker(uint64_t seed) {
  // Its files, a part of the file system of its own if that can be had.
  (void)mkdir("/tmp/fuzz", 0777);
  // An earlier worker may have put something else there; then this one works where it is.
  if (chdir("/tmp/fuzz") != 0) std::perror("/tmp/fuzz");
  rlimit memory{512 << 20, 512 << 20};
  setrlimit(RLIMIT_AS, &memory);
  rlimit processes{200, 200};
  setrlimit(RLIMIT_NPROC, &processes);
  rlimit size{64 << 20, 64 << 20};
  setrlimit(RLIMIT_FSIZE, &size);
  for (int sig = 1; sig < 65; sig++) {
    if (sig != kTick && sig != SIGSEGV && sig != SIGBUS && sig != SIGILL && sig != SIGALRM) signal(sig, SIG_IGN);
  }
  // Takes who waits out of his call.
  struct sigaction tick{};
  tick.sa_handler = [](int) {};
  sigaction(kTick, &tick, nullptr);
  OpenAll();
  const fuzz::Arena arena = MakeArena();
  const pid_t victim = MakeVictim();
  std::atomic<bool> done{false};
  std::atomic<int> left{kThreads};
  std::vector<std::thread> threads;
  pid_t tids[kThreads] = {};
  for (int t = 0; t < kThreads; t++) {
    threads.emplace_back([seed, t, victim, &arena, &tids, &left] {
      tids[t] = gettid();
      fuzz::Grammar grammar(
          seed * 64 + static_cast<uint64_t>(t), arena, getpid(), victim,
          [](uint64_t addr, const void* data, size_t size) { memcpy(reinterpret_cast<void*>(addr), data, size); });
      for (int i = 0; i < kCallsPerThread; i++) {
        const fuzz::Call c = grammar.Next();
        const uint64_t(&a)[6] = c.arguments;
        syscall(c.number, a[0], a[1], a[2], a[3], a[4], a[5]);
      }
      left.fetch_sub(1);
    });
  }
  // What has been read is another by the time it is read again.
  std::thread changer([&] {
    fuzz::Random random(seed);
    while (!done.load()) {
      const uint64_t value = random.OneIn(2) ? random.Next() : random.Below(64);
      memcpy(reinterpret_cast<void*>(arena.shared + (random.Below(fuzz::Arena::kSize - 8) & ~uint64_t{7})), &value,
             sizeof(value));
      sched_yield();
    }
  });
  while (left.load() > 0) {
    usleep(1000 * kTickMs);
    for (pid_t tid : tids) {
      if (tid != 0) syscall(SYS_tgkill, getpid(), tid, kTick);
    }
  }
  for (std::thread& t : threads) t.join();
  done.store(true);
  changer.join();
  _exit(0);
}

int64_t Seconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec;
}

// A thread of the worker's has asked to be traced, and stopped: some requests, and it goes on.
void Trace(fuzz::Random& random, pid_t tid, int status) {
  constexpr int kRequests[] = {PTRACE_GETREGS,     PTRACE_GETSIGINFO,  PTRACE_PEEKDATA,        PTRACE_PEEKUSER,
                               PTRACE_GETFPREGS,   PTRACE_GETEVENTMSG, PTRACE_SETOPTIONS,      PTRACE_POKEDATA,
                               PTRACE_PEEKSIGINFO, PTRACE_GETSIGMASK,  PTRACE_GET_SYSCALL_INFO};
  uint64_t buffer[128];
  for (uint64_t& word : buffer) word = random.OneIn(2) ? random.Next() : random.Below(64);
  for (uint64_t n = random.Below(4); n > 0; n--) {
    const int request = kRequests[random.Below(std::size(kRequests))];
    const uint64_t addr = random.OneIn(2) ? random.Below(1024) : reinterpret_cast<uint64_t>(buffer);
    // Options that do not kill the supervisor's threads by mistake: all but PTRACE_O_EXITKILL.
    const uint64_t data = request == PTRACE_SETOPTIONS ? random.Below(256) : reinterpret_cast<uint64_t>(buffer);
    syscall(SYS_ptrace, request, tid, addr, data);
  }
  constexpr int kWays[] = {PTRACE_CONT, PTRACE_CONT, PTRACE_SYSCALL, PTRACE_SINGLESTEP, PTRACE_DETACH};
  const int sig = WSTOPSIG(status) & 0x7f;
  syscall(SYS_ptrace, kWays[random.Below(std::size(kWays))], tid, 0, sig == SIGTRAP || sig == SIGSTOP ? 0 : sig);
}

// False if it does not die.
bool RunWorker(uint64_t seed) {
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) Worker(seed);
  if (pid < 0) return true;
  const int64_t end = Seconds() + kWorkerSeconds;
  bool killed = false;
  fuzz::Random random(seed);
  useconds_t pause = 20000;
  while (true) {
    int status = 0;
    pid_t r = waitpid(-1, &status, WNOHANG | __WALL);
    if (r > 0 && WIFSTOPPED(status)) {
      Trace(random, r, status);
      pause = 200;
      continue;
    }
    if (r == pid || (r < 0 && errno == ECHILD)) return true;
    if (r > 0) continue;
    if (Seconds() >= end && !killed) {
      kill(pid, SIGKILL);
      killed = true;
    }
    if (Seconds() >= end + kPatience) return false;
    usleep(pause);
  }
}

int Main(int argc, char** argv) {
  const int64_t seconds = argc > 1 ? std::atoll(argv[1]) : 10;
  uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : static_cast<uint64_t>(time(nullptr));
  const int64_t start = Seconds();
  uint64_t workers = 0;
  do {
    if (!RunWorker(seed)) {
      std::printf("HANG: the worker of seed %llu does not die\n", static_cast<unsigned long long>(seed));
      return 1;
    }
    seed++;
    workers++;
  } while (Seconds() < start + seconds);
  const uint64_t calls = workers * kThreads * kCallsPerThread;
  std::printf("%llu workers, up to %llu calls, %llu a second\n", static_cast<unsigned long long>(workers),
              static_cast<unsigned long long>(calls),
              static_cast<unsigned long long>(calls / static_cast<uint64_t>(std::max<int64_t>(1, Seconds() - start))));
  return 0;
}

}  // namespace
}  // namespace redoubt

int main(int argc, char** argv) { return redoubt::Main(argc, argv); }
