//! A report as a line for people.

use waylay_relay::Direction;

use super::{DatagramReport, Outcome, Report};
use crate::sniff::Protocol;

const SEPARATOR: &str = "  ";
/// Questions that a line has room for.
const MOST_QUERIES: usize = 4;

pub(super) fn line(report: &Report) -> String {
    let datagrams = report.datagrams.as_ref();
    let (up, down) =
        datagrams.map(|seen| (seen.datagrams_to_destination, seen.datagrams_to_application)).unzip();
    let columns = [
        Some(printable(&report.service)),
        Some(format!("{}[{}] → {}", program(&report.application), report.pid, report.original_destination)),
        Some(protocol(report)),
        Some(format!("↑ {}{}", count(up), bytes(report.bytes_to_destination))),
        Some(format!("↓ {}{}", count(down), bytes(report.bytes_to_application))),
        Some(duration(report.duration_us)),
        chain(&report.chain),
        ending(report),
        lost(report),
    ];
    columns.into_iter().flatten().collect::<Vec<_>>().join(SEPARATOR)
}

/// The last part of the path, which is what people call a program.
fn program(path: &str) -> String {
    printable(path.rsplit('/').next().unwrap_or(path))
}

fn protocol(report: &Report) -> String {
    let name = match (&report.datagrams, report.protocol) {
        (Some(_), Protocol::Unknown | Protocol::Silent | Protocol::ServerFirst) => "udp",
        (Some(_) | None, protocol) => protocol.name(),
    };
    let queries = report.datagrams.as_ref().map(queries).unwrap_or_default();
    match &report.host {
        Some(host) => format!("{name} {}", printable(host)),
        None if queries.is_empty() => name.to_owned(),
        None => format!("{name} {queries}"),
    }
}

/// The first few, and how many more there were.
fn queries(datagrams: &DatagramReport) -> String {
    let shown = datagrams.queries.iter().take(MOST_QUERIES).map(|query| {
        let outcome = query.rcode.as_deref().unwrap_or("no answer");
        format!("{} {} {}", printable(&query.kind), printable(&query.name), printable(outcome))
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    let left = datagrams.queries.len().saturating_sub(MOST_QUERIES) as u64;
    match left.saturating_add(datagrams.unlisted_queries) {
        0 => shown,
        left => format!("{shown} and {left} more"),
    }
}

/// Datagrams, in front of their bytes.
fn count(datagrams: Option<u64>) -> String {
    datagrams.map(|count| format!("{count}: ")).unwrap_or_default()
}

fn lost(report: &Report) -> Option<String> {
    let dropped = report.datagrams.as_ref()?.datagrams_dropped;
    (dropped > 0).then(|| format!("{dropped} lost"))
}

fn chain(services: &[String]) -> Option<String> {
    let names: Vec<_> = services.iter().map(|name| printable(name)).collect();
    (!names.is_empty()).then(|| format!("via {}", names.join(" › ")))
}

fn ending(report: &Report) -> Option<String> {
    let verdict = report.verdict.name();
    match (report.verdict, stopped_for(report).or(report.error.as_deref().map(printable))) {
        (Outcome::Forwarded, None) => None,
        (_, Some(reason)) => Some(format!("{verdict}: {reason}")),
        (_, None) => Some(verdict.to_owned()),
    }
}

fn stopped_for(report: &Report) -> Option<String> {
    let pattern = report.pattern.as_ref()?;
    let way = match report.direction {
        Some(Direction::ToDestination) => " on its way to the destination",
        Some(Direction::ToApplication) => " on its way to the application",
        None => "",
    };
    Some(format!("\"{}\"{way} (flow {})", printable_quoted(pattern), report.flow))
}

/// Inside of quotation marks the backslash stands for itself and for what could not be shown.
fn printable_quoted(text: &str) -> String {
    text.split('\\').map(printable).collect::<Vec<_>>().join("\\")
}

/// Escapes what could steer a terminal or hide text: control and format characters, and the backslash that
/// escapes them.
fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' => printable.push(c),
            _ => printable.extend(c.escape_debug()),
        }
    }
    printable
}

/// Cut off, not rounded, to one decimal, so that no value is shown as 1024 of the smaller unit.
fn bytes(count: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.into_iter().find(|(_, shift)| count >> shift > 0) {
        Some((name, shift)) => format!("{}.{} {name}", count >> shift, tenths(count, 1 << shift)),
        None => format!("{count} B"),
    }
}

fn duration(micros: u64) -> String {
    const MILLISECOND: u64 = 1000;
    const SECOND: u64 = 1000 * MILLISECOND;
    const MINUTE: u64 = 60 * SECOND;
    match micros {
        0..MILLISECOND => format!("{micros} µs"),
        MILLISECOND..SECOND => format!("{}.{} ms", micros / MILLISECOND, tenths(micros, MILLISECOND)),
        SECOND..MINUTE => format!("{}.{} s", micros / SECOND, tenths(micros, SECOND)),
        MINUTE.. => format!("{} min {} s", micros / MINUTE, micros % MINUTE / SECOND),
    }
}

/// The first decimal of `value / unit`.
fn tenths(value: u64, unit: u64) -> u64 {
    value % unit * 10 / unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        for (micros, text) in
            [(999, "999 µs"), (3400, "3.4 ms"), (999_999, "999.9 ms"), (200_000_000, "3 min 20 s")]
        {
            assert_eq!(duration(micros), text);
        }
    }

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(printable_quoted("\\xff\x1b"), r"\xff\u{1b}");
        assert_eq!(printable("a\x1b[2J\n\u{202e}\\'é日"), "a\\u{1b}[2J\\n\\u{202e}\\\\'é日");
    }
}
