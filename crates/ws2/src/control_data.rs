//! What comes and goes beside datagrams (`WSACMSGHDR`, which Linux calls `cmsghdr`): a length, a level and a type of
//! 16 bytes, then the data, all padded to eight. No byte is believed: a message that says to be longer than what
//! there is ends the list, or is an error.

use std::net::IpAddr;

/// Bytes of it at most: no records, context and addresses take as many.
pub(crate) const MOST_BYTES: usize = 16 << 10;
const HEADER: usize = 16;

/// `IP_WFP_REDIRECT_RECORDS` and its like for IPv6, as the header has it.
const RECORDS: i32 = 0x57_593c;
/// `IP_WFP_REDIRECT_CONTEXT` and its like for IPv6.
const CONTEXT: i32 = 0x57_5946;
const LEVELS: [i32; 2] = [libc::IPPROTO_IP, libc::IPPROTO_IPV6];

/// Messages, whole and in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ControlData {
    bytes: Vec<u8>,
    /// Where each ends, without and with padding.
    ends: Vec<(usize, usize)>,
}

/// One message.
struct One<'a> {
    level: i32,
    kind: i32,
    data: &'a [u8],
}

impl ControlData {
    /// What the kernel gave.
    pub(crate) fn received(bytes: &[u8]) -> Self {
        let mut all = Self::default();
        for one in Messages(bytes).map_while(|one| one) {
            all.add(one.level, one.kind, one.data);
        }
        all
    }

    /// What the kernel is to be given, and the records among it. `None` if it is malformed.
    pub(crate) fn to_be_sent(bytes: &[u8]) -> Option<(Self, Option<Vec<u8>>)> {
        let (mut all, mut records) = (Self::default(), None);
        for one in Messages(bytes) {
            let One { level, kind, data } = one?;
            match kind {
                RECORDS if LEVELS.contains(&level) => records = Some(data.to_vec()),
                CONTEXT if LEVELS.contains(&level) => {}
                _ => all.add(level, kind, data),
            }
        }
        Some((all, records))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// As many whole messages as there is room for, and whether that is not all.
    pub(crate) fn fitting(&self, room: usize) -> (&[u8], bool) {
        let fitting = self.ends.iter().rev().find(|(end, _)| *end <= room);
        let length = fitting.map_or(0, |(end, padded)| (*padded).min(room).max(*end));
        (&self.bytes[..length], self.ends.last().is_some_and(|(end, _)| *end > room))
    }

    pub(crate) fn add_records(&mut self, is_ipv4: bool, records: &[u8]) {
        self.add(level(is_ipv4), RECORDS, records);
    }

    pub(crate) fn add_context(&mut self, is_ipv4: bool, context: &[u8]) {
        self.add(level(is_ipv4), CONTEXT, context);
    }

    /// The address that the datagram was sent to (`IP_PKTINFO`, whose last four bytes it is).
    pub(crate) fn destination(&self) -> Option<IpAddr> {
        let one = Messages(&self.bytes).flatten().find(is_packet_info)?;
        let ip: [u8; 4] = *one.data.get(8..)?.first_chunk()?;
        Some(ip.into())
    }

    /// Has the datagram come from that address, unless it is said already.
    pub(crate) fn come_from(&mut self, from: IpAddr) {
        let IpAddr::V4(from) = from else { return };
        if Messages(&self.bytes).flatten().any(|one| is_packet_info(&one)) {
            return;
        }
        let mut info = [0; 12];
        info[4..8].copy_from_slice(&from.octets());
        self.add(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
    }

    fn add(&mut self, level: i32, kind: i32, data: &[u8]) {
        self.bytes.extend((HEADER + data.len()).to_ne_bytes());
        self.bytes.extend(level.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(data);
        let end = self.bytes.len();
        self.bytes.resize(end.next_multiple_of(8), 0);
        self.ends.push((end, self.bytes.len()));
    }
}

fn level(is_ipv4: bool) -> i32 {
    if is_ipv4 { libc::IPPROTO_IP } else { libc::IPPROTO_IPV6 }
}

fn is_packet_info(one: &One<'_>) -> bool {
    (one.level, one.kind) == (libc::IPPROTO_IP, libc::IP_PKTINFO)
}

/// One after the other; `None` for what is no message, which is the last.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Option<One<'a>>;

    fn next(&mut self) -> Option<Option<One<'a>>> {
        if self.0.len() < HEADER {
            // Less than a header is padding.
            return None;
        }
        let one = self.step();
        if one.is_none() {
            self.0 = &[];
        }
        Some(one)
    }
}

impl<'a> Messages<'a> {
    fn step(&mut self) -> Option<One<'a>> {
        let length = usize::from_ne_bytes(*self.0.first_chunk()?);
        let level = i32::from_ne_bytes(*self.0.get(8..)?.first_chunk()?);
        let kind = i32::from_ne_bytes(*self.0.get(12..)?.first_chunk()?);
        let data = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(8)..).unwrap_or_default();
        Some(One { level, kind, data })
    }
}

