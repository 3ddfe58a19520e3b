/*
 * Uses the installed library, outside every redirect service: the codes answer with
 * what WSAGetLastError() is documented to say then, one a line.
 */
#include <winsock2.h>
#include <mstcpip.h>

#include <stdio.h>

int main(void)
{
	char records[64];
	DWORD size = 0;
	WSADATA data;
	SOCKET s;

	if (WSAStartup(MAKEWORD(2, 2), &data))
		return 1;
	printf("version %d.%d\n", LOBYTE(data.wVersion), HIBYTE(data.wVersion));
	s = WSASocketW(AF_INET, SOCK_STREAM, IPPROTO_TCP, NULL, 0, WSA_FLAG_OVERLAPPED);
	printf("socket %s\n", s == INVALID_SOCKET ? "none" : "made");
	WSAIoctl(s, SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS, NULL, 0, records, sizeof(records), &size, NULL, NULL);
	printf("query %d\n", WSAGetLastError());
	WSAIoctl(-1, SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS, NULL, 0, records, sizeof(records), &size, NULL, NULL);
	printf("query of no socket %d\n", WSAGetLastError());
	printf("close %d\n", closesocket(s));
	printf("cleanup %d\n", WSACleanup());
	return 0;
}
