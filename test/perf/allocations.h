// Counts calls of operator new, for benchmarks that are to say how many an operation makes.
#ifndef REDOUBT_TEST_PERF_ALLOCATIONS_H_
#define REDOUBT_TEST_PERF_ALLOCATIONS_H_

#include <cstdint>

namespace redoubt::test {

// Made so far by the calling OS thread.
uint64_t Allocations();

}  // namespace redoubt::test

#endif  // REDOUBT_TEST_PERF_ALLOCATIONS_H_
