// What one thread takes from a guest, none of its threads may use any more, wherever they run.
#include <gtest/gtest.h>
#include <string.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "pkg/platform/conformance.h"
#include "pkg/platform/guest_code_amd64_unsafe.h"
#include "pkg/platform/kvm/kvm.h"

namespace redoubt::platform::kvm {
namespace {

class KvmCoherence : public PlatformConformance {};
INSTANTIATE_TEST_SUITE_P(Kvm, KvmCoherence, testing::Values(PlatformFactory{"kvm", Create}),
                         [](const auto& info) { return info.param.name; });

constexpr Addr kPage = 0x10000000;

// Two guests count in a page that is made read-only, copied and replaced, as copy-on-write does: no count may be lost.
TEST_P(KvmCoherence, CopyOnWriteLosesNothing) {
  Addr count = AddCode(guest::Count());
  std::atomic<bool> stop{false};
  std::atomic<int> rounds{0}, faults{0};
  Run([&] {
    RefPtr<AddressSpace> space = NewSpace();
    uint64_t offset = 8 << 20;
    ASSERT_TRUE(space->MapFile(kPage, memory_fd(), offset, kPageSize, kReadWrite, false).has_value());
    std::atomic<bool> writable{true};
    std::atomic<Context*> contexts[2] = {};
    for (int n = 0; n < 2; n++) {
      Spawn([&, space, n] {
        auto context = *platform().NewContext();
        contexts[n].store(context.get());
        Registers regs{};
        regs.rip = count;
        regs.rdi = kPage + n * 8;
        while (!stop.load()) {
          Result<TrapInfo> info = context->Switch(*space, regs);
          ASSERT_TRUE(info.has_value());
          if (info->trap == Trap::kFault) {
            ASSERT_TRUE(info->is_page_fault());
            faults.fetch_add(1);
            while (!writable.load() && !stop.load()) fiber::Yield();
          }
        }
        contexts[n].store(nullptr);
      });
    }
    Spawn([&, space] {
      fiber::BlockingRegion region;
      while (contexts[0].load() == nullptr || contexts[1].load() == nullptr) std::this_thread::yield();
      auto end = std::chrono::steady_clock::now() + std::chrono::seconds(2);
      uint64_t at = offset;
      auto value = [&](uint64_t where, int n) {
        return std::atomic_ref(*reinterpret_cast<uint64_t*>(memory() + where + n * 8)).load();
      };
      uint64_t lost = 0;
      while (std::chrono::steady_clock::now() < end) {
        std::this_thread::sleep_for(std::chrono::microseconds(rounds % 7 * 50));
        writable.store(false);
        ASSERT_TRUE(space->MapFile(kPage, memory_fd(), at, kPageSize, kRead, false).has_value());
        uint64_t a = value(at, 0), b = value(at, 1);
        uint64_t next = at == offset ? offset + kPageSize : offset;
        memcpy(memory() + next, memory() + at, kPageSize);
        std::this_thread::sleep_for(std::chrono::microseconds(rounds % 5 * 20));
        if (a != value(at, 0) || b != value(at, 1)) lost++;
        ASSERT_TRUE(space->MapFile(kPage, memory_fd(), next, kPageSize, kReadWrite, false).has_value());
        uint64_t old = at;
        at = next;
        writable.store(true);
        std::this_thread::sleep_for(std::chrono::microseconds(100));
        if (a != value(old, 0) || b != value(old, 1)) lost++;
        rounds.fetch_add(1);
      }
      EXPECT_EQ(lost, 0u) << "of " << rounds.load();
      EXPECT_GT(value(at, 0), 0u);
      EXPECT_GT(value(at, 1), 0u);
      stop.store(true);
      for (auto& c : contexts) {
        while (Context* context = c.load()) {
          context->Interrupt();
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
      }
    });
  });
  EXPECT_GT(faults.load(), 0);
}

// Address spaces come and go, and with them the pages that their tables were in, while others run. Each has a page of
// its own at the same address: one that sees another's has been given tables that the host remembers from before.
TEST_P(KvmCoherence, TablesThatAreUsedAgainAreNew) {
  Addr load = AddCode(guest::Load()), count = AddCode(guest::Count());
  constexpr int kSpaces = 3000;  // of some 4 tables: each slot is used many times
  std::atomic<int> ended{0};
  std::unique_ptr<Context> counter;
  Run([&] {
    counter = *platform().NewContext();
    RefPtr<AddressSpace> counting = NewSpace();
    Spawn([&, counting] {
      Registers regs{};
      regs.rip = count;
      regs.rdi = kData + 4096;
      while (ended.load() < 2) {
        Result<TrapInfo> info = counter->Switch(*counting, regs);
        ASSERT_TRUE(info.has_value());
        ASSERT_EQ(info->trap, Trap::kInterrupted);
      }
    });
    for (int n = 0; n < 2; n++) {
      Spawn([&, n] {
        std::vector<RefPtr<AddressSpace>> old;  // some live longer
        auto context = *platform().NewContext();
        for (uint64_t i = 0; i < kSpaces / 2; i++) {
          const uint64_t offset = (8 << 20) + (n * 64 + i % 64) * kPageSize;
          const uint64_t value = i << 8 | n;
          memcpy(memory() + offset, &value, sizeof(value));
          RefPtr<AddressSpace> space = NewSpace();
          ASSERT_TRUE(space->MapFile(kPage, memory_fd(), offset, kPageSize, kReadWrite, false).has_value());
          Registers regs{};
          regs.rip = load;
          regs.rdi = kPage;
          Result<TrapInfo> info = context->Switch(*space, regs);
          ASSERT_TRUE(info.has_value());
          ASSERT_EQ(info->trap, Trap::kSyscall) << "space " << i;
          ASSERT_EQ(regs.orig_rax, value) << "space " << i;
          regs.rip = load;
          regs.rdi = kPage + kPageSize;
          info = context->Switch(*space, regs);
          ASSERT_TRUE(info.has_value());
          ASSERT_TRUE(info->is_page_fault()) << "nothing is mapped there: space " << i;
          if (i % 10 == 0) old.push_back(space);
          if (old.size() > 20) old.erase(old.begin(), old.begin() + 15);
        }
        ended.fetch_add(1);
        counter->Interrupt();
      });
    }
  });
  EXPECT_EQ(ended.load(), 2);
  EXPECT_GT(Word(4096), 0u);
  counter.reset();
}

}  // namespace
}  // namespace redoubt::platform::kvm
