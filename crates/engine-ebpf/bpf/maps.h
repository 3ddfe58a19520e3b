/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* Everything the programs remember, and who writes it. */
#pragma once

#define WL_MAX_FLOWS 32768
#define WL_CELL_HINTS 64 /* processors, others share */
#define WL_CACHE_LINE 8	  /* words */
#define WL_CELL_WORDS (WL_MAX_FLOWS / 64)
#define WL_MAX_CGROUPS 4096 /* the loader may set another number */
#define WL_MAX_REGISTERED 65536
#define WL_MAX_DATAGRAM_FLOWS 131072
#define WL_MAX_CALLERS 65536
#define WL_MAX_SELECTIONS 16384
#define WL_MAX_PROGRESS (WL_MAX_SERVICES * 2 * WL_MAX_LISTENERS)
#define WL_MAX_ROUTES 16384
#define WL_MAX_VISITORS 4096
#define WL_MAX_QUERIES 1024
#define WL_ERRANDS 65536
#define WL_MAX_RESOLVERS 256
#define WL_MAX_NAMES 16384
#define WL_MAX_MESSAGES 64
#define WL_SOCKET_ROWS 32768
#define WL_TUPLE_ROWS 512
#define WL_LEAVING 65536

struct wl_cells {
	__u64 taken[WL_CELL_WORDS];
};

/* User space writes these. */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wl_config);
} config SEC(".maps");

/* Frozen once written: from then on nobody can change the key. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wl_key);
} handle_key SEC(".maps");

/* By sizes and not by types, as the map that user space puts there is: for Linux
 * 6.1 a map with type information and one without are two kinds. */
struct wl_tables_slot {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct wl_tables));
};

/* A reload replaces the inner map: a leg sees the old policy or the new one. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct wl_tables_slot);
} tables SEC(".maps");

/* The words of its filters, a chunk an entry; as many as a policy has. */
struct wl_filters_slot {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, WL_CHUNK * sizeof(__u64));
};

/* Two places, of which the tables name one: new words are written where nobody
 * looks, and then the tables are replaced. Each replacement waits for the programs
 * that are running, so no program sees the words of another policy. And two more
 * for words that amend those: what these name is written anew in place. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, WL_WORDS);
	__type(key, __u32);
	__array(values, struct wl_filters_slot);
} filters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, WL_MAX_SERVICES);
	__type(key, __u32);
	__type(value, __u32);
} service_alive SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, WL_MAX_SERVICES);
	__type(key, __u64);
	__type(value, __u32);
} slot_of_cgroup SEC(".maps");

/* Cgroups of services that are told that they have IP_TRANSPARENT. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * WL_MAX_SERVICES); /* some may be leaving while others come */
	__type(key, __u64);
	__type(value, __u8);
} told_transparent SEC(".maps");

/* Shared by all instances of the host through its pin. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, WL_MAX_REGISTERED);
	__type(key, struct wl_listener);
	__type(value, struct wl_listener_owner);
} listeners SEC(".maps");

/* Shared likewise: who has what in which cgroup. Programs do not look at it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, WL_MAX_REGISTERED);
	__type(key, __u64);
	__type(value, struct wl_holder);
} holders SEC(".maps");

struct wl_routes_slot {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, WL_MAX_ROUTES);
	__uint(key_size, sizeof(struct wl_route_key));
	__uint(value_size, sizeof(struct wl_route));
};

/* The host's routes as its user space last saw them; replaced as a whole. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct wl_routes_slot);
} routes SEC(".maps");

/* 1: an address of the loopback where nobody listens leads nowhere. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} plain_loopback SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, WL_MAX_RESOLVERS);
	__type(key, struct wl_resolver);
	__type(value, __u8);
} resolvers SEC(".maps");

/* The programs write these. */

/* Who asks for names. */
/* On UDP sockets that were made while names are asked for. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct wl_asker);
} askers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, WL_MAX_NAMES);
	__type(key, struct wl_known);
	__type(value, struct wl_names);
} known_names SEC(".maps");

/* Answers that are being read: claimed, as searches are. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, WL_MAX_MESSAGES);
	__type(key, __u32);
	__type(value, struct wl_message);
} messages SEC(".maps");

/* How many flows to destinations of this place are under way to residents, and
 * until when it matters that there have been some. */
struct wl_errand {
	__u64 flows;
	__u64 until; /* nanoseconds since boot */
};

/* Two halves, one for each place of a destination. User space makes it small
 * where no resident can come. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * WL_ERRANDS);
	__type(key, __u32);
	__type(value, struct wl_errand);
} errands SEC(".maps");

/* What a resident has to do for those who lead it connections. */
struct wl_duties {
	__u64 flows; /* that are under way to it */
	__s64 owed;  /* of them, those for which it has not dialled anybody yet */
};

