//! All filters of a policy as one object of words, and what it costs to look something up in it.
//!
//! The words refer to each other by their numbers, so they can be copied to wherever they are read; the kernel side reads the very
//! same. The first of them are the directory: where numbers of facts are found ([`Numbering`]), then where each layer begins.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::asked::{
    AT_HOSTS, AT_NAMESPACES, Asked, DIRECTORY, LINEAGES, Numbering, Numbers, numbers_of, numbers_of_process,
};
use super::hiding::Hiding;
use super::lookup::{Entry, Found, Lookup, question};
use super::sets::Set;
use super::tree::{Builder, Candidate, Rule, Way};
use super::words::{Array, CHUNK, Reader, Writer};
use super::{TableAuthFilter, TableFilter};
use crate::conditions::{Conditions, FlagConditions};
use crate::leg::{Facts, Flags, ProcessFacts};
use crate::model::{Action, Right};
use crate::policy::{Limit, LimitError};

/// Words that an index may have: 28 MiB, as the old and the new one are there at the same time during a replacement.
pub const MAX_WORDS: usize = 28 << 17;
/// Nodes that a lookup may come to, in one tree.
pub const MAX_STEPS: u32 = 1024;

const AT_NUMBERING: u64 = 0;
const AT_LAYERS: usize = DIRECTORY;
/// Of amendments: the ranks of each layer that the others' words have in vain.
const AT_REMOVED: usize = AT_LAYERS + LAYERS * STRIDE;
const HEADER: usize = 40;
/// Where a layer begins: for everybody, and for those of each lineage.
const STRIDE: usize = 1 + LINEAGES;

/// The filters of a policy, to be looked up.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Index {
    words: Arc<[u64]>,
    report: Report,
    asks_of_processes: bool,
}

/// What an index came to. Where it is adversarial the worst case is far from the usual one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Bytes of it.
    pub bytes: usize,
    /// Filters that can match.
    pub filters: usize,
    /// Candidates in leaves and blocks together: filters are there several times.
    pub copies: usize,
    /// Candidates in blocks: those whose conditions overlap too much for a tree.
    pub in_blocks: usize,
    /// Nodes that the longest lookup comes to, for a leg of which one cgroup of each process is named, and one name.
    pub most_steps: u32,
    /// Filters that it compares, at most, where no block's rows let more than one through.
    pub most_checks: u32,
}

/// A set of filters for which a lookup is not cheap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warning {
    /// So many filters overlap in several conditions that blocks of them are looked through one after the other.
    Overlapping {
        /// Filters in blocks.
        filters: usize,
        /// The longest row of nodes.
        steps: u32,
    },
}

impl Report {
    /// Steps from which on a lookup is noticed at connect().
    pub const MANY_STEPS: u32 = 24;

    /// What is to be said of it.
    #[must_use]
    pub const fn warning(&self) -> Option<Warning> {
        if self.most_steps > Self::MANY_STEPS {
            Some(Warning::Overlapping { filters: self.in_blocks, steps: self.most_steps })
        } else {
            None
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    Redirect,
    Auth,
    Covers,
}

pub(super) const LAYERS: usize = 3;

/// What an index is made from.
#[derive(Debug, Default)]
pub(super) struct Sources<'s> {
    /// In the order of their ranks, as the next.
    pub(super) redirect: Vec<Placed<'s, TableFilter>>,
    pub(super) auth: Vec<Placed<'s, TableAuthFilter>>,
    /// What is asked of processes by these.
    pub(super) covers: Vec<&'s Conditions>,
    /// Ranks of each layer that are not to count where they are found in other words.
    pub(super) removed: [Set<u32>; LAYERS],
}

/// A filter, and where it stands.
#[derive(Debug)]
pub(super) struct Placed<'s, F> {
    pub(super) filter: &'s F,
    pub(super) rank: u32,
    pub(super) group: u8,
    /// From which rank on the next group's are.
    pub(super) next_group: u32,
}

/// What else is known when an index is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Of each layer, by ranks.
    pub(super) hiding: [Hiding; LAYERS],
    /// For each of the sources what it asks of processes, by rank; `None` if that never holds.
    pub(super) covers: Vec<Option<u32>>,
}

/// What bounds a search.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds<'b> {
    /// Groups that are left out.
    pub(super) skip: u64,
    /// The first rank that is looked for.
    pub(super) from: u64,
    /// What amends the filters that are searched.
    pub(super) amended_by: Option<&'b Index>,
    /// What is found already.
    pub(super) found: Found,
}

/// A filter before it has words.
struct Draft {
    asked: Asked,
    rank: u32,
    group: u8,
    /// Action, whether it is hard, and the errno.
    says: u64,
    filter: u32,
    next_group: u32,
}

