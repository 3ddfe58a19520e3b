//! Ready-made services and inspectors, each a pure parser with some glue around it.
//! The parsers do no I/O, hold a bounded number of bytes and never panic, whatever the bytes; nothing here
//! knows an engine.
//! `waylay-relay` feeds them the bytes of a connection, and `waylay-host` reads the reports back.

mod account;
mod bounded;
pub mod dns;
mod flows;
pub mod log;
pub mod report;
pub mod scan;
pub mod sniff;
