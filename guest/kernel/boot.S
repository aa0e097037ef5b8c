/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From flat protected mode with paging off, at a physical address, to C at 3 GiB and above.
 *
 * The image is linked high, so until the jump every address needs pa(). The tables at
 * swapper_pg_dir map the first 8 MiB twice, here and at PAGE_OFFSET: the instruction after
 * paging goes on is still fetched from the low address.
 */
#include "hypercall.h"
#include "page.h"
#include "segment.h"

#define pa(address) ((address) - PAGE_OFFSET)

	.section .head.text, "ax"
	.globl startup_32
startup_32:
	cld
	lgdt pa(gdt_low)
	ljmp $KERNEL_CS, $pa(1f)
1:	movl $KERNEL_DS, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	xorl %eax, %eax
	movl %eax, %fs
	movl %eax, %gs

	movl $SWAPPER_PG_DIR, %eax
	movl %eax, %cr3

	/* Zero on the first boot: a CPU without CR4 must not be asked for it. A CPU that joins
	   a running kernel needs PSE and PAE before it can read that kernel's tables. */
	cmpl $0, pa(SYM_mmu_cr4_features)
	je 2f
	movl %cr4, %eax
	orl pa(SYM_mmu_cr4_features), %eax
	movl %eax, %cr4

2:	movl %cr0, %eax
	orl $(CR0_PG | CR0_WP | CR0_NE), %eax
	movl %eax, %cr0
	jmp 3f			/* drops what was prefetched before paging */
3:	movl $4f, %eax
	jmp *%eax

4:	movl $kernel_stack_top, %esp
	lgdt gdt_high
	pushl $0
	popfl
	call trap_init

	hypercall HC_START_KERNEL
	testl %eax, %eax	/* has the kernel a page from which programs come by SYSENTER? */
	jz 5f
	call enable_sep_cpu

5:	movl $kernel_main, %eax
	testl %eax, %eax	/* weak: 0 when the image brings no program */
	jz idle
	call *%eax
	movl %eax, %ebx
	hypercall HC_EXIT
idle:	hypercall HC_IDLE
	jmp idle

/* The return address of every function that the harness calls. */
	.text
	.globl kernel_return
kernel_return:
	movl %eax, %ebx
	hypercall HC_RETURN
	jmp idle

	.weak kernel_main

	.data
	.balign 8
	.globl gdt
gdt:	.quad 0
	.quad 0
	.quad 0x00CF9A000000FFFF	/* KERNEL_CS */
	.quad 0x00CF92000000FFFF	/* KERNEL_DS */
	.quad 0x00CFFA000000FFFF	/* USER_CS */
	.quad 0x00CFF2000000FFFF	/* USER_DS */
	.fill GDT_ENTRIES - 6, 8, 0	/* the TSS descriptor is among them: trap_init */
gdt_high:
	.word GDT_ENTRIES * 8 - 1
	.long gdt
	.balign 4
gdt_low:
	.word GDT_ENTRIES * 8 - 1
	.long pa(gdt)

/* The first process, which the kernel has filled already, and its stack above it. */
	.globl kernel_stack, kernel_stack_top
	.set kernel_stack, KERNEL_STACK
	.set kernel_stack_top, KERNEL_STACK + THREAD_SIZE
