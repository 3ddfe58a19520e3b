/*
 * A redirect service: it says who connects where, and lets everything pass.
 *
 *     cc -O2 -pthread -o forward forward.c
 *     waylay run --through exec:/path/to/forward -- curl http://example.test/
 *
 * It needs nothing but the C library. One thread accepts on each of the
 * listening sockets that were passed, and each connection has a thread of its own.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* See crates/engine-ebpf/bpf/abi.h. */
#define SOL_WAYLAY 0x5759
#define QUERY_RECORDS 220
#define QUERY_CONTEXT 221
#define SET_RECORDS 222
#define QUERY_ORIGINAL_DST 230
#define RECORDS_SIZE 48
#define CONTEXT_SIZE 1024
#define CONTEXT_PID 80
#define CONTEXT_COMMAND 88

#define FIRST_FD 3
#define MOST_LISTENERS 64
#define BUFFER_SIZE (64 * 1024)
#define STACK_SIZE (256 * 1024)
#define SHORTAGE_PAUSE_US 10000

static pthread_mutex_t running_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t all_ended = PTHREAD_COND_INITIALIZER;
static unsigned running;

static void count_running(int change)
{
	pthread_mutex_lock(&running_lock);
	running += change;
	if (running == 0)
		pthread_cond_signal(&all_ended);
	pthread_mutex_unlock(&running_lock);
}

/*
 * With this a close is a reset, whoever closes: also the kernel, when this
 * process is killed. Otherwise half a file would look like a whole one.
 */
