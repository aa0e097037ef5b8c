/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Restartable sequences: what registering answers, what is written, and when a section aborts. */
#include "signals.h"

#define SYS_execve 11
#define SYS_munmap 91
#define SYS_clone 120
#define SYS_sched_setaffinity 241
#define SYS_getcpu 318
#define SYS_rseq 386

#define CLONE_VM 0x100
#define CLONE_VFORK 0x4000
#define UNREGISTER 1
#define SIGNATURE 0x53053053
#define OTHER_SIGNATURE 0x53053054
#define LENGTH 32

struct area {
	u32 cpu_id_start, cpu_id;
	struct section *section;
	u32 section_high, flags, node_id, mm_cid, end;
} __attribute__((aligned(32)));

struct section {
	u32 version, flags, start, start_high, length, length_high, abort, abort_high;
} __attribute__((aligned(32)));

/*
 * int spin(struct area *area, struct section *section)
 * Enters the section and never leaves it by itself. 1: it was aborted.
 *
 * int call(struct area *area, struct section *section, int number, int first, int second)
 * Makes a system call inside the section: its result, or 1 when the section was aborted.
 */
int spin(struct area *area, struct section *section);
int call(struct area *area, struct section *section, int number, int first, int second);
extern char spin_start[], spin_end[], spin_abort[], call_start[], call_end[], unsigned_abort[];

asm("spin:\n"
    "	movl 4(%esp), %eax\n"
    "	movl 8(%esp), %ecx\n"
    "	movl %ecx, 8(%eax)\n"
    "spin_start:\n"
    "	jmp spin_start\n"
    "spin_end:\n"
    "	.long 0x53053053\n"
    "spin_abort:\n"
    "	movl $1, %eax\n"
    "	ret\n"
    "	.long 0\n"
    "unsigned_abort:\n"
    "	ret\n"
    "call:\n"
    "	pushl %ebx\n"
    "	movl 8(%esp), %edx\n"
    "	movl 12(%esp), %ecx\n"
    "	movl 16(%esp), %eax\n"
    "	movl 20(%esp), %ebx\n"
    "	movl %ecx, 8(%edx)\n"
    "	movl 24(%esp), %ecx\n"
    "	xorl %edx, %edx\n"
    "call_start:\n"
    "	int $0x80\n"
    "	nop\n"
    "call_end:\n"
    "	popl %ebx\n"
    "	ret\n"
    "	.long 0x53053053\n"
    "call_abort:\n"
    "	popl %ebx\n"
    "	movl $1, %eax\n"
    "	ret\n");
extern char call_abort[];

static struct area area, second;
static char misaligned[128] __attribute__((aligned(64)));
static struct section spinning, calling;
static u32 seen_eip, seen_section;

static int rseq(void *place, u32 length, u32 flags, u32 signature)
{
	return syscall4(SYS_rseq, (u32)place, length, flags, signature);
}

static void prepare(struct section *section, char *start, char *end, char *abort)
{
	*section = (struct section){ 0, 0, (u32)start, 0, end - start, 0, (u32)abort, 0 };
}

static void one_processor(void)
{
	u32 mask, cpu;

	syscall3(SYS_getcpu, (u32)&cpu, 0, 0);
	mask = 1u << cpu;
	syscall3(SYS_sched_setaffinity, 0, sizeof(mask), (u32)&mask);
}

static int status_of(int child)
{
	int status = -1;

	syscall4(SYS_wait4, child, (u32)&status, 0, 0);
	return status;
}

/* Runs beside us on the one processor until it is killed. */
static int rival(void)
{
	int child = syscall3(SYS_fork, 0, 0, 0);

	while (!child)
		;
	return child;
}

static void stop(int child)
{
	syscall3(SYS_kill, child, SIGKILL, 0);
	status_of(child);
}

