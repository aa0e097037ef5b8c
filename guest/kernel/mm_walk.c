/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel's memory as its own code sees it: from pgdat_list through nodes, zones, zonelists and
 * free lists to mem_map, by nothing but pointers. What only one release has stands in
 * mm_walk_2_4.h (pair bitmaps) and mm_walk_2_6.h (blocks that say their order, lists of CPUs).
 *
 * What is counted goes into a struct mm_walk, and so does what contradicts itself. Nothing is
 * trusted: a pointer is checked before it is followed, and every loop ends.
 */
#include <kernel_structs.h>
#include <mm_walk_layout.h>

#include "types.h"
#include "walk.h"

#ifdef LINUX_2_6
typedef struct zone zone_t;
#define ZONE_FRAMES spanned_pages
#define ZONE_PRESENT present_pages
#define PAGE_LINKS lru
#define NODE_NEXT pgdat_next
#define NODE_FRAMES node_spanned_pages
#define NODE_START(node) ((node)->node_start_pfn)
#define ZONE_START(zone) ((zone)->zone_start_pfn)
#define NODE_PRESENT(node, sum) ((node)->node_present_pages)
#define PAGE_COUNT(page) ((u32)(page)->_count + 1)
#else
#define ZONE_FRAMES size
#define ZONE_PRESENT size
#define PAGE_LINKS list
#define NODE_NEXT node_next
#define NODE_FRAMES node_size
#define NODE_START(node) ((node)->node_start_paddr >> 12)
#define ZONE_START(zone) ((zone)->zone_start_paddr >> 12)
#define NODE_PRESENT(node, sum) (sum)
#define PAGE_COUNT(page) ((u32)(page)->count)
#endif

/* A free frame has none of these. */
#define BUSY_FLAGS                                                                                 \
	(1u << PG_LOCKED | 1u << PG_LRU | 1u << PG_ACTIVE | 1u << PG_SLAB | 1u << PG_RESERVED)

struct mm_walk *walk_mm(void);

static struct mm_walk walk;

/* Those on pgdat_list, in its order. */
static const pg_data_t *nodes[ARRAY_SIZE(walk.nodes)];

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

static const pg_data_t *node_of(u32 id)
{
	for (u32 i = 0; i < walk.nr_nodes; i++)
		if ((u32)nodes[i]->node_id == id)
			return nodes[i];
	return 0;
}

static u32 page_index(const zone_t *zone, const struct page *page)
{
	return page - zone->zone_mem_map;
}

static u32 pfn_of(const zone_t *zone, u32 index)
{
	return ZONE_START(zone) + index;
}

static int is_page_of(const zone_t *zone, const struct page *page)
{
	u32 offset = (u32)page - (u32)zone->zone_mem_map;

	return offset < zone->ZONE_FRAMES * sizeof(*page) && offset % sizeof(*page) == 0;
}

static const struct page *page_of(const struct list_head *entry)
{
	return (const struct page *)((u32)entry - offsetof(struct page, PAGE_LINKS));
}

