#include "pkg/safecopy/safecopy_unsafe.h"

#include <signal.h>
#include <ucontext.h>

#include <mutex>

#include "pkg/log/log.h"

// Each routine is a leaf without a stack frame. One instruction in it may fault: the one between its _fault and _next
// labels. The handler then continues at its _fixup.
//
// rep movsb and rep stosb leave rcx at the number of bytes not yet moved when they fault (SDM vol. 2, REP), which both
// ways of leaving return.
asm(R"(
.pushsection .text
.p2align 4
.type redoubt_safecopy_copy, @function
redoubt_safecopy_copy:            # (dst, src, n) -> bytes left
  mov %rdx, %rcx
redoubt_safecopy_copy_fault:
  rep movsb
redoubt_safecopy_copy_next:
redoubt_safecopy_copy_fixup:
  mov %rcx, %rax
  ret
.size redoubt_safecopy_copy, . - redoubt_safecopy_copy

.p2align 4
.type redoubt_safecopy_zero, @function
redoubt_safecopy_zero:            # (dst, n) -> bytes left
  mov %rsi, %rcx
  xor %eax, %eax
redoubt_safecopy_zero_fault:
  rep stosb
redoubt_safecopy_zero_next:
redoubt_safecopy_zero_fixup:
  mov %rcx, %rax
  ret
.size redoubt_safecopy_zero, . - redoubt_safecopy_zero

.p2align 4
.type redoubt_safecopy_load, @function
redoubt_safecopy_load:            # (word, out) -> 0, or 1 if it faulted
redoubt_safecopy_load_fault:
  mov (%rdi), %eax
redoubt_safecopy_load_next:
  mov %eax, (%rsi)
  xor %eax, %eax
  ret
redoubt_safecopy_load_fixup:
  mov $1, %eax
  ret
.size redoubt_safecopy_load, . - redoubt_safecopy_load

.p2align 4
.type redoubt_safecopy_swap, @function
redoubt_safecopy_swap:            # (word, value, out) -> 0 or 1
redoubt_safecopy_swap_fault:
  xchg %esi, (%rdi)
redoubt_safecopy_swap_next:
  mov %esi, (%rdx)
  xor %eax, %eax
  ret
redoubt_safecopy_swap_fixup:
  mov $1, %eax
  ret
.size redoubt_safecopy_swap, . - redoubt_safecopy_swap

.p2align 4
.type redoubt_safecopy_cas, @function
redoubt_safecopy_cas:             # (word, expected, value, out) -> 0 or 1
  mov %esi, %eax
redoubt_safecopy_cas_fault:
  lock cmpxchg %edx, (%rdi)
redoubt_safecopy_cas_next:
  mov %eax, (%rcx)
  xor %eax, %eax
  ret
redoubt_safecopy_cas_fixup:
  mov $1, %eax
  ret
.size redoubt_safecopy_cas, . - redoubt_safecopy_cas
.popsection
)");

extern "C" {
size_t redoubt_safecopy_copy(void* dst, const void* src, size_t n);
size_t redoubt_safecopy_zero(void* dst, size_t n);
int redoubt_safecopy_load(const void* word, uint32_t* out);
int redoubt_safecopy_swap(void* word, uint32_t value, uint32_t* out);
int redoubt_safecopy_cas(void* word, uint32_t expected, uint32_t value, uint32_t* out);

#define REDOUBT_LABELS(name)                           \
  extern const char redoubt_safecopy_##name##_fault[]; \
  extern const char redoubt_safecopy_##name##_next[];  \
  extern const char redoubt_safecopy_##name##_fixup[];
REDOUBT_LABELS(copy)
REDOUBT_LABELS(zero)
REDOUBT_LABELS(load)
REDOUBT_LABELS(swap)
REDOUBT_LABELS(cas)
#undef REDOUBT_LABELS
}

