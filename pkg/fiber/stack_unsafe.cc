#include "pkg/fiber/stack_unsafe.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "pkg/fiber/context_unsafe.h"
#include "pkg/hostarch/hostarch.h"
#include "pkg/log/log.h"
#include "pkg/sync/mutex.h"

namespace redoubt::fiber::internal {
namespace {

// Stacks of one size (nearly all are of the default size) wait here for the next fiber. The bound keeps what a burst of
// fibers touched from staying resident.
constexpr size_t kMaxCached = 64;

struct Cache {
  sync::Mutex mu{sync::Rank::kLeaf};
  size_t size GUARDED_BY(mu) = 0;
  std::vector<std::byte*> free GUARDED_BY(mu);
};

// Never destroyed: fibers may end while the process exits.
Cache& TheCache() {
  static Cache* cache = new Cache;
  return *cache;
}

std::byte* TakeCached(size_t size) {
  Cache& cache = TheCache();
  sync::MutexLock lock(cache.mu);
  if (cache.size != size || cache.free.empty()) return nullptr;
  std::byte* bottom = cache.free.back();
  cache.free.pop_back();
  return bottom;
}

bool GiveToCache(std::byte* bottom, size_t size) {
  Cache& cache = TheCache();
  sync::MutexLock lock(cache.mu);
  if (cache.free.empty()) cache.size = size;
  if (cache.size != size || cache.free.size() >= kMaxCached) return false;
  cache.free.push_back(bottom);
  return true;
}

}  // namespace

Stack::Stack(size_t size) : size_(MustPageRoundUp(size)) {
  bottom_ = TakeCached(size_);
  if (bottom_ != nullptr) return;
  void* p = mmap(nullptr, size_ + kPageSize, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
  CHECK(p != MAP_FAILED, "no memory for a fiber's stack");
  // SAFETY: the mapping is ours and new; its first page becomes the guard that turns an overflow into a SIGSEGV.
  CHECK(mprotect(p, kPageSize, PROT_NONE) == 0);
  bottom_ = static_cast<std::byte*>(p) + kPageSize;
}

Stack::Stack(Stack&& o) noexcept : bottom_(std::exchange(o.bottom_, nullptr)), size_(std::exchange(o.size_, 0)) {}

Stack& Stack::operator=(Stack&& o) noexcept {
  std::swap(bottom_, o.bottom_);
  std::swap(size_, o.size_);
  return *this;
}

Stack::~Stack() {
  if (bottom_ == nullptr) return;
  ForgetStackShadow(bottom_, size_);
  if (GiveToCache(bottom_, size_)) return;
  // SAFETY: the range is exactly what the constructor mapped, and nothing runs on it any more.
  munmap(bottom_ - kPageSize, size_ + kPageSize);
}

}  // namespace redoubt::fiber::internal
