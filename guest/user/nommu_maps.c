/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Maps, fills, shares and gives back memory, and asks for what only an MMU could give. Prints a
 * line for each thing that was as it must be on a machine without one; the status is the number of
 * those that were not.
 */
#include "syscalls.h"

#define SYS_brk 45
#define SYS_munmap 91
#define SYS_mprotect 125
#define SYS_mremap 163
#define SYS_mmap2 192

#define RW 3
#define PRIVATE_ANONYMOUS 0x22
#define SHARED_ANONYMOUS 0x21
#define FIXED 0x10
#define EPERM 1
#define ENOMEM 12
#define EINVAL 22
#define ENOSYS 38

static u32 failures;

static void check(const char *what, int holds)
{
	failures += !holds;
	print(holds ? "ok   " : "FAIL ");
	print(what);
	print("\n");
}

static u32 mmap2(u32 addr, u32 length, u32 prot, u32 flags)
{
	u32 result;

	/* The sixth argument goes in EBP, which the compiler may need for itself. */
	asm volatile("pushl %%ebp\n\t"
		     "xorl %%ebp, %%ebp\n\t"
		     "int $0x80\n\t"
		     "popl %%ebp"
		     : "=a"(result)
		     : "a"(SYS_mmap2), "b"(addr), "c"(length), "d"(prot), "S"(flags), "D"(-1)
		     : "memory");
	return result;
}

static u32 mremap(u32 addr, u32 old_length, u32 new_length)
{
	u32 result;

	asm volatile("int $0x80"
		     : "=a"(result)
		     : "a"(SYS_mremap), "b"(addr), "c"(old_length), "d"(new_length), "S"(0)
		     : "memory");
	return result;
}

static int cleared(const u8 *at, u32 length)
{
	for (u32 i = 0; i < length; i++)
		if (at[i])
			return 0;
	return 1;
}

static void fill(u8 *at, u32 length, u8 value)
{
	for (u32 i = 0; i < length; i++)
		at[i] = value;
}

static u32 paging(void)
{
	u32 machine_status;

	/* SMSW is the one way for ring 3 to see CR0. */
	asm volatile("smsw %0" : "=r"(machine_status));
	return machine_status >> 31;
}

int main(int argc, char **argv)
{
	u32 first, second, start;

	(void)argc, (void)argv;
	check("paging is off", !paging());

	first = mmap2(0, 10000, RW, PRIVATE_ANONYMOUS);
	check("anonymous memory", (int)first > 0 && cleared((u8 *)first, 10000));
	fill((u8 *)first, 10000, 0x5A);
	second = mmap2(0, 3000, RW, PRIVATE_ANONYMOUS);
	check("a second mapping elsewhere", second + 3000 <= first || first + 10000 <= second);
	check("it is clear", cleared((u8 *)second, 3000));
	check("the first is as it was", ((u8 *)first)[9999] == 0x5A);

	check("no place of one's choice", (int)mmap2(0x8048000, 4096, RW, PRIVATE_ANONYMOUS) == -EINVAL);
	check("no fixed place", (int)mmap2(0, 4096, RW, PRIVATE_ANONYMOUS | FIXED) == -EINVAL);
	check("no more than there is", (int)mmap2(0, 0x20000000, RW, PRIVATE_ANONYMOUS) == -ENOMEM);
	check("no protection", syscall3(SYS_mprotect, first, 4096, 1) == -ENOSYS);

	check("room within the block", mremap(first, 10000, 12000) == first);
	check("none beyond it", (int)mremap(first, 12000, 100000) == -ENOMEM);
	check("no part of a mapping", syscall3(SYS_munmap, first, 4096, 0) == -EINVAL);
	check("the whole mapping", syscall3(SYS_munmap, first, 12000, 0) == 0);
	check("its memory again", mmap2(0, 12000, RW, SHARED_ANONYMOUS) == first);
	check("cleared again", cleared((u8 *)first, 12000));

	start = syscall3(SYS_brk, 0, 0, 0);
	check("the break moves", syscall3(SYS_brk, start + 1000, 0, 0) == (int)(start + 1000));
	fill((u8 *)start, 1000, 1);
	check("not beyond its memory", syscall3(SYS_brk, start + 0x1000000, 0, 0) == (int)(start + 1000));

	/* Nothing stands between a program and the machine: no fault here. */
	check("address 0 can be read", *(volatile u32 *)4 == *(volatile u32 *)4);
	return failures;
}
