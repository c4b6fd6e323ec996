// ARP (RFC 826) and IPv4 address conflict detection (RFC 5227).
#ifndef REDOUBT_PKG_NETSTACK_IPV4_ARP_H_
#define REDOUBT_PKG_NETSTACK_IPV4_ARP_H_

#include <atomic>

#include "pkg/netstack/header/link.h"
#include "pkg/netstack/stack/network_protocol.h"
#include "pkg/netstack/stack/stack.h"

namespace redoubt::netstack {

class ArpProtocol final : public PacketHandler, public NeighbourResolver {
 public:
  explicit ArpProtocol(Stack& stack) : stack_(stack) {}

  uint16_t ethertype() const override { return header::kEtherTypeArp; }
  // Answers for all addresses of this host (Linux's arp_ignore=0) and reports another station that uses one of this
  // interface.
  void HandlePacket(Interface& interface, PacketPtr packet) override;
  void Solicit(Interface& interface, const Address& target, const LinkAddress* link) override;
  void ProbeDuplicate(Interface& interface, const Address& target) override;
  void Announce(Interface& interface, const Address& address) override;

  uint64_t malformed() const { return malformed_.load(std::memory_order_relaxed); }

 private:
  void Write(Interface& interface, const LinkAddress& to, const header::Arp& arp);

  Stack& stack_;
  std::atomic<uint64_t> malformed_{0};
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_IPV4_ARP_H_
