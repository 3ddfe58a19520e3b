//! The bytes shared with the kernel program.
