/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The probe: many single accesses in one run of the CPU.
 *
 * Each entry of a table is one load, one store or one call. What it met is written into the
 * entry: the value, or the fault. An expected fault never reaches the harness: the page-fault
 * stub sees that EIP is the probe's own instruction (or the address it called), fills in the
 * entry and resumes at the next one. Any other fault is an ordinary trap.
 *
 *   read    value = the word at va
 *   write   the word at va = value
 *   fetch   call va; the code there must be `mov $imm32, %eax; ret`; value = EAX
 *
 * The probe writes fault, error_code and cr2 only when there is a fault: clear them before.
 *
 * probe_kernel: the table is at a kernel address; runs in ring 0 on the current stack.
 *
 * probe_user: the same from ring 3. Before the call, in the address space that CR3 holds,
 *   text     a user address where one page shows the bytes probe_user_text_start..end (map
 *            the image's own frame, which is page aligned, or a copy); needs no write access
 *   stack    top of a user stack in a writable page; the probe pushes 4 bytes
 *   table    user address of the table, writable from ring 3
 * It ends by `int $LEAVE_USER_VECTOR`, which makes call_user() return; the gate of that
 * vector is open to ring 3 only as long.
 */
#pragma once

#define PROBE_READ 0
#define PROBE_WRITE 1
#define PROBE_FETCH 2

#define PROBE_VA 0
#define PROBE_ACCESS 4
#define PROBE_VALUE 8
#define PROBE_FAULT 12
#define PROBE_ERROR_CODE 16
#define PROBE_CR2 20
#define PROBE_SIZE 24

#ifndef __ASSEMBLER__
#include "types.h"

struct probe {
	u32 va;
	u32 access;
	u32 value;
	u32 fault;
	u32 error_code;
	u32 cr2;
};

_Static_assert(sizeof(struct probe) == PROBE_SIZE, "probe.S counts in PROBE_SIZE");
_Static_assert(offsetof(struct probe, value) == PROBE_VALUE, "probe.S stores PROBE_VALUE");
_Static_assert(offsetof(struct probe, cr2) == PROBE_CR2, "probe.S stores PROBE_CR2");

void probe_kernel(struct probe *table, u32 count);
void probe_user(u32 text, u32 stack, struct probe *table, u32 count);

extern u8 probe_user_text_start[], probe_user_text_end[];
#endif
