/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One batch: its cases go into the tables, are touched in ring 0 and in ring 3, changed, touched
 * again; what they left in the tables and in memory goes into their results.
 */
#include "conformance.h"

#define CR4_PGE 0x80u
#define CR0_PG 0x80000000u
#define PAGE_SIZE 4096u
#define PAGE_MASK 0xFFFFF000u
#define RING_CODES 4

static struct conformance_case *cases(const struct conformance_batch *batch)
{
	return (struct conformance_case *)CASES + batch->first;
}

static struct conformance_result *results(const struct conformance_batch *batch)
{
	return (struct conformance_result *)RESULTS + batch->first;
}

static u64 wide(const u32 pair[2])
{
	return (u64)pair[1] << 32 | pair[0];
}

/* The entries of the slots, one after the other. */
struct place {
	u32 *pde, *pte;
	u32 left; /* slots that still fit into this page table */
};

static inline struct place first_place(void)
{
	return (struct place){(u32 *)directory_entry(0), (u32 *)table_entry(0, 0),
			      paging.slots_per_table};
}

static inline void next_place(struct place *p, u32 words)
{
	p->pde += words;
	p->pte += PAGES_PER_SLOT * words;
	if (!--p->left) {
		p->pte = (u32 *)(((u32)p->pte + PAGE_SIZE - 1) & PAGE_MASK);
		p->left = paging.slots_per_table;
	}
}

/* Two copies of these loops, one for each size of an entry: they cost more than the accesses. */
static inline void put_entry(u32 *entry, const u32 pair[2], u32 words)
{
	entry[0] = pair[0];
	if (words == 2)
		entry[1] = pair[1];
}

static inline void take_entry(u32 pair[2], u32 *entry, u32 words)
{
	pair[0] = entry[0];
	entry[0] = 0;
	if (words == 2) {
		pair[1] = entry[1];
		entry[1] = 0;
	}
}

static inline __attribute__((always_inline)) void set_up_slots(const struct conformance_batch *batch,
							       u32 words)
{
	struct conformance_case *c = cases(batch);
	struct place p = first_place();

	for (u32 n = 0; n < batch->count; n++, c++) {
		put_entry(p.pde, c->pde, words);
		put_entry(p.pte, c->pte, words);
		put_entry(p.pte + words, c->second, words);
		next_place(&p, words);
	}
}

static inline __attribute__((always_inline)) void collect_slots(const struct conformance_batch *batch,
								u32 words)
{
	struct conformance_result *r = results(batch);
	struct place p = first_place();

	for (u32 n = 0; n < batch->count; n++, r++) {
		take_entry(r->pde, p.pde, words);
		take_entry(r->pte, p.pte, words);
		take_entry(r->second, p.pte + words, words);
		next_place(&p, words);
	}
}

static void set_up(const struct conformance_batch *batch)
{
	struct conformance_result *r = results(batch);

	for (u32 n = 0; n < batch->count; n++, r++)
		r->outcome = r->outcome2 = NOT_RUN;
	if (!(batch->cr0 & CR0_PG))
		return;
	if (paging.entry_size == 8)
		set_up_slots(batch, 2);
	else
		set_up_slots(batch, 1);
}

/* What lay in memory before a case stored there. */
static u32 stamp_at(u32 alias)
{
	u32 high = alias >= WINDOW;

	return STAMP_FIRST + (alias - (high ? WINDOW : FRAMES)) / PAGE_SIZE * STAMP_STEP +
	       high * STAMP_HIGH;
}

static u32 take_word(u32 *word, u32 before)
{
	u32 now = *word;

	if (now != before)
		*word = before;
	return now;
}

/* Only a case that stores can change memory. */
static void collect_memory(const struct conformance_batch *batch)
{
	struct conformance_case *c = cases(batch);
	struct conformance_result *r = results(batch);

	for (u32 n = 0; n < batch->count; n++, c++, r++) {
		u32 across = (c->alias & ~PAGE_MASK) == OFFSET_ACROSS - 2;
		u32 next = (c->alias & PAGE_MASK) + PAGE_SIZE;

		if (!c->value)
			continue;
		r->memory = take_word((u32 *)c->alias, stamp_at(c->alias) << (across ? 16 : 0));
		if (across)
			r->memory_second = take_word((u32 *)next, stamp_at(next));
	}
}

static void collect(const struct conformance_batch *batch)
{
	collect_memory(batch);
	if (!(batch->cr0 & CR0_PG))
		return;
	if (paging.entry_size == 8)
		collect_slots(batch, 2);
	else
		collect_slots(batch, 1);
}

