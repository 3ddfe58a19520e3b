//! Resolvers' answers are to the programs' header what they are to a parser that is written for nothing but to be read; and a name
//! has the keys there that it has in `waylay_core`.

use std::collections::BTreeSet;

use proptest::{collection::vec, option, prelude::*, sample::select};
use waylay_core::{
    Action, AuthRule, Conditions, Filter, FilterId, FlagConditions, HostName, HostPattern, Layer, OneOf,
    Policy, Sublayer, SublayerId, Tables,
};
use waylay_differential::{Answer, MAX_RECORDS, Words, read_answer};

/// Bytes of a message that are looked at.
const LOOKED_AT: usize = 4096;

/// What is asked for.
fn tables(patterns: &[HostPattern]) -> Tables {
    let filter = Filter {
        id: FilterId(1),
        weight: 0,
        conditions: Conditions { host: Some(OneOf::these(patterns.to_vec())), ..Conditions::default() },
        layer: Layer::Auth(AuthRule {
            sublayer: SublayerId(1),
            flags: FlagConditions::default(),
            action: Action::BLOCK,
        }),
    };
    let sublayer = Sublayer { id: SublayerId(1), name: "base".into(), weight: 0 };
    let policy = Policy::new(vec![], vec![sublayer], vec![filter]).expect("a policy");
    Tables::compile(&policy).expect("few filters")
}

/// What the header reads, its keys in order.
fn read(patterns: &[HostPattern], message: &[u8]) -> Answer {
    let tables = tables(patterns);
    let mut answer = read_answer(&Words::new(tables.index().words(), &[]), message);
    answer.keys.sort_unstable();
    answer
}

/// The same, plainly.
fn expected(patterns: &[HostPattern], message: &[u8]) -> Answer {
    let mut reader = Reader(&message[..message.len().min(LOOKED_AT)]);
    let mut answer = Answer::default();
    let Some((labels, records)) = question(&mut reader) else { return answer };
    // Of a name with strange characters in its first labels only those are known above these.
    let name = |from: usize| HostName::new(&String::from_utf8_lossy(&labels[from..].join(&b'.'))).ok();
    let above = (1..labels.len()).filter_map(name).map(HostPattern::Below);
    let covering: BTreeSet<u64> =
        above.chain(name(0).map(HostPattern::Name)).map(|pattern| pattern.key()).collect();
    let asked: BTreeSet<u64> = patterns.iter().map(HostPattern::key).collect();
    answer.keys = covering.intersection(&asked).copied().collect();
    for _ in 0..usize::from(records).min(MAX_RECORDS) {
        let Some(found) = record(&mut reader) else { break };
        answer.addresses.extend(found);
    }
    answer
}

struct Reader<'m>(&'m [u8]);

impl<'m> Reader<'m> {
    fn take(&mut self, count: usize) -> Option<&'m [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }
}

/// The labels of the name, and how many records follow.
fn question<'m>(reader: &mut Reader<'m>) -> Option<(Vec<&'m [u8]>, u16)> {
    let header = reader.take(12)?;
    let field = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    if field(2) & 0xf80f != 0x8000 || field(4) != 1 {
        return None;
    }
    let mut labels = Vec::new();
    loop {
        let length = reader.byte()?;
        match length {
            0 => break,
            1..=63 => labels.push(reader.take(length.into())?),
            _ => return None,
        }
    }
    let length = labels.join(&b'.').len();
    if labels.is_empty() || labels.iter().any(|label| label.contains(&b'.')) || length > HostName::LONGEST {
        return None;
    }
    let (_kind, class) = (reader.number()?, reader.number()?);
    (class == 1).then(|| (labels, field(6)))
}

/// The address in the next record, if it has one; `None` if there is no record.
fn record(reader: &mut Reader<'_>) -> Option<Option<([u8; 16], u32)>> {
    let mut labels = 0;
    loop {
        let length = reader.byte()?;
        labels += 1;
        match length {
            0 => break,
            1..=63 if labels < 128 => drop(reader.take(length.into())?),
            0xc0.. => {
                reader.byte()?;
                break;
            }
            _ => return None,
        }
    }
    let (kind, class) = (reader.number()?, reader.number()?);
    let ttl = u32::from(reader.number()?) << 16 | u32::from(reader.number()?);
    let length = reader.number()?;
    let data = reader.take(length.into())?;
    let address = match (class, kind, data) {
        (1, 1, &[a, b, c, d]) => Some([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]),
        (1, 28, data) => <[u8; 16]>::try_from(data).ok(),
        _ => None,
    };
    Some(address.map(|address| (address, ttl)))
}

fn labels() -> impl Strategy<Value = Vec<u8>> {
    let short = "[abAB]{1,2}".prop_map(String::into_bytes);
    prop_oneof![12 => short, 1 => vec(any::<u8>(), 1..63), 1 => vec(b'a'..=b'c', 63..=63)]
}

/// A name on the wire: labels and an end, or a pointer in the place of that.
fn wire_names() -> impl Strategy<Value = Vec<u8>> {
    let end = prop_oneof![6 => Just(vec![0]), 1 => (0xc0..=0xff_u8, any::<u8>()).prop_map(|(a, b)| vec![a, b]), 1 => Just(vec![0x40])];
    (prop_oneof![20 => vec(labels(), 0..6), 1 => vec(labels(), 60..130)], end).prop_map(|(labels, end)| {
        let labels = labels.into_iter().flat_map(|label| [vec![label.len() as u8], label].concat());
        labels.chain(end).collect()
    })
}

