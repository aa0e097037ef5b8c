/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Goes through the kinds of page faults one after the other, computing in between, and leaves its
 * mappings standing: what `mmucheck report` shows when it is given no program of the user's.
 */
#include "syscalls.h"

#define SYS_fork 2
#define SYS_open 5
#define SYS_waitpid 7
#define SYS_brk 45
#define SYS_mprotect 125
#define SYS_mmap2 192
#define PAGE 4096u
#define PROT_READ 1
#define PROT_WRITE 2
#define MAP_SHARED 0x01
#define MAP_PRIVATE 0x02
#define MAP_ANONYMOUS 0x20

#define TEXT_WORDS (24 * PAGE / 4)
#define DATA_WORDS (8 * PAGE / 4)
#define BSS_BYTES (16 * PAGE)
#define HEAP_PAGES 40
#define AREA_PAGES 48
#define STACK_PAGES 20

static const u32 constants[TEXT_WORDS] = { 1 };
static u32 initialised[DATA_WORDS] = { 1 };
static u8 zeroed[BSS_BYTES];
static volatile u32 sink;

static u32 mmap2(u32 pages, u32 protection, u32 flags, int fd)
{
	u32 result;

	asm volatile("pushl %%ebp\n\txorl %%ebp, %%ebp\n\tint $0x80\n\tpopl %%ebp"
		     : "=a"(result)
		     : "a"(SYS_mmap2), "b"(0), "c"(pages * PAGE), "d"(protection), "S"(flags), "D"(fd)
		     : "memory");
	return result;
}

static void compute(u32 turns)
{
	u32 x = sink | 1;

	while (turns--)
		x = x * 1664525 + 1013904223;
	sink = x;
}

static void read_pages(u32 start, u32 pages, u32 step)
{
	for (u32 i = 0; i < pages; i += step) {
		sink += *(volatile const u32 *)(start + i * PAGE);
		compute(1500);
	}
}

static void write_pages(u32 start, u32 pages, u32 step)
{
	for (u32 i = 0; i < pages; i += step) {
		*(volatile u32 *)(start + i * PAGE) = i + 1;
		compute(1500);
	}
}

/* Its frame is larger than the stack, which grows under it page by page. */
__attribute__((noinline)) static void grow_stack(void)
{
	volatile u8 frame[STACK_PAGES * PAGE];

	for (u32 i = STACK_PAGES; i--;) {
		frame[i * PAGE] = i;
		compute(1500);
	}
}

/* The child writes to what both have: copies. What it leaves to the parent alone is reused. */
static int share_with_a_child(u32 private, u32 shared)
{
	int child = syscall3(SYS_fork, 0, 0, 0), status = 1;

	if (child == 0) {
		write_pages(private, AREA_PAGES / 2, 1);
		write_pages(shared, AREA_PAGES / 8, 1);
		exit(0);
	}
	syscall3(SYS_waitpid, child, (u32)&status, 0);
	compute(20000);
	write_pages(private, AREA_PAGES / 2, 1);
	return status;
}

int main(int argc, char **argv)
{
	u32 heap, private, shared, own;
	int fd;

	read_pages((u32)constants, sizeof(constants) / PAGE, 1);
	write_pages((u32)initialised, sizeof(initialised) / PAGE, 1);
	write_pages((u32)zeroed, sizeof(zeroed) / PAGE, 1);
	compute(30000);

	heap = (syscall3(SYS_brk, 0, 0, 0) + PAGE - 1) & -PAGE;
	if ((u32)syscall3(SYS_brk, heap + HEAP_PAGES * PAGE, 0, 0) != heap + HEAP_PAGES * PAGE)
		return 1;
	write_pages(heap, HEAP_PAGES, 1);
	compute(30000);

	private = mmap2(AREA_PAGES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	shared = mmap2(AREA_PAGES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
	if (private > -PAGE || shared > -PAGE)
		return 2;
	read_pages(private, AREA_PAGES, 1);
	write_pages(private, AREA_PAGES, 1);
	write_pages(shared, AREA_PAGES / 2, 1);
	compute(30000);

	grow_stack();
	if (share_with_a_child(private, shared))
		return 3;

	fd = argc ? syscall3(SYS_open, (u32)argv[0], 0, 0) : -1;
	if (fd >= 0) {
		own = mmap2(16, PROT_READ, MAP_PRIVATE, fd);
		if (own > -PAGE)
			return 4;
		read_pages(own, 16, 1);
	}
	if (syscall3(SYS_mprotect, private, AREA_PAGES / 4 * PAGE, PROT_READ))
		return 5;
	return print("the tour is over\n") < 0;
}
