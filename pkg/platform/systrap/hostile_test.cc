// The trust boundary. A guest may do to its stub process what it likes, and can at worst end it: nothing is executed
// on the host in its name, nothing outside of its memory is reached, no other guest notices.
#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/prctl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <functional>
#include <mutex>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "pkg/platform/conformance.h"
#include "pkg/platform/guest_code_amd64_unsafe.h"
#include "pkg/platform/registers_amd64.h"
#include "pkg/platform/systrap/address_space.h"
#include "pkg/platform/systrap/control.h"
#include "pkg/platform/systrap/hostile_code_amd64_unsafe.h"
#include "pkg/platform/systrap/systrap.h"
#include "pkg/platform/systrap/template_unsafe.h"

namespace redoubt::platform::systrap {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Clock = std::chrono::steady_clock;

constexpr char kForbiddenFile[] = "/tmp/redoubt-hostile-test-file";
// Where hostile mmaps would go.
constexpr Addr kForbidden = 0x50000000;
// A guest that is busy in its stub for longer is taken out by force: soon where that is as good an end as any, later
// where it must come back.
constexpr milliseconds kHang{12};
constexpr milliseconds kMustEnd{10'000};

std::atomic<int> g_signals{0};

// Releases a space whose guest has not come back in time, as the end of its process by a signal would.
class Watchdog final {
 public:
  Watchdog() : thread_([this] { Main(); }) {}
  ~Watchdog() {
    stop_.store(true);
    thread_.join();
  }
  void Arm(AddressSpace& space, milliseconds limit = kHang) {
    std::scoped_lock lock(mu_);
    space_ = &space;
    deadline_ = Clock::now() + limit;
    fired_ = false;
  }
  // Whether it had to act.
  bool Disarm() {
    std::scoped_lock lock(mu_);
    space_ = nullptr;
    return fired_;
  }

 private:
  void Main() {
    while (!stop_.load()) {
      std::this_thread::sleep_for(milliseconds(2));
      std::scoped_lock lock(mu_);
      if (space_ == nullptr || Clock::now() < deadline_) continue;
      space_->Release();
      space_ = nullptr;
      fired_ = true;
    }
  }

  std::mutex mu_;
  AddressSpace* space_ = nullptr;
  Clock::time_point deadline_;
  bool fired_ = false;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

std::string ReadFile(const std::string& path) {
  std::ifstream in(path);
  std::stringstream s;
  s << in.rdbuf();
  return s.str();
}

std::vector<std::string> Names(const std::string& path) {
  std::vector<std::string> names;
  DIR* dir = opendir(path.c_str());
  if (dir == nullptr) return names;
  while (dirent* e = readdir(dir)) {
    if (e->d_name[0] != '.') names.push_back(e->d_name);
  }
  closedir(dir);
  std::sort(names.begin(), names.end());
  return names;
}

// What the host shows of a process that must not change.
std::string Fingerprint(pid_t pid) {
  const std::string proc = "/proc/" + std::to_string(pid);
  std::string s = ReadFile(proc + "/maps");
  for (const std::string& fd : Names(proc + "/fd")) {
    char target[256] = {};
    (void)!readlink((proc + "/fd/" + fd).c_str(), target, sizeof(target) - 1);
    s += fd + " " + target + "\n";
    // Of the files; the wake descriptor's shows its count.
    if (fd == "0" || fd == "1") s += ReadFile(proc + "/fdinfo/" + fd);
  }
  return s;
}

// Descendants of this process.
size_t Descendants() {
  std::set<pid_t> family{getpid()};
  for (size_t before = 0; before != family.size();) {
    before = family.size();
    for (const std::string& name : Names("/proc")) {
      pid_t pid = atoi(name.c_str());
      if (pid <= 0) continue;
      std::string stat = ReadFile("/proc/" + name + "/stat");
      size_t paren = stat.rfind(')');
      char state;
      int parent = 0;
      if (paren == std::string::npos || sscanf(stat.c_str() + paren + 1, " %c %d", &state, &parent) != 2) continue;
      if (family.contains(parent)) family.insert(pid);
    }
  }
  return family.size() - 1;
}

class SystrapHostile : public PlatformConformance {
 protected:
  void SetUp() override {
    PlatformConformance::SetUp();
    unlink(kForbiddenFile);
    struct sigaction action{};
    action.sa_handler = [](int) { g_signals.fetch_add(1); };
    sigaction(SIGUSR1, &action, nullptr);
    g_signals.store(0);
    loop_ = AddCode(guest::SyscallLoop());
  }

  void TearDown() override {
    if (HasFailure()) printf("the last attack: %s\n", what_.c_str());
    if (bystander_space_ != nullptr) {
      Run([&] {
        Bystander();
        CheckWorld();
        context_.reset();
        bystander_.reset();
        if (space_ != nullptr) space_->Release();
        space_.reset();
        bystander_space_->Release();
        bystander_space_.reset();
      });
      // The template is left.
      bool gone = false;
      for (int i = 0; i < 500 && !gone; i++) {
        gone = Descendants() == 1;
        if (!gone) std::this_thread::sleep_for(milliseconds(10));
      }
      EXPECT_TRUE(gone) << Descendants() << " processes are left";
    }
    PlatformConformance::TearDown();
  }

  // What is being tried, for whoever reads of a failure. (SCOPED_TRACE is per thread, and fibers change theirs.)
  void At(const testing::Message& what) { what_ = what.GetString(); }

  // After all code was added.
  void Begin() {
    code_.assign(memory(), memory() + kCodeSize);
    bystander_space_ = NewSpace();
    bystander_ = *platform().NewContext();
  }

  // Another guest of the same platform makes a few calls.
  void Bystander() {
    Registers regs{};
    regs.rip = loop_;
    for (uint64_t i = 0; i < 3; i++) {
      regs.rax = i;
      regs.rbx = ~i;
      Result<TrapInfo> info = bystander_->Switch(*bystander_space_, regs);
      ASSERT_TRUE(info.has_value());
      ASSERT_EQ(info->trap, Trap::kSyscall);
      ASSERT_EQ(regs.orig_rax, i);
      ASSERT_EQ(regs.rbx, ~i);
      ASSERT_EQ(regs.rip, loop_ + 2);
    }
  }

  // Nothing has reached the outside.
  void CheckWorld() {
    EXPECT_NE(access(kForbiddenFile, F_OK), 0) << "a file was made";
    EXPECT_EQ(g_signals.load(), 0) << "a signal was sent";
    EXPECT_EQ(lseek(memory_fd(), kCodeSize + kDataSize, SEEK_DATA), -1) << "memory that was not mapped was written";
    EXPECT_EQ(memcmp(memory(), code_.data(), code_.size()), 0) << "code that was mapped read-only has changed";
  }

  static pid_t PidOf(AddressSpace& space) { return static_cast<SystrapAddressSpace&>(space).process().pid(); }

  void Fresh() {
    context_.reset();
    if (space_ != nullptr) space_->Release();
    space_ = NewSpace();
    context_ = *platform().NewContext();
    fingerprint_ = Fingerprint(PidOf(*space_));
    made_++;
  }

  // Runs `regs` in space_ and context_, which are made anew if the last guest broke them. Whatever it does there, it
  // ends, and the process is as it was or gone.
  Result<TrapInfo> Attack(Registers& regs, milliseconds limit = kHang) {
    if (space_ == nullptr) Fresh();
    watchdog_.Arm(*space_, limit);
    Result<TrapInfo> info = context_->Switch(*space_, regs);
    const bool hung = watchdog_.Disarm();
    hangs_ += hung;
    if (!info) {
      EXPECT_EQ(info.error(), Errno(ESRCH));
      deaths_++;
    } else if (!hung) {
      std::string now = Fingerprint(PidOf(*space_));
      // One that is just dying shows nothing any more.
      EXPECT_TRUE(now.empty() || now == fingerprint_) << "the process has changed: " << now;
      EXPECT_LE(Names("/proc/" + std::to_string(PidOf(*space_)) + "/task").size(), 2u);
    }
    if (!info || hung) {
      context_.reset();
      space_->Release();
      space_.reset();
    }
    return info;
  }

  Addr loop_ = 0;
  std::string what_;
  Watchdog watchdog_;
  std::vector<std::byte> code_;
  RefPtr<AddressSpace> bystander_space_, space_;
  std::unique_ptr<Context> bystander_, context_;
  std::string fingerprint_;
  int hangs_ = 0, deaths_ = 0, made_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Systrap, SystrapHostile, testing::Values(PlatformFactory{"systrap", systrap::Create}),
                         [](const auto& info) { return info.param.name; });

// System calls that would be seen from outside, in registers.
struct PreparedCall {
  const char* name;
  uint64_t nr, rdi = 0, rsi = 0, rdx = 0, r10 = 0, r8 = 0, r9 = 0;
};
constexpr uint64_t kPathOffset = 0x8000;
std::vector<PreparedCall> PreparedCalls() {
  constexpr Addr kPath = PlatformConformance::kData + kPathOffset;
  constexpr uint64_t kForbiddenOffset = 48 << 20;
  const auto self = static_cast<uint64_t>(getpid());
  return {
      {"mmap", SYS_mmap, kForbidden, kPageSize, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED | MAP_FIXED,
       STUB_FD_MEMORY, kForbiddenOffset},
      {"mmap of the control file", SYS_mmap, kForbidden, kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
       STUB_FD_CONTROL, 0},
      {"munmap", SYS_munmap, PlatformConformance::kCode, PlatformConformance::kCodeSize},
      {"mprotect", SYS_mprotect, kStubText, kStubTextSize, PROT_READ | PROT_WRITE | PROT_EXEC},
      {"mprotect", SYS_mprotect, STUB_COMMAND, kPageSize, PROT_READ | PROT_WRITE},
      {"clone", SYS_clone, SIGCHLD},
      {"clone with memory", SYS_clone, 0x110f00 & ~0x100000, PlatformConformance::kData + 0x9000},
      {"execve", SYS_execve, kPath + 64, 0, 0},
      {"openat", SYS_openat, static_cast<uint64_t>(AT_FDCWD), kPath, O_CREAT | O_RDWR, 0600},
      {"open", SYS_open, kPath, O_CREAT | O_RDWR, 0600},
      {"write to the control file", SYS_write, STUB_FD_CONTROL, kPath, 8},
      {"write to the memory file", SYS_pwrite64, STUB_FD_MEMORY, kPath, 8, kForbiddenOffset},
      {"write to the manager's pipe", SYS_write, STUB_FD_ACK, kPath, 1},
      {"much to the wake descriptor", SYS_write, STUB_FD_WAKE, kPath, 4096},
      {"close", SYS_close, STUB_FD_MEMORY},
      {"dup2", SYS_dup2, STUB_FD_MEMORY, 17},
      {"ftruncate", SYS_ftruncate, STUB_FD_MEMORY, 0},
      {"prctl", SYS_prctl, PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_OFF},
      {"sigaction", SYS_rt_sigaction, SIGSYS, PlatformConformance::kData, 0, 8},
      {"sigaltstack", SYS_sigaltstack, PlatformConformance::kData},
      {"ptrace", SYS_ptrace, 0},
      {"kill", SYS_kill, self, SIGUSR1},
      {"tgkill", SYS_tgkill, self, self, SIGUSR1},
      {"exit", SYS_exit, 3},
      {"exit_group", SYS_exit_group, 3},
      {"process_vm_writev", SYS_process_vm_writev, self, PlatformConformance::kData, 1, PlatformConformance::kData, 1},
      {"futex requeue", SYS_futex, STUB_DOORBELLS, 3, 1, 1, STUB_DOORBELLS + 4},
      // The x32 twins of some.
      {"x32 mmap", 0x40000000 | SYS_mmap, kForbidden, kPageSize, PROT_READ, MAP_SHARED | MAP_FIXED, STUB_FD_MEMORY, 0},
      {"x32 kill", 0x40000000 | SYS_kill, self, SIGUSR1},
  };
}

void Prepare(const PreparedCall& call, Registers& regs) {
  regs.rax = call.nr;
  regs.rdi = call.rdi;
  regs.rsi = call.rsi;
  regs.rdx = call.rdx;
  regs.r10 = call.r10;
  regs.r8 = call.r8;
  regs.r9 = call.r9;
}

void SetAll(Registers& regs, uint64_t value) {
  for (auto member :
       {&Registers::rax, &Registers::rbx, &Registers::rcx, &Registers::rdx, &Registers::rsi, &Registers::rdi,
        &Registers::rbp, &Registers::rsp, &Registers::r8, &Registers::r9, &Registers::r10, &Registers::r11,
        &Registers::r12, &Registers::r13, &Registers::r14, &Registers::r15}) {
    regs.*member = value;
  }
}

TEST_P(SystrapHostile, JumpsToEveryByteOfTheStub) {
  Run([&] {
    Begin();
    for (uint64_t offset = 0; offset < kStubTextSize; offset++) {
      // Behind the code there is only padding.
      const bool code = offset < StubCode().size();
      for (int set = 0; set < (code ? 4 : 1); set++) {
        At(testing::Message() << offset << ", registers " << set);
        memset(&Word(0), 0, 0x10000);
        Registers regs{};
        regs.rip = kStubText + offset;
        switch (set) {
          case 0:
            break;
          case 1:
            SetAll(regs, ~uint64_t{0});
            break;
          case 2:
            SetAll(regs, kSlots);
            regs.rsp = kSlots + SLOT_SCRATCH_TOP - 64;
            break;
          case 3:
            // A slot of its own making.
            SetAll(regs, kData);
            regs.rsp = kData + SLOT_SCRATCH_TOP - 64;
            regs.gs_base = kData;
            Word(SLOT_SELF) = Word(SLOT_DOORBELL) = kData;
            break;
        }
        (void)Attack(regs);
      }
      if (offset % 256 == 0) Bystander();
      if (HasFailure()) return;
    }
    CheckWorld();
    printf("%d processes, of which %d died and %d hung\n", made_, deaths_, hangs_);
  });
}

TEST_P(SystrapHostile, CannotUseTheStubsSystemCallInstructions) {
  const std::vector<PreparedCall> calls = PreparedCalls();
  Run([&] {
    Begin();
    std::span<const std::byte> code = StubCode();
    int sites = 0;
    for (uint64_t offset = 0; offset + 1 < code.size(); offset++) {
      if (code[offset] != std::byte{0x0f} || code[offset + 1] != std::byte{0x05}) continue;
      sites++;
      // Some come back by the code behind the call, with rcx and rsp useless for it; and from the byte before, in case
      // that makes another instruction.
      for (uint64_t at : {offset, offset - 1}) {
        for (const PreparedCall& call : calls) {
          At(testing::Message() << std::string(call.name) + " at " + std::to_string(at));
          strcpy(reinterpret_cast<char*>(&Word(kPathOffset)), kForbiddenFile);
          strcpy(reinterpret_cast<char*>(&Word(kPathOffset + 64)), "/bin/true");
          Registers regs{};
          Prepare(call, regs);
          regs.rip = kStubText + at;
          Result<TrapInfo> info = Attack(regs, at == offset ? kMustEnd : kHang);
          // The manager's range is no guest thread's: what is called there arrives as the guest's own call.
          if (at == offset && kStubText + at < StubGuestStart()) {
            ASSERT_TRUE(info.has_value());
            ASSERT_EQ(info->trap, Trap::kSyscall);
            ASSERT_EQ(regs.orig_rax, call.nr);
          } else if (at == offset) {
            ASSERT_FALSE(info.has_value()) << "the filter kills";
          }
          CheckWorld();
          if (HasFailure()) return;
        }
        Bystander();
      }
    }
    EXPECT_GE(sites, 20);
  });
}

// Each way into the host that a processor has.
TEST_P(SystrapHostile, SystemCallsAreNeverTheHosts) {
  Addr int80 = AddCode(guest::Int80()), sysenter = AddCode(guest::Sysenter()), to32 = AddCode(guest::To32Bit());
  Addr vsyscall = AddCode(guest::Call());
  Addr in32[] = {AddCode(guest::Int80In32Bit()), AddCode(guest::SysenterIn32Bit()), AddCode(guest::SyscallIn32Bit())};
  Run([&] {
    Begin();
    for (const PreparedCall& call : PreparedCalls()) {
      At(testing::Message() << call.name);
      strcpy(reinterpret_cast<char*>(&Word(kPathOffset)), kForbiddenFile);
      Registers regs{};
      Prepare(call, regs);
      regs.rip = loop_;
      Result<TrapInfo> info = Attack(regs, kMustEnd);
      ASSERT_TRUE(info.has_value());
      EXPECT_EQ(info->trap, Trap::kSyscall);
      EXPECT_EQ(regs.orig_rax, call.nr);
      Registers after{};
      Prepare(call, after);
      EXPECT_EQ(regs.rdi, after.rdi);
      EXPECT_EQ(regs.r9, after.r9);
    }
    // The numbers of 32-bit calls and of 64-bit ones.
    for (uint64_t nr : {1, 2, 4, 5, 11, 20, 37, 57, 60, 62, 90, 91, 119, 120, 125, 172, 173, 192, 231, 252, 257}) {
      At(testing::Message() << nr);
      for (Addr code : {int80, sysenter, Addr{0}, Addr{1}, Addr{2}}) {
        Registers regs{};
        Prepare({"", nr, static_cast<uint64_t>(getpid()), SIGUSR1, 0}, regs);
        regs.rbx = static_cast<uint64_t>(getpid());
        regs.rcx = SIGUSR1;
        regs.rsp = kData + 0x9000;
        regs.rbp = kData + 0x9000;
        regs.rip = code;
        if (code < 3) {
          regs.rip = to32;
          regs.rdi = in32[code];
        }
        Result<TrapInfo> info = Attack(regs, kMustEnd);
        EXPECT_TRUE(!info || info->trap == Trap::kFault);
      }
      CheckWorld();
    }
    // The host's vsyscall page knows three calls, and they are harmless.
    for (uint64_t offset = 0; offset < 0x1000; offset += 0x200) {
      Registers regs{};
      regs.rip = vsyscall;
      regs.rdi = 0xffffffffff600000 + offset;
      regs.rsi = kData;
      regs.rsp = kData + 0x9000;
      Result<TrapInfo> info = Attack(regs, kMustEnd);
      EXPECT_TRUE(info.has_value() && info->trap != Trap::kInterrupted) << offset;
    }
  });
}

TEST_P(SystrapHostile, CannotWriteOutsideItsSlots) {
  Addr store = AddCode(guest::Store());
  Run([&] {
    Begin();
    constexpr Addr kSlotsEnd = kSlots + kMaxSlots * kSlotSize;
    for (Addr page = kSlotsEnd; page < kTaskSize; page += kPageSize) {
      for (Addr addr : {page, page + kPageSize - 8}) {
        Registers regs{};
        regs.rip = store;
        regs.rdi = addr;
        regs.rsi = 0x4141414141414141;
        if (space_ == nullptr) Fresh();
        Result<TrapInfo> info = context_->Switch(*space_, regs);
        ASSERT_TRUE(info.has_value());
        ASSERT_TRUE(info->is_page_fault()) << std::hex << addr;
        ASSERT_TRUE(info->access.write);
        ASSERT_EQ(regs.rip, store);
      }
    }
    EXPECT_EQ(Fingerprint(PidOf(*space_)), fingerprint_);
  });
}

TEST_P(SystrapHostile, FillsItsSlotWithAnything) {
  Addr fill = AddCode(guest::Fill());
  Run([&] {
    Begin();
    std::mt19937_64 random(7);
    std::vector<AddrRange> ranges{{0, kSlotSize},
                                  {8, SLOT_SCRATCH_TOP},
                                  {STUB_SLOT_FP, STUB_SLOT_FP_LOAD},
                                  {STUB_SLOT_FP_LOAD, STUB_SLOT_STACK},
                                  {STUB_SLOT_STACK, kSlotSize}};
    for (uint64_t at = 0; at < 0x2c0; at += 32) ranges.push_back({at, at + 32});
    for (AddrRange range : ranges) {
      for (uint64_t pattern : {uint64_t{0}, ~uint64_t{0}, uint64_t{0x100000001}, kSlots + 0, kData + 0, random()}) {
        At(testing::Message() << std::hex << range.start << " to " << range.end << " with " << pattern);
        Registers regs{};
        for (int round = 0; round < 3; round++) {
          regs.rip = fill;
          regs.rdi = kSlots + range.start;
          regs.rcx = range.length() / 8;
          regs.r8 = pattern;
          regs.rax = static_cast<uint64_t>(round);
          if (!Attack(regs)) break;
          // In each of the states that a slot may be in between.
          watchdog_.Arm(*space_);
          if (round == 0) (void)context_->PullFpState();
          watchdog_.Disarm();
          if (round == 1) context_->Rest();
        }
      }
      Bystander();
      CheckWorld();
    }
    printf("%d processes, of which %d died and %d hung\n", made_, deaths_, hangs_);
  });
}

TEST_P(SystrapHostile, ScribblesWhileItsOtherThreadCalls) {
  Addr scribble = AddCode(guest::Scribble());
  Run([&] {
    Begin();
    int calls = 0;
    for (int seed = 0; seed < 28; seed++) {
      At(testing::Message() << seed);
      RefPtr<AddressSpace> space = NewSpace();
      std::atomic<bool> done{false};
      Spawn([&, space] {
        auto context = *platform().NewContext();
        Registers regs{};
        regs.rip = scribble;
        regs.rax = static_cast<uint64_t>(seed + 1) * 0x9e3779b97f4a7c15;
        // Of both slots: what the guest's side writes, with the registers to resume, all; then parts without the event,
        // so that calls go on: the resumption, registers, the state to load, the end of the signal stack.
        constexpr struct {
          uint64_t base, mask;
        } kAreas[] = {{0, 0x101f8},           {0, 0x10ff8},        {0, 0x1fff8},
                      {SLOT_RESUME, 0x100f8}, {SLOT_RBX, 0x10038}, {STUB_SLOT_FP_LOAD, 0x11ff8},
                      {0xe000, 0x11ff8}};
        regs.rdi = kSlots + kAreas[seed % 7].base;
        regs.rsi = kAreas[seed % 7].mask;
        const uint64_t ands[] = {~uint64_t{0}, 0, 0, 3}, ors[] = {0, 0, ~uint64_t{0}, 0};
        regs.r8 = ands[seed % 4];
        regs.r9 = ors[seed % 4];
        for (int i = 0; i < 1000; i++) {
          if (!context->Switch(*space, regs)) break;
          fiber::Yield();
        }
        done.store(true);
      });
      watchdog_.Arm(*space, milliseconds(80));
      {
        auto context = *platform().NewContext();
        Registers regs{};
        for (int i = 0;; i++) {
          regs.rip = loop_;
          // With bases that the other thread made up the guest is not even entered, and its death not seen.
          regs.fs_base = regs.gs_base = 0;
          if (!context->Switch(*space, regs)) break;
          calls++;
          if (i % 16 == 3) (void)context->PullFpState();
          if (i % 16 == 7) (void)context->PushFpState(FpState{});
          if (i % 16 == 11) context->Rest();
          if (i % 4 == 0) fiber::Yield();
          Bystander();
        }
      }
      while (!done.load()) fiber::Yield();
      watchdog_.Disarm();
      space->Release();
      Bystander();
      CheckWorld();
    }
    printf("%d calls\n", calls);
  });
}

// What the stub's rt_sigreturn takes from the guest's memory.
struct Frame {
  static constexpr uint64_t kOffset = 0x4000;
  explicit Frame(Addr rip) {
    uc.uc_flags = 6;  // UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS
    uc.uc_mcontext.gregs[REG_RIP] = static_cast<greg_t>(rip);
    uc.uc_mcontext.gregs[REG_RSP] = PlatformConformance::kData + 0x8000;
    uc.uc_mcontext.gregs[REG_EFL] = 0x202;
    SetSegments(kUserCs, kUserDs);
    SetStack(kSlots + STUB_SLOT_STACK, STUB_SLOT_STACK_SIZE, 0);
  }
  void SetSegments(uint64_t cs, uint64_t ss) { uc.uc_mcontext.gregs[REG_CSGSFS] = static_cast<greg_t>(cs | ss << 48); }
  void SetStack(Addr sp, uint64_t size, int flags) {
    uc.uc_stack.ss_sp = reinterpret_cast<void*>(sp);
    uc.uc_stack.ss_size = size;
    uc.uc_stack.ss_flags = flags;
  }
  void SetMask(int value) { memset(&uc.uc_sigmask, value, sizeof(uc.uc_sigmask)); }

  ucontext_t uc{};
};

TEST_P(SystrapHostile, ForgesSignalFrames) {
  Addr ud2 = AddCode(guest::InvalidOpcode());
  Run([&] {
    Begin();
    auto attack = [&](const Frame& frame, milliseconds limit = kHang) {
      memset(&Word(0), 0, 0x10000);
      memcpy(&Word(Frame::kOffset), &frame.uc, sizeof(frame.uc));
      Registers regs{};
      regs.rip = StubSigreturn();
      regs.rsp = kData + Frame::kOffset;
      Result<TrapInfo> info = Attack(regs, limit);
      CheckWorld();
      // Its signal stack and mask may be anything now.
      if (space_ != nullptr) {
        regs.rip = loop_;
        (void)Attack(regs);
        if (space_ != nullptr) space_->Release();
        context_.reset();
        space_.reset();
      }
      Bystander();
      return info;
    };
    // A well-formed one does what it would for any process.
    Result<TrapInfo> info = attack(Frame(loop_), kMustEnd);
    ASSERT_TRUE(info.has_value());
    EXPECT_EQ(info->trap, Trap::kSyscall);
    for (uint64_t cs : {0x0, 0x8, 0x10, 0x18, 0x1b, 0x23, 0x2b, 0x30, 0x33, 0x3b, 0x43, 0xffff}) {
      for (uint64_t ss : {0x0, 0x3, 0x10, 0x18, 0x23, 0x2b, 0x33, 0xffff}) {
        Frame frame(loop_);
        frame.SetSegments(cs, ss);
        attack(frame);
        frame.uc.uc_flags = 0;
        attack(frame);
      }
    }
    for (Addr rip : {Addr{0}, Addr{1}, kTaskSize - 1, kTaskSize, Addr{0x800000000000}, Addr{0x8000000000000000},
                     Addr{0xffff800000000000}, Addr{0xffffffff81000000}, Addr{0xffffffffff600000}, ~Addr{0}, kStubText,
                     StubSigreturn()}) {
      At(testing::Message() << rip);
      attack(Frame(rip));
    }
    for (uint64_t flags : {uint64_t{0}, ~uint64_t{0}, uint64_t{0x100}, uint64_t{0x3000}, uint64_t{0x4000},
                           uint64_t{0x20000}, uint64_t{0x40000}, uint64_t{0x10000}, uint64_t{0x180000}}) {
      At(testing::Message() << flags);
      Frame frame(loop_);
      frame.uc.uc_mcontext.gregs[REG_EFL] = static_cast<greg_t>(flags);
      attack(frame);
    }
    for (Addr fp : {Addr{1}, ~Addr{0}, Addr{0xffff888000000000}, Addr{0x8000000000000000}, Addr{STUB_COMMAND},
                    kStubText, kData + 0x3000, kData + 0x3001, kData + kDataSize - 16}) {
      At(testing::Message() << fp);
      for (uint64_t flags : {6, 7}) {
        Frame frame(loop_);
        frame.uc.uc_flags = flags;
        frame.uc.uc_mcontext.fpregs = reinterpret_cast<fpregset_t>(fp);
        attack(frame);
      }
    }
    // Signal stacks, and a fault at once.
    struct {
      Addr sp;
      uint64_t size;
      int flags;
    } stacks[] = {
        {0, 0, SS_DISABLE},
        {0, 0x9000, 0},
        {kData + 0x10000, 0x10000, 0},
        {kData + 0x10000, 0x10000, static_cast<int>(1u << 31)},  // SS_AUTODISARM
        {kSlots, kSlotSize, 0},
        {kSlots + kSlotSize, kSlotSize, 0},
        {kSlots, kMaxSlots * kSlotSize, 0},
        {STUB_COMMAND, 0x10000, 0},
        {kStubText, 0x2000, 0},
        {STUB_DOORBELLS, 0x10000, 0},
        {0xffff888000000000, 0x10000, 0},
        {~Addr{0}, ~uint64_t{0}, 0},
        {kData, ~uint64_t{0}, -1},
    };
    for (const auto& stack : stacks) {
      At(testing::Message() << stack.sp);
      for (int mask : {0, 0xff}) {
        Frame frame(ud2);
        frame.SetStack(stack.sp, stack.size, stack.flags);
        frame.SetMask(mask);
        attack(frame);
      }
    }
    printf("%d processes, of which %d died and %d hung\n", made_, deaths_, hangs_);
  });
}

// A guest that cannot be interrupted is killed in the end.
TEST_P(SystrapHostile, BlocksAllSignals) {
  Addr spin = AddCode(guest::Spin());
  Run([&] {
    Begin();
    RefPtr<AddressSpace> space = NewSpace();
    auto context = *platform().NewContext();
    Frame frame(spin);
    frame.SetMask(0xff);
    memcpy(&Word(Frame::kOffset), &frame.uc, sizeof(frame.uc));
    Registers regs{};
    regs.rip = StubSigreturn();
    regs.rsp = kData + Frame::kOffset;
    std::thread interrupter([&] {
      std::this_thread::sleep_for(milliseconds(20));
      context->Interrupt();
    });
    const auto start = Clock::now();
    Result<TrapInfo> info = context->Switch(*space, regs);
    interrupter.join();
    ASSERT_FALSE(info.has_value());
    EXPECT_EQ(info.error(), Errno(ESRCH));
    EXPECT_LT(Clock::now() - start, seconds(20));
    context.reset();
    space->Release();
  });
}

// A thread that waits where another guest's waits must not get the other's wake-ups; one that writes to the wake
// descriptor without end must not keep the Sentry from its other guests.
TEST_P(SystrapHostile, StealsNoWakeUpsAndFloodsInVain) {
  Run([&] {
    Begin();
    // The first space of the platform has the area behind the template's.
    const Addr doorbell =
        ControlFile::DoorbellAddress(static_cast<SystrapAddressSpace&>(*bystander_space_).process().area(), 0);
    std::atomic<int> done{0};
    std::vector<RefPtr<AddressSpace>> spaces{NewSpace(), NewSpace()};
    // Slots of the guest's making, a stack behind each.
    for (uint64_t n = 0; n < 2; n++) {
      const uint64_t slot = 0x20000 + n * 0x10000, stack = slot + 0x2000;
      Registers regs{};
      if (n == 0) {
        Word(slot + SLOT_DOORBELL) = doorbell;
        Word(stack) = 1;  // never commanded
        Word(stack + 8) = kData + slot;
        regs.rip = StubSleepAgain();
      } else {
        // Behind the write this goes round by way of OP_RETURN.
        Word(slot + SLOT_COMMAND) = 1 | uint64_t{OP_RETURN} << 32;
        Word(slot + SLOT_RESULT) = regs.rax = SYS_write;
        Word(slot + SLOT_RDI) = regs.rdi = STUB_FD_WAKE;
        Word(slot + SLOT_RSI) = regs.rsi = kData + slot + 0x3000;
        Word(slot + SLOT_RDX) = regs.rdx = 8;
        Word(slot + 0x3000) = 0xfffffffffffffffe;  // as much as it may hold
        Word(slot + SLOT_TRAMPOLINE) = StubWakeWrite() - TRAMPOLINE_TAIL;
        Word(slot + SLOT_RSP) = kData + stack;
        Word(slot + SLOT_SCRATCH_TOP - 8) = 0x202;
        Word(stack) = 1;
        Word(stack + 8) = kData + slot;
        Word(stack + 16) = 1;
        regs.rip = StubWakeWrite();
      }
      regs.rsp = kData + stack;
      Spawn([&, regs, n]() mutable {
        auto context = *platform().NewContext();
        Result<TrapInfo> info = context->Switch(*spaces[n], regs);
        EXPECT_FALSE(info.has_value()) << n << " came out with signal " << info->signal.signo << " at " << std::hex
                                       << regs.rip;
        done.fetch_add(1);
      });
    }
    const auto start = Clock::now();
    for (int i = 0; i < 300; i++) {
      // Long enough for its thread to go to sleep.
      std::this_thread::sleep_for(milliseconds(1));
      Bystander();
    }
    EXPECT_LT(Clock::now() - start, seconds(15));
    EXPECT_EQ(done.load(), 0) << "the attackers are not at work";
    for (auto& space : spaces) space->Release();
    while (done.load() < 2) fiber::Yield();
  });
}

// An event that makes the Sentry enter the guest again without a word to the kernel: it must not do only that.
TEST_P(SystrapHostile, NotEnteredForEver) {
  Run([&] {
    Begin();
    std::atomic<int> done{0};
    std::vector<RefPtr<AddressSpace>> spaces;
    std::vector<std::unique_ptr<Context>> contexts;
    // More than the executor has threads.
    for (int n = 0; n < 3; n++) {
      spaces.push_back(NewSpace());
      contexts.push_back(*platform().NewContext());
      Spawn([&, n] {
        Registers regs{};
        regs.rip = StubNotEntered();
        regs.rcx = kSlots;
        regs.rsp = kSlots + SLOT_SCRATCH_TOP - 64;
        // Interrupts get it out, or the end of its process does.
        Result<TrapInfo> info = contexts[static_cast<size_t>(n)]->Switch(*spaces[static_cast<size_t>(n)], regs);
        EXPECT_TRUE(!info || info->trap == Trap::kInterrupted);
        done.fetch_add(1);
      });
    }
    for (int i = 0; i < 100; i++) {
      fiber::Yield();
      Bystander();
    }
    EXPECT_EQ(done.load(), 0) << "the attackers are not at work";
    for (auto& context : contexts) context->Interrupt();
    while (done.load() < 3) fiber::Yield();
    contexts.clear();
    for (auto& space : spaces) space->Release();
  });
}

// A thread pretends to wait for commands, and in truth runs guest code: it does not save its extended state when told.
TEST_P(SystrapHostile, PretendsToWait) {
  if (std::thread::hardware_concurrency() < 2) GTEST_SKIP() << "takes two threads of a process";
  Addr count = AddCode(guest::Count()), two_stores = AddCode(guest::TwoStores());
  Run([&] {
    Begin();
    RefPtr<AddressSpace> space = NewSpace();
    auto victim = *platform().NewContext();
    std::atomic<int> stage{0};
    Spawn([&] {
      Registers regs{};
      regs.rip = count;
      regs.rdi = kData;
      Result<TrapInfo> info = victim->Switch(*space, regs);
      EXPECT_TRUE(info.has_value());
      EXPECT_EQ(info->trap, Trap::kSyscall) << "the made-up event";
      stage.store(1);
    });
    while (const_cast<volatile uint64_t&>(Word(0)) == 0) fiber::Yield();
    auto accomplice = *platform().NewContext();
    Registers regs{};
    regs.rip = two_stores;
    // The new thread's first event was 1, so this is the second.
    regs.rdi = kSlots + SLOT_KIND;
    regs.rsi = KIND_SYSCALL;
    regs.rdx = kSlots + SLOT_EVENT;
    regs.rcx = 2;
    ASSERT_TRUE(accomplice->Switch(*space, regs).has_value());
    while (stage.load() == 0) fiber::Yield();
    const auto start = Clock::now();
    for (int i = 0; i < 3; i++) {
      Result<FpState> state = victim->PullFpState();
      ASSERT_FALSE(state.has_value());
      EXPECT_EQ(state.error(), Errno(ESRCH));
    }
    EXPECT_LT(Clock::now() - start, seconds(20)) << "waited more than once";
    victim.reset();
    accomplice.reset();
    space->Release();
  });
}

// A thread that seems to wait, and is told to make room for the manager, runs on in the guest. What it says of the
// manager's answers is not believed either.
TEST_P(SystrapHostile, MakesNoRoomForTheManager) {
  if (std::thread::hardware_concurrency() < 2) GTEST_SKIP() << "one processor is never asked to";
  Addr pretend = AddCode(guest::TwoStoresAndSpin());
  Run([&] {
    Begin();
    RefPtr<AddressSpace> space = NewSpace();
    auto context = *platform().NewContext();
    Registers regs{};
    regs.rip = pretend;
    // The thread's first event was 1, so this is the second.
    regs.rdi = kSlots + SLOT_KIND;
    regs.rsi = KIND_SYSCALL;
    regs.rdx = kSlots + SLOT_EVENT;
    regs.rcx = 2;
    // Nobody rings for this event: somebody is awake and looks.
    std::atomic<bool> came{false};
    Spawn([&] {
      while (!came.load()) fiber::Yield();
    });
    Result<TrapInfo> info = context->Switch(*space, regs);
    came.store(true);
    ASSERT_TRUE(info.has_value());
    ASSERT_EQ(info->trap, Trap::kSyscall) << "the made-up event";
    StubProcess& process = static_cast<SystrapAddressSpace&>(*space).process();
    ControlFile& control = process.host().control();
    SlotControl& slot = control.slot(process.area(), 0);
    const auto start = Clock::now();
    for (int i = 0; i < 100; i++) {
      if (i >= 50) slot.done.store(control.command(process.area()).sequence.load() + 1);
      const Addr at = kForbidden + i * kPageSize;
      ASSERT_TRUE(space->MapFile(at, memory_fd(), kCodeSize, kPageSize, kRead, false));
      const std::string maps = ReadFile("/proc/" + std::to_string(process.pid()) + "/maps");
      std::ostringstream line;
      line << std::hex << at << "-" << at + kPageSize << " ";
      ASSERT_NE(maps.find(line.str()), std::string::npos) << "answered before it was done: " << maps;
      ASSERT_TRUE(space->Unmap(at, kPageSize));
    }
    EXPECT_NE(slot.quiet.load(), QUIET_NO) << "it was never told to";
    EXPECT_LT(Clock::now() - start, seconds(5));
    space->Release();
    context.reset();
  });
}

}  // namespace
}  // namespace redoubt::platform::systrap
