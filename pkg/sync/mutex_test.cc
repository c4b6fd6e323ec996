#include "pkg/sync/mutex.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace redoubt::sync {
namespace {

TEST(Mutex, ExcludesOtherThreads) {
  Mutex mu(Rank::kLeaf);
  int count = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; t++) {
    threads.emplace_back([&] {
      for (int i = 0; i < 10'000; i++) {
        MutexLock lock(mu);
        count++;
      }
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(count, 40'000);
}

#ifndef NDEBUG
TEST(MutexDeathTest, WrongOrderIsFatal) {
  Mutex outer(Rank::kTask);
  Mutex inner(Rank::kPipe);
  MutexLock lock(inner);
  EXPECT_DEATH(outer.Lock(), "lock order");
}

TEST(MutexDeathTest, EqualRanksNeedNested) {
  Mutex a(Rank::kTask);
  Mutex b(Rank::kTask);
  MutexLock lock(a);
  EXPECT_DEATH(b.Lock(), "lock order");
  MutexLockNested nested(b);
  EXPECT_EQ(HeldMutexes(), 2);
}

TEST(Mutex, MayBeReleasedOutOfOrder) {
  Mutex a(Rank::kTask);
  Mutex b(Rank::kPipe);
  a.Lock();
  b.Lock();
  a.Unlock();
  EXPECT_EQ(HeldMutexes(), 1);
  b.Unlock();
  EXPECT_EQ(HeldMutexes(), 0);
}
#endif

}  // namespace
}  // namespace redoubt::sync
