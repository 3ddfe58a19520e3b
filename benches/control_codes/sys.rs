//! The calls that are compared, as a program in C makes them.
#![expect(unsafe_code, reason = "the library for C as the dynamic linker gives it")]

use std::{
    ffi::{CString, c_int, c_void},
    mem::transmute,
    os::fd::RawFd,
    path::Path,
    ptr::{null, null_mut},
};

use waylay_ws2::abi::{Overlapped, StartupData};

type Startup = unsafe extern "C" fn(u16, *mut StartupData) -> c_int;
type Ioctl = unsafe extern "C" fn(
    c_int,
    u32,
    *mut c_void,
    u32,
    *mut c_void,
    u32,
    *mut u32,
    *mut Overlapped,
    *const c_void,
) -> c_int;

/// `WSAIoctl` of the shared library.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Winsock {
    ioctl: Ioctl,
}

impl Winsock {
    /// Loads the library, and starts it.
    pub(crate) fn load(library: &Path) -> Self {
        let path = CString::new(library.as_os_str().as_encoded_bytes()).expect("no zero");
        // SAFETY: the functions have these signatures; the library stays loaded.
        unsafe {
            let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
            assert!(!library.is_null(), "{path:?} does not load");
            let startup: Startup = transmute(symbol(library, c"WSAStartup"));
            let ioctl: Ioctl = transmute(symbol(library, c"WSAIoctl"));
            let mut data = std::mem::MaybeUninit::zeroed();
            assert_eq!(startup(0x0202, data.as_mut_ptr()), 0);
            Self { ioctl }
        }
    }

    /// Asks the socket; the bytes of the answer go to `returned`.
    pub(crate) fn query(self, socket: RawFd, code: u32, answer: &mut [u8], returned: &mut u32) {
        let len = answer.len() as u32;
        let out = answer.as_mut_ptr().cast();
        // SAFETY: `answer` and `returned` can be written to for the whole call.
        let result =
            unsafe { (self.ioctl)(socket, code, null_mut(), 0, out, len, returned, null_mut(), null()) };
        assert_eq!(result, 0);
    }
}

/// # Safety
/// The library is loaded.
unsafe fn symbol(library: *mut c_void, name: &std::ffi::CStr) -> *mut c_void {
    // SAFETY: as asked of the caller.
    let found = unsafe { libc::dlsym(library, name.as_ptr()) };
    assert!(!found.is_null(), "{name:?} is not there");
    found
}
