// netlink(7), rtnetlink(7), sock_diag(7). What changes the network does so in a namespace of its own; where there are
// none, in a sandbox, in the sandbox's.
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/fib_rules.h>
#include <linux/inet_diag.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/packet_diag.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"

namespace redoubt::testing {
namespace {

std::string Bytes(const void* data, size_t size) { return std::string(static_cast<const char*>(data), size); }
template <typename T>
std::string Bytes(const T& value) {
  return Bytes(&value, sizeof(value));
}
template <typename T>
T Read(const std::string& bytes, size_t at = 0) {
  T value{};
  if (bytes.size() >= at + sizeof(value)) std::memcpy(&value, bytes.data() + at, sizeof(value));
  return value;
}
uint32_t Inode(int fd) {
  struct stat s{};
  EXPECT_EQ(fstat(fd, &s), 0);
  return static_cast<uint32_t>(s.st_ino);
}
std::string Padded(std::string s) {
  s.resize(NLMSG_ALIGN(s.size()));
  return s;
}
std::string Attribute(uint16_t type, const std::string& value) {
  return Padded(Bytes(rtattr{static_cast<unsigned short>(sizeof(rtattr) + value.size()), type}) + value);
}
std::string Ip4(const char* text) {
  in_addr a;
  inet_pton(AF_INET, text, &a);
  return Bytes(a);
}

struct Answer {
  nlmsghdr header{};
  std::string body;
  int error() const { return Read<nlmsgerr>(body).error; }
  std::map<int, std::string> attributes(size_t header_size) const {
    std::map<int, std::string> all;
    for (size_t at = NLMSG_ALIGN(header_size); at + sizeof(rtattr) <= body.size();) {
      auto a = Read<rtattr>(body, at);
      if (a.rta_len < sizeof(a) || at + a.rta_len > body.size()) break;
      all[a.rta_type & NLA_TYPE_MASK] = body.substr(at + sizeof(a), a.rta_len - sizeof(a));
      at += RTA_ALIGN(a.rta_len);
    }
    return all;
  }
};

class Netlink {
 public:
  explicit Netlink(int protocol = NETLINK_ROUTE, int type = SOCK_RAW)
      : fd(socket(AF_NETLINK, type | SOCK_CLOEXEC, protocol)) {
    timeval limit{.tv_sec = 10, .tv_usec = 0};
    setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  }

  std::string Message(uint16_t type, uint16_t flags, const std::string& body) {
    nlmsghdr h{.nlmsg_len = static_cast<uint32_t>(sizeof(h) + body.size()),
               .nlmsg_type = type,
               .nlmsg_flags = flags,
               .nlmsg_seq = ++sequence,
               .nlmsg_pid = 0};
    return Padded(Bytes(h) + body);
  }
  void Send(const std::string& bytes) {
    EXPECT_EQ(send(fd.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size())) << strerror(errno);
  }
  std::vector<Answer> Receive() {
    std::string buffer(32768, '\0');
    ssize_t n = recv(fd.get(), buffer.data(), buffer.size(), 0);
    std::vector<Answer> all;
    EXPECT_GE(n, 0) << strerror(errno);
    if (n < 0) return all;
    buffer.resize(static_cast<size_t>(n));
    for (size_t at = 0; at + sizeof(nlmsghdr) <= buffer.size();) {
      Answer a{.header = Read<nlmsghdr>(buffer, at), .body = {}};
      if (a.header.nlmsg_len < sizeof(nlmsghdr) || at + a.header.nlmsg_len > buffer.size()) {
        ADD_FAILURE() << "a malformed answer";
        break;
      }
      a.body = buffer.substr(at + sizeof(nlmsghdr), a.header.nlmsg_len - sizeof(nlmsghdr));
      at += NLMSG_ALIGN(a.header.nlmsg_len);
      all.push_back(std::move(a));
    }
    return all;
  }
  // All of a dump, without its end.
  std::vector<Answer> Dump(uint16_t type, const std::string& body) {
    Send(Message(type, NLM_F_REQUEST | NLM_F_DUMP, body));
    std::vector<Answer> all;
    for (int i = 0; i < 1000; i++) {
      std::vector<Answer> some = Receive();
      if (some.empty()) break;
      for (Answer& a : some) {
        EXPECT_EQ(a.header.nlmsg_seq, sequence);
        if (a.header.nlmsg_type == NLMSG_DONE) return all;
        EXPECT_NE(a.header.nlmsg_type, NLMSG_ERROR) << strerror(-a.error());
        if (a.header.nlmsg_type == NLMSG_ERROR) return all;
        EXPECT_NE(a.header.nlmsg_flags & NLM_F_MULTI, 0);
        all.push_back(std::move(a));
      }
    }
    ADD_FAILURE() << "a dump without an end";
    return all;
  }
  // The errno of the acknowledgement.
  int Do(uint16_t type, uint16_t flags, const std::string& body) {
    Send(Message(type, NLM_F_REQUEST | NLM_F_ACK | flags, body));
    for (const Answer& a : Receive()) {
      if (a.header.nlmsg_type == NLMSG_ERROR && a.header.nlmsg_seq == sequence) return -a.error();
    }
    return -1;
  }

