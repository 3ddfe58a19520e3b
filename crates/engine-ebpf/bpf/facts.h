/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* What the kernel knows about a connect(): the process, its file, the socket. */
#pragma once

#define WL_EXE_COMPONENTS 16
#define WL_EXE_STEPS 24
#define WL_EXE_COMPONENT_LEN 96
#define WL_BTRFS 0x9123683E /* BTRFS_SUPER_MAGIC of linux/magic.h */

static __always_inline const struct wl_config *wl_config(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&config, &zero);
}

static __always_inline const struct wl_tables *wl_tables(void)
{
	__u32 zero = 0;
	void *inner = bpf_map_lookup_elem(&tables, &zero);

	return inner ? bpf_map_lookup_elem(inner, &zero) : NULL;
}

static __always_inline const __u64 *wl_chunk(__u32 tables, __u32 number)
{
	__u32 slot = tables & (WL_WORDS - 1);
	void *inner = bpf_map_lookup_elem(&filters, &slot);

	return inner ? bpf_map_lookup_elem(inner, &number) : NULL;
}

/* A search of one's own, until it is given back; NULL where very many are under
 * way at once. */
static __always_inline struct wl_query *wl_claim(void)
{
	__u32 number = bpf_get_smp_processor_id();
	struct wl_query *q;

	for (int i = 0; i < 16; i++) {
		__u32 key = (number + i) % WL_MAX_QUERIES;

		q = bpf_map_lookup_elem(&queries, &key);
		if (q && !__sync_lock_test_and_set(&q->busy, 1)) {
			__builtin_memset(&q->leg, 0, sizeof(q->leg));
			return q;
		}
	}
	return NULL;
}

/* Says which words are to be searched. */
static __always_inline void wl_open(struct wl_query *q, const struct wl_tables *t)
{
	q->whole.tables = t->filters;
	q->whole.named = 0;
	q->amendments.tables = t->amendments;
	q->amendments.named = 0;
	q->amended = t->amendments;
	q->foreign = 0;
}

static __always_inline void wl_give_back(struct wl_query *q)
{
	/* And not a store, behind which earlier ones might stay. */
	__sync_lock_test_and_set(&q->busy, 0);
}

/* How far the host gets; NULL where nothing is known of it. */
static __always_inline const struct wl_route *wl_route_to(const struct wl_address *remote)
{
	struct wl_route_key key = { .length = 128 };
	__u32 zero = 0;
	void *inner = bpf_map_lookup_elem(&routes, &zero);

	if (!inner)
		return NULL;
	__builtin_memcpy(key.ip, remote->ip, sizeof(key.ip));
	return bpf_map_lookup_elem(inner, &key);
}

/* Whether the destination is this host, by whichever of its addresses; while
 * nothing is known of its routes, it may be. */
static __always_inline bool wl_is_here(const struct wl_address *remote)
{
	const struct wl_route *route = wl_route_to(remote);

	return !route || route->here;
}

/* The slot of the service the current process belongs to. */
static __always_inline __u32 wl_caller_slot(const struct wl_config *cfg)
{
	__u64 cgroup = bpf_get_current_ancestor_cgroup_id(cfg->service_level);
	__u32 *slot = bpf_map_lookup_elem(&slot_of_cgroup, &cgroup);

	return slot ? *slot : WL_NO_SLOT;
}

/* On btrfs a file has its number in its subvolume alone, and which that is cannot be
 * seen in a way that holds for every kernel. When the file was made tells it from
 * those of the others. */
static __always_inline __u64 wl_device_of(const struct inode *inode)
{
	const struct super_block *fs = inode->i_sb;
	__u64 other = fs->s_magic ^ WL_BTRFS;

	/* Without a branch, after which older verifiers would follow everything twice. */
	asm volatile("" : "+r"(other));
	other = (other | -other) >> 63;
	return (inode->i_generation & (other - 1)) << 32 | fs->s_dev;
}

/* What filters ask about the caller. Read through pointers the verifier knows:
 * a helper call for each is what an unmatched connect() would notice most. */