/// Any bytes, as what the kernel gave and as what it is to be given: what is understood comes out whole.
#[cfg(any(test, fuzzing))]
#[cfg_attr(not(fuzzing), expect(unreachable_pub, reason = "it is reached by the target in `fuzz` only"))]
pub fn check(bytes: &[u8]) {
    let received = ControlData::received(bytes);
    assert_eq!(ControlData::received(received.bytes()), received);
    for room in 0..=received.bytes().len() {
        let (fitting, cut) = received.fitting(room);
        assert!(fitting.len() <= room && (cut || fitting.len() + 8 > received.bytes().len()));
        assert!(received.bytes().starts_with(fitting));
    }
    if let Some((mut sent, _records)) = ControlData::to_be_sent(bytes) {
        assert!(sent.bytes().len() <= bytes.len().next_multiple_of(8));
        sent.come_from([127, 0, 0, 1].into());
        assert!(ControlData::to_be_sent(sent.bytes()).is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_taken_out_and_everything_else_is_passed_on() {
        let mut given = ControlData::default();
        given.add(libc::IPPROTO_IP, libc::IP_TOS, &[8, 0, 0, 0]);
        given.add_records(true, &[7; 48]);
        given.add_context(false, &[1; 5]);
        let (sent, records) = ControlData::to_be_sent(given.bytes()).unwrap();
        assert_eq!(records, Some(vec![7; 48]));
        let mut only = ControlData::default();
        only.add(libc::IPPROTO_IP, libc::IP_TOS, &[8, 0, 0, 0]);
        assert_eq!(sent, only);
    }

    #[test]
    fn an_answer_comes_from_where_its_sender_says() {
        let mut sent = ControlData::default();
        sent.come_from([127, 128, 0, 1].into());
        let once = sent.clone();
        sent.come_from([127, 128, 0, 2].into());
        assert_eq!(sent, once);
        assert_eq!(once.bytes().len(), 32);
    }

    #[test]
    fn what_does_not_fit_is_left_out_whole() {
        let mut all = ControlData::default();
        all.add_records(true, &[7; 48]);
        all.add_context(true, &[1; 5]);
        assert_eq!(all.fitting(63), (&[][..], true));
        assert_eq!(all.fitting(64), (&all.bytes()[..64], true));
        assert_eq!(all.fitting(84), (&all.bytes()[..64], true));
        assert_eq!(all.fitting(85), (&all.bytes()[..85], false));
        assert_eq!(all.fitting(1000), (all.bytes(), false));
    }

    #[test]
    fn a_length_that_is_a_lie_is_an_error() {
        for length in [0, 15, 17, usize::MAX, usize::MAX - 7] {
            let bytes = [&length.to_ne_bytes()[..], &[0; 8]].concat();
            assert_eq!(ControlData::to_be_sent(&bytes), None, "{length}");
            assert_eq!(ControlData::received(&bytes), ControlData::default());
        }
    }

    #[test]
    fn no_control_data_is_too_strange() {
        waylay_corpus::replay("control_data", check);
    }
}
