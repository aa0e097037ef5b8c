/* SPDX-License-Identifier: GPL-2.0-or-later */
/* #GP, error code 0: IOPL is 0 and the TSS opens no port. */
#include <hypercall_numbers.h>

#include "trespass.h"

static void hypercall_from_ring3(void)
{
	asm volatile("outl %%eax, %0" : : "N"(HYPERCALL_PORT), "a"(HC_EXIT), "b"(0));
}

TRESPASS(hypercall_from_ring3())
