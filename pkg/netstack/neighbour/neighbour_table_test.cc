#include "pkg/netstack/neighbour/neighbour_table.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace redoubt::netstack {
namespace {

const Address kNeighbour = Address::Ipv4(10, 0, 0, 2);
const LinkAddress kLink{{2, 0, 0, 0, 0, 2}};
const LinkAddress kOther{{2, 0, 0, 0, 0, 3}};

struct World : RefCounted, NeighbourTable::Delegate {
  World() : random(3), table(clock, random, timers, *this, *this) {}

  void SendSolicitation(const Address& target, const LinkAddress* link) override {
    solicited.push_back(target);
    unicast.push_back(link != nullptr);
  }
  void SendResolved(const LinkAddress& to, PacketPtr packet) override {
    sent.push_back(packet->data.size());
    last_to = to;
  }
  void Unresolved(PacketList packets) override { failed += packets.size(); }
  bool WantsChanges() const override { return watched; }
  void Changed(bool removed, const NeighbourInfo& n) override {
    if (removed) {
      told.push_back("gone");
    } else if (n.state == NeighbourState::kReachable) {
      told.push_back("reachable");
    } else if (n.state == NeighbourState::kFailed) {
      told.push_back("failed");
    } else {
      told.push_back(n.state == NeighbourState::kProbe ? "probe" : "other");
    }
  }

  void Send(size_t size, const Address& to = kNeighbour) { table.Send(to, NewPacket(Buffer::Allocate(size))); }
  void Advance(Time by) {
    Time end = clock.Now() + by;
    while (timers.NextDeadline() <= end) {
      clock.SetNow(std::max(clock.Now(), timers.NextDeadline()));
      timers.RunTimers(clock.Now());
    }
    clock.SetNow(end);
  }
  NeighbourState state() { return table.Find(kNeighbour)->state; }

