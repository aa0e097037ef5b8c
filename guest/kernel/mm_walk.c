/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel's memory as its own code sees it: from pgdat_list through nodes, zones, zonelists,
 * free lists and pair bitmaps to mem_map, by nothing but pointers.
 *
 * What is counted goes into a struct mm_walk, and so does what contradicts itself. Nothing is
 * trusted: a pointer is checked before it is followed, and every loop ends.
 */
#include <kernel_structs.h>
#include <mm_walk_layout.h>

#include "types.h"
#include "walk.h"

/* A free frame has none of these. */
#define BUSY_FLAGS                                                                                 \
	(1u << PG_LOCKED | 1u << PG_LRU | 1u << PG_ACTIVE | 1u << PG_SLAB | 1u << PG_RESERVED)

struct mm_walk *walk_mm(void);

static struct mm_walk walk;

/* Pair bits as the free lists have them, for one part of a bitmap at a time: 32 KiB. */
static u32 pairs[8192];

static void report(u32 kind, u32 zone, u32 order, u32 pfn)
{
	u32 n = walk.nr_faults++;

	if (n < ARRAY_SIZE(walk.faults))
		walk.faults[n] = (struct mm_walk_fault){ kind, zone, order, pfn };
}

/* The number in zone_table, or NOTHING. */
static u32 zone_number(const zone_t *zone)
{
	for (u32 number = 0; number < ARRAY_SIZE(statics->zone_table); number++)
		if (statics->zone_table[number] == zone)
			return number;
	return NOTHING;
}

static u32 page_index(const zone_t *zone, const struct page *page)
{
	return page - zone->zone_mem_map;
}

static u32 pfn_of(const zone_t *zone, u32 index)
{
	return (zone->zone_start_paddr >> 12) + index;
}

static int is_page_of(const zone_t *zone, const struct page *page)
{
	u32 offset = (u32)page - (u32)zone->zone_mem_map;

	return offset < zone->size * sizeof(*page) && offset % sizeof(*page) == 0;
}

static const struct page *page_of(const struct list_head *entry)
{
	return (const struct page *)((u32)entry - offsetof(struct page, list));
}

static void check_block(const zone_t *zone, u32 number, u32 order, u32 index)
{
	const struct page *page = zone->zone_mem_map + index;

	if (index & ((1u << order) - 1) || (1u << order) > zone->size - index) {
		report(WALK_BLOCK_MISPLACED, number, order, pfn_of(zone, index));
		return;
	}
	for (u32 i = 0; i < 1u << order; i++) {
		if (page[i].count || page[i].flags & BUSY_FLAGS) {
			report(WALK_BLOCK_IN_USE, number, order, pfn_of(zone, index + i));
			return;
		}
	}
}

/* Returns whether the list is one. A second walk along it needs no more checks then. */
static int walk_list(const zone_t *zone, u32 number, u32 order, struct mm_walk_order *result)
{
	const struct list_head *head = &zone->free_area[order].free_list;
	const struct list_head *previous = head, *entry;
	u32 pfn = NOTHING;

	result->first_pfn = NOTHING;
	for (entry = head->next; entry != head; previous = entry, entry = entry->next) {
		if (!is_page_of(zone, page_of(entry))) {
			report(WALK_LIST_LEAVES_MEM_MAP, number, order, pfn);
			return 0;
		}
		u32 index = page_index(zone, page_of(entry));

		pfn = pfn_of(zone, index);
		if (entry->prev != previous) {
			report(WALK_LIST_ASYMMETRIC, number, order, pfn);
			return 0;
		}
		if (result->blocks == zone->size >> order) {
			report(WALK_LIST_TOO_LONG, number, order, pfn);
			return 0;
		}
		check_block(zone, number, order, index);
		if (previous == head)
			result->first_pfn = pfn;
		result->list_sum += pfn * WEIGHT(result->blocks);
		result->blocks++;
	}
	if (head->prev != previous) {
		report(WALK_LIST_ASYMMETRIC, number, order, pfn);
		return 0;
	}
	return 1;
}

/* Words of the bitmap: one bit a pair, as boot memory was taken for it. */
static u32 bitmap_words(const zone_t *zone, u32 order)
{
	return (((zone->size - 1) >> (order + 4)) + 1 + 3) / 4;
}

/* The bits of words first to first + count - 1, from the blocks on the list. */
static void toggle_pairs(const zone_t *zone, u32 order, u32 first, u32 count)
{
	const struct list_head *head = &zone->free_area[order].free_list, *entry;

	for (u32 i = 0; i < count; i++)
		pairs[i] = 0;
	for (entry = head->next; entry != head; entry = entry->next) {
		u32 pair = page_index(zone, page_of(entry)) >> (order + 1);
		u32 word = pair / 32 - first;

		if (word < count)
			pairs[word] ^= 1u << pair % 32;
	}
}

static void check_bitmap(const zone_t *zone, u32 number, u32 order, int list_is_whole,
			 struct mm_walk_order *result)
{
	const u32 *map = (const u32 *)zone->free_area[order].map;
	u32 words = bitmap_words(zone, order);

