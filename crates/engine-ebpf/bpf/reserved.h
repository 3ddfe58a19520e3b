/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Nobody binds to where a service's datagrams arrive. A listener that asks for
 * SO_REUSEADDR, as adopted ones may, lets anybody who asks for it too bind to its
 * port, or to a token there, and what is sent goes to whoever fits best or came
 * last. Within the scope such a place counts as taken, as it would without that option.
 */
#pragma once

/* Its own datagrams are not in question: a socket for IPv6 alone gets no token. */
static __always_inline bool wl_takes_tokens(struct bpf_sock_addr *ctx, int family)
{
	struct sock *sk = wl_full_sock(ctx->sk);
	const __u32 *words;
	__u8 ip[16];

	if (family == AF_INET) {
		wl_map_ip4(ip, ctx->user_ip4);
	} else {
		words = (const __u32 *)ip;
		((__u32 *)ip)[0] = ctx->user_ip6[0];
		((__u32 *)ip)[1] = ctx->user_ip6[1];
		((__u32 *)ip)[2] = ctx->user_ip6[2];
		((__u32 *)ip)[3] = ctx->user_ip6[3];
		if (!(words[0] | words[1] | words[2] | words[3]))
			return !sk || !BPF_CORE_READ_BITFIELD_PROBED(sk, __sk_common.skc_ipv6only);
	}
	return wl_is_token(ip) || (wl_is_mapped(ip) && !wl_ip4(ip));
}

/* What is sent to a service that is told in packets arrives at its socket there. */
static __always_inline bool wl_takes_loopback6(struct bpf_sock_addr *ctx, int family)
{
	__u32 last;

	if (family == AF_INET || ctx->user_ip6[0] || ctx->user_ip6[1] || ctx->user_ip6[2])
		return false;
	last = ctx->user_ip6[3];
	return !last || last == bpf_htonl(1);
}

/* By a service other than the one that asks. */
WL_GLOBAL int wl_is_taken(struct bpf_sock_addr *ctx, __u32 ip4)
{
	const struct wl_config *cfg = wl_config();
	const struct wl_tables *t = wl_tables();
	const struct wl_listener_owner *owner;
	struct wl_process caller = {};
	__u8 ip[16] = { [15] = 1 };
	__u64 slot;

	if (ip4)
		wl_map_ip4(ip, 0);
	owner = cfg ? wl_listener_named(ctx, cfg, ip, bpf_ntohs((__u16)ctx->user_port), SOCK_PROTO_UDP) : NULL;
	if (!owner || !t || owner->instance != wl_instance())
		return 0;
	wl_caller(&caller);
	slot = wl_service_slot(&caller);
	asm volatile("" : "+r"(slot));
	return slot >= WL_MAX_SERVICES || t->services[slot].id != owner->service;
}

static __always_inline int wl_on_bind_in_scope(struct bpf_sock_addr *ctx, int family)
{
	const struct wl_config *cfg = wl_config();

	if (ctx->protocol != SOCK_PROTO_UDP || !cfg || bpf_get_netns_cookie(ctx) != cfg->netns)
		return WL_PASS;
	if (!(wl_takes_tokens(ctx, family) && wl_is_taken(ctx, 1)) &&
	    !(wl_takes_loopback6(ctx, family) && wl_is_taken(ctx, 0)))
		return WL_PASS;
	bpf_set_retval(-EADDRINUSE);
	return WL_REJECT;
}

SEC("cgroup/bind4")
int wl_reserve4(struct bpf_sock_addr *ctx)
{
	return wl_on_bind_in_scope(ctx, AF_INET);
}

SEC("cgroup/bind6")
int wl_reserve6(struct bpf_sock_addr *ctx)
{
	return wl_on_bind_in_scope(ctx, AF_INET6);
}
