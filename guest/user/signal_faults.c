/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which signal each exception is, and what its frame says; then the program goes on behind it. */
#include "signals.h"

static u32 next, here;

static void told(int signal, struct siginfo *info, struct ucontext *context)
{
	struct sigcontext *at = &context->context;

	show(" signal", signal);
	show(" code", info->code);
	show(" address of the instruction", info->field[0] == at->eip && at->eip);
	if (at->trapno == 14)
		show(" address", info->field[0]);
	show(" at the instruction", at->eip == here);
	show(" behind it", at->eip != here && at->eip <= here + 2);
	show(" trap", at->trapno);
	/* Bit 4 of a page fault is set only where the CPU knows pages not to be executed. */
	show(" error code", at->trapno == 14 ? at->err & ~16 : at->err);
	if (at->trapno == 14)
		show(" cr2", at->cr2);
	at->eip = next;
	at->eflags &= ~0x100;
}

/* Runs one instruction with EAX and EBX 0, ECX 1, and EDX as it wants. */
#define FAULT(name, instruction, edx)                                                     \
	do {                                                                              \
		u32 a = 0, b = 0, c = 1, d = (edx);                                       \
		print(name "\n");                                                         \
		asm volatile("movl $1f, %4\n\tmovl $2f, %5\n\t"                           \
			     "1:\t" instruction "\n2:\tnop\n\tcld"                         \
			     : "+a"(a), "+b"(b), "+c"(c), "+d"(d), "=m"(here), "=m"(next)  \
			     :                                                            \
			     : "memory", "cc");                                           \
	} while (0)

int main(int argc, char **argv)
{
	static const int signals[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP };

	(void)argc, (void)argv;
	for (u32 i = 0; i < ARRAY_SIZE(signals); i++)
		set_action(signals[i], (u32)told, SA_SIGINFO, 0);
	FAULT("read at 0x1234", "movl (%%edx), %%eax", 0x1234);
	FAULT("write at 0x1234", "movl %%eax, (%%edx)", 0x1234);
	FAULT("write to the text", "movl %%eax, (%%edx)", 0x08048000);
	FAULT("jump to 0", "jmp *%%ebx", 0);
	FAULT("division by 0", "divl %%ebx", 0);
	FAULT("ud2", "ud2", 0);
	FAULT("hlt", "hlt", 0);
	FAULT("int3", "int3", 0);
	FAULT("int $0x81", "int $0x81", 0);
	FAULT("bad selector", "movl %%edx, %%es", 0x18);
	FAULT("one step", "pushfl\n\torl $0x100, (%%esp)\n\tpopfl\n\tnop\n\tnop", 0);
	FAULT("x87 division by 0", "fninit\n\tpushl $0x37b\n\tfldcw (%%esp)\n\tpopl %%eax\n\t"
	      "fld1\n\tfldz\n\tfdivrp\n\tmovl $3f, here\n\t3:\tfwait\n\tfninit", 0);
	asm volatile("fninit");
	print("blocked\n");
	block(SIG_SETMASK, BIT(SIGSEGV));
	FAULT("kills", "movl (%%edx), %%eax", 0x1234);
	return 0;
}
