// Rewrites `syscall` instructions into jumps to trampolines, which lead to the stub without entering the host.
//
// Two forms, by what stands around the instruction:
//   mov $nr, %eax ; syscall          the mov becomes a jump. The syscall stays and traps for whoever jumps to it.
//   syscall ; cmp $imm, %rax         both become a jump; the cmp moves into the trampoline. The jump's displacement is
//                                    chosen so that an int3 stands where the cmp was: who returns there lands in
//                                    Landing.
// Layout of a trampoline: r11 = its data; jump to the stub; data: the guest's return address; where the stub goes on.
#ifndef REDOUBT_PKG_PLATFORM_SYSTRAP_REWRITER_AMD64_H_
#define REDOUBT_PKG_PLATFORM_SYSTRAP_REWRITER_AMD64_H_

#include <atomic>
#include <map>
#include <vector>

#include "pkg/platform/rewriter.h"
#include "pkg/sync/mutex.h"

namespace redoubt::platform::systrap {

// Owned by the address space.
class SystrapRewriter final : public Rewriter {
 public:
  // `target`: where trampolines jump to.
  explicit SystrapRewriter(Addr target, bool enabled) : target_(target), enabled_(enabled) {}

  Result<Plan> MakePlan(Addr call, uint64_t nr, std::span<const std::byte, kContext> around) override;
  void Drop(const Plan& plan) override;
  void AddRoom(AddrRange room) override;
  std::optional<Addr> Landing(Addr addr) override;
  void Disable() override { enabled_.store(false, std::memory_order_relaxed); }

  // Counts a trap of the instruction at `call`; true each time it has become hot.
  bool IsHot(Addr call);
  // The guest's own instruction that `rip`, an address in a trampoline, stands for.
  std::optional<Addr> InGuest(Addr rip);
  // A fork's memory holds copies of the parent's trampolines.
  void Inherit(SystrapRewriter& parent);

 private:
  static constexpr uint8_t kHot = 24;
  static constexpr uint8_t kNever = 255;
  static constexpr size_t kCounters = 512;

  struct Trampoline {
    Addr call = 0;
    uint8_t length = 0;
    bool moved_compare = false;
  };
  // A free place of `length` bytes in [from, to), or 0.
  Addr FindPlace(Addr from, Addr to, uint64_t length) REQUIRES(mu_);

  const Addr target_;
  std::atomic<bool> enabled_;
  std::atomic<bool> any_{false};
  sync::Mutex mu_{sync::Rank::kLeaf};
  std::vector<AddrRange> rooms_ GUARDED_BY(mu_);
  std::map<Addr, Trampoline> trampolines_ GUARDED_BY(mu_);  // by address
  std::map<Addr, Addr> by_call_ GUARDED_BY(mu_);            // instruction to trampoline
  struct Counter {
    Addr call = 0;
    uint8_t count = 0;
  };
  std::vector<Counter> counters_ GUARDED_BY(mu_);
};

}  // namespace redoubt::platform::systrap

#endif  // REDOUBT_PKG_PLATFORM_SYSTRAP_REWRITER_AMD64_H_
