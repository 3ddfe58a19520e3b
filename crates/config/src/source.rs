//! Texts, and places in them.

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

/// The texts of one policy, in the order in which they are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    files: Vec<File>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    name: String,
    text: Arc<str>,
    /// Where its lines end, once somebody has asked: there may be very many places in it.
    ends: OnceLock<Vec<u32>>,
}

/// A place in one of the [`Sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    pub(crate) source: u32,
    start: u32,
    end: u32,
}

impl Span {
    pub(crate) fn new(source: u32, bytes: Range<usize>) -> Self {
        let short = |at| u32::try_from(at).unwrap_or(u32::MAX);
        Self { source, start: short(bytes.start), end: short(bytes.end) }
    }

    /// The number of its text among the [`Sources`], from 0 on.
    #[must_use]
    pub const fn source(&self) -> usize {
        self.source as usize
    }

    /// Where it begins in its text, in bytes.
    #[must_use]
    pub const fn start(&self) -> usize {
        self.start as usize
    }

    pub(crate) fn bytes(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Something that a text says, and where it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<T> {
    /// What it says.
    pub value: T,
    /// Where.
    pub span: Span,
}

impl Sources {
    /// Adds a text. The name is for messages, as is usual for a file its path.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<Arc<str>>) {
        self.files.push(File { name: name.into(), text: text.into(), ends: OnceLock::new() });
    }

    /// Names and texts.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|file| (file.name.as_str(), &*file.text))
    }

    /// The name of the text in which a place is.
    #[must_use]
    pub fn name(&self, span: &Span) -> &str {
        self.files.get(span.source as usize).map_or("", |file| &file.name)
    }

    /// The line of a place, from 1 on.
    #[must_use]
    pub fn line(&self, span: &Span) -> usize {
        let Some(file) = self.files.get(span.source as usize) else { return 1 };
        let ends = file.ends.get_or_init(|| {
            let bytes = (0_u32..).zip(file.text.bytes());
            bytes.filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect()
        });
        1 + ends.partition_point(|end| *end < span.start)
    }

    /// The column of a place, in characters from 1 on.
    #[must_use]
    pub fn column(&self, span: &Span) -> usize {
        let before = self.text(span).get(..span.bytes().start).unwrap_or_default();
        1 + before.rsplit('\n').next().unwrap_or_default().chars().count()
    }

    /// A place as people write it: `policy.toml:12`.
    #[must_use]
    pub fn place(&self, span: &Span) -> String {
        format!("{}:{}", self.name(span), self.line(span))
    }

    pub(crate) fn text(&self, span: &Span) -> &str {
        self.files.get(span.source as usize).map_or("", |file| &file.text)
    }
}

impl<T> Located<T> {
    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Located<U> {
        Located { value: change(self.value), span: self.span }
    }
}
