/* SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS and …_CONTEXT: a case for each row of their table. */
#include "cases.h"

static const DWORD CODES[] = { QUERY_RECORDS, QUERY_CONTEXT };
static const DWORD SIZES[] = { RECORDS, CONTEXT };

static char answer[1024];

/* Both queries of this socket fail, with this code. */
#define BOTH_FAIL(socket, error)                                                              \
	do {                                                                                  \
		for (int both_ = 0; both_ < 2; both_++) {                                     \
			DWORD got_ = UNTOUCHED;                                               \
			FAILS(query(socket, CODES[both_], answer, sizeof(answer), &got_), error); \
			CHECK(got_ == UNTOUCHED);                                             \
		}                                                                             \
	} while (0)

static void answers(void)
{
	for (int i = 0; i < 2; i++) {
		DWORD returned = UNTOUCHED;

		memset(answer, 0x5A, sizeof(answer));
		CHECK(query(accepted, CODES[i], answer, sizeof(answer), &returned) == 0);
		CHECK(returned == SIZES[i]);
		CHECK(answer[returned] == 0x5A && answer[returned - 1] != 0x5A);
		/* Asking takes nothing away. */
		CHECK(query(accepted, CODES[i], answer, SIZES[i], &returned) == 0 && returned == SIZES[i]);
	}
	const WAYLAY_REDIRECT_CONTEXT *context = (void *)answer;
	CHECK(context->Size == CONTEXT && context->Destination.Port == 80);
}

static void short_buffer(void)
{
	for (int i = 0; i < 2; i++) {
		const DWORD shorts[] = { 0, 1, 3, 4, SIZES[i] - 1 };

		for (int j = 0; j < 5; j++) {
			DWORD returned = UNTOUCHED;

			memset(answer, 0x5A, sizeof(answer));
			FAILS(query(accepted, CODES[i], answer, shorts[j], &returned), ERROR_INSUFFICIENT_BUFFER);
			CHECK(returned == SIZES[i] && answer[0] == 0x5A);
		}
		DWORD returned = UNTOUCHED;
		FAILS(query(accepted, CODES[i], NULL, 0, &returned), ERROR_INSUFFICIENT_BUFFER);
		CHECK(returned == SIZES[i]);
		CHECK(query(accepted, CODES[i], answer, returned, &returned) == 0 && returned == SIZES[i]);
	}
}

/* No more of a buffer is looked at than the answer takes. */
static void huge_buffer(void)
{
	for (int i = 0; i < 2; i++) {
		DWORD returned = UNTOUCHED;

		CHECK(query(accepted, CODES[i], answer, 0xFFFFFFFFu, &returned) == 0 && returned == SIZES[i]);
	}
}

static void fault(void)
{
	for (int i = 0; i < 2; i++) {
		void *bad[] = { NULL, nowhere(), read_only(), forbidden(), at_the_end(SIZES[i] - 1), (void *)-8 };

		for (int j = 0; j < 6; j++) {
			DWORD returned = UNTOUCHED;

			FAILS(query(accepted, CODES[i], bad[j], SIZES[i], &returned), WSAEFAULT);
			CHECK(returned == UNTOUCHED);
			if (j != 4)
				FAILS(query(accepted, CODES[i], answer, SIZES[i], bad[j]), WSAEFAULT);
		}
		FAILS(query(accepted, CODES[i], answer, SIZES[i], at_the_end(3)), WSAEFAULT);
		CHECK(query(accepted, CODES[i], at_the_end(SIZES[i]), SIZES[i], at_the_end(4)) == 0);
		DWORD *returned = malloc(sizeof(DWORD) + 1);
		/* The kernel minds no alignment. */
		CHECK(query(accepted, CODES[i], answer, SIZES[i], (DWORD *)((char *)returned + 1)) == 0);
		free(returned);
	}
}

static void input(void)
{
	for (int i = 0; i < 2; i++) {
		DWORD returned = UNTOUCHED, in = 0;

		FAILS(WSAIoctl(accepted, CODES[i], &in, sizeof(in), answer, sizeof(answer), &returned, NULL, NULL),
		      WSAEINVAL);
		FAILS(WSAIoctl(accepted, CODES[i], NULL, 4, answer, sizeof(answer), &returned, NULL, NULL), WSAEINVAL);
		FAILS(WSAIoctl(accepted, CODES[i], nowhere(), 0, answer, sizeof(answer), &returned, NULL, NULL),
		      WSAEINVAL);
		CHECK(returned == UNTOUCHED);
	}
}

static void of_a_listener(void) { BOTH_FAIL(listener, WSAEINVAL); }

static void not_connected(void)
{
	SOCKET fresh = stream();

	BOTH_FAIL(fresh, WSAENOTCONN);
	CHECK(closesocket(fresh) == 0);
}

static void ended(void)
{
	CHECK(query(accepted, QUERY_RECORDS, answer, sizeof(answer), &(DWORD){ 0 }) == 0);
	ask("close the client");
	char byte;
	recv(accepted, &byte, 1, 0);
	shutdown(accepted, SD_BOTH);
	BOTH_FAIL(accepted, WSAENOTCONN);
}

static void not_redirected(void) { BOTH_FAIL(direct, FWP_E_NOT_FOUND); }

static void outside_of_a_service(void) { BOTH_FAIL(outside, WSAENOPROTOOPT); }

static void of_another_kind(void)
{
	SOCKET kinds[] = { socket(AF_INET, SOCK_DGRAM, 0), socket(AF_INET6, SOCK_DGRAM, 0),
			   socket(AF_UNIX, SOCK_STREAM, 0) };

	for (int i = 0; i < 3; i++) {
		BOTH_FAIL(kinds[i], WSAEOPNOTSUPP);
		CHECK(closesocket(kinds[i]) == 0);
	}
}

