/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What read_kernel.c and its kin share: announce the act, commit it, and report if it went unpunished.
 * `mmucheck run` must end such a program by the fault that its comment names.
 */
#pragma once

#include "syscalls.h"

#define KERNEL_ADDRESS 0xC0101000 /* swapper_pg_dir: mapped, and none of a program's business */
#define NULL_ADDRESS 0

#define UNPUNISHED 99

/* Hides from the compiler that the address is a constant, and so that the access is undefined. */
static inline void *at(u32 address)
{
	asm volatile("" : "+r"(address));
	return (void *)address;
}

static inline void load(u32 address)
{
	(void)*(volatile u32 *)at(address);
}

static inline void store(u32 address)
{
	*(volatile u32 *)at(address) = 0;
}

static inline void jump(u32 address)
{
	((void (*)(void))at(address))();
}

#define TRESPASS(act)                                                                      \
	int main(int argc, char **argv)                                                    \
	{                                                                                  \
		(void)argc, (void)argv;                                                    \
		print(#act "\n");                                                          \
		act;                                                                       \
		print("unpunished\n");                                                     \
		return UNPUNISHED;                                                         \
	}
