/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Facts in, verdict out: which filter redirects a leg and whether the auth
 * layer lets it pass. Pure, so it is also compiled for user space and compared
 * with `waylay_core::Tables` there.
 */
#pragma once

/* What filters ask about the application at the head of the chain. */
struct wl_origin {
	__u64 exe_device;
	__u64 exe_inode;
	__u64 cgroup;
	__u32 uid;
	__u32 reserved;
};

/* What is known of one connect(). */
struct wl_leg {
	struct wl_address remote;
	struct wl_process caller;
	struct wl_origin origin;
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

/* Loaded anew each time: the verifier would remember every bit it has tested
 * and follow all their combinations. */
static inline __attribute__((always_inline)) bool wl_asks(const struct wl_filter *f, __u32 condition)
{
	return *(const volatile __u32 *)&f->conditions & condition;
}

/* The conditions about the application and about the process that calls. */
static inline __attribute__((always_inline)) bool wl_application_matches(const struct wl_filter *f,
									  const struct wl_leg *leg)
{
	const struct wl_origin *app = &leg->origin;
	const struct wl_process *via = &leg->caller;

	if (wl_asks(f, WL_IF_EXE) && (f->exe_inode != app->exe_inode || f->exe_device != app->exe_device))
		return false;
	if (wl_asks(f, WL_IF_UID) && f->uid != app->uid)
		return false;
	if (wl_asks(f, WL_IF_CGROUP) && f->cgroup != app->cgroup)
		return false;
	return !wl_asks(f, WL_IF_VIA_EXE) ||
	       (f->via_exe_inode == via->exe_inode && f->via_exe_device == via->exe_device);
}

WL_GLOBAL int wl_filter_matches(const struct wl_filter *f, const struct wl_leg *leg)
{
	if (!f || !leg)
		return 0;
	if (wl_asks(f, WL_IF_PROTOCOL) && f->protocol != leg->protocol)
		return 0;
	if (wl_asks(f, WL_IF_PORTS) && (leg->remote.port < f->port_first || leg->remote.port > f->port_last))
		return 0;
	if (!wl_application_matches(f, leg))
		return 0;
	if (wl_asks(f, leg->redirected ? WL_IF_NOT_REDIRECTED : WL_IF_REDIRECTED))
		return 0;
	if (wl_asks(f, leg->proxied ? WL_IF_NOT_PROXIED : WL_IF_PROXIED))
		return 0;
	return !wl_asks(f, WL_IF_REMOTE) || wl_prefix_matches(leg->remote.ip, f->remote, f->remote_len);
}

WL_GLOBAL int wl_redirect_ask(const struct wl_filter *f, const struct wl_leg *leg, __u64 skip)
{
	if (!f || !leg || skip >> (f->slot & 63) & 1)
		return 0;
	return wl_filter_matches(f, leg);
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
		if (wl_redirect_ask(&t->redirect[i], leg, skip))
			return i;
	}
	return -1;
}

/* What the auth layer has come to so far. */
struct wl_auth {
	int blocked_by; /* index of the filter; -1: permitted */
	int sublayer;   /* the last that has spoken; -1: none */
	int final;
};

/* Hears one filter. A function of its own, because a global function's result
 * is unknown to the verifier: it would follow each index on its own otherwise. */
WL_GLOBAL int wl_auth_hear(const struct wl_filter *f, const struct wl_leg *leg, struct wl_auth *auth, int index)
{
	if (!f || !leg || !auth)
		return 0;
	if (f->sublayer == auth->sublayer || f->action == WL_CONTINUE || !wl_filter_matches(f, leg))
		return 0;
	auth->sublayer = f->sublayer;
	auth->blocked_by = f->action == WL_BLOCK ? index : -1;
	auth->final = f->hard;
	return 0;
}

/* Index of the auth filter that blocks the leg; -1 if it is permitted.
 * Sublayers are asked from heavy to light; the first filter of a sublayer that
 * permits or blocks speaks for it; a hard word is final, a soft one stands
 * until a lighter sublayer says otherwise. */
WL_GLOBAL int wl_classify_auth(const struct wl_tables *t, const struct wl_leg *leg)
{
	struct wl_auth auth = { .blocked_by = -1, .sublayer = -1 };

	if (!t || !leg)
		return -1;
	for (__u32 i = 0; i < WL_MAX_FILTERS; i++) {
		if (i >= t->auth_count)
			break;
		wl_auth_hear(&t->auth[i], leg, &auth, i);
		if (auth.final)
			break;
	}
	return auth.blocked_by;
}
