// For tests: hosts on one Ethernet under virtual time, with loss, delay, reordering, duplication and damage from a
// seed.
#ifndef REDOUBT_PKG_NETSTACK_TESTING_NETWORK_H_
#define REDOUBT_PKG_NETSTACK_TESTING_NETWORK_H_

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "pkg/netstack/clock/random.h"
#include "pkg/netstack/inet/inet.h"
#include "pkg/netstack/link/channel.h"

namespace redoubt::netstack::testing {

inline Address A(std::string_view text) { return *Address::Parse(text); }
inline LinkAddress Mac(uint8_t n) { return {{2, 0, 0, 0, 0, n}}; }
std::vector<std::byte> Contents(const Buffer& buffer);
Buffer Text(std::string_view text);
std::string Text(const Buffer& buffer);
// A whole IPv4 packet with correct checksum, around `payload`.
Buffer Ipv4Packet(const header::Ipv4& ip, std::span<const std::byte> payload, std::span<const std::byte> options = {});
Buffer Ipv6Packet(header::Ipv6 ip, std::span<const std::byte> payload);

// A stack of its own with lo and eth0.
struct Host {
  Host(Clock& clock, uint64_t seed, uint8_t number, uint32_t mtu = 1500, uint8_t duplicate_probes = 0,
       bool autoconfigure = false);
  ~Host();
  SeededRandom random;
  Stack stack;
  Inet inet;
  RefPtr<Interface> lo;
  Channel* channel;
  RefPtr<Interface> eth0;
  LinkAddress mac;
};

struct Conditions {
  // Out of 1000 frames.
  uint32_t loss = 0, duplication = 0, damage = 0;
  Time delay = 100 * kMicrosecond;
  Time jitter = 0;  // reorders
};

class Network {
 public:
  explicit Network(uint64_t seed, const Conditions& conditions = {}) : random(seed), conditions_(conditions) {}
  Host& AddHost(uint32_t mtu = 1500, uint8_t duplicate_probes = 0, bool autoconfigure = false);
  // Lets time pass: moves frames, runs timers.
  void Run(Time duration);
  // Sees every frame that is sent; tests count and check them here.
  std::function<void(const Host& from, const Packet& frame)> observer;

  VirtualClock clock;
  SeededRandom random;
  std::vector<std::unique_ptr<Host>> hosts;

 private:
  struct Flight {
    Host* to;
    PacketPtr frame;
  };
  void Collect();
  Conditions conditions_;
  std::multimap<Time, Flight> air_;
};

}  // namespace redoubt::netstack::testing

#endif  // REDOUBT_PKG_NETSTACK_TESTING_NETWORK_H_
