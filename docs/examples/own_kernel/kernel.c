/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A kernel that does nothing but turn paging on. It maps the first 4 MiB twice, at 0 and at 3 GiB,
 * for itself alone, and shows one frame to programs, which may only read it. Page 0 stays out.
 *
 * It halts when that is done. Woken again, it takes the programs' page away, and halts.
 */
typedef unsigned int u32;

#define PRESENT 1
#define WRITE 2
#define USER 4
#define KERNEL_BASE 0xC0000000
#define USER_PAGE 0x08048000

#ifndef USER_FRAME
#define USER_FRAME 0x200000
#endif
#ifndef USER_RIGHTS
#define USER_RIGHTS (PRESENT | USER)
#endif

static u32 directory[1024] __attribute__((aligned(4096)));
static u32 kernel_table[1024] __attribute__((aligned(4096)));
static u32 user_table[1024] __attribute__((aligned(4096)));
u32 stack[1024];

static void halt(void)
{
	asm volatile("hlt" : : : "memory");
}

static void set(volatile u32 *entry, u32 value)
{
	*entry = value;
}

void kernel(void)
{
	for (u32 i = 1; i < 1024; i++)
		set(&kernel_table[i], i << 12 | PRESENT | WRITE);
	set(&user_table[USER_PAGE >> 12 & 1023], USER_FRAME | USER_RIGHTS);
	set(&directory[0], (u32)kernel_table | PRESENT | WRITE);
	set(&directory[KERNEL_BASE >> 22], (u32)kernel_table | PRESENT | WRITE);
	set(&directory[USER_PAGE >> 22], (u32)user_table | PRESENT | WRITE | USER);
	asm volatile("mov %0, %%cr3\n\t"
		     "mov %%cr0, %%eax\n\t"
		     "or $0x80010000, %%eax\n\t" /* PG, WP */
		     "mov %%eax, %%cr0"
		     : : "r"(directory) : "eax", "memory");
	(void)*(volatile u32 *)USER_PAGE; /* now the TLB holds it */
	halt();

	set(&user_table[USER_PAGE >> 12 & 1023], 0);
#ifndef FORGET_TO_FLUSH
	asm volatile("invlpg (%0)" : : "r"(USER_PAGE) : "memory");
#endif
	halt();
}

asm(".globl _start\n"
    "_start:\n\t"
    "mov $stack + 4096, %esp\n\t"
    "call kernel\n"
    "1:\thlt\n\t"
    "jmp 1b");
