// Memory for fibers' stacks: mapped lazily, with a guard page below, kept for reuse.
#ifndef REDOUBT_PKG_FIBER_STACK_UNSAFE_H_
#define REDOUBT_PKG_FIBER_STACK_UNSAFE_H_

#include <cstddef>

namespace redoubt::fiber::internal {

// One stack. Movable owner; the destructor gives the memory to the process-wide cache or back to the host. Never
// destroyed by code that runs on it.
class Stack final {
 public:
  Stack() = default;
  // `size` usable bytes, rounded up to pages. Fatal if the host has no memory left.
  explicit Stack(size_t size);
  Stack(Stack&& o) noexcept;
  Stack& operator=(Stack&& o) noexcept;
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;
  ~Stack();

  std::byte* bottom() const { return bottom_; }  // lowest usable address
  std::byte* top() const { return bottom_ + size_; }
  size_t size() const { return size_; }

 private:
  std::byte* bottom_ = nullptr;
  size_t size_ = 0;
};

}  // namespace redoubt::fiber::internal

#endif  // REDOUBT_PKG_FIBER_STACK_UNSAFE_H_
