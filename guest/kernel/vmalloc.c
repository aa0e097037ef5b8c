/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The vmalloc range as the kernel's own code uses it: plain loads and stores. One that meets an
 * entry which its page directory does not have yet is run again after the vmalloc fault, and
 * notices nothing.
 */
#include "vmalloc.h"

#include "page.h"

u32 load_pages(u32 vaddr, u32 pages)
{
	u32 sum = 0;

	for (; pages; pages--, vaddr += PAGE_SIZE)
		sum += *(volatile u32 *)vaddr;
	return sum;
}

void store_pages(u32 vaddr, u32 pages, u32 salt)
{
	for (; pages; pages--, vaddr += PAGE_SIZE)
		*(volatile u32 *)vaddr = vaddr + salt;
}
