/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The first filter that matches, found in words that user space has compiled
 * (`waylay_core::Index`, which tells their form and is compared with this).
 * Pure: whoever includes it says where the words are, by wl_chunk().
 *
 * A search is long and its steps are many, so its state is in a `wl_query` that
 * is not on the stack, and each step is a function that is verified once.
 *
 * Where filters have changed since the whole was compiled, there are a few words
 * more, which have what was added and say what was taken away. Then these are
 * searched after the others, for what comes before what has been found.
 */
#pragma once

#include "words.h"

#define WL_MAX_STEPS 2048 /* beginnings, nodes, and blocks twice */
#define WL_MAX_AMENDED 256 /* the same of amendments */
#define WL_STEPS_AT_ONCE 4
#define WL_MAX_LEAF 16
#define WL_BLOCK_WORDS 4
#define WL_NO_RANK 0xffffff
#define WL_STRIDE 16 /* places of a lineage */
#define WL_MAX_QUESTIONS 17 /* of one filter: one for each field and lineage */

enum wl_field {
	WL_FIELD_REMOTE = 0,
	WL_FIELD_PORT = 1,
	WL_FIELD_PROTOCOL = 2,
	WL_FIELD_FLAGS = 3,
	WL_FIELD_LOCAL = 4,
	WL_FIELD_APPLICATION = 5, /* and three more: executable, user, group, command */
	WL_FIELD_VIA = 9,	    /* the same */
	WL_FIELD_NAMESPACE = 13,
	WL_FIELDS = 14,
};

/* Of what a leg may have several: somebody's cgroups, and what covers the names of
 * its destination. */
enum wl_lineage {
	WL_OF_APPLICATION = 0,
	WL_OF_VIA = 1,
	WL_OF_HOSTS = 2,
	WL_LINEAGES = 3,
};

enum wl_directory {
	WL_AT_REMOTE = 0,
	WL_AT_LOCAL = 3,
	WL_AT_FILES = 6,
	WL_AT_COMMANDS = 9,
	WL_AT_CGROUPS = 12,
	WL_AT_NAMESPACES = 14,
	WL_AT_HOSTS = 16,
	WL_AT_LAYERS = 18, /* a word for everybody, and one for each lineage */
	WL_AT_REMOVED = 30, /* of amendments: the ranks that the other words have in vain, for each layer */
};

enum wl_layer {
	WL_LAYER_REDIRECT = 0,
	WL_LAYER_AUTH = 1,
	WL_LAYER_COVERS = 2,
};

enum wl_node {
	WL_NODE_SPLIT = 1,
	WL_NODE_DIRECT = 2,
	WL_NODE_LEAF = 3,
	WL_NODE_BLOCK = 4,
};

enum wl_question {
	WL_IN_RANGE = 0,
	WL_IN_LIST = 1,
	WL_IN_LINEAGE = 2,
	WL_IN_NO_LINEAGE = 3,
};

/* A process, as filters ask about it. */
struct wl_who {
	__u64 exe_device;
	__u64 exe_inode;
	__u64 command[2];
	__u64 lineage[WL_LINEAGE]; /* its cgroups, from the root; 0: no more */
	__u32 uid;
	__u32 gid;
};

/* What is known of one connect(). */
struct wl_leg {
	struct wl_address remote;
	struct wl_process caller;
	__u32 caller_slot; /* WL_NO_SLOT unless a service calls */
	__u32 protocol;
	__u32 redirected;
	__u32 proxied;
};

/* A search of one set of words, on its way. */
struct wl_search {
	__u32 tables;	  /* which set */
	__u32 removed_in; /* which set has `removed` */
	__u32 fields[16];
	__u32 lineages[4 * WL_STRIDE]; /* numbers of each; 0: not named by any condition */
	__u64 at;
	__u64 candidate;
	__u64 found; /* a rank */
	__u64 rule;
	__u64 skip; /* groups that are left out */
	__u64 from; /* the first rank that counts */
	__u64 block; /* a node that is to be looked through; 0: none */
	__u64 left[WL_BLOCK_WORDS]; /* of a block: filters whose turn is still to come */
	__u64 removed; /* a list of ranks that do not count; 0: none */
	__u64 named;  /* places of lineages that have a number, a bit each */
	__u64 places; /* of those, where a search has yet to begin */
	__u32 begun;  /* whether it has begun with what is for everybody */
	__u32 layer;
};

