/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * What no service can stand in for, and whether it is refused: sockets of other
 * kinds than TCP, MPTCP and UDP, and destinations that are groups of hosts.
 * Pure, like classify.h; `waylay_core::decide_socket` is the definition.
 */
#pragma once

enum wl_reach {
	WL_REDIRECTABLE = 0,
	WL_LOCAL = 1,
	WL_UNREDIRECTABLE = 2,
};

/* The arguments of socket(2), the default protocol resolved. */
struct wl_socket {
	__u32 family;
	__u32 type;
	__u32 protocol;
};

static inline __attribute__((always_inline)) enum wl_reach wl_reach(const struct wl_socket *s)
{
	switch (s->family) {
	case 2:	 /* AF_INET */
	case 10: /* AF_INET6 */
		if (s->type == 1)
			return s->protocol == 6 || s->protocol == 262 ? WL_REDIRECTABLE : WL_UNREDIRECTABLE;
		return s->type == 2 && s->protocol == 17 ? WL_REDIRECTABLE : WL_UNREDIRECTABLE;
	case 0:	 /* AF_UNSPEC: there is none */
	case 1:	 /* AF_UNIX */
	case 15: /* AF_KEY */
	case 16: /* AF_NETLINK */
	case 38: /* AF_ALG */
		return WL_LOCAL;
	default:
		return WL_UNREDIRECTABLE;
	}
}

/* Whether such a socket is of the network namespace it is made in. */
static inline __attribute__((always_inline)) bool wl_is_of_a_namespace(const struct wl_socket *s)
{
	return s->family == 2 || s->family == 10 || s->family == 17 /* AF_PACKET */ ||
	       s->family == 44 /* AF_XDP */;
}

static inline __attribute__((always_inline)) bool wl_is_service(const struct wl_tables *t, __u32 slot)
{
	/* One that was removed has no mask: it counts as an application. */
	return slot < WL_MAX_SERVICES && t->services[slot].prefix_mask;
}

/* Whether a redirect filter's conditions about the application hold, of whom
 * the query knows nothing but who it is. */
WL_INLINE int wl_covers(struct wl_query *q)
{
	q->whole.skip = 0;
	q->whole.from = 0;
	return wl_first(q, WL_LAYER_COVERS);
}

/* Whether what cannot be redirected is refused to who is asked about. */
static inline __attribute__((always_inline)) bool wl_refuses_unredirectable(const struct wl_tables *t,
									     __u32 caller_slot, struct wl_query *q)
{
	return t->unredirectable == WL_UNREDIRECTABLE_BLOCK && !wl_is_service(t, caller_slot) && wl_covers(q);
}

/* Why a socket is refused; 0: it is made. */
static inline __attribute__((always_inline)) __u32 wl_judge_socket(const struct wl_tables *t,
								    const struct wl_socket *s,
								    __u32 caller_slot, struct wl_query *q,
								    bool foreign, bool sandboxed)
{
	if (wl_reach(s) != WL_UNREDIRECTABLE)
		return 0;
	if (foreign && wl_is_of_a_namespace(s))
		return t->foreign_namespace == WL_FOREIGN_BLOCK ? WL_REFUSED_FOREIGN_NAMESPACE : 0;
	if (sandboxed && !t->override_sandboxes)
		return 0;
	return wl_refuses_unredirectable(t, caller_slot, q) ? WL_REFUSED_UNREDIRECTABLE : 0;
}

/* Whether datagrams to this address go to several hosts. */
static inline __attribute__((always_inline)) bool wl_is_group(const __u8 *ip)
{
	bool mapped = !ip[0] && !ip[1] && !ip[2] && !ip[3] && !ip[4] && !ip[5] && !ip[6] && !ip[7] && !ip[8] &&
		      !ip[9] && ip[10] == 0xff && ip[11] == 0xff;

	if (!mapped)
		return ip[0] == 0xff;
	return (ip[12] & 0xf0) == 0xe0 || (ip[12] == 0xff && ip[13] == 0xff && ip[14] == 0xff && ip[15] == 0xff);
}
