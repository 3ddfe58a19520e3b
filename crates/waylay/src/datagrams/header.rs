use std::ops::Deref;

use crate::{platform, socket::AsSocket};

/// What the IP header of a datagram says that its sender may choose, by the names of RFC 8200.
///
/// # Example
/// ```
/// use waylay::datagrams::Header;
///
/// // Not to be routed, and congestion was experienced (RFC 3168).
/// let header = Header { hop_limit: Some(1), traffic_class: Some(0b11) };
/// assert_eq!(header.besides(Header { hop_limit: Some(1), traffic_class: Some(0) }).hop_limit, None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Header {
    /// Routers it may pass; IPv4 calls it time to live. `None`: as many as if nobody had chosen.
    pub hop_limit: Option<u8>,
    /// Its lower two bits are for congestion notification (RFC 3168), the others for differentiated services; IPv4
    /// calls it type of service. `None`: the socket's.
    pub traffic_class: Option<u8>,
}

impl Header {
    /// The traffic class that datagrams of a socket have unless they are given another. The hop limit is left open:
    /// it may depend on the destination.
    #[must_use]
    pub fn usual(socket: &impl AsSocket) -> Self {
        Self { hop_limit: None, traffic_class: platform::traffic_class(socket) }
    }

    /// What of it differs from what is usual, and so has to be said with a datagram.
    #[must_use]
    pub fn besides(self, usual: Self) -> Self {
        Self {
            hop_limit: self.hop_limit.filter(|_| self.hop_limit != usual.hop_limit),
            traffic_class: self.traffic_class.filter(|_| self.traffic_class != usual.traffic_class),
        }
    }
}

/// What a flow's handler is given: a datagram with what was in its header. It is a slice of bytes for those who do
/// not care, and whoever sends it on sends the header on.
///
/// # Example
/// ```
/// use waylay::datagrams::{Header, Message};
///
/// let message = Message { bytes: b"query".to_vec(), header: Header::default() };
/// assert!(message.starts_with(b"que"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// What is in it; it may be empty.
    pub bytes: Vec<u8>,
    /// What came with it.
    pub header: Header,
}

impl Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What is to be sent: bytes alone, or a [`Message`] with its header.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) header: Header,
}

impl<'a> From<&'a Message> for Content<'a> {
    fn from(message: &'a Message) -> Self {
        Self { bytes: &message.bytes, header: message.header }
    }
}

impl<'a> From<&'a [u8]> for Content<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self { bytes, header: Header::default() }
    }
}

impl<'a> From<&'a Vec<u8>> for Content<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        bytes.as_slice().into()
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Content<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        bytes.as_slice().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_from_the_usual_has_to_be_said() {
        let of = |hop_limit, traffic_class| Header { hop_limit, traffic_class };
        let usual = of(None, Some(8));
        assert_eq!(of(Some(64), Some(8)).besides(usual), of(Some(64), None));
        assert_eq!(of(None, Some(0)).besides(usual), of(None, Some(0)));
        assert_eq!(of(Some(64), None).besides(of(Some(64), Some(0))), Header::default());
    }
}
