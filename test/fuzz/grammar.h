// Hostile system calls: of every call of the Sentry's table (kinds.inc is made from it), with arguments of the kinds
// that the table names, wrong in all the ways that kinds can be wrong. The same for a program inside (syscall_fuzz.cc)
// and for a Sentry without a platform (dispatch_fuzz_test.cc).
#ifndef REDOUBT_TEST_FUZZ_GRAMMAR_H_
#define REDOUBT_TEST_FUZZ_GRAMMAR_H_

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>

namespace redoubt::fuzz {

struct Kind {
  int number;
  const char* name;
  const char* arguments;  // pkg/sentry/syscalls/table.h
};
inline constexpr Kind kKinds[] = {
#include "test/fuzz/kinds.inc"
};

struct Call {
  int number = 0;
  uint64_t arguments[6] = {};
};

inline constexpr size_t kPage = 4096;

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

// The guest's memory, of every kind, each next to the other.
struct Arena {
  static constexpr size_t kSize = 16 * kPage;

  uint64_t base = 0;    // read and write, private; the others follow at distances of kSize
  uint64_t shared = 0;  // read and write, shared
  uint64_t read_only = 0;
  uint64_t none = 0;  // no access
  uint64_t hole = 0;  // not mapped

  explicit Arena(uint64_t start = 0)
      : base(start), shared(base + kSize), read_only(shared + kSize), none(read_only + kSize), hole(none + kSize) {}
};

inline constexpr const char* kStrings[] = {"",
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
                                           "mqueue",
                                           "user.x",
                                           "trusted.overlay.opaque",
                                           "lowerdir=/,upperdir=/tmp,workdir=/tmp/w",
                                           "size=1k,mode=777",
                                           "//////a//////",
                                           "\xff\xfe\n"};

// Makes calls. Not thread-safe: each thread has one of its own.
class Grammar final {
 public:
  // Puts bytes into the guest's memory; where they cannot be put, nothing happens.
  using Put = std::function<void(uint64_t addr, const void* data, size_t size)>;

  // `self`: the process; `victim`: another that it may trace.
  Grammar(uint64_t seed, const Arena& arena, int self, int victim, Put put)
      : random_(seed),
        arena_(arena),
        self_(static_cast<uint64_t>(self)),
        victim_(static_cast<uint64_t>(victim)),
        put_(std::move(put)) {}

  Call Next() {
    while (true) {
      const Kind& kind = kKinds[random_.Below(std::size(kKinds))];
      if (Excluded(kind.name)) continue;
      Call call{kind.number, {}};
      for (int i = 0; i < 6; i++) call.arguments[i] = Argument(KindOf(kind, i));
      KeepToItself(kind, call.arguments);
      return call;
    }
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
    auto self = [this] { return random_.OneIn(4) ? uint64_t{999999} : self_; };
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
    if (name == "ptrace") {
      // Those there are, from PTRACE_TRACEME and from PTRACE_SETOPTIONS on; memory is the first argument's.
      if (!random_.OneIn(16)) a[0] = random_.OneIn(2) ? random_.Below(35) : 0x4200 + random_.Below(16);
      a[1] = random_.OneIn(8) ? self() : victim_;
      if (random_.OneIn(2)) a[3] = random_.Below(65);
      if (a[0] == 0x4204 || a[0] == 0x4205) {
        constexpr uint64_t kSets[] = {1, 2, 0x202};  // NT_PRSTATUS, NT_PRFPREG, NT_X86_XSTATE
        if (!random_.OneIn(8)) a[2] = kSets[random_.Below(3)];
      }
    }
    if (name == "setpriority" || name == "ioprio_set") a[1] = self();
    if (name == "seccomp") Filter(a);
    if (name == "prctl" && static_cast<uint32_t>(a[0]) == PR_SET_SECCOMP) a[0] = PR_GET_SECCOMP;
    // Not for ever.
    if (name == "close_range" && a[0] < 3) a[0] = 64;
    if (name == "close" && a[0] < 3) a[0] = 3;
    if ((name == "dup2" || name == "dup3") && a[1] < 3) a[1] = 3 + random_.Below(60);
  }

  // Never strict mode, which ends the worker at the next call; often a filter that refuses a call.
  void Filter(uint64_t (&a)[6]) {
    if (static_cast<uint32_t>(a[0]) == SECCOMP_SET_MODE_STRICT) a[0] = SECCOMP_SET_MODE_FILTER;
    if (static_cast<uint32_t>(a[0]) != SECCOMP_SET_MODE_FILTER || random_.OneIn(3)) return;
    const Kind* refused = nullptr;
    do {
      refused = &kKinds[random_.Below(std::size(kKinds))];
    } while (Excluded(refused->name));
    const auto number = static_cast<uint32_t>(refused->number);
    // By what a call's arguments are no call is refused, or the worker's own would be.
    const auto word = static_cast<uint32_t>(random_.OneIn(2) ? 0 : random_.Below(17));
    const uint32_t action = word != 0 ? SECCOMP_RET_LOG : SECCOMP_RET_ERRNO | EPERM;
    const sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, word * 4),
                                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, action),
                                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    const uint64_t at = Somewhere();
    const uint64_t program[2] = {std::size(code), at + sizeof(program)};
    put_(at, program, sizeof(program));
    put_(at + sizeof(program), code, sizeof(code));
    a[1] = random_.OneIn(2) ? random_.Below(32) : 0;
    a[2] = at;
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

  uint64_t Somewhere() {
    uint64_t start = random_.OneIn(2) ? arena_.base : arena_.shared;
    return start + random_.Below(Arena::kSize - 256);
  }

  uint64_t Pointer() {
    switch (random_.Below(14)) {
      case 0:
        return 0;
      case 1:
        return arena_.none + random_.Below(kPage);
      case 2:
        return arena_.hole + random_.Below(kPage);
      case 3:
        return arena_.read_only + random_.Below(kPage);
      case 4:
        // Some bytes before what cannot be read, or written.
        return (random_.OneIn(2) ? arena_.none : arena_.read_only) - random_.Below(20);
      case 5:
        return random_.OneIn(2) ? 0xffffffff80000000 + random_.Below(4096) : 0x800000000000 - random_.Below(16);
      case 6:
        return Number();
      default:
        return Filled();
    }
  }

  // A structure: words that are numbers, lengths, descriptors or pointers again.
  uint64_t Filled() {
    uint64_t at = Somewhere();
    const uint64_t words = random_.Below(12);
    for (uint64_t i = 0; i < words; i++) {
      uint64_t value = 0;
      switch (random_.Below(5)) {
        case 0:
          value = Somewhere();
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
      put_(at + 8 * i, &value, sizeof(value));
    }
    return at;
  }

  uint64_t String() {
    if (random_.OneIn(6)) return Pointer();
    const uint64_t at = Somewhere();
    if (random_.OneIn(20)) {
      // Without an end, up to what is not mapped any more.
      const std::string endless(5000, 'x');
      put_(arena_.read_only - 5000, endless.data(), endless.size());
      return arena_.read_only - 5000;
    }
    const char* text = kStrings[random_.Below(std::size(kStrings))];
    put_(at, text, strlen(text) + 1);
    return at;
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
  const Arena arena_;
  const uint64_t self_;
  const uint64_t victim_;
  const Put put_;
};

}  // namespace redoubt::fuzz

#endif  // REDOUBT_TEST_FUZZ_GRAMMAR_H_
