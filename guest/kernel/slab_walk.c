/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The slab allocator as the kernel's own code sees it: from cache_cache along the chain of
 * caches, through their lists of slabs and chains of free objects, to the bytes around the
 * objects and to the struct page of every frame.
 *
 * What is counted goes into a struct slab_walk, and so does what contradicts itself. Nothing is
 * trusted: a pointer is checked before it is followed, and every loop ends.
 */
#include <kernel_calls.h>
#include <mm_walk_layout.h>
#include <slab_walk_layout.h>

#include "slab_names.h"
#include "types.h"
#include "walk.h"

#define MAX_GFP_ORDER 5
#define WORD 4

enum { FULL, PARTIAL, FREE };

struct slab_walk *walk_slabs(void);

static struct slab_walk walk;

/* The cache that is being looked at, and its number in the chain. */
static const kmem_cache_t *cache;
static u32 number;

/* Whether an object of a slab is free. Objects have at least four bytes. */
static u8 is_free[(PAGE_SIZE << MAX_GFP_ORDER) / WORD];

static void report(u32 kind, const void *slab, u32 object, u32 offset)
{
	u32 n = walk.nr_faults++;

	if (n < ARRAY_SIZE(walk.faults))
		walk.faults[n] =
			(struct slab_walk_fault){ kind, number, (u32)slab, object, offset };
}

static int is_known(const void *address, u32 bytes)
{
	return (u32)address % WORD == 0 && in_low_memory(address, bytes);
}

/* The struct page of an address of low memory, or NULL. */
static const struct page *page_at(u32 address)
{
	const pg_data_t *node = statics->pgdat_list;
	u32 pfn = (address - PAGE_OFFSET) >> 12;

	for (u32 i = 0; i < MAX_NODES && is_known(node, sizeof(*node)); i++) {
		u32 index = pfn - node_first_pfn(node);

		if (index < node->NODE_FRAMES) {
			const struct page *page = node->node_mem_map + index;

			return is_known(page, sizeof(*page)) ? page : 0;
		}
		node = node->NODE_NEXT;
	}
	return 0;
}

/* The slab that an address lies in, if that is one of this cache; or NULL. */
static const slab_t *slab_at(const kmem_cache_t *owner, u32 address)
{
	const struct page *page = in_low_memory((void *)address, 1) ? page_at(address) : 0;

	if (!page || !(page->flags >> SLAB_PAGE_BIT & 1) || (u32)page->LINKS.next != (u32)owner)
		return 0;
	return (const slab_t *)page->LINKS.prev;
}

static const kmem_bufctl_t *bufctl(const slab_t *slab)
{
	return (const kmem_bufctl_t *)(slab + 1);
}

/* Objects of a slab ------------------------------------------------------------------------- */

/* Follows the chain of free objects and notes them; returns whether it is one. */
static int walk_free_objects(const slab_t *slab, struct slab_walk_cache *result)
{
	u32 expected = cache->num - slab->inuse, count = 0;

	for (u32 i = 0; i < cache->num; i++)
		is_free[i] = 0;
	for (u32 i = slab->free; i != BUFCTL_END; i = bufctl(slab)[i]) {
		if (i >= cache->num || is_free[i] || count == expected) {
			report(SLAB_WALK_BUFCTL, slab, 0, 0);
			return 0;
		}
		is_free[i] = 1;
		result->free_sum += ((u32)slab->s_mem + i * cache->objsize) *
				    WEIGHT(result->free_objects);
		result->free_objects++;
		count++;
	}
	if (count != expected)
		report(SLAB_WALK_BUFCTL, slab, 0, 0);
	return count == expected;
}

static void check_word(const slab_t *slab, u32 object, u32 offset, u32 expected)
{
	if (*(const u32 *)(object + offset) != expected)
		report(SLAB_WALK_RED_ZONE, slab, object, offset);
}

