/* What overlapped calls do at once, later, and never. */
#include "cases.h"

static char answer[1024];
static struct slow slow;

/* Outside of every service a query of an established connection comes to this. */
#define IN_THE_END WSAENOPROTOOPT

static int begin(SOCKET s, WSAOVERLAPPED *overlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE routine)
{
	DWORD returned = UNTOUCHED;
	int result = WSAIoctl(s, QUERY_RECORDS, NULL, 0, answer, sizeof(answer), &returned, overlapped, routine);
	int error = WSAGetLastError();

	if (result == SOCKET_ERROR)
		CHECK(returned == UNTOUCHED);
	WSASetLastError(error);
	return result;
}

static void pend(SOCKET s, WSAOVERLAPPED *overlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE routine)
{
	FAILS(begin(s, overlapped, routine), WSA_IO_PENDING);
	CHECK(!HasOverlappedIoCompleted(overlapped));
}

static bool is_set(WSAEVENT event)
{
	return WSAWaitForMultipleEvents(1, &event, FALSE, 0, FALSE) == WSA_WAIT_EVENT_0;
}

static void wait_for(WSAEVENT event)
{
	CHECK(WSAWaitForMultipleEvents(1, &event, FALSE, 10000, FALSE) == WSA_WAIT_EVENT_0);
}

/* Memory of an operation that is done is the program's: it stays as the program leaves it. */
static void reuse(WSAOVERLAPPED *overlapped)
{
	memset(overlapped, 0xA5, sizeof(*overlapped));
	SleepEx(100, TRUE);
	for (size_t i = 0; i < sizeof(*overlapped); i++)
		CHECK(((unsigned char *)overlapped)[i] == 0xA5);
	free(overlapped);
}

static WSAOVERLAPPED *with_event(void)
{
	WSAOVERLAPPED *overlapped = calloc(1, sizeof(*overlapped));

	overlapped->hEvent = WSACreateEvent();
	CHECK(overlapped->hEvent != WSA_INVALID_EVENT);
	return overlapped;
}

static void at_once_sets_the_event(void)
{
	WSAOVERLAPPED *overlapped = with_event();
	DWORD bytes = UNTOUCHED, flags = UNTOUCHED, returned = UNTOUCHED;

	CHECK(!is_set(overlapped->hEvent));
	CHECK(WSAIoctl(accepted, QUERY_CONTEXT, NULL, 0, answer, sizeof(answer), &returned, overlapped, NULL) == 0);
	CHECK(returned == CONTEXT && is_set(overlapped->hEvent) && HasOverlappedIoCompleted(overlapped));
	CHECK(WSAGetOverlappedResult(accepted, overlapped, &bytes, FALSE, &flags) && bytes == CONTEXT && flags == 0);
	CHECK(WSAGetOverlappedResult(accepted, overlapped, &bytes, TRUE, &flags));
	CHECK(WSACloseEvent(overlapped->hEvent));
	reuse(overlapped);
}

static int calls;
static pthread_t called_in;
static WSAOVERLAPPED *called_with;

static void CALLBACK note(DWORD error, DWORD bytes, LPWSAOVERLAPPED overlapped, DWORD flags)
{
	CHECK(flags == 0 && (error == 0 ? bytes == RECORDS : bytes == 0));
	WSASetLastError((int)error);
	calls++;
	called_in = pthread_self();
	called_with = overlapped;
}

static void at_once_queues_the_routine(void)
{
	WSAOVERLAPPED *overlapped = calloc(1, sizeof(*overlapped));
	WSAEVENT event = WSACreateEvent();

	/* Not an event: with a routine it is the program's to use. */
	overlapped->hEvent = nowhere();
	CHECK(begin(accepted, overlapped, note) == 0);
	CHECK(calls == 0);
	SleepEx(50, FALSE);
	CHECK(WSAWaitForMultipleEvents(1, &event, FALSE, 50, FALSE) == WSA_WAIT_TIMEOUT && calls == 0);
	CHECK(WSAWaitForMultipleEvents(1, &event, FALSE, 1000, TRUE) == WSA_WAIT_IO_COMPLETION);
	CHECK(calls == 1 && called_with == overlapped && pthread_equal(called_in, pthread_self()));
	CHECK(SleepEx(50, TRUE) == 0 && calls == 1);
	reuse(overlapped);
}

