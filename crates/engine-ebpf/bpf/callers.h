/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Servers that are in the scope themselves: whom they see as their clients, and
 * where their answers go. An answer is no connection of the server's, and a
 * service that dials for an application is not its client.
 */
#pragma once

static __always_inline void wl_caller_key(const struct wl_address *from, __u16 local_port, __u32 protocol,
					  struct wl_caller_from *key)
{
	__builtin_memcpy(key->ip, from->ip, sizeof(key->ip));
	key->port = from->port;
	key->local_port = local_port;
	key->protocol = protocol;
}

/* From here on what comes from `own` to that port of this host is an application's. */
WL_GLOBAL int wl_speak_for(const struct wl_address *own, __u32 port, __u32 protocol,
			   const struct wl_address *application)
{
	struct wl_caller_from key = {};
	struct wl_address behind;

	if (!own || !application || !application->port)
		return 0;
	behind = *application; /* see wl_try_port() */
	wl_caller_key(own, port, protocol, &key);
	bpf_map_update_elem(&spoken_for, &key, &behind, BPF_ANY);
	return 1;
}

static __always_inline const struct wl_address *wl_behind(const struct wl_address *from, __u16 local_port,
							  __u32 protocol)
{
	struct wl_caller_from key = {};

	wl_caller_key(from, local_port, protocol, &key);
	return bpf_map_lookup_elem(&spoken_for, &key);
}

/* Whether `to` has sent to this port; then `to` becomes where answers really go. */
WL_GLOBAL int wl_has_called(__u32 local_port, struct wl_address *to)
{
	struct wl_caller_from key = {};
	const struct wl_address *really;

	if (!to)
		return 0;
	wl_caller_key(to, local_port, SOCK_PROTO_UDP, &key);
	really = bpf_map_lookup_elem(&callers, &key);
	if (!really)
		return 0;
	*to = *really;
	return 1;
}

/* `shown` is who the server is told has sent. */
WL_GLOBAL int wl_hear_caller(__u32 local_port, const struct wl_address *shown, const struct wl_address *really)
{
	struct wl_caller_from key = {};
	const struct wl_address *known;
	struct wl_address to;

	if (!shown || !really)
		return 0;
	to = *really; /* see wl_try_port() */
	wl_caller_key(shown, local_port, SOCK_PROTO_UDP, &key);
	known = bpf_map_lookup_elem(&callers, &key);
	if (known && known->port == really->port && wl_same_ip(known->ip, really->ip))
		return 0;
	return !bpf_map_update_elem(&callers, &key, &to, BPF_ANY);
}
