/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Services that tell somebody else where a datagram was going: a token would mean
 * nothing there. IP_RECVORIGDSTADDR and IP_PKTINFO are made of the packet's header,
 * and only on the loopback itself can a program write that: there the packets of
 * such a service's flows get the destination instead of the token, and its socket
 * as the one to take them. Attached only while there is such a service.
 *
 * A datagram in fragments or with options keeps its token.
 */
#pragma once

#include <stddef.h>

#define WL_NEXT_PROGRAM (-1) /* TCX_NEXT, TC_ACT_UNSPEC */
#define WL_DROP_SHOT 2	     /* TC_ACT_SHOT */
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define WL_IP_AT 14
#define WL_UDP4_AT (WL_IP_AT + 20)
#define WL_UDP6_AT (WL_IP_AT + 40)
#define WL_PLAIN_IP 0x45
#define WL_FRAGMENT 0x3fff /* more of them, or not the first */

struct wl_ip4_header {
	__u8 version_ihl;
	__u8 tos;
	__be16 length;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__sum16 check;
	__be32 source;
	__be32 destination;
};

struct wl_ip6_header {
	__be32 version_and_flow;
	__be16 length;
	__u8 next;
	__u8 hops;
	__be32 source[4];
	__be32 destination[4];
};

struct wl_udp_header {
	__be16 source;
	__be16 destination;
	__be16 length;
	__sum16 check;
};

/* Where a field is in the packet. */
#define WL_AT_IP4(field) (WL_IP_AT + offsetof(struct wl_ip4_header, field))
#define WL_AT_IP6(field) (WL_IP_AT + offsetof(struct wl_ip6_header, field))
#define WL_AT_UDP(ip4, field) (((ip4) ? WL_UDP4_AT : WL_UDP6_AT) + offsetof(struct wl_udp_header, field))

struct wl_packet {
	struct wl_address from;
	struct wl_address to;
	bool ip4;
};

static __always_inline void wl_read_ports(struct wl_packet *p, const struct wl_udp_header *udp)
{
	p->from.port = bpf_ntohs(udp->source);
	p->to.port = bpf_ntohs(udp->destination);
	p->from.family = p->to.family = p->ip4 ? AF_INET : AF_INET6;
}

/* What this host sends has its headers in one piece. */
static __always_inline bool wl_read_packet4(struct __sk_buff *skb, struct wl_packet *p)
{
	const struct wl_ip4_header *ip = (void *)(long)skb->data + WL_IP_AT;
	const struct wl_udp_header *udp = (const void *)(ip + 1);

	if ((void *)(udp + 1) > (void *)(long)skb->data_end)
		return false;
	if (ip->version_ihl != WL_PLAIN_IP || ip->protocol != SOCK_PROTO_UDP || ip->fragment & bpf_htons(WL_FRAGMENT))
		return false;
	wl_map_ip4(p->from.ip, ip->source);
	wl_map_ip4(p->to.ip, ip->destination);
	p->ip4 = true;
	wl_read_ports(p, udp);
	return true;
}

static __always_inline bool wl_read_packet6(struct __sk_buff *skb, struct wl_packet *p)
{
	const struct wl_ip6_header *ip = (void *)(long)skb->data + WL_IP_AT;
	const struct wl_udp_header *udp = (const void *)(ip + 1);

	if ((void *)(udp + 1) > (void *)(long)skb->data_end || ip->next != SOCK_PROTO_UDP)
		return false;
	__builtin_memcpy(p->from.ip, ip->source, sizeof(p->from.ip));
	__builtin_memcpy(p->to.ip, ip->destination, sizeof(p->to.ip));
	p->ip4 = false;
	wl_read_ports(p, udp);
	return true;
}

/* The service of a flow, if it is told in packets. */
static __always_inline const struct wl_service *wl_told_in_packets(const struct wl_datagram_flow *d)
{
	const struct wl_tables *t = wl_tables();
	__u64 slot = d->flow.slot;

	asm volatile("" : "+r"(slot));
	if (!t || slot >= WL_MAX_SERVICES || !(t->services[slot].flags & WL_IN_PACKETS))
		return NULL;
	return &t->services[slot];
}

/* The flow that these datagrams are of. */
static __always_inline struct wl_datagram_flow *wl_flow_in_packets(const struct wl_address *token,
								   const struct wl_address *peer)
{
	struct wl_datagram_flow *d = wl_datagrams(wl_find_datagrams(token, peer));

	if (!d || wl_is_mapped(d->flow.destination.ip) != wl_is_mapped(token->ip) ||
	    !wl_same_ip(d->ends.peer.ip, peer->ip) || (d->ends.peer.port && d->ends.peer.port != peer->port))
		return NULL;
	return d;
}

