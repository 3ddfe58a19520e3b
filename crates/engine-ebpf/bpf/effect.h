/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* Carrying a verdict out: rewrite the address, or refuse with an errno. */
#pragma once

#define WL_PASS 1
#define WL_REJECT 0
#define WL_GO_ON 2 /* not decided yet */

/* Tokens of datagram flows: the upper half of 127.0.0.0/8, without its ends. */
#define WL_FIRST_TOKEN 0x7f800001
#define WL_TOKENS 0x7ffffe

/* Where a program is attached; it knows that when it is compiled. */
enum wl_place {
	WL_AT_SCOPE,
	WL_AT_RESIDENT,
};

/* One connect() on its way through the program. */
struct wl_connect {
	struct wl_query *q; /* has the leg */
	const struct wl_config *config;
	const struct wl_tables *tables;
	const struct wl_flow *carried;
	const struct wl_flow *token; /* of the flow whose token an adopted service sends to */
	const struct wl_route *route;
	__u64 excluded;
	__u64 sandbox; /* the cgroup in one, if that is why the leg is not redirected */
	__u32 hop_count;
	__u32 listener; /* of the chosen service */
};

/* What becomes of the leg at the redirect layer. */
struct wl_choice {
	__u64 skip;   /* services that are left out */
	__u32 hop_count;
	__u32 wanted; /* 0: go to the destination */
	__u32 slot;   /* of the service that is wanted */
	__u32 filter; /* the id of the one that wants it */
	__u32 refusal;
	__u32 error; /* of the refusal */
	__u32 listener;
};

/* Room for a report of that size; that there is none is counted. */
static __always_inline void *wl_new_event(__u64 size)
{
	void *event = bpf_ringbuf_reserve(&events, size, 0);
	__u32 zero = 0;
	__u64 *lost;

	if (event)
		return event;
	lost = bpf_map_lookup_elem(&lost_events, &zero);
	if (lost)
		__sync_fetch_and_add(lost, 1);
	return NULL;
}

static __always_inline void wl_report(const struct wl_leg *leg, __u32 refusal, __u32 error, __u32 service,
				      __u32 filter)
{
	struct wl_event *event = wl_new_event(sizeof(*event));

	if (!event)
		return;
	event->refusal = refusal;
	event->error = error;
	event->service = service;
	event->filter = filter;
	event->destination = leg->remote;
	event->process = leg->caller;
	event->protocol = leg->protocol;
	event->reserved = 0;
	bpf_ringbuf_submit(event, 0);
}

WL_GLOBAL int wl_refuse_and_report(struct wl_leg *leg, __u32 refusal, __u32 error, __u32 service, __u32 filter)
{
	if (!leg)
		return 0;
	wl_introduce(&leg->caller);
	wl_report(leg, refusal, error, service, filter);
	bpf_set_retval(-(int)error);
	return 0;
}

static __always_inline int wl_refuse(struct wl_leg *leg, __u32 refusal, __u32 error, __u32 service, __u32 filter)
{
	wl_refuse_and_report(leg, refusal, error, service, filter);
	return WL_REJECT;
}

/* Where no search can be claimed. Global, for the stack's sake. */
WL_GLOBAL int wl_refuse_crowded(struct bpf_sock_addr *ctx)
{
	struct wl_leg leg = { .protocol = ctx->protocol };

	wl_caller(&leg.caller);
	wl_refuse(&leg, WL_REFUSED_NO_FLOWS, ENOBUFS, 0, 0);
	return WL_REJECT;
}

/* A leg of another network namespace that passes: told once of each process and
 * namespace, so that nobody can flood the reader. */
static __always_inline int wl_leave_alone(struct bpf_sock_addr *ctx, struct wl_leg *leg)
{
	struct wl_visitor visitor = { .netns = bpf_get_netns_cookie(ctx) };
	__u8 told = 1;

	wl_introduce(&leg->caller);
	visitor.start_time_ns = leg->caller.start_time_ns;
	if (!bpf_map_update_elem(&visitors, &visitor, &told, BPF_NOEXIST))
		wl_report(leg, WL_PASSED_FOREIGN_NAMESPACE, 0, 0, 0);
	return WL_PASS;
}

static __always_inline void wl_bind_device(struct bpf_sock_addr *ctx, int device)
{
	bpf_setsockopt(ctx, SOL_SOCKET, SO_BINDTOIFINDEX, &device, sizeof(device));
}

