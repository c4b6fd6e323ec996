#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <set>
#include <thread>
#include <vector>

#include "pkg/fiber/fiber.h"
#include "pkg/sync/mutex.h"

namespace redoubt::fiber {
namespace {

constexpr Time kMillisecond = 1'000'000;

std::unique_ptr<Executor> Make(int slots, int max_threads = 64) {
  return ThreadedExecutor::Create({.slots = slots, .max_threads = max_threads});
}

TEST(ThreadedExecutor, RunsAndEndsFibers) {
  auto e = Make(2);
  std::atomic<int> ran = 0;
  for (int i = 0; i < 1000; i++) {
    e->Spawn([&] {
      EXPECT_NE(Current(), nullptr);
      EXPECT_EQ(CurrentExecutor(), e.get());
      Yield();
      ran++;
    });
  }
  Join(*e);
  EXPECT_EQ(ran, 1000);
  EXPECT_EQ(Current(), nullptr);
  EXPECT_EQ(CurrentExecutor(), nullptr);
}

TEST(ThreadedExecutor, LocalIsSetBeforeTheFiberRuns) {
  auto e = Make(1);
  int object = 0;
  void* seen = nullptr;
  e->Spawn([&] { seen = Current()->local; }, &object, Executor::kDefaultStackSize);
  Join(*e);
  EXPECT_EQ(seen, &object);
}

TEST(ThreadedExecutor, AnUnparkBeforeTheParkIsKept) {
  auto e = Make(1);
  e->Spawn([&] {
    Current()->Unpark();
    Current()->Unpark();
    EXPECT_EQ(Park(), ParkResult::kUnparked);
    EXPECT_EQ(Park(Now() + kMillisecond), ParkResult::kTimedOut);
  });
  Join(*e);
}

TEST(ThreadedExecutor, UnparkAfterTheEndIsHarmless) {
  auto e = Make(1);
  RefPtr<Fiber> f = e->Spawn([] {});
  Join(*e);
  f->Unpark();
  e.reset();
  f->Unpark();
}

// Two fibers and a thread hand a turn around; any lost wake-up hangs the test.
TEST(ThreadedExecutor, NoWakeUpIsLost) {
  constexpr int kRounds = 20000;
  for (int slots : {1, 2, 4}) {
    auto e = Make(slots);
    std::atomic<int> turn = 0;
    RefPtr<Fiber> fibers[3];
    std::atomic<bool> go = false;
    for (int i = 0; i < 3; i++) {
      fibers[i] = e->Spawn([&, i] {
        while (!go) Yield();
        for (int r = 0; r < kRounds; r++) {
          while (turn % 3 != i) Park();
          turn++;
          fibers[(i + 1) % 3]->Unpark();
        }
      });
    }
    go = true;
    Join(*e);
    EXPECT_EQ(turn, 3 * kRounds);
  }
}

TEST(ThreadedExecutor, WakeUpsFromAForeignThreadAreNotLost) {
  constexpr int kRounds = 2000;
  auto e = Make(2);
  std::atomic<int> sent = 0;
  std::atomic<int> seen = 0;
  RefPtr<Fiber> f = e->Spawn([&] {
    for (int r = 1; r <= kRounds; r++) {
      while (sent < r) Park();
      seen = r;
      seen.notify_all();
    }
  });
  for (int r = 1; r <= kRounds; r++) {
    sent = r;
    f->Unpark();
    seen.wait(r - 1);
  }
  Join(*e);
}

TEST(ThreadedExecutor, BlockingRegionsLendTheirSlot) {
  auto e = Make(1);
  int pipes[2];
  ASSERT_EQ(pipe(pipes), 0);
  constexpr int kReaders = 8;
  std::atomic<int> got = 0;
  for (int i = 0; i < kReaders; i++) {
    e->Spawn([&] {
      std::thread::id before = std::this_thread::get_id();
      char c;
      {
        BlockingRegion region;
        EXPECT_EQ(read(pipes[0], &c, 1), 1);
      }
      EXPECT_EQ(std::this_thread::get_id(), before);
      got++;
    });
  }
  // Runs only if the readers' slot is free.
  e->Spawn([&] {
    for (int i = 0; i < kReaders; i++) {
      EXPECT_EQ(write(pipes[1], "x", 1), 1);
      Yield();
    }
  });
  Join(*e);
  EXPECT_EQ(got, kReaders);
  close(pipes[0]);
  close(pipes[1]);
}

TEST(ThreadedExecutor, NoMoreFibersRunThanSlots) {
  auto e = Make(2);
  std::atomic<int> running = 0;
  std::atomic<int> most = 0;
  for (int i = 0; i < 16; i++) {
    e->Spawn([&] {
      for (int r = 0; r < 50; r++) {
        int n = ++running;
        int m = most;
        while (m < n && !most.compare_exchange_weak(m, n)) {
        }
        usleep(20);
        running--;
        if (r % 3 == 0) {
          Yield();
        } else {
          BlockingRegion region;
          usleep(20);
        }
      }
    });
  }
  Join(*e);
  EXPECT_LE(most, 2);
}

// A fiber that goes in and out of regions without a break must not starve one that waits for its slot.
TEST(ThreadedExecutor, ShortRegionsDoNotStarveTheQueue) {
  auto e = Make(1);
  std::atomic<bool> stop = false;
  RefPtr<Fiber> other;
  e->Spawn([&] {
    other = e->Spawn([&] { stop = true; });
    while (!stop) BlockingRegion region;
  });
  Join(*e);
  EXPECT_TRUE(stop);
}

TEST(ThreadedExecutor, TimersFireWhileAllThreadsBlock) {
  auto e = Make(1);
  int pipes[2];
  ASSERT_EQ(pipe(pipes), 0);
  e->Spawn([&] {
    Timer timer(*e, [&] { EXPECT_EQ(write(pipes[1], "x", 1), 1); });
    timer.Arm(Now() + 5 * kMillisecond);
    BlockingRegion region;
    char c;
    EXPECT_EQ(read(pipes[0], &c, 1), 1);
  });
  Join(*e);
  close(pipes[0]);
  close(pipes[1]);
}

TEST(ThreadedExecutor, TimersFireInOrderAndNotEarly) {
  auto e = Make(1);
  sync::Mutex mu(sync::Rank::kLeaf);
  std::vector<int> order;
  std::vector<std::unique_ptr<Timer>> timers;
  Time start = Now();
  for (int i = 0; i < 5; i++) {
    timers.push_back(std::make_unique<Timer>(*e, [&, i] {
      EXPECT_GE(Now(), start + i * 2 * kMillisecond);
      sync::MutexLock lock(mu);
      order.push_back(i);
    }));
  }
  for (int i : {3, 0, 4, 2, 1}) timers[i]->Arm(start + i * 2 * kMillisecond);
  e->Spawn([&] {
    while (Park(Now() + kMillisecond), Now() < start + 20 * kMillisecond) {
    }
  });
  Join(*e);
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4}));
  timers.clear();
}

