// UDP over the loopback, one datagram there and received, beside the host's own of the same shape.
#include <arpa/inet.h>
#include <benchmark/benchmark.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ctime>
#include <vector>

#include "pkg/netstack/inet/inet.h"

namespace redoubt::netstack {
namespace {

class MonotonicClock final : public Clock {
 public:
  Time Now() const override {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * kSecond + t.tv_nsec;
  }
};

void Netstack(benchmark::State& state) {
  MonotonicClock clock;
  SeededRandom random(1);
  Stack stack(clock, random);
  Inet inet = RegisterInet(stack);
  (void)AddLoopback(stack);
  auto server = UdpEndpoint::Create(*inet.udp, Family::kIpv4);
  auto client = UdpEndpoint::Create(*inet.udp, Family::kIpv4);
  (void)server->Bind({Address::Loopback(Family::kIpv4), 9});
  (void)client->Connect({Address::Loopback(Family::kIpv4), 9});
  std::vector<std::byte> in(static_cast<size_t>(state.range(0)));
  std::vector<std::byte> out(in.size());
  for (auto _ : state) {
    if (!client->Send(Buffer::CopyOf(in, 64))) state.SkipWithError("send");
    Result<PacketPtr> got = server->Receive();
    if (!got || (*got)->data.CopyOut(0, out) != out.size()) state.SkipWithError("receive");
  }
  server->Close();
  client->Close();
  stack.Close();
}
BENCHMARK(Netstack)->Arg(1)->Arg(1400)->Arg(60000);

void Host(benchmark::State& state) {
  int server = socket(AF_INET, SOCK_DGRAM, 0);
  int client = socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  if (bind(server, reinterpret_cast<sockaddr*>(&address), length) != 0 ||
      getsockname(server, reinterpret_cast<sockaddr*>(&address), &length) != 0 ||
      connect(client, reinterpret_cast<sockaddr*>(&address), length) != 0) {
    state.SkipWithError("no loopback");
  }
  std::vector<std::byte> in(static_cast<size_t>(state.range(0)));
  std::vector<std::byte> out(in.size());
  for (auto _ : state) {
    if (send(client, in.data(), in.size(), 0) < 0 || recv(server, out.data(), out.size(), 0) < 0)
      state.SkipWithError("host");
  }
  close(server);
  close(client);
}
BENCHMARK(Host)->Arg(1)->Arg(1400)->Arg(60000);

}  // namespace
}  // namespace redoubt::netstack

BENCHMARK_MAIN();
