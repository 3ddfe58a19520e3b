//! Calls of the control codes with arguments made of arbitrary bytes: pointers into memory that can be
//! written, read, or neither; every kind of descriptor; every length. What may be written to is known, and
//! nothing else may change.
#![expect(unsafe_code, reason = "wild pointers are given to an interface for C")]
#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    net::{TcpListener, TcpStream, UdpSocket},
    ops::Range,
    os::{
        fd::{IntoRawFd, RawFd},
        unix::net::UnixStream,
    },
    ptr::{null_mut, with_exposed_provenance_mut},
    sync::{Mutex, OnceLock},
};

use waylay_ws2::{
    SleepEx, WSACreateEvent, WSAGetLastError, WSAIoctl, WSASetLastError, WSASocketA, WSAStartup, WSPIoctl,
    abi::{
        Overlapped, SIO_FLUSH, SIO_GET_EXTENSION_FUNCTION_POINTER, SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT,
        SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS, SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS,
        SIO_WAYLAY_FLOW_IDLE,
    },
};

const PAGE: usize = 4096;
/// Two pages that can be written, one that can be read, and one that cannot be touched.
const WRITABLE: usize = 2 * PAGE;
const ARENA: usize = 4 * PAGE;
/// Bytes of `WSAOVERLAPPED`.
const OVERLAPPED: usize = size_of::<Overlapped>();

/// Every code that a call of these may fail with.
const DOCUMENTED: [i32; 15] = [
    122,
    997,
    10_013,
    10_014,
    10_022,
    10_035,
    10_036,
    10_038,
    10_042,
    10_045,
    10_050,
    10_055,
    10_057,
    0x8032_0008_u32.cast_signed(),
    // SIO_FLUSH ends what waits.
    995,
];

/// What the calls are made on.
struct Stage {
    arena: usize,
    sockets: Vec<RawFd>,
    connecting: RawFd,
    event: usize,
}

impl Stage {
    fn new() -> Self {
        // SAFETY: a fresh mapping, of which nobody else knows.
        let arena = unsafe {
            let mut data = std::mem::zeroed();
            assert_eq!(WSAStartup(0x0202, &raw mut data), 0);
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let arena = libc::mmap(null_mut(), ARENA, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
            assert_ne!(arena, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(arena.byte_add(WRITABLE), PAGE, libc::PROT_READ), 0);
            assert_eq!(libc::mprotect(arena.byte_add(WRITABLE + PAGE), PAGE, libc::PROT_NONE), 0);
            arena.expose_provenance()
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let connecting = connecting();
        let (left, right) = UnixStream::pair().unwrap();
        let sockets = vec![
            connecting,
            accepted.into_raw_fd(),
            client.into_raw_fd(),
            listener.into_raw_fd(),
            WSASocketA(libc::AF_INET, libc::SOCK_STREAM, 0, null_mut(), 0, 0),
            WSASocketA(libc::AF_INET6, libc::SOCK_STREAM, 0, null_mut(), 0, 1),
            UdpSocket::bind("127.0.0.1:0").unwrap().into_raw_fd(),
            left.into_raw_fd(),
            right.into_raw_fd(),
            std::fs::File::open("/dev/null").unwrap().into_raw_fd(),
            -1,
            i32::MAX,
            i32::MIN,
        ];
        Self { arena, sockets, connecting, event: WSACreateEvent() }
    }

    fn pointer<T>(&self, offset: usize) -> *mut T {
        with_exposed_provenance_mut(self.arena + offset)
    }

    fn contents(&self) -> Vec<u8> {
        // SAFETY: these pages are there and can be read; no operation is under way.
        unsafe { std::slice::from_raw_parts(self.pointer::<u8>(0), WRITABLE) }.to_vec()
    }

    fn fill(&self, byte: u8) {
        // SAFETY: these pages are there and can be written; no operation is under way.
        unsafe { self.pointer::<u8>(0).write_bytes(byte, WRITABLE) };
    }

    /// What a structure at this offset says its event is.
    fn set_event(&self, offset: usize, event: usize) {
        if offset + OVERLAPPED <= WRITABLE {
            // SAFETY: it is in the pages that can be written.
            unsafe { self.pointer::<usize>(offset + OVERLAPPED - 8).write_unaligned(event) };
        }
    }
}

/// A socket whose connection is never established: the queue it is in is full.
fn connecting() -> RawFd {
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap();
    let dial = || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        // It cannot succeed at once.
        let _in_progress = socket.connect(&address);
        socket.into_raw_fd()
    };
    let sockets: Vec<RawFd> = (0..8).map(|_| dial()).collect();
    let _stays_open = full.into_raw_fd();
    sockets[7]
}

/// Arguments, one after the other.
struct Arguments<'a>(&'a [u8]);

