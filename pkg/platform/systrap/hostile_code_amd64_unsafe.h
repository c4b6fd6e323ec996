// Guest programs that attack their stub, for hostile_test, and where in the stub there is something to attack.
#ifndef REDOUBT_PKG_PLATFORM_SYSTRAP_HOSTILE_CODE_AMD64_UNSAFE_H_
#define REDOUBT_PKG_PLATFORM_SYSTRAP_HOSTILE_CODE_AMD64_UNSAFE_H_

#include <cstddef>
#include <span>

#include "pkg/hostarch/hostarch.h"

namespace redoubt::platform::guest {

// Fills %rcx words from (%rdi) with %r8, then a syscall.
std::span<const std::byte> Fill();
// For ever: a random word from %rax, and-ed with %r8 and or-ed with %r9, to a random place of %rdi + (0 to %rsi).
std::span<const std::byte> Scribble();
// 32-bit (%rdi) = %esi and 32-bit (%rdx) = %ecx, in this order, then a syscall.
std::span<const std::byte> TwoStores();
// The same, and then a loop without end instead of the call.
std::span<const std::byte> TwoStoresAndSpin();
// Goes to %rdi in 32-bit mode, by a stack at %rsp.
std::span<const std::byte> To32Bit();
// 32-bit code.
std::span<const std::byte> Int80In32Bit();
std::span<const std::byte> SysenterIn32Bit();
std::span<const std::byte> SyscallIn32Bit();
// sysenter in 64-bit mode.
std::span<const std::byte> Sysenter();
// Jumps to %rdi, with a return address on the stack at %rsp.
std::span<const std::byte> Call();

}  // namespace redoubt::platform::guest

namespace redoubt::platform::systrap {

// The stub's code, as it is at kStubText.
std::span<const std::byte> StubCode();
// The stub's addresses of: its rt_sigreturn; its guest threads' code; the instruction that writes to the wake
// descriptor; the code that waits on a doorbell, with the number awaited and the slot on the stack; the code that
// tells the Sentry that the guest was not entered. Found by what their bytes are.
Addr StubSigreturn();
Addr StubGuestStart();
Addr StubWakeWrite();
Addr StubSleepAgain();
Addr StubNotEntered();

}  // namespace redoubt::platform::systrap

#endif  // REDOUBT_PKG_PLATFORM_SYSTRAP_HOSTILE_CODE_AMD64_UNSAFE_H_
