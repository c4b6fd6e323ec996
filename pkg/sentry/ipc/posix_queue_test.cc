#include "pkg/sentry/ipc/posix_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <random>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pkg/sentry/limits/system.h"
#include "pkg/sentry/wait/wait.h"

namespace redoubt::ipc {
namespace {

template <typename T>
int Error(const Result<T>& r) {
  return r ? 0 : r.error().value();
}

constexpr fiber::Time kMs = 1'000'000;
constexpr auto kNow = std::nullopt;

std::unique_ptr<PosixMessage> Message(const std::string& text, uint32_t priority = 0) {
  std::unique_ptr<PosixMessage> m = *PosixMessage::Make(text.size(), priority);
  std::ranges::copy(std::as_bytes(std::span(text)), m->text().begin());
  return m;
}

int Send(PosixQueue& queue, const std::string& text, uint32_t priority = 0, PosixQueue::Deadline deadline = kNow) {
  return Error(queue.Send(Message(text, priority), deadline));
}

// "priority:text", or the name of the error.
std::string Receive(PosixQueue& queue, PosixQueue::Deadline deadline = kNow) {
  Result<std::unique_ptr<PosixMessage>> m = queue.Receive(deadline);
  if (!m) return std::string(m.error().name());
  const std::span<std::byte> text = (*m)->text();
  return std::to_string((*m)->priority()) + ":" + std::string(reinterpret_cast<char*>(text.data()), text.size());
}

class FakeNotification final : public PosixNotification {
 public:
  FakeNotification(const void* owner, int& came, int& removed) : owner_(owner), came_(came), removed_(removed) {}
  const void* owner() const override { return owner_; }
  void MessageCame() override { came_++; }
  void Removed() override { removed_++; }
  int method() const override { return 2; }
  int signal() const override { return 7; }
  int OwnerPid() const override { return 42; }