static void check_poison(const slab_t *slab, u32 object)
{
	u32 first = body_offset(cache), last = first + body_size(cache) - 1;

	for (u32 offset = first; offset <= last; offset++) {
		u8 expected = offset == last ? POISON_END : POISON_BYTE;

		if (*(const u8 *)(object + offset) != expected) {
			report(SLAB_WALK_POISON, slab, object, offset);
			return;
		}
	}
}

/* Whether an object is marked as a free one though it is out of its slab: 2.6 marks it when its
   user gives it back, and it waits in an array. */
#ifdef LINUX_2_6
static int array_has(const object_array_t *array, u32 object)
{
	const u32 *entries = (const u32 *)(array + 1);

	if (!array || !is_known(array, sizeof(*array)) || array->avail > array->limit ||
	    !is_known(array, sizeof(*array) + array->limit % PAGE_SIZE * WORD))
		return 0;
	for (u32 i = 0; i < array->avail; i++)
		if (entries[i] == object)
			return 1;
	return 0;
}

static int waits_in_array(u32 object)
{
	if (array_has(cache->lists.shared, object))
		return 1;
	for (u32 cpu = 0; cpu < ARRAY_SIZE(cache->CPU_ARRAYS); cpu++)
		if (array_has(cache->CPU_ARRAYS[cpu], object))
			return 1;
	return 0;
}
#else
static int waits_in_array(u32 object)
{
	return object == 0;
}
#endif

/* What CONFIG_DEBUG_SLAB left around and in each object. */
static void check_objects(const slab_t *slab)
{
	if (!(cache->flags & (SLAB_RED_ZONE | SLAB_POISON)))
		return;
	for (u32 i = 0; i < cache->num; i++) {
		u32 object = (u32)slab->s_mem + i * cache->objsize;
		int marked_free = is_free[i] || waits_in_array(object);

		if (cache->flags & SLAB_RED_ZONE) {
			u32 magic = marked_free ? RED_INACTIVE : RED_ACTIVE;

			check_word(slab, object, body_offset(cache) - WORD, magic);
			check_word(slab, object, zone_behind(cache), magic);
		}
		if (cache->flags & SLAB_POISON && marked_free)
			check_poison(slab, object);
	}
}

/* Slabs ------------------------------------------------------------------------------------- */

static int lies_in_its_pages(const slab_t *slab, u32 pages)
{
	u32 objects = (u32)slab->s_mem, descriptor = (u32)slab;
	u32 start = objects - slab->colouroff, end = start + pages * PAGE_SIZE;

	if (start % PAGE_SIZE || !in_low_memory((void *)start, pages * PAGE_SIZE))
		return 0;
	if (objects < start || cache->num * cache->objsize > end - objects)
		return 0;
	if (cache->flags & CFLGS_OFF_SLAB)
		return 1;
	return descriptor >= start && (u32)(bufctl(slab) + cache->num) <= objects;
}

/* Whether a descriptor off the slab begins where an object of its cache does. */
static int is_object_of(const kmem_cache_t *owner, u32 address)
{
	const slab_t *slab;

	if (!is_known(owner, sizeof(*owner)) || !owner->objsize)
		return 0;
	address -= body_offset(owner);
	slab = slab_at(owner, address);
	return slab && is_known(slab, sizeof(*slab)) && address >= (u32)slab->s_mem &&
	       (address - (u32)slab->s_mem) % owner->objsize == 0;
}

static void check_pages(const slab_t *slab, u32 pages)
{
	u32 start = (u32)slab->s_mem - slab->colouroff;

	for (u32 address = start; address < start + pages * PAGE_SIZE; address += PAGE_SIZE)
		if (slab_at(cache, address) != slab)
			report(SLAB_WALK_PAGE, slab, address, 0);
	walk.slab_pages += pages;
}

static int inuse_fits_list(u32 inuse, u32 list)
{
	if (list == FULL)
		return inuse == cache->num;
	return list == FREE ? inuse == 0 : inuse > 0 && inuse < cache->num;
}