/* One case at a time, with the LDT at its address. */
static void pass_alone(const struct conformance_batch *batch, u32 touch, u32 ring)
{
	struct conformance_case *c = cases(batch);
	struct conformance_result *r = results(batch);

	for (u32 n = 0; n < batch->count; n++, c++, r++) {
		if ((c->touches >> (16 * touch + 8) & 0xFF) != ring)
			continue;
		use_descriptor(c->va);
		if (ring == RING_KERNEL_ALONE)
			pass_kernel(c, c + 1, r, touch, ring);
		else
			pass_user(c, c + 1, r, touch, ring);
	}
}

static void touch_all(const struct conformance_batch *batch, u32 touch)
{
	struct conformance_case *end = cases(batch) + batch->count;

	for (u32 ring = 0; ring < RING_CODES; ring++) {
		u32 place = touch << 2 | ring << 4;

		if (!(batch->passes >> (touch * RING_CODES + ring) & 1))
			continue;
		mark(place);
		if (ring == RING_KERNEL)
			pass_kernel(cases(batch), end, results(batch), touch, ring);
		else if (ring == RING_USER)
			pass_user(cases(batch), end, results(batch), touch, ring);
		else
			pass_alone(batch, touch, ring);
		mark(place | 1);
	}
}

static u8 *changed_entry(const struct conformance_case *c)
{
	switch (c->change & 0xFF) {
	case CHANGE_PDE:
		return directory_entry(c->slot);
	case CHANGE_PTE:
		return table_entry(c->slot, 0);
	case CHANGE_PDPTE:
		return pdpte_of(c->va);
	}
	return 0;
}

static void invlpg(u32 va)
{
	asm volatile("invlpg (%0)" : : "a"(va) : "memory");
}

static void toggle_pge(void)
{
	u32 cr4;

	asm volatile("movl %%cr4, %0" : "=r"(cr4));
	asm volatile("movl %0, %%cr4" : : "r"(cr4 ^ CR4_PGE) : "memory");
	asm volatile("movl %0, %%cr4" : : "r"(cr4) : "memory");
}

static void toggle_pg(void)
{
	u32 cr0;

	asm volatile("movl %%cr0, %0" : "=r"(cr0));
	asm volatile("movl %0, %%cr0; jmp 1f; 1:" : : "r"(cr0 & ~CR0_PG) : "memory");
	asm volatile("movl %0, %%cr0; jmp 1f; 1:" : : "r"(cr0) : "memory");
}

/* Between the first and the second touches. */
static void change(const struct conformance_batch *batch)
{
	struct conformance_case *c = cases(batch);

	for (u32 n = 0; n < batch->count; n++, c++) {
		u8 *entry = changed_entry(c);

		if (entry)
			write_entry(entry, (read_entry(entry) & wide(c->keep)) | wide(c->set));
		if (c->change >> 8 == FLUSH_INVLPG)
			invlpg(c->va);
	}
	if (batch->op == OP_CR3)
		try_load_cr3(paging.cr3);
	else if (batch->op == OP_PGE)
		toggle_pge();
	else if (batch->op == OP_PG)
		toggle_pg();
}

/* The PDPTE under test stands for all but the guest's own. */
static void write_pdptes(u64 flags)
{
	if (paging.entry_size != 8)
		return;
	for (u32 n = 1; n < 4; n++)
		write_entry((u8 *)(PDPT + 8 * n), (TABLES + 4096 * n) | flags);
}

void run_batch(struct conformance_batch *batch)
{
	paging_enter(batch);
	set_up(batch);
	batch->stray_count = batch->refused = 0;
	if (batch->cr0 & CR0_PG) {
		write_pdptes(wide(batch->pdpte));
		batch->refused = try_load_cr3(paging.cr3);
	}
	if (!batch->refused) {
		touch_all(batch, 0);
		if (batch->passes >> RING_CODES) {
			change(batch);
			touch_all(batch, 1);
		}
	}
	collect(batch);
	if (batch->cr0 & CR0_PG) {
		find_strays(batch);
		if (paging.entry_size == 8)
			batch->pdpte_after[0] = *(u32 *)pdpte_of(1u << 30) - (TABLES + PAGE_SIZE);
		if (paging.entry_size == 8)
			batch->pdpte_after[1] = *((u32 *)pdpte_of(1u << 30) + 1);
		write_pdptes(1);
		/* Drops what the cases left in the TLB. */
		asm volatile("movl %0, %%cr3" : : "r"(paging.cr3) : "memory");
		if (batch->cr4 & CR4_PGE)
			toggle_pge();
	}
}

void run_batches(u32 count)
{
	struct conformance_batch *batch = (struct conformance_batch *)BATCHES;

	for (u32 n = 0; n < count; n++)
		run_batch(batch + n);
	paging_off();
}
