// The code in every stub process. Position-independent, copied to STUB_TEXT; no stack but the slots'.
//
// Two ranges, which the seccomp filter and Syscall User Dispatch tell apart by address:
// - the manager's: system calls that change the process. Run by the leader, which never runs guest code and takes no
//   signals, and by threads before they first do. Everything it obeys is in read-only pages or in its registers.
// - the guest threads': futex wait and wake, write to the wake descriptor, rt_sigreturn,
//   rt_sigprocmask. A guest may jump here with any registers.
//
// SAFETY: docs/platforms.md, "The trust boundary".
#include <asm/unistd.h>

#include "pkg/platform/systrap/stub_layout.h"

        .section .rodata
        .balign 64
        .globl redoubt_systrap_stub_start
redoubt_systrap_stub_start:

// ---------------------------------------------------------------- the manager
// r12d: the last sequence number seen. r13: the command page. Errors end the process: the Sentry sees its pipe close.
        .globl redoubt_systrap_manager_start
redoubt_systrap_manager_start:

// First code of the template, with everything but the stub region still to be unmapped. rdi, rsi: the range.
        .globl redoubt_systrap_template_entry
redoubt_systrap_template_entry:
        movl $__NR_munmap, %eax
        syscall
        testq %rax, %rax
        jnz .Ldie
        movabs $STUB_COMMAND, %r13
        xorl %r12d, %r12d
        xorl %r14d, %r14d
        jmp .Lack

.Lnext:
        movl COMMAND_SEQUENCE(%r13), %eax
        cmpl %r12d, %eax
        jne .Lcommand
        movl $__NR_futex, %eax
        movq %r13, %rdi
        xorl %esi, %esi                 // FUTEX_WAIT
        movl %r12d, %edx
        xorl %r10d, %r10d
        syscall
        jmp .Lnext
.Lcommand:
        movl %eax, %r12d
        movl COMMAND_OPERATION(%r13), %eax
        cmpl $OP_MAP, %eax
        je .Lmap
        cmpl $OP_NEW_THREAD, %eax
        je .Lnew_thread
        cmpl $OP_NEW_PROCESS, %eax
        je .Lnew_process
        jmp .Ldie

// Mappings of the memory file; a protection of none unmaps. r14: the result, r15: the operation, ebx: how many are left.
.Lmap:
        movl COMMAND_COUNT(%r13), %ebx
        leaq COMMAND_OPS(%r13), %r15
        xorl %r14d, %r14d
.Lmap_one:
        testl %ebx, %ebx
        jz .Lack
        movq MAP_OP_ADDR(%r15), %rdi
        movq MAP_OP_LENGTH(%r15), %rsi
        movq MAP_OP_PROT(%r15), %rdx
        testq %rdx, %rdx
        jz .Lunmap_one
        movq MAP_OP_FLAGS(%r15), %r10
        movl $STUB_FD_MEMORY, %r8d
        movq MAP_OP_OFFSET(%r15), %r9
        movl $__NR_mmap, %eax
        syscall
        jmp .Lmapped_one
.Lunmap_one:
        movl $__NR_munmap, %eax
        syscall
.Lmapped_one:
        cmpq $-4095, %rax
        jae .Lfailed
        addq $MAP_OP_SIZE, %r15
        decl %ebx
        jmp .Lmap_one
.Lfailed:
        movq %rax, %r14
        negq %r14

// Tells the Sentry: one byte, an errno. r14: the errno. The bytes are in this read-only page, so that nobody in the
// process can make up an answer. What it says in the first slot only spares the Sentry a look at the pipe in vain. The
// thread that has made room for this is waked: the Sentry will want it in a moment.
.Lack:
        cmpq $255, %r14
        ja .Ldie
        movq COMMAND_RING(%r13), %rbp
        leaq .Lerrnos(%rip), %rsi
        addq %r14, %rsi
        movl $STUB_FD_ACK, %edi
        movl $1, %edx
        movl $__NR_write, %eax
        syscall
        cmpq $1, %rax
        jne .Ldie
        movabs $STUB_SLOTS, %rax
        movl %r12d, SLOT_DONE(%rax)
        movq %rbp, %rdi
        testq %rdi, %rdi
        jz .Lnext
        movl $1, %esi                   // FUTEX_WAKE
        movl $0x7fffffff, %edx
        movl $__NR_futex, %eax
        syscall
        jmp .Lnext