static void walk_slab(const slab_t *slab, u32 list, struct slab_walk_cache *result)
{
	u32 pages = 1u << cache->gfporder;

	if (!is_known(slab, sizeof(*slab) + cache->num * sizeof(kmem_bufctl_t)) ||
	    !lies_in_its_pages(slab, pages)) {
		report(SLAB_WALK_SLAB_MEMORY, slab, 0, 0);
		return;
	}
	if (cache->flags & CFLGS_OFF_SLAB && !is_object_of(cache->slabp_cache, (u32)slab))
		report(SLAB_WALK_OFF_SLAB, slab, 0, 0);
	check_pages(slab, pages);
	if (!inuse_fits_list(slab->inuse, list))
		report(SLAB_WALK_WRONG_LIST, slab, 0, 0);
	result->lists[list].inuse += slab->inuse;
	if (slab->inuse <= cache->num && walk_free_objects(slab, result))
		check_objects(slab);
}

static void walk_list(const struct list_head *head, u32 list, struct slab_walk_cache *result)
{
	struct slab_walk_list *counted = &result->lists[list];
	const struct list_head *previous = head, *entry;

	for (entry = head->next; entry != head; previous = entry, entry = entry->next) {
		if (!is_known(entry, sizeof(slab_t)) || entry->prev != previous ||
		    counted->slabs == statics->num_physpages) {
			report(SLAB_WALK_SLAB_LIST, entry, 0, 0);
			return;
		}
		counted->sum += (u32)entry * WEIGHT(counted->slabs);
		counted->slabs++;
		walk_slab((const slab_t *)entry, list, result);
	}
	if (head->prev != previous)
		report(SLAB_WALK_SLAB_LIST, entry, 0, 0);
}

/* Arrays of free objects, one for each CPU -------------------------------------------------- */

#ifdef HAS_ARRAYS
static int is_out_of_its_slab(u32 object)
{
	const slab_t *slab = slab_at(cache, object);
	u32 offset, i, steps = 0;

	if (!slab || !is_known(slab, sizeof(*slab) + cache->num * sizeof(kmem_bufctl_t)))
		return 0;
	offset = object - (u32)slab->s_mem;
	if (object < (u32)slab->s_mem || offset % cache->objsize ||
	    offset / cache->objsize >= cache->num)
		return 0;
	for (i = slab->free; i < cache->num && steps <= cache->num; i = bufctl(slab)[i], steps++)
		if (i == offset / cache->objsize)
			return 0;
	return 1;
}

static void walk_array(const object_array_t *array, u32 cpu, struct slab_walk_cpu *result)
{
	const u32 *entries = (const u32 *)(array + 1);
	u32 zone = ENTRY_OFFSET(cache);

	result->array = (u32)array;
	if (!array)
		return;
	if (!is_known(array, sizeof(*array)) || array->avail > array->limit ||
	    !is_known(array, sizeof(*array) + array->limit % PAGE_SIZE * WORD)) {
		report(SLAB_WALK_CPU_ARRAY, array, 0, cpu);
		return;
	}
	result->avail = array->avail;
	result->limit = array->limit;
	for (u32 i = 0; i < array->avail; i++) {
		int twice = 0;

		result->sum += entries[i] * WEIGHT(i);
		for (u32 j = 0; j < i; j++)
			twice |= entries[j] == entries[i];
		if (twice || !is_out_of_its_slab(entries[i] - zone))
			report(SLAB_WALK_CPU_OBJECT, array, entries[i], cpu);
	}
}
#endif

/* Caches ------------------------------------------------------------------------------------ */

static int has_sound_fields(void)
{
	u32 room;

	if (cache->gfporder > MAX_GFP_ORDER || cache->objsize < WORD || cache->objsize % WORD)
		return 0;
	room = PAGE_SIZE << cache->gfporder;
	return cache->num && cache->num <= room / cache->objsize;
}