/* The service can bind to the destination from now on, and answer from it. */
WL_GLOBAL int wl_note_told(const struct wl_datagram_flow *d, const struct wl_address *peer, __u32 token)
{
	struct wl_told told = {};
	const __u32 *known;

	if (!d || !peer)
		return 0;
	wl_told_of(&d->flow.destination, peer, d->flow.slot, &told);
	known = wl_token_told(&told);
	if (known && *known == token)
		return 1;
	if (!wl_tell_token(&told, token))
		return 0;
	__builtin_memset(told.peer_ip, 0, sizeof(told.peer_ip));
	told.peer_port = 0;
	return wl_tell_token(&told, token);
}

enum wl_assigned {
	WL_ASSIGNED,
	WL_NOBODY_THERE, /* of which the kernel tells the sender */
	WL_SOMEBODY_ELSE_THERE,
};

/* With IPv4 the socket that gets it as it is, whatever it says then. */
static __always_inline enum wl_assigned wl_assign_listener(struct __sk_buff *skb, const struct wl_packet *p,
							   const struct wl_service *service)
{
	enum wl_assigned answer = WL_SOMEBODY_ELSE_THERE;
	struct bpf_sock_tuple tuple = {};
	struct sock *full;
	struct bpf_sock *sk;

	if (p->ip4) {
		tuple.ipv4.saddr = wl_ip4(p->from.ip);
		tuple.ipv4.sport = bpf_htons(p->from.port);
		tuple.ipv4.daddr = wl_ip4(p->to.ip);
		tuple.ipv4.dport = bpf_htons(p->to.port);
		sk = bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, p->from.ip, sizeof(tuple.ipv6.saddr));
		tuple.ipv6.sport = bpf_htons(p->from.port);
		tuple.ipv6.daddr[3] = bpf_htonl(1);
		tuple.ipv6.dport = bpf_htons(service->behind6);
		sk = bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	if (!sk)
		return WL_NOBODY_THERE;
	full = wl_full_sock(sk);
	if (BPF_CORE_READ(full, sk_cgrp_data.cgroup, kn, id) == service->cgroup && !bpf_sk_assign(skb, sk, 0))
		answer = WL_ASSIGNED;
	bpf_sk_release(sk);
	return answer;
}

/* An address of the packet, and the checksums that cover it. */
static __always_inline bool wl_readdress4(struct __sk_buff *skb, __u32 at, __be32 before, __be32 after)
{
	__u64 flags = BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0 | sizeof(after);

	return !bpf_l4_csum_replace(skb, WL_AT_UDP(true, check), before, after, flags) &&
	       !bpf_l3_csum_replace(skb, WL_AT_IP4(check), before, after, sizeof(after)) &&
	       !bpf_skb_store_bytes(skb, at, &after, sizeof(after), 0);
}

static __always_inline bool wl_readdress6(struct __sk_buff *skb, __u32 at, struct wl_address *before,
					  struct wl_address *after)
{
	__s64 change = bpf_csum_diff((__be32 *)before->ip, sizeof(before->ip), (__be32 *)after->ip, sizeof(after->ip), 0);

	return change >= 0 &&
	       !bpf_l4_csum_replace(skb, WL_AT_UDP(false, check), 0, change, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0) &&
	       !bpf_skb_store_bytes(skb, at, after->ip, sizeof(after->ip), 0);
}

static __always_inline bool wl_readdress_port(struct __sk_buff *skb, bool ip4, __u32 at, __be16 before, __be16 after)
{
	return !bpf_l4_csum_replace(skb, WL_AT_UDP(ip4, check), before, after, BPF_F_MARK_MANGLED_0 | sizeof(after)) &&
	       !bpf_skb_store_bytes(skb, at, &after, sizeof(after), 0);
}

static __always_inline bool wl_write_destination(struct __sk_buff *skb, struct wl_packet *p, struct wl_address *to)
{
	if (p->ip4 ? !wl_readdress4(skb, WL_AT_IP4(destination), wl_ip4(p->to.ip), wl_ip4(to->ip)) :
		     !wl_readdress6(skb, WL_AT_IP6(destination), &p->to, to))
		return false;
	return wl_readdress_port(skb, p->ip4, WL_AT_UDP(p->ip4, destination), bpf_htons(p->to.port), bpf_htons(to->port));
}

