// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * The kernel side of waylay, in reading order:
 *
 *   connect4/6      facts -> classify -> effect (facts.h, lookup.h, classify.h,
 *                   effect.h)
 *   sendmsg4/6      the same for datagrams (datagrams.h); recvmsg4/6 shows whom the
 *                   application asked as the one who answers
 *   bind4/6         lets services answer in a token's name (answers.h), and nobody
 *                   bind to where their datagrams arrive (reserved.h)
 *   sockops.h       carries the flow from the client's socket to the accepted one,
 *                   and seats.h keeps which it is
 *   getpeername4/6  shows the application the address it asked for (shown.h)
 *   getsockname4/6  and the one it would have started from
 *   sockets.h       refuses sockets that cannot be redirected
 *   sockopt.h       answers the services' questions, takes records from them
 *   learning.h      learns from resolvers' answers by which names applications know
 *                   addresses (names.h)
 *   packets.h       shows services in datagrams themselves where these were going
 *   sandboxes.h     leaves legs alone that somebody's sandbox watches
 *   residents.h     lets services be that run already, in the programs called wl_resident_*
 *   sock_release    ends flows, together with sockops and walks.h
 *
 * Decisions are those of `waylay_core::decide`; nothing is decided here that
 * is not decided there.
 */
#include "kernel.h"
#include "abi.h"
#include "siphash.h"
#include "handle.h"
#include "lookup.h"
#include "classify.h"
#include "names.h"
#include "unredirectable.h"
#include "marks.h"
#include "maps.h"
#include "facts.h"
#include "errands.h"
#include "flows.h"
#include "seats.h"
#include "effect.h"
#include "visitors.h"
#include "sandboxes.h"
#include "residents.h"
#include "callers.h"
#include "datagram_flows.h"
#include "answers.h"
#include "reserved.h"
#include "datagrams.h"
#include "packets.h"
#include "shown.h"
#include "learning.h"
#include "sockopt.h"
#include "sockets.h"
#include "sockops.h"
#include "walks.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* The chain the leg brings along: records that its own service set on the
 * socket, or what leaving a service without records excludes. */
static __always_inline void wl_find_chain(struct bpf_sock_addr *ctx, struct wl_connect *c)
{
	__u64 slot = c->q->leg.caller_slot;
	const struct wl_flow *carried_flow;

	wl_know_caller(c->q, &c->q->leg.caller);
	if (slot >= WL_MAX_SERVICES) {
		wl_know_same(c->q);
		return;
	}
	carried_flow = c->token ?: bpf_sk_storage_get(&carried, wl_msk(ctx->sk) ?: ctx->sk, NULL, 0);
	if (carried_flow && carried_flow->slot == slot) {
		c->carried = carried_flow;
		c->q->leg.proxied = 1;
		c->excluded = carried_flow->chain.excluded;
		c->hop_count = carried_flow->chain.hop_count;
		wl_know_application(c->q, carried_flow);
	} else {
		wl_know_same(c->q);
		/* Linux 6.1 forgets the bounds of what has been on the stack. */
		asm volatile("" : "+r"(slot));
		/* One that was removed has none: it dials as an application does. */
		c->excluded = c->tables->services[slot & (WL_MAX_SERVICES - 1)].prefix_mask;
		c->q->leg.proxied = !!c->excluded;
	}
}

/* Whether the choice ends with the service that the query says. */
WL_GLOBAL int wl_try_service(struct bpf_sock_addr *ctx, const struct wl_tables *t, struct wl_query *q,
			     struct wl_choice *choice)
{
	const struct wl_service *service;
	int availability;
	__u32 slot;

	if (!t || !q || !choice)
		return true;
	slot = q->group & (WL_MAX_SERVICES - 1);
	service = &t->services[slot];
	choice->wanted = 1;
	choice->slot = slot;
	choice->filter = q->filter;
	if (choice->hop_count >= WL_MAX_HOPS) {
		choice->refusal = WL_REFUSED_HOP_LIMIT;
	} else {
		availability = wl_availability(ctx, service, slot, wl_takes_ip4(&q->leg));
		if (availability >= WL_AVAILABLE) {
			choice->listener = availability - WL_AVAILABLE;
			return true;
		}
		choice->refusal = availability == WL_ABSENT ? WL_REFUSED_SERVICE_ABSENT : WL_REFUSED_BACKLOG_FULL;
	}
	if (choice->refusal == WL_REFUSED_BACKLOG_FULL || service->on_failure == WL_ON_FAILURE_CLOSED)
		return true;
	choice->wanted = 0;
	choice->refusal = 0;
	choice->skip |= 1ULL << slot;
	return false;
}

