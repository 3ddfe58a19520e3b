/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The life of a flow of datagrams: found, counted in, dropped to make room for
 * another, ended.
 */
#pragma once

#define WL_AGE_TRIES 64

static __always_inline bool wl_is_token(const __u8 *ip)
{
	return wl_is_mapped(ip) && (bpf_ntohl(wl_ip4(ip)) & 0xff800000) == (WL_FIRST_TOKEN & 0xff800000);
}

static __always_inline struct wl_datagram_flow *wl_datagrams(__u64 id)
{
	return bpf_map_lookup_elem(&datagram_flows, &id);
}

static __always_inline void wl_path_between(const struct wl_address *local, const struct wl_address *peer,
					    struct wl_path *path)
{
	__builtin_memcpy(path->local_ip, local->ip, sizeof(path->local_ip));
	path->local_port = local->port;
	if (wl_is_mapped(local->ip))
		return;
	__builtin_memcpy(path->peer_ip, peer->ip, sizeof(path->peer_ip));
	path->peer_port = peer->port;
}

/* The flow that `peer` has at `local`, if any; a function for its stack. */
WL_GLOBAL __u64 wl_find_datagrams(const struct wl_address *local, const struct wl_address *peer)
{
	struct wl_path path = {};
	__u64 *id;

	if (!local || !peer)
		return 0;
	wl_path_between(local, peer, &path);
	id = bpf_map_lookup_elem(&paths, &path);
	return id ? *id : 0;
}

static __always_inline void wl_destination_of(__u64 cookie, const struct wl_address *to, struct wl_destination *key)
{
	key->cookie = cookie;
	__builtin_memcpy(key->ip, to->ip, sizeof(key->ip));
	key->port = to->port;
	key->scope = to->scope;
}

/* Whoever deletes the entry gives its place and its token back. */
WL_GLOBAL int wl_end_datagrams(__u64 id)
{
	struct wl_datagram_flow *d = wl_datagrams(id);
	struct wl_destination to = {};
	struct wl_path path = {};
	__u64 cgroup, *now;

	if (!d)
		return 0;
	cgroup = d->flow.admitted_cgroup;
	wl_path_between(&d->ends.local, &d->ends.peer, &path);
	wl_destination_of(d->cookie, &d->flow.destination, &to);
	wl_tell_of_end(&d->flow);
	if (bpf_map_delete_elem(&datagram_flows, &id))
		return 0;
	bpf_map_delete_elem(&paths, &path);
	now = bpf_map_lookup_elem(&destinations, &to);
	if (now && *now == id)
		bpf_map_delete_elem(&destinations, &to);
	wl_count_out(&live_datagram_flows, &admitted_datagrams, cgroup);
	return 1;
}

/* `told` is all zero; `peer` may be NULL: of anybody. */
static __always_inline void wl_told_of(const struct wl_address *of, const struct wl_address *peer, __u32 slot,
				       struct wl_told *told)
{
	__builtin_memcpy(told->ip, of->ip, sizeof(told->ip));
	told->port = of->port;
	told->slot = slot;
	if (!peer)
		return;
	__builtin_memcpy(told->peer_ip, peer->ip, sizeof(told->peer_ip));
	told->peer_port = peer->port;
}

/* What stands for it there: the address of a token for IPv4, whose port is its
 * service's, and the port of one for IPv6. */
static __always_inline void wl_token_of(__u32 known, bool ip4, __u16 port, struct wl_address *token)
{
	if (ip4) {
		wl_map_ip4(token->ip, known);
		token->port = port;
	} else {
		token->ip[15] = 1;
		token->port = known;
	}
}

/* NULL: nothing was told. */
static __always_inline const __u32 *wl_token_told(const struct wl_told *told)
{
	__u32 zero = 0;
	void *slot = bpf_map_lookup_elem(&tokens_told, &zero);

	return slot ? bpf_map_lookup_elem(slot, told) : NULL;
}

WL_GLOBAL int wl_tell_token(const struct wl_told *told, __u32 token)
{
	__u32 zero = 0, value = token;
	void *slot = bpf_map_lookup_elem(&tokens_told, &zero);
	struct wl_told key;

	if (!slot || !told)
		return 0;
	key = *told; /* see wl_try_port() */
	return !bpf_map_update_elem(slot, &key, &value, BPF_ANY);
}