/* What is asked, and the answer. */
struct wl_query {
	__u32 busy;
	__u32 amended; /* whether there are amendments */
	struct wl_search whole;
	struct wl_search amendments;
	struct wl_who who; /* who is to be numbered */
	struct wl_leg leg; /* what is asked about; searches know it by its numbers */
	__u32 foreign; /* of another network namespace: only words that ask for such count */
	__u64 hosts[WL_LINEAGE]; /* keys of the patterns that cover its names; 0: none */
	/* The answer. */
	__u32 filter;
	__u32 group; /* slot of the service, or rank of the sublayer */
	__u32 action;
	__u32 hard;
	__u32 error;
	__u32 next_group;
	/* Of the auth layer. */
	__u32 blocked_by;
	__u32 error_of_block; /* 0: nobody blocks */
};

/* Numbers of facts. */

WL_INLINE __u64 wl_half(const __u8 *ip)
{
	const __u32 *words = (const __u32 *)ip;

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return (__u64)__builtin_bswap32(words[0]) << 32 | __builtin_bswap32(words[1]);
#else
	return (__u64)words[0] << 32 | words[1];
#endif
}

WL_GLOBAL __u32 wl_number_of_address(__u32 tables, __u32 at, const struct wl_address *address)
{
	__u64 upper, lower, entry;

	if (!address)
		return 0;
	upper = wl_half(address->ip);
	lower = wl_half(address->ip + 8);
	if (!upper && lower >> 32 == 0xffff)
		return wl_search(tables, wl_word(tables, at), (__u32)lower);
	entry = wl_word(tables, at + 2) + 2 * (__u64)wl_search(tables, wl_word(tables, at + 1), upper);
	return wl_word(tables, entry) + wl_search(tables, wl_word(tables, entry + 1), lower);
}

WL_INLINE __u64 wl_digest(__u64 a, __u64 b, __u64 salt)
{
	__u64 mixed = a * 0x9e3779b97f4a7c15 ^ (b + salt);

	mixed = (mixed ^ mixed >> 33) * 0xff51afd7ed558ccd;
	mixed = (mixed ^ mixed >> 33) * 0xc4ceb9fe1a85ec53;
	return mixed ^ mixed >> 33;
}

/* Of a file or a command. */
WL_GLOBAL __u32 wl_number_of_name(__u32 tables, __u32 at, __u64 a, __u64 b)
{
	__u64 digests = wl_word(tables, at), names;
	__u64 number;

	if (!digests)
		return 0;
	number = wl_search(tables, digests, wl_digest(a, b, wl_word(tables, at + 2)));
	if (!number)
		return 0;
	names = wl_word(tables, at + 1) + 2 * (number - 1);
	return wl_word(tables, names) == a && wl_word(tables, names + 1) == b ? number : 0;
}

/* Of a cgroup, a network namespace, or a pattern of hosts. */
WL_GLOBAL __u32 wl_number_of_id(__u32 tables, __u32 at, __u64 id)
{
	__u64 number = wl_search(tables, wl_word(tables, at), id);

	if (!number || wl_word(tables, wl_word(tables, at + 1) + number - 1) != id)
		return 0;
	return number;
}

/* Bits in memory, and read there each time: of what is in a register older verifiers
 * would follow every combination. */
WL_INLINE __u64 wl_named_places(const struct wl_search *s, __u32 lineage)
{
	return *(const volatile __u64 *)&s->named >> lineage * WL_STRIDE & 0xffff;
}

WL_INLINE void wl_unname(struct wl_search *s, __u32 lineage)
{
	*(volatile __u64 *)&s->named &= ~(0xffffULL << lineage * WL_STRIDE);
}

/* The number of a place of a lineage; 0: none. */
WL_INLINE void wl_name(struct wl_search *s, __u32 lineage, __u32 place, __u32 number)
{
	__u32 at = (lineage & 3) * WL_STRIDE + place;

	s->lineages[at] = number;
	*(volatile __u64 *)&s->named |= wl_less(0, *(volatile __u32 *)&s->lineages[at]) << at;
}

