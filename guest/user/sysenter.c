/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * SYSENTER as programs of later kernels use it. Linux 2.4 sets up none of its registers, and a
 * program of 2.4 finds no AT_SYSINFO that would lead it there.
 */
#include "signals.h"

#define SYS_getpid 20
#define AT_SYSINFO 32

extern char first[], second[], behind_first[], behind_second[];
static u32 place, behind;

static void told(int signal, struct siginfo *info, struct ucontext *context)
{
	show(" signal", signal);
	show(" code", info->code);
	show(" address", info->field[0] ? (int)(info->field[0] - place) : -1);
	show(" trap", context->context.trapno);
	show(" error code", context->context.err);
	show(" at the instruction", context->context.eip == place);
	show(" registers kept", context->context.eax == SYS_getpid && context->context.ebp == 0x1234);
	context->context.eip = behind;
}

/* At the end of a longer block, and alone, with a prefix, in one that is jumped to. */
asm("in_a_block:\n"
    "	pushl %ebp\n"
    "	movl $20, %eax\n"
    "	movl $0x1234, %ebp\n"
    "	pushl %ebp\n"
    "	popl %ebp\n"
    "first:\n"
    "	sysenter\n"
    "behind_first:\n"
    "	popl %ebp\n"
    "	ret\n"
    "by_a_jump:\n"
    "	pushl %ebp\n"
    "	movl $20, %eax\n"
    "	movl $0x1234, %ebp\n"
    "	jmp second\n"
    "	.balign 32\n"
    "second:\n"
    "	.byte 0x2e\n"
    "	sysenter\n"
    "behind_second:\n"
    "	popl %ebp\n"
    "	ret\n");
void in_a_block(void);
void by_a_jump(void);

static int given(char **argv, int argc)
{
	u32 *word = (u32 *)argv + argc + 1;

	while (*word++)
		;
	for (; word[0]; word += 2)
		if (word[0] == AT_SYSINFO)
			return 1;
	return 0;
}

int main(int argc, char **argv)
{
	show("AT_SYSINFO", given(argv, argc));
	set_action(SIGSEGV, (u32)told, SA_SIGINFO, 0);
	set_action(SIGILL, (u32)told, SA_SIGINFO, 0);
	for (int round = 0; round < 2; round++) {
		place = (u32)first, behind = (u32)behind_first;
		print("in a block\n");
		in_a_block();
		place = (u32)second, behind = (u32)behind_second;
		print("by a jump\n");
		by_a_jump();
	}
	set_action(SIGSEGV, SIG_DFL, 0, 0);
	set_action(SIGILL, SIG_DFL, 0, 0);
	in_a_block();
	return 0;
}
