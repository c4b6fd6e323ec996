// For tests: two connections and a simulated network between them, all from a seed, on a virtual clock.
#ifndef REDOUBT_PKG_NETSTACK_TCP_TEST_LINK_H_
#define REDOUBT_PKG_NETSTACK_TCP_TEST_LINK_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "pkg/netstack/checksum/checksum.h"
#include "pkg/netstack/tcp/connection.h"

namespace redoubt::netstack::tcp {

struct LinkParameters {
  double loss = 0, duplicate = 0, reorder = 0, corrupt = 0, mark = 0;
  Time delay = kMillisecond;
  Time jitter = 0;                // of reordered packets
  uint64_t bytes_per_second = 0;  // 0: without end
};

// One end: a connection, the bytes it has still to write, the bytes it has read. Byte i of a direction is Pattern(i +
// key).
class TestEnd final : public SegmentSink {
 public:
  TestEnd(const Config& config, const Settings& settings, uint64_t key)
      : connection(config, settings, *this), mtu(config.mtu), out_key(key) {}

  static std::byte Pattern(uint64_t i) { return static_cast<std::byte>((i * 0x9e3779b97f4a7c15) >> 56); }

  void Emit(Segment& s) override {
    // What the peer has promised bounds what leaves: the first byte behind it may never be sent.
    if (!s.payload.empty() && edge_known) {
      EXPECT_TRUE(SeqLe(s.seq + static_cast<Seq>(s.payload.size()), peer_edge)) << "window overrun";
    }
    if (!s.Has(kRst)) {
      EXPECT_TRUE(!ack_known || SeqGe(s.ack, last_ack) || s.Has(kSyn)) << "ACK went back";
      if (s.Has(kAck)) last_ack = s.ack, ack_known = true;
    }
    if (s.segment_size == 0) {
      EXPECT_LE(kHeaderSize + s.options.size() + s.payload.size(), mtu);
      outbox.push_back(Wire(s));
      return;
    }
    // As a network card segments (RFC 9293 says nothing; Linux: tcp_gso_segment).
    EXPECT_LE(kHeaderSize + s.options.size() + s.segment_size, mtu);
    while (!s.payload.empty()) {
      Segment part;
      part.seq = s.seq;
      part.ack = s.ack;
      part.flags = s.flags;
      part.window = s.window;
      part.urgent = s.urgent;
      part.options = s.options;
      part.ecn = s.ecn;
      part.payload = s.payload.SplitFront(s.segment_size);
      s.seq += static_cast<Seq>(part.payload.size());
      if (!s.payload.empty()) part.flags &= static_cast<uint8_t>(~(kFin | kPsh));
      s.flags &= static_cast<uint8_t>(~kCwr);
      outbox.push_back(Wire(part));
    }
  }

  struct Packet {
    std::vector<std::byte> bytes;
    Ecn ecn;
  };
  Packet Wire(Segment& s) {
    Ecn ecn = s.ecn;
    Buffer b = BuildSegment(s, {1, 2}, 0);
    Packet p{std::vector<std::byte>(b.size()), ecn};
    b.CopyOut(0, p.bytes);
    uint16_t sum = static_cast<uint16_t>(~Sum(p.bytes));
    p.bytes[kChecksumOffset] = static_cast<std::byte>(sum >> 8);
    p.bytes[kChecksumOffset + 1] = static_cast<std::byte>(sum);
    return p;
  }

  // Writes what there is room for, up to `n` bytes.
  void Write(Time now, size_t n) {
    n = std::min({n, to_write, connection.SendRoom()});
    if (n == 0) return;
    Buffer b = Buffer::Allocate(n);
    uint64_t at = written;
    for (size_t v = 0; v < b.view_count(); v++) {
      for (std::byte& x : b.MutableView(v)) x = Pattern(out_key + at++);
    }
    ASSERT_TRUE(connection.Write(now, std::move(b)));
    written += n;
    to_write -= n;
  }
  void Read(Time now, size_t n) {
    Buffer b = connection.Read(now, n);
    for (size_t v = 0; v < b.view_count(); v++) {
      for (std::byte x : b.view(v)) {
        if (x != Pattern(in_key + read)) FAIL() << "the stream is broken at " << read;
        read++;
      }
    }
  }
  void Check() const {
    const Scoreboard& board = connection.scoreboard();
    if (!board.empty()) {
      EXPECT_EQ(board.front().start, connection.snd_una());
      EXPECT_EQ(board.in_flight() + board.sacked() + board.lost(), connection.snd_nxt() - connection.snd_una());
    }
    EXPECT_LE(connection.receive_queue().readable().size(), connection.receive_buffer() + 65536u);
  }