  VirtualClock clock;
  SeededRandom random;
  TimerQueue timers;
  NeighbourTable table;
  std::vector<Address> solicited;
  std::vector<bool> unicast;
  std::vector<size_t> sent;
  LinkAddress last_to;
  size_t failed = 0;
  bool watched = false;
  std::vector<std::string> told;
};

struct NeighbourTableTest : testing::Test {
  ~NeighbourTableTest() override {
    w->table.Flush(false);
    w->Advance(kSecond);  // what is still to be told keeps it
  }
  RefPtr<World> w = MakeRef<World>();
};

TEST_F(NeighbourTableTest, QueuesAsksOnceASecondThreeTimesAndGivesUp) {
  w->Send(1);
  w->Send(2);
  EXPECT_EQ(w->solicited.size(), 1u);
  EXPECT_TRUE(w->sent.empty());
  w->Advance(999 * kMillisecond);
  EXPECT_EQ(w->solicited.size(), 1u);
  w->Advance(kMillisecond);
  EXPECT_EQ(w->solicited.size(), 2u);
  w->Advance(kSecond);
  EXPECT_EQ(w->solicited.size(), 3u);
  EXPECT_EQ(w->failed, 0u);
  w->Advance(kSecond);
  EXPECT_EQ(w->solicited.size(), 3u);
  EXPECT_EQ(w->failed, 2u);
  EXPECT_EQ(w->state(), NeighbourState::kFailed);
  // A failure is remembered for a while, and then asked again.
  w->Send(1);
  EXPECT_EQ(w->failed, 3u);
  w->Advance(NeighbourTable::kFailedTime);
  w->Send(1);
  EXPECT_EQ(w->solicited.size(), 4u);
}

TEST_F(NeighbourTableTest, AnswerReleasesTheQueueInOrder) {
  w->Send(1);
  w->Send(2);
  w->Send(3);
  w->table.HandleAdvertisement(kNeighbour, kLink, true, true, false);
  EXPECT_EQ(w->sent, (std::vector<size_t>{1, 2, 3}));
  EXPECT_EQ(w->last_to, kLink);
  EXPECT_EQ(w->state(), NeighbourState::kReachable);
  w->Send(4);
  EXPECT_EQ(w->sent.size(), 4u);
  EXPECT_EQ(w->solicited.size(), 1u);
}

TEST_F(NeighbourTableTest, AgesToStaleDelaysProbesAndFails) {
  w->Send(1);
  w->table.HandleAdvertisement(kNeighbour, kLink, true, true, false);
  w->Advance(46 * kSecond);  // beyond 1.5 times the reachable time
  w->Send(2);
  EXPECT_EQ(w->state(), NeighbourState::kDelay);
  EXPECT_EQ(w->sent.size(), 2u);  // goes out nevertheless
  EXPECT_EQ(w->solicited.size(), 1u);
  w->Advance(5 * kSecond);
  EXPECT_EQ(w->state(), NeighbourState::kProbe);
  EXPECT_EQ(w->solicited.size(), 2u);
  EXPECT_TRUE(w->unicast.back());
  w->Advance(2 * kSecond);
  EXPECT_EQ(w->solicited.size(), 4u);
  w->Advance(kSecond);
  EXPECT_EQ(w->state(), NeighbourState::kFailed);
}

TEST_F(NeighbourTableTest, ConfirmationFromAboveAvoidsTheProbe) {
  w->Send(1);
  w->table.HandleAdvertisement(kNeighbour, kLink, true, true, false);
  w->Advance(46 * kSecond);
  w->Send(2);
  w->table.Confirm(kNeighbour);
  EXPECT_EQ(w->state(), NeighbourState::kReachable);
  w->Advance(10 * kSecond);
  EXPECT_EQ(w->solicited.size(), 1u);
}

// RFC 4861 section 7.2.5 and appendix C, as a table: the state before, the message, the state and address after.
TEST_F(NeighbourTableTest, Advertisements) {
  struct {
    const char* name;
    bool known;  // reachable at kLink before
    std::optional<LinkAddress> link;
    bool solicited, override;
    NeighbourState state;
    LinkAddress after;
  } cases[] = {
      {"incomplete, solicited", false, kLink, true, false, NeighbourState::kReachable, kLink},
      {"incomplete, unsolicited (a packet waited, so it is used at once)", false, kLink, false, false,
       NeighbourState::kDelay, kLink},
      {"incomplete, no address", false, std::nullopt, true, true, NeighbourState::kIncomplete, {}},
      {"same address, solicited", true, kLink, true, false, NeighbourState::kReachable, kLink},
      {"same address, unsolicited", true, kLink, false, true, NeighbourState::kReachable, kLink},
      {"other address without override", true, kOther, true, false, NeighbourState::kStale, kLink},
      {"other address with override, unsolicited", true, kOther, false, true, NeighbourState::kStale, kOther},
      {"other address with override, solicited", true, kOther, true, true, NeighbourState::kReachable, kOther},
      {"no address, solicited", true, std::nullopt, true, false, NeighbourState::kReachable, kLink},
  };
  for (auto& c : cases) {
    w->table.Flush(false);
    w->Send(1);
    if (c.known) w->table.HandleAdvertisement(kNeighbour, kLink, true, true, false);
    w->table.HandleAdvertisement(kNeighbour, c.link, c.solicited, c.override, false);
    EXPECT_EQ(w->state(), c.state) << c.name;
    EXPECT_EQ(w->table.Find(kNeighbour)->link, c.after) << c.name;
  }
}

TEST_F(NeighbourTableTest, UnsolicitedWordsCreateNothing) {
  w->table.HandleAdvertisement(kNeighbour, kLink, true, true, false);
  w->table.HandleSolicitation(kNeighbour, kLink, false);
  EXPECT_FALSE(w->table.Find(kNeighbour));
  w->table.HandleSolicitation(kNeighbour, kLink, true);
  EXPECT_EQ(w->state(), NeighbourState::kStale);
  w->Send(1);
  EXPECT_EQ(w->sent.size(), 1u);
}

TEST_F(NeighbourTableTest, PermanentIsNotChangedByMessages) {
  ASSERT_TRUE(w->table.AddPermanent(kNeighbour, kLink));
  w->table.HandleAdvertisement(kNeighbour, kOther, true, true, false);
  w->table.HandleSolicitation(kNeighbour, kOther, true);
  EXPECT_EQ(w->table.Find(kNeighbour)->link, kLink);
  w->Advance(1000 * kSecond);
  w->Send(1);
  EXPECT_EQ(w->state(), NeighbourState::kPermanent);
  w->table.Flush(true);
  EXPECT_TRUE(w->table.Find(kNeighbour));
  EXPECT_TRUE(w->table.Remove(kNeighbour));
  EXPECT_EQ(w->table.Remove(kNeighbour).error().value(), ENOENT);
}

TEST_F(NeighbourTableTest, QueuesAndTableAreBounded) {
  for (size_t i = 0; i < NeighbourTable::kMaxQueuedPackets + 10; i++) w->Send(i + 1);
  EXPECT_EQ(w->table.dropped(), 10u);
  w->table.HandleAdvertisement(kNeighbour, kLink, true, true, false);
  EXPECT_EQ(w->sent.size(), NeighbourTable::kMaxQueuedPackets);
  EXPECT_EQ(w->sent.front(), 11u);  // the oldest went
  // A flood of destinations nobody has.
  for (uint32_t i = 0; i < 3000; i++) w->Send(1000, Address::Ipv4(0x0b000000 + i));
  EXPECT_LE(w->table.Entries().size(), NeighbourTable::kMaxEntries);
  EXPECT_GT(w->table.dropped(), 1500u);
  // Once they have failed there is room again.
  w->Advance(4 * kSecond);
  w->Send(1, Address::Ipv4(0x0c000000));
  EXPECT_TRUE(w->table.Find(Address::Ipv4(0x0c000000)));
}

TEST_F(NeighbourTableTest, RandomOperationsKeepTheBoundsAndLoseNoPacket) {
  SeededRandom r(11);
  size_t given = 0;
  for (int i = 0; i < 20000; i++) {
    Address a = Address::Ipv4(0x0a000000 + r.Below(20));
    switch (r.Below(6)) {
      case 0:
      case 1:
        given++;
        w->Send(1 + r.Below(1400), a);
        break;
      case 2:
        w->table.HandleAdvertisement(a, r.Below(4) != 0 ? std::optional(kLink) : std::nullopt, r.Below(2), r.Below(2),
                                     r.Below(2));
        break;
      case 3:
        w->table.HandleSolicitation(a, kOther, r.Below(2));
        break;
      case 4:
        w->table.Confirm(a);
        break;
      default:
        w->Advance(r.Below(3000) * kMillisecond);
    }
    ASSERT_LE(w->sent.size() + w->failed + w->table.dropped(), given);
  }
  w->Advance(100 * kSecond);
  // Whatever was given has been sent, has failed or was counted as dropped.
  EXPECT_EQ(w->sent.size() + w->failed + w->table.dropped(), given);
}

// rtnetlink(7): RTM_NEWNEIGH, RTM_DELNEIGH. `ip monitor neigh` shows no entry that is being resolved.
TEST_F(NeighbourTableTest, ChangesAreToldByTheTimer) {
  w->watched = true;
  w->Send(1);
  w->table.HandleAdvertisement(kNeighbour, kLink, true, true, false);
  EXPECT_TRUE(w->told.empty());
  w->Advance(0);
  EXPECT_EQ(w->told, (std::vector<std::string>{"reachable"}));
  w->table.Confirm(kNeighbour);
  w->Advance(0);
  EXPECT_EQ(w->told.size(), 1u) << "nothing has changed";
  w->told.clear();
  ASSERT_TRUE(w->table.Remove(kNeighbour));
  w->Send(1);
  w->Advance(10 * kSecond);
  EXPECT_EQ(w->told, (std::vector<std::string>{"failed", "gone", "failed"}));
  w->told.clear();
  w->table.Flush(false);
  w->Advance(0);
  EXPECT_EQ(w->told, (std::vector<std::string>{"gone"}));
}

TEST_F(NeighbourTableTest, ChangesToTellAreBounded) {
  w->watched = true;
  // No timer runs meanwhile; each removal is two changes.
  for (size_t i = 0; i < NeighbourTable::kMaxChanges; i++) {
    ASSERT_TRUE(w->table.AddPermanent(kNeighbour, kLink));
    ASSERT_TRUE(w->table.Remove(kNeighbour));
  }
  w->Advance(0);
  EXPECT_EQ(w->told.size(), NeighbourTable::kMaxChanges);
  // And goes on.
  ASSERT_TRUE(w->table.AddPermanent(kNeighbour, kLink));
  w->Advance(0);
  EXPECT_EQ(w->told.size(), NeighbourTable::kMaxChanges + 1);
}

TEST_F(NeighbourTableTest, WhatHasAgedIsSeenAsStale) {
  w->Send(1);
  w->table.HandleAdvertisement(kNeighbour, kLink, true, true, false);
  EXPECT_EQ(w->state(), NeighbourState::kReachable);
  w->Advance(2 * NeighbourTable::kReachableTime);
  EXPECT_EQ(w->state(), NeighbourState::kStale);
  EXPECT_EQ(w->table.Entries().at(0).state, NeighbourState::kStale);
}

}  // namespace
}  // namespace redoubt::netstack
