#include "pkg/platform/systrap/rewriter_amd64.h"

#include <algorithm>
#include <cstring>

#include "pkg/platform/systrap/stub_layout.h"

namespace redoubt::platform::systrap {
namespace {

// Machine code (SDM vol. 2).
constexpr uint8_t kMovImmEax = 0xb8;
constexpr uint8_t kJump32 = 0xe9;
constexpr uint8_t kInt3 = 0xcc;
constexpr uint8_t kSyscall[] = {0x0f, 0x05};
constexpr uint8_t kCmpImmRax[] = {0x48, 0x3d};
constexpr uint8_t kLeaRipR11[] = {0x4c, 0x8d, 0x1d};
constexpr uint8_t kJumpRipIndirect[] = {0xff, 0x25};
constexpr size_t kMovLength = 5;
constexpr size_t kCmpLength = 6;
constexpr size_t kJumpLength = 5;
constexpr size_t kEntryLength = 13;  // lea and jmp
constexpr uint64_t kMaxNumber = 1024;

class Emitter final {
 public:
  explicit Emitter(Rewriter::Plan& plan) : plan_(plan) {}
  size_t at() const { return plan_.code_length; }
  Addr address() const { return plan_.trampoline + at(); }
  void Bytes(const void* bytes, size_t n) {
    memcpy(plan_.code.data() + plan_.code_length, bytes, n);
    plan_.code_length = static_cast<uint8_t>(plan_.code_length + n);
  }
  void U8(uint8_t v) { Bytes(&v, 1); }
  void U32(uint32_t v) { Bytes(&v, 4); }
  void U64(uint64_t v) { Bytes(&v, 8); }
  void JumpTo(Addr to) {
    U8(kJump32);
    U32(static_cast<uint32_t>(to - (address() + 4)));
  }

