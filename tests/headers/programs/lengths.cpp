/*
 * What waylay_lengths.h is for, tried on real sockets: lengths of int and of
 * socklen_t, no length at all, and SO_ERROR in the code that goes with each.
 */
#include <winsock2.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define HAS_TO(condition)                                                                                    \
	do {                                                                                                 \
		if (!(condition)) {                                                                          \
			std::fprintf(stderr, "line %d: %s: %s\n", __LINE__, #condition, std::strerror(errno));  \
			std::exit(1);                                                                        \
		}                                                                                            \
	} while (0)

static SOCKADDR_IN loopback()
{
	SOCKADDR_IN address = {};
	address.sin_family = AF_INET;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return address;
}

static SOCKET dial(const SOCKADDR_IN &to)
{
	SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
	HAS_TO(connect(s, (const SOCKADDR *)&to, sizeof(to)) == 0);
	return s;
}

static void addresses(SOCKET listener, const SOCKADDR_IN &at)
{
	SOCKADDR_IN peer = {}, own = {};
	int length = sizeof(peer);
	socklen_t linux_length = sizeof(own);
	SOCKET client = dial(at), accepted = accept(listener, (SOCKADDR *)&peer, &length);
	HAS_TO(accepted >= 0 && length == sizeof(peer));
	length = sizeof(own);
	HAS_TO(getsockname(client, (SOCKADDR *)&own, &length) == 0 && own.sin_port == peer.sin_port);
	HAS_TO(getpeername(accepted, (SOCKADDR *)&own, &linux_length) == 0 && own.sin_port == peer.sin_port);
	HAS_TO(getpeername(client, (SOCKADDR *)&own, &length) == 0 && own.sin_port == at.sin_port);
	char byte = 'x';
	HAS_TO(send(accepted, &byte, 1, 0) == 1);
	length = sizeof(own);
	HAS_TO(recvfrom(client, &byte, 1, 0, (SOCKADDR *)&own, &length) == 1 && byte == 'x');
	dial(at);
	HAS_TO(accept(listener, NULL, NULL) >= 0);
	dial(at);
	HAS_TO(accept(listener, nullptr, (int *)0) >= 0);
	length = 1;
	dial(at);
	HAS_TO(accept(listener, (SOCKADDR *)&own, &length) >= 0 && length == sizeof(own));
}

static void errors(const SOCKADDR_IN &nobody)
{
	SOCKET s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	HAS_TO(connect(s, (const SOCKADDR *)&nobody, sizeof(nobody)) != 0 && errno == EINPROGRESS);
	WSAPOLLFD polled = {};
	polled.fd = s;
	polled.events = POLLOUT;
	HAS_TO(WSAPoll(&polled, 1, 10000) == 1);
	int error = 0, length = sizeof(error);
	HAS_TO(getsockopt(s, SOL_SOCKET, SO_ERROR, (char *)&error, &length) == 0 && error == WSAECONNREFUSED);
	HAS_TO(getsockopt(s, SOL_SOCKET, SO_ERROR, (char *)&error, &length) == 0 && error == 0);
	int type = 0;
	HAS_TO(getsockopt(s, SOL_SOCKET, SO_TYPE, (char *)&type, &length) == 0 && type == SOCK_STREAM);
	socklen_t linux_length = sizeof(error);
	s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	HAS_TO(connect(s, (const SOCKADDR *)&nobody, sizeof(nobody)) != 0);
	polled.fd = s;
	HAS_TO(WSAPoll(&polled, 1, 10000) == 1);
	HAS_TO(getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &linux_length) == 0 && error == ECONNREFUSED);
}

int main()
{
	SOCKADDR_IN at = loopback(), nobody = loopback();
	int length = sizeof(at);
	SOCKET listener = socket(AF_INET, SOCK_STREAM, 0), bound = socket(AF_INET, SOCK_STREAM, 0);
	HAS_TO(bind(listener, (SOCKADDR *)&at, sizeof(at)) == 0 && listen(listener, 5) == 0);
	HAS_TO(getsockname(listener, (SOCKADDR *)&at, &length) == 0);
	addresses(listener, at);
	HAS_TO(bind(bound, (SOCKADDR *)&nobody, sizeof(nobody)) == 0);
	HAS_TO(getsockname(bound, (SOCKADDR *)&nobody, &length) == 0);
	errors(nobody);
	for (int error = 0; error < 200; error++)
		std::printf("%d\n", waylay::socket_error(error));
	return 0;
}
