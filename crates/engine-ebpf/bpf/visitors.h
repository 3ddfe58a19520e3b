/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* Legs of other network namespaces, from which services cannot be reached. */
#pragma once

/* A leg of another network namespace, of whoever dials there, by the filters that
 * ask for it, and then by the policy's one answer; 0 if it is refused. */
static __always_inline int wl_judge_visitor(struct bpf_sock_addr *ctx, struct wl_query *q, bool block,
					    bool asks_for_hosts)
{
	wl_know_leg(q, &q->leg);
	wl_know_namespace(q, bpf_get_netns_cookie(ctx));
	if (wl_asks_for_sources(q))
		wl_know_bound(ctx, q, ctx->family);
	wl_know_caller(q, &q->leg.caller);
	wl_know_same(q);
	if (asks_for_hosts)
		wl_know_names(q, NULL);
	if (wl_classify_auth(q, 0, 0))
		return wl_refuse(&q->leg, WL_REFUSED_BLOCKED, q->error_of_block, 0, q->blocked_by);
	if (block && !wl_has_spoken(q))
		return wl_refuse(&q->leg, WL_REFUSED_FOREIGN_NAMESPACE, EACCES, 0, 0);
	return WL_PASS;
}