static void of_a_socket_without_the_attribute(void)
{
	char records[RECORDS];
	DWORD returned = UNTOUCHED;

	get_records(records);
	/* Neither is looked at. */
	CHECK(WSAIoctl(stream(), SET_RECORDS, records, RECORDS, NULL, 0, &returned, nowhere(), note) == 0);
	CHECK(returned == 0 && SleepEx(0, TRUE) == 0 && calls == 0);
	FAILS(WSAIoctl(stream(), SET_RECORDS, records, RECORDS, NULL, 0, NULL, nowhere(), note), WSAEFAULT);
	/* Sockets of the C library, and those it accepts, have it, as socket() gives it on Windows. */
	FAILS(WSAIoctl(accepted, QUERY_RECORDS, NULL, 0, answer, sizeof(answer), NULL, nowhere(), NULL), WSAEFAULT);
}

static void that_fails_at_once_indicates_nothing(void)
{
	WSAOVERLAPPED *overlapped = with_event(), before;
	DWORD returned = UNTOUCHED;

	WSASetEvent(overlapped->hEvent);
	before = *overlapped;
	FAILS(WSAIoctl(accepted, QUERY_RECORDS, NULL, 0, answer, 4, &returned, overlapped, NULL),
	      ERROR_INSUFFICIENT_BUFFER);
	CHECK(returned == RECORDS);
	FAILS(begin(direct, overlapped, NULL), FWP_E_NOT_FOUND);
	CHECK(memcmp(overlapped, &before, sizeof(before)) == 0 && is_set(overlapped->hEvent));
	FAILS(begin(direct, overlapped, note), FWP_E_NOT_FOUND);
	CHECK(SleepEx(0, TRUE) == 0 && calls == 0);
	reuse(overlapped);
}

static void wild_structures(void)
{
	void *bad[] = { nowhere(), read_only(), forbidden(), at_the_end(sizeof(WSAOVERLAPPED) - 8), (void *)-16 };
	char *misaligned = calloc(2, sizeof(WSAOVERLAPPED));

	for (int i = 0; i < 5; i++) {
		FAILS(begin(accepted, bad[i], NULL), WSAEFAULT);
		FAILS(begin(accepted, bad[i], note), WSAEFAULT);
	}
	for (int i = 1; i < 8; i++)
		FAILS(begin(accepted, (WSAOVERLAPPED *)(misaligned + i), NULL), WSAEFAULT);
	/* A routine without a structure would have nothing to be called with. */
	FAILS(begin(accepted, NULL, note), WSAEINVAL);
	WSAOVERLAPPED closed = { .hEvent = WSACreateEvent() }, wild = { .hEvent = nowhere() };
	CHECK(WSACloseEvent(closed.hEvent));
	FAILS(begin(accepted, &closed, NULL), WSAEINVAL);
	FAILS(begin(accepted, &wild, NULL), WSAEINVAL);
	FAILS(WSAIoctl(accepted, QUERY_RECORDS, NULL, 0, answer, 64, read_only(), &(WSAOVERLAPPED){ 0 }, NULL), WSAEFAULT);
	CHECK(SleepEx(0, TRUE) == 0 && calls == 0);
	free(misaligned);
}

