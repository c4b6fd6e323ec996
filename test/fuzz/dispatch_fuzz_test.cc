// The Sentry under hostile system calls, in this process and without a platform, so that the sanitizers see it: a guest
// of several threads, each of whose traps is the next call of a seeded grammar. rounds.h says for how long.
#include <elf.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <latch>
#include <map>
#include <memory>
#include <optional>

#include "pkg/fiber/fiber.h"
#include "pkg/log/log.h"
#include "pkg/sentry/fsimpl/tmpfs/tmpfs.h"
#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/pgalloc/memory_file.h"
#include "pkg/sentry/pipe/pipe.h"
#include "pkg/sentry/socket/socket.h"
#include "pkg/sentry/socket/unix/unix.h"
#include "pkg/sentry/syscalls/table.h"
#include "pkg/sentry/vfs/special_nodes.h"
#include "pkg/sentry/vfs/vfs.h"
#include "pkg/sync/mutex.h"
#include "test/fuzz/grammar.h"
#include "test/fuzz/rounds.h"

namespace redoubt {
namespace {

using kernel::Task;

constexpr Addr kImage = 0x400000;
constexpr Addr kArena = 0x10000000;
constexpr Addr kStack = 0x20000000;
constexpr size_t kStackSize = 64 << 10;
constexpr int kThreads = 4;
constexpr int kCalls = 2000;  // of each thread
constexpr int kMostTicks = 1000;
constexpr int kTick = 64;  // a signal that takes who waits out of his call

class IdleAddressSpace final : public platform::AddressSpace {
 public:
  Result<> MapFile(Addr, int, uint64_t, uint64_t, AccessType, bool) override { return {}; }
  Result<> Unmap(Addr, uint64_t) override { return {}; }
  void Release() override {}
};

// What a thread of the guest does: some calls that set the stage, then hostile ones, then its end. Another process,
// which the first makes, is there to be traced: it sleeps.
class Thread final {
 public:
  Thread(uint64_t seed, int index, bool victim) : seed_(seed), index_(index), is_victim_(victim) {}

  // The next call, in the registers. `victim`: its number.
  void Next(platform::Registers& regs, int victim) {
    fuzz::Call call{SYS_exit, {}};
    if (is_victim_) {
      call = {SYS_poll, {0, 0, 1}};
    } else if (index_ == 0 && step_ < kSetUp) {
      call = SetUp(step_);
    } else if (step_ < kSetUp + kCalls) {
      if (!grammar_) {
        grammar_.emplace(
            seed_ * 64 + static_cast<uint64_t>(index_), fuzz::Arena(kArena), Task::Current()->group().pid->number(),
            victim, [](uint64_t addr, const void* data, size_t size) {
              (void)Task::Current()->mm().CopyOut(addr, std::span(static_cast<const std::byte*>(data), size));
            });
      }
      call = grammar_->Next();
    } else if (index_ == 0) {
      call = {SYS_exit_group, {}};
    }
    step_++;
    regs.orig_rax = static_cast<uint64_t>(call.number);
    regs.rax = static_cast<uint64_t>(-ENOSYS);
    regs.rdi = call.arguments[0];
    regs.rsi = call.arguments[1];
    regs.rdx = call.arguments[2];
    regs.r10 = call.arguments[3];
    regs.r8 = call.arguments[4];
    regs.r9 = call.arguments[5];
    // Handlers are never run, but their frames are written.
    regs.rsp = kStack + kStackSize * static_cast<uint64_t>(index_ + 1);
    regs.rip = kImage + 512;
  }

 private:
  static constexpr int kSignals = 64;
  static constexpr int kSetUp = 9 + kSignals + kThreads - 1;

