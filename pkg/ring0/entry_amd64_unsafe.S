// All the code that runs in ring 0. It is copied to the start of a page of its own and runs at whatever address that has.
//
// SAFETY: whoever runs the machine gets every trap by the first instruction of its stub, an `out` that leaves the virtual
// machine with all registers as they were at the trap; they are read and replaced from outside, and nothing here is ever
// returned to but the RING0_ENTER_* ways. So no instruction here touches memory that ring 3 can write, and there is no
// state that a trap at a bad moment could spoil.
//
// Plain instructions only: where there is no hardware virtualization, the host interprets ring 0, and knows few.
#include "pkg/ring0/layout.h"

    .section .rodata
    .balign 4096
    .globl redoubt_ring0_text_start
redoubt_ring0_text_start:

    // Exceptions. The processor has pushed SS, RSP, RFLAGS, CS, RIP and, for some, an error code.
    .set vector, 0
    .rept RING0_VECTORS
    .balign RING0_STUB_SIZE, 0xf4
    outb %al, $vector
    hlt
    .set vector, vector + 1
    .endr

    // LSTAR: rcx is ring 3's rip, r11 its flags, rsp still its stack, which nothing here uses.
    .org redoubt_ring0_text_start + RING0_SYSCALL_STUB, 0xf4
    outb %al, $RING0_SYSCALL_PORT
    hlt

    // To ring 3 by the frame at rsp.
    .org redoubt_ring0_text_start + RING0_ENTER_IRET, 0xf4
    iretq

    // To ring 3 at rcx with flags r11: where a system call returns to, checked to be an address of ring 3.
    .org redoubt_ring0_text_start + RING0_ENTER_SYSRET, 0xf4
    sysretq

    // Into another address space, which rax says as CR3 has it; ring 3's rax is on the stack, above the frame.
    .org redoubt_ring0_text_start + RING0_ENTER_CR3_IRET, 0xf4
    movq %rax, %cr3
    popq %rax
    iretq

    // CSTAR: as LSTAR, from 32-bit code, which there should not be.
    .org redoubt_ring0_text_start + RING0_SYSCALL32_STUB, 0xf4
    outb %al, $RING0_SYSCALL32_PORT
    hlt

    .org redoubt_ring0_text_start + RING0_TEXT_SIZE, 0xf4
    .globl redoubt_ring0_text_end
redoubt_ring0_text_end:

    .section .note.GNU-stack, "", @progbits
