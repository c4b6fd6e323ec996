// A network interface: a link with a name, addresses, groups, neighbours and counters. Linux's net_device with its
// in_device and inet6_dev.
#ifndef REDOUBT_PKG_NETSTACK_STACK_INTERFACE_H_
#define REDOUBT_PKG_NETSTACK_STACK_INTERFACE_H_

#include <net/if.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/netstack/address/address.h"
#include "pkg/netstack/clock/timer.h"
#include "pkg/netstack/link/link_endpoint.h"
#include "pkg/netstack/neighbour/neighbour_table.h"
#include "pkg/netstack/packet/packet.h"
#include "pkg/netstack/stack/network_protocol.h"
#include "pkg/refs/refs.h"
#include "pkg/sync/mutex.h"

namespace redoubt::netstack {

class PacketTap;
class Stack;

// RFC 4862 section 2 and IFA_F_* of linux/if_addr.h.
enum class AddressState : uint8_t {
  kTentative,   // duplicate detection is running: used for nothing else
  kPreferred,   //
  kDeprecated,  // answers, but is not chosen for new conversations
  kDuplicate,   // somebody else has it: not used at all
};
enum class AddressOrigin : uint8_t { kManual, kLinkLocal, kSlaac };

struct InterfaceAddress {
  Prefix prefix;
  Scope scope = Scope::kGlobal;
  AddressState state = AddressState::kPreferred;
  AddressOrigin origin = AddressOrigin::kManual;
  Time preferred_until = kNever;
  Time valid_until = kNever;
  // Duplicate detection; the interface's.
  uint8_t probes_left = 0;
  Time next_probe = kNever;
  bool conflict_reported = false;
};

// Linux's rtnl_link_stats64 (linux/if_link.h); packets and bytes, link headers included.
struct InterfaceStats {
  std::atomic<uint64_t> rx_packets{0}, rx_bytes{0}, rx_dropped{0}, rx_errors{0}, rx_multicast{0};
  std::atomic<uint64_t> tx_packets{0}, tx_bytes{0}, tx_dropped{0}, tx_errors{0};
};

struct InterfaceConfig {
  std::string name;  // 1-15 bytes, none of '/', ':' or space
  std::unique_ptr<LinkEndpoint> link;
  uint32_t mtu = 0;           // 0: the link's; at most that
  bool autoconfigure = true;  // IPv6: link-local address, router solicitation, SLAAC
  // Probes of duplicate address detection for each new address (RFC 4862 DupAddrDetectTransmits); 0: none. An IPv4
  // address is in use at once, as in Linux, and its probes only find conflicts to report (RFC 5227 section 2.4).
  uint8_t duplicate_probes = 1;
  uint32_t index = 0;  // 0: the next
  uint32_t flags = 0;  // IFF_* but IFF_UP and IFF_RUNNING; 0: what follows from the link
};

// Made by Stack::AddInterface. Alive as long as somebody has a reference; once removed it is down for ever.
class Interface final : public RefCounted, private LinkDispatcher, private NeighbourTable::Delegate {
 public:
  static constexpr size_t kMaxAddresses = 256;
  static constexpr size_t kMaxGroups = 1024;

  Interface(Stack& stack, uint32_t index, InterfaceConfig config);
  ~Interface() override;

  Stack& stack() const { return stack_; }
  uint32_t index() const { return index_; }
  const std::string& name() const { return name_; }
  LinkEndpoint& link() const { return *link_; }
  uint32_t mtu() const { return mtu_.load(std::memory_order_relaxed); }
  // 68 (or 1280 once it has IPv6 addresses) up to the link's; EINVAL beyond.
  Result<> SetMtu(uint32_t mtu);
  LinkAddress link_address() const { return link_->address(); }
  bool is_loopback() const { return (link_->caps() & kCapLoopback) != 0; }
  bool autoconfigure() const { return autoconfigure_; }
  // IFF_UP, IFF_BROADCAST, IFF_LOOPBACK, IFF_RUNNING, IFF_MULTICAST (man 7 netdevice).
  uint32_t flags() const { return flags_.load(std::memory_order_acquire); }
  bool up() const { return (flags() & IFF_UP) != 0; }
  void SetUp(bool up) EXCLUDES(mu_);
  // How many want frames for other hosts too; not among the flags, as in Linux.
  void ChangePromiscuity(int by) { promiscuity_.fetch_add(static_cast<uint32_t>(by), std::memory_order_relaxed); }
  uint32_t promiscuity() const { return promiscuity_.load(std::memory_order_relaxed); }
  InterfaceStats& stats() { return stats_; }

