/* SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS: a case for each row of its table. */
#include "cases.h"

static char records[RECORDS + 1];

static void sets(void)
{
	SOCKET s = stream();

	get_records(records);
	CHECK(set(s, records, RECORDS) == 0);
	/* What is set later takes the place of what was. */
	CHECK(set(s, records, RECORDS) == 0);
	SOCKET another = stream();
	CHECK(set(another, records, RECORDS) == 0);
	SOCKET six = socket(AF_INET6, SOCK_STREAM, 0);
	CHECK(set(six, records, RECORDS) == 0);
}

static void bound(void)
{
	SOCKET s = stream();
	struct sockaddr_in any = { .sin_family = AF_INET };

	get_records(records);
	CHECK(bind(s, (struct sockaddr *)&any, sizeof(any)) == 0);
	CHECK(set(s, records, RECORDS) == 0);
}

static void refused(void)
{
	SOCKET s = stream();
	const DWORD lengths[] = { 0, 1, 3, RECORDS - 1, RECORDS + 1, 0xFFFFFFFFu };

	get_records(records);
	for (int i = 0; i < 6; i++)
		FAILS(set(s, records, lengths[i]), WSAEINVAL);
	FAILS(set(s, NULL, 0), WSAEINVAL);
	/* Version, size, boot, instance, flow, tag. */
	const int fields[] = { 0, 4, 8, 16, 24, 32, 47 };
	for (int i = 0; i < 7; i++) {
		records[fields[i]] ^= 1;
		FAILS(set(s, records, RECORDS), WSAEINVAL);
		records[fields[i]] ^= 1;
	}
	CHECK(set(s, records, RECORDS) == 0);
}

static void output(void)
{
	SOCKET s = stream();
	char out[8];
	DWORD returned = UNTOUCHED;

	get_records(records);
	FAILS(WSAIoctl(s, SET_RECORDS, records, RECORDS, out, sizeof(out), &returned, NULL, NULL), WSAEINVAL);
	FAILS(WSAIoctl(s, SET_RECORDS, records, RECORDS, out, 0, &returned, NULL, NULL), WSAEINVAL);
	FAILS(WSAIoctl(s, SET_RECORDS, records, RECORDS, NULL, 8, &returned, NULL, NULL), WSAEINVAL);
	CHECK(returned == UNTOUCHED);
}

static void connected(void)
{
	SOCKET fresh = stream();
	struct slow slow = connecting(fresh, false);

	get_records(records);
	FAILS(set(accepted, records, RECORDS), WSAEINVAL);
	FAILS(set(direct, records, RECORDS), WSAEINVAL);
	FAILS(set(listener, records, RECORDS), WSAEINVAL);
	FAILS(set(fresh, records, RECORDS), WSAEINVAL);
	give_up(&slow);
}

static void ended(void)
{
	SOCKET s = stream();

	get_records(records);
	ask("close the client");
	char byte;
	recv(accepted, &byte, 1, 0);
	shutdown(accepted, SD_BOTH);
	FAILS(set(s, records, RECORDS), WSAEINVAL);
}

static void outside_of_a_service(void)
{
	get_records(records);
	FAILS(set(outside, records, RECORDS), WSAEACCES);
}

static void by_another_service(void)
{
	get_records(records);
	enter(other_service);
	FAILS(set(stream(), records, RECORDS), WSAEACCES);
}

static void fault(void)
{
	SOCKET s = stream();
	void *bad[] = { NULL, nowhere(), forbidden(), at_the_end(RECORDS - 1), (void *)-8 };

	get_records(records);
	for (int i = 0; i < 5; i++)
		FAILS(set(s, bad[i], RECORDS), WSAEFAULT);
	void *no_place[] = { NULL, nowhere(), read_only(), at_the_end(3) };
	for (int i = 0; i < 4; i++)
		FAILS(WSAIoctl(s, SET_RECORDS, records, RECORDS, NULL, 0, no_place[i], NULL, NULL), WSAEFAULT);
	/* Nothing was set by the way: such a socket would not be told apart from a fresh one. */
	CHECK(set(s, memcpy(read_only() - RECORDS, records, RECORDS), RECORDS) == 0);
}

static void of_another_kind(void)
{
	get_records(records);
	CHECK(set(socket(AF_INET, SOCK_DGRAM, 0), records, RECORDS) == 0);
	FAILS(set(socket(AF_UNIX, SOCK_STREAM, 0), records, RECORDS), WSAEOPNOTSUPP);
}

