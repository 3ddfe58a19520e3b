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

static __always_inline int wl_query_destination(struct bpf_sockopt *ctx, const struct wl_address *a)
{
	return wl_is_mapped(a->ip) ? wl_answer_in(ctx, a) : wl_answer_in6(ctx, a);
}

static __always_inline bool wl_is_query(int level, int name)
{
	switch (level) {
	case SOL_WAYLAY:
		return name == WL_QUERY_RECORDS || name == WL_QUERY_CONTEXT || name == WL_QUERY_ORIGINAL_DST ||
		       name == WL_QUERY_CHAIN;
	case SOL_IP:
		return name == SO_ORIGINAL_DST;
	case SOL_IPV6:
		return name == IP6T_SO_ORIGINAL_DST;
	default:
		return false;
	}
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
	__u64 *id;

	/* Another instance's program on this cgroup may have answered already. */
	if (!wl_is_query(ctx->level, ctx->optname) || ctx->retval == 0)
		return 1;
	id = sk ? bpf_sk_storage_get(&inbound, sk, NULL, 0) : NULL;
	if (id)
		flow = wl_live_flow(*id);
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
	if (ctx->level == SOL_IP)
		return wl_answer_in(ctx, &flow->destination);
	if (ctx->level == SOL_IPV6)
		return wl_answer_in6(ctx, &flow->destination);
	switch (ctx->optname) {
	case WL_QUERY_RECORDS:
		return wl_query_records(ctx, flow);
	case WL_QUERY_CONTEXT:
		return wl_query_context(ctx, flow);
	case WL_QUERY_CHAIN:
		return wl_query_chain(ctx, flow);
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
	/* Nothing but TCP is redirected yet: records on another socket would be lost. */
	if (sk->type != SOCK_STREAM || (sk->family != AF_INET && sk->family != AF_INET6))
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

static __always_inline bool wl_is_transparency(int level, int name)
{
	return (level == SOL_IP && name == IP_TRANSPARENT) || (level == SOL_IPV6 && name == IPV6_TRANSPARENT);
}

/* Proxies of the TPROXY kind ask for it before they listen, and it takes
 * CAP_NET_ADMIN. Those that are shown the destination need none of what it
 * does, and are told that it is done. */
static __always_inline int wl_set_transparency(struct bpf_sockopt *ctx)
{
	const struct wl_config *cfg = wl_config();
	const struct wl_tables *t = wl_tables();
	__u64 slot = cfg ? wl_caller_slot(cfg) : WL_NO_SLOT;

	asm volatile("" : "+r"(slot));
	if (t && slot < WL_MAX_SERVICES && t->services[slot].flags & WL_SHOWS_DESTINATION)
		ctx->optlen = -1;
	return 1;
}

SEC("cgroup/setsockopt")
int wl_setsockopt(struct bpf_sockopt *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct wl_handle handle;
	int error;

	if (wl_is_transparency(ctx->level, ctx->optname))
		return wl_set_transparency(ctx);

	if (ctx->level != SOL_WAYLAY || ctx->optname != WL_SET_RECORDS || ctx->optlen == -1 || !sk)
		return 1;
	if (ctx->optlen != sizeof(handle) || ctx->optval + sizeof(handle) > ctx->optval_end)
		return wl_opt_error(EINVAL);
	handle = *(struct wl_handle *)ctx->optval;
	error = wl_set_records(sk, &handle);
	/* Of another instance, whose program may have said what is wrong with it. */
	if (error == EKEYEXPIRED && bpf_get_retval() < 0)
		return 1;
	if (error)
		return wl_opt_error(error);
	bpf_set_retval(0);
	ctx->optlen = -1;
	return 1;
}