 private:
  const void* const owner_;
  int& came_;
  int& removed_;
};

TEST(PosixQueue, HighestPriorityThenFirst) {
  PosixQueue queue({.messages = 10, .message_size = 8});
  EXPECT_EQ(Send(queue, "a", 1), 0);
  EXPECT_EQ(Send(queue, "b", 32767), 0);
  EXPECT_EQ(Send(queue, "", 0), 0);
  EXPECT_EQ(Send(queue, "c", 1), 0);
  EXPECT_EQ(Send(queue, "d", 32767), 0);
  EXPECT_EQ(queue.messages(), 5);
  for (const char* m : {"32767:b", "32767:d", "1:a", "1:c", "0:", "EAGAIN"}) EXPECT_EQ(Receive(queue), m);
}

TEST(PosixQueue, FullAndEmpty) {
  PosixQueue queue({.messages = 2, .message_size = 8});
  EXPECT_EQ(queue.Readiness(waiter::kAll), waiter::kOut | waiter::kWrNorm);
  EXPECT_EQ(Send(queue, "a"), 0);
  EXPECT_EQ(queue.Readiness(waiter::kIn | waiter::kOut), waiter::kIn | waiter::kOut);
  EXPECT_EQ(Send(queue, "b"), 0);
  EXPECT_EQ(Send(queue, "c"), EAGAIN);
  EXPECT_EQ(queue.Readiness(waiter::kAll), waiter::kIn | waiter::kRdNorm);
}

TEST(PosixQueue, SizesAreChecked) {
  limits::System& system = limits::System::Get();
  auto check = [](int64_t messages, int64_t size, bool privileged) {
    mq_attr attr = {};
    attr.mq_maxmsg = messages;
    attr.mq_msgsize = size;
    return Error(PosixQueue::CheckSize(&attr, privileged));
  };
  for (bool privileged : {false, true}) {
    EXPECT_EQ(check(0, 1, privileged), EINVAL);
    EXPECT_EQ(check(1, 0, privileged), EINVAL);
    EXPECT_EQ(check(-1, 1, privileged), EINVAL);
    EXPECT_EQ(check(1, INT64_MIN, privileged), EINVAL);
    EXPECT_EQ(check(10, 8192, privileged), 0);
    EXPECT_EQ(check(11, 8192, privileged), privileged ? 0 : EINVAL);
    EXPECT_EQ(check(10, 8193, privileged), privileged ? 0 : EINVAL);
    EXPECT_EQ(check(65537, 1, privileged), EINVAL);
    EXPECT_EQ(check(1, (16 << 20) + 1, privileged), EINVAL);
  }
  EXPECT_EQ(check(65536, 16 << 20, true), 0);
  // The default is no more than is allowed.
  EXPECT_EQ(PosixQueue::CheckSize(nullptr, false)->messages, 10);
  system.mq_msg_max = 3;
  system.mq_msgsize_max = 200;
  EXPECT_EQ(PosixQueue::CheckSize(nullptr, false)->messages, 3);
  EXPECT_EQ(PosixQueue::CheckSize(nullptr, false)->message_size, 200);
  system.mq_msg_max = 10;
  system.mq_msgsize_max = 8192;
}

// getrlimit(2), RLIMIT_MSGQUEUE.
TEST(PosixQueue, WhatOneCounts) {
  EXPECT_EQ((PosixQueue::Size{.messages = 10, .message_size = 8192}).Charge(), 10u * 48 + 10 * 48 + 10 * 8192);
  EXPECT_EQ((PosixQueue::Size{.messages = 65536, .message_size = 16 << 20}).Charge(),
            65536u * 48 + 32768 * 48 + (uint64_t{65536} << 24));
}

TEST(PosixQueue, AllMessagesTogetherAreBounded) {
  constexpr size_t kLarge = 1 << 20;
  std::vector<std::unique_ptr<PosixMessage>> all;
  while (true) {
    Result<std::unique_ptr<PosixMessage>> m = PosixMessage::Make(kLarge, 0);
    if (!m) {
      EXPECT_EQ(Error(m), ENOMEM);
      break;
    }
    all.push_back(*std::move(m));
    ASSERT_LE(all.size(), 64u);
  }
  EXPECT_EQ(all.size(), 63u);
  // Those in a queue count, and no more once they are received or the queue has gone.
  {
    PosixQueue queue({.messages = 3, .message_size = kLarge});
    for (int i = 0; i < 2; i++) {
      EXPECT_EQ(Error(queue.Send(std::move(all.back()), kNow)), 0);
      all.pop_back();
    }
    EXPECT_EQ(Error(PosixMessage::Make(kLarge, 0)), ENOMEM);
    EXPECT_EQ(Error(queue.Receive(kNow)), 0);
    EXPECT_EQ(Error(PosixMessage::Make(kLarge, 0)), 0);
  }
  all.push_back(*PosixMessage::Make(kLarge, 0));
  all.push_back(*PosixMessage::Make(kLarge, 0));
  EXPECT_EQ(Error(PosixMessage::Make(kLarge, 0)), ENOMEM);
}

TEST(PosixQueue, TheLongestWaitingIsServedFirst) {
  auto executor = fiber::MakeDeterministicExecutor(1);
  PosixQueue queue({.messages = 1, .message_size = 8});
  std::vector<std::string> received;
  for (int i = 0; i < 3; i++) {
    executor->Spawn([&] { received.push_back(Receive(queue, fiber::kForever)); });
    EXPECT_EQ(fiber::RunUntilIdle(*executor), static_cast<size_t>(i + 1));
  }
  executor->Spawn([&] {
    // Three messages go through a queue of one, since each is handed to somebody.
    for (const char* text : {"a", "b", "c"}) EXPECT_EQ(Send(queue, text), 0);
    EXPECT_EQ(queue.messages(), 0);
  });
  EXPECT_EQ(fiber::RunUntilIdle(*executor), 0u);
  std::ranges::sort(received);
  EXPECT_EQ(received, (std::vector<std::string>{"0:a", "0:b", "0:c"}));
  // Senders: who has waited longest comes next, and then the priority counts.
  EXPECT_EQ(Send(queue, "x", 1), 0);
  for (int i = 0; i < 3; i++) {
    executor->Spawn([&, i] {
      EXPECT_EQ(Send(queue, std::string(1, static_cast<char>('p' + i)), static_cast<uint32_t>(i), fiber::kForever), 0);
    });
    EXPECT_EQ(fiber::RunUntilIdle(*executor), static_cast<size_t>(i + 1));
  }
  for (const char* m : {"1:x", "0:p", "1:q", "2:r", "EAGAIN"}) EXPECT_EQ(Receive(queue), m);
  EXPECT_EQ(fiber::RunUntilIdle(*executor), 0u);
}

TEST(PosixQueue, WhoGivesUpLeavesNothing) {
  auto executor = fiber::MakeDeterministicExecutor(1);
  PosixQueue queue({.messages = 1, .message_size = 8});
  executor->Spawn([&] {
    EXPECT_EQ(Receive(queue, fiber::Now() + kMs), "ETIMEDOUT");
    EXPECT_EQ(Receive(queue, fiber::Now() - kMs), "ETIMEDOUT");
    EXPECT_EQ(Send(queue, "a"), 0);
    EXPECT_EQ(queue.messages(), 1);
    EXPECT_EQ(Send(queue, "b", 5, fiber::Now() + kMs), ETIMEDOUT);
    EXPECT_EQ(Receive(queue), "0:a");
    EXPECT_EQ(queue.messages(), 0);
  });
  EXPECT_EQ(fiber::RunUntilIdle(*executor), 0u);
}

class FakeSleeper final : public wait::Sleeper {
 public:
  bool InterruptPending() const override { return interrupted; }
  bool interrupted = false;
};

TEST(PosixQueue, AnInterruptionEndsTheWaiting) {
  auto executor = fiber::MakeDeterministicExecutor(1);
  PosixQueue queue({.messages = 1, .message_size = 8});
  FakeSleeper sleeper;
  Errno error{0};
  RefPtr<fiber::Fiber> waiting = executor->Spawn([&] { error = queue.Receive(fiber::kForever).error(); },
                                                 static_cast<wait::Sleeper*>(&sleeper), 64 << 10);
  EXPECT_EQ(fiber::RunUntilIdle(*executor), 1u);
  sleeper.interrupted = true;
  waiting->Unpark();
  EXPECT_EQ(fiber::RunUntilIdle(*executor), 0u);
  EXPECT_EQ(error, kErestartsys);
  // What comes together with the interruption is not lost.
  sleeper.interrupted = false;
  std::string received;
  waiting = executor->Spawn([&] { received = Receive(queue, fiber::kForever); }, static_cast<wait::Sleeper*>(&sleeper),
                            64 << 10);
  EXPECT_EQ(fiber::RunUntilIdle(*executor), 1u);
  EXPECT_EQ(Send(queue, "a"), 0);
  sleeper.interrupted = true;
  EXPECT_EQ(fiber::RunUntilIdle(*executor), 0u);
  EXPECT_EQ(received, "0:a");
}

TEST(PosixQueue, NotifiesOnceAndOnlyOfTheFirstMessage) {
  auto executor = fiber::MakeDeterministicExecutor(1);
  PosixQueue queue({.messages = 3, .message_size = 8});
  int came = 0, removed = 0, me = 0, other = 0;
  auto registered = [&](const void* owner) {
    return Error(queue.Register(MakeRef<FakeNotification>(owner, came, removed)));
  };
  EXPECT_EQ(queue.Describe(), "QSIZE:0          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     \n");
  EXPECT_EQ(Send(queue, "ab"), 0);
  EXPECT_EQ(registered(&me), 0);
  EXPECT_EQ(registered(&other), EBUSY);
  EXPECT_EQ(registered(&me), EBUSY);
  EXPECT_EQ(queue.Describe(), "QSIZE:2          NOTIFY:2     SIGNO:7     NOTIFY_PID:42    \n");
  // It was not empty.
  EXPECT_EQ(Send(queue, "c"), 0);
  EXPECT_EQ(came, 0);
  EXPECT_EQ(Receive(queue), "0:ab");
  EXPECT_EQ(Receive(queue), "0:c");
  EXPECT_EQ(Send(queue, "d"), 0);
  EXPECT_EQ(came, 1);
  EXPECT_EQ(Receive(queue), "0:d");
  EXPECT_EQ(Send(queue, "e"), 0);
  EXPECT_EQ(came, 1) << "used up";
  EXPECT_EQ(Receive(queue), "0:e");
  // Somebody waits for it.
  EXPECT_EQ(registered(&me), 0);
  executor->Spawn([&] { EXPECT_EQ(Receive(queue, fiber::kForever), "0:f"); });
  EXPECT_EQ(fiber::RunUntilIdle(*executor), 1u);
  EXPECT_EQ(Send(queue, "f"), 0);
  EXPECT_EQ(fiber::RunUntilIdle(*executor), 0u);
  EXPECT_EQ(came, 1);
  queue.Unregister(&other);
  EXPECT_EQ(registered(&other), EBUSY);
  queue.Unregister(&me);
  EXPECT_EQ(removed, 1);
  queue.Unregister(&me);
  EXPECT_EQ(removed, 1);
  EXPECT_EQ(registered(&other), 0);
  EXPECT_EQ(Send(queue, "g"), 0);
  EXPECT_EQ(came, 2);
}

// Senders, receivers, and both with time-outs, under many schedules: each message that was sent is received once, those
// of one sender and priority in their order by whoever receives, and nobody sleeps while there is something for him.
TEST(PosixQueue, LosesNothingUnderManySchedules) {
  constexpr int kSenders = 3, kReceivers = 3, kEach = 8;
  for (uint64_t seed = 1; seed <= 2000; seed++) {
    auto executor = fiber::MakeDeterministicExecutor(seed);
    std::mt19937_64 random(seed);
    PosixQueue queue({.messages = static_cast<int64_t>(1 + seed % 4), .message_size = 8});
    std::multiset<std::string> sent, received;
    std::vector<std::string> order;
    int sending = kSenders, came = 0, removed = 0, registered = 0;
    auto maybe = [&](PosixQueue::Deadline none) -> PosixQueue::Deadline {
      switch (random() % 4) {
        case 0:
          return std::nullopt;
        case 1:
          return fiber::Now() + static_cast<fiber::Time>(random() % 3) * kMs;
        default:
          return none;
      }
    };
    for (int s = 0; s < kSenders; s++) {
      executor->Spawn([&, s] {
        for (int i = 0; i < kEach; i++) {
          const std::string text = std::to_string(s) + "." + std::to_string(i);
          const auto priority = static_cast<uint32_t>(random() % 2);
          const int error = Send(queue, text, priority, maybe(fiber::kForever));
          if (error == 0) sent.insert(std::to_string(priority) + ":" + text);
          EXPECT_TRUE(error == 0 || error == EAGAIN || error == ETIMEDOUT) << error;
          if (random() % 2 == 0) fiber::Yield();
        }
        sending--;
      });
    }
    for (int r = 0; r < kReceivers; r++) {
      executor->Spawn([&] {
        // Never for ever: there may be no more.
        while (sending > 0 || queue.messages() > 0) {
          const std::string m = Receive(queue, maybe(fiber::Now() + 5 * kMs));
          if (m == "EAGAIN") fiber::Park(fiber::Now() + kMs);
          if (m[0] != 'E') received.insert(m);
        }
      });
    }
    executor->Spawn([&] {
      int me = 0;
      while (sending > 0) {
        if (queue.Register(MakeRef<FakeNotification>(&me, came, removed))) registered++;
        fiber::Park(fiber::Now() + kMs / 2);
        if (random() % 2 == 0) queue.Unregister(&me);
      }
      queue.Unregister(&me);
    });
    ASSERT_EQ(fiber::RunUntilIdle(*executor), 0u) << "seed " << seed;
    ASSERT_EQ(sent, received) << "seed " << seed;
    ASSERT_EQ(came + removed, registered) << "seed " << seed;
    ASSERT_EQ(queue.messages(), 0);
  }
}

// As many are received as sent, without time-outs: whoever is left asleep has been forgotten.
TEST(PosixQueue, NobodyIsForgottenUnderManySchedules) {
  constexpr int kEach = 10;
  for (uint64_t seed = 1; seed <= 2000; seed++) {
    auto executor = fiber::MakeDeterministicExecutor(seed);
    PosixQueue queue({.messages = static_cast<int64_t>(1 + seed % 3), .message_size = 8});
    std::vector<int> last(3, -1);
    for (int s = 0; s < 3; s++) {
      executor->Spawn([&, s] {
        for (int i = 0; i < kEach; i++) {
          EXPECT_EQ(Send(queue, std::string{static_cast<char>('0' + s), static_cast<char>(i)}, 0, fiber::kForever), 0);
        }
      });
    }
    // Of one receiver all see each sender's messages in their order.
    executor->Spawn([&] {
      for (int i = 0; i < 2 * kEach; i++) {
        const std::string m = Receive(queue, fiber::kForever);
        ASSERT_EQ(m.size(), 4u);
        int& before = last[static_cast<size_t>(m[2] - '0')];
        EXPECT_LT(before, m[3]);
        before = m[3];
        if (i % 3 == 0) fiber::Yield();
      }
    });
    executor->Spawn([&] {
      for (int i = 0; i < kEach; i++) EXPECT_EQ(Receive(queue, fiber::kForever).size(), 4u);
    });
    ASSERT_EQ(fiber::RunUntilIdle(*executor), 0u) << "seed " << seed;
    ASSERT_EQ(queue.messages(), 0);
  }
}

// Poll's side: an entry hears of the first message and of the first place.
TEST(PosixQueue, PollersHear) {
  class Ear final : public waiter::Entry {
   public:
    explicit Ear(waiter::EventMask mask) : Entry(mask) {}
    void Notify(waiter::EventMask) override { heard++; }
    int heard = 0;
  };
  PosixQueue queue({.messages = 1, .message_size = 8});
  Ear in(waiter::kIn), out(waiter::kOut);
  queue.pollers().Register(in);
  queue.pollers().Register(out);
  EXPECT_EQ(Send(queue, "a"), 0);
  EXPECT_EQ(in.heard, 1);
  EXPECT_EQ(out.heard, 0);
  EXPECT_EQ(Receive(queue), "0:a");
  EXPECT_EQ(in.heard, 1);
  EXPECT_EQ(out.heard, 1);
  queue.pollers().Unregister(in);
  queue.pollers().Unregister(out);
}

}  // namespace
}  // namespace redoubt::ipc
