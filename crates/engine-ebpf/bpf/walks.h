/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * What user space runs over maps and sockets, entry by entry: to see what slots
 * are carried, and to sweep up flows whose end nobody was told of.
 */
#pragma once

/* For user space: the slots that a socket with records carries. Called for each. */
SEC("iter/bpf_sk_storage_map")
int wl_carriers(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	const struct wl_flow *flow = ctx->value;
	__u64 slots;

	if (!flow)
		return 0;
	slots = flow->chain.excluded;
	bpf_seq_write(ctx->meta->seq, &slots, sizeof(slots));
	return 0;
}

/* For sweeps: what `outgoing` and `inbound` hold begins with the flow. A socket
 * whose connection is over keeps no flow. */
SEC("iter/bpf_sk_storage_map")
int wl_see_flow(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	const __u64 *id = ctx->value;
	struct sock *sk = ctx->sk;

	if (id && sk && BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_CLOSE)
		wl_see(*id);
	return 0;
}

/* The same of those with a seat (seats.h). */
SEC("iter/tcp")
int wl_see_connection(struct bpf_iter__tcp *ctx)
{
	struct sock_common *sk = ctx->sk_common;
	const struct wl_leaving *entry;
	__u64 cookie;
	__u32 at;

	if (!sk)
		return 0;
	cookie = BPF_CORE_READ(sk, skc_cookie.counter);
	if (!cookie)
		return 0;
	wl_see(wl_flow_of_socket(cookie));
	at = wl_leaving_at(cookie);
	if (!at)
		return 0;
	at--;
	entry = bpf_map_lookup_elem(&leaving, &at);
	if (entry)
		wl_see(entry->out.flow);
	return 0;
}

/* The last call is for no flow. */
SEC("iter/bpf_map_elem")
int wl_judge_flow(struct bpf_iter__bpf_map_elem *ctx)
{
	const struct wl_flow *flow = ctx->value;

	if (flow)
		wl_judge(flow);
	else
		sweep++;
	return 0;
}

/* Datagram flows have no end but that nothing comes any more. */
SEC("iter/bpf_map_elem")
int wl_judge_datagrams(struct bpf_iter__bpf_map_elem *ctx)
{
	const struct wl_datagram_flow *d = ctx->value;
	const struct wl_config *cfg = wl_config();

	if (d && cfg && !wl_is_open(d) && d->last + cfg->datagram_idle_ns < bpf_ktime_get_ns())
		wl_end_datagrams(d->flow.id);
	return 0;
}

/* Addresses of a flow that has ended lead nowhere. */
SEC("iter/bpf_map_elem")
int wl_judge_tuple(struct bpf_iter__bpf_map_elem *ctx)
{
	const struct wl_tuple *key = ctx->key;
	const __u64 *flow = ctx->value;
	struct wl_tuple tuple;
	__u64 id;

	if (!key || !flow)
		return 0;
	id = *flow;
	tuple = *key;
	if (!wl_flow(id))
		bpf_map_delete_elem(&tuples, &tuple);
	return 0;
}
