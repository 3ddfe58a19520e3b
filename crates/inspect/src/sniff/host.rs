//! Host names as they stand in requests: with a port, in brackets, or made up by somebody hostile.

/// The longest name of the DNS in its text form, and a round number.
const MAX_BYTES: usize = 255;

/// A name that may be shown to people and written to logs: printable ASCII without spaces, 1 to 255 bytes.
pub(super) fn sanitise(name: &[u8]) -> Option<String> {
    let acceptable = (1..=MAX_BYTES).contains(&name.len()) && name.iter().all(u8::is_ascii_graphic);
    if acceptable { String::from_utf8(name.to_vec()).ok() } else { None }
}

/// The host of `host`, `host:port` or `[v6]:port`; an address keeps its brackets.
pub(super) fn without_port(authority: &[u8]) -> &[u8] {
    let host_end = authority.iter().position(|byte| *byte == b']').unwrap_or(0);
    match authority[host_end..].iter().position(|byte| *byte == b':') {
        Some(colon) => &authority[..host_end + colon],
        None => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_cut_off() {
        for (authority, host) in [
            ("example.test", "example.test"),
            ("example.test:8080", "example.test"),
            ("[::1]:8080", "[::1]"),
            ("[::1]", "[::1]"),
            (":80", ""),
            ("", ""),
        ] {
            assert_eq!(without_port(authority.as_bytes()), host.as_bytes());
        }
    }

    #[test]
    fn names_that_could_mislead_a_terminal_are_refused() {
        assert_eq!(sanitise(b"xn--bcher-kva.test"), Some("xn--bcher-kva.test".into()));
        assert_eq!(sanitise(&[b'a'; 255]).map(|name| name.len()), Some(255));
        for name in [&b""[..], b"a b", b"a\x1b[2J", b"a\n", b"a\x7f", "bücher.test".as_bytes(), &[b'a'; 256]]
        {
            assert_eq!(sanitise(name), None, "{name:?}");
        }
    }
}
