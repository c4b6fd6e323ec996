#include "test/perf/allocations.h"

#include <cstdlib>
#include <new>

namespace {
thread_local uint64_t allocations = 0;
}  // namespace

namespace redoubt::test {
uint64_t Allocations() { return allocations; }
}  // namespace redoubt::test

void* operator new(size_t size) {
  allocations++;
  if (void* p = std::malloc(size)) return p;
  std::abort();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