WL_GLOBAL int wl_caller(struct wl_process *p)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task_btf();
	struct inode *inode = task->mm->exe_file->f_inode;

	if (!p)
		return 0;
	p->cgroup = bpf_get_current_cgroup_id();
	p->exe_device = wl_device_of(inode);
	p->exe_inode = inode->i_ino;
	p->uid = (__u32)bpf_get_current_uid_gid();
	return 0;
}

/* The current process's cgroups, from the root. */
static __always_inline void wl_lineage_of_caller(__u64 *lineage)
{
	for (int i = 0; i < WL_LINEAGE; i++)
		lineage[i] = bpf_get_current_ancestor_cgroup_id(i);
}

static __always_inline __u32 wl_gid_of_caller(void)
{
	return bpf_get_current_uid_gid() >> 32;
}

/* Numbers who dials, of whom `p` has been filled by wl_caller(). */
WL_GLOBAL int wl_know_caller(struct wl_query *q, const struct wl_process *p)
{
	if (!q || !p)
		return 0;
	q->who.exe_device = p->exe_device;
	q->who.exe_inode = p->exe_inode;
	q->who.uid = p->uid;
	q->who.gid = wl_gid_of_caller();
	if (wl_is_asked_for(q, WL_AT_COMMANDS))
		bpf_get_current_comm(q->who.command, sizeof(q->who.command));
	if (wl_is_asked_for(q, WL_AT_CGROUPS))
		wl_lineage_of_caller(q->who.lineage);
	return wl_know_who(q, WL_OF_VIA);
}

/* Numbers the application of a flow. */
WL_GLOBAL int wl_know_application(struct wl_query *q, const struct wl_flow *flow)
{
	if (!q || !flow)
		return 0;
	q->who.exe_device = flow->application.exe_device;
	q->who.exe_inode = flow->application.exe_inode;
	q->who.uid = flow->application.uid;
	q->who.gid = flow->gid;
	__builtin_memcpy(q->who.command, flow->application.comm, sizeof(q->who.command));
	__builtin_memcpy(q->who.lineage, flow->lineage, sizeof(q->who.lineage));
	return wl_know_who(q, WL_OF_APPLICATION);
}

/* Since boot. */
static __always_inline __u32 wl_seconds(void)
{
	return bpf_ktime_get_boot_ns() / 1000000000;
}

/* Numbers what covers the names by which the application has asked for the leg's
 * destination (learning.h): of the flow, or else who dials. */
WL_GLOBAL int wl_know_names(struct wl_query *q, const struct wl_flow *flow)
{
	const struct wl_names *names;
	struct wl_known known = {};
	__u32 now = wl_seconds();

	if (!q)
		return 0;
	known.by.exe_device = flow ? flow->application.exe_device : q->leg.caller.exe_device;
	known.by.exe_inode = flow ? flow->application.exe_inode : q->leg.caller.exe_inode;
	known.by.cgroup = flow ? flow->application.cgroup : q->leg.caller.cgroup;
	known.by.uid = flow ? flow->application.uid : q->leg.caller.uid;
	__builtin_memcpy(known.ip, q->leg.remote.ip, sizeof(known.ip));
	names = bpf_map_lookup_elem(&known_names, &known);
	for (int i = 0; i < WL_LINEAGE; i++)
		q->hosts[i] = names && names->until[i] > now ? names->keys[i] : 0;
	wl_know_hosts(q);
	return 0;
}

/* The rest, for what is remembered or reported. */
WL_GLOBAL int wl_introduce(struct wl_process *p)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task_btf();

	if (!p)
		return 0;
	p->start_time_ns = task->group_leader->start_boottime;
	p->pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(p->comm, sizeof(p->comm));
	return 0;
}

static __always_inline bool wl_is_set(const __u8 *ip)
{
	const __u32 *words = (const __u32 *)ip;

	return words[0] | words[1] | words[2] | words[3];
}

static __always_inline bool wl_same_ip(const __u8 *one, const __u8 *other)
{
	const __u32 *a = (const __u32 *)one, *b = (const __u32 *)other;

	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]));
}

static __always_inline bool wl_is_mapped(const __u8 *ip)
{
	const __u32 *words = (const __u32 *)ip;

	return words[0] == 0 && words[1] == 0 && words[2] == bpf_htonl(0xffff);
}

