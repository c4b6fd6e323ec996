// What a socket filter sees: Linux's struct sk_buff, for SO_ATTACH_FILTER.
#ifndef REDOUBT_PKG_BPF_PACKET_H_
#define REDOUBT_PKG_BPF_PACKET_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace redoubt::bpf {

// Borrowed for a run. Its bytes are hostile and may change meanwhile.
class Packet {
 public:
  // Where offsets count from: what the reader would get first, or headers before or behind that (SKF_NET_OFF,
  // SKF_LL_OFF).
  enum class Base : uint8_t { kData, kNetwork, kLink };
  // The interface and its kind (ARPHRD_*); a packet of a local socket has none.
  struct Interface {
    uint32_t index = 0;
    uint16_t hardware_type = 0;
  };

  virtual uint32_t size() const = 0;  // from kData on
  // False: not all of that is there.
  virtual bool Load(Base base, uint32_t offset, std::span<std::byte> out) const = 0;
  // From kData to kNetwork, which may lie before it.
  virtual int32_t network_offset() const { return 0; }
  virtual uint16_t protocol() const { return 0; }  // ETH_P_*
  virtual uint8_t type() const { return 0; }       // PACKET_HOST, ...
  virtual std::optional<Interface> interface() const { return std::nullopt; }
  virtual uint32_t random() const = 0;

 protected:
  ~Packet() = default;
};

// For the interpreter: at an offset of a program, which is negative where it counts from another base.
bool LoadBytes(const Packet& packet, uint32_t offset, std::span<std::byte> out);
// The load of SKF_AD_OFF + `which`. What this machine's network has no notion of (marks, queues, hashes, VLAN tags) is
// 0.
bool LoadAncillary(const Packet& packet, uint32_t which, uint32_t x, uint32_t* a);

}  // namespace redoubt::bpf

#endif  // REDOUBT_PKG_BPF_PACKET_H_
