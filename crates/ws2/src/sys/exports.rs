//! The functions that programs call, by Winsock's names. Each does no more than
//! to take pointers for places, and a failure to the thread's last error.
//!
//! # Safety
//! One rule for all: if a pointer leads to memory of this process, what it is
//! said to lead to may be read and written there until the call is done, or the
//! overlapped operation that it began. A pointer that leads nowhere is an error
//! (`WSAEFAULT`), and so is any number for a descriptor or a handle.
//!
//! Source: <https://learn.microsoft.com/windows/win32/api/winsock2/>.
#![expect(unsafe_code, reason = "an interface for C")]
#![expect(clippy::missing_safety_doc, reason = "the module's page has one rule for all")]

use std::ffi::{c_int, c_long, c_void};

pub use super::routine::CompletionRoutine;
use super::{
    caller::{Place, Region},
    errno,
    routine::Routine,
};
use crate::{
    abi::{
        Guid, Message, Overlapped, SOCKET_ERROR, StartupData, ThreadId, WAIT_FAILED, WSAID_WSARECVMSG,
        WSAID_WSASENDMSG,
    },
    code::{Code, FAULT},
    event,
    ioctl::{self, Request, RoutineThread},
    last_error, message, socket, startup,
    thread::Thread,
    wait,
};

/// What the call returns; or what stands for a failure, with the last error set. A success leaves that alone.
fn told<T>(failed: T, call: impl FnOnce() -> Result<T, Code>) -> T {
    errno::kept(call).unwrap_or_else(|code| {
        last_error::set(code);
        failed
    })
}

/// 0, or −1 with the last error set.
fn outcome(call: impl FnOnce() -> Result<(), Code>) -> c_int {
    told(SOCKET_ERROR, || call().map(|()| 0))
}

/// 1, or 0 with the last error set.
fn success(call: impl FnOnce() -> Result<(), Code>) -> c_int {
    told(0, || call().map(|()| 1))
}

/// 0, or −1 with the code where the caller wants it: the last error is not a provider's to set.
fn provider_outcome(error: Place<c_int>, call: impl FnOnce() -> Result<(), Code>) -> c_int {
    errno::kept(|| match call() {
        Ok(()) => 0,
        Err(code) => {
            // A caller that gives no place for the code does not want it.
            let _nowhere = error.write(&code.0);
            SOCKET_ERROR
        }
    })
}

/// Begins the use of Windows Sockets, of version 2.2 or lower; the code itself on failure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn WSAStartup(version: u16, data: *mut StartupData) -> c_int {
    // SAFETY: as the module's page asks.
    let data = unsafe { Place::vouched_for(data) };
    startup::start(version, data).map_or_else(|code| code.0, |()| 0)
}

/// Ends it; the last call ends what is pending.
#[unsafe(no_mangle)]
pub extern "C" fn WSACleanup() -> c_int {
    outcome(startup::clean_up)
}

/// Why the calling thread's last call failed.
#[unsafe(no_mangle)]
pub extern "C" fn WSAGetLastError() -> c_int {
    last_error::get()
}

/// What the next [`WSAGetLastError`] shall say.
#[unsafe(no_mangle)]
pub extern "C" fn WSASetLastError(code: c_int) {
    last_error::set(Code(code));
}

/// Makes a socket.
#[unsafe(no_mangle)]
pub extern "C" fn WSASocketA(
    family: c_int,
    kind: c_int,
    protocol: c_int,
    info: *mut c_void,
    group: u32,
    flags: u32,
) -> c_int {
    let has_more = !info.is_null() || group != 0;
    told(SOCKET_ERROR, || socket::open(socket::Wanted { family, kind, protocol, has_more, flags }))
}

/// As [`WSASocketA`]: they differ by the structure that neither takes.
#[unsafe(no_mangle)]
pub extern "C" fn WSASocketW(
    family: c_int,
    kind: c_int,
    protocol: c_int,
    info: *mut c_void,
    group: u32,
    flags: u32,
) -> c_int {
    WSASocketA(family, kind, protocol, info, group, flags)
}

