// A guest that makes hostile system calls: of every call of the Sentry's table (kinds.inc is made from it), with
// arguments of the kinds that the table names, wrong in all the ways that kinds can be wrong, from several threads that
// share memory, descriptors and a file system. What is looked for is not an answer but the end of the sandbox.
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
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <string_view>
#include <thread>
#include <vector>

namespace {

struct Kind {
  int number;
  const char* name;
  const char* arguments;  // pkg/sentry/syscalls/table.h
};
constexpr Kind kKinds[] = {
#include "test/fuzz/kinds.inc"
};

constexpr int kThreads = 4;
constexpr int kCallsPerThread = 3000;
constexpr int kWorkerSeconds = 2;
constexpr int kTickMs = 2;  // how long a call may wait
const int kTick = SIGRTMAX;
constexpr int kPatience = 30;  // seconds until who was killed must be gone
constexpr size_t kPage = 4096;

// xorshift64*: the same everywhere.
class Random final {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 + 1) {}
  uint64_t Next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1d;
  }
  uint64_t Below(uint64_t n) { return Next() % n; }
  bool OneIn(uint64_t n) { return Below(n) == 0; }

 private:
  uint64_t state_;
};

// What a worker's threads share: memory of every kind, next to each other, and descriptors.
struct Arena {
  char* base = nullptr;    // read and write, private
  char* shared = nullptr;  // read and write, shared with nobody but as if
  char* read_only = nullptr;
  char* none = nullptr;
  char* hole = nullptr;  // not mapped
  static constexpr size_t kSize = 16 * kPage;

