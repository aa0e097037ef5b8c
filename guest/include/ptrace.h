/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What entry.S leaves on the kernel stack, in Linux's order: HC_TRAP's EBX points at it. */
#pragma once

#define PT_XES 32
#define PT_ORIG_EAX 36
#define PT_EIP 40
#define PT_XCS 44

#ifndef __ASSEMBLER__
#include <kernel_structs.h> /* struct pt_regs */

_Static_assert(__builtin_offsetof(struct pt_regs, xes) == PT_XES, "entry.S stores PT_XES");
_Static_assert(__builtin_offsetof(struct pt_regs, orig_eax) == PT_ORIG_EAX,
	       "entry.S stores PT_ORIG_EAX");
_Static_assert(__builtin_offsetof(struct pt_regs, eip) == PT_EIP, "entry.S looks at PT_EIP");
_Static_assert(__builtin_offsetof(struct pt_regs, xcs) == PT_XCS, "entry.S looks at PT_XCS");
#endif
