// What the platform's operations cost: nanoseconds, and per operation KVM_RUNs ("exits") and other KVM calls ("calls").
#include <benchmark/benchmark.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "pkg/fiber/fiber.h"
#include "pkg/platform/guest_code_amd64_unsafe.h"
#include "pkg/platform/kvm/api_unsafe.h"
#include "pkg/platform/kvm/kvm.h"

namespace redoubt::platform::kvm {
namespace {

constexpr Addr kCode = 0x400000, kData = 0x10000000;
constexpr uint64_t kDataOffset = 1 << 20;
constexpr uint64_t kFileSize = 64 << 20;

class CountingApi final : public Api {
 public:
  Result<int> Ioctl(int fd, unsigned long request, uintptr_t argument) override {
    (request == KVM_RUN ? exits : calls).fetch_add(1, std::memory_order_relaxed);
    return Api::Ioctl(fd, request, argument);
  }
  std::atomic<int64_t> exits{0}, calls{0};
};

// One platform for all, its guests' code in the first pages of the memory file.
struct World {
  World() {
    memory = memfd_create("bench", MFD_CLOEXEC);
    if (memory < 0 || ftruncate(memory, kFileSize) != 0) std::abort();
    auto made = Create(api, Requirements{.memory_fd = memory});
    if (!made) std::abort();
    platform = *std::move(made);
    loop = Put(0, guest::SyscallLoop());
    load = Put(256, guest::Load());
  }
  Addr Put(uint64_t offset, std::span<const std::byte> code) {
    if (pwrite(memory, code.data(), code.size(), static_cast<off_t>(offset)) < 0) std::abort();
    return kCode + offset;
  }
  CountingApi api;
  int memory = -1;
  std::unique_ptr<Platform> platform;
  Addr loop = 0, load = 0;
};
World& TheWorld() {
  static auto* world = new World;
  return *world;
}

struct Guest {
  explicit Guest(Addr rip) {
    World& w = TheWorld();
    space = *w.platform->NewAddressSpace();
    context = *w.platform->NewContext();
    AccessType rx{.read = true, .execute = true};
    if (!space->MapFile(kCode, w.memory, 0, kPageSize, rx, false)) std::abort();
    regs.rip = rip;
    regs.rdi = kData;
  }
  Trap Go() {
    Result<TrapInfo> info = context->Switch(*space, regs);
    if (!info) std::abort();
    return info->trap;
  }
  void Map(AccessType access) {
    if (!space->MapFile(kData, TheWorld().memory, kDataOffset, kPageSize, access, false)) std::abort();
  }
  RefPtr<AddressSpace> space;
  std::unique_ptr<Context> context;
  Registers regs{};
};

// Runs `op` in a fiber, once to warm up and then for the benchmark.
template <typename F>
void Measure(benchmark::State& state, F&& op) {
  World& w = TheWorld();
  auto executor = fiber::ThreadedExecutor::Create({.slots = 1});
  executor->Spawn([&] {
    op();
    const int64_t exits = w.api.exits.load(), calls = w.api.calls.load();
    for (auto _ : state) op();
    const auto n = static_cast<double>(state.iterations());
    state.counters["exits"] = static_cast<double>(w.api.exits.load() - exits) / n;
    state.counters["calls"] = static_cast<double>(w.api.calls.load() - calls) / n;
  });
  fiber::Join(*executor);
}

void BM_Syscall(benchmark::State& state) {
  Guest g(TheWorld().loop);
  Measure(state, [&] { g.Go(); });
}

void BM_SyscallsOfTwoProcesses(benchmark::State& state) {
  Guest a(TheWorld().loop), b(TheWorld().loop);
  Measure(state, [&] {
    a.Go();
    b.Go();
  });
}

void BM_SyscallWithStateMoved(benchmark::State& state) {
  std::vector<std::unique_ptr<Guest>> guests;
  for (int i = 0; i < 80; i++) guests.push_back(std::make_unique<Guest>(TheWorld().loop));
  size_t next = 0;
  Measure(state, [&] {
    guests[next]->Go();
    next = (next + 1) % guests.size();
  });
}

// An access that faults, the page, and a system call after the access.
void BM_FaultMapAndSyscall(benchmark::State& state) {
  Guest g(TheWorld().load);
  Measure(state, [&] {
    g.regs.rip = TheWorld().load;
    if (g.Go() != Trap::kFault) std::abort();
    g.Map(kReadWrite);
    if (g.Go() != Trap::kSyscall) std::abort();
    if (!g.space->Unmap(kData, kPageSize)) std::abort();
  });
}

void BM_UnmapAndMapUnused(benchmark::State& state) {
  Guest g(TheWorld().load);
  Measure(state, [&] {
    g.Map(kReadWrite);
    if (!g.space->Unmap(kData, kPageSize)) std::abort();
  });
}

// What a page in use costs when it is protected: that, and to find it again.
void BM_ProtectUsedAndSyscall(benchmark::State& state) {
  Guest g(TheWorld().load);
  Measure(state, [&] {
    g.Map(kReadWrite);
    g.Map(kRead);
    g.regs.rip = TheWorld().load;
    if (g.Go() != Trap::kSyscall) std::abort();
  });
}

void BM_AddressSpace(benchmark::State& state) {
  Measure(state, [&] {
    Guest g(TheWorld().loop);
    g.Go();
  });
}

BENCHMARK(BM_Syscall);
BENCHMARK(BM_SyscallsOfTwoProcesses);
BENCHMARK(BM_SyscallWithStateMoved);
BENCHMARK(BM_FaultMapAndSyscall);
BENCHMARK(BM_UnmapAndMapUnused);
BENCHMARK(BM_ProtectUsedAndSyscall);
BENCHMARK(BM_AddressSpace);

}  // namespace
}  // namespace redoubt::platform::kvm

BENCHMARK_MAIN();
