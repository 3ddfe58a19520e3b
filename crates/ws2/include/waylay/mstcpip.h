/*
 * The three control codes of redirect services, with the numbers they have on
 * Windows, and the options that tell the original destination.
 *
 * By their bits all three take input only. The queries give output all the same:
 * a code means what it is as a whole.
 *
 * https://learn.microsoft.com/windows/win32/winsock/sio-query-wfp-connection-redirect-records
 * https://learn.microsoft.com/windows/win32/winsock/sio-query-wfp-connection-redirect-context
 * https://learn.microsoft.com/windows/win32/winsock/sio-set-wfp-connection-redirect-records
 */
#ifndef WAYLAY_MSTCPIP_H
#define WAYLAY_MSTCPIP_H

#include "winsock2.h"

#define SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS _WSAIOW(IOC_VENDOR, 220)
#define SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT _WSAIOW(IOC_VENDOR, 221)
#define SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS _WSAIOW(IOC_VENDOR, 222)

WAYLAY_ASSERT(SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS == 0x980000dcu, "as on Windows");
WAYLAY_ASSERT(SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT == 0x980000ddu, "as on Windows");
WAYLAY_ASSERT(SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS == 0x980000deu, "as on Windows");

/*
 * For getsockopt on an accepted socket, at IPPROTO_IP and IPPROTO_IPV6. The number
 * is that of Linux's netfilter and differs from Windows'.
 */
#ifndef SO_ORIGINAL_DST
#define SO_ORIGINAL_DST 80
#endif
#ifndef IP6T_SO_ORIGINAL_DST
#define IP6T_SO_ORIGINAL_DST 80
#endif

#endif
