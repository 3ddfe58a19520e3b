/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Bytes shared with user space; the Rust twin is the crate `waylay-abi`, and a
 * test compares every offset with this object's BTF.
 *
 * Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d. Ports and
 * every other integer are in host order. No padding is implicit.
 */
#pragma once

#define WL_ABI_VERSION 2
#define SOL_WAYLAY 0x5759

#define WL_QUERY_RECORDS 220
#define WL_QUERY_CONTEXT 221
#define WL_SET_RECORDS 222
#define WL_QUERY_ORIGINAL_DST 230
#define WL_QUERY_CHAIN 231
#define WL_SELECT_FLOW 232
#define WL_OPEN_REPLY 233
#define WL_QUERY_DATAGRAM 234
#define WL_REPORT_ERROR 235

#define WL_MAX_SERVICES 64
#define WL_MAX_SUBLAYERS 16
#define WL_WORDS 4 /* places for filters' words */
#define WL_LINEAGE 12 /* cgroups that are known of a process, from the root down */
#define WL_MAX_HOPS 16
#define WL_MAX_LISTENERS 16 /* of one service in one family */
#define WL_MAX_BANK 64	    /* UDP sockets of one service for IPv6 */
#define WL_NAME_LEN 32
#define WL_COMM_LEN 16
#define WL_EXE_LEN 384
#define WL_NO_SLOT 0xffffffffu

struct wl_address {
	__u8 ip[16];
	__u16 port;
	__u16 family; /* of the socket: AF_INET6 with a mapped ip is "v4-mapped" */
	__u32 scope;  /* index of the link a link-local address is on; else 0 */
};

struct wl_process {
	__u64 start_time_ns; /* since boot */
	__u64 cgroup;
	__u64 exe_device; /* the kernel's encoding: major << 20 | minor; above it, on btrfs, the generation */
	__u64 exe_inode;
	__u32 pid;
	__u32 uid;
	char comm[WL_COMM_LEN];
};

struct wl_hop {
	__u32 service;
	__u32 filter;
};

struct wl_chain {
	__u64 excluded; /* slots of the services this connection may not visit again */
	__u32 hop_count;
	__u32 reserved;
	struct wl_hop hops[WL_MAX_HOPS];
};

/* What the application gave its socket, put back on every later leg. */
struct wl_socket_wishes {
	__u8 source[16]; /* all zero: none asked for */
	__u32 mark;
	__u32 bound_device;
	__u8 tos;
	__u8 tclass;
	__u8 reserved[6];
};

enum wl_flow_state {
	WL_FLOW_RESERVED = 0, /* rewritten, not accepted by the service's listener yet */
	WL_FLOW_LIVE = 1,
};

/* Both ends of a loopback connection, by which they know each other. */
struct wl_tuple {
	__u64 netns;
	__u8 client_ip[16];
	__u8 server_ip[16];
	__u32 client_port;
	__u32 server_port;
};

/* A redirected leg, from the connect that was rewritten to the end of the
 * service's inbound socket; also what SET leaves on an outbound socket. */
struct wl_flow {
	__u64 id;
	__u64 admitted_cgroup;
	__u32 state;
	__u32 slot; /* of the service it was redirected to; on an outbound socket: of the setter */
	__u32 listener; /* of that service: an index of struct wl_progress */
	__u32 taken;	/* the service has asked about it */
	__u64 seen; /* the last sweep that found a socket of its, or began after it; of one that has ended: when */
	__u64 errand; /* of a flow that is led to a resident: its places (errands.h); else 0 */
	__u64 first; /* the flow of the connection's first leg */
	__u64 began; /* in nanoseconds of the monotonic clock */
	struct wl_address destination;
	struct wl_address source; /* the application's own, as getsockname shows it; port 0: not known yet */
	struct wl_chain chain;
	struct wl_process application;
	struct wl_socket_wishes wishes;
	char exe_path[WL_EXE_LEN];
	__u64 lineage[WL_LINEAGE]; /* the application's cgroups, from the root; 0: no more */
	__u32 gid;		   /* of the application */
	__u32 reserved;
	struct wl_tuple ends; /* of a connection, as its service has them */
};

