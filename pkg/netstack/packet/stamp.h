// When a packet passed the places on its way out, for the sender who asks (the kernel's
// Documentation/networking/timestamping.rst, section 2.1: SO_TIMESTAMPING).
#ifndef REDOUBT_PKG_NETSTACK_PACKET_STAMP_H_
#define REDOUBT_PKG_NETSTACK_PACKET_STAMP_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "pkg/netstack/address/address.h"
#include "pkg/netstack/buffer/buffer.h"
#include "pkg/netstack/clock/clock.h"
#include "pkg/refs/refs.h"

namespace redoubt::netstack {

struct Packet;

// The values of SCM_TSTAMP_* (linux/errqueue.h).
enum class StampPlace : uint8_t {
  kSent = 0,          // handed to the link
  kScheduled = 1,     // handed to the interface, its neighbour known
  kAcknowledged = 2,  // TCP: the peer has it
};
// Sets of places.
using StampPlaces = uint8_t;
constexpr StampPlaces StampBit(StampPlace place) { return static_cast<StampPlaces>(1u << static_cast<uint8_t>(place)); }

// Thread-safe; called with no lock held.
class StampReceiver {
 public:
  // `frame` begins `link_header` bytes before its network header.
  virtual void Stamped(StampPlace place, uint32_t key, const Packet& frame, size_t link_header) = 0;

 protected:
  ~StampReceiver() = default;
};

// What comes with a packet whose sender asks; empty with all others.
struct StampRequest {
  RefPtr<RefCounted> owner;  // keeps `receiver` alive
  StampReceiver* receiver = nullptr;
  uint32_t key = 0;  // as the sender numbers what it sends
  StampPlaces places = 0;

  bool Has(StampPlace place) const { return (places & StampBit(place)) != 0; }
};

// One entry for an error queue.
struct Stamp {
  StampPlace place = StampPlace::kSent;
  uint32_t key = 0;
  Time at = 0;  // on the stack's clock
  // The frame as it left, its link header first (on a loopback, which has none, Ethernet's with zeroes, as Linux's
  // has); empty if the sender wants the time only.
  Buffer frame;
  Address source, destination;   // of the frame
  uint32_t interface_index = 0;  // where it left
};

// Stamps that wait to be read. Not thread-safe. Bounded: what finds no room is lost, as on Linux.
class StampQueue final {
 public:
  static constexpr size_t kMax = 512;

  bool empty() const { return stamps_.empty(); }
  // `limit`: bytes of frames to hold at most.
  void Push(Stamp stamp, size_t limit) {
    const size_t memory = stamp.frame.memory();
    if (stamps_.size() >= kMax || (memory > 0 && memory_ + memory > limit)) return;
    memory_ += memory;
    stamps_.push_back(std::move(stamp));
  }
  std::optional<Stamp> Take() {
    if (stamps_.empty()) return std::nullopt;
    Stamp first = std::move(stamps_.front());
    stamps_.erase(stamps_.begin());
    memory_ -= first.frame.memory();
    return first;
  }
  void Clear() {
    stamps_.clear();
    memory_ = 0;
  }

 private:
  std::vector<Stamp> stamps_;
  size_t memory_ = 0;
};

// The stamp of a frame that leaves now by the place. `with_frame`: it is kept, by sharing its bytes.
Stamp MakeStamp(StampPlace place, uint32_t key, Time now, const Packet& frame, size_t link_header, bool with_frame);

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_PACKET_STAMP_H_
