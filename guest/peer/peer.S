/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How another PC comes to run a machine that was booted elsewhere.
 *
 * A boot loader starts this; it waits until the harness has put the machine's memory in place,
 * with a copy of `peer` in a page of that machine's kernel, and goes there. `peer` turns the
 * machine's paging on (through a directory that also maps low memory one to one, for as long
 * as it takes to jump), loads its descriptor tables, and from then on calls what it is told to.
 * It may be copied anywhere: EBX holds its own address, physical first, then virtual.
 */
#define KERNEL_CS 0x10
#define KERNEL_DS 0x18
#define TSS_SELECTOR 0x60
#define MSR_EFER 0xC0000080
#define CR4_PGE 0x80

/* The mailbox, behind the code: PeerMailbox in harness/cpu/qemu_peer.py. */
#define MAILBOX 0x100
#define GO (MAILBOX + 0)
#define ESP (MAILBOX + 4)
#define EIP (MAILBOX + 8)
#define RESULT (MAILBOX + 12)
#define CR0 (MAILBOX + 16)
#define CR3 (MAILBOX + 20)
#define CR4 (MAILBOX + 24)
#define EFER (MAILBOX + 28)
#define FIRST_CR3 (MAILBOX + 32)
#define VIRTUAL (MAILBOX + 36)
#define GDTR (MAILBOX + 40) /* 6 bytes */
#define IDTR (MAILBOX + 48)
#define FAR (MAILBOX + 56) /* offset, selector */

	.section .multiboot, "a"
	.balign 4
	.long 0x1BADB002, 0, -0x1BADB002

	.text
	.globl startup
startup:
	cli
	cld
	/* Mask both interrupt controllers: the timer runs here, and ring 3 is entered with IF set. */
	movb $0xFF, %al
	outb %al, $0x21
	outb %al, $0xA1
	movl $1, waiting
1:	pause
	movl handoff, %ebx
	testl %ebx, %ebx
	jz 1b
	jmp *%ebx

	.balign 64
	.globl peer, peer_end
peer:
	movl CR4(%ebx), %eax
	testl %eax, %eax
	jz 1f
	movl %eax, %cr4
1:	movl EFER(%ebx), %eax
	testl %eax, %eax
	jz 2f
	movl $MSR_EFER, %ecx
	xorl %edx, %edx
	wrmsr
2:	movl FIRST_CR3(%ebx), %eax
	movl %eax, %cr3
	movl CR0(%ebx), %eax
	movl %eax, %cr0
	jmp 3f
3:	movl VIRTUAL(%ebx), %ebx
	leal 4f - peer(%ebx), %eax
	jmp *%eax

4:	movl CR3(%ebx), %eax
	movl %eax, %cr3
	lgdt GDTR(%ebx)
	lidt IDTR(%ebx)
	leal 5f - peer(%ebx), %eax
	movl %eax, FAR(%ebx)
	movl $KERNEL_CS, FAR + 4(%ebx)
	ljmp *FAR(%ebx)
5:	movl $KERNEL_DS, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	xorl %eax, %eax
	movl %eax, %fs
	movl %eax, %gs
	lldt %ax
	movl $TSS_SELECTOR, %eax
	ltr %ax

idle:	movl $0, GO(%ebx)
1:	pause
	cmpl $0, GO(%ebx)
	je 1b
	/* The tables were changed meanwhile: drop everything, globals too. */
	movl %cr3, %eax
	movl %eax, %cr3
	testl $CR4_PGE, CR4(%ebx)
	jz 2f
	movl %cr4, %eax
	xorl $CR4_PGE, %eax
	movl %eax, %cr4
	xorl $CR4_PGE, %eax
	movl %eax, %cr4
2:	movl ESP(%ebx), %esp
	jmp *EIP(%ebx)

/* The return address of what was called. */
	.globl peer_returned
peer_returned:
	call 1f
1:	popl %ebx
	subl $(1b - peer), %ebx
	movl %eax, RESULT(%ebx)
	jmp idle
peer_end:

	.data
	.balign 4
	.globl handoff, waiting
handoff:
	.long 0
waiting:
	.long 0
