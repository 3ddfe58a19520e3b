/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * By which names applications have asked for addresses: learned from what resolvers
 * answer to their sockets, before these can read it, so no connect() comes first.
 * Attached only while a policy asks for names.
 *
 * Who has asked is whoever made the socket: an executable, a user and a cgroup, so
 * that a process and those it has started know the same.
 */
#pragma once

#define WL_PASS_PACKET 1
#define WL_DROP_PACKET 0

/* Names are kept for as long as resolvers say, within these bounds: applications
 * hold addresses for longer than a moment, and few for longer than a day. */
#define WL_LEAST_SECONDS 300
#define WL_MOST_SECONDS 86400

SEC("cgroup/sock_create")
int wl_note_asker(struct bpf_sock *sk)
{
	struct wl_asker asker = {};
	struct wl_process p = {};

	if (sk->type != SOCK_DGRAM || sk->protocol != SOCK_PROTO_UDP)
		return WL_PASS;
	wl_caller(&p);
	asker.exe_device = p.exe_device;
	asker.exe_inode = p.exe_inode;
	asker.cgroup = p.cgroup;
	asker.uid = p.uid;
	/* Without room nothing is learned from what comes to it. */
	bpf_sk_storage_get(&askers, sk, &asker, BPF_LOCAL_STORAGE_GET_F_CREATE);
	return WL_PASS;
}

/* In the place of what has run out first; places that are free have. */
WL_GLOBAL int wl_keep_name(struct wl_names *names, __u64 key, __u32 until)
{
	__u32 place = 0, first = ~0U;

	if (!names)
		return 0;
	for (__u32 i = 0; i < WL_LINEAGE; i++) {
		if (names->keys[i] == key) {
			place = i;
			break;
		}
		if (names->until[i] < first) {
			first = names->until[i];
			place = i;
		}
	}
	place &= 15;
	if (place >= WL_LINEAGE)
		return 0;
	if (names->keys[place] == key && names->until[place] > until)
		return 0;
	names->keys[place] = key;
	names->until[place] = until;
	return 0;
}

/* That the name which was asked for has the message's address. */
WL_GLOBAL int wl_learn_address(struct wl_message *m, const struct wl_asker *asker)
{
	struct wl_known known = {};
	struct wl_names none = {}, *names;
	__u32 seconds;

	if (!m || !asker)
		return 0;
	seconds = m->ttl;
	/* A negative time is none (RFC 2181, section 8). */
	if (seconds < WL_LEAST_SECONDS || seconds >> 31)
		seconds = WL_LEAST_SECONDS;
	if (seconds > WL_MOST_SECONDS)
		seconds = WL_MOST_SECONDS;
	known.by = *asker;
	__builtin_memcpy(known.ip, m->address, sizeof(known.ip));
	names = bpf_map_lookup_elem(&known_names, &known);
	if (!names) {
		bpf_map_update_elem(&known_names, &known, &none, BPF_NOEXIST);
		names = bpf_map_lookup_elem(&known_names, &known);
	}
	if (!names)
		return 0;
	for (__u32 i = 0; i < WL_LINEAGE; i++) {
		if (i < m->key_count)
			wl_keep_name(names, m->keys[i], wl_seconds() + seconds);
	}
	return 0;
}

/* All that an answer says of names that are asked for. */
WL_GLOBAL int wl_learn(struct wl_message *m, const struct wl_asker *asker)
{
	const struct wl_tables *t = wl_tables();

	if (!m || !asker || !t || !t->asks_for_hosts)
		return 0;
	m->key_count = 0;
	if (!wl_read_question(m))
		return 0;
	wl_find_keys(m, t->filters);
	if (t->amendments)
		wl_find_keys(m, t->amendments);
	if (!m->key_count)
		return 0;
	WL_KEEP_LOOP
	for (int i = 0; i < WL_MAX_RECORDS; i++) {
		int record = wl_read_record(m);

		if (record == WL_NO_RECORD)
			break;
		if (record == WL_ADDRESS_RECORD)
			wl_learn_address(m, asker);
	}
	return 0;
}

/* Where the message of a UDP datagram begins, and between whom it travels; 0 if it
 * is none. Headers between those of IPv6 and UDP are not looked for. */
