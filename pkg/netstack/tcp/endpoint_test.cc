#include "pkg/netstack/tcp/endpoint.h"

#include <gtest/gtest.h>
#include <linux/tcp.h>

#include <thread>

#include "pkg/netstack/tcp/test_host.h"

namespace redoubt::netstack::tcp {
namespace {

tcp_info InfoOf(Endpoint& e) {
  tcp_info i;
  EXPECT_EQ(e.Info(std::as_writable_bytes(std::span(&i, 1))), sizeof(i));
  return i;
}

constexpr waiter::EventMask kReadable = waiter::kIn | waiter::kRdNorm;
constexpr waiter::EventMask kWritable = waiter::kOut | waiter::kWrNorm;

struct EndpointTest : ::testing::Test {
  VirtualClock clock;
  TestHost host{clock, 7};

  void Pass(Time t) {
    Time end = clock.Now() + t;
    while (host.stack.timers().NextDeadline() <= end) {
      clock.SetNow(std::max(clock.Now(), host.stack.timers().NextDeadline()));
      host.stack.timers().RunTimers(clock.Now());
    }
    clock.SetNow(end);
  }
  struct Pair {
    RefPtr<Endpoint> client, server, listener;
  };
  Pair Connected(Family family = Family::kIpv4) {
    Pair p;
    p.listener = host.Listener(80, 16, family);
    p.client = host.New(family);
    EXPECT_EQ(Errno_(p.client->Connect(Local(80, family))), EINPROGRESS);
    Result<RefPtr<Endpoint>> server = p.listener->Accept();
    EXPECT_TRUE(server);
    p.server = *server;
    EXPECT_EQ(Errno_(p.client->Connect(Local(80, family))), 0);
    return p;
  }
  void Close(Pair& p) {
    for (auto* e : {&p.client, &p.server, &p.listener}) {
      if (*e) (*e)->Close();
    }
  }
};

TEST_F(EndpointTest, ConnectAcceptEchoAndEndOfStream) {
  for (Family family : {Family::kIpv4, Family::kIpv6}) {
    Pair p = Connected(family);
    EXPECT_EQ(p.client->state(), State::kEstablished);
    EXPECT_EQ(p.client->peer(), Local(80, family));
    EXPECT_EQ(p.server->peer(), p.client->local());
    EXPECT_EQ(ReadText(*p.server), "EAGAIN");
    EXPECT_EQ(p.client->Write(Bytes("hello")), 5u);
    EXPECT_EQ(p.server->Readable(), 5u);
    EXPECT_EQ(Text(*p.server->Read(99, true)), "hello");
    EXPECT_EQ(ReadText(*p.server, 2), "he");
    EXPECT_EQ(ReadText(*p.server), "llo");
    EXPECT_EQ(p.server->Write(Bytes("world")), 5u);
    EXPECT_EQ(ReadText(*p.client), "world");
    ASSERT_TRUE(p.client->Shutdown(false, true));
    EXPECT_EQ(ReadText(*p.server), "EOF");
    EXPECT_EQ(p.server->state(), State::kCloseWait);
    EXPECT_EQ(p.client->state(), State::kFinWait2);
    // Half closed: the other direction goes on.
    EXPECT_EQ(p.server->Write(Bytes("still")), 5u);
    EXPECT_EQ(ReadText(*p.client), "still");
    EXPECT_EQ(p.client->Write(Bytes("x")).error(), Errno(EPIPE));
    p.server->Close();
    EXPECT_EQ(ReadText(*p.client), "EOF");
    EXPECT_EQ(p.client->state(), State::kTimeWait);
    EXPECT_EQ(p.server->state(), State::kClosed);
    Close(p);
    EXPECT_EQ(host.tcp->Endpoints().size(), 1u);
    Pass(Connection::kTimeWaitLength);
    EXPECT_EQ(host.tcp->Endpoints().size(), 0u);
  }
}

TEST_F(EndpointTest, ReadinessFollowsTheConnection) {
  RefPtr<Endpoint> fresh = host.New();
  EXPECT_EQ(fresh->Readiness(), kWritable | waiter::kHup);
  fresh->Close();
  RefPtr<Endpoint> listener = host.Listener(80);
  EXPECT_EQ(listener->Readiness(), 0u);
  RefPtr<Endpoint> client = host.New();
  EXPECT_EQ(Errno_(client->Connect(Local(80))), EINPROGRESS);
  EXPECT_EQ(listener->Readiness(), kReadable);
  EXPECT_EQ(client->Readiness(), kWritable);
  RefPtr<Endpoint> server = *listener->Accept();
  EXPECT_EQ(listener->Readiness(), 0u);
  EXPECT_EQ(server->Readiness(), kWritable);
  ASSERT_TRUE(client->Write(Bytes("a")));
  EXPECT_EQ(server->Readiness(), kReadable | kWritable);
  EXPECT_EQ(ReadText(*server), "a");
  ASSERT_TRUE(client->Shutdown(false, true));
  EXPECT_EQ(server->Readiness(), kReadable | kWritable | waiter::kRdHup);
  EXPECT_EQ(client->Readiness(), kWritable);
  ASSERT_TRUE(server->Shutdown(false, true));
  EXPECT_EQ(server->Readiness(), kReadable | kWritable | waiter::kRdHup | waiter::kHup);
  EXPECT_EQ(client->Readiness(), kReadable | kWritable | waiter::kRdHup | waiter::kHup);
  client->Close(), server->Close(), listener->Close();
}

TEST_F(EndpointTest, WaitersHearEdges) {
  struct Counter final : waiter::Entry {
    Counter() : Entry(waiter::kAll) {}
    void Notify(waiter::EventMask events) override { seen |= events, count++; }
    waiter::EventMask Take() { return std::exchange(seen, 0); }
    waiter::EventMask seen = 0;
    int count = 0;
  };
  Pair p = Connected();
  Counter client, server;
  p.client->waiters().Register(client);
  p.server->waiters().Register(server);
  ASSERT_TRUE(p.client->Write(Bytes("a")));
  EXPECT_EQ(server.Take(), kReadable);
  ASSERT_TRUE(p.client->Write(Bytes("b")));
  EXPECT_EQ(server.Take(), kReadable);  // an edge for each arrival, as edge-triggered epoll has it
  // Fill the pipe; then reading makes room, and that is told.
  while (p.client->WriteRoom()) ASSERT_TRUE(p.client->Write(Buffer::Allocate(*p.client->WriteRoom())));
  EXPECT_EQ(p.client->Readiness() & waiter::kOut, 0u);
  client.Take();
  while (p.server->Readable() > 0) ASSERT_TRUE(p.server->Read(1 << 16));
  Pass(kSecond);
  while (p.server->Readable() > 0) ASSERT_TRUE(p.server->Read(1 << 16));
  EXPECT_NE(client.Take() & waiter::kOut, 0u);
  EXPECT_EQ(p.client->Readiness(), kWritable);
  server.Take();
  p.client->Close(true);
  EXPECT_EQ(server.Take() & (waiter::kErr | waiter::kHup | waiter::kIn), waiter::kErr | waiter::kHup | waiter::kIn);
  p.client->waiters().Unregister(client);
  p.server->waiters().Unregister(server);
  Close(p);
}

TEST_F(EndpointTest, RefusedAndReset) {
  RefPtr<Endpoint> e = host.New();
  EXPECT_EQ(Errno_(e->Connect(Local(81))), EINPROGRESS);
  EXPECT_EQ(e->Readiness(), kReadable | kWritable | waiter::kRdHup | waiter::kHup | waiter::kErr);
  EXPECT_EQ(Errno_(e->Connect(Local(81))), ECONNREFUSED);
  // And again from the start.
  RefPtr<Endpoint> listener = host.Listener(81);
  EXPECT_EQ(Errno_(e->Connect(Local(81))), EINPROGRESS);
  EXPECT_EQ(Errno_(e->Connect(Local(81))), 0);
  EXPECT_EQ(Errno_(e->Connect(Local(81))), EISCONN);
  RefPtr<Endpoint> server = *listener->Accept();
  ASSERT_TRUE(e->Write(Bytes("unread")));
  // Data that nobody has read makes the close a reset (RFC 2525 section 2.17).
  server->Close();
  EXPECT_EQ(e->TakeError(), ECONNRESET);
  EXPECT_EQ(ReadText(*e), "EOF");
  EXPECT_EQ(e->Write(Bytes("x")).error(), Errno(EPIPE));
  e->Close(), listener->Close();
}

TEST_F(EndpointTest, ReadBeforeResetErrorAfter) {
  Pair p = Connected();
  ASSERT_TRUE(p.client->Write(Bytes("last words")));
  p.client->Close(true);
  EXPECT_EQ(ReadText(*p.server), "last words");
  EXPECT_EQ(ReadText(*p.server), "ECONNRESET");
  EXPECT_EQ(ReadText(*p.server), "EOF");
  Close(p);
}

TEST_F(EndpointTest, DisconnectResetsAndAllowsAnother) {
  Pair p = Connected();
  p.client->Disconnect();
  EXPECT_EQ(ReadText(*p.server), "ECONNRESET");
  EXPECT_EQ(p.client->Readiness(), kWritable | waiter::kHup);
  EXPECT_EQ(Errno_(p.client->Connect(Local(80))), EINPROGRESS);
  EXPECT_EQ(Errno_(p.client->Connect(Local(80))), 0);
  RefPtr<Endpoint> again = *p.listener->Accept();
  again->Close(true);
  Close(p);
}

TEST_F(EndpointTest, AShortWriteIsFollowedByAnEdge) {
  struct Seen final : waiter::Entry {
    Seen() : Entry(waiter::kOut) {}
    void Notify(waiter::EventMask) override { count++; }
    int count = 0;
  } seen;
  Pair p = Connected();
  p.client->waiters().Register(seen);
  auto copy = [](std::span<std::byte> to) -> Result<size_t> { return to.size(); };
  Result<size_t> wrote = p.client->WriteFrom(64 << 20, copy);
  ASSERT_TRUE(wrote);
  ASSERT_LT(*wrote, size_t{64} << 20);
  size_t got = 0;
  for (int i = 0; i < 1000 && got < *wrote; i++) {
    if (p.server->Readable() > 0) got += p.server->Read(1 << 20)->size();
    Pass(kMillisecond);
  }
  EXPECT_EQ(got, *wrote);
  EXPECT_GT(seen.count, 0);
  p.client->waiters().Unregister(seen);
  Close(p);
}

TEST_F(EndpointTest, BindErrors) {
  RefPtr<Endpoint> a = host.Listener(80);
  RefPtr<Endpoint> b = host.New();
  EXPECT_EQ(Errno_(b->Bind({Address::Any(Family::kIpv4), 80})), EADDRINUSE);
  EXPECT_EQ(Errno_(b->Bind({Address::Ipv4(192, 0, 2, 1), 81})), EADDRNOTAVAIL);
  EXPECT_EQ(Errno_(b->Bind({Address::Any(Family::kIpv6), 81})), EAFNOSUPPORT);
  EXPECT_EQ(Errno_(b->Bind({Address::Any(Family::kIpv4), 0})), 0);
  EXPECT_NE(b->local().port, 0);
  EXPECT_EQ(Errno_(b->Bind({Address::Any(Family::kIpv4), 82})), EINVAL);
  EXPECT_EQ(ReadText(*b), "ENOTCONN");
  EXPECT_EQ(b->Write(Bytes("x")).error(), Errno(EPIPE));
  EXPECT_EQ(Errno_(b->Shutdown(true, true)), ENOTCONN);
  EXPECT_EQ(Errno_(b->Connect({Address::Ipv4(224, 0, 0, 1), 80})), ENETUNREACH);
  EXPECT_EQ(Errno_(b->Connect({Address::Ipv4(192, 0, 2, 1), 80})), ENETUNREACH);
  EXPECT_EQ(a->Accept().error(), Errno(EAGAIN));
  EXPECT_EQ(b->Accept().error(), Errno(EINVAL));
  a->Close(), b->Close();
}

TEST_F(EndpointTest, Ipv6ListenerTakesIpv4) {
  RefPtr<Endpoint> listener = host.Listener(80, 16, Family::kIpv6);
  RefPtr<Endpoint> client = host.New();
  EXPECT_EQ(Errno_(client->Connect(Local(80))), EINPROGRESS);
  RefPtr<Endpoint> server = *listener->Accept();
  EXPECT_EQ(server->local().address, Address::Loopback(Family::kIpv4).ToV4Mapped());
  EXPECT_EQ(server->peer()->address.ToString(), "::ffff:127.0.0.1");
  client->Close(), server->Close(), listener->Close();
}

TEST_F(EndpointTest, ASelfConnectionIsASimultaneousOpen) {
  RefPtr<Endpoint> e = host.New();
  ASSERT_TRUE(e->Bind({Address::Loopback(Family::kIpv4), 4000}));
  EXPECT_EQ(Errno_(e->Connect(Local(4000))), EINPROGRESS);
  EXPECT_EQ(Errno_(e->Connect(Local(4000))), 0);
  ASSERT_TRUE(e->Write(Bytes("to myself")));
  EXPECT_EQ(ReadText(*e), "to myself");
  e->Close();
  EXPECT_EQ(e->state(), State::kTimeWait);
}

TEST_F(EndpointTest, BacklogBoundsTheAcceptQueue) {
  RefPtr<Endpoint> listener = host.Listener(80, 2);
  std::vector<RefPtr<Endpoint>> clients;
  for (int i = 0; i < 5; i++) {
    clients.push_back(host.New());
    EXPECT_EQ(Errno_(clients.back()->Connect(Local(80))), EINPROGRESS);
  }
  // Linux lets one more wait than the backlog says; the others' SYNs are dropped, and tried again.
  int established = 0;
  for (auto& c : clients) established += c->state() == State::kEstablished ? 1 : 0;
  EXPECT_EQ(established, 3);
  std::vector<RefPtr<Endpoint>> servers;
  for (int i = 0; i < 3; i++) servers.push_back(*listener->Accept());
  EXPECT_EQ(listener->Accept().error(), Errno(EAGAIN));
  Pass(2 * kSecond);
  for (auto& c : clients) EXPECT_EQ(c->state(), State::kEstablished);
  for (auto& c : clients) c->Close();
  for (auto& s : servers) s->Close();
  // Closing a listener resets those that nobody has accepted.
  listener->Close();
  Pass(2 * Connection::kTimeWaitLength);
  EXPECT_EQ(host.tcp->Endpoints().size(), 0u);
}

TEST_F(EndpointTest, DeferredAcceptWaitsForData) {
  RefPtr<Endpoint> listener = host.Listener(80);
  EndpointOptions o = listener->options();
  o.defer_accept = 5 * kSecond;
  listener->SetOptions(o);
  RefPtr<Endpoint> client = host.New();
  EXPECT_EQ(Errno_(client->Connect(Local(80))), EINPROGRESS);
  EXPECT_EQ(client->state(), State::kEstablished);
  EXPECT_EQ(listener->Accept().error(), Errno(EAGAIN));
  ASSERT_TRUE(client->Write(Bytes("question")));
  RefPtr<Endpoint> server = *listener->Accept();
  EXPECT_EQ(ReadText(*server), "question");
  client->Close(), server->Close(), listener->Close();
}

TEST_F(EndpointTest, ReusePortSpreadsConnections) {
  std::vector<RefPtr<Endpoint>> listeners;
  for (int i = 0; i < 4; i++) {
    listeners.push_back(host.New());
    EndpointOptions o;
    o.reuse_port = true;
    listeners.back()->SetOptions(o);
    ASSERT_TRUE(listeners.back()->Bind({Address::Any(Family::kIpv4), 80}));
    ASSERT_TRUE(listeners.back()->Listen(200));
  }
  std::vector<RefPtr<Endpoint>> all;
  for (int i = 0; i < 200; i++) {
    all.push_back(host.New());
    EXPECT_EQ(Errno_(all.back()->Connect(Local(80))), EINPROGRESS);
  }
  int total = 0;
  for (auto& l : listeners) {
    int n = 0;
    while (Result<RefPtr<Endpoint>> s = l->Accept()) all.push_back(*s), n++;
    EXPECT_GT(n, 20);
    total += n;
  }
  EXPECT_EQ(total, 200);
  for (auto& e : all) e->Close(true);
  for (auto& l : listeners) l->Close();
}

TEST_F(EndpointTest, UrgentData) {
  Pair p = Connected();
  ASSERT_TRUE(p.client->Write(Bytes("abc")));
  ASSERT_TRUE(p.client->Write(Bytes("U"), {.urgent = true}));
  ASSERT_TRUE(p.client->Write(Bytes("def")));
  EXPECT_NE(p.server->Readiness() & waiter::kPri, 0u);
  EXPECT_EQ(p.server->urgent_marks(), 1u);
  EXPECT_FALSE(p.server->AtUrgentMark());
  EXPECT_EQ(ReadText(*p.server), "abc");  // stops at the mark
  EXPECT_TRUE(p.server->AtUrgentMark());
  EXPECT_EQ(p.server->ReadUrgent(), std::byte{'U'});
  EXPECT_EQ(p.server->ReadUrgent().error(), Errno(EINVAL));
  EXPECT_EQ(ReadText(*p.server), "def");
  EXPECT_FALSE(p.server->AtUrgentMark());
  Close(p);
}

TEST_F(EndpointTest, FastOpenSendsDataWithTheSyn) {
  host.tcp->sysctls().fast_open = 3;
  RefPtr<Endpoint> listener = host.Listener(80);
  EndpointOptions o = listener->options();
  o.fast_open_queue = 5;
  listener->SetOptions(o);
  // The first time only the cookie is fetched; the data follows the handshake.
  RefPtr<Endpoint> first = host.New();
  EXPECT_EQ(Errno_(first->Connect(Local(80), true, Bytes("one"))), EINPROGRESS);
  RefPtr<Endpoint> a = *listener->Accept();
  EXPECT_EQ(ReadText(*a), "one");
  EXPECT_EQ(host.tcp->stats().fast_open_passive, 0u);
  RefPtr<Endpoint> second = host.New();
  EXPECT_EQ(Errno_(second->Connect(Local(80), true, Bytes("two"))), EINPROGRESS);
  RefPtr<Endpoint> b = *listener->Accept();
  EXPECT_EQ(ReadText(*b), "two");
  EXPECT_EQ(host.tcp->stats().fast_open_passive, 1u);
  EXPECT_NE(InfoOf(*second).tcpi_options & TCPI_OPT_SYN_DATA, 0);
  for (auto& e : {first, second, a, b, listener}) e->Close();
}

TEST_F(EndpointTest, SynCookiesWhenTheQueueIsFull) {
  host.tcp->sysctls().max_syn_backlog = 0;  // every SYN is one too many
  RefPtr<Endpoint> listener = host.Listener(80);
  RefPtr<Endpoint> client = host.New();
  EXPECT_EQ(Errno_(client->Connect(Local(80))), EINPROGRESS);
  EXPECT_EQ(client->state(), State::kEstablished);
  EXPECT_EQ(host.tcp->stats().syn_cookies_sent, 1u);
  EXPECT_EQ(host.tcp->stats().syn_cookies_received, 1u);
  RefPtr<Endpoint> server = *listener->Accept();
  tcp_info info = InfoOf(*server);
  EXPECT_EQ(info.tcpi_options & (TCPI_OPT_TIMESTAMPS | TCPI_OPT_SACK | TCPI_OPT_WSCALE),
            TCPI_OPT_TIMESTAMPS | TCPI_OPT_SACK | TCPI_OPT_WSCALE);
  std::string text(300'000, 'x');
  std::string got;
  size_t sent = 0;
  while (got.size() < text.size()) {
    if (Result<size_t> room = client->WriteRoom(); room && sent < text.size()) {
      sent += *client->Write(Bytes(std::string_view(text).substr(sent, *room)));
    }
    if (server->Readable() > 0) got += ReadText(*server);
    Pass(kMillisecond);
  }
  EXPECT_TRUE(got == text);
  client->Close(), server->Close(), listener->Close();
}

TEST_F(EndpointTest, AListenerMayTakeATupleInTimeWaitAgain) {
  RefPtr<Endpoint> listener = host.Listener(80);
  for (int i = 0; i < 3; i++) {
    RefPtr<Endpoint> client = host.New();
    EndpointOptions o;
    o.reuse_address = true;
    client->SetOptions(o);
    ASSERT_TRUE(client->Bind({Address::Loopback(Family::kIpv4), 5000}));
    ASSERT_EQ(Errno_(client->Connect(Local(80))), EINPROGRESS);
    ASSERT_EQ(client->state(), State::kEstablished) << i;
    RefPtr<Endpoint> server = *listener->Accept();
    // The server closes first and keeps the tuple.
    server->Close();
    client->Close();
    EXPECT_EQ(server->state(), State::kTimeWait);
    // The second time the clock of the timestamps has not moved.
    Pass(i == 0 ? 10 * kMillisecond : 10 * kMicrosecond);
  }
  EXPECT_EQ(host.tcp->stats().time_wait_reused, 2u);
  listener->Close();
}

TEST_F(EndpointTest, TimeWaitIsBounded) {
  host.tcp->sysctls().max_time_wait = 3;
  RefPtr<Endpoint> listener = host.Listener(80);
  for (int i = 0; i < 10; i++) {
    RefPtr<Endpoint> client = host.New();
    EXPECT_EQ(Errno_(client->Connect(Local(80))), EINPROGRESS);
    RefPtr<Endpoint> server = *listener->Accept();
    client->Close();
    server->Close();
  }
  EXPECT_EQ(host.tcp->Endpoints().size(), 4u);
  Pass(Connection::kTimeWaitLength);
  EXPECT_EQ(host.tcp->Endpoints().size(), 1u);
  listener->Close();
}

TEST_F(EndpointTest, TenThousandIdleConnectionsAreSmall) {
  constexpr size_t kCount = 10'000;
  RefPtr<Endpoint> listener = host.Listener(80, kCount);
  std::vector<RefPtr<Endpoint>> all;
  for (size_t i = 0; i < kCount; i++) {
    all.push_back(host.New());
    ASSERT_EQ(Errno_(all.back()->Connect(Local(80))), EINPROGRESS);
    all.push_back(*listener->Accept());
    // Something was said once.
    ASSERT_TRUE(all.back()->Write(Bytes("x")));
    ASSERT_EQ(ReadText(*all[all.size() - 2]), "x");
  }
  // Both ends: what one takes is its endpoint and its connection; the queues hold nothing.
  RecordProperty("endpoint_bytes", static_cast<int>(sizeof(Endpoint)));
  RecordProperty("connection_bytes", static_cast<int>(sizeof(Connection)));
  EXPECT_LE(sizeof(Endpoint) + sizeof(Connection), 2600u);
  EXPECT_LE(GetChunkPoolStats().allocated_bytes, 8u << 20);
  for (auto& e : all) e->Close(true);
  listener->Close();
}

// Many threads, real time: nothing is lost, nothing hangs.
TEST(EndpointThreads, StreamsBothWaysAtOnce) {
  struct RealClock final : Clock {
    Time Now() const override {
      return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
    }
  } clock;
  TestHost host(clock, 9);
  RefPtr<Endpoint> listener = host.Listener(80);
  std::atomic<bool> stop{false};
  std::thread timers([&] {
    while (!stop) {
      host.stack.timers().RunTimers(clock.Now());
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  });
  auto work = [&](RefPtr<Endpoint> e, uint8_t seed) {
    constexpr size_t kTotal = 20 << 20;
    std::thread writer([&] {
      size_t sent = 0;
      while (sent < kTotal) {
        size_t n = std::min<size_t>(kTotal - sent, 1 + (sent * 7919) % 100'000);
        Result<size_t> r = e->WriteFrom(n, [&](std::span<std::byte> to) -> Result<size_t> {
          for (size_t i = 0; i < to.size(); i += 1024) to[i] = std::byte{seed};
          return to.size();
        });
        if (r) {
          sent += *r;
        } else {
          ASSERT_EQ(r.error(), Errno(EAGAIN));
          std::this_thread::yield();
        }
      }
      EXPECT_TRUE(e->Shutdown(false, true));
    });
    size_t got = 0;
    for (;;) {
      Result<Buffer> r = e->Read(100'000);
      if (!r) {
        ASSERT_EQ(r.error(), Errno(EAGAIN));
        std::this_thread::yield();
        continue;
      }
      if (r->empty()) break;
      got += r->size();
    }
    EXPECT_EQ(got, kTotal);
    writer.join();
  };
  RefPtr<Endpoint> client = host.New();
  EXPECT_EQ(Errno_(client->Connect(Local(80))), EINPROGRESS);
  Result<RefPtr<Endpoint>> server = listener->Accept();
  while (!server) server = listener->Accept();
  std::thread other([&] { work(*server, 1); });
  work(client, 2);
  other.join();
  stop = true;
  timers.join();
  client->Close(), (*server)->Close(), listener->Close();
}

}  // namespace
}  // namespace redoubt::netstack::tcp
