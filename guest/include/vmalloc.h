/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "types.h"

/* The sum of the first words of `pages` pages, each loaded through the MMU. */
u32 load_pages(u32 vaddr, u32 pages);

/* The first word of each page = its own address + salt. */
void store_pages(u32 vaddr, u32 pages, u32 salt);
