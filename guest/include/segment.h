/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Selectors where Linux 2.4 has them; the low two bits of the user ones are ring 3. */
#pragma once

#define KERNEL_CS 0x10
#define KERNEL_DS 0x18
#define USER_CS 0x23
#define USER_DS 0x2B
#define TSS_SELECTOR 0x60
#define GDT_ENTRIES 14

#define TSS_ESP0 4 /* where the CPU finds the ring-0 stack when it leaves ring 3 */

/* Byte 5 of a gate: present, DPL, type. An interrupt gate clears IF, a trap gate does not. */
#define GATE_TRAP 0x8F
#define GATE_TRAP_USER 0xEF
#define GATE_INTERRUPT 0x8E
#define GATE_INTERRUPT_USER 0xEE

#define GENERAL_PROTECTION 13
#define TIMER_VECTOR 0x20
#define SYSCALL_VECTOR 0x80
#define LEAVE_USER_VECTOR 0x82
