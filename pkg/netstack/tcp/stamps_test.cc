// When a stream's bytes left, were acknowledged and came.
#include <gtest/gtest.h>

#include "pkg/netstack/tcp/test_host.h"

namespace redoubt::netstack::tcp {
namespace {

constexpr StampPlaces kAll =
    StampBit(StampPlace::kScheduled) | StampBit(StampPlace::kSent) | StampBit(StampPlace::kAcknowledged);

struct StampsTest : ::testing::Test {
  ConnectedHosts h;

  void SetUp() override {
    EndpointOptions o = h.client->options();
    o.number_stamps = true;
    o.stamps_have_frames = false;
    h.client->SetOptions(o);
    ASSERT_TRUE(h.client->StartStampNumbers(true));
    o = h.server->options();
    o.stamp_received = true;
    h.server->SetOptions(o);
  }
  bool erring() { return (h.client->Readiness() & waiter::kErr) != 0; }
  void ExpectStamp(StampPlace place, uint32_t key) {
    EXPECT_TRUE(erring());
    std::optional<Stamp> stamp = h.client->TakeStamp();
    ASSERT_TRUE(stamp);
    EXPECT_EQ(stamp->place, place);
    EXPECT_EQ(stamp->key, key);
    EXPECT_TRUE(stamp->frame.empty());
  }
  void Exchange() {
    for (int i = 0; i < 4; i++) {
      h.Carry(h.a, h.b);
      h.Carry(h.b, h.a);
      h.clock.Advance(50 * kMillisecond);
      h.Timers();
    }
  }
};

TEST_F(StampsTest, FollowTheLastByteOfACall) {
  ASSERT_TRUE(h.client->Write(Bytes("hello"), {.stamps = kAll}));
  ExpectStamp(StampPlace::kScheduled, 4);
  ExpectStamp(StampPlace::kSent, 4);
  EXPECT_FALSE(erring());
  Exchange();
  ExpectStamp(StampPlace::kAcknowledged, 4);
  // Who does not ask hears nothing.
  ASSERT_TRUE(h.client->Write(Bytes("abc")));
  Exchange();
  EXPECT_FALSE(h.client->TakeStamp());
  ASSERT_TRUE(h.client->Write(Bytes("d"), {.stamps = StampBit(StampPlace::kAcknowledged)}));
  EXPECT_FALSE(erring());
  Exchange();
  ExpectStamp(StampPlace::kAcknowledged, 8);
}

TEST_F(StampsTest, OfASegmentThatIsSentAgainThereIsOne) {
  ASSERT_TRUE(h.client->Write(Bytes("hello"), {.stamps = kAll}));
  h.Carry(h.a, h.b, 1);  // lost
  ExpectStamp(StampPlace::kScheduled, 4);
  ExpectStamp(StampPlace::kSent, 4);
  for (int i = 0; i < 20; i++) Exchange();
  ExpectStamp(StampPlace::kAcknowledged, 4);
  EXPECT_FALSE(h.client->TakeStamp());
}

TEST_F(StampsTest, AreBounded) {
  for (size_t i = 0; i < 3 * StampQueue::kMax; i++) {
    ASSERT_TRUE(h.client->Write(Bytes("x"), {.stamps = kAll}));
    if (i % 4 == 0) Exchange();
  }
  Exchange();
  size_t count = 0;
  while (h.client->TakeStamp()) count++;
  EXPECT_LE(count, StampQueue::kMax);
  EXPECT_GT(count, 0u);
}

TEST_F(StampsTest, SayWhenBytesCame) {
  auto read = [&](size_t n, bool peek = false, size_t offset = 0) {
    ReadTime time;
    EXPECT_TRUE(h.server->Read(n, peek, offset, &time));
    return time.received;
  };
  ASSERT_TRUE(h.client->Write(Bytes("abc")));
  const Time first = h.clock.Now();
  Exchange();
  ASSERT_TRUE(h.client->Write(Bytes("def")));
  const Time second = h.clock.Now();
  Exchange();
  EXPECT_EQ(read(2, true), std::nullopt);  // not the end of what came
  EXPECT_EQ(read(3, true), first);
  EXPECT_EQ(read(6, true), second);
  EXPECT_EQ(read(3, true, 3), second);
  EXPECT_EQ(read(3), first);
  EXPECT_EQ(read(2), std::nullopt);
  EXPECT_EQ(read(1), second);
}

TEST_F(StampsTest, PeekedBytesBehindAnOffset) {
  ASSERT_TRUE(h.client->Write(Bytes("abcdef")));
  Exchange();
  EXPECT_EQ(Text(*h.server->Read(2, true, 3)), "de");
  EXPECT_EQ(h.server->Read(2, true, 6).error().value(), EAGAIN);
  ASSERT_TRUE(h.client->Shutdown(false, true));
  Exchange();
  EXPECT_TRUE(h.server->Read(2, true, 6)->empty());
  EXPECT_EQ(Text(*h.server->Read(9, true, 5)), "f");
}

TEST_F(StampsTest, NumbersNeedAConnection) {
  RefPtr<Endpoint> e = h.a.New();
  EXPECT_EQ(e->StartStampNumbers(true).error().value(), EINVAL);
  RefPtr<Endpoint> listener = h.a.Listener(99);
  EXPECT_EQ(listener->StartStampNumbers(false).error().value(), EINVAL);
  listener->Close();
  e->Close();
}

}  // namespace
}  // namespace redoubt::netstack::tcp