/* The two ends of a UDP flow towards its service: the token it arrives at, and
 * where it comes from. SELECT_FLOW takes it. */
struct wl_datagram_path {
	struct wl_address local;
	struct wl_address peer;
};

/* What OPEN_REPLY takes: who it is that answers instead of the destination. */
struct wl_reply {
	struct wl_datagram_path path;
	struct wl_address from;
};

/* What REPORT_ERROR takes: what became of a datagram at its destination. */
struct wl_error {
	struct wl_datagram_path path;
	__u32 error;
	__u32 info; /* the MTU, with EMSGSIZE */
};

enum wl_datagram_flag {
	WL_DATAGRAM_CONNECTED = 1 << 0,	 /* the application's socket is */
	WL_DATAGRAM_CLOSED = 1 << 1,	 /* that socket is gone, or goes elsewhere */
	WL_DATAGRAM_PEER_SEEN = 1 << 2, /* `peer` is where datagrams came from, and no guess */
};

/* What QUERY_DATAGRAM answers. */
struct wl_datagram {
	struct wl_address local;
	struct wl_address peer;
	__u32 flags; /* enum wl_datagram_flag */
	__u32 reserved;
};

/* A flow of datagrams: from one socket to one destination. */
struct wl_datagram_flow {
	struct wl_flow flow;
	struct wl_datagram ends;
	__u64 cookie; /* of the application's socket */
	__u64 last;   /* datagram, or what else shows that the flow is of use; nanoseconds since boot */
};

/* By what a datagram flow is found at its service. An IPv4 token is of one flow
 * only; the ports that stand for it with IPv6 are for every peer anew. */
struct wl_path {
	__u8 local_ip[16];
	__u8 peer_ip[16]; /* all zero with IPv4 */
	__u16 local_port;
	__u16 peer_port; /* 0 with IPv4 */
	__u32 reserved;
};

/* By what it is found at the application's socket. */
struct wl_destination {
	__u64 cookie;
	__u8 ip[16];
	__u32 scope;
	__u16 port;
	__u16 reserved;
};

/* Who has sent to a local port without having been asked; and who a service
 * speaks for to that port. */
struct wl_caller_from {
	__u8 ip[16];
	__u16 port;
	__u16 local_port;
	__u32 protocol;
};

/* Which service has been told that datagrams of whom were going where; all zero for
 * a peer: of anybody. With WL_NO_SLOT: from which place aside who is answered. */
struct wl_told {
	__u8 ip[16];
	__u8 peer_ip[16];
	__u16 port;
	__u16 peer_port;
	__u32 slot;
};

/* For the supervisor: an error that an application is to see. */
struct wl_unreachable {
	struct wl_datagram_path path;
	__u32 error;
	__u32 info;
};

/* What QUERY_RECORDS answers and SET_RECORDS takes. */
struct wl_handle {
	__u32 version;
	__u32 size;
	__u64 boot;
	__u64 instance;
	__u64 flow;
	__u64 tag[2];
};

struct wl_context {
	__u32 version;
	__u32 size;
	__u64 flow;
	__u32 service;
	__u32 filter;
	struct wl_address destination;
	struct wl_process application;
	struct wl_socket_wishes wishes;
	char exe_path[WL_EXE_LEN];
};

struct wl_named_hop {
	__u32 service;
	__u32 filter;
	char name[WL_NAME_LEN];
};

struct wl_named_chain {
	__u32 version;
	__u32 hop_count;
	struct wl_named_hop hops[WL_MAX_HOPS];
};

struct wl_key {
	__u64 boot;
	__u64 instance;
	__u64 k0;
	__u64 k1;
};

