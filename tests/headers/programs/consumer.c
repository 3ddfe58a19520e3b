/*
 * A source as Windows programs have it, in C and in C++: it has to compile with
 * Windows' own headers and with ours, so every value and layout that is asserted
 * here is the same in both. It is compiled and never run.
 */
#include <winsock2.h>
#include <ws2tcpip.h>
#include <mswsock.h>
#include <mstcpip.h>
#include <ws2spi.h>
#include <stddef.h>
#include <string.h>

/* Not every header for Windows has these. */
#ifndef SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS
#define SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS _WSAIOW(IOC_VENDOR, 220)
#define SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT _WSAIOW(IOC_VENDOR, 221)
#define SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS _WSAIOW(IOC_VENDOR, 222)
#endif
#ifndef SO_ORIGINAL_DST
#define SO_ORIGINAL_DST 0x300f
#define IP6T_SO_ORIGINAL_DST SO_ORIGINAL_DST
#endif
#ifndef IP_WFP_REDIRECT_RECORDS
#define IP_WFP_REDIRECT_RECORDS 60
#define IP_WFP_REDIRECT_CONTEXT 70
#endif
#ifndef IPV6_WFP_REDIRECT_RECORDS
#define IPV6_WFP_REDIRECT_RECORDS 60
#define IPV6_WFP_REDIRECT_CONTEXT 70
#endif

#define JOINED(a, b) a##b
#define NAMED(line) JOINED(asserted_in_line_, line)
#define IS(condition) typedef char NAMED(__LINE__)[(condition) ? 1 : -1]

IS(SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS == 0x980000DC);
IS(SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT == 0x980000DD);
IS(SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS == 0x980000DE);
#ifdef SIO_WAYLAY_FLOW_IDLE
IS(SIO_WAYLAY_FLOW_IDLE == 0x98005759);
#endif
IS(SIO_FLUSH == 0x28000004);
IS(SIO_GET_EXTENSION_FUNCTION_POINTER == 0xC8000006);
IS(_WSAIO(IOC_VENDOR, 1) == 0x38000001);
IS(_WSAIOR(IOC_VENDOR, 205) == 0x580000CD);
IS(_WSAIOW(IOC_PROTOCOL, 1) == 0x90000001);
IS(_WSAIORW(IOC_UNIX, 1) == 0xC0000001);
IS(IOC_IN == 0x80000000 && IOC_OUT == 0x40000000 && IOC_INOUT == 0xC0000000);

IS(sizeof(WORD) == 2 && sizeof(DWORD) == 4 && sizeof(ULONG) == 4 && sizeof(LONG) == 4);
IS(sizeof(BYTE) == 1 && sizeof(USHORT) == 2 && sizeof(UINT) == 4 && sizeof(BOOL) == 4);
IS(sizeof(HANDLE) == sizeof(void *) && sizeof(DWORD_PTR) == sizeof(void *));
IS(sizeof(GUID) == 16 && offsetof(GUID, Data4) == 8);
IS(sizeof(WSAOVERLAPPED) == 32 && offsetof(WSAOVERLAPPED, hEvent) == 24);
IS(offsetof(WSAOVERLAPPED, Offset) == 16 && offsetof(WSAOVERLAPPED, Pointer) == 16);
IS(sizeof(WSABUF) == 16 && offsetof(WSABUF, buf) == 8);
IS(sizeof(WSAMSG) == 56 && offsetof(WSAMSG, Control) == 32 && offsetof(WSAMSG, dwFlags) == 48);
IS(sizeof(WSACMSGHDR) == 16 && offsetof(WSACMSGHDR, cmsg_type) == 12);
IS(sizeof(WSADATA) == 408 && offsetof(WSADATA, szDescription) == 16);
IS(sizeof(WSATHREADID) == 16 && offsetof(WSATHREADID, Reserved) == 8);
IS(offsetof(WSAPROTOCOL_INFOA, szProtocol) == offsetof(WSAPROTOCOL_INFOW, szProtocol));
IS(sizeof(WSAPROTOCOL_INFOA) == 372);
IS(WSA_CMSG_LEN(5) == 21 && WSA_CMSG_SPACE(5) == 24);

