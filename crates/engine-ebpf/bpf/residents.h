/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Services that run already, in cgroups of their own choice. Outside of the scope
 * the programs of this file's name are attached there, and leave alone what is
 * dialled by others in the cgroup, and by the resident on its own account. In the
 * scope its programs are asked as about anybody: what a resident dials there
 * leaves a service that sets no records.
 */
#pragma once

/* `p` is the current process. */
WL_GLOBAL int wl_is_resident(const struct wl_service *s, const struct wl_process *p)
{
	if (!s || !p || !(s->flags & WL_IS_RESIDENT))
		return 0;
	return wl_recognises(s, p, bpf_get_current_ancestor_cgroup_id(s->resident_level));
}

/* The slot of the resident that the current process, which is `p`, is of;
 * WL_NO_SLOT if none. */
WL_GLOBAL __u32 wl_resident_slot(const struct wl_process *p)
{
	const struct wl_tables *t = wl_tables();

	if (!t || !p)
		return WL_NO_SLOT;
	for (__u32 i = 0; i < WL_MAX_SERVICES; i++) {
		if (i >= t->service_count)
			break;
		if (wl_is_resident(&t->services[i], p))
			return i;
	}
	return WL_NO_SLOT;
}

/* The slot of the service that the current process is of, in the scope. */
WL_GLOBAL __u32 wl_service_slot(const struct wl_process *p)
{
	const struct wl_config *cfg = wl_config();
	const struct wl_tables *t = wl_tables();
	__u32 slot = cfg ? wl_caller_slot(cfg) : WL_NO_SLOT;

	if (slot < WL_MAX_SERVICES || !p || !t || !t->residents)
		return slot;
	return wl_resident_slot(p);
}

/* And where programs are attached for a resident's sake. */
WL_GLOBAL __u32 wl_slot_outside(struct bpf_sock_addr *ctx)
{
	const struct wl_config *cfg = wl_config();
	struct wl_process caller = {};

	if (!cfg || bpf_get_netns_cookie(ctx) != cfg->netns)
		return WL_NO_SLOT;
	wl_caller(&caller);
	return wl_resident_slot(&caller);
}

/* The same if the leg is for a flow that it was led, or may be, or begins a loop. */
WL_GLOBAL __u32 wl_errand_of_resident(struct bpf_sock_addr *ctx, const struct wl_address *to)
{
	__u32 slot = wl_slot_outside(ctx);
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
