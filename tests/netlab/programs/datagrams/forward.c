/*
 * A service of datagrams, as one for Windows would be written: WSARecvMsg finds
 * the records and the context of a flow beside its first datagram, WSASendMsg
 * sends them with the first that goes on. For one socket of IPv4, and flows that
 * come and go one at a time.
 */
#include <winsock2.h>
#include <ws2tcpip.h>
#include <mswsock.h>
#include <waylay_context.h>

#include <arpa/inet.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST 3 /* sd_listen_fds(3) */
#define FLOWS 16

static struct flow {
	struct sockaddr_in peer, destination;
	SOCKET out;
} flows[FLOWS];
static int count;
static SOCKET service;

static void check(bool fine, const char *what)
{
	if (fine)
		return;
	printf("%s: %d\n", what, WSAGetLastError());
	exit(1);
}

/* The data of a control message of that type, if there is one. */
static void *beside(WSAMSG *message, int type, size_t *length)
{
	for (WSACMSGHDR *one = WSA_CMSG_FIRSTHDR(message); one; one = WSA_CMSG_NXTHDR(message, one)) {
		if (one->cmsg_level != IPPROTO_IP || one->cmsg_type != type)
			continue;
		*length = one->cmsg_len - WSA_CMSG_LEN(0);
		return WSA_CMSG_DATA(one);
	}
	return NULL;
}

static struct flow *flow_of(const struct sockaddr_in *peer)
{
	for (int i = 0; i < count; i++)
		if (flows[i].peer.sin_port == peer->sin_port)
			return &flows[i];
	return NULL;
}

/* The first datagram goes on with the records; what follows has them already. */
static void begin(const struct sockaddr_in *peer, void *records, size_t length, WAYLAY_REDIRECT_CONTEXT *context,
		  WSABUF data)
{
	struct flow *flow = &flows[count++];
	char control[WSA_CMSG_SPACE(64)] = { 0 };
	WSACMSGHDR *header = (WSACMSGHDR *)control;
	WSAMSG message = { 0 };
	DWORD sent;

	check(count <= FLOWS && length <= 64, "room");
	flow->peer = *peer;
	flow->destination.sin_family = AF_INET;
	memcpy(&flow->destination.sin_addr, context->Destination.Ip + 12, 4);
	flow->destination.sin_port = htons(context->Destination.Port);
	flow->out = WSASocketA(AF_INET, SOCK_DGRAM, IPPROTO_UDP, NULL, 0, 0);
	check(flow->out != INVALID_SOCKET, "socket");
	header->cmsg_len = WSA_CMSG_LEN(length);
	header->cmsg_level = IPPROTO_IP;
	header->cmsg_type = IP_WFP_REDIRECT_RECORDS;
	memcpy(WSA_CMSG_DATA(header), records, length);
	message.name = (LPSOCKADDR)&flow->destination;
	message.namelen = sizeof(flow->destination);
	message.lpBuffers = &data;
	message.dwBufferCount = 1;
	message.Control.buf = control;
	message.Control.len = WSA_CMSG_SPACE(length);
	check(!WSASendMsg(flow->out, &message, 0, &sent, NULL, NULL) && sent == data.len, "the first");
	printf("announced %zu %zu\n", length, sizeof(*context));
}

static void from_the_application(void)
{
	struct sockaddr_in peer;
	char bytes[2048], control[2048];
	WSABUF data = { .len = sizeof(bytes), .buf = bytes };
	WSAMSG message = { .name = (LPSOCKADDR)&peer, .namelen = sizeof(peer), .lpBuffers = &data, .dwBufferCount = 1 };
	size_t length, size;
	void *records, *context;
	struct flow *flow;

	message.Control.buf = control;
	message.Control.len = sizeof(control);
	check(!WSARecvMsg(service, &message, (DWORD *)&data.len, NULL, NULL), "receive");
	records = beside(&message, IP_WFP_REDIRECT_RECORDS, &length);
	context = beside(&message, IP_WFP_REDIRECT_CONTEXT, &size);
	if (records) {
		check(context && size == sizeof(WAYLAY_REDIRECT_CONTEXT), "context");
		begin(&peer, records, length, context, data);
		return;
	}
	flow = flow_of(&peer);
	check(flow && !context, "a flow that was announced");
	check(sendto(flow->out, bytes, data.len, 0, (struct sockaddr *)&flow->destination, sizeof(peer)) == (int)data.len,
	      "what follows");
	printf("followed\n");
}

static void from_the_destination(struct flow *flow)
{
	char bytes[2048];
	WSABUF data = { .buf = bytes };
	WSAMSG message = { .name = (LPSOCKADDR)&flow->peer, .namelen = sizeof(flow->peer), .lpBuffers = &data,
			   .dwBufferCount = 1 };
	DWORD sent;

	data.len = (ULONG)recv(flow->out, bytes, sizeof(bytes), 0);
	check(!WSASendMsg(service, &message, 0, &sent, NULL, NULL) && sent == data.len, "answer");
}

/* The socket that is named so. */
static SOCKET passed(const char *wanted)
{
	SOCKET next = FIRST;

	for (char *name = strtok(getenv("LISTEN_FDNAMES"), ":"); name; name = strtok(NULL, ":"), next++)
		if (!strcmp(name, wanted))
			return next;
	return INVALID_SOCKET;
}

int main(void)
{
	WSADATA data;

	setvbuf(stdout, NULL, _IOLBF, 0);
	check(!WSAStartup(MAKEWORD(2, 2), &data), "WSAStartup");
	service = passed("udp4");
	check(service != INVALID_SOCKET, "udp4");
	for (;;) {
		struct pollfd polled[1 + FLOWS] = { { .fd = service, .events = POLLIN } };

		for (int i = 0; i < count; i++)
			polled[1 + i] = (struct pollfd){ .fd = flows[i].out, .events = POLLIN };
		check(poll(polled, (nfds_t)count + 1, -1) > 0, "poll");
		for (int i = count; i > 0; i--)
			if (polled[i].revents)
				from_the_destination(&flows[i - 1]);
		if (polled[0].revents)
			from_the_application();
	}
}
