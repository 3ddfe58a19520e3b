/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The words that filters are compiled to, and searching the sorted arrays in them.
 * Pure: whoever includes it says where the words are, by wl_chunk().
 */
#pragma once

#define WL_CHUNK 512 /* words that are looked up at once */

/* The chunk of that number. */
static inline __attribute__((always_inline)) const __u64 *wl_chunk(__u32 tables, __u32 number);

#ifndef WL_GLOBAL
/* A global function is verified once, not once per call. */
#define WL_GLOBAL __attribute__((noinline))
#endif

/* Unrolled, the first loops would take more of the stack than there is; of the others the
 * verifier follows every turn, and the fewer there are the sooner it has done so. */
#ifdef __clang__
#define WL_KEEP_LOOP _Pragma("clang loop unroll(disable)")
#define WL_UNROLL_LOOP _Pragma("clang loop unroll_count(8)")
#else
#define WL_KEEP_LOOP
#define WL_UNROLL_LOOP
#endif

#define WL_INLINE static inline __attribute__((always_inline))

/* Without a branch, which the verifier would follow both ways: 1 or 0. */
WL_INLINE __u64 wl_less(__u64 a, __u64 b)
{
	__u64 less = ((~a & b) | ((~a | b) & (a - b))) >> 63;

	asm volatile("" : "+r"(less));
	return less;
}

WL_INLINE __u64 wl_word(__u32 tables, __u64 at)
{
	const __u64 *chunk = wl_chunk(tables, at / WL_CHUNK);

	return chunk ? chunk[at % WL_CHUNK] : 0;
}

/* Goes up by several steps at once: the processor waits for all their words together, where halving would wait twice.
 * What is before `at` is not greater; the words end at `end`. */
WL_INLINE __u64 wl_go_up(const __u64 *chunk, __u64 at, __u64 end, __u64 step, int most, __u64 number)
{
	__u64 steps = 0;

	for (int i = 1; i <= most; i++) {
		__u64 up_to = at + i * step;

		steps += ((end - up_to) >> 63 | wl_less(number, chunk[(up_to - 1) & (WL_CHUNK - 1)])) ^ 1;
	}
	return at + steps * step;
}

/* How many of so many sorted words, all in one chunk, are not greater. */
WL_INLINE __u64 wl_count_up_to(__u32 tables, __u64 offset, __u64 count, __u64 number)
{
	const __u64 *chunk = wl_chunk(tables, offset / WL_CHUNK);
	__u64 at = offset, end = offset + count;

	if (!chunk)
		return 0;
	if (count >= 32) {
		at = wl_go_up(chunk, at, end, 128, 4, number);
		at = wl_go_up(chunk, at, end, 32, 3, number);
	}
	at = wl_go_up(chunk, at, end, 8, 3, number);
	at = wl_go_up(chunk, at, end, 2, 3, number);
	return wl_go_up(chunk, at, end, 1, 1, number) - offset;
}

/* How many of a sorted array's words are not greater. */
WL_GLOBAL __u32 wl_search(__u32 tables, __u64 array, __u64 number)
{
	__u64 offset = (__u32)array, chunk = 0;

	/* From the level that has the first words of the next one's chunks. */
	WL_KEEP_LOOP
	for (int shift = 18; shift >= 0; shift -= 9) {
		__u64 size = ((array >> 32) + (1ULL << shift) - 1) >> shift;
		__u64 rest = size - chunk * WL_CHUNK, here;

		if (shift && size <= 1)
			continue;
		if (rest > WL_CHUNK)
			rest = WL_CHUNK;
		here = wl_count_up_to(tables, offset + chunk * WL_CHUNK, rest, number);
		chunk = chunk * WL_CHUNK + here;
		if (shift && here)
			chunk--;
		offset += (size + WL_CHUNK - 1) / WL_CHUNK * WL_CHUNK;
	}
	return chunk;
}
