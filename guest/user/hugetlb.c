/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Huge pages: mapped, filled, shared with a child, truncated, freed; and shared memory of both kinds. */
#include "signals.h"

#define SYS_open 5
#define SYS_close 6
#define SYS_unlink 10
#define SYS_munmap 91
#define SYS_ftruncate 93
#define SYS_ipc 117
#define SYS_mprotect 125
#define SYS_msync 144
#define SYS_mlock 150
#define SYS_mremap 163
#define SYS_mmap2 192
#define SYS_madvise 219

#define PAGE 4096u
#define PROT_READ 1
#define PROT_WRITE 2
#define MAP_SHARED 1
#define MAP_PRIVATE 2
#define MAP_FIXED 0x10
#define MADV_DONTNEED 4
#define O_RDWR 2
#define O_CREAT 0100
enum { SHMAT = 21, SHMDT, SHMGET, SHMCTL };
#define IPC_CREAT 01000
#define IPC_RMID 0
#define IPC_STAT 2
#define IPC_64 0x100
#define SHM_HUGETLB 04000
#define NATTCH 18 /* words into struct shmid64_ds */

static u32 size; /* of a huge page */
static char text[4096];
static u32 segment[21];

static int syscall6(int number, u32 first, u32 second, u32 third, u32 fourth, u32 fifth, u32 sixth)
{
	int result;

	/* EBP is the sixth, which the compiler may use to address the others: push first, then take. */
	asm volatile("pushl %7\n\tpushl %%ebp\n\tmovl 4(%%esp), %%ebp\n\tint $0x80\n\tpopl %%ebp\n\t"
		     "addl $4, %%esp"
		     : "=a"(result)
		     : "a"(number), "b"(first), "c"(second), "d"(third), "S"(fourth), "D"(fifth),
		       "m"(sixth)
		     : "memory");
	return result;
}

static u32 map(u32 addr, u32 length, u32 protection, u32 flags, int file, u32 page)
{
	return syscall6(SYS_mmap2, addr, length, protection, flags, file, page);
}

static u32 ipc(u32 call, u32 first, u32 second, u32 third, u32 pointer)
{
	return syscall6(SYS_ipc, call, first, second, third, pointer, 0);
}

static u32 meminfo(const char *line)
{
	int file = syscall3(SYS_open, (u32)"/proc/meminfo", 0, 0), length;
	u32 value = 0;

	length = syscall3(SYS_read, file, (u32)text, sizeof(text) - 1);
	syscall3(SYS_close, file, 0, 0);
	for (int at = 0; at < length; at++) {
		int same = 0;

		while (line[same] && text[at + same] == line[same])
			same++;
		if (line[same])
			continue;
		for (at += same; text[at] == ' '; at++)
			;
		while (text[at] >= '0' && text[at] <= '9')
			value = value * 10 + text[at++] - '0';
		return value;
	}
	return -1;
}

static void show_free(void)
{
	show(" free", meminfo("HugePages_Free:"));
}

/* The first and the last word of each page are looked at: what they are, and how many are wrong. */
static u32 wrong(u32 at, u32 length, u32 first, u32 last)
{
	u32 found = 0;

	for (u32 page = 0; page < length; page += PAGE) {
		found += *(volatile u32 *)(at + page) != first + (first ? page : 0);
		found += *(volatile u32 *)(at + page + PAGE - 4) != last + (last ? page : 0);
	}
	return found;
}

static void fill(u32 at, u32 length, u32 first, u32 last)
{
	for (u32 page = 0; page < length; page += PAGE) {
		if (first)
			*(volatile u32 *)(at + page) = first + page;
		if (last)
			*(volatile u32 *)(at + page + PAGE - 4) = last + page;
	}
}

static int status_of(int child)
{
	int status = -1;

	syscall4(SYS_wait4, child, (u32)&status, 0, 0);
	return status;
}

static void shared_with_a_child(u32 at, u32 length)
{
	int child;

	show("not zero", wrong(at, length, 0, 0));
	fill(at, length, 0x10000001, 0);
	child = syscall3(SYS_fork, 0, 0, 0);
	if (!child) {
		u32 bad = wrong(at, length, 0x10000001, 0);

		fill(at, length, 0, 0x20000001);
		exit(bad ? 1 : 42);
	}
	show("child", status_of(child) >> 8);
	show("wrong", wrong(at, length, 0x10000001, 0x20000001));
}

