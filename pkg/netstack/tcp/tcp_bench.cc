// Loopback TCP through the whole stack, beside the host's own, in the same shapes.
#include <benchmark/benchmark.h>
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

#include "pkg/netstack/inet/inet.h"
#include "pkg/netstack/link/channel.h"
#include "pkg/netstack/stack/frame_batch.h"
#include "pkg/netstack/tcp/endpoint.h"
#include "pkg/netstack/tcp/protocol.h"

namespace redoubt::netstack::tcp {
namespace {

struct RealClock final : Clock {
  Time Now() const override {
    return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
  }
};

struct Stream {
  Stream() : stack(clock, random) {
    RegisterInet(stack);
    auto owned = std::make_unique<TcpProtocol>(stack);
    tcp = owned.get();
    stack.RegisterTransport(std::move(owned));
    lo = *AddLoopback(stack);
    RefPtr<Endpoint> listener = Endpoint::Create(*tcp, Family::kIpv4);
    (void)listener->Bind({Address::Loopback(Family::kIpv4), 80});
    (void)listener->Listen(1);
    client = Endpoint::Create(*tcp, Family::kIpv4);
    (void)client->Connect({Address::Loopback(Family::kIpv4), 80});
    server = *listener->Accept();
    listener->Close();
  }
  ~Stream() {
    client->Close(true), server->Close(true);
    client.reset(), server.reset(), lo.reset();
    stack.Close();
    stack.timers().RunTimers(kNever - 1, 1000);
  }
  RealClock clock;
  SeededRandom random{1};
  Stack stack;
  TcpProtocol* tcp;
  RefPtr<Interface> lo;
  RefPtr<Endpoint> client, server;
};

size_t Send(Endpoint& e, const std::byte* from, size_t n) {
  size_t at = 0;
  Result<size_t> r = e.WriteFrom(n, [&](std::span<std::byte> to) -> Result<size_t> {
    std::memcpy(to.data(), from + at, to.size());
    at += to.size();
    return to.size();
  });
  return r.value_or(0);
}

size_t Receive(Endpoint& e, std::byte* to, size_t n) {
  Result<Buffer> r = e.Read(n);
  return r ? r->CopyOut(0, {to, n}) : 0;
}

// One thread writes and reads by turns: the processor time of a byte's whole way.
void BM_Throughput(benchmark::State& state) {
  Stream s;
  size_t n = static_cast<size_t>(state.range(0));
  std::vector<std::byte> from(n, std::byte{1}), to(1 << 20);
  size_t total = 0;
  for (auto _ : state) {
    size_t sent = Send(*s.client, from.data(), n);
    total += sent;
    while (Receive(*s.server, to.data(), to.size()) > 0) {
    }
    s.stack.timers().RunTimers(s.clock.Now());
  }
  state.SetBytesProcessed(static_cast<int64_t>(total));
}
BENCHMARK(BM_Throughput)->Arg(64)->Arg(1024)->Arg(16 << 10)->Arg(64 << 10)->Arg(256 << 10);

// As a fiber waits: registered, and looking at one word until it is told.
struct Waiter final : waiter::Entry {
  explicit Waiter(waiter::EventMask mask) : Entry(mask) {}
  void Notify(waiter::EventMask) override { told.store(true, std::memory_order_release); }
  void Wait(const std::atomic<bool>& stop) {
    while (!told.exchange(false, std::memory_order_acquire) && !stop) __builtin_ia32_pause();
  }
  std::atomic<bool> told{false};
};

// A writer and a reader, each a thread. Needs two idle processors to mean anything.
void BM_ThroughputThreads(benchmark::State& state) {
  Stream s;
  size_t n = static_cast<size_t>(state.range(0));
  std::atomic<bool> stop{false};
  Waiter readable(waiter::kIn), writable(waiter::kOut);
  s.server->waiters().Register(readable);
  s.client->waiters().Register(writable);
  std::thread reader([&] {
    std::vector<std::byte> to(1 << 18);
    while (!stop) {
      if (Receive(*s.server, to.data(), to.size()) == 0) readable.Wait(stop);
    }
  });
  std::vector<std::byte> from(n, std::byte{1});
  size_t total = 0;
  for (auto _ : state) {
    size_t sent;
    while ((sent = Send(*s.client, from.data(), n)) == 0) writable.Wait(stop);
    total += sent;
    s.stack.timers().RunTimers(s.clock.Now());
  }
  stop = true;
  reader.join();
  s.server->waiters().Unregister(readable);
  s.client->waiters().Unregister(writable);
  state.SetBytesProcessed(static_cast<int64_t>(total));
}
BENCHMARK(BM_ThroughputThreads)->Arg(64 << 10)->UseRealTime();

void BM_PingPong(benchmark::State& state) {
  Stream s;
  std::byte b{};
  for (auto _ : state) {
    Send(*s.client, &b, 1);
    Receive(*s.server, &b, 1);
    Send(*s.server, &b, 1);
    Receive(*s.client, &b, 1);
  }
}
BENCHMARK(BM_PingPong);

void BM_ConnectAcceptClose(benchmark::State& state) {
  Stream s;
  RefPtr<Endpoint> listener = Endpoint::Create(*s.tcp, Family::kIpv4);
  (void)listener->Bind({Address::Loopback(Family::kIpv4), 81});
  (void)listener->Listen(16);
  for (auto _ : state) {
    RefPtr<Endpoint> client = Endpoint::Create(*s.tcp, Family::kIpv4);
    (void)client->Connect({Address::Loopback(Family::kIpv4), 81});
    RefPtr<Endpoint> server = *listener->Accept();
    client->Close(true);
    server->Close();
  }
  listener->Close();
}
BENCHMARK(BM_ConnectAcceptClose);

// A host on a link without super-segments, whose frames the benchmark carries.
struct Host {
  Host(Clock& clock, uint8_t number) : random(number), stack(clock, random) {
    RegisterInet(stack);
    auto owned = std::make_unique<TcpProtocol>(stack);
    tcp = owned.get();
    stack.RegisterTransport(std::move(owned));
    auto link = std::make_unique<Channel>(Channel::Options{.queue = 1 << 16});
    channel = link.get();
    wire = *stack.AddInterface({.name = "wire", .link = std::move(link), .autoconfigure = false});
    (void)wire->AddAddress({.prefix = {Address::Ipv4(10, 0, 0, number), 24}});
    wire->SetUp(true);
  }
  ~Host() {
    wire.reset();
    stack.Close();
    stack.timers().RunTimers(kNever - 1, 1000);
  }
  SeededRandom random;
  Stack stack;
  TcpProtocol* tcp;
  RefPtr<Interface> wire;
  Channel* channel;
};

void Carry(Host& from, Host& to, size_t most) {
  PacketList frames;
  for (size_t i = 0; i < most; i++) {
    PacketPtr p = from.channel->Read();
    if (p == nullptr) break;
    PacketPtr fresh = NewPacket(std::move(p->data));
    fresh->ethertype = ETH_P_IP;
    fresh->offload.checksum = ChecksumState::kVerified;
    frames.PushBack(std::move(fresh));
  }
  FrameBatch batch;
  while (PacketPtr p = frames.PopFront()) to.channel->Inject(std::move(p));
}

// Segments of an Ethernet's size in batches of range(0): the time is the receiver's alone, for each segment, with a
// read after each batch.
void BM_ReceiveSegments(benchmark::State& state) {
  RealClock clock;
  Host a(clock, 1), b(clock, 2);
  RefPtr<Endpoint> listener = Endpoint::Create(*b.tcp, Family::kIpv4);
  (void)listener->Bind({Address::Any(Family::kIpv4), 80});
  (void)listener->Listen(1);
  RefPtr<Endpoint> client = Endpoint::Create(*a.tcp, Family::kIpv4);
  (void)client->Connect({Address::Ipv4(10, 0, 0, 2), 80});
  for (int i = 0; i < 4; i++) Carry(a, b, 100), Carry(b, a, 100);
  RefPtr<Endpoint> server = *listener->Accept();
  listener->Close();
  const size_t most = static_cast<size_t>(state.range(0));
  std::vector<std::byte> bytes(1 << 20, std::byte{1});
  size_t total = 0;
  for (auto _ : state) {
    while (a.channel->queued() < most) {
      if (Send(*client, bytes.data(), 64 << 10) == 0) break;
    }
    const size_t n = std::min(most, a.channel->queued());
    const Time start = clock.Now();
    Carry(a, b, n);
    size_t got = 0;
    while (size_t r = Receive(*server, bytes.data(), bytes.size())) got += r;
    state.SetIterationTime(n == 0 ? 0 : static_cast<double>(clock.Now() - start) / 1e9 / static_cast<double>(n));
    total += got;
    Carry(b, a, 100);
    a.stack.timers().RunTimers(clock.Now());
    b.stack.timers().RunTimers(clock.Now());
  }
  if (total == 0) state.SkipWithError("nothing came");
  client->Close(true), server->Close(true);
}
BENCHMARK(BM_ReceiveSegments)->Arg(1)->Arg(8)->Arg(32)->UseManualTime();

struct NativePair {
  NativePair() {
    int l = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in a{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof(a);
    if (bind(l, reinterpret_cast<sockaddr*>(&a), size) != 0 || listen(l, 1) != 0) abort();
    getsockname(l, reinterpret_cast<sockaddr*>(&a), &size);
    client = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(client, reinterpret_cast<sockaddr*>(&a), size) != 0) abort();
    server = accept(l, nullptr, nullptr);
    close(l);
    int one = 1;
    for (int fd : {client, server}) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  }
  ~NativePair() { close(client), close(server); }
  int client, server;
};

void BM_NativeThroughput(benchmark::State& state) {
  NativePair p;
  size_t n = static_cast<size_t>(state.range(0));
  std::vector<std::byte> from(n, std::byte{1}), to(1 << 20);
  size_t total = 0;
  for (auto _ : state) {
    ssize_t sent = send(p.client, from.data(), n, MSG_DONTWAIT);
    if (sent > 0) total += static_cast<size_t>(sent);
    while (recv(p.server, to.data(), to.size(), MSG_DONTWAIT) > 0) {
    }
  }
  state.SetBytesProcessed(static_cast<int64_t>(total));
}
BENCHMARK(BM_NativeThroughput)->Arg(64)->Arg(1024)->Arg(16 << 10)->Arg(64 << 10)->Arg(256 << 10);

void BM_NativeThroughputThreads(benchmark::State& state) {
  NativePair p;
  size_t n = static_cast<size_t>(state.range(0));
  std::thread reader([&] {
    std::vector<std::byte> to(1 << 18);
    while (recv(p.server, to.data(), to.size(), 0) > 0) {
    }
  });
  std::vector<std::byte> from(n, std::byte{1});
  size_t total = 0;
  for (auto _ : state) {
    ssize_t sent = send(p.client, from.data(), n, 0);
    if (sent > 0) total += static_cast<size_t>(sent);
  }
  shutdown(p.client, SHUT_WR);
  reader.join();
  state.SetBytesProcessed(static_cast<int64_t>(total));
}
BENCHMARK(BM_NativeThroughputThreads)->Arg(64 << 10)->UseRealTime();

void BM_NativePingPong(benchmark::State& state) {
  NativePair p;
  char b = 0;
  for (auto _ : state) {
    for (auto [out, in] : {std::pair(p.client, p.server), std::pair(p.server, p.client)}) {
      if (send(out, &b, 1, 0) != 1 || recv(in, &b, 1, 0) != 1) state.SkipWithError("native socket failed");
    }
  }
}
BENCHMARK(BM_NativePingPong);

}  // namespace
}  // namespace redoubt::netstack::tcp

BENCHMARK_MAIN();
