#include "pkg/sentry/epoll/epoll.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <vector>

#include "pkg/fiber/fiber.h"
#include "pkg/sentry/eventfd/eventfd.h"
#include "pkg/sentry/vfs/anon_inode.h"
#include "pkg/sentry/wait/wait.h"

namespace redoubt::epoll {
namespace {

constexpr uint64_t kSeeds = 2000;

RefPtr<Epoll> MakeEpoll() { return RefPtr<Epoll>(static_cast<Epoll*>(Make(0).get())); }

// Between copies of the counter another fiber may run.
Result<uint64_t> Consume(vfs::FileDescription& file) {
  fiber::Yield();
  uint64_t value = 0;
  BufferIo io(std::as_writable_bytes(std::span(&value, 1)));
  IoSequence dst(io, 0, sizeof(value));
  TRY(file.Read(dst, 0));
  return value;
}

void Produce(vfs::FileDescription& file) {
  fiber::Yield();
  uint64_t value = 1;
  BufferIo io(std::as_writable_bytes(std::span(&value, 1)));
  IoSequence src(io, 0, sizeof(value));
  EXPECT_TRUE(file.Write(src, 0));
}

std::vector<epoll_event> Take(Epoll& epoll, size_t limit) {
  std::vector<epoll_event> events(limit);
  events.resize(epoll.Take(events));
  return events;
}

// epoll_wait(2) without a time limit.
std::vector<epoll_event> WaitForEvents(Epoll& epoll, size_t limit) {
  std::vector<epoll_event> events;
  (void)wait::Retry(epoll, waiter::kIn, fiber::kForever, [&]() -> Result<size_t> {
    events = Take(epoll, limit);
    if (events.empty()) return Err(EAGAIN);
    return events.size();
  });
  return events;
}

epoll_event Event(uint32_t events, uint64_t data) { return {.events = events, .data = {.u64 = data}}; }

// Producers on three eventfds, two consumers on one epoll; each count produced is consumed, in every trigger mode.
class EpollSchedules : public ::testing::TestWithParam<uint32_t> {};

TEST_P(EpollSchedules, EveryCountIsConsumed) {
  constexpr int kFiles = 3;
  constexpr int kEach = 4;
  for (uint64_t seed = 0; seed < kSeeds; seed++) {
    auto executor = fiber::MakeDeterministicExecutor(seed);
    RefPtr<Epoll> epoll = MakeEpoll();
    std::vector<RefPtr<vfs::FileDescription>> files;
    for (int i = 0; i < kFiles; i++) {
      files.push_back(eventfd::Make(0, false, 0));
      ASSERT_TRUE(epoll->Add(i, files[i], Event(EPOLLIN | GetParam(), i)));
    }
    uint64_t consumed = 0;
    for (int i = 0; i < kFiles; i++) {
      executor->Spawn([&, i] {
        for (int n = 0; n < kEach; n++) Produce(*files[i]);
      });
    }
    for (int i = 0; i < 2; i++) {
      executor->Spawn([&] {
        while (consumed < kFiles * kEach) {
          for (const epoll_event& e : WaitForEvents(*epoll, 2)) {
            vfs::FileDescription& file = *files[e.data.u64];
            consumed += Consume(file).value_or(0);
            if ((GetParam() & EPOLLONESHOT) != 0) {
              ASSERT_TRUE(epoll->Modify(static_cast<int>(e.data.u64), file, Event(EPOLLIN | GetParam(), e.data.u64)));
            }
          }
        }
        // Lets the other consumer see the end as well.
        Produce(*files[0]);
      });
    }
    // With edges, the last Produce may wake the consumer that has ended already; the other must not sleep for ever on
    // counts.
    size_t stuck = fiber::RunUntilIdle(*executor);
    ASSERT_LE(stuck, 1u) << seed;
    ASSERT_GE(consumed, static_cast<uint64_t>(kFiles * kEach)) << seed;
    executor.reset();
  }
}

INSTANTIATE_TEST_SUITE_P(Triggers, EpollSchedules,
                         ::testing::Values(0u, static_cast<uint32_t>(EPOLLET), static_cast<uint32_t>(EPOLLONESHOT)));

// Files that come and go while others wait.
TEST(EpollSchedules, InterestsChangeUnderAWaiter) {
  for (uint64_t seed = 0; seed < kSeeds; seed++) {
    auto executor = fiber::MakeDeterministicExecutor(seed);
    RefPtr<Epoll> epoll = MakeEpoll();
    RefPtr<vfs::FileDescription> last = eventfd::Make(0, false, 0);
    bool done = false;
    executor->Spawn([&] {
      while (!done) {
        for (const epoll_event& e : WaitForEvents(*epoll, 8)) done |= e.data.u64 == 99;
      }
    });
    executor->Spawn([&] {
      for (int i = 0; i < 5; i++) {
        RefPtr<vfs::FileDescription> file = eventfd::Make(0, false, 0);
        ASSERT_TRUE(epoll->Add(i, file, Event(EPOLLIN | EPOLLET, i)));
        Produce(*file);
        if ((seed >> i & 1) != 0) {
          ASSERT_TRUE(epoll->Remove(i, *file));
        }
        fiber::Yield();
      }
      ASSERT_TRUE(epoll->Add(50, last, Event(EPOLLIN, 99)));
    });
    executor->Spawn([&] { Produce(*last); });
    ASSERT_EQ(fiber::RunUntilIdle(*executor), 0u) << seed;
    ASSERT_TRUE(done) << seed;
  }
}

void OnAFiber(std::function<void()> body) {
  auto executor = fiber::MakeDeterministicExecutor(1);
  executor->Spawn(std::move(body));
  EXPECT_EQ(fiber::RunUntilIdle(*executor), 0u);
}

TEST(Epoll, LevelStaysAndEdgeDoesNot) {
  OnAFiber([] {
    RefPtr<Epoll> epoll = MakeEpoll();
    RefPtr<vfs::FileDescription> level = eventfd::Make(1, false, 0), edge = eventfd::Make(1, false, 0);
    ASSERT_TRUE(epoll->Add(1, level, Event(EPOLLIN, 1)));
    ASSERT_TRUE(epoll->Add(2, edge, Event(EPOLLIN | EPOLLET, 2)));
    EXPECT_EQ(Take(*epoll, 8).size(), 2u);
    EXPECT_EQ(Take(*epoll, 8).size(), 1u);
    Produce(*edge);
    EXPECT_EQ(Take(*epoll, 8).size(), 2u);
  });
}

// More of it arrives whenever somebody asks: a socket whose peer writes during epoll_wait(2).
class Arriving final : public vfs::FileDescription {
 public:
  Arriving() : FileDescription(vfs::MakeAnonymousPath("arriving"), O_RDWR) {}
  Result<size_t> Read(IoSequence&, vfs::IoFlags) override { return Err(EAGAIN); }
  Result<size_t> Write(IoSequence&, vfs::IoFlags) override { return Err(EAGAIN); }
  waiter::EventMask Readiness(waiter::EventMask mask) override {
    if (arrivals > 0 && --arrivals > 0) queue_.Notify(waiter::kIn);
    return mask & waiter::kIn;
  }
  void RegisterWaiter(waiter::Entry& entry) override { queue_.Register(entry); }
  void UnregisterWaiter(waiter::Entry& entry) override { queue_.Unregister(entry); }
  bool SupportsEpoll() const override { return true; }