static void refused(u32 at, int file)
{
	u32 both = PROT_READ | PROT_WRITE;

	print("-- refused\n");
	show("private", map(0, size, both, MAP_PRIVATE, file, 0));
	show("half a page", map(0, size / 2, both, MAP_SHARED, file, 0));
	show("half an offset", map(0, size, both, MAP_SHARED, file, size / PAGE / 2));
	show("half an address", map(at + size / 2, size, both, MAP_SHARED | MAP_FIXED, file, 0));
	show("read-only and too long", map(0, 3 * size, PROT_READ, MAP_SHARED, file, 0));
	show("more than there are", map(0, 16 * size, both, MAP_SHARED, file, 0));
	show_free();
	show("mprotect", syscall3(SYS_mprotect, at, size, PROT_READ));
	show("mremap", syscall4(SYS_mremap, at, size, 2 * size, 1));
	show("madvise", syscall3(SYS_madvise, at, size, MADV_DONTNEED));
	show("munmap", syscall3(SYS_munmap, at, size / 2, 0));
	show("read", syscall3(SYS_read, file, (u32)text, 4));
	show("write", write(file, text, 4));
	show("msync", syscall3(SYS_msync, at, size, 4));
	show("mlock", syscall3(SYS_mlock, at, size, 0));
}

static void truncated(u32 at, int file)
{
	int child;

	print("-- truncated\n");
	show("half", syscall3(SYS_ftruncate, file, size / 2, 0));
	show("longer", syscall3(SYS_ftruncate, file, 4 * size, 0));
	show("one left", syscall3(SYS_ftruncate, file, size, 0));
	show_free();
	show("wrong", wrong(at, size, 0x10000001, 0x20000001));
	child = syscall3(SYS_fork, 0, 0, 0);
	if (!child) {
		*(volatile u32 *)(at + size) = 1;
		exit(0);
	}
	show("signal", status_of(child) & 127);
}

static void files(void)
{
	int file = syscall3(SYS_open, (u32)"/dev/hugepages/shared", O_RDWR | O_CREAT, 0600);
	u32 at = map(0, 2 * size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0), again;

	print("-- a file\n");
	show("open", file > 2);
	show("aligned", !(at & (size - 1)));
	show_free();
	shared_with_a_child(at, 2 * size);
	again = map(0, size, PROT_READ, MAP_SHARED, file, size / PAGE);
	show("mapped again", wrong(again, size, 0x10000001 + size, 0x20000001 + size));
	show_free();
	show("munmap", syscall3(SYS_munmap, again, size, 0));
	refused(at, file);
	truncated(at, file);
	print("-- freed\n");
	show("munmap", syscall3(SYS_munmap, at, 2 * size, 0));
	show_free();
	show("close", syscall3(SYS_close, file, 0, 0));
	show("unlink", syscall3(SYS_unlink, (u32)"/dev/hugepages/shared", 0, 0));
	show_free();
}

static void shared_memory(const char *kind, u32 flags, u32 length)
{
	int id = ipc(SHMGET, 0x1234, length, IPC_CREAT | 0600 | flags, 0);
	u32 at = 0;

	print(kind);
	show("get", id >= 0);
	show("found", (int)ipc(SHMGET, 0x1234, length, 0600, 0) == id);
	show("too large", ipc(SHMGET, 0x1234, length + 1, 0600, 0));
	show("attach", ipc(SHMAT, id, 0, (u32)&at, 0));
	show_free();
	shared_with_a_child(at, length);
	show("stat", ipc(SHMCTL, id, IPC_STAT | IPC_64, 0, (u32)segment));
	show(" attached", segment[NATTCH]);
	show("remove", ipc(SHMCTL, id, IPC_RMID, 0, 0));
	show("found", ipc(SHMGET, 0x1234, length, 0600, 0));
	show("wrong", wrong(at, length, 0x10000001, 0x20000001));
	show("detach", ipc(SHMDT, 0, 0, 0, at));
	show("again", ipc(SHMDT, 0, 0, 0, at));
	show_free();
}

int main(int argc, char **argv)
{
	(void)argc, (void)argv;
	size = meminfo("Hugepagesize:") << 10;
	print("-- huge pages\n");
	show(" total", meminfo("HugePages_Total:"));
	show_free();
	files();
	shared_memory("-- huge shared memory\n", SHM_HUGETLB, 2 * size);
	shared_memory("-- shared memory\n", 0, 16 * PAGE);
	return 0;
}
