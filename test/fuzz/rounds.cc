#include "test/fuzz/rounds.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <random>

namespace redoubt::fuzz {
namespace {

std::optional<uint64_t> Variable(const char* name) {
  const char* text = getenv(name);
  if (text == nullptr) return std::nullopt;
  return std::strtoull(text, nullptr, 10);
}

}  // namespace

void Rounds(uint64_t count, const std::function<void(uint64_t seed)>& round) {
  using Clock = std::chrono::steady_clock;
  const std::optional<uint64_t> time = Variable("FUZZ_SECONDS"), first = Variable("FUZZ_SEED");
  // 32 bits: what the smallest generator takes.
  uint64_t seed = first ? *first : time ? std::random_device()() : 1;
  if (first) count = 1;
  const Clock::time_point start = Clock::now();
  const Clock::time_point end = start + std::chrono::seconds(time.value_or(0));
  Clock::time_point told;
  uint64_t done = 0;
  for (; done == 0 || (time ? Clock::now() < end : done < count); done++, seed++) {
    if ((time || first) && Clock::now() > told + std::chrono::milliseconds(100)) {
      told = Clock::now();
      std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
      std::fflush(stdout);
    }
    round(seed);
    if (testing::Test::HasFailure()) {
      std::printf("failed; repeat with FUZZ_SEED=%llu\n", static_cast<unsigned long long>(seed));
      return;
    }
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  std::printf("%llu rounds, %.1f a second, up to seed %llu\n", static_cast<unsigned long long>(done),
              static_cast<double>(done) / seconds, static_cast<unsigned long long>(seed - 1));
}

}  // namespace redoubt::fuzz
