/*
 * Cases: what a program in C does with the control codes, and what it must get.
 * Each is a function that ends the program where a check fails; main.c runs the
 * one it is asked for, with a service's sockets if it needs them.
 */
#pragma once

#include <winsock2.h>
#include <ws2tcpip.h>
#include <mstcpip.h>
#include <mswsock.h>
#include <ws2spi.h>
#include <waylay_context.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUERY_RECORDS SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS
#define QUERY_CONTEXT SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT
#define SET_RECORDS SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS

/* Bytes of each answer. */
#define RECORDS 48
#define CONTEXT ((DWORD)sizeof(WAYLAY_REDIRECT_CONTEXT))

/* What a DWORD holds that nobody has written to. */
#define UNTOUCHED 0xA5A5A5A5u

#define CHECK(condition)                                                                     \
	do {                                                                                 \
		if (!(condition)) {                                                          \
			fprintf(stderr, "%s:%d: %s (last error %d)\n", __FILE__, __LINE__,   \
				#condition, WSAGetLastError());                              \
			exit(1);                                                             \
		}                                                                            \
	} while (0)

/* The call fails, with this code. */
#define FAILS(call, code)                                                                    \
	do {                                                                                 \
		WSASetLastError(0);                                                          \
		int failed_ = (call) == SOCKET_ERROR, error_ = WSAGetLastError();            \
		if (!failed_ || error_ != (int)(code)) {                                     \
			fprintf(stderr, "%s:%d: %s: %s %d instead of " #code "\n", __FILE__, \
				__LINE__, #call, failed_ ? "error" : "success,", error_);    \
			exit(1);                                                             \
		}                                                                            \
	} while (0)

typedef void (*case_fn)(void);

struct case_ {
	const char *name;
	case_fn run;
	/* Inside a service's cgroup, with a redirected connection accepted. */
	bool in_service;
};

extern const struct case_ query_cases[], set_cases[], overlapped_cases[], other_cases[];

/* The redirected connection, and one that somebody made straight to the listener. */
extern SOCKET accepted, direct, listener;
/* Made before this process entered the service's cgroup. */
extern SOCKET outside;
/* The file by which a process enters another service. */
extern const char *other_service;

/* Tells the test to do something, and waits until it is done. */
void ask(const char *what);
void enter(const char *procs);

SOCKET stream(void);
SOCKET overlapped_stream(void);
/* Connecting, for as long as the listener behind it accepts nothing. */
struct slow {
	SOCKET socket, listener;
	SOCKET filler[8];
	bool let_through;
};
struct slow connecting(SOCKET socket, bool blocking);
/* Lets the connection be established. */
void let_through(struct slow *slow);
void give_up(struct slow *slow);

int query(SOCKET s, DWORD code, void *out, DWORD len, DWORD *returned);
int set(SOCKET s, const void *records, DWORD len);
void get_records(char records[RECORDS]);

/* Pages that may not be written to, not be read, and that are not there. */
void *read_only(void), *forbidden(void), *nowhere(void);
/* So many bytes before the end of what may be written. */
void *at_the_end(size_t bytes);