IS(MAKEWORD(2, 2) == 0x0202 && LOBYTE(0x1234) == 0x34 && HIBYTE(0x1234) == 0x12);
IS(LOWORD(0x12345678) == 0x5678 && HIWORD(0x12345678) == 0x1234);
IS(SD_RECEIVE == 0 && SD_SEND == 1 && SD_BOTH == 2 && SOCKET_ERROR == -1);
IS(TRUE == 1 && FALSE == 0 && NO_ERROR == 0);
IS(WSA_FLAG_OVERLAPPED == 1 && WSA_FLAG_NO_HANDLE_INHERIT == 0x80);
IS(WSA_WAIT_EVENT_0 == 0 && WSA_WAIT_IO_COMPLETION == 0xC0 && WSA_WAIT_TIMEOUT == 258);
IS(WSA_WAIT_FAILED == 0xFFFFFFFF && WSA_INFINITE == 0xFFFFFFFF && WSA_MAXIMUM_WAIT_EVENTS == 64);
IS(ERROR_INSUFFICIENT_BUFFER == 122 && WSA_INVALID_HANDLE == 6 && WSA_INVALID_PARAMETER == 87);
IS(WSA_OPERATION_ABORTED == 995 && WSA_IO_INCOMPLETE == 996 && WSA_IO_PENDING == 997);
IS(WSA_NOT_ENOUGH_MEMORY == 8 && STATUS_PENDING == 0x103);
IS((DWORD)FWP_E_NOT_FOUND == 0x80320008);
IS(WSAEINTR == 10004 && WSAEBADF == 10009 && WSAEACCES == 10013 && WSAEFAULT == 10014);
IS(WSAEINVAL == 10022 && WSAEMFILE == 10024 && WSAEWOULDBLOCK == 10035 && WSAEINPROGRESS == 10036);
IS(WSAEALREADY == 10037 && WSAENOTSOCK == 10038 && WSAEDESTADDRREQ == 10039 && WSAEMSGSIZE == 10040);
IS(WSAEPROTOTYPE == 10041 && WSAENOPROTOOPT == 10042 && WSAEPROTONOSUPPORT == 10043);
IS(WSAESOCKTNOSUPPORT == 10044 && WSAEOPNOTSUPP == 10045 && WSAEPFNOSUPPORT == 10046);
IS(WSAEAFNOSUPPORT == 10047 && WSAEADDRINUSE == 10048 && WSAEADDRNOTAVAIL == 10049);
IS(WSAENETDOWN == 10050 && WSAENETUNREACH == 10051 && WSAENETRESET == 10052);
IS(WSAECONNABORTED == 10053 && WSAECONNRESET == 10054 && WSAENOBUFS == 10055);
IS(WSAEISCONN == 10056 && WSAENOTCONN == 10057 && WSAESHUTDOWN == 10058);
IS(WSAETOOMANYREFS == 10059 && WSAETIMEDOUT == 10060 && WSAECONNREFUSED == 10061);
IS(WSAELOOP == 10062 && WSAENAMETOOLONG == 10063 && WSAEHOSTDOWN == 10064);
IS(WSAEHOSTUNREACH == 10065 && WSAENOTEMPTY == 10066 && WSAEPROCLIM == 10067);
IS(WSAEUSERS == 10068 && WSAEDQUOT == 10069 && WSAESTALE == 10070 && WSAEREMOTE == 10071);
IS(WSASYSNOTREADY == 10091 && WSAVERNOTSUPPORTED == 10092 && WSANOTINITIALISED == 10093);
IS(WSAEDISCON == 10101 && WSAENOMORE == 10102 && WSAECANCELLED == 10103);
IS(WSAEINVALIDPROCTABLE == 10104 && WSAEINVALIDPROVIDER == 10105);
IS(WSAEPROVIDERFAILEDINIT == 10106 && WSASYSCALLFAILURE == 10107);
IS(WSASERVICE_NOT_FOUND == 10108 && WSATYPE_NOT_FOUND == 10109);
IS(WSA_E_NO_MORE == 10110 && WSA_E_CANCELLED == 10111 && WSAEREFUSED == 10112);
IS(WSAHOST_NOT_FOUND == 11001 && WSATRY_AGAIN == 11002);
IS(WSANO_RECOVERY == 11003 && WSANO_DATA == 11004);

