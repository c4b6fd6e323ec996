// Copies to and from memory that may fault: guest memory mapped in the Sentry, where a truncated file is SIGBUS and a
// hole is SIGSEGV. Linux's copy_from_user, copy_to_user and futex_atomic_op_inuser.
//
// The fault handler knows the few instructions below that may fault, and continues after them; any other SIGSEGV or
// SIGBUS goes to the handler that was there before. The guest writes to this memory at the same time: read once, then
// check.
#ifndef REDOUBT_PKG_SAFECOPY_SAFECOPY_UNSAFE_H_
#define REDOUBT_PKG_SAFECOPY_SAFECOPY_UNSAFE_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "pkg/errors/errors.h"

namespace redoubt::safecopy {

// Takes over SIGSEGV and SIGBUS of this process. Before the first copy; more calls do nothing. Handlers installed later
// must chain to ours. Threads that copy must not block the two signals.
void InstallFaultHandler();

// All three return the bytes moved before the first that faulted, or EFAULT if that is none of a nonzero request.
// `guest` may be any address; the span is the Sentry's own good memory.
Result<size_t> CopyIn(std::span<std::byte> dst, const void* guest);
Result<size_t> CopyOut(void* guest, std::span<const std::byte> src);
Result<size_t> ZeroOut(void* guest, size_t length);
// From guest memory to guest memory; either may fault.
Result<size_t> CopyBetween(void* guest_dst, const void* guest_src, size_t length);

// Atomic (sequentially consistent) on an aligned word; EINVAL if it is not aligned, EFAULT on a fault.
Result<uint32_t> LoadU32(const void* guest);
Result<uint32_t> SwapU32(void* guest, uint32_t value);
// Returns the value found; the store happened if that equals `expected`. The word must be writable in any case.
Result<uint32_t> CompareAndSwapU32(void* guest, uint32_t expected, uint32_t value);

}  // namespace redoubt::safecopy

#endif  // REDOUBT_PKG_SAFECOPY_SAFECOPY_UNSAFE_H_