/* By slot. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, WL_MAX_SERVICES);
	__type(key, __u32);
	__type(value, struct wl_duties);
} duties SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, WL_MAX_PROGRESS);
	__type(key, __u32);
	__type(value, struct wl_progress);
} progress SEC(".maps");

/* By cell, whose number is the lowest bits of a flow's id; whose id is 0 is none. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, WL_MAX_FLOWS);
	__type(key, __u32);
	__type(value, struct wl_flow);
} flows SEC(".maps");

/* Which of those cells are taken, a bit each. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wl_cells);
} cells SEC(".maps");

/* From the SYN to the accepted socket, which flow comes from a tuple; and after it,
 * which an accepted socket carries. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, (WL_SOCKET_ROWS + WL_TUPLE_ROWS));
	__type(key, __u32);
	__type(value, struct wl_seats);
} seats SEC(".maps");

/* On which way redirected sockets are. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, WL_LEAVING);
	__type(key, __u32);
	__type(value, struct wl_leaving);
} leaving SEC(".maps");

/* Tuples that have found no seat. Preallocated, so that there is room for them. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, WL_MAX_FLOWS);
	__type(key, struct wl_tuple);
	__type(value, __u64);
} tuples SEC(".maps");

/* Datagram flows, four times as many as connections can be: not preallocated,
 * which would take 100 MB. They are counted in all the same. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, WL_MAX_DATAGRAM_FLOWS);
	__type(key, __u64);
	__type(value, struct wl_datagram_flow);
} datagram_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, WL_MAX_DATAGRAM_FLOWS);
	__type(key, struct wl_path);
	__type(value, __u64);
} paths SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, WL_MAX_DATAGRAM_FLOWS);
	__type(key, struct wl_destination);
	__type(value, __u64);
} destinations SEC(".maps");

/* Datagram flows in the order in which they began, for whoever has to make room. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, WL_MAX_DATAGRAM_FLOWS);
	__type(key, __u32);
	__type(value, __u64);
} datagram_ages SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, WL_MAX_CGROUPS);
	__type(key, __u64);
	__type(value, __u64);
} admitted_datagrams SEC(".maps");

/* To answer these is no connection of the application's. Where the answer goes:
 * to the service, if one has spoken for them. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, WL_MAX_CALLERS);
	__type(key, struct wl_caller_from);
	__type(value, struct wl_address);
} callers SEC(".maps");

/* By socket and destination: the token for which an adopted service took that. It
 * is told of answers as if they came from there. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, WL_MAX_CALLERS);
	__type(key, struct wl_destination);
	__type(value, struct wl_address);
} asked_by_token SEC(".maps");

/* A socket that is bound aside (answers.h). */
struct wl_answering {
	struct wl_address as; /* in whose name it answers: a token's, or a destination's */
	__u32 aside;
	__u32 was_told; /* 1: a destination's, which packets.h has told the service */
	struct wl_told connected; /* what is noted of it; all zero unless it is connected */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct wl_answering);
} answering SEC(".maps");

/* The token of the flow. */
struct wl_told_slot {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1); /* user space makes one with room when it needs it */
	__uint(key_size, sizeof(struct wl_told));
	__uint(value_size, sizeof(__u32));
};

/* Empty unless a service is told. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct wl_told_slot);
} tokens_told SEC(".maps");

/* For servers in the scope: which application a service's own address stands for. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, WL_MAX_CALLERS);
	__type(key, struct wl_caller_from);
	__type(value, struct wl_address);
} spoken_for SEC(".maps");

/* On what such a server has accepted: the application. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct wl_address);
} peers SEC(".maps");

/* By thread: what it has selected. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, WL_MAX_SELECTIONS);
	__type(key, __u64);
	__type(value, __u64); /* the flow */
} selections SEC(".maps");

/* Sockets that another instance has led to its services: what arrives at them
 * has been through its programs, and says nothing of who has called. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u8);
} led_elsewhere SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wl_datagram_flow);
} empty_datagram_flow SEC(".maps");

/* Errors of destinations, for the supervisor to hand on. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} unreachable SEC(".maps");

/* The slots of chains that were copied since user space cleared it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} copied SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, WL_MAX_CGROUPS);
	__type(key, __u64);
	__type(value, __u64);
} admitted SEC(".maps");

/* On a redirected socket that is not in `leaving`. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct wl_outgoing);
} outgoing SEC(".maps");

/* On a service's accepted socket without a seat: the flow it carries. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} inbound SEC(".maps");

/* On a service's outbound socket: the records that were set on it. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct wl_flow);
} carried SEC(".maps");

/* Searches under way. A program may be interrupted by another of its processor,
 * so each search is claimed, and they are more than processors. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, WL_MAX_QUERIES);
	__type(key, __u32);
	__type(value, struct wl_query);
} queries SEC(".maps");

/* A new flow starts as a copy of it; it does not fit on a program's stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wl_flow);
} empty_flow SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");

/* Flows that have ended, for whoever remembers them; user space makes it larger
 * if it does, and looks now and then: it is not woken for each. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} past SEC(".maps");

/* Who has been reported as dialling from another network namespace. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, WL_MAX_VISITORS);
	__type(key, struct wl_visitor);
	__type(value, __u8);
} visitors SEC(".maps");

/* Cgroups in sandboxes of which it has been reported. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, WL_MAX_CGROUPS);
	__type(key, __u64);
	__type(value, __u8);
} sandboxes_told SEC(".maps");

/* Reports that found no room in `events`. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} lost_events SEC(".maps");

/* Datagram flows that were dropped to make room for others. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} dropped_flows SEC(".maps");

__u64 last_flow;
__u64 last_cell[WL_CELL_HINTS * WL_CACHE_LINE]; /* of each processor, so that it meets what is still in its cache */
__u64 tuples_used; /* whether there is or was anything in `tuples` */
__u64 sweep; /* the number of the next */
__u64 live_flows;
__u64 live_datagram_flows;
__u64 last_token;
__u64 tokens_asked; /* whether there is anything in `asked_by_token` */
__u64 standing_aside; /* whether there is anything in `answering` */
__u64 last_aside;
__u64 connects_answers[WL_MAX_SERVICES]; /* cgroups of services that connect what they answer from */
__u64 first_age; /* where to look next for a datagram flow to drop */
__u64 next_age;

/* Only here so that the types no map holds are in the object's type
 * information, where a test compares them with user space's. */
const struct {
	struct wl_handle handle;
	struct wl_context context;
	struct wl_named_chain chain;
	struct wl_event event;
	struct wl_socket_event socket_event;
	struct wl_route_key route_key;
	struct wl_route route;
	struct wl_reply reply;
	struct wl_error error;
	struct wl_unreachable unreachable;
} wl_answers = {};
