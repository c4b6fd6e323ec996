// The loopback, descriptor and capturing links.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "pkg/netstack/link/channel.h"
#include "pkg/netstack/link/fd_link.h"
#include "pkg/netstack/link/loopback.h"
#include "pkg/netstack/link/sniffer.h"
#include "pkg/netstack/testing/network.h"

namespace redoubt::netstack {
namespace {

using testing::Contents;
using testing::Mac;
using testing::Text;

struct Sink : LinkDispatcher {
  void DeliverFrame(PacketPtr frame) override {
    depth++;
    max_depth = std::max(max_depth, depth);
    sizes.push_back(frame->data.size());
    if (then) then(*frame);
    last = std::move(frame);
    depth--;
  }
  std::vector<size_t> sizes;
  int depth = 0, max_depth = 0;
  std::function<void(Packet&)> then;
  PacketPtr last;
};

PacketList One(size_t size) {
  PacketList l;
  l.PushBack(NewPacket(Buffer::Allocate(size, 64)));
  return l;
}

TEST(Loopback, DoesNotRecurseAndKeepsOrder) {
  VirtualClock clock;
  TimerQueue timers;
  Loopback lo(clock, timers);
  Sink sink;
  lo.Attach(&sink);
  // Each packet answered by two smaller ones, from inside the delivery.
  sink.then = [&](Packet& p) {
    size_t n = p.data.size();
    if (n > 1) {
      lo.Write(One(n / 2));
      lo.Write(One(n / 2));
    }
  };
  EXPECT_EQ(lo.Write(One(64)), 1u);
  EXPECT_EQ(sink.sizes.size(), 127u);
  EXPECT_EQ(sink.max_depth, 1);
  EXPECT_TRUE(std::is_sorted(sink.sizes.rbegin(), sink.sizes.rend()));  // breadth first: a queue
}

TEST(Loopback, WorkPerCallIsBoundedAndATimerGoesOn) {
  VirtualClock clock;
  TimerQueue timers;
  Loopback lo(clock, timers);
  Sink sink;
  lo.Attach(&sink);
  sink.then = [&](Packet&) {
    if (sink.sizes.size() < 5000) lo.Write(One(10));  // would never end
  };
  lo.Write(One(10));
  EXPECT_EQ(sink.sizes.size(), Loopback::kMaxPerCall);
  EXPECT_LE(timers.NextDeadline(), clock.Now());
  while (timers.NextDeadline() <= clock.Now()) timers.RunTimers(clock.Now());
  EXPECT_EQ(sink.sizes.size(), 5000u);
}

TEST(Loopback, IsBoundedAndForgetsWhatTheSenderKnew) {
  VirtualClock clock;
  TimerQueue timers;
  Loopback lo(clock, timers);
  EXPECT_EQ(lo.Write(One(1)), 0u);  // not attached
  Sink sink;
  lo.Attach(&sink);
  size_t taken = 0;
  bool first = true;
  sink.then = [&](Packet&) {
    if (!std::exchange(first, false)) return;
    PacketList many;
    for (size_t i = 0; i < Loopback::kMaxQueued + 10; i++) many.PushBack(NewPacket(Buffer::Allocate(1)));
    taken = lo.Write(std::move(many));
  };
  lo.Write(One(1));
  EXPECT_EQ(taken, Loopback::kMaxQueued);
  lo.Attach(nullptr);
  lo.Attach(&sink);
  PacketList l = One(1);
  PacketPtr p = l.PopFront();
  p->type = PacketType::kOutgoing;
  p->transport_offset = 20;
  p->offload.checksum = ChecksumState::kPartial;
  l.PushBack(std::move(p));
  lo.Write(std::move(l));
  EXPECT_EQ(sink.last->type, PacketType::kHost);
  EXPECT_EQ(sink.last->transport_offset, 0);
  EXPECT_EQ(sink.last->offload.checksum, ChecksumState::kPartial);
  lo.Attach(nullptr);
}

TEST(Loopback, ManyThreadsLoseNothing) {
  VirtualClock clock;
  TimerQueue timers;
  Loopback lo(clock, timers);
  struct Counter : LinkDispatcher {
    void DeliverFrame(PacketPtr) override { n++; }
    std::atomic<size_t> n{0};
  } counter;
  lo.Attach(&counter);
  std::atomic<size_t> taken{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; t++) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20000; i++) taken += lo.Write(One(1));
    });
  }
  for (auto& t : threads) t.join();
  while (timers.NextDeadline() != kNever) timers.RunTimers(clock.Now());
  EXPECT_EQ(counter.n, taken);
  EXPECT_GT(taken, 4096u);
}

