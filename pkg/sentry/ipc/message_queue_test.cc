#include "pkg/sentry/ipc/message_queue.h"

#include <gtest/gtest.h>

#include <vector>

namespace redoubt::ipc {
namespace {

template <typename T>
int Error(const Result<T>& r) {
  return r ? 0 : r.error().value();
}

constexpr size_t kMaxText = 8192;

class MessageQueueTest : public testing::Test {
 protected:
  RefPtr<MessageQueue> New() { return *queues_.Get(IPC_PRIVATE, 0600, *root_); }
  int Send(MessageQueue& queue, int64_t type, size_t length) {
    Message m{.type = type, .text = std::vector<std::byte>(length)};
    return Error(queue.Send(m, *root_, 7));
  }
  void Remove(const RefPtr<MessageQueue>& queue) {
    queues_.table().Remove(queue->id);
    queue->Remove();
  }
  MessageQueues queues_;
  RefPtr<auth::Credentials> root_ = auth::Credentials::Root();
};

TEST_F(MessageQueueTest, AllTogetherAreBounded) {
  std::vector<RefPtr<MessageQueue>> full;
  int error = 0;
  uint64_t bytes = 0;
  while (error != ENOMEM && full.size() < 10000) {
    full.push_back(New());
    while ((error = Send(*full.back(), 1, kMaxText)) == 0) bytes += kMaxText;
    ASSERT_TRUE(error == ENOMEM || error == EAGAIN) << error;
  }
  EXPECT_EQ(error, ENOMEM);
  EXPECT_GT(bytes, uint64_t{60} << 20);
  EXPECT_LE(bytes, uint64_t{64} << 20);
  // What is received gives room, and what is removed, and a queue that nobody has.
  EXPECT_EQ(Error(full.front()->Receive(kMaxText, 0, 0, *root_, 7)), 0);
  EXPECT_EQ(Send(*full.back(), 1, kMaxText), 0);
  EXPECT_EQ(Send(*full.back(), 1, kMaxText), ENOMEM);
  Remove(full.front());
  EXPECT_EQ(Error(full.front()->Receive(1, 0, 0, *root_, 7)), EIDRM);
  EXPECT_EQ(Send(*full.back(), 1, kMaxText), 0);
  for (const auto& queue : full) Remove(queue);
  full.clear();
  RefPtr<MessageQueue> queue = New();
  EXPECT_EQ(Send(*queue, 1, kMaxText), 0);
}

TEST_F(MessageQueueTest, NothingIsTakenOfAMessageThatCannotBeSent) {
  RefPtr<MessageQueue> queue = New();
  Message m{.type = 3, .text = std::vector<std::byte>(9)};
  while (Send(*queue, 1, 4096) == 0) {
  }
  EXPECT_EQ(Error(queue->Send(m, *root_, 7)), EAGAIN);
  EXPECT_EQ(m.text.size(), 9u);
  EXPECT_EQ(queue->messages(), 4u);
  EXPECT_EQ(queue->bytes(), 16384u);
}

}  // namespace
}  // namespace redoubt::ipc
