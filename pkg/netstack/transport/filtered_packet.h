// What a socket's filter sees of a packet: bpf::Packet on a netstack's.
#ifndef REDOUBT_PKG_NETSTACK_TRANSPORT_FILTERED_PACKET_H_
#define REDOUBT_PKG_NETSTACK_TRANSPORT_FILTERED_PACKET_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "pkg/bpf/packet.h"
#include "pkg/netstack/clock/random.h"
#include "pkg/netstack/packet/packet.h"
#include "pkg/netstack/stack/interface.h"

namespace redoubt::netstack {

// Borrowed for a run. `data`, `network`, `link`: where in the packet's data the filter's bases are.
class FilteredPacket final : public bpf::Packet {
 public:
  FilteredPacket(const netstack::Packet& packet, size_t data, size_t network, std::optional<size_t> link,
                 RandomSource& random)
      : packet_(packet), data_(data), network_(network), link_(link), random_(random) {}

  uint32_t size() const override { return static_cast<uint32_t>(packet_.data.size() - data_); }
  bool Load(Base base, uint32_t offset, std::span<std::byte> out) const override {
    if (base == Base::kLink && !link_) return false;
    const size_t from = base == Base::kData ? data_ : base == Base::kNetwork ? network_ : *link_;
    return packet_.data.CopyOut(from + offset, out) == out.size();
  }
  int32_t network_offset() const override { return static_cast<int32_t>(network_) - static_cast<int32_t>(data_); }
  uint16_t protocol() const override { return packet_.ethertype; }
  uint8_t type() const override { return static_cast<uint8_t>(packet_.type); }
  std::optional<Interface> interface() const override {
    if (packet_.interface == nullptr) return std::nullopt;
    return Interface{.index = packet_.interface_index, .hardware_type = packet_.interface->link().hardware_type()};
  }
  uint32_t random() const override { return random_.U32(); }

 private:
  const netstack::Packet& packet_;
  const size_t data_, network_;
  const std::optional<size_t> link_;
  RandomSource& random_;
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_TRANSPORT_FILTERED_PACKET_H_