/* Numbers somebody, as the application or as who dials. */
WL_GLOBAL int wl_know(struct wl_search *s, const struct wl_who *who, __u32 lineage)
{
	__u32 base, tables;

	if (!s || !who)
		return 0;
	tables = s->tables;
	lineage &= 1;
	wl_unname(s, lineage);
	base = lineage ? WL_FIELD_VIA : WL_FIELD_APPLICATION;
	s->fields[base] = wl_number_of_name(tables, WL_AT_FILES, who->exe_device, who->exe_inode);
	s->fields[base + 1] = who->uid;
	s->fields[base + 2] = who->gid;
	s->fields[base + 3] = wl_number_of_name(tables, WL_AT_COMMANDS, who->command[0], who->command[1]);
	if (!wl_word(tables, WL_AT_CGROUPS))
		return 0;
	for (int i = 0; i < WL_LINEAGE; i++)
		wl_name(s, lineage, i,
			who->lineage[i] ? wl_number_of_id(tables, WL_AT_CGROUPS, who->lineage[i]) : 0);
	return 0;
}

/* Numbers `who`. */
WL_INLINE int wl_know_who(struct wl_query *q, __u32 lineage)
{
	wl_know(&q->whole, &q->who, lineage);
	return q->amended ? wl_know(&q->amendments, &q->who, lineage) : 0;
}

/* Whether there are conditions of a kind, by its place in the directory. */
WL_INLINE bool wl_is_asked_for(const struct wl_query *q, __u32 at)
{
	return wl_word(q->whole.tables, at) || (q->amended && wl_word(q->amendments.tables, at));
}

/* The application is who dials. */
WL_INLINE void wl_know_same_in(struct wl_search *s)
{
	for (int i = 0; i < 4; i++)
		s->fields[WL_FIELD_APPLICATION + i] = s->fields[WL_FIELD_VIA + i];
	wl_unname(s, WL_OF_APPLICATION);
	if (!wl_named_places(s, WL_OF_VIA))
		return;
	for (int i = 0; i < WL_LINEAGE; i++)
		wl_name(s, WL_OF_APPLICATION, i, s->lineages[WL_STRIDE + i]);
}

WL_GLOBAL int wl_know_same(struct wl_query *q)
{
	if (!q)
		return 0;
	wl_know_same_in(&q->whole);
	if (q->amended)
		wl_know_same_in(&q->amendments);
	return 0;
}

/* Filters. */

/* Whether something of a lineage is on a list. */
WL_INLINE bool wl_is_in(const struct wl_search *s, __u32 lineage, __u64 list)
{
	WL_KEEP_LOOP
	for (int i = 0; i < WL_LINEAGE; i++) {
		__u32 number = s->lineages[(lineage & 3) * WL_STRIDE + i];

		if (wl_named_places(s, lineage & 3) >> i & 1 && wl_search(s->tables, list, number) & 1)
			return true;
	}
	return false;
}

WL_GLOBAL int wl_holds(const struct wl_search *s, __u64 question, __u64 against)
{
	__u32 about = question >> 8, number;

	if (!s)
		return 0;
	number = s->fields[about & 15];
	switch (question & 0xff) {
	case WL_IN_RANGE:
		return number >= (__u32)against && number <= against >> 32;
	case WL_IN_LIST:
		return wl_search(s->tables, against, number) & 1;
	case WL_IN_LINEAGE:
		return wl_is_in(s, about, against);
	case WL_IN_NO_LINEAGE:
		return !wl_is_in(s, about, against);
	}
	return false;
}

/* Whether nothing that comes after a candidate counts any more. It is asked all
 * that its filter asks, whatever way has led there. */
WL_GLOBAL int wl_weigh(struct wl_search *s, __u64 candidate)
{
	const __u64 *chunk;

	if (!s || (candidate >> 32 & WL_NO_RANK) >= s->found)
		return 1;
	if ((candidate >> 32 & WL_NO_RANK) < s->from || s->skip >> (candidate >> 56 & 63) & 1)
		return 0;
	chunk = wl_chunk(s->tables, (__u32)candidate / WL_CHUNK);
	if (!chunk)
		return 0;
	s->candidate = candidate;
	WL_KEEP_LOOP
	for (__u32 i = 0; i < WL_MAX_QUESTIONS; i++) {
		__u32 at = (__u32)s->candidate;

		if (i >= (__u8)chunk[at % WL_CHUNK])
			break;
		at += 2 + 2 * i;
		if (!wl_holds(s, chunk[at % WL_CHUNK], chunk[(at + 1) % WL_CHUNK]))
			return 0;
	}
	if (s->removed && wl_search(s->removed_in, s->removed, s->candidate >> 32 & WL_NO_RANK) & 1)
		return 0;
	s->found = s->candidate >> 32 & WL_NO_RANK;
	s->rule = (__u32)s->candidate;
	return 1;
}