enum wl_unredirectable {
	WL_UNREDIRECTABLE_PERMIT = 0,
	WL_UNREDIRECTABLE_BLOCK = 1,
};

enum wl_foreign_namespace {
	WL_FOREIGN_PERMIT = 0,
	WL_FOREIGN_BLOCK = 1,
};

struct wl_config {
	__u64 netns; /* cookie of the namespace the services listen in */
	__u32 service_level; /* depth of the services' cgroups */
	__u32 scope_level; /* depth of the scope */
	__u64 max_flows;
	__u64 max_flows_per_cgroup;
	__u64 max_datagram_flows;
	__u64 max_datagram_flows_per_cgroup;
	__u64 datagram_idle_ns; /* a datagram flow ends after so long without a datagram */
};

enum wl_failure_policy {
	WL_ON_FAILURE_OPEN = 0,
	WL_ON_FAILURE_CLOSED = 1,
};

enum wl_service_flag {
	WL_SHOWS_DESTINATION = 1 << 0, /* at the name of its accepted sockets, as TPROXY does */
	WL_IS_RESIDENT = 1 << 1,       /* it runs by itself, in `resident_cgroup` or below */
	WL_RESIDENT_BY_EXE = 1 << 2,   /* and is told from others there by its executable */
	WL_RESIDENT_BY_UID = 1 << 3,   /* or its user */
	WL_IN_PACKETS = 1 << 4,	       /* it is shown in datagrams too (packets.h) */
};

struct wl_service {
	__u64 prefix_mask; /* slots up to and including this one in the solved order */
	__u64 cgroup;	   /* in which its sockets are made */
	__u32 id;
	__u32 on_failure;
	__u8 listen4[16];
	__u8 listen6[16];
	__u16 ports4[WL_MAX_LISTENERS];
	__u16 ports6[WL_MAX_LISTENERS];
	__u16 count4; /* 0: not listening in this family */
	__u16 count6;
	__u32 flags; /* enum wl_service_flag */
	__u16 udp4; /* port of its UDP socket for IPv4; 0: none */
	__u16 bank; /* how many of `udp6` count */
	__u32 resident_level; /* depth of `resident_cgroup` */
	__u64 resident_cgroup;
	__u64 resident_exe_device;
	__u64 resident_exe_inode;
	__u32 resident_uid;
	__u32 resident_shared_level; /* depth of the cgroup that is around it and the scope */
	__u16 udp6[WL_MAX_BANK];
	__u16 behind6; /* port of its UDP socket for IPv6, if what arrives at the bank is handed to it; else 0 */
	__u16 reserved[3];
	char name[WL_NAME_LEN];
};

/* How one listener of a service gets on. Connections that are neither taken nor
 * lost wait for the service. */
struct wl_progress {
	__u64 arrived;
	__u64 taken; /* asked about or closed by the service */
	__u64 lost;  /* ended by the client before that */
};

struct wl_route_key {
	__u32 length; /* bits of `ip` that count */
	__u8 ip[16];
};

/* How far the host gets towards a prefix. */
struct wl_route {
	__u8 source[16]; /* where connections start from; all zero: not known */
	__u32 error;	 /* of connect(); 0: there is a route */
	__u8 here;	 /* 1: to this host itself */
	__u8 group;	 /* 1: to many hosts, to which datagrams go */
	__u8 reserved[2];
};

enum wl_action {
	WL_CONTINUE = 0,
	WL_PERMIT = 1,
	WL_BLOCK = 2,
};

/* One policy, but for its filters, which are words of their own (lookup.h). */
struct wl_tables {
	__u32 service_count;
	__u32 filters; /* at which place their words are: 0 or 1 */
	__u8 foreign_namespace; /* enum wl_foreign_namespace */
	__u8 unredirectable;	/* enum wl_unredirectable */
	__u8 any_address;	/* 1: a service listens on every address of the host */
	__u8 residents;		/* 1: a service runs by itself */
	__u8 override_sandboxes;
	__u8 amendments;	/* at which place the words are that amend them: 2 or 3; 0: none do */
	__u8 asks_for_hosts;	/* 1: some filter asks for names of hosts */
	__u8 reserved;
	struct wl_service services[WL_MAX_SERVICES]; /* by slot */
};