 private:
  Rewriter::Plan& plan_;
};

uint8_t Byte(std::span<const std::byte, Rewriter::kContext> around, size_t i) {
  return static_cast<uint8_t>(around[i]);
}

}  // namespace

Addr SystrapRewriter::FindPlace(Addr from, Addr to, uint64_t length) {
  Addr at = from;
  auto it = trampolines_.upper_bound(at);
  if (it != trampolines_.begin()) {
    auto before = std::prev(it);
    at = std::max(at, before->first + before->second.length);
  }
  for (; it != trampolines_.end() && it->first < at + length; ++it) at = it->first + it->second.length;
  return at < to && at + length <= to + length ? at : 0;
}

Result<Rewriter::Plan> SystrapRewriter::MakePlan(Addr call, uint64_t nr, std::span<const std::byte, kContext> around) {
  sync::MutexLock lock(mu_);
  auto never = [&]() REQUIRES(mu_) -> Result<Plan> {
    if (counters_.empty()) counters_.resize(kCounters);
    counters_[(call >> 1) % kCounters] = {.call = call, .count = kNever};
    return Err(ENOEXEC);
  };
  if (memcmp(&around[kBefore], kSyscall, sizeof(kSyscall)) != 0) return never();
  const bool compare = memcmp(&around[kBefore + 2], kCmpImmRax, sizeof(kCmpImmRax)) == 0;
  uint32_t immediate;
  memcpy(&immediate, &around[kBefore - 4], sizeof(immediate));
  // The bytes before may be the end of another instruction: a REX prefix says so, and the number must be right.
  const bool mov =
      Byte(around, 1) == kMovImmEax && (Byte(around, 0) & 0xf0) != 0x40 && immediate == nr && nr < kMaxNumber;
  if (!compare && !mov) return never();

  Plan plan;
  const Addr next = call + sizeof(kSyscall);
  const uint64_t length =
      compare ? kEntryLength + 8 + kCmpLength + kJumpLength + 8 : kMovLength + kEntryLength + 8 + kJumpLength + 8;
  const Addr jump_end = compare ? call + kJumpLength : call;
  for (AddrRange room : rooms_) {
    if (room.end > jump_end + kReach || room.start + kReach < jump_end) continue;
    if (!compare) {
      plan.trampoline = FindPlace(room.start, room.end - length, length);
    } else {
      // The second byte of the displacement is to be an int3: 256 addresses in each 64 KiB.
      for (Addr base = (room.start - jump_end) & ~uint64_t{0xffff};
           plan.trampoline == 0 && static_cast<int64_t>(base + jump_end - room.end) < 0; base += 0x10000) {
        Addr from = std::max(jump_end + base + (uint64_t{kInt3} << 8), room.start);
        Addr to = std::min(jump_end + base + (uint64_t{kInt3} << 8) + 0x100, room.end - length);
        if (from < to) plan.trampoline = FindPlace(from, to, length);
      }
    }
    if (plan.trampoline != 0) break;
  }
  if (plan.trampoline == 0) return Err(ENOSPC);

  Emitter code(plan);
  if (!compare) code.Bytes(&around[1], kMovLength);
  code.Bytes(kLeaRipR11, sizeof(kLeaRipR11));
  code.U32(sizeof(kJumpRipIndirect) + 4);
  code.Bytes(kJumpRipIndirect, sizeof(kJumpRipIndirect));
  code.U32(static_cast<uint32_t>(TRAMPOLINE_TAIL + (compare ? kCmpLength : 0) + kJumpLength));
  code.U64(next);
  if (compare) {
    code.Bytes(&around[kBefore + 2], kCmpLength);
    code.JumpTo(next + kCmpLength);
  } else {
    code.JumpTo(next);
  }
  code.U64(target_);

  uint8_t jump[8];
  memset(jump, kInt3, sizeof(jump));
  jump[0] = kJump32;
  const uint32_t displacement = static_cast<uint32_t>(plan.trampoline - jump_end);
  memcpy(jump + 1, &displacement, sizeof(displacement));
  plan.addr = compare ? call : call - kMovLength;
  plan.length = compare ? sizeof(kSyscall) + kCmpLength : kMovLength;
  memcpy(plan.expected.data(), compare ? &around[kBefore] : &around[1], plan.length);
  memcpy(plan.patched.data(), jump, plan.length);
  trampolines_[plan.trampoline] = {.call = call, .length = plan.code_length, .moved_compare = compare};
  by_call_[call] = plan.trampoline;
  any_.store(true, std::memory_order_relaxed);
  return plan;
}

void SystrapRewriter::Drop(const Plan& plan) {
  sync::MutexLock lock(mu_);
  auto it = trampolines_.find(plan.trampoline);
  if (it == trampolines_.end()) return;
  const Addr call = it->second.call;
  trampolines_.erase(it);
  // Two threads may have planned the same call: the patch of the one that was carried out stays known.
  auto current = by_call_.find(call);
  if (current == by_call_.end() || current->second != plan.trampoline) return;
  by_call_.erase(current);
  for (const auto& [trampoline, t] : trampolines_) {
    if (t.call == call) by_call_[call] = trampoline;
  }
}

void SystrapRewriter::AddRoom(AddrRange room) {
  sync::MutexLock lock(mu_);
  rooms_.push_back(room);
}

std::optional<Addr> SystrapRewriter::Landing(Addr addr) {
  if (!any_.load(std::memory_order_relaxed)) return std::nullopt;
  {
    sync::MutexLock lock(mu_);
    auto it = by_call_.find(addr - sizeof(kSyscall));
    if (it != by_call_.end() && trampolines_[it->second].moved_compare) {
      return it->second + kEntryLength + TRAMPOLINE_TAIL;
    }
  }
  return InGuest(addr);
}

bool SystrapRewriter::IsHot(Addr call) {
  if (!enabled_.load(std::memory_order_relaxed)) return false;
  sync::MutexLock lock(mu_);
  if (counters_.empty()) counters_.resize(kCounters);
  Counter& counter = counters_[(call >> 1) % kCounters];
  if (counter.call != call) counter = {.call = call, .count = 0};
  if (counter.count == kNever) return false;
  if (++counter.count < kHot) return false;
  counter.count = 0;
  return true;
}

std::optional<Addr> SystrapRewriter::InGuest(Addr rip) {
  if (!any_.load(std::memory_order_relaxed)) return std::nullopt;
  sync::MutexLock lock(mu_);
  auto it = trampolines_.upper_bound(rip);
  if (it == trampolines_.begin()) return std::nullopt;
  --it;
  const Trampoline& t = it->second;
  const uint64_t offset = rip - it->first;
  if (offset >= t.length) return std::nullopt;
  const Addr next = t.call + sizeof(kSyscall);
  // Before the jump to the stub nothing has happened that may not happen again.
  const uint64_t tail = (t.moved_compare ? 0 : kMovLength) + kEntryLength + TRAMPOLINE_TAIL;
  if (offset < tail) return t.moved_compare ? t.call : t.call - kMovLength;
  return t.moved_compare && offset > tail ? next + kCmpLength : next;
}

void SystrapRewriter::Inherit(SystrapRewriter& parent) {
  // The reason, a thread with a gs of its own, is inherited too.
  if (!parent.enabled_.load(std::memory_order_relaxed)) Disable();
  if (!parent.any_.load(std::memory_order_relaxed)) return;
  std::vector<AddrRange> rooms;
  std::map<Addr, Trampoline> trampolines;
  std::map<Addr, Addr> by_call;
  {
    sync::MutexLock lock(parent.mu_);
    rooms = parent.rooms_;
    trampolines = parent.trampolines_;
    by_call = parent.by_call_;
  }
  sync::MutexLock lock(mu_);
  rooms_ = std::move(rooms);
  trampolines_ = std::move(trampolines);
  by_call_ = std::move(by_call);
  any_.store(true, std::memory_order_relaxed);
}

}  // namespace redoubt::platform::systrap
