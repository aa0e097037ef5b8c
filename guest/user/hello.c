/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "syscalls.h"

/* Initialised pointers: the words that a static-PIE has to relocate. */
const char *words[] = { "hello", ", ", "ring 3", "\n" };

int main(int argc, char **argv)
{
	(void)argc, (void)argv;
	for (u32 i = 0; i < ARRAY_SIZE(words); i++)
		if (print(words[i]) < 0)
			return 1;
	return 0;
}