static __always_inline void wl_map_ip4(__u8 *ip, __u32 ip4)
{
	__u32 *words = (__u32 *)ip;

	words[0] = 0;
	words[1] = 0;
	words[2] = bpf_htonl(0xffff);
	words[3] = ip4;
}

static __always_inline __u32 wl_ip4(const __u8 *ip)
{
	return ((const __u32 *)ip)[3];
}

/* To connect(), the unspecified address means this host. */
static __always_inline void wl_resolve_unspecified(__u8 *ip)
{
	__u32 *words = (__u32 *)ip;
	bool mapped = wl_is_mapped(ip);

	if (!words[3] && mapped)
		words[3] = bpf_htonl(0x7f000001);
	else if (!wl_is_set(ip))
		words[3] = bpf_htonl(1);
}

/* Of the same family. */
static __always_inline void wl_make_unspecified(__u8 *ip)
{
	__u32 *words = (__u32 *)ip;

	if (!wl_is_mapped(ip))
		words[0] = words[1] = words[2] = 0;
	words[3] = 0;
}

static __always_inline bool wl_is_link_local(const __u8 *ip)
{
	return ip[0] == 0xfe && (ip[1] & 0xc0) == 0x80;
}

/* Which link an address is on, if the application said so: the context that
 * programs are given leaves it out. 0 where the kernel has no way to it. */
static __always_inline __u32 wl_scope(struct bpf_sock_addr *ctx)
{
	struct bpf_sock_addr_kern *kern;

	if (!bpf_cast_to_kern_ctx)
		return 0;
	kern = bpf_cast_to_kern_ctx(ctx);
	return BPF_CORE_READ(kern, uaddr, sin6_scope_id);
}

/* As it is written. */
static __always_inline void wl_written(struct bpf_sock_addr *context, int family, struct wl_address *a)
{
	const volatile struct bpf_sock_addr *ctx = context;
	__u32 *words = (__u32 *)a->ip;

	a->scope = 0;
	if (family == AF_INET) {
		wl_map_ip4(a->ip, ctx->user_ip4);
	} else {
		words[0] = ctx->user_ip6[0];
		words[1] = ctx->user_ip6[1];
		words[2] = ctx->user_ip6[2];
		words[3] = ctx->user_ip6[3];
		if (wl_is_link_local(a->ip))
			a->scope = wl_scope(context);
	}
	a->port = bpf_ntohs((__u16)ctx->user_port);
	a->family = family;
}

static __always_inline void wl_remote(struct bpf_sock_addr *ctx, int family, struct wl_address *a)
{
	wl_written(ctx, family, a);
	wl_resolve_unspecified(a->ip);
}

/* To connect(), what the socket has itself comes before the loopback's address:
 * of IPv4 its own (ip_route_output_key_hash_rcu()), of IPv6 the family of that
 * (tcp_v6_connect()). Global: the verifier of Linux 6.1 would follow each way
 * through this with all that comes after it. */
WL_GLOBAL int wl_resolve_dialled(struct bpf_sock_addr *ctx, struct wl_address *a)
{
	volatile struct bpf_sock *sk = ctx->sk;
	/* Loaded before any branch, as in wl_wishes(). */
	__u32 own4 = sk->src_ip4, own0 = sk->src_ip6[0], own1 = sk->src_ip6[1], own2 = sk->src_ip6[2];
	__u32 *words;

	if (!a)
		return 0;
	words = (__u32 *)a->ip;
	if (wl_is_mapped(a->ip) && !words[3])
		words[3] = own4;
	else if (!wl_is_set(a->ip) && !own0 && !own1 && own2 == bpf_htonl(0xffff))
		words[2] = own2;
	wl_resolve_unspecified(a->ip);
	return 0;
}

/* Where somebody dials. */
static __always_inline void wl_dialled(struct bpf_sock_addr *ctx, int family, struct wl_address *a)
{
	wl_written(ctx, family, a);
	wl_resolve_dialled(ctx, a);
}

/* An MPTCP application's socket is not the one that connects: the kernel
 * connects a subflow of its own for it. */
static __always_inline struct bpf_sock *wl_msk(struct bpf_sock *sk)
{
	return (struct bpf_sock *)bpf_skc_to_mptcp_sock(sk);
}

/* What the verifier lets us read of a socket is little, and for UDP there is no
 * helper that leads to the rest: so the pointer becomes a number on the way. */