  static fuzz::Call SetUp(int step) {
    const fuzz::Arena a(kArena);
    constexpr uint64_t kReadWrite = PROT_READ | PROT_WRITE;
    constexpr uint64_t kPrivate = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    // Of signals only the tick does anything: timers and pipes without a reader are not to end it.
    if (step >= 8 && step < 8 + kSignals) {
      const uint64_t ignore[4] = {1, 0, 0, 0};
      (void)Task::Current()->mm().CopyOutObject(a.base, ignore);
      return {step - 7 == kTick ? SYS_getpid : SYS_rt_sigaction, {static_cast<uint64_t>(step - 7), a.base, 0, 8}};
    }
    switch (step) {
      case 8 + kSignals:
        return {SYS_fork, {}};
      case 0:
        return {SYS_mmap, {a.base, fuzz::Arena::kSize, kReadWrite, kPrivate, ~uint64_t{0}, 0}};
      case 1:
        return {SYS_mmap,
                {a.shared, fuzz::Arena::kSize, kReadWrite, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, ~uint64_t{0}, 0}};
      case 2:
        return {SYS_mmap, {a.read_only, fuzz::Arena::kSize, PROT_READ, kPrivate, ~uint64_t{0}, 0}};
      case 3:
        return {SYS_mmap, {a.none, fuzz::Arena::kSize, PROT_NONE, kPrivate, ~uint64_t{0}, 0}};
      case 4:
        return {SYS_mmap, {kStack, kStackSize * (kThreads + 1), kReadWrite, kPrivate, ~uint64_t{0}, 0}};
      case 5: {
        // rt_sigaction(2): the handler and the restorer are somewhere.
        struct {
          uint64_t handler = kImage + 512, flags = 0x04000000, restorer = kImage + 512, mask = 0;
        } action;
        (void)Task::Current()->mm().CopyOutObject(a.base, action);
        return {SYS_rt_sigaction, {kTick, a.base, 0, 8}};
      }
      case 6:
        return {SYS_pipe2, {a.base, 0}};
      case 7:
        return {SYS_socketpair, {1, 1, 0, a.base}};
      default:
        return {
            SYS_clone,
            {CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM, kStack + kStackSize}};
    }
  }

  const uint64_t seed_;
  const int index_;
  const bool is_victim_;
  std::optional<fuzz::Grammar> grammar_;
  int step_ = 0;
};

// The threads of one process, in the order in which they first trap, and the victim.
class Guest final {
 public:
  explicit Guest(uint64_t seed) : seed_(seed) {}
  void Trap(platform::Registers& regs) {
    Thread* thread = nullptr;
    {
      sync::MutexLock lock(mu_);
      const kernel::ThreadGroup& group = Task::Current()->group();
      if (process_ == nullptr) process_ = &group;
      const bool victim = &group != process_;
      if (victim) victim_.store(group.pid->number());
      std::unique_ptr<Thread>& t = threads_[Task::Current()];
      if (!t) t = std::make_unique<Thread>(seed_, victim ? -1 : next_++, victim);
      thread = t.get();
    }
    calls_.fetch_add(1, std::memory_order_relaxed);
    thread->Next(regs, victim_.load());
  }
  uint64_t calls() const { return calls_.load(); }

 private:
  const uint64_t seed_;
  std::atomic<uint64_t> calls_{0};
  sync::Mutex mu_{sync::Rank::kLeaf};
  int next_ GUARDED_BY(mu_) = 0;
  const kernel::ThreadGroup* process_ GUARDED_BY(mu_) = nullptr;
  std::atomic<int> victim_{0};
  std::map<Task*, std::unique_ptr<Thread>> threads_ GUARDED_BY(mu_);
};

class GuestContext final : public platform::Context {
 public:
  explicit GuestContext(Guest*& guest) : guest_(guest) {}
  Result<platform::TrapInfo> Switch(platform::AddressSpace&, platform::Registers& regs) override {
    guest_->Trap(regs);
    return platform::TrapInfo{.trap = platform::Trap::kSyscall};
  }
  void Interrupt() override {}
  Result<platform::FpState> PullFpState() override { return platform::InitialFpState(); }
  Result<> PushFpState(const platform::FpState&) override { return {}; }

 private:
  Guest*& guest_;
};

class GuestPlatform final : public platform::Platform {
 public:
  std::string_view name() const override { return "none"; }
  Result<RefPtr<platform::AddressSpace>> NewAddressSpace() override { return MakeRef<IdleAddressSpace>(); }
  Result<std::unique_ptr<platform::Context>> NewContext() override { return std::make_unique<GuestContext>(guest); }
  Addr min_user_address() const override { return 0x10000; }
  Addr max_user_address() const override { return 0x7fff'ffff'f000; }

