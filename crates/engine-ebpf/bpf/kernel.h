/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The few kernel types the programs read, with the few fields they read.
 * CO-RE relocates every access to the running kernel's layout, so neither a
 * full vmlinux.h nor the build machine's BTF is needed.
 */
#pragma once

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_core_read.h>

#define AF_INET 2
#define AF_INET6 10
#define SOCK_PROTO_TCP 6
#define SOCK_PROTO_UDP 17
#define TCP_CLOSE 7
#define TCP_LISTEN 10
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define SOL_IP 0
#define SOL_SOCKET 1
#define SOL_IPV6 41
#define SO_MARK 36
#define SO_BINDTOIFINDEX 62
#define IP_TRANSPARENT 19
#define IPV6_TRANSPARENT 75
#define SO_ORIGINAL_DST 80
#define IP6T_SO_ORIGINAL_DST 80

#define ENOENT 2
#define EAGAIN 11
#define EACCES 13
#define EINVAL 22
#define EOPNOTSUPP 95
#define EADDRINUSE 98
#define ENOBUFS 105
#define EISCONN 106
#define ECONNREFUSED 111
#define ESTALE 116
#define EKEYEXPIRED 127
#define EKEYREJECTED 129

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct qstr {
	__u32 len;
	const unsigned char *name;
};

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
};

struct vfsmount {
	struct dentry *mnt_root;
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct super_block {
	__u32 s_dev;
	unsigned long s_magic;
};

struct inode {
	struct super_block *i_sb;
	unsigned long i_ino;
	__u32 i_generation;
};

struct file {
	struct path f_path;
	struct inode *f_inode;
};

struct mm_struct {
	struct file *exe_file;
};

struct task_struct {
	struct mm_struct *mm;
	struct task_struct *group_leader;
	__u64 start_boottime;
	char comm[16];
};

struct kernfs_node {
	__u64 id;
};

struct bpf_prog_array;

struct cgroup_bpf {
	struct bpf_prog_array *effective[2]; /* and more: by enum cgroup_bpf_attach_type */
};

struct cgroup {
	struct kernfs_node *kn;
	int level;
	struct cgroup_bpf bpf;
	struct cgroup *ancestors[]; /* from the root to itself */
};

struct sock_cgroup_data {
	struct cgroup *cgroup;
};

typedef struct {
	__s64 counter;
} atomic64_t;

struct sock_common {
	volatile unsigned char skc_state;
	atomic64_t skc_cookie;
	unsigned char skc_ipv6only : 1;
};

struct sock {
	struct sock_common __sk_common;
	struct sock_cgroup_data sk_cgrp_data;
	__u8 sk_kern_sock : 1;
	__u8 sk_userlocks : 4;
	__u32 sk_ack_backlog;
	__u32 sk_max_ack_backlog;
};

struct ipv6_pinfo {
	__u8 tclass;
};

struct inet_sock {
	struct sock sk;
	struct ipv6_pinfo *pinet6;
	__u8 tos;
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
};

struct sockaddr_in6 {
	__u32 sin6_scope_id;
};

struct bpf_sock_addr_kern {
	struct sockaddr_in6 *uaddr;
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__bpf_map_elem {
	struct bpf_iter_meta *meta;
	void *key;
	void *value;
};

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
};

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct sock *sk;
	void *value;
};

#pragma clang attribute pop

/* Linux 6.2. */
extern void *bpf_cast_to_kern_ctx(void *ctx) __weak __ksym;

/* The C library's socket addresses, as SO_ORIGINAL_DST answers them. */
struct wl_sockaddr_in {
	__u16 family;
	__be16 port;
	__be32 ip;
	__u8 zero[8];
};

struct wl_sockaddr_in6 {
	__u16 family;
	__be16 port;
	__be32 flowinfo;
	__u8 ip[16];
	__u32 scope;
};
