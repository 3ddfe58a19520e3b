/*
 * For C++: Winsock's lengths are of type int and Linux's of type socklen_t, which
 * is unsigned. These let sources written for either compile. Included by
 * winsock2.h; nobody needs to include it by name.
 *
 * They are templates so that NULL, which fits any pointer, still means the C
 * library's function, and for int alone, so that no other type is taken for one.
 *
 * https://learn.microsoft.com/windows/win32/api/winsock2/nf-winsock2-accept
 */
#ifndef WAYLAY_LENGTHS_H
#define WAYLAY_LENGTHS_H

#include <errno.h>
#include <sys/socket.h>

#include "waylay_errors.h"

namespace waylay
{
/* What a function answers that is given a length of type T. */
template <typename T> struct with_length;
template <> struct with_length<int> {
	typedef int result;
	typedef ::ssize_t count;
};

/* SO_ERROR holds an errno here and one of Winsock's codes there: who asks as on
 * Windows compares as on Windows. */
inline int socket_error(int error)
{
	static const int same[][2] = {
		{ 0, 0 },
		{ EINTR, WSAEINTR },
		{ EBADF, WSAENOTSOCK },
		{ ENOTSOCK, WSAENOTSOCK },
		{ ENOMEM, WSAENOBUFS },
		{ ENOBUFS, WSAENOBUFS },
		{ EACCES, WSAEACCES },
		{ EPERM, WSAEACCES },
		{ EFAULT, WSAEFAULT },
		{ EINVAL, WSAEINVAL },
		{ ENFILE, WSAEMFILE },
		{ EMFILE, WSAEMFILE },
		{ EAGAIN, WSAEWOULDBLOCK },
		{ EINPROGRESS, WSAEWOULDBLOCK },
		{ EPIPE, WSAESHUTDOWN },
		{ ESHUTDOWN, WSAESHUTDOWN },
		{ ELOOP, WSAELOOP },
		{ ENAMETOOLONG, WSAENAMETOOLONG },
		{ ENOTEMPTY, WSAENOTEMPTY },
		{ EALREADY, WSAEALREADY },
		{ EDESTADDRREQ, WSAEDESTADDRREQ },
		{ EMSGSIZE, WSAEMSGSIZE },
		{ EPROTOTYPE, WSAEPROTOTYPE },
		{ ENOPROTOOPT, WSAENOPROTOOPT },
		{ EPROTONOSUPPORT, WSAEPROTONOSUPPORT },
		{ ESOCKTNOSUPPORT, WSAESOCKTNOSUPPORT },
		{ EOPNOTSUPP, WSAEOPNOTSUPP },
		{ EPFNOSUPPORT, WSAEPFNOSUPPORT },
		{ EAFNOSUPPORT, WSAEAFNOSUPPORT },
		{ EADDRINUSE, WSAEADDRINUSE },
		{ EADDRNOTAVAIL, WSAEADDRNOTAVAIL },
		{ ENETDOWN, WSAENETDOWN },
		{ ENETUNREACH, WSAENETUNREACH },
		{ ENETRESET, WSAENETRESET },
		{ ECONNABORTED, WSAECONNABORTED },
		{ ECONNRESET, WSAECONNRESET },
		{ EISCONN, WSAEISCONN },
		{ ENOTCONN, WSAENOTCONN },
		{ ETOOMANYREFS, WSAETOOMANYREFS },
		{ ETIMEDOUT, WSAETIMEDOUT },
		{ ECONNREFUSED, WSAECONNREFUSED },
		{ EHOSTDOWN, WSAEHOSTDOWN },
		{ EHOSTUNREACH, WSAEHOSTUNREACH },
	};

	for (const int(&pair)[2] : same) {
		if (pair[0] == error)
			return pair[1];
	}
	return WSASYSCALLFAILURE;
}
} /* namespace waylay */

template <typename T>
inline typename waylay::with_length<T>::result accept(int s, struct sockaddr *addr, T *addrlen)
{
	socklen_t length = addrlen ? (socklen_t)*addrlen : 0;
	int result = ::accept(s, addr, addrlen ? &length : (socklen_t *)0);

	if (addrlen)
		*addrlen = (int)length;
	return result;
}

template <typename T>
inline typename waylay::with_length<T>::result getsockname(int s, struct sockaddr *name, T *namelen)
{
	socklen_t length = (socklen_t)*namelen;
	int result = ::getsockname(s, name, &length);

	*namelen = (int)length;
	return result;
}

template <typename T>
inline typename waylay::with_length<T>::result getpeername(int s, struct sockaddr *name, T *namelen)
{
	socklen_t length = (socklen_t)*namelen;
	int result = ::getpeername(s, name, &length);

	*namelen = (int)length;
	return result;
}

template <typename T>
inline typename waylay::with_length<T>::result getsockopt(int s, int level, int optname, void *optval, T *optlen)
{
	socklen_t length = (socklen_t)*optlen;
	int result = ::getsockopt(s, level, optname, optval, &length);

	if (result == 0 && level == SOL_SOCKET && optname == SO_ERROR && length == sizeof(int))
		*(int *)optval = waylay::socket_error(*(int *)optval);
	*optlen = (int)length;
	return result;
}

template <typename T>
inline typename waylay::with_length<T>::count recvfrom(int s, void *buf, size_t len, int flags,
						       struct sockaddr *from, T *fromlen)
{
	socklen_t length = fromlen ? (socklen_t)*fromlen : 0;
	ssize_t result = ::recvfrom(s, buf, len, flags, from, fromlen ? &length : (socklen_t *)0);

	if (fromlen)
		*fromlen = (int)length;
	return result;
}

#endif
