// Requests of strangers: messages of every kind, truncated, mutated and put together at random, on a network that they
// may change. What comes back must be well-formed, and the network must still be one.
#include <gtest/gtest.h>
#include <linux/inet_diag.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "pkg/sentry/fsimpl/testing/world.h"
#include "pkg/sentry/socket/netlink/message.h"
#include "pkg/sentry/socket/netlink/netlink.h"
#include "pkg/sentry/socket/socket.h"
#include "test/fuzz/rounds.h"

namespace redoubt::netlink {
namespace {

using fstest::World;

class Fuzzer {
 public:
  Fuzzer(World& w, uint32_t seed) : w_(w), random_(seed) {
    for (int protocol : {NETLINK_ROUTE, NETLINK_SOCK_DIAG}) {
      sockets_.push_back(*(*socket::FindFamily(AF_NETLINK))->Create(caller(), SOCK_RAW, protocol, 0));
      for (int option : {NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK}) {
        const int on = static_cast<int>(random_() % 2);
        EXPECT_TRUE(sockets_.back()->SetOption(caller(), SOL_NETLINK, option, Writer::AsBytes(on)));
      }
    }
    // Hears of what the others do.
    listener_ = *(*socket::FindFamily(AF_NETLINK))->Create(caller(), SOCK_RAW, NETLINK_ROUTE, 0);
    for (int group : {RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE}) {
      EXPECT_TRUE(listener_->SetOption(caller(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, Writer::AsBytes(group)));
    }
  }

  void Step() {
    std::vector<std::byte> bytes;
    for (uint32_t n = 1 + random_() % 3; n > 0; n--) {
      std::vector<std::byte> one = Message();
      bytes.insert(bytes.end(), one.begin(), one.end());
    }
    if (random_() % 4 == 0) bytes.resize(random_() % (bytes.size() + 1));
    if (random_() % 2 == 0) {
      for (uint32_t n = random_() % 4; n > 0 && !bytes.empty(); n--) {
        bytes[random_() % bytes.size()] = static_cast<std::byte>(random_());
      }
    }
    socket::Socket& s = *sockets_[random_() % 8 == 0];
    BufferIo io{std::span(bytes)};
    socket::OutMessage m{.data = IoSequence(io, 0, bytes.size()), .to = {}, .files = {}, .creds = {}};
    EXPECT_TRUE(s.Send(caller(), m, 0, socket::kNoWait));
    CheckAnswers(s);
    CheckAnswers(*listener_);
  }

 private:
  socket::Caller caller() const { return {.creds = *w_.creds, .root = w_.root_path, .cwd = w_.root_path}; }

  std::vector<std::byte> Junk(size_t n) {
    std::vector<std::byte> b(n);
    for (std::byte& x : b) x = random_() % 3 == 0 ? std::byte{0} : static_cast<std::byte>(random_());
    return b;
  }
  // Mostly something that a request of its kind may have.
  std::vector<std::byte> Message() {
    static constexpr uint16_t kTypes[] = {RTM_NEWLINK, RTM_GETLINK,  RTM_SETLINK,  RTM_DELLINK,        RTM_NEWADDR,
                                          RTM_DELADDR, RTM_GETADDR,  RTM_NEWROUTE, RTM_DELROUTE,       RTM_GETROUTE,
                                          RTM_GETRULE, RTM_NEWNEIGH, RTM_DELNEIGH, SOCK_DIAG_BY_FAMILY};
    static constexpr size_t kHeaders[] = {
        1, 4, sizeof(ifinfomsg), sizeof(ifaddrmsg), sizeof(rtmsg), sizeof(inet_diag_req_v2)};
    const uint16_t type =
        random_() % 10 == 0 ? static_cast<uint16_t>(random_() % 120) : kTypes[random_() % std::size(kTypes)];
    Writer w;
    w.BeginBare(type, static_cast<uint16_t>(NLM_F_REQUEST | (random_() & 0xf04)), random_(), 0);
    std::vector<std::byte> header = Junk(kHeaders[random_() % std::size(kHeaders)]);
    static constexpr uint8_t kFamilies[] = {AF_UNSPEC, AF_INET, AF_INET6, AF_BRIDGE};
    header[0] = static_cast<std::byte>(kFamilies[random_() % 4]);
    if (header.size() >= 8) {
      // An index in most of them, and a prefix' length in others.
      if (random_() % 2 == 0) header[1] = static_cast<std::byte>(random_() % 33);
      const uint32_t index = random_() % 3;
      std::memcpy(header.data() + 4, &index, sizeof(index));
    }
    w.Put(header);
    for (uint32_t n = random_() % 5; n > 0; n--) {
      static constexpr size_t kSizes[] = {0, 1, 4, 4, 4, 6, 8, 16, 16, 16};
      std::vector<std::byte> value = Junk(kSizes[random_() % std::size(kSizes)]);
      if (value.size() == 4 && random_() % 2 == 0) {
        const uint32_t small = random_() % 3;
        std::memcpy(value.data(), &small, sizeof(small));
      }
      w.Attribute(static_cast<uint16_t>(random_() % 20), Bytes(value));
    }
    std::vector<std::vector<std::byte>> made = w.Take();
    return made.empty() ? std::vector<std::byte>() : made.front();
  }

  void CheckAnswers(socket::Socket& s) {
    std::vector<std::byte> buffer(1 << 17);
    while (true) {
      BufferIo io{std::span(buffer)};
      socket::InMessage m{.data = IoSequence(io, 0, buffer.size())};
      Result<size_t> n = s.Receive(m, 0, socket::kNoWait);
      if (!n && n.error() == Errno(ENOBUFS)) continue;
      if (!n) return;
      ASSERT_EQ(m.flags & MSG_TRUNC, 0);
      Bytes rest = Bytes(buffer).first(*n);
      while (!rest.empty()) {
        std::optional<netlink::Message> one = NextMessage(rest);
        ASSERT_TRUE(one) << "an answer that is no message";
        const uint16_t type = one->header.nlmsg_type;
        const size_t header = type == NLMSG_ERROR || type == NLMSG_DONE    ? one->payload.size()
                              : s.protocol() == NETLINK_SOCK_DIAG          ? sizeof(inet_diag_msg)
                              : type == RTM_NEWADDR || type == RTM_DELADDR ? sizeof(ifaddrmsg)
                              : type == RTM_NEWLINK || type == RTM_DELLINK ? sizeof(ifinfomsg)
                                                                           : sizeof(rtmsg);
        ASSERT_GE(one->payload.size(), header) << type;
        EXPECT_TRUE(Attributes::Parse(*one, header)) << type;
      }
    }
  }

  World& w_;
  std::mt19937 random_;
  std::vector<RefPtr<socket::Socket>> sockets_;
  RefPtr<socket::Socket> listener_;
};

// The network that the family names; it is let go once the family names the next.
struct Named {
  std::unique_ptr<fiber::Executor> executor = fiber::MakeDeterministicExecutor(1);
  std::unique_ptr<inetsock::Network> network = std::make_unique<inetsock::Network>(*executor);
};
inetsock::Network& NextNetwork() {
  static Named* current = nullptr;
  auto next = std::make_unique<Named>();
  RegisterFamily(*next->network);
  delete std::exchange(current, next.release());
  return *current->network;
}

TEST(NetlinkFuzz, AnswersAreWellFormedWhateverIsAsked) {
  fuzz::Rounds(40, [](uint64_t seed) {
    World w;
    inetsock::Network& network = NextNetwork();
    ASSERT_TRUE(network.AddLoopback());
    {
      Fuzzer fuzzer(w, static_cast<uint32_t>(seed));
      for (int i = 0; i < 1500; i++) fuzzer.Step();
    }
    EXPECT_EQ(network.stack().Interfaces().size(), 1u);
    EXPECT_LE(network.stack().routes().Entries().size(), netstack::RoutingTable::kMaxRoutes);
  });
  (void)NextNetwork();
}

// The parser alone, on bytes of no meaning.
TEST(NetlinkFuzz, TheParserStaysWithinItsBytes) {
  fuzz::Rounds(200'000, [](uint64_t seed) {
    std::mt19937 random(static_cast<uint32_t>(seed));
    std::vector<std::byte> bytes(random() % 64);
    for (std::byte& b : bytes) b = static_cast<std::byte>(random() % 5 == 0 ? random() : random() % 24);
    const size_t size = bytes.size();
    auto exact = std::make_unique<std::byte[]>(size);  // so that a sanitizer sees a byte too many
    std::copy(bytes.begin(), bytes.end(), exact.get());
    Bytes rest(exact.get(), size);
    while (std::optional<Message> m = NextMessage(rest)) {
      ASSERT_LE(m->whole.data() + m->whole.size(), exact.get() + size);
      (void)m->Header<rtmsg>();
      Result<Attributes> a = Attributes::Parse(*m, random() % 32);
      for (uint16_t type = 0; a && type < Attributes::kMax; type++) {
        Bytes value = a->Get(type);
        if (!value.empty()) {
          ASSERT_LE(value.data() + value.size(), exact.get() + size);
        }
        (void)a->Text(type);
        (void)a->ValueOr<uint32_t>(type, 0);
      }
    }
  });
}

TEST(NetlinkWriter, SplitsAtMessages) {
  Writer w;
  for (uint32_t i = 0; i < 100; i++) {
    w.Begin(RTM_NEWLINK, NLM_F_MULTI, i, 9, ifinfomsg{});
    w.Attribute(IFLA_ADDRESS, Bytes(std::vector<std::byte>(100 + i)));
  }
  uint32_t next = 0;
  for (const std::vector<std::byte>& d : w.Take()) {
    EXPECT_LE(d.size(), Writer::kDatagram);
    Bytes rest(d);
    while (std::optional<Message> m = NextMessage(rest)) {
      EXPECT_EQ(m->header.nlmsg_seq, next);
      Result<Attributes> a = Attributes::Parse(*m, sizeof(ifinfomsg));
      ASSERT_TRUE(a);
      EXPECT_EQ(a->Get(IFLA_ADDRESS).size(), 100 + next);
      next++;
    }
    EXPECT_TRUE(rest.empty());
  }
  EXPECT_EQ(next, 100u);
}

}  // namespace
}  // namespace redoubt::netlink
