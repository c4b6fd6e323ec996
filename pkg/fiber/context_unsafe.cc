#include "pkg/fiber/context_unsafe.h"

#include <boost/context/detail/fcontext.hpp>

#include "pkg/log/log.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace redoubt::fiber::internal {
namespace {

using boost::context::detail::jump_fcontext;
using boost::context::detail::make_fcontext;
using boost::context::detail::transfer_t;

// Runs first on the stack just arrived at: notes where the one we came from can be resumed.
void Arrive(transfer_t t, Context& self) {
  auto* from = static_cast<Context*>(t.data);
  from->saved = t.fctx;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(self.fake_stack, &from->stack_bottom, &from->stack_size);
#endif
}

void Trampoline(transfer_t t) {
  Context* self = static_cast<Context*>(t.data)->target;
  Arrive(t, *self);
  self->entry(self->argument);
  UNREACHABLE();
}

}  // namespace

void Context::Prepare(const Stack& stack, void (*entry_point)(void*), void* entry_argument) {
  // SAFETY: fcontext_t's contract: the stack's top, its size, a function that never returns.
  saved = make_fcontext(stack.top(), stack.size(), Trampoline);
  entry = entry_point;
  argument = entry_argument;
  stack_bottom = stack.bottom();
  stack_size = stack.size();
}

void Context::Switch(Context& from, Context& to, Leave leave) {
  from.target = &to;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(leave == Leave::kForever ? nullptr : &from.fake_stack, to.stack_bottom, to.stack_size);
#endif
  // SAFETY: `to.saved` is the place of the last switch away from `to`, used exactly once until it switches away again.
  Arrive(jump_fcontext(to.saved, &from), from);
}

void ForgetStackShadow([[maybe_unused]] void* bottom, [[maybe_unused]] size_t size) {
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(bottom, size);
#endif
}

}  // namespace redoubt::fiber::internal
