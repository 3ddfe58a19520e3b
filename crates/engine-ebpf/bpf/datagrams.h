/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * UDP. A flow is what goes from one socket to one destination. It is led to the
 * service by a token, which stands for it: an IPv4 address of its own on the
 * loopback, or, as IPv6 has one address there, one port of the service's bank.
 * No routing table is touched, and the service's answers are known by the token
 * that they come from.
 */
#pragma once

#define WL_TOKEN_TRIES 16
#define WL_PORT_TRIES 16
#define WL_FIRST_PORT 32768 /* of those that bpf_bind() is asked for */
#define WL_PORTS 28232

static __always_inline int wl_take_address(struct wl_datagram_flow *d, const struct wl_service *service)
{
	struct wl_path path = {};
	__u64 id = d->flow.id;

	path.local_port = service->udp4;
	for (int i = 0; i < WL_TOKEN_TRIES; i++) {
		__u32 token = WL_FIRST_TOKEN + __sync_fetch_and_add(&last_token, 1) % WL_TOKENS;

		wl_map_ip4(path.local_ip, bpf_htonl(token));
		if (bpf_map_update_elem(&paths, &path, &id, BPF_NOEXIST))
			continue;
		__builtin_memcpy(d->ends.local.ip, path.local_ip, sizeof(path.local_ip));
		d->ends.local.port = service->udp4;
		d->ends.local.family = AF_INET;
		return 1;
	}
	return 0;
}

/* The search for a port of the bank that this peer does not use yet. */
struct wl_port_search {
	struct wl_path path;
	__u64 id;
	struct wl_oldest oldest;
	__u16 oldest_port;
};

WL_GLOBAL int wl_try_port(struct wl_port_search *s, __u32 port)
{
	__u64 *taken, before, id;
	struct wl_path path;

	if (!s)
		return 0;
	s->path.local_port = port;
	/* Linux 6.1 takes keys and values from the stack, and not by an argument. */
	path = s->path;
	id = s->id;
	if (!bpf_map_update_elem(&paths, &path, &id, BPF_NOEXIST))
		return 1;
	taken = bpf_map_lookup_elem(&paths, &path);
	before = s->oldest.id;
	if (taken)
		wl_consider(&s->oldest, *taken, 0);
	if (s->oldest.id != before)
		s->oldest_port = port;
	return 0;
}

/* If all are taken, that of the flow that has been idle for longest, which is dropped. */
static __always_inline int wl_search_port(struct wl_port_search *s, const struct wl_service *service)
{
	__u32 count = service->bank, start = bpf_get_prandom_u32();

	if (!count || count > WL_MAX_BANK)
		return 0;
	for (int i = 0; i < WL_MAX_BANK; i++) {
		__u64 at = (start + i) % count;

		if (i >= count)
			break;
		asm volatile("" : "+r"(at));
		if (wl_try_port(s, service->udp6[at & (WL_MAX_BANK - 1)]))
			return 1;
	}
	return wl_drop(&s->oldest) && wl_try_port(s, s->oldest_port);
}

static __always_inline int wl_take_port(struct wl_datagram_flow *d, const struct wl_service *service)
{
	struct wl_port_search s = { .id = d->flow.id, .oldest.since = ~0ULL };

	s.path.local_ip[15] = 1;
	__builtin_memcpy(s.path.peer_ip, d->ends.peer.ip, sizeof(s.path.peer_ip));
	s.path.peer_port = d->ends.peer.port;
	if (!wl_search_port(&s, service))
		return 0;
	__builtin_memcpy(d->ends.local.ip, s.path.local_ip, sizeof(s.path.local_ip));
	d->ends.local.port = s.path.local_port;
	d->ends.local.family = AF_INET6;
	return 1;
}

WL_GLOBAL int wl_take_token(struct wl_datagram_flow *d, const struct wl_service *service, __u32 ip4)
{
	if (!d || !service)
		return 0;
	return ip4 ? wl_take_address(d, service) : wl_take_port(d, service);
}

/* So that datagrams of a socket that is not connected find the flow again. */
WL_GLOBAL int wl_note_destination(const struct wl_datagram_flow *d)
{
	struct wl_destination to = {};
	__u64 id;

	if (!d)
		return 0;
	id = d->flow.id;
	wl_destination_of(d->cookie, &d->flow.destination, &to);
	return !bpf_map_update_elem(&destinations, &to, &id, BPF_ANY);
}

