//! The one question about a socket that no safe library asks.
#![expect(unsafe_code, reason = "getsockopt(SO_NETNS_COOKIE)")]

use std::{io, net::UdpSocket, os::fd::AsRawFd};

/// The cookie of the network namespace of this thread (socket(7)).
pub(crate) fn netns_cookie() -> io::Result<u64> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let mut cookie = 0_u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `cookie`, which outlives the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(cookie)
}
