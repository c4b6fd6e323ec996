// What the benchmarks share.
#ifndef REDOUBT_TEST_PERF_REQUIRE_H_
#define REDOUBT_TEST_PERF_REQUIRE_H_

#include <cstdio>
#include <cstdlib>

namespace redoubt::perf {

// A benchmark whose calls fail would measure the failing.
inline void Require(bool ok, const char* what) {
  if (ok) return;
  std::perror(what);
  std::exit(1);
}

}  // namespace redoubt::perf

#endif  // REDOUBT_TEST_PERF_REQUIRE_H_