impl Index {
    pub(super) fn new(sources: &Sources<'_>) -> Result<(Self, Findings), LimitError> {
        let redirect = sources.redirect.iter().map(|placed| &placed.filter.conditions);
        let auth = sources.auth.iter().map(|placed| &placed.filter.conditions);
        let conditions: Vec<&Conditions> =
            redirect.chain(auth).chain(sources.covers.iter().copied()).collect();
        let numbering = Numbering::new(&conditions);
        let mut build =
            Build { writer: Writer::new(HEADER), report: Report::default(), lists: HashMap::new() };
        let directory = numbering.write(&mut build.writer);
        directory.into_iter().enumerate().for_each(|(at, word)| build.writer.set(at, word));
        let (asked, covers) = covers(&numbering, &sources.covers);
        let redirect: Vec<Draft> = sources.redirect.iter().filter_map(redirect_draft(&numbering)).collect();
        let auth: Vec<Draft> =
            sources.auth.iter().filter_map(|placed| auth_draft(&numbering, placed)).collect();
        let most = std::array::from_fn(|lineage| numbering.most_of_lineage(lineage));
        build.report.filters = redirect.len() + auth.len();
        let hiding = [
            build.layer(Layer::Redirect, redirect, most),
            build.layer(Layer::Auth, auth, most),
            build.layer(Layer::Covers, asked, most),
        ];
        for (at, removed) in (AT_REMOVED..).zip(&sources.removed) {
            let Array(list) = build.list(removed.edges());
            build.writer.set(at, list);
        }
        let asks_of_processes = conditions.iter().any(|conditions| conditions.ask_of_processes());
        Ok((Self { asks_of_processes, ..build.finish()? }, Findings { hiding, covers }))
    }

    /// What it is made of.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// What it came to.
    #[must_use]
    pub const fn report(&self) -> &Report {
        &self.report
    }

    pub(super) fn numbers(&self, facts: &Facts, flags: Flags) -> Numbers {
        numbers_of(Reader(&self.words), AT_NUMBERING, facts, flags)
    }

    pub(super) fn numbers_of_process(&self, process: &ProcessFacts) -> Numbers {
        numbers_of_process(Reader(&self.words), AT_NUMBERING, process)
    }

    /// Whether it has filters for legs of other network namespaces.
    pub(super) fn asks_for_namespaces(&self) -> bool {
        Reader(&self.words).word(AT_NUMBERING + AT_NAMESPACES) != 0
    }

    /// Whether it has filters that ask for names of hosts.
    pub(super) fn asks_for_hosts(&self) -> bool {
        Reader(&self.words).word(AT_NUMBERING + AT_HOSTS) != 0
    }

    /// Whether it has filters that ask who dials, or for whom.
    pub(super) fn asks_of_processes(&self) -> bool {
        self.asks_of_processes
    }

    /// The first filter within bounds that matches, or what was found before.
    pub(super) fn first(&self, layer: Layer, numbers: &Numbers, bounds: Bounds<'_>) -> Found {
        let words = Reader(&self.words);
        let at = (AT_LAYERS + STRIDE * layer as usize) as u64;
        let lineages = std::array::from_fn(|lineage| words.word(at + 1 + lineage as u64));
        let entry = Entry { all: words.word(at), lineages };
        let removed = bounds.amended_by.map(|amendments| {
            let words = Reader(&amendments.words);
            (words, Array(words.word((AT_REMOVED + layer as usize) as u64)))
        });
        let lookup = Lookup { words, numbers, skip: bounds.skip, from: bounds.from, removed };
        lookup.first(entry, bounds.found)
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").field("report", &self.report).finish_non_exhaustive()
    }
}

fn redirect_draft(numbering: &Numbering) -> impl Fn(&Placed<'_, TableFilter>) -> Option<Draft> {
    |&Placed { filter, rank, group, next_group }| {
        let asked = numbering.ask(&filter.conditions, FlagConditions::default())?;
        Some(Draft { asked, rank, group, says: 0, filter: filter.id.0, next_group })
    }
}

/// Those that say nothing are left out.
fn auth_draft(numbering: &Numbering, placed: &Placed<'_, TableAuthFilter>) -> Option<Draft> {
    let &Placed { filter, rank, group, next_group } = placed;
    let (action, right, errno) = match filter.action {
        Action::Continue => return None,
        Action::Permit(right) => (1, right, 0),
        Action::Block { right, errno } => (2, right, errno.number()),
    };
    let says = action | u64::from(right == Right::Hard) << 8 | u64::from(errno) << 16;
    let asked = numbering.ask(&filter.conditions, filter.flags)?;
    Some(Draft { asked, rank, group, says, filter: filter.id.0, next_group })
}

/// What filters ask of processes, each once, and which of it each asks; also of those that no leg matches.
fn covers(numbering: &Numbering, sources: &[&Conditions]) -> (Vec<Draft>, Vec<Option<u32>>) {
    let mut known: HashMap<Asked, u32> = HashMap::new();
    let mut drafts = Vec::new();
    let asked = |conditions: &&Conditions| {
        let asked = numbering.ask_processes(conditions)?;
        let rank = drafts.len() as u32;
        Some(*known.entry(asked).or_insert_with_key(|asked| {
            drafts.push(Draft { asked: asked.clone(), rank, group: 0, says: 0, filter: 0, next_group: 0 });
            rank
        }))
    };
    let each = sources.iter().map(asked).collect();
    (drafts, each)
}

