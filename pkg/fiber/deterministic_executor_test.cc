#include <gtest/gtest.h>

#include <deque>
#include <set>
#include <string>
#include <vector>

#include "pkg/fiber/fiber.h"

namespace redoubt::fiber {
namespace {

// The order in which `n` fibers with two yields each write their number.
std::string Trace(uint64_t seed, int n) {
  auto e = MakeDeterministicExecutor(seed);
  std::string trace;
  for (int i = 0; i < n; i++) {
    e->Spawn([&, i] {
      for (int r = 0; r < 2; r++) {
        trace.push_back(static_cast<char>('0' + i));
        Yield();
      }
    });
  }
  EXPECT_EQ(RunUntilIdle(*e), 0u);
  return trace;
}

TEST(DeterministicExecutor, TheSeedDecidesTheOrder) {
  std::set<std::string> traces;
  for (uint64_t seed = 0; seed < 2000; seed++) {
    std::string trace = Trace(seed, 3);
    EXPECT_EQ(trace, Trace(seed, 3));
    traces.insert(trace);
  }
  // 6! / (2! 2! 2!) orders are possible, and all are found.
  EXPECT_EQ(traces.size(), 90u);
}

// A bounded buffer as a kernel object would be written. With `lossy`, the consumer looks only once before it parks and
// the producer wakes only on the empty edge: a bug that some schedules must show.
size_t ProducerConsumer(uint64_t seed, bool lossy) {
  auto e = MakeDeterministicExecutor(seed);
  constexpr int kItems = 20;
  constexpr size_t kCapacity = 3;
  std::deque<int> buffer;
  std::vector<int> got;
  Mutex mu;
  RefPtr<Fiber> consumer;
  RefPtr<Fiber> producer;
  consumer = e->Spawn([&] {
    while (got.size() < kItems) {
      bool empty;
      {
        MutexLock lock(mu);
        empty = buffer.empty();
        if (!empty) {
          got.push_back(buffer.front());
          buffer.pop_front();
          producer->Unpark();
        }
      }
      if (!empty) continue;
      if (lossy) {
        Yield();
        Park(kForever);
        Park(kForever);
      } else {
        Park();
      }
    }
  });
  producer = e->Spawn([&] {
    for (int i = 0; i < kItems;) {
      bool full;
      {
        MutexLock lock(mu);
        full = buffer.size() == kCapacity;
        if (!full) {
          buffer.push_back(i++);
          if (!lossy || buffer.size() == 1) consumer->Unpark();
        }
      }
      if (full) Park();
    }
  });
  size_t stuck = RunUntilIdle(*e);
  if (stuck == 0) {
    EXPECT_EQ(got.size(), static_cast<size_t>(kItems));
    for (int i = 0; i < kItems; i++) EXPECT_EQ(got[i], i);
  }
  return stuck;
}

TEST(DeterministicExecutor, ProducerConsumerUnderThousandsOfSchedules) {
  for (uint64_t seed = 0; seed < 5000; seed++) ASSERT_EQ(ProducerConsumer(seed, false), 0u) << seed;
}

TEST(DeterministicExecutor, FindsALostWakeUp) {
  int deadlocks = 0;
  for (uint64_t seed = 0; seed < 100; seed++) deadlocks += ProducerConsumer(seed, true) > 0;
  EXPECT_GT(deadlocks, 0);
}

TEST(DeterministicExecutor, TimeIsVirtualAndMovesOnlyWhenIdle) {
  auto e = MakeDeterministicExecutor(1);
  constexpr Time kHour = 3600'000'000'000;
  Time start = e->Now();
  std::vector<int> order;
  e->Spawn([&] {
    EXPECT_EQ(Park(start + 2 * kHour), ParkResult::kTimedOut);
    EXPECT_EQ(Now(), start + 2 * kHour);
    order.push_back(2);
  });
  e->Spawn([&] {
    for (int i = 0; i < 100; i++) Yield();
    EXPECT_EQ(Now(), start);
    EXPECT_EQ(Park(start + kHour), ParkResult::kTimedOut);
    order.push_back(1);
  });
  Timer timer(*e, [&] {
    EXPECT_EQ(Current(), nullptr);
    EXPECT_EQ(CurrentExecutor(), e.get());
    order.push_back(3);
  });
  timer.Arm(start + 3 * kHour);
  EXPECT_EQ(RunUntilIdle(*e), 0u);
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
}

TEST(DeterministicExecutor, ALimitStopsPeriodicTimers) {
  auto e = MakeDeterministicExecutor(1);
  int fired = 0;
  Timer* self = nullptr;
  Timer timer(*e, [&] {
    fired++;
    self->Arm(Now() + 10);
  });
  self = &timer;
  Time start = e->Now();
  timer.Arm(start + 10);
  EXPECT_EQ(RunUntilIdle(*e, start + 100), 0u);
  EXPECT_EQ(fired, 10);
}

TEST(DeterministicExecutor, StuckFibersAreCountedAndCanBeDropped) {
  auto e = MakeDeterministicExecutor(1);
  RefPtr<Fiber> stuck;
  stuck = e->Spawn([] {
    for (;;) Park();
  });
  e->Spawn([] {});
  EXPECT_EQ(RunUntilIdle(*e), 1u);
  e.reset();
  stuck->Unpark();
}

TEST(DeterministicExecutor, BlockingRegionsArePointsOfChoice) {
  std::set<std::string> traces;
  for (uint64_t seed = 0; seed < 50; seed++) {
    auto e = MakeDeterministicExecutor(seed);
    std::string trace;
    for (char c : {'a', 'b'}) {
      e->Spawn([&, c] {
        BlockingRegion region;
        trace.push_back(c);
      });
    }
    Join(*e);
    traces.insert(trace);
  }
  EXPECT_EQ(traces.size(), 2u);
}

// A contended Lock parks, and so may eat a wake meant for the caller's own loop; it must give it back.
TEST(DeterministicExecutor, MutexKeepsForeignWakes) {
  for (uint64_t seed = 0; seed < 500; seed++) {
    auto e = MakeDeterministicExecutor(seed);
    Mutex mu;
    bool flag = false;
    RefPtr<Fiber> waiter = e->Spawn([&] {
      for (;;) {
        bool seen = flag;
        {
          MutexLock lock(mu);
        }
        if (seen) break;
        Park();
      }
    });
    e->Spawn([&] {
      MutexLock lock(mu);
      Yield();
      flag = true;
      waiter->Unpark();
      Yield();
    });
    ASSERT_EQ(RunUntilIdle(*e), 0u) << seed;
  }
}

TEST(DeterministicExecutorDeathTest, JoinOfADeadlockIsFatal) {
  EXPECT_DEATH(
      {
        auto e = MakeDeterministicExecutor(1);
        e->Spawn([] { Park(); });
        Join(*e);
      },
      "deadlock");
}

}  // namespace
}  // namespace redoubt::fiber