impl Arguments<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> u32 {
        u32::from_le_bytes([(); 4].map(|()| self.byte()))
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }

    /// Where in the arena a pointer leads, if it leads there.
    fn offset(&mut self) -> Option<usize> {
        match self.byte() % 8 {
            0 | 1 => None,
            // Where the pages of one kind end, more or less.
            2 => Some((WRITABLE + usize::from(self.byte())).saturating_sub(128)),
            3 => Some((WRITABLE + PAGE + usize::from(self.byte())).saturating_sub(128)),
            4..=6 => Some(usize::from(self.byte()) * 8),
            _ => Some(self.number() as usize % ARENA),
        }
    }

    fn len(&mut self) -> u32 {
        match self.byte() % 8 {
            0 => 0,
            1 => 48,
            2 => 1024,
            3 => u32::MAX,
            4 => u32::from(self.byte()),
            5 => i32::MAX.cast_unsigned(),
            6 => self.number(),
            _ => 4,
        }
    }

    fn code(&mut self) -> u32 {
        let codes = [
            SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS,
            SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT,
            SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS,
            SIO_WAYLAY_FLOW_IDLE,
            SIO_FLUSH,
            SIO_GET_EXTENSION_FUNCTION_POINTER,
        ];
        if self.byte() < 224 { self.one_of(&codes) } else { self.number() }
    }
}

unsafe extern "C" fn routine(_code: u32, _bytes: u32, overlapped: *mut Overlapped, flags: u32) {
    assert!(!overlapped.is_null() && flags == 0);
}

/// Makes calls for as long as there are bytes.
///
/// # Panics
/// If a call fails with a code that is not documented, or writes where it may not.
pub(crate) fn call(bytes: &[u8]) {
    static STAGE: OnceLock<Mutex<Stage>> = OnceLock::new();
    let stage = STAGE.get_or_init(|| Mutex::new(Stage::new())).lock().unwrap();
    let mut arguments = Arguments(bytes);
    for _ in 0..16 {
        if arguments.0.is_empty() {
            return;
        }
        call_once(&stage, &mut arguments);
    }
}

fn call_once(stage: &Stage, arguments: &mut Arguments<'_>) {
    let by_provider = arguments.byte().is_multiple_of(2);
    let socket = arguments.one_of(&stage.sockets);
    let code = arguments.code();
    let [input, output, returned, overlapped, thread, error] = [(); 6].map(|()| arguments.offset());
    let (input_len, output_len) = (arguments.len(), arguments.len());
    let routine = arguments.byte().is_multiple_of(3).then_some(routine as unsafe extern "C" fn(_, _, _, _));
    stage.fill(arguments.byte());
    if let Some(offset) = overlapped {
        stage.set_event(offset, arguments.one_of(&[0, stage.event, 7]));
    }
    let before = stage.contents();
    WSASetLastError(0);
    // SAFETY: whatever of these leads to memory leads to the arena, of which nobody else knows.
    let result = unsafe {
        let at = |offset: Option<usize>| offset.map_or(null_mut(), |offset| stage.pointer(offset));
        let returned_at = returned.map_or(null_mut(), |offset| stage.pointer(offset));
        let overlapped_at = overlapped.map_or(null_mut(), |offset| stage.pointer(offset));
        if by_provider {
            let thread_at = thread.map_or(null_mut(), |offset| stage.pointer(offset));
            let error_at = error.map_or(null_mut(), |offset| stage.pointer(offset));
            WSPIoctl(
                socket,
                code,
                at(input),
                input_len,
                at(output),
                output_len,
                returned_at,
                overlapped_at,
                routine,
                thread_at,
                error_at,
            )
        } else {
            WSAIoctl(
                socket,
                code,
                at(input),
                input_len,
                at(output),
                output_len,
                returned_at,
                overlapped_at,
                routine,
            )
        }
    };
    let last_error = WSAGetLastError();
    assert!(result == 0 || result == -1, "{result}");
    assert!(by_provider || result == 0 || DOCUMENTED.contains(&last_error), "{last_error}");
    settle(stage);
    let may = [
        output.map(|offset| offset..offset.saturating_add(output_len as usize)),
        returned.map(|offset| offset..offset + 4),
        overlapped.map(|offset| offset..offset + OVERLAPPED),
        error.filter(|_| by_provider).map(|offset| offset..offset + 4),
    ];
    nothing_else_changed(&before, &stage.contents(), &may);
}

/// Ends what is under way, so that the arena is this test's again.
fn settle(stage: &Stage) {
    let mut returned = 0;
    // SAFETY: the place for the count is this frame's.
    let flushed = unsafe {
        let (none, count) = (null_mut(), &raw mut returned);
        WSAIoctl(stage.connecting, SIO_FLUSH, none, 0, none, 0, count, null_mut(), None)
    };
    assert_eq!(flushed, 0);
    SleepEx(0, 1);
}

fn nothing_else_changed(before: &[u8], after: &[u8], may: &[Option<Range<usize>>]) {
    for (offset, (old, new)) in before.iter().zip(after).enumerate() {
        let fine = old == new || may.iter().flatten().any(|range| range.contains(&offset));
        assert!(fine, "a byte at {offset} of the arena was changed from {old:#x} to {new:#x}");
    }
}