static __always_inline struct sock *wl_full_sock(struct bpf_sock *sk)
{
	struct sock *full = (struct sock *)bpf_skc_to_tcp_sock(sk);
	struct bpf_sock *at = sk;

	if (!full)
		bpf_probe_read_kernel(&full, sizeof(full), &at);
	return full;
}

/* Of TCP the pointer is one that the verifier knows, and a word is read without a helper. */
static __always_inline struct sock *wl_tcp_sock(struct bpf_sock *sk)
{
	return (struct sock *)bpf_skc_to_tcp_sock(sk);
}

static __always_inline __u64 wl_cookie_of_tcp(struct bpf_sock *sk)
{
	struct sock *tcp = wl_tcp_sock(sk);

	return tcp ? tcp->__sk_common.skc_cookie.counter : 0;
}

static __always_inline bool wl_owned_by_kernel(struct bpf_sock *sk)
{
	struct sock *owned = (struct sock *)wl_msk(sk) ?: wl_tcp_sock(sk);

	if (owned)
		return BPF_CORE_READ_BITFIELD(owned, sk_kern_sock);
	owned = wl_full_sock(sk);
	return owned && BPF_CORE_READ_BITFIELD_PROBED(owned, sk_kern_sock);
}

/* Whether a socket was made in this cgroup or below it, so that the programs
 * that are attached there are asked about it. Global, for the stack's sake. */
WL_GLOBAL int wl_is_made_in(struct bpf_sock_addr *ctx, __u64 cgroup, __u32 level)
{
	struct sock *full = wl_full_sock(ctx->sk);
	struct cgroup *at, *ancestor = NULL;

	if (!full)
		return 0;
	at = BPF_CORE_READ(full, sk_cgrp_data.cgroup);
	if (!at || level > (__u32)BPF_CORE_READ(at, level))
		return 0;
	bpf_probe_read_kernel(&ancestor, sizeof(ancestor),
			      (void *)at + bpf_core_field_offset(struct cgroup, ancestors) +
				      (__u64)level * sizeof(ancestor));
	return ancestor && BPF_CORE_READ(ancestor, kn, id) == cgroup;
}

#define WL_BINDADDR_LOCK 4 /* SOCK_BINDADDR_LOCK: bind() was given an address */

/* Whether a socket has an address that it was given by bind(). */
static __always_inline bool wl_is_bound(__u64 userlocks)
{
	return userlocks & WL_BINDADDR_LOCK;
}

/* What else a socket is told of its packets, and whether it is bound. */
static __always_inline bool wl_wishes_of_packets(struct bpf_sock *sk, int family, struct wl_socket_wishes *w)
{
	struct inet_sock *inet = (struct inet_sock *)wl_tcp_sock(sk);
	bool has_class = family == AF_INET6 && bpf_core_field_exists(struct ipv6_pinfo, tclass);

	if (inet) {
		w->tos = inet->tos;
		if (has_class)
			w->tclass = inet->pinet6->tclass;
		return wl_is_bound(BPF_CORE_READ_BITFIELD((struct sock *)inet, sk_userlocks));
	}
	inet = (struct inet_sock *)wl_full_sock(sk);
	if (!inet)
		return true;
	w->tos = BPF_CORE_READ(inet, tos);
	if (has_class)
		w->tclass = BPF_CORE_READ(inet, pinet6, tclass);
	return wl_is_bound(BPF_CORE_READ_BITFIELD_PROBED((struct sock *)inet, sk_userlocks));
}

static __always_inline void wl_wishes(struct bpf_sock *sk, int family, struct wl_socket_wishes *w)
{
	volatile struct bpf_sock *s = sk;
	__u32 *source = (__u32 *)w->source;
	/* Loaded before any branch: clang would merge them otherwise, and the
	 * verifier refuses the pointer arithmetic that comes of it. */
	__u32 ip4 = s->src_ip4;
	__u32 w0 = s->src_ip6[0], w1 = s->src_ip6[1], w2 = s->src_ip6[2], w3 = s->src_ip6[3];

	w->mark = s->mark;
	w->bound_device = s->bound_dev_if;
	/* A UDP socket that was connected before has an address that nobody asked for. */
	if (!wl_wishes_of_packets(sk, family, w))
		return;
	if (family == AF_INET6) {
		source[0] = w0;
		source[1] = w1;
		source[2] = w2;
		source[3] = w3;
	} else if (ip4) {
		wl_map_ip4(w->source, ip4);
	}
}

