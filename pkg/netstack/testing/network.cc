#include "pkg/netstack/testing/network.h"

#include <algorithm>

#include "pkg/netstack/checksum/checksum.h"

namespace redoubt::netstack::testing {

std::vector<std::byte> Contents(const Buffer& buffer) {
  std::vector<std::byte> r(buffer.size());
  buffer.CopyOut(0, r);
  return r;
}

Buffer Text(std::string_view text) { return Buffer::CopyOf(std::as_bytes(std::span(text)), 100); }

std::string Text(const Buffer& buffer) {
  std::string r(buffer.size(), 0);
  buffer.CopyOut(0, std::as_writable_bytes(std::span(r)));
  return r;
}

Buffer Ipv4Packet(const header::Ipv4& ip, std::span<const std::byte> payload, std::span<const std::byte> options) {
  header::Ipv4 h = ip;
  h.header_length = static_cast<uint8_t>(header::Ipv4::kMinSize + options.size());
  h.total_length = static_cast<uint16_t>(h.header_length + payload.size());
  h.checksum = 0;
  Buffer b = Buffer::Allocate(h.total_length, 14);
  std::span<std::byte> out = b.MutableView(0);
  h.Write(out);
  std::ranges::copy(options, out.begin() + header::Ipv4::kMinSize);
  header::Store16(out, 10, static_cast<uint16_t>(~Sum(out.first(h.header_length))));
  std::ranges::copy(payload, out.begin() + h.header_length);
  return b;
}

Buffer Ipv6Packet(header::Ipv6 ip, std::span<const std::byte> payload) {
  ip.payload_length = static_cast<uint16_t>(payload.size());
  Buffer b = Buffer::Allocate(header::Ipv6::kSize + payload.size(), 14);
  std::span<std::byte> out = b.MutableView(0);
  ip.Write(out);
  std::ranges::copy(payload, out.begin() + header::Ipv6::kSize);
  return b;
}

Host::Host(Clock& clock, uint64_t seed, uint8_t number, uint32_t mtu, uint8_t duplicate_probes, bool autoconfigure)
    : random(seed), stack(clock, random), inet(RegisterInet(stack)), mac(Mac(number)) {
  lo = *AddLoopback(stack);
  auto link = std::make_unique<Channel>(Channel::Options{.mtu = mtu, .address = mac});
  channel = link.get();
  eth0 = *stack.AddInterface(
      {.name = "eth0", .link = std::move(link), .autoconfigure = autoconfigure, .duplicate_probes = duplicate_probes});
  (void)eth0->AddAddress({.prefix = {Address::Ipv4(10, 0, 0, number), 24}});
  if (!autoconfigure && mtu >= 1280) {
    (void)eth0->AddAddress({.prefix = {Eui64Address(A("fe80::"), mac), 64}});
    std::array<uint8_t, 16> global{0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, number};
    (void)eth0->AddAddress({.prefix = {Address::Ipv6(global), 64}});
  }
  eth0->SetUp(true);
}

Host::~Host() { stack.Close(); }

Host& Network::AddHost(uint32_t mtu, uint8_t duplicate_probes, bool autoconfigure) {
  uint8_t number = static_cast<uint8_t>(hosts.size() + 1);
  hosts.push_back(std::make_unique<Host>(clock, random.U64(), number, mtu, duplicate_probes, autoconfigure));
  return *hosts.back();
}

void Network::Collect() {
  for (auto& from : hosts) {
    while (PacketPtr frame = from->channel->Read()) {
      if (observer) observer(*from, *frame);
      for (auto& to : hosts) {
        if (to == from) continue;
        if (random.Below(1000) < conditions_.loss) continue;
        uint32_t copies = random.Below(1000) < conditions_.duplication ? 2 : 1;
        for (; copies > 0; copies--) {
          // Another machine sees bytes, not what the sender knew of them.
          std::vector<std::byte> bytes = Contents(frame->data);
          if (random.Below(1000) < conditions_.damage) {
            bytes[random.Below(static_cast<uint32_t>(bytes.size()))] ^= static_cast<std::byte>(1 << random.Below(8));
          }
          Time at =
              clock.Now() + conditions_.delay +
              (conditions_.jitter != 0 ? static_cast<Time>(random.Below(static_cast<uint32_t>(conditions_.jitter)))
                                       : 0);
          air_.emplace(at, Flight{to.get(), NewPacket(Buffer::CopyOf(bytes))});
        }
      }
    }
  }
}

void Network::Run(Time duration) {
  Time end = clock.Now() + duration;
  for (;;) {
    Collect();
    Time next = air_.empty() ? kNever : air_.begin()->first;
    for (auto& h : hosts) next = std::min(next, h->stack.timers().NextDeadline());
    if (next > end) break;
    clock.SetNow(std::max(clock.Now(), next));
    for (auto& h : hosts) h->stack.timers().RunTimers(clock.Now());
    while (!air_.empty() && air_.begin()->first <= clock.Now()) {
      Flight flight = std::move(air_.begin()->second);
      air_.erase(air_.begin());
      flight.to->channel->Inject(std::move(flight.frame));
    }
  }
  clock.SetNow(end);
}

}  // namespace redoubt::netstack::testing
