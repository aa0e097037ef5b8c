/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Traps, and the way into ring 3 and back.
 *
 * Every stub brings the stack to the shape of struct pt_regs (ptrace.h), tells the harness,
 * and returns by iret. What a trap means is decided on the other side of the hypercall, which
 * may change the saved registers.
 */
#include "exception_table.h"
#include "hypercall.h"
#include "page.h"
#include "probe.h"
#include "ptrace.h"
#include "segment.h"
#include "vsyscall.h"

#define EFLAGS_IF 0x200
#define EFAULT 14

	.text

/* The vectors with which the CPU pushes an error code push none here. */
.macro trap vector
trap_\vector:
	.if \vector != 8 && \vector != 10 && \vector != 11 && \vector != 12 && \vector != 13 && \vector != 17
	pushl $0
	.endif
	pushl $\vector
	jmp save_all
.endm

	.irp vector, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13
	trap \vector
	.endr
	.irp vector, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
	trap \vector
	.endr

/*
 * While the probe runs, a fault of its own is its result and no trap. Its accesses are at two
 * known instructions; a call faults at the address it went to, which the probe keeps in EBX.
 * DS may be anything here, SS is ours. Stack: saved EAX, error code, EIP, CS, EFLAGS.
 */
trap_14:
	pushl %eax
	movl %ss:probe_resume_eip, %eax
	testl %eax, %eax
	jz 1f
	movl 8(%esp), %eax
	cmpl %ss:probe_read_eip, %eax
	je 2f
	cmpl %ss:probe_write_eip, %eax
	je 2f
	cmpl %ebx, %eax
	je 2f
1:	popl %eax
	pushl $14
	jmp save_all

2:	movl $1, %ss:PROBE_FAULT(%esi)
	movl 4(%esp), %eax
	movl %eax, %ss:PROBE_ERROR_CODE(%esi)
	movl %cr2, %eax
	movl %eax, %ss:PROBE_CR2(%esi)
	movl %ss:probe_resume_eip, %eax
	movl %eax, 8(%esp)
	popl %eax
	addl $4, %esp
	iret

	.globl system_call
system_call:
	pushl %eax
	pushl $SYSCALL_VECTOR

/* The vector stands where ES belongs, the error code where orig_eax does. */
.macro save_registers
	cld
	pushl %ds
	pushl %eax
	pushl %ebp
	pushl %edi
	pushl %esi
	pushl %edx
	pushl %ecx
	pushl %ebx
	movl PT_XES(%esp), %ecx
	movl %es, %eax
	movl %eax, PT_XES(%esp)
	movl PT_ORIG_EAX(%esp), %edx
	cmpl $SYSCALL_VECTOR, %ecx
	je 1f
	movl $-1, PT_ORIG_EAX(%esp)
1:	movl $KERNEL_DS, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %cr2, %esi
	movl %esp, %ebx
.endm

save_all:
	save_registers
	hypercall HC_TRAP

/*
 * Back to where the trap came from, by the registers that ESP points to. A process may have put
 * anything into them (sigreturn, ptrace, or a descriptor of its own that is gone by now): a bad DS
 * or ES becomes 0, and where the iret cannot go its #GP is delivered as one of ring 3.
 */
	.globl restore_all
restore_all:
	popl %ebx
	popl %ecx
	popl %edx
	popl %esi
	popl %edi
	popl %ebp
	popl %eax
restore_ds:
	popl %ds
restore_es:
	popl %es
	addl $4, %esp
restore_iret:
	iret
	may_fault restore_ds, bad_ds
	may_fault restore_es, bad_es
	may_fault restore_iret, bad_iret

bad_ds:
	movl $0, (%esp)
	jmp restore_ds
bad_es:
	movl $0, (%esp)
	jmp restore_es
bad_iret:
	pushl $0
	pushl $GENERAL_PROTECTION
	jmp save_all

/*
 * Another process goes on: the harness comes here with ESP at its saved registers. EAX is where
 * the floating-point state of the one before is kept, EDX where that of the next one lies; ECX
 * and EDI are its FS and GS, of which the stub saves nothing. switch_to_fnsave is for CPUs
 * without FXSAVE.
 */
	.globl switch_to, switch_to_fnsave
switch_to:
	fxsave (%eax)
	fxrstor (%edx)
	jmp 1f
switch_to_fnsave:
	fnsave (%eax)
	frstor (%edx)
1:	movl %ecx, %fs
2:	movl %edi, %gs
	jmp restore_all
	may_fault 1b, bad_fs
	may_fault 2b, bad_gs
