/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the parts of the conformance guest share. The records are in conformance_layout.h. */
#pragma once

#include <conformance_layout.h>
#include <hypercall_numbers.h>

#define KERNEL_CS 0x10
#define KERNEL_DS 0x18
#define USER_CS 0x23
#define USER_DS 0x2B
#define TSS_SELECTOR 0x30
#define LDT_SELECTOR 0x38
#define DESCRIPTOR_SELECTOR 0x07 /* entry 0 of the LDT, ring 3 */

#define IDT_ENTRIES 0x42
#define EXCEPTIONS 32

#ifndef __ASSEMBLER__
#include "types.h"

/* entry.S. A pass makes touch `touch` of the cases in [first, end) whose ring code is `ring`. */
void pass_kernel(struct conformance_case *first, struct conformance_case *end,
		 struct conformance_result *results, u32 touch, u32 ring);
void pass_user(struct conformance_case *first, struct conformance_case *end,
	       struct conformance_result *results, u32 touch, u32 ring);
void mark(u32 place);
/* Loads CR3; the vector of the exception that refused it, plus FAULTED, or 0. */
u32 try_load_cr3(u32 paddr);

extern u32 trap_stubs[EXCEPTIONS];
extern u8 mark_stub[], leave_stub[];
extern u64 gdt[];
extern u8 kernel_stack_top[], user_stack_top[];

/* descriptors.c */
void descriptors_init(void);
void use_descriptor(u32 va);

/* paging.c. All tables lie one to one, whether paging is on or not. */
struct paging {
	u32 entry_size; /* 4 or 8 bytes; 0 with paging off */
	u32 cr3;
	u32 slots_per_table;
};
void paging_enter(const struct conformance_batch *batch);
extern struct paging paging;
void paging_off(void);
u8 *directory_entry(u32 slot);
u8 *table_entry(u32 slot, u32 page);
u8 *pdpte_of(u32 va);
u64 read_entry(const u8 *entry);
void write_entry(u8 *entry, u64 value);
void find_strays(struct conformance_batch *batch);

/* batch.c */
void run_batch(struct conformance_batch *batch);
void run_batches(u32 count); /* leaves paging off */

/* console.c */
void console_init(void);
void printk(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* builtin.c */
void run_builtin(void);

static inline void outb(u16 port, u8 value)
{
	asm volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline u8 inb(u16 port)
{
	u8 value;

	asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}
#endif
