/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The vsyscall page for a CPU without SYSENTER. */
	.text
	.globl __kernel_vsyscall
	.type __kernel_vsyscall, @function
__kernel_vsyscall:
	int $0x80
	ret
	.size __kernel_vsyscall, . - __kernel_vsyscall

#include "sigreturn.h"
