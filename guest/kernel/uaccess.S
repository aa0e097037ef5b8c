/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * User memory from ring 0 (uaccess.h). Each instruction that touches it stands in the exception
 * table with the place to go on at when the page fault cannot be mended. There EDX holds what
 * the function returns of it, and a string instruction's ECX how much it had left to do.
 *
 * The arguments of every function are checked against addr_limit of the current task, whose
 * task_struct lies at the bottom of the kernel stack.
 */
#include <kernel_structs.h>
#include "exception_table.h"
#include "uaccess.h"

/* Goes to `bad` unless [EAX, EAX + size) ends at or below the limit. Spoils ECX and EDX. */
.macro check_range size, bad
	movl \size, %edx
	addl %eax, %edx
	jc \bad
	movl $-THREAD_SIZE, %ecx
	andl %esp, %ecx
	cmpl TASK_addr_limit(%ecx), %edx
	ja \bad
.endm

	.text

/* int get_user_N(const void *from, u32 *value) */
.macro get_user size, load
	.globl get_user_\size
get_user_\size:
	movl 4(%esp), %eax
	check_range $\size, bad_get_user
0:	\load (%eax), %edx
	may_fault 0b, bad_get_user
	movl 8(%esp), %eax
	movl %edx, (%eax)
	xorl %eax, %eax
	ret
.endm

	get_user 1, movzbl
	get_user 2, movzwl
	get_user 4, movl

bad_get_user:
	movl 8(%esp), %eax
	movl $0, (%eax)
	movl $-EFAULT, %eax
	ret

/* int put_user_N(u32 value, void *to) */
.macro put_user size, store, value
	.globl put_user_\size
put_user_\size:
	movl 8(%esp), %eax
	check_range $\size, bad_put_user
	movl 4(%esp), %edx
0:	\store \value, (%eax)
	may_fault 0b, bad_put_user
	xorl %eax, %eax
	ret
.endm

	put_user 1, movb, %dl
	put_user 2, movw, %dx
	put_user 4, movl, %edx

bad_put_user:
	movl $-EFAULT, %eax
	ret

/* Copies [ESI] to [EDI], 4(%esp)-style size in EAX: words, then the bytes that remain. A fault
   goes to `fixup` with the number of bytes left in ECX. */
.macro copy_user fixup
	movl %eax, %ecx
	andl $3, %eax
	shrl $2, %ecx
0:	rep movsl
	movl %eax, %ecx
1:	rep movsb
	may_fault 0b, 2f
	may_fault 1b, \fixup
	jmp 3f
2:	leal (%eax,%ecx,4), %ecx
	jmp \fixup
3:
.endm

/* u32 copy_to_user(void *to, const void *from, u32 size) */
	.globl copy_to_user
copy_to_user:
	movl 4(%esp), %eax
	check_range 12(%esp), 9f
	pushl %esi
	pushl %edi
	movl 12(%esp), %edi
	movl 16(%esp), %esi
	movl 20(%esp), %eax
	copy_user 8f
8:	movl %ecx, %eax
	popl %edi
	popl %esi
	ret
9:	movl 12(%esp), %eax
	ret

/* u32 copy_from_user(void *to, const void *from, u32 size) */
	.globl copy_from_user
copy_from_user:
	movl 8(%esp), %eax
	pushl %esi
	pushl %edi
	movl 12(%esp), %edi
	check_range 20(%esp), 7f
	movl %eax, %esi
	movl 20(%esp), %eax
	copy_user 8f
	xorl %eax, %eax
	jmp 9f
7:	movl 20(%esp), %ecx
8:	movl %ecx, %edx			/* a caller that looks away shall not read what was there */
	xorl %eax, %eax
	rep stosb
	movl %edx, %eax
9:	popl %edi
	popl %esi
	ret

/* u32 clear_user(void *to, u32 size) */
	.globl clear_user
clear_user:
	movl 4(%esp), %eax
	check_range 8(%esp), 9f
	pushl %edi
	movl %eax, %edi
	movl 12(%esp), %edx
	movl %edx, %ecx
	andl $3, %edx
	shrl $2, %ecx
	xorl %eax, %eax
0:	rep stosl
	movl %edx, %ecx
1:	rep stosb
	may_fault 0b, 2f
	may_fault 1b, 3f
	jmp 3f
2:	leal (%edx,%ecx,4), %ecx
3:	movl %ecx, %eax
	popl %edi
	ret
9:	movl 8(%esp), %eax
	ret

/* int strncpy_from_user(char *to, const char *from, u32 size) */
	.globl strncpy_from_user
strncpy_from_user:
	movl 8(%esp), %eax
	check_range $1, 9f
	pushl %esi
	pushl %edi
	movl 12(%esp), %edi
	movl %eax, %esi
	movl 20(%esp), %ecx
	testl %ecx, %ecx
	jz 2f
0:	movb (%esi), %al
	may_fault 0b, 8f
	incl %esi
	movb %al, (%edi)
	incl %edi
	testb %al, %al
	jz 2f
	decl %ecx
	jnz 0b
2:	movl 20(%esp), %eax
	subl %ecx, %eax
	popl %edi
	popl %esi
	ret
8:	popl %edi
	popl %esi
9:	movl $-EFAULT, %eax
	ret

/* u32 strnlen_user(const char *text, u32 size) */
	.globl strnlen_user
strnlen_user:
	movl 4(%esp), %eax
	check_range $1, 9f
	pushl %edi
	movl %eax, %edi
	movl 12(%esp), %edx
	movl %edx, %ecx
	xorl %eax, %eax
	cmpl $1, %edx			/* clears ZF unless size is 1: for a size of 0 */
0:	repne scasb
	may_fault 0b, 8f
	setne %al
	subl %ecx, %edx
	addl %edx, %eax
	popl %edi
	ret
8:	popl %edi
9:	xorl %eax, %eax
	ret

/* Where the harness puts what the kernel copies to a program, and finds what it copied from one. */
	.section .bss
	.balign 4096
	.globl uaccess_buffer
uaccess_buffer:
	.skip 4096