  int arrivals = 0;

 private:
  waiter::Queue queue_;
};

TEST(Epoll, OneCallReportsAnInterestOnce) {
  for (uint32_t mode : {0u, uint32_t{EPOLLET}}) {
    RefPtr<Epoll> epoll = MakeEpoll();
    RefPtr<Arriving> busy = MakeRef<Arriving>();
    RefPtr<vfs::FileDescription> other = eventfd::Make(1, false, 0);
    ASSERT_TRUE(epoll->Add(0, busy, Event(EPOLLIN | mode, 0)));
    ASSERT_TRUE(epoll->Add(1, other, Event(EPOLLIN, 1)));
    busy->arrivals = 5;
    EXPECT_EQ(Take(*epoll, 8).size(), 2u) << mode;
    // What came meanwhile is not lost.
    busy->arrivals = 0;
    EXPECT_EQ(Take(*epoll, 8).size(), 2u) << mode;
    EXPECT_EQ(Take(*epoll, 8).size(), mode == 0 ? 2u : 1u) << mode;
  }
}

TEST(Epoll, ErrorsOfTheInterestList) {
  OnAFiber([] {
    RefPtr<Epoll> epoll = MakeEpoll();
    RefPtr<vfs::FileDescription> file = eventfd::Make(0, false, 0);
    EXPECT_EQ(epoll->Modify(1, *file, Event(EPOLLIN, 1)).error(), Errno(ENOENT));
    EXPECT_EQ(epoll->Remove(1, *file).error(), Errno(ENOENT));
    ASSERT_TRUE(epoll->Add(1, file, Event(EPOLLIN, 1)));
    EXPECT_EQ(epoll->Add(1, file, Event(EPOLLIN, 1)).error(), Errno(EEXIST));
    EXPECT_TRUE(epoll->Add(2, file, Event(EPOLLIN, 1)));
  });
}

TEST(Epoll, CirclesAreRefused) {
  OnAFiber([] {
    RefPtr<Epoll> a = MakeEpoll(), b = MakeEpoll();
    ASSERT_TRUE(a->Add(1, b, Event(EPOLLIN, 1)));
    EXPECT_EQ(b->Add(1, a, Event(EPOLLIN, 1)).error(), Errno(ELOOP));
    ASSERT_TRUE(a->Remove(1, *b));
  });
}

}  // namespace
}  // namespace redoubt::epoll
