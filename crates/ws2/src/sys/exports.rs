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

/// 0, or −1 with the last error set.
fn outcome(result: Result<(), Code>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(code) => {
            last_error::set(code);
            SOCKET_ERROR
        }
    }
}

/// 1, or 0 with the last error set.
fn success(result: Result<(), Code>) -> c_int {
    outcome(result) + 1
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
    outcome(startup::clean_up())
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
    let opened = socket::open(socket::Wanted { family, kind, protocol, has_more, flags });
    opened.unwrap_or_else(|code| outcome(Err(code)))
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
    outcome(socket::close(socket))
}

/// `FIONBIO` and `FIONREAD`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctlsocket(socket: c_int, command: c_long, argument: *mut u64) -> c_int {
    // SAFETY: as the module's page asks.
    let argument = unsafe { Place::vouched_for(argument) };
    outcome(socket::control(socket, command, argument))
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
    // SAFETY: as the module's page asks.
    let request = unsafe {
        Request {
            socket,
            code,
            input: Region::vouched_for(input, input_len),
            output: Region::vouched_for(output, output_len),
            returned: Place::vouched_for(returned),
            overlapped: Place::vouched_for(overlapped),
            routine: routine.map(|routine| Routine::vouched_for(routine)),
            runs_in: RoutineThread::Calling,
        }
    };
    outcome(ioctl::control(&request))
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
    // SAFETY: as the module's page asks.
    let (request, error) = unsafe {
        let request = Request {
            socket,
            code,
            input: Region::vouched_for(input, input_len),
            output: Region::vouched_for(output, output_len),
            returned: Place::vouched_for(returned),
            overlapped: Place::vouched_for(overlapped),
            routine: routine.map(|routine| Routine::vouched_for(routine)),
            runs_in: RoutineThread::Named(Place::vouched_for(thread)),
        };
        (request, Place::vouched_for(error))
    };
    match ioctl::control(&request) {
        Ok(()) => 0,
        Err(code) => {
            // A caller that gives no place for the code does not want it.
            let _nowhere = error.write(&code.0);
            SOCKET_ERROR
        }
    }
}

/// The calling thread, for [`WSPIoctl`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn WPUOpenCurrentThread(thread: *mut ThreadId, error: *mut c_int) -> c_int {
    // SAFETY: as the module's page asks.
    let (place, error) = unsafe { (Place::vouched_for(thread), Place::vouched_for(error)) };
    let opened = Thread::current().and_then(|thread| {
        place.write(&ThreadId { handle: thread.id(), reserved: 0 }).map_err(|_fault| FAULT)
    });
    provider_outcome(opened, error)
}

/// Gives back what [`WPUOpenCurrentThread`] gave. The thread is known until it ends all the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn WPUCloseThread(thread: *mut ThreadId, error: *mut c_int) -> c_int {
    // SAFETY: as the module's page asks.
    let (place, error) = unsafe { (Place::vouched_for(thread), Place::vouched_for(error)) };
    let known = place.read().map_err(|_fault| FAULT).and_then(|id| Thread::named(id.handle));
    provider_outcome(known.map(drop), error)
}

fn provider_outcome(result: Result<(), Code>, error: Place<c_int>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(code) => {
            // A caller that gives no place for the code does not want it.
            let _nowhere = error.write(&code.0);
            SOCKET_ERROR
        }
    }
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
    success(wait::result(socket, overlapped, transferred, wait != 0, flags))
}

/// Makes an event that is not set, to be reset by hand; 0 on failure.
#[unsafe(no_mangle)]
pub extern "C" fn WSACreateEvent() -> usize {
    startup::check().and_then(|()| event::create()).unwrap_or_else(|code| {
        last_error::set(code);
        0
    })
}

/// Closes an event.
#[unsafe(no_mangle)]
pub extern "C" fn WSACloseEvent(event: usize) -> c_int {
    success(startup::check().and_then(|()| event::close(event)))
}

/// Sets an event.
#[unsafe(no_mangle)]
pub extern "C" fn WSASetEvent(event: usize) -> c_int {
    success(startup::check().and_then(|()| event::find(event)).map(|event| event.set()))
}

/// Resets an event.
#[unsafe(no_mangle)]
pub extern "C" fn WSAResetEvent(event: usize) -> c_int {
    success(startup::check().and_then(|()| event::find(event)).map(|event| event.reset()))
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

/// Would receive a datagram with its records; datagrams are not redirected yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn WSARecvMsg(
    socket: c_int,
    message: *mut Message,
    _received: *mut u32,
    _overlapped: *mut Overlapped,
    _routine: Option<CompletionRoutine>,
) -> c_int {
    // SAFETY: as the module's page asks.
    let message = unsafe { Place::vouched_for(message) };
    outcome(message::transfer(socket, message))
}

/// Would send a datagram with its records; datagrams are not redirected yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn WSASendMsg(
    socket: c_int,
    message: *mut Message,
    _flags: u32,
    _sent: *mut u32,
    _overlapped: *mut Overlapped,
    _routine: Option<CompletionRoutine>,
) -> c_int {
    // SAFETY: as the module's page asks.
    let message = unsafe { Place::vouched_for(message) };
    outcome(message::transfer(socket, message))
}

/// The function of an extension, by its id.
pub(crate) fn extension_function(id: &Guid) -> Option<usize> {
    match *id {
        WSAID_WSARECVMSG => Some((WSARecvMsg as *const ()).expose_provenance()),
        WSAID_WSASENDMSG => Some((WSASendMsg as *const ()).expose_provenance()),
        _ => None,
    }
}
