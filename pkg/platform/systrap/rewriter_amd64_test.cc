#include "pkg/platform/systrap/rewriter_amd64.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <string.h>

#include <atomic>
#include <chrono>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "pkg/platform/conformance.h"
#include "pkg/platform/registers_amd64.h"
#include "pkg/platform/systrap/systrap.h"
#include "pkg/platform/systrap/template_unsafe.h"
#include "test/fuzz/rounds.h"

namespace redoubt::platform::systrap {
namespace {

constexpr Addr kTarget = 0x7fffffa01234;
constexpr uint64_t kNr = 39;
// A trap is hot the 24th time.
constexpr int kHot = 24;

using Around = std::array<std::byte, Rewriter::kContext>;

Around Bytes(std::initializer_list<int> bytes) {
  Around around;
  around.fill(std::byte{0x90});
  size_t i = 0;
  for (int b : bytes) around[i++] = static_cast<std::byte>(b);
  return around;
}

// nop; mov $39, %eax; syscall; nops.
Around Mov() { return Bytes({0x90, 0xb8, kNr, 0, 0, 0, 0x0f, 0x05}); }
// nops; syscall; cmp $-4095, %rax.
Around Compare() { return Bytes({0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x0f, 0x05, 0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff}); }

// What the machine would see: little-endian values in a plan's code, and where relative jumps lead.
struct Decoded {
  explicit Decoded(const Rewriter::Plan& p) : plan(p) {}
  uint8_t U8(size_t at) const { return static_cast<uint8_t>(plan.code.at(at)); }
  int32_t I32(size_t at) const {
    int32_t v;
    memcpy(&v, &plan.code.at(at), sizeof(v));
    return v;
  }
  uint64_t U64(size_t at) const {
    uint64_t v;
    memcpy(&v, &plan.code.at(at), sizeof(v));
    return v;
  }
  // The address that a 32-bit displacement at `at` means; it ends its instruction.
  Addr Relative(size_t at) const { return plan.trampoline + at + 4 + static_cast<int64_t>(I32(at)); }
  // The same of the jump in the text, at the plan's address.
  Addr JumpTarget() const {
    int32_t v;
    memcpy(&v, &plan.patched[1], sizeof(v));
    return plan.addr + 5 + static_cast<int64_t>(v);
  }

