/*
 * control-codes list
 * control-codes CASE
 * control-codes CASE PROCS_OF_SERVICE_1 PROCS_OF_SERVICE_2
 *
 * Says "listening PORT" and what it wants done on standard output, and takes a
 * line on standard input for "done".
 */
#include "cases.h"


#include <sys/mman.h>

SOCKET accepted = INVALID_SOCKET, direct = INVALID_SOCKET, listener = INVALID_SOCKET, outside = INVALID_SOCKET;
const char *other_service;

void ask(const char *what)
{
	char line[16];

	printf("%s\n", what);
	fflush(stdout);
	CHECK(fgets(line, sizeof(line), stdin));
}

SOCKET stream(void)
{
	SOCKET s = WSASocketW(AF_INET, SOCK_STREAM, IPPROTO_TCP, NULL, 0, 0);

	CHECK(s != INVALID_SOCKET);
	return s;
}

SOCKET overlapped_stream(void)
{
	SOCKET s = WSASocketA(AF_INET, SOCK_STREAM, IPPROTO_TCP, NULL, 0, WSA_FLAG_OVERLAPPED);

	CHECK(s != INVALID_SOCKET);
	return s;
}

static SOCKET listening(int backlog, struct sockaddr_in *address)
{
	SOCKET s = stream();
	int len = sizeof(*address);

	*address = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	CHECK(bind(s, (struct sockaddr *)address, sizeof(*address)) == 0);
	CHECK(listen(s, backlog) == 0);
	CHECK(getsockname(s, (struct sockaddr *)address, (socklen_t *)&len) == 0);
	return s;
}

static void *connect_in_thread(void *argument)
{
	struct slow *slow = argument;
	struct sockaddr_in address;
	socklen_t len = sizeof(address);

	getsockname(slow->listener, (struct sockaddr *)&address, &len);
	connect(slow->socket, (struct sockaddr *)&address, sizeof(address));
	free(slow);
	return NULL;
}

struct slow connecting(SOCKET socket, bool blocking)
{
	struct slow slow = { .socket = socket };
	struct sockaddr_in address;
	u_long yes = 1, no = 0;

	slow.listener = listening(0, &address);
	/* A queue that is full drops what arrives; the kernel sends it again after a second. */
	for (int i = 0; i < 8; i++) {
		slow.filler[i] = stream();
		CHECK(ioctlsocket(slow.filler[i], FIONBIO, &yes) == 0);
		connect(slow.filler[i], (struct sockaddr *)&address, sizeof(address));
	}
	usleep(20000);
	if (blocking) {
		pthread_t thread;
		struct slow *copy = malloc(sizeof(*copy));

		*copy = slow;
		CHECK(pthread_create(&thread, NULL, connect_in_thread, copy) == 0);
		pthread_detach(thread);
		usleep(50000);
		return slow;
	}
	CHECK(ioctlsocket(socket, FIONBIO, &yes) == 0);
	FAILS(connect(socket, (struct sockaddr *)&address, sizeof(address)), WSAEWOULDBLOCK);
	CHECK(ioctlsocket(socket, FIONBIO, &no) == 0);
	return slow;
}

void let_through(struct slow *slow)
{
	u_long yes = 1;

	for (int i = 0; i < 8; i++)
		CHECK(closesocket(slow->filler[i]) == 0);
	slow->let_through = true;
	CHECK(ioctlsocket(slow->listener, FIONBIO, &yes) == 0);
	for (int i = 0; i < 8; i++)
		accept(slow->listener, NULL, NULL);
}

void give_up(struct slow *slow)
{
	if (!slow->let_through)
		let_through(slow);
	CHECK(closesocket(slow->listener) == 0);
}

int query(SOCKET s, DWORD code, void *out, DWORD len, DWORD *returned)
{
	return WSAIoctl(s, code, NULL, 0, out, len, returned, NULL, NULL);
}

int set(SOCKET s, const void *records, DWORD len)
{
	DWORD returned = UNTOUCHED;
	int result = WSAIoctl(s, SET_RECORDS, (void *)records, len, NULL, 0, &returned, NULL, NULL);

	CHECK(returned == (result == 0 ? 0 : UNTOUCHED));
	return result;
}

void get_records(char records[RECORDS])
{
	DWORD returned = 0;

	CHECK(query(accepted, QUERY_RECORDS, records, RECORDS, &returned) == 0 && returned == RECORDS);
}

static char *pages(int protection)
{
	char *address = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(address != MAP_FAILED);
	CHECK(mprotect(address + 4096, 4096, protection) == 0);
	return address;
}

void *read_only(void) { return pages(PROT_READ) + 4096; }
void *forbidden(void) { return pages(PROT_NONE) + 4096; }
void *nowhere(void) { return (void *)0xdead00000000; }
void *at_the_end(size_t bytes) { return pages(PROT_NONE) + 4096 - bytes; }

void enter(const char *procs)
{
	FILE *file = fopen(procs, "w");

	CHECK(file && fputs("0", file) >= 0 && fclose(file) == 0);
}

static void become_a_service(char **procs)
{
	struct sockaddr_in address;
	char line[32];

	outside = stream();
	enter(procs[0]);
	other_service = procs[1];
	listener = listening(8, &address);
	snprintf(line, sizeof(line), "listening %d", ntohs(address.sin_port));
	ask(line);
	accepted = accept(listener, NULL, NULL);
	direct = accept(listener, NULL, NULL);
	CHECK(accepted != INVALID_SOCKET && direct != INVALID_SOCKET);
}

int main(int argc, char **argv)
{
	const struct case_ *all[] = { query_cases, set_cases, overlapped_cases, other_cases };
	WSADATA data;

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		for (const struct case_ *c = all[i]; c->name; c++) {
			if (argc == 2 && strcmp(argv[1], "list") == 0)
				printf("%s%s\n", c->in_service ? "service " : "", c->name);
			if (strcmp(argv[1], c->name) != 0)
				continue;
			CHECK(WSAStartup(MAKEWORD(2, 2), &data) == 0);
			if (c->in_service)
				become_a_service(argv + 2);
			c->run();
			if (WSAGetLastError() != WSANOTINITIALISED)
				WSACleanup();
			puts("passed");
			return 0;
		}
	}
	return argc == 2 && strcmp(argv[1], "list") == 0 ? 0 : 2;
}
