// What the stub's assembly and the Sentry's C++ both must know: addresses, offsets, operations. Preprocessor constants
// only; control.h checks them against its structs.
#ifndef REDOUBT_PKG_PLATFORM_SYSTRAP_STUB_LAYOUT_H_
#define REDOUBT_PKG_PLATFORM_SYSTRAP_STUB_LAYOUT_H_

// The top of every stub's address space, above what its guest may use. Slots are writable there; the rest is not.
#define STUB_SLOTS 0x7fffff000000
#define STUB_COMMAND 0x7fffff800000
#define STUB_GLOBAL 0x7fffff900000
#define STUB_TEXT 0x7fffffa00000
#define STUB_TEXT_SIZE 0x2000
#define STUB_DOORBELLS 0x7fffffb00000
#define STUB_DOORBELLS_SIZE 0x400000
#define STUB_MAX_SLOTS 64
#define STUB_SLOT_SIZE 0x10000
// Within a slot: the control page, the XSAVE area that the thread saves to, the one that it loads from (it may save at
// any time while it waits), the signal stack.
#define STUB_SLOT_FP 0x1000
#define STUB_SLOT_FP_LOAD 0x4000
#define STUB_SLOT_FP_SIZE 0x3000
#define STUB_SLOT_STACK 0x7000
#define STUB_SLOT_STACK_SIZE 0x9000

// Descriptors of a stub.
#define STUB_FD_MEMORY 0
#define STUB_FD_CONTROL 1
#define STUB_FD_WAKE 2
#define STUB_FD_ACK 3
#define STUB_FD_TEMPLATE 4

// The control page. Written by the guest's side:
#define SLOT_EVENT 0x00
#define SLOT_KIND 0x04
#define SLOT_RAX 0x08
#define SLOT_RDI 0x10
#define SLOT_RSI 0x18
#define SLOT_RDX 0x20
#define SLOT_R10 0x28
#define SLOT_R8 0x30
#define SLOT_R9 0x38
#define SLOT_RBX 0x40
#define SLOT_RBP 0x48
#define SLOT_R12 0x50
#define SLOT_R13 0x58
#define SLOT_R14 0x60
#define SLOT_R15 0x68
#define SLOT_RSP 0x70
#define SLOT_RIP 0x78
#define SLOT_RCX 0x80
#define SLOT_R11 0x88
#define SLOT_EFLAGS 0x90
#define SLOT_CS 0x98
#define SLOT_FS_BASE 0xa0
#define SLOT_GS_BASE 0xa8
#define SLOT_TRAMPOLINE 0xb0
#define SLOT_SIGNO 0xc0
#define SLOT_SI_CODE 0xc4
#define SLOT_SI_ADDR 0xc8
#define SLOT_TRAPNO 0xd0
#define SLOT_ERROR 0xd8
#define SLOT_CR2 0xe0
#define SLOT_SI_ARCH 0xe8
#define SLOT_SELF 0xf0
#define SLOT_DOORBELL 0xf8
#define SLOT_SLEEPING 0x100
// In the first slot, by the manager: the last command that it has carried out. Only a hint, as guests can write it.
#define SLOT_DONE 0x110
// Written by the Sentry:
#define SLOT_COMMAND 0x140
#define SLOT_OPERATION 0x144
#define SLOT_RESULT 0x148
#define SLOT_QUIET 0x150
#define SLOT_TAKEN 0x180
#define SLOT_INTERRUPT 0x1c0
// The registers of a full resumption; the last five as iretq wants them.
#define SLOT_RESUME 0x200
#define RESUME_RAX 0x200
#define RESUME_RBX 0x208
#define RESUME_RCX 0x210
#define RESUME_RDX 0x218
#define RESUME_RSI 0x220
#define RESUME_RDI 0x228
#define RESUME_RBP 0x230
#define RESUME_R8 0x238
#define RESUME_R9 0x240
#define RESUME_R10 0x248
#define RESUME_R11 0x250
#define RESUME_R12 0x258
#define RESUME_R13 0x260
#define RESUME_R14 0x268
#define RESUME_R15 0x270
#define RESUME_FS_BASE 0x278
#define RESUME_GS_BASE 0x280
#define RESUME_LOAD_FP 0x288
#define RESUME_IRET 0x290
// Of the small stack that the trampoline's entry uses.
#define SLOT_SCRATCH_TOP 0x1000

// SLOT_QUIET: how a thread that spins is told to make room. Anything else is the address of another thread's doorbell,
// or of the word that the manager waits on, to be rung first.
#define QUIET_NO 0
#define QUIET_SLEEP 1

// SLOT_KIND.
#define KIND_NONE 0
#define KIND_SYSCALL 1
#define KIND_SIGNAL 2
#define KIND_NOT_ENTERED 3
#define KIND_FP_SAVED 4

// SLOT_OPERATION.
#define OP_RETURN 1
#define OP_RESUME 2
#define OP_SAVE_FP 3

// The global page.
#define GLOBAL_ASLEEP 0x00
#define GLOBAL_SPINS 0x40

// The command page.
#define COMMAND_SEQUENCE 0x00
#define COMMAND_OPERATION 0x04
#define COMMAND_COUNT 0x08
// The doorbell that the manager rings when it has answered, or 0.
#define COMMAND_RING 0x20
// OP_NEW_THREAD: the slot, and where in this page its stack_t is. Each has its own, as the new thread looks at it
// later.
#define COMMAND_SLOT 0x10
#define COMMAND_STACK 0x18
// OP_NEW_PROCESS: offsets in the control file.
#define COMMAND_SLOTS_OFFSET 0x30
#define COMMAND_COMMAND_OFFSET 0x38
#define COMMAND_STACKS 0x80
#define COMMAND_OPS 0x680
#define MAP_OP_SIZE 0x28
#define MAP_OP_ADDR 0x00
#define MAP_OP_LENGTH 0x08
#define MAP_OP_PROT 0x10
#define MAP_OP_FLAGS 0x18
#define MAP_OP_OFFSET 0x20
#define COMMAND_MAX_OPS 60

#define OP_MAP 1
#define OP_NEW_THREAD 2
#define OP_NEW_PROCESS 3

// A trampoline in guest memory: TRAMPOLINE_DATA holds the guest's return address; r11 points there at the entry, and
// the code to go on with follows it.
#define TRAMPOLINE_RETURN 0
#define TRAMPOLINE_TAIL 8

#endif  // REDOUBT_PKG_PLATFORM_SYSTRAP_STUB_LAYOUT_H_
