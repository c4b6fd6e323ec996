#include "pkg/platform/guest_code_amd64_unsafe.h"

// SAFETY: data to this program; only guests execute it.
#define GUEST_CODE(name, code)                                                                                \
  asm(".pushsection .rodata\nguest_code_" #name "_start:\n" code "\nguest_code_" #name "_end:\n.popsection"); \
  extern "C" const std::byte guest_code_##name##_start[];                                                     \
  extern "C" const std::byte guest_code_##name##_end[];                                                       \
  std::span<const std::byte> redoubt::platform::guest::name() {                                               \
    return {guest_code_##name##_start, guest_code_##name##_end};                                              \
  }

GUEST_CODE(SyscallLoop, "1: syscall\njmp 1b")
GUEST_CODE(Spin, "1: pause\njmp 1b")
GUEST_CODE(Count, "1: lock incq (%rdi)\njmp 1b")
GUEST_CODE(Load, "movq (%rdi), %rax\nsyscall")
GUEST_CODE(Store, "movq %rsi, (%rdi)\nsyscall")
GUEST_CODE(InvalidOpcode, "ud2")
GUEST_CODE(Divide, "xorl %edx, %edx\nmovl $1, %eax\ndivl %ecx\nsyscall")
GUEST_CODE(Breakpoint, "int3\nsyscall")
GUEST_CODE(Privileged, "hlt")
GUEST_CODE(Int80, "int $0x80\nsyscall")
GUEST_CODE(Nops, "nop\nnop\nnop\nsyscall")
GUEST_CODE(SegmentBases, "movq %fs:0, %rax\nmovq %gs:0, %rbx\nsyscall")
GUEST_CODE(Rendezvous,
           "movq %rsi, (%rdi)\n1: pause\ncmpq %rsi, (%rdx)\n"
           "jne 1b\nsyscall\n")
GUEST_CODE(Sse,
           "movups 0(%rdi), %xmm0\nmovups 16(%rdi), %xmm1\nmovups 32(%rdi), %xmm2\n"
           "movups 48(%rdi), %xmm3\nmovups 64(%rdi), %xmm4\nmovups 80(%rdi), %xmm5\n"
           "movups 96(%rdi), %xmm6\nmovups 112(%rdi), %xmm7\nmovups 128(%rdi), %xmm8\n"
           "movups 144(%rdi), %xmm9\nmovups 160(%rdi), %xmm10\nmovups 176(%rdi), %xmm11\n"
           "movups 192(%rdi), %xmm12\nmovups 208(%rdi), %xmm13\nmovups 224(%rdi), %xmm14\n"
           "movups 240(%rdi), %xmm15\nldmxcsr 256(%rdi)\nfldcw 260(%rdi)\n"
           "1: syscall\nmovups %xmm0, 0(%rsi)\nmovups %xmm1, 16(%rsi)\n"
           "movups %xmm2, 32(%rsi)\nmovups %xmm3, 48(%rsi)\nmovups %xmm4, 64(%rsi)\n"
           "movups %xmm5, 80(%rsi)\nmovups %xmm6, 96(%rsi)\nmovups %xmm7, 112(%rsi)\n"
           "movups %xmm8, 128(%rsi)\nmovups %xmm9, 144(%rsi)\nmovups %xmm10, 160(%rsi)\n"
           "movups %xmm11, 176(%rsi)\nmovups %xmm12, 192(%rsi)\nmovups %xmm13, 208(%rsi)\n"
           "movups %xmm14, 224(%rsi)\nmovups %xmm15, 240(%rsi)\nstmxcsr 256(%rsi)\n"
           "fnstcw 260(%rsi)\njmp 1b\n")
GUEST_CODE(Avx,
           "vmovups 0(%rdi), %ymm0\nvmovups 32(%rdi), %ymm1\nvmovups 64(%rdi), %ymm2\n"
           "vmovups 96(%rdi), %ymm3\nvmovups 128(%rdi), %ymm4\nvmovups 160(%rdi), %ymm5\n"
           "vmovups 192(%rdi), %ymm6\nvmovups 224(%rdi), %ymm7\nvmovups 256(%rdi), %ymm8\n"
           "vmovups 288(%rdi), %ymm9\nvmovups 320(%rdi), %ymm10\nvmovups 352(%rdi), %ymm11\n"
           "vmovups 384(%rdi), %ymm12\nvmovups 416(%rdi), %ymm13\nvmovups 448(%rdi), %ymm14\n"
           "vmovups 480(%rdi), %ymm15\n1: syscall\nvmovups %ymm0, 0(%rsi)\n"
           "vmovups %ymm1, 32(%rsi)\nvmovups %ymm2, 64(%rsi)\nvmovups %ymm3, 96(%rsi)\n"
           "vmovups %ymm4, 128(%rsi)\nvmovups %ymm5, 160(%rsi)\nvmovups %ymm6, 192(%rsi)\n"
           "vmovups %ymm7, 224(%rsi)\nvmovups %ymm8, 256(%rsi)\nvmovups %ymm9, 288(%rsi)\n"
           "vmovups %ymm10, 320(%rsi)\nvmovups %ymm11, 352(%rsi)\nvmovups %ymm12, 384(%rsi)\n"
           "vmovups %ymm13, 416(%rsi)\nvmovups %ymm14, 448(%rsi)\nvmovups %ymm15, 480(%rsi)\n"
           "jmp 1b\n")