  ScopedFd fd;
  uint32_t sequence = 100;
};

sockaddr_nl NameOf(const Netlink& n) {
  sockaddr_nl a{};
  socklen_t length = sizeof(a);
  EXPECT_EQ(getsockname(n.fd.get(), reinterpret_cast<sockaddr*>(&a), &length), 0);
  EXPECT_EQ(length, sizeof(a));
  EXPECT_EQ(a.nl_family, AF_NETLINK);
  return a;
}
int Bind(const Netlink& n, uint32_t pid, uint32_t groups) {
  sockaddr_nl a{};
  a.nl_family = AF_NETLINK;
  a.nl_pid = pid;
  a.nl_groups = groups;
  return bind(n.fd.get(), reinterpret_cast<sockaddr*>(&a), sizeof(a));
}
int SetOption(const Netlink& n, int option, int value) {
  return setsockopt(n.fd.get(), SOL_NETLINK, option, &value, sizeof(value));
}
int GetOption(const Netlink& n, int option) {
  int value = -1;
  socklen_t length = sizeof(value);
  return getsockopt(n.fd.get(), SOL_NETLINK, option, &value, &length) == 0 ? value : -errno;
}

int LoIndex() { return static_cast<int>(if_nametoindex("lo")); }
std::string LinkHeader(int index = 0, unsigned flags = 0, unsigned change = 0) {
  ifinfomsg m{};
  m.ifi_index = index;
  m.ifi_flags = flags;
  m.ifi_change = change;
  return Bytes(m);
}
std::string AddressBody(const char* address, uint8_t prefix, int index) {
  ifaddrmsg m{};
  m.ifa_family = AF_INET;
  m.ifa_prefixlen = prefix;
  m.ifa_index = static_cast<uint32_t>(index);
  return Bytes(m) + Attribute(IFA_LOCAL, Ip4(address)) + Attribute(IFA_ADDRESS, Ip4(address));
}

// In a child, in a network of its own with the loopback up. Where namespaces cannot be made there must be nothing but a
// loopback: then this is a sandbox.
void InOwnNetwork(const std::function<void()>& body) {
  EXPECT_EQ(RunChild([&] {
              if (unshare(CLONE_NEWNET) != 0) {
                struct if_nameindex* all = if_nameindex();
                bool only_lo =
                    all != nullptr && std::string(all[0].if_name ? all[0].if_name : "") == "lo" && all[1].if_index == 0;
                if (!only_lo) {
                  ADD_FAILURE() << "no network namespace can be made, and this is no sandbox";
                  return 1;
                }
              }
              Netlink n;
              EXPECT_EQ(n.Do(RTM_NEWLINK, 0, LinkHeader(LoIndex(), IFF_UP, IFF_UP)), 0);
              body();
              return ::testing::Test::HasFailure() ? 1 : 0;
            }),
            0);
}

TEST(Netlink, TypesAndProtocols) {
  for (int type : {SOCK_RAW, SOCK_DGRAM}) {
    for (int protocol : {NETLINK_ROUTE, NETLINK_SOCK_DIAG, NETLINK_KOBJECT_UEVENT}) {
      EXPECT_GE(Netlink(protocol, type).fd.get(), 0);
    }
  }
  EXPECT_THAT(socket(AF_NETLINK, SOCK_STREAM, NETLINK_ROUTE), SyscallFails(ESOCKTNOSUPPORT));
  EXPECT_THAT(socket(AF_NETLINK, SOCK_RAW, 31), SyscallFails(EPROTONOSUPPORT));
}

TEST(Netlink, TheFirstPortOfAProcessIsItsPid) {
  EXPECT_EQ(RunChild([] {
              Netlink first, second;
              EXPECT_EQ(NameOf(first).nl_pid, 0u);
              EXPECT_EQ(Bind(first, 0, 0), 0);
              EXPECT_EQ(NameOf(first).nl_pid, static_cast<uint32_t>(getpid()));
              EXPECT_EQ(Bind(second, 0, 0), 0);
              EXPECT_NE(NameOf(second).nl_pid, NameOf(first).nl_pid);
              EXPECT_NE(NameOf(second).nl_pid, 0u);
              Netlink third;
              EXPECT_THAT(Bind(third, NameOf(first).nl_pid, 0), SyscallFails(EADDRINUSE));
              // Bound: to another it cannot be.
              EXPECT_THAT(Bind(first, 12345, 0), SyscallFails(EINVAL));
              EXPECT_EQ(Bind(first, NameOf(first).nl_pid, 0), 0);
              return ::testing::Test::HasFailure() ? 1 : 0;
            }),
            0);
}

TEST(Netlink, AddressesAreChecked) {
  Netlink n;
  sockaddr_nl a{};
  a.nl_family = AF_INET;
  EXPECT_THAT(bind(n.fd.get(), reinterpret_cast<sockaddr*>(&a), sizeof(a)), SyscallFails(EINVAL));
  a.nl_family = AF_NETLINK;
  EXPECT_THAT(bind(n.fd.get(), reinterpret_cast<sockaddr*>(&a), sizeof(a) - 1), SyscallFails(EINVAL));
  EXPECT_THAT(listen(n.fd.get(), 1), SyscallFails(EOPNOTSUPP));
  EXPECT_THAT(accept(n.fd.get(), nullptr, nullptr), SyscallFails(EOPNOTSUPP));
}

TEST(Netlink, LinksAreDumped) {
  Netlink n;
  std::set<std::string> names;
  for (const Answer& a : n.Dump(RTM_GETLINK, Bytes(rtgenmsg{AF_UNSPEC}))) {
    ASSERT_EQ(a.header.nlmsg_type, RTM_NEWLINK);
    EXPECT_EQ(a.header.nlmsg_pid, NameOf(n).nl_pid);
    auto info = Read<ifinfomsg>(a.body);
    auto attributes = a.attributes(sizeof(info));
    std::string name = attributes[IFLA_IFNAME].c_str();
    names.insert(name);
    EXPECT_EQ(if_nametoindex(name.c_str()), static_cast<unsigned>(info.ifi_index));
    EXPECT_EQ(attributes[IFLA_ADDRESS].size(), attributes[IFLA_BROADCAST].size());
    EXPECT_GE(attributes[IFLA_STATS64].size(), sizeof(uint64_t) * 8);
    if (name != "lo") continue;
    EXPECT_EQ(info.ifi_type, 772);  // ARPHRD_LOOPBACK
    EXPECT_NE(info.ifi_flags & IFF_LOOPBACK, 0u);
    EXPECT_GE(Read<uint32_t>(attributes[IFLA_MTU]), 68u);
  }
  EXPECT_TRUE(names.contains("lo"));
}

TEST(Netlink, OneLinkByIndexOrName) {
  Netlink n;
  for (const std::string& body : {LinkHeader(LoIndex()), LinkHeader() + Attribute(IFLA_IFNAME, std::string("lo", 3))}) {
    n.Send(n.Message(RTM_GETLINK, NLM_F_REQUEST, body));
    std::vector<Answer> answers = n.Receive();
    ASSERT_EQ(answers.size(), 1u);
    ASSERT_EQ(answers[0].header.nlmsg_type, RTM_NEWLINK);
    EXPECT_EQ(answers[0].header.nlmsg_flags & NLM_F_MULTI, 0);
    EXPECT_EQ(Read<ifinfomsg>(answers[0].body).ifi_index, LoIndex());
  }
  EXPECT_EQ(n.Do(RTM_GETLINK, 0, LinkHeader(99999)), ENODEV);
  EXPECT_EQ(n.Do(RTM_GETLINK, 0, LinkHeader() + Attribute(IFLA_IFNAME, std::string("none", 5))), ENODEV);
  EXPECT_EQ(n.Do(RTM_GETLINK, 0, LinkHeader()), EINVAL);
}

TEST(Netlink, AddressesAreDumped) {
  Netlink n;
  bool loopback = false;
  for (const Answer& a : n.Dump(RTM_GETADDR, Bytes(rtgenmsg{AF_INET}))) {
    ASSERT_EQ(a.header.nlmsg_type, RTM_NEWADDR);
    auto info = Read<ifaddrmsg>(a.body);
    EXPECT_EQ(info.ifa_family, AF_INET);
    auto attributes = a.attributes(sizeof(info));
    if (attributes[IFA_LOCAL] != Ip4("127.0.0.1")) continue;
    loopback = true;
    EXPECT_EQ(info.ifa_prefixlen, 8);
    EXPECT_EQ(info.ifa_scope, RT_SCOPE_HOST);
    EXPECT_EQ(info.ifa_index, static_cast<uint32_t>(LoIndex()));
    EXPECT_NE(info.ifa_flags & IFA_F_PERMANENT, 0);
    EXPECT_STREQ(attributes[IFA_LABEL].c_str(), "lo");
    EXPECT_EQ(Read<ifa_cacheinfo>(attributes[IFA_CACHEINFO]).ifa_valid, 0xffffffffu);
  }
  EXPECT_TRUE(loopback);
}

TEST(Netlink, LibrariesFindTheLoopback) {
  ifaddrs* all = nullptr;
  ASSERT_EQ(getifaddrs(&all), 0);
  bool v4 = false;
  for (ifaddrs* i = all; i != nullptr; i = i->ifa_next) {
    if (std::string(i->ifa_name) == "lo" && i->ifa_addr != nullptr && i->ifa_addr->sa_family == AF_INET) {
      v4 |= reinterpret_cast<sockaddr_in*>(i->ifa_addr)->sin_addr.s_addr == htonl(INADDR_LOOPBACK);
    }
  }
  freeifaddrs(all);
  EXPECT_TRUE(v4);
  char name[IF_NAMESIZE];
  EXPECT_STREQ(if_indextoname(static_cast<unsigned>(LoIndex()), name), "lo");
}

TEST(Netlink, ARouteIsLookedUp) {
  Netlink n;
  rtmsg m{};
  m.rtm_family = AF_INET;
  m.rtm_dst_len = 32;
  n.Send(n.Message(RTM_GETROUTE, NLM_F_REQUEST, Bytes(m) + Attribute(RTA_DST, Ip4("127.0.0.1"))));
  std::vector<Answer> answers = n.Receive();
  ASSERT_EQ(answers.size(), 1u);
  ASSERT_EQ(answers[0].header.nlmsg_type, RTM_NEWROUTE);
  auto route = Read<rtmsg>(answers[0].body);
  EXPECT_EQ(route.rtm_type, RTN_LOCAL);
  EXPECT_EQ(route.rtm_dst_len, 32);
  auto attributes = answers[0].attributes(sizeof(route));
  EXPECT_EQ(Read<int>(attributes[RTA_OIF]), LoIndex());
  EXPECT_EQ(attributes[RTA_DST], Ip4("127.0.0.1"));
  EXPECT_EQ(attributes[RTA_PREFSRC], Ip4("127.0.0.1"));
}

TEST(Netlink, TheRulesThatAreThereFromTheStart) {
  Netlink n;
  std::set<uint32_t> tables;
  fib_rule_hdr header{};
  header.family = AF_INET;
  for (const Answer& a : n.Dump(RTM_GETRULE, Bytes(header))) {
    EXPECT_EQ(a.header.nlmsg_type, RTM_NEWRULE);
    tables.insert(Read<uint32_t>(a.attributes(sizeof(header))[FRA_TABLE]));
  }
  for (uint32_t table : {RT_TABLE_LOCAL, RT_TABLE_MAIN, RT_TABLE_DEFAULT}) EXPECT_TRUE(tables.contains(table)) << table;
}

TEST(Netlink, Acknowledgements) {
  Netlink n;
  // No request, but a receipt is wanted; and messages of netlink's own.
  for (uint16_t type : {uint16_t{RTM_GETLINK}, uint16_t{NLMSG_NOOP}}) {
    n.Send(n.Message(type, type == NLMSG_NOOP ? NLM_F_REQUEST | NLM_F_ACK : NLM_F_ACK, LinkHeader(LoIndex())));
    std::vector<Answer> answers = n.Receive();
    ASSERT_EQ(answers.size(), 1u);
    EXPECT_EQ(answers[0].header.nlmsg_type, NLMSG_ERROR);
    EXPECT_EQ(answers[0].error(), 0);
    EXPECT_EQ(Read<nlmsgerr>(answers[0].body).msg.nlmsg_seq, n.sequence);
  }
  EXPECT_EQ(n.Do(1000, 0, Bytes(rtgenmsg{AF_UNSPEC})), EOPNOTSUPP);
  // An error quotes the request.
  std::string request = n.Message(RTM_GETLINK, NLM_F_REQUEST, LinkHeader(99999));
  n.Send(request);
  Answer quoting = n.Receive().at(0);
  EXPECT_EQ(quoting.error(), -ENODEV);
  EXPECT_EQ(quoting.body.substr(sizeof(int)), request);
  // Or only its header.
  EXPECT_EQ(SetOption(n, NETLINK_CAP_ACK, 1), 0);
  n.Send(n.Message(RTM_GETLINK, NLM_F_REQUEST, LinkHeader(99999)));
  Answer capped = n.Receive().at(0);
  EXPECT_EQ(capped.body.size(), sizeof(nlmsgerr));
  EXPECT_NE(capped.header.nlmsg_flags & NLM_F_CAPPED, 0);
  // Several requests in one call, several answers.
  n.Send(n.Message(RTM_GETLINK, NLM_F_REQUEST, LinkHeader(LoIndex())) +
         n.Message(RTM_GETLINK, NLM_F_REQUEST, LinkHeader(LoIndex())));
  EXPECT_EQ(n.Receive().size(), 1u);
  EXPECT_EQ(n.Receive().size(), 1u);
}

TEST(Netlink, MalformedOnesAreNotAnswered) {
  Netlink n;
  std::string message = n.Message(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, Bytes(rtgenmsg{AF_UNSPEC}));
  for (uint32_t length : {0u, 15u, 1000u, 0xffffffffu}) {
    std::memcpy(message.data(), &length, sizeof(length));
    n.Send(message);
  }
  n.Send("short");
  char c;
  EXPECT_THAT(recv(n.fd.get(), &c, 1, MSG_DONTWAIT), SyscallFails(EAGAIN));
}

TEST(Netlink, WhatDoesNotFitIsCut) {
  Netlink n;
  n.Send(n.Message(RTM_GETLINK, NLM_F_REQUEST, LinkHeader(LoIndex())));
  char buffer[20];
  ssize_t whole = recv(n.fd.get(), buffer, sizeof(buffer), MSG_PEEK | MSG_TRUNC);
  EXPECT_GT(whole, 100);
  sockaddr_nl from{};
  iovec iov{buffer, sizeof(buffer)};
  msghdr m{};
  m.msg_name = &from;
  m.msg_namelen = sizeof(from);
  m.msg_iov = &iov;
  m.msg_iovlen = 1;
  EXPECT_EQ(recvmsg(n.fd.get(), &m, 0), static_cast<ssize_t>(sizeof(buffer)));
  EXPECT_NE(m.msg_flags & MSG_TRUNC, 0);
  EXPECT_EQ(from.nl_family, AF_NETLINK);
  EXPECT_EQ(from.nl_pid, 0u) << "the kernel";
  EXPECT_THAT(recv(n.fd.get(), buffer, sizeof(buffer), MSG_DONTWAIT), SyscallFails(EAGAIN));
}

TEST(Netlink, PollTellsOfAnswers) {
  Netlink n;
  pollfd p{n.fd.get(), POLLIN | POLLOUT, 0};
  ASSERT_EQ(poll(&p, 1, 0), 1);
  EXPECT_EQ(p.revents, POLLOUT);
  n.Send(n.Message(RTM_GETLINK, NLM_F_REQUEST, LinkHeader(LoIndex())));
  ASSERT_EQ(poll(&p, 1, 1000), 1);
  EXPECT_EQ(p.revents, POLLIN | POLLOUT);
}

TEST(Netlink, Options) {
  Netlink n;
  for (int option : {NETLINK_PKTINFO, NETLINK_NO_ENOBUFS, NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK,
                     NETLINK_BROADCAST_ERROR}) {
    EXPECT_EQ(GetOption(n, option), 0) << option;
    EXPECT_EQ(SetOption(n, option, 1), 0) << option;
    EXPECT_EQ(GetOption(n, option), 1) << option;
  }
  EXPECT_THAT(SetOption(n, 99, 1), SyscallFails(ENOPROTOOPT));
  EXPECT_EQ(GetOption(n, 99), -ENOPROTOOPT);
  EXPECT_THAT(SetOption(n, NETLINK_ADD_MEMBERSHIP, 0), SyscallFails(EINVAL));
  EXPECT_THAT(SetOption(n, NETLINK_ADD_MEMBERSHIP, 1000), SyscallFails(EINVAL));
  EXPECT_EQ(SetOption(n, NETLINK_ADD_MEMBERSHIP, RTNLGRP_LINK), 0);
  EXPECT_EQ(SetOption(n, NETLINK_ADD_MEMBERSHIP, RTNLGRP_IPV6_IFADDR), 0);
  EXPECT_EQ(NameOf(n).nl_groups, 1u << (RTNLGRP_LINK - 1) | 1u << (RTNLGRP_IPV6_IFADDR - 1));
  uint32_t groups[4] = {};
  socklen_t length = sizeof(groups);
  ASSERT_EQ(getsockopt(n.fd.get(), SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, groups, &length), 0);
  EXPECT_EQ(groups[0], NameOf(n).nl_groups);
  EXPECT_EQ(SetOption(n, NETLINK_DROP_MEMBERSHIP, RTNLGRP_LINK), 0);
  EXPECT_EQ(NameOf(n).nl_groups, 1u << (RTNLGRP_IPV6_IFADDR - 1));
}

TEST(Netlink, OnlyTheKernelIsThere) {
  sockaddr_nl a{};
  a.nl_family = AF_NETLINK;
  a.nl_pid = 0x7ffffff0;
  Netlink n;
  std::string message = n.Message(RTM_GETLINK, NLM_F_REQUEST, LinkHeader(LoIndex()));
  EXPECT_THAT(sendto(n.fd.get(), message.data(), message.size(), 0, reinterpret_cast<sockaddr*>(&a), sizeof(a)),
              SyscallFails(ECONNREFUSED));
  EXPECT_EQ(RunAsNobody([&] {
              Netlink own;
              EXPECT_THAT(
                  sendto(own.fd.get(), message.data(), message.size(), 0, reinterpret_cast<sockaddr*>(&a), sizeof(a)),
                  SyscallFails(EPERM));
            }),
            0);
}

TEST(Netlink, ChangesNeedTheCapability) {
  EXPECT_EQ(RunAsNobody([] {
              Netlink n;
              EXPECT_EQ(n.Do(RTM_NEWADDR, NLM_F_CREATE, AddressBody("192.0.2.9", 24, LoIndex())), EPERM);
              EXPECT_EQ(n.Do(RTM_DELADDR, 0, AddressBody("127.0.0.1", 8, LoIndex())), EPERM);
              EXPECT_EQ(n.Do(RTM_NEWLINK, 0, LinkHeader(LoIndex(), 0, IFF_UP)), EPERM);
              EXPECT_EQ(n.Dump(RTM_GETLINK, Bytes(rtgenmsg{AF_UNSPEC})).empty(), false);
            }),
            0);
}

TEST(Netlink, AddressesComeAndGo) {
  InOwnNetwork([] {
    Netlink n, listener;
    ASSERT_EQ(Bind(listener, 0, RTMGRP_IPV4_IFADDR), 0);
    EXPECT_EQ(n.Do(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, AddressBody("192.0.2.9", 32, LoIndex())), 0);
    EXPECT_EQ(n.Do(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, AddressBody("192.0.2.9", 32, LoIndex())), EEXIST);
    std::vector<Answer> heard = listener.Receive();
    ASSERT_EQ(heard.size(), 1u);
    EXPECT_EQ(heard[0].header.nlmsg_type, RTM_NEWADDR);
    EXPECT_EQ(heard[0].attributes(sizeof(ifaddrmsg))[IFA_LOCAL], Ip4("192.0.2.9"));
    // It is used.
    ScopedFd udp(socket(AF_INET, SOCK_DGRAM, 0));
    sockaddr_in a{};
    a.sin_family = AF_INET;
    std::memcpy(&a.sin_addr, Ip4("192.0.2.9").data(), 4);
    EXPECT_EQ(bind(udp.get(), reinterpret_cast<sockaddr*>(&a), sizeof(a)), 0);
    EXPECT_EQ(n.Do(RTM_DELADDR, 0, AddressBody("192.0.2.9", 32, LoIndex())), 0);
    EXPECT_EQ(n.Do(RTM_DELADDR, 0, AddressBody("192.0.2.9", 32, LoIndex())), EADDRNOTAVAIL);
    heard = listener.Receive();
    ASSERT_EQ(heard.size(), 1u);
    EXPECT_EQ(heard[0].header.nlmsg_type, RTM_DELADDR);
    EXPECT_EQ(n.Do(RTM_NEWADDR, NLM_F_CREATE, AddressBody("192.0.2.9", 24, 99999)), ENODEV);
  });
}

TEST(Netlink, LinksChange) {
  InOwnNetwork([] {
    Netlink n, listener;
    ASSERT_EQ(Bind(listener, 0, RTMGRP_LINK), 0);
    const uint32_t mtu = 1500;
    EXPECT_EQ(n.Do(RTM_NEWLINK, 0, LinkHeader(LoIndex()) + Attribute(IFLA_MTU, Bytes(mtu))), 0);
    std::vector<Answer> heard = listener.Receive();
    ASSERT_GE(heard.size(), 1u);
    EXPECT_EQ(heard[0].header.nlmsg_type, RTM_NEWLINK);
    EXPECT_EQ(Read<uint32_t>(heard[0].attributes(sizeof(ifinfomsg))[IFLA_MTU]), mtu);
    EXPECT_EQ(n.Do(RTM_NEWLINK, 0, LinkHeader(LoIndex(), 0, IFF_UP)), 0);
    n.Send(n.Message(RTM_GETLINK, NLM_F_REQUEST, LinkHeader(LoIndex())));
    EXPECT_EQ(Read<ifinfomsg>(n.Receive().at(0).body).ifi_flags & IFF_UP, 0u);
    EXPECT_EQ(n.Do(RTM_NEWLINK, 0, LinkHeader(LoIndex(), IFF_UP, IFF_UP)), 0);
    const uint32_t back = 65536;
    EXPECT_EQ(n.Do(RTM_NEWLINK, 0, LinkHeader(LoIndex()) + Attribute(IFLA_MTU, Bytes(back))), 0);
    EXPECT_EQ(n.Do(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, LinkHeader(LoIndex())), EEXIST);
  });
}

// netdevice(7)
TEST(Netlink, LinksChangeByIoctlToo) {
  InOwnNetwork([] {
    ScopedFd s(socket(AF_INET, SOCK_DGRAM, 0));
    ifreq r{};
    std::strcpy(r.ifr_name, "lo");
    r.ifr_mtu = 1400;
    EXPECT_EQ(ioctl(s.get(), SIOCSIFMTU, &r), 0);
    r.ifr_mtu = 0;
    EXPECT_EQ(ioctl(s.get(), SIOCGIFMTU, &r), 0);
    EXPECT_EQ(r.ifr_mtu, 1400);
    r.ifr_flags = 0;
    EXPECT_EQ(ioctl(s.get(), SIOCSIFFLAGS, &r), 0);
    EXPECT_EQ(ioctl(s.get(), SIOCGIFFLAGS, &r), 0);
    EXPECT_EQ(r.ifr_flags & IFF_UP, 0);
    r.ifr_flags = IFF_UP;
    EXPECT_EQ(ioctl(s.get(), SIOCSIFFLAGS, &r), 0);
    r.ifr_mtu = 65536;
    EXPECT_EQ(ioctl(s.get(), SIOCSIFMTU, &r), 0);
    std::strcpy(r.ifr_name, "none");
    EXPECT_THAT(ioctl(s.get(), SIOCSIFMTU, &r), SyscallFails(ENODEV));
  });
  EXPECT_EQ(RunAsNobody([] {
              ScopedFd s(socket(AF_INET, SOCK_DGRAM, 0));
              ifreq r{};
              std::strcpy(r.ifr_name, "lo");
              r.ifr_mtu = 1400;
              EXPECT_THAT(ioctl(s.get(), SIOCSIFMTU, &r), SyscallFails(EPERM));
              r.ifr_flags = 0;
              EXPECT_THAT(ioctl(s.get(), SIOCSIFFLAGS, &r), SyscallFails(EPERM));
            }),
            0);
}

TEST(Netlink, RoutesComeAndGo) {
  InOwnNetwork([] {
    Netlink n, listener;
    ASSERT_EQ(Bind(listener, 0, RTMGRP_IPV4_ROUTE), 0);
    rtmsg m{};
    m.rtm_family = AF_INET;
    m.rtm_dst_len = 24;
    m.rtm_table = RT_TABLE_MAIN;
    m.rtm_protocol = RTPROT_STATIC;
    m.rtm_scope = RT_SCOPE_LINK;
    m.rtm_type = RTN_UNICAST;
    const std::string body = Bytes(m) + Attribute(RTA_DST, Ip4("198.51.100.0")) + Attribute(RTA_OIF, Bytes(LoIndex()));
    EXPECT_EQ(n.Do(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body), 0);
    EXPECT_EQ(n.Do(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body), EEXIST);
    std::vector<Answer> heard = listener.Receive();
    ASSERT_EQ(heard.size(), 1u);
    EXPECT_EQ(heard[0].header.nlmsg_type, RTM_NEWROUTE);
    EXPECT_EQ(heard[0].attributes(sizeof(rtmsg))[RTA_DST], Ip4("198.51.100.0"));
    bool found = false;
    for (const Answer& a : n.Dump(RTM_GETROUTE, Bytes(rtgenmsg{AF_INET}))) {
      auto route = Read<rtmsg>(a.body);
      if (route.rtm_table != RT_TABLE_MAIN || route.rtm_dst_len != 24) continue;
      EXPECT_EQ(route.rtm_protocol, RTPROT_STATIC);
      EXPECT_EQ(route.rtm_scope, RT_SCOPE_LINK);
      found = true;
    }
    EXPECT_TRUE(found);
    EXPECT_EQ(n.Do(RTM_DELROUTE, 0, body), 0);
    EXPECT_EQ(n.Do(RTM_DELROUTE, 0, body), ESRCH);
    EXPECT_EQ(listener.Receive().at(0).header.nlmsg_type, RTM_DELROUTE);
    // A gateway that is in no network; host bits; no such link.
    EXPECT_EQ(n.Do(RTM_NEWROUTE, NLM_F_CREATE,
                   Bytes(m) + Attribute(RTA_DST, Ip4("198.51.100.0")) + Attribute(RTA_GATEWAY, Ip4("203.0.113.1"))),
              ENETUNREACH);
    EXPECT_EQ(n.Do(RTM_NEWROUTE, NLM_F_CREATE,
                   Bytes(m) + Attribute(RTA_DST, Ip4("198.51.100.1")) + Attribute(RTA_OIF, Bytes(LoIndex()))),
              EINVAL);
    const int none = 99999;
    EXPECT_EQ(n.Do(RTM_NEWROUTE, NLM_F_CREATE,
                   Bytes(m) + Attribute(RTA_DST, Ip4("198.51.100.0")) + Attribute(RTA_OIF, Bytes(none))),
              ENODEV);
  });
}

TEST(Netlink, NeighboursAreDumped) {
  Netlink n;
  for (const Answer& a : n.Dump(RTM_GETNEIGH, Bytes(ndmsg{}))) EXPECT_EQ(a.header.nlmsg_type, RTM_NEWNEIGH);
}

TEST(Netlink, AnAddressComesWithItsRoute) {
  InOwnNetwork([] {
    Netlink n, listener;
    ASSERT_EQ(Bind(listener, 0, RTMGRP_IPV4_ROUTE), 0);
    for (const uint16_t type : {RTM_NEWADDR, RTM_DELADDR}) {
      EXPECT_EQ(n.Do(type, NLM_F_CREATE, AddressBody("192.0.2.9", 32, LoIndex())), 0);
      std::vector<Answer> heard = listener.Receive();
      ASSERT_EQ(heard.size(), 1u);
      EXPECT_EQ(heard[0].header.nlmsg_type, type == RTM_NEWADDR ? RTM_NEWROUTE : RTM_DELROUTE);
      const auto route = Read<rtmsg>(heard[0].body);
      EXPECT_EQ(route.rtm_table, RT_TABLE_LOCAL);
      EXPECT_EQ(route.rtm_type, RTN_LOCAL);
      EXPECT_EQ(heard[0].attributes(sizeof(rtmsg))[RTA_DST], Ip4("192.0.2.9"));
    }
  });
}

TEST(Netlink, AReplacedRouteIsToldOnce) {
  InOwnNetwork([] {
    Netlink n, listener;
    ASSERT_EQ(n.Do(RTM_NEWADDR, NLM_F_CREATE, AddressBody("192.0.2.9", 32, LoIndex())), 0);
    ASSERT_EQ(Bind(listener, 0, RTMGRP_IPV4_ROUTE), 0);
    rtmsg m{};
    m.rtm_family = AF_INET;
    m.rtm_dst_len = 24;
    m.rtm_table = RT_TABLE_MAIN;
    m.rtm_protocol = RTPROT_STATIC;
    m.rtm_scope = RT_SCOPE_LINK;
    m.rtm_type = RTN_UNICAST;
    const std::string body = Bytes(m) + Attribute(RTA_DST, Ip4("198.51.100.0")) + Attribute(RTA_OIF, Bytes(LoIndex()));
    EXPECT_EQ(n.Do(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body), 0);
    EXPECT_EQ(n.Do(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body + Attribute(RTA_PREFSRC, Ip4("192.0.2.9"))), 0);
    EXPECT_EQ(n.Do(RTM_DELROUTE, 0, body), 0);
    EXPECT_EQ(listener.Receive().at(0).header.nlmsg_type, RTM_NEWROUTE);
    const Answer replaced = listener.Receive().at(0);
    EXPECT_EQ(replaced.header.nlmsg_type, RTM_NEWROUTE);
    EXPECT_TRUE(replaced.header.nlmsg_flags & NLM_F_REPLACE);
    EXPECT_EQ(replaced.attributes(sizeof(rtmsg))[RTA_PREFSRC], Ip4("192.0.2.9"));
    EXPECT_EQ(listener.Receive().at(0).header.nlmsg_type, RTM_DELROUTE);
  });
}

TEST(Netlink, SocketsAreDumped) {
  ScopedFd listener(socket(AF_INET, SOCK_STREAM, 0)), udp(socket(AF_INET, SOCK_DGRAM, 0));
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::map<int, uint16_t> ports;
  for (auto [protocol, fd] : {std::pair{IPPROTO_TCP, listener.get()}, std::pair{IPPROTO_UDP, udp.get()}}) {
    ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&a), sizeof(a)), 0);
    sockaddr_in name{};
    socklen_t length = sizeof(name);
    ASSERT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&name), &length), 0);
    ports[protocol] = name.sin_port;
  }
  ASSERT_EQ(listen(listener.get(), 5), 0);
  for (int protocol : {IPPROTO_TCP, IPPROTO_UDP}) {
    Netlink n(NETLINK_SOCK_DIAG);
    inet_diag_req_v2 q{};
    q.sdiag_family = AF_INET;
    q.sdiag_protocol = static_cast<uint8_t>(protocol);
    q.idiag_states = ~0u;
    int found = 0;
    for (const Answer& answer : n.Dump(SOCK_DIAG_BY_FAMILY, Bytes(q))) {
      auto m = Read<inet_diag_msg>(answer.body);
      if (m.id.idiag_sport != ports[protocol]) continue;
      found++;
      EXPECT_EQ(m.idiag_family, AF_INET);
      EXPECT_EQ(m.idiag_state, protocol == IPPROTO_TCP ? 10 : 7);  // TCP_LISTEN, TCP_CLOSE
      EXPECT_EQ(m.id.idiag_src[0], htonl(INADDR_LOOPBACK));
      EXPECT_EQ(m.idiag_inode, Inode(protocol == IPPROTO_TCP ? listener.get() : udp.get()));
      EXPECT_EQ(m.idiag_uid, geteuid());
    }
    EXPECT_EQ(found, 1) << protocol;
    // No state is wanted, none is told.
    q.idiag_states = 0;
    EXPECT_EQ(n.Dump(SOCK_DIAG_BY_FAMILY, Bytes(q)).size(), 0u);
  }
}

