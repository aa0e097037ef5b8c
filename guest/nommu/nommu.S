/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ring-0 part of a machine without an MMU: flat segments, CR0.PG clear for good, so that every
 * address is a physical one. Traps and int $0x80 of ring 3 become hypercalls with a struct pt_regs,
 * as in kernel/entry.S; there is no exception table and no probe, for nothing here can page-fault.
 */
#include "hypercall.h"
#include "ptrace.h"
#include "segment.h"

#define STACK_BYTES 8192

	.text
	.globl startup
startup:
	cld
	lgdt gdt_pointer
	ljmp $KERNEL_CS, $1f
1:	movl $KERNEL_DS, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	xorl %eax, %eax
	movl %eax, %fs
	movl %eax, %gs
	movl $stack_top, %esp
	pushl $0
	popfl

	/* A gate for each vector of the CPU, and one that ring 3 may use. */
	xorl %ecx, %ecx
2:	movl vectors(, %ecx, 4), %eax
	movl $GATE_INTERRUPT, %edx
	call set_gate
	incl %ecx
	cmpl $32, %ecx
	jne 2b
	movl $SYSCALL_VECTOR, %ecx
	movl $system_call, %eax
	movl $GATE_TRAP_USER, %edx
	call set_gate
	lidt idt_pointer

	movl $stack_top, tss + TSS_ESP0
	movl $KERNEL_DS, tss + TSS_ESP0 + 4
	movl $tss, %eax
	movw %ax, gdt + TSS_SELECTOR + 2
	shrl $16, %eax
	movb %al, gdt + TSS_SELECTOR + 4
	movb %ah, gdt + TSS_SELECTOR + 7
	movl $TSS_SELECTOR, %eax
	ltr %ax
idle:	hypercall HC_IDLE
	jmp idle

/* Vector in ECX, handler in EAX, byte 5 of the gate in EDX. */
set_gate:
	movw %ax, idt(, %ecx, 8)
	movw $KERNEL_CS, idt + 2(, %ecx, 8)
	movb $0, idt + 4(, %ecx, 8)
	movb %dl, idt + 5(, %ecx, 8)
	shrl $16, %eax
	movw %ax, idt + 6(, %ecx, 8)
	ret

/* enter_user(eip, esp): ring 3 begins; it comes back by a trap only. */
	.globl enter_user
enter_user:
	movl $stack_top, %esp
	movl %ebx, %eax
	movl $USER_DS, %edx
	movl %edx, %ds
	movl %edx, %es
	pushl %edx
	pushl %ecx
	pushl $2
	pushl $USER_CS
	pushl %eax
	xorl %eax, %eax
	xorl %ebx, %ebx
	xorl %ecx, %ecx
	xorl %edx, %edx
	iret

.macro trap vector
trap_\vector:
	.if \vector != 8 && \vector != 10 && \vector != 11 && \vector != 12 && \vector != 13 && \vector != 14 && \vector != 17
	pushl $0
	.endif
	pushl $\vector
	jmp save_all
.endm

	.irp vector, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	trap \vector
	.endr
	.irp vector, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
	trap \vector
	.endr

system_call:
	pushl %eax
	pushl $SYSCALL_VECTOR

/* The vector stands where ES belongs, the error code or the number of the call in orig_eax. */
save_all:
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
	movl $KERNEL_DS, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %esp, %ebx
	hypercall HC_TRAP
	popl %ebx
	popl %ecx
	popl %edx
	popl %esi
	popl %edi
	popl %ebp
	popl %eax
	popl %ds
	popl %es
	addl $4, %esp
	iret

	.data
	.balign 8
gdt:	.quad 0
	.quad 0
	.quad 0x00CF9A000000FFFF	/* KERNEL_CS */
	.quad 0x00CF92000000FFFF	/* KERNEL_DS */
	.quad 0x00CFFA000000FFFF	/* USER_CS */
	.quad 0x00CFF2000000FFFF	/* USER_DS */
	.fill TSS_SELECTOR / 8 - 6, 8, 0
	.quad 0x0000890000000067	/* the TSS; its base is put in at startup */
	.fill GDT_ENTRIES - TSS_SELECTOR / 8 - 1, 8, 0
gdt_pointer:
	.word GDT_ENTRIES * 8 - 1
	.long gdt
	.balign 4
idt_pointer:
	.word 256 * 8 - 1
	.long idt
	.balign 4
vectors:
	.irp vector, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	.long trap_\vector
	.endr
	.irp vector, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
	.long trap_\vector
	.endr

	.bss
	.balign 8
idt:	.fill 256, 8, 0
tss:	.fill 104, 1, 0
	.balign 16
stack:	.fill STACK_BYTES, 1, 0
stack_top:
