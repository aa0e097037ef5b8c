/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The accesses themselves, in ring 0 and ring 3, and what their faults do.
 *
 * While a pass runs: ESI the case, EDI its result, already moved on to the touch that is made,
 * EDX twice the number of the touch, EBX the address, EBP what ESP returns to (a call that
 * faults has pushed its return address). A fault writes itself into the result and goes on with
 * the next case; no state of the pass lies anywhere else, so ring 3 needs no way to write it.
 */
#include "conformance.h"

/* The numbers of the accesses are the places in this table. */
.macro access_table ring
	.long \ring\()_read, \ring\()_write, \ring\()_fetch, \ring\()_modify
	.long \ring\()_read_across, \ring\()_write_across, \ring\()_descriptor
.endm

.macro pass ring
	movl %esp, %ebp
	jmp 8f
1:	movzwl CASE_TOUCHES(%esi,%edx), %eax	/* access, ring code */
	cmpb %ah, pass_ring
	jne 7f
	movzbl %al, %eax
	movl CASE_VA(%esi), %ebx
	jmp *\ring\()_accesses(,%eax,4)
\ring\()_read:
\ring\()_read_across:
	movl (%ebx), %eax
	jmp 6f
\ring\()_write:
\ring\()_write_across:
	movl CASE_VALUE(%esi), %eax
	movl %eax, (%ebx)
	jmp 6f
\ring\()_modify:
	movl CASE_VALUE(%esi), %eax
	addl %eax, (%ebx)
	jmp 6f
\ring\()_descriptor:
	movl $DESCRIPTOR_SELECTOR, %eax
	lsll %eax, %eax
	jz 6f
	movl $-1, %eax
	jmp 6f
\ring\()_fetch:
	call *%ebx
6:	movl %eax, RESULT_VALUE(%edi)
	movl $COMPLETED, RESULT_OUTCOME(%edi)
7:	addl $CASE_SIZE, %esi
	addl $RESULT_SIZE, %edi
8:	cmpl pass_end, %esi
	jb 1b
.endm

.macro pass_arguments
	movl 20(%esp), %esi
	movl 24(%esp), %eax
	movl %eax, pass_end
	movl 28(%esp), %edi
	movl 32(%esp), %edx
	movl %edx, %eax
	shll $4, %eax			/* the second touch's fields lie 16 bytes on */
	addl %eax, %edi
	addl %edx, %edx
	movl 36(%esp), %eax
	movb %al, pass_ring
.endm

	.text
	.globl pass_kernel
pass_kernel:
	pushl %ebp
	pushl %ebx
	pushl %esi
	pushl %edi
	pass_arguments
	movl $kernel_next, resume
	pass kernel
	movl $0, resume
	popl %edi
	popl %esi
	popl %ebx
	popl %ebp
	ret
kernel_next:
	movl %ebp, %esp
	jmp 7b

	.globl pass_user
pass_user:
	pushl %ebp
	pushl %ebx
	pushl %esi
	pushl %edi
	pass_arguments
	movl $user_next, resume
	movl %esp, tss_esp0
	pushl $USER_DS
	pushl $user_stack_top
	pushl $2			/* EFLAGS: no interrupts */
	pushl $USER_CS
	pushl $1f
	iret
1:	pass user
	int $LEAVE_VECTOR
user_next:
	movl %ebp, %esp
	jmp 7b

/* From ring 3, on the stack that pass_user left. */
	.globl leave_stub
leave_stub:
	movl $0, resume
	addl $20, %esp
	popl %edi
	popl %esi
	popl %ebx
	popl %ebp
	ret

/* void mark(u32 place): tells whoever watches the CPU where a pass begins and ends. */
	.globl mark, mark_stub
mark:
	movl 4(%esp), %eax
	int $MARK_VECTOR
	ret
mark_stub:
	iret

	.globl try_load_cr3
try_load_cr3:
	movl 4(%esp), %eax
	movl %esp, %ecx
	movl $1f, refused_resume
	movl %eax, %cr3
	xorl %eax, %eax
1:	movl $0, refused_resume
	ret

/* Exceptions. The vectors with which the CPU pushes an error code push none here. */
.macro trap vector
trap_\vector:
	.if \vector != 8 && (\vector < 10 || \vector > 14) && \vector != 17
	pushl $0
	.endif
	pushl $\vector
	jmp trapped
.endm
	.irp vector, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	trap \vector
	.endr
	.irp vector, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
	trap \vector
	.endr

/* Stack: vector, error code, EIP, CS, EFLAGS. */
trapped:
	movl resume, %eax
	testl %eax, %eax
	jz 1f
	movl %eax, 8(%esp)
	popl %eax
	orl $FAULTED, %eax
	movl %eax, RESULT_OUTCOME(%edi)
	popl RESULT_ERROR_CODE(%edi)
	movl %cr2, %eax
	movl %eax, RESULT_CR2(%edi)
	iret
1:	movl refused_resume, %eax
	testl %eax, %eax
	jz 2f
	movl %eax, 8(%esp)
	popl %eax
	orl $FAULTED, %eax
	addl $4, %esp
	iret
2:	call trap_outside_pass		/* does not return */

	.section .rodata
	.balign 4
kernel_accesses:
	access_table kernel
user_accesses:
	access_table user
	.globl trap_stubs
trap_stubs:
	.irp vector, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	.long trap_\vector
	.endr
	.irp vector, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
	.long trap_\vector
	.endr

	.section .bss
	.balign 4
pass_end:	.skip 4
pass_ring:	.skip 4
resume:		.skip 4		/* not 0: a pass is running, faults are results */
refused_resume:	.skip 4