/* The number of the lowest bit, without a branch. */
WL_INLINE __u64 wl_lowest(__u64 bits)
{
	__u64 low = bits & -bits;

	return (wl_less(0, low & 0xaaaaaaaaaaaaaaaa)) | wl_less(0, low & 0xcccccccccccccccc) << 1 |
	       wl_less(0, low & 0xf0f0f0f0f0f0f0f0) << 2 | wl_less(0, low & 0xff00ff00ff00ff00) << 3 |
	       wl_less(0, low & 0xffff0000ffff0000) << 4 | wl_less(0, low & 0xffffffff00000000) << 5;
}

/* Which of so many filters are in a word of a block's rows. */
WL_INLINE __u64 wl_there_are(__u64 count, __u64 word)
{
	if (count >= 64 * word + 64)
		return ~0ULL;
	return count > 64 * word ? ~0ULL >> (64 - (count & 63)) : 0;
}

/* Of a block: leaves those that match by one field, whether there are any. */
WL_GLOBAL int wl_meet_row(struct wl_search *s, __u64 edges, __u64 rows)
{
	const __u64 *chunk;
	__u64 row, any = 0;

	if (!s)
		return 0;
	row = (__u32)rows + wl_search(s->tables, edges, s->fields[rows >> 32 & 15]);
	row = wl_word(s->tables, row);
	chunk = wl_chunk(s->tables, row / WL_CHUNK);
	if (!chunk)
		return 0;
	for (int word = 0; word < WL_BLOCK_WORDS; word++) {
		s->left[word] &= chunk[(row + word) % WL_CHUNK];
		any |= s->left[word];
	}
	return any != 0;
}

/* Of a block: leaves those that match by all fields that have rows. Its node is in one chunk, and so is each row. */
WL_GLOBAL int wl_meet_rows(struct wl_search *s)
{
	const __u64 *chunk;
	__u64 at, head;

	if (!s)
		return 0;
	at = s->block;
	chunk = wl_chunk(s->tables, at / WL_CHUNK);
	if (!chunk)
		return 0;
	head = chunk[at % WL_CHUNK];
	for (int word = 0; word < WL_BLOCK_WORDS; word++)
		s->left[word] = wl_there_are(head >> 32, word);
	WL_KEEP_LOOP
	for (__u32 i = 0; i < WL_FIELDS; i++) {
		at += 2;
		if (i >= (__u8)(head >> 8))
			break;
		if (!wl_meet_row(s, chunk[(at + 2) % WL_CHUNK], chunk[(at + 3) % WL_CHUNK]))
			return 0;
	}
	return 1;
}

/* Of a block: those of a word, one after the other. */
WL_GLOBAL int wl_weigh_left(struct wl_search *s, __u32 word, __u64 listed)
{
	word &= WL_BLOCK_WORDS - 1;
	for (int i = 0; i < 64; i++) {
		const __u64 *chunk;
		__u64 left, at;

		if (!s)
			return 1;
		left = s->left[word];
		if (!left)
			return 0;
		s->left[word] = left & (left - 1);
		at = listed + wl_lowest(left);
		chunk = wl_chunk(s->tables, at / WL_CHUNK);
		if (!chunk || wl_weigh(s, chunk[at % WL_CHUNK]))
			return 1;
	}
	return 0;
}

WL_INLINE void wl_look_through(struct wl_search *s)
{
	__u64 listed;

	if (wl_meet_rows(s)) {
		listed = wl_word(s->tables, s->block + 2);
		for (__u32 word = 0; word < WL_BLOCK_WORDS; word++) {
			if (s->left[word] && wl_weigh_left(s, word, listed + 64 * word))
				break;
		}
	}
	s->block = 0;
}

/* Looks at one node, and goes on to the next. */
WL_INLINE void wl_step(struct wl_search *s)
{
	const __u64 *chunk;
	__u64 at = (__u32)s->at, head, number;

	chunk = wl_chunk(s->tables, at / WL_CHUNK);
	if (!chunk) {
		s->at = 0;
		return;
	}
	head = chunk[at % WL_CHUNK];
	number = s->fields[head >> 8 & 15];
	switch (head & 0xff) {
	case WL_NODE_SPLIT:
		number = wl_search(s->tables, chunk[(at + 1) % WL_CHUNK], number);
		s->at = wl_word(s->tables, chunk[(at + 2) % WL_CHUNK] + number);
		return;
	case WL_NODE_DIRECT:
		if (number < chunk[(at + 1) % WL_CHUNK])
			s->at = wl_word(s->tables, chunk[(at + 2) % WL_CHUNK] + number);
		else
			s->at = chunk[(at + 3) % WL_CHUNK];
		return;
	case WL_NODE_LEAF:
		for (__u32 i = 0; i < WL_MAX_LEAF; i++) {
			if (i >= head >> 8 || wl_weigh(s, chunk[(at + 2 + i) % WL_CHUNK]))
				break;
		}
		break;
	case WL_NODE_BLOCK:
		s->block = at;
		break;
	}
	s->at = chunk[(at + 1) % WL_CHUNK];
}

