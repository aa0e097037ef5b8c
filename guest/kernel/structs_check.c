/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel's structures as this compiler lays them out, held against what the model says.
 * The header asserts the same at compile time; this also shows that the header that was
 * compiled and the model that boots speak of the same build.
 */
#include <kernel_structs.h>

#include "console.h"
#include "kernel.h"

struct row {
	u32 compiled, declared;
	const char *what;
};

#define ROW(compiled, declared, what) { compiled, declared, what },

static const struct row rows[] = { KERNEL_LAYOUT_ROWS(ROW) };

int kernel_main(void)
{
	int wrong = 0;

	for (const struct row *row = rows; row < rows + ARRAY_SIZE(rows); row++) {
		if (row->compiled == row->declared)
			continue;
		printk("%s: compiled %u, declared %u\n", row->what, row->compiled, row->declared);
		assert_failed(row->what);
		wrong = 1;
	}
	printk("structs_check: %u sizes and offsets\n", (u32)ARRAY_SIZE(rows));
	return wrong;
}
