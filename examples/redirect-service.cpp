/*
 * A redirect service: it says who connects where, and lets everything pass.
 *
 * One source, written against Winsock and its three control codes, for Windows, where
 * a callout driver redirects to it, and for Linux, where waylay does:
 *
 *     x86_64-w64-mingw32-g++ -O2 -static -o redirect-service.exe redirect-service.cpp -lws2_32
 *     redirect-service.exe 127.0.0.1 9000        (as administrator)
 *
 *     g++ -O2 -o redirect-service redirect-service.cpp $(pkg-config --cflags --libs waylay-ws2)
 *     waylay run --through exec:./redirect-service -- curl http://example.test/
 *
 * One thread waits for all sockets. Each lingers for no time from its first moment on:
 * whatever goes wrong is a reset then, and half a file never looks like a whole one.
 */
#include <winsock2.h>
#include <ws2tcpip.h>
#include <mstcpip.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

/* What waylay's context holds; that of a driver is in the driver's own header. */
#if __has_include(<waylay_context.h>)
#include <waylay_context.h>
#endif

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

static const int STOP_CHECK_MS = 250; /* A signal may come right before the wait that it is to end. */
static const DWORD SHORTAGE_PAUSE_MS = 10;
static volatile std::sig_atomic_t stopping = 0;

/* One of Winsock's codes, thrown. */
struct Error {
	int code;
	std::string text() const
	{
		return (code == WSAECONNREFUSED ? "connection refused: " : "") + ("error " + std::to_string(code));
	}
};

static void check(int result)
{
	if (result == SOCKET_ERROR)
		throw Error{ WSAGetLastError() };
}

static void say(const std::string &line)
{
	std::puts(line.c_str());
	std::fflush(stdout);
}

static void set_nonblocking(SOCKET s)
{
	u_long yes = 1;
	check(ioctlsocket(s, FIONBIO, &yes));
}

static void reset_on_close(SOCKET s, bool reset)
{
	struct linger none = { (unsigned short)reset, 0 };
	check(setsockopt(s, SOL_SOCKET, SO_LINGER, (const char *)&none, sizeof(none)));
}

/* Asks for the size first: it is nobody's business but the system's. */
static std::vector<char> query(SOCKET s, DWORD code)
{
	DWORD size = 0;
	if (WSAIoctl(s, code, NULL, 0, NULL, 0, &size, NULL, NULL) && WSAGetLastError() != ERROR_INSUFFICIENT_BUFFER)
		throw Error{ WSAGetLastError() };
	std::vector<char> answer(size);
	check(WSAIoctl(s, code, NULL, 0, answer.data(), size, &size, NULL, NULL));
	return answer;
}

/* The same for what a socket may not be ready for: then it stays SOCKET_ERROR. */
static int check_unless_blocked(int result)
{
	if (result == SOCKET_ERROR && WSAGetLastError() != WSAEWOULDBLOCK)
		throw Error{ WSAGetLastError() };
	return result;
}

/* One way of a connection. Bytes are read only when none are held back. */
struct Direction {
	SOCKET source, sink;
	std::vector<char> buffer = std::vector<char>(64 * 1024);
	int start = 0, end = 0;
	unsigned long long count = 0;
	bool ended = false;

	bool wants_input() const { return start == end && !ended; }
	bool wants_output() const { return start < end; }
	void advance()
	{
		if (wants_input()) {
			int n = check_unless_blocked((int)recv(source, buffer.data(), (int)buffer.size(), 0));
			start = 0;
			end = std::max(n, 0);
			ended = n == 0; /* The other direction goes on. */
			check(ended ? shutdown(sink, SD_SEND) : 0);
		}
		if (wants_output()) {
			int n = check_unless_blocked((int)send(sink, buffer.data() + start, end - start, 0));
			start += std::max(n, 0);
			count += std::max(n, 0);
		}
	}
};

struct Connection {
	SOCKET inbound, outbound = INVALID_SOCKET;
	std::string leg;
	Direction up, down;
	bool connected = false, over = false;
	explicit Connection(SOCKET accepted) : inbound(accepted) {}
	~Connection()
	{
		closesocket(inbound);
		if (outbound != INVALID_SOCKET)
			closesocket(outbound);
	}
	void begin();
	void name(const sockaddr_storage &to, int length);
	void advance();
};

