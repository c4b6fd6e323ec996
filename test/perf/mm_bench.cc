// What the memory manager itself costs: nanoseconds, and calls to the platform ("calls"), per operation. The platform
// is a fake one that forgets what it maps, so its own time (5-10 us a call on a real one) must be added.
#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <array>
#include <memory>

#include "pkg/sentry/mm/fake_platform.h"
#include "pkg/sentry/mm/memory_manager.h"
#include "pkg/sentry/pgalloc/memory_file.h"

namespace redoubt::mm {
namespace {

class Space {
 public:
  Space() {
    mm_->AddUser();
    // As in a program: some mappings around.
    for (int i = 0; i < 40; i++) {
      AccessType access = i % 2 == 0 ? kRead : AccessType{.read = true, .execute = true};
      if (!mm_->MMap({.length = 8 * kPageSize, .access = access})) std::abort();
    }
    Touch(Map(kPageSize), kPageSize);  // the guest runs
  }
  ~Space() { mm_->DropUser(); }

  MemoryManager& mm() { return *mm_; }
  int calls() { return static_cast<FakeAddressSpace&>(mm_->address_space()).calls; }
  Addr Map(uint64_t length) {
    Result<Addr> a = mm_->MMap({.length = length, .access = kReadWrite});
    if (!a) std::abort();
    return *a;
  }
  // As a guest would, sequentially: faults where the platform has nothing that may be written.
  void Touch(Addr start, uint64_t length) {
    auto& guest = static_cast<FakeAddressSpace&>(mm_->address_space());
    for (Addr a = start; a < start + length; a += kPageSize) {
      if (guest.last_map.Contains(a)) continue;
      if (!mm_->HandleUserFault(a, kWrite, true, 0)) std::abort();
    }
  }

 private:
  FakePlatform platform_{/*remember=*/false};
  std::unique_ptr<pgalloc::MemoryFile> memory_ = *pgalloc::MemoryFile::Create({});
  RefPtr<MemoryManager> mm_ = *MemoryManager::Create(platform_, *memory_);
};

// Counts the platform's calls per iteration from its construction on.
class Calls {
 public:
  Calls(benchmark::State& state, Space& space) : state_(state), space_(space), before_(space.calls()) {}
  ~Calls() {
    state_.counters["calls"] = benchmark::Counter(space_.calls() - before_, benchmark::Counter::kAvgIterations);
  }

