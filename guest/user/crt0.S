/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Linux leaves argc at ESP and argv right above it. */
	.text
	.globl _start
_start:
	xorl %ebp, %ebp
	movl (%esp), %eax
	leal 4(%esp), %edx
	pushl %edx
	pushl %eax
#ifdef STATIC_PIE
	call 1f
1:	popl %ebx
	leal _DYNAMIC - 1b(%ebx), %eax
	leal __ehdr_start - 1b(%ebx), %ebx
	pushl %eax
	pushl %ebx
	call relocate
	addl $8, %esp
#endif
	call main
	pushl %eax
	call exit