int forward_records(SOCKET inbound, SOCKET *outbound);
int wait_for_context(SOCKET inbound, LPVOID context, DWORD size, LPDWORD written);
int ask_as_a_provider(SOCKET s, LPVOID out, DWORD size);
int receive_with_records(SOCKET s, LPBYTE control, ULONG size, LPDWORD found);
SOCKET accept_one(SOCKET listener, LPSOCKADDR peer);

static void CALLBACK on_context(DWORD error, DWORD bytes, LPWSAOVERLAPPED overlapped, DWORD flags)
{
	(void)bytes;
	(void)flags;
	overlapped->hEvent = error ? NULL : WSA_INVALID_EVENT;
}

/* As the samples do it: ask, make a socket, set, before it connects. */
int forward_records(SOCKET inbound, SOCKET *outbound)
{
	BYTE records[8192];
	DWORD size = 0;
	u_long yes = 1;
	WSADATA data;
	struct linger none;

	if (WSAStartup(MAKEWORD(2, 2), &data) != NO_ERROR)
		return WSAGetLastError();
	if (WSAIoctl(inbound, SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS, NULL, 0, records, sizeof(records), &size, NULL,
		     NULL) == SOCKET_ERROR)
		return WSAGetLastError();
	none.l_onoff = 1;
	none.l_linger = 0;
	*outbound = WSASocketW(AF_INET, SOCK_STREAM, IPPROTO_TCP, NULL, 0, WSA_FLAG_OVERLAPPED);
	if (*outbound == INVALID_SOCKET)
		*outbound = WSASocketA(AF_INET6, SOCK_STREAM, IPPROTO_TCP, NULL, 0, 0);
	if (setsockopt(*outbound, SOL_SOCKET, SO_LINGER, (const char *)&none, sizeof(none)) ||
	    ioctlsocket(*outbound, (long)FIONBIO, &yes) ||
	    WSAIoctl(*outbound, SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS, records, size, NULL, 0, &size, NULL, NULL)) {
		int error = WSAGetLastError();

		closesocket(*outbound);
		WSASetLastError(error);
		return error;
	}
	return WSACleanup();
}

/* By an event, by a completion routine, and by asking again. */
int wait_for_context(SOCKET inbound, LPVOID context, DWORD size, LPDWORD written)
{
	WSAOVERLAPPED overlapped;
	DWORD flags = 0, which;
	WSAEVENT event = WSACreateEvent();

	memset(&overlapped, 0, sizeof(overlapped));
	overlapped.hEvent = event;
	if (WSAIoctl(inbound, SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT, NULL, 0, context, size, written, &overlapped,
		     on_context) == SOCKET_ERROR &&
	    WSAGetLastError() != WSA_IO_PENDING)
		return WSAGetLastError();
	while (!HasOverlappedIoCompleted(&overlapped))
		SleepEx(1, TRUE);
	which = WSAWaitForMultipleEvents(1, &event, FALSE, WSA_INFINITE, TRUE);
	if (which == WSA_WAIT_EVENT_0)
		WSAResetEvent(event);
	else if (which == WSA_WAIT_IO_COMPLETION)
		WSASetEvent(event);
	if (!WSAGetOverlappedResult(inbound, &overlapped, written, FALSE, &flags) && !WSACloseEvent(event))
		return WSAGetLastError();
	return NO_ERROR;
}

