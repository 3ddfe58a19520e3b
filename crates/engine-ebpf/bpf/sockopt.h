/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * What a service may ask and say, by getsockopt(2) and setsockopt(2) at level
 * SOL_WAYLAY. Attached to the services' cgroups only: no other socket pays for
 * it, and on no other socket do the options exist.
 */
#pragma once

static __always_inline int wl_opt_error(int error)
{
	bpf_set_retval(-error);
	return 0;
}

static __always_inline int wl_opt_done(struct bpf_sockopt *ctx, __u32 len)
{
	/* Volatile, or clang merges both stores and the verifier refuses the width. */
	volatile struct bpf_sockopt *answer = ctx;

	answer->optlen = len;
	answer->retval = 0;
	return 1;
}

/* A length of 0 asks for the size; a buffer that is too short is an error. */
#define WL_ANSWER(ctx, out, type)                                              \
	do {                                                                   \
		if ((ctx)->optlen == 0)                                        \
			return wl_opt_done(ctx, sizeof(type));                 \
		if ((ctx)->optlen < (int)sizeof(type))                         \
			return wl_opt_error(ENOBUFS);                          \
		(out) = (ctx)->optval;                                         \
		if ((void *)((out) + 1) > (ctx)->optval_end)                   \
			return wl_opt_error(ENOBUFS);                          \
	} while (0)

static __always_inline int wl_query_records(struct bpf_sockopt *ctx, const struct wl_flow *flow)
{
	struct wl_handle handle = { .version = WL_ABI_VERSION, .size = sizeof(handle) };
	struct wl_handle *out;
	__u32 zero = 0;
	const struct wl_key *key = bpf_map_lookup_elem(&handle_key, &zero);

	if (!key)
		return wl_opt_error(ENOENT);
	handle.boot = key->boot;
	handle.instance = key->instance;
	handle.flow = flow->id;
	wl_siphash128(key->k0, key->k1, (const __u64 *)&handle, handle.tag);
	WL_ANSWER(ctx, out, struct wl_handle);
	*out = handle;
	return wl_opt_done(ctx, sizeof(handle));
}

static __always_inline int wl_query_context(struct bpf_sockopt *ctx, const struct wl_flow *flow)
{
	__u64 last = flow->chain.hop_count - 1;
	struct wl_context *out;

	if (last >= WL_MAX_HOPS)
		return wl_opt_error(ENOENT);
	WL_ANSWER(ctx, out, struct wl_context);
	out->version = WL_ABI_VERSION;
	out->size = sizeof(*out);
	out->flow = flow->id;
	out->service = flow->chain.hops[last].service;
	out->filter = flow->chain.hops[last].filter;
	out->destination = flow->destination;
	out->application = flow->application;
	out->wishes = flow->wishes;
	__builtin_memcpy(out->exe_path, flow->exe_path, sizeof(out->exe_path));
	return wl_opt_done(ctx, sizeof(*out));
}

/* The slot of the service with that id, or WL_MAX_SERVICES if it has left. */
WL_GLOBAL __u32 wl_slot_of(const struct wl_tables *t, __u32 service)
{
	for (__u32 i = 0; t && i < WL_MAX_SERVICES; i++) {
		if (t->services[i].id == service)
			return i;
	}
	return WL_MAX_SERVICES;
}

static __always_inline void wl_name_hop(const struct wl_tables *t, const struct wl_hop *hop,
					struct wl_named_hop *out)
{
	__u64 slot = t ? wl_slot_of(t, hop->service) : WL_MAX_SERVICES;

	out->service = hop->service;
	out->filter = hop->filter;
	__builtin_memset(out->name, 0, WL_NAME_LEN);
	asm volatile("" : "+r"(slot));
	if (t && slot < WL_MAX_SERVICES)
		__builtin_memcpy(out->name, t->services[slot].name, WL_NAME_LEN);
}

static __always_inline int wl_query_chain(struct bpf_sockopt *ctx, const struct wl_flow *flow)
{
	const struct wl_tables *t = wl_tables();
	const struct wl_hop none = {};
	struct wl_named_chain *out;

	WL_ANSWER(ctx, out, struct wl_named_chain);
	out->version = WL_ABI_VERSION;
	out->hop_count = flow->chain.hop_count;
	/* Linux 6.1 takes a loop only if what leads back is a jump, and clang places
	 * this one so that its last instruction runs on into its first. */
#pragma clang loop unroll(full)
	for (int i = 0; i < WL_MAX_HOPS; i++) {
		const struct wl_hop *hop = i < flow->chain.hop_count ? &flow->chain.hops[i] : &none;

		wl_name_hop(t, hop, &out->hops[i]);
	}
	return wl_opt_done(ctx, sizeof(*out));
}

