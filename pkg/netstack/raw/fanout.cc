#include "pkg/netstack/raw/fanout.h"

#include <linux/if_ether.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <span>

namespace redoubt::netstack {

namespace {

uint32_t Fnv(std::span<const std::byte> bytes, uint32_t hash) {
  for (std::byte b : bytes) hash = (hash ^ std::to_integer<uint32_t>(b)) * 16777619;
  return hash;
}

}  // namespace

uint32_t FlowHash(const Packet& packet, size_t network) {
  constexpr uint32_t kBasis = 2166136261;
  std::array<std::byte, 40> header{};
  const size_t n = packet.data.CopyOut(network, header);
  size_t at, size, transport;
  uint8_t protocol;
  bool fragment = false;
  if (packet.ethertype == ETH_P_IP && n >= 20) {
    at = 12, size = 4;
    protocol = std::to_integer<uint8_t>(header[9]);
    transport = network + (std::to_integer<size_t>(header[0]) & 15) * 4;
    fragment = (std::to_integer<int>(header[6]) & 0x3f) != 0 || header[7] != std::byte{0};
  } else if (packet.ethertype == ETH_P_IPV6 && n >= 40) {
    at = 8, size = 16;
    protocol = std::to_integer<uint8_t>(header[6]);
    transport = network + 40;
  } else {
    return Fnv(std::as_bytes(std::span(&packet.ethertype, 1)), kBasis);
  }
  auto source = std::span(header).subspan(at, size), destination = std::span(header).subspan(at + size, size);
  std::array<std::byte, 4> ports{};
  const bool has_ports = protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
  if (has_ports && !fragment) (void)packet.data.CopyOut(transport, ports);
  auto from = std::span(ports).first(2), to = std::span(ports).last(2);
  if (std::ranges::lexicographical_compare(destination, source)) std::swap(source, destination);
  if (std::ranges::lexicographical_compare(to, from)) std::swap(from, to);
  uint32_t hash = Fnv(source, kBasis);
  hash = Fnv(destination, hash);
  hash = Fnv(from, hash);
  hash = Fnv(to, hash);
  return (hash ^ protocol) * 16777619;
}

bool FanoutGroup::Add(PacketEndpoint& member) {
  sync::MutexLock lock(mu_);
  if (members_.size() >= kMaxMembers) return false;
  members_.push_back(&member);
  return true;
}

bool FanoutGroup::Remove(const PacketEndpoint& member) {
  sync::MutexLock lock(mu_);
  std::erase(members_, &member);
  return members_.empty();
}

RefPtr<PacketEndpoint> FanoutGroup::Choose(const PacketEndpoint& asked, const Packet& packet) {
  if (rule_.ignore_outgoing && packet.type == PacketType::kOutgoing) return nullptr;
  const uint32_t hash = rule_.kind == FanoutKind::kHash ? FlowHash(packet, packet.interface->link().header_size()) : 0;
  sync::MutexLock lock(mu_);
  if (members_.empty() || members_.front() != &asked) return nullptr;
  size_t choice = 0;
  if (rule_.kind == FanoutKind::kHash) choice = static_cast<size_t>(uint64_t{hash} * members_.size() >> 32);
  if (rule_.kind == FanoutKind::kLoadBalance) choice = turn_++ % members_.size();
  return RefPtr<PacketEndpoint>(members_[choice]);
}

Result<RefPtr<FanoutGroup>> FanoutGroups::Join(uint16_t number, const FanoutRule& rule, PacketEndpoint& member) {
  sync::MutexLock lock(mu_);
  auto it = groups_.find(number);
  if (it == groups_.end()) {
    it = groups_.emplace(number, MakeRef<FanoutGroup>(rule)).first;
  } else if (it->second->rule() != rule) {
    return Err(EINVAL);
  }
  if (!it->second->Add(member)) return Err(ENOSPC);
  return it->second;
}

void FanoutGroups::Leave(uint16_t number, FanoutGroup& group, const PacketEndpoint& member) {
  RefPtr<FanoutGroup> gone;
  sync::MutexLock lock(mu_);
  if (!group.Remove(member)) return;
  auto it = groups_.find(number);
  if (it == groups_.end() || it->second.get() != &group) return;
  gone = std::move(it->second);
  groups_.erase(it);
}

}  // namespace redoubt::netstack
