/* SPDX-License-Identifier: GPL-2.0-or-later */
/* IDT, TSS, and the LDT through which a supervisor read by the CPU itself is provoked. */
#include "conformance.h"

#define GATE_INTERRUPT 0x8E00
#define GATE_INTERRUPT_USER 0xEE00
#define TSS_BYTES 104
#define SEGMENT_TSS 0x89
#define SEGMENT_LDT 0x82

u64 idt[IDT_ENTRIES];
u32 tss[TSS_BYTES / 4];
asm(".globl tss_esp0; .set tss_esp0, tss + 4");

static u64 system_segment(u32 base, u32 limit, u32 type)
{
	return (u64)(base & 0xFF000000u) << 32 | (u64)type << 40 | (u64)(base & 0xFFFFFF) << 16 |
	       limit;
}

static void set_gate(u32 vector, u32 handler, u32 kind)
{
	idt[vector] = (u64)((handler & 0xFFFF0000u) | kind) << 32 | KERNEL_CS << 16 |
		      (handler & 0xFFFF);
}

void descriptors_init(void)
{
	for (u32 vector = 0; vector < EXCEPTIONS; vector++)
		set_gate(vector, trap_stubs[vector], GATE_INTERRUPT);
	set_gate(MARK_VECTOR, (u32)mark_stub, GATE_INTERRUPT);
	set_gate(LEAVE_VECTOR, (u32)leave_stub, GATE_INTERRUPT_USER);
	tss[1] = (u32)kernel_stack_top;
	tss[2] = KERNEL_DS;
	tss[25] = TSS_BYTES << 16; /* the I/O bitmap begins behind the limit: there is none */
	gdt[TSS_SELECTOR / 8] = system_segment((u32)tss, TSS_BYTES - 1, SEGMENT_TSS);
}

/* The only descriptor of the LDT shall lie at `va`. LLDT itself does not look there. */
void use_descriptor(u32 va)
{
	gdt[LDT_SELECTOR / 8] = system_segment(va, 7, SEGMENT_LDT);
	asm volatile("lldt %w0" : : "r"(LDT_SELECTOR) : "memory");
}
