// Intrusive reference counts: RefPtr<T> for what descriptors, mounts and tasks name.
#ifndef REDOUBT_PKG_REFS_REFS_H_
#define REDOUBT_PKG_REFS_REFS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "pkg/log/log.h"

namespace redoubt {

// Base of a counted object; born with no reference, so make it with MakeRef. The last RefPtr to go calls OnZeroRefs.
// Thread-safe.
class RefCounted {
 public:
  RefCounted(const RefCounted&) = delete;
  RefCounted& operator=(const RefCounted&) = delete;

  void IncRef() const { refs_.fetch_add(1, std::memory_order_relaxed); }
  void DecRef() const {
    int32_t before = refs_.fetch_sub(1, std::memory_order_acq_rel);
    CHECK(before > 0, "a reference was dropped twice");
    if (before == 1) const_cast<RefCounted*>(this)->OnZeroRefs();
  }
  // Takes a reference unless the count has already reached zero: for caches that hold a bare pointer under a lock.
  bool TryIncRef() const {
    int32_t n = refs_.load(std::memory_order_relaxed);
    while (n > 0) {
      if (refs_.compare_exchange_weak(n, n + 1, std::memory_order_acq_rel)) return true;
    }
    return false;
  }
  // A snapshot: only for heuristics and tests.
  int32_t RefCount() const { return refs_.load(std::memory_order_relaxed); }

 protected:
  RefCounted() = default;
  virtual ~RefCounted() = default;
  // As DecRef, but returns true instead of calling OnZeroRefs if that was the last: for chains of owners, which must
  // not be taken down by recursion.
  [[nodiscard]] bool DropRefIsLast() const {
    int32_t before = refs_.fetch_sub(1, std::memory_order_acq_rel);
    CHECK(before > 0, "a reference was dropped twice");
    return before == 1;
  }
  // The last reference has gone. Overridden by objects that a cache also holds; must end in `delete this`.
  virtual void OnZeroRefs() { delete this; }

 private:
  mutable std::atomic<int32_t> refs_{0};
};

template <typename T>
class RefPtr final {
 public:
  constexpr RefPtr() = default;
  constexpr RefPtr(std::nullptr_t) {}  // NOLINT: as for std smart pointers
  // Takes a new reference.
  explicit RefPtr(T* p) : p_(p) {
    if (p_ != nullptr) p_->IncRef();
  }
  // Takes over a reference that the caller owns (from TryIncRef or Release).
  static RefPtr Adopt(T* p) {
    RefPtr r;
    r.p_ = p;
    return r;
  }
  RefPtr(const RefPtr& o) : RefPtr(o.p_) {}
  RefPtr(RefPtr&& o) noexcept : p_(std::exchange(o.p_, nullptr)) {}
  template <typename U>
    requires std::is_convertible_v<U*, T*>
  RefPtr(const RefPtr<U>& o) : RefPtr(o.get()) {}  // NOLINT
  template <typename U>
    requires std::is_convertible_v<U*, T*>
  RefPtr(RefPtr<U>&& o) noexcept : p_(o.Release()) {}  // NOLINT
  RefPtr& operator=(RefPtr o) noexcept {
    std::swap(p_, o.p_);
    return *this;
  }
  ~RefPtr() {
    if (p_ != nullptr) p_->DecRef();
  }

  T* get() const { return p_; }
  T* operator->() const { return p_; }
  T& operator*() const { return *p_; }
  explicit operator bool() const { return p_ != nullptr; }
  void reset() { *this = RefPtr(); }
  // Gives the reference to the caller.
  [[nodiscard]] T* Release() { return std::exchange(p_, nullptr); }

  friend bool operator==(const RefPtr& a, const RefPtr& b) { return a.p_ == b.p_; }
  friend bool operator==(const RefPtr& a, std::nullptr_t) { return a.p_ == nullptr; }

 private:
  T* p_ = nullptr;
};

template <typename T, typename... Args>
RefPtr<T> MakeRef(Args&&... args) {
  return RefPtr<T>(new T(std::forward<Args>(args)...));
}

// A RefPtr of a derived class, null if the object is of another.
template <typename T, typename U>
RefPtr<T> RefCast(const RefPtr<U>& p) {
  return RefPtr<T>(dynamic_cast<T*>(p.get()));
}

}  // namespace redoubt

#endif  // REDOUBT_PKG_REFS_REFS_H_
