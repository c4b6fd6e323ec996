// Transfers over bad networks, each from a seed: the stream arrives whole, windows are kept, and it always ends.
#include "pkg/netstack/tcp/test_link.h"
#include "test/fuzz/rounds.h"

namespace redoubt::netstack::tcp {
namespace {

Config RandomConfig(std::mt19937_64& rng) {
  Config c;
  constexpr uint32_t kMtus[] = {576 - 20, 1280 - 40, 1480, 8980, 65515};
  c.mtu = kMtus[rng() % 5];
  c.gso_max = rng() % 2 != 0 ? 65515 : 0;
  c.timestamps = rng() % 4 != 0;
  c.sack = rng() % 4 != 0;
  c.window_scaling = rng() % 4 != 0;
  c.ecn = rng() % 2 != 0;
  c.receive_buffer = 2000 + static_cast<uint32_t>(rng() % 100'000);
  c.max_receive_buffer = c.receive_buffer * (1 + static_cast<uint32_t>(rng() % 4));
  c.send_buffer = 2000 + static_cast<uint32_t>(rng() % 100'000);
  c.max_send_buffer = c.send_buffer * 4;
  c.ts_offset = static_cast<uint32_t>(rng());
  c.congestion = rng() % 2 != 0 ? CongestionAlgorithm::kCubic : CongestionAlgorithm::kReno;
  return c;
}

Settings RandomSettings(std::mt19937_64& rng) {
  Settings s;
  s.nodelay = rng() % 2 != 0;
  s.cork = rng() % 8 == 0;
  s.keepalive = rng() % 4 == 0;
  s.keep_idle = 3 * kSecond;
  s.keep_interval = kSecond;
  // A bad link may lose any number in a row; only its fairness is promised.
  s.retries = 200;
  s.syn_retries = s.syn_ack_retries = 200;
  s.keep_count = 200;
  return s;
}

void RunTransfer(uint64_t seed) {
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937_64 rng(seed);
  LinkParameters link;
  if (seed % 4 != 0) {
    link.loss = static_cast<double>(rng() % 20) / 100;
    link.duplicate = static_cast<double>(rng() % 10) / 100;
    link.reorder = static_cast<double>(rng() % 50) / 100;
    link.corrupt = static_cast<double>(rng() % 5) / 100;
    link.mark = static_cast<double>(rng() % 10) / 100;
  }
  link.delay = static_cast<Time>(rng() % 60) * kMillisecond;
  link.jitter = static_cast<Time>(rng() % 100) * kMillisecond;
  if (rng() % 2 != 0) link.bytes_per_second = 20'000 + rng() % 2'000'000;
  auto a = std::make_unique<TestEnd>(RandomConfig(rng), RandomSettings(rng), rng());
  auto b = std::make_unique<TestEnd>(RandomConfig(rng), RandomSettings(rng), rng());
  a->to_write = rng() % 60'000;
  b->to_write = rng() % 2 != 0 ? rng() % 60'000 : 0;
  size_t totals[2] = {a->to_write, b->to_write};
  Simulation sim(seed, std::move(a), std::move(b), link);
  sim.ends[0]->connection.Connect(sim.now, static_cast<Seq>(rng()), std::nullopt, Buffer());
  sim.Collect(0);
  bool lazy_reader = rng() % 4 == 0;
  Time end = sim.now + 40'000 * kSecond;
  auto done = [&] {
    for (int i = 0; i < 2; i++) {
      State s = sim.ends[i]->connection.state();
      if (s != State::kClosed && s != State::kTimeWait) return false;
    }
    return true;
  };
  while (!done() && sim.now < end && sim.steps < 300'000) {
    if (::testing::Test::HasFatalFailure() || ::testing::Test::HasNonfatalFailure()) return;
    // Readers and writers act at times of their own.
    Time pause = lazy_reader ? static_cast<Time>(rng() % 3) * kSecond : static_cast<Time>(rng() % 50) * kMillisecond;
    Time until = sim.now + pause;
    while (sim.Step(until)) {
    }
    for (int i = 0; i < 2; i++) {
      TestEnd& e = *sim.ends[i];
      if (!e.connection.synchronized() && e.connection.state() != State::kClosed) continue;
      if (rng() % 4 != 0) e.Read(sim.now, 1 + rng() % (rng() % 2 != 0 ? 100'000 : 100));
      if (e.connection.synchronized()) e.Write(sim.now, 1 + rng() % (rng() % 2 != 0 ? 100'000 : 100));
      if (e.to_write == 0 && !e.closed && e.connection.synchronized()) {
        e.closed = true;
        e.connection.Shutdown(sim.now);
      }
      sim.Collect(i);
    }
  }
  for (int i = 0; i < 2; i++) {
    TestEnd& e = *sim.ends[i];
    e.Read(sim.now, 1'000'000);
    // The last ACK may be lost so often that TIME_WAIT is over meanwhile; then a reset answers, and all has arrived.
    EXPECT_TRUE(e.connection.error() == 0 || e.connection.fin_received()) << e.connection.error();
    EXPECT_TRUE(e.connection.at_end()) << "end " << i << " state " << static_cast<int>(e.connection.state());
    EXPECT_EQ(e.read, totals[1 - i]);
    EXPECT_EQ(e.written, totals[i]);
    EXPECT_TRUE(e.connection.state() == State::kTimeWait || e.connection.state() == State::kClosed)
        << "end " << i << " state " << static_cast<int>(e.connection.state()) << " after " << sim.steps << " steps, "
        << (sim.now / kSecond) << " s, unsent " << e.connection.unsent() << " window " << e.connection.send_window()
        << " cwnd " << e.connection.congestion().cwnd() << " in flight " << e.connection.scoreboard().in_flight();
  }
}

TEST(Simulation, EveryTransferEnds) { fuzz::Rounds(2000, RunTransfer); }

}  // namespace
}  // namespace redoubt::netstack::tcp