namespace redoubt::safecopy {
namespace {

struct FixUp {
  const char* fault;
  const char* next;
  const char* fixup;
};
#define REDOUBT_ENTRY(name) \
  {redoubt_safecopy_##name##_fault, redoubt_safecopy_##name##_next, redoubt_safecopy_##name##_fixup}
const FixUp kFixUps[] = {
    REDOUBT_ENTRY(copy), REDOUBT_ENTRY(zero), REDOUBT_ENTRY(load), REDOUBT_ENTRY(swap), REDOUBT_ENTRY(cas),
};
#undef REDOUBT_ENTRY

// The handlers before ours. Written once, before ours can run.
struct sigaction old_segv;
struct sigaction old_bus;

// Not one of ours: as if we had not been there.
void Chain(int signal, siginfo_t* info, void* context) {
  const struct sigaction& old = signal == SIGSEGV ? old_segv : old_bus;
  if ((old.sa_flags & SA_SIGINFO) != 0) {
    old.sa_sigaction(signal, info, context);
  } else if (old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN) {
    old.sa_handler(signal);
  } else {
    // The instruction runs again, faults again and kills the process (SIG_IGN does not help a fault: signal(7)); a
    // signal sent by kill(2) is raised anew.
    struct sigaction dfl = {};
    dfl.sa_handler = SIG_DFL;
    sigaction(signal, &dfl, nullptr);
    if (info->si_code <= 0) raise(signal);
  }
}

void HandleFault(int signal, siginfo_t* info, void* context) {
  greg_t& rip = static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP];
  for (const FixUp& f : kFixUps) {
    if (rip < reinterpret_cast<greg_t>(f.fault) || rip >= reinterpret_cast<greg_t>(f.next)) continue;
    if (info->si_code <= 0) break;  // sent, not a fault
    // SAFETY: the routine has no frame, and its fix-up expects just the registers that the fault left.
    rip = reinterpret_cast<greg_t>(f.fixup);
    return;
  }
  Chain(signal, info, context);
}

Result<size_t> Moved(size_t length, size_t left) {
  if (left == length && length > 0) return Err(EFAULT);
  return length - left;
}

bool Aligned(const void* word) { return (reinterpret_cast<uintptr_t>(word) & 3) == 0; }

}  // namespace

void InstallFaultHandler() {
  static std::once_flag once;
  std::call_once(once, [] {
    CHECK(sigaction(SIGSEGV, nullptr, &old_segv) == 0 && sigaction(SIGBUS, nullptr, &old_bus) == 0);
    struct sigaction sa = {};
    sa.sa_sigaction = HandleFault;
    sa.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&sa.sa_mask);
    CHECK(sigaction(SIGSEGV, &sa, nullptr) == 0 && sigaction(SIGBUS, &sa, nullptr) == 0);
  });
}

// SAFETY of all that follows: only the labelled instructions touch the guest's address.

Result<size_t> CopyIn(std::span<std::byte> dst, const void* guest) {
  return Moved(dst.size(), redoubt_safecopy_copy(dst.data(), guest, dst.size()));
}

Result<size_t> CopyOut(void* guest, std::span<const std::byte> src) {
  return Moved(src.size(), redoubt_safecopy_copy(guest, src.data(), src.size()));
}

Result<size_t> ZeroOut(void* guest, size_t length) { return Moved(length, redoubt_safecopy_zero(guest, length)); }

Result<size_t> CopyBetween(void* guest_dst, const void* guest_src, size_t length) {
  return Moved(length, redoubt_safecopy_copy(guest_dst, guest_src, length));
}

Result<uint32_t> LoadU32(const void* guest) {
  if (!Aligned(guest)) return Err(EINVAL);
  uint32_t value;
  if (redoubt_safecopy_load(guest, &value) != 0) return Err(EFAULT);
  return value;
}

Result<uint32_t> SwapU32(void* guest, uint32_t value) {
  if (!Aligned(guest)) return Err(EINVAL);
  uint32_t old;
  if (redoubt_safecopy_swap(guest, value, &old) != 0) return Err(EFAULT);
  return old;
}

Result<uint32_t> CompareAndSwapU32(void* guest, uint32_t expected, uint32_t value) {
  if (!Aligned(guest)) return Err(EINVAL);
  uint32_t old;
  if (redoubt_safecopy_cas(guest, expected, value, &old) != 0) return Err(EFAULT);
  return old;
}

}  // namespace redoubt::safecopy
