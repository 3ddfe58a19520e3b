//! No bytes of a stranger are too strange for the parsers and for what shows their findings. The checks are what
//! the targets in `fuzz` call, too.

mod datagrams;
mod report;
mod scan;
mod sniff;

use waylay_corpus::replay;

#[test]
fn no_first_bytes_are() {
    replay("sniff", sniff::check);
}

#[test]
fn no_datagrams_are() {
    replay("datagrams", datagrams::check);
}

#[test]
fn no_patterns_and_no_stream_are() {
    replay("scan", scan::check);
}

#[test]
fn no_line_of_a_report_is() {
    replay("report", report::check);
}
