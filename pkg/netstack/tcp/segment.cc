#include "pkg/netstack/tcp/segment.h"

#include <algorithm>
#include <cstring>

#include "pkg/log/log.h"

namespace redoubt::netstack::tcp {

namespace {

// Option kinds (IANA, "TCP Parameters").
constexpr uint8_t kEnd = 0, kNop = 1, kMss = 2, kWindowScale = 3, kSackPermitted = 4, kSack = 5, kTimestamp = 8,
                  kFastOpen = 34;

uint16_t Get16(const std::byte* p) {
  return static_cast<uint16_t>(std::to_integer<uint16_t>(p[0]) << 8 | std::to_integer<uint16_t>(p[1]));
}
uint32_t Get32(const std::byte* p) { return uint32_t{Get16(p)} << 16 | Get16(p + 2); }

std::byte* Put8(std::byte* p, uint8_t v) {
  *p = std::byte{v};
  return p + 1;
}
std::byte* Put16(std::byte* p, uint16_t v) {
  return Put8(Put8(p, static_cast<uint8_t>(v >> 8)), static_cast<uint8_t>(v));
}
std::byte* Put32(std::byte* p, uint32_t v) {
  return Put16(Put16(p, static_cast<uint16_t>(v >> 16)), static_cast<uint16_t>(v));
}

size_t RawSize(const Options& o) {
  size_t n = 0;
  if (o.mss) n += 4;
  if (o.timestamp) n += kTimestampOptionSize;
  if (o.window_scale) n += 4;
  if (o.sack_permitted) n += 4;
  if (o.sack_count > 0) n += 4 + 8 * o.sack_count;
  if (o.fast_open) n += 2 + o.fast_open->length;
  return n;
}

std::byte* WriteOptions(const Options& o, std::byte* p) {
  if (o.mss) p = Put16(Put8(Put8(p, kMss), 4), *o.mss);
  if (o.timestamp) {
    p = Put8(Put8(Put8(Put8(p, kNop), kNop), kTimestamp), 10);
    p = Put32(Put32(p, o.ts_value), o.ts_echo);
  }
  if (o.window_scale) p = Put8(Put8(Put8(Put8(p, kNop), kWindowScale), 3), *o.window_scale);
  if (o.sack_permitted) p = Put8(Put8(Put8(Put8(p, kNop), kNop), kSackPermitted), 2);
  if (o.sack_count > 0) {
    p = Put8(Put8(Put8(Put8(p, kNop), kNop), kSack), static_cast<uint8_t>(2 + 8 * o.sack_count));
    for (const SeqRange& r : o.sack_blocks()) p = Put32(Put32(p, r.start), r.end);
  }
  if (o.fast_open) {
    p = Put8(Put8(p, kFastOpen), static_cast<uint8_t>(2 + o.fast_open->length));
    for (uint8_t b : o.fast_open->span()) p = Put8(p, b);
  }
  return p;
}

}  // namespace

size_t Options::size() const { return (RawSize(*this) + 3) & ~size_t{3}; }

Options ParseOptions(std::span<const std::byte> bytes, bool syn) {
  Options o;
  while (!bytes.empty()) {
    uint8_t kind = std::to_integer<uint8_t>(bytes[0]);
    if (kind == kEnd) break;
    if (kind == kNop) {
      bytes = bytes.subspan(1);
      continue;
    }
    if (bytes.size() < 2) break;
    size_t length = std::to_integer<size_t>(bytes[1]);
    if (length < 2 || length > bytes.size()) break;
    const std::byte* p = bytes.data() + 2;
    switch (kind) {
      case kMss:
        if (length == 4 && syn && Get16(p) != 0) o.mss = Get16(p);
        break;
      case kWindowScale:
        // RFC 7323 section 2.3: a larger shift is taken for 14.
        if (length == 3 && syn) o.window_scale = std::min<uint8_t>(std::to_integer<uint8_t>(*p), 14);
        break;
      case kSackPermitted:
        if (length == 2 && syn) o.sack_permitted = true;
        break;
      case kTimestamp:
        if (length == 10) {
          o.timestamp = true;
          o.ts_value = Get32(p);
          o.ts_echo = Get32(p + 4);
        }
        break;
      case kSack:
        if (length >= 10 && (length - 2) % 8 == 0 && !syn) {
          o.sack_count = static_cast<uint8_t>(std::min((length - 2) / 8, kMaxSackBlocks));
          for (size_t i = 0; i < o.sack_count; i++) o.sack[i] = {Get32(p + 8 * i), Get32(p + 8 * i + 4)};
        }
        break;
      case kFastOpen: {
        size_t n = length - 2;
        if (syn && (n == 0 || (n >= 4 && n <= 16 && n % 2 == 0))) {
          FastOpenCookie& cookie = o.fast_open.emplace();
          cookie.length = static_cast<uint8_t>(n);
          std::memcpy(cookie.bytes.data(), p, n);
        }
        break;
      }
      default:
        break;
    }
    bytes = bytes.subspan(length);
  }
  return o;
}

std::optional<Segment> ParseSegment(Buffer data, Ports* ports) {
  std::span<const std::byte> header = data.PullUp(kHeaderSize);
  if (header.empty()) return std::nullopt;
  size_t length = (std::to_integer<size_t>(header[12]) >> 4) * 4;
  if (length < kHeaderSize) return std::nullopt;
  header = data.PullUp(length);
  if (header.empty()) return std::nullopt;
  const std::byte* p = header.data();
  std::optional<Segment> segment(std::in_place);
  Segment& s = *segment;
  *ports = {.source = Get16(p), .destination = Get16(p + 2)};
  s.seq = Get32(p + 4);
  s.ack = Get32(p + 8);
  s.flags = std::to_integer<uint8_t>(p[13]);
  s.window = Get16(p + 14);
  s.urgent = Get16(p + 18);
  s.options = ParseOptions(header.subspan(kHeaderSize), s.Has(kSyn));
  data.TrimFront(length);
  s.payload = std::move(data);
  return segment;
}

Buffer BuildSegment(Segment& segment, Ports ports, size_t headroom) {
  size_t options = segment.options.size();
  CHECK(options <= kMaxHeaderSize - kHeaderSize, "TCP options overflow the header");
  size_t length = kHeaderSize + options;
  Buffer data = Buffer::Allocate(length, headroom);
  std::byte* p = data.MutableView(0).data();
  p = Put16(Put16(p, ports.source), ports.destination);
  p = Put32(Put32(p, segment.seq), segment.ack);
  p = Put8(Put8(p, static_cast<uint8_t>(length / 4 << 4)), segment.flags);
  p = Put16(Put16(Put16(p, segment.window), 0), segment.urgent);
  std::byte* end = WriteOptions(segment.options, p);
  std::fill(end, p + options, std::byte{kEnd});
  data.Append(std::move(segment.payload));
  return data;
}

}  // namespace redoubt::netstack::tcp