static void pends_and_sets_the_event(void)
{
	WSAOVERLAPPED *overlapped = with_event();
	DWORD bytes = UNTOUCHED, flags = UNTOUCHED;

	slow = connecting(overlapped_stream(), false);
	WSASetEvent(overlapped->hEvent);
	pend(slow.socket, overlapped, NULL);
	CHECK(!is_set(overlapped->hEvent));
	FAILS(WSAGetOverlappedResult(slow.socket, overlapped, &bytes, FALSE, &flags) - 1, WSA_IO_INCOMPLETE);
	let_through(&slow);
	wait_for(overlapped->hEvent);
	CHECK(overlapped->Internal == IN_THE_END && overlapped->InternalHigh == 0);
	FAILS(WSAGetOverlappedResult(slow.socket, overlapped, &bytes, TRUE, &flags) - 1, IN_THE_END);
	CHECK(bytes == UNTOUCHED && flags == UNTOUCHED);
	CHECK(WSACloseEvent(overlapped->hEvent));
	reuse(overlapped);
	give_up(&slow);
}

static void pends_and_is_waited_for(void)
{
	WSAOVERLAPPED *overlapped = with_event();
	DWORD bytes = UNTOUCHED, flags = UNTOUCHED;

	slow = connecting(overlapped_stream(), false);
	pend(slow.socket, overlapped, NULL);
	let_through(&slow);
	FAILS(WSAGetOverlappedResult(slow.socket, overlapped, &bytes, TRUE, &flags) - 1, IN_THE_END);
	CHECK(is_set(overlapped->hEvent) && bytes == UNTOUCHED);
	give_up(&slow);
	free(overlapped);
}

static void pends_and_queues_the_routine(void)
{
	WSAOVERLAPPED *overlapped = calloc(1, sizeof(*overlapped));
	DWORD bytes, flags;

	slow = connecting(overlapped_stream(), false);
	pend(slow.socket, overlapped, note);
	FAILS(WSAGetOverlappedResult(slow.socket, overlapped, &bytes, TRUE, &flags) - 1, WSA_INVALID_HANDLE);
	overlapped->hEvent = WSACreateEvent();
	FAILS(WSAGetOverlappedResult(slow.socket, overlapped, &bytes, TRUE, &flags) - 1, WSA_INVALID_PARAMETER);
	let_through(&slow);
	CHECK(SleepEx(10000, TRUE) == WSA_WAIT_IO_COMPLETION);
	CHECK(calls == 1 && called_with == overlapped && WSAGetLastError() == IN_THE_END);
	CHECK(pthread_equal(called_in, pthread_self()));
	reuse(overlapped);
	give_up(&slow);
}

/* A connection that fails ends what waits for it. */
static void pends_and_the_connection_fails(void)
{
	WSAOVERLAPPED *overlapped = with_event();
	SOCKET s = overlapped_stream();

	slow = connecting(s, false);
	pend(s, overlapped, NULL);
	shutdown(s, SD_BOTH);
	wait_for(overlapped->hEvent);
	CHECK(overlapped->Internal == IN_THE_END);
	give_up(&slow);
	free(overlapped);
}

static void aborted_by_close(void)
{
	WSAOVERLAPPED *overlapped = with_event(), *other = calloc(1, sizeof(*other));

	slow = connecting(overlapped_stream(), false);
	pend(slow.socket, overlapped, NULL);
	pend(slow.socket, other, note);
	CHECK(closesocket(slow.socket) == 0);
	wait_for(overlapped->hEvent);
	CHECK(overlapped->Internal == WSA_OPERATION_ABORTED);
	CHECK(SleepEx(1000, TRUE) == WSA_WAIT_IO_COMPLETION && WSAGetLastError() == WSA_OPERATION_ABORTED);
	FAILS(closesocket(slow.socket), WSAENOTSOCK);
	reuse(overlapped);
	reuse(other);
	give_up(&slow);
}

