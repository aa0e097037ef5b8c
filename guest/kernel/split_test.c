/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The split at PAGE_OFFSET, tried from both sides with real accesses.
 *
 * In an address space of its own, this program makes each access that the table names and
 * compares the fault, its error code, CR2, and what memory holds afterwards. The rows after
 * "WP off" show what CR0.WP is for: without it ring 0 writes through read-only pages.
 */
#include "console.h"
#include "kernel.h"
#include "page.h"
#include "probe.h"

#define USER_TEXT 0x08048000
#define USER_READONLY 0x08049000
#define USER_DATA 0x0804A000
#define USER_STACK (USER_DATA + PAGE_SIZE)
#define NOWHERE 0xFFFFF000 /* above FIXADDR_TOP: no kernel maps it */
#define SCRATCH 64	   /* offset of the word that stores go to */

#define CODE 0x345678B8 /* mov $0x12345678, %eax; ret, read as data */
#define RESULT 0x12345678
#define STORED 0x600DDA7A
#define OK (-1)

struct page_of_code {
	u8 code[6];
	u8 rest[PAGE_SIZE - 6];
} __attribute__((aligned(PAGE_SIZE)));

#define PAGE_OF_CODE { .code = { 0xB8, 0x78, 0x56, 0x34, 0x12, 0xC3 } }

static struct page_of_code kernel_page = PAGE_OF_CODE;
static struct page_of_code readonly_page = PAGE_OF_CODE;
static struct page_of_code data_page = PAGE_OF_CODE; /* the table, from SHARED up, and the stack */

#define SHARED 1024

#ifdef CONFIG_X86_PAE
typedef u64 entry_t;
#define PMD_SHIFT 21
static entry_t pgd[4] __attribute__((aligned(32)));
static entry_t pmd[512] __attribute__((aligned(PAGE_SIZE)));
#else
typedef u32 entry_t;
#define PMD_SHIFT 22
static entry_t pgd[1024] __attribute__((aligned(PAGE_SIZE)));
#define pmd pgd
#endif
static entry_t pte[PAGE_SIZE / sizeof(entry_t)] __attribute__((aligned(PAGE_SIZE)));

static void map_user(u32 va, const void *page, u32 rights)
{
	pte[(va >> 12) % ARRAY_SIZE(pte)] = __pa(page) | rights | _PAGE_PRESENT | _PAGE_USER;
}

static void load_cr3(u32 paddr)
{
	asm volatile("movl %0, %%cr3" : : "r"(paddr) : "memory");
}

static void enter_address_space(void)
{
	const entry_t *swapper = __va(SWAPPER_PG_DIR);

	for (u32 i = ARRAY_SIZE(pgd) / 4 * 3; i < ARRAY_SIZE(pgd); i++)
		pgd[i] = swapper[i];
#ifdef CONFIG_X86_PAE
	pgd[0] = __pa(pmd) | _PAGE_PRESENT; /* R/W and U/S are reserved at this level */
#endif
	pmd[USER_TEXT >> PMD_SHIFT] = __pa(pte) | _PAGE_PRESENT | _PAGE_RW | _PAGE_USER;
	map_user(USER_TEXT, probe_user_text_start, 0);
	map_user(USER_READONLY, &readonly_page, 0);
	map_user(USER_DATA, &data_page, _PAGE_RW);
	load_cr3(__pa(pgd));
}

static void set_write_protect(int on)
{
	u32 cr0;

	asm volatile("movl %%cr0, %0" : "=r"(cr0));
	cr0 = on ? cr0 | CR0_WP : cr0 & ~CR0_WP;
	asm volatile("movl %0, %%cr0" : : "r"(cr0) : "memory");
}

struct test {
	u32 ring, access, va;
	int error_code;
	const char *what;
};

#define KERNEL_PAGE ((u32)&kernel_page)
#define READ PROBE_READ
#define WRITE PROBE_WRITE
#define FETCH PROBE_FETCH

