/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The programs' pure headers, compiled for user space. */
#include <stdbool.h>
#include <stddef.h>
#include <linux/types.h>

#include "../../../crates/engine-ebpf/bpf/abi.h"
#include "../../../crates/engine-ebpf/bpf/siphash.h"
#include "../../../crates/engine-ebpf/bpf/handle.h"
#define WL_GLOBAL static
#include "../../../crates/engine-ebpf/bpf/lookup.h"
#include "../../../crates/engine-ebpf/bpf/classify.h"
#include "../../../crates/engine-ebpf/bpf/unredirectable.h"
#include "../../../crates/engine-ebpf/bpf/marks.h"

/* The words that are looked at, of each thread its own. */
static __thread const __u64 *present_words;
static __thread size_t present_count;

static inline const __u64 *wl_chunk(__u32 tables, __u32 number)
{
	(void)tables;
	return number < present_count / WL_CHUNK ? present_words + (size_t)number * WL_CHUNK : NULL;
}

/* What the programs ask the kernel. */
struct waylay_test_people {
	struct wl_who application;
	struct wl_who via;
	struct wl_address source;
};

static void know_people(struct wl_query *q, const struct waylay_test_people *people)
{
	q->who = people->application;
	wl_know(q, WL_OF_APPLICATION);
	q->who = people->via;
	wl_know(q, WL_OF_VIA);
	if (wl_asks_for_sources(q))
		wl_know_source(q, &people->source);
}

void waylay_test_siphash(__u64 k0, __u64 k1, const __u64 *words, __u64 *tag)
{
	wl_siphash128(k0, k1, words, tag);
}

int waylay_test_judge_handle(const struct wl_key *key, const struct wl_handle *handle)
{
	return wl_judge_handle(key, handle);
}

/* The id of the filter that redirects; 0: none. */
__u32 waylay_test_classify_redirect(const __u64 *words, size_t count, const struct wl_leg *leg,
				    const struct waylay_test_people *people, __u64 skip)
{
	struct wl_query q = {};

	present_words = words;
	present_count = count;
	wl_know_leg(&q, leg);
	know_people(&q, people);
	return wl_classify_redirect(&q, skip) ? q.filter : 0;
}

/* The id of the filter that blocks, and its errno above it; 0: none. */
__u64 waylay_test_classify_auth(const __u64 *words, size_t count, const struct wl_leg *leg,
				const struct waylay_test_people *people)
{
	struct wl_query q = {};

	present_words = words;
	present_count = count;
	wl_know_leg(&q, leg);
	know_people(&q, people);
	return wl_classify_auth(&q, leg->redirected, leg->proxied) ?
		       q.blocked_by | (__u64)q.error_of_block << 32 :
		       0;
}

__u32 waylay_test_judge_socket(const struct wl_tables *t, const __u64 *words, size_t count, __u32 family,
			       __u32 type, __u32 protocol, const struct wl_who *maker, __u32 slot, int surroundings)
{
	struct wl_socket s = { .family = family, .type = type, .protocol = protocol };
	struct wl_query q = {};

	present_words = words;
	present_count = count;
	q.who = *maker;
	wl_know(&q, WL_OF_VIA);
	wl_know_same(&q);
	return wl_judge_socket(t, &s, slot, &q, surroundings & 1, surroundings & 2);
}

int waylay_test_is_group(const __u8 *ip)
{
	return wl_is_group(ip);
}

int waylay_test_recognises(const struct wl_service *s, const struct wl_process *p, __u64 ancestor)
{
	return wl_recognises(s, p, ancestor);
}

size_t waylay_test_leg_size(void)
{
	return sizeof(struct wl_leg);
}
