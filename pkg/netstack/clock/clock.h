// Time as the netstack is given it: monotonic nanoseconds from a source of the embedder's, or a virtual one in tests.
#ifndef REDOUBT_PKG_NETSTACK_CLOCK_CLOCK_H_
#define REDOUBT_PKG_NETSTACK_CLOCK_CLOCK_H_

#include <atomic>
#include <cstdint>
#include <limits>

namespace redoubt::netstack {

// Nanoseconds of a monotonic clock with an arbitrary origin; also lengths of time.
using Time = int64_t;
inline constexpr Time kMicrosecond = 1'000;
inline constexpr Time kMillisecond = 1'000'000;
inline constexpr Time kSecond = 1'000'000'000;
inline constexpr Time kNever = std::numeric_limits<Time>::max();

// Thread-safe; never goes back.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual Time Now() const = 0;
};

// A clock that moves only when told to.
class VirtualClock final : public Clock {
 public:
  Time Now() const override { return now_.load(std::memory_order_acquire); }
  void Advance(Time by) { now_.fetch_add(by, std::memory_order_acq_rel); }
  // `to` must not be in the past.
  void SetNow(Time to) { now_.store(to, std::memory_order_release); }

 private:
  std::atomic<Time> now_{kSecond};  // not 0, so that "never happened" cannot be mistaken for "now"
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_CLOCK_CLOCK_H_
