/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Handlers on a stack of their own. */
#include "signals.h"

#define STACK_SIZE 16384

static char stack[STACK_SIZE] __attribute__((aligned(16)));
static u32 fault_esp;

static int on_stack(const void *address)
{
	return (const char *)address >= stack && (const char *)address < stack + STACK_SIZE;
}

static void show_stack(const char *name)
{
	struct altstack now;

	show(name, syscall3(SYS_sigaltstack, 0, (u32)&now, 0));
	show(" sp", now.sp ? (int)(now.sp - (u32)stack) : -1);
	show(" flags", now.flags);
	show(" size", now.size);
}

static void nested(int signal)
{
	show("nested handler on the stack", on_stack(&signal));
}

static void told(int signal, struct siginfo *info, struct ucontext *context)
{
	struct altstack other = { (u32)stack, 0, STACK_SIZE };

	(void)info;
	show("handler on the stack", on_stack(&signal));
	show(" program on the stack", on_stack((void *)context->context.esp));
	show(" uc_stack sp", context->stack.sp == (u32)stack);
	show(" uc_stack flags", context->stack.flags);
	show(" uc_stack size", context->stack.size);
	show_stack(" sigaltstack in the handler");
	show(" change in the handler", syscall3(SYS_sigaltstack, (u32)&other, 0, 0));
	if (signal == SIGUSR1)
		raise(SIGUSR2);
}

/* Stack overflow: only another stack can hold the frame. The page is left by going to main(). */
static u32 main_esp, main_eip;

static void overflow(int signal, struct siginfo *info, struct ucontext *context)
{
	show("overflow handler on the stack", on_stack(&signal));
	show(" code", info->code == 1 || info->code == 2);
	show(" address near ESP", info->field[0] + 64 - fault_esp < 128);
	context->context.esp = main_esp;
	context->context.eip = main_eip;
}

static void set_stack(const char *name, u32 flags, u32 size)
{
	struct altstack wanted = { (u32)stack, flags, size };

	show(name, syscall3(SYS_sigaltstack, (u32)&wanted, 0, 0));
}

int main(int argc, char **argv)
{
	(void)argc, (void)argv;
	show_stack("at first");
	set_stack("too small", 0, 2047);
	set_stack("unknown flags", 4, STACK_SIZE);
	set_stack("set", 0, STACK_SIZE);
	show_stack("set");
	set_action(SIGUSR1, (u32)told, SA_SIGINFO | SA_ONSTACK, 0);
	set_action(SIGUSR2, (u32)nested, SA_ONSTACK, 0);
	raise(SIGUSR1);
	show_stack("after");
	set_action(SIGUSR1, (u32)told, SA_SIGINFO, 0);
	raise(SIGUSR1);
	set_stack("disarming", 0x80000000, STACK_SIZE);
	show_stack("disarming");
	set_action(SIGUSR1, (u32)told, SA_SIGINFO | SA_ONSTACK, 0);
	raise(SIGUSR1);
	show_stack("after");

	set_stack("set", 1, STACK_SIZE);
	set_action(SIGSEGV, (u32)overflow, SA_SIGINFO | SA_ONSTACK, 0);
	asm volatile("pushl %%ebp\n\t"
		     "movl %%esp, %0\n\t"
		     "movl $1f, %1\n\t"
		     "movl $0x1004, %%esp\n\t"
		     "movl %%esp, %2\n\t"
		     "pushl %%eax\n"
		     "1:\tpopl %%ebp\n"
		     : "=m"(main_esp), "=m"(main_eip), "=m"(fault_esp)
		     :
		     : "eax", "ebx", "ecx", "edx", "esi", "edi", "memory");
	print("back from an overflow\n");
	set_stack("disabled", 2, 0);
	show_stack("disabled");
	return 0;
}
