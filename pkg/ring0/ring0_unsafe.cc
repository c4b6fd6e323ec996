#include <string.h>

#include "pkg/ring0/ring0.h"

extern "C" {
extern const std::byte redoubt_ring0_text_start[];
extern const std::byte redoubt_ring0_text_end[];
}

namespace redoubt::ring0 {
namespace {

static_assert(RING0_SYSCALL_STUB >= RING0_VECTORS * RING0_STUB_SIZE);
static_assert(RING0_TEXT_SIZE <= kPageSize);
static_assert(RING0_USER_DS == RING0_SYSRET_BASE + 8 && RING0_USER_CS == RING0_SYSRET_BASE + 16);
static_assert(RING0_KERNEL_DS == RING0_KERNEL_CS + 8);
static_assert(RING0_SYSCALL_PORT >= RING0_VECTORS && RING0_SYSCALL_PORT < 256, "an immediate of out");
static_assert(RING0_TRAP_STACK % 16 == 0, "the processor aligns its frames");
static_assert(RING0_ENTER_FRAME - 8 > RING0_TRAP_STACK && RING0_ENTER_FRAME + sizeof(Frame) <= kPageSize);

// Of a TSS (SDM vol. 3, 7.7).
constexpr size_t kTssRsp0 = 4;
constexpr size_t kTssIst1 = 36;
constexpr size_t kTssIoMap = 102;

template <typename T>
void Put(std::span<std::byte, kPageSize> page, size_t offset, const T& value) {
  memcpy(page.data() + offset, &value, sizeof(value));
}

}  // namespace

// SAFETY: the symbols are the ends of one object that entry_amd64_unsafe.S makes RING0_TEXT_SIZE long.
void BuildText(std::span<std::byte, kPageSize> page) {
  memset(page.data(), 0xf4, page.size());
  memcpy(page.data(), redoubt_ring0_text_start, redoubt_ring0_text_end - redoubt_ring0_text_start);
}

void BuildIdt(std::span<std::byte, kPageSize> page) {
  for (int vector = 0; vector < RING0_VECTORS; vector++) {
    const uint64_t handler = kText + static_cast<uint64_t>(vector) * RING0_STUB_SIZE;
    // int3 and into are for ring 3 to use; any other `int n` is a general protection fault.
    const uint64_t dpl = vector == 3 || vector == 4 ? 3 : 0;
    // A 64-bit interrupt gate (SDM vol. 3, 6.14.1), with a stack from the TSS whatever the privilege was: ring 0 may
    // be on ring 3's (at LSTAR it is), and must not push there.
    constexpr uint64_t ist = 1;
    const uint64_t low = (handler & 0xffff) | uint64_t{RING0_KERNEL_CS} << 16 | ist << 32 |
                         (uint64_t{0x8e} | dpl << 5) << 40 | (handler >> 16 & 0xffff) << 48;
    Put(page, static_cast<size_t>(vector) * 16, low);
    Put(page, static_cast<size_t>(vector) * 16 + 8, handler >> 32);
  }
}

void BuildGdt(std::span<std::byte, kPageSize> page) {
  // Flat segments, accessed already, since the page is read-only. There is no 32-bit code segment for ring 3. The TSS
  // is loaded from outside and needs no descriptor.
  Put(page, RING0_KERNEL_CS, uint64_t{0x00af9b000000ffff});
  Put(page, RING0_KERNEL_DS, uint64_t{0x00cf93000000ffff});
  Put(page, RING0_USER_DS & ~7, uint64_t{0x00cff3000000ffff});
  Put(page, RING0_USER_CS & ~7, uint64_t{0x00affb000000ffff});
}

void BuildCpuPage(std::span<std::byte, kPageSize> page, int cpu) {
  Put(page, kTssRsp0, CpuPage(cpu) + RING0_TRAP_STACK);
  Put(page, kTssIst1, CpuPage(cpu) + RING0_TRAP_STACK);
  // Past the limit: no bitmap, so ring 3 may use no port.
  Put(page, kTssIoMap, static_cast<uint16_t>(kTssLimit + 1));
}

Place PlaceOf(Addr rip) {
  if (rip < kText || rip >= kText + RING0_TEXT_SIZE) return {Place::Kind::kOther};
  const uint64_t offset = rip - kText;
  if (offset >= RING0_ENTER_IRET && offset < RING0_SYSCALL32_STUB) return {Place::Kind::kEntering};
  // At the `out` or, if that is what left the machine, past it.
  if (offset % RING0_STUB_SIZE > 2) return {Place::Kind::kOther};
  if (offset >= RING0_SYSCALL32_STUB) return {Place::Kind::kSyscall32};
  if (offset >= RING0_SYSCALL_STUB) return {Place::Kind::kSyscall};
  return {Place::Kind::kException, static_cast<int>(offset / RING0_STUB_SIZE)};
}

bool HasErrorCode(int vector) {
  switch (vector) {
    case 8:
    case 10:
    case 11:
    case 12:
    case 13:
    case 14:
    case 17:
    case 21:
    case 29:
    case 30:
      return true;
    default:
      return false;
  }
}

TrapFrame ReadTrapFrame(std::span<const std::byte, kPageSize> page, int vector) {
  constexpr size_t top = RING0_TRAP_STACK;
  TrapFrame result{};
  memcpy(&result.frame, page.data() + top - sizeof(Frame), sizeof(Frame));
  if (HasErrorCode(vector)) {
    memcpy(&result.error_code, page.data() + top - sizeof(Frame) - sizeof(uint64_t), sizeof(uint64_t));
  }
  return result;
}

Addr WriteEnterFrame(std::span<std::byte, kPageSize> page, int cpu, const Frame& frame, uint64_t rax) {
  Put(page, RING0_ENTER_FRAME - sizeof(rax), rax);
  Put(page, RING0_ENTER_FRAME, frame);
  return CpuPage(cpu) + RING0_ENTER_FRAME;
}

}  // namespace redoubt::ring0
