// Extended state on this platform: it moves between vCPUs only when it must, and all of it does.
#include <gtest/gtest.h>
#include <string.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "pkg/platform/conformance.h"
#include "pkg/platform/guest_code_amd64_unsafe.h"
#include "pkg/platform/kvm/guest_code_amd64_unsafe.h"
#include "pkg/platform/kvm/kvm.h"

namespace redoubt::platform::kvm {
namespace {

class KvmState : public PlatformConformance {};
INSTANTIATE_TEST_SUITE_P(Kvm, KvmState, testing::Values(PlatformFactory{"kvm", Create}),
                         [](const auto& info) { return info.param.name; });

// More guests than vCPUs, interrupted all the time; some pull and push their state as signal handlers do.
TEST_P(KvmState, TheWidestRegistersSurviveSwitches) {
  const bool wide = __builtin_cpu_supports("avx512bw");
  const Addr code = AddCode(wide ? guest::Avx512() : guest::Avx());
  const size_t bytes = wide ? guest::kAvx512Bytes : guest::kAvxBytes;
  constexpr int kGuests = 12;
  std::unique_ptr<Context> contexts[kGuests];
  std::atomic<int> interrupts{0}, ended{0};
  Run([&] {
    for (auto& context : contexts) context = *platform().NewContext();
    RefPtr<AddressSpace> space = NewSpace();
    for (int n = 0; n < kGuests; n++) {
      Spawn([&, space, n] {
        Context* context = contexts[n].get();
        const uint64_t in = n * 8192, out = in + 4096;
        std::vector<std::byte> want(bytes);
        for (size_t i = 0; i < want.size(); i++) want[i] = static_cast<std::byte>(i * 13 + n * 7 + i / 256);
        memcpy(&Word(in), want.data(), want.size());
        Registers regs{};
        regs.rip = code;
        regs.rdi = kData + in;
        regs.rsi = kData + out;
        regs.r12 = n;
        for (int round = 0; round < 60;) {
          Result<TrapInfo> info = context->Switch(*space, regs);
          ASSERT_TRUE(info.has_value());
          ASSERT_NE(info->trap, Trap::kFault)
              << "vector " << info->trapno << " error " << info->error_code << " at " << info->signal.addr << std::hex
              << " rip " << regs.rip << " rdi " << regs.rdi << " rsi " << regs.rsi << " rcx " << regs.rcx << " rbx "
              << regs.rbx;
          ASSERT_EQ(regs.r12, static_cast<uint64_t>(n));
          if (info->trap == Trap::kInterrupted) {
            interrupts.fetch_add(1);
            continue;
          }
          ASSERT_EQ(memcmp(&Word(out), want.data(), want.size()), 0) << "guest " << n << " round " << round;
          memset(&Word(out), 0, want.size());
          if (round % 7 == n % 7) {
            Result<FpState> state = context->PullFpState();
            ASSERT_TRUE(state.has_value());
            if (n % 2 == 0) {
              ASSERT_TRUE(context->PushFpState(FpState{}).has_value());
            }
            ASSERT_TRUE(context->PushFpState(*state).has_value());
          }
          round++;
          fiber::Yield();
        }
        ended.fetch_add(1);
      });
    }
    Spawn([&] {
      fiber::BlockingRegion region;
      for (int i = 0; i < 20'000 && ended.load() < kGuests; i++) {
        contexts[i % kGuests]->Interrupt();
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      }
    });
  });
  EXPECT_EQ(ended.load(), kGuests);
  EXPECT_GT(interrupts.load(), 0);
  for (auto& context : contexts) context.reset();
}

// More guests that never leave than there are vCPUs: all get on, and one that waits for its turn can be interrupted.
TEST_P(KvmState, VcpusAreSharedFairly) {
  Addr count = AddCode(platform::guest::Count());
  constexpr int kGuests = 24;
  std::unique_ptr<Context> contexts[kGuests];
  std::atomic<int> ended{0};
  Run([&] {
    for (auto& context : contexts) context = *platform().NewContext();
    RefPtr<AddressSpace> space = NewSpace();
    for (int n = 0; n < kGuests; n++) {
      Spawn([&, space, n] {
        Registers regs{};
        regs.rip = count;
        regs.rdi = kData + n * 64;
        Result<TrapInfo> info = contexts[n]->Switch(*space, regs);
        ASSERT_TRUE(info.has_value());
        ASSERT_EQ(info->trap, Trap::kInterrupted);
        ended.fetch_add(1);
      });
    }
    Spawn([&] {
      fiber::BlockingRegion region;
      const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      auto all = [&](auto&& condition) {
        bool holds = false;
        while (!holds && std::chrono::steady_clock::now() < deadline) {
          std::this_thread::sleep_for(std::chrono::milliseconds(5));
          holds = true;
          for (int n = 0; n < kGuests; n++) holds &= condition(n);
        }
        return holds;
      };
      auto value = [&](int n) { return std::atomic_ref(Word(n * 64)).load(); };
      EXPECT_TRUE(all([&](int n) { return value(n) > 0; })) << "somebody never had a turn";
      uint64_t seen[kGuests];
      for (int n = 0; n < kGuests; n++) seen[n] = value(n);
      EXPECT_TRUE(all([&](int n) { return value(n) > seen[n]; })) << "somebody had no second turn";
      const auto start = std::chrono::steady_clock::now();
      for (auto& context : contexts) context->Interrupt();
      while (ended.load() < kGuests && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
      EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(2));
    });
  });
  EXPECT_EQ(ended.load(), kGuests);
  for (auto& context : contexts) context.reset();
}

}  // namespace
}  // namespace redoubt::platform::kvm
