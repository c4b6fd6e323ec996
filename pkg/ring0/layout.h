// Numbers that ring 0's assembly, the C++ that builds its tables, and the machine that runs it share. Preprocessor
// only, since the assembler reads it too; ring0.cc checks them against each other.
#ifndef REDOUBT_PKG_RING0_LAYOUT_H_
#define REDOUBT_PKG_RING0_LAYOUT_H_

// The text page: a stub of RING0_STUB_SIZE bytes for each exception, then the others.
#define RING0_VECTORS 32
#define RING0_STUB_SIZE 16
#define RING0_SYSCALL_STUB 0x200
#define RING0_ENTER_IRET 0x210
#define RING0_ENTER_SYSRET 0x220
#define RING0_ENTER_CR3_IRET 0x230
#define RING0_SYSCALL32_STUB 0x240
#define RING0_TEXT_SIZE 0x250

// Ports that the stubs write to: the vector, or these.
#define RING0_SYSCALL_PORT 0xf0
#define RING0_SYSCALL32_PORT 0xf1

// Linux's selectors. SYSRET wants RING0_USER_CS = RING0_USER_DS + 8 (APM vol. 3, SYSRET).
#define RING0_KERNEL_CS 0x10
#define RING0_KERNEL_DS 0x18
#define RING0_SYSRET_BASE 0x23
#define RING0_USER_DS 0x2b
#define RING0_USER_CS 0x33
#define RING0_TSS 0x40

// A processor's own page: its TSS, the stack for traps (it grows down from this), and the frame by which it enters
// ring 3.
#define RING0_TRAP_STACK 0x800
#define RING0_ENTER_FRAME 0xf00

#endif  // REDOUBT_PKG_RING0_LAYOUT_H_
