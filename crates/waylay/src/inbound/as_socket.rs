//! That both ends are sockets, in the system's words.

use super::{Inbound, Outbound};

#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::{AsFd, BorrowedFd};

    use super::{Inbound, Outbound};

    impl AsFd for Inbound {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.stream.as_fd()
        }
    }

    impl AsFd for Outbound {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.stream.as_fd()
        }
    }
}

#[cfg(windows)]
mod windows {
    use std::os::windows::io::{AsSocket, BorrowedSocket};

    use super::{Inbound, Outbound};

    impl AsSocket for Inbound {
        fn as_socket(&self) -> BorrowedSocket<'_> {
            self.stream.as_socket()
        }
    }

    impl AsSocket for Outbound {
        fn as_socket(&self) -> BorrowedSocket<'_> {
            self.stream.as_socket()
        }
    }
}