fn records() -> impl Strategy<Value = Vec<u8>> {
    let data = prop_oneof![
        3 => (Just(1_u16), vec(any::<u8>(), 4..=4)),
        3 => (Just(28_u16), vec(any::<u8>(), 16..=16)),
        1 => (Just(5_u16), wire_names()),
        1 => (select(vec![1_u16, 28, 41, 65]), vec(any::<u8>(), 0..20)),
    ];
    let class = prop_oneof![8 => Just(1_u16), 1 => any::<u16>()];
    (wire_names(), data, class, any::<u32>()).prop_map(|(name, (kind, data), class, ttl)| {
        let mut record = name;
        record.extend(kind.to_be_bytes());
        record.extend(class.to_be_bytes());
        record.extend(ttl.to_be_bytes());
        record.extend((data.len() as u16).to_be_bytes());
        record.extend(data);
        record
    })
}

/// Answers, most of them sound: with a count that is wrong now and then, cut off, or with a byte changed.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let flags = prop_oneof![8 => Just(0x8180_u16), 1 => any::<u16>()];
    let questions = prop_oneof![12 => Just(1_u16), 1 => 0..3_u16];
    let few = prop_oneof![8 => vec(records(), 0..8), 1 => vec(records(), 60..70)];
    let damage = (
        option::weighted(0.2, any::<prop::sample::Index>()),
        option::weighted(0.2, any::<(prop::sample::Index, u8)>()),
    );
    (flags, questions, wire_names(), few, option::weighted(0.1, any::<u16>()), damage).prop_map(
        |(flags, questions, name, records, count, (cut, changed))| {
            let count = count.unwrap_or(records.len() as u16);
            let mut message = vec![0x12, 0x34];
            for field in [flags, questions, count, 0, 0] {
                message.extend(field.to_be_bytes());
            }
            message.extend(name);
            message.extend([0, 1, 0, 1]);
            message.extend(records.concat());
            if let Some((at, byte)) = changed {
                let at = at.index(message.len());
                message[at] = byte;
            }
            if let Some(cut) = cut {
                message.truncate(cut.index(message.len()));
            }
            message
        },
    )
}

fn patterns() -> impl Strategy<Value = Vec<HostPattern>> {
    let name = "[ab]{1,2}(\\.[ab]{1,2}){0,2}".prop_map(|text| HostName::new(&text).expect("a name"));
    let pattern = (name, any::<bool>())
        .prop_map(|(name, one)| if one { HostPattern::Name(name) } else { HostPattern::Below(name) });
    vec(pattern, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn answers_are_to_the_header_what_they_are_to_a_plain_parser(patterns in patterns(), message in messages()) {
        prop_assert_eq!(read(&patterns, &message), expected(&patterns, &message));
    }

    #[test]
    fn a_name_has_the_keys_that_it_has_in_the_core(patterns in patterns(), name in "[abAB]{1,2}(\\.[abAB]{1,2}){0,4}") {
        let labels = name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
        let message: Vec<u8> =
            b"\x12\x34\x81\x80\0\x01\0\0\0\0\0\0".iter().copied().chain(labels).chain([0, 0, 1, 0, 1]).collect();
        let name = HostName::new(&name).expect("a name");
        let covering = patterns.iter().filter(|pattern| pattern.covers(&name)).map(HostPattern::key);
        let covering: BTreeSet<u64> = covering.collect();
        prop_assert_eq!(read(&patterns, &message).keys, covering.into_iter().collect::<Vec<_>>());
    }
}

/// What fuzzing a parser of such messages found worth keeping, the same with bytes changed, and others at random.
#[test]
fn messages_of_strangers_are_the_same_to_both() {
    let name = |text| HostName::new(text).expect("a name");
    let patterns = [HostPattern::Name(name("example.test")), HostPattern::Below(name("test"))];
    waylay_corpus::replay("datagrams", |message| {
        assert_eq!(read(&patterns, message), expected(&patterns, message), "{message:02x?}");
    });
}

/// Each would mislead a parser that follows pointers, or believes lengths and counts.
#[test]
fn answers_that_are_made_to_mislead_are_read_up_to_where_they_do() {
    let ask = |rest: &[u8]| {
        let head = b"\0\0\x81\x80\0\x01\0\x02\0\0\0\0\x01a\x04test\0\0\x01\0\x01";
        let message = [&head[..], rest].concat();
        let patterns = [HostPattern::Below(HostName::new("test").expect("a name"))];
        let answer = read(&patterns, &message);
        assert_eq!(answer, expected(&patterns, &message));
        assert_eq!(answer.keys.len(), 1);
        answer.addresses.len()
    };
    let address = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01";
    assert_eq!(ask(&[&address[..], address].concat()), 2);
    // A pointer to itself is two bytes like any other, and its record counts.
    assert_eq!(ask(b"\xc0\x1d\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01"), 1);
    // A record whose length goes beyond the end, and one behind it.
    assert_eq!(ask(&[b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\xff\xff\xc0\0\x02\x01", &address[..]].concat()), 0);
    // An address of another length is none.
    assert_eq!(ask(&[b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x05\xc0\0\x02\x01\x01", &address[..]].concat()), 1);
    // Cut off within an address, and before there is anything.
    assert_eq!(ask(&[&address[..], &address[..13]].concat()), 1);
    assert_eq!(ask(b""), 0);
    // A label of a kind that there is not.
    assert_eq!(ask(&[b"\x80\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01", &address[..]].concat()), 0);
}
