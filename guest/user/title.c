/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What /proc/PID/cmdline shows of a program that writes over its arguments. */
#include "signals.h"

#define SYS_open 5
#define SYS_close 6
#define SYS_execve 11

static char text[4096];

/*
 * Prints the line of "/proc/WHO/cmdline", each NUL as '|', but for the last one: 2.4 ends a title
 * that reaches into the environment before it, later kernels behind it.
 */
static void show_title(const char *name, const char *path)
{
	int file = syscall3(SYS_open, (u32)path, 0, 0), length;

	length = syscall3(SYS_read, file, (u32)text, sizeof(text) - 1);
	syscall3(SYS_close, file, 0, 0);
	if (length > 0 && !text[length - 1])
		length--;
	print(name);
	print(" ");
	for (int at = 0; at < length; at++)
		if (!text[at])
			text[at] = '|';
	text[length] = 0;
	print(text);
	print("\n");
}

/* The same by another process, which has the parent's number in its path. */
static void show_by_child(const char *name)
{
	char path[32] = "/proc/", *end = path + 6;
	int parent = self(), child = syscall3(SYS_fork, 0, 0, 0), digits = 1;
	const char *rest = "/cmdline";

	if (child) {
		syscall4(SYS_wait4, child, 0, 0, 0);
		return;
	}
	while (parent / digits >= 10)
		digits *= 10;
	for (; digits; digits /= 10)
		*end++ = '0' + parent / digits % 10;
	do
		*end++ = *rest;
	while (*rest++);
	show_title(name, path);
	exit(0);
}

int main(int argc, char **argv)
{
	char *arguments[] = { "title", "first", "second", 0 };
	char *environment[] = { "NAME=value", 0 };
	char *last;

	if (argc == 1) {
		syscall3(SYS_execve, (u32)"/proc/self/exe", (u32)arguments, (u32)environment);
		return 1;
	}
	show_title("at first", "/proc/self/cmdline");
	argv[1][0] = 'F';
	show_title("written to", "/proc/self/cmdline");
	show_by_child("by a child");
	argv[1][2] = 0;
	show_title("cut", "/proc/self/cmdline");
	argv[0] = "elsewhere";
	show_by_child("argv is another matter");
	last = argv[2] + 6;
	*last = '-';
	argv[1][2] = 'r';
	argv[1][-1] = argv[2][-1] = ' ';
	show_title("into the environment", "/proc/self/cmdline");
	return 0;
}
