// operator new and delete that count. The nothrow and array forms of the library call these.
#include <malloc.h>

#include <cstdlib>
#include <new>

#include "pkg/heap/heap.h"

namespace {

void* Counted(void* p) {
  if (p == nullptr) throw std::bad_alloc();
  redoubt::heap::Allocated(malloc_usable_size(p));
  return p;
}

void Free(void* p) {
  if (p == nullptr) return;
  redoubt::heap::Freed(malloc_usable_size(p));
  std::free(p);
}

}  // namespace

// SAFETY: what is freed here came from malloc or aligned_alloc, below.
void* operator new(size_t size) { return Counted(std::malloc(size != 0 ? size : 1)); }
void* operator new(size_t size, std::align_val_t align) {
  const size_t a = static_cast<size_t>(align);
  return Counted(std::aligned_alloc(a, (size + a - 1) / a * a));
}
void operator delete(void* p) noexcept { Free(p); }
void operator delete(void* p, size_t) noexcept { Free(p); }
void operator delete(void* p, std::align_val_t) noexcept { Free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { Free(p); }