/* Which places of lineages have a number and trees in this layer. */
WL_INLINE __u64 wl_places_with_trees(const struct wl_search *s, __u64 at)
{
	__u64 places = 0;

	if (!s->named)
		return 0;
	for (int i = 0; i < WL_LINEAGES; i++)
		places |= (0xffff & -wl_less(0, wl_word(s->tables, at + 1 + i))) << i * WL_STRIDE;
	return places & s->named;
}

/* Where to begin next, for everybody and then for each place; whether there is anywhere. */
WL_INLINE bool wl_begin(struct wl_search *s)
{
	__u64 at = WL_AT_LAYERS + (1 + WL_LINEAGES) * (s->layer & 3), place;

	if (!s->begun) {
		s->begun = 1;
		s->places = wl_places_with_trees(s, at);
		s->at = wl_word(s->tables, at);
		return true;
	}
	if (!s->places)
		return false;
	place = wl_lowest(s->places) & (4 * WL_STRIDE - 1);
	s->places &= s->places - 1;
	s->at = wl_word(s->tables, wl_word(s->tables, at + 1 + place / WL_STRIDE) + s->lineages[place]);
	return true;
}

/* Legs of other network namespaces are the affair of those who ask for such. */
WL_INLINE bool wl_is_left_out(const struct wl_query *q, const struct wl_search *s)
{
	return q->foreign && !wl_word(s->tables, WL_AT_NAMESPACES);
}

/* A few steps of a search; whether there are more. */
WL_GLOBAL int wl_advance(struct wl_search *s)
{
	if (!s)
		return 0;
	WL_KEEP_LOOP
	for (int i = 0; i < WL_STEPS_AT_ONCE; i++) {
		if (s->block)
			wl_look_through(s);
		else if (s->at && (s->at >> 32 & WL_NO_RANK) < s->found)
			wl_step(s);
		else if (!wl_begin(s))
			return 0;
	}
	return 1;
}

/* For what comes before `found`. */
WL_INLINE void wl_go_through(struct wl_query *q, struct wl_search *s, __u64 found, int most)
{
	s->found = found;
	s->begun = wl_is_left_out(q, s);
	s->places = 0;
	s->at = 0;
	s->block = 0;
	WL_UNROLL_LOOP
	for (int i = 0; i < most / WL_STEPS_AT_ONCE; i++) {
		if (!wl_advance(s))
			break;
	}
}

/* Through the amendments, after the whole. */
WL_INLINE void wl_go_on(struct wl_query *q)
{
	q->amendments.skip = q->whole.skip;
	q->amendments.from = q->whole.from;
	q->amendments.layer = q->whole.layer;
	q->amendments.removed = 0;
	wl_go_through(q, &q->amendments, q->whole.found, WL_MAX_AMENDED);
}

/* The first filter of a layer; whether there is one, and then what it says. */
WL_GLOBAL int wl_first(struct wl_query *q, __u32 layer)
{
	__u64 says, names, rule;
	__u32 tables;

	if (!q)
		return 0;
	q->whole.layer = layer;
	q->whole.removed = 0;
	if (q->amended) {
		q->whole.removed_in = q->amendments.tables;
		q->whole.removed = wl_word(q->amendments.tables, WL_AT_REMOVED + (layer & 3));
	}
	wl_go_through(q, &q->whole, WL_NO_RANK, WL_MAX_STEPS);
	if (q->amended)
		wl_go_on(q);
	tables = q->whole.tables;
	rule = q->whole.rule;
	if (q->amended && q->amendments.found < q->whole.found) {
		tables = q->amendments.tables;
		rule = q->amendments.rule;
	} else if (q->whole.found == WL_NO_RANK) {
		return 0;
	}
	says = wl_word(tables, rule);
	names = wl_word(tables, rule + 1);
	q->group = says >> 8 & 0xff;
	q->action = says >> 16 & 0xff;
	q->hard = says >> 24 & 0xff;
	q->error = says >> 32 & 0xffff;
	q->filter = names;
	q->next_group = names >> 32;
	return 1;
}