/* Whether datagrams to there go to several hosts: by the address alone, or because it
 * is that of all hosts of a network, which the routes say. */
WL_GLOBAL int wl_leads_to_group(const struct wl_address *remote)
{
	const struct wl_route *route;

	if (!remote)
		return 0;
	if (wl_is_group(remote->ip))
		return 1;
	route = wl_route_to(remote);
	return route && route->group;
}

/* Both are global functions, so that what comes after a service's turn is verified once,
 * and not once for each service and way to end it. */
WL_GLOBAL int wl_choose_service(struct bpf_sock_addr *ctx, const struct wl_tables *t, struct wl_query *q,
				struct wl_choice *choice)
{
	if (!t || !q || !choice)
		return 0;
	if (q->leg.caller_slot < WL_MAX_SERVICES)
		choice->skip |= 1ULL << q->leg.caller_slot;
	for (int i = 0; i < WL_MAX_SERVICES; i++) {
		if (!wl_classify_redirect(q, choice->skip))
			return 0;
		/* Not before a filter wants it, so that other datagrams are not held up. */
		if (q->leg.protocol == SOCK_PROTO_UDP && wl_leads_to_group(&q->leg.remote)) {
			if (t->unredirectable == WL_UNREDIRECTABLE_PERMIT)
				return 0;
			choice->wanted = 1;
			choice->slot = q->group & (WL_MAX_SERVICES - 1);
			choice->filter = q->filter;
			choice->refusal = WL_REFUSED_UNREDIRECTABLE;
			choice->error = EACCES;
			return 0;
		}
		if (wl_try_service(ctx, t, q, choice))
			return 0;
	}
	return 0;
}

static __always_inline void wl_choose(struct bpf_sock_addr *ctx, struct wl_connect *c, struct wl_choice *choice)
{
	choice->skip = c->excluded;
	choice->hop_count = c->hop_count;
	choice->error = ECONNREFUSED;
	wl_choose_service(ctx, c->tables, c->q, choice);
	c->listener = choice->listener;
}

/* To 127.0.0.1 or ::1, where nobody listens: connect() would be refused. Other
 * addresses of the loopback have listeners that are bound to the device (as
 * 127.0.0.53 has), and those are not found. A global function, as
 * wl_listener_room() is. */
WL_GLOBAL int wl_nobody_listens(struct bpf_sock_addr *ctx, const struct wl_address *to)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk;
	__u32 zero = 0, *plain = bpf_map_lookup_elem(&plain_loopback, &zero);
	const __u32 *words;

	if (!to || !plain || !*plain || ctx->protocol != SOCK_PROTO_TCP)
		return 0;
	words = (const __u32 *)to->ip;
	if (wl_is_mapped(to->ip) && words[3] == bpf_htonl(0x7f000001)) {
		tuple.ipv4.daddr = words[3];
		tuple.ipv4.dport = bpf_htons(to->port);
		sk = bpf_sk_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	} else if (!words[0] && !words[1] && !words[2] && words[3] == bpf_htonl(1)) {
		tuple.ipv6.daddr[3] = words[3];
		tuple.ipv6.dport = bpf_htons(to->port);
		sk = bpf_sk_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	} else {
		return 0;
	}
	if (!sk)
		return 1;
	bpf_sk_release(sk);
	return 0;
}

/* Where a service is wanted for a destination without a route, the application
 * gets the kernel's own error. A socket bound to a device needs none. */
static __always_inline void wl_judge_route(struct bpf_sock_addr *ctx, struct wl_connect *c, struct wl_choice *choice)
{
	const struct wl_route *route;

	if (!choice->wanted || choice->refusal == WL_REFUSED_UNREDIRECTABLE)
		return;
	route = wl_route_to(&c->q->leg.remote);
	c->route = route;
	if (wl_nobody_listens(ctx, &c->q->leg.remote)) {
		choice->refusal = WL_REFUSED_NO_ROUTE;
		choice->error = ECONNREFUSED;
		return;
	}
	if (!route || !route->error || ctx->sk->bound_dev_if ||
	    (c->carried && c->carried->wishes.bound_device))
		return;
	choice->refusal = WL_REFUSED_NO_ROUTE;
	choice->error = route->error;
}

/* What is dialled; the programs know it when they are compiled. */
enum wl_dial {
	WL_CONNECTION,
	WL_DATAGRAMS_BY_CONNECT,
	WL_DATAGRAMS_ONE_BY_ONE,
};

