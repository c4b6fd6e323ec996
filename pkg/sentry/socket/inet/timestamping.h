// Private to inet: SO_TIMESTAMP, SO_TIMESTAMPNS and SO_TIMESTAMPING (socket(7), the kernel's
// Documentation/networking/timestamping.rst).
#ifndef REDOUBT_PKG_SENTRY_SOCKET_INET_TIMESTAMPING_H_
#define REDOUBT_PKG_SENTRY_SOCKET_INET_TIMESTAMPING_H_

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/netstack/packet/stamp.h"
#include "pkg/sentry/socket/inet/network.h"
#include "pkg/sentry/socket/socket.h"

namespace redoubt::inetsock {

// Of one socket. Setting is for one caller at a time; the rest is thread-safe.
class Timestamping final {
 public:
  // Whether a SOL_SOCKET option is one of these.
  static bool IsOption(int name);
  // EINVAL; EOPNOTSUPP for a clock of hardware, which there is none, and for statistics.
  Result<> Set(int name, std::span<const std::byte> value);
  std::vector<std::byte> Get(int name) const;
  void Inherit(const Timestamping& listener) {
    state_.store(listener.state_.load(std::memory_order_relaxed), std::memory_order_relaxed);
  }

  uint32_t flags() const { return state_.load(std::memory_order_relaxed).flags; }
  // SOF_TIMESTAMPING_*.
  bool has(uint32_t flag) const { return (flags() & flag) != 0; }
  // Those of a packet's way out that the socket's flags, or those of one message's, ask for.
  static netstack::StampPlaces Places(uint32_t flags);
  netstack::StampPlaces places() const { return Places(flags()); }
  // What sendmsg(2)'s ancillary data asks for. EINVAL.
  static Result<netstack::StampPlaces> ParseControl(const socket::Control& control);
  bool wants_received() const;

  // When something was received, for the reader.
  void AddReceived(Network& network, netstack::Time at, socket::InMessage& message) const;
  // An entry of the error queue (MSG_ERRQUEUE). Returns how many bytes.
  Result<size_t> AddSent(Network& network, int family, const netstack::Stamp& stamp, socket::InMessage& message) const;

 private:
  enum class Old : uint8_t { kOff, kMicroseconds, kNanoseconds };
  struct alignas(8) State {
    uint32_t flags = 0;
    Old old = Old::kOff;
    bool by_new_names = false;  // SO_TIMESTAMPING_NEW and its kin: then cmsg(3) has those numbers too
  };
  std::atomic<State> state_{};
};

}  // namespace redoubt::inetsock

#endif  // REDOUBT_PKG_SENTRY_SOCKET_INET_TIMESTAMPING_H_
