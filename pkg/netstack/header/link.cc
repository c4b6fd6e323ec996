#include "pkg/netstack/header/link.h"

namespace redoubt::netstack::header {

std::optional<Ethernet> Ethernet::Parse(Bytes b) {
  if (b.size() < kSize) return std::nullopt;
  return Ethernet{.destination = LoadLink(b, 0), .source = LoadLink(b, 6), .ethertype = Load16(b, 12)};
}

void Ethernet::Write(MutableBytes out) const {
  StoreLink(out, 0, destination);
  StoreLink(out, 6, source);
  Store16(out, 12, ethertype);
}

std::optional<Arp> Arp::Parse(Bytes b) {
  // Hardware type 1 (Ethernet), address lengths 6 and 4.
  if (b.size() < kSize || Load16(b, 0) != 1 || Load16(b, 2) != kEtherTypeIpv4 || Load8(b, 4) != 6 || Load8(b, 5) != 4) {
    return std::nullopt;
  }
  Arp arp{.operation = Load16(b, 6),
          .sender_link = LoadLink(b, 8),
          .sender = LoadIpv4(b, 14),
          .target_link = LoadLink(b, 18),
          .target = LoadIpv4(b, 24)};
  if (arp.operation != kRequest && arp.operation != kReply) return std::nullopt;
  if (arp.sender_link.IsMulticast() || arp.sender.IsMulticast() || arp.sender.IsLimitedBroadcast()) return std::nullopt;
  return arp;
}

void Arp::Write(MutableBytes out) const {
  Store16(out, 0, 1);
  Store16(out, 2, kEtherTypeIpv4);
  Store8(out, 4, 6);
  Store8(out, 5, 4);
  Store16(out, 6, operation);
  StoreLink(out, 8, sender_link);
  StoreAddress(out, 14, sender);
  StoreLink(out, 18, target_link);
  StoreAddress(out, 24, target);
}

}  // namespace redoubt::netstack::header