  // Addresses. Adds the connected route and joins the solicited-node group as well; duplicate detection begins when the
  // interface is up. EEXIST, EINVAL (multicast, unspecified, prefix too long), ENOSPC.
  Result<> AddAddress(InterfaceAddress address) EXCLUDES(mu_);
  // EADDRNOTAVAIL.
  Result<> RemoveAddress(const Address& address) EXCLUDES(mu_);
  std::vector<InterfaceAddress> Addresses() const EXCLUDES(mu_);
  std::optional<InterfaceAddress> FindAddress(const Address& address) const EXCLUDES(mu_);
  // True if `address` is the limited broadcast or that of a prefix here.
  bool IsBroadcast(const Address& address) const EXCLUDES(mu_);
  // Changes lifetimes of an address (SLAAC, RTM_NEWADDR with NLM_F_REPLACE). EADDRNOTAVAIL.
  Result<> SetLifetimes(const Address& address, Time preferred_until, Time valid_until) EXCLUDES(mu_);
  // Another station uses `address`: a tentative one is given up (RFC 4862 section 5.4.3); reported in one line of the
  // log.
  void ReportDuplicate(const Address& address, const LinkAddress& by) EXCLUDES(mu_);

  // Groups, counted: each join needs one leave. ENOBUFS at the bound, EADDRNOTAVAIL for a leave without a join.
  Result<> JoinGroup(const Address& group) EXCLUDES(mu_);
  Result<> LeaveGroup(const Address& group) EXCLUDES(mu_);
  bool IsMember(const Address& group) const EXCLUDES(mu_);
  std::vector<Address> Groups(Family family) const EXCLUDES(mu_);

  NeighbourTable& neighbours(Family family) { return family == Family::kIpv4 ? neighbours_v4_ : neighbours_v6_; }

  // Sends a network packet to the neighbour `next_hop` (or the group, or broadcast), resolving it first. ENETDOWN.
  Result<> Send(const Address& next_hop, PacketPtr packet);
  // Sends with the link address known. `sender`, if it is a tap, gets no copy.
  Result<> SendTo(const LinkAddress& to, PacketPtr packet, const PacketTap* sender = nullptr);
  // Sends a frame with its link header in place (SOCK_RAW of man 7 packet).
  Result<> SendFrame(PacketPtr frame, const PacketTap* sender = nullptr);
  // For FrameBatch: hands complete frames to the link and counts them.
  void WriteFrames(PacketList frames, size_t count);

 private:
  friend class Stack;

  void DeliverFrame(PacketPtr frame) override;
  void DeliverFrames(PacketList frames) override;
  // NeighbourTable::Delegate.
  void SendSolicitation(const Address& target, const LinkAddress* link) override;
  void SendResolved(const LinkAddress& to, PacketPtr packet) override;
  void Unresolved(PacketList packets) override;
  bool WantsChanges() const override;
  void Changed(bool removed, const NeighbourInfo& neighbour) override;

  void AddressTimer(Time now) EXCLUDES(mu_);
  void RescheduleLocked() REQUIRES(mu_);
  void StartDetectionLocked(InterfaceAddress& address, Time now) REQUIRES(mu_);
  void AddressInUse(const InterfaceAddress& address);
  void AddressGone(const InterfaceAddress& address);
  Result<> Emit(PacketPtr frame, size_t link_header_size, const PacketTap* sender);
  // Down for good, and everything forgotten.
  void Detach();

  Stack& stack_;
  const uint32_t index_;
  const std::string name_;
  const std::unique_ptr<LinkEndpoint> link_;
  const bool autoconfigure_;
  const uint8_t duplicate_probes_;
  std::atomic<uint32_t> mtu_;
  std::atomic<uint32_t> flags_;
  std::atomic<uint32_t> promiscuity_{0};
  std::atomic<bool> removed_{false};
  InterfaceStats stats_;

  struct Group {
    Address address;
    uint32_t members = 0;
  };

  mutable sync::Mutex mu_;
  std::vector<InterfaceAddress> addresses_ GUARDED_BY(mu_);
  std::vector<Group> groups_ GUARDED_BY(mu_);
  std::atomic<uint32_t> group_count_{0};
  Timer address_timer_;
  NeighbourTable neighbours_v4_;
  NeighbourTable neighbours_v6_;
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_STACK_INTERFACE_H_
