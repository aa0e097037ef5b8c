/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pages of a file in an order of one's own: remap_file_pages(). Page 0 is full of a, page 1 of b. */
#include "signals.h"

#define SYS_open 5
#define SYS_munmap 91
#define SYS_remap_file_pages 257
#define RDWR_CREATE_TRUNCATE 01102
#define SHARED 1
#define PRIVATE 2
#define PAGE 4096
#define PAGES 8

static char *map;

static char *map_file(int file, u32 pages, u32 kind)
{
	u32 arguments[] = { 0, pages * PAGE, 3, kind, file, 0 };

	return (char *)syscall3(SYS_mmap, (u32)arguments, 0, 0);
}

static int remap(char *from, u32 page, u32 pages, u32 prot, u32 offset)
{
	int result;

	asm volatile("int $0x80"
		     : "=a"(result)
		     : "a"(SYS_remap_file_pages), "b"(from + page * PAGE), "c"(pages * PAGE),
		       "d"(prot), "S"(offset), "D"(0)
		     : "memory");
	return result;
}

/* What stands in each page, by its last byte. */
static void order(const char *what, char *from)
{
	char text[PAGES + 2];

	for (u32 page = 0; page < PAGES; page++)
		text[page] = from[page * PAGE + PAGE - 1];
	text[PAGES] = '\n', text[PAGES + 1] = 0;
	print(what);
	print(": ");
	print(text);
}

static void remapped(u32 page, u32 pages, u32 offset)
{
	show("remap_file_pages", remap(map, page, pages, 0, offset));
	order("order", map);
}

static void in_a_child(void)
{
	int child = syscall3(SYS_fork, 0, 0, 0);

	if (!child) {
		order("child", map);
		map[3 * PAGE - 1] = 'C';
		exit(0);
	}
	syscall4(SYS_wait4, child, 0, 0, 0);
	order("parent", map);
}

int main(int argc, char **argv)
{
	(void)argc, (void)argv;
	static char page[PAGE];
	int file = syscall3(SYS_open, (u32)"any_order.tmp", RDWR_CREATE_TRUNCATE, 0600);
	char *in_order, *own;

	for (u32 number = 0; number < PAGES; number++) {
		for (u32 byte = 0; byte < PAGE; byte++)
			page[byte] = 'a' + number;
		write(file, page, PAGE);
	}
	map = map_file(file, PAGES, SHARED);
	in_order = map_file(file, PAGES, SHARED);
	order("at first", map);
	remapped(2, 2, 2);
	remapped(0, 2, 6);
	remapped(2, 1, 0);
	remapped(6, 2, 0);
	map[8 * PAGE - 1] = 'B';
	order("in order", in_order);
	in_a_child();
	order("in order", in_order);
	remapped(0, 8, 0);
	own = map_file(file, PAGES, PRIVATE);
	show("private", remap(own, 0, 1, 0, 1));
	show("with a protection", remap(map, 0, 1, 1, 1));
	show("nothing", remap(map, 0, 0, 0, 1));
	syscall3(SYS_munmap, (u32)map, PAGES * PAGE, 0);
	show("nowhere", remap(map, 0, 1, 0, 1));
	return 0;
}
