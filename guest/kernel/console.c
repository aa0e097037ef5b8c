/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "console.h"
#include "hypercall.h"
#include "kernel.h"

static void print_string(const char *text)
{
	while (*text)
		outb(CONSOLE_PORT, *text++);
}

static void print_number(u32 value, u32 base)
{
	char digits[11];
	char *p = &digits[sizeof(digits) - 1];

	*p = 0;
	do {
		*--p = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	print_string(p);
}

void printk(const char *format, ...)
{
	__builtin_va_list arguments;

	__builtin_va_start(arguments, format);
	for (; *format; format++) {
		if (*format != '%') {
			outb(CONSOLE_PORT, *format);
			continue;
		}
		switch (*++format) {
		case 's':
			print_string(__builtin_va_arg(arguments, const char *));
			break;
		case 'u':
			print_number(__builtin_va_arg(arguments, u32), 10);
			break;
		case 'x':
			print_number(__builtin_va_arg(arguments, u32), 16);
			break;
		default:
			assert_failed("printk: unknown conversion");
		}
	}
	__builtin_va_end(arguments);
}

void assert_failed(const char *text)
{
	hypercall(HC_ASSERT_FAILED, (u32)text);
}
