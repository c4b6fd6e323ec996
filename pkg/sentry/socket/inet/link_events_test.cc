#include "pkg/sentry/socket/inet/link_events.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <vector>

#include "pkg/fiber/fiber.h"

namespace redoubt::inetsock {
namespace {

using netstack::FdLink;

int64_t CpuTime() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return t.tv_sec * 1'000'000'000 + t.tv_nsec;
}

// Counts frames, and unparks a fiber for each.
class Counter final : public netstack::LinkDispatcher {
 public:
  void DeliverFrame(netstack::PacketPtr frame) override {
    frames.fetch_add(1);
    if (fiber::Fiber* f = waiter.load()) f->Unpark();
  }
  std::atomic<int> frames{0};
  std::atomic<fiber::Fiber*> waiter{nullptr};
};

// A link on one end of a datagram socket pair, whose other end the test writes.
class LinkEventsTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (GetParam()) {
      Result<std::unique_ptr<LinkEvents>> other = LinkEvents::Create(nullptr);
      ASSERT_TRUE(other);
      other_ = std::move(*other);
    }
    Result<std::unique_ptr<LinkEvents>> events = LinkEvents::Create(other_.get());
    ASSERT_TRUE(events);
    events_ = std::move(*events);
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair_), 0);
    link_ = std::make_unique<FdLink>(FdLink::Options{.fd = pair_[0], .kind = FdLink::Kind::kSocket});
    link_->Attach(&counter_);
    ASSERT_TRUE(events_->Add(pair_[0], *link_));
  }
  void TearDown() override {
    executor_.reset();
    events_.reset();
    other_.reset();
    close(pair_[0]);
    close(pair_[1]);
  }
  void Send(int n) {
    const std::string frame(60, 'f');
    for (int i = 0; i < n; i++) {
      while (send(pair_[1], frame.data(), frame.size(), 0) < 0 && errno == EAGAIN) usleep(100);
    }
  }
  void StartExecutor(int slots) {
    executor_ = fiber::ThreadedExecutor::Create({.slots = slots, .events = events_.get()});
  }

  std::unique_ptr<LinkEvents> other_, events_;
  int pair_[2] = {-1, -1};
  Counter counter_;
  std::unique_ptr<FdLink> link_;
  std::unique_ptr<fiber::Executor> executor_;
};
INSTANTIATE_TEST_SUITE_P(Sources, LinkEventsTest, testing::Bool(),
                         [](const auto& p) { return p.param ? "InFrontOfAnother" : "Alone"; });

TEST_P(LinkEventsTest, AFrameWakesASleepingExecutor) {
  StartExecutor(2);
  constexpr int kFrames = 500;
  std::atomic<int> seen{0};
  executor_->Spawn([&] {
    counter_.waiter = fiber::Current();
    while (counter_.frames < kFrames) {
      seen = counter_.frames.load();
      fiber::Park();
    }
    counter_.waiter = nullptr;
  });
  // One by one, each only when the one before was seen: every one is a wake from sleep.
  while (counter_.waiter == nullptr) usleep(100);
  for (int i = 1; i < kFrames; i++) {
    Send(1);
    for (int n = 0; seen < i && n < 50000; n++) usleep(20);
    ASSERT_EQ(seen, i);
  }
  Send(1);
  fiber::Join(*executor_);
  EXPECT_EQ(counter_.frames, kFrames);
}

TEST_P(LinkEventsTest, AFloodIsDeliveredWhole) {
  StartExecutor(2);
  constexpr int kFrames = 20000;
  executor_->Spawn([&] {
    counter_.waiter = fiber::Current();
    while (counter_.frames < kFrames) fiber::Park();
    counter_.waiter = nullptr;
  });
  Send(kFrames);
  fiber::Join(*executor_);
  EXPECT_EQ(counter_.frames, kFrames);
}

// The only thread never parks and never looks: the guard does.
TEST_P(LinkEventsTest, AFiberThatHogsTheOnlySlotDoesNotKeepFramesOut) {
  StartExecutor(1);
  std::atomic<bool> stop{false};
  std::atomic<bool> running{false};
  executor_->Spawn([&] {
    running = true;
    while (!stop) {
    }
  });
  while (!running) usleep(100);
  Send(10);
  for (int n = 0; counter_.frames < 10 && n < 5000; n++) usleep(1000);
  EXPECT_EQ(counter_.frames, 10);
  stop = true;
  fiber::Join(*executor_);
}

TEST_P(LinkEventsTest, OneLookIsBounded) {
  Send(1000 / 4);  // what a socket pair's queue holds is less than a thousand
  int before = counter_.frames;
  for (int looks = 0; counter_.frames < 250 && looks < 100; looks++) {
    events_->Drain();
    EXPECT_LE(counter_.frames - before, static_cast<int>(LinkEvents::kFramesPerLook + FdLink::kBatch));
    before = counter_.frames;
  }
  EXPECT_EQ(counter_.frames, 250);
}

TEST_P(LinkEventsTest, IdleCostsNothing) {
  StartExecutor(2);
  executor_->Spawn([] {});
  fiber::Join(*executor_);
  Send(3);
  usleep(50'000);
  const int64_t before = CpuTime();
  usleep(300'000);
  EXPECT_LT(CpuTime() - before, 3'000'000) << "ns of processor time in 300 ms without a frame";
  EXPECT_EQ(counter_.frames, 3);
}

TEST_P(LinkEventsTest, TooManyLinksAreRefused) {
  std::vector<int> fds;
  std::vector<std::unique_ptr<FdLink>> links;
  Result<> last;
  for (size_t i = 0; i < LinkEvents::kMaxLinks && last; i++) {
    fds.push_back(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    links.push_back(std::make_unique<FdLink>(FdLink::Options{.fd = fds.back()}));
    last = events_->Add(fds.back(), *links.back());
  }
  EXPECT_EQ(links.size(), LinkEvents::kMaxLinks);
  ASSERT_FALSE(last);
  EXPECT_EQ(last.error(), Errno(ENOSPC));
  events_.reset();
  for (int fd : fds) close(fd);
}

}  // namespace
}  // namespace redoubt::inetsock
