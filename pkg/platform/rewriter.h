// Rewriting of hot system call instructions: what a platform contributes. It decides which instruction is hot and
// writes the code; where that goes in the guest's memory is the memory manager's affair (MapHidden, WriteHidden,
// PatchText).
#ifndef REDOUBT_PKG_PLATFORM_REWRITER_H_
#define REDOUBT_PKG_PLATFORM_REWRITER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "pkg/errors/errors.h"
#include "pkg/hostarch/hostarch.h"

namespace redoubt::platform {

// Of one address space. Thread-safe.
class Rewriter {
 public:
  virtual ~Rewriter() = default;

  // Bytes that MakePlan looks at, before the instruction and from its start.
  static constexpr size_t kBefore = 6;
  static constexpr size_t kFrom = 8;
  static constexpr size_t kContext = kBefore + kFrom;
  // How much memory AddRoom wants, and how far from the instruction it may lie.
  static constexpr uint64_t kRoomSize = uint64_t{128} << 10;
  static constexpr uint64_t kReach = uint64_t{0x7ff00000};

  struct Plan {
    // Text: `length` bytes at `addr` that are `expected` become `patched`.
    Addr addr = 0;
    uint8_t length = 0;
    std::array<std::byte, 8> expected{}, patched{};
    // Code in the room.
    Addr trampoline = 0;
    uint8_t code_length = 0;
    std::array<std::byte, 48> code{};
  };
  // For the `syscall` instruction at `call`, which was last made with number `nr`. ENOEXEC: it cannot be rewritten, and
  // is not to be asked about again; ENOSPC: there is no room near it.
  virtual Result<Plan> MakePlan(Addr call, uint64_t nr, std::span<const std::byte, kContext> around) = 0;
  // The plan was not carried out.
  virtual void Drop(const Plan& plan) = 0;
  // Hidden memory for trampolines.
  virtual void AddRoom(AddrRange room) = 0;
  // Where a thread goes on that has come to the address inside a patch where an instruction was, or that is in a
  // trampoline whose room is no more.
  virtual std::optional<Addr> Landing(Addr addr) = 0;
  // No instruction is hot from now on.
  virtual void Disable() = 0;
};

}  // namespace redoubt::platform

#endif  // REDOUBT_PKG_PLATFORM_REWRITER_H_
