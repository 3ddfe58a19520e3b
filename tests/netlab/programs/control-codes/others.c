/* What belongs to the control codes: other codes, events, waits, last errors, messages. */
#include "cases.h"

static char answer[1024];

static int any(SOCKET s, DWORD code)
{
	DWORD returned = UNTOUCHED;
	int result = WSAIoctl(s, code, NULL, 0, answer, sizeof(answer), &returned, NULL, NULL);

	CHECK(result == 0 || returned == UNTOUCHED);
	return result;
}

/* The same numbers with other direction bits, and with another vendor, are other codes. */
static void unknown_codes(void)
{
	SOCKET s = stream();

	for (DWORD number = 0xDC; number <= 0xDE; number++) {
		const DWORD codes[] = { 0x58000000 | number, 0xD8000000 | number, 0x18000000 | number,
					0x88000000 | number, 0x98010000 | number, number, 0xB8000000 | number };
		for (int i = 0; i < 7; i++)
			FAILS(any(s, codes[i]), WSAEOPNOTSUPP);
	}
	FAILS(any(s, 0), WSAEOPNOTSUPP);
	FAILS(any(s, 0xFFFFFFFF), WSAEOPNOTSUPP);
	FAILS(any(s, _WSAIOW(IOC_VENDOR, 219)), WSAEOPNOTSUPP);
	FAILS(any(s, _WSAIOW(IOC_VENDOR, 223)), WSAEOPNOTSUPP);
	closesocket(s);
}

static void startup(void)
{
	WSADATA data;

	memset(&data, 0x5A, sizeof(data));
	CHECK(WSAStartup(MAKEWORD(2, 2), &data) == 0 && data.wVersion == 0x0202 && data.wHighVersion == 0x0202);
	CHECK(strlen(data.szDescription) > 0 && strcmp(data.szSystemStatus, "Running") == 0);
	CHECK(WSAStartup(MAKEWORD(1, 1), &data) == 0 && data.wVersion == 0x0101);
	CHECK(WSAStartup(MAKEWORD(9, 9), &data) == 0 && data.wVersion == 0x0202);
	CHECK(WSAStartup(MAKEWORD(0, 9), &data) == WSAVERNOTSUPPORTED);
	CHECK(WSAStartup(MAKEWORD(2, 2), NULL) == WSAEFAULT);
	CHECK(WSAStartup(MAKEWORD(2, 2), nowhere()) == WSAEFAULT);
	for (int i = 0; i < 4; i++)
		CHECK(WSACleanup() == 0);
	FAILS(WSACleanup(), WSANOTINITIALISED);
	FAILS(any(0, QUERY_RECORDS), WSANOTINITIALISED);
	FAILS(closesocket(0), WSANOTINITIALISED);
	FAILS(WSASocketA(AF_INET, SOCK_STREAM, 0, NULL, 0, 0), WSANOTINITIALISED);
	FAILS(WSARecvMsg(0, NULL, NULL, NULL, NULL), WSANOTINITIALISED);
	CHECK(WSACreateEvent() == WSA_INVALID_EVENT && WSAGetLastError() == WSANOTINITIALISED);
	CHECK(WSAWaitForMultipleEvents(1, NULL, FALSE, 0, FALSE) == WSA_WAIT_FAILED);
	CHECK(WSAGetLastError() == WSANOTINITIALISED);
}

