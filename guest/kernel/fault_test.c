/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One access of ring 0 to an address that may fault: bare, or by the functions that are made for
 * user memory. What the page fault comes to is for the kernel to say; each function here returns
 * if the access was made, or refused with an error.
 */
#include "kernel.h"
#include "uaccess.h"

u32 scratch;

u32 bare_read(const volatile u32 *from)
{
	return *from;
}

u32 bare_write(volatile u32 *to, u32 value)
{
	*to = value;
	return value;
}

/* The code at `at` returns its EAX. A page of zeros is code, too: it adds AL to *EAX. */
u32 bare_exec(u32 at)
{
	u32 eax = (u32)&scratch;

	asm volatile("call *%1" : "+a"(eax) : "r"(at) : "memory", "ecx", "edx");
	return eax;
}

u32 uaccess_read(const u32 *from)
{
	u32 value;
	int error = get_user_4(from, &value);

	return error ? (u32)error : value;
}

u32 uaccess_write(u32 *to, u32 value)
{
	int error = put_user_4(value, to);

	return error ? (u32)error : value;
}
