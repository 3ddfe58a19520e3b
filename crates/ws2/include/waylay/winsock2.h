/*
 * Winsock's shape on Linux: the declarations a Windows redirect service is
 * written against, carried out by libwaylay_ws2. `pkg-config --cflags
 * waylay-ws2` puts this directory where #include <winsock2.h> looks.
 *
 * A SOCKET is a file descriptor. socket(), bind(), accept(), send(), select(),
 * getaddrinfo() and all else that is not declared here is the C library's, which
 * the system headers below bring in. select() therefore heeds its first argument.
 *
 * https://learn.microsoft.com/windows/win32/api/winsock2/
 */
#ifndef WAYLAY_WINSOCK2_H
#define WAYLAY_WINSOCK2_H

/* First, because it says so if this is not Linux. */
#include "waylay_types.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "waylay_errors.h"

#ifdef __cplusplus
extern "C" {
#endif

#define WINSOCK_VERSION MAKEWORD(2, 2)

/* https://learn.microsoft.com/windows/win32/winsock/socket-data-type-2 */
typedef int SOCKET;
typedef UINT GROUP;
#define INVALID_SOCKET ((SOCKET)-1)
#define SOCKET_ERROR (-1)

#define SD_RECEIVE SHUT_RD
#define SD_SEND SHUT_WR
#define SD_BOTH SHUT_RDWR

typedef struct sockaddr SOCKADDR;
typedef struct sockaddr *PSOCKADDR;
typedef struct sockaddr *LPSOCKADDR;
typedef struct sockaddr_in SOCKADDR_IN;
typedef struct sockaddr_in *PSOCKADDR_IN;
typedef struct sockaddr_in *LPSOCKADDR_IN;
typedef struct sockaddr_storage SOCKADDR_STORAGE;
typedef struct sockaddr_storage *PSOCKADDR_STORAGE;
typedef struct sockaddr_storage *LPSOCKADDR_STORAGE;
typedef struct in_addr IN_ADDR;
typedef struct in_addr *PIN_ADDR;
typedef struct in_addr *LPIN_ADDR;
typedef struct linger LINGER;
typedef struct linger *PLINGER;
typedef struct linger *LPLINGER;
typedef struct timeval TIMEVAL;
typedef struct timeval *PTIMEVAL;
typedef struct timeval *LPTIMEVAL;
typedef struct hostent HOSTENT;
typedef struct hostent *PHOSTENT;
typedef struct hostent *LPHOSTENT;
typedef fd_set *PFD_SET;
typedef fd_set *LPFD_SET;

/* https://learn.microsoft.com/windows/win32/api/winsock/ns-winsock-wsadata */
#define WSADESCRIPTION_LEN 256
#define WSASYS_STATUS_LEN 128
typedef struct WSAData {
	WORD wVersion;
	WORD wHighVersion;
	USHORT iMaxSockets;
	USHORT iMaxUdpDg;
	CHAR *lpVendorInfo;
	CHAR szDescription[WSADESCRIPTION_LEN + 1];
	CHAR szSystemStatus[WSASYS_STATUS_LEN + 1];
} WSADATA, *LPWSADATA;

/* https://learn.microsoft.com/windows/win32/api/ws2def/ns-ws2def-wsabuf */
typedef struct _WSABUF {
	ULONG len;
	CHAR *buf;
} WSABUF, *LPWSABUF;

/* https://learn.microsoft.com/windows/win32/api/ws2def/ns-ws2def-wsamsg */
typedef struct _WSAMSG {
	LPSOCKADDR name;
	INT namelen;
	LPWSABUF lpBuffers;
	ULONG dwBufferCount;
	WSABUF Control;
	ULONG dwFlags;
} WSAMSG, *PWSAMSG, *LPWSAMSG;

/* https://learn.microsoft.com/windows/win32/api/winsock2/ns-winsock2-wsaprotocol_infow */
#define MAX_PROTOCOL_CHAIN 7
#define WSAPROTOCOL_LEN 255
typedef struct _WSAPROTOCOLCHAIN {
	INT ChainLen;
	DWORD ChainEntries[MAX_PROTOCOL_CHAIN];
} WSAPROTOCOLCHAIN, *LPWSAPROTOCOLCHAIN;

#define WAYLAY_PROTOCOL_INFO(character)                                                                      \
	DWORD dwServiceFlags1;                                                                               \
	DWORD dwServiceFlags2;                                                                               \
	DWORD dwServiceFlags3;                                                                               \
	DWORD dwServiceFlags4;                                                                               \
	DWORD dwProviderFlags;                                                                               \
	GUID ProviderId;                                                                                     \
	DWORD dwCatalogEntryId;                                                                              \
	WSAPROTOCOLCHAIN ProtocolChain;                                                                      \
	INT iVersion;                                                                                        \
	INT iAddressFamily;                                                                                  \
	INT iMaxSockAddr;                                                                                    \
	INT iMinSockAddr;                                                                                    \
	INT iSocketType;                                                                                     \
	INT iProtocol;                                                                                       \
	INT iProtocolMaxOffset;                                                                              \
	INT iNetworkByteOrder;                                                                               \
	INT iSecurityScheme;                                                                                 \
	DWORD dwMessageSize;                                                                                 \
	DWORD dwProviderReserved;                                                                            \
	character szProtocol[WSAPROTOCOL_LEN + 1]

typedef struct _WSAPROTOCOL_INFOA {
	WAYLAY_PROTOCOL_INFO(CHAR);
} WSAPROTOCOL_INFOA, *LPWSAPROTOCOL_INFOA;

typedef struct _WSAPROTOCOL_INFOW {
	WAYLAY_PROTOCOL_INFO(WCHAR);
} WSAPROTOCOL_INFOW, *LPWSAPROTOCOL_INFOW;

/* Control codes: https://learn.microsoft.com/windows/win32/api/winsock2/nf-winsock2-wsaioctl */
/* Linux has the same names in <sys/ioctl.h>, and the other way round. */
#undef IOC_IN
#undef IOC_OUT
#undef IOC_INOUT
#define IOC_VOID 0x20000000u
#define IOC_OUT 0x40000000u
#define IOC_IN 0x80000000u
#define IOC_INOUT (IOC_IN | IOC_OUT)
#define IOC_UNIX 0x00000000u
#define IOC_WS2 0x08000000u
#define IOC_PROTOCOL 0x10000000u
#define IOC_VENDOR 0x18000000u

#define _WSAIO(family, code) (IOC_VOID | (family) | (code))
#define _WSAIOR(family, code) (IOC_OUT | (family) | (code))
#define _WSAIOW(family, code) (IOC_IN | (family) | (code))
#define _WSAIORW(family, code) (IOC_INOUT | (family) | (code))

#define SIO_FLUSH _WSAIO(IOC_WS2, 4)
#define SIO_GET_EXTENSION_FUNCTION_POINTER _WSAIORW(IOC_WS2, 6)

WAYLAY_ASSERT(SIO_FLUSH == 0x28000004u, "as on Windows");
WAYLAY_ASSERT(SIO_GET_EXTENSION_FUNCTION_POINTER == 0xc8000006u, "as on Windows");

/* https://learn.microsoft.com/windows/win32/api/winsock2/nf-winsock2-wsasocketw */
#define WSA_FLAG_OVERLAPPED 0x01
#define WSA_FLAG_MULTIPOINT_C_ROOT 0x02
#define WSA_FLAG_MULTIPOINT_C_LEAF 0x04
#define WSA_FLAG_MULTIPOINT_D_ROOT 0x08
#define WSA_FLAG_MULTIPOINT_D_LEAF 0x10
#define WSA_FLAG_ACCESS_SYSTEM_SECURITY 0x40
#define WSA_FLAG_NO_HANDLE_INHERIT 0x80
#define WSA_FLAG_REGISTERED_IO 0x100

/* https://learn.microsoft.com/windows/win32/api/winsock2/ns-winsock2-wsaoverlapped */
typedef struct _OVERLAPPED {
	ULONG_PTR Internal;
	ULONG_PTR InternalHigh;
	__extension__ union {
		__extension__ struct {
			DWORD Offset;
			DWORD OffsetHigh;
		};
		PVOID Pointer;
	};
	HANDLE hEvent;
} OVERLAPPED, *LPOVERLAPPED;
typedef OVERLAPPED WSAOVERLAPPED;
typedef OVERLAPPED *LPWSAOVERLAPPED;

#define HasOverlappedIoCompleted(overlapped) ((DWORD)(overlapped)->Internal != STATUS_PENDING)

/* Runs in the thread that began the operation, in one of its alertable waits. */
typedef void(CALLBACK *LPWSAOVERLAPPED_COMPLETION_ROUTINE)(DWORD dwError, DWORD cbTransferred,
							    LPWSAOVERLAPPED lpOverlapped, DWORD dwFlags);

typedef HANDLE WSAEVENT;
typedef HANDLE *LPWSAEVENT;
#define WSA_INVALID_EVENT ((WSAEVENT)NULL)
#define WSA_MAXIMUM_WAIT_EVENTS MAXIMUM_WAIT_OBJECTS
#define WSA_WAIT_EVENT_0 WAIT_OBJECT_0
#define WSA_WAIT_IO_COMPLETION WAIT_IO_COMPLETION
#define WSA_WAIT_TIMEOUT WAIT_TIMEOUT
#define WSA_WAIT_FAILED WAIT_FAILED
#define WSA_INFINITE INFINITE

/* https://learn.microsoft.com/windows/win32/winsock/winsock-functions has a page for each. */
int WSAAPI WSAStartup(WORD wVersionRequested, LPWSADATA lpWSAData);
int WSAAPI WSACleanup(void);
int WSAAPI WSAGetLastError(void);
void WSAAPI WSASetLastError(int iError);

SOCKET WSAAPI WSASocketA(int af, int type, int protocol, LPWSAPROTOCOL_INFOA lpProtocolInfo, GROUP g,
			 DWORD dwFlags);
SOCKET WSAAPI WSASocketW(int af, int type, int protocol, LPWSAPROTOCOL_INFOW lpProtocolInfo, GROUP g,
			 DWORD dwFlags);
int WSAAPI closesocket(SOCKET s);
/* FIONBIO and FIONREAD, by their numbers in <sys/ioctl.h>. */
int WSAAPI ioctlsocket(SOCKET s, long cmd, u_long *argp);

int WSAAPI WSAIoctl(SOCKET s, DWORD dwIoControlCode, LPVOID lpvInBuffer, DWORD cbInBuffer, LPVOID lpvOutBuffer,
		    DWORD cbOutBuffer, LPDWORD lpcbBytesReturned, LPWSAOVERLAPPED lpOverlapped,
		    LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine);
BOOL WSAAPI WSAGetOverlappedResult(SOCKET s, LPWSAOVERLAPPED lpOverlapped, LPDWORD lpcbTransfer, BOOL fWait,
				   LPDWORD lpdwFlags);

WSAEVENT WSAAPI WSACreateEvent(void);
BOOL WSAAPI WSACloseEvent(WSAEVENT hEvent);
BOOL WSAAPI WSASetEvent(WSAEVENT hEvent);
BOOL WSAAPI WSAResetEvent(WSAEVENT hEvent);
DWORD WSAAPI WSAWaitForMultipleEvents(DWORD cEvents, const WSAEVENT *lphEvents, BOOL fWaitAll, DWORD dwTimeout,
				      BOOL fAlertable);
DWORD WINAPI SleepEx(DWORD dwMilliseconds, BOOL bAlertable);

int WSAAPI WSASendMsg(SOCKET s, LPWSAMSG lpMsg, DWORD dwFlags, LPDWORD lpNumberOfBytesSent,
		      LPWSAOVERLAPPED lpOverlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine);

/* https://learn.microsoft.com/windows/win32/api/winsock2/nf-winsock2-wsapoll: it is poll(2). */
typedef struct pollfd WSAPOLLFD;
typedef struct pollfd *PWSAPOLLFD;
typedef struct pollfd *LPWSAPOLLFD;
static __inline__ int WSAPoll(LPWSAPOLLFD fdArray, ULONG fds, INT timeout)
{
	return poll(fdArray, fds, timeout);
}

#ifdef UNICODE
typedef WSAPROTOCOL_INFOW WSAPROTOCOL_INFO, *LPWSAPROTOCOL_INFO;
#define WSASocket WSASocketW
#else
typedef WSAPROTOCOL_INFOA WSAPROTOCOL_INFO, *LPWSAPROTOCOL_INFO;
#define WSASocket WSASocketA
#endif

#ifdef __cplusplus
}
#include "waylay_lengths.h"
#endif

#endif
