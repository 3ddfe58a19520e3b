/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Services that run already, in cgroups of their own choice. The programs of
 * this file's name are attached there, and leave alone what is dialled by others
 * in the cgroup, and by the resident on its own account.
 */
#pragma once

/* `p` is the current process. */
WL_GLOBAL int wl_is_resident(const struct wl_service *s, const struct wl_process *p)
{
	if (!s || !p)
		return 0;
	return wl_recognises(s, p, bpf_get_current_ancestor_cgroup_id(s->resident_level));
}

/* The slot of the resident that the current process is of; WL_NO_SLOT if none. */
WL_GLOBAL __u32 wl_resident_slot(struct bpf_sock_addr *ctx)
{
	const struct wl_config *cfg = wl_config();
	const struct wl_tables *t = wl_tables();
	struct wl_process caller = {};

	if (!cfg || !t || bpf_get_netns_cookie(ctx) != cfg->netns)
		return WL_NO_SLOT;
	wl_caller(&caller);
	for (__u32 i = 0; i < WL_MAX_SERVICES; i++) {
		if (i >= t->service_count)
			break;
		if (wl_is_resident(&t->services[i], &caller))
			return i;
	}
	return WL_NO_SLOT;
}

/* The same if the leg is for a flow that it was led, or may be, or begins a loop. */
WL_GLOBAL __u32 wl_errand_of_resident(struct bpf_sock_addr *ctx, const struct wl_address *to)
{
	__u32 slot = wl_resident_slot(ctx);
	const struct wl_listener_owner *owner;
	const struct wl_config *cfg;
	const struct wl_tables *t;
	struct wl_duties *d;
	bool owed;

	if (slot >= WL_MAX_SERVICES || !to)
		return WL_NO_SLOT;
	d = wl_duties_of(slot);
	owed = d && wl_is_owed(d);
	if (owed || wl_is_errand(slot, to))
		return slot;
	cfg = wl_config();
	t = wl_tables();
	if (!d || !d->flows || !cfg || !t)
		return WL_NO_SLOT;
	owner = wl_listener_at(ctx, cfg, t, to);
	return owner && owner->instance == wl_instance() ? slot : WL_NO_SLOT;
}
