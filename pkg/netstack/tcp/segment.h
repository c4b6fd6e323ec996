// A TCP segment as fields, and its form on the wire (RFC 9293 section 3.1).
#ifndef REDOUBT_PKG_NETSTACK_TCP_SEGMENT_H_
#define REDOUBT_PKG_NETSTACK_TCP_SEGMENT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "pkg/netstack/buffer/buffer.h"
#include "pkg/netstack/tcp/seq.h"

namespace redoubt::netstack::tcp {

// Control bits.
inline constexpr uint8_t kFin = 0x01;
inline constexpr uint8_t kSyn = 0x02;
inline constexpr uint8_t kRst = 0x04;
inline constexpr uint8_t kPsh = 0x08;
inline constexpr uint8_t kAck = 0x10;
inline constexpr uint8_t kUrg = 0x20;
inline constexpr uint8_t kEce = 0x40;  // RFC 3168
inline constexpr uint8_t kCwr = 0x80;

// The two ECN bits of the IP header (RFC 3168 section 5).
enum class Ecn : uint8_t { kNotEct = 0, kEct1 = 1, kEct0 = 2, kCe = 3 };

inline constexpr size_t kHeaderSize = 20;
inline constexpr size_t kMaxHeaderSize = 60;
inline constexpr size_t kMaxSackBlocks = 4;
inline constexpr size_t kTimestampOptionSize = 12;  // with two NOPs, as all stacks send it

struct FastOpenCookie {
  uint8_t length = 0;  // 0: a request for one
  std::array<uint8_t, 16> bytes{};
  std::span<const uint8_t> span() const { return std::span(bytes).first(length); }
};

struct Options {
  std::optional<uint16_t> mss;          // RFC 9293 section 3.7.1
  std::optional<uint8_t> window_scale;  // RFC 7323 section 2; at most 14
  bool sack_permitted = false;          // RFC 2018 section 2
  bool timestamp = false;               // RFC 7323 section 3
  uint32_t ts_value = 0;
  uint32_t ts_echo = 0;
  uint8_t sack_count = 0;  // RFC 2018 section 3
  std::array<SeqRange, kMaxSackBlocks> sack;
  std::optional<FastOpenCookie> fast_open;  // RFC 7413 section 4.1.1

  // Bytes on the wire, a multiple of 4. At most 40 if the caller keeps to SackRoom.
  size_t size() const;
  std::span<const SeqRange> sack_blocks() const { return std::span(sack).first(sack_count); }
};

struct Segment {
  Seq seq = 0;
  Seq ack = 0;
  uint8_t flags = 0;
  uint16_t window = 0;  // as on the wire, not scaled
  uint16_t urgent = 0;
  Options options;
  Ecn ecn = Ecn::kNotEct;
  // Payload bytes per segment, if these are several: sent, for the link to cut; received, joined by the Coalescer. Else
  // 0.
  uint16_t segment_size = 0;
  Buffer payload;

  bool Has(uint8_t flag) const { return (flags & flag) != 0; }
  // Sequence numbers that it takes: payload, SYN and FIN.
  uint32_t length() const { return static_cast<uint32_t>(payload.size()) + (Has(kSyn) ? 1 : 0) + (Has(kFin) ? 1 : 0); }
  Seq end() const { return seq + length(); }
};

struct Ports {
  uint16_t source = 0;
  uint16_t destination = 0;
};

// Reads a header and its options from bytes of a stranger and takes it off `data`, which begins with it. nullopt if
// the header does not fit. Options that are malformed end the list (as Linux does), unknown ones are skipped. The
// checksum is not looked at.
std::optional<Segment> ParseSegment(Buffer data, Ports* ports);
// Only the options; exposed for fuzzing.
Options ParseOptions(std::span<const std::byte> bytes, bool syn);

// Puts the header in front of segment.payload (moved out), `headroom` bytes free before it if a chunk is taken. The
// checksum field is zero; its offset is 16.
Buffer BuildSegment(Segment& segment, Ports ports, size_t headroom);
inline constexpr size_t kChecksumOffset = 16;

}  // namespace redoubt::netstack::tcp

#endif  // REDOUBT_PKG_NETSTACK_TCP_SEGMENT_H_
