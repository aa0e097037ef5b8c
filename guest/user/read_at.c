/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Loads from the address that its argument names, in hexadecimal without 0x. */
#include "trespass.h"

static u32 address_in(const char *digits)
{
	u32 address = 0;

	for (; *digits; digits++)
		address = address << 4 | (*digits <= '9' ? *digits - '0' : *digits - 'a' + 10);
	return address;
}

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	load(address_in(argv[1]));
	return UNPUNISHED;
}