TEST(ThreadedExecutor, ATimerRearmsItselfAndIsDisarmedWhileItRuns) {
  auto e = Make(2);
  std::atomic<int> fired = 0;
  for (int round = 0; round < 50; round++) {
    std::atomic<bool> alive = true;
    Timer* self = nullptr;
    Timer timer(*e, [&] {
      EXPECT_TRUE(alive);
      fired++;
      self->Arm(Now());
    });
    self = &timer;
    timer.Arm(Now());
    usleep(100);
    timer.Disarm();
    alive = false;
    usleep(50);
  }
  EXPECT_GT(fired, 50);
}

TEST(ThreadedExecutor, ACallbackMayDestroyItsTimer) {
  auto e = Make(1);
  std::unique_ptr<Timer> timer;
  e->Spawn([&] {
    RefPtr<Fiber> me(Current());
    std::atomic<bool> fired = false;
    timer = std::make_unique<Timer>(*e, [&] {
      timer.reset();
      fired = true;
      me->Unpark();
    });
    timer->Arm(0);
    while (!fired) Park();
  });
  Join(*e);
}

TEST(ThreadedExecutor, MutexExcludesAcrossParks) {
  auto e = Make(4);
  Mutex mu;
  int inside = 0;
  int64_t total = 0;
  for (int i = 0; i < 8; i++) {
    e->Spawn([&] {
      for (int r = 0; r < 500; r++) {
        MutexLock lock(mu);
        EXPECT_EQ(inside++, 0);
        if (r % 7 == 0) Yield();
        if (r % 31 == 0) {
          BlockingRegion region;
          usleep(1);
        }
        total++;
        inside--;
      }
    });
  }
  Join(*e);
  EXPECT_EQ(total, 8 * 500);
}

TEST(ThreadedExecutor, ThreadExitCallsRunWhenThreadsEnd) {
  std::atomic<int> exits = 0;
  {
    auto e = Make(1);
    e->Spawn([&] { AtThreadExit([&] { exits++; }); });
    Join(*e);
    EXPECT_EQ(exits, 0);
  }
  EXPECT_EQ(exits, 1);
}

TEST(ThreadedExecutor, IdleThreadsBeyondTheSlotsEnd) {
  auto e = Make(1);
  std::atomic<int> exits = 0;
  std::atomic<int> inside = 0;
  for (int i = 0; i < 4; i++) {
    e->Spawn([&] {
      AtThreadExit([&] { exits++; });
      inside++;
      BlockingRegion region;
      while (inside < 4) usleep(100);
    });
  }
  Join(*e);
  EXPECT_EQ(exits, 0);
  for (int i = 0; i < 300 && exits < 3; i++) usleep(10'000);
  EXPECT_EQ(exits, 3);
  // And the executor still works.
  std::atomic<bool> ran = false;
  e->Spawn([&] { ran = true; });
  Join(*e);
  EXPECT_TRUE(ran);
}

TEST(ThreadedExecutor, WorkIsNotLostAtTheThreadLimit) {
  auto e = Make(2, 2);
  std::atomic<int> done = 0;
  for (int i = 0; i < 20; i++) {
    e->Spawn([&] {
      for (int r = 0; r < 5; r++) {
        BlockingRegion region;
        usleep(100);
      }
      Park(Now() + kMillisecond / 10);
      done++;
    });
  }
  Join(*e);
  EXPECT_EQ(done, 20);
}

TEST(ThreadedExecutorDeathTest, ParkingWithAMutexHeldIsFatal) {
#ifndef NDEBUG
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        auto e = Make(1);
        sync::Mutex mu(sync::Rank::kLeaf);
        e->Spawn([&] {
          sync::MutexLock lock(mu);
          Park(Now() + kMillisecond);
        });
        Join(*e);
      },
      "sync::Mutex held");
#endif
}

}  // namespace
}  // namespace redoubt::fiber