.Ldie:
        movl $1, %edi
        movl $__NR_exit_group, %eax
        syscall
        ud2

.Lnew_thread:
        movq COMMAND_SLOT(%r13), %r15
        movq COMMAND_STACK(%r13), %rbp
        xorl %r14d, %r14d
        movl $0x110f00, %edi            // VM FS FILES SIGHAND THREAD PARENT_SETTID
        leaq STUB_SLOT_SIZE(%r15), %rsi
        leaq SLOT_SI_ARCH(%r15), %rdx   // where the thread's id is left
        xorl %r10d, %r10d
        xorl %r8d, %r8d
        movl $__NR_clone, %eax
        syscall
        testq %rax, %rax
        jz .Lthread
        cmpq $-4095, %rax
        jae .Lfailed
        jmp .Lack
// The new thread. What it inherits in registers is no secret.
.Lthread:
        movq %rbp, %rdi
        xorl %esi, %esi
        movl $__NR_sigaltstack, %eax
        syscall
        testq %rax, %rax
        jnz .Ldie
        // From here on only the guest threads' own range makes system calls (prctl(2), PR_SET_SYSCALL_USER_DISPATCH);
        // a null selector leaves no switch that a guest could reach. Arguments in registers only: this memory is shared
        // with threads that run guest code.
        movl $59, %edi
        movl $1, %esi
        leaq redoubt_systrap_guest_start(%rip), %rdx
        movl $(redoubt_systrap_guest_end - redoubt_systrap_guest_start), %r10d
        xorl %r8d, %r8d
        movl $__NR_prctl, %eax
        syscall
        testq %rax, %rax
        jnz .Ldie
        jmp .Lguest_thread

// In the template only, which runs no guest: its slot pages are a scratch that it may trust. The descriptor of the new
// process' pipe comes over the socket: the message header stands ready at SLOT_RESUME (template_unsafe.cc).
.Lnew_process:
        movabs $STUB_SLOTS, %r15
        movl $STUB_FD_TEMPLATE, %edi
        leaq SLOT_RESUME(%r15), %rsi
        movq $0x100, 40(%rsi)           // msg_controllen, which the last one changed
        movl $0x40000000, %edx          // MSG_CMSG_CLOEXEC
        movl $__NR_recvmsg, %eax
        syscall
        testq %rax, %rax
        jle .Ldie
        movl SLOT_RESUME+0x80+16(%r15), %ebx    // the descriptor, behind the cmsghdr
        movq COMMAND_SLOTS_OFFSET(%r13), %rbp
        movq COMMAND_COMMAND_OFFSET(%r13), %r14
        movl $0x8000, %edi              // CLONE_PARENT: the Sentry's child, without an exit signal as the template has none
        xorl %esi, %esi
        xorl %edx, %edx
        xorl %r10d, %r10d
        xorl %r8d, %r8d
        movl $__NR_clone, %eax
        syscall
        testq %rax, %rax
        jz .Lprocess
        movq %rax, SLOT_RESULT(%r15)
        movl %ebx, %edi
        movl $__NR_close, %eax
        syscall
        xorl %r14d, %r14d
        jmp .Lack
