// Puts fragments together again (RFC 791 section 3.2, RFC 8200 section 4.5), within bounds.
#ifndef REDOUBT_PKG_NETSTACK_FRAGMENTATION_REASSEMBLER_H_
#define REDOUBT_PKG_NETSTACK_FRAGMENTATION_REASSEMBLER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <unordered_map>

#include "pkg/netstack/address/address.h"
#include "pkg/netstack/clock/clock.h"
#include "pkg/netstack/clock/random.h"
#include "pkg/netstack/clock/timer.h"
#include "pkg/netstack/packet/packet.h"
#include "pkg/refs/refs.h"
#include "pkg/sync/mutex.h"

namespace redoubt::netstack {

// Thread-safe. A datagram of which two fragments overlap is dropped whole, and so is what still comes of it until its
// time is up (RFC 5722); an exact duplicate of a fragment is ignored. When memory runs out the oldest datagram goes.
class Reassembler final : public RefCounted {
 public:
  static constexpr size_t kMaxMemory = 4 << 20;  // bytes of chunks held (net.ipv4.ipfrag_high_thresh)
  static constexpr size_t kMaxDatagrams = 4096;
  static constexpr size_t kMaxFragments = 256;       // of one datagram: more are an attack or a tiny MTU
  static constexpr size_t kMaxDatagramSize = 65535;  // payload

  struct Key {
    Address source;
    Address destination;
    uint32_t id = 0;
    uint8_t protocol = 0;  // IPv4 only
    friend bool operator==(const Key&, const Key&) = default;
  };
  // Called with no lock held, with the first fragment (offset 0) of a datagram whose time is up, if it has come.
  using Expired = std::function<void(PacketPtr first)>;

  Reassembler(Clock& clock, RandomSource& random, TimerQueue& timers, Time timeout, Expired expired);

  enum class Outcome : uint8_t { kWaiting, kComplete, kDropped };
  struct Added {
    Outcome outcome;
    // kComplete: the first fragment with the payloads of all behind its headers. Its network header is as it came.
    PacketPtr packet;
  };
  // `payload_at`: where in fragment->data the payload begins; `offset`: where that belongs in the datagram; `more`: not
  // the last.
  Added Add(const Key& key, PacketPtr fragment, size_t payload_at, size_t offset, bool more) EXCLUDES(mu_);
  // Datagrams given up: time, overlap, bounds.
  uint64_t failures() const { return failures_.load(std::memory_order_relaxed); }
  size_t memory() const EXCLUDES(mu_);
  // Drops everything; called before the owner goes.
  void Close() EXCLUDES(mu_);

 private:
  struct Piece {
    size_t end;
    PacketPtr packet;  // null for the first: see Datagram::first
    size_t payload_at;
  };
  struct Datagram {
    Key key;
    Time deadline = 0;
    std::map<size_t, Piece> pieces;  // by offset
    size_t received = 0;             // payload bytes
    size_t total = 0;                // known once the last has come; else 0
    size_t memory = 0;
    bool poisoned = false;
  };
  struct KeyHash {
    HashKey key;
    size_t operator()(const Key& k) const;
  };
  using List = std::list<Datagram>;

  void OnTimer(Time now) EXCLUDES(mu_);
  void PoisonLocked(Datagram& d) REQUIRES(mu_);
  void EraseLocked(List::iterator it) REQUIRES(mu_);

  Clock& clock_;
  const Time timeout_;
  const Expired expired_;
  std::atomic<uint64_t> failures_{0};

  mutable sync::Mutex mu_;
  List datagrams_ GUARDED_BY(mu_);  // oldest first, so by deadline
  std::unordered_map<Key, List::iterator, KeyHash> by_key_ GUARDED_BY(mu_);
  size_t memory_ GUARDED_BY(mu_) = 0;
  bool closed_ GUARDED_BY(mu_) = false;
  Timer timer_;
};

// Allows `rate` events a second, and `burst` at once after a rest. Thread-safe.
class TokenBucket final {
 public:
  TokenBucket(uint32_t rate, uint32_t burst)
      : interval_(kSecond / rate), burst_time_(interval_ * burst), mu_(sync::Rank::kLeaf) {}
  bool Allow(Time now) EXCLUDES(mu_) {
    sync::MutexLock lock(mu_);
    // `next_` is when the bucket would be full again, less its size: the virtual scheduling form of a leaky bucket.
    if (next_ < now) next_ = now;
    if (next_ + interval_ - now > burst_time_) return false;
    next_ += interval_;
    return true;
  }

 private:
  const Time interval_;
  const Time burst_time_;
  sync::Mutex mu_;
  Time next_ GUARDED_BY(mu_) = 0;
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_FRAGMENTATION_REASSEMBLER_H_
