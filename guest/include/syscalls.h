/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Linux's int $0x80: number in EAX, arguments in EBX ECX EDX, -errno in EAX on failure. */
#pragma once

#include "types.h"

#define SYS_exit 1
#define SYS_read 3
#define SYS_write 4

static inline int syscall3(int number, u32 first, u32 second, u32 third)
{
	int result;

	asm volatile("int $0x80"
		     : "=a"(result)
		     : "a"(number), "b"(first), "c"(second), "d"(third)
		     : "memory");
	return result;
}

int main(int argc, char **argv);
__attribute__((noreturn)) void exit(int status);
int write(int fd, const void *text, u32 length);
int print(const char *text);