// The new process. ebx: its pipe, rbp and r14: where its pages are in the control file.
.Lprocess:
        movl $1, %edi                   // PR_SET_PDEATHSIG
        movl $9, %esi
        movl $__NR_prctl, %eax
        syscall
        testq %rax, %rax
        jnz .Ldie
        movl %ebx, %edi
        movl $STUB_FD_ACK, %esi
        movl $__NR_dup2, %eax
        syscall
        cmpq $STUB_FD_ACK, %rax
        jne .Ldie
        movl %ebx, %edi
        movl $__NR_close, %eax
        syscall
        movl $STUB_FD_TEMPLATE, %edi
        movl $__NR_close, %eax
        syscall
        movabs $STUB_SLOTS, %rdi
        movl $(STUB_MAX_SLOTS * STUB_SLOT_SIZE), %esi
        movl $3, %edx                   // PROT_READ | PROT_WRITE
        movl $0x11, %r10d               // MAP_SHARED | MAP_FIXED
        movl $STUB_FD_CONTROL, %r8d
        movq %rbp, %r9
        movl $__NR_mmap, %eax
        syscall
        cmpq %rdi, %rax
        jne .Ldie
        movq %r13, %rdi
        movl $0x1000, %esi
        movl $1, %edx
        movl $0x11, %r10d
        movl $STUB_FD_CONTROL, %r8d
        movq %r14, %r9
        movl $__NR_mmap, %eax
        syscall
        cmpq %rdi, %rax
        jne .Ldie
        xorl %r12d, %r12d
        xorl %r14d, %r14d
        jmp .Lack

        .balign 8
.Lerrnos:
        .set i, 0
        .rept 256
        .byte i
        .set i, i + 1
        .endr
        .globl redoubt_systrap_manager_end
redoubt_systrap_manager_end:

// ---------------------------------------------------------------- guest threads
        .balign 64
        .globl redoubt_systrap_guest_start
redoubt_systrap_guest_start:

// A new thread, with all signals still blocked. r15: its slot.
.Lguest_thread:
        movl $2, %edi                   // SIG_SETMASK
        leaq .Lno_signals(%rip), %rsi
        xorl %edx, %edx
        movl $8, %r10d
        movl $__NR_rt_sigprocmask, %eax
        syscall
        movq %r15, %rcx
        movq %rcx, SLOT_SELF(%rcx)
        leaq SLOT_SCRATCH_TOP-8(%rcx), %rsp
        movl $KIND_NONE, SLOT_KIND(%rcx)
        // The first thread of a process that is kept ready sleeps at once; others are wanted now.
        movabs $STUB_SLOTS, %rax
        cmpq %rax, %rcx
        jne redoubt_systrap_post
        movl $1, %r11d
        movl %r11d, SLOT_EVENT(%rcx)
        jmp .Lsleep
        .balign 8
.Lno_signals:
        .quad 0

// Where a rewritten system call arrives. r11: the trampoline's data, gs: the slot; rcx and r11 are the call's to
// clobber, everything else, flags included, is the guest's.
        .globl redoubt_systrap_syscall
redoubt_systrap_syscall:
        movq %gs:SLOT_SELF, %rcx
        movq %rsp, SLOT_RSP(%rcx)
        leaq SLOT_SCRATCH_TOP(%rcx), %rsp
        pushfq
        movq %rax, SLOT_RAX(%rcx)
        movq %rdi, SLOT_RDI(%rcx)
        movq %rsi, SLOT_RSI(%rcx)
        movq %rdx, SLOT_RDX(%rcx)
        movq %r10, SLOT_R10(%rcx)
        movq %r8, SLOT_R8(%rcx)
        movq %r9, SLOT_R9(%rcx)
        movq %rbx, SLOT_RBX(%rcx)
        movq %rbp, SLOT_RBP(%rcx)
        movq %r12, SLOT_R12(%rcx)
        movq %r13, SLOT_R13(%rcx)
        movq %r14, SLOT_R14(%rcx)
        movq %r15, SLOT_R15(%rcx)
        movq TRAMPOLINE_RETURN(%r11), %rax
        movq %rax, SLOT_RIP(%rcx)
        movq %r11, SLOT_TRAMPOLINE(%rcx)
        movl $KIND_SYSCALL, SLOT_KIND(%rcx)

