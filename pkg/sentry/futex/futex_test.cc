#include "pkg/sentry/futex/futex.h"

#include <gtest/gtest.h>
#include <linux/futex.h>

#include <functional>
#include <memory>
#include <utility>
#include <vector>

namespace redoubt::futex {
namespace {

constexpr uint64_t kSeeds = 3000;
constexpr Addr kMutexWord = 0;
constexpr Addr kSequenceWord = 4;
constexpr Addr kOtherWord = 64;

// A page of guest words. Each access is a point where another fiber may run, as a page fault would be.
class FakeMemory final : public MemoryIo, public Target {
 public:
  Result<FutexKey> GetFutexKey(Addr addr, bool is_private) override {
    if (addr >= sizeof(words_)) return Err(EFAULT);
    fiber::Yield();
    return FutexKey{is_private ? this : nullptr, addr};
  }
  MemoryIo& io() override { return *this; }

  Result<size_t> CopyOut(Addr, std::span<const std::byte>) override { return Err(EFAULT); }
  Result<size_t> CopyIn(Addr, std::span<std::byte>) override { return Err(EFAULT); }
  Result<size_t> ZeroOut(Addr, uint64_t) override { return Err(EFAULT); }
  Result<uint32_t> LoadU32(Addr addr) override {
    fiber::Yield();
    return at(addr);
  }
  Result<uint32_t> SwapU32(Addr addr, uint32_t value) override {
    fiber::Yield();
    return std::exchange(at(addr), value);
  }
  Result<uint32_t> CompareAndSwapU32(Addr addr, uint32_t expected, uint32_t value) override {
    fiber::Yield();
    uint32_t found = at(addr);
    if (found == expected) at(addr) = value;
    return found;
  }

  uint32_t& at(Addr addr) { return words_[addr / 4]; }

 private:
  uint32_t words_[64] = {};
};

class World {
 public:
  explicit World(uint64_t seed) : executor(fiber::MakeDeterministicExecutor(seed)) {}

  Result<> Wait(Addr addr, uint32_t expected, fiber::Time deadline = fiber::kForever) {
    return manager.Wait(memory, addr, true, expected, FUTEX_BITSET_MATCH_ANY, deadline);
  }
  uint32_t Wake(Addr addr, uint32_t count) {
    Result<uint32_t> n = manager.Wake(memory, addr, true, count, FUTEX_BITSET_MATCH_ANY);
    EXPECT_TRUE(n);
    return n.value_or(0);
  }
  // The mutex of "Futexes Are Tricky": 0 free, 1 taken, 2 taken with waiters.
  void Lock() {
    if (*memory.CompareAndSwapU32(kMutexWord, 0, 1) == 0) return;
    while (*memory.SwapU32(kMutexWord, 2) != 0) (void)Wait(kMutexWord, 2);
  }
  void Unlock() {
    if (*memory.SwapU32(kMutexWord, 0) == 2) Wake(kMutexWord, 1);
  }

