/* Prints where everything is that crosses the boundary: NAME SIZE, NAME.FIELD OFFSET. */
#include <mswsock.h>
#include <waylay_context.h>
#include <winsock2.h>
#include <ws2spi.h>

#include <stddef.h>
#include <stdio.h>

#define SIZE(type) printf(#type " %zu\n", sizeof(type))
#define AT(type, field) printf(#type "." #field " %zu\n", offsetof(type, field))

static void winsock(void)
{
	SIZE(WSAOVERLAPPED);
	AT(WSAOVERLAPPED, Internal);
	AT(WSAOVERLAPPED, InternalHigh);
	AT(WSAOVERLAPPED, Offset);
	AT(WSAOVERLAPPED, hEvent);
	SIZE(WSABUF);
	AT(WSABUF, len);
	AT(WSABUF, buf);
	SIZE(WSAMSG);
	AT(WSAMSG, name);
	AT(WSAMSG, namelen);
	AT(WSAMSG, lpBuffers);
	AT(WSAMSG, dwBufferCount);
	AT(WSAMSG, Control);
	AT(WSAMSG, dwFlags);
	SIZE(WSATHREADID);
	AT(WSATHREADID, ThreadHandle);
	AT(WSATHREADID, Reserved);
	SIZE(WSADATA);
	AT(WSADATA, wVersion);
	AT(WSADATA, wHighVersion);
	AT(WSADATA, iMaxSockets);
	AT(WSADATA, iMaxUdpDg);
	AT(WSADATA, lpVendorInfo);
	AT(WSADATA, szDescription);
	AT(WSADATA, szSystemStatus);
}

static void context(void)
{
	SIZE(WAYLAY_ADDRESS);
	AT(WAYLAY_ADDRESS, Ip);
	AT(WAYLAY_ADDRESS, Port);
	AT(WAYLAY_ADDRESS, Family);
	AT(WAYLAY_ADDRESS, Scope);
	SIZE(WAYLAY_PROCESS);
	AT(WAYLAY_PROCESS, StartTime);
	AT(WAYLAY_PROCESS, Cgroup);
	AT(WAYLAY_PROCESS, ExeDevice);
	AT(WAYLAY_PROCESS, ExeInode);
	AT(WAYLAY_PROCESS, ProcessId);
	AT(WAYLAY_PROCESS, UserId);
	AT(WAYLAY_PROCESS, Command);
	SIZE(WAYLAY_SOCKET_WISHES);
	AT(WAYLAY_SOCKET_WISHES, Source);
	AT(WAYLAY_SOCKET_WISHES, Mark);
	AT(WAYLAY_SOCKET_WISHES, BoundDevice);
	AT(WAYLAY_SOCKET_WISHES, Tos);
	AT(WAYLAY_SOCKET_WISHES, TrafficClass);
	SIZE(WAYLAY_REDIRECT_CONTEXT);
	AT(WAYLAY_REDIRECT_CONTEXT, Version);
	AT(WAYLAY_REDIRECT_CONTEXT, Size);
	AT(WAYLAY_REDIRECT_CONTEXT, Flow);
	AT(WAYLAY_REDIRECT_CONTEXT, Service);
	AT(WAYLAY_REDIRECT_CONTEXT, Filter);
	AT(WAYLAY_REDIRECT_CONTEXT, Destination);
	AT(WAYLAY_REDIRECT_CONTEXT, Application);
	AT(WAYLAY_REDIRECT_CONTEXT, Wishes);
	AT(WAYLAY_REDIRECT_CONTEXT, ExePath);
}

int main(void)
{
	winsock();
	context();
	printf("WAYLAY_CONTEXT_VERSION %d\n", WAYLAY_CONTEXT_VERSION);
	return 0;
}