/* `family` is the program's, as in wl_rewrite(). */
static __always_inline void wl_rewrite_to(struct bpf_sock_addr *ctx, int family, const struct wl_address *to)
{
	const __u32 *ip = (const __u32 *)to->ip;

	/* As in wl_source(). */
	asm volatile("" : "+r"(ctx));
	if (family == AF_INET) {
		ctx->user_ip4 = ip[3];
	} else {
		ctx->user_ip6[0] = ip[0];
		ctx->user_ip6[1] = ip[1];
		ctx->user_ip6[2] = ip[2];
		ctx->user_ip6[3] = ip[3];
	}
	ctx->user_port = bpf_htons(to->port);
}

/* Where datagrams start from, on their way over the loopback. */
static __always_inline void wl_source(struct bpf_sock_addr *context, int family, bool connects, bool ip4,
				      struct wl_address *a)
{
	const volatile struct bpf_sock_addr *ctx = context;
	volatile struct bpf_sock *sk = context->sk;
	/* Loaded before any branch, as in wl_wishes(). */
	__u32 local4 = sk->src_ip4, port = sk->src_port;
	__u32 l0 = sk->src_ip6[0], l1 = sk->src_ip6[1], l2 = sk->src_ip6[2], l3 = sk->src_ip6[3];
	__u32 *words = (__u32 *)a->ip;

	/* Else clang keeps the address of a field for later, which the verifier refuses. */
	asm volatile("" : "+r"(ctx));
	a->port = port;
	a->family = ip4 ? AF_INET : AF_INET6;
	a->scope = 0;
	if (family == AF_INET && !connects) {
		__u32 asked = ctx->msg_src_ip4;

		local4 = asked ?: local4;
	}
	if (family == AF_INET6 && !connects) {
		__u32 a0 = ctx->msg_src_ip6[0], a1 = ctx->msg_src_ip6[1], a2 = ctx->msg_src_ip6[2],
		      a3 = ctx->msg_src_ip6[3];

		if (a0 | a1 | a2 | a3) {
			l0 = a0;
			l1 = a1;
			l2 = a2;
			l3 = a3;
		}
	}
	if (ip4) {
		wl_map_ip4(a->ip, local4);
	} else {
		words[0] = l0;
		words[1] = l1;
		words[2] = l2;
		words[3] = l3;
	}
	wl_resolve_unspecified(a->ip);
}

/* The flow that a socket has to a destination; a function for its stack. */
WL_GLOBAL __u64 wl_find_flow_to(__u64 cookie, const struct wl_address *remote)
{
	struct wl_destination to = {};
	__u64 *id;

	if (!remote)
		return 0;
	wl_destination_of(cookie, remote, &to);
	id = bpf_map_lookup_elem(&destinations, &to);
	return id ? *id : 0;
}

/* The socket's flow to this destination. A socket that is connected to an IPv4
 * address in IPv6 has the token itself for a destination each time it sends. */
static __always_inline struct wl_datagram_flow *wl_flow_to(struct bpf_sock_addr *ctx, const struct wl_address *remote)
{
	__u64 cookie = bpf_get_socket_cookie(ctx);
	struct wl_datagram_flow *d;

	if (wl_is_token(remote->ip)) {
		d = wl_datagrams(wl_find_datagrams(remote, remote));
		return d && d->cookie == cookie ? d : NULL;
	}
	d = wl_datagrams(wl_find_flow_to(cookie, remote));
	return d && wl_is_alive(d->flow.slot) ? d : NULL;
}

WL_GLOBAL int wl_note_asked(__u64 cookie, const struct wl_address *destination, const struct wl_address *token)
{
	struct wl_destination key = {};
	struct wl_address asked;

	if (!destination || !token)
		return 0;
	asked = *token; /* see wl_try_port() */
	wl_destination_of(cookie, destination, &key);
	tokens_asked = 1;
	return !bpf_map_update_elem(&asked_by_token, &key, &asked, BPF_ANY);
}

static __always_inline const struct wl_address *wl_asked_token(__u64 cookie, const struct wl_address *destination)
{
	struct wl_destination key = {};

	if (!tokens_asked)
		return NULL;
	wl_destination_of(cookie, destination, &key);
	return bpf_map_lookup_elem(&asked_by_token, &key);
}