static __always_inline int wl_answer_in(struct bpf_sockopt *ctx, const struct wl_address *a)
{
	struct wl_sockaddr_in *out;

	if (!wl_is_mapped(a->ip))
		return wl_opt_error(ENOENT);
	WL_ANSWER(ctx, out, struct wl_sockaddr_in);
	out->family = AF_INET;
	out->port = bpf_htons(a->port);
	out->ip = wl_ip4(a->ip);
	__builtin_memset(out->zero, 0, sizeof(out->zero));
	return wl_opt_done(ctx, sizeof(*out));
}

static __always_inline int wl_answer_in6(struct bpf_sockopt *ctx, const struct wl_address *a)
{
	struct wl_sockaddr_in6 *out;

	WL_ANSWER(ctx, out, struct wl_sockaddr_in6);
	out->family = AF_INET6;
	out->port = bpf_htons(a->port);
	out->flowinfo = 0;
	__builtin_memcpy(out->ip, a->ip, sizeof(out->ip));
	out->scope = a->scope;
	return wl_opt_done(ctx, sizeof(*out));
}

/* Netfilter calls a short buffer an invalid one, and asks nobody for its size. */
static __always_inline int wl_answer_as_netfilter(struct bpf_sockopt *ctx, const struct wl_address *a)
{
	bool ip4 = ctx->level == SOL_IP;

	if (ctx->optlen < (int)(ip4 ? sizeof(struct wl_sockaddr_in) : sizeof(struct wl_sockaddr_in6)))
		return wl_opt_error(EINVAL);
	return ip4 ? wl_answer_in(ctx, a) : wl_answer_in6(ctx, a);
}

static __always_inline int wl_query_destination(struct bpf_sockopt *ctx, const struct wl_address *a)
{
	return wl_is_mapped(a->ip) ? wl_answer_in(ctx, a) : wl_answer_in6(ctx, a);
}

static __always_inline bool wl_is_query(int level, int name)
{
	switch (level) {
	case SOL_WAYLAY:
		return name == WL_QUERY_RECORDS || name == WL_QUERY_CONTEXT || name == WL_QUERY_ORIGINAL_DST ||
		       name == WL_QUERY_CHAIN || name == WL_QUERY_DATAGRAM;
	case SOL_IP:
		return name == SO_ORIGINAL_DST;
	case SOL_IPV6:
		return name == IP6T_SO_ORIGINAL_DST;
	default:
		return false;
	}
}

static __always_inline int wl_query_datagram(struct bpf_sockopt *ctx, __u64 id)
{
	struct wl_datagram_flow *d = wl_datagrams(id);
	struct wl_datagram *out;

	if (!(id & WL_DATAGRAMS) || !d)
		return wl_opt_error(ENOENT);
	WL_ANSWER(ctx, out, struct wl_datagram);
	*out = d->ends;
	return wl_opt_done(ctx, sizeof(*out));
}

/* Of a connection: the flow that its socket carries. Of datagrams, which share a
 * socket: the flow that this thread has selected. */
static __always_inline __u64 wl_asked_about(struct bpf_sock *sk)
{
	__u64 thread, *selected;

	if (sk->protocol != SOCK_PROTO_UDP)
		return wl_inbound(sk);
	thread = bpf_get_current_pid_tgid();
	selected = bpf_map_lookup_elem(&selections, &thread);
	return selected ? *selected : 0;
}

/* What only an instance that knows the socket says. */
static __always_inline bool wl_is_refused_by_another(const struct bpf_sockopt *ctx)
{
	return ctx->retval == -ESTALE || ctx->retval == -ENOBUFS;
}

SEC("cgroup/getsockopt")
int wl_getsockopt(struct bpf_sockopt *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct wl_flow *flow = NULL, *carries = NULL;
	__u64 id;

	/* Another instance's program on this cgroup may have answered already. */
	if (!wl_is_query(ctx->level, ctx->optname) || ctx->retval == 0)
		return 1;
	id = sk ? wl_asked_about(sk) : 0;
	if (id)
		flow = wl_live_flow(id);
	else if (sk && ctx->level == SOL_WAYLAY && ctx->optname == WL_QUERY_CHAIN)
		carries = bpf_sk_storage_get(&carried, sk, NULL, 0);
	if (carries)
		return wl_query_chain(ctx, carries);
	if (!flow) {
		if (ctx->level != SOL_WAYLAY || (!id && wl_is_refused_by_another(ctx)))
			return 1;
		return wl_opt_error(id ? ESTALE : ENOENT);
	}
	wl_take(flow);
	if (ctx->level != SOL_WAYLAY)
		return wl_answer_as_netfilter(ctx, &flow->destination);
	switch (ctx->optname) {
	case WL_QUERY_RECORDS:
		return wl_query_records(ctx, flow);
	case WL_QUERY_CONTEXT:
		return wl_query_context(ctx, flow);
	case WL_QUERY_CHAIN:
		return wl_query_chain(ctx, flow);
	case WL_QUERY_DATAGRAM:
		return wl_query_datagram(ctx, id);
	default:
		return wl_query_destination(ctx, &flow->destination);
	}
}

