#include "pkg/waiter/waiter.h"

#include <gtest/gtest.h>

namespace redoubt::waiter {
namespace {

struct Recorder : Entry {
  using Entry::Entry;
  void Notify(EventMask events) override { seen |= events; }
  EventMask seen = 0;
};

TEST(Waiter, NotifiesMatchingEntriesOnly) {
  Queue q;
  Recorder in(kIn);
  Recorder both(kIn | kOut);
  q.Register(in);
  q.Register(both);
  q.Notify(kOut | kErr);
  EXPECT_EQ(in.seen, 0u);
  EXPECT_EQ(both.seen, kOut);
  q.Unregister(in);
  q.Notify(kIn);
  EXPECT_EQ(in.seen, 0u);
  EXPECT_EQ(both.seen, kIn | kOut);
  q.Unregister(both);
  q.Unregister(both);
  EXPECT_TRUE(q.IsEmpty());
}

}  // namespace
}  // namespace redoubt::waiter
