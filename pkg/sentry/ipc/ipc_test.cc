#include "pkg/sentry/ipc/ipc.h"

#include <gtest/gtest.h>

#include "pkg/fiber/fiber.h"
#include "pkg/sentry/wait/wait.h"

namespace redoubt::ipc {
namespace {

template <typename T>
int Error(const Result<T>& r) {
  return r ? 0 : r.error().value();
}

class Space final : public memmap::MappingSpace {
  void Invalidate(AddrRange, bool) override {}
};

class IpcTest : public testing::Test {
 protected:
  std::unique_ptr<pgalloc::MemoryFile> memory = *pgalloc::MemoryFile::Create({});
  RefPtr<Namespace> ns = MakeRef<Namespace>(*memory);
  RefPtr<auth::Credentials> root = auth::Credentials::Root();
  RefPtr<auth::Credentials> user = auth::Credentials::ForUser(5, 5, {}, 0);

  RefPtr<SemaphoreSet> Semaphores(int count) { return *ns->semaphores.Get(IPC_PRIVATE, count, 0600, *root); }
  int Value(SemaphoreSet& s, int index = 0) { return *s.GetOne(*root, index, SemaphoreSet::What::kValue); }
  int Op(SemaphoreSet& s, std::vector<sembuf> ops, UndoList* undo = nullptr) {
    return Error(s.Operate(ops, *root, 7, undo));
  }
};

TEST_F(IpcTest, KeysAndIdentifiers) {
  SharedMemory& shm = ns->shared_memory;
  EXPECT_EQ(Error(shm.Get(1, 100, 0600, *root, 7)), ENOENT);
  EXPECT_EQ(Error(shm.Get(1, 0, IPC_CREAT, *root, 7)), EINVAL);
  RefPtr<Segment> a = *shm.Get(1, 100, IPC_CREAT | 0600, *root, 7);
  EXPECT_EQ(Error(shm.Get(1, 100, IPC_CREAT | IPC_EXCL | 0600, *root, 7)), EEXIST);
  EXPECT_EQ(Error(shm.Get(1, 101, 0600, *root, 7)), EINVAL);
  EXPECT_EQ(Error(shm.Get(1, 50, 0600, *user, 7)), EACCES);
  EXPECT_TRUE(*shm.Get(1, 50, 0600, *root, 7) == a);
  RefPtr<Segment> p = *shm.Get(IPC_PRIVATE, 100, 0600, *root, 7);
  EXPECT_NE(p->id, a->id);
  EXPECT_EQ(Error(a->Remove(*user)), EPERM);
  ASSERT_TRUE(a->Remove(*root));
  EXPECT_EQ(Error(shm.table().Find(a->id)), EINVAL);
  RefPtr<Segment> again = *shm.Get(1, 100, IPC_CREAT | 0600, *root, 7);
  EXPECT_NE(again->id, a->id) << "an old identifier must not mean a new object";
  EXPECT_TRUE(*shm.table().FindSlot(0) == again);
}

TEST_F(IpcTest, ARemovedSegmentLivesWhileAttached) {
  Space one, two;
  RefPtr<Segment> s = *ns->shared_memory.Get(3, 3 * kPageSize, IPC_CREAT | 0600, *root, 7);
  const Addr at = 0x10000;
  ASSERT_TRUE(s->Attach(*root, true, 8));
  ASSERT_TRUE(s->AddMapping(one, {at, at + 3 * kPageSize}, 0, true));
  ASSERT_TRUE(s->AddMapping(two, {at, at + 3 * kPageSize}, 0, true));
  EXPECT_EQ(s->Stat(*root, true)->shm_nattch, 2u);
  EXPECT_EQ(s->Stat(*root, true)->shm_lpid, 8);
  EXPECT_EQ(Error(s->Attach(*user, false, 8)), EACCES);
  // A hole in the middle leaves one attachment of two pieces.
  s->RemoveMapping(one, {at + kPageSize, at + 2 * kPageSize}, kPageSize, true);
  EXPECT_EQ(s->AttachedAt(one, at).size(), 2u);
  EXPECT_EQ(s->AttachedAt(one, at + kPageSize).size(), 0u);
  ASSERT_TRUE(s->Remove(*root));
  EXPECT_EQ(Error(ns->shared_memory.Get(3, 1, 0600, *root, 7)), ENOENT);
  EXPECT_TRUE(ns->shared_memory.table().Find(s->id));
  s->RemoveMapping(one, {at, at + kPageSize}, 0, true);
  s->RemoveMapping(one, {at + 2 * kPageSize, at + 3 * kPageSize}, 2 * kPageSize, true);
  EXPECT_EQ(s->Stat(*root, true)->shm_nattch, 1u);
  s->RemoveMapping(two, {at, at + 3 * kPageSize}, 0, true);
  EXPECT_EQ(Error(ns->shared_memory.table().Find(s->id)), EINVAL);
}

TEST_F(IpcTest, PagesAreShared) {
  RefPtr<Segment> s = *ns->shared_memory.Get(IPC_PRIVATE, 10, 0600, *root, 7);
  memmap::FileRange a = *s->Translate(0, kPageSize, {.read = true, .write = true});
  memmap::FileRange b = *s->Translate(0, kPageSize, {.read = true});
  EXPECT_EQ(a, b);
  EXPECT_FALSE(s->Translate(kPageSize, kPageSize, {.read = true}));
  memory->DecRef(a);
  memory->DecRef(b);
  ASSERT_TRUE(s->Remove(*root));
  s.reset();
  EXPECT_EQ(memory->usage(), 0u);
}

TEST_F(IpcTest, OperationsAreAtomic) {
  RefPtr<SemaphoreSet> s = Semaphores(2);
  EXPECT_EQ(Op(*s, {{0, 2, 0}, {1, 1, 0}}), 0);
  EXPECT_EQ(Op(*s, {{0, -1, 0}, {1, -2, 0}}), EAGAIN);
  EXPECT_EQ(Value(*s, 0), 2) << "nothing of what would wait is done";
  EXPECT_EQ(Op(*s, {{0, 0, 0}}), EAGAIN);
  EXPECT_TRUE(s->Operate(std::vector<sembuf>{{0, 0, IPC_NOWAIT}}, *root, 7, nullptr) ==
              SemaphoreSet::Outcome::kMustNotWait);
  EXPECT_EQ(Op(*s, {{0, -2, 0}, {0, 0, 0}, {0, 5, 0}}), 0);
  EXPECT_EQ(Value(*s, 0), 5);
  EXPECT_EQ(Op(*s, {{2, 1, 0}}), EFBIG);
  EXPECT_EQ(Op(*s, {{0, 32767, 0}}), ERANGE);
  EXPECT_EQ(*s->GetOne(*root, 0, SemaphoreSet::What::kPid), 7);
  EXPECT_EQ(Error(s->Operate(std::vector<sembuf>{{0, 0, 0}}, *user, 1, nullptr)), EACCES);
  EXPECT_EQ(Error(s->SetOne(*root, 0, -1, 1)), ERANGE);
  EXPECT_EQ(Error(s->SetOne(*root, 9, 1, 1)), EINVAL);
  EXPECT_EQ(*s->GetAll(*root), (std::vector<uint16_t>{5, 1}));
  s->Remove();
  EXPECT_EQ(Op(*s, {{0, 1, 0}}), EIDRM);
}

TEST_F(IpcTest, AProcessThatEndsUndoes) {
  RefPtr<SemaphoreSet> s = Semaphores(2);
  ASSERT_TRUE(s->SetAll(*root, std::vector<uint16_t>{10, 10}, 1));
  RefPtr<UndoList> undo = MakeRef<UndoList>(9);
  EXPECT_EQ(Op(*s, {{0, -3, SEM_UNDO}, {1, -4, 0}}, undo.get()), 0);
  EXPECT_EQ(Op(*s, {{1, 5, SEM_UNDO}}, undo.get()), 0);
  ASSERT_TRUE(s->SetOne(*root, 1, 2, 1));
  undo.reset();
  EXPECT_EQ(Value(*s, 0), 10);
  EXPECT_EQ(Value(*s, 1), 2) << "SETVAL forgets what was to be undone";
  EXPECT_EQ(*s->GetOne(*root, 0, SemaphoreSet::What::kPid), 9);
}

TEST_F(IpcTest, WaitersCountWhereTheyWaitNow) {
  RefPtr<SemaphoreSet> s = Semaphores(2);
  const std::vector<sembuf> both = {{0, -1, 0}, {1, 0, 0}};
  auto counts = [&] {
    return std::pair(*s->GetOne(*root, 0, SemaphoreSet::What::kWaitingForIncrease),
                     *s->GetOne(*root, 1, SemaphoreSet::What::kWaitingForZero));
  };
  ASSERT_TRUE(s->SetAll(*root, std::vector<uint16_t>{0, 1}, 1));
  {
    SemaphoreSet::Waiting waiting(*s);
    waiting.Update(both);
    EXPECT_EQ(counts(), std::pair(1, 0));
    ASSERT_TRUE(s->SetOne(*root, 0, 1, 1));
    waiting.Update(both);
    EXPECT_EQ(counts(), std::pair(0, 1));
  }
  EXPECT_EQ(counts(), std::pair(0, 0));
}

// A semaphore as a lock, under many schedules: never two inside, and everybody gets there.
TEST_F(IpcTest, LockUnderManySchedules) {
  for (uint64_t seed = 1; seed <= 500; ++seed) {
    RefPtr<SemaphoreSet> s = Semaphores(1);
    ASSERT_EQ(Op(*s, {{0, 1, 0}}), 0);
    auto executor = fiber::MakeDeterministicExecutor(seed);
    int inside = 0, done = 0;
    for (int i = 0; i < 4; ++i) {
      executor->Spawn([&] {
        for (int j = 0; j < 5; ++j) {
          const std::vector<sembuf> take = {{0, -1, SEM_UNDO}}, give = {{0, 1, SEM_UNDO}};
          RefPtr<UndoList> undo = MakeRef<UndoList>(1);
          {
            SemaphoreSet::Waiting waiting(*s);
            ASSERT_EQ(Error(wait::Retry(*s, waiter::kIn, fiber::kForever,
                                        [&] {
                                          auto outcome = s->Operate(take, *root, 1, undo.get());
                                          if (!outcome) waiting.Update(take);
                                          return outcome;
                                        })),
                      0);
          }
          EXPECT_EQ(++inside, 1);
          fiber::Yield();
          --inside;
          // Some give it back, some die.
          if (j % 2 == 0) {
            EXPECT_EQ(Error(s->Operate(give, *root, 1, undo.get())), 0);
          }
        }
        ++done;
      });
    }
    ASSERT_EQ(fiber::RunUntilIdle(*executor), 0u) << "seed " << seed;
    ASSERT_EQ(done, 4);
    ASSERT_EQ(Value(*s), 1) << "seed " << seed;
    ASSERT_EQ(*s->GetOne(*root, 0, SemaphoreSet::What::kWaitingForIncrease), 0);
    ns->semaphores.table().Remove(s->id);
  }
}

}  // namespace
}  // namespace redoubt::ipc
