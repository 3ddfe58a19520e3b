/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Services of the TPROXY kind, which answer datagrams from sockets that they bind
 * to where these were going: to the token, that is. Under TPROXY the listener has
 * another port, and such a socket gets nothing unless it is connected. Here it
 * would be the best match for all that the application sends. So it is bound
 * aside, and what it sends starts from the token all the same.
 */
#pragma once

/* Addresses of the loopback that are no tokens, to which nothing is sent; one after
 * the other. */
#define WL_ASIDE 0x7f400000 /* 127.64.0.0/10 */
#define WL_ASIDES 0x400000

static __always_inline bool wl_is_aside(const __u8 *ip)
{
	return wl_is_mapped(ip) && (bpf_ntohl(wl_ip4(ip)) & ~(WL_ASIDES - 1)) == WL_ASIDE;
}

static __always_inline struct wl_answering *wl_answering(struct bpf_sock_addr *ctx)
{
	return standing_aside ? bpf_sk_storage_get(&answering, ctx->sk, NULL, 0) : NULL;
}

/* The service that calls, or NULL. */
static __always_inline const struct wl_service *wl_calling_service(__u64 *slot)
{
	const struct wl_tables *t = wl_tables();
	struct wl_process caller = {};

	wl_caller(&caller);
	*slot = wl_service_slot(&caller);
	asm volatile("" : "+r"(*slot));
	return t && *slot < WL_MAX_SERVICES ? &t->services[*slot] : NULL;
}

/* A socket that is connected to a token starts from where it is bound, and no program
 * is asked about what it sends. A service that connects is bound to tokens. */
static __always_inline bool wl_answers_connected(const struct wl_service *service, __u64 slot)
{
	return connects_answers[slot & (WL_MAX_SERVICES - 1)] == service->cgroup;
}

/* To be bound aside, and in whose name. */
static __always_inline bool wl_answers_from(const struct wl_service *service, __u64 slot, struct wl_answering *a)
{
	struct wl_told told = {};

	if (wl_is_token(a->as.ip))
		return service->flags & WL_SHOWS_DESTINATION && service->udp4 == a->as.port &&
		       !wl_answers_connected(service, slot);
	if (!(service->flags & WL_IN_PACKETS))
		return false;
	wl_told_of(&a->as, NULL, slot, &told);
	a->was_told = !!wl_token_told(&told);
	return a->was_told;
}

/* With IPv6, whose loopback has one address, the port says where it is, whichever
 * the kernel takes. */
static __always_inline void wl_bind_aside(struct bpf_sock_addr *ctx, int family, const struct wl_answering *a,
					  const struct wl_service *service)
{
	if (family == AF_INET) {
		ctx->user_ip4 = a->aside;
	} else {
		if (!wl_is_mapped(a->as.ip))
			ctx->user_ip6[0] = ctx->user_ip6[1] = ctx->user_ip6[2] = 0;
		ctx->user_ip6[3] = a->aside;
	}
	ctx->user_port = wl_is_mapped(a->as.ip) ? bpf_htons(service->udp4) : 0;
}