/* A datagram to where this socket has a flow already. */
static __always_inline bool wl_follow_flow(struct bpf_sock_addr *ctx, int family, const struct wl_address *remote)
{
	struct wl_datagram_flow *d = wl_flow_to(ctx, remote);

	if (!d)
		return false;
	d->last = bpf_ktime_get_ns();
	wl_rewrite_to(ctx, family, &d->ends.local);
	return true;
}

/* connect() again, or for the first time. */
static __always_inline void wl_leave_flow(struct bpf_sock_addr *ctx)
{
	struct wl_outgoing *out = bpf_sk_storage_get(&outgoing, ctx->sk, NULL, 0);

	if (!out)
		return;
	if (out->bound_device)
		wl_bind_device(ctx, out->bound_device);
	wl_close_datagrams(out->flow);
	bpf_sk_storage_delete(&outgoing, ctx->sk);
}

static __always_inline int wl_fail(int error)
{
	bpf_set_retval(-error);
	return WL_REJECT;
}

/* Where datagrams really came from, the port of which connect() had not chosen yet. */
static __always_inline void wl_see_peer(struct wl_datagram_flow *d, const struct wl_address *peer)
{
	d->ends.peer = *peer;
	d->ends.flags |= WL_DATAGRAM_PEER_SEEN;
	if (!d->flow.source.port && d->flow.chain.hop_count == 1)
		d->flow.source.port = peer->port;
}

/* A service answers, as only the flow's own service can, and where the flow's
 * datagrams came from. */
static __always_inline int wl_judge_reply(struct wl_datagram_flow *d, __u32 slot, const struct wl_address *to)
{
	if (d->flow.slot != slot)
		return wl_fail(EACCES);
	if (!(d->ends.flags & WL_DATAGRAM_PEER_SEEN)) {
		if (d->ends.peer.port && d->ends.peer.port != to->port)
			return wl_fail(ESTALE);
		wl_see_peer(d, to);
	}
	if (d->ends.peer.port != to->port || !wl_same_ip(d->ends.peer.ip, to->ip))
		return wl_fail(ESTALE);
	d->last = bpf_ktime_get_ns();
	return WL_PASS;
}

enum wl_whose {
	WL_NOBODYS = 0,
	WL_OTHERS, /* another instance's, which has the say on what is sent there */
	WL_OURS,
};

/* Whose UDP socket takes what is sent there, whatever address of this host it is. */
WL_GLOBAL int wl_whose_datagrams(struct bpf_sock_addr *ctx, const struct wl_address *to, __u32 *service)
{
	const struct wl_config *cfg = wl_config();
	const struct wl_listener_owner *owner;
	__u8 ip[16];

	if (!to || !cfg || !service)
		return WL_NOBODYS;
	__builtin_memcpy(ip, to->ip, sizeof(ip));
	if (wl_is_mapped(ip))
		wl_map_ip4(ip, 0);
	owner = wl_listener_named(ctx, cfg, ip, to->port, SOCK_PROTO_UDP);
	if (!owner || !wl_is_here(to))
		return WL_NOBODYS;
	*service = owner->service;
	return owner->instance == wl_instance() ? WL_OURS : WL_OTHERS;
}

static __always_inline bool wl_runs_by_itself(const struct wl_tables *t, __u64 slot)
{
	asm volatile("" : "+r"(slot));
	return slot < WL_MAX_SERVICES && t->services[slot].flags & WL_IS_RESIDENT;
}

/* To an adopted service a token is an address: what it sends there is for the
 * destination, and carries the flow's chain. */
static __always_inline int wl_judge_service(struct bpf_sock_addr *ctx, int family, struct wl_connect *c, bool connects,
					    const struct wl_address *source)
{
	struct wl_datagram_flow *d = wl_datagrams(wl_find_datagrams(source, &c->q->leg.remote));
	__u32 service;

	if (d)
		return wl_judge_reply(d, c->q->leg.caller_slot, &c->q->leg.remote);
	if (wl_is_token(source->ip))
		return wl_fail(ESTALE);
	/* A resident answers clients of its own too. */
	if (!wl_runs_by_itself(c->tables, c->q->leg.caller_slot) && wl_whose_datagrams(ctx, source, &service) == WL_OURS)
		return wl_fail(ESTALE);
	d = wl_is_token(c->q->leg.remote.ip) ? wl_datagrams(wl_find_datagrams(&c->q->leg.remote, source)) : NULL;
	if (d && d->flow.slot == c->q->leg.caller_slot) {
		d->last = bpf_ktime_get_ns();
		c->token = &d->flow;
		if (!connects)
			wl_note_asked(bpf_get_socket_cookie(ctx), &d->flow.destination, &c->q->leg.remote);
		c->q->leg.remote = d->flow.destination;
		if (!connects && wl_follow_flow(ctx, family, &d->flow.destination))
			return WL_PASS;
	}
	return WL_GO_ON;
}

