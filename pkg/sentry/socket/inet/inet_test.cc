// Sockets and the network's timers together, under many schedules in virtual time; what a task sees of them is in
// test/syscalls/linux/inet_socket_test.cc.
#include "pkg/sentry/socket/inet/inet.h"

#include <gtest/gtest.h>
#include <netinet/in.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "pkg/sentry/fsimpl/testing/world.h"
#include "pkg/sentry/socket/inet/net_table.h"

namespace redoubt::inetsock {
namespace {

using fstest::Error;
using fstest::World;
using SocketPtr = RefPtr<socket::Socket>;

struct Process {
  World& w;
  socket::Caller caller() const { return {.creds = *w.creds, .root = w.root_path, .cwd = w.root_path}; }
  SocketPtr Make(int type) const { return *(*socket::FindFamily(AF_INET))->Create(caller(), type, 0, 0); }
};

socket::AddressBytes Loopback(uint16_t port) {
  sockaddr_in in{.sin_family = AF_INET, .sin_port = htons(port)};
  in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return socket::OptionBytes(in);
}

// The number of bytes, or -errno.
int64_t Send(const Process& p, const SocketPtr& s, std::string data) {
  BufferIo io(std::as_writable_bytes(std::span(data)));
  socket::OutMessage m{.data = IoSequence(io, 0, data.size()), .to = {}, .files = {}, .creds = {}};
  Result<size_t> n = s->Send(p.caller(), m, 0, fiber::kForever);
  return n ? static_cast<int64_t>(*n) : -n.error().value();
}

// Until the end of the stream, in pieces of `room` bytes.
std::string ReceiveAll(const SocketPtr& s, size_t room) {
  std::string all, piece(room, '\0');
  while (true) {
    BufferIo io(std::as_writable_bytes(std::span(piece)));
    socket::InMessage m{.data = IoSequence(io, 0, room)};
    Result<size_t> n = s->Receive(m, 0, fiber::kForever);
    EXPECT_EQ(Error(n), 0);
    if (!n || *n == 0) return all;
    all.append(piece, 0, *n);
  }
}

size_t Lines(const std::string& text) { return static_cast<size_t>(std::count(text.begin(), text.end(), '\n')); }

TEST(InetTest, AnEchoIsWholeUnderEverySchedule) {
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    auto executor = fiber::MakeDeterministicExecutor(seed);
    World w;
    Network network(*executor);
    ASSERT_EQ(Error(network.AddLoopback()), 0);
    RegisterFamilies(network);
    Process p{w};
    std::string sent(300'000, '\0');
    for (size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<char>(i * 7 + i / 251);
    std::string got;
    const fiber::Time begin = executor->Now();
    executor->Spawn([&] {
      SocketPtr s = p.Make(SOCK_STREAM);
      ASSERT_EQ(Error(s->Bind(p.caller(), Loopback(80))), 0);
      ASSERT_EQ(Error(s->Listen(p.caller(), 1)), 0);
      EXPECT_EQ(Lines(NetTable(network, "tcp")), 1u);
      fiber::CurrentExecutor()->Spawn([&] {
        SocketPtr c = p.Make(SOCK_STREAM);
        ASSERT_EQ(Error(c->Connect(p.caller(), Loopback(80), fiber::kForever)), 0);
        // A reader beside the writer: neither end's buffer holds it all.
        fiber::CurrentExecutor()->Spawn([&got, c] { got = ReceiveAll(c, 10'007); });
        EXPECT_EQ(Send(p, c, sent), static_cast<int64_t>(sent.size()));
        EXPECT_EQ(Error(c->Shutdown(SHUT_WR)), 0);
      });
      SocketPtr a = *s->Accept(p.caller(), 0, fiber::kForever);
      std::string all = ReceiveAll(a, 4096);
      EXPECT_EQ(Send(p, a, std::move(all)), static_cast<int64_t>(sent.size()));
    });
    ASSERT_EQ(fiber::RunUntilIdle(*executor), 0u) << seed;
    ASSERT_TRUE(got == sent) << seed;
    // The client closed first; its connection lingered for TIME_WAIT's minute, and the network's timer ended that.
    EXPECT_GE(executor->Now() - begin, 60 * netstack::kSecond) << seed;
    EXPECT_TRUE(network.tcp().Endpoints().empty()) << seed;
  }
}

TEST(InetTest, AnIdleNetworkArmsNoTimer) {
  auto executor = fiber::MakeDeterministicExecutor(1);
  const fiber::Time begin = executor->Now();
  Network network(*executor);
  ASSERT_EQ(Error(network.AddLoopback()), 0);
  EXPECT_EQ(fiber::RunUntilIdle(*executor, begin + 3600 * netstack::kSecond), 0u);
  EXPECT_EQ(network.stack().timers().NextDeadline(), netstack::kNever);
}

TEST(InetTest, ALowPortNeedsACapability) {
  auto executor = fiber::MakeDeterministicExecutor(1);
  World w;
  Network network(*executor);
  ASSERT_EQ(Error(network.AddLoopback()), 0);
  RegisterFamilies(network);
  RefPtr<auth::Credentials> user = auth::Credentials::ForUser(1000, 1000, {}, 0);
  socket::Caller nobody{.creds = *user, .root = w.root_path, .cwd = w.root_path};
  for (int type : {SOCK_STREAM, SOCK_DGRAM}) {
    SocketPtr s = Process{w}.Make(type);
    EXPECT_EQ(Error(s->Bind(nobody, Loopback(1023))), EACCES);
    EXPECT_EQ(Error(s->Bind(nobody, Loopback(1024))), 0);
  }
}

}  // namespace
}  // namespace redoubt::inetsock