struct wl_listener {
	__u64 netns;
	__u8 ip[16];
	__u16 port;
	__u8 protocol;
	__u8 reserved[5];
};

struct wl_listener_owner {
	__u64 instance;
	__u64 scope; /* the cgroup that the instance watches */
	__u32 scope_level;
	__u32 service;
};

/* An engine that has something in a cgroup. */
struct wl_holder {
	__u64 instance;
	__u32 pid;
	__u32 held; /* 0: the cgroup is its scope; 1: a service of its is in it; 2: one from outside of its scope */
};

/* Whose answers names are learned from. */
struct wl_resolver {
	__u8 ip[16];
	__u16 port;
	__u16 reserved;
};

/* Who has asked a resolver, and for an address of which names. */
struct wl_asker {
	__u64 exe_device;
	__u64 exe_inode;
	__u64 cgroup;
	__u32 uid;
	__u32 reserved;
};

struct wl_known {
	struct wl_asker by;
	__u8 ip[16];
};

/* What covers the names by which an address is known, and until when, in seconds
 * since boot. */
struct wl_names {
	__u64 keys[WL_LINEAGE];
	__u32 until[WL_LINEAGE];
};

/* On the socket of a redirected connect. */
struct wl_outgoing {
	__u64 flow;
	struct wl_address destination;
	__u8 source[16];    /* what getsockname shows; all zero: the socket's own */
	__u32 bound_device; /* taken off the socket, for its leg goes over loopback */
	__u32 reserved;
};

/* The same where it is kept without an allocation (seats.h). */
struct wl_leaving {
	__u64 key; /* of the socket; 0: a free place */
	struct wl_outgoing out;
};

/* Places for what is asked about by keys of the same kind. */
#define WL_SEATS 4

struct wl_seat {
	__u64 key;
	__u64 flow;
};

struct wl_seats {
	struct wl_seat of[WL_SEATS];
};

enum wl_refusal {
	WL_REFUSED_BLOCKED = 1,
	WL_REFUSED_SERVICE_ABSENT = 2,
	WL_REFUSED_BACKLOG_FULL = 3,
	WL_REFUSED_HOP_LIMIT = 4,
	WL_REFUSED_LISTENER_DIALLED = 5,
	WL_REFUSED_FOREIGN_NAMESPACE = 6,
	WL_REFUSED_NO_FLOWS = 7,
	WL_REFUSED_NO_FLOWS_OF_CGROUP = 8,
	WL_REFUSED_NO_SOCKET_STORAGE = 9,
	WL_REFUSED_NO_TABLES = 10,
	WL_REFUSED_NO_ROUTE = 11,
	WL_REFUSED_NO_PORTS = 12,
	WL_REFUSED_UNREDIRECTABLE = 13,
};

/* What is reported although nothing was refused. */
enum wl_passed {
	WL_PASSED_FOREIGN_NAMESPACE = 64,
	WL_PASSED_SANDBOX = 65,
};

struct wl_event {
	__u32 refusal;
	__u32 error;
	__u32 service;
	__u32 filter;
	struct wl_address destination;
	struct wl_process process;
	__u32 protocol;
	__u32 reserved;
};

/* A socket that was not made. User space tells the two events by their size. */
struct wl_socket_event {
	__u32 refusal;
	__u32 error;
	__u16 family;
	__u16 type;
	__u32 protocol;
	struct wl_process process;
};

/* Whose legs of another network namespace have been reported. */
struct wl_visitor {
	__u64 netns;
	__u64 start_time_ns; /* of the process, since boot */
};
