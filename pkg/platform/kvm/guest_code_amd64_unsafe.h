// Guest programs for this platform's tests, as pkg/platform/guest_code_amd64_unsafe.h has them for all.
#ifndef REDOUBT_PKG_PLATFORM_KVM_GUEST_CODE_AMD64_UNSAFE_H_
#define REDOUBT_PKG_PLATFORM_KVM_GUEST_CODE_AMD64_UNSAFE_H_

#include <cstddef>
#include <span>

namespace redoubt::platform::kvm::guest {

// Loads zmm0-31 and k0-7 from (%rdi); then for ever: 2000 pauses, a dump of them to (%rsi), a syscall.
std::span<const std::byte> Avx512();
inline constexpr size_t kAvx512Bytes = 32 * 64 + 8 * 8;
// The same with ymm0-15.
std::span<const std::byte> Avx();
inline constexpr size_t kAvxBytes = 16 * 32;

}  // namespace redoubt::platform::kvm::guest

#endif  // REDOUBT_PKG_PLATFORM_KVM_GUEST_CODE_AMD64_UNSAFE_H_
