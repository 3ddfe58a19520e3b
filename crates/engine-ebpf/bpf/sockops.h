/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * What TCP tells of a connection on its way: the SYN, the socket at the other end
 * of the loopback, the end.
 */
#pragma once

/* The last leg, if it ends on this host: a server in the scope is to see the
 * application as its client. */
static __always_inline void wl_on_last_syn(struct bpf_sock_ops *ops, struct bpf_sock *sk)
{
	const struct wl_flow *records = bpf_sk_storage_get(&carried, sk, NULL, 0);
	struct wl_address own = {}, to = {};
	struct wl_tuple tuple = {};

	if (!records)
		return;
	wl_tuple_of(ops, true, &tuple);
	__builtin_memcpy(to.ip, tuple.server_ip, sizeof(to.ip));
	if (!wl_is_here(&to))
		return;
	__builtin_memcpy(own.ip, tuple.client_ip, sizeof(own.ip));
	own.port = tuple.client_port;
	wl_speak_for(&own, tuple.server_port, SOCK_PROTO_TCP, &records->source);
}

/* The application's address, as it sees it itself. */
static __always_inline void wl_note_source(struct wl_flow *flow, const struct wl_outgoing *out,
					   const struct wl_tuple *tuple)
{
	if (flow->source.port)
		return;
	__builtin_memcpy(flow->source.ip, wl_is_set(out->source) ? out->source : tuple->client_ip, 16);
	flow->source.port = tuple->client_port;
}

/* The SYN is about to leave and its source port is known: name the flow by it. */
static __always_inline void wl_on_syn(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	struct wl_outgoing *out = sk ? wl_outgoing_of(sk, wl_cookie_of_tcp(sk)) : NULL;
	struct wl_tuple tuple = {};
	struct wl_flow *flow;
	__u64 id;

	if (!out) {
		if (sk)
			wl_on_last_syn(ops, sk);
		return;
	}
	id = out->flow;
	wl_tuple_of(ops, true, &tuple);
	flow = wl_flow(id);
	if (flow) {
		wl_note_source(flow, out, &tuple);
		wl_name_by_tuple(flow, id, &tuple);
	}
	bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

/* At a server in the scope: whom it is told its client is. */
static __always_inline void wl_note_peer(struct bpf_sock *sk, const struct wl_tuple *tuple)
{
	const struct wl_address *behind;
	struct wl_address from = {}, peer;

	__builtin_memcpy(from.ip, tuple->client_ip, sizeof(from.ip));
	from.port = tuple->client_port;
	behind = wl_behind(&from, tuple->server_port, SOCK_PROTO_TCP);
	if (!behind)
		return;
	peer = *behind;
	bpf_sk_storage_get(&peers, sk, &peer, BPF_SK_STORAGE_GET_F_CREATE);
}

/* The service's end exists, before accept() can return it: hand the flow over. */
static __always_inline void wl_on_accepted(struct bpf_sock_ops *ops, bool shows_peer)
{
	struct bpf_sock *sk = ops->sk;
	struct wl_tuple tuple = {};
	struct wl_progress *p;
	struct wl_flow *flow;
	__u64 id;

	wl_tuple_of(ops, false, &tuple);
	id = wl_flow_of_tuple(&tuple);
	if (!id || !sk) {
		if (sk && shows_peer)
			wl_note_peer(sk, &tuple);
		return;
	}
	wl_unname_tuple(&tuple, id);
	flow = wl_flow(id);
	if (!flow)
		return;
	if (!wl_tie(sk, bpf_get_socket_cookie(ops), id)) {
		/* Without its flow the service drops the connection; see WL_QUERY_RECORDS. */
		wl_end_flow(id, WL_ENDED_BY_CLIENT);
		return;
	}
	p = wl_progress_of(flow);
	if (p)
		__sync_fetch_and_add(&p->arrived, 1);
	flow->state = WL_FLOW_LIVE;
	bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

static __always_inline void wl_on_closed(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	struct wl_tuple tuple = {};
	struct wl_outgoing *out;
	__u64 id;

	if (!sk)
		return;
	id = wl_inbound(sk);
	if (id)
		wl_end_flow(id, WL_ENDED_BY_CLIENT);
	out = wl_outgoing(sk);
	if (!out)
		return;
	wl_tuple_of(ops, true, &tuple);
	wl_unname_tuple(&tuple, out->flow);
	wl_end_unaccepted(out->flow);
}

static __always_inline int wl_on_sockops(struct bpf_sock_ops *ops, bool shows_peer)
{
	switch (ops->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		wl_on_syn(ops);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		wl_on_accepted(ops, shows_peer);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ops->args[1] == BPF_TCP_CLOSE)
			wl_on_closed(ops);
		break;
	}
	return 1;
}

SEC("sockops")
int wl_sockops(struct bpf_sock_ops *ops)
{
	return wl_on_sockops(ops, true);
}

/* What bystanders have accepted keeps its peer. */
SEC("sockops")
int wl_resident_sockops(struct bpf_sock_ops *ops)
{
	return wl_on_sockops(ops, false);
}
