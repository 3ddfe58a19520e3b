/*
 * The service provider's side of the control codes: WSPIoctl, which is told the
 * thread that its completion routine runs in, and returns its error by a pointer.
 *
 * https://learn.microsoft.com/windows/win32/api/ws2spi/nc-ws2spi-lpwspioctl
 */
#ifndef WAYLAY_WS2SPI_H
#define WAYLAY_WS2SPI_H

#include "winsock2.h"

#ifdef __cplusplus
extern "C" {
#endif

#define WSPAPI WSAAPI

/* https://learn.microsoft.com/windows/win32/api/ws2spi/ns-ws2spi-wsathreadid */
typedef struct _WSATHREADID {
	HANDLE ThreadHandle;
	DWORD_PTR Reserved;
} WSATHREADID, *LPWSATHREADID;

typedef int(WSPAPI *LPWSPIOCTL)(SOCKET s, DWORD dwIoControlCode, LPVOID lpvInBuffer, DWORD cbInBuffer,
				LPVOID lpvOutBuffer, DWORD cbOutBuffer, LPDWORD lpcbBytesReturned,
				LPWSAOVERLAPPED lpOverlapped,
				LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine, LPWSATHREADID lpThreadId,
				LPINT lpErrno);

int WSPAPI WSPIoctl(SOCKET s, DWORD dwIoControlCode, LPVOID lpvInBuffer, DWORD cbInBuffer, LPVOID lpvOutBuffer,
		    DWORD cbOutBuffer, LPDWORD lpcbBytesReturned, LPWSAOVERLAPPED lpOverlapped,
		    LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine, LPWSATHREADID lpThreadId,
		    LPINT lpErrno);

/* https://learn.microsoft.com/windows/win32/api/ws2spi/nf-ws2spi-wpuopencurrentthread */
int WSPAPI WPUOpenCurrentThread(LPWSATHREADID lpThreadId, LPINT lpErrno);
/* https://learn.microsoft.com/windows/win32/api/ws2spi/nf-ws2spi-wpuclosethread */
int WSPAPI WPUCloseThread(LPWSATHREADID lpThreadId, LPINT lpErrno);

#ifdef __cplusplus
}
#endif

#endif
