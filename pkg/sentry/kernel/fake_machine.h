// For tests: a kernel whose platform runs scripts, on the deterministic executor.
#ifndef REDOUBT_PKG_SENTRY_KERNEL_FAKE_MACHINE_H_
#define REDOUBT_PKG_SENTRY_KERNEL_FAKE_MACHINE_H_

#include <elf.h>
#include <fcntl.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "pkg/fiber/fiber.h"
#include "pkg/sentry/fsimpl/tmpfs/tmpfs.h"
#include "pkg/sentry/kernel/container.h"
#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/kernel/task.h"
#include "pkg/sentry/pgalloc/memory_file.h"
#include "pkg/sentry/vfs/vfs.h"

namespace redoubt::kernel {

inline constexpr fiber::Time kMillisecond = 1'000'000;
inline constexpr Addr kImage = 0x400000;

// What a guest does next: the number of a call, which the test's dispatcher makes, or to stay in the guest until
// interrupted.
inline constexpr uint64_t kCompute = 0;
using Guest = std::function<uint64_t(platform::Registers&)>;

// Shared by all contexts of one test.
struct World {
  Guest guest;
  bool frozen = false;  // nobody may be in the guest
  int inside = 0;       // contexts in Switch
  uint64_t switches = 0;
};

class FakeAddressSpace final : public platform::AddressSpace {
 public:
  Result<> MapFile(Addr, int, uint64_t, uint64_t, AccessType, bool) override { return {}; }
  Result<> Unmap(Addr, uint64_t) override { return {}; }
  void Release() override {}
};

class FakeContext final : public platform::Context {
 public:
  explicit FakeContext(World& world) : world_(world) {}

  Result<platform::TrapInfo> Switch(platform::AddressSpace&, platform::Registers& regs) override {
    EXPECT_FALSE(world_.frozen) << "a frozen task enters the guest";
    world_.switches++;
    world_.inside++;
    platform::TrapInfo trap{.trap = platform::Trap::kSyscall};
    if (!interrupted_) {
      const uint64_t call = world_.guest(regs);
      if (call == kCompute) {
        fiber_ = RefPtr<fiber::Fiber>(fiber::Current());
        while (!interrupted_) fiber::Park();
        trap.trap = platform::Trap::kInterrupted;
      } else {
        // Takes its time: virtual time stands still while anybody can run.
        fiber::Park(fiber::Now() + kMillisecond / 50);
        regs.orig_rax = call;
      }
    } else {
      trap.trap = platform::Trap::kInterrupted;
    }
    interrupted_ = false;
    world_.inside--;
    return trap;
  }
  void Interrupt() override {
    interrupted_ = true;
    if (fiber_) fiber_->Unpark();
  }
  Result<platform::FpState> PullFpState() override { return platform::FpState{}; }
  Result<> PushFpState(const platform::FpState&) override { return {}; }

 private:
  World& world_;
  bool interrupted_ = false;
  RefPtr<fiber::Fiber> fiber_;
};

class FakePlatform final : public platform::Platform {
 public:
  explicit FakePlatform(World& world) : world_(world) {}
  std::string_view name() const override { return "fake"; }
  Result<RefPtr<platform::AddressSpace>> NewAddressSpace() override { return MakeRef<FakeAddressSpace>(); }
  Result<std::unique_ptr<platform::Context>> NewContext() override { return std::make_unique<FakeContext>(world_); }
  Addr min_user_address() const override { return 0x10000; }
  Addr max_user_address() const override { return 0x7fff'ffff'f000; }

 private:
  World& world_;
};

// The smallest program that exec accepts.
inline std::vector<std::byte> Program() {
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

// A kernel and the fiber that plays the CLI.
class FakeMachine {
 public:
  FakeMachine(uint64_t seed, Guest guest, SyscallDispatcher dispatch)
      : executor_(fiber::MakeDeterministicExecutor(seed)), memory_file_(*pgalloc::MemoryFile::Create({})) {
    world_.guest = std::move(guest);
    kernel_ = std::make_unique<Kernel>(Kernel::Options{.platform = &platform_,
                                                       .memory_file = memory_file_.get(),
                                                       .executor = executor_.get(),
                                                       .dispatcher = dispatch});
  }

  void Run(std::function<void()> body) {
    executor_->Spawn([this, body] {
      body();
      kernel_->KillAll();
    });
    fiber::Join(*executor_);
  }

  RefPtr<ThreadGroup> Create(RefPtr<Container> container, bool held = false) {
    Result<RefPtr<ThreadGroup>> group = TryCreate(std::move(container), held);
    EXPECT_TRUE(group) << group.error().name();
    return group ? *group : nullptr;
  }
  Result<RefPtr<ThreadGroup>> TryCreate(RefPtr<Container> container, bool held = false) {
    RefPtr<auth::Credentials> creds = auth::Credentials::Root();
    RefPtr<vfs::MountNamespace> mounts =
        vfs::MountNamespace::Create(tmpfs::Create(*memory_file_, {.root_mode = 0755}), 0, "root");
    vfs::Path root = mounts->root();
    vfs::Walker walker{*creds, root};
    RefPtr<vfs::FileDescription> file =
        *vfs::Open(walker, {.start = root, .name = "/program"}, {.flags = O_CREAT | O_WRONLY, .mode = 0755});
    std::vector<std::byte> image = Program();
    BufferIo io(image);
    IoSequence source(io, 0, image.size());
    EXPECT_TRUE(file->Write(source, 0));
    file.reset();
    Kernel::ProcessArgs args;
    args.filename = "/program";
    args.argv = {"/program"};
    args.creds = creds;
    args.mounts = mounts;
    args.fds = MakeRef<FdTable>();
    args.container = std::move(container);
    args.held = held;
    return kernel_->CreateProcess(args);
  }

  void Sleep(fiber::Time time) {
    for (fiber::Time end = fiber::Now() + time; fiber::Now() < end;) fiber::Park(end);
  }
  size_t Alive(const Container& container) {
    size_t n = 0;
    for (const RefPtr<ThreadGroup>& group : kernel_->GroupsOf(container)) {
      sync::MutexLock lock(kernel_->mu);
      n += group->zombie ? 0 : 1;
    }
    return n;
  }

  Kernel& kernel() { return *kernel_; }
  World& world() { return world_; }

 private:
  World world_;
  std::unique_ptr<fiber::Executor> executor_;
  std::unique_ptr<pgalloc::MemoryFile> memory_file_;
  FakePlatform platform_{world_};
  std::unique_ptr<Kernel> kernel_;
};

}  // namespace redoubt::kernel

#endif  // REDOUBT_PKG_SENTRY_KERNEL_FAKE_MACHINE_H_
