// The seam at which IPv4, IPv6 and ARP plug into the stack.
#ifndef REDOUBT_PKG_NETSTACK_STACK_NETWORK_PROTOCOL_H_
#define REDOUBT_PKG_NETSTACK_STACK_NETWORK_PROTOCOL_H_

#include <cstdint>

#include "pkg/errors/errors.h"
#include "pkg/netstack/address/address.h"
#include "pkg/netstack/packet/packet.h"

namespace redoubt::netstack {

class Interface;
class Route;
struct WriteOptions;

// Takes the packets of one EtherType. Thread-safe; called with no lock held; lives as long as the stack.
class PacketHandler {
 public:
  virtual ~PacketHandler() = default;
  virtual uint16_t ethertype() const = 0;  // ETH_P_*, host order
  // `packet->data` begins at the network header; nothing of it is checked.
  virtual void HandlePacket(Interface& interface, PacketPtr packet) = 0;
};

// Finds link addresses of neighbours: ARP (RFC 826) for IPv4, neighbour discovery (RFC 4861) for IPv6.
class NeighbourResolver {
 public:
  virtual ~NeighbourResolver() = default;
  // Asks who has `target`; `link` says whom (unicast probe), or null for all. Called with no lock held.
  virtual void Solicit(Interface& interface, const Address& target, const LinkAddress* link) = 0;
  // Asks whether somebody else has `target`, an own tentative address (RFC 5227, RFC 4862 section 5.4.2).
  virtual void ProbeDuplicate(Interface& interface, const Address& target) = 0;
  // Tells everybody that we have it now (RFC 5227 section 2.3, RFC 4861 section 7.2.6).
  virtual void Announce(Interface& interface, const Address& address) = 0;
};

class NetworkProtocol : public PacketHandler {
 public:
  virtual Family family() const = 0;
  virtual NeighbourResolver& resolver() = 0;

  // Puts the network header in front of a transport header with payload and sends it; see Route::Write.
  virtual Result<> Output(const Route& route, PacketPtr packet, const WriteOptions& options) = 0;
  // Sends a whole packet, made by a raw socket with IP_HDRINCL (man 7 raw) or forwarded; the header is checked and
  // completed.
  virtual Result<> OutputRaw(const Route& route, PacketPtr packet) = 0;

  enum class Failure : uint8_t { kPortUnreachable, kProtocolUnreachable, kHostUnreachable };
  // Answers a received packet with an ICMP error, where the rules and the rate limit allow one.
  virtual void SendError(Interface& interface, const Packet& offending, Failure failure) = 0;

  // What happens to interfaces. Called with no lock held.
  virtual void OnUp(Interface&) {}
  virtual void OnDown(Interface&) {}
  // The first member has joined, the last has left.
  virtual void OnGroupJoined(Interface&, const Address& group) {}
  virtual void OnGroupLeft(Interface&, const Address& group) {}
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_STACK_NETWORK_PROTOCOL_H_
