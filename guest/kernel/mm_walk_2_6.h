/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What mm_walk.c looks at in 2.6 alone: a free block says its order itself, a zone counts the
 * blocks on its lists, and each CPU keeps single free frames on lists of its own.
 */
#pragma once

/* The first frame of a block has PG_private and the order, the others have neither. */
static void check_marks(const zone_t *zone, u32 number, u32 order, const struct page *page)
{
	for (u32 i = 0; i < 1u << order; i++) {
		int marked = page[i].flags >> PG_PRIVATE & 1;

		if (marked != (i == 0) || (marked && page[i].private != order)) {
			report(WALK_ORDER_MARK, number, order,
			       pfn_of(zone, page_index(zone, page + i)));
			return;
		}
	}
}

static void check_area(const zone_t *zone, u32 number, u32 order, int list_is_whole,
		       struct mm_walk_order *result)
{
	const struct list_head *head = &zone->free_area[order].free_list, *entry;

	result->map_sum = zone->free_area[order].nr_free;
	if (!list_is_whole)
		return;
	if (result->map_sum != result->blocks)
		report(WALK_NR_FREE, number, order, NOTHING);
	for (entry = head->next; entry != head; entry = entry->next) {
		const struct page *page = page_of(entry);

		if ((1u << order) <= zone->ZONE_FRAMES - page_index(zone, page))
			check_marks(zone, number, order, page);
	}
}

static void walk_cpu_list(const zone_t *zone, u32 number, const struct per_cpu_pages *pcp,
			  struct mm_walk_cpu_list *result)
{
	const struct list_head *head = &pcp->list, *entry;
	u32 frames = 0;

	result->count = pcp->count;
	for (entry = head->next; entry != head; entry = entry->next, frames++) {
		const struct page *page = page_of(entry);

		if (frames == result->count || !is_page_of(zone, page)) {
			report(WALK_CPU_LIST, number, 0, NOTHING);
			return;
		}
		u32 pfn = pfn_of(zone, page_index(zone, page));

		result->list_sum += pfn * WEIGHT(frames);
		if (PAGE_COUNT(page) || page->flags & (BUSY_FLAGS | 1u << PG_PRIVATE))
			report(WALK_CPU_FRAME, number, 0, pfn);
	}
	if (frames != result->count)
		report(WALK_CPU_LIST, number, 0, NOTHING);
}

static void walk_cpu_lists(const zone_t *zone, u32 number, struct mm_walk_zone *result)
{
	for (u32 cpu = 0; cpu < ARRAY_SIZE(zone->pageset); cpu++)
		for (u32 cold = 0; cold < 2; cold++)
			if (2 * cpu + cold < ARRAY_SIZE(result->cpu_lists))
				walk_cpu_list(zone, number, &zone->pageset[cpu].pcp[cold],
					      &result->cpu_lists[2 * cpu + cold]);
}

static int numbers_are_right(const pg_data_t *node, const zone_t *zone, u32 offset)
{
	return zone->zone_pgdat == node && offset <= node->node_spanned_pages;
}
