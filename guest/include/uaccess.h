/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading and writing user memory from ring 0. A fault inside brings the page in, or ends in
 * the fixup that the exception table names for the instruction.
 */
#pragma once

#define EFAULT 14

#ifndef __ASSEMBLER__
#include "types.h"

/* 0, or -EFAULT; a value that could not be read is 0. */
int get_user_1(const void *from, u32 *value);
int get_user_2(const void *from, u32 *value);
int get_user_4(const void *from, u32 *value);
int put_user_1(u32 value, void *to);
int put_user_2(u32 value, void *to);
int put_user_4(u32 value, void *to);

/* How many bytes are left. What could not be read is zeros in `to`. */
u32 copy_to_user(void *to, const void *from, u32 size);
u32 copy_from_user(void *to, const void *from, u32 size);
u32 clear_user(void *to, u32 size);

/* The length without the NUL, `size` if there is none so early, or -EFAULT. */
int strncpy_from_user(char *to, const char *from, u32 size);
/* The length with the NUL, more than `size` if there is none so early, 0 for a fault. */
u32 strnlen_user(const char *text, u32 size);
#endif
