/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A hypercall is one 32-bit OUT: number in EAX, arguments in EBX ECX EDX ESI, answer in EAX.
 * An emulator that translates code by blocks notices a wish to stop only between two blocks:
 * the jump ends the block, so that nothing runs behind the back of a harness that stopped.
 */
#pragma once

#include <hypercall_numbers.h>

#ifdef __ASSEMBLER__
.macro hypercall number
	movl $\number, %eax
	outl %eax, $HYPERCALL_PORT
	jmp 9f
9:
.endm
#else
#include "types.h"

static inline u32 hypercall(u32 number, u32 argument)
{
	asm volatile("outl %%eax, %1\n\t"
		     "jmp 1f\n"
		     "1:"
		     : "+a"(number)
		     : "N"(HYPERCALL_PORT), "b"(argument)
		     : "memory");
	return number;
}

static inline void outb(u16 port, u8 value)
{
	asm volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}
#endif