/* 0 if the handle is one this instance gave out, untouched. */
static __always_inline int wl_check_handle(const struct wl_handle *handle)
{
	__u32 zero = 0;
	const struct wl_key *key = bpf_map_lookup_elem(&handle_key, &zero);

	if (!key)
		return EINVAL;
	switch (wl_judge_handle(key, handle)) {
	case WL_HANDLE_GENUINE:
		return 0;
	case WL_HANDLE_OF_ANOTHER_INSTANCE:
		return EKEYEXPIRED;
	case WL_HANDLE_ALTERED:
		return EKEYREJECTED;
	default:
		return EINVAL;
	}
}

static __always_inline int wl_set_records(struct bpf_sock *sk, const struct wl_handle *handle)
{
	const struct wl_config *cfg = wl_config();
	int error = wl_check_handle(handle);
	struct wl_flow *flow;

	if (error)
		return error;
	/* Nothing else is redirected: records on another socket would be lost. */
	if ((sk->type != SOCK_STREAM && sk->protocol != SOCK_PROTO_UDP) ||
	    (sk->family != AF_INET && sk->family != AF_INET6))
		return EOPNOTSUPP;
	flow = wl_live_flow(handle->flow);
	if (!flow)
		return ESTALE;
	if (!cfg || wl_caller_slot(cfg) != flow->slot)
		return EACCES;
	if (sk->state != TCP_CLOSE)
		return EISCONN;
	bpf_sk_storage_delete(&carried, sk);
	wl_note_copy(flow->chain.excluded);
	if (!bpf_sk_storage_get(&carried, sk, flow, BPF_SK_STORAGE_GET_F_CREATE))
		return ENOBUFS;
	/* The inbound socket is not locked here. If its flow ended meanwhile, the
	 * entry may hold another flow's chain by now; ids are never used again. */
	if (!wl_live_flow(handle->flow)) {
		bpf_sk_storage_delete(&carried, sk);
		return ESTALE;
	}
	return 0;
}

/* The flow at this path, if it is the caller's to ask about. */
static __always_inline struct wl_datagram_flow *wl_select(struct bpf_sock *sk, const struct wl_datagram_path *path,
							  int *error)
{
	__u64 thread = bpf_get_current_pid_tgid(), id = wl_find_datagrams(&path->local, &path->peer);
	struct wl_datagram_flow *d = wl_datagrams(id);
	const struct wl_config *cfg = wl_config();

	*error = ENOENT;
	if (sk->protocol != SOCK_PROTO_UDP || !d || !cfg)
		return NULL;
	*error = EACCES;
	if (wl_caller_slot(cfg) != d->flow.slot)
		return NULL;
	*error = ENOENT;
	if (d->ends.peer.port && d->ends.peer.port != path->peer.port)
		return NULL;
	if (!(d->ends.flags & WL_DATAGRAM_PEER_SEEN))
		wl_see_peer(d, &path->peer);
	*error = ENOBUFS;
	if (bpf_map_update_elem(&selections, &thread, &id, BPF_ANY))
		return NULL;
	*error = 0;
	d->last = bpf_ktime_get_ns();
	return d;
}

/* The flow of the same socket with somebody who answers in its destination's stead. */
static __always_inline __u64 wl_open_reply(const struct wl_datagram_flow *d, const struct wl_address *from)
{
	const struct wl_config *cfg = wl_config();
	const struct wl_tables *t = wl_tables();
	struct wl_destination to = {};
	struct wl_datagram_flow *reply;
	__u64 id, *present, cgroup = d->flow.admitted_cgroup;
	__u64 slot = d->flow.slot;

	wl_destination_of(d->cookie, from, &to);
	present = bpf_map_lookup_elem(&destinations, &to);
	if (present && wl_datagrams(*present))
		return *present;
	if (!cfg || !t || slot >= WL_MAX_SERVICES || wl_admit_datagrams(cfg, cgroup))
		return 0;
	wl_note_copy(d->flow.chain.excluded);
	reply = wl_new_datagrams(&id);
	if (!reply) {
		wl_count_out(&live_datagram_flows, &admitted_datagrams, cgroup);
		return 0;
	}
	reply->flow = d->flow;
	reply->flow.id = id;
	reply->flow.destination = *from;
	reply->cookie = d->cookie;
	reply->last = bpf_ktime_get_ns();
	reply->ends.peer = d->ends.peer;
	reply->ends.flags = d->ends.flags & WL_DATAGRAM_PEER_SEEN;
	/* The verifier of Linux 6.1 has forgotten by now that it has seen the check. */
	asm volatile("" : "+r"(slot));
	if (wl_take_token(reply, &t->services[slot & (WL_MAX_SERVICES - 1)], wl_is_mapped(from->ip)) && wl_note_destination(reply))
		return id;
	wl_end_datagrams(id);
	return 0;
}

