/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The slab allocator as kernel code uses it: sizes, caches with constructors, and the mistakes
 * that CONFIG_DEBUG_SLAB is there to find. Python calls these functions one by one.
 */
#include <kernel_calls.h>

#include "kernel.h"
#include "types.h"

#define CONSTRUCTED 0xC0C0A000

/* What the constructor and the destructor below saw. */
struct calls {
	u32 constructed, destroyed, verified, wrong;
	u32 last_object, last_cache, last_flags;
};

struct calls calls;

void construct(void *objp, kmem_cache_t *cachep, unsigned long flags);
void destroy(void *objp, kmem_cache_t *cachep, unsigned long flags);
u32 fill_every_size(u32 gfp);
u32 use_cache(kmem_cache_t *cachep, u32 words, u32 count, void **objects);
u32 free_objects(kmem_cache_t *cachep, u32 count, void **objects);
void write_byte(u8 *address, u32 offset, u32 value);
void construct_by_allocating(void *objp, kmem_cache_t *cachep, unsigned long flags);
void construct_beyond(void *objp, kmem_cache_t *cachep, unsigned long flags);
void construct_and_die(void *objp, kmem_cache_t *cachep, unsigned long flags);
void construct_for_ever(void *objp, kmem_cache_t *cachep, unsigned long flags);
void construct_another(void *objp, kmem_cache_t *cachep, unsigned long flags);

/* A free object keeps what its constructor left: its own address in the first word. */
void construct(void *objp, kmem_cache_t *cachep, unsigned long flags)
{
	u32 *object = objp;

	calls.last_object = (u32)objp;
	calls.last_cache = (u32)cachep;
	calls.last_flags = flags;
	if (flags & SLAB_CTOR_VERIFY) {
		calls.verified++;
		return;
	}
	calls.constructed++;
	object[0] = CONSTRUCTED ^ (u32)objp;
}

void destroy(void *objp, kmem_cache_t *cachep, unsigned long flags)
{
	u32 *object = objp;

	calls.last_object = (u32)objp;
	calls.last_cache = (u32)cachep;
	calls.last_flags = flags;
	calls.destroyed++;
	if (object[0] != (CONSTRUCTED ^ (u32)objp))
		calls.wrong++;
}

static u8 pattern(u32 i, u32 seed)
{
	return (i ^ i >> 8) * 7 + seed * 31;
}

static void fill(u8 *object, u32 size, u32 seed)
{
	for (u32 i = 0; i < size; i++)
		object[i] = pattern(i, seed);
}

static u32 count_wrong(const volatile u8 *object, u32 size, u32 seed)
{
	u32 wrong = 0;

	for (u32 i = 0; i < size; i++)
		wrong += object[i] != pattern(i, seed);
	return wrong;
}

/* One object below, at and above each power of two; all live at once. Returns wrong bytes. */
u32 fill_every_size(u32 gfp)
{
	static struct {
		u8 *object;
		u32 size;
	} taken[64];
	u32 count = 0, wrong = 0;

	for (u32 size = 1; size <= 131072; size *= 2) {
		for (u32 near = size - 1; near <= size + 1; near++) {
			u8 *object = kmalloc(near, gfp);

			if (near > 131072) {
				wrong += object != 0;
				continue;
			}
			if (!object)
				return 0xFFFFFFFF;
			fill(object, near, count);
			taken[count].object = object;
			taken[count++].size = near;
		}
	}
	for (u32 i = 0; i < count; i++)
		wrong += count_wrong(taken[i].object, taken[i].size, i);
	for (u32 i = 0; i < count; i++)
		kfree(taken[i].object);
	return wrong;
}

/* Takes objects and writes every word but the constructed first one. Returns how many it got. */
u32 use_cache(kmem_cache_t *cachep, u32 words, u32 count, void **objects)
{
	u32 i;

	for (i = 0; i < count; i++) {
		u32 *object = kmem_cache_alloc(cachep, GFP_KERNEL);

		if (!object)
			break;
		if (object[0] != (CONSTRUCTED ^ (u32)object))
			calls.wrong++;
		for (u32 word = 1; word < words; word++)
			object[word] = (u32)object + word;
		objects[i] = object;
	}
	for (u32 j = 0; j < i; j++)
		for (u32 word = 1; word < words; word++)
			calls.wrong += ((u32 *)objects[j])[word] != (u32)objects[j] + word;
	return i;
}

/* Gives them back as they were constructed: every other one first. */
u32 free_objects(kmem_cache_t *cachep, u32 count, void **objects)
{
	for (u32 first = 0; first < 2; first++)
		for (u32 i = first; i < count; i += 2)
			kmem_cache_free(cachep, objects[i]);
	return count;
}

void write_byte(u8 *address, u32 offset, u32 value)
{
	*(volatile u8 *)(address + offset) = value;
}

/* Constructors of all kinds. */

void construct_by_allocating(void *objp, kmem_cache_t *cachep, unsigned long flags)
{
	construct(objp, cachep, flags);
	((u32 *)objp)[1] = (u32)kmalloc(100, GFP_ATOMIC);
}

/* In a slab that is full of such objects: each grows the cache by another slab. */
void construct_another(void *objp, kmem_cache_t *cachep, unsigned long flags)
{
	construct(objp, cachep, flags);
	kmem_cache_alloc(cachep, GFP_KERNEL);
}

void construct_beyond(void *objp, kmem_cache_t *cachep, unsigned long flags)
{
	construct(objp, cachep, flags);
	((u32 *)objp)[-1] = 0;
}

void construct_and_die(void *objp, kmem_cache_t *cachep, unsigned long flags)
{
	construct(objp, cachep, flags);
	*(volatile u32 *)0x10 = 0;
}

void construct_for_ever(void *objp, kmem_cache_t *cachep, unsigned long flags)
{
	construct(objp, cachep, flags);
	for (;;)
		asm volatile("");
}