static __always_inline void wl_untell(const struct wl_told *told)
{
	__u32 zero = 0;
	void *slot = bpf_map_lookup_elem(&tokens_told, &zero);
	struct wl_told key = *told;

	if (slot)
		bpf_map_delete_elem(slot, &key);
}

/* The application sends no more; what is under way still finds the flow. */
static __always_inline void wl_close_datagrams(__u64 id)
{
	struct wl_datagram_flow *d = wl_datagrams(id);

	if (!d)
		return;
	d->ends.flags |= WL_DATAGRAM_CLOSED;
	d->last = bpf_ktime_get_ns();
}

/* A connected socket may send at any time, and no program hears of it. */
static __always_inline bool wl_is_open(const struct wl_datagram_flow *d)
{
	return (d->ends.flags & (WL_DATAGRAM_CONNECTED | WL_DATAGRAM_CLOSED)) == WL_DATAGRAM_CONNECTED;
}

/* The flow that has been idle for longest, of those that were looked at. */
struct wl_oldest {
	__u64 id;
	__u64 since;
};

/* Looks at one; for the reason given at wl_auth_hear() a function of its own. */
WL_GLOBAL int wl_consider(struct wl_oldest *oldest, __u64 id, __u64 cgroup)
{
	struct wl_datagram_flow *d = wl_datagrams(id);

	if (!oldest || !d || wl_is_open(d) || d->last >= oldest->since)
		return 0;
	if (cgroup && d->flow.admitted_cgroup != cgroup)
		return 0;
	oldest->id = id;
	oldest->since = d->last;
	return 0;
}

static __always_inline bool wl_drop(const struct wl_oldest *oldest)
{
	__u32 zero = 0;
	__u64 *dropped = bpf_map_lookup_elem(&dropped_flows, &zero);

	if (!oldest->id || !wl_end_datagrams(oldest->id))
		return false;
	if (dropped)
		__sync_fetch_and_add(dropped, 1);
	return true;
}

/* Drops the flow of this cgroup that has been idle for longest, of so many that
 * began one after the other. Asked again it looks at the next. */
WL_GLOBAL int wl_make_room(__u64 cgroup)
{
	struct wl_oldest oldest = { .since = ~0ULL };
	__u64 first = __sync_fetch_and_add(&first_age, WL_AGE_TRIES), next = next_age;
	__u64 used = next < WL_MAX_DATAGRAM_FLOWS ? next : WL_MAX_DATAGRAM_FLOWS;

	if (!used)
		return 0;
	for (int i = 0; i < WL_AGE_TRIES; i++) {
		__u32 index = (first + i) % used;
		__u64 *id = bpf_map_lookup_elem(&datagram_ages, &index);

		if (id)
			wl_consider(&oldest, *id, cgroup);
	}
	return wl_drop(&oldest);
}

static __always_inline int wl_admit_datagrams(const struct wl_config *cfg, __u64 cgroup)
{
	int full = 0;

	for (int i = 0; i < 2; i++) {
		full = wl_count_in(&live_datagram_flows, cfg->max_datagram_flows, &admitted_datagrams, cgroup,
				   cfg->max_datagram_flows_per_cgroup);
		if (!full || !wl_make_room(cgroup))
			break;
	}
	return full;
}

static __always_inline struct wl_datagram_flow *wl_new_datagrams(__u64 *id)
{
	__u32 zero = 0, age;
	const struct wl_datagram_flow *from = bpf_map_lookup_elem(&empty_datagram_flow, &zero);

	*id = wl_next_flow() | WL_DATAGRAMS;
	if (!from || bpf_map_update_elem(&datagram_flows, id, from, BPF_NOEXIST))
		return NULL;
	age = __sync_fetch_and_add(&next_age, 1) % WL_MAX_DATAGRAM_FLOWS;
	bpf_map_update_elem(&datagram_ages, &age, id, BPF_ANY);
	return wl_datagrams(*id);
}