  void Make() {
    base = static_cast<char*>(mmap(nullptr, 5 * kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    shared = base + kSize;
    mmap(shared, kSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    read_only = shared + kSize;
    none = read_only + kSize;
    hole = none + kSize;
    mprotect(read_only, kSize, PROT_READ);
    mprotect(none, kSize, PROT_NONE);
    munmap(hole, kSize);
  }
};

constexpr const char* kStrings[] = {"",
                                    "/",
                                    ".",
                                    "..",
                                    "/tmp",
                                    "/tmp/fuzz",
                                    "/tmp/fuzz/a",
                                    "a",
                                    "b",
                                    "a/b",
                                    "a/../b",
                                    "/proc/self/mem",
                                    "/proc/self/fd/3",
                                    "/proc/self/maps",
                                    "/proc/self/exe",
                                    "/proc/self/ns/net",
                                    "/proc/sys/kernel/hostname",
                                    "/dev/null",
                                    "/dev/zero",
                                    "/dev/ptmx",
                                    "/dev/tty",
                                    "/sys/fs/cgroup",
                                    "tmpfs",
                                    "proc",
                                    "overlay",
                                    "user.x",
                                    "trusted.overlay.opaque",
                                    "lowerdir=/,upperdir=/tmp,workdir=/tmp/w",
                                    "size=1k,mode=777",
                                    "//////a//////",
                                    "\xff\xfe\n"};

class Caller final {
 public:
  Caller(uint64_t seed, const Arena& arena) : random_(seed), arena_(arena) {}

  void CallOne() {
    const Kind& kind = kKinds[random_.Below(std::size(kKinds))];
    if (Excluded(kind.name)) return;
    uint64_t a[6];
    for (int i = 0; i < 6; i++) a[i] = Argument(kind.arguments[0] != 0 ? KindOf(kind, i) : '?');
    KeepToItself(kind, a);
    syscall(kind.number, a[0], a[1], a[2], a[3], a[4], a[5]);
  }

 private:
  static char KindOf(const Kind& kind, int i) {
    const std::string_view arguments = kind.arguments;
    return static_cast<size_t>(i) < arguments.size() ? arguments[i] : '?';
  }

  // What would end the worker at once, and tell nothing.
  static bool Excluded(std::string_view name) {
    for (const char* e : {"exit", "exit_group", "fork", "vfork", "clone", "clone3", "execve", "execveat",
                          "rt_sigreturn", "rt_sigprocmask", "rt_sigaction", "pause", "reboot", "rt_sigsuspend"}) {
      if (name == e) return true;
    }
    return false;
  }

  // A process number is the worker's own or nobody's: the supervisor must live.
  void KeepToItself(const Kind& kind, uint64_t (&a)[6]) {
    const std::string_view name = kind.name;
    auto self = [this] { return random_.OneIn(4) ? uint64_t{999999} : static_cast<uint64_t>(getpid()); };
    for (const char* e : {"kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "prlimit64", "setpgid",
                          "sched_setscheduler", "sched_setparam", "sched_setaffinity", "pidfd_open", "process_vm_readv",
                          "process_vm_writev", "migrate_pages", "move_pages", "kcmp"}) {
      if (name == e) a[0] = self();
    }
    if (name == "tgkill" || name == "tkill" || name == "kill" || name == "rt_sigqueueinfo" ||
        name == "rt_tgsigqueueinfo") {
      // Not one that stops or kills it at the first try.
      const int which = name == "tgkill" || name == "rt_tgsigqueueinfo" ? 2 : 1;
      a[which] = random_.OneIn(8) ? random_.Next() : SIGRTMIN + random_.Below(8);
      if (a[which] == SIGKILL || a[which] == SIGSTOP) a[which] = 0;
    }
    if (name == "ptrace") a[1] = self();
    if (name == "setpriority" || name == "ioprio_set") a[1] = self();
    // Not for ever.
    if (name == "close_range" && a[0] < 3) a[0] = 64;
    if (name == "close" && a[0] < 3) a[0] = 3;
    if ((name == "dup2" || name == "dup3") && a[1] < 3) a[1] = 3 + random_.Below(60);
  }

  uint64_t Number() {
    switch (random_.Below(8)) {
      case 0:
        return random_.Next();
      case 1:
        return ~uint64_t{0} - random_.Below(4);
      case 2:
        return uint64_t{1} << random_.Below(64);
      case 3:
        return (uint64_t{1} << random_.Below(64)) - 1;
      case 4:
        return 0;
      default:
        return random_.Below(70);
    }
  }

  uint64_t Length() {
    constexpr uint64_t kLengths[] = {0,    1,     7,          8,          16,          255,         4095,
                                     4096, 65536, 0x7ffff000, 0x7fffffff, 0x80000000u, 0xffffffffu, ~uint64_t{0}};
    return random_.OneIn(3) ? random_.Below(300) : kLengths[random_.Below(std::size(kLengths))];
  }

  uint64_t Flags() {
    uint64_t flags = 0;
    for (uint64_t n = random_.Below(4); n > 0; n--) flags |= uint64_t{1} << random_.Below(random_.OneIn(8) ? 64 : 24);
    return flags;
  }

  char* Somewhere() {
    char* start = random_.OneIn(2) ? arena_.base : arena_.shared;
    return start + random_.Below(Arena::kSize - 256);
  }

  uint64_t Pointer() {
    switch (random_.Below(14)) {
      case 0:
        return 0;
      case 1:
        return reinterpret_cast<uint64_t>(arena_.none + random_.Below(kPage));
      case 2:
        return reinterpret_cast<uint64_t>(arena_.hole + random_.Below(kPage));
      case 3:
        return reinterpret_cast<uint64_t>(arena_.read_only + random_.Below(kPage));
      case 4:
        // Some bytes before what cannot be read, or written.
        return reinterpret_cast<uint64_t>((random_.OneIn(2) ? arena_.none : arena_.read_only) - random_.Below(20));
      case 5:
        return random_.OneIn(2) ? 0xffffffff80000000 + random_.Below(4096) : 0x800000000000 - random_.Below(16);
      case 6:
        return Number();
      default:
        return reinterpret_cast<uint64_t>(Filled());
    }
  }

  // A structure: words that are numbers, lengths, descriptors or pointers again.
  char* Filled() {
    char* at = Somewhere();
    const uint64_t words = random_.Below(12);
    for (uint64_t i = 0; i < words; i++) {
      uint64_t value = 0;
      switch (random_.Below(5)) {
        case 0:
          value = reinterpret_cast<uint64_t>(Somewhere());
          break;
        case 1:
          value = Length();
          break;
        case 2:
          value = Descriptor() | random_.Below(64) << 32;
          break;
        case 3:
          value = random_.Below(16) | random_.Below(16) << 16 | random_.Below(16) << 32;
          break;
        default:
          value = Number();
      }
      memcpy(at + 8 * i, &value, sizeof(value));
    }
    return at;
  }

  uint64_t String() {
    if (random_.OneIn(6)) return Pointer();
    char* at = Somewhere();
    if (random_.OneIn(20)) {
      // Without an end, up to what is not mapped any more.
      memset(arena_.read_only - 5000, 'x', 5000);
      return reinterpret_cast<uint64_t>(arena_.read_only - 5000);
    }
    const char* text = kStrings[random_.Below(std::size(kStrings))];
    memcpy(at, text, strlen(text) + 1);
    return reinterpret_cast<uint64_t>(at);
  }

  uint64_t Descriptor() {
    switch (random_.Below(10)) {
      case 0:
        return ~uint64_t{0};
      case 1:
        return static_cast<uint64_t>(AT_FDCWD);
      case 2:
        return Number();
      default:
        return 3 + random_.Below(40);
    }
  }

  uint64_t Argument(char kind) {
    if (random_.OneIn(25)) return Number();
    switch (kind) {
      case 'p':
      case 'b':
      case 'B':
      case 'V':
      case 't':
      case 'T':
        return Pointer();
      case 's':
        return String();
      case 'f':
      case 'a':
        return Descriptor();
      case 'S':
        return random_.Below(70);
      case 'u':
        return random_.OneIn(2) ? Length() : Number();
      case 'x':
      case 'O':
      case 'M':
      case 'o':
        return Flags();
      default:
        return random_.OneIn(2) ? random_.Below(20) : Number();
    }
  }

  Random random_;
  const Arena& arena_;
};

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

[[noreturn]] void Worker(uint64_t seed) {
  // Its files, a part of the file system of its own if that can be had.
  (void)mkdir("/tmp/fuzz", 0777);
  (void)chdir("/tmp/fuzz");
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
  static Arena arena;
  arena.Make();
  std::atomic<bool> done{false};
  std::atomic<int> left{kThreads};
  std::vector<std::thread> threads;
  pid_t tids[kThreads] = {};
  for (int t = 0; t < kThreads; t++) {
    threads.emplace_back([seed, t, &tids, &left] {
      tids[t] = gettid();
      Caller caller(seed * 64 + static_cast<uint64_t>(t), arena);
      for (int i = 0; i < kCallsPerThread; i++) caller.CallOne();
      left.fetch_sub(1);
    });
  }
  // What has been read is another by the time it is read again.
  std::thread changer([&] {
    Random random(seed);
    while (!done.load()) {
      const uint64_t value = random.OneIn(2) ? random.Next() : random.Below(64);
      memcpy(arena.shared + (random.Below(Arena::kSize - 8) & ~uint64_t{7}), &value, sizeof(value));
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

// False if it does not die.
bool RunWorker(uint64_t seed) {
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) Worker(seed);
  if (pid < 0) return true;
  const int64_t end = Seconds() + kWorkerSeconds;
  bool killed = false;
  while (true) {
    int status = 0;
    pid_t r = waitpid(pid, &status, WNOHANG);
    if (r == pid || (r < 0 && errno == ECHILD)) return true;
    if (Seconds() >= end && !killed) {
      kill(pid, SIGKILL);
      killed = true;
    }
    if (Seconds() >= end + kPatience) return false;
    usleep(20000);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t seconds = argc > 1 ? std::atoll(argv[1]) : 10;
  uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : static_cast<uint64_t>(time(nullptr));
  const int64_t end = Seconds() + seconds;
  uint64_t workers = 0;
  do {
    if (!RunWorker(seed)) {
      std::printf("HANG: the worker of seed %llu does not die\n", static_cast<unsigned long long>(seed));
      return 1;
    }
    seed++;
    workers++;
  } while (Seconds() < end);
  std::printf("%llu workers, up to %llu calls\n", static_cast<unsigned long long>(workers),
              static_cast<unsigned long long>(workers * kThreads * kCallsPerThread));
  return 0;
}
