#include "pkg/platform/systrap/hostile_code_amd64_unsafe.h"

#include <string.h>

#include <initializer_list>

#include "pkg/log/log.h"
#include "pkg/platform/systrap/control.h"

// SAFETY: data to this program; only guests execute it.
#define GUEST_CODE(name, code)                                                                                \
  asm(".pushsection .rodata\nguest_code_" #name "_start:\n" code "\nguest_code_" #name "_end:\n.popsection"); \
  extern "C" const std::byte guest_code_##name##_start[];                                                     \
  extern "C" const std::byte guest_code_##name##_end[];                                                       \
  std::span<const std::byte> redoubt::platform::guest::name() {                                               \
    return {guest_code_##name##_start, guest_code_##name##_end};                                              \
  }

GUEST_CODE(Fill, "movq %r8, %rax\ncld\nrep stosq\nsyscall")
GUEST_CODE(Scribble,
           "1: movq %rax, %rdx\nshlq $13, %rdx\nxorq %rdx, %rax\nmovq %rax, %rdx\nshrq $7, %rdx\nxorq %rdx, %rax\n"
           "movq %rax, %rdx\nshlq $17, %rdx\nxorq %rdx, %rax\nmovq %rax, %rdx\nandq %rsi, %rdx\nmovq %rax, %rcx\n"
           "andq %r8, %rcx\norq %r9, %rcx\nmovq %rcx, (%rdi,%rdx)\njmp 1b")
GUEST_CODE(TwoStores, "movl %esi, (%rdi)\nmovl %ecx, (%rdx)\nsyscall")
GUEST_CODE(TwoStoresAndSpin, "movl %esi, (%rdi)\nmovl %ecx, (%rdx)\n1: jmp 1b")
GUEST_CODE(To32Bit, "pushq $0x23\npushq %rdi\nlretq")
GUEST_CODE(Int80In32Bit, "int $0x80\nud2")
GUEST_CODE(SysenterIn32Bit, "sysenter\nud2")
GUEST_CODE(SyscallIn32Bit, "syscall\nud2")
GUEST_CODE(Sysenter, "sysenter\nud2")
GUEST_CODE(Call, "call *%rdi\nsyscall")

extern "C" {
extern const std::byte redoubt_systrap_stub_start[];
extern const std::byte redoubt_systrap_stub_end[];
extern const std::byte redoubt_systrap_restorer[];
extern const std::byte redoubt_systrap_guest_start[];
extern const std::byte redoubt_systrap_post[];
extern const std::byte redoubt_systrap_enter_end[];
}

namespace redoubt::platform::systrap {
namespace {

Addr InStub(const std::byte* p) { return kStubText + static_cast<Addr>(p - redoubt_systrap_stub_start); }

Addr Find(std::initializer_list<int> pattern) {
  for (const std::byte* p = redoubt_systrap_post; p + pattern.size() <= redoubt_systrap_stub_end; p++) {
    size_t i = 0;
    for (int b : pattern) {
      if (static_cast<int>(p[i]) != b) break;
      i++;
    }
    if (i == pattern.size()) return InStub(p);
  }
  CHECK(false, "the stub has changed; so must this");
  return 0;
}

}  // namespace

std::span<const std::byte> StubCode() { return {redoubt_systrap_stub_start, redoubt_systrap_stub_end}; }
Addr StubSigreturn() { return InStub(redoubt_systrap_restorer); }
Addr StubGuestStart() { return InStub(redoubt_systrap_guest_start); }
// push %rcx; push %r11; syscall; pop %r11
Addr StubWakeWrite() { return Find({0x51, 0x41, 0x53, 0x0f, 0x05, 0x41, 0x5b}) + 3; }
// mov (%rsp), %r11; mov 8(%rsp), %rcx
Addr StubSleepAgain() { return Find({0x4c, 0x8b, 0x1c, 0x24, 0x48, 0x8b, 0x4c, 0x24, 0x08}); }
Addr StubNotEntered() { return InStub(redoubt_systrap_enter_end); }

}  // namespace redoubt::platform::systrap
