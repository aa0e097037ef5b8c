/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Programs that take without end, by the first letter of the argument:
 * calls, a child that never stops asking for the time, until its parent has slept and kills it;
 * fork, children that fork too; mmap and brk, touching all they get; overcommit, more than there
 * is; loop; pause; and write, which fills the MiB that the second argument counts, reads them back
 * twice and prints a sum.
 */
#include "syscalls.h"

#define SYS_fork 2
#define SYS_waitpid 7
#define SYS_pause 29
#define SYS_kill 37
#define SYS_brk 45
#define SYS_gettimeofday 78
#define SYS_nanosleep 162
#define SYS_mmap2 192
#define PAGE 4096u
#define MIB (1 << 20)
#define PROT_READ_WRITE 3
#define MAP_PRIVATE_ANONYMOUS 0x22

static u32 mmap2(u32 length)
{
	u32 result;

	asm volatile("pushl %%ebp\n\txorl %%ebp, %%ebp\n\tint $0x80\n\tpopl %%ebp"
		     : "=a"(result)
		     : "a"(SYS_mmap2), "b"(0), "c"(length), "d"(PROT_READ_WRITE),
		       "S"(MAP_PRIVATE_ANONYMOUS), "D"(-1)
		     : "memory");
	return result;
}

static void touch(u32 start, u32 length)
{
	for (u32 at = start; at < start + length; at += PAGE)
		*(volatile u32 *)at = at;
}

static void take_by_mmap(void)
{
	for (;;) {
		u32 start = mmap2(MIB);

		if (start > -PAGE)
			exit(12);
		touch(start, MIB);
	}
}

/* Maps as often as it is let, and only then touches: nobody has counted what is promised. */
static void take_what_was_promised(void)
{
	u32 starts[64], count = 0;

	while (count < ARRAY_SIZE(starts) && (starts[count] = mmap2(MIB)) <= -PAGE)
		count++;
	for (u32 i = 0; i < count; i++)
		touch(starts[i], MIB);
}

static void take_by_brk(void)
{
	u32 end = (syscall3(SYS_brk, 0, 0, 0) + PAGE - 1) & -PAGE;

	for (;;) {
		u32 more = syscall3(SYS_brk, end + MIB, 0, 0);

		if (more < end + MIB)
			exit(12);
		touch(end, MIB);
		end = more;
	}
}

/* A call that copies to user memory runs code of ring 0, from which the emulator counts anew. */
static int outlive_a_child_that_calls(void)
{
	u32 moment[2] = {0, 1000};
	int child = syscall3(SYS_fork, 0, 0, 0), status;

	if (child == 0)
		for (;;)
			syscall3(SYS_gettimeofday, (u32)moment, 0, 0);
	syscall3(SYS_nanosleep, (u32)moment, 0, 0);
	syscall3(SYS_kill, child, 9, 0);
	return syscall3(SYS_waitpid, child, (u32)&status, 0) != child || status != 9;
}

static int fill_and_sum(u32 mib)
{
	u32 start = mmap2(mib * MIB), sum = 0;
	char digits[10] = "00000000\n";

	if (start > -PAGE)
		return 12;
	for (u32 i = 0; i < mib * MIB / 4; i += 16)
		((volatile u32 *)start)[i] = i * 2654435761u;
	for (u32 turn = 0; turn < 2; turn++)
		for (u32 i = 0; i < mib * MIB / 4; i += 16)
			sum = sum * 31 + ((volatile u32 *)start)[i];
	for (u32 i = 0; i < 8; i++)
		digits[i] = "0123456789abcdef"[sum >> 4 * (7 - i) & 15];
	return write(1, digits, 9) != 9;
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	switch (argv[1][0]) {
	case 'c':
		return outlive_a_child_that_calls();
	case 'f':
		for (;;)
			syscall3(SYS_fork, 0, 0, 0);
	case 'm':
		take_by_mmap();
	case 'o':
		take_what_was_promised();
		return 0;
	case 'b':
		take_by_brk();
	case 'l':
		for (;;)
			asm volatile("");
	case 'p':
		return syscall3(SYS_pause, 0, 0, 0);
	case 'w':
		return fill_and_sum(argv[2][0] - '0');
	}
	return 2;
}
