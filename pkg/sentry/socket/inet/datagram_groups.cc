// Options about multicast groups and the sources of their packets: ip(7), ipv6(7), RFC 3678.
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "pkg/sentry/socket/inet/datagram_socket.h"

namespace redoubt::inetsock {

using netstack::Address;
using netstack::Memberships;
using netstack::SourceFilter;
using netstack::SourceMode;

namespace {

Address FromInAddr(const in_addr& a) { return Address::Ipv4(ntohl(a.s_addr)); }

// The interface that has the address; 0 for the unspecified one. ENODEV.
Result<uint32_t> InterfaceOf(netstack::Stack& stack, const Address& address) {
  if (address.IsUnspecified()) return uint32_t{0};
  for (const RefPtr<netstack::Interface>& i : stack.Interfaces()) {
    if (i->FindAddress(address)) return i->index();
  }
  return Err(ENODEV);
}

struct Group {
  Address address;
  uint32_t interface_index = 0;
};

// struct ip_mreq or ip_mreqn (ip(7)), struct ipv6_mreq (ipv6(7)).
Result<Group> ParseGroup(netstack::Stack& stack, int level, std::span<const std::byte> value) {
  if (level == IPPROTO_IPV6) {
    ipv6_mreq m;
    if (value.size() < sizeof(m)) return Err(EINVAL);
    std::memcpy(&m, value.data(), sizeof(m));
    return Group{Address::FromBytes(std::as_bytes(std::span(m.ipv6mr_multiaddr.s6_addr))), m.ipv6mr_interface};
  }
  if (value.size() >= sizeof(ip_mreqn)) {
    ip_mreqn m;
    std::memcpy(&m, value.data(), sizeof(m));
    if (m.imr_ifindex != 0) return Group{FromInAddr(m.imr_multiaddr), static_cast<uint32_t>(m.imr_ifindex)};
    const uint32_t interface = TRY(InterfaceOf(stack, FromInAddr(m.imr_address)));
    return Group{FromInAddr(m.imr_multiaddr), interface};
  }
  ip_mreq m;
  if (value.size() < sizeof(m)) return Err(EINVAL);
  std::memcpy(&m, value.data(), sizeof(m));
  const uint32_t interface = TRY(InterfaceOf(stack, FromInAddr(m.imr_interface)));
  return Group{FromInAddr(m.imr_multiaddr), interface};
}

// struct group_req (RFC 3678 section 5.1), whose group may be of the other IP version: then it is none of this level's.
Result<Group> ParseGroupRequest(int level, std::span<const std::byte> value) {
  group_req m;
  if (value.size() < sizeof(m)) return Err(EINVAL);
  std::memcpy(&m, value.data(), sizeof(m));
  if (m.gr_group.ss_family != (level == IPPROTO_IPV6 ? AF_INET6 : AF_INET)) {
    return Err(level == IPPROTO_IPV6 ? EADDRNOTAVAIL : EINVAL);
  }
  if (level == IPPROTO_IP) {
    sockaddr_in a;
    std::memcpy(&a, &m.gr_group, sizeof(a));
    return Group{FromInAddr(a.sin_addr), m.gr_interface};
  }
  sockaddr_in6 a;
  std::memcpy(&a, &m.gr_group, sizeof(a));
  return Group{Address::FromBytes(std::as_bytes(std::span(a.sin6_addr.s6_addr))), m.gr_interface};
}

// A struct sockaddr_storage of the level's own family. EADDRNOTAVAIL.
Result<Address> ParseStorage(int level, const sockaddr_storage& storage) {
  if (storage.ss_family != (level == IPPROTO_IPV6 ? AF_INET6 : AF_INET)) return Err(EADDRNOTAVAIL);
  if (level == IPPROTO_IP) {
    sockaddr_in a;
    std::memcpy(&a, &storage, sizeof(a));
    return FromInAddr(a.sin_addr);
  }
  sockaddr_in6 a;
  std::memcpy(&a, &storage, sizeof(a));
  return Address::FromBytes(std::as_bytes(std::span(a.sin6_addr.s6_addr)));
}

sockaddr_storage ToStorage(const Address& address) {
  sockaddr_storage storage{};
  if (address.is_ipv4()) {
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(address.ipv4_value());
    std::memcpy(&storage, &a, sizeof(a));
  } else {
    sockaddr_in6 a{};
    a.sin6_family = AF_INET6;
    std::memcpy(&a.sin6_addr, address.bytes().data(), sizeof(a.sin6_addr));
    std::memcpy(&storage, &a, sizeof(a));
  }
  return storage;
}

// What is done to which source of a group, by an option's name.
struct SourceChange {
  SourceMode mode;
  Memberships::Change change;
};
std::optional<SourceChange> SourceChangeOf(int level, int name) {
  using Change = Memberships::Change;
  if (level == IPPROTO_IP) {
    switch (name) {
      case IP_ADD_SOURCE_MEMBERSHIP:
        return SourceChange{SourceMode::kInclude, Change::kAdd};
      case IP_DROP_SOURCE_MEMBERSHIP:
        return SourceChange{SourceMode::kInclude, Change::kRemove};
      case IP_BLOCK_SOURCE:
        return SourceChange{SourceMode::kExclude, Change::kAdd};
      case IP_UNBLOCK_SOURCE:
        return SourceChange{SourceMode::kExclude, Change::kRemove};
      default:
        break;
    }
  }
  switch (name) {
    case MCAST_JOIN_SOURCE_GROUP:
      return SourceChange{SourceMode::kInclude, Change::kAdd};
    case MCAST_LEAVE_SOURCE_GROUP:
      return SourceChange{SourceMode::kInclude, Change::kRemove};
    case MCAST_BLOCK_SOURCE:
      return SourceChange{SourceMode::kExclude, Change::kAdd};
    case MCAST_UNBLOCK_SOURCE:
      return SourceChange{SourceMode::kExclude, Change::kRemove};
    default:
      return std::nullopt;
  }
}

struct GroupSource {
  Group group;
  Address source;
};
// struct ip_mreq_source (ip(7)).
Result<GroupSource> ParseSourceRequest(netstack::Stack& stack, std::span<const std::byte> value) {
  ip_mreq_source m;
  if (value.size() != sizeof(m)) return Err(EINVAL);
  std::memcpy(&m, value.data(), sizeof(m));
  const uint32_t interface = TRY(InterfaceOf(stack, FromInAddr(m.imr_interface)));
  return GroupSource{{FromInAddr(m.imr_multiaddr), interface}, FromInAddr(m.imr_sourceaddr)};
}
// struct group_source_req (RFC 3678 section 5.1).
Result<GroupSource> ParseGroupSourceRequest(int level, std::span<const std::byte> value) {
  group_source_req m;
  if (value.size() != sizeof(m)) return Err(EINVAL);
  std::memcpy(&m, value.data(), sizeof(m));
  const Address group = TRY(ParseStorage(level, m.gsr_group));
  const Address source = TRY(ParseStorage(level, m.gsr_source));
  return GroupSource{{group, m.gsr_interface}, source};
}

// A whole filter: struct ip_msfilter and struct group_filter, whose lists may be shorter than they have place for.
struct FilterRequest {
  Group group;
  uint32_t mode = 0;
  uint32_t count = 0;  // as it was given
};
constexpr size_t kMsFilterSize = offsetof(ip_msfilter, imsf_slist);
constexpr size_t kGroupFilterSize = offsetof(group_filter, gf_slist);
constexpr size_t kMaxFilter = 20480;  // net.core.optmem_max

Result<FilterRequest> ParseFilter(netstack::Stack& stack, std::span<const std::byte> value) {
  if (value.size() < kMsFilterSize) return Err(EINVAL);
  ip_msfilter m{};
  std::memcpy(&m, value.data(), kMsFilterSize);
  const uint32_t interface = TRY(InterfaceOf(stack, FromInAddr(m.imsf_interface)));
  return FilterRequest{{FromInAddr(m.imsf_multiaddr), interface}, m.imsf_fmode, m.imsf_numsrc};
}
Result<FilterRequest> ParseGroupFilter(int level, std::span<const std::byte> value) {
  if (value.size() < kGroupFilterSize) return Err(EINVAL);
  group_filter m{};
  std::memcpy(&m, value.data(), kGroupFilterSize);
  const Address group = TRY(ParseStorage(level, m.gf_group));
  return FilterRequest{{group, m.gf_interface}, m.gf_fmode, m.gf_numsrc};
}

bool IsFilter(int level, int name) { return name == MCAST_MSFILTER || (level == IPPROTO_IP && name == IP_MSFILTER); }

}  // namespace

Result<bool> DatagramSocket::SetGroupOption(int level, int name, std::span<const std::byte> value) {
  netstack::Stack& stack = network_.stack();
  const bool v6 = level == IPPROTO_IPV6;
  if (name == (v6 ? IPV6_ADD_MEMBERSHIP : IP_ADD_MEMBERSHIP)) {
    const Group g = TRY(ParseGroup(stack, level, value));
    TRY(endpoint_.JoinGroup(g.address, g.interface_index));
    return true;
  }
  if (name == (v6 ? IPV6_DROP_MEMBERSHIP : IP_DROP_MEMBERSHIP)) {
    const Group g = TRY(ParseGroup(stack, level, value));
    TRY(endpoint_.LeaveGroup(g.address, g.interface_index));
    return true;
  }
  if (name == MCAST_JOIN_GROUP || name == MCAST_LEAVE_GROUP) {
    const Group g = TRY(ParseGroupRequest(level, value));
    TRY(name == MCAST_JOIN_GROUP ? endpoint_.JoinGroup(g.address, g.interface_index)
                                 : endpoint_.LeaveGroup(g.address, g.interface_index));
    return true;
  }
  if (TRY(SetSourceOption(level, name, value))) return true;
  if (name != (v6 ? IPV6_MULTICAST_IF : IP_MULTICAST_IF)) return false;
  Group g{Address::Any(netstack::Family::kIpv4), 0};
  if (v6) {
    g.interface_index = static_cast<uint32_t>(TRY(socket::IntOption(value)));
  } else if (value.size() >= sizeof(ip_mreq)) {
    // The interface's address follows the group's, which counts for nothing here.
    g.interface_index = TRY(ParseGroup(stack, level, value)).interface_index;
    std::array<std::byte, 4> bytes;
    std::memcpy(bytes.data(), value.data() + offsetof(ip_mreq, imr_interface), bytes.size());
    g.address = Address::FromBytes(bytes);
  } else {
    in_addr a;
    if (value.size() < sizeof(a)) return Err(EINVAL);
    std::memcpy(&a, value.data(), sizeof(a));
    Result<uint32_t> index = InterfaceOf(stack, FromInAddr(a));
    if (!index) return Err(EADDRNOTAVAIL);
    g = {FromInAddr(a), *index};
  }
  if (g.interface_index != 0 && !stack.FindInterface(g.interface_index)) return Err(v6 ? ENODEV : EADDRNOTAVAIL);
  SetMulticastInterface(g.interface_index, g.address.IsUnspecified() ? Address() : g.address);
  return true;
}

Result<bool> DatagramSocket::SetSourceOption(int level, int name, std::span<const std::byte> value) {
  netstack::Stack& stack = network_.stack();
  if (const std::optional<SourceChange> change = SourceChangeOf(level, name)) {
    const bool old = name < MCAST_JOIN_GROUP;
    const GroupSource s = TRY(old ? ParseSourceRequest(stack, value) : ParseGroupSourceRequest(level, value));
    if (change->mode == SourceMode::kInclude && change->change == Memberships::Change::kAdd) {
      // The first source joins.
      Result<> joined = endpoint_.JoinGroup(s.group.address, s.group.interface_index, SourceMode::kInclude);
      if (!joined && joined.error() != Errno(EADDRINUSE)) return Err(joined.error());
    }
    TRY(endpoint_.ChangeSource(s.group.address, s.group.interface_index, s.source, change->mode, change->change));
    return true;
  }
  if (!IsFilter(level, name)) return false;
  const bool old = name == IP_MSFILTER;
  if (value.size() > kMaxFilter) return Err(ENOBUFS);
  const FilterRequest f = TRY(old ? ParseFilter(stack, value) : ParseGroupFilter(level, value));
  if (f.count > Memberships::MaxSources(f.group.address.family())) return Err(ENOBUFS);
  const size_t head = old ? kMsFilterSize : kGroupFilterSize;
  const size_t each = old ? sizeof(in_addr) : sizeof(sockaddr_storage);
  if (value.size() < head + f.count * each) return Err(EINVAL);
  if (f.mode != MCAST_INCLUDE && f.mode != MCAST_EXCLUDE) return Err(EINVAL);
  SourceFilter filter{.mode = f.mode == MCAST_INCLUDE ? SourceMode::kInclude : SourceMode::kExclude, .sources = {}};
  for (uint32_t i = 0; i < f.count; i++) {
    const std::span<const std::byte> entry = value.subspan(head + i * each, each);
    if (old) {
      filter.sources.push_back(Address::FromBytes(entry));
    } else {
      sockaddr_storage storage;
      std::memcpy(&storage, entry.data(), sizeof(storage));
      filter.sources.push_back(TRY(ParseStorage(level, storage)));
    }
  }
  TRY(endpoint_.SetSourceFilter(f.group.address, f.group.interface_index, std::move(filter)));
  return true;
}

bool DatagramSocket::AsksWithOption(int level, int name) const { return HasLevel(level) && IsFilter(level, name); }

// The filter of the group that the caller has named, with as many sources as it has said it has room for.
Result<std::vector<std::byte>> DatagramSocket::AnswerOption(const socket::Caller&, int level, int name,
                                                            std::span<const std::byte> given) {
  const bool old = name == IP_MSFILTER;
  const FilterRequest f = TRY(old ? ParseFilter(network_.stack(), given) : ParseGroupFilter(level, given));
  const SourceFilter filter = TRY(endpoint_.GetSourceFilter(f.group.address, f.group.interface_index));
  const uint32_t mode = filter.mode == SourceMode::kInclude ? MCAST_INCLUDE : MCAST_EXCLUDE;
  const auto count = static_cast<uint32_t>(filter.sources.size());
  std::vector<std::byte> answer(given.begin(), given.begin() + (old ? kMsFilterSize : kGroupFilterSize));
  std::memcpy(answer.data() + (old ? offsetof(ip_msfilter, imsf_fmode) : offsetof(group_filter, gf_fmode)), &mode,
              sizeof(mode));
  std::memcpy(answer.data() + (old ? offsetof(ip_msfilter, imsf_numsrc) : offsetof(group_filter, gf_numsrc)), &count,
              sizeof(count));
  for (uint32_t i = 0; i < std::min(count, f.count); i++) {
    const Address& source = filter.sources[i];
    if (old) {
      answer.insert(answer.end(), source.bytes().begin(), source.bytes().end());
    } else {
      const std::vector<std::byte> storage = socket::OptionBytes(ToStorage(source));
      answer.insert(answer.end(), storage.begin(), storage.end());
    }
  }
  return answer;
}

}  // namespace redoubt::inetsock
