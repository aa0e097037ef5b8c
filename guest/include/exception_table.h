/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Instructions of ring 0 that may fault, for assembly sources. When one does and nobody can mend
 * it, the trap handler lets the code go on at its fixup.
 */
#pragma once

/* The table is searched by bisection: put entries into it in the order of their addresses. */
.macro may_fault at, fixup
	.section __ex_table, "a"
	.balign 4
	.long \at, \fixup
	.text
.endm
