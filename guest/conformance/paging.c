/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The tables: the guest's own part, one to one and open to ring 3, and the slots of the cases.
 * Nothing of the guest's own part has an accessed or dirty flag left to set, so that every
 * change in the tables is one that a case made.
 */
#include "conformance.h"

#define CR0_PG 0x80000000u
#define CR4_PSE 0x10u
#define CR4_PAE 0x20u
#define MSR_EFER 0xC0000080u

#define PTE_P 0x001u
#define OWN_TABLE 0x027u /* P RW US A */
#define OWN_PAGE 0x067u /* and D */
#define PTE_PS 0x080u
#define PSE36_BIT_32 (1u << 13)

#define PAGE 4096u
#define OWN_PAGES (LOW_RAM / PAGE)
#define WINDOW_BYTES (CASES - FRAMES)

struct paging paging;
static u32 current_cr0, current_cr4, current_efer;
static u32 shift, first_slot;

static inline void load_cr0(u32 value)
{
	asm volatile("movl %0, %%cr0; jmp 1f; 1:" : : "r"(value) : "memory");
}

static inline void load_cr4(u32 value)
{
	asm volatile("movl %0, %%cr4" : : "r"(value) : "memory");
}

u64 read_entry(const u8 *entry)
{
	const u32 *word = (const u32 *)entry;

	return paging.entry_size == 8 ? (u64)word[1] << 32 | word[0] : word[0];
}

void write_entry(u8 *entry, u64 value)
{
	u32 *word = (u32 *)entry;

	word[0] = (u32)value;
	if (paging.entry_size == 8)
		word[1] = (u32)(value >> 32);
}

static u8 *own_directory_entry(u32 number)
{
	return (u8 *)(TABLES + number * paging.entry_size);
}

u8 *directory_entry(u32 slot)
{
	return own_directory_entry(first_slot + slot);
}

u8 *table_entry(u32 slot, u32 page)
{
	u32 number = slot % paging.slots_per_table * PAGES_PER_SLOT + page;

	return (u8 *)(CASE_TABLES + slot / paging.slots_per_table * PAGE + number * paging.entry_size);
}

u8 *pdpte_of(u32 va)
{
	return (u8 *)(PDPT + (va >> 30) * 8);
}

static u64 own_entry(u32 number)
{
	u32 size = 1u << shift;

	if (number < LOW_RAM / size)
		return (OWN_TABLES + number * PAGE) | OWN_TABLE;
	number -= LOW_RAM / size;
	if (number >= WINDOW_BYTES / size)
		return 0;
	if (paging.entry_size == 8)
		return (u64)1 << 32 | (FRAMES + number * size) | OWN_PAGE | PTE_PS;
	if (current_cr4 & CR4_PSE)
		return (FRAMES + number * size) | PSE36_BIT_32 | OWN_PAGE | PTE_PS;
	return 0;
}

static void build_tables(void)
{
	u32 *word = (u32 *)TABLES;

	for (u32 n = 0; n < (TABLES_END - TABLES) / 4; n++)
		word[n] = 0;
	for (u32 n = 0; n < (LOW_RAM + WINDOW_BYTES) >> shift; n++)
		write_entry(own_directory_entry(n), own_entry(n));
	for (u32 n = 0; n < OWN_PAGES; n++)
		write_entry((u8 *)(OWN_TABLES + n * paging.entry_size), n * PAGE | OWN_PAGE);
	if (paging.entry_size == 8)
		for (u32 n = 0; n < 4; n++)
			write_entry((u8 *)(PDPT + n * 8), (TABLES + n * PAGE) | PTE_P);
}

static void write_efer(u32 value)
{
	if (value != current_efer)
		asm volatile("wrmsr" : : "c"(MSR_EFER), "a"(value), "d"(0));
	current_efer = value;
}

void paging_off(void)
{
	u32 cr0;

	asm volatile("movl %%cr0, %0" : "=r"(cr0));
	load_cr0(cr0 & ~CR0_PG);
	current_cr0 = cr0 & ~CR0_PG;
}

/* Make the registers those of the batch; CR3 is loaded when its cases are in the tables. */
void paging_enter(const struct conformance_batch *batch)
{
	u32 pae = batch->cr4 & CR4_PAE;

	if (batch->cr0 == current_cr0 && batch->cr4 == current_cr4 && batch->efer == current_efer)
		return;
	paging_off();
	shift = pae ? 21 : 22;
	first_slot = pae ? FIRST_SLOT_PAE : FIRST_SLOT_2_LEVEL;
	paging.slots_per_table = pae ? SLOTS_PER_TABLE_PAE : SLOTS_PER_TABLE_2_LEVEL;
	paging.entry_size = pae ? 8 : 4;
	paging.cr3 = pae ? PDPT : TABLES;
	/* A 486 of the early kind has no CR4. */
	if (batch->cr4 != current_cr4)
		load_cr4(batch->cr4);
	current_cr4 = batch->cr4;
	write_efer(batch->efer);
	build_tables();
	asm volatile("movl %0, %%cr3" : : "r"(paging.cr3) : "memory");
	load_cr0(batch->cr0);
	current_cr0 = batch->cr0;
}

static void stray(struct conformance_batch *batch, const u8 *entry, u64 value)
{
	if (!batch->stray_count++) {
		batch->stray_paddr = (u32)entry;
		batch->stray_value = (u32)value;
	}
}

static void find_nonzero(struct conformance_batch *batch, const u32 *word, const u32 *end)
{
	/* Eight at a time: a branch costs an emulator more than a load. */
	for (; word < end; word += 8) {
		if (!(word[0] | word[1] | word[2] | word[3] | word[4] | word[5] | word[6] | word[7]))
			continue;
		for (u32 n = 0; n < 8; n++)
			if (word[n])
				stray(batch, (u8 *)(word + n), word[n]);
	}
}

/*
 * The entries of the batch's own cases are 0 again; whatever else is not as build_tables() left
 * it was touched by nobody's leave.
 */
void find_strays(struct conformance_batch *batch)
{
	u32 directories = paging.entry_size == 8 ? 4 * PAGE : PAGE;
	u32 tables = (SLOTS / paging.slots_per_table) * PAGE;
	u32 own = (LOW_RAM + WINDOW_BYTES) >> shift;
	u32 end = own | 15; /* a whole number of groups of eight words */

	for (u32 n = 0; n <= end; n++)
		if (read_entry(own_directory_entry(n)) != own_entry(n))
			stray(batch, own_directory_entry(n), read_entry(own_directory_entry(n)));
	find_nonzero(batch, (u32 *)own_directory_entry(end + 1), (u32 *)(TABLES + directories));
	find_nonzero(batch, (u32 *)CASE_TABLES, (u32 *)(CASE_TABLES + tables));
}