// By the name that bind(2) gave, and to its peer by the inode.
TEST(Netlink, UnixSocketsAreDumped) {
  ScopedFd listener(socket(AF_UNIX, SOCK_STREAM, 0)), client(socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un a{};
  a.sun_family = AF_UNIX;
  const std::string name = std::string(1, '\0') + "diag-" + std::to_string(getpid());
  name.copy(a.sun_path, name.size());
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
  ASSERT_OK(bind(listener.get(), reinterpret_cast<sockaddr*>(&a), length));
  ASSERT_OK(listen(listener.get(), 7));
  ASSERT_OK(connect(client.get(), reinterpret_cast<sockaddr*>(&a), length));
  ScopedFd accepted(accept(listener.get(), nullptr, nullptr));
  ASSERT_OK(write(client.get(), "12345", 5));
  Netlink n(NETLINK_SOCK_DIAG);
  unix_diag_req q{};
  q.sdiag_family = AF_UNIX;
  q.udiag_states = ~0u;
  q.udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_PEER | UDIAG_SHOW_RQLEN;
  int found = 0;
  for (const Answer& answer : n.Dump(SOCK_DIAG_BY_FAMILY, Bytes(q))) {
    auto m = Read<unix_diag_msg>(answer.body);
    const auto attributes = answer.attributes(sizeof(m));
    auto number = [&](int type, size_t at = 0) {
      auto it = attributes.find(type);
      return it == attributes.end() ? 0u : Read<uint32_t>(it->second, at);
    };
    if (m.udiag_ino == Inode(listener.get())) {
      found++;
      EXPECT_EQ(m.udiag_family, AF_UNIX);
      EXPECT_EQ(m.udiag_type, SOCK_STREAM);
      EXPECT_EQ(m.udiag_state, 10);
      EXPECT_EQ(attributes.at(UNIX_DIAG_NAME), name);
      EXPECT_EQ(number(UNIX_DIAG_RQLEN), 0u);
      EXPECT_EQ(number(UNIX_DIAG_RQLEN, 4), 7u);
    } else if (m.udiag_ino == Inode(accepted.get())) {
      found++;
      EXPECT_EQ(m.udiag_state, 1);
      EXPECT_EQ(attributes.at(UNIX_DIAG_NAME), name);
      EXPECT_EQ(number(UNIX_DIAG_PEER), Inode(client.get()));
      EXPECT_EQ(number(UNIX_DIAG_RQLEN), 5u);
    } else if (m.udiag_ino == Inode(client.get())) {
      found++;
      EXPECT_EQ(number(UNIX_DIAG_PEER), Inode(accepted.get()));
      EXPECT_EQ(attributes.count(UNIX_DIAG_NAME), 0u);
    }
  }
  EXPECT_EQ(found, 3);
  // Those that listen.
  q.udiag_states = 1 << 10;
  for (const Answer& answer : n.Dump(SOCK_DIAG_BY_FAMILY, Bytes(q))) {
    EXPECT_EQ(Read<unix_diag_msg>(answer.body).udiag_state, 10);
  }
}

TEST(Netlink, PacketSocketsAreDumped) {
  ScopedFd s(socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ARP)));
  ASSERT_OK(s.get());
  Netlink n(NETLINK_SOCK_DIAG);
  packet_diag_req q{};
  q.sdiag_family = AF_PACKET;
  q.pdiag_show = PACKET_SHOW_INFO;
  int found = 0;
  for (const Answer& answer : n.Dump(SOCK_DIAG_BY_FAMILY, Bytes(q))) {
    auto m = Read<packet_diag_msg>(answer.body);
    if (m.pdiag_ino != Inode(s.get())) continue;
    found++;
    EXPECT_EQ(m.pdiag_family, AF_PACKET);
    EXPECT_EQ(m.pdiag_type, SOCK_RAW);
    EXPECT_EQ(m.pdiag_num, ETH_P_ARP);
  }
  EXPECT_EQ(found, 1);
}

