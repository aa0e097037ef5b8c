/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The SHA-256 of standard input, as FIPS 180-4 defines it: much computing, few system calls. */
#include "syscalls.h"

#define BLOCK 64
#define BUFFER (16 * 1024)

static const u32 constants[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};
static u32 state[8] = {
	0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};
static u8 buffer[BUFFER + 2 * BLOCK];

static u32 rotated(u32 word, int bits)
{
	return word >> bits | word << (32 - bits);
}

static u32 big_endian(const u8 *bytes)
{
	return (u32)bytes[0] << 24 | (u32)bytes[1] << 16 | (u32)bytes[2] << 8 | bytes[3];
}

static void add_block(const u8 *block)
{
	u32 w[64], v[8];

	for (int t = 0; t < 64; t++) {
		if (t < 16) {
			w[t] = big_endian(block + 4 * t);
			continue;
		}
		u32 early = w[t - 15], late = w[t - 2];

		w[t] = w[t - 16] + w[t - 7] +
		       (rotated(early, 7) ^ rotated(early, 18) ^ early >> 3) +
		       (rotated(late, 17) ^ rotated(late, 19) ^ late >> 10);
	}
	for (int i = 0; i < 8; i++)
		v[i] = state[i];
	for (int t = 0; t < 64; t++) {
		u32 a = v[0], e = v[4];
		u32 first = v[7] + (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) +
			    ((e & v[5]) ^ (~e & v[6])) + constants[t] + w[t];
		u32 second = (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) +
			     ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));

		for (int i = 7; i > 0; i--)
			v[i] = v[i - 1];
		v[4] += first;
		v[0] = first + second;
	}
	for (int i = 0; i < 8; i++)
		state[i] += v[i];
}

/* The last bytes, a one bit, zeros, and the length in bits. */
static void finish(u32 left, u32 total)
{
	u32 end = left + 9 <= BLOCK ? BLOCK : 2 * BLOCK;

	buffer[left] = 0x80;
	for (u32 i = left + 1; i < end; i++)
		buffer[i] = 0;
	for (int i = 0; i < 4; i++)
		buffer[end - 1 - i] = (total << 3) >> 8 * i;
	buffer[end - 5] = total >> 29;
	for (u32 at = 0; at < end; at += BLOCK)
		add_block(buffer + at);
}

int main(int argc, char **argv)
{
	u32 left = 0, total = 0;
	char text[2 * 32 + 1];
	int got;

	(void)argc, (void)argv;
	while ((got = syscall3(SYS_read, 0, (u32)(buffer + left), BUFFER)) > 0) {
		u32 at = 0, length = left + (u32)got;

		total += (u32)got;
		for (; at + BLOCK <= length; at += BLOCK)
			add_block(buffer + at);
		for (left = 0; at < length; at++)
			buffer[left++] = buffer[at];
	}
	if (got < 0)
		return 1;
	finish(left, total);
	for (int i = 0; i < 64; i++)
		text[i] = "0123456789abcdef"[state[i / 8] >> (28 - 4 * (i % 8)) & 15];
	text[64] = '\n';
	return write(1, text, sizeof(text)) == sizeof(text) ? 0 : 1;
}