/// Ends what is pending on the socket, and closes it.
#[unsafe(no_mangle)]
pub extern "C" fn closesocket(socket: c_int) -> c_int {
    outcome(|| socket::close(socket))
}

/// `FIONBIO` and `FIONREAD`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctlsocket(socket: c_int, command: c_long, argument: *mut u64) -> c_int {
    // SAFETY: as the module's page asks.
    let argument = unsafe { Place::vouched_for(argument) };
    outcome(|| socket::control(socket, command, argument))
}

/// A request as both functions below have it, with the calling thread for the routine.
///
/// # Safety
/// As the module's page asks.
unsafe fn request(
    (socket, code): (c_int, u32),
    (input, input_len): (*mut c_void, u32),
    (output, output_len): (*mut c_void, u32),
    returned: *mut u32,
    (overlapped, routine): (*mut Overlapped, Option<CompletionRoutine>),
) -> Request {
    // SAFETY: as asked of the caller.
    unsafe {
        Request {
            socket,
            code,
            input: Region::vouched_for(input, input_len),
            output: Region::vouched_for(output, output_len),
            returned: Place::vouched_for(returned),
            overlapped: Place::vouched_for(overlapped),
            routine: routine.map(|routine| Routine::vouched_for(routine)),
            runs_in: RoutineThread::Calling,
            extensions: extension_function,
        }
    }
}

/// Asks a socket about its redirect records or context, or sets records on it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn WSAIoctl(
    socket: c_int,
    code: u32,
    input: *mut c_void,
    input_len: u32,
    output: *mut c_void,
    output_len: u32,
    returned: *mut u32,
    overlapped: *mut Overlapped,
    routine: Option<CompletionRoutine>,
) -> c_int {
    let (input, output) = ((input, input_len), (output, output_len));
    // SAFETY: as the module's page asks.
    let request = unsafe { request((socket, code), input, output, returned, (overlapped, routine)) };
    outcome(|| ioctl::control(&request))
}

/// [`WSAIoctl`] as service providers have it: with the thread that the routine
/// runs in, and a place of its own for the code.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn WSPIoctl(
    socket: c_int,
    code: u32,
    input: *mut c_void,
    input_len: u32,
    output: *mut c_void,
    output_len: u32,
    returned: *mut u32,
    overlapped: *mut Overlapped,
    routine: Option<CompletionRoutine>,
    thread: *mut ThreadId,
    error: *mut c_int,
) -> c_int {
    let (input, output) = ((input, input_len), (output, output_len));
    // SAFETY: as the module's page asks.
    let (request, thread, error) = unsafe {
        let request = request((socket, code), input, output, returned, (overlapped, routine));
        (request, Place::vouched_for(thread), Place::vouched_for(error))
    };
    let request = Request { runs_in: RoutineThread::Named(thread), ..request };
    provider_outcome(error, || ioctl::control(&request))
}

/// The calling thread, for [`WSPIoctl`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn WPUOpenCurrentThread(thread: *mut ThreadId, error: *mut c_int) -> c_int {
    // SAFETY: as the module's page asks.
    let (place, error) = unsafe { (Place::vouched_for(thread), Place::vouched_for(error)) };
    provider_outcome(error, || {
        let handle = Thread::current()?.id();
        place.write(&ThreadId { handle, reserved: 0 }).map_err(|_fault| FAULT)
    })
}

/// Gives back what [`WPUOpenCurrentThread`] gave. The thread is known until it ends all the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn WPUCloseThread(thread: *mut ThreadId, error: *mut c_int) -> c_int {
    // SAFETY: as the module's page asks.
    let (place, error) = unsafe { (Place::vouched_for(thread), Place::vouched_for(error)) };
    provider_outcome(error, || {
        let id = place.read().map_err(|_fault| FAULT)?;
        Thread::named(id.handle).map(drop)
    })
}

