/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* The life of a flow: admitted and reserved, made live, ended. */
#pragma once

static __always_inline void wl_count_out(__u64 *live, void *by_cgroup, __u64 cgroup)
{
	__u64 *count = bpf_map_lookup_elem(by_cgroup, &cgroup);

	if (count)
		__sync_fetch_and_add(count, -1);
	__sync_fetch_and_add(live, -1);
}

/* Counts a flow in, or says which limit is reached. */
static __always_inline int wl_count_in(__u64 *live, __u64 most, void *by_cgroup, __u64 cgroup, __u64 most_of_cgroup)
{
	__u64 none = 0, *count;

	if (__sync_fetch_and_add(live, 1) >= most) {
		__sync_fetch_and_add(live, -1);
		return WL_REFUSED_NO_FLOWS;
	}
	count = bpf_map_lookup_elem(by_cgroup, &cgroup);
	if (!count) {
		bpf_map_update_elem(by_cgroup, &cgroup, &none, BPF_NOEXIST);
		count = bpf_map_lookup_elem(by_cgroup, &cgroup);
	}
	if (!count || __sync_fetch_and_add(count, 1) >= most_of_cgroup) {
		if (count)
			__sync_fetch_and_add(count, -1);
		__sync_fetch_and_add(live, -1);
		return WL_REFUSED_NO_FLOWS_OF_CGROUP;
	}
	return 0;
}

static __always_inline int wl_admit(const struct wl_config *cfg, __u64 cgroup)
{
	return wl_count_in(&live_flows, cfg->max_flows, &admitted, cgroup, cfg->max_flows_per_cgroup);
}

static __always_inline void wl_dismiss(__u64 cgroup)
{
	wl_count_out(&live_flows, &admitted, cgroup);
}

static __always_inline struct wl_progress *wl_progress_of(const struct wl_flow *flow)
{
	__u32 index = flow->listener;

	return bpf_map_lookup_elem(&progress, &index);
}

static __always_inline struct wl_flow *wl_flow_at(__u32 cell)
{
	return bpf_map_lookup_elem(&flows, &cell);
}

/* The connection's flow of that id, unless it has ended. */
static __always_inline struct wl_flow *wl_flow(__u64 id)
{
	struct wl_flow *flow = wl_flow_at(id & (WL_MAX_FLOWS - 1));

	return flow && flow->id == id ? flow : NULL;
}

/* The service has asked about the flow: it has come out of the backlog. */
static __always_inline void wl_take(struct wl_flow *flow)
{
	struct wl_progress *p;

	if (flow->taken || __sync_lock_test_and_set(&flow->taken, 1))
		return;
	p = wl_progress_of(flow);
	if (p)
		__sync_fetch_and_add(&p->taken, 1);
}

/* Said before the entry is deleted, and so maybe twice, by two who do that at once. */
static __always_inline void wl_tell_of_end(struct wl_flow *flow)
{
	if (flow->state != WL_FLOW_LIVE)
		return;
	flow->seen = bpf_ktime_get_ns();
	bpf_ringbuf_output(&past, flow, sizeof(*flow), BPF_RB_NO_WAKEUP);
}

enum wl_ended_by {
	WL_ENDED_BY_SERVICE,
	WL_ENDED_BY_CLIENT,
};

static __always_inline __u64 *wl_last_cell(void)
{
	__u32 processor = bpf_get_smp_processor_id() & (WL_CELL_HINTS - 1);

	return &last_cell[processor * WL_CACHE_LINE];
}

static __always_inline void wl_give_cell_back(__u32 cell)
{
	__u32 zero = 0;
	struct wl_cells *all = bpf_map_lookup_elem(&cells, &zero);

	if (all)
		__sync_fetch_and_and(&all->taken[cell / 64 & (WL_CELL_WORDS - 1)], ~(1ULL << (cell & 63)));
	*wl_last_cell() = cell;
}

#define WL_WORDS_AT_ONCE 32

/* A free cell among so many words from this one on; -1: none. Global, as is the next: one loop over all words the
 * verifier would follow to the end each time. */
WL_GLOBAL int wl_take_cell_near(__u32 first)
{
	__u32 zero = 0;
	struct wl_cells *all = bpf_map_lookup_elem(&cells, &zero);

	for (__u32 i = 0; all && i < WL_WORDS_AT_ONCE; i++) {
		__u32 word = (first + i) & (WL_CELL_WORDS - 1);
		__u64 open = ~*(volatile __u64 *)&all->taken[word], bit = wl_lowest(open) & 63;

		if (!open || __sync_fetch_and_or(&all->taken[word], 1ULL << bit) >> bit & 1)
			continue;
		*wl_last_cell() = word * 64 + bit;
		return word * 64 + bit;
	}
	return -1;
}

/* A free cell, from the one on that this processor has had last; -1: none. */
WL_GLOBAL int wl_take_cell(void)
{
	__u32 first = *wl_last_cell() / 64;

	for (__u32 i = 0; i < WL_CELL_WORDS; i += WL_WORDS_AT_ONCE) {
		int cell = wl_take_cell_near(first + i);

		if (cell >= 0)
			return cell;
	}
	return -1;
}

/* Whoever deletes the entry gives its place back, so it is given back once. A
 * global function, as wl_listener_room() is. */
