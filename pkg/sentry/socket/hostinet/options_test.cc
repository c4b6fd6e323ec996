#include "pkg/sentry/socket/hostinet/options.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>

#include <cstring>
#include <random>
#include <set>
#include <utility>

#include "test/fuzz/rounds.h"

namespace redoubt::hostinet {
namespace {

using socket::Control;

std::vector<std::byte> Bytes(size_t n) { return std::vector<std::byte>(n, std::byte{1}); }

int Encode(int family, Control control) {
  auto r = EncodeControl(family, std::span(&control, 1));
  return r ? static_cast<int>(r->size()) : -r.error().value();
}

TEST(HostOptions, EachStandsOnce) {
  std::set<std::pair<int, int>> seen;
  for (const Option& o : Options()) {
    EXPECT_TRUE(seen.emplace(o.level, o.name).second) << o.level << " " << o.name;
    EXPECT_LE(o.least, o.most);
    EXPECT_TRUE(o.most != 0 || o.got != 0);
    EXPECT_EQ(FindOption(o.level, o.name), &o);
  }
}

TEST(HostOptions, NoneHasAPointerOrChangesWhatLooksAtPackets) {
  for (int name : {SO_ATTACH_FILTER, SO_ATTACH_BPF, SO_ATTACH_REUSEPORT_CBPF, SO_ATTACH_REUSEPORT_EBPF,
                   SO_DETACH_FILTER, SO_ZEROCOPY, SO_TXTIME, SO_MARK, SO_BUSY_POLL}) {
    EXPECT_EQ(FindOption(SOL_SOCKET, name), nullptr) << name;
  }
  for (int name : {TCP_ULP, TCP_REPAIR, TCP_MD5SIG, TCP_ZEROCOPY_RECEIVE, TCP_FASTOPEN_KEY}) {
    EXPECT_EQ(FindOption(IPPROTO_TCP, name), nullptr) << name;
  }
  EXPECT_EQ(FindOption(IPPROTO_UDP, UDP_ENCAP), nullptr);
  EXPECT_EQ(FindOption(IPPROTO_IPV6, 1 /* IPV6_ADDRFORM */), nullptr);
  EXPECT_EQ(FindOption(IPPROTO_IPV6, IPV6_RTHDR), nullptr);
  EXPECT_EQ(FindOption(IPPROTO_IP, IP_OPTIONS), nullptr);
  EXPECT_EQ(FindOption(IPPROTO_RAW, 0), nullptr);
}

TEST(HostControl, WhatIsSentIsOfTheListAndOfItsSize) {
  EXPECT_EQ(Encode(AF_INET, {IPPROTO_IP, IP_TTL, Bytes(4)}), static_cast<int>(CMSG_SPACE(4)));
  EXPECT_EQ(Encode(AF_INET, {IPPROTO_IP, IP_TTL, Bytes(3)}), -EINVAL);
  EXPECT_EQ(Encode(AF_INET, {IPPROTO_IP, IP_TOS, Bytes(1)}), static_cast<int>(CMSG_SPACE(1)));
  EXPECT_EQ(Encode(AF_INET, {IPPROTO_IP, IP_PKTINFO, Bytes(sizeof(in_pktinfo))}),
            static_cast<int>(CMSG_SPACE(sizeof(in_pktinfo))));
  EXPECT_EQ(Encode(AF_INET, {IPPROTO_IP, IP_RETOPTS, Bytes(8)}), -EINVAL);
  EXPECT_EQ(Encode(AF_INET, {IPPROTO_UDP, UDP_SEGMENT, Bytes(2)}), static_cast<int>(CMSG_SPACE(2)));
  EXPECT_EQ(Encode(AF_INET6, {IPPROTO_IPV6, IPV6_HOPLIMIT, Bytes(4)}), static_cast<int>(CMSG_SPACE(4)));
  EXPECT_EQ(Encode(AF_INET6, {IPPROTO_IPV6, IPV6_RTHDR, Bytes(24)}), -EINVAL);
  // Of another protocol: Linux does not look at them.
  EXPECT_EQ(Encode(AF_INET, {IPPROTO_IPV6, IPV6_RTHDR, Bytes(24)}), 0);
  EXPECT_EQ(Encode(AF_INET, {IPPROTO_TCP, 1, Bytes(4)}), 0);
}

TEST(HostControl, DescriptorsNeverReachTheHost) {
  EXPECT_EQ(Encode(AF_INET, {SOL_SOCKET, SCM_RIGHTS, Bytes(4)}), 0);
  EXPECT_EQ(Encode(AF_INET6, {SOL_SOCKET, SCM_RIGHTS, Bytes(400)}), 0);
  EXPECT_EQ(Encode(AF_INET6, {SOL_SOCKET, SCM_CREDENTIALS, Bytes(12)}), 0);
  // Nor from it.
  std::vector<std::byte> bytes(CMSG_SPACE(4));
  const cmsghdr header{.cmsg_len = CMSG_LEN(4), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
  std::memcpy(bytes.data(), &header, sizeof(header));
  EXPECT_TRUE(DecodeControl(bytes).empty());
}

TEST(HostControl, WhatIsReceivedIsWhatWasSent) {
  const std::vector<Control> sent = {{IPPROTO_IP, IP_TTL, Bytes(4)},
                                     {IPPROTO_IP, IP_PKTINFO, Bytes(sizeof(in_pktinfo))},
                                     {IPPROTO_IP, IP_TOS, Bytes(1)}};
  const std::vector<std::byte> bytes = *EncodeControl(AF_INET, sent);
  const std::vector<Control> got = DecodeControl(bytes);
  ASSERT_EQ(got.size(), sent.size());
  for (size_t i = 0; i < got.size(); i++) {
    EXPECT_EQ(got[i].level, sent[i].level);
    EXPECT_EQ(got[i].type, sent[i].type);
    EXPECT_EQ(got[i].data, sent[i].data);
  }
}

TEST(HostControlFuzz, AnyBytesAreTakenApartWithinBounds) {
  fuzz::Rounds(2000, [](uint64_t seed) {
    std::mt19937_64 random(seed);
    std::vector<std::byte> bytes(random() % 200);
    for (std::byte& b : bytes) b = static_cast<std::byte>(random());
    // Headers that make sense more often than chance has it.
    for (size_t at = 0; at + sizeof(cmsghdr) <= bytes.size(); at += 8 * (1 + random() % 6)) {
      if (random() % 3 == 0) continue;
      const cmsghdr header{.cmsg_len = random() % 64,
                           .cmsg_level = random() % 2 ? int{IPPROTO_IP} : int{IPPROTO_IPV6},
                           .cmsg_type = static_cast<int>(random() % 80)};
      std::memcpy(bytes.data() + at, &header, sizeof(header));
    }
    size_t total = 0;
    const std::vector<Control> control = DecodeControl(bytes);
    for (const Control& c : control) total += sizeof(cmsghdr) + c.data.size();
    EXPECT_LE(total, bytes.size());
    for (int family : {AF_INET, AF_INET6}) {
      if (auto encoded = EncodeControl(family, control)) {
        EXPECT_LE(encoded->size(), bytes.size() + 8);
      }
    }
  });
}

}  // namespace
}  // namespace redoubt::hostinet
