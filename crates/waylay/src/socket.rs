//! What a socket is to the system.

/// What a socket is asked about: whatever has a descriptor.
#[cfg(target_os = "linux")]
pub use std::os::fd::AsFd as AsSocket;
/// The number of a socket: a descriptor.
#[cfg(target_os = "linux")]
pub use std::os::fd::RawFd as RawSocket;
/// What a socket is asked about: whatever has a handle of Winsock.
#[cfg(windows)]
pub use std::os::windows::io::AsSocket;
/// The number of a socket.
#[cfg(windows)]
pub use std::os::windows::io::RawSocket;
