#include "pkg/netstack/header/ipv6.h"

namespace redoubt::netstack::header {

namespace {
constexpr uint8_t kOptionPad1 = 0;
constexpr uint8_t kOptionPadN = 1;
constexpr uint8_t kOptionRouterAlert = 5;

// RFC 8200 section 4.2. True if the packet goes on.
bool WalkOptions(Bytes packet, size_t begin, size_t end, Ipv6Extensions& r) {
  size_t count = 0;
  for (size_t i = begin; i < end;) {
    uint8_t kind = Load8(packet, i);
    if (kind == kOptionPad1) {
      i++;
      continue;
    }
    if (++count > Ipv6Extensions::kMaxOptions || i + 1 >= end || i + 2 + Load8(packet, i + 1) > end) {
      r.verdict = Ipv6Extensions::Verdict::kMalformed;
      return false;
    }
    uint8_t length = Load8(packet, i + 1);
    if (kind == kOptionRouterAlert) {
      r.router_alert = r.router_alert || length == 2;
    } else if (kind != kOptionPadN && kind >> 6 != 0) {
      // 01: discard; 10: discard and answer; 11: answer unless multicast.
      r.verdict = kind >> 6 == 1 ? Ipv6Extensions::Verdict::kDiscard : Ipv6Extensions::Verdict::kParameterProblem;
      r.code = 2;
      r.pointer = static_cast<uint32_t>(i);
      r.answer_multicast = kind >> 6 == 2;
      return false;
    }
    i += 2 + size_t{length};
  }
  return true;
}
}  // namespace

std::optional<Ipv6> Ipv6::Parse(Bytes b, size_t packet_size) {
  if (b.size() < kSize || packet_size < kSize) return std::nullopt;
  uint32_t first = Load32(b, 0);
  if (first >> 28 != 6) return std::nullopt;
  Ipv6 h{.traffic_class = static_cast<uint8_t>(first >> 20),
         .flow_label = first & 0xfffff,
         .payload_length = Load16(b, 4),
         .next_header = Load8(b, 6),
         .hop_limit = Load8(b, 7),
         .source = LoadIpv6(b, 8),
         .destination = LoadIpv6(b, 24)};
  if (h.payload_length > packet_size - kSize) return std::nullopt;
  return h;
}

void Ipv6::Write(MutableBytes out) const {
  Store32(out, 0, 6u << 28 | uint32_t{traffic_class} << 20 | (flow_label & 0xfffff));
  Store16(out, 4, payload_length);
  Store8(out, 6, next_header);
  Store8(out, 7, hop_limit);
  StoreAddress(out, 8, source);
  StoreAddress(out, 24, destination);
}

std::optional<Ipv6Fragment> Ipv6Fragment::Parse(Bytes b) {
  if (b.size() < kSize) return std::nullopt;
  uint16_t field = Load16(b, 2);
  return Ipv6Fragment{.next_header = Load8(b, 0),
                      .offset = static_cast<uint16_t>(field & 0xfff8),
                      .more = (field & 1) != 0,
                      .id = Load32(b, 4)};
}

void Ipv6Fragment::Write(MutableBytes out) const {
  Store8(out, 0, next_header);
  Store8(out, 1, 0);
  Store16(out, 2, static_cast<uint16_t>((offset & 0xfff8) | (more ? 1 : 0)));
  Store32(out, 4, id);
}

Ipv6Extensions Ipv6Extensions::Walk(Bytes packet, uint8_t first, size_t first_at, size_t offset) {
  Ipv6Extensions r;
  r.next_header = first;
  r.next_header_at = first_at;
  r.offset = offset;
  bool hop_by_hop_allowed = first_at == 6;  // only right behind the IPv6 header
  for (size_t headers = 0;; headers++) {
    if (r.next_header == kNextFragment) {
      if (r.offset > packet.size()) r.verdict = Verdict::kMalformed;
      if (r.verdict != Verdict::kAccept) return r;
      r.fragment = Ipv6Fragment::Parse(packet.subspan(r.offset));
      if (!r.fragment) {
        r.verdict = Verdict::kMalformed;
        return r;
      }
      r.fragment_at = r.offset;
      r.offset += Ipv6Fragment::kSize;
      return r;
    }
    if (r.next_header != kNextHopByHop && r.next_header != kNextRouting && r.next_header != kNextDestination) return r;
    if (r.next_header == kNextHopByHop && !hop_by_hop_allowed) {
      r.verdict = Verdict::kParameterProblem;
      r.code = 1;
      r.pointer = static_cast<uint32_t>(r.next_header_at);
      return r;
    }
    hop_by_hop_allowed = false;
    if (headers >= kMaxHeaders || r.offset > packet.size() || packet.size() - r.offset < 8) {
      r.verdict = Verdict::kMalformed;
      return r;
    }
    size_t length = (size_t{Load8(packet, r.offset + 1)} + 1) * 8;
    if (length > packet.size() - r.offset) {
      r.verdict = Verdict::kMalformed;
      return r;
    }
    if (r.next_header == kNextRouting) {
      // RFC 8200 section 4.4: none left is skipped whatever the type; type 0 is deprecated (RFC 5095) and we know no
      // other, so with segments left the packet is refused, pointing at the type.
      if (Load8(packet, r.offset + 3) != 0) {
        r.verdict = Verdict::kParameterProblem;
        r.code = 0;
        r.pointer = static_cast<uint32_t>(r.offset + 2);
        return r;
      }
    } else if (!WalkOptions(packet, r.offset + 2, r.offset + length, r)) {
      return r;
    }
    r.next_header = Load8(packet, r.offset);
    r.next_header_at = r.offset;
    r.offset += length;
  }
}

}  // namespace redoubt::netstack::header
