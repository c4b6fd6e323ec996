// Which local ports are taken, by whose rules they may be shared, and the choice of ephemeral ones (RFC 6056).
#ifndef REDOUBT_PKG_NETSTACK_PORTS_PORT_MANAGER_H_
#define REDOUBT_PKG_NETSTACK_PORTS_PORT_MANAGER_H_

#include <atomic>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/netstack/address/address.h"
#include "pkg/netstack/clock/random.h"
#include "pkg/sync/mutex.h"

namespace redoubt::netstack {

struct PortRequest {
  uint8_t protocol = 0;          // IPPROTO_TCP or IPPROTO_UDP
  Address address;               // unspecified of a family: all addresses of it; of IPv6: of IPv4 too, unless v6_only
  uint16_t port = 0;             // 0: an ephemeral one
  uint32_t interface_index = 0;  // SO_BINDTODEVICE; 0: all
  bool v6_only = false;
  bool reuse_address = false;  // SO_REUSEADDR
  bool reuse_port = false;     // SO_REUSEPORT
  uint32_t owner = 0;          // effective user id: SO_REUSEPORT shares only among the same
};

// Thread-safe. Two claims conflict if protocol and port are equal and addresses and interfaces overlap, unless both set
// reuse_port and have one owner, or both set reuse_address and (TCP) neither listens (man 7 socket, man 7 ip).
class PortManager final {
 public:
  // net.ipv4.ip_local_port_range's default.
  static constexpr uint16_t kFirstEphemeral = 32768;
  static constexpr uint16_t kLastEphemeral = 60999;

  explicit PortManager(RandomSource& random) : random_(random), mu_(sync::Rank::kNetPorts) {}

  // A claim, given back by Release or the destructor. Movable. The manager outlives it.
  class Claim final {
   public:
    Claim() = default;
    Claim(Claim&& o) noexcept { *this = std::move(o); }
    Claim& operator=(Claim&& o) noexcept;
    ~Claim() { Release(); }
    void Release();
    explicit operator bool() const { return manager_ != nullptr; }
    uint16_t port() const { return port_; }

   private:
    friend class PortManager;
    PortManager* manager_ = nullptr;
    uint64_t id_ = 0;
    uint8_t protocol_ = 0;
    uint16_t port_ = 0;
  };

  // EADDRINUSE, for port 0 too when none is free.
  Result<Claim> Reserve(const PortRequest& request) EXCLUDES(mu_);
  // TCP: the claim's owner listens from now on. EADDRINUSE if another does where they overlap (and not both
  // reuse_port).
  Result<> SetListening(const Claim& claim, bool listening) EXCLUDES(mu_);
  // An ephemeral port for which `usable(port)` is true: for connections, which share ports as long as the four-tuple
  // differs. 0 if there is none. RFC 6056 section 3.3.3: each destination has its ports one after the other, from a
  // place that others cannot know, so that a port is the last to be used again while its old connection may still be in
  // TIME_WAIT. `destination` is a hash, under a secret key, of all of the tuple but the port.
  template <typename Usable>
  uint16_t PickEphemeral(uint64_t destination, Usable usable) {
    constexpr uint32_t kCount = kLastEphemeral - kFirstEphemeral + 1;
    for (uint32_t i = 0; i < kCount; i++) {
      uint64_t n = destination % kCount + next_ephemeral_.fetch_add(1, std::memory_order_relaxed);
      uint16_t port = static_cast<uint16_t>(kFirstEphemeral + n % kCount);
      if (usable(port)) return port;
    }
    return 0;
  }
  // True if nobody holds a claim that overlaps, whatever the flags.
  bool IsFree(const PortRequest& request) const EXCLUDES(mu_);

 private:
  struct Holder {
    uint64_t id;
    PortRequest request;
    bool listening = false;
  };
  static uint32_t Key(uint8_t protocol, uint16_t port) { return uint32_t{protocol} << 16 | port; }
  bool ConflictsLocked(const PortRequest& request, uint16_t port) const REQUIRES(mu_);
  void Release(const Claim& claim) EXCLUDES(mu_);

  RandomSource& random_;
  std::atomic<uint32_t> next_ephemeral_{0};
  mutable sync::Mutex mu_;
  std::unordered_map<uint32_t, std::vector<Holder>> holders_ GUARDED_BY(mu_);
  uint64_t next_id_ GUARDED_BY(mu_) = 1;
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_PORTS_PORT_MANAGER_H_
