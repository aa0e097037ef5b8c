/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Makes the system calls that standard input lists, whatever they are: first the bytes of `arena`,
 * which the pointers among the arguments point into, then seven words for each call. An alarm ends
 * calls that wait. A child, however it came to be, makes a few calls more and goes.
 */
#include "syscalls.h"

#define ARENA_BYTES 0x8000
#define MAX_CALLS 1024
#define CALLS_OF_A_CHILD 4

#define SYS_fork 2
#define SYS_read 3
#define SYS_setitimer 104
#define SYS_clone 120
#define SYS_rt_sigaction 174
#define SYS_vfork 190
#define SIGALRM 14
#define SA_RESTORER 0x04000000

struct call {
	u32 number, arguments[6];
};

u8 arena[ARENA_BYTES] __attribute__((aligned(4096)));
static struct call calls[MAX_CALLS];

/* All six arguments, EBP included, from the structure that is the argument. */
__attribute__((naked)) static int make(const struct call *call __attribute__((unused)))
{
	asm("pushl %ebx\n\tpushl %esi\n\tpushl %edi\n\tpushl %ebp\n\t"
	    "movl 20(%esp), %ebp\n\t"
	    "movl (%ebp), %eax\n\tmovl 4(%ebp), %ebx\n\tmovl 8(%ebp), %ecx\n\t"
	    "movl 12(%ebp), %edx\n\tmovl 16(%ebp), %esi\n\tmovl 20(%ebp), %edi\n\t"
	    "movl 24(%ebp), %ebp\n\t"
	    "int $0x80\n\t"
	    "popl %ebp\n\tpopl %edi\n\tpopl %esi\n\tpopl %ebx\n\tret");
}

static void on_alarm(int signal)
{
	(void)signal;
}

__attribute__((naked)) static void restorer(void)
{
	asm("movl $173, %eax\n\tint $0x80");
}

static void expect_alarms(void)
{
	static const u32 every_10_ms[] = { 0, 10000, 0, 10000 };
	const u32 action[] = { (u32)on_alarm, SA_RESTORER, (u32)restorer, 0, 0 };
	const struct call sigaction = { SYS_rt_sigaction, { SIGALRM, (u32)action, 0, 8 } };

	make(&sigaction);
	syscall3(SYS_setitimer, 0, (u32)every_10_ms, 0);
}

static u32 read_all(void *buffer, u32 size)
{
	u32 length = 0;
	int count;

	while (length < size &&
	       (count = syscall3(SYS_read, 0, (u32)buffer + length, size - length)) > 0)
		length += count;
	return length;
}

static int makes_a_child(u32 number)
{
	return number == SYS_fork || number == SYS_vfork || number == SYS_clone;
}

int main(int argc, char **argv)
{
	(void)argc, (void)argv;
	read_all(arena, sizeof(arena));
	u32 count = read_all(calls, sizeof(calls)) / sizeof(calls[0]);

	expect_alarms();
	for (u32 i = 0; i < count; i++)
		if (!make(&calls[i]) && makes_a_child(calls[i].number) &&
		    count > i + CALLS_OF_A_CHILD)
			count = i + CALLS_OF_A_CHILD;
	return 0;
}
