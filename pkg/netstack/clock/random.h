// Randomness as the netstack is given it, and the keyed hash made from it.
#ifndef REDOUBT_PKG_NETSTACK_CLOCK_RANDOM_H_
#define REDOUBT_PKG_NETSTACK_CLOCK_RANDOM_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "pkg/sync/mutex.h"

namespace redoubt::netstack {

// Thread-safe. In production unpredictable to anybody on the network (ports, sequence numbers and cookies come from
// it).
class RandomSource {
 public:
  virtual ~RandomSource() = default;
  virtual void Fill(std::span<std::byte> out) = 0;

  uint32_t U32();
  uint64_t U64();
  // Uniform in [0, bound); bound > 0.
  uint32_t Below(uint32_t bound);
};

// The same numbers from the same seed (splitmix64), for tests; no secret.
class SeededRandom final : public RandomSource {
 public:
  explicit SeededRandom(uint64_t seed) : mu_(sync::Rank::kLeaf), state_(seed) {}
  void Fill(std::span<std::byte> out) override EXCLUDES(mu_);

 private:
  sync::Mutex mu_;
  uint64_t state_ GUARDED_BY(mu_);
};

// SipHash-2-4 (Aumasson and Bernstein, 2012): hashes of what strangers choose, keyed so that they cannot choose
// collisions.
using HashKey = std::array<uint64_t, 2>;
HashKey NewHashKey(RandomSource& random);
uint64_t SipHash(const HashKey& key, std::span<const std::byte> data);

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_CLOCK_RANDOM_H_
