#include "pkg/platform/kvm/guest_code_amd64_unsafe.h"

// SAFETY: data to this program; only guests execute it.
#define GUEST_CODE(name, code)                                                                                        \
  asm(".pushsection .rodata\nkvm_guest_code_" #name "_start:\n" code "\nkvm_guest_code_" #name "_end:\n.popsection"); \
  extern "C" const std::byte kvm_guest_code_##name##_start[];                                                         \
  extern "C" const std::byte kvm_guest_code_##name##_end[];                                                           \
  std::span<const std::byte> redoubt::platform::kvm::guest::name() {                                                  \
    return {kvm_guest_code_##name##_start, kvm_guest_code_##name##_end};                                              \
  }

GUEST_CODE(Avx512,
           ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
           "vmovdqu64 64*\\n(%rdi), %zmm\\n\n.endr\n"
           ".irp n,0,1,2,3,4,5,6,7\nkmovq 2048+8*\\n(%rdi), %k\\n\n.endr\n"
           "1: movl $2000, %ebx\n2: pause\ndecl %ebx\njnz 2b\n"
           ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
           "vmovdqu64 %zmm\\n, 64*\\n(%rsi)\n.endr\n"
           ".irp n,0,1,2,3,4,5,6,7\nkmovq %k\\n, 2048+8*\\n(%rsi)\n.endr\n"
           "syscall\njmp 1b\n")

GUEST_CODE(Avx,
           ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\nvmovdqu 32*\\n(%rdi), %ymm\\n\n.endr\n"
           "1: movl $2000, %ebx\n2: pause\ndecl %ebx\njnz 2b\n"
           ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\nvmovdqu %ymm\\n, 32*\\n(%rsi)\n.endr\n"
           "syscall\njmp 1b\n")
