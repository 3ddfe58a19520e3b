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

static __always_inline int wl_on_bind_in_scope(struct bpf_sock_addr *ctx, int family)
{
	const struct wl_config *cfg = wl_config();
	const struct wl_tables *t = wl_tables();
	const struct wl_listener_owner *owner;
	struct wl_process caller = {};
	__u8 every_address[16];
	__u64 slot;

	if (ctx->protocol != SOCK_PROTO_UDP || !cfg || !t || bpf_get_netns_cookie(ctx) != cfg->netns ||
	    !wl_takes_tokens(ctx, family))
		return WL_PASS;
	wl_map_ip4(every_address, 0);
	owner = wl_listener_named(ctx, cfg, every_address, bpf_ntohs((__u16)ctx->user_port), SOCK_PROTO_UDP);
	if (!owner || owner->instance != wl_instance())
		return WL_PASS;
	wl_caller(&caller);
	slot = wl_service_slot(&caller);
	asm volatile("" : "+r"(slot));
	if (slot < WL_MAX_SERVICES && t->services[slot].id == owner->service)
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