/// The outcome of an overlapped operation.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn WSAGetOverlappedResult(
    socket: c_int,
    overlapped: *mut Overlapped,
    transferred: *mut u32,
    wait: c_int,
    flags: *mut u32,
) -> c_int {
    // SAFETY: as the module's page asks.
    let (overlapped, transferred, flags) = unsafe {
        (Place::vouched_for(overlapped), Place::vouched_for(transferred), Place::vouched_for(flags))
    };
    success(|| wait::result(socket, overlapped, transferred, wait != 0, flags))
}

/// Makes an event that is not set, to be reset by hand; 0 on failure.
#[unsafe(no_mangle)]
pub extern "C" fn WSACreateEvent() -> usize {
    told(0, || startup::check().and_then(|()| event::create()))
}

/// Closes an event.
#[unsafe(no_mangle)]
pub extern "C" fn WSACloseEvent(event: usize) -> c_int {
    success(|| startup::check().and_then(|()| event::close(event)))
}

/// Sets an event.
#[unsafe(no_mangle)]
pub extern "C" fn WSASetEvent(event: usize) -> c_int {
    success(|| startup::check().and_then(|()| event::find(event)).map(|event| event.set()))
}

/// Resets an event.
#[unsafe(no_mangle)]
pub extern "C" fn WSAResetEvent(event: usize) -> c_int {
    success(|| startup::check().and_then(|()| event::find(event)).map(|event| event.reset()))
}

/// Waits for one event, or all, at most so many milliseconds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn WSAWaitForMultipleEvents(
    count: u32,
    events: *const usize,
    all: c_int,
    milliseconds: u32,
    alertable: c_int,
) -> u32 {
    // SAFETY: as the module's page asks; the handles are only read.
    let events = unsafe { Place::vouched_for(events.cast_mut()) };
    // Not by `told`: what completion routines leave as the last error is the program's.
    let wait = wait::Wait::new(count, events, all != 0, milliseconds, alertable != 0);
    wait.and_then(|wait| wait.wait()).unwrap_or_else(|code| {
        last_error::set(code);
        WAIT_FAILED
    })
}

/// Lets so many milliseconds pass, or, alertably, less if completion routines are due.
#[unsafe(no_mangle)]
pub extern "C" fn SleepEx(milliseconds: u32, alertable: c_int) -> u32 {
    wait::sleep(milliseconds, alertable != 0)
}

/// Receives a datagram, and with the first of a flow its records and context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn WSARecvMsg(
    socket: c_int,
    message: *mut Message,
    received: *mut u32,
    overlapped: *mut Overlapped,
    _routine: Option<CompletionRoutine>,
) -> c_int {
    // SAFETY: as the module's page asks.
    let (message, received, overlapped) = unsafe {
        (Place::vouched_for(message), Place::vouched_for(received), Place::vouched_for(overlapped))
    };
    outcome(|| message::receive(socket, message, received, overlapped))
}

/// Sends a datagram; with records beside it, once these are set on the socket.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn WSASendMsg(
    socket: c_int,
    message: *mut Message,
    flags: u32,
    sent: *mut u32,
    overlapped: *mut Overlapped,
    _routine: Option<CompletionRoutine>,
) -> c_int {
    // SAFETY: as the module's page asks.
    let (message, sent, overlapped) =
        unsafe { (Place::vouched_for(message), Place::vouched_for(sent), Place::vouched_for(overlapped)) };
    outcome(|| message::send(socket, message, flags, sent, overlapped))
}

/// The function of an extension, by its id.
fn extension_function(id: &Guid) -> Option<usize> {
    match *id {
        WSAID_WSARECVMSG => Some((WSARecvMsg as *const ()).expose_provenance()),
        WSAID_WSASENDMSG => Some((WSASendMsg as *const ()).expose_provenance()),
        _ => None,
    }
}
