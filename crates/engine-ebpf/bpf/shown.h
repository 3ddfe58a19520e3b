/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * What sockets say of their ends: to an application as if there were no service, to a
 * service of the TPROXY kind as if it were where the connection was going.
 */
#pragma once

/* Whom the socket is connected to as far as its owner is concerned. */
static __always_inline const struct wl_address *wl_shown_peer(struct bpf_sock_addr *ctx)
{
	struct wl_outgoing *out = wl_outgoing(ctx->sk);

	return out ? &out->destination : bpf_sk_storage_get(&peers, ctx->sk, NULL, 0);
}

SEC("cgroup/getpeername4")
int wl_getpeername4(struct bpf_sock_addr *ctx)
{
	const struct wl_address *peer = wl_shown_peer(ctx);

	if (peer)
		wl_rewrite_to(ctx, AF_INET, peer);
	return WL_PASS;
}

SEC("cgroup/getpeername6")
int wl_getpeername6(struct bpf_sock_addr *ctx)
{
	const struct wl_address *peer = wl_shown_peer(ctx);

	if (peer)
		wl_rewrite_to(ctx, AF_INET6, peer);
	return WL_PASS;
}

/* What getsockname has to show instead of the socket's own address. */
static __always_inline const __u32 *wl_shown_source(struct bpf_sock_addr *ctx)
{
	struct wl_outgoing *out = wl_outgoing(ctx->sk);

	if (!out || ctx->sk->state == TCP_CLOSE || !wl_is_set(out->source))
		return NULL;
	return (const __u32 *)out->source;
}

/* The same on a service's accepted socket, if it is one that looks there for
 * where the connection was going. Looking is how it takes the connection. */
static __always_inline const struct wl_address *wl_shown_destination(struct bpf_sock_addr *ctx)
{
	__u64 slot, id = wl_inbound(ctx->sk);
	const struct wl_tables *t = wl_tables();
	struct wl_flow *flow = id ? wl_live_flow(id) : NULL;

	if (!flow || !t)
		return NULL;
	slot = flow->slot;
	asm volatile("" : "+r"(slot));
	if (slot >= WL_MAX_SERVICES || !(t->services[slot].flags & WL_SHOWS_DESTINATION))
		return NULL;
	wl_take(flow);
	return &flow->destination;
}

SEC("cgroup/getsockname4")
int wl_getsockname4(struct bpf_sock_addr *ctx)
{
	const struct wl_address *destination = wl_named_after(ctx, ctx->user_ip4) ?: wl_shown_destination(ctx);
	const __u32 *ip;

	if (destination && wl_is_mapped(destination->ip)) {
		ctx->user_ip4 = wl_ip4(destination->ip);
		ctx->user_port = bpf_htons(destination->port);
		return WL_PASS;
	}
	ip = wl_shown_source(ctx);
	if (ip)
		ctx->user_ip4 = ip[3];
	return WL_PASS;
}

SEC("cgroup/getsockname6")
int wl_getsockname6(struct bpf_sock_addr *ctx)
{
	const struct wl_address *destination = wl_named_after(ctx, ctx->user_ip6[3]) ?: wl_shown_destination(ctx);
	const __u32 *ip = destination ? (const __u32 *)destination->ip : wl_shown_source(ctx);

	if (destination)
		ctx->user_port = bpf_htons(destination->port);
	if (ip) {
		ctx->user_ip6[0] = ip[0];
		ctx->user_ip6[1] = ip[1];
		ctx->user_ip6[2] = ip[2];
		ctx->user_ip6[3] = ip[3];
	}
	return WL_PASS;
}
