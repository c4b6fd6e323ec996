// For tests: a packet that is what it was made of.
#ifndef REDOUBT_PKG_BPF_PACKET_OF_BYTES_H_
#define REDOUBT_PKG_BPF_PACKET_OF_BYTES_H_

#include <algorithm>

#include "pkg/bpf/packet.h"

namespace redoubt::bpf {

class PacketOfBytes final : public Packet {
 public:
  explicit PacketOfBytes(std::span<const std::byte> bytes) : bytes_(bytes) {}

  uint32_t size() const override { return static_cast<uint32_t>(bytes_.size()); }
  bool Load(Base base, uint32_t offset, std::span<std::byte> out) const override {
    const int64_t at = int64_t{offset} + (base == Base::kNetwork ? network_offset_ : 0);
    if (at < 0 || static_cast<uint64_t>(at) + out.size() > bytes_.size()) return false;
    std::copy_n(bytes_.data() + at, out.size(), out.data());
    return true;
  }
  int32_t network_offset() const override { return network_offset_; }
  uint16_t protocol() const override { return protocol_; }
  uint8_t type() const override { return type_; }
  std::optional<Interface> interface() const override { return interface_; }
  uint32_t random() const override { return 4; }

  int32_t network_offset_ = 0;
  uint16_t protocol_ = 0;
  uint8_t type_ = 0;
  std::optional<Interface> interface_;

 private:
  const std::span<const std::byte> bytes_;
};

}  // namespace redoubt::bpf

#endif  // REDOUBT_PKG_BPF_PACKET_OF_BYTES_H_