/* The outbound socket is on its way afterwards. */
void Connection::begin()
{
	sockaddr_storage own = {}, to = {};
	int own_length = sizeof(own);
	reset_on_close(inbound, true);
	set_nonblocking(inbound);
	/* Who has no records has dialled the listener, or has left already. */
	std::vector<char> records = query(inbound, SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS);
	check(getsockname(inbound, (sockaddr *)&own, &own_length));
	bool six = own.ss_family == AF_INET6;
	int length = six ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
	check(getsockopt(inbound, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IP6T_SO_ORIGINAL_DST : SO_ORIGINAL_DST,
			 (char *)&to, &length));
	name(to, length);
	outbound = WSASocketW(to.ss_family, SOCK_STREAM, IPPROTO_TCP, NULL, 0, WSA_FLAG_OVERLAPPED);
	check(outbound == INVALID_SOCKET ? SOCKET_ERROR : 0);
	reset_on_close(outbound, true);
	set_nonblocking(outbound);
	/* Before it connects: by this the redirector knows who has had the connection. */
	DWORD none = 0;
	check(WSAIoctl(outbound, SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS, records.data(), (DWORD)records.size(), NULL,
		       0, &none, NULL, NULL));
	check_unless_blocked(connect(outbound, (const sockaddr *)&to, length));
	up.source = down.sink = inbound;
	down.source = up.sink = outbound;
}

/* "COMMAND[PID] -> ADDRESS port PORT", as far as the context tells. */
void Connection::name(const sockaddr_storage &to, int length)
{
	char host[NI_MAXHOST] = "?", port[NI_MAXSERV] = "?";
	getnameinfo((const sockaddr *)&to, length, host, sizeof(host), port, sizeof(port),
		    NI_NUMERICHOST | NI_NUMERICSERV);
	leg = std::string("-> ") + host + " port " + port;
	try {
		std::vector<char> context = query(inbound, SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT);
#ifdef WAYLAY_CONTEXT_VERSION
		WAYLAY_REDIRECT_CONTEXT known = {};
		std::memcpy(&known, context.data(), std::min(context.size(), sizeof(known)));
		if (known.Version == WAYLAY_CONTEXT_VERSION)
			leg = known.Application.Command + ("[" + std::to_string(known.Application.ProcessId) + "] " + leg);
#endif
	} catch (const Error &error) {
		if (error.code != (int)FWP_E_NOT_FOUND) /* A redirector need not attach one. */
			throw;
	}
}

/* The first error ends both directions: whoever reads on after it sees an orderly end. */
void Connection::advance()
{
	try {
		int refused = 0, length = sizeof(refused);
		if (!connected)
			check(getsockopt(outbound, SOL_SOCKET, SO_ERROR, (char *)&refused, &length));
		if (refused)
			throw Error{ refused };
		connected = true;
		up.advance();
		down.advance();
		if (!up.ended || !down.ended)
			return;
		reset_on_close(inbound, false);
		reset_on_close(outbound, false);
		leg += ": " + std::to_string(up.count) + " B up, " + std::to_string(down.count) + " B down";
	} catch (const Error &error) {
		leg += ": " + error.text();
	}
	over = true;
	say(leg);
}

typedef std::vector<std::unique_ptr<Connection>> Connections;

/* Takes one connection; whether one was waiting. */
static bool take(SOCKET listener, Connections &connections)
{
	SOCKET inbound = accept(listener, NULL, NULL);
	if (inbound == INVALID_SOCKET) {
		if (WSAGetLastError() != WSAEWOULDBLOCK)
			SleepEx(SHORTAGE_PAUSE_MS, FALSE); /* No socket left, or the client gave up. */
		return false;
	}
	std::unique_ptr<Connection> connection(new Connection(inbound));
	try {
		connection->begin();
		connections.push_back(std::move(connection));
	} catch (const Error &error) {
		/* Without a leg it never was one that was redirected to us. */
		if (!connection->leg.empty())
			say(connection->leg + ": " + error.text());
	}
	return true;
}

/* A socket that nothing is wanted of is not looked at. */
static WSAPOLLFD waiting_for(SOCKET s, bool input, bool output)
{
	WSAPOLLFD wanted = {};
	wanted.fd = input || output ? s : INVALID_SOCKET;
	wanted.events = (input ? POLLIN : 0) | (output ? POLLOUT : 0);
	return wanted;
}

