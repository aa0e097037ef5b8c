/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/* Knows %s, %u and %x. */
void printk(const char *format, ...) __attribute__((format(printf, 1, 2)));