static int reset_on_close(int fd, bool reset)
{
	struct linger linger = { .l_onoff = reset, .l_linger = 0 };

	return setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

/* One way of a connection. Bytes are read only when none are held back. */
struct direction {
	int source, sink;
	char buffer[BUFFER_SIZE];
	size_t start, end;
	unsigned long long count;
	bool ended;
};

static bool would_block(void)
{
	return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

static int advance(struct direction *d)
{
	ssize_t n;

	if (d->start == d->end && !d->ended) {
		n = recv(d->source, d->buffer, sizeof(d->buffer), 0);
		if (n < 0)
			return would_block() ? 0 : -1;
		if (n == 0) {
			d->ended = true; /* The other direction goes on. */
			return shutdown(d->sink, SHUT_WR);
		}
		d->start = 0;
		d->end = n;
	}
	if (d->start < d->end) {
		n = send(d->sink, d->buffer + d->start, d->end - d->start, MSG_NOSIGNAL);
		if (n < 0)
			return would_block() ? 0 : -1;
		d->start += n;
		d->count += n;
	}
	return 0;
}

/* What to wait for on a descriptor; nothing is wanted of one that is -1. */
static struct pollfd interest(int fd, const struct direction *from, const struct direction *to)
{
	struct pollfd interest = { .fd = fd };

	if (from->start == from->end && !from->ended)
		interest.events |= POLLIN;
	if (to->start < to->end)
		interest.events |= POLLOUT;
	if (!interest.events)
		interest.fd = -1;
	return interest;
}

/*
 * Until both directions have ended in order. The first error ends both: it is
 * reported once, and reading on would show a clean end.
 */
static int relay(struct direction *up, struct direction *down)
{
	while (!up->ended || !down->ended) {
		struct pollfd fds[] = { interest(up->source, up, down), interest(down->source, down, up) };

		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return -1;
		if (advance(up) || advance(down))
			return -1;
	}
	return 0;
}

static int set_nonblocking(int fd)
{
	return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

/* A connected socket that carries the records on, or -1. */
static int dial(const struct sockaddr_storage *to, socklen_t length, const void *records)
{
	int fd = socket(to->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int error;

	if (fd < 0)
		return -1;
	if (reset_on_close(fd, true) ||
	    /* Before it connects. */
	    setsockopt(fd, SOL_WAYLAY, SET_RECORDS, records, RECORDS_SIZE) ||
	    connect(fd, (const struct sockaddr *)to, length)) {
		error = errno;
		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

static int forward(int inbound, int outbound, unsigned long long *up_count, unsigned long long *down_count)
{
	struct direction *d = calloc(2, sizeof(*d));
	int result = -1, error;

	if (d && !set_nonblocking(inbound) && !set_nonblocking(outbound)) {
		d[0].source = d[1].sink = inbound;
		d[1].source = d[0].sink = outbound;
		result = relay(&d[0], &d[1]);
		*up_count = d[0].count;
		*down_count = d[1].count;
	}
	if (result == 0 && (reset_on_close(inbound, false) || reset_on_close(outbound, false)))
		result = -1;
	error = errno;
	free(d);
	errno = error;
	return result;
}

/* COMMAND[PID] -> ADDRESS port PORT */
static void name_leg(int inbound, const struct sockaddr_storage *to, char *leg, size_t size)
{
	unsigned char context[CONTEXT_SIZE] = { 0 };
	socklen_t length = sizeof(context);
	char address[INET6_ADDRSTRLEN] = "?";
	const void *ip = to->ss_family == AF_INET ? (const void *)&((struct sockaddr_in *)to)->sin_addr :
						    (const void *)&((struct sockaddr_in6 *)to)->sin6_addr;
	uint32_t pid;

	getsockopt(inbound, SOL_WAYLAY, QUERY_CONTEXT, context, &length);
	memcpy(&pid, context + CONTEXT_PID, sizeof(pid));
	inet_ntop(to->ss_family, ip, address, sizeof(address));
	snprintf(leg, size, "%.16s[%u] -> %s port %u", (const char *)context + CONTEXT_COMMAND, pid, address,
		 ntohs(((struct sockaddr_in *)to)->sin_port));
}

/* Whatever fails, both sides are reset. */
static void serve(int inbound)
{
	unsigned char records[RECORDS_SIZE];
	struct sockaddr_storage to = { 0 };
	socklen_t records_length = sizeof(records), length = sizeof(struct sockaddr_in6);
	unsigned long long up = 0, down = 0;
	int outbound, result, error;
	char leg[128];

	/* It may have been waiting before its listener had the option. */
	if (reset_on_close(inbound, true) ||
	    getsockopt(inbound, SOL_WAYLAY, QUERY_RECORDS, records, &records_length) ||
	    getsockopt(inbound, SOL_WAYLAY, QUERY_ORIGINAL_DST, &to, &length)) {
		close(inbound); /* Somebody dialled the listener, or has left already. */
		return;
	}
	name_leg(inbound, &to, leg, sizeof(leg));
	outbound = dial(&to, length, records);
	result = outbound < 0 ? -1 : forward(inbound, outbound, &up, &down);
	error = errno;
	close(inbound);
	if (outbound >= 0)
		close(outbound);
	if (result)
		printf("%s: %s\n", leg, strerror(error));
	else
		printf("%s: %llu B up, %llu B down\n", leg, up, down);
}

static void *serve_thread(void *fd)
{
	serve((int)(intptr_t)fd);
	count_running(-1);
	return NULL;
}

static void start_serving(int inbound)
{
	pthread_attr_t attributes;
	pthread_t thread;

	count_running(1);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attributes, STACK_SIZE);
	if (pthread_create(&thread, &attributes, serve_thread, (void *)(intptr_t)inbound)) {
		close(inbound);
		count_running(-1);
	}
	pthread_attr_destroy(&attributes);
}

/* Its read end hangs up when the service is to end. */
static int stop[2];

/* Serves until the service is to end, then those that wait already. */
static void *accept_thread(void *fd)
{
	int listener = (int)(intptr_t)fd;

	for (;;) {
		struct pollfd fds[] = { { .fd = listener, .events = POLLIN }, { .fd = stop[0] } };
		int ready = poll(fds, 2, -1), inbound = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (inbound >= 0) {
			start_serving(inbound);
		} else if (errno == EAGAIN) {
			if (ready > 0 && fds[1].revents) {
				close(listener);
				return NULL;
			}
		} else {
			usleep(SHORTAGE_PAUSE_US); /* No descriptor or memory left, or the client gave up. */
		}
	}
}

/* The sockets that sd_listen_fds(3) describes, as far as they are TCP's. */
static int passed_listeners(int listeners[MOST_LISTENERS])
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS"), *names = getenv("LISTEN_FDNAMES");
	char *copy = names ? strdup(names) : NULL, *rest = copy, *name;
	int count = 0, last = FIRST_FD + (fds ? atoi(fds) : 0);

	if (pid && atoi(pid) != getpid())
		last = FIRST_FD;
	for (int fd = FIRST_FD; fd < last && count < MOST_LISTENERS && (name = strsep(&rest, ":")); fd++) {
		if (!strcmp(name, "tcp4") || !strcmp(name, "tcp6"))
			listeners[count++] = fd;
	}
	free(copy);
	return count;
}

int main(void)
{
	int listeners[MOST_LISTENERS], count = passed_listeners(listeners), signal;
	pthread_t accepting[MOST_LISTENERS];
	struct rlimit descriptors;
	sigset_t terminate;

	if (!count) {
		fputs("forward: no listening sockets; start it by `waylay run --through exec:...`\n", stderr);
		return 1;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	/* Two are needed for each connection. With fewer it serves fewer at a time. */
	if (!getrlimit(RLIMIT_NOFILE, &descriptors)) {
		descriptors.rlim_cur = descriptors.rlim_max;
		setrlimit(RLIMIT_NOFILE, &descriptors);
	}
	if (pipe2(stop, O_CLOEXEC)) {
		perror("forward");
		return 1;
	}
	/* Every thread inherits this, so that the signal waits until it is asked for. */
	sigemptyset(&terminate);
	sigaddset(&terminate, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &terminate, NULL);
	for (int i = 0; i < count; i++) {
		/* What it accepts inherits the first, not the second. */
		if (reset_on_close(listeners[i], true) || set_nonblocking(listeners[i]) ||
		    pthread_create(&accepting[i], NULL, accept_thread, (void *)(intptr_t)listeners[i])) {
			perror("forward");
			return 1;
		}
	}
	sigwait(&terminate, &signal);
	close(stop[1]);
	for (int i = 0; i < count; i++)
		pthread_join(accepting[i], NULL);
	pthread_mutex_lock(&running_lock);
	while (running)
		pthread_cond_wait(&all_ended, &running_lock);
	return 0;
}