static void check_block(const zone_t *zone, u32 number, u32 order, u32 index)
{
	const struct page *page = zone->zone_mem_map + index;

	if (index & ((1u << order) - 1) || (1u << order) > zone->ZONE_FRAMES - index) {
		report(WALK_BLOCK_MISPLACED, number, order, pfn_of(zone, index));
		return;
	}
	for (u32 i = 0; i < 1u << order; i++) {
		if (PAGE_COUNT(page + i) || page[i].flags & BUSY_FLAGS) {
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
		if (result->blocks == zone->ZONE_FRAMES >> order) {
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

#ifdef LINUX_2_6
#include "mm_walk_2_6.h"
#else
#include "mm_walk_2_4.h"
#endif

static void walk_free_areas(const zone_t *zone, u32 number, struct mm_walk_zone *result)
{
	int whole = 1;

	for (u32 order = 0; order < MAX_ORDER; order++) {
		struct mm_walk_order *area = &result->orders[order];
		int list_is_whole = walk_list(zone, number, order, area);

		result->listed_pages += area->blocks << order;
		check_area(zone, number, order, list_is_whole, area);
		whole &= list_is_whole;
	}
	if (whole && result->listed_pages != zone->free_pages)
		report(WALK_FREE_PAGES, number, 0, NOTHING);
}

static void walk_mem_map(const zone_t *zone, u32 number, struct mm_walk_zone *result)
{
	const struct page *page = zone->zone_mem_map;

	for (u32 i = 0; i < zone->ZONE_FRAMES; i++, page++) {
		result->flags_sum += page->flags * WEIGHT(i);
		result->count_sum += PAGE_COUNT(page) * WEIGHT(i);
		result->reserved += page->flags >> PG_RESERVED & 1;
		result->in_use += PAGE_COUNT(page) != 0;
		if (page->flags >> ZONE_SHIFT != number)
			report(WALK_ZONE_BITS, number, 0, pfn_of(zone, i));
	}
}

/* Whether the zone's frames are where its node says that they are. */
static int mem_map_is_right(const pg_data_t *node, const zone_t *zone)
{
	u32 offset = ZONE_START(zone) - NODE_START(node);
	u32 room = (u32)statics->high_memory - PAGE_OFFSET;

	return zone->ZONE_FRAMES <= room / sizeof(struct page) &&
	       in_low_memory(zone->zone_mem_map, zone->ZONE_FRAMES * sizeof(struct page)) &&
	       zone->zone_mem_map == node->node_mem_map + offset &&
	       numbers_are_right(node, zone, offset);
}

static void walk_zone(const pg_data_t *node, const zone_t *zone, u32 number,
		      struct mm_walk_zone *result)
{
	if (number >= ARRAY_SIZE(statics->zone_table) || statics->zone_table[number] != zone)
		report(WALK_ZONE_TABLE, number, 0, NOTHING);
	if (in_low_memory(zone->name, sizeof(result->name)))
		for (u32 i = 0; i < sizeof(result->name) && zone->name[i]; i++)
			result->name[i] = zone->name[i];
	result->size = zone->ZONE_FRAMES;
	if (!zone->ZONE_FRAMES)
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
	walk_cpu_lists(zone, number, result);
}

/* The best zone for which a zonelist is meant; its number is that of GFP bits. */
static u32 best_of(u32 list)
{
	return list & 1 ? 0 : list & 2 ? 2 : 1;
}

/* How many zones of a node may serve requests for zone best. */
static u32 serving_zones(const pg_data_t *node, u32 best)
{
	u32 count = 0;

	for (u32 i = 0; i <= best; i++)
		count += node->node_zones[i].ZONE_PRESENT != 0;
	return count;
}

/* Whether a zonelist of node for best lacks node other, when it has those whose bits are in seen. */
static int is_missing(const pg_data_t *node, const pg_data_t *other, u32 best, u32 seen)
{
	u32 id = other->node_id;

	return (LISTS_ALL_NODES || other == node) && serving_zones(other, best) &&
	       (id >= 32 || !(seen >> id & 1));
}

static int list_is_right(const pg_data_t *node, u32 best, const u32 *places)
{
	const pg_data_t *owner = 0;
	u32 seen = 0, left = 0;

	for (u32 i = 0; i < ZONELIST_PLACES && places[i] != NOTHING; i++) {
		u32 id = places[i] / ZONES_PER_NODE, index = places[i] % ZONES_PER_NODE;

		if (!left) {
			owner = node_of(id);
			if (!owner || !is_missing(node, owner, best, seen) ||
			    (i == 0 && owner != node && serving_zones(node, best)))
				return 0;
			seen |= 1u << id;
			left = serving_zones(owner, best);
		}
		if (owner != node_of(id) || index > best ||
		    !owner->node_zones[index].ZONE_PRESENT || serving_zones(owner, index) != left)
			return 0;
		left--;
	}
	for (u32 i = 0; i < walk.nr_nodes; i++)
		if (is_missing(node, nodes[i], best, seen))
			return 0;
	return !left;
}

static void walk_zonelists(const pg_data_t *node, struct mm_walk_node *result)
{
	u32 number = node->node_id * ZONES_PER_NODE;

	for (u32 list = 0; list < NR_ZONELISTS; list++) {
		u32 *places = &result->zonelists[list * ZONELIST_PLACES];
		int ended = 0, zones_only = 1;

		for (u32 i = 0; i < ZONELIST_PLACES; i++) {
			const zone_t *zone = node->node_zonelists[list].zones[i];

			ended |= !zone;
			places[i] = ended ? NOTHING : zone_number(zone);
			zones_only &= ended || places[i] != NOTHING;
		}
		if (!ended || !zones_only)
			report(WALK_ZONELIST, number, list, NOTHING);
		else if (!list_is_right(node, best_of(list), places))
			report(WALK_ZONELIST_ORDER, number, list, NOTHING);
	}
}

/* Whether a node and its zones say the same of its frames, and no other node says it, too. */
static int span_is_right(const pg_data_t *node)
{
	u32 start = NODE_START(node), present = 0, zones = 0, behind = start;

	for (u32 i = 0; i < MAX_NR_ZONES; i++) {
		const zone_t *zone = &node->node_zones[i];

		if (!zone->ZONE_FRAMES)
			continue;
		if (ZONE_START(zone) != behind)
			return 0;
		behind += zone->ZONE_FRAMES;
		present += zone->ZONE_PRESENT;
		zones = i + 1;
	}
	for (u32 i = 0; i < walk.nr_nodes; i++) {
		const pg_data_t *other = nodes[i];

		if (other != node &&
		    (other->node_id == node->node_id ||
		     (start < NODE_START(other) + other->NODE_FRAMES && NODE_START(other) < behind)))
			return 0;
	}
	return node->NODE_FRAMES == behind - start && NODE_PRESENT(node, present) == present &&
	       (u32)node->nr_zones == zones;
}

static void walk_node(const pg_data_t *node, struct mm_walk_node *result)
{
	u32 number = node->node_id * ZONES_PER_NODE;

	result->id = node->node_id;
	result->start_pfn = NODE_START(node);
	result->size = node->NODE_FRAMES;
	if (!span_is_right(node))
		report(WALK_NODE_SPAN, number, 0, NOTHING);
	walk_zonelists(node, result);
	for (u32 i = 0; i < MAX_NR_ZONES; i++)
		walk_zone(node, &node->node_zones[i], number + i, &result->zones[i]);
}

struct mm_walk *walk_mm(void)
{
	const pg_data_t *node;

	for (u32 i = 0; i < sizeof(walk) / 4; i++)
		((volatile u32 *)&walk)[i] = 0;
	walk.statics_bytes = sizeof(struct kernel_statics);
	for (node = statics->pgdat_list; node; node = node->NODE_NEXT) {
		if (walk.nr_nodes == ARRAY_SIZE(nodes) || !in_low_memory(node, sizeof(*node))) {
			report(WALK_NODE_POINTER, NOTHING, 0, NOTHING);
			break;
		}
		nodes[walk.nr_nodes++] = node;
	}
	for (u32 i = 0; i < walk.nr_nodes; i++)
		walk_node(nodes[i], &walk.nodes[i]);
	return &walk;
}
