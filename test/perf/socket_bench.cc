// Rows of syscall_bench about sockets, all on the loopback.
#include <arpa/inet.h>
#include <benchmark/benchmark.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <thread>
#include <utility>
#include <vector>

#include "test/perf/require.h"

namespace redoubt::perf {
namespace {

using Pair = std::array<int, 2>;

sockaddr* Cast(sockaddr_in* a) { return reinterpret_cast<sockaddr*>(a); }

// A socket bound to a port of the loopback, and its address.
int Bound(int type, sockaddr_in* address) {
  int fd = socket(AF_INET, type, 0);
  *address = {.sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_zero = {}};
  socklen_t size = sizeof(*address);
  Require(fd >= 0 && bind(fd, Cast(address), size) == 0 && getsockname(fd, Cast(address), &size) == 0, "bind");
  return fd;
}

Pair TcpPair() {
  sockaddr_in address;
  int listener = Bound(SOCK_STREAM, &address);
  Require(listen(listener, 1) == 0, "listen");
  int client = socket(AF_INET, SOCK_STREAM, 0);
  Require(client >= 0 && connect(client, Cast(&address), sizeof(address)) == 0, "connect");
  int server = accept(listener, nullptr, nullptr);
  Require(server >= 0, "accept");
  close(listener);
  for (int fd : {client, server}) {
    int on = 1;
    Require(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0, "TCP_NODELAY");
  }
  return {client, server};
}

Pair UdpPair() {
  sockaddr_in a, b;
  Pair pair = {Bound(SOCK_DGRAM, &a), Bound(SOCK_DGRAM, &b)};
  Require(connect(pair[0], Cast(&b), sizeof(b)) == 0 && connect(pair[1], Cast(&a), sizeof(a)) == 0, "connect");
  return pair;
}

Pair UnixPair() {
  Pair pair;
  Require(socketpair(AF_UNIX, SOCK_STREAM, 0, pair.data()) == 0, "socketpair");
  return pair;
}

void Echo(int fd) {
  char c;
  while (recv(fd, &c, 1, 0) == 1 && c != 'q') Require(send(fd, &c, 1, 0) == 1, "send");
}

void PingPong(benchmark::State& state, int fd) {
  char c = 'x';
  for (auto _ : state) {
    Require(send(fd, &c, 1, 0) == 1, "send");
    Require(recv(fd, &c, 1, 0) == 1, "recv");
  }
  c = 'q';
  Require(send(fd, &c, 1, 0) == 1, "send");
}

// Runs `peer` in a child that has only the second descriptor; the caller keeps the first.
template <typename Peer>
pid_t Fork(const Pair& pair, Peer&& peer) {
  pid_t pid = fork();
  Require(pid >= 0, "fork");
  if (pid == 0) {
    close(pair[0]);
    peer(pair[1]);
    _exit(0);
  }
  close(pair[1]);
  return pid;
}

void Reap(pid_t pid) {
  int status = 0;
  Require(waitpid(pid, &status, 0) == pid && status == 0, "the peer");
}

void ProcessPingPong(benchmark::State& state, Pair (*make)()) {
  Pair pair = make();
  pid_t pid = Fork(pair, Echo);
  PingPong(state, pair[0]);
  Reap(pid);
  close(pair[0]);
}

void TcpPingPong(benchmark::State& state) { ProcessPingPong(state, TcpPair); }
void UdpPingPong(benchmark::State& state) { ProcessPingPong(state, UdpPair); }
void UnixPingPong(benchmark::State& state) { ProcessPingPong(state, UnixPair); }
BENCHMARK(TcpPingPong)->UseRealTime();
BENCHMARK(UdpPingPong)->UseRealTime();
BENCHMARK(UnixPingPong)->UseRealTime();

void TcpPingPongThreads(benchmark::State& state) {
  Pair pair = TcpPair();
  std::thread other(Echo, pair[1]);
  PingPong(state, pair[0]);
  other.join();
  for (int fd : pair) close(fd);
}
BENCHMARK(TcpPingPongThreads)->UseRealTime();

// One write of the given size by one process, while another reads 64 KiB at a time. The time includes the reader's end.
void TcpStream(benchmark::State& state) {
  const size_t size = static_cast<size_t>(state.range(0));
  constexpr size_t kReadSize = 64 << 10;
  Pair pair = TcpPair();
  pid_t pid = Fork(pair, [](int fd) {
    std::vector<char> buffer(kReadSize);
    uint64_t total = 0;
    ssize_t n;
    while ((n = read(fd, buffer.data(), buffer.size())) > 0) total += static_cast<uint64_t>(n);
    Require(n == 0 && write(fd, &total, sizeof(total)) == sizeof(total), "the reader");
  });
  std::vector<char> buffer(size, 'x');
  uint64_t sent = 0, total = 0;
  for (auto _ : state) {
    Require(write(pair[0], buffer.data(), size) == static_cast<ssize_t>(size), "write");
    sent += size;
  }
  Require(shutdown(pair[0], SHUT_WR) == 0, "shutdown");
  Require(read(pair[0], &total, sizeof(total)) == sizeof(total) && total == sent, "what the reader has counted");
  Reap(pid);
  close(pair[0]);
  state.SetBytesProcessed(static_cast<int64_t>(sent));
}
BENCHMARK(TcpStream)->Arg(64 << 10)->Arg(1 << 10)->UseRealTime()->MinTime(0.3);

// A client connects and waits for the end; a server accepts and closes, so that the client's ports are free at once.
void TcpConnect(benchmark::State& state) {
  sockaddr_in address;
  int listener = Bound(SOCK_STREAM, &address);
  Require(listen(listener, 16) == 0, "listen");
  pid_t pid = fork();
  Require(pid >= 0, "fork");
  if (pid == 0) {
    char c = 0;
    while (c != 'q') {
      int fd = accept(listener, nullptr, nullptr);
      Require(fd >= 0 && recv(fd, &c, 1, 0) == 1, "accept");
      close(fd);
    }
    _exit(0);
  }
  auto once = [&](char c) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    Require(fd >= 0 && connect(fd, Cast(&address), sizeof(address)) == 0, "connect");
    Require(send(fd, &c, 1, 0) == 1 && recv(fd, &c, 1, 0) == 0, "the server's end");
    close(fd);
  };
  for (auto _ : state) once('x');
  once('q');
  Reap(pid);
  close(listener);
}
BENCHMARK(TcpConnect)->UseRealTime();

// 100 idle connections, one of them with something to read.
void PollSockets(benchmark::State& state) {
  constexpr size_t kSockets = 100;
  std::vector<Pair> pairs;
  std::vector<pollfd> watched;
  for (size_t i = 0; i < kSockets; i++) {
    pairs.push_back(TcpPair());
    watched.push_back({.fd = pairs.back()[1], .events = POLLIN, .revents = 0});
  }
  char c = 'x';
  Require(send(pairs[0][0], &c, 1, 0) == 1 && poll(watched.data(), 1, -1) == 1, "send");
  for (auto _ : state) Require(poll(watched.data(), kSockets, -1) == 1, "poll");
  for (const Pair& pair : pairs) {
    for (int fd : pair) close(fd);
  }
}
BENCHMARK(PollSockets);

}  // namespace
}  // namespace redoubt::perf
