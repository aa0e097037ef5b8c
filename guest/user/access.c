/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Single accesses of ring 3, entered by call_user() of the ring-0 guest: the address in ESI, a
 * value in EDI. Each leaves by the vector of call_user() with its result in EAX.
 */
#include "segment.h"
#include "syscalls.h"

#define ENTERED_BY_CALL_USER __attribute__((naked, used)) void
#define LEAVE "int %0" : : "i"(LEAVE_USER_VECTOR)

ENTERED_BY_CALL_USER user_read(void)
{
	asm("movl (%%esi), %%eax\n\t" LEAVE);
}

ENTERED_BY_CALL_USER user_write(void)
{
	asm("movl %%edi, (%%esi)\n\tmovl %%edi, %%eax\n\t" LEAVE);
}

ENTERED_BY_CALL_USER user_exec(void)
{
	asm("call *%%esi\n\t" LEAVE);
}

int main(int argc, char **argv)
{
	(void)argc, (void)argv;
	return print("entered by call_user() only\n");
}
