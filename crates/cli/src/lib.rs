//! The `waylay` command.
