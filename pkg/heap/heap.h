// How much memory this program's objects take: the Sentry's share of the memory that a sandbox was given.
#ifndef REDOUBT_PKG_HEAP_HEAP_H_
#define REDOUBT_PKG_HEAP_HEAP_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace redoubt::heap {

// Bytes allocated by operator new and not freed, the allocator's rounding included, and what others have said they
// took. Without the former in programs that are not linked with //pkg/heap:counted, which replaces operator new and
// delete.
uint64_t Used();

// True once after Used has grown by about a megabyte. Costs a load.
bool HasGrown();

// What operator new and delete call, and who takes much memory in another way.
void Allocated(size_t bytes);
void Freed(size_t bytes);

}  // namespace redoubt::heap

#endif  // REDOUBT_PKG_HEAP_HEAP_H_
