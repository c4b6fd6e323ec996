// Sockets of the host's loopback as a task would use them; what is the same for every network is in
// test/syscalls/linux/inet_socket_test.cc.
#include "pkg/sentry/socket/hostinet/hostinet.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/ioctl.h>

#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "pkg/sentry/fsimpl/testing/world.h"
#include "pkg/sentry/socket/socket.h"

namespace redoubt::hostinet {
namespace {

using fstest::Error;
using fstest::World;
using SocketPtr = RefPtr<socket::Socket>;

constexpr int64_t kMost = 1000;

// The poller's thread wakes fibers from outside, so these run on the real executor.
void InRealFiber(std::function<void()> body) {
  ::signal(SIGPIPE, SIG_IGN);
  RegisterFamilies(kMost);
  auto executor = fiber::ThreadedExecutor::Create({});
  executor->Spawn(std::move(body));
  fiber::Join(*executor);
}

// Memory of which the end cannot be written or read.
class Faulty final : public MemoryIo {
 public:
  explicit Faulty(size_t good) : bytes(good) {}
  Result<size_t> CopyOut(Addr addr, std::span<const std::byte> src) override { return Io().CopyOut(addr, src); }
  Result<size_t> CopyIn(Addr addr, std::span<std::byte> dst) override { return Io().CopyIn(addr, dst); }
  Result<size_t> ZeroOut(Addr, uint64_t) override { return Err(EFAULT); }
  Result<uint32_t> LoadU32(Addr) override { return Err(EFAULT); }
  Result<uint32_t> SwapU32(Addr, uint32_t) override { return Err(EFAULT); }
  Result<uint32_t> CompareAndSwapU32(Addr, uint32_t, uint32_t) override { return Err(EFAULT); }

  std::vector<std::byte> bytes;

