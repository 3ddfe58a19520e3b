/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Services that tell somebody else where a datagram was going: a token would mean
 * nothing there. IP_RECVORIGDSTADDR and IP_PKTINFO are made of the packet's header,
 * and only on the loopback itself can a program write that: there the packets of
 * such a service's flows get the destination instead of the token, and its socket
 * as the one to take them. Attached only while there is such a service.
 *
 * A datagram in fragments or with options keeps its token, as does one for a
 * listener of a group (SO_REUSEPORT) where the kernel assigns none, before Linux 6.6.
 */
#pragma once

#include <stddef.h>

#define WL_NEXT_PROGRAM (-1) /* TCX_NEXT, TC_ACT_UNSPEC */
#define WL_DROP_SHOT 2	     /* TC_ACT_SHOT */
#define ETH_P_IP 0x0800
#define WL_IP_AT 14
#define WL_UDP_AT (WL_IP_AT + 20)
#define WL_PLAIN_IP 0x45
#define WL_FRAGMENT 0x3fff /* more of them, or not the first */

struct wl_ip_header {
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

struct wl_udp_header {
	__be16 source;
	__be16 destination;
	__be16 length;
	__sum16 check;
};

/* Where a field is in the packet. */
#define WL_AT_IP(field) (WL_IP_AT + offsetof(struct wl_ip_header, field))
#define WL_AT_UDP(field) (WL_UDP_AT + offsetof(struct wl_udp_header, field))

struct wl_packet {
	struct wl_address from;
	struct wl_address to;
};

/* What this host sends has its headers in one piece. */
static __always_inline bool wl_read_packet(struct __sk_buff *skb, struct wl_packet *p)
{
	const struct wl_ip_header *ip = (void *)(long)skb->data + WL_IP_AT;
	const struct wl_udp_header *udp = (const void *)(ip + 1);

	if (skb->protocol != bpf_htons(ETH_P_IP) || (void *)(udp + 1) > (void *)(long)skb->data_end)
		return false;
	if (ip->version_ihl != WL_PLAIN_IP || ip->protocol != SOCK_PROTO_UDP || ip->fragment & bpf_htons(WL_FRAGMENT))
		return false;
	wl_map_ip4(p->from.ip, ip->source);
	wl_map_ip4(p->to.ip, ip->destination);
	p->from.port = bpf_ntohs(udp->source);
	p->to.port = bpf_ntohs(udp->destination);
	p->from.family = p->to.family = AF_INET;
	return true;
}

/* The flow that these datagrams are of, if its service is told in packets. */
static __always_inline struct wl_datagram_flow *wl_flow_in_packets(const struct wl_address *token,
								   const struct wl_address *peer)
{
	struct wl_datagram_flow *d = wl_datagrams(wl_find_datagrams(token, peer));
	const struct wl_tables *t = wl_tables();
	__u64 slot;

	if (!d || !t)
		return NULL;
	slot = d->flow.slot;
	asm volatile("" : "+r"(slot));
	if (slot >= WL_MAX_SERVICES || !(t->services[slot].flags & WL_IN_PACKETS))
		return NULL;
	if (!wl_is_mapped(d->flow.destination.ip) || !wl_same_ip(d->ends.peer.ip, peer->ip) ||
	    (d->ends.peer.port && d->ends.peer.port != peer->port))
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

/* The socket that gets it as it is gets it whatever it says. */
static __always_inline bool wl_assign_listener(struct __sk_buff *skb, const struct wl_packet *p)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk;
	long failed;

	tuple.ipv4.saddr = wl_ip4(p->from.ip);
	tuple.ipv4.sport = bpf_htons(p->from.port);
	tuple.ipv4.daddr = wl_ip4(p->to.ip);
	tuple.ipv4.dport = bpf_htons(p->to.port);
	sk = bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return false;
	failed = bpf_sk_assign(skb, sk, 0);
	bpf_sk_release(sk);
	return !failed;
}

/* An address of the packet, and the checksums that cover it. */
static __always_inline bool wl_readdress(struct __sk_buff *skb, __u32 at, __be32 before, __be32 after)
{
	__u64 flags = BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0 | sizeof(after);

	return !bpf_l4_csum_replace(skb, WL_AT_UDP(check), before, after, flags) &&
	       !bpf_l3_csum_replace(skb, WL_AT_IP(check), before, after, sizeof(after)) &&
	       !bpf_skb_store_bytes(skb, at, &after, sizeof(after), 0);
}

static __always_inline bool wl_readdress_port(struct __sk_buff *skb, __be16 before, __be16 after)
{
	return !bpf_l4_csum_replace(skb, WL_AT_UDP(check), before, after, BPF_F_MARK_MANGLED_0 | sizeof(after)) &&
	       !bpf_skb_store_bytes(skb, WL_AT_UDP(destination), &after, sizeof(after), 0);
}

static __always_inline int wl_show_in_packet(struct __sk_buff *skb, const struct wl_packet *p)
{
	struct wl_datagram_flow *d = wl_flow_in_packets(&p->to, &p->from);
	__u32 token = wl_ip4(p->to.ip), ip4;
	__u16 port;

	if (!d)
		return WL_NEXT_PROGRAM;
	if (!(d->ends.flags & WL_DATAGRAM_PEER_SEEN))
		wl_see_peer(d, &p->from);
	d->last = bpf_ktime_get_ns();
	ip4 = wl_ip4(d->flow.destination.ip);
	port = d->flow.destination.port;
	if (!wl_note_told(d, &p->from, token) || !wl_assign_listener(skb, p))
		return WL_NEXT_PROGRAM;
	if (!wl_readdress(skb, WL_AT_IP(destination), token, ip4) ||
	    !wl_readdress_port(skb, bpf_htons(p->to.port), bpf_htons(port)))
		return WL_DROP_SHOT;
	return WL_NEXT_PROGRAM;
}

/* What a connected socket answers from aside. */
static __always_inline int wl_answer_in_packet(struct __sk_buff *skb, const struct wl_packet *p)
{
	struct wl_address token = {};
	struct wl_told told = {};
	struct wl_datagram_flow *d;
	const __u32 *ip4;

	wl_told_of(&p->from, &p->to, WL_NO_SLOT, &told);
	ip4 = wl_token_told(&told);
	if (!ip4)
		return WL_NEXT_PROGRAM;
	wl_map_ip4(token.ip, *ip4);
	token.port = p->from.port;
	d = wl_flow_in_packets(&token, &p->to);
	if (!d)
		return WL_DROP_SHOT;
	d->last = bpf_ktime_get_ns();
	return wl_readdress(skb, WL_AT_IP(source), wl_ip4(p->from.ip), *ip4) ? WL_NEXT_PROGRAM : WL_DROP_SHOT;
}

SEC("tcx/ingress")
int wl_packets(struct __sk_buff *skb)
{
	struct wl_packet p = {};

	if (!wl_read_packet(skb, &p))
		return WL_NEXT_PROGRAM;
	if (wl_is_token(p.to.ip))
		return wl_show_in_packet(skb, &p);
	if (wl_is_aside(p.from.ip))
		return wl_answer_in_packet(skb, &p);
	return WL_NEXT_PROGRAM;
}
