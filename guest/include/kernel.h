/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "types.h"

/* A ring-0 program defines this; its value becomes the exit status. */
int kernel_main(void);

/* Enters ring 3 with all general registers 0. Returns only if ring 3 leaves as below. */
u32 enter_user(u32 eip, u32 esp);

/* Runs ring-3 code until it executes `int $LEAVE_USER_VECTOR`; returns its EAX. */
u32 call_user(u32 eip, u32 esp, u32 esi, u32 edi);

/* Tells the harness; the guest goes on. */
void assert_failed(const char *text);