 private:
  benchmark::State& state_;
  Space& space_;
  int before_;
};

void MmapMunmap(benchmark::State& state) {
  Space s;
  Calls calls(state, s);
  for (auto _ : state) {
    Addr a = s.Map(kPageSize);
    (void)s.mm().MUnmap(a, kPageSize);
  }
}
BENCHMARK(MmapMunmap);

// With many mappings, between which smaller gaps are.
void MmapMunmapAmong(benchmark::State& state) {
  Space s;
  for (int i = 0; i < state.range(0); i++) {
    Addr a = s.Map(4 * kPageSize);
    (void)s.mm().MUnmap(a + kPageSize, kPageSize);
  }
  for (auto _ : state) {
    Addr a = s.Map(2 * kPageSize);
    (void)s.mm().MUnmap(a, 2 * kPageSize);
  }
}
BENCHMARK(MmapMunmapAmong)->Arg(10000);

// The argument is the mapping's size in KiB; all pages are touched in order.
void MmapTouchMunmap(benchmark::State& state) {
  Space s;
  Calls calls(state, s);
  const uint64_t length = static_cast<uint64_t>(state.range(0)) << 10;
  for (auto _ : state) {
    Addr a = s.Map(length);
    s.Touch(a, length);
    (void)s.mm().MUnmap(a, length);
  }
}
BENCHMARK(MmapTouchMunmap)->Arg(4)->Arg(1024)->Arg(64 << 10);

// As above, with memory that the Sentry writes: what the host takes for committing and freeing it.
void MmapWriteMunmap(benchmark::State& state) {
  Space s;
  Calls calls(state, s);
  const uint64_t length = static_cast<uint64_t>(state.range(0)) << 10;
  for (auto _ : state) {
    Addr a = s.Map(length);
    for (Addr page = a; page < a + length; page += kPageSize) (void)s.mm().CopyOutObject(page, uint64_t{1});
    (void)s.mm().MUnmap(a, length);
  }
}
BENCHMARK(MmapWriteMunmap)->Arg(4)->Arg(1024);

void Fault(benchmark::State& state) {
  Space s;
  Calls calls(state, s);
  Addr a = s.Map(kPageSize);
  for (auto _ : state) {
    (void)s.mm().MAdvise(a, kPageSize, MADV_DONTNEED);
    (void)s.mm().HandleUserFault(a, kWrite, true, 0);
  }
}
BENCHMARK(Fault);

template <size_t kBytes>
void CopyOut(benchmark::State& state) {
  Space s;
  Addr a = s.Map(1 << 20);
  std::array<std::byte, kBytes> bytes{};
  (void)s.mm().CopyOut(a, bytes);
  Calls calls(state, s);
  for (auto _ : state) benchmark::DoNotOptimize(s.mm().CopyOut(a + 64, bytes));
}
BENCHMARK(CopyOut<8>);
BENCHMARK(CopyOut<144>);
BENCHMARK(CopyOut<4096>);

template <size_t kBytes>
void CopyIn(benchmark::State& state) {
  Space s;
  Addr a = s.Map(1 << 20);
  std::array<std::byte, kBytes> bytes{};
  (void)s.mm().CopyOut(a, bytes);
  Calls calls(state, s);
  for (auto _ : state) benchmark::DoNotOptimize(s.mm().CopyIn(a + 64, bytes));
}
BENCHMARK(CopyIn<8>);
BENCHMARK(CopyIn<144>);
BENCHMARK(CopyIn<4096>);

void MprotectUntouched(benchmark::State& state) {
  Space s;
  Addr a = s.Map(16 * kPageSize);
  Calls calls(state, s);
  for (auto _ : state) {
    (void)s.mm().MProtect(a, 4 * kPageSize, kRead, false);
    (void)s.mm().MProtect(a, 4 * kPageSize, kReadWrite, false);
  }
}
BENCHMARK(MprotectUntouched);

// Fork, exit of the child, and the parent's writing to a tenth of its pages again; the argument is the number of VMAs.
void ForkExit(benchmark::State& state) {
  Space s;
  std::vector<Addr> writable;
  for (int i = 0; i < state.range(0); i++) {
    Addr a = s.Map(16 * kPageSize);
    (void)s.mm().MProtect(a, 4 * kPageSize, kRead, false);
    (void)s.mm().MProtect(a + 4 * kPageSize, kPageSize, {}, false);
    s.Touch(a + 5 * kPageSize, 11 * kPageSize);
    writable.push_back(a + 5 * kPageSize);
  }
  Calls calls(state, s);
  for (auto _ : state) {
    RefPtr<MemoryManager> child = *s.mm().Fork();
    child->AddUser();
    child->DropUser();
    child.reset();
    for (size_t i = 0; i < writable.size(); i += 10) (void)s.mm().HandleUserFault(writable[i], kWrite, true, 0);
  }
}
BENCHMARK(ForkExit)->Arg(10)->Arg(67);

// The guest's write while a child still has the page.
void BreakCopyOnWrite(benchmark::State& state) {
  Space s;
  constexpr uint64_t kLength = uint64_t{4} << 20;
  Addr a = s.Map(kLength);
  for (Addr page = a; page < a + kLength; page += kPageSize) (void)s.mm().CopyOutObject(page, uint64_t{1});
  RefPtr<MemoryManager> child;
  uint64_t at = kLength;
  Calls calls(state, s);
  for (auto _ : state) {
    if (at >= kLength) {
      state.PauseTiming();
      if (child) child->DropUser();
      child = *s.mm().Fork();
      child->AddUser();
      at = 0;
      state.ResumeTiming();
    }
    if (!s.mm().HandleUserFault(a + at, kWrite, true, 0)) std::abort();
    at += uint64_t{64} << 10;
  }
  child->DropUser();
}
BENCHMARK(BreakCopyOnWrite);

}  // namespace
}  // namespace redoubt::mm

BENCHMARK_MAIN();