static __always_inline int wl_carry_out(struct bpf_sock_addr *ctx, int family, enum wl_dial dial,
					struct wl_connect *c, const struct wl_choice *choice)
{
	const struct wl_service *service;
	__u32 slot, filter = choice->filter;

	if (!choice->wanted) {
		if (c->sandbox)
			wl_tell_of_sandbox(&c->q->leg, c->sandbox);
		if (c->carried) {
			wl_grant_mark(ctx, &c->carried->wishes);
			if (c->carried->wishes.bound_device)
				wl_bind_device(ctx, c->carried->wishes.bound_device);
		}
		if (dial != WL_CONNECTION && c->carried)
			wl_introduce_application(ctx, family, dial == WL_DATAGRAMS_BY_CONNECT, c);
		if (dial != WL_CONNECTION && c->token)
			wl_rewrite_to(ctx, family, &c->q->leg.remote);
		return WL_PASS;
	}
	slot = choice->slot & (WL_MAX_SERVICES - 1);
	service = &c->tables->services[slot];
	if (choice->refusal)
		return wl_refuse(&c->q->leg, choice->refusal, choice->error, service->id, filter);
	if (c->carried)
		wl_grant_mark(ctx, &c->carried->wishes);
	if (dial != WL_CONNECTION)
		return wl_lead_datagrams(ctx, family, dial == WL_DATAGRAMS_BY_CONNECT, c, slot, service, filter);
	return wl_redirect(ctx, family, c, slot, service, filter);
}

static __always_inline void wl_authorise(struct wl_connect *c, int *verdict)
{
	if (wl_classify_auth(c->q, c->q->leg.redirected, c->q->leg.proxied))
		*verdict = wl_refuse(&c->q->leg, WL_REFUSED_BLOCKED, c->q->error_of_block, 0,
				     c->q->blocked_by);
}

/* By the policy that is in force now, to the end; whether there is room for a search. */
static __always_inline bool wl_prepare(struct wl_connect *c)
{
	c->config = wl_config();
	c->tables = wl_tables();
	c->q = wl_claim();
	return c->q;
}

/* What is settled before any policy is asked. */
static __always_inline int wl_meet(struct bpf_sock_addr *ctx, struct wl_connect *c)
{
	wl_caller(&c->q->leg.caller);
	if (!c->config || !c->tables || !wl_chunk(c->tables->filters, 0))
		return wl_refuse(&c->q->leg, WL_REFUSED_NO_TABLES, ENOBUFS, 0, 0);
	if (bpf_get_netns_cookie(ctx) == c->config->netns)
		return WL_GO_ON;
	wl_open(c->q, c->tables);
	if (!wl_judge_visitor(ctx, c->q, c->tables->foreign_namespace == WL_FOREIGN_BLOCK,
			      c->tables->asks_for_hosts))
		return WL_REJECT;
	return wl_leave_alone(ctx, &c->q->leg);
}

/* The verdict, or WL_GO_ON with what has been chosen. */
static __always_inline int wl_ask_policy(struct bpf_sock_addr *ctx, int family, enum wl_place place,
					 struct wl_connect *c, struct wl_choice *choice)
{
	int verdict = WL_GO_ON;

	wl_open(c->q, c->tables);
	wl_know_leg(c->q, &c->q->leg);
	if (wl_asks_for_sources(c->q))
		wl_know_bound(ctx, c->q, family);
	wl_find_chain(ctx, c);
	if (c->tables->asks_for_hosts)
		wl_know_names(c->q, c->carried);
	wl_choose(ctx, c, choice);
	wl_leave_in_sandbox(ctx, place, c, choice);
	wl_judge_route(ctx, c, choice);
	c->q->leg.redirected = choice->wanted && !choice->refusal;
	wl_authorise(c, &verdict);
	return verdict;
}

static __always_inline int wl_judge_connect(struct bpf_sock_addr *ctx, int family, enum wl_place place,
					    struct wl_connect *c)
{
	const struct wl_listener_owner *owner;
	struct wl_choice choice = {};
	int verdict;

	wl_dialled(ctx, family, &c->q->leg.remote);
	c->q->leg.protocol = SOCK_PROTO_TCP;
	if (place == WL_AT_RESIDENT) {
		c->q->leg.caller_slot = wl_errand_of_resident(ctx, &c->q->leg.remote);
		if (c->q->leg.caller_slot >= WL_MAX_SERVICES)
			return WL_PASS;
	}
	verdict = wl_meet(ctx, c);
	if (verdict != WL_GO_ON)
		return verdict;
	owner = wl_listener_at(ctx, c->config, c->tables, &c->q->leg.remote);
	if (owner && owner->instance != wl_instance())
		return WL_PASS;
	if (owner)
		return wl_refuse(&c->q->leg, WL_REFUSED_LISTENER_DIALLED, ECONNREFUSED, owner->service, 0);
	if (place == WL_AT_SCOPE)
		c->q->leg.caller_slot = wl_service_slot(&c->q->leg.caller);
	verdict = wl_ask_policy(ctx, family, place, c, &choice);
	return verdict != WL_GO_ON ? verdict : wl_carry_out(ctx, family, WL_CONNECTION, c, &choice);
}

