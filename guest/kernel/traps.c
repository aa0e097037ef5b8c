/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The descriptor tables that hold addresses, and so cannot be written by the linker. */
#include "kernel.h"
#include "ptrace.h"
#include "segment.h"

#define MSR_IA32_SYSENTER_CS 0x174
#define MSR_IA32_SYSENTER_ESP 0x175
#define MSR_IA32_SYSENTER_EIP 0x176

struct gate {
	u16 offset_low, selector;
	u8 zero, type;
	u16 offset_high;
};

struct tss {
	u32 back_link, esp0, ss0, unused[22];
	u16 trap, io_bitmap;
};

extern u32 trap_stubs[32];
extern u64 gdt[GDT_ENTRIES];
extern u8 kernel_stack_top[];
void system_call(void);
void leave_user(void);
void timer_interrupt(void);
void sysenter_entry(void);
void trap_init(void);
void enable_sep_cpu(void);

/* A vector without a gate raises #GP, as Linux's closed gates do for `int n` in ring 3. */
struct gate idt[256];
struct tss tss;

static void set_gate(u32 vector, u32 handler, u8 type)
{
	idt[vector] = (struct gate){
		.offset_low = handler,
		.selector = KERNEL_CS,
		.type = type,
		.offset_high = handler >> 16,
	};
}

static void set_tss(void)
{
	u64 base = (u32)&tss, limit = sizeof(tss) - 1;

	tss = (struct tss){
		.esp0 = (u32)kernel_stack_top,
		.ss0 = KERNEL_DS,
		.io_bitmap = sizeof(tss), /* beyond the limit: ring 3 may use no port */
	};
	gdt[TSS_SELECTOR / 8] = limit | (base & 0xFFFFFF) << 16 | 0x89ull << 40 | (base >> 24) << 56;
}

void trap_init(void)
{
	struct {
		u16 limit;
		u32 base;
	} __attribute__((packed)) idtr = { sizeof(idt) - 1, (u32)idt };

	for (u32 vector = 0; vector < 32; vector++)
		set_gate(vector, trap_stubs[vector], GATE_TRAP);
	set_gate(2, trap_stubs[2], GATE_INTERRUPT);
	/* Another fault before CR2 is read would overwrite it. */
	set_gate(14, trap_stubs[14], GATE_INTERRUPT);
	for (u32 vector = 3; vector <= 5; vector++)
		set_gate(vector, trap_stubs[vector], GATE_TRAP_USER);
	set_gate(TIMER_VECTOR, (u32)timer_interrupt, GATE_INTERRUPT);
	set_gate(SYSCALL_VECTOR, (u32)system_call, GATE_TRAP_USER);
	set_gate(LEAVE_USER_VECTOR, (u32)leave_user, GATE_INTERRUPT);
	asm volatile("lidt %0" : : "m"(idtr));

	set_tss();
	asm volatile("ltr %w0" : : "r"(TSS_SELECTOR));
}

static void wrmsr(u32 number, u32 value)
{
	asm volatile("wrmsr" : : "c"(number), "a"(value), "d"(0));
}

/* The stack of SYSENTER is the TSS itself: there the entry finds that of the current process. */
void enable_sep_cpu(void)
{
	wrmsr(MSR_IA32_SYSENTER_CS, KERNEL_CS);
	wrmsr(MSR_IA32_SYSENTER_ESP, (u32)&tss);
	wrmsr(MSR_IA32_SYSENTER_EIP, (u32)sysenter_entry);
}
