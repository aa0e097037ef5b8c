/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel's functions as C calls them. The model runs them, and takes the arguments from
 * where the caller pushed them: above the saved EBX and the return address.
 */
#include "hypercall.h"
#include <kernel_calls.h>

	.text

.macro kernel_call name, number
	.globl \name
\name:	pushl %ebx
	movl $\number, %ebx
	leal 8(%esp), %ecx
	hypercall HC_CALL
	popl %ebx
	ret
.endm

	kernel_call_table
