/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a static-PIE does before main: adds its load address to every word that holds an
 * address. Until then it may use no pointer that the linker stored for it.
 */
#include "types.h"

#define DT_NULL 0
#define DT_REL 17
#define DT_RELSZ 18
#define R_386_RELATIVE 8

struct dynamic {
	u32 tag, value;
};

struct rel {
	u32 offset, info;
};

void relocate(u32 base, const struct dynamic *dynamic);

void relocate(u32 base, const struct dynamic *dynamic)
{
	u32 rel = 0, size = 0;

	for (; dynamic->tag != DT_NULL; dynamic++) {
		if (dynamic->tag == DT_REL)
			rel = base + dynamic->value;
		if (dynamic->tag == DT_RELSZ)
			size = dynamic->value;
	}
	for (u32 at = rel; at < rel + size; at += sizeof(struct rel)) {
		const struct rel *entry = (const struct rel *)at;

		if ((entry->info & 0xFF) == R_386_RELATIVE)
			*(u32 *)(base + entry->offset) += base;
	}
}
