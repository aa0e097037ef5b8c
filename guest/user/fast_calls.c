/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * System calls by AT_SYSINFO: the kernel's own page says how to enter it. What comes of a sixth
 * argument, of calls that start again, of a stack that is none, and where handlers return to.
 */
#include "signals.h"

#define SYS_open 5
#define SYS_unlink 10
#define SYS_mmap2 192
#define AT_SYSINFO 32
#define O_RDWR_CREAT 0102
#define PAGE 4096
#define PAGES 3
#define SETS_EBP 3 /* What follows the three pushes: EBP becomes ESP. */
#define MOV_R_RM 0x89
#define MOV_RM_R 0x8B

struct call { u32 number, arguments[6]; };

u32 entry, kept[6];
static u32 interrupted[2], back[2];
static int write_end;
static char other_stack[4 * PAGE] __attribute__((aligned(16)));

/* All six arguments from the structure; what the registers are afterwards goes to `kept`. */
__attribute__((naked)) static int make(const struct call *call __attribute__((unused)))
{
	asm("pushl %ebx\n\tpushl %esi\n\tpushl %edi\n\tpushl %ebp\n\t"
	    "movl 20(%esp), %ebp\n\t"
	    "movl (%ebp), %eax\n\tmovl 4(%ebp), %ebx\n\tmovl 8(%ebp), %ecx\n\t"
	    "movl 12(%ebp), %edx\n\tmovl 16(%ebp), %esi\n\tmovl 20(%ebp), %edi\n\t"
	    "movl 24(%ebp), %ebp\n\t"
	    "call *entry\n\t"
	    "movl %ebx, kept\n\tmovl %ecx, kept+4\n\tmovl %edx, kept+8\n\t"
	    "movl %esi, kept+12\n\tmovl %edi, kept+16\n\tmovl %ebp, kept+20\n\t"
	    "popl %ebp\n\tpopl %edi\n\tpopl %esi\n\tpopl %ebx\n\tret");
}

static int fast(int number, u32 first, u32 second, u32 third)
{
	struct call call = { number, { first, second, third, 0, 0, 0 } };

	return make(&call);
}

static int all_kept(const struct call *call)
{
	for (int n = 0; n < 6; n++)
		if (kept[n] != call->arguments[n])
			return 0;
	return 1;
}

static u32 sysinfo(char **argv, int argc)
{
	u32 *word = (u32 *)argv + argc + 1;

	while (*word++)
		;
	for (; word[0]; word += 2)
		if (word[0] == AT_SYSINFO)
			return word[1];
	return 0;
}

static int file_of_three_pages(void)
{
	const char *path = "/tmp/fast_calls.test";
	int file = fast(SYS_open, (u32)path, O_RDWR_CREAT, 0600);
	static u32 page[PAGE / 4];

	fast(SYS_unlink, (u32)path, 0, 0);
	for (int n = 0; n < PAGES; n++) {
		page[0] = 100 + n;
		fast(SYS_write, file, (u32)page, PAGE);
	}
	return file;
}

static void sixth_argument(void)
{
	int file = file_of_three_pages();

	for (u32 n = 0; n < PAGES; n++) {
		struct call call = { SYS_mmap2, { 0, PAGE, 1, 2, file, n } };
		u32 *page = (u32 *)make(&call);

		show("page of the file", page[0]);
		show(" registers kept", all_kept(&call));
	}
}

static void noting(int signal, struct siginfo *info, struct ucontext *context)
{
	(void)signal, (void)info;
	interrupted[0] = context->context.eip;
	back[0] = (u32)__builtin_return_address(0);
}

static void feeding(int signal, struct siginfo *info, struct ucontext *context)
{
	(void)signal, (void)info;
	interrupted[1] = context->context.eip;
	fast(SYS_write, write_end, (u32)"x", 1);
}

static void plain(int signal)
{
	(void)signal;
	back[1] = (u32)__builtin_return_address(0);
}

static void alarm_soon(void)
{
	u32 timer[4] = { 0, 0, 0, 20000 };

	fast(SYS_setitimer, 0, (u32)timer, 0);
}

