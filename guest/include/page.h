/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <kernel_structs.h> /* PAGE_OFFSET, CONFIG_X86_PAE */

#define PAGE_SIZE 4096
#define SWAPPER_PG_DIR 0x101000 /* physical */

#define _PAGE_PRESENT 0x001
#define _PAGE_RW 0x002
#define _PAGE_USER 0x004

#define CR0_NE 0x00000020
#define CR0_WP 0x00010000
#define CR0_PG 0x80000000

#ifndef __ASSEMBLER__
#include "types.h"

#define __pa(address) ((u32)(address) - PAGE_OFFSET)
#define __va(paddr) ((void *)((u32)(paddr) + PAGE_OFFSET))
#endif
