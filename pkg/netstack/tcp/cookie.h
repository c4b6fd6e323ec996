// Numbers that only we can make: initial sequence numbers (RFC 6528), SYN cookies (RFC 4987 section 3.6), fast open
// cookies (RFC 7413).
#ifndef REDOUBT_PKG_NETSTACK_TCP_COOKIE_H_
#define REDOUBT_PKG_NETSTACK_TCP_COOKIE_H_

#include <cstdint>
#include <optional>

#include "pkg/netstack/clock/clock.h"
#include "pkg/netstack/clock/random.h"
#include "pkg/netstack/stack/transport_protocol.h"
#include "pkg/netstack/tcp/segment.h"
#include "pkg/netstack/tcp/seq.h"

namespace redoubt::netstack::tcp {

// Keys are drawn once. Thread-safe: nothing changes.
class CookieJar final {
 public:
  explicit CookieJar(RandomSource& random)
      : isn_key_(NewHashKey(random)),
        syn_key_(NewHashKey(random)),
        open_key_(NewHashKey(random)),
        ts_key_(NewHashKey(random)) {}

  // RFC 6528 section 3: a hash of the four-tuple and a clock, of 256 ns, since connections have become quick.
  Seq InitialSequence(const FourTuple& id, Time now) const;
  // Added to a connection's timestamp clock; the same for one pair of hosts, so that RFC 7323's checks hold across
  // connections.
  uint32_t TimestampOffset(const FourTuple& id) const;

  // The sequence number of a SYN-ACK that keeps nothing: it says within some 64 s when it was made, and the peer's
  // MSS, rounded down.
  Seq SynCookie(const FourTuple& id, Seq irs, uint16_t mss, Time now) const;
  // The MSS if `cookie` is one that was made less than 128 s ago.
  std::optional<uint16_t> CheckSynCookie(const FourTuple& id, Seq irs, Seq cookie, Time now) const;
  // The rest of the SYN's options travels in the low bits of our timestamp.
  static constexpr uint32_t kTimestampBits = 0x3f;
  static uint32_t PackOptions(uint32_t timestamp, const Options& options);
  static Options UnpackOptions(uint32_t timestamp);

  FastOpenCookie OpenCookie(const Address& client) const;

 private:
  uint32_t SynHash(const FourTuple& id, Seq irs, uint32_t period, uint32_t mss_index) const;

  const HashKey isn_key_, syn_key_, open_key_, ts_key_;
};

// A keyed hash of a four-tuple, for tables.
uint64_t HashTuple(const HashKey& key, const FourTuple& id, uint64_t extra = 0);

}  // namespace redoubt::netstack::tcp

#endif  // REDOUBT_PKG_NETSTACK_TCP_COOKIE_H_