static __always_inline int wl_show_in_packet(struct __sk_buff *skb, struct wl_packet *p)
{
	struct wl_datagram_flow *d = wl_flow_in_packets(&p->to, &p->from);
	const struct wl_service *service = d ? wl_told_in_packets(d) : NULL;
	struct wl_address to;

	if (!service)
		return WL_NEXT_PROGRAM;
	if (!(d->ends.flags & WL_DATAGRAM_PEER_SEEN))
		wl_see_peer(d, &p->from);
	d->last = bpf_ktime_get_ns();
	to = d->flow.destination;
	if (!wl_note_told(d, &p->from, p->ip4 ? wl_ip4(p->to.ip) : p->to.port))
		return WL_DROP_SHOT;
	switch (wl_assign_listener(skb, p, service)) {
	case WL_ASSIGNED:
		return wl_write_destination(skb, p, &to) ? WL_NEXT_PROGRAM : WL_DROP_SHOT;
	case WL_NOBODY_THERE:
		return WL_NEXT_PROGRAM;
	case WL_SOMEBODY_ELSE_THERE:
		return WL_DROP_SHOT;
	}
	return WL_DROP_SHOT;
}

/* The flow that is answered from a token, of a service that is told in packets. */
static __always_inline struct wl_datagram_flow *wl_answered(const struct wl_address *token, const struct wl_address *to)
{
	struct wl_datagram_flow *d = wl_flow_in_packets(token, to);

	if (!d || !wl_told_in_packets(d))
		return NULL;
	d->last = bpf_ktime_get_ns();
	return d;
}

/* What a connected socket answers from aside. */
static __always_inline int wl_answer_connected(struct __sk_buff *skb, const struct wl_packet *p)
{
	struct wl_address token = {};
	struct wl_told told = {};
	const __u32 *known;
	bool done;

	wl_told_of(&p->from, &p->to, WL_NO_SLOT, &told);
	known = wl_token_told(&told);
	if (!known)
		return WL_NEXT_PROGRAM;
	wl_token_of(*known, p->ip4, p->from.port, &token);
	if (!wl_answered(&token, &p->to))
		return WL_DROP_SHOT;
	if (p->ip4)
		done = wl_readdress4(skb, WL_AT_IP4(source), wl_ip4(p->from.ip), wl_ip4(token.ip));
	else
		done = wl_readdress_port(skb, false, WL_AT_UDP(false, source), bpf_htons(p->from.port),
					 bpf_htons(token.port));
	return done ? WL_NEXT_PROGRAM : WL_DROP_SHOT;
}

/* What another socket does (wl_answer6). */
static __always_inline int wl_answer_by_proof(struct __sk_buff *skb, struct wl_packet *p)
{
	const __u32 *words = (const __u32 *)p->from.ip;
	struct wl_address token = {};
	struct wl_datagram_flow *d;
	__u64 proof;

	wl_token_of(bpf_ntohl(words[0]) & 0xffff, false, 0, &token);
	d = wl_answered(&token, &p->to);
	proof = d ? wl_proof_of_answer(d->flow.id) : 0;
	if (!proof || words[1] || words[2] != (__u32)(proof >> 32) || words[3] != (__u32)proof)
		return WL_NEXT_PROGRAM;
	if (!wl_readdress6(skb, WL_AT_IP6(source), &p->from, &token) ||
	    !wl_readdress_port(skb, false, WL_AT_UDP(false, source), bpf_htons(p->from.port), bpf_htons(token.port)))
		return WL_DROP_SHOT;
	return WL_NEXT_PROGRAM;
}

static __always_inline bool wl_is_loopback6(const __u8 *ip)
{
	const __u32 *words = (const __u32 *)ip;

	return !words[0] && !words[1] && !words[2] && words[3] == bpf_htonl(1);
}

static __always_inline int wl_on_packet4(struct __sk_buff *skb)
{
	struct wl_packet p = {};

	if (!wl_read_packet4(skb, &p))
		return WL_NEXT_PROGRAM;
	if (wl_is_token(p.to.ip))
		return wl_show_in_packet(skb, &p);
	return wl_is_aside(p.from.ip) ? wl_answer_connected(skb, &p) : WL_NEXT_PROGRAM;
}

static __always_inline int wl_on_packet6(struct __sk_buff *skb)
{
	struct wl_packet p = {};
	int answer = WL_NEXT_PROGRAM;

	if (!wl_read_packet6(skb, &p))
		return WL_NEXT_PROGRAM;
	if (p.from.ip[0] == WL_ANSWER_PREFIX >> 8 && p.from.ip[1] == (WL_ANSWER_PREFIX & 0xff))
		return wl_answer_by_proof(skb, &p);
	if (wl_is_loopback6(p.from.ip))
		answer = wl_answer_connected(skb, &p);
	return answer == WL_NEXT_PROGRAM && wl_is_loopback6(p.to.ip) ? wl_show_in_packet(skb, &p) : answer;
}

SEC("tcx/ingress")
int wl_packets(struct __sk_buff *skb)
{
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return wl_on_packet4(skb);
	return skb->protocol == bpf_htons(ETH_P_IPV6) ? wl_on_packet6(skb) : WL_NEXT_PROGRAM;
}
