/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vmalloc and ioremap as the kernel's own code uses them: plain loads and stores of every byte,
 * and a walk along vmlist by nothing but pointers. Python calls these functions one by one.
 *
 * A load or store that meets an entry which its page directory does not have yet is run again
 * after the vmalloc fault, and notices nothing.
 */
#include <kernel_calls.h>

#include "page.h"
#include "types.h"
#include "walk.h"

#define MAX_AREAS 256

/* What walk_vmlist() found. `unordered` areas begin before the one ahead of them has ended. */
struct vmlist_walk {
	u32 areas, unordered, astray;
	struct {
		u32 flags, addr, size;
	} area[MAX_AREAS];
};

struct vmlist_walk vmlist_walk;

/* What the "device" of ioremap is made of: RAM that belongs to the kernel's image. */
u8 device[4 * PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));

/* What churn() did. */
struct churned {
	u32 taken, freed, refused, wrong;
};

struct churned churned;

u32 load_pages(u32 vaddr, u32 pages);
void store_pages(u32 vaddr, u32 pages, u32 salt);
u8 *take_area(u32 kind, u32 bytes, u32 seed);
u32 count_wrong(const u8 *area, u32 bytes, u32 seed);
u32 remap_device(u32 offset, u32 bytes, u32 flags, u32 seed);
void churn(u32 rounds, u32 seed);
void walk_vmlist(void);
u32 use_after_vfree(u32 bytes, u32 offset);

/* The sum of the first words of `pages` pages. */
u32 load_pages(u32 vaddr, u32 pages)
{
	u32 sum = 0;

	for (; pages; pages--, vaddr += PAGE_SIZE)
		sum += *(volatile u32 *)vaddr;
	return sum;
}

/* The first word of each page = its own address + salt. */
void store_pages(u32 vaddr, u32 pages, u32 salt)
{
	for (; pages; pages--, vaddr += PAGE_SIZE)
		*(volatile u32 *)vaddr = vaddr + salt;
}

/* No two pages of an area hold the same. */
static u8 pattern(u32 i, u32 seed)
{
	return (i ^ i >> 8 ^ i >> 12 ^ i >> 20) * 7 + seed * 31;
}

static void fill(u8 *area, u32 bytes, u32 seed)
{
	for (u32 i = 0; i < bytes; i++)
		area[i] = pattern(i, seed);
}

u32 count_wrong(const u8 *area, u32 bytes, u32 seed)
{
	u32 wrong = 0;

	for (u32 i = 0; i < bytes; i++)
		wrong += ((const volatile u8 *)area)[i] != pattern(i, seed);
	return wrong;
}

/* An area of each kind, filled; NULL if there is none, or if it does not hold what was written. */
u8 *take_area(u32 kind, u32 bytes, u32 seed)
{
	static void *(*const allocate[])(unsigned long) = { vmalloc, vmalloc_32, vmalloc_dma };
	u8 *area = kind < ARRAY_SIZE(allocate) ?
			   allocate[kind](bytes) :
			   __vmalloc(bytes, GFP_KERNEL | __GFP_HIGHMEM, PAGE_KERNEL_NOCACHE);

	if (!area)
		return 0;
	fill(area, bytes, seed);
	return count_wrong(area, bytes, seed) ? 0 : area;
}

/* Every byte written through the mapping is seen in the device, and the other way round. */
u32 remap_device(u32 offset, u32 bytes, u32 flags, u32 seed)
{
	u8 *mapped = flags ? __ioremap(__pa(device) + offset, bytes, flags) :
			     ioremap(__pa(device) + offset, bytes);
	u32 wrong;

	if (!mapped)
		return 0xFFFFFFFF;
	fill(mapped, bytes, seed);
	wrong = count_wrong(device + offset, bytes, seed);
	fill(device + offset, bytes, seed + 1);
	wrong += count_wrong(mapped, bytes, seed + 1);
	iounmap(mapped);
	return wrong;
}

/* Takes and frees areas of all sizes; each is looked through before it goes. */
void churn(u32 rounds, u32 seed)
{
	static struct {
		u8 *area;
		u32 bytes, seed;
	} live[24];

	for (; rounds; rounds--) {
		u32 slot, bytes;

		seed = seed * 1664525 + 1013904223;
		slot = (seed >> 8) % ARRAY_SIZE(live);
		if (live[slot].area) {
			churned.wrong += count_wrong(live[slot].area, live[slot].bytes,
						     live[slot].seed);
			vfree(live[slot].area);
			live[slot].area = 0;
			churned.freed++;
			continue;
		}
		bytes = (seed >> 16) % (6 * PAGE_SIZE) + 1;
		live[slot].area = take_area(seed >> 6 & 3, bytes, rounds);
		live[slot].bytes = bytes;
		live[slot].seed = rounds;
		if (live[slot].area)
			churned.taken++;
		else
			churned.refused++;
	}
}

/* Nothing is trusted: a pointer is checked before it is followed, and the loop ends. */
void walk_vmlist(void)
{
	const struct vm_struct *area = statics->vmlist;
	u32 end = 0;

	vmlist_walk.areas = vmlist_walk.unordered = vmlist_walk.astray = 0;
	for (; area && vmlist_walk.areas < MAX_AREAS; area = area->next) {
		u32 n = vmlist_walk.areas;

		if (!in_low_memory(area, sizeof(*area))) {
			vmlist_walk.astray++;
			return;
		}
		vmlist_walk.area[n].flags = area->flags;
		vmlist_walk.area[n].addr = (u32)area->addr;
		vmlist_walk.area[n].size = area->size;
		vmlist_walk.areas++;
		vmlist_walk.unordered += (u32)area->addr < end;
		end = (u32)area->addr + area->size;
	}
}

u32 use_after_vfree(u32 bytes, u32 offset)
{
	u8 *area = vmalloc(bytes);

	fill(area, bytes, 1);
	vfree(area);
	return ((volatile u8 *)area)[offset];
}
