// IPv6 (RFC 8200, RFC 8504), with ICMPv6 (RFC 4443), neighbour discovery (RFC 4861, 4862) and MLD.
#ifndef REDOUBT_PKG_NETSTACK_IPV6_IPV6_H_
#define REDOUBT_PKG_NETSTACK_IPV6_IPV6_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "pkg/netstack/fragmentation/reassembler.h"
#include "pkg/netstack/groups/group_reporter.h"
#include "pkg/netstack/header/ipv6.h"
#include "pkg/netstack/header/ndp.h"
#include "pkg/netstack/ipv6/slaac.h"
#include "pkg/netstack/stack/network_protocol.h"
#include "pkg/netstack/stack/stack.h"

namespace redoubt::netstack {

// Counters of ICMPv6, as in /proc/net/snmp6.
struct Icmp6Stats {
  std::atomic<uint64_t> in_messages{0}, in_errors{0}, in_checksum_errors{0}, in_echos{0}, in_echo_replies{0},
      out_messages{0}, out_rate_limited{0}, in_neighbour_messages{0}, in_malformed_neighbour_messages{0};
};

// Registered with Stack::RegisterNetwork.
class Ipv6Protocol final : public NetworkProtocol, public NeighbourResolver, private GroupReporter::Delegate {
 public:
  static constexpr Time kReassemblyTimeout = 60 * kSecond;  // RFC 8200 section 4.5
  static constexpr uint32_t kErrorsPerSecond = 1000, kErrorBurst = 50;
  static constexpr uint32_t kEchosPerSecond = 50000, kEchoBurst = 5000;

  explicit Ipv6Protocol(Stack& stack);
  ~Ipv6Protocol() override;

  uint16_t ethertype() const override;
  Family family() const override { return Family::kIpv6; }
  NeighbourResolver& resolver() override { return *this; }
  void HandlePacket(Interface& interface, PacketPtr packet) override;
  Result<> Output(const Route& route, PacketPtr packet, const WriteOptions& options) override;
  Result<> OutputRaw(const Route& route, PacketPtr packet) override;
  void SendError(Interface& interface, const Packet& offending, Failure failure) override;
  void OnUp(Interface& interface) override;
  void OnDown(Interface& interface) override;
  void OnGroupJoined(Interface& interface, const Address& group) override;
  void OnGroupLeft(Interface& interface, const Address& group) override;
  // NeighbourResolver.
  void Solicit(Interface& interface, const Address& target, const LinkAddress* link) override;
  void ProbeDuplicate(Interface& interface, const Address& target) override;
  void Announce(Interface& interface, const Address& address) override;

  Icmp6Stats& icmp_stats() { return icmp_stats_; }

 private:
  // Input. `extensions` says where the transport begins.
  void Deliver(Interface& interface, PacketPtr packet);
  void Forward(Interface& interface, PacketPtr packet, const header::Ipv6& ip);
  bool WalkExtensions(Interface& interface, Packet& packet, header::Ipv6Extensions& extensions, uint8_t first,
                      size_t first_at, size_t offset);
  void HandleIcmp(Interface& interface, PacketPtr packet);
  void HandleIcmpError(Interface& interface, const Packet& packet);
  void Echo(Interface& interface, PacketPtr packet);
  void HandleNdp(Interface& interface, const Packet& packet, uint8_t type);
  void HandleSolicitation(Interface& interface, const Packet& packet, const header::NdpNeighbour& message);
  void HandleAdvertisement(Interface& interface, const Packet& packet, const header::NdpNeighbour& message);
  void HandleMld(Interface& interface, const Packet& packet);
  // Output.
  Result<> Transmit(const Route& route, PacketPtr packet, bool multicast_loop, uint8_t hop_limit);
  Result<> SendFragments(const Route& route, PacketPtr packet, uint32_t mtu);
  void SendIcmp(Interface& interface, const Packet& offending, uint8_t type, uint8_t code, uint32_t rest,
                bool answer_multicast = false);
  // Neighbour discovery and MLD, which go out before there are routes: straight to the interface.
  void WriteIcmp(Interface& interface, const Address& source, const Address& destination, std::span<std::byte> message,
                 uint8_t hop_limit, bool router_alert, const LinkAddress* link);
  Address LinkLocalOf(const Interface& interface) const;
  // GroupReporter::Delegate.
  void SendReport(uint32_t interface_index, GroupReporter::Version version, const Address& group,
                  GroupReporter::Record record) override;
  void SendLeave(uint32_t interface_index, const Address& group) override;

  Stack& stack_;
  IpStats& stats_;
  Icmp6Stats icmp_stats_;
  TokenBucket error_limit_{kErrorsPerSecond, kErrorBurst};
  TokenBucket echo_limit_{kEchosPerSecond, kEchoBurst};
  const HashKey id_key_;
  std::atomic<uint32_t> id_counter_{0};
  const std::array<uint8_t, 6> nonce_;  // RFC 7527: tells our own probes, come back, from another's
  const RefPtr<Reassembler> reassembler_;
  const RefPtr<GroupReporter> groups_;
  const RefPtr<Slaac> slaac_;
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_IPV6_IPV6_H_