struct Build {
    writer: Writer,
    report: Report,
    lists: HashMap<Vec<u64>, Array>,
}

impl Build {
    /// `most` says how many numbers each lineage has.
    fn layer(&mut self, layer: Layer, drafts: Vec<Draft>, most: [usize; LINEAGES]) -> Hiding {
        let rules: Vec<Rule> = drafts.into_iter().map(|draft| self.rule(draft)).collect();
        let (mut all, mut lineages) = (Vec::new(), [const { Vec::new() }; LINEAGES]);
        for (index, rule) in (0..).zip(&rules) {
            let candidate = Candidate { rule: index, open: rule.open() };
            match rule.asked.key() {
                Some((lineage, numbers)) => lineages[lineage].push((candidate, numbers)),
                None => all.push(candidate),
            }
        }
        let mut builder = Builder::new(&rules, &mut self.writer);
        let all = builder.tree(all);
        let mut longest = builder.way(all);
        let mut tables = [0; LINEAGES];
        for ((table, keyed), most) in tables.iter_mut().zip(lineages).zip(most) {
            let (at, way) = keyed_trees(&mut builder, keyed, most);
            *table = at;
            longest = Way { steps: longest.steps + way.steps, checks: longest.checks + way.checks };
        }
        let (count, hiding) = (builder.count, builder.hiding);
        let words = std::iter::once(all).chain(tables);
        let at = AT_LAYERS + STRIDE * layer as usize;
        (at..).zip(words).for_each(|(at, word)| self.writer.set(at, word));
        self.report.copies += (count.candidates + count.in_blocks) as usize;
        self.report.in_blocks += count.in_blocks as usize;
        self.report.most_steps = self.report.most_steps.max(longest.steps);
        self.report.most_checks = self.report.most_checks.max(longest.checks);
        hiding.renumbered(|rule| rules[rule as usize].rank)
    }

    fn rule(&mut self, draft: Draft) -> Rule {
        let Draft { asked, rank, group, says, filter, next_group } = draft;
        let count = asked.fields.len() + asked.lineages.len();
        let mut words = vec![
            count as u64 | u64::from(group) << 8 | says << 16,
            u64::from(filter) | u64::from(next_group) << 32,
        ];
        for (field, numbers) in &asked.fields {
            words.extend(match numbers.intervals() {
                [(first, last)] => {
                    [question::RANGE | (*field as u64) << 8, u64::from(*first) | u64::from(*last) << 32]
                }
                _ => [question::LIST | (*field as u64) << 8, self.list(numbers.edges()).0],
            });
        }
        for lineage in &asked.lineages {
            let kind = if lineage.negated { question::NO_LINEAGE } else { question::LINEAGE };
            words.extend([kind | (lineage.lineage as u64) << 8, self.list(lineage.numbers.edges()).0]);
        }
        let offset = self.writer.place(&words);
        Rule { asked, rank, group, offset }
    }

    fn list(&mut self, edges: impl Iterator<Item = u32>) -> Array {
        let edges: Vec<u64> = edges.map(u64::from).collect();
        let writer = &mut self.writer;
        *self.lists.entry(edges).or_insert_with_key(|edges| writer.array(edges))
    }

    fn finish(mut self) -> Result<Index, LimitError> {
        let words = self.writer.finish();
        LimitError::check(Limit::IndexWords, words.len(), MAX_WORDS)?;
        LimitError::check(Limit::LookupSteps, self.report.most_steps as usize, MAX_STEPS as usize)?;
        self.report.bytes = words.len() * size_of::<u64>();
        Ok(Index { words: words.into(), report: self.report, asks_of_processes: false })
    }
}

/// A tree for each number of a lineage, of the filters that ask for it.
fn keyed_trees(builder: &mut Builder<'_>, keyed: Vec<(Candidate, Vec<u32>)>, most: usize) -> (u64, Way) {
    if keyed.is_empty() {
        return (0, Way::default());
    }
    let mut lists = vec![Vec::new(); most + 1];
    for (candidate, numbers) in keyed {
        numbers.iter().for_each(|number| lists[*number as usize].push(candidate));
    }
    let trees: Vec<u64> = lists.into_iter().map(|list| builder.tree(list)).collect();
    let longest = trees.iter().map(|tree| builder.way(*tree)).max_by_key(|way| way.steps).unwrap_or_default();
    (builder.writer.append(trees), longest)
}

impl Asked {
    /// The lineage and the numbers by which a filter is found; `None` if it is better found otherwise.
    fn key(&self) -> Option<(usize, Vec<u32>)> {
        use super::asked::field::{APPLICATION, EXE, VIA};
        let asks_exe = self
            .fields
            .iter()
            .any(|(field, set)| [APPLICATION + EXE, VIA + EXE].contains(field) && set.intervals()[0].0 > 0);
        let asked = self.lineages.iter().find(|asked| !asked.negated).filter(|_| !asks_exe)?;
        let numbers = asked.numbers.intervals().iter().flat_map(|&(first, last)| first..=last);
        Some((asked.lineage, numbers.collect()))
    }
}

const _: () = assert!(AT_REMOVED + LAYERS <= HEADER && HEADER <= CHUNK);
