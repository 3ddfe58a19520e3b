//! Signals, which a thread of this library's own leaves to the program's.
#![expect(unsafe_code, reason = "pthread_sigmask(3)")]

use std::mem::MaybeUninit;

/// Does something with every signal blocked: a thread that it starts is never given one.
pub(crate) fn blocked<T>(act: impl FnOnce() -> T) -> T {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both sets are this frame's; the first call fills the one, the second reads it and fills the other.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let done = act();
    // SAFETY: the set was filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    done
}
