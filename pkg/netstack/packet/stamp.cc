#include "pkg/netstack/packet/stamp.h"

#include <algorithm>
#include <span>

#include "pkg/netstack/packet/packet.h"

namespace redoubt::netstack {

Stamp MakeStamp(StampPlace place, uint32_t key, Time now, const Packet& frame, size_t link_header, bool with_frame) {
  Stamp stamp{.place = place, .key = key, .at = now};
  if (!with_frame) return stamp;
  stamp.source = frame.source;
  stamp.destination = frame.destination;
  stamp.interface_index = frame.interface_index;
  stamp.frame = frame.data.Clone();
  if (link_header == 0) {
    constexpr size_t kEthernet = 14;
    std::span<std::byte> front{stamp.frame.Prepend(kEthernet), kEthernet};
    std::ranges::fill(front, std::byte{0});
    front[12] = static_cast<std::byte>(frame.ethertype >> 8);
    front[13] = static_cast<std::byte>(frame.ethertype);
  }
  return stamp;
}

}  // namespace redoubt::netstack
