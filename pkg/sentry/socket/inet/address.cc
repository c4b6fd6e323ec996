#include "pkg/sentry/socket/inet/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>

namespace redoubt::inetsock {

namespace {

constexpr size_t kMinIpv6 = 24;  // RFC 2133's, without the scope

Result<netstack::SocketAddress> ParseIpv4(socket::Address bytes) {
  sockaddr_in in;
  if (bytes.size() < sizeof(in)) return Err(EINVAL);
  std::memcpy(&in, bytes.data(), sizeof(in));
  return netstack::SocketAddress{.address = netstack::Address::Ipv4(ntohl(in.sin_addr.s_addr)),
                                 .port = ntohs(in.sin_port)};
}

template <typename T>
socket::AddressBytes Bytes(const T& address) {
  auto bytes = std::as_bytes(std::span<const T, 1>(&address, 1));
  return {bytes.begin(), bytes.end()};
}

}  // namespace

Result<int> FamilyOf(socket::Address bytes) {
  sa_family_t family;
  if (bytes.size() < sizeof(family)) return Err(EINVAL);
  std::memcpy(&family, bytes.data(), sizeof(family));
  return family;
}

Result<netstack::SocketAddress> ParseAddress(int family, socket::Address bytes, AcceptsIpv4 ipv4) {
  const int given = TRY(FamilyOf(bytes));
  if (family == AF_INET) {
    netstack::SocketAddress address = TRY(ParseIpv4(bytes));
    if (given != AF_INET) return Err(EAFNOSUPPORT);
    return address;
  }
  if (given == AF_INET && ipv4 == AcceptsIpv4::kYes) {
    netstack::SocketAddress address = TRY(ParseIpv4(bytes));
    address.address = address.address.ToV4Mapped();
    return address;
  }
  if (bytes.size() < kMinIpv6) return Err(EINVAL);
  if (given != AF_INET6) return Err(EAFNOSUPPORT);
  sockaddr_in6 in6{};
  std::memcpy(&in6, bytes.data(), std::min(bytes.size(), sizeof(in6)));
  netstack::SocketAddress address{
      .address = netstack::Address::FromBytes(std::as_bytes(std::span(in6.sin6_addr.s6_addr))),
      .port = ntohs(in6.sin6_port)};
  if (address.address.IsLinkLocal() || address.address.IsMulticast()) address.interface_index = in6.sin6_scope_id;
  return address;
}

socket::AddressBytes FormatAddress(int family, const netstack::Address& address, uint16_t port,
                                   uint32_t interface_index) {
  if (family == AF_INET) {
    sockaddr_in in{.sin_family = AF_INET, .sin_port = htons(port)};
    in.sin_addr.s_addr = htonl(address.ipv4_value());
    return Bytes(in);
  }
  const netstack::Address wide = address.is_ipv4() ? address.ToV4Mapped() : address;
  sockaddr_in6 in6{.sin6_family = AF_INET6, .sin6_port = htons(port)};
  if (wide.is_ipv6()) std::memcpy(in6.sin6_addr.s6_addr, wide.bytes().data(), sizeof(in6.sin6_addr));
  if (wide.IsLinkLocal()) in6.sin6_scope_id = interface_index;
  return Bytes(in6);
}

}  // namespace redoubt::inetsock
