/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The vsyscall page for a CPU with SYSENTER. The instruction saves nothing: the kernel finds the
 * user's stack in EBP, and SYSEXIT destroys ECX and EDX. A call that is to start again does so two
 * bytes before its return address, as with int $0x80; a jump back stands there.
 */
#include "vsyscall.h"

	.text
	.globl __kernel_vsyscall
	.type __kernel_vsyscall, @function
__kernel_vsyscall:
	pushl %ecx
	pushl %edx
	pushl %ebp
1:	movl %esp, %ebp
	sysenter
	.org VSYSCALL_RETURN - VSYSCALL_TEXT - 2, 0x90
	jmp 1b
	popl %ebp
	popl %edx
	popl %ecx
	ret
	.size __kernel_vsyscall, . - __kernel_vsyscall

#include "sigreturn.h"
