/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who started us? The harness asks for batches by `request` and waits until it is 0 again; a boot
 * loader gets the built-in table, and a summary on the serial line.
 */
#include "conformance.h"

#define MULTIBOOT_LOADED 0x2BADB002u
#define INFO_HAS_COMMAND_LINE 4u
#define INFO_COMMAND_LINE 4 /* in words: flags, mem_lower, mem_upper, boot_device, cmdline */

volatile u32 request;
volatile u32 ready;

static void stamp_frames(void)
{
	for (u32 n = 0; n < (CASES - FRAMES) / 4096; n++) {
		u8 *frame = (u8 *)(FRAMES + n * 4096);
		u32 stamp = STAMP_FIRST + n * STAMP_STEP;

		*(u32 *)(frame + OFFSET_SECOND) = stamp;
		*(u32 *)(frame + OFFSET_WORD) = stamp;
		*(u32 *)(frame + OFFSET_CODE) = stamp << 8 | 0xB8;	   /* mov $stamp, %eax */
		*(u32 *)(frame + OFFSET_CODE + 4) = stamp >> 24 | 0xC300; /* ret */
		*(u32 *)(frame + OFFSET_DESCRIPTOR) = stamp & 0xFFFF;
		/* present, DPL 3, writable data, accessed; the limit's upper bits */
		*(u32 *)(frame + OFFSET_DESCRIPTOR + 4) = 0x0000F300 | (stamp & 0xF0000);
		*(u32 *)(frame + OFFSET_ACROSS - 2) = stamp << 16;
	}
}

static int harness_asks(const u32 *info)
{
	const char *word = "harness", *line;

	if (!(info[0] & INFO_HAS_COMMAND_LINE))
		return 0;
	/* The last word of the line. */
	for (line = (const char *)info[INFO_COMMAND_LINE]; *line; line++)
		;
	for (u32 n = 0; n < 7; n++)
		if (line[(int)n - 7] != word[n])
			return 0;
	return 1;
}

static void serve(void)
{
	ready = 1;
	for (;;) {
		/* Ends the run on a CPU that the harness holds; nothing listens elsewhere. */
		asm volatile("outl %0, %1; jmp 1f; 1:" : : "a"(HC_EXIT), "N"(HYPERCALL_PORT));
		while (!request)
			asm volatile("pause");
		asm volatile("" : : : "memory");
		run_batches(request);
		asm volatile("" : : : "memory");
		request = 0;
	}
}

__attribute__((regparm(2))) void conformance_main(u32 magic, const u32 *info)
{
	stamp_frames();
	if (magic != MULTIBOOT_LOADED || harness_asks(info))
		serve();
	run_builtin();
}

void trap_outside_pass(u32 vector, u32 error_code, u32 eip)
{
	console_init();
	printk("conformance: exception %u, error code %x, at %x outside any case\n", vector,
	       error_code, eip);
	for (;;)
		asm volatile("cli; hlt");
}
