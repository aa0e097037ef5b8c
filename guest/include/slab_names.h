/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What each release calls the structures of its slab allocator, and where they stand. */
#pragma once

#include <kernel_calls.h>
#include <slab_walk_layout.h>

#include "types.h"

#ifdef LINUX_2_6
typedef struct slab slab_t;
typedef u16 kmem_bufctl_t;
typedef struct array_cache object_array_t;
#define LINKS lru
#define NODE_FRAMES node_spanned_pages
#define NODE_NEXT pgdat_next
#define LISTS lists.
#define HAS_ARRAYS
#define CPU_ARRAYS array
/* How far behind its beginning an object is known to an array. */
#define ENTRY_OFFSET(cache) 0
/* The caches, cache_cache among them, are on a list with a head of its own. */
#define CACHE_CHAIN (&statics->cache_chain)
#define FIRST_CACHE (statics->cache_chain.next)
static inline u32 node_first_pfn(const pg_data_t *node)
{
	return node->node_start_pfn;
}
#else
typedef u32 kmem_bufctl_t;
typedef cpucache_t object_array_t;
#define LINKS list
#define NODE_FRAMES node_size
#define NODE_NEXT node_next
#define LISTS
#ifdef CONFIG_SMP
#define HAS_ARRAYS
#endif
#define CPU_ARRAYS cpudata
#define ENTRY_OFFSET(cache) body_offset(cache)
/* cache_cache is the head of the list of all others. */
#define CACHE_CHAIN (&statics->cache_cache.next)
#define FIRST_CACHE CACHE_CHAIN
static inline u32 node_first_pfn(const pg_data_t *node)
{
	return node->node_start_paddr >> 12;
}
#endif

/* CONFIG_DEBUG_SLAB: where an object of objsize bytes has its red zones and its user's bytes. */
#if defined(LINUX_2_6) && defined(CONFIG_DEBUG_SLAB)
static inline u32 body_offset(const kmem_cache_t *cache)
{
	return cache->dbghead;
}

static inline u32 body_size(const kmem_cache_t *cache)
{
	return cache->reallen;
}

static inline u32 zone_behind(const kmem_cache_t *cache)
{
	return cache->objsize - (cache->flags & SLAB_STORE_USER ? 8 : 4);
}
#else
static inline u32 body_offset(const kmem_cache_t *cache)
{
	return cache->flags & SLAB_RED_ZONE ? 4 : 0;
}

static inline u32 body_size(const kmem_cache_t *cache)
{
	return cache->objsize - 2 * body_offset(cache);
}

static inline u32 zone_behind(const kmem_cache_t *cache)
{
	return cache->objsize - 4;
}
#endif
