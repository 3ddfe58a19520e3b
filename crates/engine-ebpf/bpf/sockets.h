/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Sockets that are about to be made, and whether they may be (unredirectable.h).
 * One hook is asked about IPv4 and IPv6, when the kernel has found the protocol;
 * the other about every family, where the kernel has it.
 */
#pragma once

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct net {
	__u64 net_cookie;
};

struct nsproxy {
	struct net *net_ns;
};

struct task_struct___net {
	struct nsproxy *nsproxy;
};

#pragma clang attribute pop

static __always_inline void wl_report_socket(const struct wl_socket *s, const struct wl_process *maker,
					     __u32 refusal, __u32 error)
{
	struct wl_socket_event *event = wl_new_event(sizeof(*event));

	if (!event)
		return;
	event->refusal = refusal;
	event->error = error;
	event->family = s->family;
	event->type = s->type;
	event->protocol = s->protocol;
	event->process = *maker;
	bpf_ringbuf_submit(event, 0);
}

/* Asked about kinds only that cannot be redirected. */
static __always_inline int wl_on_socket(const struct wl_socket *s, __u64 netns)
{
	const struct wl_config *cfg = wl_config();
	const struct wl_tables *t = wl_tables();
	struct wl_query *q = NULL;
	struct wl_leg leg = {};
	__u32 refusal;

	wl_caller(&leg.caller);
	if (cfg && t && wl_chunk(t->filters, 0))
		q = wl_claim();
	if (q) {
		wl_open(q, t);
		wl_know_caller(q, &leg.caller);
		wl_know_same(q);
		refusal = wl_judge_socket(t, s, wl_service_slot(&leg.caller), q, netns != cfg->netns,
					  wl_is_maker_sandboxed(cfg->scope_level));
		wl_give_back(q);
	} else {
		refusal = WL_REFUSED_NO_TABLES;
	}
	if (!refusal)
		return WL_PASS;
	wl_introduce(&leg.caller);
	wl_report_socket(s, &leg.caller, refusal, EACCES);
	bpf_set_retval(-EACCES);
	return WL_REJECT;
}

/* The kernel's own sockets come by neither hook, or say so. */
SEC("cgroup/sock_create")
int wl_sock_create(struct bpf_sock *sk)
{
	struct wl_socket s = { .family = sk->family, .type = sk->type, .protocol = sk->protocol };

	if (wl_reach(&s) != WL_UNREDIRECTABLE)
		return WL_PASS;
	return wl_on_socket(&s, bpf_get_netns_cookie(sk));
}

/* int socket_create(int family, int type, int protocol, int kern) */
SEC("lsm_cgroup/socket_create")
int wl_socket_create(unsigned long long *arguments)
{
	struct wl_socket s = { .family = (int)arguments[0], .type = (int)arguments[1] };
	struct task_struct___net *task = (void *)bpf_get_current_task_btf();
	bool of_the_kernel = (int)arguments[3];

	if (of_the_kernel || s.family == AF_INET || s.family == AF_INET6 || wl_reach(&s) != WL_UNREDIRECTABLE)
		return WL_PASS;
	return wl_on_socket(&s, BPF_CORE_READ(task, nsproxy, net_ns, net_cookie));
}