bad_fs:
	xorl %ecx, %ecx
	jmp 1b
bad_gs:
	xorl %edi, %edi
	jmp 2b

/*
 * SYSENTER comes here, with the TSS as its stack and nothing saved (vsyscall/sysenter.S). The word
 * that the user's EBP points to, its own EBP, is the call's sixth argument. What SYSEXIT cannot
 * bring back goes by iret: another place to return to, or another process.
 */
	.globl sysenter_entry
sysenter_entry:
	movl TSS_ESP0(%esp), %esp
	pushl $USER_DS
	pushl %ebp
	pushfl
	orl $EFLAGS_IF, (%esp)
	pushl $USER_CS
	pushl $SYSENTER_RETURN
	cmpl $(PAGE_OFFSET - 3), %ebp
	jae bad_sixth
sixth_argument:
	movl %ss:(%ebp), %ebp
	pushl %eax
	pushl $SYSCALL_VECTOR
	save_registers
	hypercall HC_TRAP
	cmpl $SYSENTER_RETURN, PT_EIP(%esp)
	jne restore_all
	cmpl $USER_CS, PT_XCS(%esp)
	jne restore_all
	popl %ebx
	popl %ecx
	popl %edx
	popl %esi
	popl %edi
	popl %ebp
	popl %eax
sysexit_ds:
	popl %ds
sysexit_es:
	popl %es
	addl $4, %esp
	movl (%esp), %edx
	movl 12(%esp), %ecx
	sti
	sysexit
	may_fault sixth_argument, bad_sixth
	may_fault sysexit_ds, bad_ds
	may_fault sysexit_es, bad_es

/* The call fails before it begins: a frame as of one that has ended. */
bad_sixth:
	movl $-EFAULT, %eax
	pushl $-1
	pushl $SYSCALL_VECTOR
	save_registers
	jmp restore_all

/* void save_fpu(void *area): copies the state of the current process; it goes on with it. */
	.globl save_fpu, save_fpu_fnsave
save_fpu:
	movl 4(%esp), %eax
	fxsave (%eax)
	ret
save_fpu_fnsave:
	movl 4(%esp), %eax
	fnsave (%eax)
	frstor (%eax)
	ret

/* The one device that interrupts: a timer. */
	.globl timer_interrupt
timer_interrupt:
	pushl $0
	pushl $TIMER_VECTOR
	jmp save_all

/*
 * u32 call_user(u32 eip, u32 esp, u32 esi, u32 edi)
 * The next trap from ring 3 starts its stack right below what is saved here.
 */
	.globl call_user
call_user:
	pushl %ebp
	pushl %ebx
	pushl %esi
	pushl %edi
	movl 20(%esp), %eax
	movl 24(%esp), %edx
	movl 28(%esp), %esi
	movl 32(%esp), %edi
	movb $GATE_INTERRUPT_USER, idt + LEAVE_USER_VECTOR * 8 + 5
	jmp iret_to_user

/* void enter_user(u32 eip, u32 esp) */
	.globl enter_user
enter_user:
	movl 4(%esp), %eax
	movl 8(%esp), %edx
	movb $GATE_INTERRUPT, idt + LEAVE_USER_VECTOR * 8 + 5
	xorl %esi, %esi
	xorl %edi, %edi

iret_to_user:
	movl %esp, tss + TSS_ESP0
	pushl $USER_DS
	pushl %edx
	pushl $0x202			/* IF, as Linux starts a program */
	pushl $USER_CS
	pushl %eax
	movl $USER_DS, %eax
	movl %eax, %ds
	movl %eax, %es
	xorl %eax, %eax
	movl %eax, %fs
	movl %eax, %gs
	xorl %ebx, %ebx
	xorl %ecx, %ecx
	xorl %edx, %edx
	xorl %ebp, %ebp
	iret

/* The end of call_user: its gate is open to ring 3 only inside it. EAX is the result. */
	.globl leave_user
leave_user:
	cld
	movl $KERNEL_DS, %edx
	movl %edx, %ds
	movl %edx, %es
	movb $GATE_INTERRUPT, idt + LEAVE_USER_VECTOR * 8 + 5
	addl $20, %esp			/* the iret frame */
	popl %edi
	popl %esi
	popl %ebx
	popl %ebp
	ret

	.section .rodata
	.balign 4
	.globl trap_stubs
trap_stubs:
	.irp vector, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	.long trap_\vector
	.endr
	.irp vector, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
	.long trap_\vector
	.endr
