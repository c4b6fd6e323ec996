// Small guest programs for platform tests: position-independent machine code, copied into guest memory and run there.
#ifndef REDOUBT_PKG_PLATFORM_GUEST_CODE_AMD64_UNSAFE_H_
#define REDOUBT_PKG_PLATFORM_GUEST_CODE_AMD64_UNSAFE_H_

#include <cstddef>
#include <span>

namespace redoubt::platform::guest {

// `syscall` for ever.
std::span<const std::byte> SyscallLoop();
// Spins for ever; touches nothing.
std::span<const std::byte> Spin();
// Adds 1 to 64-bit (%rdi) for ever.
std::span<const std::byte> Count();
// rax = 64-bit (%rdi), then a syscall.
std::span<const std::byte> Load();
// 64-bit (%rdi) = %rsi, then a syscall.
std::span<const std::byte> Store();
// ud2, at its start.
std::span<const std::byte> InvalidOpcode();
// Divides by %rcx, which the test sets to 0.
std::span<const std::byte> Divide();
// int3, then a syscall.
std::span<const std::byte> Breakpoint();
// hlt: a general protection fault in user mode.
std::span<const std::byte> Privileged();
// int $0x80.
std::span<const std::byte> Int80();
// Three nops, then a syscall.
std::span<const std::byte> Nops();
// Loads xmm0-15 from (%rdi), MXCSR and the x87 control word behind them; then for ever: a syscall, a dump of the same
// to (%rsi).
std::span<const std::byte> Sse();
inline constexpr size_t kSseBytes = 16 * 16 + 4 + 2;
// As Sse for ymm0-15 alone.
std::span<const std::byte> Avx();
inline constexpr size_t kAvxBytes = 16 * 32;
// rax = 64-bit %fs:0, rbx = 64-bit %gs:0, then a syscall.
std::span<const std::byte> SegmentBases();
// Writes %rsi to (%rdi), spins until 64-bit (%rdx) is %rsi too, then a syscall.
std::span<const std::byte> Rendezvous();

}  // namespace redoubt::platform::guest

#endif  // REDOUBT_PKG_PLATFORM_GUEST_CODE_AMD64_UNSAFE_H_