// Makes the event known and waits for the answer. rcx: the slot. Changes rax, rdx, rdi, rsi, r11 and, only around a
// sleep, r10.
        .globl redoubt_systrap_post
redoubt_systrap_post:
        movl SLOT_EVENT(%rcx), %r11d
        incl %r11d
        movl %r11d, %eax
        xchgl %eax, SLOT_EVENT(%rcx)    // a full barrier: the Sentry sets ASLEEP and then looks at EVENT
        movabs $STUB_GLOBAL, %rdx
        movl GLOBAL_SPINS(%rdx), %edi
        cmpl $0, GLOBAL_ASLEEP(%rdx)
        jne .Lwake
.Lspin:
        cmpl %r11d, SLOT_COMMAND(%rcx)
        je .Loperation
        pause
        cmpq $QUIET_NO, SLOT_QUIET(%rcx)
        jne .Lsleep
        decl %edi
        jg .Lspin
        // Nobody has even begun: whoever is awake in the Sentry is busy with something long.
        cmpl %r11d, SLOT_TAKEN(%rcx)
        je .Lsleep
.Lwake:
        movl %edi, %edx
        leaq SLOT_SELF(%rcx), %rsi      // any 8 bytes that are neither zero nor ~0
        pushq %rdx
        movl $STUB_FD_WAKE, %edi
        movl $8, %edx
        movl $__NR_write, %eax
        pushq %rcx
        pushq %r11
        syscall
        popq %r11
        popq %rcx
        popq %rdi
        testl %edi, %edi
        jg .Lspin
        jmp .Lsleep

.Lsleep:
        // The extended state is in memory while this sleeps, so that the Sentry can move it without a wake-up.
        movl $-1, %eax
        movl $-1, %edx
        xsave64 STUB_SLOT_FP(%rcx)
        movl $1, %eax
        xchgl %eax, SLOT_SLEEPING(%rcx) // a full barrier: the Sentry sets QUIET and then looks at SLEEPING
        pushq %rcx
        pushq %r11
        movq SLOT_QUIET(%rcx), %rdi
        cmpq $QUIET_SLEEP, %rdi
        jbe .Lsleep_again
        movl $1, %esi                   // FUTEX_WAKE
        movl $0x7fffffff, %edx
        movl $__NR_futex, %eax
        syscall
        movq 8(%rsp), %rcx
        movq $QUIET_NO, SLOT_QUIET(%rcx)
.Lsleep_again:
        movq (%rsp), %r11
        movq 8(%rsp), %rcx
        movq SLOT_DOORBELL(%rcx), %rdi
        movl (%rdi), %edx
        cmpl %r11d, SLOT_COMMAND(%rcx)
        je .Lawake
        xorl %esi, %esi                 // FUTEX_WAIT
        xorl %r10d, %r10d
        movl $__NR_futex, %eax
        syscall
        // Mostly the answer is there. If it was the manager that rang, it comes in a moment.
        popq %r11
        popq %rcx
        movl $0, SLOT_SLEEPING(%rcx)
        movq SLOT_R10(%rcx), %r10
        movabs $STUB_GLOBAL, %rdx
        movl GLOBAL_SPINS(%rdx), %edi
        jmp .Lspin
.Lawake:
        addq $16, %rsp
        movl $0, SLOT_SLEEPING(%rcx)
        movq SLOT_R10(%rcx), %r10

.Loperation:
        movl SLOT_OPERATION(%rcx), %eax
        cmpl $OP_RETURN, %eax
        je redoubt_systrap_enter_start
        cmpl $OP_RESUME, %eax
        je .Lresume
        cmpl $OP_SAVE_FP, %eax
        jne .Lbroken
        movl $-1, %eax
        movl $-1, %edx
        xsave64 STUB_SLOT_FP(%rcx)
        movl $KIND_FP_SAVED, SLOT_KIND(%rcx)
        jmp redoubt_systrap_post
.Lbroken:
        ud2

