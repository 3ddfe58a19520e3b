/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Services of the TPROXY kind, which answer datagrams from sockets that they bind
 * to where these were going: to the token, that is. Under TPROXY the listener has
 * another port, and such a socket gets nothing unless it is connected. Here it
 * would be the best match for all that the application sends. So it is bound
 * aside, and what it sends starts from the token all the same.
 */
#pragma once

/* Addresses of the loopback that are no tokens, to which nothing is sent. Two
 * tokens share one, as two sockets may that ask for SO_REUSEADDR. */
#define WL_ASIDE 0x7f400000 /* 127.64.0.0/10 */
#define WL_ASIDES 0x400000

static __always_inline __u32 wl_aside(const struct wl_address *token)
{
	return bpf_htonl(WL_ASIDE | (bpf_ntohl(wl_ip4(token->ip)) & (WL_ASIDES - 1)));
}

/* The token in whose name a socket answers. */
static __always_inline struct wl_address *wl_answers_as(struct bpf_sock_addr *ctx)
{
	return standing_aside ? bpf_sk_storage_get(&answers_as, ctx->sk, NULL, 0) : NULL;
}

/* A socket that is connected starts from where it is bound, and no program is
 * asked about what it sends. A service that connects is bound to tokens. */
static __always_inline bool wl_answers_connected(const struct wl_service *service, __u64 slot)
{
	return connects_answers[slot & (WL_MAX_SERVICES - 1)] == service->cgroup;
}

/* Whether it is to be bound aside. */
static __always_inline bool wl_answers_from(const struct wl_address *at)
{
	const struct wl_tables *t = wl_tables();
	const struct wl_service *service;
	struct wl_process caller = {};
	__u64 slot;

	wl_caller(&caller);
	slot = wl_service_slot(&caller);
	asm volatile("" : "+r"(slot));
	if (!t || slot >= WL_MAX_SERVICES)
		return false;
	service = &t->services[slot];
	return service->flags & WL_SHOWS_DESTINATION && service->udp4 == at->port &&
	       !wl_answers_connected(service, slot);
}

static __always_inline int wl_on_bind(struct bpf_sock_addr *ctx, int family)
{
	const struct wl_config *cfg = wl_config();
	struct wl_address at = {}, *token;

	if (ctx->protocol != SOCK_PROTO_UDP)
		return WL_PASS;
	if (wl_answers_as(ctx)) /* of an attempt that has failed */
		bpf_sk_storage_delete(&answers_as, ctx->sk);
	wl_remote(ctx, family, &at);
	if (!wl_is_token(at.ip) || !cfg || bpf_get_netns_cookie(ctx) != cfg->netns || !wl_answers_from(&at))
		return WL_PASS;
	token = bpf_sk_storage_get(&answers_as, ctx->sk, &at, BPF_SK_STORAGE_GET_F_CREATE);
	if (!token) {
		bpf_set_retval(-ENOBUFS);
		return WL_REJECT;
	}
	standing_aside = 1;
	if (family == AF_INET)
		ctx->user_ip4 = wl_aside(token);
	else
		ctx->user_ip6[3] = wl_aside(token);
	return WL_PASS;
}

SEC("cgroup/bind4")
int wl_bind4(struct bpf_sock_addr *ctx)
{
	return wl_on_bind(ctx, AF_INET);
}

SEC("cgroup/bind6")
int wl_bind6(struct bpf_sock_addr *ctx)
{
	return wl_on_bind(ctx, AF_INET6);
}

/* The token that getsockname(2) says, of a socket that is bound to `ip4`. */
static __always_inline const struct wl_address *wl_named_after(struct bpf_sock_addr *ctx, __u32 ip4)
{
	const struct wl_address *token = wl_answers_as(ctx);

	return token && ip4 == wl_aside(token) ? token : NULL;
}

/* What is sent from aside starts from the token; the scope's program, which is
 * asked next, sees no other source. Programs of their own: wl_sendmsg4 and
 * wl_udp_connect4 have no room for more on Linux 6.1. */
SEC("cgroup/sendmsg4")
int wl_answer4(struct bpf_sock_addr *ctx)
{
	const struct wl_address *token = wl_answers_as(ctx);

	if (token && ctx->msg_src_ip4 == wl_aside(token))
		ctx->msg_src_ip4 = wl_ip4(token->ip);
	return WL_PASS;
}

/* That cannot be done for a socket which connects: it is refused once, and the
 * service is remembered. */
static __always_inline int wl_on_connected_answer(struct bpf_sock_addr *ctx)
{
	const struct wl_tables *t = wl_tables();
	struct wl_process caller = {};
	__u64 slot;

	if (!wl_answers_as(ctx))
		return WL_PASS;
	wl_caller(&caller);
	slot = wl_service_slot(&caller);
	asm volatile("" : "+r"(slot));
	if (t && slot < WL_MAX_SERVICES)
		connects_answers[slot] = t->services[slot].cgroup;
	bpf_set_retval(-EAGAIN);
	return WL_REJECT;
}

SEC("cgroup/connect4")
int wl_connect_answer4(struct bpf_sock_addr *ctx)
{
	return wl_on_connected_answer(ctx);
}

SEC("cgroup/connect6")
int wl_connect_answer6(struct bpf_sock_addr *ctx)
{
	return wl_on_connected_answer(ctx);
}