int ask_as_a_provider(SOCKET s, LPVOID out, DWORD size)
{
	WSATHREADID thread;
	INT error = NO_ERROR;
	LPWSPIOCTL ask = NULL;

	if (WPUOpenCurrentThread(&thread, &error) == SOCKET_ERROR)
		return error;
#ifndef _WIN32
	ask = WSPIoctl; /* There it is an entry of the provider's table. */
#endif
	if (ask)
		ask(s, SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT, NULL, 0, out, size, &size, NULL, NULL, &thread,
		    &error);
	WPUCloseThread(&thread, &error);
	return error;
}

/* How a service of datagrams finds the records of the first one of a flow. */
int receive_with_records(SOCKET s, LPBYTE control, ULONG size, LPDWORD found)
{
	GUID wanted = WSAID_WSARECVMSG, other = WSAID_WSASENDMSG;
	LPFN_WSARECVMSG receive = NULL;
	LPFN_WSASENDMSG dispatch = NULL;
	SOCKADDR_STORAGE from;
	CHAR bytes[1500];
	WSABUF buffer;
	WSAMSG message;
	LPWSACMSGHDR header;
	DWORD yes = TRUE, count = 0;

	setsockopt(s, IPPROTO_IP, IP_WFP_REDIRECT_RECORDS, (const char *)&yes, sizeof(yes));
	setsockopt(s, IPPROTO_IPV6, IPV6_WFP_REDIRECT_CONTEXT, (const char *)&yes, sizeof(yes));
	WSAIoctl(s, SIO_GET_EXTENSION_FUNCTION_POINTER, &wanted, sizeof(wanted), &receive, sizeof(receive), &count, NULL,
		 NULL);
	WSAIoctl(s, SIO_GET_EXTENSION_FUNCTION_POINTER, &other, sizeof(other), &dispatch, sizeof(dispatch), &count, NULL,
		 NULL);
	if (!receive || !dispatch)
		return WSAGetLastError();
	memset(&message, 0, sizeof(message));
	buffer.buf = bytes;
	buffer.len = sizeof(bytes);
	message.name = (LPSOCKADDR)&from;
	message.namelen = sizeof(from);
	message.lpBuffers = &buffer;
	message.dwBufferCount = 1;
	message.Control.buf = (CHAR *)control;
	message.Control.len = size;
	if (receive(s, &message, &count, NULL, NULL))
		return WSAGetLastError();
	for (header = WSA_CMSG_FIRSTHDR(&message); header; header = WSA_CMSG_NXTHDR(&message, header)) {
		if (header->cmsg_level == IPPROTO_IP && header->cmsg_type == IP_WFP_REDIRECT_RECORDS)
			memcpy(found, WSA_CMSG_DATA(header), sizeof(*found));
	}
	return dispatch(s, &message, 0, &count, NULL, NULL);
}

SOCKET accept_one(SOCKET listener, LPSOCKADDR peer)
{
	WSAPOLLFD polled;
	SOCKET accepted;
#ifdef __cplusplus
	int length = sizeof(SOCKADDR_IN6), size = sizeof(SOCKADDR_IN);
	SOCKADDR_IN original;

	/* In C the C library's type is wanted: socklen_t. */
	accepted = accept(listener, peer, &length);
	getsockname(accepted, peer, &length);
	getpeername(accepted, peer, &length);
	getsockopt(accepted, IPPROTO_IP, SO_ORIGINAL_DST, (char *)&original, &size);
	getsockopt(accepted, IPPROTO_IPV6, IP6T_SO_ORIGINAL_DST, (char *)&original, &size);
	recvfrom(accepted, (char *)&original, sizeof(original), 0, peer, &length);
#else
	(void)peer;
#endif
	polled.fd = listener;
	polled.events = POLLIN;
	WSAPoll(&polled, 1, 0);
	accepted = accept(listener, NULL, NULL);
	shutdown(accepted, SD_BOTH);
	return accepted;
}
