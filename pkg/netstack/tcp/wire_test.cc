// Two stacks and the packets between them: loss and damage, floods, forgeries, bytes of strangers.
#include <gtest/gtest.h>

#include <random>

#include "pkg/netstack/checksum/checksum.h"
#include "pkg/netstack/tcp/test_host.h"
#include "test/fuzz/rounds.h"

namespace redoubt::netstack::tcp {
namespace {

using Bytes_ = std::vector<std::byte>;

Bytes_ Copy(const Packet& p) {
  Bytes_ b(p.data.size());
  p.data.CopyOut(0, b);
  return b;
}

PacketPtr Frame(std::span<const std::byte> bytes) {
  PacketPtr p = NewPacket(Buffer::CopyOf(bytes));
  p->ethertype = ETH_P_IP;
  return p;
}

void Put16(Bytes_& b, size_t at, uint16_t v) {
  b[at] = static_cast<std::byte>(v >> 8);
  b[at + 1] = static_cast<std::byte>(v);
}

// Both checksums of an IPv4 packet without options that holds TCP.
void Seal(Bytes_& b) {
  if (b.size() < 40) return;
  Put16(b, 2, static_cast<uint16_t>(b.size()));
  Put16(b, 10, 0);
  Put16(b, 10, static_cast<uint16_t>(~Sum(std::span(b).first(20))));
  Put16(b, 36, 0);
  uint16_t pseudo = PseudoHeaderSum(std::span(b).subspan(12, 4), std::span(b).subspan(16, 4), 6,
                                    static_cast<uint32_t>(b.size() - 20));
  Put16(b, 36, static_cast<uint16_t>(~Sum(std::span(b).subspan(20), pseudo)));
}

// A SYN from anywhere.
Bytes_ Syn(std::mt19937& rng, uint16_t port) {
  Bytes_ b(40);
  b[0] = std::byte{0x45};
  b[8] = std::byte{64};
  b[9] = std::byte{6};
  for (size_t i = 0; i < 4; i++)
    b[12 + i] = static_cast<std::byte>(i < 3 ? std::to_array({10, 0, 0})[i] : 3 + rng() % 200);
  for (size_t i = 0; i < 4; i++) b[16 + i] = static_cast<std::byte>(std::to_array({10, 0, 0, 2})[i]);
  Put16(b, 20, static_cast<uint16_t>(1 + rng() % 65535));
  Put16(b, 22, port);
  Put16(b, 24, static_cast<uint16_t>(rng()));
  b[32] = std::byte{0x50};
  b[33] = std::byte{kSyn};
  Put16(b, 34, 1000);
  Seal(b);
  return b;
}

struct Wire {
  VirtualClock clock;
  TestHost a{clock, 1, 1};
  TestHost b{clock, 2, 2};
  std::mt19937 rng;
  double loss = 0, damage = 0;
  std::vector<Bytes_> seen;  // the last frames, for the forger