  const Rewriter::Plan& plan;
};

// Everything that must hold of a plan for `call`, by decoding it.
void CheckPlan(const Rewriter::Plan& plan, Addr call, const Around& around, AddrRange room, bool compare) {
  Decoded d(plan);
  ASSERT_EQ(plan.addr, compare ? call : call - 5);
  ASSERT_EQ(plan.length, compare ? 8 : 5);
  EXPECT_EQ(memcmp(plan.expected.data(), &around[compare ? 6 : 1], plan.length), 0);
  EXPECT_EQ(static_cast<uint8_t>(plan.patched[0]), 0xe9);
  EXPECT_EQ(d.JumpTarget(), plan.trampoline);
  EXPECT_TRUE(room.Contains(AddrRange{plan.trampoline, plan.trampoline + plan.code_length}))
      << std::hex << plan.trampoline << " is not in " << room.start << " to " << room.end;
  size_t at = 0;
  if (compare) {
    // Where the comparison was stands an int3, then the displacement's end, then more int3.
    EXPECT_EQ(static_cast<uint8_t>(plan.patched[2]), 0xcc);
    for (int i = 5; i < 8; i++) EXPECT_EQ(static_cast<uint8_t>(plan.patched[i]), 0xcc);
  } else {
    EXPECT_EQ(memcmp(plan.code.data(), &around[1], 5), 0) << "the mov";
    at = 5;
  }
  // lea disp(%rip), %r11
  EXPECT_EQ(d.U8(at), 0x4c);
  EXPECT_EQ(d.U8(at + 1), 0x8d);
  EXPECT_EQ(d.U8(at + 2), 0x1d);
  const Addr data = d.Relative(at + 3);
  EXPECT_EQ(data, plan.trampoline + at + 13);
  at += 7;
  // jmp *disp(%rip)
  EXPECT_EQ(d.U8(at), 0xff);
  EXPECT_EQ(d.U8(at + 1), 0x25);
  const Addr slot = d.Relative(at + 2);
  ASSERT_LE(slot + 8, plan.trampoline + plan.code_length);
  EXPECT_EQ(d.U64(slot - plan.trampoline), kTarget);
  at += 6;
  EXPECT_EQ(d.U64(at), call + 2) << "the guest's return address";
  at += 8;
  if (compare) {
    EXPECT_EQ(memcmp(&plan.code[at], &around[8], 6), 0) << "the comparison";
    at += 6;
  }
  EXPECT_EQ(d.U8(at), 0xe9);
  EXPECT_EQ(d.Relative(at + 1), compare ? call + 8 : call + 2) << "back to the guest";
  at += 5;
  EXPECT_EQ(slot, plan.trampoline + at);
  EXPECT_EQ(plan.code_length, at + 8);
}

TEST(SystrapRewriter, MovBecomesAJump) {
  SystrapRewriter r(kTarget, true);
  AddrRange room{0x500000, 0x500000 + Rewriter::kRoomSize};
  r.AddRoom(room);
  Result<Rewriter::Plan> plan = r.MakePlan(0x400105, kNr, Mov());
  ASSERT_TRUE(plan.has_value());
  CheckPlan(*plan, 0x400105, Mov(), room, false);
  EXPECT_FALSE(r.Landing(0x400107).has_value()) << "the instruction after the call is where it was";
}

TEST(SystrapRewriter, SyscallAndComparisonBecomeAJump) {
  SystrapRewriter r(kTarget, true);
  AddrRange room{0x500000, 0x500000 + Rewriter::kRoomSize};
  r.AddRoom(room);
  Result<Rewriter::Plan> plan = r.MakePlan(0x400105, kNr, Compare());
  ASSERT_TRUE(plan.has_value());
  CheckPlan(*plan, 0x400105, Compare(), room, true);
  // The number in rax need not be near, so it is not looked at.
  EXPECT_TRUE(r.MakePlan(0x400205, 1000000, Compare()).has_value());
}

// With both patterns the comparison wins: its patch leaves nobody behind who jumps to the syscall instruction.
TEST(SystrapRewriter, ComparisonIsPreferred) {
  SystrapRewriter r(kTarget, true);
  r.AddRoom({0x500000, 0x500000 + Rewriter::kRoomSize});
  Around both = Mov();
  memcpy(&both[8], &Compare()[8], 6);
  Result<Rewriter::Plan> plan = r.MakePlan(0x400105, kNr, both);
  ASSERT_TRUE(plan.has_value());
  CheckPlan(*plan, 0x400105, both, {0x500000, 0x500000 + Rewriter::kRoomSize}, true);
}

TEST(SystrapRewriter, RefusesWhatItDoesNotKnow) {
  Around rex = Mov(), other_number = Mov(), no_mov = Mov(), no_syscall = Mov(), sysenter = Compare();
  Around other_register = Compare();
  rex[0] = std::byte{0x41};  // mov $39, %r8d
  other_number[2] = std::byte{40};
  no_mov[1] = std::byte{0xb9};  // ecx
  no_syscall[6] = std::byte{0x90};
  sysenter[7] = std::byte{0x34};
  other_register[9] = std::byte{0x3c};
  for (const Around& around : {rex, other_number, no_mov, no_syscall, sysenter, other_register}) {
    SystrapRewriter r(kTarget, true);
    r.AddRoom({0x500000, 0x500000 + Rewriter::kRoomSize});
    EXPECT_EQ(r.MakePlan(0x400105, kNr, around).error(), Errno(ENOEXEC));
    for (int i = 0; i < 3000; i++) ASSERT_FALSE(r.IsHot(0x400105)) << "asked about again";
    EXPECT_FALSE(r.InGuest(0x500000).has_value());
  }
  // Each REX prefix, and none of its neighbours.
  for (int prefix = 0; prefix < 256; prefix++) {
    SystrapRewriter r(kTarget, true);
    r.AddRoom({0x500000, 0x500000 + Rewriter::kRoomSize});
    Around around = Mov();
    around[0] = static_cast<std::byte>(prefix);
    EXPECT_EQ(r.MakePlan(0x400105, kNr, around).has_value(), prefix < 0x40 || prefix > 0x4f) << prefix;
  }
  // A number that no call has, though the mov says so too.
  SystrapRewriter r(kTarget, true);
  r.AddRoom({0x500000, 0x500000 + Rewriter::kRoomSize});
  Around large = Mov();
  large[4] = std::byte{1};
  EXPECT_EQ(r.MakePlan(0x400105, kNr + 0x10000, large).error(), Errno(ENOEXEC));
}

TEST(SystrapRewriter, NeedsRoomNearTheCall) {
  SystrapRewriter r(kTarget, true);
  EXPECT_EQ(r.MakePlan(0x400105, kNr, Mov()).error(), Errno(ENOSPC));
  EXPECT_EQ(r.MakePlan(0x400105, kNr, Compare()).error(), Errno(ENOSPC));
  // 32-bit displacements do not reach these, in either direction.
  r.AddRoom({0x90000000, 0x90000000 + Rewriter::kRoomSize});
  EXPECT_EQ(r.MakePlan(0x400105, kNr, Mov()).error(), Errno(ENOSPC));
  EXPECT_EQ(r.MakePlan(0x7f0012345678, kNr, Compare()).error(), Errno(ENOSPC));
  // No room does not condemn the instruction.
  r.AddRoom({0x500000, 0x500000 + Rewriter::kRoomSize});
  EXPECT_TRUE(r.MakePlan(0x400105, kNr, Mov()).has_value());
  // Both ends of what is in reach.
  for (bool compare : {false, true}) {
    for (bool below : {false, true}) {
      SystrapRewriter far(kTarget, true);
      const Addr call = 0x7f0012345678;
      Addr start = below ? ((call - Rewriter::kReach + 5) & ~uint64_t{0xfff}) + 0x1000
                         : ((call + Rewriter::kReach - Rewriter::kRoomSize) & ~uint64_t{0xfff});
      AddrRange room{start, start + Rewriter::kRoomSize};
      far.AddRoom(room);
      Around around = compare ? Compare() : Mov();
      Result<Rewriter::Plan> plan = far.MakePlan(call, kNr, around);
      ASSERT_TRUE(plan.has_value()) << compare << below;
      CheckPlan(*plan, call, around, room, compare);
    }
  }
}

TEST(SystrapRewriter, RoomsFillUp) {
  for (bool compare : {false, true}) {
    SystrapRewriter r(kTarget, true);
    AddrRange room{0x50c000, 0x50c000 + 2 * kPageSize};
    r.AddRoom(room);
    Around around = compare ? Compare() : Mov();
    size_t made = 0;
    std::vector<AddrRange> taken;
    for (Addr call = 0x400105;; call += 16) {
      Result<Rewriter::Plan> plan = r.MakePlan(call, kNr, around);
      if (!plan) {
        EXPECT_EQ(plan.error(), Errno(ENOSPC));
        break;
      }
      AddrRange range{plan->trampoline, plan->trampoline + plan->code_length};
      for (AddrRange other : taken) ASSERT_FALSE(range.Overlaps(other));
      taken.push_back(range);
      made++;
    }
    // All of it for movs; comparisons only fit where the displacement has its int3.
    EXPECT_GE(made, compare ? 5 : 2 * kPageSize / 48);
  }
}

// The int3 in the displacement, wherever the call and the room are.
TEST(SystrapRewriter, ComparisonsInt3ForAllCallAddresses) {
  SystrapRewriter r(kTarget, true);
  AddrRange room{0x700000, 0x700000 + Rewriter::kRoomSize};
  r.AddRoom(room);
  int made = 0;
  // All values of the two low bytes, sparsely.
  for (Addr call = 0x400000; call < 0x420000; call += 97) {
    Result<Rewriter::Plan> plan = r.MakePlan(call, kNr, Compare());
    if (!plan) continue;
    made++;
    CheckPlan(*plan, call, Compare(), room, true);
    ASSERT_EQ(r.Landing(call + 2), plan->trampoline + 13 + 8);
    r.Drop(*plan);
  }
  EXPECT_EQ(made, (0x20000 + 96) / 97) << "an empty room has a place for any call";
}

TEST(SystrapRewriter, LandingIsForTheInt3Only) {
  SystrapRewriter r(kTarget, true);
  EXPECT_FALSE(r.Landing(0x400107).has_value());
  r.AddRoom({0x500000, 0x500000 + Rewriter::kRoomSize});
  Rewriter::Plan plan = *r.MakePlan(0x400105, kNr, Compare());
  for (Addr a = 0x4000f0; a < 0x400120; a++) {
    if (a == 0x400107) {
      EXPECT_EQ(r.Landing(a), plan.trampoline + 21) << "the comparison in the trampoline";
    } else {
      EXPECT_FALSE(r.Landing(a).has_value()) << std::hex << a;
    }
  }
  EXPECT_FALSE(r.Landing(0).has_value());
  EXPECT_FALSE(r.Landing(~Addr{0}).has_value());
  r.Drop(plan);
  EXPECT_FALSE(r.Landing(0x400107).has_value());
}

TEST(SystrapRewriter, EachByteOfATrampolineStandsForAnInstruction) {
  for (bool compare : {false, true}) {
    SystrapRewriter r(kTarget, true);
    EXPECT_FALSE(r.InGuest(0x500000).has_value());
    r.AddRoom({0x500000, 0x500000 + Rewriter::kRoomSize});
    const Addr call = 0x400105;
    Rewriter::Plan plan = *r.MakePlan(call, kNr, compare ? Compare() : Mov());
    EXPECT_FALSE(r.InGuest(plan.trampoline - 1).has_value());
    EXPECT_FALSE(r.InGuest(plan.trampoline + plan.code_length).has_value());
    EXPECT_FALSE(r.InGuest(call).has_value());
    // Behind the data: before it, the call has not been made and is made again.
    const Addr tail = plan.trampoline + (compare ? 0 : 5) + 13 + 8;
    for (Addr a = plan.trampoline; a < plan.trampoline + plan.code_length; a++) {
      Addr want = a < tail ? plan.addr : compare && a > tail ? call + 8 : call + 2;
      EXPECT_EQ(r.InGuest(a), want) << a - plan.trampoline;
    }
    r.Drop(plan);
    EXPECT_FALSE(r.InGuest(plan.trampoline).has_value());
  }
}

TEST(SystrapRewriter, DropForgetsOnePlanOnly) {
  SystrapRewriter r(kTarget, true);
  r.AddRoom({0x500000, 0x500000 + Rewriter::kRoomSize});
  // Two threads have planned the same call; one patch is carried out, and the other is dropped, in both orders.
  Rewriter::Plan a = *r.MakePlan(0x400105, kNr, Compare());
  Rewriter::Plan b = *r.MakePlan(0x400105, kNr, Compare());
  ASSERT_NE(a.trampoline, b.trampoline);
  r.Drop(b);
  EXPECT_EQ(r.Landing(0x400107), a.trampoline + 21);
  EXPECT_EQ(r.InGuest(a.trampoline), 0x400105u);
  EXPECT_FALSE(r.InGuest(b.trampoline).has_value());
  b = *r.MakePlan(0x400105, kNr, Compare());
  r.Drop(a);
  EXPECT_EQ(r.Landing(0x400107), b.trampoline + 21);
  EXPECT_FALSE(r.InGuest(a.trampoline).has_value());
  r.Drop(b);
  r.Drop(b);
  EXPECT_FALSE(r.Landing(0x400107).has_value());
}

TEST(SystrapRewriter, HotEvery24thTime) {
  SystrapRewriter r(kTarget, true);
  for (int round = 0; round < 3; round++) {
    for (int i = 1; i < kHot; i++) EXPECT_FALSE(r.IsHot(0x400105)) << i;
    EXPECT_TRUE(r.IsHot(0x400105));
  }
  // Two that share a counter evict each other.
  for (int i = 0; i < 100; i++) {
    EXPECT_FALSE(r.IsHot(0x400105));
    EXPECT_FALSE(r.IsHot(0x400105 + 1024));
  }
  // Two that do not share one do not.
  int hot = 0;
  for (int i = 0; i < 2 * kHot; i++) hot += r.IsHot(0x400201) + r.IsHot(0x400301);
  EXPECT_EQ(hot, 4);
  r.Disable();
  for (int i = 0; i < 100; i++) EXPECT_FALSE(r.IsHot(0x400201));
  SystrapRewriter off(kTarget, false);
  for (int i = 0; i < 100; i++) EXPECT_FALSE(off.IsHot(0x400201));
}

TEST(SystrapRewriter, ChildInheritsTrampolinesAndRooms) {
  SystrapRewriter parent(kTarget, true), child(kTarget, true), orphan(kTarget, true);
  orphan.Inherit(parent);
  EXPECT_EQ(orphan.MakePlan(0x400105, kNr, Mov()).error(), Errno(ENOSPC));
  AddrRange room{0x500000, 0x500000 + Rewriter::kRoomSize};
  parent.AddRoom(room);
  Rewriter::Plan plan = *parent.MakePlan(0x400105, kNr, Compare());
  child.Inherit(parent);
  EXPECT_EQ(child.Landing(0x400107), parent.Landing(0x400107));
  EXPECT_EQ(child.InGuest(plan.trampoline + 3), 0x400105u);
  Rewriter::Plan next = *child.MakePlan(0x400205, kNr, Mov());
  EXPECT_FALSE((AddrRange{plan.trampoline, plan.trampoline + plan.code_length}.Contains(next.trampoline)));
  // They go separate ways.
  EXPECT_FALSE(parent.InGuest(next.trampoline).has_value());
  child.Drop(plan);
  EXPECT_TRUE(parent.Landing(0x400107).has_value());
  // A parent that must not rewrite has children that must not.
  parent.Disable();
  SystrapRewriter late(kTarget, true);
  late.Inherit(parent);
  for (int i = 0; i < 100; i++) EXPECT_FALSE(late.IsHot(0x400105));
}

TEST(SystrapRewriter, Fuzz) {
  fuzz::Rounds(20, [](uint64_t seed) {
    std::mt19937_64 random(seed);
    SystrapRewriter r(kTarget, true);
    struct Live {
      Rewriter::Plan plan;
      Addr call;
      bool compare;
    };
    std::vector<Live> live;
    std::vector<AddrRange> rooms;
    const Addr base = (random() % 0x7ff000000000) & ~uint64_t{0xfff};
    for (int step = 0; step < 600; step++) {
      uint64_t what = random() % 16;
      if (what == 0 && rooms.size() < 8) {
        // Near the lowest and highest addresses there are too.
        Addr start = base + (random() % 0x100000000 & ~uint64_t{0xfff});
        AddrRange room{start, start + (1 + random() % 32) * kPageSize};
        bool overlaps = false;
        for (AddrRange other : rooms) overlaps |= room.Overlaps(other);
        if (overlaps) continue;
        rooms.push_back(room);
        r.AddRoom(room);
      } else if (what < 4 && !live.empty()) {
        size_t i = random() % live.size();
        r.Drop(live[i].plan);
        live.erase(live.begin() + static_cast<ptrdiff_t>(i));
      } else {
        Addr call = base + random() % 0x100000000 + 6;
        bool compare = random() % 2 == 0;
        Around around = compare ? Compare() : Mov();
        Result<Rewriter::Plan> plan = r.MakePlan(call, kNr, around);
        if (!plan) {
          ASSERT_EQ(plan.error(), Errno(ENOSPC));
          continue;
        }
        AddrRange room{};
        for (AddrRange candidate : rooms) {
          if (candidate.Contains(plan->trampoline)) room = candidate;
        }
        CheckPlan(*plan, call, around, room, compare);
        live.push_back({.plan = *plan, .call = call, .compare = compare});
      }
      if (step % 20 != 0) continue;
      for (size_t i = 0; i < live.size(); i++) {
        const Live& a = live[i];
        AddrRange range{a.plan.trampoline, a.plan.trampoline + a.plan.code_length};
        for (size_t j = 0; j < i; j++) {
          const Rewriter::Plan& b = live[j].plan;
          ASSERT_FALSE(range.Overlaps({b.trampoline, b.trampoline + b.code_length}));
        }
        ASSERT_EQ(r.InGuest(a.plan.trampoline), a.plan.addr);
        ASSERT_EQ(r.Landing(a.call + 2).has_value(), a.compare || r.InGuest(a.call + 2).has_value());
      }
    }
  });
}

// ---------------------------------------------------------------- with real guests

class SystrapRewriting : public PlatformConformance {
 protected:
  // Below the fixture's code, backed by file pages that nothing else uses.
  static constexpr Addr kRoom = 0x300000;
  static constexpr uint64_t kRoomOffset = 32 << 20;