/* What is no new flow: a service's answer, and what goes to somebody who has
 * called, from an application or from a resident that serves others too. */
static __always_inline int wl_judge_answer(struct bpf_sock_addr *ctx, int family, struct wl_connect *c, bool connects,
					   enum wl_place place)
{
	bool is_service = c->q->leg.caller_slot < WL_MAX_SERVICES;
	struct wl_address source = {};
	int verdict;
	__u32 port;

	wl_source(ctx, family, connects, wl_takes_ip4(&c->q->leg), &source);
	if (is_service) {
		verdict = wl_judge_service(ctx, family, c, connects, &source);
		if (verdict != WL_GO_ON)
			return verdict;
	}
	if (place == WL_AT_RESIDENT || c->token)
		return WL_GO_ON;
	if (is_service && !wl_runs_by_itself(c->tables, c->q->leg.caller_slot))
		return WL_GO_ON;
	port = source.port;
	source = c->q->leg.remote;
	if (!wl_has_called(port, &source))
		return WL_GO_ON;
	wl_rewrite_to(ctx, family, &source);
	return WL_PASS;
}

/* A service's socket is reached through the engine only, as its listeners are. */
static __always_inline int wl_judge_listener(struct bpf_sock_addr *ctx, struct wl_connect *c)
{
	__u32 service = 0;
	__u8 yes = 1;

	switch (wl_whose_datagrams(ctx, &c->q->leg.remote, &service)) {
	case WL_NOBODYS:
		return WL_GO_ON;
	case WL_OURS:
		return wl_refuse(&c->q->leg, WL_REFUSED_LISTENER_DIALLED, ECONNREFUSED, service, 0);
	default:
		bpf_sk_storage_get(&led_elsewhere, ctx->sk, &yes, BPF_SK_STORAGE_GET_F_CREATE);
		return WL_PASS;
	}
}

/* The source port, which connect() would choose later only. For IPv6 a flow is
 * known by it. 0: there is none. */
static __always_inline __u16 wl_fix_port(struct bpf_sock_addr *ctx, int family)
{
	struct wl_sockaddr_in6 at = { .family = family };
	int size = family == AF_INET ? sizeof(struct wl_sockaddr_in) : sizeof(at);
	__u16 port = ctx->sk->src_port;

	if (port)
		return port;
	for (int i = 0; i < WL_PORT_TRIES; i++) {
		port = WL_FIRST_PORT + bpf_get_prandom_u32() % WL_PORTS;
		at.port = bpf_htons(port);
		if (!bpf_bind(ctx, (struct sockaddr *)&at, size))
			return port;
	}
	return 0;
}

/* A service sends for an application, and the last leg ends on this host: a
 * server in the scope is to see the application as its client. */
static __always_inline void wl_introduce_application(struct bpf_sock_addr *ctx, int family, bool connects,
						     const struct wl_connect *c)
{
	const struct wl_route *route = wl_route_to(&c->q->leg.remote);
	struct wl_address own = {};

	if (!route || !route->here)
		return;
	wl_source(ctx, family, connects, wl_takes_ip4(&c->q->leg), &own);
	if (connects)
		own.port = wl_fix_port(ctx, family);
	if (!wl_is_set(c->carried->wishes.source))
		__builtin_memcpy(own.ip, route->source, sizeof(own.ip));
	wl_speak_for(&own, c->q->leg.remote.port, SOCK_PROTO_UDP, &c->carried->source);
}

