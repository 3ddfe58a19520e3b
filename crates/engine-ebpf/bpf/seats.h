/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Which flow a connection has, known at either end of it without anything being
 * allocated, which is what a redirected connect() would pay for most. What finds no
 * seat near its place is kept in `tuples` and in the storage of sockets instead.
 *
 * A seat is a hint: it is the flow that says whose it is. So one that nobody has
 * left is no harm, and may be taken by others once its flow has ended.
 */
#pragma once

/* Keys: in the lowest two bits what they are of; 0 is a free seat's. */
#define WL_KEY_OF_SOCKET 1
#define WL_KEY_OF_TUPLE 2
#define WL_SEAT_CLAIMED 3

static __always_inline __u64 wl_key_of_socket(__u64 cookie)
{
	return cookie << 2 | WL_KEY_OF_SOCKET;
}

static __always_inline __u64 wl_key_of_tuple(const struct wl_tuple *t)
{
	const __u64 *words = (const __u64 *)t;
	__u64 digest = wl_digest(words[2], words[5], words[0] ^ words[1] ^ words[3]);

	return wl_digest(digest, words[4], 0) << 2 | WL_KEY_OF_TUPLE;
}

/* Sockets that come one after the other share rows, and tuples, which are
 * anywhere, have so few rows that these stay in the processor's cache: to look at
 * random memory is what takes the time. */
static __always_inline struct wl_seats *wl_seats_near(__u64 key)
{
	__u32 row = key >> 4 & (WL_SOCKET_ROWS - 1);

	if (key & WL_KEY_OF_TUPLE)
		row = WL_SOCKET_ROWS + (key >> 2 & (WL_TUPLE_ROWS - 1));

	return bpf_map_lookup_elem(&seats, &row);
}

static __always_inline bool wl_take_from(struct wl_seat *seat, __u64 holder, __u64 key, __u64 flow)
{
	if (__sync_val_compare_and_swap(&seat->key, holder, WL_SEAT_CLAIMED) != holder)
		return false;
	seat->flow = flow;
	__sync_lock_test_and_set(&seat->key, key);
	return true;
}

/* Whether there was a seat. Global, as all functions here, so that it is verified once. */
WL_GLOBAL int wl_take_seat(__u64 key, __u64 flow)
{
	struct wl_seats *near = wl_seats_near(key);

	if (!near)
		return 0;
	for (int i = 0; i < WL_SEATS; i++) {
		if (!near->of[i].key && wl_take_from(&near->of[i], 0, key, flow))
			return 1;
	}
	for (int i = 0; i < WL_SEATS; i++) {
		__u64 holder = near->of[i].key, its = near->of[i].flow;

		if (holder > WL_SEAT_CLAIMED && !wl_flow(its) &&
		    wl_take_from(&near->of[i], holder, key, flow))
			return 1;
	}
	return 0;
}

WL_GLOBAL int wl_leave_seat(__u64 key, __u64 flow)
{
	struct wl_seats *near = wl_seats_near(key);

	if (!near)
		return 0;
	for (int i = 0; i < WL_SEATS; i++) {
		if (near->of[i].key == key && near->of[i].flow == flow)
			__sync_val_compare_and_swap(&near->of[i].key, key, 0);
	}
	return 0;
}

static __always_inline bool wl_same_tuple(const struct wl_tuple *one, const struct wl_tuple *other)
{
	const __u64 *a = (const __u64 *)one, *b = (const __u64 *)other;

	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]) | (a[5] ^ b[5]));
}

WL_GLOBAL __u64 wl_seated_with(const struct wl_tuple *tuple)
{
	struct wl_seats *near;
	__u64 key;

	if (!tuple)
		return 0;
	key = wl_key_of_tuple(tuple);
	near = wl_seats_near(key);
	for (int i = 0; near && i < WL_SEATS; i++) {
		__u64 id = near->of[i].flow;
		const struct wl_flow *flow;

		if (near->of[i].key != key)
			continue;
		flow = wl_flow(id);
		if (flow && wl_same_tuple(&flow->ends, tuple))
			return id;
	}
	return 0;
}

/* The flow that is on its way with these addresses, or 0. */
static __always_inline __u64 wl_flow_of_tuple(const struct wl_tuple *tuple)
{
	__u64 id = wl_seated_with(tuple), *stored;

	if (id || !tuples_used)
		return id;
	stored = bpf_map_lookup_elem(&tuples, tuple);
	return stored ? *stored : 0;
}

/* From now on these addresses are the flow's. */
static __always_inline void wl_name_by_tuple(struct wl_flow *flow, __u64 id, const struct wl_tuple *tuple)
{
	flow->ends = *tuple;
	if (wl_take_seat(wl_key_of_tuple(tuple), id))
		return;
	tuples_used = 1;
	bpf_map_update_elem(&tuples, tuple, &id, BPF_ANY);
}