  // `code` has a `syscall` at `at`; it is rewritten, in all spaces, as the kernel would. The address of the call.
  Addr Patch(Addr code, size_t at, uint64_t nr) {
    const Addr call = code + at;
    std::byte* text = memory() + (code - kCode) + at;
    std::span<const std::byte, Rewriter::kContext> around(text - Rewriter::kBefore, Rewriter::kContext);
    Result<Rewriter::Plan> plan = rewriter().MakePlan(call, nr, around);
    CHECK(plan.has_value(), "no plan");
    plan_ = *plan;
    memcpy(memory() + kRoomOffset + (plan->trampoline - kRoom), plan->code.data(), plan->code_length);
    CHECK(memcmp(memory() + (plan->addr - kCode), plan->expected.data(), plan->length) == 0, "the text");
    memcpy(memory() + (plan->addr - kCode), plan->patched.data(), plan->length);
    return call;
  }
  void NewRewrittenSpace() {
    space_ = NewSpace();
    CHECK(space_->MapFile(kRoom, memory_fd(), kRoomOffset, Rewriter::kRoomSize, {.read = true, .execute = true}, false)
              .has_value());
    rewriter().AddRoom({kRoom, kRoom + Rewriter::kRoomSize});
  }
  Rewriter& rewriter() { return *space_->rewriter(); }

