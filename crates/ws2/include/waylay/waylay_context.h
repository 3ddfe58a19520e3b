/*
 * What SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT answers on Linux. On Windows the
 * context is whatever the redirecting driver attached; here waylay redirects, and
 * says who connects and where to.
 *
 * IP addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d; ports and
 * all other numbers are in host order. Text ends with a zero byte.
 *
 * The Rust twin is `Context` of the crate waylay-abi; a test compares every offset.
 */
#ifndef WAYLAY_CONTEXT_H
#define WAYLAY_CONTEXT_H

#include "waylay_types.h"

#define WAYLAY_CONTEXT_VERSION 2
#define WAYLAY_COMMAND_LENGTH 16
#define WAYLAY_EXE_LENGTH 384

typedef struct WAYLAY_ADDRESS {
	BYTE Ip[16];
	USHORT Port;
	USHORT Family; /* of the socket: AF_INET6 with a mapped address is a v4-mapped connect */
	ULONG Scope;   /* index of the link that a link-local address is on; else 0 */
} WAYLAY_ADDRESS;

typedef struct WAYLAY_PROCESS {
	ULONG64 StartTime; /* nanoseconds since boot; with the id it names a process for good */
	ULONG64 Cgroup;	   /* id in the unified hierarchy */
	ULONG64 ExeDevice; /* major << 20 | minor */
	ULONG64 ExeInode;
	ULONG ProcessId; /* in the initial pid namespace */
	ULONG UserId;	 /* effective */
	CHAR Command[WAYLAY_COMMAND_LENGTH];
} WAYLAY_PROCESS;

/* What the application gave its socket; zero where it gave nothing. */
typedef struct WAYLAY_SOCKET_WISHES {
	BYTE Source[16];
	ULONG Mark;
	ULONG BoundDevice; /* index */
	BYTE Tos;
	BYTE TrafficClass;
	BYTE Reserved[6];
} WAYLAY_SOCKET_WISHES;

typedef struct WAYLAY_REDIRECT_CONTEXT {
	ULONG Version; /* WAYLAY_CONTEXT_VERSION; check it before anything else */
	ULONG Size;    /* bytes of the whole structure */
	ULONG64 Flow;
	ULONG Service; /* ids of who redirected, and by which filter */
	ULONG Filter;
	WAYLAY_ADDRESS Destination;
	WAYLAY_PROCESS Application;
	WAYLAY_SOCKET_WISHES Wishes;
	CHAR ExePath[WAYLAY_EXE_LENGTH]; /* empty if the kernel could not tell it */
} WAYLAY_REDIRECT_CONTEXT;

WAYLAY_ASSERT(sizeof(WAYLAY_REDIRECT_CONTEXT) == 520, "no padding is implicit");

#endif
