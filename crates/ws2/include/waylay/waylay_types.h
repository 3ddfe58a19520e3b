/*
 * The types that Winsock's declarations are written in, for Linux. Included by
 * the headers beside it; nobody needs to include it by name.
 *
 * Widths are those of 64-bit Windows, with three exceptions that Linux makes
 * necessary: a SOCKET is a file descriptor, u_long is the C library's unsigned
 * long, and WCHAR is wchar_t, so that L"text" is one.
 *
 * https://learn.microsoft.com/windows/win32/winprog/windows-data-types
 */
#ifndef WAYLAY_TYPES_H
#define WAYLAY_TYPES_H

#ifdef _WIN32
#error "On Windows include the system's own winsock2.h: leave waylay's directory out of the search path."
#endif

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Checked wherever it is included; __extension__ keeps -std=c99 -Wpedantic quiet. */
#ifdef __cplusplus
#define WAYLAY_ASSERT(condition, text) static_assert(condition, text)
#else
#define WAYLAY_ASSERT(condition, text) __extension__ _Static_assert(condition, text)
#endif

/* There is one calling convention. */
#define WINAPI
#define APIENTRY
#define CALLBACK
#define PASCAL
#define WSAAPI
#ifndef FAR
#define FAR
#endif

#ifndef TRUE
#define TRUE 1
#endif
#ifndef FALSE
#define FALSE 0
#endif
#ifndef VOID
#define VOID void
#endif

/* The C library declares these too, unless it was asked for ISO C and nothing else. */
#if !defined(__USE_MISC) && !defined(_DEFAULT_SOURCE) && !defined(_BSD_SOURCE) && !defined(_GNU_SOURCE)
typedef unsigned char u_char;
typedef unsigned short u_short;
typedef unsigned int u_int;
typedef unsigned long u_long;
#endif

typedef char CHAR;
typedef unsigned char UCHAR;
typedef uint8_t BYTE;
typedef int16_t SHORT;
typedef uint16_t USHORT;
typedef uint16_t WORD;
typedef int32_t INT;
typedef uint32_t UINT;
typedef int32_t LONG;
typedef uint32_t ULONG;
typedef uint32_t DWORD;
typedef int64_t LONGLONG;
typedef uint64_t ULONGLONG;
typedef uint64_t ULONG64;
typedef uint64_t DWORD64;
typedef int32_t BOOL;
typedef uint8_t BOOLEAN;
typedef int32_t HRESULT;
typedef wchar_t WCHAR;
typedef intptr_t LONG_PTR;
typedef uintptr_t ULONG_PTR;
typedef uintptr_t DWORD_PTR;
typedef size_t SIZE_T;
typedef void *HANDLE;

typedef void *PVOID;
typedef void *LPVOID;
typedef const void *LPCVOID;
typedef char *PSTR;
typedef char *LPSTR;
typedef const char *PCSTR;
typedef const char *LPCSTR;
typedef WCHAR *PWSTR;
typedef WCHAR *LPWSTR;
typedef const WCHAR *PCWSTR;
typedef const WCHAR *LPCWSTR;
typedef BYTE *PBYTE;
typedef BYTE *LPBYTE;
typedef WORD *PWORD;
typedef WORD *LPWORD;
typedef INT *PINT;
typedef INT *LPINT;
typedef UINT *PUINT;
typedef LONG *PLONG;
typedef LONG *LPLONG;
typedef ULONG *PULONG;
typedef DWORD *PDWORD;
typedef DWORD *LPDWORD;
typedef BOOL *PBOOL;
typedef BOOL *LPBOOL;
typedef HANDLE *PHANDLE;
typedef HANDLE *LPHANDLE;

#define INVALID_HANDLE_VALUE ((HANDLE)(LONG_PTR)-1)

#ifndef GUID_DEFINED
#define GUID_DEFINED
typedef struct _GUID {
	ULONG Data1;
	USHORT Data2;
	USHORT Data3;
	UCHAR Data4[8];
} GUID;
typedef GUID *LPGUID;
typedef const GUID *LPCGUID;
#endif

#define MAKEWORD(low, high) ((WORD)((BYTE)(low) | ((WORD)(BYTE)(high)) << 8))
#define MAKELONG(low, high) ((LONG)((WORD)(low) | ((DWORD)(WORD)(high)) << 16))
#define LOBYTE(word) ((BYTE)((word) & 0xff))
#define HIBYTE(word) ((BYTE)(((word) >> 8) & 0xff))
#define LOWORD(dword) ((WORD)((dword) & 0xffff))
#define HIWORD(dword) ((WORD)(((dword) >> 16) & 0xffff))

WAYLAY_ASSERT(sizeof(DWORD) == 4 && sizeof(ULONG) == 4 && sizeof(BOOL) == 4, "as on Windows");
WAYLAY_ASSERT(sizeof(GUID) == 16, "as on Windows");

#endif
