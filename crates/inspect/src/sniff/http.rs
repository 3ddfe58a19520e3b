//! The head of the first HTTP/1 request.

use super::{Finding, Protocol, host};
use crate::bounded::Bounded;

/// Beyond what common servers accept (100); a request with more is HTTP whose host stays unknown.
const MAX_HEADERS: usize = 128;

/// How HTTP/2 begins on a connection without TLS. Its host is in compressed frames that follow.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

#[derive(Debug, Default)]
pub(super) struct RequestHead {
    received: Bounded,
    /// The first line was a request line.
    recognised: bool,
}

impl RequestHead {
    pub(super) fn read(&mut self, bytes: &[u8]) -> Finding {
        let taken = self.received.append(bytes);
        // Only the end of a line can change the result; parsing at nothing else keeps a byte-wise sender
        // cheap.
        if taken.contains(&b'\n')
            && let Some(host) = self.parse()
        {
            Finding::Final(self.protocol(), host)
        } else if self.received.is_full() {
            Finding::Final(self.protocol(), None)
        } else {
            Finding::Open(self.protocol())
        }
    }

    fn protocol(&self) -> Protocol {
        if self.recognised { Protocol::Http } else { Protocol::Unknown }
    }

    /// The host once there is a result: the head is complete, or it can't be parsed any further.
    fn parse(&mut self) -> Option<Option<String>> {
        if self.received.bytes().starts_with(HTTP2_PREFACE) {
            self.recognised = true;
            return Some(None);
        }
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let outcome = request.parse(self.received.bytes());
        self.recognised = request.version.is_some();
        match outcome {
            Ok(httparse::Status::Complete(_)) => Some(requested_host(&request)),
            Ok(httparse::Status::Partial) => None,
            Err(_) => Some(None),
        }
    }
}

fn requested_host(request: &httparse::Request<'_, '_>) -> Option<String> {
    let target = request.path?;
    let authority = if request.method == Some("CONNECT") { Some(target) } else { absolute_authority(target) };
    let authority = match authority {
        // RFC 9112, section 3.2.2: the target's authority overrides the header.
        Some(authority) => authority.as_bytes(),
        None => host_header(request.headers)?,
    };
    host::sanitise(host::without_port(authority))
}

/// The authority of `scheme://user@authority/path`, without the user.
fn absolute_authority(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    // Else it is a path that merely contains a URL.
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let authority = rest.split(['/', '?', '#']).next()?;
    is_scheme.then(|| authority.rsplit_once('@').map_or(authority, |(_, host)| host))
}

/// The value of the only `Host` header; two of them are an attempt to be understood in two ways.
fn host_header<'a>(headers: &[httparse::Header<'a>]) -> Option<&'a [u8]> {
    let mut hosts = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    match (hosts.next(), hosts.next()) {
        (Some(only), None) => Some(only.value.trim_ascii()),
        (Some(_), Some(_)) => None,
        (None, _) => None,
    }
}
