// Switching between stacks: Boost.Context's jump with AddressSanitizer told about it.
#ifndef REDOUBT_PKG_FIBER_CONTEXT_UNSAFE_H_
#define REDOUBT_PKG_FIBER_CONTEXT_UNSAFE_H_

#include <cstddef>

#include "pkg/fiber/stack_unsafe.h"

namespace redoubt::fiber::internal {

// A place where execution stopped and can go on. An OS thread's own stack needs no preparation: the first Switch away
// from it fills its Context. Must not move while it is switched out.
class Context final {
 public:
  Context() = default;
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  // The first Switch to this context calls `entry(argument)` on `stack`. `entry` must leave by a last Switch, never
  // return.
  void Prepare(const Stack& stack, void (*entry)(void*), void* argument);

  enum class Leave { kToReturn, kForever };
  // Goes on at `to`, and returns when something switches back to `from`. kForever: nothing ever will.
  static void Switch(Context& from, Context& to, Leave leave);

  // The rest is for context_unsafe.cc.
  void* saved = nullptr;      // Boost's fcontext_t
  Context* target = nullptr;  // whom this one last switched to
  void (*entry)(void*) = nullptr;
  void* argument = nullptr;
  // What AddressSanitizer wants to know.
  void* fake_stack = nullptr;
  const void* stack_bottom = nullptr;
  size_t stack_size = 0;
};

// AddressSanitizer's marks of a dead stack's frames must not be seen by the memory's next user.
void ForgetStackShadow(void* bottom, size_t size);

}  // namespace redoubt::fiber::internal

#endif  // REDOUBT_PKG_FIBER_CONTEXT_UNSAFE_H_
