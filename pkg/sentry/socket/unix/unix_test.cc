// unix(7), one rule after the other, and streams under many schedules.
#include "pkg/sentry/socket/unix/unix.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/un.h>

#include <climits>
#include <cstring>
#include <numeric>

#include "pkg/sentry/fsimpl/testing/world.h"
#include "pkg/sentry/pipe/pipe.h"
#include "pkg/sentry/socket/unix/rights.h"

namespace redoubt::unixsock {
namespace {

using fstest::Error;
using fstest::InFiber;
using fstest::World;
using socket::kNoWait;
using SocketPtr = RefPtr<socket::Socket>;

std::vector<std::byte> PathAddress(std::string_view path) {
  sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = {}};
  std::memcpy(a.sun_path, path.data(), path.size());
  auto bytes = std::as_bytes(std::span<const sockaddr_un, 1>(&a, 1));
  return {bytes.begin(), bytes.begin() + 2 + static_cast<ptrdiff_t>(path.size())};
}

// What a process would do, by one user.
struct Process {
  explicit Process(World& w) : w(w) {}
  World& w;
  RefPtr<kernel::PidNamespace> pid_ns = MakeRef<kernel::PidNamespace>(nullptr);
  RefPtr<kernel::Pid> pid = NewPid();
  RefPtr<kernel::Pid> NewPid() const { return *pid_ns->Allocate(); }
  uint64_t descriptor_limit = 1024;
  socket::Caller caller() const {
    return {.creds = *w.creds,
            .pid = pid.get(),
            .root = w.root_path,
            .cwd = w.root_path,
            .descriptor_limit = descriptor_limit,
            .network_space = &w};
  }
  SocketPtr Make(int type, int flags = 0) const { return *UnixFamily().Create(caller(), type, 0, flags); }
  std::pair<SocketPtr, SocketPtr> Pair(int type) const { return *UnixFamily().CreatePair(caller(), type, 0, 0); }
  int Bind(const SocketPtr& s, std::string_view name) const { return Error(s->Bind(caller(), PathAddress(name))); }
  int Connect(const SocketPtr& s, std::string_view name, fiber::Time deadline = kNoWait) const {
    return Error(s->Connect(caller(), PathAddress(name), deadline));
  }
  SocketPtr Listener(std::string_view name, int type = SOCK_STREAM, int backlog = 5) const {
    SocketPtr s = Make(type);
    EXPECT_EQ(Bind(s, name), 0);
    EXPECT_EQ(Error(s->Listen(caller(), backlog)), 0);
    return s;
  }
  // The number of bytes, or -errno.
  int64_t Send(const SocketPtr& s, std::string data, int flags = 0, fiber::Time deadline = kNoWait,
               std::vector<RefPtr<vfs::FileDescription>> files = {}, std::string_view to = {}) const {
    BufferIo io(std::as_writable_bytes(std::span(data)));
    std::vector<std::byte> address;
    if (!to.empty()) address = PathAddress(to);
    socket::OutMessage m{.data = IoSequence(io, 0, data.size()), .to = address, .files = std::move(files), .creds = {}};
    Result<size_t> n = s->Send(caller(), m, flags, deadline);
    return n ? static_cast<int64_t>(*n) : -n.error().value();
  }
  // The data, or "error N".
  static std::string Receive(const SocketPtr& s, int flags = 0, size_t room = 1000, fiber::Time deadline = kNoWait,
                             socket::InMessage* out = nullptr) {
    std::string data(room, '\0');
    BufferIo io(std::as_writable_bytes(std::span(data)));
    socket::InMessage m{.data = IoSequence(io, 0, room), .want_from = true, .from = {}, .files = {}, .creds = {}};
    Result<size_t> n = s->Receive(m, flags, deadline);
    if (out != nullptr) *out = std::move(m);
    if (!n) return "error " + std::to_string(n.error().value());
    data.resize(std::min(*n, room));
    return data;
  }
};

void WithProcess(const std::function<void(Process&)>& body, uint64_t seed = 1) {
  InFiber(
      [&] {
        World w;
        Process p(w);
        body(p);
      },
      seed);
}

std::string Failure(int error) { return "error " + std::to_string(error); }

TEST(Unix, StreamsHaveNoBoundaries) {
  WithProcess([](Process& p) {
    auto [a, b] = p.Pair(SOCK_STREAM);
    EXPECT_EQ(p.Receive(b), Failure(EAGAIN));
    EXPECT_EQ(p.Send(a, "hello "), 6);
    EXPECT_EQ(p.Send(a, "world"), 5);
    EXPECT_EQ(p.Receive(b, MSG_PEEK), "hello world");
    EXPECT_EQ(p.Receive(b, 0, 4), "hell");
    EXPECT_EQ(p.Receive(b), "o world");
    EXPECT_EQ(p.Receive(b), Failure(EAGAIN));
    EXPECT_EQ(p.Send(b, "back"), 4);
    EXPECT_EQ(World::Read(*a), "back");
    EXPECT_EQ(World::Write(*a, "w"), 1);
    EXPECT_EQ(p.Receive(b), "w");
  });
}

TEST(Unix, PacketsHaveBoundaries) {
  for (int type : {SOCK_DGRAM, SOCK_SEQPACKET}) {
    WithProcess([type](Process& p) {
      auto [a, b] = p.Pair(type);
      EXPECT_EQ(p.Send(a, "one"), 3);
      EXPECT_EQ(p.Send(a, ""), 0);
      EXPECT_EQ(p.Send(a, "three"), 5);
      EXPECT_EQ(p.Receive(b, MSG_PEEK), "one");
      EXPECT_EQ(p.Receive(b), "one");
      EXPECT_EQ(p.Receive(b), "");
      socket::InMessage m;
      EXPECT_EQ(p.Receive(b, 0, 2, kNoWait, &m), "th");
      EXPECT_EQ(m.flags, MSG_TRUNC);
      EXPECT_EQ(p.Receive(b), Failure(EAGAIN));
      EXPECT_EQ(p.Send(a, "abcd"), 4);
      BufferIo none({});
      socket::InMessage probe{.data = IoSequence(none, 0, 0), .from = {}, .files = {}, .creds = {}};
      EXPECT_EQ(*b->Receive(probe, MSG_PEEK | MSG_TRUNC, kNoWait), 4u);
      EXPECT_EQ(p.Send(a, std::string(300000, 'x')), -EMSGSIZE);
    });
  }
}

TEST(Unix, ListenConnectAccept) {
  for (int type : {SOCK_STREAM, SOCK_SEQPACKET}) {
    WithProcess([type](Process& p) {
      SocketPtr l = p.Make(type);
      EXPECT_EQ(Error(l->Listen(p.caller(), 1)), EINVAL) << "it has no name";
      EXPECT_EQ(Error(l->Accept(p.caller(), 0, kNoWait)), EINVAL);
      ASSERT_EQ(p.Bind(l, "/s"), 0);
      EXPECT_EQ(p.Bind(l, "/s2"), EINVAL);
      EXPECT_EQ(p.Bind(p.Make(type), "/s"), EADDRINUSE);
      EXPECT_EQ(p.Connect(p.Make(type), "/s"), ECONNREFUSED);
      ASSERT_TRUE(l->Listen(p.caller(), 1));
      EXPECT_EQ(Error(l->Accept(p.caller(), 0, kNoWait)), EAGAIN);
      SocketPtr c = p.Make(type);
      EXPECT_EQ(p.Send(c, "x"), -ENOTCONN);
      EXPECT_EQ(Error(c->PeerName()), ENOTCONN);
      ASSERT_EQ(p.Connect(c, "/s"), 0);
      EXPECT_EQ(p.Connect(c, "/s"), EISCONN);
      EXPECT_EQ(p.Send(c, "early"), 5);
      EXPECT_TRUE(l->Readiness(waiter::kIn));
      SocketPtr s = *l->Accept(p.caller(), O_NONBLOCK, kNoWait);
      EXPECT_TRUE(s->nonblocking());
      EXPECT_EQ(p.Receive(s), "early");
      EXPECT_EQ(*s->LocalName(), *l->LocalName());
      EXPECT_EQ(c->PeerName()->size(), 2u + 2 + 1);
      EXPECT_EQ(s->PeerName()->size(), 2u);
      EXPECT_EQ(p.Send(s, "hi"), 2);
      EXPECT_EQ(p.Receive(c), "hi");
      EXPECT_EQ(Error(c->Accept(p.caller(), 0, kNoWait)), EINVAL);
      EXPECT_EQ(Error(p.Make(SOCK_DGRAM)->Accept(p.caller(), 0, kNoWait)), EOPNOTSUPP);
      EXPECT_EQ(Error(p.Make(SOCK_DGRAM)->Listen(p.caller(), 0)), EOPNOTSUPP);
    });
  }
}

TEST(Unix, ConnectErrors) {
  WithProcess([](Process& p) {
    SocketPtr l = p.Listener("/s");
    ASSERT_EQ(p.w.Touch("/plain"), 0);
    EXPECT_EQ(p.Connect(p.Make(SOCK_STREAM), "/none"), ENOENT);
    EXPECT_EQ(p.Connect(p.Make(SOCK_STREAM), "/plain"), ECONNREFUSED);
    EXPECT_EQ(p.Connect(p.Make(SOCK_DGRAM), "/s"), EPROTOTYPE);
    EXPECT_EQ(p.Connect(p.Make(SOCK_STREAM), std::string_view("\0none", 5)), ECONNREFUSED);
    EXPECT_EQ(Error(p.Make(SOCK_STREAM)->Connect(p.caller(), {}, kNoWait)), EINVAL);
    SocketPtr c = p.Make(SOCK_STREAM);
    l->Listen(p.caller(), 0).value();
    EXPECT_EQ(p.Connect(c, "/s"), 0);
    EXPECT_EQ(p.Connect(p.Make(SOCK_STREAM), "/s"), EAGAIN) << "the backlog is full";
    l.reset();
    EXPECT_EQ(p.Receive(c), Failure(ECONNRESET)) << "never accepted";
    EXPECT_EQ(p.Receive(c), "");
    EXPECT_EQ(p.Send(c, "x"), -EPIPE);
    EXPECT_EQ(p.Connect(p.Make(SOCK_STREAM), "/s"), ECONNREFUSED) << "the node is still there";
    p.w.BecomeUser(5, 5);
    EXPECT_EQ(p.Connect(p.Make(SOCK_STREAM), "/s"), EACCES);
  });
}

TEST(Unix, ConnectWaitsForTheBacklog) {
  WithProcess([](Process& p) {
    SocketPtr l = p.Listener("/s", SOCK_STREAM, 0);
    SocketPtr first = p.Make(SOCK_STREAM), second = p.Make(SOCK_STREAM);
    ASSERT_EQ(p.Connect(first, "/s"), 0);
    EXPECT_EQ(p.Connect(second, "/s", fiber::Now() + 1000), EAGAIN);
    bool connected = false;
    fiber::CurrentExecutor()->Spawn([&] {
      EXPECT_EQ(p.Connect(second, "/s", fiber::kForever), 0);
      connected = true;
    });
    for (int i = 0; i < 10; i++) fiber::Yield();
    EXPECT_FALSE(connected);
    EXPECT_TRUE(l->Accept(p.caller(), 0, kNoWait));
    EXPECT_TRUE(l->Accept(p.caller(), 0, fiber::kForever));
    while (!connected) fiber::Yield();
  });
}

TEST(Unix, AbstractNamesAndAutobind) {
  WithProcess([](Process& p) {
    const std::string_view name("\0a\0b", 4);
    SocketPtr l = p.Listener(name);
    EXPECT_EQ(p.Bind(p.Make(SOCK_STREAM), name), EADDRINUSE);
    EXPECT_EQ(p.Connect(p.Make(SOCK_STREAM), name), 0);
    EXPECT_EQ(l->LocalName()->size(), 2u + 4);
    SocketPtr accepted = *l->Accept(p.caller(), 0, kNoWait);
    accepted.reset();
    EXPECT_EQ(p.Connect(p.Make(SOCK_STREAM), name), 0) << "an accepted socket does not own the name";
    World elsewhere;
    Process other(elsewhere);
    EXPECT_EQ(other.Connect(other.Make(SOCK_STREAM), name), ECONNREFUSED);
    l.reset();
    EXPECT_EQ(p.Connect(p.Make(SOCK_STREAM), name), ECONNREFUSED);
    SocketPtr s = p.Make(SOCK_DGRAM);
    EXPECT_EQ(p.Bind(s, ""), 0);
    socket::AddressBytes automatic = *s->LocalName();
    EXPECT_EQ(automatic.size(), 2u + 6);
    EXPECT_EQ(automatic[2], std::byte{0});
    EXPECT_EQ(Error(p.Make(SOCK_DGRAM)->Connect(p.caller(), automatic, kNoWait)), 0);
  });
}

TEST(Unix, Datagrams) {
  WithProcess([](Process& p) {
    SocketPtr server = p.Make(SOCK_DGRAM), client = p.Make(SOCK_DGRAM);
    ASSERT_EQ(p.Bind(server, "/server"), 0);
    ASSERT_EQ(p.Bind(client, "/client"), 0);
    EXPECT_EQ(p.Send(client, "x"), -ENOTCONN);
    EXPECT_EQ(p.Send(client, "to", 0, kNoWait, {}, "/server"), 2);
    socket::InMessage m;
    EXPECT_EQ(p.Receive(server, 0, 10, kNoWait, &m), "to");
    EXPECT_EQ(m.from, *client->LocalName());
    ASSERT_EQ(p.Connect(client, "/server"), 0);
    EXPECT_EQ(p.Send(client, "again"), 5);
    EXPECT_EQ(p.Receive(server), "again");
    // Connected to another: takes nothing from a third.
    SocketPtr third = p.Make(SOCK_DGRAM);
    EXPECT_EQ(p.Connect(third, "/client"), EPERM);
    EXPECT_EQ(p.Send(third, "x", 0, kNoWait, {}, "/client"), -EPERM);
    server.reset();
    EXPECT_EQ(p.Send(client, "x"), -ECONNREFUSED);
    EXPECT_EQ(p.Send(client, "x"), -ENOTCONN);
    EXPECT_EQ(p.Send(client, "x", 0, kNoWait, {}, "/server"), -ECONNREFUSED);
    const sa_family_t unspecified = AF_UNSPEC;
    EXPECT_EQ(Error(client->Connect(p.caller(), std::as_bytes(std::span(&unspecified, 1)), kNoWait)), 0);
    EXPECT_EQ(p.Send(third, "now", 0, kNoWait, {}, "/client"), 3);
  });
}

TEST(Unix, AFullDatagramSocketMakesSendersWait) {
  WithProcess([](Process& p) {
    SocketPtr server = p.Make(SOCK_DGRAM), client = p.Make(SOCK_DGRAM), other = p.Make(SOCK_DGRAM);
    ASSERT_EQ(p.Bind(server, "/s"), 0);
    ASSERT_EQ(p.Connect(client, "/s"), 0);
    int sent = 0;
    while (p.Send(client, "x") == 1) sent++;
    EXPECT_GE(sent, 10);
    EXPECT_EQ(p.Send(client, "x"), -EAGAIN);
    EXPECT_EQ(client->Readiness(waiter::kOut), 0u);
    int done = 0;
    auto wait_and_send = [&](const SocketPtr& s, std::string_view to) {
      EXPECT_EQ(p.Send(s, "y", 0, fiber::kForever, {}, to), 1);
      done++;
    };
    fiber::CurrentExecutor()->Spawn([&] { wait_and_send(client, ""); });
    fiber::CurrentExecutor()->Spawn([&] { wait_and_send(other, "/s"); });
    for (int i = 0; i < 10; i++) fiber::Yield();
    EXPECT_EQ(done, 0);
    for (int i = 0; i < sent + 2; i++) EXPECT_NE(p.Receive(server, 0, 9, fiber::kForever), "");
    while (done < 2) fiber::Yield();
    EXPECT_EQ(client->Readiness(waiter::kOut), waiter::kOut);
  });
}

TEST(Unix, ShutdownAndClose) {
  WithProcess([](Process& p) {
    auto [a, b] = p.Pair(SOCK_STREAM);
    EXPECT_EQ(Error(a->Shutdown(7)), EINVAL);
    EXPECT_EQ(p.Send(a, "last"), 4);
    ASSERT_TRUE(a->Shutdown(SHUT_WR));
    EXPECT_EQ(p.Send(a, "x"), -EPIPE);
    const waiter::EventMask all = waiter::kIn | waiter::kOut | waiter::kHup | waiter::kRdHup;
    EXPECT_EQ(b->Readiness(all), waiter::kIn | waiter::kOut | waiter::kRdHup);
    EXPECT_EQ(p.Receive(b), "last");
    EXPECT_EQ(p.Receive(b), "");
    EXPECT_EQ(p.Send(b, "other way"), 9);
    EXPECT_EQ(p.Receive(a), "other way");
    b.reset();
    EXPECT_EQ(a->Readiness(all), all);
    EXPECT_EQ(p.Receive(a), "");

    auto [c, d] = p.Pair(SOCK_STREAM);
    EXPECT_EQ(p.Send(c, "unread"), 6);
    EXPECT_EQ(p.Send(d, "for c"), 5);
    d.reset();
    EXPECT_EQ(p.Receive(c), "for c");
    EXPECT_EQ(p.Receive(c), Failure(ECONNRESET));
    EXPECT_EQ(p.Receive(c), "");
    EXPECT_EQ(p.Send(c, "x"), -EPIPE);

    auto [e, f] = p.Pair(SOCK_STREAM);
    ASSERT_TRUE(e->Shutdown(SHUT_RD));
    EXPECT_EQ(p.Send(f, "x"), -EPIPE);
    EXPECT_EQ(p.Receive(e), "");
    EXPECT_EQ(p.Make(SOCK_STREAM)->Readiness(all), waiter::kOut | waiter::kHup);
  });
}

TEST(Unix, Options) {
  WithProcess([](Process& p) {
    auto [a, b] = p.Pair(SOCK_SEQPACKET);
    auto get = [&](int name) {
      auto bytes = *a->GetOption(p.caller(), SOL_SOCKET, name);
      int value;
      std::memcpy(&value, bytes.data(), sizeof(value));
      return value;
    };
    auto set = [&](int name, int value) {
      return Error(a->SetOption(p.caller(), SOL_SOCKET, name, std::as_bytes(std::span(&value, 1))));
    };
    EXPECT_EQ(get(SO_TYPE), SOCK_SEQPACKET);
    EXPECT_EQ(get(SO_DOMAIN), AF_UNIX);
    EXPECT_EQ(get(SO_PROTOCOL), 0);
    EXPECT_EQ(get(SO_ERROR), 0);
    EXPECT_EQ(get(SO_ACCEPTCONN), 0);
    EXPECT_EQ(get(SO_SNDBUF), 212992);
    EXPECT_EQ(set(SO_SNDBUF, 10000), 0);
    EXPECT_EQ(get(SO_SNDBUF), 20000);
    EXPECT_EQ(set(SO_SNDBUF, 1), 0);
    EXPECT_EQ(get(SO_SNDBUF), 4608);
    EXPECT_EQ(p.Send(a, std::string(5000, 'x')), -EMSGSIZE);
    EXPECT_EQ(set(SO_PASSCRED, 1), 0);
    EXPECT_EQ(get(SO_PASSCRED), 1);
    EXPECT_EQ(set(SO_TYPE, 1), ENOPROTOOPT);
    EXPECT_EQ(set(9999, 1), ENOPROTOOPT);
    EXPECT_EQ(Error(a->SetOption(p.caller(), SOL_SOCKET, SO_PASSCRED, {})), EINVAL);
    EXPECT_EQ(Error(a->GetOption(p.caller(), IPPROTO_TCP, 1)), EOPNOTSUPP);
    EXPECT_EQ(Error(UnixFamily().Create(p.caller(), SOCK_STREAM, 17, 0)), EPROTONOSUPPORT);
    EXPECT_EQ(Error(UnixFamily().Create(p.caller(), SOCK_RDM, 0, 0)), ESOCKTNOSUPPORT);
  });
}

TEST(Unix, TimeOuts) {
  WithProcess([](Process& p) {
    auto [a, b] = p.Pair(SOCK_STREAM);
    timeval tv = {.tv_sec = 2, .tv_usec = 0};
    ASSERT_TRUE(a->SetOption(p.caller(), SOL_SOCKET, SO_RCVTIMEO, std::as_bytes(std::span(&tv, 1))));
    const fiber::Time before = fiber::Now();
    EXPECT_EQ(p.Receive(a, 0, 10, a->ReceiveDeadline(0)), Failure(EAGAIN));
    EXPECT_EQ(fiber::Now() - before, 2'000'000'000);
    EXPECT_EQ(a->ReceiveDeadline(MSG_DONTWAIT), kNoWait);
    EXPECT_EQ(a->SendDeadline(0), fiber::kForever);
    tv.tv_usec = 1'000'000;
    EXPECT_EQ(Error(a->SetOption(p.caller(), SOL_SOCKET, SO_SNDTIMEO, std::as_bytes(std::span(&tv, 1)))), EDOM);
  });
}

TEST(Unix, QueueSizes) {
  WithProcess([](Process& p) {
    auto ask = [](const SocketPtr& s, uint32_t command) {
      int32_t value = -1;
      BufferIo io(std::as_writable_bytes(std::span(&value, 1)));
      Result<uint64_t> r = s->Ioctl(io, command, 0);
      return r ? value : -r.error().value();
    };
    auto [a, b] = p.Pair(SOCK_STREAM);
    p.Send(a, "12345");
    p.Send(a, "678");
    EXPECT_EQ(ask(b, FIONREAD), 8);
    EXPECT_EQ(ask(a, SIOCOUTQ), 8);
    p.Receive(b, 0, 6);
    EXPECT_EQ(ask(b, FIONREAD), 2);
    auto [c, d] = p.Pair(SOCK_DGRAM);
    p.Send(c, "12345");
    p.Send(c, "678");
    EXPECT_EQ(ask(d, FIONREAD), 5);
    EXPECT_EQ(ask(p.Listener("/s"), FIONREAD), -EINVAL);
    EXPECT_EQ(ask(a, 0x1234), -ENOTTY);
  });
}

TEST(Unix, Credentials) {
  WithProcess([](Process& p) {
    auto [a, b] = p.Pair(SOCK_STREAM);
    const int on = 1;
    ASSERT_TRUE(b->SetOption(p.caller(), SOL_SOCKET, SO_PASSCRED, std::as_bytes(std::span(&on, 1))));
    p.Send(a, "one");
    const RefPtr<kernel::Pid> first = std::exchange(p.pid, p.NewPid());
    p.Send(a, "two");
    socket::InMessage m;
    EXPECT_EQ(p.Receive(b, 0, 100, kNoWait, &m), "one") << "bytes of two senders are not mixed";
    ASSERT_TRUE(m.creds);
    EXPECT_EQ(m.creds->pid, first);
    EXPECT_EQ(p.Receive(b, 0, 100, kNoWait, &m), "two");
    EXPECT_EQ(m.creds->pid, p.pid);
    p.Send(b, "no creds wanted");
    p.Receive(a, 0, 100, kNoWait, &m);
    EXPECT_FALSE(m.creds);

    const RefPtr<kernel::Pid> listener = p.pid = p.NewPid();
    SocketPtr l = p.Listener("/s");
    const RefPtr<kernel::Pid> client = p.pid = p.NewPid();
    SocketPtr c = p.Make(SOCK_STREAM);
    EXPECT_EQ(p.Connect(c, "/s"), 0);
    auto peer = [&](const SocketPtr& s) {
      ucred cred;
      std::memcpy(&cred, s->GetOption(p.caller(), SOL_SOCKET, SO_PEERCRED)->data(), sizeof(cred));
      return cred;
    };
    EXPECT_EQ(peer(c).pid, listener->number());
    EXPECT_EQ(peer(*l->Accept(p.caller(), 0, kNoWait)).pid, client->number());
    EXPECT_EQ(peer(p.Make(SOCK_STREAM)).uid, UINT32_MAX);
    // Another PID namespace has its own numbers, and does not see those outside.
    p.pid_ns = MakeRef<kernel::PidNamespace>(p.pid_ns);
    p.pid = p.NewPid();
    EXPECT_EQ(peer(c).pid, 0);
    SocketPtr inner = p.Make(SOCK_STREAM);
    EXPECT_EQ(p.Connect(inner, "/s"), 0);
    SocketPtr accepted = *l->Accept(p.caller(), 0, kNoWait);
    EXPECT_EQ(peer(accepted).pid, 1);
    const int seen_outside = p.pid->root_number();
    p.pid = client;
    EXPECT_EQ(peer(accepted).pid, seen_outside);
  });
}

TEST(Unix, DescriptorsTravel) {
  for (int type : {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET}) {
    WithProcess([type](Process& p) {
      auto [a, b] = p.Pair(type);
      auto [reader, writer] = *pipe::MakePipe(0, *p.w.creds);
      EXPECT_EQ(p.Send(a, "before"), 6);
      EXPECT_EQ(p.Send(a, "fd", 0, kNoWait, {writer}), 2);
      EXPECT_EQ(p.Send(a, "after"), 5);
      writer.reset();
      socket::InMessage peeked, m;
      if (type == SOCK_STREAM) {
        EXPECT_EQ(p.Receive(b, MSG_PEEK, 100, kNoWait, &peeked), "beforefd");
        EXPECT_EQ(p.Receive(b, 0, 100, kNoWait, &m), "beforefd") << "descriptors end what is received at once";
      } else {
        EXPECT_EQ(p.Receive(b), "before");
        EXPECT_EQ(p.Receive(b, MSG_PEEK, 100, kNoWait, &peeked), "fd");
        EXPECT_EQ(p.Receive(b, 0, 100, kNoWait, &m), "fd");
      }
      ASSERT_EQ(m.files.size(), 1u);
      ASSERT_EQ(peeked.files.size(), 1u);
      EXPECT_EQ(p.Receive(b), "after");
      EXPECT_EQ(World::Write(*m.files[0], "through"), 7);
      EXPECT_EQ(World::Read(*reader), "through");
      m.files.clear();
      peeked.files.clear();
      EXPECT_EQ(World::Read(*reader), "");
      // read(2) closes them, and so does the end of a socket with messages in it.
      auto [reader2, writer2] = *pipe::MakePipe(0, *p.w.creds);
      p.Send(a, "x", 0, kNoWait, {writer2});
      p.Send(a, "y", 0, kNoWait, {writer2});
      writer2.reset();
      EXPECT_EQ(World::Read(*b, 1), "x");
      EXPECT_EQ(World::Read(*reader2), "error 11");
      b.reset();
      EXPECT_EQ(World::Read(*reader2), "");
    });
  }
}

int SetPeekOffset(const Process& p, const SocketPtr& s, int offset) {
  return Error(s->SetOption(p.caller(), SOL_SOCKET, SO_PEEK_OFF, socket::OptionBytes(offset)));
}
int PeekOffsetOf(const Process& p, const SocketPtr& s) {
  return *socket::IntOption(*s->GetOption(p.caller(), SOL_SOCKET, SO_PEEK_OFF));
}

TEST(Unix, PeekingGoesOnInAStream) {
  WithProcess([](Process& p) {
    auto [a, b] = p.Pair(SOCK_STREAM);
    EXPECT_EQ(PeekOffsetOf(p, b), -1);
    EXPECT_EQ(SetPeekOffset(p, b, 2), 0);
    EXPECT_EQ(p.Receive(b, MSG_PEEK), Failure(EAGAIN));
    EXPECT_EQ(p.Send(a, "abc"), 3);
    EXPECT_EQ(p.Send(a, std::string(3000, 'x')), 3000);  // a piece of its own
    EXPECT_EQ(p.Send(a, "def"), 3);
    EXPECT_EQ(p.Receive(b, MSG_PEEK, 2), "cx");
    EXPECT_EQ(PeekOffsetOf(p, b), 4);
    EXPECT_EQ(p.Receive(b, MSG_PEEK, 0), "");
    EXPECT_EQ(p.Receive(b, 0, 3002), "abc" + std::string(2999, 'x'));
    EXPECT_EQ(PeekOffsetOf(p, b), 0);
    EXPECT_EQ(p.Receive(b, MSG_PEEK), "xdef");
    EXPECT_EQ(SetPeekOffset(p, b, INT_MAX), 0);
    EXPECT_EQ(p.Receive(b, MSG_PEEK), Failure(EAGAIN));
  });
}

TEST(Unix, PeekingGoesOnWithTheNextPacket) {
  WithProcess([](Process& p) {
    for (int type : {SOCK_DGRAM, SOCK_SEQPACKET}) {
      auto [a, b] = p.Pair(type);
      for (const char* s : {"abc", "", "de"}) EXPECT_GE(p.Send(a, s), 0);
      EXPECT_EQ(SetPeekOffset(p, b, 1), 0);
      EXPECT_EQ(p.Receive(b, MSG_PEEK), "bc");
      EXPECT_EQ(p.Receive(b, MSG_PEEK), "");
      EXPECT_EQ(p.Receive(b, MSG_PEEK, 1), "d");
      EXPECT_EQ(p.Receive(b, MSG_PEEK), "e");
      EXPECT_EQ(p.Receive(b, MSG_PEEK), Failure(EAGAIN));
      EXPECT_EQ(p.Receive(b, 0, 1), "a");
      EXPECT_EQ(PeekOffsetOf(p, b), 2);
    }
  });
}

TEST(Unix, DescriptorLimits) {
  WithProcess([](Process& p) {
    auto [a, b] = p.Pair(SOCK_STREAM);
    std::vector<RefPtr<vfs::FileDescription>> many(254, a);
    EXPECT_EQ(p.Send(a, "x", 0, kNoWait, many), -EINVAL);
    many.resize(253);
    EXPECT_EQ(p.Send(a, "x", 0, kNoWait, many), 1);
    p.w.BecomeUser(1, 1);
    p.descriptor_limit = 300;
    EXPECT_EQ(p.Send(a, "x", 0, kNoWait, many), -ETOOMANYREFS);
    EXPECT_EQ(p.Send(a, "x", 0, kNoWait, {a}), 1);
    b.reset();
    EXPECT_EQ(SocketsInFlight(), 0u);
  });
}

TEST(Unix, UnreachableSocketsAreCollected) {
  WithProcess([](Process& p) {
    auto [reader, writer] = *pipe::MakePipe(0, *p.w.creds);
    {
      // Each in the other's queue, and a listener with an unaccepted connection that holds itself.
      auto [a, b] = p.Pair(SOCK_STREAM);
      p.Send(a, "x", 0, kNoWait, {a, writer});
      p.Send(b, "x", 0, kNoWait, {b});
      SocketPtr l = p.Listener("/l");
      SocketPtr c = p.Make(SOCK_STREAM);
      ASSERT_EQ(p.Connect(c, "/l"), 0);
      p.Send(c, "x", 0, kNoWait, {l, c, writer});
    }
    writer.reset();
    EXPECT_EQ(World::Read(*reader), "error 11");
    // One that is reachable only through a message of a living socket stays.
    auto [alive, peer] = p.Pair(SOCK_STREAM);
    {
      auto [inner, inner_peer] = p.Pair(SOCK_STREAM);
      p.Send(inner_peer, "deep", 0, kNoWait, {inner_peer});
      p.Send(peer, "x", 0, kNoWait, {inner});
    }
    CollectGarbage();
    EXPECT_EQ(World::Read(*reader), "") << "the circles are gone";
    socket::InMessage m;
    EXPECT_EQ(p.Receive(alive, 0, 9, kNoWait, &m), "x");
    ASSERT_EQ(m.files.size(), 1u);
    EXPECT_EQ(World::Read(*m.files[0]), "deep");
    m.files.clear();
    EXPECT_EQ(SocketsInFlight(), 0u);
  });
}

TEST(Unix, DeepNestingEndsWithoutRecursion) {
  WithProcess([](Process& p) {
    SocketPtr last;
    for (int i = 0; i < 10000; i++) {
      auto [a, b] = p.Pair(SOCK_STREAM);
      if (last) {
        ASSERT_EQ(p.Send(a, "x", 0, kNoWait, {last}), 1);
      }
      last = b;
    }
    last.reset();
    EXPECT_EQ(SocketsInFlight(), 0u);
  });
}

// Producers and consumers of one stream: every byte once, in order, whatever the schedule and the sizes.
TEST(Unix, StreamsUnderManySchedules) {
  for (uint64_t seed = 1; seed <= 2000; seed++) {
    WithProcess(
        [seed](Process& p) {
          auto [a, b] = p.Pair(SOCK_STREAM);
          const int size = 4608 / 2;
          ASSERT_TRUE(a->SetOption(p.caller(), SOL_SOCKET, SO_SNDBUF, std::as_bytes(std::span(&size, 1))));
          std::string data(20000 + seed % 777, '\0');
          std::iota(data.begin(), data.end(), static_cast<char>(seed));
          std::string got;
          int running = 2;
          fiber::CurrentExecutor()->Spawn([&, s = a]() mutable {
            size_t at = 0;
            for (size_t i = 1; at < data.size(); i++) {
              const size_t n = std::min<size_t>(data.size() - at, i * seed % 5000 + 1);
              ASSERT_EQ(p.Send(s, data.substr(at, n), 0, fiber::kForever), static_cast<int64_t>(n));
              at += n;
            }
            s.reset();
            running--;
          });
          a.reset();
          fiber::CurrentExecutor()->Spawn([&] {
            for (size_t i = 1;; i++) {
              const int flags = i % 3 == 0 ? MSG_WAITALL : 0;
              std::string piece = Process::Receive(b, flags, i * (seed + 3) % 4000 + 1, fiber::kForever);
              if (piece.empty()) break;
              got += piece;
            }
            running--;
          });
          while (running > 0) fiber::Park(fiber::Now() + 1000);
          ASSERT_EQ(got, data) << "seed " << seed;
        },
        seed);
    if (HasFailure()) return;
  }
}

// Connecting, accepting, sending and closing at once: nobody waits for ever.
TEST(Unix, ConnectionsUnderManySchedules) {
  for (uint64_t seed = 1; seed <= 2000; seed++) {
    WithProcess(
        [seed](Process& p) {
          SocketPtr l = p.Listener("/s", SOCK_STREAM, static_cast<int>(seed % 3));
          int served = 0, failed = 0, running = 4;
          for (int i = 0; i < 4; i++) {
            fiber::CurrentExecutor()->Spawn([&, i] {
              SocketPtr c = p.Make(SOCK_STREAM);
              int error = p.Connect(c, "/s", fiber::kForever);
              if (error == 0) {
                p.Send(c, "request", 0, fiber::kForever);
                if (i % 2 == 0) c->Shutdown(SHUT_WR).value();
                if (Process::Receive(c, 0, 100, fiber::kForever) == "answer") {
                  served++;
                } else {
                  failed++;
                }
              } else {
                EXPECT_EQ(error, ECONNREFUSED);
                failed++;
              }
              running--;
            });
          }
          const int accepts = static_cast<int>(seed % 5);
          for (int i = 0; i < accepts && i < 4; i++) {
            SocketPtr s = *l->Accept(p.caller(), 0, fiber::kForever);
            EXPECT_EQ(Process::Receive(s, 0, 7, fiber::kForever), "request");
            p.Send(s, "answer", 0, fiber::kForever);
          }
          l.reset();
          while (running > 0) fiber::Park(fiber::Now() + 1000);
          EXPECT_EQ(served, std::min(accepts, 4)) << "seed " << seed;
          EXPECT_EQ(served + failed, 4) << "seed " << seed;
        },
        seed);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace redoubt::unixsock