static __always_inline int wl_on_connect(struct bpf_sock_addr *ctx, int family, enum wl_place place)
{
	struct wl_connect c = {};
	int verdict;

	if (ctx->protocol != SOCK_PROTO_TCP)
		return WL_PASS;
	wl_forget(ctx);
	if (wl_owned_by_kernel(ctx->sk))
		return WL_PASS;
	if (!wl_prepare(&c))
		return wl_refuse_crowded(ctx);
	verdict = wl_judge_connect(ctx, family, place, &c);
	wl_give_back(c.q);
	return verdict;
}

SEC("cgroup/connect4")
int wl_connect4(struct bpf_sock_addr *ctx)
{
	return wl_on_connect(ctx, AF_INET, WL_AT_SCOPE);
}

SEC("cgroup/connect6")
int wl_connect6(struct bpf_sock_addr *ctx)
{
	return wl_on_connect(ctx, AF_INET6, WL_AT_SCOPE);
}

SEC("cgroup/connect4")
int wl_resident_connect4(struct bpf_sock_addr *ctx)
{
	return wl_on_connect(ctx, AF_INET, WL_AT_RESIDENT);
}

SEC("cgroup/connect6")
int wl_resident_connect6(struct bpf_sock_addr *ctx)
{
	return wl_on_connect(ctx, AF_INET6, WL_AT_RESIDENT);
}

/* Whether a datagram goes on as it is: of a flow that there is, or of a connected
 * socket that sends with messages beside its datagram, and names nobody, so that
 * it goes where connect() has led it. Functions of their own, for the stack's sake. */
WL_GLOBAL int wl_goes_on4(struct bpf_sock_addr *ctx)
{
	struct wl_address remote = {};

	wl_dialled(ctx, AF_INET, &remote);
	return !remote.port || wl_follow_flow(ctx, AF_INET, &remote);
}

WL_GLOBAL int wl_goes_on6(struct bpf_sock_addr *ctx)
{
	struct wl_address remote = {};

	wl_dialled(ctx, AF_INET6, &remote);
	return !remote.port || wl_follow_flow(ctx, AF_INET6, &remote);
}

static __always_inline bool wl_goes_on(struct bpf_sock_addr *ctx, int family)
{
	return family == AF_INET ? wl_goes_on4(ctx) : wl_goes_on6(ctx);
}

static __always_inline int wl_judge_datagram(struct bpf_sock_addr *ctx, int family, enum wl_dial dial,
					     enum wl_place place, struct wl_connect *c)
{
	bool connects = dial == WL_DATAGRAMS_BY_CONNECT;
	struct wl_choice choice = {};
	int verdict;

	wl_dialled(ctx, family, &c->q->leg.remote);
	c->q->leg.protocol = SOCK_PROTO_UDP;
	if (place == WL_AT_RESIDENT) {
		c->q->leg.caller_slot = wl_slot_outside(ctx);
		if (c->q->leg.caller_slot >= WL_MAX_SERVICES)
			return WL_PASS;
	}
	verdict = wl_meet(ctx, c);
	if (verdict != WL_GO_ON)
		return verdict;
	if (place == WL_AT_SCOPE)
		c->q->leg.caller_slot = wl_service_slot(&c->q->leg.caller);
	verdict = wl_judge_answer(ctx, family, c, connects, place);
	if (verdict != WL_GO_ON)
		return verdict;
	if (place == WL_AT_RESIDENT && !c->token)
		return WL_PASS;
	verdict = wl_judge_listener(ctx, c);
	if (verdict != WL_GO_ON)
		return verdict;
	verdict = wl_ask_policy(ctx, family, place, c, &choice);
	return verdict != WL_GO_ON ? verdict : wl_carry_out(ctx, family, dial, c, &choice);
}

static __always_inline int wl_on_datagrams(struct bpf_sock_addr *ctx, int family, enum wl_dial dial,
					   enum wl_place place)
{
	struct wl_connect c = {};
	int verdict;

