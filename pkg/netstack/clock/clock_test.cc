#include "pkg/netstack/clock/clock.h"

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <thread>

#include "pkg/netstack/clock/random.h"
#include "pkg/netstack/clock/timer.h"

namespace redoubt::netstack {
namespace {

struct Owner : RefCounted {
  Owner(TimerQueue& queue, std::vector<int>* log, int id)
      : log(log), id(id), timer(queue, *this, [](void* p, Time now) { static_cast<Owner*>(p)->Fired(now); }, this) {}
  ~Owner() override {
    if (destroyed != nullptr) *destroyed = true;
  }
  void Fired(Time now) {
    log->push_back(id);
    fired_at = now;
    if (again > 0) timer.Schedule(now + again);
  }
  std::vector<int>* log;
  int id;
  Time fired_at = 0;
  Time again = 0;
  bool* destroyed = nullptr;
  Timer timer;
};

TEST(TimerQueue, FiresInOrderOfDeadlinesAndOnlyWhenDue) {
  TimerQueue queue;
  std::vector<int> log;
  auto a = MakeRef<Owner>(queue, &log, 1), b = MakeRef<Owner>(queue, &log, 2), c = MakeRef<Owner>(queue, &log, 3);
  a->timer.Schedule(30);
  b->timer.Schedule(10);
  c->timer.Schedule(20);
  EXPECT_EQ(queue.NextDeadline(), 10);
  EXPECT_EQ(queue.RunTimers(9), 0u);
  EXPECT_EQ(queue.RunTimers(20), 2u);
  EXPECT_EQ(log, (std::vector<int>{2, 3}));
  EXPECT_EQ(queue.NextDeadline(), 30);
  EXPECT_EQ(queue.RunTimers(30), 1u);
  EXPECT_EQ(queue.NextDeadline(), kNever);
}

TEST(TimerQueue, MovingBackIsLazyAndStillExact) {
  TimerQueue queue;
  std::vector<int> log;
  auto a = MakeRef<Owner>(queue, &log, 1);
  a->timer.Schedule(10);
  a->timer.Schedule(100);
  EXPECT_EQ(queue.NextDeadline(), 10);  // too early is allowed
  EXPECT_EQ(queue.RunTimers(50), 0u);
  EXPECT_EQ(queue.NextDeadline(), 100);
  a->timer.Schedule(60);  // forward again
  EXPECT_EQ(queue.NextDeadline(), 60);
  EXPECT_EQ(queue.RunTimers(99), 1u);
  EXPECT_EQ(a->fired_at, 99);
  EXPECT_EQ(queue.RunTimers(1000), 0u);
}

TEST(TimerQueue, HoldsItsOwnerWhileQueuedOnly) {
  TimerQueue queue;
  std::vector<int> log;
  bool destroyed = false;
  auto a = MakeRef<Owner>(queue, &log, 1);
  a->destroyed = &destroyed;
  a->timer.Schedule(10);
  a.reset();
  EXPECT_FALSE(destroyed);
  EXPECT_EQ(queue.RunTimers(10), 1u);
  EXPECT_TRUE(destroyed);

  destroyed = false;
  auto b = MakeRef<Owner>(queue, &log, 2);
  b->destroyed = &destroyed;
  b->timer.Schedule(10);
  b->timer.Disarm();
  EXPECT_EQ(b->timer.deadline(), kNever);
  b.reset();
  EXPECT_FALSE(destroyed);  // until the old deadline
  EXPECT_EQ(queue.RunTimers(10), 0u);
  EXPECT_TRUE(destroyed);

  auto c = MakeRef<Owner>(queue, &log, 3);
  c->timer.Schedule(10);
  c->timer.Cancel();
  EXPECT_EQ(c->RefCount(), 1);
  EXPECT_EQ(queue.size(), 0u);
}

TEST(TimerQueue, CallbackMayScheduleItselfAndTheLimitHolds) {
  TimerQueue queue;
  std::vector<int> log;
  auto a = MakeRef<Owner>(queue, &log, 1);
  a->again = 1;
  a->timer.Schedule(1);
  EXPECT_EQ(queue.RunTimers(1), 1u);
  EXPECT_EQ(queue.RunTimers(5, 2), 1u);  // the next is due at 6
  EXPECT_EQ(queue.NextDeadline(), 6);
  a->timer.Cancel();
}

TEST(TimerQueue, TellsTheSleeperOfEarlierDeadlinesOnly) {
  TimerQueue queue;
  std::vector<Time> told;
  queue.SetEarlierDeadlineHook([&](Time t) { told.push_back(t); });
  std::vector<int> log;
  auto a = MakeRef<Owner>(queue, &log, 1), b = MakeRef<Owner>(queue, &log, 2);
  a->timer.Schedule(50);
  b->timer.Schedule(70);
  a->timer.Schedule(60);
  b->timer.Schedule(40);
  EXPECT_EQ(told, (std::vector<Time>{50, 40}));
  a->timer.Cancel();
  b->timer.Cancel();
}

// A random list of operations against a plain map of deadlines.
TEST(TimerQueue, AgreesWithAMapUnderRandomOperations) {
  SeededRandom random(7);
  for (int round = 0; round < 50; round++) {
    TimerQueue queue;
    std::vector<int> log;
    std::vector<RefPtr<Owner>> owners;
    std::map<int, Time> model;
    for (int i = 0; i < 40; i++) owners.push_back(MakeRef<Owner>(queue, &log, i));
    Time now = 0;
    for (int step = 0; step < 400; step++) {
      int i = static_cast<int>(random.Below(40));
      switch (random.Below(5)) {
        case 0:
        case 1: {
          Time t = now + 1 + random.Below(100);
          owners[i]->timer.Schedule(t);
          model[i] = t;
          break;
        }
        case 2:
          owners[i]->timer.Disarm();
          model.erase(i);
          break;
        case 3:
          owners[i]->timer.Cancel();
          model.erase(i);
          break;
        default: {
          now += random.Below(20);
          Time earliest = kNever;
          for (auto& [id, t] : model) earliest = std::min(earliest, t);
          ASSERT_LE(queue.NextDeadline(), earliest);
          log.clear();
          queue.RunTimers(now);
          size_t expected = 0;
          for (auto it = model.begin(); it != model.end();) {
            if (it->second <= now) {
              expected++;
              ASSERT_NE(std::find(log.begin(), log.end(), it->first), log.end());
              it = model.erase(it);
            } else {
              ++it;
            }
          }
          ASSERT_EQ(log.size(), expected);
        }
      }
    }
    for (auto& o : owners) o->timer.Cancel();
  }
}

TEST(TimerQueue, NoDeadlineIsLostBetweenThreads) {
  struct Counter : RefCounted {
    explicit Counter(TimerQueue& q) : timer(q, *this, [](void* p, Time) { static_cast<Counter*>(p)->n++; }, this) {}
    std::atomic<int> n{0};
    Timer timer;
  };
  TimerQueue queue;
  auto c = MakeRef<Counter>(queue);
  std::atomic<Time> now{1};
  std::atomic<bool> stop{false};
  std::thread runner([&] {
    while (!stop) queue.RunTimers(now);
  });
  for (int i = 0; i < 20000; i++) {
    int before = c->n;
    c->timer.Schedule(now + 1);
    now += 2;
    auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (c->n == before) {
      ASSERT_LT(std::chrono::steady_clock::now(), limit) << "lost at " << i;
      std::this_thread::yield();
    }
  }
  stop = true;
  runner.join();
  EXPECT_EQ(c->n, 20000);
}

TEST(Random, SameSeedSameNumbersAndBelowIsBelow) {
  SeededRandom a(1), b(1), c(2);
  EXPECT_EQ(a.U64(), b.U64());
  EXPECT_NE(a.U64(), c.U64());
  std::array<int, 7> seen{};
  for (int i = 0; i < 7000; i++) seen.at(a.Below(7))++;
  for (int n : seen) EXPECT_GT(n, 800);
}

TEST(SipHash, VectorsOfThePaper) {
  // Appendix A of the SipHash paper: key 00..0f, message 00..0e.
  HashKey key = {0x0706050403020100, 0x0f0e0d0c0b0a0908};
  std::array<std::byte, 15> message;
  for (size_t i = 0; i < message.size(); i++) message[i] = static_cast<std::byte>(i);
  EXPECT_EQ(SipHash(key, message), 0xa129ca6149be45e5u);
}

}  // namespace
}  // namespace redoubt::netstack
