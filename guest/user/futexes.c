/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which futex operations meet each other, and what a robust list does when its owner ends. */
#include "signals.h"

#define SYS_open 5
#define SYS_unlink 10
#define SYS_execve 11
#define SYS_munmap 91
#define SYS_ftruncate 93
#define SYS_clone 120
#define SYS_mprotect 125
#define SYS_gettid 224
#define SYS_futex 240
#define SYS_set_robust_list 311

#define CLONE_VM 0x100
#define CLONE_FS 0x200
#define CLONE_FILES 0x400
#define CLONE_SIGHAND 0x800
#define CLONE_THREAD 0x10000
#define CLONE_CHILD_CLEARTID 0x200000
#define WAIT 0
#define WAKE 1
#define PRIVATE 128
#define WAITERS 0x80000000
#define OWNER_DIED 0x40000000
#define MAP_SHARED 1
#define MAP_PRIVATE 2
#define MAP_ANONYMOUS 32
#define PAGE 4096

struct entry { struct entry *next; u32 futex; };
struct head { struct entry *next; int offset; struct entry *pending; };

static char stacks[4][PAGE] __attribute__((aligned(16)));
static u32 own[4];
static u32 *first, *second, *shared;
static u32 thread_id;

static int futex(u32 *word, int operation, u32 value)
{
	u32 soon[2] = { 5, 0 };

	return syscall4(SYS_futex, (u32)word, operation, value, operation & 127 ? 0 : (u32)soon);
}

static void sleep_ms(int milliseconds)
{
	u32 time[2] = { 0, milliseconds * 1000000 };

	syscall3(SYS_nanosleep, (u32)time, 0, 0);
}

static u32 *map(u32 flags, int file, u32 length)
{
	u32 arguments[6] = { 0, length, 3, flags, file, 0 };

	return (u32 *)syscall3(SYS_mmap, (u32)arguments, 0, 0);
}

static int status_of(int child)
{
	int status = -1;

	syscall4(SYS_wait4, child, (u32)&status, 0x40000000, 0);
	return status;
}

/* Runs `function` in a child that shares what `flags` say; its result is the exit status. */
static int start(u32 flags, char *stack, int (*function)(void))
{
	int result;

	asm volatile("	int $0x80\n"
		     "	testl %%eax, %%eax\n"
		     "	jnz 1f\n"
		     "	call *%%esi\n"
		     "	movl %%eax, %%ebx\n"
		     "	movl $1, %%eax\n"
		     "	int $0x80\n"
		     "1:"
		     : "=a"(result)
		     : "a"(SYS_clone), "b"(flags), "c"(stack + PAGE - 16), "d"(0), "S"(function),
		       "D"(&thread_id)
		     : "memory");
	return result;
}

static u32 *waited;
static int operation;

static int wait_there(void)
{
	return -futex(waited, operation, *waited);
}

/* Lets a child wait, then wakes twice: in a way that it does not hear, and in one that it does. */
static void meet(const char *name, u32 flags, u32 *word, int how, u32 *deaf, int deaf_how,
		 u32 *heard, int heard_how)
{
	int child;

	waited = word, operation = how;
	child = flags & CLONE_VM ? start(flags | SIGCHLD, stacks[0], wait_there)
				 : syscall3(SYS_fork, 0, 0, 0);
	if (!child)
		exit(wait_there());
	sleep_ms(30);
	print(name);
	print("\n");
	show(" not woken", futex(deaf, deaf_how, 9));
	show(" woken", futex(heard, heard_how, 9));
	show(" it says", status_of(child) >> 8);
}

static void keys(void)
{
	print("-- who meets whom\n");
	meet("private, by a thread", CLONE_VM, own, WAIT | PRIVATE, own, WAKE, own, WAKE | PRIVATE);
	meet("of all, by a thread", CLONE_VM, own, WAIT, own, WAKE | PRIVATE, own, WAKE);
	meet("another word", CLONE_VM, own, WAIT, own + 1, WAKE, own, WAKE);
	meet("one file, two places", 0, first + PAGE / 4 + 2, WAIT, second + 2, WAKE,
	     second + PAGE / 4 + 2, WAKE);
	meet("one file, private", 0, first, WAIT, first, WAKE | PRIVATE, second, WAKE);
	meet("memory of both", 0, shared + 1, WAIT, shared, WAKE, shared + 1, WAKE);
	show("nowhere", futex((u32 *)0x10000, WAKE, 1));
	show("nowhere, private", futex((u32 *)0x10000, WAKE | PRIVATE, 1));
	show("misaligned", futex((u32 *)((char *)own + 2), WAKE, 1));
	show("not equal", futex(own, WAIT, 77));
	show("wait nowhere", futex((u32 *)0x10000, WAIT, 0));
	syscall3(SYS_mprotect, (u32)second, PAGE, 1);
	show("not to be written", futex(second, WAKE, 1));
	syscall3(SYS_mprotect, (u32)second, PAGE, 2);
	show("to be written only", futex(second, WAKE, 1));
	syscall3(SYS_mprotect, (u32)second, PAGE, 0);
	show("not to be read", futex(second, WAKE, 1));
	syscall3(SYS_mprotect, (u32)second, PAGE, 3);
}