WL_GLOBAL int wl_read_headers(struct __sk_buff *skb, struct wl_datagram_path *path)
{
	__u8 first = 0, protocol = 0;
	__u16 ports[2] = {};
	__u32 at = 40;

	if (!path)
		return 0;
	bpf_skb_load_bytes(skb, 0, &first, 1);
	if (first >> 4 == 4) {
		path->peer.ip[10] = path->peer.ip[11] = 0xff;
		path->local.ip[10] = path->local.ip[11] = 0xff;
		at = (first & 15) * 4;
		bpf_skb_load_bytes(skb, 9, &protocol, 1);
		bpf_skb_load_bytes(skb, 12, path->peer.ip + 12, 4);
		bpf_skb_load_bytes(skb, 16, path->local.ip + 12, 4);
	} else {
		bpf_skb_load_bytes(skb, 6, &protocol, 1);
		bpf_skb_load_bytes(skb, 8, path->peer.ip, 16);
		bpf_skb_load_bytes(skb, 24, path->local.ip, 16);
	}
	if (protocol != SOCK_PROTO_UDP || bpf_skb_load_bytes(skb, at, ports, sizeof(ports)))
		return 0;
	path->peer.port = bpf_ntohs(ports[0]);
	path->local.port = bpf_ntohs(ports[1]);
	return at + 8;
}

/* Whether a datagram is a resolver's answer, also where a service has asked it. */
WL_GLOBAL int wl_is_of_resolver(struct __sk_buff *skb, const struct wl_datagram_path *path)
{
	struct wl_resolver from = {};
	struct wl_datagram_flow *d;

	if (!path)
		return 0;
	from.port = path->peer.port;
	__builtin_memcpy(from.ip, path->peer.ip, sizeof(from.ip));
	d = wl_datagrams(wl_find_datagrams(&path->peer, &path->local));
	if (d && d->cookie == bpf_get_socket_cookie(skb)) {
		from.port = d->flow.destination.port;
		__builtin_memcpy(from.ip, d->flow.destination.ip, sizeof(from.ip));
	}
	return bpf_map_lookup_elem(&resolvers, &from) != NULL;
}

static __always_inline struct wl_message *wl_claim_message(void)
{
	__u32 number = bpf_get_smp_processor_id();

	for (int i = 0; i < 8; i++) {
		__u32 key = (number + i) % WL_MAX_MESSAGES;
		struct wl_message *m = bpf_map_lookup_elem(&messages, &key);

		if (m && !__sync_lock_test_and_set(&m->busy, 1))
			return m;
	}
	return NULL;
}

SEC("cgroup_skb/ingress")
int wl_hear_names(struct __sk_buff *skb)
{
	struct wl_datagram_path path = {};
	struct wl_asker *asker;
	struct wl_message *m;
	struct bpf_sock *sk = skb->sk;
	__u32 length;
	int at;

	if (!sk)
		return WL_PASS_PACKET;
	sk = bpf_sk_fullsock(sk);
	if (!sk || sk->protocol != SOCK_PROTO_UDP)
		return WL_PASS_PACKET;
	asker = bpf_sk_storage_get(&askers, sk, NULL, 0);
	if (!asker)
		return WL_PASS_PACKET;
	at = wl_read_headers(skb, &path);
	if (at <= 0 || at > 128 || !wl_is_of_resolver(skb, &path))
		return WL_PASS_PACKET;
	m = wl_claim_message();
	/* Whoever asked asks again. */
	if (!m)
		return WL_DROP_PACKET;
	length = skb->len - at;
	if (length > WL_MESSAGE_BYTES)
		length = WL_MESSAGE_BYTES;
	m->length = length;
	/* The compiler is not to know what it is within, or it drops the bounds that
	 * verifiers before Linux 6.8 need to see that it is neither 0 nor too much. */
	asm volatile("" : "+r"(length));
	if (length && !bpf_skb_load_bytes(skb, at, m->bytes, ((length - 1) & (WL_MESSAGE_BYTES - 1)) + 1))
		wl_learn(m, asker);
	__sync_lock_test_and_set(&m->busy, 0);
	return WL_PASS_PACKET;
}
