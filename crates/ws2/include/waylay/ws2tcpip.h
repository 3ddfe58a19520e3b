/*
 * Winsock's names for the addresses of TCP/IP, on Linux's own structures, and the
 * ancillary data of redirected datagrams.
 *
 * https://learn.microsoft.com/windows/win32/api/ws2tcpip/
 */
#ifndef WAYLAY_WS2TCPIP_H
#define WAYLAY_WS2TCPIP_H

#include "winsock2.h"

typedef struct sockaddr_in6 SOCKADDR_IN6;
typedef struct sockaddr_in6 *PSOCKADDR_IN6;
typedef struct sockaddr_in6 *LPSOCKADDR_IN6;
typedef struct in6_addr IN6_ADDR;
typedef struct in6_addr *PIN6_ADDR;
typedef struct in6_addr *LPIN6_ADDR;
typedef struct addrinfo ADDRINFOA;
typedef struct addrinfo *PADDRINFOA;

/* https://learn.microsoft.com/windows/win32/api/ws2ipdef/ns-ws2ipdef-sockaddr_inet */
typedef union _SOCKADDR_INET {
	SOCKADDR_IN Ipv4;
	SOCKADDR_IN6 Ipv6;
	sa_family_t si_family;
} SOCKADDR_INET, *PSOCKADDR_INET;

#define InetPtonA inet_pton
#define InetNtopA inet_ntop

/*
 * Types of ancillary data: the records and the context of the first datagram of
 * a flow. Windows has 60 and 70; these are other numbers, for here 60 and 70 are
 * IPV6_RECVPATHMTU and IPV6_AUTOFLOWLABEL. WSARecvMsg delivers them without being
 * told to; as options, which switch that on, no kernel knows them, and
 * setsockopt(2) answers ENOPROTOOPT.
 *
 * https://learn.microsoft.com/windows/win32/winsock/ipproto-ip-socket-options
 */
#define IP_WFP_REDIRECT_RECORDS 0x57593c
#define IP_WFP_REDIRECT_CONTEXT 0x575946
#define IPV6_WFP_REDIRECT_RECORDS IP_WFP_REDIRECT_RECORDS
#define IPV6_WFP_REDIRECT_CONTEXT IP_WFP_REDIRECT_CONTEXT

#endif
