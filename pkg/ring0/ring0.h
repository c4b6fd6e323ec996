// The x86-64 ring 0 beneath guests: its code, its descriptor tables, and what its traps look like from outside. Knows
// nothing of who runs it (a virtual machine) nor of what ring 3 is (a guest).
//
// Ring 0 decides nothing. Each trap leaves the machine at once, by one instruction, with all registers in place; so
// there is no kernel stack to unwind, no state to save, and nothing in ring 0's memory worth reading.
#ifndef REDOUBT_PKG_RING0_RING0_H_
#define REDOUBT_PKG_RING0_RING0_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "pkg/hostarch/hostarch.h"
#include "pkg/ring0/layout.h"

namespace redoubt::ring0 {

// Where ring 0 lives in every address space. The last 512 GiB, none of which is ring 3's.
inline constexpr Addr kBase = 0xffffff8000000000;
inline constexpr Addr kText = kBase;                  // r-x
inline constexpr Addr kIdt = kBase + kPageSize;       // r--
inline constexpr Addr kGdt = kBase + 2 * kPageSize;   // r--
inline constexpr Addr kCpus = kBase + 3 * kPageSize;  // rw-, a page for each processor
constexpr Addr CpuPage(int cpu) { return kCpus + static_cast<Addr>(cpu) * kPageSize; }

inline constexpr uint16_t kIdtLimit = RING0_VECTORS * 16 - 1;
inline constexpr uint16_t kGdtLimit = RING0_TSS + 16 - 1;
inline constexpr uint32_t kTssLimit = 103;

// Control registers and MSRs (SDM vol. 3, 2.5 and 2.2.1).
inline constexpr uint64_t kCr0 = 0x80050033;  // PG AM WP NE ET MP PE
inline constexpr uint64_t kCr4Pae = 1 << 5;
inline constexpr uint64_t kCr4Osfxsr = 1 << 9;
inline constexpr uint64_t kCr4Osxmmexcpt = 1 << 10;
inline constexpr uint64_t kCr4Fsgsbase = 1 << 16;
inline constexpr uint64_t kCr4Pcide = 1 << 17;
inline constexpr uint64_t kCr4Osxsave = 1 << 18;
inline constexpr uint64_t kCr4Smep = 1 << 20;
inline constexpr uint64_t kCr4Smap = 1 << 21;
inline constexpr uint64_t kCr3NoFlush = uint64_t{1} << 63;  // with PCIDE: what is cached under this PCID stays
inline constexpr uint64_t kEfer = 0xd01;                    // NXE LMA LME SCE
inline constexpr uint32_t kMsrStar = 0xc0000081;
inline constexpr uint32_t kMsrLstar = 0xc0000082;
inline constexpr uint32_t kMsrCstar = 0xc0000083;
inline constexpr uint32_t kMsrFmask = 0xc0000084;
inline constexpr uint64_t kStar = uint64_t{RING0_SYSRET_BASE} << 48 | uint64_t{RING0_KERNEL_CS} << 32;
inline constexpr Addr kLstar = kText + RING0_SYSCALL_STUB;
inline constexpr Addr kCstar = kText + RING0_SYSCALL32_STUB;
// Flags that a system call clears: as Linux, all that could disturb ring 0 (TF, IF, DF, IOPL, NT, AC, ...).
inline constexpr uint64_t kFmask = 0x257fd5;

// Each fills a page of zeros.
void BuildText(std::span<std::byte, kPageSize> page);
void BuildIdt(std::span<std::byte, kPageSize> page);
void BuildGdt(std::span<std::byte, kPageSize> page);
// The page of a processor: its TSS and room for its stack.
void BuildCpuPage(std::span<std::byte, kPageSize> page, int cpu);

// What the processor pushes at a trap, and what iretq takes.
struct Frame {
  uint64_t rip;
  uint64_t cs;
  uint64_t rflags;
  uint64_t rsp;
  uint64_t ss;
};

// Where ring 0 stands, by rip.
struct Place {
  enum class Kind {
    kEntering,   // ring 3 has not run since it was last entered; its registers are as they were given
    kException,  // `vector` has been delivered
    kSyscall,    // a system call has come by LSTAR
    kSyscall32,  // by CSTAR
    kOther,      // nowhere that makes sense
  } kind;
  int vector = 0;
};
Place PlaceOf(Addr rip);

// True if the processor pushes an error code (SDM vol. 3, 6.13).
bool HasErrorCode(int vector);
// The frame that `vector` has left in the processor's page, and its error code (0 if it has none).
struct TrapFrame {
  Frame frame;
  uint64_t error_code;
};
TrapFrame ReadTrapFrame(std::span<const std::byte, kPageSize> page, int vector);

// Puts the frame for RING0_ENTER_IRET and RING0_ENTER_CR3_IRET in the page; ring 3's rax for the latter. Returns rsp
// for the former; for the latter it is 8 less.
Addr WriteEnterFrame(std::span<std::byte, kPageSize> page, int cpu, const Frame& frame, uint64_t rax);

}  // namespace redoubt::ring0

#endif  // REDOUBT_PKG_RING0_RING0_H_