WL_GLOBAL int wl_end_flow(__u64 id, __u32 by)
{
	struct wl_flow *flow = wl_flow(id);
	struct wl_progress *p;
	__u64 cgroup, errand;
	bool waiting;
	__u32 slot;

	if (!flow)
		return 0;
	cgroup = flow->admitted_cgroup;
	errand = flow->errand;
	slot = flow->slot;
	waiting = flow->state == WL_FLOW_LIVE && !flow->taken;
	p = wl_progress_of(flow);
	wl_tell_of_end(flow);
	if (__sync_val_compare_and_swap(&flow->id, id, 0) != id)
		return 0;
	wl_give_cell_back(id & (WL_MAX_FLOWS - 1));
	wl_dismiss(cgroup);
	if (errand)
		wl_end_errand(errand, slot);
	if (waiting && p)
		__sync_fetch_and_add(by == WL_ENDED_BY_SERVICE ? &p->taken : &p->lost, 1);
	return 1;
}

static __always_inline void wl_end_unaccepted(__u64 id)
{
	struct wl_flow *flow = wl_flow(id);

	if (flow && flow->state == WL_FLOW_RESERVED)
		wl_end_flow(id, WL_ENDED_BY_CLIENT);
}

/* Flows of datagrams are numbered apart, so that a number says in which map it is;
 * and still such that JSON's readers, which take 53 bits, read them right. */
#define WL_DATAGRAMS (1ULL << 52)

static __always_inline struct wl_flow *wl_live_flow(__u64 id)
{
	struct wl_flow *flow;

	if (id & WL_DATAGRAMS)
		flow = bpf_map_lookup_elem(&datagram_flows, &id); /* which it is the first part of */
	else
		flow = wl_flow(id);
	return flow && flow->state == WL_FLOW_LIVE ? flow : NULL;
}

/* Said before a chain gets to another flow or socket: whoever looks at one after
 * the other for what still carries a slot may look there first and here last. */
static __always_inline void wl_note_copy(__u64 slots)
{
	__u32 zero = 0;
	__u64 *noted = bpf_map_lookup_elem(&copied, &zero);

	if (noted && (*(volatile __u64 *)noted & slots) != slots)
		__sync_fetch_and_or(noted, slots);
}

static __always_inline __u64 wl_next_flow(void)
{
	return __sync_fetch_and_add(&last_flow, 1) + 1;
}

/* A copy of what the leg carries, or an empty one for a new connection. */
static __always_inline struct wl_flow *wl_new_flow(const struct wl_flow *carried_flow, __u64 *id)
{
	__u32 zero = 0;
	const struct wl_flow *from = carried_flow ?: bpf_map_lookup_elem(&empty_flow, &zero);
	int cell = from ? wl_take_cell() : -1;
	struct wl_flow *flow;

	if (cell < 0)
		return NULL;
	*id = wl_next_flow() * WL_MAX_FLOWS % WL_DATAGRAMS + cell;
	flow = wl_flow_at(cell & (WL_MAX_FLOWS - 1));
	/* Its own id is the last that it gets (wl_fill_flow()). */
	if (flow)
		bpf_probe_read_kernel(&flow->admitted_cgroup, sizeof(*flow) - sizeof(flow->id),
				      &from->admitted_cgroup);
	return flow;
}

/*
 * A sweep is three walks, which user space starts one after the other: over the
 * applications' sockets and the services', to see which flows have one, and over
 * the flows, to end those that have had none. A flow that is younger than the
 * sweep before is not judged: its socket may not have its note yet.
 */
static __always_inline void wl_see(__u64 id)
{
	struct wl_flow *flow = wl_flow(id);

	if (flow)
		flow->seen = sweep;
}

static __always_inline void wl_judge(const struct wl_flow *flow)
{
	if (flow->id && flow->seen < sweep)
		wl_end_flow(flow->id, WL_ENDED_BY_CLIENT);
}

/* Both ends of a loopback connection name it alike: client first. */
static __always_inline void wl_tuple_of(struct bpf_sock_ops *ops, bool client, struct wl_tuple *t)
{
	volatile struct bpf_sock_ops *o = ops;
	/* Loaded before any branch, as in wl_wishes(). */
	__u32 local4 = o->local_ip4, remote4 = o->remote_ip4;
	__u32 l0 = o->local_ip6[0], l1 = o->local_ip6[1], l2 = o->local_ip6[2], l3 = o->local_ip6[3];
	__u32 r0 = o->remote_ip6[0], r1 = o->remote_ip6[1], r2 = o->remote_ip6[2], r3 = o->remote_ip6[3];
	__u32 local_port = o->local_port, remote_port = bpf_ntohl(o->remote_port);
	__u32 *local = (__u32 *)(client ? t->client_ip : t->server_ip);
	__u32 *remote = (__u32 *)(client ? t->server_ip : t->client_ip);
	bool mapped = r0 == 0 && r1 == 0 && r2 == bpf_htonl(0xffff);

	if (o->family == AF_INET6 && !mapped) {
		local[0] = l0;
		local[1] = l1;
		local[2] = l2;
		local[3] = l3;
		remote[0] = r0;
		remote[1] = r1;
		remote[2] = r2;
		remote[3] = r3;
	} else {
		wl_map_ip4((__u8 *)local, local4);
		wl_map_ip4((__u8 *)remote, remote4);
	}
	t->client_port = client ? local_port : remote_port;
	t->server_port = client ? remote_port : local_port;
	t->netns = bpf_get_netns_cookie(ops);
}