// From here to enter_end an interrupt means that the guest has not been entered (see the handler).
        .globl redoubt_systrap_enter_start
redoubt_systrap_enter_start:
// Back to the trampoline: only rax has changed, and what this code has used.
        cmpl $0, SLOT_INTERRUPT(%rcx)
        jne .Lnot_entered
        // Of the flags this code has changed only the arithmetic ones, and popfq is slow: `sahf` loads the low byte
        // from ah, and an addition makes OF (bit 11) and leaves it as sahf does.
        movl SLOT_SCRATCH_TOP-8(%rcx), %eax
        movl %eax, %edx
        movb %al, %ah
        shrl $11, %edx
        andl $1, %edx
        movb %dl, %al
        addb $0x7f, %al
        sahf
        movq SLOT_RESULT(%rcx), %rax
        movq SLOT_RDI(%rcx), %rdi
        movq SLOT_RSI(%rcx), %rsi
        movq SLOT_RDX(%rcx), %rdx
        movq SLOT_TRAMPOLINE(%rcx), %r11
        movq SLOT_RSP(%rcx), %rsp
        movq SLOT_RIP(%rcx), %rcx
        leaq TRAMPOLINE_TAIL(%r11), %r11
        jmp *%r11

// Everything from memory.
.Lresume:
        cmpl $0, SLOT_INTERRUPT(%rcx)
        jne .Lnot_entered
        cmpl $0, RESUME_LOAD_FP(%rcx)
        je 1f
        movl $-1, %eax
        movl $-1, %edx
        xrstor64 STUB_SLOT_FP_LOAD(%rcx)
1:      movq RESUME_FS_BASE(%rcx), %rax
        wrfsbase %rax
        movq RESUME_GS_BASE(%rcx), %rax
        wrgsbase %rax
        movq RESUME_RAX(%rcx), %rax
        movq RESUME_RBX(%rcx), %rbx
        movq RESUME_RDX(%rcx), %rdx
        movq RESUME_RSI(%rcx), %rsi
        movq RESUME_RDI(%rcx), %rdi
        movq RESUME_RBP(%rcx), %rbp
        movq RESUME_R8(%rcx), %r8
        movq RESUME_R9(%rcx), %r9
        movq RESUME_R10(%rcx), %r10
        movq RESUME_R11(%rcx), %r11
        movq RESUME_R12(%rcx), %r12
        movq RESUME_R13(%rcx), %r13
        movq RESUME_R14(%rcx), %r14
        movq RESUME_R15(%rcx), %r15
        leaq RESUME_IRET(%rcx), %rsp
        movq RESUME_RCX(%rcx), %rcx
        .globl redoubt_systrap_iret
redoubt_systrap_iret:
        iretq
        .globl redoubt_systrap_enter_end
redoubt_systrap_enter_end:
.Lnot_entered:
        movl $KIND_NOT_ENTERED, SLOT_KIND(%rcx)
        jmp redoubt_systrap_post

// The handler of all signals (SA_SIGINFO | SA_ONSTACK | SA_NODEFER). edi: the signal, rsi: siginfo_t, rdx: ucontext_t.
// It does not return to what it interrupted but posts an event, and the frame is abandoned; only an interrupt or a
// single step that came while this code ran is returned from.
        .globl redoubt_systrap_handler
redoubt_systrap_handler:
        movq %rsp, %rcx
        andq $-STUB_SLOT_SIZE, %rcx
        movq 168(%rdx), %r8             // rip
        leaq redoubt_systrap_guest_start(%rip), %r9
        movq %r8, %r10
        subq %r9, %r10
        cmpq $(redoubt_systrap_guest_end - redoubt_systrap_guest_start), %r10
        jb .Lin_stub
