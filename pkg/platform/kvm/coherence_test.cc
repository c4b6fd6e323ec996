// What one thread takes from a guest, none of its threads may use any more, wherever they run.
#include <gtest/gtest.h>
#include <string.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "pkg/platform/conformance.h"
#include "pkg/platform/guest_code_amd64_unsafe.h"
#include "pkg/platform/kvm/kvm.h"

namespace redoubt::platform::kvm {
namespace {

class KvmCoherence : public PlatformConformance {};
INSTANTIATE_TEST_SUITE_P(Kvm, KvmCoherence, testing::Values(PlatformFactory{"kvm", Create, false}),
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

}  // namespace
}  // namespace redoubt::platform::kvm