static __always_inline int wl_select_reply(struct bpf_sock *sk, const struct wl_reply *reply)
{
	__u64 thread = bpf_get_current_pid_tgid(), id;
	struct wl_datagram_flow *d;
	int error;

	d = wl_select(sk, &reply->path, &error);
	if (!d)
		return error;
	if (wl_is_mapped(reply->from.ip) != wl_is_mapped(d->flow.destination.ip))
		return EINVAL;
	id = wl_open_reply(d, &reply->from);
	return id && !bpf_map_update_elem(&selections, &thread, &id, BPF_ANY) ? 0 : ENOBUFS;
}

static __always_inline int wl_report_unreachable(struct bpf_sock *sk, const struct wl_error *said)
{
	struct wl_unreachable *out;
	int error;

	if (!wl_select(sk, &said->path, &error))
		return error;
	out = bpf_ringbuf_reserve(&unreachable, sizeof(*out), 0);
	if (!out)
		return ENOBUFS;
	out->path = said->path;
	out->error = said->error;
	out->info = said->info;
	bpf_ringbuf_submit(out, 0);
	return 0;
}

/* What is set as the type says; a pointer into the packet of the option, or NULL. */
#define WL_INPUT(ctx, type)                                                                                  \
	((ctx)->optlen == sizeof(type) && (ctx)->optval + sizeof(type) <= (ctx)->optval_end ?                \
		 (const type *)(ctx)->optval :                                                               \
		 NULL)

static __always_inline int wl_set_datagram_option(struct bpf_sockopt *ctx)
{
	const struct wl_datagram_path *path;
	const struct wl_reply *reply;
	const struct wl_error *said;
	int error = EINVAL;

	switch (ctx->optname) {
	case WL_SELECT_FLOW:
		path = WL_INPUT(ctx, struct wl_datagram_path);
		if (path)
			wl_select(ctx->sk, path, &error);
		break;
	case WL_OPEN_REPLY:
		reply = WL_INPUT(ctx, struct wl_reply);
		if (reply)
			error = wl_select_reply(ctx->sk, reply);
		break;
	case WL_REPORT_ERROR:
		said = WL_INPUT(ctx, struct wl_error);
		if (said)
			error = wl_report_unreachable(ctx->sk, said);
		break;
	}
	return error;
}

static __always_inline int wl_set_handle(struct bpf_sockopt *ctx)
{
	struct wl_handle handle;

	if (ctx->optlen != sizeof(handle) || ctx->optval + sizeof(handle) > ctx->optval_end)
		return EINVAL;
	handle = *(struct wl_handle *)ctx->optval;
	return wl_set_records(ctx->sk, &handle);
}

static __always_inline bool wl_is_transparency(int level, int name)
{
	return (level == SOL_IP && name == IP_TRANSPARENT) || (level == SOL_IPV6 && name == IPV6_TRANSPARENT);
}

/* Proxies of the TPROXY kind ask for it before they listen, and so before they
 * have a slot, and it takes CAP_NET_ADMIN. Those that are shown the destination need none of what it
 * does, and are told that it is done. */
static __always_inline int wl_set_transparency(struct bpf_sockopt *ctx)
{
	const struct wl_config *cfg = wl_config();
	__u64 cgroup = cfg ? bpf_get_current_ancestor_cgroup_id(cfg->service_level) : 0;

	if (bpf_map_lookup_elem(&told_transparent, &cgroup))
		ctx->optlen = -1;
	return 1;
}

SEC("cgroup/setsockopt")
int wl_setsockopt(struct bpf_sockopt *ctx)
{
	int error;

	if (wl_is_transparency(ctx->level, ctx->optname))
		return wl_set_transparency(ctx);
	if (ctx->level != SOL_WAYLAY || ctx->optlen == -1 || !ctx->sk)
		return 1;
	switch (ctx->optname) {
	case WL_SET_RECORDS:
		error = wl_set_handle(ctx);
		break;
	case WL_SELECT_FLOW:
	case WL_OPEN_REPLY:
	case WL_REPORT_ERROR:
		error = wl_set_datagram_option(ctx);
		break;
	default:
		return 1;
	}
	/* Of another instance, whose program may have said what is wrong with it. */
	if ((error == EKEYEXPIRED || error == ENOENT) && bpf_get_retval() < 0)
		return 1;
	if (error)
		return wl_opt_error(error);
	bpf_set_retval(0);
	ctx->optlen = -1;
	return 1;
}