  Guest* guest = nullptr;
};

std::vector<std::byte> Program() {
  std::vector<std::byte> image(4096);
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = ET_EXEC;
  header.e_machine = EM_X86_64;
  header.e_entry = kImage + 512;
  header.e_phoff = sizeof(header);
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = 1;
  Elf64_Phdr segment{};
  segment.p_type = PT_LOAD;
  segment.p_flags = PF_R | PF_W | PF_X;
  segment.p_vaddr = kImage;
  segment.p_filesz = segment.p_memsz = image.size();
  segment.p_align = 4096;
  std::memcpy(image.data(), &header, sizeof(header));
  std::memcpy(image.data() + sizeof(header), &segment, sizeof(segment));
  return image;
}

Result<> RunProcess(kernel::Kernel& kernel, fiber::Executor& executor) {
  RefPtr<auth::Credentials> creds = auth::Credentials::Root();
  RefPtr<vfs::MountNamespace> mounts =
      vfs::MountNamespace::Create(tmpfs::Create(kernel.memory_file(), {.root_mode = 0755}), 0, "root");
  vfs::Path root = mounts->root();
  vfs::Walker walker{*creds, root};
  for (const char* dir : {"/tmp", "/tmp/fuzz", "/dev"}) TRY(vfs::Mkdir(walker, {.start = root, .name = dir}, 0755));
  {
    RefPtr<vfs::FileDescription> file =
        TRY(vfs::Open(walker, {.start = root, .name = "/program"}, {.flags = O_CREAT | O_WRONLY, .mode = 0755}));
    std::vector<std::byte> image = Program();
    BufferIo io(image);
    IoSequence src(io, 0, image.size());
    (void)TRY(file->Write(src, 0));
  }
  kernel::Kernel::ProcessArgs process;
  process.filename = "/program";
  process.argv = {"/program"};
  process.creds = creds;
  process.mounts = mounts;
  process.fds = MakeRef<FdTable>();
  RefPtr<kernel::ThreadGroup> init = TRY(kernel.CreateProcess(process));
  auto ended = std::make_shared<std::atomic<bool>>(false);
  executor.Spawn([&kernel, ended, init] {
    siginfo_t tick{};
    tick.si_signo = kTick;
    tick.si_code = SI_KERNEL;
    // Who waits with the tick blocked is killed in the end; who does not die of that hangs this test.
    siginfo_t kill{};
    kill.si_signo = SIGKILL;
    kill.si_code = SI_KERNEL;
    for (int ticks = 0; !ended->load(); ticks++) {
      fiber::Park(fiber::Now() + 1'000'000);
      (void)kernel.SendToGroup(*init, ticks < kMostTicks ? tick : kill);
    }
  });
  (void)kernel.WaitForExit(*init);
  ended->store(true);
  kernel.KillAll();
  return {};
}

// What all guests share, as those of a sandbox do: the fiber that looks after O_ASYNC does not end before its kernel.
struct Sandbox {
  GuestPlatform platform;
  std::unique_ptr<pgalloc::MemoryFile> memory_file;
  std::unique_ptr<fiber::Executor> executor = fiber::ThreadedExecutor::Create({.slots = 2});
  std::unique_ptr<kernel::Kernel> kernel;

  static Sandbox& Get() {
    static auto* const sandbox = [] {
      auto* s = new Sandbox();
      Result<std::unique_ptr<pgalloc::MemoryFile>> file = pgalloc::MemoryFile::Create({.limit = 512 << 20});
      CHECK(file.has_value(), "no memory file");
      s->memory_file = *std::move(file);
      s->kernel = std::make_unique<kernel::Kernel>(kernel::Kernel::Options{.platform = &s->platform,
                                                                           .memory_file = s->memory_file.get(),
                                                                           .executor = s->executor.get(),
                                                                           .dispatcher = syscalls::Dispatch});
      return s;
    }();
    return *sandbox;
  }
};

// One guest. Nothing of it is left.
uint64_t RunSeed(uint64_t seed) {
  Sandbox& sandbox = Sandbox::Get();
  Guest guest(seed);
  sandbox.platform.guest = &guest;
  Result<> outcome;
  std::latch done(1);
  sandbox.executor->Spawn([&] {
    outcome = RunProcess(*sandbox.kernel, *sandbox.executor);
    done.count_down();
  });
  done.wait();
  EXPECT_TRUE(outcome.has_value());
  EXPECT_EQ(sandbox.kernel->TaskCount(), 0u);
  return guest.calls();
}

TEST(DispatchFuzz, TheSentryStands) {
  vfs::SetSpecialNodeHooks({.open_fifo = pipe::OpenFifo, .current_credentials = [] {
                              Task* task = Task::Current();
                              return task != nullptr ? &task->creds() : nullptr;
                            }});
  socket::RegisterFamily(AF_UNIX, unixsock::UnixFamily());
  uint64_t calls = 0;
  fuzz::Rounds(8, [&](uint64_t seed) { calls += RunSeed(seed); });
  std::printf("%llu calls\n", static_cast<unsigned long long>(calls));
  // It was the guest that ended, not its first call.
  EXPECT_GT(calls, 1000u);
}

}  // namespace
}  // namespace redoubt
