//! Which memory is the calling thread's stack.
#![expect(unsafe_code, reason = "the C library knows where a thread's stack is")]

use std::{cell::Cell, hint::black_box, mem::MaybeUninit, ops::Range};

thread_local! {
    static STACK: Cell<Option<(usize, usize)>> = const { Cell::new(None) };
}

/// Whether these bytes are in frames of the calling thread's stack: what its
/// callers have there is memory that can be read and written.
///
/// Not so while it runs on another stack, as coroutines and signal handlers do.
pub(crate) fn holds(address: usize, len: usize) -> bool {
    let here = black_box(&raw const address).addr();
    let (low, high) = bounds();
    let end = address.checked_add(len);
    low <= here && here < address && end.is_some_and(|end| end <= high)
}

fn bounds() -> (usize, usize) {
    let known = STACK.get().unwrap_or_else(|| {
        let range = of_this_thread().unwrap_or_default();
        (range.start, range.end)
    });
    STACK.set(Some(known));
    known
}

fn of_this_thread() -> Option<Range<usize>> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let (mut low, mut len) = (std::ptr::null_mut(), 0);
    // SAFETY: the attributes are initialised by the first call, read by the second and given back by the third.
    unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
            return None;
        }
        let result = libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut low, &raw mut len);
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        (result == 0).then(|| low.addr()..low.addr().saturating_add(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_callers_have_there_and_nothing_else() {
        let mine = [0_u8; 16];
        let heap = Box::new(0_u8);
        let look = || {
            assert!(holds(mine.as_ptr().addr(), 16));
            assert!(!holds(mine.as_ptr().addr(), usize::MAX));
            assert!(!holds((&raw const *heap).addr(), 1));
            assert!(!holds(0, 1));
            assert!(!holds(usize::MAX, 1));
        };
        look();
        let elsewhere = mine.as_ptr().addr();
        std::thread::spawn(move || assert!(!holds(elsewhere, 16))).join().unwrap();
    }

    #[test]
    fn what_lies_below_the_frames_in_use_is_not_held() {
        let (low, _) = bounds();
        assert!(!holds(low, 8));
    }
}
