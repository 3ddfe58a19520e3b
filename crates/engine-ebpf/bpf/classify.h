/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Facts in, verdict out: which filter redirects a leg and whether the auth
 * layer lets it pass. Pure, so it is also compiled for user space and compared
 * with `waylay_core::Tables` there.
 */
#pragma once

/* What is known of one connect(). */
struct wl_leg {
	struct wl_address remote;
	struct wl_process caller;
	struct wl_process origin; /* the application at the head of the chain */
	__u32 caller_slot;        /* WL_NO_SLOT unless a service calls */
	__u32 protocol;
	__u32 redirected;
	__u32 proxied;
};

#ifndef WL_GLOBAL
/* A global function is verified once, not once per call. */
#define WL_GLOBAL __attribute__((noinline))
#endif

static inline __attribute__((always_inline)) bool wl_prefix_matches(const __u8 *ip, const __u8 *prefix,
								     __u8 len)
{
	for (int i = 0; i < 16; i++) {
		int bits = (int)len - i * 8;
		__u8 mask;

		if (bits <= 0)
			return true;
		mask = bits >= 8 ? 0xff : (__u8)(0xff00 >> bits);
		if ((ip[i] ^ prefix[i]) & mask)
			return false;
	}
	return true;
}

WL_GLOBAL int wl_filter_matches(const struct wl_filter *f, const struct wl_leg *leg)
{
	__u32 c;

	if (!f || !leg)
		return 0;
	c = f->conditions;
	if (c & WL_IF_PROTOCOL && f->protocol != leg->protocol)
		return 0;
	if (c & WL_IF_PORTS && (leg->remote.port < f->port_first || leg->remote.port > f->port_last))
		return 0;
	if (c & WL_IF_EXE && (f->exe_inode != leg->origin.exe_inode || f->exe_device != leg->origin.exe_device))
		return 0;
	if (c & WL_IF_UID && f->uid != leg->origin.uid)
		return 0;
	if (c & WL_IF_CGROUP && f->cgroup != leg->origin.cgroup)
		return 0;
	if (c & WL_IF_VIA_EXE &&
	    (f->via_exe_inode != leg->caller.exe_inode || f->via_exe_device != leg->caller.exe_device))
		return 0;
	if ((c & WL_IF_REDIRECTED && !leg->redirected) || (c & WL_IF_NOT_REDIRECTED && leg->redirected))
		return 0;
	if ((c & WL_IF_PROXIED && !leg->proxied) || (c & WL_IF_NOT_PROXIED && leg->proxied))
		return 0;
	return !(c & WL_IF_REMOTE) || wl_prefix_matches(leg->remote.ip, f->remote, f->remote_len);
}

/* Index of the first redirect filter that matches and whose service is not in
 * `skip`; -1 if none. Asked again with a larger `skip` when a service is away. */
WL_GLOBAL int wl_classify_redirect(const struct wl_tables *t, const struct wl_leg *leg, __u64 skip)
{
	if (!t || !leg)
		return -1;
	for (__u32 i = 0; i < WL_MAX_FILTERS; i++) {
		if (i >= t->redirect_count)
			break;
		if (skip >> (t->redirect[i].slot & 63) & 1)
			continue;
		if (wl_filter_matches(&t->redirect[i], leg))
			return i;
	}
	return -1;
}

/* Index of the auth filter that blocks the leg; -1 if it is permitted.
 * Sublayers are asked from heavy to light; the first filter of a sublayer that
 * permits or blocks speaks for it; a hard word is final, a soft one stands
 * until a lighter sublayer says otherwise. */
WL_GLOBAL int wl_classify_auth(const struct wl_tables *t, const struct wl_leg *leg)
{
	int blocked_by = -1;
	int decided = -1; /* the sublayer that has spoken */

	if (!t || !leg)
		return -1;
	for (__u32 i = 0; i < WL_MAX_FILTERS; i++) {
		const struct wl_filter *f = &t->auth[i];

		if (i >= t->auth_count)
			break;
		if (f->sublayer == decided || f->action == WL_CONTINUE || !wl_filter_matches(f, leg))
			continue;
		decided = f->sublayer;
		blocked_by = f->action == WL_BLOCK ? (int)i : -1;
		if (f->hard)
			break;
	}
	return blocked_by;
}