static void no_socket(void)
{
	int closed = socket(AF_INET, SOCK_STREAM, 0);

	get_records(records);
	CHECK(close(closed) == 0);
	FAILS(set(closed, records, RECORDS), WSAENOTSOCK);
	FAILS(set(-1, records, RECORDS), WSAENOTSOCK);
	FAILS(set(open("/dev/null", O_RDONLY), records, RECORDS), WSAENOTSOCK);
}

/* SET has nothing to wait for: no WSA_IO_PENDING, and so nothing to abort or to interrupt. */
static void never_waits(void)
{
	WSAOVERLAPPED overlapped = { .Internal = UNTOUCHED, .hEvent = WSACreateEvent() };
	SOCKET s = overlapped_stream();
	struct slow slow = connecting(s, false);

	get_records(records);
	FAILS(WSAIoctl(s, SET_RECORDS, records, RECORDS, NULL, 0, NULL, &overlapped, NULL), WSAEINVAL);
	CHECK(overlapped.Internal == UNTOUCHED);
	SOCKET fresh = overlapped_stream();
	CHECK(WSAIoctl(fresh, SET_RECORDS, records, RECORDS, NULL, 0, NULL, &overlapped, NULL) == 0);
	CHECK(overlapped.Internal == 0 && overlapped.InternalHigh == 0);
	CHECK(WSAWaitForMultipleEvents(1, &overlapped.hEvent, FALSE, 0, FALSE) == WSA_WAIT_EVENT_0);
	give_up(&slow);
}

static void CALLBACK sets_in_routine(DWORD error, DWORD bytes, LPWSAOVERLAPPED overlapped, DWORD flags)
{
	CHECK(error == 0 && bytes == RECORDS && overlapped && flags == 0);
	CHECK(set(stream(), records, RECORDS) == 0);
}

static void in_a_completion_routine(void)
{
	WSAOVERLAPPED overlapped = { 0 };

	CHECK(WSAIoctl(accepted, QUERY_RECORDS, NULL, 0, records, RECORDS, NULL, &overlapped, sets_in_routine) == 0);
	CHECK(SleepEx(1000, TRUE) == WSA_WAIT_IO_COMPLETION);
}

/* The kernel's side says ENETDOWN. */
static void network_down(void)
{
	memset(records, 0, sizeof(records));
	FAILS(set(stream(), records, RECORDS), WSAENETDOWN);
}

/* The memory a socket may have for its options is limited, and groups to listen to take some each. */
static void without_room(void)
{
	struct group_req group = { .gr_interface = 1 };
	struct sockaddr_in6 *address = (struct sockaddr_in6 *)&group.gr_group;
	SOCKET s = socket(AF_INET6, SOCK_STREAM, 0);

	address->sin6_family = AF_INET6;
	address->sin6_addr.s6_addr[0] = 0xff;
	address->sin6_addr.s6_addr[1] = 0x15;
	get_records(records);
	do {
		if (++address->sin6_addr.s6_addr[15] == 0)
			address->sin6_addr.s6_addr[14]++;
	} while (setsockopt(s, IPPROTO_IPV6, MCAST_JOIN_GROUP, &group, sizeof(group)) == 0);
	FAILS(set(s, records, RECORDS), WSAENOBUFS);
}

static void before_startup(void)
{
	get_records(records);
	CHECK(WSACleanup() == 0);
	FAILS(set(accepted, records, RECORDS), WSANOTINITIALISED);
	WSASetLastError(WSANOTINITIALISED);
}

const struct case_ set_cases[] = {
	{ "set_succeeds", sets, true },
	{ "set_on_a_bound_socket", bound, true },
	{ "set_refused", refused, true },
	{ "set_output", output, true },
	{ "set_connected", connected, true },
	{ "set_ended", ended, true },
	{ "set_outside_of_a_service", outside_of_a_service, true },
	{ "set_by_another_service", by_another_service, true },
	{ "set_fault", fault, true },
	{ "set_of_another_kind", of_another_kind, true },
	{ "set_no_socket", no_socket, true },
	{ "set_never_waits", never_waits, true },
	{ "set_in_a_completion_routine", in_a_completion_routine, true },
	{ "set_network_down", network_down, true },
	{ "set_without_room", without_room, true },
	{ "set_before_startup", before_startup, true },
	{ 0 },
};
