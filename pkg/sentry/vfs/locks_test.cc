#include "pkg/sentry/vfs/locks.h"

#include <gtest/gtest.h>

#include "pkg/fiber/fiber.h"

namespace redoubt::vfs {
namespace {

const char owners[4] = {};
const void* const A = &owners[0];
const void* const B = &owners[1];
const void* const C = &owners[2];

RecordLock Lock(const void* owner, LockType type, uint64_t start, uint64_t end, RecordKind kind = RecordKind::kPosix) {
  return {.type = type, .kind = kind, .start = start, .end = end, .owner = owner, .pid = 7};
}
int Set(FileLocks& locks, const RecordLock& lock, LockWait wait = LockWait::kNo) {
  Result<> r = locks.SetRecord(lock, wait);
  return r ? 0 : r.error().value();
}

TEST(RecordLocks, ConflictByOwnerTypeAndRange) {
  FileLocks locks;
  EXPECT_EQ(Set(locks, Lock(A, LockType::kRead, 0, 10)), 0);
  EXPECT_EQ(Set(locks, Lock(B, LockType::kRead, 5, 15)), 0);
  EXPECT_EQ(Set(locks, Lock(B, LockType::kWrite, 5, 15)), EAGAIN);
  EXPECT_EQ(Set(locks, Lock(B, LockType::kWrite, 10, 15)), 0);
  EXPECT_EQ(Set(locks, Lock(A, LockType::kWrite, 12, 13)), EAGAIN);
  EXPECT_EQ(Set(locks, Lock(A, LockType::kWrite, 0, 5)), 0);
  // An OFD lock of the same pointer is another owner.
  EXPECT_EQ(Set(locks, Lock(A, LockType::kRead, 0, 1, RecordKind::kOfd)), EAGAIN);
  locks.ReleasePosix(A);
  EXPECT_EQ(Set(locks, Lock(A, LockType::kRead, 0, 1, RecordKind::kOfd)), 0);
  locks.ReleaseDescription(A);
  EXPECT_EQ(Set(locks, Lock(C, LockType::kWrite, 0, 5)), 0);
}

TEST(RecordLocks, UnlockingTheMiddleLeavesBothEnds) {
  FileLocks locks;
  ASSERT_EQ(Set(locks, Lock(A, LockType::kWrite, 0, RecordLock::kEndOfFile)), 0);
  ASSERT_EQ(Set(locks, Lock(A, LockType::kUnlock, 10, 20)), 0);
  EXPECT_EQ(Set(locks, Lock(B, LockType::kWrite, 10, 20)), 0);
  std::optional<RecordLock> left = locks.TestRecord(Lock(B, LockType::kRead, 0, 10));
  ASSERT_TRUE(left);
  EXPECT_EQ(left->end, 10u);
  EXPECT_EQ(left->pid, 7);
  EXPECT_EQ(locks.TestRecord(Lock(B, LockType::kRead, 30, 31))->start, 20u);
  EXPECT_EQ(locks.TestRecord(Lock(B, LockType::kRead, 30, 31))->end, RecordLock::kEndOfFile);
  EXPECT_FALSE(locks.TestRecord(Lock(A, LockType::kWrite, 0, 10)));
}

TEST(RecordLocks, AreBounded) {
  FileLocks locks;
  uint64_t at = 0;
  while (Set(locks, Lock(A, LockType::kRead, at, at + 1)) == 0) at += 2;
  EXPECT_EQ(at / 2, FileLocks::kMaxRecords);
  EXPECT_EQ(Set(locks, Lock(A, LockType::kRead, at, at + 1)), ENOLCK);
  // Nothing that makes them more, and all that makes them fewer.
  EXPECT_EQ(Set(locks, Lock(A, LockType::kRead, 1, 10)), 0);
  EXPECT_EQ(Set(locks, Lock(A, LockType::kRead, at, at + 1)), 0);
  EXPECT_EQ(Set(locks, Lock(A, LockType::kUnlock, 4, 5)), 0);
  EXPECT_EQ(Set(locks, Lock(A, LockType::kUnlock, 0, RecordLock::kEndOfFile)), 0);
  EXPECT_EQ(Set(locks, Lock(B, LockType::kWrite, 0, RecordLock::kEndOfFile)), 0);
}

// Random operations against one array cell per byte.
TEST(RecordLocks, MatchesAModel) {
  constexpr int kBytes = 24;
  for (uint32_t seed = 1; seed <= 300; seed++) {
    FileLocks locks;
    LockType model[3][kBytes];
    for (auto& row : model) std::fill(row, row + kBytes, LockType::kUnlock);
    uint32_t x = seed * 2654435761u;
    auto next = [&x](uint32_t n) {
      x ^= x << 13, x ^= x >> 17, x ^= x << 5;
      return x % n;
    };
    for (int step = 0; step < 60; step++) {
      uint32_t owner = next(3), start = next(kBytes), end = start + 1 + next(kBytes - start);
      LockType type = static_cast<LockType>(next(3));
      bool conflict = false;
      if (type != LockType::kUnlock) {
        for (uint32_t o = 0; o < 3; o++) {
          for (uint32_t b = start; b < end && o != owner; b++) {
            conflict |= model[o][b] == LockType::kWrite || (model[o][b] == LockType::kRead && type == LockType::kWrite);
          }
        }
      }
      ASSERT_EQ(Set(locks, Lock(&owners[owner], type, start, end)), conflict ? EAGAIN : 0);
      if (!conflict) std::fill(model[owner] + start, model[owner] + end, type);
      for (uint32_t b = 0; b < kBytes; b++) {
        bool held = false;
        for (auto& row : model) held |= row[b] != LockType::kUnlock;
        ASSERT_EQ(locks.TestRecord(Lock(&owners[3], LockType::kWrite, b, b + 1)).has_value(), held);
      }
    }
  }
}

TEST(RecordLocks, WaitersGetTheLockInEverySchedule) {
  for (uint64_t seed = 0; seed < 300; seed++) {
    auto executor = fiber::MakeDeterministicExecutor(seed);
    FileLocks locks;
    int inside = 0, entered = 0;
    for (const char& owner : owners) {
      executor->Spawn([&, me = &owner] {
        for (int i = 0; i < 3; i++) {
          ASSERT_EQ(Set(locks, Lock(me, LockType::kWrite, 0, 10), LockWait::kYes), 0);
          EXPECT_EQ(++inside, 1);
          entered++;
          fiber::Yield();
          inside--;
          ASSERT_EQ(Set(locks, Lock(me, LockType::kUnlock, 0, 10)), 0);
        }
      });
    }
    ASSERT_EQ(fiber::RunUntilIdle(*executor), 0u);
    EXPECT_EQ(entered, 12);
  }
}

TEST(RecordLocks, ACircleIsADeadlockAndNothingElseIs) {
  for (uint64_t seed = 0; seed < 300; seed++) {
    auto executor = fiber::MakeDeterministicExecutor(seed);
    FileLocks one, two;
    int deadlocks = 0;
    auto body = [&](const void* me, FileLocks& first, FileLocks& second) {
      ASSERT_EQ(Set(first, Lock(me, LockType::kWrite, 0, 1), LockWait::kYes), 0);
      fiber::Yield();
      int error = Set(second, Lock(me, LockType::kWrite, 0, 1), LockWait::kYes);
      if (error == EDEADLK) deadlocks++;
      first.ReleasePosix(me);
      second.ReleasePosix(me);
    };
    executor->Spawn([&] { body(A, one, two); });
    executor->Spawn([&] { body(B, two, one); });
    executor->Spawn([&] { body(C, one, one); });
    ASSERT_EQ(fiber::RunUntilIdle(*executor), 0u);
    EXPECT_LE(deadlocks, 1);
  }
}

TEST(Flock, ConversionAndWaiting) {
  FileLocks locks;
  EXPECT_TRUE(locks.Flock(A, LockType::kRead, LockWait::kNo));
  EXPECT_TRUE(locks.Flock(B, LockType::kRead, LockWait::kNo));
  EXPECT_EQ(locks.Flock(C, LockType::kWrite, LockWait::kNo).error(), Errno(EAGAIN));
  // The failed conversion has lost the read lock.
  EXPECT_EQ(locks.Flock(B, LockType::kWrite, LockWait::kNo).error(), Errno(EAGAIN));
  EXPECT_TRUE(locks.Flock(A, LockType::kWrite, LockWait::kNo));
  auto executor = fiber::MakeDeterministicExecutor(1);
  bool got = false;
  executor->Spawn([&] { got = locks.Flock(B, LockType::kWrite, LockWait::kYes).has_value(); });
  executor->Spawn([&] {
    fiber::Yield();
    EXPECT_FALSE(got);
    locks.ReleaseDescription(A);
  });
  ASSERT_EQ(fiber::RunUntilIdle(*executor), 0u);
  EXPECT_TRUE(got);
}

}  // namespace
}  // namespace redoubt::vfs
