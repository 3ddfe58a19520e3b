/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * SipHash-2-4 with a 128-bit result over whole 64-bit words, after Aumasson
 * and Bernstein (https://www.aumasson.jp/siphash/siphash.pdf). Also compiled
 * for user space, where a test compares it with an independent implementation.
 */
#pragma once

#define WL_ROTL(x, b) (((x) << (b)) | ((x) >> (64 - (b))))

struct wl_sip {
	__u64 v0, v1, v2, v3;
};

static inline __attribute__((always_inline)) void wl_sip_round(struct wl_sip *s)
{
	s->v0 += s->v1;
	s->v1 = WL_ROTL(s->v1, 13) ^ s->v0;
	s->v0 = WL_ROTL(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = WL_ROTL(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = WL_ROTL(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = WL_ROTL(s->v1, 17) ^ s->v2;
	s->v2 = WL_ROTL(s->v2, 32);
}

static inline __attribute__((always_inline)) void wl_sip_absorb(struct wl_sip *s, __u64 word)
{
	s->v3 ^= word;
	wl_sip_round(s);
	wl_sip_round(s);
	s->v0 ^= word;
}

static inline __attribute__((always_inline)) __u64 wl_sip_squeeze(struct wl_sip *s)
{
	wl_sip_round(s);
	wl_sip_round(s);
	wl_sip_round(s);
	wl_sip_round(s);
	return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/* Words of the authenticated part of struct wl_handle: all but the tag. */
#define WL_HANDLE_WORDS 4

static inline __attribute__((always_inline)) void wl_siphash128(__u64 k0, __u64 k1, const __u64 *words,
								  __u64 tag[2])
{
	struct wl_sip s = {
		.v0 = k0 ^ 0x736f6d6570736575ULL,
		.v1 = k1 ^ 0x646f72616e646f6dULL ^ 0xee,
		.v2 = k0 ^ 0x6c7967656e657261ULL,
		.v3 = k1 ^ 0x7465646279746573ULL,
	};

	for (int i = 0; i < WL_HANDLE_WORDS; i++)
		wl_sip_absorb(&s, words[i]);
	wl_sip_absorb(&s, (__u64)(WL_HANDLE_WORDS * 8) << 56);
	s.v2 ^= 0xee;
	tag[0] = wl_sip_squeeze(&s);
	s.v1 ^= 0xdd;
	tag[1] = wl_sip_squeeze(&s);
}