/* An application's own escape from its VPN must not become a loop outside of
 * us: what it asked of its socket is asked of the service's too. The device
 * only on the last leg: the others go over loopback. */
static __always_inline void wl_grant_mark(struct bpf_sock_addr *ctx, const struct wl_socket_wishes *w)
{
	int mark = w->mark;

	if (mark)
		bpf_setsockopt(ctx, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
}

static __always_inline bool wl_takes_ip4(const struct wl_leg *leg)
{
	return leg->remote.family == AF_INET || wl_is_mapped(leg->remote.ip);
}

/* Of a service: which listener takes the connection, or why none does. */
enum wl_availability {
	WL_BACKLOG_FULL = -1, /* every bit: together with WL_ABSENT it is this */
	WL_ABSENT = 0,
	WL_AVAILABLE = 1, /* and up: the listener's number and one */
};

/* Whoever listens there is the service only if it has made the socket: once the
 * service has died its port is anybody's. */
static __always_inline int wl_room(struct bpf_sock *sk, const struct wl_service *service)
{
	struct sock *full = (struct sock *)bpf_skc_to_tcp_sock(sk);

	if (sk->state != TCP_LISTEN || !full)
		return WL_ABSENT;
	if (full->sk_cgrp_data.cgroup->kn->id != service->cgroup)
		return WL_ABSENT;
	return full->sk_ack_backlog > full->sk_max_ack_backlog ? WL_BACKLOG_FULL : WL_AVAILABLE;
}

/* One listener. A global function, as is the next, so that it is verified once
 * and not once a listener and service. */
WL_GLOBAL int wl_listener_room(struct bpf_sock_addr *ctx, const struct wl_service *service, __u32 number, __u32 ip4)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk;
	int answer;

	if (!service)
		return WL_ABSENT;
	number &= WL_MAX_LISTENERS - 1;
	if (ip4) {
		tuple.ipv4.daddr = wl_ip4(service->listen4);
		tuple.ipv4.dport = bpf_htons(service->ports4[number]);
		sk = bpf_sk_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	} else {
		__builtin_memcpy(tuple.ipv6.daddr, service->listen6, 16);
		tuple.ipv6.dport = bpf_htons(service->ports6[number]);
		sk = bpf_sk_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	if (!sk)
		return WL_ABSENT;
	answer = wl_room(sk, service);
	bpf_sk_release(sk);
	return answer;
}

/* The socket for datagrams; one for all, which drops what it has no room for. */
WL_GLOBAL int wl_datagrams_room(struct bpf_sock_addr *ctx, const struct wl_service *service, __u32 ip4)
{
	struct bpf_sock_tuple tuple = {};
	struct sock *full;
	struct bpf_sock *sk;
	int answer = WL_ABSENT;

	if (!service || !(ip4 ? service->udp4 : service->bank))
		return WL_ABSENT;
	if (ip4) {
		tuple.ipv4.daddr = bpf_htonl(WL_FIRST_TOKEN);
		tuple.ipv4.dport = bpf_htons(service->udp4);
		sk = bpf_sk_lookup_udp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	} else {
		tuple.ipv6.daddr[3] = bpf_htonl(1);
		tuple.ipv6.dport = bpf_htons(service->behind6 ?: service->udp6[0]);
		sk = bpf_sk_lookup_udp(ctx, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	if (!sk)
		return WL_ABSENT;
	full = wl_full_sock(sk);
	if (BPF_CORE_READ(full, sk_cgrp_data.cgroup, kn, id) == service->cgroup)
		answer = WL_AVAILABLE;
	bpf_sk_release(sk);
	return answer;
}

static __always_inline bool wl_is_alive(__u32 slot)
{
	__u32 *alive = bpf_map_lookup_elem(&service_alive, &slot);

	return alive && *alive;
}

/* From any listener on, so that they fill alike. */
WL_GLOBAL int wl_availability(struct bpf_sock_addr *ctx, const struct wl_service *service, __u32 slot, __u32 ip4)
{
	__u32 count, first;
	int answer = WL_ABSENT;

	if (!wl_is_alive(slot) || !service)
		return WL_ABSENT;
	if (ctx->protocol == SOCK_PROTO_UDP)
		return wl_datagrams_room(ctx, service, ip4);
	count = ip4 ? service->count4 : service->count6;
	if (!count || count > WL_MAX_LISTENERS)
		return WL_ABSENT;
	first = count > 1 ? bpf_get_prandom_u32() % count : 0;
	for (__u32 i = 0; i < WL_MAX_LISTENERS; i++) {
		__u32 number = (first + i) % count;
		int room;

		if (i >= count)
			break;
		room = wl_listener_room(ctx, service, number, ip4);
		if (room > WL_ABSENT)
			return WL_AVAILABLE + (number & (WL_MAX_LISTENERS - 1));
		/* Without a branch, which older kernels' verifiers would follow both ways at each turn. */
		answer |= room;
	}
	return answer;
}

/* `family` is the program's: connect4 may not touch user_ip6, nor connect6 user_ip4. */
static __always_inline void wl_rewrite(struct bpf_sock_addr *ctx, int family, const struct wl_leg *leg,
				       const struct wl_service *service, __u32 listener)
{
	bool ip4 = wl_takes_ip4(leg);
	const __u32 *to = (const __u32 *)(ip4 ? service->listen4 : service->listen6);
	__u64 number = listener & (WL_MAX_LISTENERS - 1);

	if (family == AF_INET) {
		ctx->user_ip4 = to[3];
	} else {
		ctx->user_ip6[0] = to[0];
		ctx->user_ip6[1] = to[1];
		ctx->user_ip6[2] = to[2];
		ctx->user_ip6[3] = to[3];
	}
	ctx->user_port = bpf_htons(ip4 ? service->ports4[number] : service->ports6[number]);
}

static __always_inline void wl_fill_flow(struct wl_flow *flow, const struct wl_connect *c, __u64 id, __u32 slot,
					 const struct wl_service *service, __u32 filter)
{
	__u64 hop = c->hop_count;

	flow->admitted_cgroup = c->q->leg.caller.cgroup;
	flow->state = WL_FLOW_RESERVED;
	flow->slot = slot;
	flow->listener = (slot * 2 + !wl_takes_ip4(&c->q->leg)) * WL_MAX_LISTENERS + c->listener;
	flow->taken = 0;
	flow->seen = sweep;
	flow->errand = 0;
	flow->began = bpf_ktime_get_ns();
	flow->destination = c->q->leg.remote;
	if (!c->carried) {
		flow->first = id;
		flow->application = c->q->leg.caller;
		flow->gid = c->q->who.gid;
		/* Deeper there is nothing, and the flow has begun as zeros. */
		for (int i = 0; i < WL_LINEAGE; i++) {
			flow->lineage[i] = bpf_get_current_ancestor_cgroup_id(i);
			if (!flow->lineage[i])
				break;
		}
	}
	flow->chain.excluded = c->excluded | 1ULL << slot;
	flow->chain.hop_count = hop + 1;
	if (hop < WL_MAX_HOPS) {
		struct wl_hop *to;
		__u64 at = hop;

		/* Linux 6.1 forgets the bounds of what has been on the stack. */
		asm volatile("" : "+r"(at));
		to = &flow->chain.hops[at & (WL_MAX_HOPS - 1)];
		to->service = service->id;
		to->filter = filter;
	}
	__sync_lock_test_and_set(&flow->id, id);
}

/* What the flow leaves on the connecting socket and, for getpeername, on the
 * MPTCP socket above it. A global function for its stack: the caller's is deep
 * in wl_exe_path() at another time. */
WL_GLOBAL int wl_remember(struct bpf_sock_addr *ctx, const struct wl_flow *flow, const struct wl_route *route,
			  __u32 first)
{
	struct bpf_sock *sk = ctx->sk, *msk = wl_msk(sk);
	struct wl_outgoing out = {};

	if (!flow)
		return 0;
	out.flow = flow->id;
	out.destination = flow->destination;
	if (first)
		out.bound_device = flow->wishes.bound_device;
	/* Of a bound socket its own address is true. */
	if (route && !(first && wl_is_set(flow->wishes.source)))
		__builtin_memcpy(out.source, route->source, sizeof(out.source));
	if (msk) {
		bpf_sk_storage_delete(&outgoing, msk);
		if (!bpf_sk_storage_get(&outgoing, msk, &out, BPF_SK_STORAGE_GET_F_CREATE))
			return 0;
	} else if (ctx->protocol == SOCK_PROTO_TCP && wl_note_leaving(bpf_get_socket_cookie(ctx), &out)) {
		return 1;
	}
	return bpf_sk_storage_get(&outgoing, sk, &out, BPF_SK_STORAGE_GET_F_CREATE) != NULL;
}

static __always_inline void wl_forget(struct bpf_sock_addr *ctx)
{
	struct wl_outgoing *out = wl_outgoing_of(ctx->sk, wl_cookie_of_tcp(ctx->sk));
	struct bpf_sock *msk = wl_msk(ctx->sk);

	if (msk)
		bpf_sk_storage_delete(&outgoing, msk);
	if (!out)
		return;
	if (out->bound_device)
		wl_bind_device(ctx, out->bound_device);
	wl_end_unaccepted(out->flow);
	wl_drop_outgoing(ctx->sk);
}

/* Reserves all that a redirected leg needs, then rewrites its address; when
 * anything is short the connect fails instead of going out without a record. */
static __always_inline int wl_redirect(struct bpf_sock_addr *ctx, int family, struct wl_connect *c, __u32 slot,
				       const struct wl_service *service, __u32 filter)
{
	int full = wl_admit(c->config, c->q->leg.caller.cgroup);
	struct wl_flow *flow;
	__u64 id;

	if (full)
		return wl_refuse(&c->q->leg, full, ENOBUFS, service->id, filter);
	wl_note_copy(c->excluded | 1ULL << (slot & 63));
	flow = wl_new_flow(c->carried, &id);
	if (!flow) {
		wl_dismiss(c->q->leg.caller.cgroup);
		return wl_refuse(&c->q->leg, WL_REFUSED_NO_FLOWS, ENOBUFS, service->id, filter);
	}
	if (!c->carried)
		wl_introduce(&c->q->leg.caller);
	wl_fill_flow(flow, c, id, slot, service, filter);
	if (!c->carried) {
		wl_wishes(ctx->sk, family, &flow->wishes);
		wl_exe_path(flow);
	}
	/* In one, and without a look at what it is about: the verifier would follow every combination. */
	if (!wl_begin_errand(flow, service->flags) || !wl_remember(ctx, flow, c->route, !c->carried)) {
		wl_end_flow(id, WL_ENDED_BY_CLIENT);
		return wl_refuse(&c->q->leg, WL_REFUSED_NO_SOCKET_STORAGE, ENOBUFS, service->id, filter);
	}
	if (!c->carried && flow->wishes.bound_device)
		wl_bind_device(ctx, 0);
	wl_rewrite(ctx, family, &c->q->leg, service, c->listener);
	return WL_PASS;
}

static __always_inline __u64 wl_instance(void)
{
	__u32 zero = 0;
	const struct wl_key *key = bpf_map_lookup_elem(&handle_key, &zero);

	return key ? key->instance : 0;
}

/* Whose listener the leg goes to, if its owner has the say on it: ours always;
 * another instance's only within its scope, for nowhere else can it have led
 * the leg there. To anybody else such a listener is an ordinary destination. */
static __always_inline const struct wl_listener_owner *wl_listener_named(struct bpf_sock_addr *ctx,
									  const struct wl_config *cfg, const __u8 *ip,
									  __u16 port, __u8 protocol)
{
	struct wl_listener key = { .netns = cfg->netns, .port = port, .protocol = protocol };
	const struct wl_listener_owner *owner;

	__builtin_memcpy(key.ip, ip, sizeof(key.ip));
	owner = bpf_map_lookup_elem(&listeners, &key);
	if (!owner || owner->instance == wl_instance() || wl_is_made_in(ctx, owner->scope, owner->scope_level))
		return owner;
	return NULL;
}

/* One of ours that listens on every address of this host is dialled by each of them. */
static __always_inline const struct wl_listener_owner *wl_listener_at(struct bpf_sock_addr *ctx,
								       const struct wl_config *cfg,
								       const struct wl_tables *t,
								       const struct wl_address *to)
{
	const struct wl_listener_owner *owner = wl_listener_named(ctx, cfg, to->ip, to->port, SOCK_PROTO_TCP);
	__u8 ip[16];

	if (owner || !t->any_address)
		return owner;
	__builtin_memcpy(ip, to->ip, sizeof(ip));
	wl_make_unspecified(ip);
	owner = wl_listener_named(ctx, cfg, ip, to->port, SOCK_PROTO_TCP);
	return owner && owner->instance == wl_instance() && wl_is_here(to) ? owner : NULL;
}