static const struct test tests[] = {
	{ 3, READ, KERNEL_PAGE, 5, "kernel memory" },
	{ 3, WRITE, KERNEL_PAGE, 7, "kernel memory" },
	{ 3, FETCH, KERNEL_PAGE, 5, "kernel memory" },
	{ 3, READ, NOWHERE, 4, "unmapped kernel address" },
	{ 3, WRITE, NOWHERE, 6, "unmapped kernel address" },
	{ 3, FETCH, NOWHERE, 4, "unmapped kernel address" },
	{ 3, READ, 0, 4, "NULL" },
	{ 3, WRITE, 0, 6, "NULL" },
	{ 3, FETCH, 0, 4, "NULL" },
	{ 3, READ, USER_READONLY, OK, "read-only user page" },
	{ 3, FETCH, USER_READONLY, OK, "read-only user page" },
	{ 3, WRITE, USER_READONLY, 7, "read-only user page" },
	{ 3, WRITE, USER_TEXT, 7, "its own text" },
	{ 3, READ, USER_DATA, OK, "user data" },
	{ 3, WRITE, USER_DATA, OK, "user data" },
	{ 0, READ, KERNEL_PAGE, OK, "kernel memory" },
	{ 0, WRITE, KERNEL_PAGE, OK, "kernel memory" },
	{ 0, FETCH, KERNEL_PAGE, OK, "kernel memory" },
	{ 0, READ, NOWHERE, 0, "unmapped kernel address" },
	{ 0, WRITE, NOWHERE, 2, "unmapped kernel address" },
	{ 0, FETCH, NOWHERE, 0, "unmapped kernel address" },
	{ 0, READ, 0, 0, "NULL" },
	{ 0, WRITE, 0, 2, "NULL" },
	{ 0, READ, USER_READONLY, OK, "read-only user page" },
	{ 0, WRITE, USER_READONLY, 3, "read-only user page" },
};

static const struct test tests_without_write_protect[] = {
	{ 3, WRITE, USER_READONLY, 7, "read-only user page, WP off" },
	{ 0, WRITE, USER_READONLY, OK, "read-only user page, WP off" },
};

/* The word that a store at va goes to, seen through the kernel; 0 where there is none. */
static volatile u32 *target(u32 va)
{
	struct page_of_code *page = va == KERNEL_PAGE	  ? &kernel_page
				    : va == USER_READONLY ? &readonly_page
				    : va == USER_DATA	  ? &data_page
							  : 0;

	return page ? (volatile u32 *)((u8 *)page + SCRATCH) : 0;
}

static int value_is_right(const struct test *test, const struct probe *probe)
{
	volatile u32 *word = target(test->va);

	if (test->access == WRITE)
		return !word || *word == (test->error_code == OK ? STORED : 0);
	if (test->error_code != OK)
		return 1;
	return probe->value == (test->access == READ ? CODE : RESULT);
}

static int run(const struct test *test)
{
	static const char *const names[] = { "read", "write", "fetch" };
	struct probe *probe = (struct probe *)((u8 *)&data_page + SHARED);
	u32 va = test->va + (test->access == WRITE ? SCRATCH : 0);
	int fault = test->error_code != OK, passed;

	if (target(test->va))
		*target(test->va) = 0;
	*probe = (struct probe){ .va = va, .access = test->access, .value = STORED };
	if (test->ring == 0)
		probe_kernel(probe, 1);
	else
		probe_user(USER_TEXT, USER_STACK, (struct probe *)(USER_DATA + SHARED), 1);

	passed = (int)probe->fault == fault && value_is_right(test, probe);
	if (fault)
		passed &= (int)probe->error_code == test->error_code && probe->cr2 == va;
	printk("%s  ring %u %s %s (0x%x): ", passed ? "ok  " : "FAIL", test->ring,
	       names[test->access], test->what, va);
	if (probe->fault)
		printk("#PF %u, CR2 0x%x\n", probe->error_code, probe->cr2);
	else
		printk("no fault\n");
	if (!passed)
		assert_failed(test->what);
	return !passed;
}

int kernel_main(void)
{
	int failures = 0;

	enter_address_space();
	for (u32 i = 0; i < ARRAY_SIZE(tests); i++)
		failures += run(&tests[i]);
	set_write_protect(0);
	for (u32 i = 0; i < ARRAY_SIZE(tests_without_write_protect); i++)
		failures += run(&tests_without_write_protect[i]);
	set_write_protect(1);
	load_cr3(SWAPPER_PG_DIR);
	return failures;
}