static __always_inline int wl_on_bind(struct bpf_sock_addr *ctx, int family)
{
	const struct wl_config *cfg = wl_config();
	const struct wl_service *service;
	struct wl_answering a = {};
	__u64 slot;

	if (ctx->protocol != SOCK_PROTO_UDP)
		return WL_PASS;
	if (wl_answering(ctx)) /* of an attempt that has failed */
		bpf_sk_storage_delete(&answering, ctx->sk);
	wl_remote(ctx, family, &a.as);
	if (!cfg || bpf_get_netns_cookie(ctx) != cfg->netns)
		return WL_PASS;
	service = wl_calling_service(&slot);
	if (!service || !wl_answers_from(service, slot, &a))
		return WL_PASS;
	if (wl_is_mapped(a.as.ip))
		a.aside = bpf_htonl(WL_ASIDE | (__sync_fetch_and_add(&last_aside, 1) & (WL_ASIDES - 1)));
	else
		a.aside = bpf_htonl(1);
	if (!bpf_sk_storage_get(&answering, ctx->sk, &a, BPF_SK_STORAGE_GET_F_CREATE)) {
		bpf_set_retval(-ENOBUFS);
		return WL_REJECT;
	}
	standing_aside = 1;
	wl_bind_aside(ctx, family, &a, service);
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

/* What getsockname(2) says of a socket that is bound to `ip4`. */
static __always_inline const struct wl_address *wl_named_after(struct bpf_sock_addr *ctx, __u32 ip4)
{
	const struct wl_answering *a = wl_answering(ctx);

	return a && ip4 == a->aside ? &a->as : NULL;
}

/* The token of the flow that a socket's answer to this peer is of, as wl_told has it;
 * 0: of none, or it has become another's. */
WL_GLOBAL __u32 wl_token_towards(const struct wl_address *as, const struct wl_address *peer, __u64 slot,
			       __u16 port)
{
	struct wl_address token = {};
	struct wl_datagram_flow *d;
	struct wl_told told = {};
	const __u32 *known;

	if (!as || !peer)
		return 0;
	wl_told_of(as, peer, slot, &told);
	known = wl_token_told(&told);
	if (!known)
		return 0;
	wl_token_of(*known, wl_is_mapped(as->ip), port, &token);
	d = wl_datagrams(wl_find_datagrams(&token, peer));
	if (!d || d->flow.slot != slot || d->flow.destination.port != as->port ||
	    !wl_same_ip(d->flow.destination.ip, as->ip))
		return 0;
	d->last = bpf_ktime_get_ns();
	return *known;
}

static __always_inline int wl_answers_nobody(void)
{
	bpf_set_retval(-ESTALE);
	return WL_REJECT;
}

/* What is sent from aside starts from the token; the scope's program, which is
 * asked next, sees no other source. Programs of their own: wl_sendmsg4 and
 * wl_udp_connect4 have no room for more on Linux 6.1. */
SEC("cgroup/sendmsg4")
int wl_answer4(struct bpf_sock_addr *ctx)
{
	const struct wl_answering *a = wl_answering(ctx);
	struct wl_address as, peer = {};
	const struct wl_service *service;
	__u64 slot;
	__u32 ip4;

	if (!a || ctx->msg_src_ip4 != a->aside)
		return WL_PASS;
	as = a->as;
	ip4 = wl_ip4(as.ip);
	if (a->was_told) {
		wl_remote(ctx, AF_INET, &peer);
		service = wl_calling_service(&slot);
		ip4 = service ? wl_token_towards(&as, &peer, slot, service->udp4) : 0;
		if (!ip4)
			return wl_answers_nobody();
	}
	ctx->msg_src_ip4 = ip4;
	return WL_PASS;
}

/* No program can give what is sent another port. So it starts from an address that
 * is nobody's and says the token's, which it gets on its way (packets.h); the rest is a
 * proof, for others may start from anywhere. */
#define WL_ANSWER_PREFIX 0xfd77

WL_GLOBAL __u64 wl_proof_of_answer(__u64 flow)
{
	__u32 zero = 0;
	const struct wl_key *key = bpf_map_lookup_elem(&handle_key, &zero);
	__u64 words[WL_HANDLE_WORDS] = { flow, WL_ANSWER_PREFIX }, tag[2];

	if (!key)
		return 0;
	wl_siphash128(key->k0, key->k1, words, tag);
	return tag[0];
}

SEC("cgroup/sendmsg6")
int wl_answer6(struct bpf_sock_addr *ctx)
{
	const struct wl_answering *a = wl_answering(ctx);
	struct wl_address as, peer = {}, token = {};
	__u64 slot, proof;
	__u32 port;

	if (!a || !a->was_told)
		return WL_PASS;
	as = a->as;
	wl_remote(ctx, AF_INET6, &peer);
	port = wl_calling_service(&slot) ? wl_token_towards(&as, &peer, slot, 0) : 0;
	if (!port || wl_is_mapped(as.ip))
		return wl_answers_nobody();
	wl_token_of(port, false, 0, &token);
	proof = wl_proof_of_answer(wl_find_datagrams(&token, &peer));
	ctx->msg_src_ip6[0] = bpf_htonl(WL_ANSWER_PREFIX << 16 | (port & 0xffff));
	ctx->msg_src_ip6[1] = 0;
	ctx->msg_src_ip6[2] = proof >> 32;
	ctx->msg_src_ip6[3] = proof;
	return WL_PASS;
}

/* From now on what comes from that socket to that peer gets the token for its source
 * on its way. */
static __always_inline bool wl_note_answer(struct bpf_sock_addr *ctx, struct wl_answering *a,
					   const struct wl_address *peer, __u32 token)
{
	struct wl_address from = {};
	struct wl_told told = {};
	__u32 port = ctx->sk->src_port;

	if (wl_is_mapped(a->as.ip))
		wl_map_ip4(from.ip, a->aside);
	else
		from.ip[15] = 1;
	from.port = port;
	wl_told_of(&from, peer, WL_NO_SLOT, &told);
	if (a->connected.slot)
		wl_untell(&a->connected);
	a->connected = told;
	return wl_tell_token(&told, token);
}

/* That cannot be done for a socket which connects. With a token it is refused once,
 * and the service is remembered; with a destination its datagrams get their source
 * on the way (packets.h). */
static __always_inline int wl_on_connected_answer(struct bpf_sock_addr *ctx, int family)
{
	struct wl_answering *a = wl_answering(ctx);
	struct wl_address as, peer = {};
	const struct wl_service *service;
	__u64 slot;
	__u32 token;

	if (!a)
		return WL_PASS;
	as = a->as;
	service = wl_calling_service(&slot);
	if (!a->was_told) {
		if (service)
			connects_answers[slot & (WL_MAX_SERVICES - 1)] = service->cgroup;
		bpf_set_retval(-EAGAIN);
		return WL_REJECT;
	}
	wl_remote(ctx, family, &peer);
	token = service ? wl_token_towards(&as, &peer, slot, service->udp4) : 0;
	return token && wl_note_answer(ctx, a, &peer, token) ? WL_PASS : wl_answers_nobody();
}

SEC("cgroup/connect4")
int wl_connect_answer4(struct bpf_sock_addr *ctx)
{
	return wl_on_connected_answer(ctx, AF_INET);
}

SEC("cgroup/connect6")
int wl_connect_answer6(struct bpf_sock_addr *ctx)
{
	return wl_on_connected_answer(ctx, AF_INET6);
}

/* Whether those have judged what it sends: its datagrams are answers, and no flow. */
static __always_inline bool wl_is_answer(struct bpf_sock_addr *ctx)
{
	const struct wl_answering *a = wl_answering(ctx);

	return a && a->was_told;
}