  // As the kernel does with a trap: true if it was an int3 that a patch has left in the text.
  bool Land(const TrapInfo& info, Registers& regs) {
    if (info.trap != Trap::kFault || info.signal.signo != SIGTRAP || info.trapno != kTrapBreakpoint) return false;
    std::optional<Addr> landing = rewriter().Landing(regs.rip - 1);
    if (!landing) return false;
    regs.rip = *landing;
    return true;
  }
  // Runs until something other than an int3 of a patch happens.
  TrapInfo SwitchAndLand(Context& context, Registers& regs) {
    for (;;) {
      Result<TrapInfo> info = context.Switch(*space_, regs);
      EXPECT_TRUE(info.has_value());
      if (!info) return {};
      if (info->partial) context.PullRegisters(regs);
      if (!Land(*info, regs)) return *info;
    }
  }

  RefPtr<AddressSpace> space_;
  Rewriter::Plan plan_;
};

INSTANTIATE_TEST_SUITE_P(Systrap, SystrapRewriting, testing::Values(PlatformFactory{"systrap", systrap::Create}),
                         [](const auto& info) { return info.param.name; });

struct Form {
  const char* name;
  std::vector<int> code;
  size_t call;  // of the syscall
};
// Both count their calls in r12 as they come back, and keep what came back in rbx.
std::vector<Form> Forms() {
  return {
      // 1: nop; mov $39, %eax; syscall; mov %rax, %rbx; inc %r12; jmp 1b
      {"mov", {0x90, 0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0x48, 0x89, 0xc3, 0x49, 0xff, 0xc4, 0xeb, 0xf0}, 6},
      // nops; 1: syscall; cmp $-4095, %rax; mov %rax, %rbx; inc %r12; mov $39, %eax; jmp 1b
      {"compare",
       {0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x0f, 0x05, 0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff,
        0x48, 0x89, 0xc3, 0x49, 0xff, 0xc4, 0xb8, 39,   0,    0,    0,    0xeb, 0xeb},
       6},
  };
}
std::vector<std::byte> ToBytes(const std::vector<int>& code) {
  std::vector<std::byte> bytes;
  for (int b : code) bytes.push_back(static_cast<std::byte>(b));
  return bytes;
}

TEST_P(SystrapRewriting, CallArrivesAndReturnsWithOnlyRaxChanged) {
  for (const Form& form : Forms()) {
    SCOPED_TRACE(form.name);
    Addr code = AddCode(ToBytes(form.code));
    Run([&] {
      NewRewrittenSpace();
      Addr call = Patch(code, form.call, 39);
      auto context = *platform().NewContext();
      FpState fp = InitialFpState();
      for (int i = 0; i < 256; i++) fp.bytes[160 + i] = static_cast<std::byte>(i * 3 + 1);
      fp.bytes[512] |= std::byte{2};  // XSTATE_BV: SSE
      ASSERT_TRUE(context->PushFpState(fp).has_value());
      Registers regs{};
      regs.rip = code;
      regs.rax = 39;
      regs.rdi = 0x1111;
      regs.rsi = 0x2222;
      regs.rdx = 0x3333;
      regs.r10 = 0x4444;
      regs.r8 = 0x5555;
      regs.r9 = 0x6666;
      regs.rbp = 0x7777;
      regs.r13 = 0x8888;
      regs.r14 = 0x9999;
      regs.r15 = 0xaaaa;
      // Never touched by the call, so it need not be memory.
      regs.rsp = 0x1234567890;
      // CF and DF: the stub's code must not change them.
      regs.eflags = 0x202 | 0x401;
      Registers want = regs;
      for (uint64_t i = 0; i < 50; i++) {
        TrapInfo info = SwitchAndLand(*context, regs);
        ASSERT_EQ(info.trap, Trap::kSyscall);
        EXPECT_FALSE(info.hot);
        EXPECT_EQ(regs.rip, call + 2);
        EXPECT_EQ(regs.orig_rax, 39u);
        EXPECT_EQ(regs.rax, static_cast<uint64_t>(-ENOSYS));
        EXPECT_EQ(regs.rcx, regs.rip);
        EXPECT_EQ(regs.r11, regs.eflags);
        if (i == 0) {
          EXPECT_EQ(regs.eflags, 0x202u | 0x401u);
        }
        EXPECT_EQ(regs.eflags & 0x400, 0x400u);
        for (auto member :
             {&Registers::rdi, &Registers::rsi, &Registers::rdx, &Registers::r10, &Registers::r8, &Registers::r9,
              &Registers::rbp, &Registers::r13, &Registers::r14, &Registers::r15, &Registers::rsp}) {
          ASSERT_EQ(regs.*member, want.*member);
        }
        EXPECT_EQ(regs.r12, i);
        if (i > 0) {
          EXPECT_EQ(regs.rbx, 1000 + i - 1) << "what the last call returned";
        }
        EXPECT_EQ(regs.fs_base, 0u);
        EXPECT_EQ(regs.gs_base, 0u) << "the slot's is not the guest's to see";
        if (i % 10 == 3) {
          Result<FpState> now = context->PullFpState();
          ASSERT_TRUE(now.has_value());
          EXPECT_EQ(memcmp(now->bytes.data() + 160, fp.bytes.data() + 160, 256), 0);
        }
        // By the short way back, and by the long one.
        if (i % 5 == 4) regs.r15 = want.r15 = regs.r15 + 1;
        regs.rax = 1000 + i;
      }
      space_->Release();
    });
  }
}

// At any moment: in the guest's own code, in the trampoline, in the stub on its way in and out.
TEST_P(SystrapRewriting, InterruptsNeitherLoseNorDoubleCalls) {
  for (const Form& form : Forms()) {
    SCOPED_TRACE(form.name);
    Addr code = AddCode(ToBytes(form.code));
    Run([&] {
      NewRewrittenSpace();
      Addr call = Patch(code, form.call, 39);
      auto context = *platform().NewContext();
      std::atomic<bool> stop{false};
      std::atomic<int> sent{0};
      std::thread interrupter([&] {
        std::mt19937_64 random(1);
        while (!stop.load()) {
          context->Interrupt();
          sent.fetch_add(1);
          std::this_thread::sleep_for(std::chrono::microseconds(random() % (random() % 8 == 0 ? 1000 : 100)));
        }
      });
      Registers regs{};
      regs.rip = code;
      regs.rax = 39;
      uint64_t calls = 0;
      int interrupted = 0;
      const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(8);
      while ((interrupted < 3000 || calls < 1000) && std::chrono::steady_clock::now() < end) {
        TrapInfo info = SwitchAndLand(*context, regs);
        if (info.trap == Trap::kInterrupted) {
          interrupted++;
          continue;
        }
        if (info.trap != Trap::kSyscall) {
          ADD_FAILURE() << "signal " << info.signal.signo << " at " << std::hex << regs.rip;
          break;
        }
        if (regs.r12 != calls || regs.orig_rax != 39 || regs.rip != call + 2 || (calls > 0 && regs.rbx != calls - 1)) {
          ADD_FAILURE() << "call " << calls << ": the guest has made " << regs.r12 << ", the last returned "
                        << regs.rbx;
          break;
        }
        regs.rax = calls++;
      }
      stop.store(true);
      interrupter.join();
      // On a busy machine interrupts leave little time for anything else.
      EXPECT_GT(calls, 10u);
      EXPECT_GT(interrupted, 100);
      space_->Release();
    });
  }
}

// rip -= 2, and the number back in rax, as for ERESTARTSYS.
TEST_P(SystrapRewriting, CallsCanBeRestarted) {
  for (const Form& form : Forms()) {
    SCOPED_TRACE(form.name);
    Addr code = AddCode(ToBytes(form.code));
    Run([&] {
      NewRewrittenSpace();
      Addr call = Patch(code, form.call, 39);
      auto context = *platform().NewContext();
      Registers regs{};
      regs.rip = code;
      regs.rax = 39;
      regs.rdi = 7;
      for (uint64_t i = 0; i < 20; i++) {
        for (int again = 0; again < 3; again++) {
          ASSERT_EQ(SwitchAndLand(*context, regs).trap, Trap::kSyscall);
          ASSERT_EQ(regs.r12, i);
          ASSERT_EQ(regs.orig_rax, 39u);
          ASSERT_EQ(regs.rdi, 7u);
          ASSERT_EQ(regs.rip, call + 2);
          if (again == 2) break;
          regs.rip -= 2;
          regs.rax = regs.orig_rax;
        }
        regs.rax = 500 + i;
      }
      space_->Release();
    });
  }
}

// Registers that nobody asks for stay in the thread, or go home when another context takes it.
TEST_P(SystrapRewriting, UnaskedRegistersAreKept) {
  Form form = Forms()[1];
  Addr code = AddCode(ToBytes(form.code));
  Run([&] {
    NewRewrittenSpace();
    Patch(code, form.call, 39);
    // More than there are threads.
    constexpr size_t kContexts = 70;
    std::vector<std::unique_ptr<Context>> contexts(kContexts);
    std::vector<Registers> regs(kContexts);
    std::vector<uint64_t> calls(kContexts);
    uint64_t pulled = 0, unasked = 0;
    std::mt19937 random(1);
    for (size_t i = 0; i < kContexts; i++) {
      contexts[i] = *platform().NewContext();
      regs[i] = Registers{};
      regs[i].rip = code;
      regs[i].rax = 39;
      regs[i].r15 = i;
    }
    for (int n = 0; n < 4000; n++) {
      const size_t i = random() % (n % 2 == 0 ? kContexts : 3);
      Context& context = *contexts[i];
      Registers& r = regs[i];
      if (random() % 8 == 0) context.Interrupt();
      Result<TrapInfo> info = context.Switch(*space_, r);
      ASSERT_TRUE(info.has_value());
      if (info->trap == Trap::kInterrupted || Land(*info, r)) {
        context.Rest();  // one fiber plays them all: none may keep its thread
        continue;
      }
      ASSERT_EQ(info->trap, Trap::kSyscall);
      ASSERT_LE(context.entered(), context.left());
      if (random() % 2 == 0) context.Rest();
      if (random() % 4 == 0) {
        if (random() % 2 == 0) {
          ASSERT_TRUE(context.PushFpState(InitialFpState()).has_value());
        } else {
          ASSERT_TRUE(context.PullFpState().has_value());
        }
      }
      // Before or after others have run.
      const size_t late = random() % 2 == 0 ? i : random() % kContexts;
      if (late != i && calls[late] > 0) {
        contexts[late]->PullRegisters(regs[late]);
        contexts[late]->Rest();
      }
      if (random() % 2 == 0) {
        pulled += info->partial;
        context.PullRegisters(r);
        ASSERT_EQ(r.r12, calls[i]);
        ASSERT_EQ(r.r15, i);
        if (calls[i] > 0) {
          ASSERT_EQ(r.rbx, 1000 * i + calls[i]);
        }
      } else {
        unasked += info->partial;
      }
      calls[i]++;
      r.rax = 1000 * i + calls[i];
      context.Rest();
    }
    EXPECT_GT(pulled, 500u);
    EXPECT_GT(unasked, 500u);
    space_->Release();
  });
}

// A signal handler may return to the address after the call, and a thread may have stood there when the text changed.
TEST_P(SystrapRewriting, JumpToTheInt3Lands) {
  Form form = Forms()[1];
  Addr code = AddCode(ToBytes(form.code));
  Run([&] {
    NewRewrittenSpace();
    Addr call = Patch(code, form.call, 39);
    auto context = *platform().NewContext();
    Registers regs{};
    regs.rip = call + 2;
    regs.rax = 123;
    Result<TrapInfo> info = context->Switch(*space_, regs);
    ASSERT_TRUE(info.has_value());
    ASSERT_EQ(info->trap, Trap::kFault);
    ASSERT_EQ(regs.rip, call + 3);
    ASSERT_TRUE(Land(*info, regs));
    ASSERT_EQ(SwitchAndLand(*context, regs).trap, Trap::kSyscall);
    EXPECT_EQ(regs.r12, 1u) << "went on behind the call, which was not made";
    EXPECT_EQ(regs.rbx, 123u);
    // An interrupt before the thread is back in the guest must not lose the landing either.
    for (int i = 0; i < 10; i++) {
      regs.rax = 600 + i;
      context->Interrupt();
      ASSERT_EQ(SwitchAndLand(*context, regs).trap, Trap::kInterrupted);
      ASSERT_EQ(SwitchAndLand(*context, regs).trap, Trap::kSyscall);
      ASSERT_EQ(regs.rbx, 600u + i);
    }
    space_->Release();
  });
}

// Who jumps to a syscall instruction whose mov was rewritten makes the call.
TEST_P(SystrapRewriting, JumpToASyscallBehindItsMov) {
  Form form = Forms()[0];
  Addr code = AddCode(ToBytes(form.code));
  Run([&] {
    NewRewrittenSpace();
    Addr call = Patch(code, form.call, 39);
    auto context = *platform().NewContext();
    Registers regs{};
    regs.rip = call;
    regs.rax = 77;
    ASSERT_EQ(SwitchAndLand(*context, regs).trap, Trap::kSyscall);
    EXPECT_EQ(regs.orig_rax, 77u);
    EXPECT_EQ(regs.rip, call + 2);
    space_->Release();
  });
}

TEST_P(SystrapRewriting, SingleSteppingThroughACallEnds) {
  for (const Form& form : Forms()) {
    SCOPED_TRACE(form.name);
    Addr code = AddCode(ToBytes(form.code));
    Run([&] {
      NewRewrittenSpace();
      Patch(code, form.call, 39);
      auto context = *platform().NewContext();
      Registers regs{};
      regs.rip = code;
      regs.rax = 39;
      uint64_t calls = 0, steps = 0;
      while (calls < 5 && steps < 1000) {
        regs.eflags |= kEflagsTf;
        TrapInfo info = SwitchAndLand(*context, regs);
        if (info.trap == Trap::kSyscall) {
          ASSERT_EQ(regs.r12, calls);
          if (calls > 0) {
            ASSERT_EQ(regs.rbx, 800 + calls - 1);
          }
          regs.rax = 800 + calls++;
          continue;
        }
        ASSERT_EQ(info.trap, Trap::kFault);
        ASSERT_EQ(info.signal.signo, SIGTRAP);
        ASSERT_FALSE(regs.rip >= kRoom && regs.rip < kRoom + Rewriter::kRoomSize) << "the trampoline shows";
        ASSERT_GE(regs.rip, code);
        ASSERT_LE(regs.rip, code + form.code.size());
        steps++;
      }
      EXPECT_EQ(calls, 5u);
      EXPECT_GE(steps, 15u) << "the guest's own instructions are stepped";
      space_->Release();
    });
  }
}

// Few threads of the stub, many contexts: what a thread waits in is one context's until its state has gone home.
TEST_P(SystrapRewriting, CallsOfManyContextsKeepApart) {
  Form form = Forms()[1];
  Addr code = AddCode(ToBytes(form.code));
  std::atomic<int> done{0};
  Run([&] {
    NewRewrittenSpace();
    Patch(code, form.call, 39);
    for (uint64_t n = 0; n < 12; n++) {
      Spawn([&, n] {
        auto context = *platform().NewContext();
        Registers regs{};
        regs.rip = code;
        regs.rax = 39;
        regs.r13 = n;
        for (uint64_t i = 0; i < 200; i++) {
          ASSERT_EQ(SwitchAndLand(*context, regs).trap, Trap::kSyscall);
          ASSERT_EQ(regs.r12, i);
          ASSERT_EQ(regs.r13, n);
          if (i > 0) {
            ASSERT_EQ(regs.rbx, n * 1000 + i - 1);
          }
          regs.rax = n * 1000 + i;
          if (i % 7 == n % 7) context->Rest();
          if (i % 3 == 0) fiber::Yield();
        }
        done.fetch_add(1);
      });
    }
  });
  EXPECT_EQ(done.load(), 12);
  space_->Release();
}

}  // namespace
}  // namespace redoubt::platform::systrap
