/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Facts in, verdict out: which filter redirects a leg and whether the auth
 * layer lets it pass. Pure, so it is also compiled for user space and compared
 * with `waylay_core::Tables` there.
 */
#pragma once

/* What filters ask of the leg itself; of its source there is nothing, unless
 * the caller has bound one. */
WL_GLOBAL int wl_know_leg_in(struct wl_search *s, const struct wl_leg *leg)
{
	if (!s || !leg)
		return 0;
	s->fields[WL_FIELD_REMOTE] = wl_number_of_address(s->tables, WL_AT_REMOTE, &leg->remote);
	s->fields[WL_FIELD_PORT] = leg->remote.port;
	s->fields[WL_FIELD_PROTOCOL] = leg->protocol;
	s->fields[WL_FIELD_FLAGS] = 0;
	/* The own one, for whoever asks. */
	s->fields[WL_FIELD_NAMESPACE] = 1;
	return 0;
}

WL_INLINE void wl_know_leg(struct wl_query *q, const struct wl_leg *leg)
{
	wl_know_leg_in(&q->whole, leg);
	if (q->amended)
		wl_know_leg_in(&q->amendments, leg);
}

/* Of another network namespace. */
WL_GLOBAL int wl_know_namespace(struct wl_query *q, __u64 cookie)
{
	if (!q)
		return 0;
	q->foreign = 1;
	q->whole.fields[WL_FIELD_NAMESPACE] = wl_number_of_id(q->whole.tables, WL_AT_NAMESPACES, cookie);
	if (q->amended)
		q->amendments.fields[WL_FIELD_NAMESPACE] =
			wl_number_of_id(q->amendments.tables, WL_AT_NAMESPACES, cookie);
	return 0;
}

/* Numbers what covers the names of the destination. */
WL_GLOBAL int wl_know_hosts_in(struct wl_search *s, const struct wl_query *q)
{
	if (!s || !q)
		return 0;
	wl_unname(s, WL_OF_HOSTS);
	for (int i = 0; i < WL_LINEAGE; i++)
		wl_name(s, WL_OF_HOSTS, i,
			q->hosts[i] ? wl_number_of_id(s->tables, WL_AT_HOSTS, q->hosts[i]) : 0);
	return 0;
}

WL_INLINE void wl_know_hosts(struct wl_query *q)
{
	wl_know_hosts_in(&q->whole, q);
	if (q->amended)
		wl_know_hosts_in(&q->amendments, q);
}

WL_INLINE bool wl_asks_for_sources_in(const struct wl_search *s)
{
	return wl_word(s->tables, WL_AT_LOCAL) | wl_word(s->tables, WL_AT_LOCAL + 1);
}

WL_INLINE bool wl_asks_for_sources(const struct wl_query *q)
{
	return wl_asks_for_sources_in(&q->whole) || (q->amended && wl_asks_for_sources_in(&q->amendments));
}

WL_INLINE void wl_know_source_in(struct wl_search *s, const struct wl_address *source)
{
	s->fields[WL_FIELD_LOCAL] = wl_number_of_address(s->tables, WL_AT_LOCAL, source);
}

WL_INLINE void wl_know_source(struct wl_query *q, const struct wl_address *source)
{
	wl_know_source_in(&q->whole, source);
	if (q->amended)
		wl_know_source_in(&q->amendments, source);
}

/* Whether a redirect filter matches whose service is not in `skip`; the query
 * says which. Asked again with a larger `skip` when a service is away. */
WL_INLINE int wl_classify_redirect(struct wl_query *q, __u64 skip)
{
	q->whole.skip = skip;
	q->whole.from = 0;
	return wl_first(q, WL_LAYER_REDIRECT);
}

/* What a sublayer says stands until another one is heard; whether one is. */
WL_GLOBAL int wl_hear(struct wl_query *q)
{
	if (!q)
		return 0;
	q->error_of_block = q->action == WL_BLOCK ? q->error : 0;
	q->blocked_by = q->filter;
	q->whole.from = q->next_group;
	return !q->hard;
}

/* Whether an auth filter blocks the leg; the query says which.
 * Sublayers are asked from heavy to light; the first filter of a sublayer that
 * permits or blocks speaks for it; a hard word is final, a soft one stands
 * until a lighter sublayer says otherwise. */
WL_GLOBAL int wl_classify_auth(struct wl_query *q, __u32 redirected, __u32 proxied)
{
	if (!q)
		return 0;
	q->blocked_by = 0;
	q->error_of_block = 0;
	q->whole.fields[WL_FIELD_FLAGS] = (redirected ? 1 : 0) | (proxied ? 2 : 0);
	q->amendments.fields[WL_FIELD_FLAGS] = q->whole.fields[WL_FIELD_FLAGS];
	q->whole.skip = 0;
	q->whole.from = 0;
	for (int i = 0; i < WL_MAX_SUBLAYERS; i++) {
		if (!wl_first(q, WL_LAYER_AUTH))
			break;
		if (!wl_hear(q))
			break;
	}
	return q->error_of_block;
}

/* Whether any auth filter has spoken, once wl_classify_auth() has been asked. */
WL_INLINE bool wl_has_spoken(const struct wl_query *q)
{
	return q->blocked_by;
}
