/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * What residents are sent for. A resident serves others too, and nobody can say
 * which of the connections that it dials is for whom; but a transparent proxy
 * dials where a connection was going. So it is counted where those go that it is
 * led. Some dial elsewhere, as to a server for SOCKS: for each connection that it
 * is led a resident owes one dial, whereto is not asked. The rest is its own.
 *
 * Destinations are counted in a table by two places of a keyed hash: nothing has
 * to be found, made or removed, so nothing can be missed. Two of them that share
 * both places count as one.
 */
#pragma once

/* A proxy may dial after its client is gone, and deliver what that has sent. */
#define WL_ERRAND_GRACE_NS (60 * 1000000000ULL)

static __always_inline struct wl_errand *wl_errand_at(__u32 half, __u64 place)
{
	__u32 index = half * WL_ERRANDS + (place & (WL_ERRANDS - 1));

	return bpf_map_lookup_elem(&errands, &index);
}

/* Never 0 but for lack of a key. */
WL_GLOBAL __u64 wl_errand_place(__u32 slot, const struct wl_address *to)
{
	__u64 words[WL_HANDLE_WORDS], tag[2];
	__u32 zero = 0;
	const struct wl_key *key = bpf_map_lookup_elem(&handle_key, &zero);
	const __u32 *ip;

	if (!key || !to)
		return 0;
	ip = (const __u32 *)to->ip;
	words[0] = (__u64)ip[0] << 32 | ip[1];
	words[1] = (__u64)ip[2] << 32 | ip[3];
	words[2] = (__u64)slot << 32 | to->port;
	words[3] = ~0ULL; /* no handle's flow */
	wl_siphash128(key->k0, key->k1, words, tag);
	return tag[0] | 1ULL << 63;
}

static __always_inline struct wl_duties *wl_duties_of(__u32 slot)
{
	return bpf_map_lookup_elem(&duties, &slot);
}

/* A flow is on its way to a service with these flags, which may be a resident; 0
 * if what is to be remembered cannot be. */
WL_GLOBAL int wl_begin_errand(struct wl_flow *flow, __u32 flags)
{
	struct wl_errand *one, *other;
	struct wl_address to;
	struct wl_duties *d;
	__u64 place;
	__u32 slot;

	if (!flow)
		return 0;
	if (!(flags & WL_IS_RESIDENT))
		return 1;
	slot = flow->slot;
	to = flow->destination; /* see wl_try_port() */
	place = wl_errand_place(slot, &to);
	d = wl_duties_of(slot);
	one = wl_errand_at(0, place);
	other = wl_errand_at(1, place >> 16);
	if (!place || !d || !one || !other)
		return 0;
	__sync_fetch_and_add(&d->flows, 1);
	__sync_fetch_and_add(&d->owed, 1);
	__sync_fetch_and_add(&one->flows, 1);
	__sync_fetch_and_add(&other->flows, 1);
	flow->errand = place;
	return 1;
}

/* For a flow that has ended nothing is owed: never more than there are flows. */
static __always_inline void wl_forgive(struct wl_duties *d)
{
	__s64 owed = *(volatile __s64 *)&d->owed, flows = *(volatile __u64 *)&d->flows;

	if (owed > flows)
		__sync_val_compare_and_swap(&d->owed, owed, flows);
}

/* Whether the resident owed this dial. */
static __always_inline bool wl_is_owed(struct wl_duties *d)
{
	if (*(volatile __s64 *)&d->owed <= 0)
		return false;
	if (__sync_fetch_and_add(&d->owed, -1) > 0)
		return true;
	__sync_fetch_and_add(&d->owed, 1);
	return false;
}

WL_GLOBAL int wl_end_errand(__u64 place, __u32 slot)
{
	struct wl_errand *one, *other;
	struct wl_duties *d;
	__u64 until;

	if (!place)
		return 0;
	d = wl_duties_of(slot);
	one = wl_errand_at(0, place);
	other = wl_errand_at(1, place >> 16);
	if (!d || !one || !other)
		return 0;
	until = bpf_ktime_get_ns() + WL_ERRAND_GRACE_NS;
	one->until = until;
	other->until = until;
	__sync_fetch_and_add(&one->flows, -1);
	__sync_fetch_and_add(&other->flows, -1);
	__sync_fetch_and_add(&d->flows, -1);
	wl_forgive(d);
	return 1;
}

/* Whether connections that go there are, or were of late, led to the resident. */
WL_GLOBAL int wl_is_errand(__u32 slot, const struct wl_address *to)
{
	struct wl_errand *one, *other;
	__u64 place, now;

	if (!to)
		return 0;
	place = wl_errand_place(slot, to);
	one = wl_errand_at(0, place);
	other = wl_errand_at(1, place >> 16);
	if (!one || !other)
		return 0;
	now = bpf_ktime_get_ns();
	return (one->flows || one->until > now) && (other->flows || other->until > now);
}
