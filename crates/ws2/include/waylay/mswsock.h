/*
 * Ancillary data, and the functions that Windows gives out by
 * SIO_GET_EXTENSION_FUNCTION_POINTER only. Here WSARecvMsg can be called by its
 * name as well.
 *
 * https://learn.microsoft.com/windows/win32/api/mswsock/
 */
#ifndef WAYLAY_MSWSOCK_H
#define WAYLAY_MSWSOCK_H

#include "winsock2.h"

#ifdef __cplusplus
extern "C" {
#endif

/* https://learn.microsoft.com/windows/win32/api/ws2def/ns-ws2def-cmsghdr */
typedef struct _WSACMSGHDR {
	SIZE_T cmsg_len;
	INT cmsg_level;
	INT cmsg_type;
} WSACMSGHDR, *PWSACMSGHDR, *LPWSACMSGHDR;

#define WSA_CMSGHDR_ALIGN(length)                                                                            \
	(((length) + __alignof__(WSACMSGHDR) - 1) & ~(SIZE_T)(__alignof__(WSACMSGHDR) - 1))
#define WSA_CMSGDATA_ALIGN(length) (((length) + sizeof(ULONG_PTR) - 1) & ~(SIZE_T)(sizeof(ULONG_PTR) - 1))
#define WSA_CMSG_FIRSTHDR(msg)                                                                               \
	((msg)->Control.len >= sizeof(WSACMSGHDR) ? (LPWSACMSGHDR)(void *)(msg)->Control.buf : (LPWSACMSGHDR)NULL)
#define WSA_CMSG_NXTHDR(msg, cmsg)                                                                           \
	(!(cmsg) ? WSA_CMSG_FIRSTHDR(msg) :                                                                  \
	 ((u_char *)(cmsg) + WSA_CMSGHDR_ALIGN((cmsg)->cmsg_len) + sizeof(WSACMSGHDR) >                      \
	  (u_char *)(msg)->Control.buf + (msg)->Control.len) ?                                               \
		   (LPWSACMSGHDR)NULL :                                                                      \
		   (LPWSACMSGHDR)(void *)((u_char *)(cmsg) + WSA_CMSGHDR_ALIGN((cmsg)->cmsg_len)))
#define WSA_CMSG_DATA(cmsg) ((u_char *)(cmsg) + WSA_CMSGDATA_ALIGN(sizeof(WSACMSGHDR)))
#define WSA_CMSG_SPACE(length) WSA_CMSGDATA_ALIGN(sizeof(WSACMSGHDR) + WSA_CMSGHDR_ALIGN(length))
#define WSA_CMSG_LEN(length) (WSA_CMSGDATA_ALIGN(sizeof(WSACMSGHDR)) + (length))

/* https://learn.microsoft.com/windows/win32/api/mswsock/nc-mswsock-lpfn_wsarecvmsg */
typedef INT(WSAAPI *LPFN_WSARECVMSG)(SOCKET s, LPWSAMSG lpMsg, LPDWORD lpdwNumberOfBytesRecvd,
				     LPWSAOVERLAPPED lpOverlapped,
				     LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine);
#define WSAID_WSARECVMSG                                                                                     \
	{                                                                                                    \
		0xf689d7c8, 0x6f1f, 0x436b, { 0x8a, 0x53, 0xe5, 0x4f, 0xe3, 0x51, 0xc3, 0x22 }               \
	}

/* https://learn.microsoft.com/windows/win32/api/mswsock/nc-mswsock-lpfn_wsasendmsg */
typedef INT(WSAAPI *LPFN_WSASENDMSG)(SOCKET s, LPWSAMSG lpMsg, DWORD dwFlags, LPDWORD lpNumberOfBytesSent,
				     LPWSAOVERLAPPED lpOverlapped,
				     LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine);
#define WSAID_WSASENDMSG                                                                                     \
	{                                                                                                    \
		0xa441e712, 0x754f, 0x43ca, { 0x84, 0xa7, 0x0d, 0xee, 0x44, 0xcf, 0x60, 0x6d }               \
	}

/*
 * Not of Windows: after how many milliseconds without a datagram a flow of the
 * socket is announced again, with records and context; a DWORD, 60,000 at first.
 */
#define SIO_WAYLAY_FLOW_IDLE _WSAIOW(IOC_VENDOR, 0x5759)

INT WSAAPI WSARecvMsg(SOCKET s, LPWSAMSG lpMsg, LPDWORD lpdwNumberOfBytesRecvd, LPWSAOVERLAPPED lpOverlapped,
		      LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine);

#ifdef __cplusplus
}
#endif

#endif
