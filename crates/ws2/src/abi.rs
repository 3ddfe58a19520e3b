//! What programs in C and this library share: structures as the headers declare
//! them, with pointers as numbers, and the control codes.
//!
//! Source: `winsock2.h`, `ws2def.h`, `ws2spi.h`; <https://learn.microsoft.com/windows/win32/api/winsock2/>.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `WSAOVERLAPPED`: an operation that may outlast its call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Overlapped {
    /// Its code; [`STATUS_PENDING`] until it is done.
    pub internal: usize,
    /// Bytes it transferred.
    pub internal_high: usize,
    /// Not used by sockets.
    pub offset: u64,
    /// The event that it sets when it is done, or 0.
    pub event: usize,
}

/// `WSABUF`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Buffer {
    /// Bytes.
    pub len: u32,
    /// Zero.
    pub reserved: u32,
    /// Where they are.
    pub buf: usize,
}

/// `WSAMSG`: a datagram with its ancillary data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Message {
    /// The address, a `sockaddr`.
    pub name: usize,
    /// Bytes of the address.
    pub name_len: i32,
    /// Zero.
    pub reserved: u32,
    /// The first [`Buffer`].
    pub buffers: usize,
    /// How many there are.
    pub buffer_count: u32,
    /// Zero.
    pub reserved2: u32,
    /// The ancillary data.
    pub control: Buffer,
    /// `MSG_…`
    pub flags: u32,
    /// Zero.
    pub reserved3: u32,
}

/// `WSATHREADID`: a thread that completion routines run in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ThreadId {
    /// What `WPUOpenCurrentThread` gave.
    pub handle: usize,
    /// Zero.
    pub reserved: usize,
}

/// `WSADATA`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StartupData {
    /// The version the program gets: low byte major, high byte minor.
    pub version: u16,
    /// The highest version there is.
    pub high_version: u16,
    /// Not used since version 2.
    pub max_sockets: u16,
    /// Not used since version 2.
    pub max_udp: u16,
    /// Not used since version 2.
    pub vendor_info: usize,
    /// What this is, ended by a zero.
    pub description: [u8; 257],
    /// How it is, ended by a zero.
    pub system_status: [u8; 129],
    /// Zero.
    pub reserved: [u8; 6],
}

/// `GUID`, as bytes.
pub type Guid = [u8; 16];

/// `Internal` of an operation that is under way.
pub const STATUS_PENDING: usize = 0x103;
/// `WSA_FLAG_OVERLAPPED`.
pub const WSA_FLAG_OVERLAPPED: u32 = 0x01;
/// `WSA_FLAG_NO_HANDLE_INHERIT`.
pub const WSA_FLAG_NO_HANDLE_INHERIT: u32 = 0x80;
/// What a call answers that failed, or is not done yet.
pub const SOCKET_ERROR: i32 = -1;
/// `WSA_INFINITE`.
pub const INFINITE: u32 = u32::MAX;
/// `WSA_WAIT_IO_COMPLETION`: completion routines have run.
pub const WAIT_IO_COMPLETION: u32 = 0xC0;
/// `WSA_WAIT_TIMEOUT`.
pub const WAIT_TIMEOUT: u32 = 258;
/// `WSA_WAIT_FAILED`.
pub const WAIT_FAILED: u32 = u32::MAX;
/// `WSA_MAXIMUM_WAIT_EVENTS`.
pub const MAXIMUM_WAIT_EVENTS: u32 = 64;

/// `_WSAIOW(IOC_VENDOR, 220)`: an input code by its bits, although it only has an output.
pub const SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS: u32 = 0x9800_00DC;
/// `_WSAIOW(IOC_VENDOR, 221)`.
pub const SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT: u32 = 0x9800_00DD;
/// `_WSAIOW(IOC_VENDOR, 222)`.
pub const SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS: u32 = 0x9800_00DE;
/// `_WSAIOW(IOC_VENDOR, 0x5759)`: waylay's own.
pub const SIO_WAYLAY_FLOW_IDLE: u32 = 0x9800_5759;
/// `_WSAIO(IOC_WS2, 4)`: ends what is pending on the socket.
pub const SIO_FLUSH: u32 = 0x2800_0004;
/// `_WSAIORW(IOC_WS2, 6)`: where `WSARecvMsg` and `WSASendMsg` are.
pub const SIO_GET_EXTENSION_FUNCTION_POINTER: u32 = 0xC800_0006;

/// `WSAID_WSARECVMSG`, f689d7c8-6f1f-436b-8a53-e54fe351c322.
pub const WSAID_WSARECVMSG: Guid =
    [0xc8, 0xd7, 0x89, 0xf6, 0x1f, 0x6f, 0x6b, 0x43, 0x8a, 0x53, 0xe5, 0x4f, 0xe3, 0x51, 0xc3, 0x22];
/// `WSAID_WSASENDMSG`, a441e712-754f-43ca-84a7-0dee44cf606d.
pub const WSAID_WSASENDMSG: Guid =
    [0x12, 0xe7, 0x41, 0xa4, 0x4f, 0x75, 0xca, 0x43, 0x84, 0xa7, 0x0d, 0xee, 0x44, 0xcf, 0x60, 0x6d];

const _: () = {
    assert!(size_of::<Overlapped>() == 32);
    assert!(size_of::<Buffer>() == 16);
    assert!(size_of::<Message>() == 56);
    assert!(size_of::<StartupData>() == 408);
};
