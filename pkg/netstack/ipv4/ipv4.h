// IPv4 (RFC 791, RFC 1122 section 3), with ICMP (RFC 792) and IGMP.
#ifndef REDOUBT_PKG_NETSTACK_IPV4_IPV4_H_
#define REDOUBT_PKG_NETSTACK_IPV4_IPV4_H_

#include <atomic>
#include <cstdint>
#include <span>

#include "pkg/netstack/fragmentation/reassembler.h"
#include "pkg/netstack/groups/group_reporter.h"
#include "pkg/netstack/header/ipv4.h"
#include "pkg/netstack/ipv4/arp.h"
#include "pkg/netstack/stack/network_protocol.h"
#include "pkg/netstack/stack/stack.h"

namespace redoubt::netstack {

// Counters of ICMP, as in /proc/net/snmp.
struct IcmpStats {
  std::atomic<uint64_t> in_messages{0}, in_errors{0}, in_checksum_errors{0}, in_echos{0}, in_echo_replies{0},
      out_messages{0}, out_rate_limited{0};
};

// As a host: source routes are refused, redirects ignored, broadcast pings not answered (Linux's defaults). As a
// router: record route and timestamp options pass unchanged. Registered with Stack::RegisterNetwork; its ARP with
// RegisterHandler.
class Ipv4Protocol final : public NetworkProtocol, private GroupReporter::Delegate {
 public:
  static constexpr Time kReassemblyTimeout = 30 * kSecond;  // net.ipv4.ipfrag_time
  // net.ipv4.icmp_msgs_per_sec and icmp_msgs_burst; and a bound of ours on echo replies.
  static constexpr uint32_t kErrorsPerSecond = 1000, kErrorBurst = 50;
  static constexpr uint32_t kEchosPerSecond = 50000, kEchoBurst = 5000;

  Ipv4Protocol(Stack& stack, ArpProtocol& arp);
  ~Ipv4Protocol() override;

  uint16_t ethertype() const override;
  Family family() const override { return Family::kIpv4; }
  NeighbourResolver& resolver() override { return arp_; }
  void HandlePacket(Interface& interface, PacketPtr packet) override;
  Result<> Output(const Route& route, PacketPtr packet, const WriteOptions& options) override;
  Result<> OutputRaw(const Route& route, PacketPtr packet) override;
  void SendError(Interface& interface, const Packet& offending, Failure failure) override;
  void OnUp(Interface& interface) override;
  void OnDown(Interface& interface) override;
  void OnGroupJoined(Interface& interface, const Address& group) override;
  void OnGroupLeft(Interface& interface, const Address& group) override;

  IcmpStats& icmp_stats() { return icmp_stats_; }

 private:
  // Input.
  void Deliver(Interface& interface, PacketPtr packet);
  void Forward(Interface& interface, PacketPtr packet, header::Ipv4 ip);
  void HandleIcmp(Interface& interface, PacketPtr packet);
  void HandleIcmpError(Interface& interface, const Packet& packet);
  void Echo(Interface& interface, PacketPtr packet);
  void HandleIgmp(Interface& interface, const Packet& packet);
  // Output.
  Result<> Transmit(const Route& route, PacketPtr packet, const header::Ipv4& ip, bool multicast_loop);
  Result<> SendFragments(const Route& route, PacketPtr packet, const header::Ipv4& ip, uint32_t mtu);
  void SendIcmp(Interface& interface, const Packet& offending, uint8_t type, uint8_t code, uint32_t rest);
  void WriteIgmp(uint32_t interface_index, const Address& to, std::span<const std::byte> message);
  // GroupReporter::Delegate.
  void SendReport(uint32_t interface_index, GroupReporter::Version version, const Address& group,
                  GroupReporter::Record record) override;
  void SendLeave(uint32_t interface_index, const Address& group) override;
  uint16_t NextId(const Address& source, const Address& destination);

  Stack& stack_;
  ArpProtocol& arp_;
  IpStats& stats_;
  IcmpStats icmp_stats_;
  TokenBucket error_limit_{kErrorsPerSecond, kErrorBurst};
  TokenBucket echo_limit_{kEchosPerSecond, kEchoBurst};
  const HashKey id_key_;
  std::atomic<uint16_t> id_counter_{0};
  const RefPtr<Reassembler> reassembler_;
  const RefPtr<GroupReporter> groups_;
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_IPV4_IPV4_H_
