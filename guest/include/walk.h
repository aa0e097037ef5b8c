/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the walks through the kernel's memory share. A pointer is checked before it is followed. */
#pragma once

#include "page.h"

/* The weight of value i in a sum modulo 2^32: odd, and another for each place. */
#define WEIGHT(i) (2 * (i) + 1)

static inline int in_low_memory(const void *object, u32 bytes)
{
	u32 start = (u32)object, end = (u32)statics->high_memory;

	return start >= PAGE_OFFSET && start < end && bytes <= end - start;
}