	if (ctx->protocol != SOCK_PROTO_UDP)
		return WL_PASS;
	if ((family == AF_INET6 || dial == WL_DATAGRAMS_BY_CONNECT) && wl_is_answer(ctx))
		return WL_PASS;
	if (dial == WL_DATAGRAMS_BY_CONNECT)
		wl_leave_flow(ctx);
	else if (wl_goes_on(ctx, family))
		return WL_PASS;
	if (wl_owned_by_kernel(ctx->sk))
		return WL_PASS;
	if (!wl_prepare(&c))
		return wl_refuse_crowded(ctx);
	verdict = wl_judge_datagram(ctx, family, dial, place, &c);
	wl_give_back(c.q);
	return verdict;
}

SEC("cgroup/connect4")
int wl_udp_connect4(struct bpf_sock_addr *ctx)
{
	return wl_on_datagrams(ctx, AF_INET, WL_DATAGRAMS_BY_CONNECT, WL_AT_SCOPE);
}

SEC("cgroup/connect6")
int wl_udp_connect6(struct bpf_sock_addr *ctx)
{
	return wl_on_datagrams(ctx, AF_INET6, WL_DATAGRAMS_BY_CONNECT, WL_AT_SCOPE);
}

SEC("cgroup/sendmsg4")
int wl_sendmsg4(struct bpf_sock_addr *ctx)
{
	return wl_on_datagrams(ctx, AF_INET, WL_DATAGRAMS_ONE_BY_ONE, WL_AT_SCOPE);
}

SEC("cgroup/sendmsg6")
int wl_sendmsg6(struct bpf_sock_addr *ctx)
{
	return wl_on_datagrams(ctx, AF_INET6, WL_DATAGRAMS_ONE_BY_ONE, WL_AT_SCOPE);
}

SEC("cgroup/connect4")
int wl_resident_udp_connect4(struct bpf_sock_addr *ctx)
{
	return wl_on_datagrams(ctx, AF_INET, WL_DATAGRAMS_BY_CONNECT, WL_AT_RESIDENT);
}

SEC("cgroup/connect6")
int wl_resident_udp_connect6(struct bpf_sock_addr *ctx)
{
	return wl_on_datagrams(ctx, AF_INET6, WL_DATAGRAMS_BY_CONNECT, WL_AT_RESIDENT);
}

SEC("cgroup/sendmsg4")
int wl_resident_sendmsg4(struct bpf_sock_addr *ctx)
{
	return wl_on_datagrams(ctx, AF_INET, WL_DATAGRAMS_ONE_BY_ONE, WL_AT_RESIDENT);
}

SEC("cgroup/sendmsg6")
int wl_resident_sendmsg6(struct bpf_sock_addr *ctx)
{
	return wl_on_datagrams(ctx, AF_INET6, WL_DATAGRAMS_ONE_BY_ONE, WL_AT_RESIDENT);
}

SEC("cgroup/recvmsg4")
int wl_recvmsg4(struct bpf_sock_addr *ctx)
{
	wl_show_sender(ctx, AF_INET, true);
	return WL_PASS;
}

SEC("cgroup/recvmsg6")
int wl_recvmsg6(struct bpf_sock_addr *ctx)
{
	wl_show_sender(ctx, AF_INET6, true);
	return WL_PASS;
}

SEC("cgroup/recvmsg4")
int wl_resident_recvmsg4(struct bpf_sock_addr *ctx)
{
	wl_show_sender(ctx, AF_INET, false);
	return WL_PASS;
}

SEC("cgroup/recvmsg6")
int wl_resident_recvmsg6(struct bpf_sock_addr *ctx)
{
	wl_show_sender(ctx, AF_INET6, false);
	return WL_PASS;
}

/* A socket closed with data in flight leaves TCP's states much later; the
 * service is done with it now. */
SEC("cgroup/sock_release")
int wl_sock_release(struct bpf_sock *sk)
{
	__u64 id = wl_inbound(sk);
	struct wl_answering *a;
	struct wl_outgoing *out;

	if (id) {
		wl_leave_seat(wl_key_of_socket(wl_cookie(sk)), id);
		wl_end_flow(id, WL_ENDED_BY_SERVICE);
	}
	a = standing_aside ? bpf_sk_storage_get(&answering, sk, NULL, 0) : NULL;
	if (a && a->connected.slot)
		wl_untell(&a->connected);
	out = wl_outgoing(sk);
	if (out && out->flow & WL_DATAGRAMS) {
		wl_close_datagrams(out->flow);
	} else if (out) {
		wl_end_unaccepted(out->flow);
		wl_drop_leaving(sk);
	}
	return 1;
}