/* What the socket and the maps have to know before a datagram may leave. */
static __always_inline int wl_settle_datagrams(struct bpf_sock_addr *ctx, int family, bool connects,
					       struct wl_connect *c, struct wl_datagram_flow *d,
					       const struct wl_service *service)
{
	bool ip4 = wl_takes_ip4(&c->q->leg);

	d->cookie = bpf_get_socket_cookie(ctx);
	d->last = bpf_ktime_get_ns();
	if (connects)
		d->ends.flags = WL_DATAGRAM_CONNECTED;
	if (family == AF_INET6 && connects && !ip4 && !wl_fix_port(ctx, family))
		return WL_REFUSED_NO_PORTS;
	wl_source(ctx, family, connects, ip4, &d->ends.peer);
	if (!c->carried) {
		d->flow.source = d->ends.peer;
		if (c->route && !wl_is_set(d->flow.wishes.source))
			__builtin_memcpy(d->flow.source.ip, c->route->source, sizeof(c->route->source));
	}
	if (!wl_take_token(d, service, ip4))
		return WL_REFUSED_NO_PORTS;
	if (!(connects ? wl_remember(ctx, &d->flow, c->route, !c->carried) : wl_note_destination(d)))
		return WL_REFUSED_NO_SOCKET_STORAGE;
	return 0;
}

/* As wl_redirect() does it for connections. */
static __always_inline int wl_lead_datagrams(struct bpf_sock_addr *ctx, int family, bool connects,
					     struct wl_connect *c, __u32 slot, const struct wl_service *service,
					     __u32 filter)
{
	int full = wl_admit_datagrams(c->config, c->q->leg.caller.cgroup);
	struct wl_datagram_flow *d;
	__u64 id;

	if (full)
		return wl_refuse(&c->q->leg, full, ENOBUFS, service->id, filter);
	wl_note_copy(c->excluded | 1ULL << (slot & 63));
	d = wl_new_datagrams(&id);
	if (!d) {
		wl_count_out(&live_datagram_flows, &admitted_datagrams, c->q->leg.caller.cgroup);
		return wl_refuse(&c->q->leg, WL_REFUSED_NO_FLOWS, ENOBUFS, service->id, filter);
	}
	if (c->carried)
		d->flow = *c->carried;
	else
		wl_introduce(&c->q->leg.caller);
	wl_fill_flow(&d->flow, c, id, slot, service, filter);
	d->flow.state = WL_FLOW_LIVE;
	d->flow.taken = 1; /* nothing waits in a backlog */
	if (!c->carried) {
		wl_wishes(ctx->sk, family, &d->flow.wishes);
		wl_exe_path(&d->flow);
	}
	full = wl_settle_datagrams(ctx, family, connects, c, d, service);
	if (full) {
		wl_end_datagrams(id);
		return wl_refuse(&c->q->leg, full, ENOBUFS, service->id, filter);
	}
	if (!c->carried && d->flow.wishes.bound_device)
		wl_bind_device(ctx, 0);
	wl_rewrite_to(ctx, family, &d->ends.local);
	return WL_PASS;
}

/* Nobody has asked for it, as far as this socket is concerned. */
static __always_inline void wl_show_caller(struct bpf_sock_addr *ctx, int family, const struct wl_address *from,
					   __u16 local_port)
{
	const struct wl_address *behind = wl_behind(from, local_port, SOCK_PROTO_UDP);

	if (bpf_sk_storage_get(&led_elsewhere, ctx->sk, NULL, 0))
		return;
	wl_hear_caller(local_port, behind ?: from, from);
	if (behind)
		wl_rewrite_to(ctx, family, behind);
}

/* What recvmsg() says of a datagram's sender: of an answer through a service it
 * is the address that the application asked for, and of what a service sends for
 * an application it is that application's. */
static __always_inline void wl_show_sender(struct bpf_sock_addr *ctx, int family, bool hears)
{
	struct wl_address from = {}, own = {};
	__u64 cookie = bpf_get_socket_cookie(ctx);
	const struct wl_address *token;
	struct wl_datagram_flow *d;

	if (ctx->protocol != SOCK_PROTO_UDP)
		return;
	wl_remote(ctx, family, &from);
	wl_source(ctx, family, true, wl_is_mapped(from.ip), &own);
	d = wl_datagrams(wl_find_datagrams(&from, &own));
	if (d && d->cookie != cookie)
		d = NULL;
	token = wl_asked_token(cookie, d ? &d->flow.destination : &from);
	if (token)
		wl_rewrite_to(ctx, family, token);
	else if (d)
		wl_rewrite_to(ctx, family, &d->flow.destination);
	else if (hears)
		wl_show_caller(ctx, family, &from, own.port);
}