struct FdLinkTest : ::testing::TestWithParam<bool> {
  FdLinkTest() {
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    for (int i = 0; i < 2; i++) {
      int size = 4 << 20;
      setsockopt(fds[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
      links[i] = std::make_unique<FdLink>(FdLink::Options{.fd = fds[i],
                                                          .kind = FdLink::Kind::kSocket,
                                                          .address = Mac(static_cast<uint8_t>(i + 1)),
                                                          .virtio_header = GetParam()});
      links[i]->Attach(&sinks[i]);
    }
  }
  ~FdLinkTest() override {
    close(fds[0]);
    close(fds[1]);
  }
  int fds[2];
  std::unique_ptr<FdLink> links[2];
  Sink sinks[2];
};
INSTANTIATE_TEST_SUITE_P(Headers, FdLinkTest, ::testing::Bool(),
                         [](const auto& p) { return p.param ? "Virtio" : "Plain"; });

TEST_P(FdLinkTest, MovesFramesInBatches) {
  PacketList frames;
  for (size_t i = 0; i < 64; i++) frames.PushBack(NewPacket(Buffer::Allocate(100 + i)));
  EXPECT_EQ(links[0]->Write(std::move(frames)), 64u);
  EXPECT_EQ(links[0]->stats().send_calls, 2u);
  EXPECT_FALSE(links[1]->DispatchReady());
  EXPECT_EQ(links[1]->stats().receive_calls, 3u);  // the last one finds nothing
  ASSERT_EQ(sinks[1].sizes.size(), 64u);
  for (size_t i = 0; i < 64; i++) EXPECT_EQ(sinks[1].sizes[i], 100 + i);
}

TEST_P(FdLinkTest, SizesUpToTheMtuAndTruncation) {
  std::string text(1514, 'q');
  for (size_t i = 0; i < text.size(); i++) text[i] = static_cast<char>(i * 13);
  PacketList frames;
  frames.PushBack(NewPacket(Text(text)));
  frames.PushBack(NewPacket(Buffer::Allocate(GetParam() ? 65535 : 1519)));
  links[0]->Write(std::move(frames));
  links[1]->DispatchReady();
  EXPECT_EQ(sinks[1].sizes.size(), GetParam() ? 2u : 1u);
  EXPECT_EQ(sinks[1].sizes[0], 1514u);
  EXPECT_EQ(links[1]->stats().truncated, GetParam() ? 0u : 1u);
  if (GetParam()) {
    EXPECT_EQ(sinks[1].sizes[1], 65535u);
  } else {
    EXPECT_EQ(testing::Text(sinks[1].last->data), text);
  }
  // Small frames hold small chunks.
  links[0]->Write(One(60));
  links[1]->DispatchReady();
  EXPECT_LE(sinks[1].last->data.memory(), 4096u);
}

TEST_P(FdLinkTest, OffloadsTravelInTheVirtioHeader) {
  PacketPtr p = NewPacket(Buffer::Allocate(5000));
  p->transport_offset = 20;
  p->offload = {.checksum = ChecksumState::kPartial,
                .checksum_offset = 16,
                .gso = GsoKind::kTcpV4,
                .segment_size = 1448,
                .transport_header_length = 32,
                .ecn = true};
  PacketList l;
  l.PushBack(std::move(p));
  links[0]->Write(std::move(l));
  links[1]->DispatchReady();
  if (!GetParam()) {
    EXPECT_TRUE(sinks[1].sizes.empty());  // longer than the MTU allows
    return;
  }
  const Offload& o = sinks[1].last->offload;
  EXPECT_EQ(o.checksum, ChecksumState::kPartial);
  EXPECT_EQ(o.checksum_offset, 16);
  EXPECT_EQ(o.gso, GsoKind::kTcpV4);
  EXPECT_EQ(o.segment_size, 1448);
  EXPECT_TRUE(o.ecn);
}

TEST_P(FdLinkTest, GarbageFromTheOtherSideIsHarmless) {
  SeededRandom random(4);
  for (int i = 0; i < 2000; i++) {
    std::vector<std::byte> b(1 + random.Below(100));
    random.Fill(b);
    ASSERT_EQ(send(fds[0], b.data(), b.size(), 0), static_cast<ssize_t>(b.size()));
    links[1]->DispatchReady();
  }
  EXPECT_EQ(links[1]->stats().received + links[1]->stats().truncated, 2000u);
}

TEST_P(FdLinkTest, AFullQueueDropsTheRest) {
  size_t sent = 0;
  for (int i = 0; i < 100000; i++) {
    size_t n = links[0]->Write(One(1000));
    sent += n;
    if (n == 0) break;
  }
  EXPECT_GT(links[0]->stats().send_errors, 0u);
  while (links[1]->DispatchReady()) {
  }
  EXPECT_EQ(sinks[1].sizes.size(), sent);
}

TEST(Sniffer, StopsAtItsBoundAndCutsFrames) {
  FILE* f = tmpfile();
  VirtualClock clock;
  auto channel = std::make_unique<Channel>(Channel::Options{.address = Mac(1)});
  Channel* below = channel.get();
  Sniffer sniffer(std::move(channel), clock,
                  {.fd = fileno(f), .epoch = 1000 * kSecond, .snap_length = 50, .max_bytes = 24 + 2 * 66});
  Sink sink;
  sniffer.Attach(&sink);
  EXPECT_EQ(sniffer.header_size(), 14u);
  sniffer.Write(One(100));
  below->Inject(NewPacket(Buffer::Allocate(40)));
  below->Inject(NewPacket(Buffer::Allocate(100)));
  EXPECT_EQ(below->queued(), 1u);
  EXPECT_EQ(sink.sizes.size(), 2u);
  EXPECT_EQ(lseek(fileno(f), 0, SEEK_END), 24 + 16 + 50 + 16 + 40);
  uint32_t record[4];
  ASSERT_EQ(pread(fileno(f), record, 16, 24), 16);
  EXPECT_EQ(record[0], 1001u);
  EXPECT_EQ(record[2], 50u);
  EXPECT_EQ(record[3], 100u);
  fclose(f);
}

}  // namespace
}  // namespace redoubt::netstack
