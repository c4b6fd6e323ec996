// How every fuzzer is run: round after round, each made by one seed.
//
//   FUZZ_SECONDS  for so long, from a new seed on; without it, as many rounds as the test asks for, from 1 on
//   FUZZ_SEED     the first round's seed; alone, for that one round
#ifndef REDOUBT_TEST_FUZZ_ROUNDS_H_
#define REDOUBT_TEST_FUZZ_ROUNDS_H_

#include <cstdint>
#include <functional>

namespace redoubt::fuzz {

// Runs `round` with one seed after the other, up to the first failure of the test. Writes the rate, and the seed of the
// round that failed; for a time, or for one seed, also every tenth of a second the seed that comes next, so that a run
// that crashes can be repeated from there.
void Rounds(uint64_t count, const std::function<void(uint64_t seed)>& round);

}  // namespace redoubt::fuzz

#endif  // REDOUBT_TEST_FUZZ_ROUNDS_H_