/* And no longer. */
static __always_inline void wl_unname_tuple(const struct wl_tuple *tuple, __u64 id)
{
	wl_leave_seat(wl_key_of_tuple(tuple), id);
	if (tuples_used)
		bpf_map_delete_elem(&tuples, tuple);
}

/* What the socket is known by; 0 while nobody has asked for it. By a number, as in
 * wl_full_sock(): not all programs have a helper that leads there. */
static __always_inline __u64 wl_cookie(struct bpf_sock *sk)
{
	struct sock *full = NULL;
	struct bpf_sock *at = sk;

	bpf_probe_read_kernel(&full, sizeof(full), &at);
	return BPF_CORE_READ(full, __sk_common.skc_cookie.counter);
}

WL_GLOBAL __u64 wl_flow_of_socket(__u64 cookie)
{
	__u64 key = wl_key_of_socket(cookie);
	struct wl_seats *near = wl_seats_near(key);

	for (int i = 0; near && i < WL_SEATS; i++) {
		if (near->of[i].key == key)
			return near->of[i].flow;
	}
	return 0;
}

/* The flow that a service's accepted socket carries, or 0; it may have ended. */
static __always_inline __u64 wl_inbound(struct bpf_sock *sk)
{
	__u64 cookie = wl_cookie(sk), id = cookie ? wl_flow_of_socket(cookie) : 0, *stored;

	if (id)
		return id;
	stored = bpf_sk_storage_get(&inbound, sk, NULL, 0);
	return stored ? *stored : 0;
}

/* Ties a flow to the accepted socket and, of multipath TCP, to the one above it
 * that accept() returns. Storage may be wanted by two processors at once. */
static __always_inline bool wl_tie(struct bpf_sock *sk, __u64 cookie, __u64 id)
{
	struct bpf_sock *msk = wl_msk(sk);

	if (!msk && wl_take_seat(wl_key_of_socket(cookie), id))
		return true;
	if (!bpf_sk_storage_get(&inbound, sk, &id, BPF_SK_STORAGE_GET_F_CREATE))
		return false;
	return !msk || bpf_sk_storage_get(&inbound, msk, &id, BPF_SK_STORAGE_GET_F_CREATE) ||
	       bpf_sk_storage_get(&inbound, msk, &id, BPF_SK_STORAGE_GET_F_CREATE);
}

/* Where a redirected socket was going: the number of its entry in `leaving`, and
 * one; 0: none. */
WL_GLOBAL __u32 wl_leaving_at(__u64 cookie)
{
	for (int i = 0; cookie && i < WL_SEATS; i++) {
		__u32 at = (cookie + i) & (WL_LEAVING - 1);
		const struct wl_leaving *entry = bpf_map_lookup_elem(&leaving, &at);

		if (entry && entry->key == wl_key_of_socket(cookie))
			return at + 1;
	}
	return 0;
}

WL_GLOBAL int wl_note_leaving(__u64 cookie, const struct wl_outgoing *out)
{
	if (!out)
		return 0;
	for (int i = 0; i < WL_SEATS; i++) {
		__u32 at = (cookie + i) & (WL_LEAVING - 1);
		struct wl_leaving *entry = bpf_map_lookup_elem(&leaving, &at);

		if (!entry || entry->key || __sync_val_compare_and_swap(&entry->key, 0, WL_SEAT_CLAIMED))
			continue;
		entry->out = *out;
		__sync_lock_test_and_set(&entry->key, wl_key_of_socket(cookie));
		return 1;
	}
	return 0;
}

static __always_inline struct wl_leaving *wl_leaving_of(struct bpf_sock *sk, __u64 cookie)
{
	__u32 at = sk->protocol == SOCK_PROTO_TCP ? wl_leaving_at(cookie) : 0;

	if (!at)
		return NULL;
	at--;
	return bpf_map_lookup_elem(&leaving, &at);
}

/* What a redirected connect has left on its socket, which has that cookie. */
static __always_inline struct wl_outgoing *wl_outgoing_of(struct bpf_sock *sk, __u64 cookie)
{
	struct wl_leaving *entry = wl_leaving_of(sk, cookie);

	return entry ? &entry->out : bpf_sk_storage_get(&outgoing, sk, NULL, 0);
}

static __always_inline struct wl_outgoing *wl_outgoing(struct bpf_sock *sk)
{
	return wl_outgoing_of(sk, wl_cookie(sk));
}

/* Whether it was without an allocation. */
static __always_inline bool wl_drop_leaving(struct bpf_sock *sk)
{
	struct wl_leaving *entry = wl_leaving_of(sk, wl_cookie(sk));

	if (entry)
		__sync_lock_test_and_set(&entry->key, 0);
	return entry;
}

static __always_inline void wl_drop_outgoing(struct bpf_sock *sk)
{
	if (!wl_drop_leaving(sk))
		bpf_sk_storage_delete(&outgoing, sk);
}
