// Segments that come together: what is sent for them, and in how many calls of the link.
#include <gtest/gtest.h>
#include <linux/tcp.h>

#include <random>
#include <string>
#include <vector>

#include "pkg/netstack/stack/frame_batch.h"
#include "pkg/netstack/tcp/test_host.h"

namespace redoubt::netstack::tcp {
namespace {

struct Pair : ConnectedHosts {
  Pair() {
    // Past the acknowledgements at once of a connection's start.
    for (int i = 0; i < 40; i++) {
      EXPECT_TRUE(client->Write(Bytes("x")));
      Move(a, b);
      clock.Advance(100 * kMillisecond);
      Timers();
      Move(b, a);
    }
    (void)ReadText(*server);
  }
  static std::vector<PacketPtr> Take(TestHost& from) {
    std::vector<PacketPtr> frames;
    while (PacketPtr p = from.channel->Read()) frames.push_back(std::move(p));
    return frames;
  }
  static void Deliver(TestHost& to, std::vector<PacketPtr> frames) {
    FrameBatch batch;
    for (PacketPtr& p : frames) to.channel->Inject(Arriving(std::move(p)));
  }
  static void Move(TestHost& from, TestHost& to) { Deliver(to, Take(from)); }
};

TEST(Batch, OneAcknowledgementDoesForSeveralSegments) {
  Pair p;
  std::string text(20 * 1460, 'd');
  ASSERT_TRUE(p.client->Write(Bytes(text)));
  std::vector<PacketPtr> data = Pair::Take(p.a);
  ASSERT_GE(data.size(), 8u);
  const size_t before = p.b.channel->writes();
  const size_t segments = data.size();
  Pair::Deliver(p.b, std::move(data));
  EXPECT_EQ(p.b.channel->writes() - before, 1u);
  const size_t acknowledgements = p.b.channel->queued();
  EXPECT_GE(acknowledgements, 1u);
  // Every second segment is acknowledged, and of those every fourth is sent.
  EXPECT_LE(acknowledgements, segments / 8 + 2);
  // The last of them covers everything that came.
  const size_t received = p.server->Readable();
  EXPECT_GE(received, segments * 1400);
  EXPECT_EQ(p.client->Unacknowledged(), text.size());
  Pair::Move(p.b, p.a);
  EXPECT_EQ(p.client->Unacknowledged(), text.size() - received);
}

tcp_info InfoOf(Endpoint& e) {
  tcp_info i{};
  (void)e.Info(std::as_writable_bytes(std::span(&i, 1)));
  return i;
}

// Counts how often a reader would be waked.
struct Wakes final : waiter::Entry {
  Wakes() : Entry(waiter::kIn) {}
  void Notify(waiter::EventMask) override { count++; }
  int count = 0;
};

TEST(Batch, SegmentsThatContinueEachOtherAreTakenAsOne) {
  Pair p;
  const uint32_t segments_before = InfoOf(*p.server).tcpi_segs_in;
  Wakes wakes;
  p.server->waiters().Register(wakes);
  ASSERT_TRUE(p.client->Write(Bytes(std::string(10 * 1440, 'd'))));
  std::vector<PacketPtr> data = Pair::Take(p.a);
  const uint32_t segments = static_cast<uint32_t>(data.size());
  ASSERT_GE(segments, 8u);
  Pair::Deliver(p.b, std::move(data));
  p.server->waiters().Unregister(wakes);
  EXPECT_EQ(wakes.count, 1);
  EXPECT_EQ(InfoOf(*p.server).tcpi_segs_in - segments_before, segments) << "each is counted";
  EXPECT_EQ(p.server->Readable(), 10u * 1440);
}

// A super-segment of the link's is not joined to others, and does not overtake them.
TEST(Batch, SuperSegmentsKeepTheirPlace) {
  Pair p;
  std::string text;
  for (int i = 0; i < 10 * 1440; i++) text.push_back(static_cast<char>('a' + i / 1440));
  ASSERT_TRUE(p.client->Write(Bytes(text)));
  {
    FrameBatch batch;
    int n = 0;
    for (PacketPtr& frame : Pair::Take(p.a)) {
      PacketPtr fresh = Arriving(std::move(frame));
      if (++n == 4) fresh->offload.gso = GsoKind::kTcpV4;
      p.b.channel->Inject(std::move(fresh));
    }
  }
  EXPECT_EQ(InfoOf(*p.server).tcpi_rcv_ooopack, 0u);
  EXPECT_EQ(ReadText(*p.server), text);
}

TEST(Batch, SegmentsOfManyConnectionsAreNotMixed) {
  VirtualClock clock;
  TestHost a(clock, 1, 1), b(clock, 2, 2);
  RefPtr<Endpoint> listener = b.Listener(80);
  std::vector<RefPtr<Endpoint>> clients, servers;
  constexpr int kConnections = 12;  // more than are joined at once
  for (int i = 0; i < kConnections; i++) {
    clients.push_back(a.New());
    (void)clients.back()->Connect({Address::Ipv4(10, 0, 0, 2), 80});
    for (int k = 0; k < 4; k++) Pair::Move(a, b), Pair::Move(b, a), clock.Advance(kMillisecond);
    Result<RefPtr<Endpoint>> accepted = listener->Accept();
    ASSERT_TRUE(accepted);
    servers.push_back(*accepted);
  }
  for (int i = 0; i < kConnections; i++) {
    ASSERT_TRUE(clients[static_cast<size_t>(i)]->Write(Bytes(std::string(4 * 1440, static_cast<char>('a' + i)))));
  }
  // One of each in turn.
  std::vector<std::vector<PacketPtr>> flows(kConnections);
  for (PacketPtr& frame : Pair::Take(a)) {
    const std::byte* data = frame->data.view(0).data();
    const size_t port = std::to_integer<size_t>(data[20]) << 8 | std::to_integer<size_t>(data[21]);
    flows[port % kConnections].push_back(std::move(frame));
  }
  std::vector<PacketPtr> mixed;
  for (bool more = true; more;) {
    more = false;
    for (auto& flow : flows) {
      if (flow.empty()) continue;
      mixed.push_back(std::move(flow.front()));
      flow.erase(flow.begin());
      more = true;
    }
  }
  Pair::Deliver(b, std::move(mixed));
  for (int i = 0; i < kConnections; i++) {
    EXPECT_EQ(ReadText(*servers[static_cast<size_t>(i)]), std::string(4 * 1440, static_cast<char>('a' + i)));
  }
  for (auto* list : {&clients, &servers}) {
    for (auto& e : *list) e->Close(true);
  }
  listener->Close();
  for (TestHost* h : {&a, &b}) {
    while (h->channel->Read() != nullptr) {
    }
  }
}

TEST(Batch, SegmentsOfOneWriteLeaveInOneCall) {
  Pair p;
  const size_t before = p.a.channel->writes();
  ASSERT_TRUE(p.client->Write(Bytes(std::string(8 * 1460, 'd'))));
  EXPECT_GE(p.a.channel->queued(), 8u);
  EXPECT_EQ(p.a.channel->writes() - before, 1u);
}

TEST(Batch, HolesAreReportedOneByOne) {
  Pair p;
  ASSERT_TRUE(p.client->Write(Bytes(std::string(8 * 1460, 'd'))));
  std::vector<PacketPtr> data = Pair::Take(p.a);
  ASSERT_GE(data.size(), 6u);
  data.erase(data.begin());
  const size_t after_the_hole = data.size();
  Pair::Deliver(p.b, std::move(data));
  EXPECT_EQ(p.b.channel->queued(), after_the_hole) << "the sender counts duplicates (RFC 5681 section 3.2)";
}

// Outside of a batch nothing is put off.
TEST(Batch, AloneEachIsAnswered) {
  Pair p;
  ASSERT_TRUE(p.client->Write(Bytes(std::string(8 * 1460, 'd'))));
  size_t answers = 0;
  for (PacketPtr& frame : Pair::Take(p.a)) {
    p.b.channel->Inject(Arriving(std::move(frame)));
    answers += Pair::Take(p.b).size();
  }
  EXPECT_GE(answers, 3u);
}

// Both sides write and read; batches of all sizes, with losses: the streams are whole.
TEST(Batch, StreamsAreIntact) {
  for (uint32_t seed = 1; seed <= 60; seed++) {
    Pair p;
    std::mt19937 rng(seed);
    std::string sent[2], got[2];
    Endpoint* ends[2] = {p.client.get(), p.server.get()};
    TestHost* hosts[2] = {&p.a, &p.b};
    constexpr size_t kBytes = 100'000;
    for (int round = 0; round < 200'000 && (got[0].size() < kBytes || got[1].size() < kBytes); round++) {
      for (int i : {0, 1}) {
        if (sent[i].size() < kBytes && rng() % 3 == 0) {
          std::string text(std::min<size_t>(kBytes - sent[i].size(), 1 + rng() % 5000), '\0');
          for (char& c : text) c = static_cast<char>(rng());
          Result<size_t> n = ends[i]->Write(Bytes(text));
          if (n) sent[i] += text.substr(0, *n);
        }
        std::vector<PacketPtr> frames = Pair::Take(*hosts[i]);
        std::erase_if(frames, [&](const PacketPtr&) { return rng() % 50 == 0; });
        while (!frames.empty()) {
          size_t n = std::min<size_t>(frames.size(), 1 + rng() % 32);
          std::vector<PacketPtr> some(std::make_move_iterator(frames.begin()),
                                      std::make_move_iterator(frames.begin() + static_cast<ptrdiff_t>(n)));
          frames.erase(frames.begin(), frames.begin() + static_cast<ptrdiff_t>(n));
          Pair::Deliver(*hosts[1 - i], std::move(some));
        }
        if (rng() % 2 == 0) {
          std::string text = ReadText(*ends[i]);
          if (text != "EAGAIN" && text != "EWOULDBLOCK") got[1 - i] += text;
        }
      }
      p.clock.Advance(kMillisecond);
      p.Timers();
    }
    ASSERT_EQ(got[0], sent[0]) << "seed " << seed;
    ASSERT_EQ(got[1], sent[1]) << "seed " << seed;
  }
}

}  // namespace
}  // namespace redoubt::netstack::tcp
