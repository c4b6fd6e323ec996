#include "pkg/netstack/header/icmp.h"

namespace redoubt::netstack::header {

std::optional<Icmp> Icmp::Parse(Bytes b) {
  if (b.size() < kSize) return std::nullopt;
  return Icmp{.type = Load8(b, 0), .code = Load8(b, 1), .checksum = Load16(b, 2), .rest = Load32(b, 4)};
}

void Icmp::Write(MutableBytes out) const {
  Store8(out, 0, type);
  Store8(out, 1, code);
  Store16(out, 2, checksum);
  Store32(out, 4, rest);
}

bool IsIcmpV4Error(uint8_t type) {
  return type == ICMP_DEST_UNREACH || type == ICMP_SOURCE_QUENCH || type == ICMP_REDIRECT ||
         type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETERPROB;
}

std::optional<Udp> Udp::Parse(Bytes b, size_t datagram_size) {
  if (b.size() < kSize) return std::nullopt;
  Udp h{
      .source_port = Load16(b, 0), .destination_port = Load16(b, 2), .length = Load16(b, 4), .checksum = Load16(b, 6)};
  if (h.length < kSize || h.length > datagram_size) return std::nullopt;
  return h;
}

void Udp::Write(MutableBytes out) const {
  Store16(out, 0, source_port);
  Store16(out, 2, destination_port);
  Store16(out, 4, length);
  Store16(out, 6, checksum);
}

std::optional<Igmp> Igmp::Parse(Bytes b) {
  if (b.size() < kSize) return std::nullopt;
  return Igmp{.type = Load8(b, 0), .max_response = Load8(b, 1), .group = LoadIpv4(b, 4)};
}

void Igmp::Write(MutableBytes out) const {
  Store8(out, 0, type);
  Store8(out, 1, max_response);
  Store16(out, 2, 0);
  StoreAddress(out, 4, group);
}

std::optional<Mld> Mld::Parse(Bytes b) {
  if (b.size() < kSize) return std::nullopt;
  return Mld{.type = Load8(b, 0), .max_response = Load16(b, 4), .group = LoadIpv6(b, 8)};
}

void Mld::Write(MutableBytes out) const {
  Store8(out, 0, type);
  Store8(out, 1, 0);
  Store16(out, 2, 0);
  Store16(out, 4, max_response);
  Store16(out, 6, 0);
  StoreAddress(out, 8, group);
}

uint32_t DecodeIgmpV3Code(uint8_t code) {
  if (code < 128) return code;
  return (uint32_t{code & 0xfu} | 0x10) << (((code >> 4) & 7) + 3);
}

uint32_t DecodeMldV2Code(uint16_t code) {
  if (code < 32768) return code;
  return (uint32_t{code & 0xfffu} | 0x1000) << (((code >> 12) & 7) + 3);
}

}  // namespace redoubt::netstack::header