  explicit Wire(uint32_t seed = 0) : rng(seed) {}
  bool Chance(double p) { return std::uniform_real_distribution<>(0, 1)(rng) < p; }
  // Moves frames to and fro for `t`, a millisecond one way.
  void Run(Time t) {
    for (Time end = clock.Now() + t; clock.Now() < end; clock.Advance(kMillisecond)) {
      for (auto [from, to] : {std::pair(&a, &b), std::pair(&b, &a)}) {
        std::vector<Bytes_> frames;
        while (PacketPtr p = from->channel->Read()) frames.push_back(Copy(*p));
        for (Bytes_& f : frames) {
          if (Chance(loss)) continue;
          if (Chance(damage)) f[rng() % f.size()] ^= std::byte{1};
          if (seen.size() < 200) seen.push_back(f);
          to->channel->Inject(Frame(f));
        }
        from->stack.timers().RunTimers(clock.Now());
      }
    }
  }
  SocketAddress B(uint16_t port) { return {Address::Ipv4(10, 0, 0, 2), port}; }
  std::pair<RefPtr<Endpoint>, RefPtr<Endpoint>> Connect(RefPtr<Endpoint> listener) {
    RefPtr<Endpoint> client = a.New();
    EXPECT_EQ(Errno_(client->Connect(B(80))), EINPROGRESS);
    for (int i = 0; i < 200; i++) {
      Run(100 * kMillisecond);
      if (Result<RefPtr<Endpoint>> server = listener->Accept()) return {client, *server};
    }
    ADD_FAILURE() << "no connection";
    return {client, nullptr};
  }
};

// RFC 7413 section 4.1.2: what comes with a cookie that is not ours counts for nothing, and brings a good one.
TEST(Wire, AForgedFastOpenCookieTakesNoData) {
  Wire w;
  for (TestHost* h : {&w.a, &w.b}) h->tcp->sysctls().fast_open = 3;
  RefPtr<Endpoint> listener = w.b.Listener(80);
  EndpointOptions o = listener->options();
  o.fast_open_queue = 5;
  listener->SetOptions(o);
  auto open = [&](const char* data, bool forge) {
    RefPtr<Endpoint> client = w.a.New();
    EXPECT_EQ(Errno_(client->Connect(w.B(80), true, Bytes(data))), EINPROGRESS);
    if (forge) {
      Bytes_ syn = Copy(*w.a.channel->Read());
      size_t at = 40;
      const size_t end = 20 + 4 * std::to_integer<size_t>(syn[32] >> 4);
      while (at < end && syn[at] != std::byte{34})
        at += syn[at] == std::byte{1} ? 1 : std::to_integer<size_t>(syn[at + 1]);
      EXPECT_LT(at, end) << "there is no cookie";
      if (at < end) syn[at + 2] ^= std::byte{1};
      Seal(syn);
      w.b.channel->Inject(Frame(syn));
      EXPECT_FALSE(listener->Accept());
    }
    w.Run(100 * kMillisecond);
    Result<RefPtr<Endpoint>> server = listener->Accept();
    EXPECT_TRUE(server);
    if (server) {
      EXPECT_EQ(ReadText(**server), data);
      (*server)->Close(true);
    }
    client->Close(true);
    w.Run(10 * kMillisecond);
  };
  open("one", false);
  open("two", true);
  EXPECT_EQ(w.b.tcp->stats().fast_open_passive, 0u);
  open("three", false);
  EXPECT_EQ(w.b.tcp->stats().fast_open_passive, 1u);
  listener->Close();
}

TEST(Wire, StreamsSurviveLossAndDamage) {
  for (uint32_t seed = 0; seed < 20; seed++) {
    SCOPED_TRACE(seed);
    Wire w(seed);
    w.loss = (seed % 4) * 0.05;
    w.damage = (seed % 3) * 0.02;
    RefPtr<Endpoint> listener = w.b.Listener(80);
    auto [client, server] = w.Connect(listener);
    ASSERT_TRUE(server);
    std::string text(200'000, '\0');
    for (char& c : text) c = static_cast<char>(w.rng());
    std::string got;
    size_t sent = 0;
    for (int i = 0; i < 20'000 && got.size() < text.size(); i++) {
      if (Result<size_t> room = client->WriteRoom(); room && sent < text.size()) {
        sent += *client->Write(Bytes(std::string_view(text).substr(sent, *room)));
        if (sent == text.size()) {
          ASSERT_TRUE(client->Shutdown(false, true));
        }
      }
      while (server->Readable() > 0) got += ReadText(*server);
      w.Run(5 * kMillisecond);
    }
    ASSERT_TRUE(got == text) << got.size();
    if (w.damage > 0) {
      EXPECT_GT(w.a.tcp->stats().in_checksum_errors + w.b.tcp->stats().in_checksum_errors +
                    w.a.stack.ip_stats(Family::kIpv4).in_header_errors +
                    w.b.stack.ip_stats(Family::kIpv4).in_header_errors,
                0u);
    }
    client->Close(), server->Close(), listener->Close();
  }
}

TEST(Wire, NobodyListens) {
  Wire w;
  RefPtr<Endpoint> client = w.a.New();
  EXPECT_EQ(Errno_(client->Connect(w.B(81))), EINPROGRESS);
  EXPECT_EQ(Errno_(client->Connect(w.B(81))), EALREADY);
  w.Run(10 * kMillisecond);
  EXPECT_EQ(Errno_(client->Connect(w.B(81))), ECONNREFUSED);
  client->Close();
}

TEST(Wire, ASilentPeerTimesOut) {
  Wire w;
  w.loss = 1;
  RefPtr<Endpoint> client = w.a.New();
  Settings s;
  s.syn_retries = 2;
  client->SetSettings(s);
  EXPECT_EQ(Errno_(client->Connect(w.B(80))), EINPROGRESS);
  w.Run(6 * kSecond);
  EXPECT_EQ(client->state(), State::kSynSent);
  w.Run(2 * kSecond);
  EXPECT_EQ(Errno_(client->Connect(w.B(80))), ETIMEDOUT);
  client->Close();
}

TEST(Wire, ASynFloodTakesBoundedMemoryAndLetsClientsIn) {
  Wire w;
  RefPtr<Endpoint> listener = w.b.Listener(80, 64);
  for (int i = 0; i < 20'000; i++) {
    w.b.channel->Inject(Frame(Syn(w.rng, 80)));
    while (PacketPtr p = w.b.channel->Read()) {
    }
  }
  EXPECT_LE(w.b.tcp->Endpoints().size(), 66u);
  EXPECT_GT(w.b.tcp->stats().syn_cookies_sent, 19'000u);
  auto [client, server] = w.Connect(listener);
  ASSERT_TRUE(server);
  EXPECT_EQ(w.b.tcp->stats().syn_cookies_received, 1u);
  ASSERT_TRUE(client->Write(Bytes("hello")));
  w.Run(50 * kMillisecond);
  EXPECT_EQ(ReadText(*server), "hello");
  client->Close(), server->Close(), listener->Close();
  // What was half open ends by itself.
  w.Run(70 * kSecond);
  EXPECT_EQ(w.b.tcp->Endpoints().size(), 0u);
}

TEST(Wire, AckFloodsDoNotForgeCookies) {
  Wire w;
  w.b.tcp->sysctls().max_syn_backlog = 0;
  RefPtr<Endpoint> listener = w.b.Listener(80, 64);
  w.b.channel->Inject(Frame(Syn(w.rng, 80)));
  for (int i = 0; i < 20'000; i++) {
    Bytes_ f = Syn(w.rng, 80);
    f[33] = std::byte{kAck};
    for (size_t k = 24; k < 32; k++) f[k] = static_cast<std::byte>(w.rng());
    Seal(f);
    w.b.channel->Inject(Frame(f));
    while (PacketPtr p = w.b.channel->Read()) {
    }
  }
  EXPECT_EQ(w.b.tcp->stats().syn_cookies_received, 0u);
  EXPECT_EQ(listener->Accept().error(), Errno(EAGAIN));
  listener->Close();
}

// Frames of a real connection, changed at random and sealed again, so that they pass the checksums: nothing breaks,
// and what is kept stays bounded.
TEST(Wire, MutatedSegments) {
  fuzz::Rounds(40, [](uint64_t seed) {
    Wire w(static_cast<uint32_t>(seed));
    RefPtr<Endpoint> listener = w.b.Listener(80, 4);
    auto [client, server] = w.Connect(listener);
    ASSERT_TRUE(server);
    ASSERT_TRUE(client->Write(Buffer::Allocate(20'000)));
    ASSERT_TRUE(server->Write(Buffer::Allocate(20'000)));
    w.Run(20 * kMillisecond);
    std::vector<Bytes_> originals = w.seen;
    for (int i = 0; i < 400; i++) {
      Bytes_ f = originals[w.rng() % originals.size()];
      if (f.size() < 40) continue;
      // Header fields, options, sometimes the length; seldom the addresses and ports.
      for (size_t n = 1 + w.rng() % 5; n > 0; n--)
        f[24 + w.rng() % std::min<size_t>(f.size() - 24, 40)] = static_cast<std::byte>(w.rng());
      if (w.rng() % 8 == 0) f.resize(40 + w.rng() % (f.size() - 39));
      Seal(f);
      TestHost& to = f[19] == std::byte{2} ? w.b : w.a;
      to.channel->Inject(Frame(f));
      if (w.rng() % 4 == 0) w.Run(static_cast<Time>(w.rng() % 50) * kMillisecond);
      if (w.rng() % 8 == 0) {
        (void)server->Read(1000);
        (void)client->Read(1000);
        (void)server->Write(Buffer::Allocate(100));
      }
    }
    EXPECT_LE(w.b.tcp->Endpoints().size(), 20u);
    client->Close(true), server->Close(true), listener->Close();
  });
}

// A stranger who does not see the sequence numbers, and the rule that saves the connection (RFC 5961, RFC 5927).
TEST(Wire, BlindAttackersDoNotEndAConnection) {
  Wire w;
  RefPtr<Endpoint> listener = w.b.Listener(80);
  auto [client, server] = w.Connect(listener);
  ASSERT_TRUE(server);
  Bytes_ model;
  for (Bytes_& f : w.seen) {
    if (f[19] == std::byte{2} && std::to_integer<int>(f[33]) == kAck) model = f;
  }
  ASSERT_FALSE(model.empty());
  for (int i = 0; i < 5000; i++) {
    Bytes_ f = model;
    f.resize(40);
    f[32] = std::byte{0x50};
    f[33] = static_cast<std::byte>(i % 2 != 0 ? kRst : kSyn);
    for (size_t k = 24; k < 28; k++) f[k] = static_cast<std::byte>(w.rng());
    Seal(f);
    w.b.channel->Inject(Frame(f));
    TransportError error{.type = 3, .code = 1, .error = Errno(EHOSTUNREACH), .hard = true};
    FourTuple id{.local = Address::Ipv4(10, 0, 0, 2),
                 .remote = Address::Ipv4(10, 0, 0, 1),
                 .local_port = 80,
                 .remote_port = client->local().port};
    w.b.tcp->HandleError(id, error, std::span(f).subspan(20, 8));
  }
  // And the answers to them are few.
  EXPECT_LE(w.b.channel->queued(), 4u);
  w.Run(kSecond);
  EXPECT_EQ(server->state(), State::kEstablished);
  ASSERT_TRUE(client->Write(Bytes("still here")));
  w.Run(kSecond);
  EXPECT_EQ(ReadText(*server), "still here");
  client->Close(), server->Close(), listener->Close();
}

}  // namespace
}  // namespace redoubt::netstack::tcp