/* Waits until something can be done, and does it. */
static void turn(const std::vector<SOCKET> &listeners, Connections &connections)
{
	std::vector<WSAPOLLFD> polled;
	size_t served = connections.size();
	for (const std::unique_ptr<Connection> &c : connections) {
		polled.push_back(waiting_for(c->inbound, c->connected && c->up.wants_input(), c->down.wants_output()));
		polled.push_back(waiting_for(c->outbound, c->connected && c->down.wants_input(),
					     !c->connected || c->up.wants_output()));
	}
	for (SOCKET listener : listeners)
		polled.push_back(waiting_for(listener, true, false));
	if (WSAPoll(polled.data(), (ULONG)polled.size(), STOP_CHECK_MS) <= 0)
		return;
	for (size_t i = 0; i < listeners.size(); i++) {
		if (polled[2 * served + i].revents)
			take(listeners[i], connections);
	}
	while (served-- > 0) {
		if (polled[2 * served].revents || polled[2 * served + 1].revents)
			connections[served]->advance();
		if (connections[served]->over)
			connections.erase(connections.begin() + (std::ptrdiff_t)served);
	}
}

#ifdef _WIN32
/* The listening socket: on the address that the driver was told to redirect to. */
static const char *const USAGE = "redirect-service ADDRESS PORT";
static std::vector<SOCKET> listening(int count, char **words)
{
	addrinfo *found = NULL;
	if (count != 3 || getaddrinfo(words[1], words[2], NULL, &found))
		return {};
	SOCKET s = WSASocketW(found->ai_family, SOCK_STREAM, IPPROTO_TCP, NULL, 0, WSA_FLAG_OVERLAPPED);
	check(bind(s, found->ai_addr, (int)found->ai_addrlen));
	check(listen(s, SOMAXCONN));
	return { s };
}
#else
#include <sys/resource.h>
/* The listening sockets: waylay has made them, and passes them as sd_listen_fds(3) says. */
static const char *const USAGE = "waylay run --through exec:/path/to/redirect-service -- COMMAND";
static std::vector<SOCKET> listening(int, char **)
{
	const char *pid = std::getenv("LISTEN_PID"), *names = std::getenv("LISTEN_FDNAMES");
	std::string rest = names && (!pid || std::atoi(pid) == getpid()) ? std::string(names) + ":" : "";
	std::vector<SOCKET> found;
	rlimit sockets = {};
	if (getrlimit(RLIMIT_NOFILE, &sockets) == 0) {
		sockets.rlim_cur = sockets.rlim_max; /* Two are needed for each connection. */
		setrlimit(RLIMIT_NOFILE, &sockets);
	}
	for (int fd = 3; !rest.empty(); fd++, rest.erase(0, rest.find(':') + 1)) {
		if (!rest.compare(0, 5, "tcp4:") || !rest.compare(0, 5, "tcp6:"))
			found.push_back(fd);
	}
	std::signal(SIGPIPE, SIG_IGN); /* An error of send() is enough. */
	return found;
}
#endif

int main(int count, char **words)
try {
	WSADATA winsock;
	if (WSAStartup(MAKEWORD(2, 2), &winsock))
		throw Error{ WSASYSNOTREADY };
	std::vector<SOCKET> listeners = listening(count, words);
	Connections connections;
	if (listeners.empty()) {
		std::fprintf(stderr, "redirect-service: no listening socket; usage: %s\n", USAGE);
		return 2;
	}
	for (SOCKET listener : listeners) {
		reset_on_close(listener, true);
		set_nonblocking(listener);
		try {
			query(listener, SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS);
		} catch (const Error &error) {
			/* A system without the codes says so of any socket. */
			if (error.code == WSAEOPNOTSUPP || error.code == WSAENOPROTOOPT)
				throw;
		}
	}
	for (int signal : { SIGINT, SIGTERM })
		std::signal(signal, [](int) { stopping = 1; });
	while (!listeners.empty() || !connections.empty()) {
		turn(listeners, connections);
		/* Those that wait already are served, and no more. */
		while (stopping && !listeners.empty()) {
			if (!take(listeners.back(), connections)) {
				closesocket(listeners.back());
				listeners.pop_back();
			}
		}
	}
	return 0;
} catch (const Error &error) {
	std::fprintf(stderr, "redirect-service: nothing can be redirected here: %s\n", error.text().c_str());
	return 1;
}
