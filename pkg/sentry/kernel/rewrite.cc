#include "pkg/sentry/kernel/rewrite.h"

#include <array>

#include "pkg/log/log.h"

namespace redoubt::kernel {

using platform::Rewriter;

void RewriteCall(mm::MemoryManager& mm, Addr call, uint64_t nr) {
  Rewriter* rewriter = mm.address_space().rewriter();
  if (rewriter == nullptr || call < Rewriter::kBefore) return;
  std::array<std::byte, Rewriter::kContext> around;
  Result<size_t> read = mm.CopyIn(call - Rewriter::kBefore, around);
  if (!read || *read != around.size()) return;
  Result<Rewriter::Plan> plan = rewriter->MakePlan(call, nr, around);
  if (!plan && plan.error() == Errno(ENOSPC)) {
    Result<AddrRange> room = mm.MapHidden(call, Rewriter::kRoomSize, Rewriter::kReach);
    if (!room) return;
    rewriter->AddRoom(*room);
    plan = rewriter->MakePlan(call, nr, around);
  }
  if (!plan) return;
  Result<> done = mm.WriteHidden(plan->trampoline, std::span(plan->code).first(plan->code_length));
  if (done) {
    done = mm.PatchText(plan->addr, std::span(plan->expected).first(plan->length),
                        std::span(plan->patched).first(plan->length), plan->trampoline);
  }
  if (done) return;
  LOG_DEBUG("the system call at {:#x} cannot be rewritten: {}", call, done.error().name());
  rewriter->Drop(*plan);
}

bool LandOnPatch(mm::MemoryManager& mm, platform::Registers& regs) {
  Rewriter* rewriter = mm.address_space().rewriter();
  if (rewriter == nullptr) return false;
  const Addr int3 = regs.rip - 1;
  std::optional<Addr> landing = rewriter->Landing(int3);
  if (!landing) return false;
  if (mm.FindPatch(int3)) {
    regs.rip = *landing;
    return true;
  }
  // Undone since the trap (DropHidden): the instruction that was there is there again, unless it is one like this.
  constexpr std::byte kInt3{0xcc};
  Result<std::byte> now = mm.CopyInObject<std::byte>(int3);
  if (!now || *now == kInt3) return false;
  regs.rip = int3;
  return true;
}

bool LeaveLostTrampoline(mm::MemoryManager& mm, platform::Registers& regs, Addr fault) {
  Rewriter* rewriter = mm.address_space().rewriter();
  if (rewriter == nullptr || fault != regs.rip) return false;
  std::optional<Addr> landing = rewriter->Landing(regs.rip);
  if (!landing) return false;
  regs.rip = *landing;
  return true;
}

}  // namespace redoubt::kernel