// proc(5): by these, lsof and ss name processes.
TEST(Netlink, InodesOfSocketsStandInProcNet) {
  ScopedFd tcp(socket(AF_INET, SOCK_STREAM, 0)), udp(socket(AF_INET6, SOCK_DGRAM, 0)),
      local(socket(AF_UNIX, SOCK_DGRAM, 0)), packet(socket(AF_PACKET, SOCK_RAW, 0));
  sockaddr_in6 a{};
  a.sin6_family = AF_INET6;
  ASSERT_OK(bind(udp.get(), reinterpret_cast<sockaddr*>(&a), sizeof(a)));
  ASSERT_OK(listen(tcp.get(), 1));
  // The field of a line, counted from behind if negative.
  auto has = [](const char* table, size_t field, uint32_t inode) {
    std::ifstream in(std::string("/proc/net/") + table);
    for (std::string line; std::getline(in, line);) {
      std::istringstream words(line);
      std::vector<std::string> fields{std::istream_iterator<std::string>(words), {}};
      if (fields.size() > field && fields[field] == std::to_string(inode)) return true;
    }
    return false;
  };
  EXPECT_TRUE(has("tcp", 9, Inode(tcp.get())));
  EXPECT_TRUE(has("udp6", 9, Inode(udp.get())));
  EXPECT_TRUE(has("unix", 6, Inode(local.get())));
  EXPECT_TRUE(has("packet", 8, Inode(packet.get())));
}

TEST(Netlink, DevicesAreSilent) {
  Netlink n(NETLINK_KOBJECT_UEVENT);
  ASSERT_EQ(Bind(n, 0, 1), 0);
  char c;
  EXPECT_THAT(recv(n.fd.get(), &c, 1, MSG_DONTWAIT), SyscallFails(EAGAIN));
}

}  // namespace
}  // namespace redoubt::testing
