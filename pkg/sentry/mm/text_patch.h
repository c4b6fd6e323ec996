// A change made to guest text for the platform's sake.
#ifndef REDOUBT_PKG_SENTRY_MM_TEXT_PATCH_H_
#define REDOUBT_PKG_SENTRY_MM_TEXT_PATCH_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "pkg/hostarch/hostarch.h"

namespace redoubt::mm {

// `length` bytes at `addr`, within a page, that were `original` and are `patched` now: a jump into a hidden range, of
// which `hidden` is an address.
struct TextPatch {
  static constexpr size_t kMaxLength = 16;

  Addr addr = 0;
  Addr hidden = 0;
  uint8_t length = 0;
  std::array<std::byte, kMaxLength> original{};
  std::array<std::byte, kMaxLength> patched{};

  constexpr AddrRange range() const { return {addr, addr + length}; }
};

}  // namespace redoubt::mm

#endif  // REDOUBT_PKG_SENTRY_MM_TEXT_PATCH_H_
