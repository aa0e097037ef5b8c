/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The built-in table, for a PC that nobody but us looks at: run, compared here, told on the
 * serial line. Modes that CPUID does not announce are left out and named.
 */
#include "conformance.h"

#include <conformance_table.h>

#define CPUID_PSE (1u << 3)
#define CPUID_PAE (1u << 6)
#define CPUID_PGE (1u << 13)
#define CPUID_NX (1u << 20)
#define EFLAGS_ID (1u << 21)

#define CR4_PSE 0x10u
#define CR4_PAE 0x20u
#define CR4_PGE 0x80u

#define MAX_SHOWN 8 /* for each mode */

/* One expectation: what counts, what is unsure, then the words of a result. */
#define CHECKS 0
#define UNSURE 1
#define WORDS 2
#define RESULT_WORDS (RESULT_SIZE / 4)

static const char *const word_names[RESULT_WORDS] = {
	"outcome", "error code", "CR2",	     "value",	    "second outcome", "second error code",
	"second CR2", "second value", "PDE", "PDE, high half", "PTE", "PTE, high half",
	"second PTE", "second PTE, high half", "memory", "second memory",
};
static const char *const access_names[] = {
	"read", "write", "fetch", "modify", "read-across", "write-across", "descriptor",
};

static u32 has_cpuid(void)
{
	u32 before, after;

	asm volatile("pushfl; popl %0; movl %0, %1; xorl %2, %1; pushl %1; popfl; pushfl; popl %1;"
		     "pushl %0; popfl"
		     : "=&r"(before), "=&r"(after)
		     : "i"(EFLAGS_ID));
	return (before ^ after) & EFLAGS_ID;
}

static u32 cpuid_edx(u32 leaf)
{
	u32 eax = leaf, ebx, ecx = 0, edx;

	asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	return edx;
}

static u32 has_nx(void)
{
	u32 eax = 0x80000000u, ebx, ecx, edx;

	asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx));
	return eax > 0x80000000u && cpuid_edx(0x80000001u) & CPUID_NX;
}

static u32 offered_cr4, nx;

static u32 offered(const struct conformance_batch *batch)
{
	return !(batch->cr4 & ~offered_cr4) && (nx || !batch->efer);
}

static void examine_cpu(void)
{
	u32 features = has_cpuid() ? cpuid_edx(1) : 0;

	offered_cr4 = (features & CPUID_PSE ? CR4_PSE : 0) | (features & CPUID_PAE ? CR4_PAE : 0) |
		      (features & CPUID_PGE ? CR4_PGE : 0);
	nx = features ? has_nx() : 0;
}

static u32 unsure_bits(const u32 *expectation, u32 word)
{
	if (word == RESULT_PDE / 4)
		return expectation[UNSURE] & 0xFF;
	if (word == RESULT_PTE / 4)
		return expectation[UNSURE] >> 8 & 0xFF;
	if (word == RESULT_SECOND / 4)
		return expectation[UNSURE] >> 16 & 0xFF;
	return 0;
}

static void show(u32 number, const struct conformance_case *c, u32 word, u32 found, u32 expected)
{
	u32 touch = c->touches >> 16 == 0xFFFF ? c->touches & 0xFFFF : c->touches >> 16;

	printk("  case %u: %s %s, pde %x:%x pte %x:%x second %x, change %x: %s %x, expected %x\n",
	       number, touch >> 8 & 1 ? "user" : "kernel", access_names[touch & 0xFF], c->pde[1],
	       c->pde[0], c->pte[1], c->pte[0], c->second[0], c->change, word_names[word], found,
	       expected);
}

/* Whether case `number` is as expected; the first word that is not is shown. */
static u32 differs(u32 number, u32 may_show)
{
	const u32 *expectation = builtin_expectations[number];
	const u32 *result = (const u32 *)RESULTS + number * RESULT_WORDS;

	for (u32 word = 0; word < RESULT_WORDS; word++) {
		u32 expected = expectation[WORDS + word];
		u32 high_half = word == RESULT_PDE / 4 + 1 || word == RESULT_PTE / 4 + 1 ||
				word == RESULT_SECOND / 4 + 1;
		u32 counts = expectation[CHECKS] >> (high_half ? word - 1 : word) & 1;

		if (!counts || (high_half && paging.entry_size == 4))
			continue;
		if (!((result[word] ^ expected) & ~unsure_bits(expectation, word)))
			continue;
		if (may_show)
			show(number, (const struct conformance_case *)CASES + number, word,
			     result[word], expected);
		return 1;
	}
	return 0;
}

static u32 run_mode(const struct builtin_mode *mode, u32 *total)
{
	struct conformance_batch *batches = (struct conformance_batch *)BATCHES + mode->first;
	u32 cases = 0, different = 0, strays = 0;

	for (u32 n = 0; n < mode->batches; n++) {
		struct conformance_batch *batch = batches + n;

		if (!offered(batch))
			continue;
		run_batch(batch);
		cases += batch->count;
		strays += batch->stray_count;
		for (u32 k = 0; k < batch->count; k++)
			different += differs(batch->first + k, different < MAX_SHOWN);
	}
	paging_off();
	if (!cases)
		printk("%s: not offered by this CPU\n", mode->name);
	else
		printk("%s: %u cases, %u differ, %u stray entries\n", mode->name, cases, different,
		       strays);
	*total += cases;
	return different + strays;
}

static void copy(u32 to, const void *from, u32 bytes)
{
	for (u32 n = 0; n < bytes / 4; n++)
		((u32 *)to)[n] = ((const u32 *)from)[n];
}

void run_builtin(void)
{
	u32 total = 0, different = 0;

	console_init();
	printk("mmucheck conformance, built-in table\n");
	examine_cpu();
	copy(BATCHES, builtin_batches, sizeof(builtin_batches));
	copy(CASES, builtin_cases, sizeof(builtin_cases));
	for (u32 n = 0; n < ARRAY_SIZE(builtin_modes); n++)
		different += run_mode(builtin_modes + n, &total);
	printk("total: %u cases, %u differ\n", total, different);
}
