// Packet endpoints that share frames (man 7 packet, PACKET_FANOUT): each frame goes to one of a group.
#ifndef REDOUBT_PKG_NETSTACK_RAW_FANOUT_H_
#define REDOUBT_PKG_NETSTACK_RAW_FANOUT_H_

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/netstack/packet/packet.h"
#include "pkg/netstack/raw/packet_endpoint.h"
#include "pkg/refs/refs.h"
#include "pkg/sync/mutex.h"

namespace redoubt::netstack {

// By what a member is chosen. Here all frames arrive at the first processor: kCpu gives them to the first member.
enum class FanoutKind : uint8_t { kHash, kLoadBalance, kCpu };

struct FanoutRule {
  FanoutKind kind = FanoutKind::kHash;
  bool ignore_outgoing = false;
  // What all members are bound to.
  uint16_t ethertype = 0;
  uint32_t interface_index = 0;
  friend bool operator==(const FanoutRule&, const FanoutRule&) = default;
};

// Thread-safe. Every member is shown every frame; only the first hands it on, to whose turn it is.
class FanoutGroup final : public RefCounted {
 public:
  static constexpr size_t kMaxMembers = 256;  // Linux's PACKET_FANOUT_MAX

  explicit FanoutGroup(const FanoutRule& rule) : rule_(rule) {}
  const FanoutRule& rule() const { return rule_; }
  bool Add(PacketEndpoint& member) EXCLUDES(mu_);  // false: there are too many
  // True if it was the last.
  bool Remove(const PacketEndpoint& member) EXCLUDES(mu_);
  // Who gets a frame that `asked` was shown; null: nobody by it.
  RefPtr<PacketEndpoint> Choose(const PacketEndpoint& asked, const Packet& packet) EXCLUDES(mu_);

 private:
  const FanoutRule rule_;
  mutable sync::Mutex mu_{sync::Rank::kNetStack};
  std::vector<PacketEndpoint*> members_ GUARDED_BY(mu_);  // each takes itself out before it ends
  uint32_t turn_ GUARDED_BY(mu_) = 0;
};

// The groups of one stack, by their numbers. Thread-safe.
class FanoutGroups final {
 public:
  // EINVAL: of that number there is a group with another rule; ENOSPC.
  Result<RefPtr<FanoutGroup>> Join(uint16_t number, const FanoutRule& rule, PacketEndpoint& member) EXCLUDES(mu_);
  void Leave(uint16_t number, FanoutGroup& group, const PacketEndpoint& member) EXCLUDES(mu_);

 private:
  sync::Mutex mu_{sync::Rank::kNetDemux};
  std::unordered_map<uint16_t, RefPtr<FanoutGroup>> groups_ GUARDED_BY(mu_);
};

// The same for both directions of a flow, and for all fragments of a datagram.
uint32_t FlowHash(const Packet& packet, size_t network);

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_RAW_FANOUT_H_