static void walk_cache(struct slab_walk_cache *result)
{
	result->address = (u32)cache;
	result->objsize = cache->objsize;
	result->flags = cache->flags;
	result->num = cache->num;
	result->gfporder = cache->gfporder;
	result->colour_next = cache->colour_next;
	if (!has_sound_fields()) {
		report(SLAB_WALK_CACHE_FIELDS, 0, (u32)cache, 0);
		return;
	}
	walk_list(&cache->LISTS slabs_full, FULL, result);
	walk_list(&cache->LISTS slabs_partial, PARTIAL, result);
	walk_list(&cache->LISTS slabs_free, FREE, result);
#ifdef HAS_ARRAYS
	for (u32 cpu = 0; cpu < ARRAY_SIZE(cache->CPU_ARRAYS); cpu++)
		walk_array(cache->CPU_ARRAYS[cpu], cpu, &result->cpus[cpu]);
#endif
#ifdef LINUX_2_6
	walk_array(cache->lists.shared, SHARED_ARRAY, &result->shared);
	if (cache->lists.free_objects != result->free_objects)
		report(SLAB_WALK_FREE_OBJECTS, 0, cache->lists.free_objects, 0);
#endif
}

static u32 marked_pages(void)
{
	const pg_data_t *node = statics->pgdat_list;
	u32 count = 0;

	for (u32 i = 0; i < MAX_NODES && is_known(node, sizeof(*node)); i++) {
		const struct page *page = node->node_mem_map;

		if (node->NODE_FRAMES > statics->max_mapnr ||
		    !in_low_memory(page, node->NODE_FRAMES * sizeof(*page)))
			return count;
		for (u32 n = 0; n < node->NODE_FRAMES; n++, page++)
			count += page->flags >> SLAB_PAGE_BIT & 1;
		node = node->NODE_NEXT;
	}
	return count;
}

static const kmem_cache_t *cache_of(const struct list_head *link)
{
	return (const kmem_cache_t *)((u32)link - offsetof(kmem_cache_t, next));
}

/* Pages of slabs that are on no list any more, because RCU has not yet let them go. */
static u32 waiting_pages(void)
{
	u32 count = 0;
#ifdef LINUX_2_6
	const struct slab_rcu *waiting = (const struct slab_rcu *)statics->rcu_callbacks;

	for (u32 i = 0; waiting && i < statics->num_physpages; i++) {
		const kmem_cache_t *owner = waiting->cachep;

		if (!is_known(waiting, sizeof(*waiting)) || !is_known(owner, sizeof(*owner)))
			break;
		count += 1u << owner->gfporder % (MAX_GFP_ORDER + 1);
		waiting = (const struct slab_rcu *)waiting->head.next;
	}
#endif
	return count;
}

struct slab_walk *walk_slabs(void)
{
	const struct list_head *head = CACHE_CHAIN, *link = FIRST_CACHE;

	for (u32 i = 0; i < sizeof(walk) / 4; i++)
		((volatile u32 *)&walk)[i] = 0;
	walk.statics_bytes = sizeof(struct kernel_statics);
	do {
		cache = cache_of(link);
		number = walk.nr_caches;
		if (!is_known(cache, sizeof(*cache)) || !is_known(link->next, sizeof(*link)) ||
		    link->next->prev != link || number == ARRAY_SIZE(walk.caches)) {
			report(SLAB_WALK_CACHE_CHAIN, 0, (u32)link, 0);
			return &walk;
		}
		walk_cache(&walk.caches[walk.nr_caches++]);
		link = link->next;
	} while (link != head);
	number = NO_CACHE;
	walk.slab_pages += waiting_pages();
	if (walk.slab_pages != marked_pages())
		report(SLAB_WALK_SLAB_PAGES, 0, 0, marked_pages());
	return &walk;
}