static void sockets(void)
{
	WSAPROTOCOL_INFOW *info = nowhere();
	int type = 0;
	socklen_t len = sizeof(type);
	SOCKET s = WSASocketW(AF_INET6, SOCK_DGRAM, IPPROTO_UDP, NULL, 0, WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT);

	CHECK(s != INVALID_SOCKET && fcntl(s, F_GETFD) == FD_CLOEXEC);
	CHECK(getsockopt(s, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_DGRAM);
	CHECK(fcntl(stream(), F_GETFD) == 0);
	FAILS(WSASocketW(AF_INET, SOCK_STREAM, 0, info, 0, 0), WSAEINVAL);
	FAILS(WSASocketW(AF_INET, SOCK_STREAM, 0, NULL, 1, 0), WSAEINVAL);
	FAILS(WSASocketW(AF_INET, SOCK_STREAM, 0, NULL, 0, 0x40000000), WSAEINVAL);
	FAILS(WSASocketW(12345, SOCK_STREAM, 0, NULL, 0, 0), WSAEAFNOSUPPORT);
	FAILS(WSASocketW(AF_INET, SOCK_STREAM, IPPROTO_UDP, NULL, 0, 0), WSAEPROTONOSUPPORT);
	u_long value = 1;
	CHECK(ioctlsocket(s, FIONBIO, &value) == 0 && (fcntl(s, F_GETFL) & O_NONBLOCK));
	value = 0;
	CHECK(ioctlsocket(s, FIONBIO, &value) == 0 && !(fcntl(s, F_GETFL) & O_NONBLOCK));
	value = (u_long)-1;
	CHECK(ioctlsocket(s, FIONREAD, &value) == 0 && value == 0);
	FAILS(ioctlsocket(s, FIONBIO, NULL), WSAEFAULT);
	FAILS(ioctlsocket(s, FIONREAD, nowhere()), WSAEFAULT);
	FAILS(ioctlsocket(s, 12345, &value), WSAEOPNOTSUPP);
	FAILS(ioctlsocket(-1, FIONBIO, &value), WSAENOTSOCK);
	CHECK(closesocket(s) == 0);
	FAILS(closesocket(s), WSAENOTSOCK);
}

static void last_error(void)
{
	struct sockaddr_in closed = { .sin_family = AF_INET, .sin_port = htons(1), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	SOCKET s = stream();

	WSASetLastError(WSAEFAULT);
	CHECK(WSAGetLastError() == WSAEFAULT);
	/* The C library's calls fail with Winsock's codes as well. */
	FAILS(connect(s, (struct sockaddr *)&closed, sizeof(closed)), WSAECONNREFUSED);
	FAILS(recv(-1, answer, 1, 0), WSAENOTSOCK);
	FAILS(any(s, QUERY_RECORDS), WSAENOPROTOOPT);
	FAILS(send(s, answer, 1, MSG_NOSIGNAL), WSAESHUTDOWN);
	WSASetLastError(0);
	CHECK(WSAGetLastError() == 0);
	closesocket(s);
}

static void *set_later(void *event)
{
	usleep(100000);
	CHECK(WSASetEvent(event));
	return NULL;
}

static DWORD wait_all(WSAEVENT *events, DWORD count, DWORD limit)
{
	return WSAWaitForMultipleEvents(count, events, TRUE, limit, FALSE);
}

static void events(void)
{
	WSAEVENT e[64];
	pthread_t thread;

	for (int i = 0; i < 64; i++)
		CHECK((e[i] = WSACreateEvent()) != WSA_INVALID_EVENT);
	CHECK(WSAWaitForMultipleEvents(64, e, FALSE, 20, FALSE) == WSA_WAIT_TIMEOUT);
	CHECK(WSASetEvent(e[3]) && WSASetEvent(e[5]) && WSASetEvent(e[5]));
	CHECK(WSAWaitForMultipleEvents(64, e, FALSE, WSA_INFINITE, FALSE) == WSA_WAIT_EVENT_0 + 3);
	/* It stays set until it is reset. */
	CHECK(WSAWaitForMultipleEvents(1, e + 5, FALSE, 0, FALSE) == WSA_WAIT_EVENT_0);
	CHECK(wait_all(e + 3, 3, 20) == WSA_WAIT_TIMEOUT);
	CHECK(pthread_create(&thread, NULL, set_later, e[4]) == 0);
	CHECK(wait_all(e + 3, 3, 10000) == WSA_WAIT_EVENT_0);
	CHECK(pthread_join(thread, NULL) == 0);
	CHECK(WSAResetEvent(e[5]) && WSAResetEvent(e[5]) && wait_all(e + 3, 3, 0) == WSA_WAIT_TIMEOUT);
	CHECK(WSAWaitForMultipleEvents(0, e, FALSE, 0, FALSE) == WSA_WAIT_FAILED && WSAGetLastError() == WSA_INVALID_PARAMETER);
	CHECK(WSAWaitForMultipleEvents(65, e, FALSE, 0, FALSE) == WSA_WAIT_FAILED && WSAGetLastError() == WSA_INVALID_PARAMETER);
	CHECK(WSAWaitForMultipleEvents(1, nowhere(), FALSE, 0, FALSE) == WSA_WAIT_FAILED && WSAGetLastError() == WSAEFAULT);
	CHECK(WSACloseEvent(e[0]) && !WSACloseEvent(e[0]) && WSAGetLastError() == WSA_INVALID_HANDLE);
	CHECK(!WSASetEvent(e[0]) && !WSAResetEvent(nowhere()) && !WSACloseEvent(NULL));
	CHECK(WSAWaitForMultipleEvents(2, e, FALSE, 0, FALSE) == WSA_WAIT_FAILED && WSAGetLastError() == WSA_INVALID_HANDLE);
	for (int i = 1; i < 64; i++)
		CHECK(WSACloseEvent(e[i]));
	CHECK(SleepEx(20, FALSE) == 0 && SleepEx(20, TRUE) == 0);
}

static void extension_functions(void)
{
	GUID receive = WSAID_WSARECVMSG, send = WSAID_WSASENDMSG, unknown = { 0 };
	LPFN_WSARECVMSG function = NULL;
	SOCKET s = stream();
	DWORD returned = 0;

	CHECK(WSAIoctl(s, SIO_GET_EXTENSION_FUNCTION_POINTER, &receive, sizeof(receive), &function, sizeof(function),
		       &returned, NULL, NULL) == 0);
	CHECK(returned == sizeof(function) && function == WSARecvMsg);
	CHECK(WSAIoctl(s, SIO_GET_EXTENSION_FUNCTION_POINTER, &send, sizeof(send), &function, sizeof(function), &returned,
		       NULL, NULL) == 0);
	CHECK((void *)function == (void *)WSASendMsg);
	FAILS(WSAIoctl(s, SIO_GET_EXTENSION_FUNCTION_POINTER, &unknown, sizeof(unknown), &function, sizeof(function),
		       &returned, NULL, NULL), WSAEINVAL);
	FAILS(WSAIoctl(s, SIO_GET_EXTENSION_FUNCTION_POINTER, &receive, 15, &function, sizeof(function), &returned, NULL,
		       NULL), WSAEFAULT);
	FAILS(WSAIoctl(s, SIO_GET_EXTENSION_FUNCTION_POINTER, &receive, 16, &function, 7, &returned, NULL, NULL), WSAEFAULT);
	FAILS(WSAIoctl(s, SIO_GET_EXTENSION_FUNCTION_POINTER, nowhere(), 16, nowhere(), 8, &returned, NULL, NULL), WSAEFAULT);
}

/* A datagram of nobody's flow, in two parts; what comes beside it is where it was going. */
static void exchange(SOCKET s, SOCKET from)
{
	struct sockaddr_in own, peer;
	socklen_t length = sizeof(own);
	char parts[2][4] = { "abc", "de" }, first[2], second[8], control[256], records[64] = { 0 };
	WSABUF data[2] = { { .len = 3, .buf = parts[0] }, { .len = 2, .buf = parts[1] } };
	WSABUF room[2] = { { .len = 2, .buf = first }, { .len = 8, .buf = second } };
	WSAMSG message = { .name = (LPSOCKADDR)&own, .namelen = sizeof(own), .lpBuffers = data, .dwBufferCount = 2 };
	DWORD bytes = UNTOUCHED;
	WSACMSGHDR *header = (WSACMSGHDR *)records;

	CHECK(!getsockname(s, (struct sockaddr *)&own, &length));
	for (int i = 0; i < 3; i++)
		CHECK(!WSASendMsg(from, &message, 0, &bytes, NULL, NULL) && bytes == 5);
	message = (WSAMSG){ .name = (LPSOCKADDR)&peer, .namelen = sizeof(peer), .lpBuffers = room, .dwBufferCount = 2 };
	message.Control.buf = control;
	message.Control.len = sizeof(control);
	CHECK(!WSARecvMsg(s, &message, &bytes, NULL, NULL) && bytes == 5);
	CHECK(!memcmp(first, "ab", 2) && !memcmp(second, "cde", 3) && message.namelen == sizeof(peer));
	CHECK(peer.sin_addr.s_addr == htonl(INADDR_LOOPBACK) && message.dwFlags == 0);
	header = WSA_CMSG_FIRSTHDR(&message);
	CHECK(header && header->cmsg_level == IPPROTO_IP && header->cmsg_type == IP_PKTINFO);
	CHECK(!WSA_CMSG_NXTHDR(&message, header));
	/* Without room for what comes beside it, and for all of it. */
	message.Control.len = 8;
	CHECK(!WSARecvMsg(s, &message, &bytes, NULL, NULL));
	CHECK(message.Control.len == 0 && (message.dwFlags & MSG_CTRUNC));
	message.dwFlags = 0;
	message.dwBufferCount = 1;
	FAILS(WSARecvMsg(s, &message, &bytes, NULL, NULL), WSAEMSGSIZE);
	CHECK(bytes == 2 && (message.dwFlags & MSG_TRUNC));
	/* Records that are none, and control data that is none. */
	header = (WSACMSGHDR *)records;
	*header = (WSACMSGHDR){ .cmsg_len = WSA_CMSG_LEN(8), .cmsg_level = IPPROTO_IP, .cmsg_type = IP_WFP_REDIRECT_RECORDS };
	message.name = (LPSOCKADDR)&own;
	message.Control.buf = records;
	message.Control.len = WSA_CMSG_SPACE(8);
	FAILS(WSASendMsg(from, &message, 0, &bytes, NULL, NULL), WSAEACCES);
	header->cmsg_len = 4096;
	FAILS(WSASendMsg(from, &message, 0, &bytes, NULL, NULL), WSAEINVAL);
	message.Control.buf = nowhere();
	FAILS(WSASendMsg(from, &message, 0, &bytes, NULL, NULL), WSAEFAULT);
}

static void messages(void)
{
	SOCKET s = socket(AF_INET, SOCK_DGRAM, 0), from = socket(AF_INET, SOCK_DGRAM, 0);
	struct sockaddr_in own = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	WSAMSG message = { 0 };
	WSAOVERLAPPED overlapped = { 0 };
	DWORD bytes = UNTOUCHED, yes = 1;

	CHECK(!bind(s, (struct sockaddr *)&own, sizeof(own)));
	exchange(s, from);
	FAILS(WSARecvMsg(s, nowhere(), &bytes, NULL, NULL), WSAEFAULT);
	FAILS(WSASendMsg(s, NULL, 0, &bytes, NULL, NULL), WSAEFAULT);
	FAILS(WSARecvMsg(-1, &message, &bytes, NULL, NULL), WSAENOTSOCK);
	FAILS(WSARecvMsg(s, &message, &bytes, &overlapped, NULL), WSAEOPNOTSUPP);
	FAILS(WSARecvMsg(socket(AF_INET, SOCK_STREAM, 0), &message, &bytes, NULL, NULL), WSAEOPNOTSUPP);
	message.dwBufferCount = 1025;
	FAILS(WSARecvMsg(s, &message, &bytes, NULL, NULL), WSAEINVAL);
	CHECK(bytes == UNTOUCHED);
	FAILS(setsockopt(s, IPPROTO_IP, IP_WFP_REDIRECT_RECORDS, &yes, sizeof(yes)), WSAENOPROTOOPT);
	SOCKET six = socket(AF_INET6, SOCK_DGRAM, 0);
	FAILS(setsockopt(six, IPPROTO_IPV6, IPV6_WFP_REDIRECT_CONTEXT, &yes, sizeof(yes)), WSAENOPROTOOPT);
}

static void flow_idle(void)
{
	SOCKET s = socket(AF_INET, SOCK_DGRAM, 0);
	DWORD returned = UNTOUCHED, idle = 1000;

	CHECK(WSAIoctl(s, SIO_WAYLAY_FLOW_IDLE, &idle, sizeof(idle), NULL, 0, &returned, NULL, NULL) == 0 && returned == 0);
	FAILS(WSAIoctl(s, SIO_WAYLAY_FLOW_IDLE, &idle, 3, NULL, 0, &returned, NULL, NULL), WSAEFAULT);
	FAILS(WSAIoctl(s, SIO_WAYLAY_FLOW_IDLE, nowhere(), 4, NULL, 0, &returned, NULL, NULL), WSAEFAULT);
	FAILS(WSAIoctl(s, SIO_WAYLAY_FLOW_IDLE, &idle, 4, &idle, 4, &returned, NULL, NULL), WSAEINVAL);
}

static void flush(void)
{
	SOCKET s = stream();
	DWORD returned = UNTOUCHED;
	WSAOVERLAPPED overlapped = { .hEvent = WSACreateEvent() };

	CHECK(WSAIoctl(s, SIO_FLUSH, NULL, 0, NULL, 0, &returned, NULL, NULL) == 0 && returned == 0);
	FAILS(WSAIoctl(s, SIO_FLUSH, NULL, 0, NULL, 0, NULL, NULL, NULL), WSAEFAULT);
	FAILS(WSAIoctl(-1, SIO_FLUSH, NULL, 0, NULL, 0, &returned, NULL, NULL), WSAENOTSOCK);
	s = overlapped_stream();
	CHECK(WSAIoctl(s, SIO_FLUSH, NULL, 0, NULL, 0, NULL, &overlapped, NULL) == 0);
	CHECK(WSAWaitForMultipleEvents(1, &overlapped.hEvent, FALSE, 0, FALSE) == WSA_WAIT_EVENT_0);
}

static void results(void)
{
	WSAOVERLAPPED done = { 0 }, pending = { .Internal = 0x103 };
	DWORD bytes = UNTOUCHED, flags = UNTOUCHED;
	SOCKET s = stream();

	done.InternalHigh = 7;
	CHECK(WSAGetOverlappedResult(s, &done, &bytes, FALSE, &flags) && bytes == 7 && flags == 0);
	FAILS(WSAGetOverlappedResult(s, nowhere(), &bytes, FALSE, &flags) - 1, WSAEFAULT);
	FAILS(WSAGetOverlappedResult(s, &done, read_only(), FALSE, &flags) - 1, WSAEFAULT);
	FAILS(WSAGetOverlappedResult(s, &done, &bytes, FALSE, NULL) - 1, WSAEFAULT);
	FAILS(WSAGetOverlappedResult(-1, &done, &bytes, FALSE, &flags) - 1, WSAENOTSOCK);
	FAILS(WSAGetOverlappedResult(s, &pending, &bytes, FALSE, &flags) - 1, WSA_IO_INCOMPLETE);
	FAILS(WSAGetOverlappedResult(s, &pending, &bytes, TRUE, &flags) - 1, WSA_INVALID_HANDLE);
}

const struct case_ other_cases[] = {
	{ "unknown_codes", unknown_codes, false },
	{ "startup", startup, false },
	{ "sockets", sockets, false },
	{ "last_error", last_error, false },
	{ "events", events, false },
	{ "extension_functions", extension_functions, false },
	{ "messages", messages, false },
	{ "flow_idle", flow_idle, false },
	{ "flush", flush, false },
	{ "results", results, false },
	{ 0 },
};