static void refusals(void)
{
	print("-- registering\n");
	show("unregister none", rseq(&area, LENGTH, UNREGISTER, SIGNATURE));
	show("unregister nothing", rseq(0, LENGTH, UNREGISTER, SIGNATURE));
	show("flags", rseq(&area, LENGTH, 2, SIGNATURE));
	show("unregister with flags", rseq(&area, LENGTH, 3, SIGNATURE));
	show("short", rseq(&area, LENGTH - 1, 0, SIGNATURE));
	show("no length", rseq(&area, 0, 0, SIGNATURE));
	show("misaligned", rseq(misaligned + 16, LENGTH, 0, SIGNATURE));
	show("longer, misaligned", rseq(misaligned + 16, LENGTH + 8, 0, SIGNATURE));
	show("nowhere", rseq((void *)0x1000, LENGTH, 0, SIGNATURE));
	show("register", rseq(&area, LENGTH, 0, SIGNATURE));
	show("again", rseq(&area, LENGTH, 0, SIGNATURE));
	show("another signature", rseq(&area, LENGTH, 0, OTHER_SIGNATURE));
	show("another length", rseq(&area, LENGTH + 32, 0, SIGNATURE));
	show("another place", rseq(&second, LENGTH, 0, SIGNATURE));
	show("unregister another place", rseq(&second, LENGTH, UNREGISTER, SIGNATURE));
	show("unregister another length", rseq(&area, LENGTH + 32, UNREGISTER, SIGNATURE));
	show("unregister another signature", rseq(&area, LENGTH, UNREGISTER, OTHER_SIGNATURE));
	show("unregister", rseq(&area, LENGTH, UNREGISTER, SIGNATURE));
	show(" cpu_id_start", area.cpu_id_start);
	show(" cpu_id", area.cpu_id);
	show(" node_id", area.node_id);
	show(" mm_cid", area.mm_cid);
	show("longer", rseq(misaligned, LENGTH + 8, 0, SIGNATURE));
	show("unregister", rseq(misaligned, LENGTH + 8, UNREGISTER, SIGNATURE));
}

static void show_area(void)
{
	u32 cpu, node;

	syscall3(SYS_getcpu, (u32)&cpu, (u32)&node, 0);
	show(" cpu_id_start", ((volatile struct area *)&area)->cpu_id_start == cpu);
	show(" cpu_id", ((volatile struct area *)&area)->cpu_id == cpu);
	show(" node_id", ((volatile struct area *)&area)->node_id == node);
	show(" mm_cid", ((volatile struct area *)&area)->mm_cid == 0);
	show(" section", (int)((volatile struct area *)&area)->section);
}

static void written(void)
{
	int child;

	print("-- what is written\n");
	area.section = &spinning;
	area.cpu_id_start = area.cpu_id = area.node_id = area.mm_cid = 77;
	show("register", rseq(&area, LENGTH, 0, SIGNATURE));
	show_area();
	area.cpu_id_start = area.cpu_id = area.node_id = area.mm_cid = 77;
	area.section = &spinning;
	child = rival();
	while (((volatile struct area *)&area)->cpu_id == 77)
		;
	print("after others ran\n");
	show_area();
	stop(child);
}

static void preempted(void)
{
	int child = rival();

	print("-- preempted\n");
	show("aborted", spin(&area, &spinning));
	show(" section", (int)area.section);
	show("aborted", spin(&area, &spinning));
	stop(child);
	show("call without a wait", call(&area, &calling, SYS_getpid, 0, 0) == self());
	show(" section stays", area.section == &calling);
	child = syscall3(SYS_fork, 0, 0, 0);
	if (!child)
		exit(0);
	show("call that waits", call(&area, &calling, SYS_wait4, child, 0));
}

static void told(int signal, struct siginfo *info, struct ucontext *context)
{
	seen_eip = context->context.eip;
	seen_section = (u32)area.section;
	(void)signal, (void)info;
}

static void signalled(void)
{
	print("-- a signal\n");
	set_action(SIGUSR1, (u32)told, SA_SIGINFO, 0);
	show("in the section", call(&area, &calling, SYS_kill, self(), SIGUSR1));
	show(" returns to its abort handler", seen_eip == (u32)call_abort);
	show(" section in the handler", seen_section);
	area.section = &spinning;
	raise(SIGUSR1);
	show("outside of it", seen_eip != (u32)call_abort && seen_eip != (u32)spin_abort);
	show(" section in the handler", seen_section);
}

