/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Sandboxes of others: programs that are asked about each packet of a cgroup's
 * sockets, as systemd's IPAddressDeny= attaches them. They see where a socket
 * connects, and of one that is redirected they would see the loopback.
 *
 * The kernel keeps a list for each cgroup, with what is attached to it and above
 * it. What a service is in as well is no sandbox: a cgroup is in one if its list is
 * another than that of the cgroup around both. Nobody has to publish anything, so
 * it is known from the first connection on. Asked only about legs that a service is
 * wanted for.
 */
#pragma once

#define WL_MAX_PACKET_PROGRAMS 64 /* BPF_CGROUP_MAX_PROGS */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

enum cgroup_bpf_attach_type {
	CGROUP_INET_INGRESS = 0,
	CGROUP_INET_EGRESS = 1,
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct task_struct___cgroups {
	struct css_set *cgroups;
};

struct bpf_prog_aux {
	char name[16];
};

struct bpf_prog {
	struct bpf_prog_aux *aux;
};

struct bpf_prog_array_item {
	struct bpf_prog *prog;
};

struct bpf_prog_array {
	struct bpf_prog_array_item items[1]; /* and more, up to one without a program */
};

#pragma clang attribute pop

static __always_inline __u64 wl_read_word(const void *from)
{
	__u64 word = 0;

	bpf_probe_read_kernel(&word, sizeof(word), from);
	return word;
}

static __always_inline const void *wl_packet_programs(const struct cgroup *cgroup, __u32 hook)
{
	return (const void *)wl_read_word((const void *)cgroup + bpf_core_field_offset(struct cgroup, bpf.effective) +
					  (__u64)hook * sizeof(void *));
}

static __always_inline const struct cgroup *wl_ancestor(const struct cgroup *cgroup, __u32 level)
{
	return (const void *)wl_read_word((const void *)cgroup + bpf_core_field_offset(struct cgroup, ancestors) +
					  (__u64)level * sizeof(void *));
}

/* 1 if it is wl_hear_names(), this instance's or another's, which lets packets pass.
 * Without a branch, as what follows: older verifiers would follow them all. */
WL_GLOBAL __u64 wl_is_ours(__u64 program)
{
	union {
		char name[16];
		__u64 words[2];
	} is = {}, ours = { .name = "wl_hear_names" };
	struct bpf_prog_aux *aux = BPF_CORE_READ((struct bpf_prog *)program, aux);

	bpf_core_read(is.name, sizeof(is.name), &aux->name);
	return wl_less((is.words[0] ^ ours.words[0]) | (is.words[1] ^ ours.words[1]), 1);
}

/* Whether other programs are asked about the one cgroup's packets than about the other's. */
WL_GLOBAL int wl_packets_differ(__u64 cgroup, __u64 other, __u32 hook)
{
	const void *one = wl_packet_programs((const void *)cgroup, hook);
	const void *two = wl_packet_programs((const void *)other, hook);

	if (one == two)
		return 0;
	one += bpf_core_field_offset(struct bpf_prog_array, items);
	two += bpf_core_field_offset(struct bpf_prog_array, items);
	for (int i = 0; i < WL_MAX_PACKET_PROGRAMS; i++) {
		__u64 program = wl_read_word(one), counterpart = wl_read_word(two);
		__u64 first = wl_is_ours(program), second = wl_is_ours(counterpart) & ~first;
		__u64 neither = (first | second) ^ 1;

		if ((program ^ counterpart) & -neither)
			return 1;
		if (!(program | first | second))
			return 0;
		one += (first | neither) * bpf_core_type_size(struct bpf_prog_array_item);
		two += (second | neither) * bpf_core_type_size(struct bpf_prog_array_item);
	}
	return 0;
}

/* Whether a sandbox is around this cgroup and not around all that is in its
 * ancestor of that level, the root's being 0. */
static __always_inline bool wl_is_sandboxed(const struct cgroup *cgroup, __u32 level)
{
	const struct cgroup *around;

	if (!cgroup || level >= (__u32)BPF_CORE_READ(cgroup, level))
		return false;
	around = wl_ancestor(cgroup, level);
	if (!around)
		return false;
	return wl_packets_differ((__u64)cgroup, (__u64)around,
				 bpf_core_enum_value(enum cgroup_bpf_attach_type, CGROUP_INET_EGRESS)) ||
	       wl_packets_differ((__u64)cgroup, (__u64)around,
				 bpf_core_enum_value(enum cgroup_bpf_attach_type, CGROUP_INET_INGRESS));
}

/* Of a leg: the cgroup in which its socket was made, if that is in a sandbox; 0 if not. */
WL_GLOBAL __u64 wl_sandbox_of(struct bpf_sock_addr *ctx, __u32 level)
{
	const struct sock *full = wl_full_sock(ctx->sk);
	const struct cgroup *cgroup = full ? BPF_CORE_READ(full, sk_cgrp_data.cgroup) : NULL;

	return wl_is_sandboxed(cgroup, level) ? BPF_CORE_READ(cgroup, kn, id) : 0;
}

/* How deep the innermost cgroup is that is around the leg and the service that is
 * wanted, as far as is known: services are in the scope, but for those that run by
 * themselves. */
static __always_inline __u32 wl_shared_level(const struct wl_connect *c, enum wl_place place, __u64 wanted)
{
	__u64 caller = c->q->leg.caller_slot;
	const struct wl_service *service;
	__u32 level = c->config->scope_level;

	if (place == WL_AT_RESIDENT) {
		asm volatile("" : "+r"(caller));
		level = c->tables->services[caller & (WL_MAX_SERVICES - 1)].resident_shared_level;
	}
	asm volatile("" : "+r"(wanted));
	service = &c->tables->services[wanted & (WL_MAX_SERVICES - 1)];
	if (service->flags & WL_IS_RESIDENT && service->resident_shared_level < level)
		return service->resident_shared_level;
	return level;
}

/* Where a service is wanted for a leg from somebody's sandbox, it goes on its own way. */
static __always_inline void wl_leave_in_sandbox(struct bpf_sock_addr *ctx, enum wl_place place, struct wl_connect *c,
						 struct wl_choice *choice)
{
	if (!choice->wanted || c->tables->override_sandboxes)
		return;
	c->sandbox = wl_sandbox_of(ctx, wl_shared_level(c, place, choice->slot));
	if (!c->sandbox)
		return;
	choice->wanted = 0;
	choice->refusal = 0;
}

/* Whether the current process is in one. */
WL_GLOBAL int wl_is_maker_sandboxed(__u32 level)
{
	const struct task_struct___cgroups *task = (const void *)bpf_get_current_task_btf();

	return wl_is_sandboxed(BPF_CORE_READ(task, cgroups, dfl_cgrp), level);
}

/* Told once of each cgroup, so that nobody can flood the reader. */
static __always_inline void wl_tell_of_sandbox(struct wl_leg *leg, __u64 cgroup)
{
	__u8 told = 1;

	if (bpf_map_update_elem(&sandboxes_told, &cgroup, &told, BPF_NOEXIST))
		return;
	wl_introduce(&leg->caller);
	wl_report(leg, WL_PASSED_SANDBOX, 0, 0, 0);
}