	if (!in_low_memory(map, words * 4)) {
		report(WALK_BITMAP_POINTER, number, order, NOTHING);
		return;
	}
	for (u32 i = 0; i < words; i++)
		result->map_sum += map[i] * WEIGHT(i);
	for (u32 first = 0; list_is_whole && first < words; first += ARRAY_SIZE(pairs)) {
		u32 left = words - first;
		u32 count = left < ARRAY_SIZE(pairs) ? left : ARRAY_SIZE(pairs);

		toggle_pairs(zone, order, first, count);
		for (u32 i = 0; i < count; i++) {
			u32 wrong = pairs[i] ^ map[first + i];

			if (wrong) {
				u32 pair = (first + i) * 32 + __builtin_ctz(wrong);

				report(WALK_PAIR_BIT, number, order,
				       pfn_of(zone, pair << (order + 1)));
			}
		}
	}
}

static void walk_free_areas(const zone_t *zone, u32 number, struct mm_walk_zone *result)
{
	int whole = 1;

	for (u32 order = 0; order < MAX_ORDER; order++) {
		struct mm_walk_order *area = &result->orders[order];
		int list_is_whole = walk_list(zone, number, order, area);

		result->listed_pages += area->blocks << order;
		if (order < MAX_ORDER - 1)
			check_bitmap(zone, number, order, list_is_whole, area);
		whole &= list_is_whole;
	}
	if (whole && result->listed_pages != zone->free_pages)
		report(WALK_FREE_PAGES, number, 0, NOTHING);
}

static void walk_mem_map(const zone_t *zone, u32 number, struct mm_walk_zone *result)
{
	const struct page *page = zone->zone_mem_map;

	for (u32 i = 0; i < zone->size; i++, page++) {
		result->flags_sum += page->flags * WEIGHT(i);
		result->count_sum += page->count * WEIGHT(i);
		result->reserved += page->flags >> PG_RESERVED & 1;
		result->in_use += page->count != 0;
		if (page->flags >> ZONE_SHIFT != number)
			report(WALK_ZONE_BITS, number, 0, pfn_of(zone, i));
	}
}

/* Whether the zone's frames are where its node says that they are. */
static int mem_map_is_right(const pg_data_t *node, const zone_t *zone)
{
	u32 offset = zone->zone_start_mapnr - node->node_start_mapnr;
	u32 room = (u32)statics->high_memory - PAGE_OFFSET;

	return zone->size <= room / sizeof(struct page) &&
	       in_low_memory(zone->zone_mem_map, zone->size * sizeof(struct page)) &&
	       zone->zone_mem_map == node->node_mem_map + offset &&
	       zone->zone_start_paddr == node->node_start_paddr + (offset << 12);
}

static void walk_zone(const pg_data_t *node, const zone_t *zone, u32 number,
		      struct mm_walk_zone *result)
{
	if (number >= ARRAY_SIZE(statics->zone_table) || statics->zone_table[number] != zone)
		report(WALK_ZONE_TABLE, number, 0, NOTHING);
	if (in_low_memory(zone->name, sizeof(result->name)))
		for (u32 i = 0; i < sizeof(result->name) && zone->name[i]; i++)
			result->name[i] = zone->name[i];
	result->size = zone->size;
	if (!zone->size)
		return;
	result->start_pfn = pfn_of(zone, 0);
	result->free_pages = zone->free_pages;
	walk.free_pages += zone->free_pages;
	if (!mem_map_is_right(node, zone)) {
		report(WALK_MEM_MAP_POINTER, number, 0, NOTHING);
		return;
	}
	walk_free_areas(zone, number, result);
	walk_mem_map(zone, number, result);
}

static void walk_zonelists(const pg_data_t *node, struct mm_walk_node *result)
{
	for (u32 list = 0; list < NR_ZONELISTS; list++) {
		u32 *places = &result->zonelists[list * ZONELIST_PLACES];
		int ended = 0;

		for (u32 i = 0; i < ZONELIST_PLACES; i++) {
			const zone_t *zone = node->node_zonelists[list].zones[i];

			ended |= !zone;
			places[i] = ended ? NOTHING : zone_number(zone);
			if (!ended && places[i] == NOTHING)
				report(WALK_ZONELIST, node->node_id * MAX_NR_ZONES, list, NOTHING);
		}
		if (!ended)
			report(WALK_ZONELIST, node->node_id * MAX_NR_ZONES, list, NOTHING);
	}
}

static void walk_node(const pg_data_t *node, struct mm_walk_node *result)
{
	result->id = node->node_id;
	result->start_pfn = node->node_start_paddr >> 12;
	result->size = node->node_size;
	walk_zonelists(node, result);
	for (u32 i = 0; i < MAX_NR_ZONES; i++)
		walk_zone(node, &node->node_zones[i], node->node_id * MAX_NR_ZONES + i,
			  &result->zones[i]);
}

struct mm_walk *walk_mm(void)
{
	const pg_data_t *node;

	for (u32 i = 0; i < sizeof(walk) / 4; i++)
		((volatile u32 *)&walk)[i] = 0;
	walk.statics_bytes = sizeof(struct kernel_statics);
	for (node = statics->pgdat_list; node; node = node->node_next) {
		if (walk.nr_nodes == ARRAY_SIZE(walk.nodes) || !in_low_memory(node, sizeof(*node))) {
			report(WALK_NODE_POINTER, NOTHING, 0, NOTHING);
			break;
		}
		walk_node(node, &walk.nodes[walk.nr_nodes++]);
	}
	return &walk;
}