static void aborted_by_flush(void)
{
	WSAOVERLAPPED *overlapped = with_event();
	DWORD bytes = UNTOUCHED, flags;

	slow = connecting(overlapped_stream(), false);
	pend(slow.socket, overlapped, NULL);
	CHECK(WSAIoctl(slow.socket, SIO_FLUSH, NULL, 0, NULL, 0, &bytes, NULL, NULL) == 0 && bytes == 0);
	CHECK(is_set(overlapped->hEvent));
	FAILS(WSAGetOverlappedResult(slow.socket, overlapped, &bytes, FALSE, &flags) - 1, WSA_OPERATION_ABORTED);
	/* The structure and the socket can be used again. */
	pend(slow.socket, overlapped, NULL);
	CHECK(closesocket(slow.socket) == 0);
	reuse(overlapped);
	give_up(&slow);
}

static void *begin_and_exit(void *overlapped)
{
	pend(slow.socket, overlapped, NULL);
	return NULL;
}

static void aborted_by_the_end_of_its_thread(void)
{
	WSAOVERLAPPED *overlapped = with_event();
	pthread_t thread;

	slow = connecting(overlapped_stream(), false);
	CHECK(pthread_create(&thread, NULL, begin_and_exit, overlapped) == 0);
	CHECK(pthread_join(thread, NULL) == 0);
	CHECK(is_set(overlapped->hEvent) && overlapped->Internal == WSA_OPERATION_ABORTED);
	reuse(overlapped);
	give_up(&slow);
}

static void aborted_by_cleanup(void)
{
	WSAOVERLAPPED *overlapped = with_event();

	slow = connecting(overlapped_stream(), false);
	pend(slow.socket, overlapped, NULL);
	CHECK(WSACleanup() == 0);
	CHECK(overlapped->Internal == WSA_OPERATION_ABORTED);
	WSASetLastError(WSANOTINITIALISED);
}

static void *use_too(void *overlapped)
{
	for (int i = 0; i < 200; i++)
		FAILS(begin(slow.socket, overlapped, NULL), WSAEINVAL);
	return NULL;
}