  Connection connection;
  size_t mtu;
  uint64_t out_key, in_key = 0;
  size_t to_write = 0, written = 0, read = 0;
  bool closed = false;
  std::vector<Packet> outbox;
  Seq peer_edge = 0, last_ack = 0;
  bool edge_known = false, ack_known = false;
};

class Simulation {
 public:
  Simulation(uint64_t seed, std::unique_ptr<TestEnd> client, std::unique_ptr<TestEnd> server, LinkParameters link)
      : rng(seed), link_(link), ends{std::move(client), std::move(server)} {
    ends[0]->in_key = ends[1]->out_key;
    ends[1]->in_key = ends[0]->out_key;
  }

  // Takes what an end has emitted and puts it onto the link.
  void Collect(int from) {
    TestEnd& end = *ends[from];
    for (TestEnd::Packet& p : end.outbox) {
      packets_sent++;
      if (Chance(link_.loss)) continue;
      for (int copies = Chance(link_.duplicate) ? 2 : 1; copies > 0; copies--) {
        Time at = now + link_.delay;
        if (link_.bytes_per_second > 0) {
          busy_until[from] = std::max(busy_until[from], now) +
                             static_cast<Time>(p.bytes.size() * uint64_t{kSecond} / link_.bytes_per_second);
          at = busy_until[from] + link_.delay;
        }
        if (Chance(link_.reorder)) at += static_cast<Time>(rng() % static_cast<uint64_t>(link_.jitter + 1));
        TestEnd::Packet q = p;
        if (q.ecn != Ecn::kNotEct && Chance(link_.mark)) q.ecn = Ecn::kCe;
        if (Chance(link_.corrupt)) q.bytes[rng() % q.bytes.size()] ^= static_cast<std::byte>(1 << rng() % 8);
        wire.emplace(at, std::pair(1 - from, std::move(q)));
      }
    }
    end.outbox.clear();
  }

  void Deliver(int to, TestEnd::Packet& p) {
    if (Sum(p.bytes) != 0xffff) return;
    Ports ports;
    std::optional<Segment> s = ParseSegment(Buffer::CopyOf(p.bytes), &ports);
    if (!s) return;
    s->ecn = p.ecn;
    TestEnd& end = *ends[to];
    Connection& c = end.connection;
    if (c.state() == State::kClosed && s->Has(kSyn) && !s->Has(kAck) && !end.closed && to == 1 && !opened) {
      opened = true;
      c.Accept(now, static_cast<Seq>(rng()), *s, false, std::nullopt);
    } else if (c.state() == State::kClosed) {
      // What a stack does without a connection (RFC 9293 section 3.10.7.1).
      if (s->Has(kRst)) return;
      Segment reset;
      reset.flags = s->Has(kAck) ? kRst : kRst | kAck;
      (s->Has(kAck) ? reset.seq : reset.ack) = s->Has(kAck) ? s->ack : s->end();
      end.outbox.push_back(end.Wire(reset));
    } else {
      if (s->Has(kAck) && !s->Has(kRst)) {
        uint8_t scale =
            s->Has(kSyn) || !ends[1 - to]->connection.window_scaling() ? 0 : ends[1 - to]->connection.receive_scale();
        Seq edge = s->ack + (uint32_t{s->window} << scale);
        if (!end.edge_known || SeqGt(edge, end.peer_edge)) end.peer_edge = edge;
        end.edge_known = true;
      } else if (s->Has(kSyn)) {
        end.edge_known = false;
      }
      c.OnSegment(now, *s);
    }
    Collect(to);
  }

  // Moves on to the next event, at most to `limit`. False if there is none before.
  bool Step(Time limit) {
    Time next = wire.empty() ? kNever : wire.begin()->first;
    next = std::min({next, ends[0]->connection.NextDeadline(), ends[1]->connection.NextDeadline()});
    if (next > limit) {
      now = std::max(now, limit);
      return false;
    }
    now = std::max(now, next);
    steps++;
    for (int i = 0; i < 2; i++) {
      if (ends[i]->connection.NextDeadline() <= now) {
        ends[i]->connection.OnTimer(now);
        Collect(i);
      }
    }
    while (!wire.empty() && wire.begin()->first <= now) {
      auto node = wire.extract(wire.begin());
      Deliver(node.mapped().first, node.mapped().second);
    }
    ends[0]->Check();
    ends[1]->Check();
    return true;
  }

  bool Chance(double p) { return p > 0 && std::uniform_real_distribution<>(0, 1)(rng) < p; }

  std::mt19937_64 rng;
  LinkParameters link_;
  std::unique_ptr<TestEnd> ends[2];
  std::multimap<Time, std::pair<int, TestEnd::Packet>> wire;
  Time now = kSecond;
  Time busy_until[2] = {0, 0};
  uint64_t packets_sent = 0, steps = 0;
  bool opened = false;
};

}  // namespace redoubt::netstack::tcp

#endif  // REDOUBT_PKG_NETSTACK_TCP_TEST_LINK_H_