/* What a child ends with that is signalled in a section of which one thing is wrong. */
static void malformed_area(const char *name, struct section *section, u32 high, u32 flags)
{
	int child = syscall3(SYS_fork, 0, 0, 0);

	if (!child) {
		area.section_high = high;
		area.flags = flags;
		set_action(SIGUSR1, (u32)told, SA_SIGINFO, 0);
		exit(call(&area, section, SYS_kill, self(), SIGUSR1));
	}
	show(name, status_of(child));
}

static void malformed(const char *name, struct section *section)
{
	malformed_area(name, section, 0, 0);
}

static void refused_sections(void)
{
	struct section bad = calling;

	print("-- malformed\n");
	malformed("sound", &bad);
	bad.version = 1;
	malformed("version", &bad);
	bad = calling, bad.flags = 1;
	malformed("flags", &bad);
	bad = calling, bad.flags = 8;
	malformed("unknown flags", &bad);
	bad = calling, bad.abort = (u32)unsigned_abort;
	malformed("signature", &bad);
	bad = calling, bad.abort = (u32)call_start + 1;
	malformed("abort in the section", &bad);
	bad = calling, bad.abort_high = 1;
	malformed("abort too high", &bad);
	bad = calling, bad.start_high = 1;
	malformed("start too high", &bad);
	bad = calling, bad.length_high = 1;
	malformed("length too high", &bad);
	bad = calling, bad.length = 0;
	malformed("empty", &bad);
	bad = calling, bad.start = 0xFFFFFFFF, bad.start_high = 0xFFFFFFFF;
	malformed("start wraps", &bad);
	bad = calling, bad.abort = 3;
	malformed("signature nowhere", &bad);
	malformed("nowhere", (struct section *)16);
	malformed_area("section too high", &calling, 1, 0);
	malformed_area("flags of the area", &calling, 0, 1);
	malformed_area("unknown flags of the area", &calling, 0, 8);
}

/* In a child: its area goes away, and others run. */
static void lost_area(void)
{
	u32 arguments[6] = { 0, 4096, 3, 0x22, -1, 0 };
	int child = syscall3(SYS_fork, 0, 0, 0), other;
	void *place;

	if (!child) {
		place = (void *)syscall3(SYS_mmap, (u32)arguments, 0, 0);
		rseq(&area, LENGTH, UNREGISTER, SIGNATURE);
		show("register elsewhere", rseq(place, LENGTH, 0, SIGNATURE));
		syscall3(SYS_munmap, (u32)place, 4096, 0);
		other = syscall3(SYS_fork, 0, 0, 0);
		if (!other)
			exit(0);
		syscall4(SYS_wait4, other, 0, 0, 0);
		exit(0);
	}
	show("an area that is gone", status_of(child));
}

static void children(char *name)
{
	char *arguments[] = { name, "again", 0 };
	int child;

	print("-- children\n");
	child = syscall3(SYS_fork, 0, 0, 0);
	if (!child) {
		show("of fork", rseq(&area, LENGTH, 0, SIGNATURE));
		syscall3(SYS_execve, (u32)name, (u32)arguments, 0);
		exit(1);
	}
	show("status", status_of(child));
	child = syscall4(SYS_clone, CLONE_VM | CLONE_VFORK | SIGCHLD, 0, 0, 0);
	if (!child)
		exit(rseq(&second, LENGTH, 0, SIGNATURE) == 0);
	show("of vfork registers anew", status_of(child) >> 8);
	show("the parent still is", rseq(&area, LENGTH, 0, SIGNATURE));
}

int main(int argc, char **argv)
{
	if (argc > 1) {
		show("of execve", rseq(&area, LENGTH, 0, SIGNATURE));
		return 0;
	}
	prepare(&spinning, spin_start, spin_end, spin_abort);
	prepare(&calling, call_start, call_end, call_abort);
	one_processor();
	refusals();
	written();
	preempted();
	signalled();
	refused_sections();
	lost_area();
	children(argv[0]);
	return 0;
}
