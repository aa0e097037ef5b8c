/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What mm_walk.c looks at in 2.4 alone: the pair bitmaps, and the numbers of frames in mem_map. */
#pragma once

/* Pair bits as the free lists have them, for one part of a bitmap at a time: 32 KiB. */
static u32 pairs[8192];

/* Words of the bitmap: one bit a pair, as boot memory was taken for it. */
static u32 bitmap_words(const zone_t *zone, u32 order)
{
	return (((zone->ZONE_FRAMES - 1) >> (order + 4)) + 1 + 3) / 4;
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

static void check_area(const zone_t *zone, u32 number, u32 order, int list_is_whole,
			 struct mm_walk_order *result)
{
	const u32 *map = (const u32 *)zone->free_area[order].map;
	u32 words = bitmap_words(zone, order);

	if (order == MAX_ORDER - 1)
		return;
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

/* No CPU keeps free frames for itself. */
static void walk_cpu_lists(const zone_t *zone, u32 number, struct mm_walk_zone *result)
{
	(void)zone, (void)number, (void)result;
}

static int numbers_are_right(const pg_data_t *node, const zone_t *zone, u32 offset)
{
	return zone->zone_start_mapnr - node->node_start_mapnr == offset;
}
