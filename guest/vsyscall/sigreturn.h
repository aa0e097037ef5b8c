/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where a signal handler returns to: the kernel puts these addresses on its stack. */
#include "vsyscall.h"

#define SYS_sigreturn 119
#define SYS_rt_sigreturn 173

	.text
	.org VSYSCALL_SIGRETURN - VSYSCALL_TEXT, 0x90
	.globl __kernel_sigreturn
	.type __kernel_sigreturn, @function
__kernel_sigreturn:
	popl %eax
	movl $SYS_sigreturn, %eax
	int $0x80
	.size __kernel_sigreturn, . - __kernel_sigreturn

	.org VSYSCALL_RT_SIGRETURN - VSYSCALL_TEXT, 0x90
	.globl __kernel_rt_sigreturn
	.type __kernel_rt_sigreturn, @function
__kernel_rt_sigreturn:
	movl $SYS_rt_sigreturn, %eax
	int $0x80
	.size __kernel_rt_sigreturn, . - __kernel_rt_sigreturn
