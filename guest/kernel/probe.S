/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The accesses of the probe; probe.h has the protocol, trap_14 in entry.S the other half. */
#include "probe.h"
#include "segment.h"

/* ESI the entry, EDI the end of the table, EBX the address, EBP what ESP returns to: a call
   that faults has pushed its return address already. */
.macro probe_loop ring
	movl %esp, %ebp
	jmp 4f
1:	movl PROBE_VA(%esi), %ebx
	movl PROBE_ACCESS(%esi), %eax
	cmpl $PROBE_WRITE, %eax
	je 2f
	ja 3f
	.globl probe_\ring\()_read
probe_\ring\()_read:
	movl (%ebx), %eax
	movl %eax, PROBE_VALUE(%esi)
	addl $PROBE_SIZE, %esi
	jmp 4f
2:	movl PROBE_VALUE(%esi), %eax
	.globl probe_\ring\()_write
probe_\ring\()_write:
	movl %eax, (%ebx)
	addl $PROBE_SIZE, %esi
	jmp 4f
3:	call *%ebx
	movl %eax, PROBE_VALUE(%esi)
	.globl probe_\ring\()_resume
probe_\ring\()_resume:
	movl %ebp, %esp
	addl $PROBE_SIZE, %esi
4:	cmpl %edi, %esi
	jb 1b
.endm

	.text
	.globl probe_kernel
probe_kernel:
	pushl %ebp
	pushl %ebx
	pushl %esi
	pushl %edi
	movl 20(%esp), %esi
	imull $PROBE_SIZE, 24(%esp), %edi
	addl %esi, %edi
	movl $probe_kernel_read, probe_read_eip
	movl $probe_kernel_write, probe_write_eip
	movl $probe_kernel_resume, probe_resume_eip
	probe_loop kernel
	movl $0, probe_resume_eip
	popl %edi
	popl %esi
	popl %ebx
	popl %ebp
	ret

	.globl probe_user
probe_user:
	movl 4(%esp), %eax
	leal probe_user_read - probe_user_text_start(%eax), %ecx
	movl %ecx, probe_read_eip
	leal probe_user_write - probe_user_text_start(%eax), %ecx
	movl %ecx, probe_write_eip
	leal probe_user_resume - probe_user_text_start(%eax), %ecx
	movl %ecx, probe_resume_eip
	movl 12(%esp), %ecx
	imull $PROBE_SIZE, 16(%esp), %edx
	addl %ecx, %edx
	pushl %edx
	pushl %ecx
	pushl 16(%esp)
	pushl %eax
	call call_user
	addl $16, %esp
	movl $0, probe_resume_eip
	ret

/* Runs in ring 3, wherever it is mapped: no absolute address may stand in it. */
	.section .probe_user_text, "ax"
	.globl probe_user_text_start, probe_user_text_end
probe_user_text_start:
	probe_loop user
	int $LEAVE_USER_VECTOR
probe_user_text_end:

	.section .bss
	.balign 4
	.globl probe_read_eip, probe_write_eip, probe_resume_eip
probe_read_eip:		.skip 4
probe_write_eip:	.skip 4
probe_resume_eip:	.skip 4		/* not 0: the probe is running */