static void used_by_two_threads(void)
{
	WSAOVERLAPPED *overlapped = with_event();
	pthread_t threads[4];

	slow = connecting(overlapped_stream(), false);
	pend(slow.socket, overlapped, NULL);
	for (int i = 0; i < 4; i++)
		CHECK(pthread_create(&threads[i], NULL, use_too, overlapped) == 0);
	for (int i = 0; i < 4; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	CHECK(!HasOverlappedIoCompleted(overlapped));
	let_through(&slow);
	wait_for(overlapped->hEvent);
	give_up(&slow);
	free(overlapped);
}

static void *begin_and_close(void *unused)
{
	(void)unused;
	for (int i = 0; i < 50; i++) {
		WSAOVERLAPPED *overlapped = with_event();
		SOCKET s = overlapped_stream();
		struct slow own = connecting(s, false);

		pend(s, overlapped, NULL);
		CHECK(closesocket(s) == 0);
		CHECK(overlapped->Internal == WSA_OPERATION_ABORTED && WSACloseEvent(overlapped->hEvent));
		free(overlapped);
		give_up(&own);
	}
	return NULL;
}

static void of_many_threads(void)
{
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		CHECK(pthread_create(&threads[i], NULL, begin_and_close, NULL) == 0);
	for (int i = 0; i < 4; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
}

/* WSPIoctl: the code goes where the caller says, the routine to the thread it names. */
static WSATHREADID named;
static volatile int other_calls, ready, done;

static void CALLBACK note_other(DWORD error, DWORD bytes, LPWSAOVERLAPPED overlapped, DWORD flags)
{
	(void)overlapped, (void)flags;
	CHECK(error == 0 && bytes == RECORDS && !pthread_equal(called_in, pthread_self()));
	__atomic_add_fetch(&other_calls, 1, __ATOMIC_SEQ_CST);
}

static void *wait_alertably(void *unused)
{
	int error = 0;

	(void)unused;
	CHECK(WPUOpenCurrentThread(&named, &error) == 0);
	__atomic_store_n(&ready, 1, __ATOMIC_SEQ_CST);
	CHECK(SleepEx(10000, TRUE) == WSA_WAIT_IO_COMPLETION);
	CHECK(WPUCloseThread(&named, &error) == 0);
	__atomic_store_n(&done, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

static int provider(SOCKET s, DWORD size, WSAOVERLAPPED *overlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE routine,
		    WSATHREADID *thread, int *error)
{
	DWORD returned;

	return WSPIoctl(s, QUERY_RECORDS, NULL, 0, answer, size, &returned, overlapped, routine, thread, error);
}

static void of_a_provider(void)
{
	WSAOVERLAPPED overlapped = { 0 };
	WSATHREADID wild = { .ThreadHandle = nowhere() };
	pthread_t thread;
	int error = 0;

	CHECK(provider(accepted, RECORDS, NULL, NULL, NULL, &error) == 0 && error == 0);
	WSASetLastError(77);
	CHECK(provider(direct, RECORDS, NULL, NULL, NULL, &error) == SOCKET_ERROR);
	CHECK(error == (int)FWP_E_NOT_FOUND && WSAGetLastError() == 77);
	CHECK(provider(-1, RECORDS, NULL, NULL, NULL, NULL) == SOCKET_ERROR);
	CHECK(provider(-1, RECORDS, NULL, NULL, NULL, nowhere()) == SOCKET_ERROR);
	CHECK(provider(accepted, RECORDS, &overlapped, note, NULL, &error) == SOCKET_ERROR && error == WSAEFAULT);
	CHECK(provider(accepted, RECORDS, &overlapped, note, nowhere(), &error) == SOCKET_ERROR && error == WSAEFAULT);
	CHECK(provider(accepted, RECORDS, &overlapped, note, &wild, &error) == SOCKET_ERROR && error == WSAEINVAL);
	called_in = pthread_self();
	CHECK(pthread_create(&thread, NULL, wait_alertably, NULL) == 0);
	while (!__atomic_load_n(&ready, __ATOMIC_SEQ_CST))
		usleep(1000);
	CHECK(provider(accepted, RECORDS, &overlapped, note_other, &named, &error) == 0);
	CHECK(pthread_join(thread, NULL) == 0 && other_calls == 1 && done);
	CHECK(provider(accepted, RECORDS, &overlapped, note, &named, &error) == SOCKET_ERROR && error == WSAEINVAL);
	FAILS(WPUOpenCurrentThread(NULL, &error), 0);
	CHECK(error == WSAEFAULT);
}

const struct case_ overlapped_cases[] = {
	{ "overlapped_at_once_sets_the_event", at_once_sets_the_event, true },
	{ "overlapped_at_once_queues_the_routine", at_once_queues_the_routine, true },
	{ "overlapped_of_a_socket_without_the_attribute", of_a_socket_without_the_attribute, true },
	{ "overlapped_that_fails_at_once_indicates_nothing", that_fails_at_once_indicates_nothing, true },
	{ "overlapped_wild_structures", wild_structures, true },
	{ "overlapped_of_a_provider", of_a_provider, true },
	{ "overlapped_pends_and_sets_the_event", pends_and_sets_the_event, false },
	{ "overlapped_pends_and_is_waited_for", pends_and_is_waited_for, false },
	{ "overlapped_pends_and_queues_the_routine", pends_and_queues_the_routine, false },
	{ "overlapped_pends_and_the_connection_fails", pends_and_the_connection_fails, false },
	{ "overlapped_aborted_by_close", aborted_by_close, false },
	{ "overlapped_aborted_by_flush", aborted_by_flush, false },
	{ "overlapped_aborted_by_the_end_of_its_thread", aborted_by_the_end_of_its_thread, false },
	{ "overlapped_aborted_by_cleanup", aborted_by_cleanup, false },
	{ "overlapped_used_by_two_threads", used_by_two_threads, false },
	{ "overlapped_of_many_threads", of_many_threads, false },
	{ 0 },
};