/* A child stops this process while it sleeps, and lets it go on. */
static int sleep_stopped(void)
{
	u32 soon[2] = { 0, 20000000 }, sleep[2] = { 0, 100000000 };
	int me = self(), child = fast(SYS_fork, 0, 0, 0), result;

	if (!child) {
		fast(SYS_nanosleep, (u32)soon, 0, 0);
		fast(SYS_kill, me, SIGSTOP, 0);
		fast(SYS_nanosleep, (u32)soon, 0, 0);
		fast(SYS_kill, me, SIGCONT, 0);
		exit(0);
	}
	result = fast(SYS_nanosleep, (u32)sleep, 0, 0);
	show("the child", fast(SYS_wait4, child, 0, 0) == child);
	return result;
}

static void interruptions(void)
{
	u32 sleep[2] = { 0, 400000000 };
	int ends[2];
	char byte = 0;

	fast(SYS_pipe, (u32)ends, 0, 0);
	write_end = ends[1];
	set_action(SIGALRM, (u32)noting, SA_SIGINFO, 0);
	alarm_soon();
	show("read", fast(SYS_read, ends[0], (u32)&byte, 1));
	set_action(SIGALRM, (u32)feeding, SA_SIGINFO | SA_RESTART, 0);
	alarm_soon();
	show("read with SA_RESTART", fast(SYS_read, ends[0], (u32)&byte, 1));
	show(" what it read", byte);
	show(" it starts again so many bytes before", interrupted[0] - interrupted[1]);
	set_action(SIGALRM, (u32)plain, SA_RESTART, 0);
	alarm_soon();
	show("nanosleep", fast(SYS_nanosleep, (u32)sleep, 0, 0));
	show("nanosleep, stopped meanwhile", sleep_stopped());
	show("handlers return into the page", (back[0] ^ entry) < PAGE && (back[1] ^ entry) < PAGE);
	show(" each its own way", back[0] != back[1]);
}

static void faulted(int signal, struct siginfo *info, struct ucontext *context)
{
	u32 eip = context->context.eip;

	(void)info;
	show(" signal", signal);
	show(" eax", context->context.eax);
	show(" back in the page", eip > entry && eip < entry + 64);
	exit(0);
}

/* As if the pushes had been made on a stack that cannot be read. The child ends in the handler. */
static void bad_stack(u32 stack)
{
	int child, status = -1;

	show("stack", stack);
	child = fast(SYS_fork, 0, 0, 0);
	if (!child) {
		struct altstack other = { (u32)other_stack, 0, sizeof(other_stack) };

		fast(SYS_sigaltstack, (u32)&other, 0, 0);
		set_action(SIGSEGV, (u32)faulted, SA_SIGINFO | SA_ONSTACK, 0);
		asm volatile("movl %0, %%esp\n\tjmp *%1"
			     : : "r"(stack), "r"(entry + SETS_EBP), "a"(SYS_getpid) : "memory");
	}
	fast(SYS_wait4, child, (u32)&status, 0);
	show(" status", status);
}

static void writes(void)
{
	int child = fast(SYS_fork, 0, 0, 0), status = -1;

	if (!child)
		*(volatile u8 *)entry = 0;
	fast(SYS_wait4, child, (u32)&status, 0);
	show("who writes to the page gets", status & 127);
}

int main(int argc, char **argv)
{
	u8 first;

	entry = sysinfo(argv, argc);
	show("AT_SYSINFO", entry != 0);
	if (!entry)
		return 0;
	show("getpid", fast(SYS_getpid, 0, 0, 0) == self());
	show("no call", fast(9999, 0, 0, 0));
	show("nowhere", fast(SYS_pipe, 1, 0, 0));
	sixth_argument();
	interruptions();
	writes();
	first = *(volatile u8 *)(entry + SETS_EBP);
	if (first != MOV_R_RM && first != MOV_RM_R)
		return 0;
	bad_stack(0x1000);
	bad_stack(0xFFFFF000);
	bad_stack(0xBFFFFFFE);
	return 0;
}