  Manager manager;
  FakeMemory memory;
  std::unique_ptr<fiber::Executor> executor;
};

TEST(FutexSchedules, AMutexExcludesAndLosesNoWake) {
  for (uint64_t seed = 0; seed < kSeeds; seed++) {
    World w(seed);
    int inside = 0;
    int done = 0;
    for (int i = 0; i < 4; i++) {
      w.executor->Spawn([&] {
        for (int round = 0; round < 3; round++) {
          w.Lock();
          ASSERT_EQ(++inside, 1) << seed;
          fiber::Yield();
          inside--;
          done++;
          w.Unlock();
        }
      });
    }
    ASSERT_EQ(fiber::RunUntilIdle(*w.executor), 0u) << seed;
    ASSERT_EQ(done, 12) << seed;
  }
}

// A condition variable whose broadcast wakes one and requeues the rest onto the mutex.
TEST(FutexSchedules, RequeuedWaitersAllGetTheMutex) {
  for (uint64_t seed = 0; seed < kSeeds; seed++) {
    World w(seed);
    bool go = false;
    int passed = 0;
    for (int i = 0; i < 4; i++) {
      w.executor->Spawn([&] {
        w.Lock();
        while (!go) {
          uint32_t sequence = *w.memory.LoadU32(kSequenceWord);
          w.Unlock();
          (void)w.Wait(kSequenceWord, sequence);
          // As after a requeue: others may wait on the mutex.
          while (*w.memory.SwapU32(kMutexWord, 2) != 0) (void)w.Wait(kMutexWord, 2);
        }
        passed++;
        w.Unlock();
      });
    }
    w.executor->Spawn([&] {
      w.Lock();
      go = true;
      uint32_t next = ++w.memory.at(kSequenceWord);
      while (true) {
        Result<uint32_t> n = w.manager.Requeue(w.memory, kSequenceWord, kMutexWord, true, 1, INT32_MAX, &next);
        if (n || n.error() != Errno(EAGAIN)) break;
      }
      w.memory.at(kMutexWord) = 2;
      w.Unlock();
    });
    ASSERT_EQ(fiber::RunUntilIdle(*w.executor), 0u) << seed;
    ASSERT_EQ(passed, 4) << seed;
  }
}

// Whatever the schedule, the number of wakes counted is the number of waiters that returned success.
TEST(FutexSchedules, WakesAndTimeoutsAreCountedOnce) {
  for (uint64_t seed = 0; seed < kSeeds; seed++) {
    World w(seed);
    int successes = 0;
    int timeouts = 0;
    uint32_t woken = 0;
    for (int i = 0; i < 5; i++) {
      w.executor->Spawn([&, i] {
        Result<> r = w.Wait(kSequenceWord, 0, fiber::Now() + 10 * (i + 1));
        if (r) {
          successes++;
        } else {
          ASSERT_EQ(r.error(), Errno(ETIMEDOUT));
          timeouts++;
        }
      });
    }
    w.executor->Spawn([&] {
      for (int i = 0; i < 3; i++) {
        woken += w.Wake(kSequenceWord, 1);
        // A yield or a moment of virtual time, by the seed.
        if ((seed >> i & 1) != 0) (void)fiber::Park(fiber::Now() + 10);
      }
    });
    ASSERT_EQ(fiber::RunUntilIdle(*w.executor), 0u) << seed;
    ASSERT_EQ(successes, static_cast<int>(woken)) << seed;
    ASSERT_EQ(successes + timeouts, 5) << seed;
  }
}

// Runs `body` alone on a fiber.
void RunAlone(World& w, std::function<void()> body) {
  w.executor->Spawn(std::move(body));
  ASSERT_EQ(fiber::RunUntilIdle(*w.executor), 0u);
}

TEST(Futex, AChangedWordFailsWithEagain) {
  World w(1);
  RunAlone(w, [&] { EXPECT_EQ(w.Wait(kSequenceWord, 7).error(), Errno(EAGAIN)); });
}

TEST(Futex, BadArgumentsFail) {
  World w(1);
  RunAlone(w, [&] {
    EXPECT_EQ(w.Wait(2, 0).error(), Errno(EINVAL));
    EXPECT_EQ(w.Wait(4096, 0).error(), Errno(EFAULT));
    EXPECT_EQ(w.manager.Wait(w.memory, 0, true, 0, 0, fiber::kForever).error(), Errno(EINVAL));
    EXPECT_EQ(w.manager.Wake(w.memory, 0, true, 1, 0).error(), Errno(EINVAL));
    uint32_t expected = 9;
    EXPECT_EQ(w.manager.Requeue(w.memory, 0, 4, true, 1, 1, &expected).error(), Errno(EAGAIN));
  });
}

TEST(Futex, RequeueCountsTheWokenAndTheMoved) {
  World w(1);
  int woken = 0;
  for (int i = 0; i < 4; i++) {
    w.executor->Spawn([&] {
      (void)w.Wait(0, 0);
      woken++;
    });
  }
  ASSERT_EQ(fiber::RunUntilIdle(*w.executor), 4u);
  w.executor->Spawn([&] {
    EXPECT_EQ(*w.manager.Requeue(w.memory, 0, 4, true, 1, 2, nullptr), 3u);
    // Onto itself: counted, and still there.
    EXPECT_EQ(*w.manager.Requeue(w.memory, 4, 4, true, 0, 9, nullptr), 2u);
    EXPECT_EQ(*w.manager.Wake(w.memory, 0, true, 9, ~0u), 1u);
    EXPECT_EQ(*w.manager.Wake(w.memory, 4, true, 9, ~0u), 2u);
  });
  ASSERT_EQ(fiber::RunUntilIdle(*w.executor), 0u);
  EXPECT_EQ(woken, 4);
}

TEST(Futex, BitsetsSelectWaiters) {
  World w(1);
  std::vector<int> order;
  for (uint32_t bit : {1u, 2u}) {
    w.executor->Spawn([&, bit] {
      EXPECT_TRUE(w.manager.Wait(w.memory, kSequenceWord, true, 0, bit, fiber::kForever));
      order.push_back(static_cast<int>(bit));
    });
  }
  w.executor->Spawn([&] {
    (void)fiber::Park(fiber::Now() + 100);
    EXPECT_EQ(*w.manager.Wake(w.memory, kSequenceWord, true, 10, 4), 0u);
    EXPECT_EQ(*w.manager.Wake(w.memory, kSequenceWord, true, 10, 2), 1u);
    (void)fiber::Park(fiber::Now() + 100);
    EXPECT_EQ(*w.manager.Wake(w.memory, kSequenceWord, true, 10, 1), 1u);
  });
  EXPECT_EQ(fiber::RunUntilIdle(*w.executor), 0u);
  EXPECT_EQ(order, (std::vector<int>{2, 1}));
}

TEST(Futex, PrivateAndSharedDoNotMeet) {
  World w(1);
  w.executor->Spawn([&] { EXPECT_EQ(w.Wait(kSequenceWord, 0, fiber::Now() + 1000).error(), Errno(ETIMEDOUT)); });
  w.executor->Spawn([&] {
    (void)fiber::Park(fiber::Now() + 100);
    EXPECT_EQ(*w.manager.Wake(w.memory, kSequenceWord, false, 10, FUTEX_BITSET_MATCH_ANY), 0u);
  });
  EXPECT_EQ(fiber::RunUntilIdle(*w.executor), 0u);
}

struct WakeOpCase {
  uint32_t operation, argument, before, after;
};

class FutexWakeOp : public ::testing::TestWithParam<WakeOpCase> {};

TEST_P(FutexWakeOp, ChangesTheWord) {
  const WakeOpCase& c = GetParam();
  World w(1);
  w.memory.at(kOtherWord) = c.before;
  RunAlone(w, [&] {
    EXPECT_EQ(*w.manager.WakeOp(w.memory, kSequenceWord, kOtherWord, true, 1, 1,
                                FUTEX_OP(c.operation, c.argument, FUTEX_OP_CMP_EQ, 0)),
              0u);
  });
  EXPECT_EQ(w.memory.at(kOtherWord), c.after);
}

INSTANTIATE_TEST_SUITE_P(Operations, FutexWakeOp,
                         ::testing::Values(WakeOpCase{FUTEX_OP_SET, 5, 9, 5}, WakeOpCase{FUTEX_OP_ADD, 5, 9, 14},
                                           WakeOpCase{FUTEX_OP_OR, 6, 9, 15}, WakeOpCase{FUTEX_OP_ANDN, 1, 9, 8},
                                           WakeOpCase{FUTEX_OP_XOR, 3, 9, 10},
                                           WakeOpCase{FUTEX_OP_OR | FUTEX_OP_OPARG_SHIFT, 4, 1, 17}));

}  // namespace
}  // namespace redoubt::futex