 private:
  BufferIo Io() { return BufferIo(bytes); }
};

fiber::Time Deadline(int flags) { return (flags & MSG_DONTWAIT) != 0 ? socket::kNoWait : fiber::kForever; }

void Sleep(fiber::Time time) {
  const fiber::Time end = fiber::Now() + time;
  while (fiber::Now() < end) (void)fiber::Park(end);
}

struct Process {
  World w;
  socket::Caller caller() const { return {.creds = *w.creds, .root = w.root_path, .cwd = w.root_path}; }
  Result<SocketPtr> TryMake(int type, int protocol = 0, int family = AF_INET) const {
    return (*socket::FindFamily(family))->Create(caller(), type, protocol, 0);
  }
  SocketPtr Make(int type, int family = AF_INET) const { return *TryMake(type, 0, family); }
  SocketPtr Bound(int type) const {
    SocketPtr s = Make(type);
    EXPECT_EQ(Error(s->Bind(caller(), Loopback())), 0);
    return s;
  }
  static socket::AddressBytes Loopback() {
    sockaddr_in in{.sin_family = AF_INET};
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return socket::OptionBytes(in);
  }
  // Both ends of a connection.
  std::pair<SocketPtr, SocketPtr> Connected() const {
    SocketPtr listener = Bound(SOCK_STREAM);
    EXPECT_EQ(Error(listener->Listen(caller(), 1)), 0);
    SocketPtr a = Make(SOCK_STREAM);
    EXPECT_EQ(Error(a->Connect(caller(), *listener->LocalName(), fiber::kForever)), 0);
    return {a, *listener->Accept(caller(), 0, fiber::kForever)};
  }
  // The number of bytes, or -errno.
  int64_t Send(const SocketPtr& s, std::string data, int flags = 0, std::vector<socket::Control> control = {},
               socket::Address to = {}) const {
    BufferIo io(std::as_writable_bytes(std::span(data)));
    socket::OutMessage m{.data = IoSequence(io, 0, data.size()), .to = to, .control = std::move(control)};
    Result<size_t> n = s->Send(caller(), m, flags, Deadline(flags));
    return n ? static_cast<int64_t>(*n) : -n.error().value();
  }
};

std::string Receive(const SocketPtr& s, size_t room, int flags = 0, socket::InMessage* message = nullptr) {
  std::string bytes(room, '\0');
  BufferIo io(std::as_writable_bytes(std::span(bytes)));
  socket::InMessage own;
  socket::InMessage& m = message != nullptr ? *message : own;
  m.data = IoSequence(io, 0, room);
  m.want_from = true;
  Result<size_t> n = s->Receive(m, flags, Deadline(flags));
  if (!n) return "error " + std::to_string(n.error().value());
  bytes.resize(std::min(*n, room));
  return bytes;
}

int SetInt(const Process& p, const SocketPtr& s, int level, int name, int value) {
  return Error(s->SetOption(p.caller(), level, name, std::as_bytes(std::span(&value, 1))));
}

int GetInt(const Process& p, const SocketPtr& s, int level, int name) {
  Result<std::vector<std::byte>> value = s->GetOption(p.caller(), level, name);
  if (!value) return -value.error().value();
  return *socket::IntOption(*value);
}

TEST(HostInet, KindsOfSockets) {
  InRealFiber([] {
    Process p;
    for (int family : {AF_INET, AF_INET6}) {
      EXPECT_EQ(p.Make(SOCK_STREAM, family)->protocol(), IPPROTO_TCP);
      EXPECT_EQ(p.Make(SOCK_DGRAM, family)->protocol(), IPPROTO_UDP);
      EXPECT_EQ(Error(p.TryMake(SOCK_STREAM, IPPROTO_UDP, family)), EPROTONOSUPPORT);
      EXPECT_EQ(Error(p.TryMake(SOCK_DGRAM, IPPROTO_TCP, family)), EPROTONOSUPPORT);
      EXPECT_EQ(Error(p.TryMake(SOCK_RAW, IPPROTO_TCP, family)), EPERM);
      EXPECT_EQ(Error(p.TryMake(SOCK_RAW, 0, family)), EPROTONOSUPPORT);
      EXPECT_EQ(Error(p.TryMake(SOCK_SEQPACKET, 0, family)), ESOCKTNOSUPPORT);
      EXPECT_EQ(Error(p.TryMake(SOCK_STREAM, 256, family)), EINVAL);
    }
  });
}

TEST(HostInet, AnEchoOfMuchIsWhole) {
  InRealFiber([] {
    Process p;
    auto [a, b] = p.Connected();
    std::string sent(3'000'000, '\0');
    for (size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<char>(i * 7 + i / 251);
    // Neither end's buffer holds it all: both wait.
    fiber::CurrentExecutor()->Spawn([&p, sent, a = a] {
      EXPECT_EQ(p.Send(a, sent), static_cast<int64_t>(sent.size()));
      EXPECT_EQ(Error(a->Shutdown(SHUT_WR)), 0);
    });
    std::string got;
    for (std::string piece; !(piece = Receive(b, 100'007)).empty();) got += piece;
    EXPECT_TRUE(got == sent);
  });
}

TEST(HostInet, AFaultLosesNothingOfAStream) {
  InRealFiber([] {
    Process p;
    auto [a, b] = p.Connected();
    EXPECT_EQ(p.Send(a, "0123456789"), 10);
    Faulty io(4);
    socket::InMessage m{.data = IoSequence(io, 0, 10)};
    EXPECT_EQ(*b->Receive(m, 0, fiber::kForever), 4u);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(io.bytes.data()), 4), "0123");
    EXPECT_EQ(b->Readiness(waiter::kIn), waiter::kIn);
    std::vector<std::byte> answer(4);
    BufferIo out(answer);
    EXPECT_EQ(Error(b->Ioctl(out, FIONREAD, 0)), 0);
    EXPECT_EQ(*socket::IntOption(answer), 6);
    EXPECT_EQ(Receive(b, 3, MSG_PEEK), "456");
    EXPECT_EQ(Receive(b, 3), "456");
    EXPECT_EQ(Receive(b, 100), "789");
    EXPECT_EQ(b->Readiness(waiter::kIn), 0u);
    EXPECT_EQ(Receive(b, 1, MSG_DONTWAIT), "error 11");
    // Nothing of it can be delivered at all.
    EXPECT_EQ(p.Send(a, "abc"), 3);
    socket::InMessage bad{.data = IoSequence(io, 100, 10)};
    EXPECT_EQ(Error(b->Receive(bad, 0, fiber::kForever)), EFAULT);
    EXPECT_EQ(Receive(b, 2), "ab");
    EXPECT_EQ(Receive(b, 2, MSG_TRUNC).size(), 1u);
    socket::OutMessage unreadable{.data = IoSequence(io, 100, 10), .to = {}};
    EXPECT_EQ(Error(a->Send(p.caller(), unreadable, 0, fiber::kForever)), EFAULT);
  });
}

TEST(HostInet, WritesOfAFullSocketAreNotLost) {
  InRealFiber([] {
    Process p;
    auto [a, b] = p.Connected();
    std::string data(1 << 20, 'x');
    BufferIo io(std::as_writable_bytes(std::span(data)));
    size_t written = 0;
    while (true) {
      IoSequence src(io, 0, data.size());
      Result<size_t> n = a->Write(src, 0);
      if (!n) {
        EXPECT_EQ(Error(n), EAGAIN);
        EXPECT_EQ(src.remaining(), data.size());
        break;
      }
      EXPECT_EQ(src.remaining(), data.size() - *n);
      written += *n;
    }
    EXPECT_EQ(a->Readiness(waiter::kOut), 0u);
    a = nullptr;
    size_t got = 0;
    for (std::string piece; !(piece = Receive(b, 1 << 20)).empty();) got += piece.size();
    EXPECT_EQ(got, written);
  });
}

TEST(HostInet, AddressesOfOtherFamilies) {
  InRealFiber([] {
    Process p;
    sockaddr_storage other{};
    other.ss_family = AF_UNIX;
    const socket::AddressBytes bytes = socket::OptionBytes(other);
    SocketPtr stream = p.Make(SOCK_STREAM), datagram = p.Make(SOCK_DGRAM);
    for (const SocketPtr& s : {stream, datagram}) {
      EXPECT_EQ(Error(s->Bind(p.caller(), bytes)), EAFNOSUPPORT);
      EXPECT_EQ(Error(s->Connect(p.caller(), bytes, fiber::kForever)), EAFNOSUPPORT);
      EXPECT_EQ(Error(s->Bind(p.caller(), std::span(bytes).first(1))), EINVAL);
      EXPECT_EQ(Error(s->Bind(p.caller(), std::span(bytes).first(8))), EINVAL);
    }
    EXPECT_EQ(p.Send(datagram, "x", 0, {}, bytes), -EAFNOSUPPORT);
  });
}

TEST(HostInet, OptionsThatAreNotOnTheListNeverReachTheHost) {
  InRealFiber([] {
    Process p;
    SocketPtr s = p.Make(SOCK_STREAM);
    EXPECT_EQ(SetInt(p, s, IPPROTO_TCP, TCP_NODELAY, 1), 0);
    EXPECT_EQ(GetInt(p, s, IPPROTO_TCP, TCP_NODELAY), 1);
    EXPECT_EQ(SetInt(p, s, SOL_SOCKET, SO_ATTACH_FILTER, 1), ENOPROTOOPT);
    EXPECT_EQ(SetInt(p, s, SOL_SOCKET, SO_ZEROCOPY, 1), 0);  // and says nothing to the host
    EXPECT_EQ(SetInt(p, s, SOL_SOCKET, SO_MARK, 1), EPERM);
    EXPECT_EQ(SetInt(p, s, IPPROTO_TCP, TCP_REPAIR, 1), ENOPROTOOPT);
    EXPECT_EQ(GetInt(p, s, IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE), -ENOPROTOOPT);
    EXPECT_EQ(SetInt(p, s, SOL_SOCKET, SO_ERROR, 1), ENOPROTOOPT);
    EXPECT_EQ(SetInt(p, s, 12345, 1, 1), ENOPROTOOPT);
    EXPECT_EQ(GetInt(p, s, SOL_SOCKET, SO_TYPE), SOCK_STREAM);
    const std::vector<std::byte> none, large(1 << 16);
    EXPECT_EQ(Error(s->SetOption(p.caller(), IPPROTO_TCP, TCP_NODELAY, none)), EINVAL);
    EXPECT_EQ(Error(s->SetOption(p.caller(), IPPROTO_IP, IP_TOS, none)), EINVAL);
    EXPECT_EQ(Error(s->SetOption(p.caller(), IPPROTO_TCP, TCP_NODELAY, large)), 0);
    EXPECT_EQ(GetInt(p, s, IPPROTO_TCP, TCP_NODELAY), 0);
    EXPECT_EQ(s->GetOption(p.caller(), IPPROTO_TCP, TCP_CONGESTION)->size(), 16u);
    EXPECT_GT(s->GetOption(p.caller(), IPPROTO_TCP, TCP_INFO)->size(), 100u);
  });
}

TEST(HostInet, LingeringResetsAndNeverBlocks) {
  InRealFiber([] {
    Process p;
    for (int seconds : {0, 100}) {
      auto [a, b] = p.Connected();
      const linger l{.l_onoff = 1, .l_linger = seconds};
      EXPECT_EQ(Error(a->SetOption(p.caller(), SOL_SOCKET, SO_LINGER, std::as_bytes(std::span(&l, 1)))), 0);
      linger got{};
      std::memcpy(&got, a->GetOption(p.caller(), SOL_SOCKET, SO_LINGER)->data(), sizeof(got));
      EXPECT_EQ(got.l_linger, seconds);
      // Unacknowledged: the peer does not read.
      const std::string much(1 << 20, 'x');
      fiber::CurrentExecutor()->Spawn([&p, a = a, much] { (void)p.Send(a, much, MSG_DONTWAIT); });
      a = nullptr;
      std::string piece;
      while ((piece = Receive(b, 1 << 16)).size() > 10) {
      }
      if (seconds == 0) {
        EXPECT_TRUE(piece == "error 104" || piece.empty()) << piece;
      } else {
        EXPECT_EQ(piece, "");
      }
    }
  });
}

TEST(HostInet, AncillaryDataComesAndGoes) {
  InRealFiber([] {
    Process p;
    SocketPtr a = p.Bound(SOCK_DGRAM), b = p.Bound(SOCK_DGRAM);
    EXPECT_EQ(SetInt(p, b, IPPROTO_IP, IP_RECVTTL, 1), 0);
    EXPECT_EQ(SetInt(p, b, IPPROTO_IP, IP_PKTINFO, 1), 0);
    const socket::AddressBytes to = *b->LocalName();
    EXPECT_EQ(p.Send(a, "hello", 0, {{IPPROTO_IP, IP_TTL, socket::OptionBytes<int>(33)}}, to), 5);
    socket::InMessage m;
    EXPECT_EQ(Receive(b, 3, MSG_TRUNC, &m).size(), 3u);
    EXPECT_EQ(m.flags, MSG_TRUNC);
    EXPECT_EQ(m.from, *a->LocalName());
    ASSERT_EQ(m.control.size(), 2u);
    for (const socket::Control& c : m.control) {
      if (c.type == IP_TTL) {
        EXPECT_EQ(*socket::IntOption(c.data), 33);
      }
    }
    EXPECT_EQ(p.Send(a, "x", 0, {{SOL_SOCKET, SO_TIMESTAMPING, socket::OptionBytes<uint32_t>(2)}}, to), -EINVAL);
    EXPECT_EQ(p.Send(a, "x", 0, {{IPPROTO_IP, IP_RETOPTS, socket::OptionBytes<int>(0)}}, to), -EINVAL);
    EXPECT_EQ(p.Send(a, std::string(70'000, 'x'), 0, {}, to), -EMSGSIZE);
    EXPECT_EQ(p.Send(a, "", 0, {}, to), 0);
    EXPECT_EQ(Receive(b, 3), "");
  });
}

TEST(HostInet, ThereAreNoMoreThanTheProcessHasDescriptorsFor) {
  InRealFiber([] {
    Process p;
    RegisterFamilies(4);
    SocketPtr listener = p.Bound(SOCK_STREAM);
    ASSERT_EQ(Error(listener->Listen(p.caller(), 8)), 0);
    std::vector<SocketPtr> clients;
    for (int i = 0; i < 3; i++) {
      clients.push_back(p.Make(SOCK_STREAM));
      ASSERT_EQ(Error(clients.back()->Connect(p.caller(), *listener->LocalName(), fiber::kForever)), 0);
    }
    EXPECT_EQ(Error(p.TryMake(SOCK_DGRAM)), ENFILE);
    EXPECT_EQ(Error(listener->Accept(p.caller(), 0, socket::kNoWait)), ENFILE);
    // It waits where it was, and a failure takes no place.
    clients.pop_back();
    EXPECT_EQ(Error(p.TryMake(SOCK_STREAM, IPPROTO_UDP)), EPROTONOSUPPORT);
    EXPECT_EQ(Error(listener->Accept(p.caller(), 0, socket::kNoWait)), 0);
    RegisterFamilies(kMost);
  });
}

TEST(HostInet, AWaiterHearsOfTheOtherSide) {
  InRealFiber([] {
    Process p;
    auto [a, b] = p.Connected();
    fiber::CurrentExecutor()->Spawn([&p, a = a] {
      Sleep(20'000'000);
      EXPECT_EQ(p.Send(a, "late"), 4);
    });
    EXPECT_EQ(Receive(b, 10), "late");
    EXPECT_EQ(p.Send(b, "1234"), 4);
    EXPECT_EQ(Receive(a, 4, MSG_WAITALL), "1234");
    fiber::CurrentExecutor()->Spawn([&p, b = b] {
      for (const char* piece : {"12", "34", "56"}) {
        Sleep(5'000'000);
        EXPECT_EQ(p.Send(b, piece), 2);
      }
    });
    EXPECT_EQ(Receive(a, 6, MSG_WAITALL), "123456");
  });
}

}  // namespace
}  // namespace redoubt::hostinet
