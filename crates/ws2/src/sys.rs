//! Where this library meets memory and functions that are not its own.

pub(crate) mod caller;
pub(crate) mod datagram;
pub(crate) mod descriptor;
pub(crate) mod errno;
pub(crate) mod exports;
pub(crate) mod memory;
pub(crate) mod routine;
pub(crate) mod signals;
pub(crate) mod stack;
