/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From a multiboot loader, or from the harness in the same state, to C: flat protected mode with
 * paging off. The harness is told by EAX or by the command line (conformance.c).
 */
#include "conformance.h"

#define MULTIBOOT_MAGIC 0x1BADB002
#define MULTIBOOT_FLAGS 0

	.section .multiboot, "a"
	.balign 4
	.long MULTIBOOT_MAGIC
	.long MULTIBOOT_FLAGS
	.long -(MULTIBOOT_MAGIC + MULTIBOOT_FLAGS)

	.text
	.globl startup
startup:
	cli
	cld
	movl $kernel_stack_top, %esp
	pushl %ebx			/* the multiboot information */
	pushl %eax			/* the magic number */
	lgdt gdt_register
	ljmp $KERNEL_CS, $1f
1:	movl $KERNEL_DS, %eax
	movl %eax, %ss
	/* DPL 3 will do in ring 0 too: no pass has to change these. */
	movl $USER_DS, %eax
	movl %eax, %ds
	movl %eax, %es
	xorl %eax, %eax
	movl %eax, %fs
	movl %eax, %gs
	pushl $0
	popfl
	call descriptors_init
	lidt idt_register
	movl $TSS_SELECTOR, %eax
	ltr %ax
	popl %eax
	popl %edx
	call conformance_main
1:	hlt
	jmp 1b

	.data
	.balign 8
	.globl gdt
gdt:	.quad 0
	.quad 0
	.quad 0x00CF9B000000FFFF	/* KERNEL_CS */
	.quad 0x00CF93000000FFFF	/* KERNEL_DS */
	.quad 0x00CFFB000000FFFF	/* USER_CS */
	.quad 0x00CFF3000000FFFF	/* USER_DS */
	.quad 0				/* TSS_SELECTOR: descriptors_init */
	.quad 0				/* LDT_SELECTOR: use_descriptor */
gdt_end:
gdt_register:
	.word gdt_end - gdt - 1
	.long gdt
	.balign 4
idt_register:
	.word IDT_ENTRIES * 8 - 1
	.long idt

	.section .bss
	.balign 4096
	.globl kernel_stack_top, user_stack_top
	.skip 4096
kernel_stack_top:
	.skip 4096
user_stack_top:
