/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The first serial line, 115200 baud, 8N1. */
#include "conformance.h"

#define COM1 0x3F8
#define LINE_STATUS (COM1 + 5)
#define TRANSMITTER_EMPTY 0x20
#define PATIENCE 1000000

void console_init(void)
{
	outb(COM1 + 1, 0);
	outb(COM1 + 3, 0x80);
	outb(COM1, 1);
	outb(COM1 + 1, 0);
	outb(COM1 + 3, 3);
	outb(COM1 + 2, 7);
}

static void put(char c)
{
	/* A machine without the line must not hold us for ever. */
	for (u32 n = 0; n < PATIENCE && !(inb(LINE_STATUS) & TRANSMITTER_EMPTY); n++)
		;
	outb(COM1, (u8)c);
}

static void put_string(const char *text)
{
	for (; *text; text++) {
		if (*text == '\n')
			put('\r');
		put(*text);
	}
}

static void put_number(u32 value, u32 base)
{
	char digits[11];
	char *p = &digits[sizeof(digits) - 1];

	*p = 0;
	do {
		*--p = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	put_string(p);
}

/* Knows %s, %u and %x. */
void printk(const char *format, ...)
{
	__builtin_va_list arguments;
	char one[2] = {0, 0};

	__builtin_va_start(arguments, format);
	for (; *format; format++) {
		if (*format != '%') {
			one[0] = *format;
			put_string(one);
			continue;
		}
		switch (*++format) {
		case 's':
			put_string(__builtin_va_arg(arguments, const char *));
			break;
		case 'u':
			put_number(__builtin_va_arg(arguments, u32), 10);
			break;
		case 'x':
			put_number(__builtin_va_arg(arguments, u32), 16);
			break;
		}
	}
	__builtin_va_end(arguments);
}
