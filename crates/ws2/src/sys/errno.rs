//! The C library's `errno`.
#![expect(unsafe_code, reason = "errno is a variable of the C library")]

pub(crate) fn get() -> i32 {
    // SAFETY: the address is that of the calling thread's own variable.
    unsafe { *libc::__errno_location() }
}

pub(crate) fn set(errno: i32) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Does something that is not to be seen in `errno`.
pub(crate) fn kept<T>(act: impl FnOnce() -> T) -> T {
    let before = get();
    let done = act();
    set(before);
    done
}