static void no_socket(void)
{
	int closed = socket(AF_INET, SOCK_STREAM, 0), pipes[2];

	CHECK(close(closed) == 0 && pipe(pipes) == 0);
	int none[] = { INVALID_SOCKET, closed, pipes[0], 0x7FFFFFFF, -0x7FFFFFFF, open("/dev/null", O_RDONLY) };
	for (int i = 0; i < 6; i++) {
		BOTH_FAIL(none[i], WSAENOTSOCK);
		FAILS(closesocket(none[i]), WSAENOTSOCK);
		FAILS(WSAIoctl(none[i], QUERY_RECORDS, answer, 1, NULL, 0, NULL, NULL, NULL), WSAENOTSOCK);
		FAILS(WSAIoctl(none[i], 0x12345678, NULL, 0, NULL, 0, NULL, NULL, NULL), WSAENOTSOCK);
	}
	/* Not a socket, so not this library's to close. */
	CHECK(fcntl(pipes[0], F_GETFD) != -1);
}

static void would_block(void)
{
	SOCKET s = stream();
	struct slow slow = connecting(s, false);
	u_long yes = 1;

	CHECK(ioctlsocket(s, FIONBIO, &yes) == 0);
	BOTH_FAIL(s, WSAEWOULDBLOCK);
	give_up(&slow);
	closesocket(s);
}

static pthread_t main_thread, helper;

static void *later(void *what)
{
	usleep(300000);
	((void (*)(void))what)();
	return NULL;
}

static void in_a_moment(void (*what)(void))
{
	main_thread = pthread_self();
	CHECK(pthread_create(&helper, NULL, later, (void *)what) == 0);
}

static void has_happened(void)
{
	CHECK(pthread_join(helper, NULL) == 0);
}

static struct slow waiting;

static void on_signal(int signal) { (void)signal; }
static void send_signal(void) { pthread_kill(main_thread, SIGUSR1); }
static void close_it(void) { closesocket(waiting.socket); }
static void finish_it(void) { let_through(&waiting); }

static void interrupted(void)
{
	DWORD returned = UNTOUCHED;

	signal(SIGUSR1, on_signal);
	waiting = connecting(stream(), false);
	in_a_moment(send_signal);
	FAILS(query(waiting.socket, QUERY_RECORDS, answer, sizeof(answer), &returned), WSAEINTR);
	CHECK(returned == UNTOUCHED);
	has_happened();
	give_up(&waiting);
}

static void closed_while_it_waits(void)
{
	waiting = connecting(stream(), false);
	in_a_moment(close_it);
	FAILS(query(waiting.socket, QUERY_CONTEXT, answer, sizeof(answer), &(DWORD){ 0 }), WSAEINTR);
	has_happened();
	give_up(&waiting);
}

/* Blocks until the connection is there; it leads nowhere that was redirected. */
static void waits_for_the_connection(void)
{
	waiting = connecting(stream(), true);
	in_a_moment(finish_it);
	FAILS(query(waiting.socket, QUERY_RECORDS, answer, sizeof(answer), &(DWORD){ 0 }), FWP_E_NOT_FOUND);
	has_happened();
	BOTH_FAIL(waiting.socket, FWP_E_NOT_FOUND);
	give_up(&waiting);
}

static void CALLBACK blocks(DWORD error, DWORD bytes, LPWSAOVERLAPPED overlapped, DWORD flags)
{
	CHECK(error == 0 && bytes == RECORDS && overlapped && flags == 0);
	BOTH_FAIL(waiting.socket, WSAEINPROGRESS);
	/* What need not wait may be asked. */
	CHECK(query(accepted, QUERY_CONTEXT, answer, sizeof(answer), &(DWORD){ 0 }) == 0);
}

static void in_a_completion_routine(void)
{
	WSAOVERLAPPED overlapped = { 0 };

	waiting = connecting(stream(), false);
	CHECK(WSAIoctl(accepted, QUERY_RECORDS, NULL, 0, answer, sizeof(answer), NULL, &overlapped, blocks) == 0);
	CHECK(SleepEx(1000, TRUE) == WSA_WAIT_IO_COMPLETION);
	give_up(&waiting);
}

/* Other programs of this version's name answer in another shape. */
static void another_version(void) { BOTH_FAIL(accepted, WSAENETDOWN); }

static void before_startup(void)
{
	CHECK(WSACleanup() == 0);
	BOTH_FAIL(accepted, WSANOTINITIALISED);
	FAILS(WSACleanup(), WSANOTINITIALISED);
	WSASetLastError(WSANOTINITIALISED);
}

const struct case_ query_cases[] = {
	{ "query_answers", answers, true },
	{ "query_short_buffer", short_buffer, true },
	{ "query_huge_buffer", huge_buffer, true },
	{ "query_fault", fault, true },
	{ "query_input", input, true },
	{ "query_of_a_listener", of_a_listener, true },
	{ "query_not_connected", not_connected, true },
	{ "query_ended", ended, true },
	{ "query_not_redirected", not_redirected, true },
	{ "query_outside_of_a_service", outside_of_a_service, true },
	{ "query_of_another_kind", of_another_kind, true },
	{ "query_no_socket", no_socket, true },
	{ "query_would_block", would_block, true },
	{ "query_interrupted", interrupted, true },
	{ "query_closed_while_it_waits", closed_while_it_waits, true },
	{ "query_waits_for_the_connection", waits_for_the_connection, true },
	{ "query_in_a_completion_routine", in_a_completion_routine, true },
	{ "query_another_version", another_version, true },
	{ "query_before_startup", before_startup, true },
	{ 0 },
};
