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
#include "../../../crates/engine-ebpf/bpf/names.h"
#include "../../../crates/engine-ebpf/bpf/unredirectable.h"
#include "../../../crates/engine-ebpf/bpf/marks.h"

/* Filters' words, and those that amend them; of these there may be none. */
struct waylay_test_words {
	const __u64 *whole;
	size_t count;
	const __u64 *amendments;
	size_t amendment_count;
};

#define AMENDMENTS_AT 2

/* The words that are looked at, of each thread its own. */
static __thread struct waylay_test_words present;

static inline const __u64 *wl_chunk(__u32 tables, __u32 number)
{
	const __u64 *words = tables ? present.amendments : present.whole;
	size_t count = tables ? present.amendment_count : present.count;

	return number < count / WL_CHUNK ? words + (size_t)number * WL_CHUNK : NULL;
}

static void look_at(struct wl_query *q, const struct waylay_test_words *words)
{
	present = *words;
	q->whole.tables = 0;
	q->amended = words->amendment_count ? AMENDMENTS_AT : 0;
	q->amendments.tables = AMENDMENTS_AT;
}

/* What the programs ask the kernel. */
struct waylay_test_people {
	struct wl_who application;
	struct wl_who via;
	struct wl_address source;
	__u64 hosts[WL_LINEAGE];
	__u64 namespace; /* 0: the own one */
};

static void know_people(struct wl_query *q, const struct waylay_test_people *people)
{
	q->who = people->application;
	wl_know_who(q, WL_OF_APPLICATION);
	q->who = people->via;
	wl_know_who(q, WL_OF_VIA);
	__builtin_memcpy(q->hosts, people->hosts, sizeof(q->hosts));
	wl_know_hosts(q);
	if (people->namespace)
		wl_know_namespace(q, people->namespace);
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
__u32 waylay_test_classify_redirect(const struct waylay_test_words *words, const struct wl_leg *leg,
				    const struct waylay_test_people *people, __u64 skip)
{
	struct wl_query q = {};

	look_at(&q, words);
	wl_know_leg(&q, leg);
	know_people(&q, people);
	return wl_classify_redirect(&q, skip) ? q.filter : 0;
}

/* The id of the filter that speaks, and above it its errno if it blocks; 0: none. */
__u64 waylay_test_classify_auth(const struct waylay_test_words *words, const struct wl_leg *leg,
				const struct waylay_test_people *people)
{
	struct wl_query q = {};

	look_at(&q, words);
	wl_know_leg(&q, leg);
	know_people(&q, people);
	wl_classify_auth(&q, leg->redirected, leg->proxied);
	return wl_has_spoken(&q) ? q.blocked_by | (__u64)q.error_of_block << 32 : 0;
}

__u32 waylay_test_judge_socket(const struct wl_tables *t, const struct waylay_test_words *words, __u32 family,
			       __u32 type, __u32 protocol, const struct wl_who *maker, __u32 slot, int surroundings)
{
	struct wl_socket s = { .family = family, .type = type, .protocol = protocol };
	struct wl_query q = {};

	look_at(&q, words);
	q.who = *maker;
	wl_know_who(&q, WL_OF_VIA);
	wl_know_same(&q);
	return wl_judge_socket(t, &s, slot, &q, surroundings & 1, surroundings & 2);
}

struct waylay_test_answer {
	__u32 key_count;
	__u32 address_count;
	__u64 keys[WL_LINEAGE];
	__u32 ttls[WL_MAX_RECORDS];
	__u8 addresses[WL_MAX_RECORDS][16];
};

/* What a resolver's answer says of names that are asked for, as wl_learn() reads it. */
void waylay_test_read_answer(const struct waylay_test_words *words, const __u8 *bytes, size_t length,
			     struct waylay_test_answer *answer)
{
	static __thread struct wl_message m;
	struct wl_query q = {};

	look_at(&q, words);
	answer->key_count = answer->address_count = 0;
	m.length = length < WL_MESSAGE_BYTES ? length : WL_MESSAGE_BYTES;
	__builtin_memcpy(m.bytes, bytes, m.length);
	m.key_count = 0;
	if (!wl_read_question(&m))
		return;
	wl_find_keys(&m, q.whole.tables);
	if (q.amended)
		wl_find_keys(&m, q.amendments.tables);
	answer->key_count = m.key_count;
	__builtin_memcpy(answer->keys, m.keys, sizeof(m.keys));
	for (int i = 0; i < WL_MAX_RECORDS; i++) {
		int record = wl_read_record(&m);

		if (record == WL_NO_RECORD)
			break;
		if (record != WL_ADDRESS_RECORD)
			continue;
		answer->ttls[answer->address_count] = m.ttl;
		__builtin_memcpy(answer->addresses[answer->address_count++], m.address, 16);
	}
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