.Lreport:
        movq 40(%rdx), %rax             // r8 and so on: struct sigcontext behind uc_flags, uc_link, uc_stack
        movq %rax, SLOT_R8(%rcx)
        movq 48(%rdx), %rax
        movq %rax, SLOT_R9(%rcx)
        movq 56(%rdx), %rax
        movq %rax, SLOT_R10(%rcx)
        movq 64(%rdx), %rax
        movq %rax, SLOT_R11(%rcx)
        movq 72(%rdx), %rax
        movq %rax, SLOT_R12(%rcx)
        movq 80(%rdx), %rax
        movq %rax, SLOT_R13(%rcx)
        movq 88(%rdx), %rax
        movq %rax, SLOT_R14(%rcx)
        movq 96(%rdx), %rax
        movq %rax, SLOT_R15(%rcx)
        movq 104(%rdx), %rax
        movq %rax, SLOT_RDI(%rcx)
        movq 112(%rdx), %rax
        movq %rax, SLOT_RSI(%rcx)
        movq 120(%rdx), %rax
        movq %rax, SLOT_RBP(%rcx)
        movq 128(%rdx), %rax
        movq %rax, SLOT_RBX(%rcx)
        movq 136(%rdx), %rax
        movq %rax, SLOT_RDX(%rcx)
        movq 144(%rdx), %rax
        movq %rax, SLOT_RAX(%rcx)
        movq 152(%rdx), %rax
        movq %rax, SLOT_RCX(%rcx)
        movq 160(%rdx), %rax
        movq %rax, SLOT_RSP(%rcx)
        movq %r8, SLOT_RIP(%rcx)
        movq 176(%rdx), %rax
        movq %rax, SLOT_EFLAGS(%rcx)
        movq 184(%rdx), %rax
        movq %rax, SLOT_CS(%rcx)
        movq 192(%rdx), %rax
        movq %rax, SLOT_ERROR(%rcx)
        movq 200(%rdx), %rax
        movq %rax, SLOT_TRAPNO(%rcx)
        movq 216(%rdx), %rax
        movq %rax, SLOT_CR2(%rcx)
        rdfsbase %rax
        movq %rax, SLOT_FS_BASE(%rcx)
        rdgsbase %rax
        movq %rax, SLOT_GS_BASE(%rcx)
        movl %edi, SLOT_SIGNO(%rcx)
        movl 8(%rsi), %eax
        movl %eax, SLOT_SI_CODE(%rcx)
        movq 16(%rsi), %rax
        movq %rax, SLOT_SI_ADDR(%rcx)
        movl 28(%rsi), %eax
        movl %eax, SLOT_SI_ARCH(%rcx)
        movl $KIND_SIGNAL, SLOT_KIND(%rcx)
.Lreload:
        // The host has reset the extended state for this handler; what it was is in the frame.
        movq 224(%rdx), %rdi
        movl $-1, %eax
        movl $-1, %edx
        xrstor64 (%rdi)
        leaq SLOT_SCRATCH_TOP-8(%rcx), %rsp
        jmp redoubt_systrap_post
.Lin_stub:
        cmpl $23, %edi                  // SIGURG: an interrupt
        je 1f
        cmpl $5, %edi                   // SIGTRAP: a guest steps through
        je .Lsigreturn
        jmp .Lreport
1:      leaq redoubt_systrap_enter_start(%rip), %r9
        movq %r8, %r10
        subq %r9, %r10
        cmpq $(redoubt_systrap_enter_end - redoubt_systrap_enter_start), %r10
        jae .Lsigreturn
        movl $KIND_NOT_ENTERED, SLOT_KIND(%rcx)
        jmp .Lreload
.Lsigreturn:
        movq %rdx, %rsp
        movl $__NR_rt_sigreturn, %eax
        syscall
        ud2
// sigaction(2) wants one.
        .globl redoubt_systrap_restorer
redoubt_systrap_restorer:
        movl $__NR_rt_sigreturn, %eax
        syscall
        ud2
        .globl redoubt_systrap_guest_end
redoubt_systrap_guest_end:

        .globl redoubt_systrap_stub_end
redoubt_systrap_stub_end:
        .section .note.GNU-stack,"",@progbits