/* A copy of private memory is another futex, whatever its address. */
static void copies(void)
{
	int child = syscall3(SYS_fork, 0, 0, 0);

	if (!child) {
		u32 soon[2] = { 0, 60000000 };

		exit(-syscall4(SYS_futex, (u32)own, WAIT, own[0], (u32)soon));
	}
	sleep_ms(30);
	show("a copy, woken", futex(own, WAKE, 9));
	show(" it says", status_of(child) >> 8);
}

static int nothing(void)
{
	sleep_ms(30);
	return 0;
}

static void thread_ends(void)
{
	u32 flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;

	print("-- a thread ends\n");
	thread_id = 1;
	start(flags | CLONE_CHILD_CLEARTID, stacks[1], nothing);
	show("wait", futex(&thread_id, WAIT, 1));
	show("its number", thread_id);
}

static struct head *head;
static struct entry *locks;

/* The list lies in memory that outlives the one who dies. */
static void lock(struct entry *entry, struct entry *next, u32 more)
{
	entry->next = next;
	entry->futex = syscall3(SYS_gettid, 0, 0, 0) | more;
}

static void register_list(void)
{
	head->offset = 4;
	head->pending = 0;
	show("register", syscall3(SYS_set_robust_list, (u32)head, sizeof(*head), 0));
}

/* A 2 is the number of who died. */
static void show_locks(u32 owner)
{
	for (int n = 0; n < 4; n++) {
		u32 number = locks[n].futex & ~(WAITERS | OWNER_DIED);

		show(" lock", (locks[n].futex & ~number) | (number == owner ? 2 : number));
	}
}

static int dies(int way, char *name)
{
	char *arguments[] = { name, "again", 0 };
	int child = syscall3(SYS_fork, 0, 0, 0);

	if (child)
		return child;
	register_list();
	head->next = &locks[0];
	lock(&locks[0], &locks[1], WAITERS);
	lock(&locks[1], &locks[2], 0);
	lock(&locks[2], (struct entry *)head, 0);
	locks[2].futex = 1;
	locks[3].futex = 0;
	sleep_ms(60);
	if (way == 1) {
		locks[2].next = &locks[0];
	} else if (way == 2) {
		locks[0].next = (struct entry *)0x1000;
	} else if (way == 3) {
		lock(&locks[3], 0, WAITERS);
		head->pending = &locks[3];
	} else if (way == 4) {
		syscall3(SYS_execve, (u32)name, (u32)arguments, 0);
	} else if (way == 5) {
		raise(SIGKILL);
	} else if (way == 6) {
		head->next = (struct entry *)((u32)&locks[0] | 1);
	}
	exit(0);
}

static void robust(char *name)
{
	static const char *const ways[] = {
		"ends", "has a list without end", "has a list into nowhere", "had begun",
		"runs another program", "is killed", "lends its priority",
	};
	struct head *elsewhere = head;

	print("-- robust lists\n");
	show("of another size", syscall3(SYS_set_robust_list, (u32)elsewhere, 13, 0));
	for (int way = 0; way < 7; way++) {
		int child, waiter;

		for (int n = 0; n < 4; n++)
			locks[n].futex = 0;
		child = dies(way, name);
		sleep_ms(20);
		waited = &locks[0].futex, operation = WAIT;
		waiter = syscall3(SYS_fork, 0, 0, 0);
		if (!waiter)
			exit(wait_there());
		status_of(child);
		print("one that ");
		print(ways[way]);
		print("\n");
		show_locks(child);
		sleep_ms(30);
		show(" still waiting", futex(waited, WAKE, 9));
		show(" waiter", status_of(waiter) >> 8);
	}
}

int main(int argc, char **argv)
{
	const char *path = "/tmp/futexes.test";
	int file;

	if (argc > 1)
		return 0;
	file = syscall3(SYS_open, (u32)path, 0102, 0600);
	syscall3(SYS_unlink, (u32)path, 0, 0);
	syscall3(SYS_ftruncate, file, 2 * PAGE, 0);
	first = map(MAP_SHARED, file, 2 * PAGE);
	second = map(MAP_SHARED, file, 2 * PAGE);
	shared = map(MAP_SHARED | MAP_ANONYMOUS, -1, PAGE);
	head = (struct head *)(shared + 16);
	locks = (struct entry *)(shared + 32);
	keys();
	copies();
	thread_ends();
	robust(argv[0]);
	return 0;
}