/* The source address that the caller has bound, if any. Global, for the stack's sake. */
WL_GLOBAL int wl_know_bound(struct bpf_sock_addr *ctx, struct wl_query *q, __u32 family)
{
	struct wl_socket_wishes wishes = {};
	struct wl_address source = {};

	if (!q)
		return 0;
	if (family == AF_INET)
		wl_wishes(ctx->sk, AF_INET, &wishes);
	else
		wl_wishes(ctx->sk, AF_INET6, &wishes);
	if (!wl_is_mapped(wishes.source) || wl_ip4(wishes.source))
		__builtin_memcpy(source.ip, wishes.source, sizeof(source.ip));
	wl_know_source(q, &source);
	return 0;
}

/* On the way from a file up to the root, mounts crossed. */
struct wl_walk {
	struct dentry *at;
	struct mount *mount;
	__u64 count;
	const void *names[WL_EXE_COMPONENTS]; /* deepest first */
};

/* One step up; 0 at the root. A function of its own, for the reason given at
 * wl_auth_hear(). */
WL_GLOBAL int wl_walk_up(struct wl_walk *w)
{
	struct mount *mount, *parent;
	struct dentry *at;
	__u64 count;

	if (!w)
		return 0;
	mount = w->mount;
	at = w->at;
	if (at != BPF_CORE_READ(mount, mnt.mnt_root)) {
		count = w->count;
		if (count < WL_EXE_COMPONENTS)
			w->names[count] = BPF_CORE_READ(at, d_name.name);
		w->count = count + 1;
		w->at = BPF_CORE_READ(at, d_parent);
		return 1;
	}
	parent = BPF_CORE_READ(mount, mnt_parent);
	if (parent == mount)
		return 0;
	w->at = BPF_CORE_READ(mount, mnt_mountpoint);
	w->mount = parent;
	return 1;
}

/* The same as long as it stays in the file's mount, by pointers that the verifier knows: to ask a helper for each word
 * takes ten times as long. */
static __always_inline void wl_walk_mount(struct wl_walk *w, struct file *file)
{
	struct dentry *at = file->f_path.dentry, *root = file->f_path.mnt->mnt_root;

	w->mount = (void *)file->f_path.mnt - bpf_core_field_offset(struct mount, mnt);
	WL_KEEP_LOOP
	for (int i = 0; i < WL_EXE_COMPONENTS && at != root; i++) {
		w->names[i] = at->d_name.name;
		w->count = i + 1;
		at = at->d_parent;
	}
	w->at = at;
}

/* The path of the executable as its mount namespace shows it; empty when it
 * has more than WL_EXE_COMPONENTS parts or does not fit. Its length. */
WL_GLOBAL int wl_exe_path(struct wl_flow *flow)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task_btf();
	struct file *exe = task->mm->exe_file;
	struct wl_walk walk = {};
	__u32 at = 0;

	if (!flow || !exe)
		return 0;
	wl_walk_mount(&walk, exe);
	for (int i = 0; i < WL_EXE_STEPS; i++) {
		if (!wl_walk_up(&walk))
			break;
	}
	if (walk.count > WL_EXE_COMPONENTS)
		return 0;
#pragma clang loop unroll(full) /* see wl_query_chain() */
	for (int i = WL_EXE_COMPONENTS - 1; i >= 0; i--) {
		long n;

		if (i >= walk.count)
			continue;
		if (at > WL_EXE_LEN - WL_EXE_COMPONENT_LEN - 1)
			goto does_not_fit;
		flow->exe_path[at] = '/';
		n = bpf_probe_read_kernel_str(flow->exe_path + at + 1, WL_EXE_COMPONENT_LEN,
					      walk.names[i]);
		if (n <= 0 || n >= WL_EXE_COMPONENT_LEN)
			goto does_not_fit;
		at += n;
	}
	return at;
does_not_fit:
	/* A path cut short would name another file. */
	flow->exe_path[0] = 0;
	return 0;
}
