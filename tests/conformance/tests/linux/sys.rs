//! Calls with pointers.
#![expect(unsafe_code, reason = "an interface for C")]

use std::{
    os::fd::{AsRawFd, FromRawFd},
    ptr,
};

use socket2::Socket;
use waylay_conformance::{Code, Overlapped};
use waylay_ws2::{
    WSACloseEvent, WSACreateEvent, WSAGetLastError, WSAGetOverlappedResult, WSAIoctl, WSARecvMsg, WSASocketW,
    WSAStartup, WSAWaitForMultipleEvents,
    abi::{self, StartupData, WSA_FLAG_OVERLAPPED},
};
use zerocopy::FromZeros;

const VERSION: u16 = 0x0202;
const SOCK_STREAM: i32 = 1;
const IPPROTO_TCP: i32 = 6;
const TRUE: i32 = 1;

pub(crate) fn start_up() {
    let mut data = StartupData::new_zeroed();
    // SAFETY: it is given a structure to fill.
    let code = unsafe { WSAStartup(VERSION, &raw mut data) };
    assert_eq!((code, data.version), (0, VERSION));
}

pub(crate) fn socket(family: i32) -> Socket {
    let socket = WSASocketW(family, SOCK_STREAM, IPPROTO_TCP, ptr::null_mut(), 0, WSA_FLAG_OVERLAPPED);
    assert_ne!(socket, -1, "{}", WSAGetLastError());
    // SAFETY: the descriptor was just made, and nobody else has it.
    unsafe { Socket::from_raw_fd(socket) }
}

/// The code, and how many bytes there are or would be. No bytes are a null pointer.
pub(crate) fn ioctl(socket: &Socket, code: u32, input: &mut [u8], output: &mut [u8]) -> (Code, usize) {
    let mut size = 0;
    let ((input, input_len), (output, output_len)) = (parts(input), parts(output));
    // SAFETY: every pointer is null or leads to as many bytes as are said, until the call is done.
    let result = unsafe {
        WSAIoctl(
            socket.as_raw_fd(),
            code,
            input.cast(),
            input_len,
            output.cast(),
            output_len,
            &raw mut size,
            ptr::null_mut(),
            None,
        )
    };
    (code_of(result), size as usize)
}

/// A query with an event: how the call went, whether the event was signalled, and how
/// many bytes the outcome names.
pub(crate) fn ioctl_overlapped(socket: &Socket, code: u32, output: &mut [u8]) -> (Overlapped, usize) {
    let event = WSACreateEvent();
    let mut overlapped = abi::Overlapped { event, ..abi::Overlapped::default() };
    let (mut size, mut flags) = (0, 0);
    let (output, output_len) = parts(output);
    let fd = socket.as_raw_fd();
    // SAFETY: as above; the structure outlives the operation, whose outcome is waited for below.
    let outcome = unsafe {
        let at = &raw mut overlapped;
        let none = ptr::null_mut();
        let result = WSAIoctl(fd, code, none, 0, output.cast(), output_len, &raw mut size, at, None);
        let code = code_of(result);
        let signalled = WSAWaitForMultipleEvents(1, &raw const event, TRUE, 0, 0) == 0;
        let done = WSAGetOverlappedResult(fd, at, &raw mut size, TRUE, &raw mut flags);
        assert_eq!(done, TRUE, "{}", WSAGetLastError());
        Overlapped { code, signalled }
    };
    assert_eq!(WSACloseEvent(event), TRUE);
    (outcome, size as usize)
}

/// What is beside the next datagram.
pub(crate) fn receive_message(socket: &Socket) -> Vec<u8> {
    let (mut bytes, mut control, mut size) = ([0_u8; 64], [0_u64; 256], 0);
    let (room, len) = (size_of_val(&control) as u32, bytes.len() as u32);
    let mut buffer =
        abi::Buffer { len, buf: bytes.as_mut_ptr().expose_provenance(), ..abi::Buffer::default() };
    let beside =
        abi::Buffer { len: room, buf: control.as_mut_ptr().expose_provenance(), ..abi::Buffer::default() };
    // Without an address there is no telling whose it is.
    let mut name = [0_u64; 4];
    let mut message = abi::Message {
        name: name.as_mut_ptr().expose_provenance(),
        name_len: size_of_val(&name) as i32,
        buffers: (&raw mut buffer).expose_provenance(),
        buffer_count: 1,
        control: beside,
        ..abi::Message::default()
    };
    let (fd, none) = (socket.as_raw_fd(), ptr::null_mut());
    // SAFETY: every pointer leads to as many bytes as are said, until the call is done.
    let result = unsafe { WSARecvMsg(fd, &raw mut message, &raw mut size, none, None) };
    assert_eq!((code_of(result), size), (Code::OK, 8));
    control.iter().flat_map(|word| word.to_ne_bytes()).take(message.control.len as usize).collect()
}

/// The types of the messages in it.
pub(crate) fn control_kinds(mut control: &[u8]) -> Vec<i32> {
    let mut kinds = Vec::new();
    while let Some((header, _)) = control.split_first_chunk::<16>() {
        let length = usize::from_ne_bytes(*header.first_chunk().unwrap());
        kinds.push(i32::from_ne_bytes(*header.last_chunk().unwrap()));
        control = control.get(length.next_multiple_of(8)..).unwrap_or_default();
    }
    kinds
}

fn parts(bytes: &mut [u8]) -> (*mut u8, u32) {
    let start = if bytes.is_empty() { ptr::null_mut() } else { bytes.as_mut_ptr() };
    (start, u32::try_from(bytes.len()).unwrap())
}

fn code_of(result: i32) -> Code {
    if result == 0 { Code::OK } else { Code(WSAGetLastError()) }
}
