//! The tree by which candidates are found: filters sorted by what they ask, so that few are left for any leg.
//!
//! A node *splits* its filters by one field, at every number where one of them begins or ends; filters that do not ask the field go to all
//! sides. That is done only where it multiplies them little. Where it would not, those that ask little of a field (*narrow* ones)
//! are split without the others, and whoever has been through their tree goes on with the others': every way down ends in a leaf that
//! names where to go on. What no field splits well becomes *blocks*: for each field and each of its pieces a row of bits, one for each
//! filter; the rows of a leg, taken together, leave those that match. So no set of filters, whatever it is like, is looked at one by one.
//!
//! On the way down it is known which questions are answered. A filter of which none is left hides all later ones of its group.

use std::collections::{BTreeSet, HashMap};

use super::asked::{Asked, field};
use super::hiding::Hiding;
use super::sets::Set;
use super::words::{Array, CHUNK, Writer};

/// Filters of a block.
pub(super) const BLOCK: usize = 256;
/// Filters that a leaf may have where a split would multiply them.
pub(super) const LEAF: usize = 16;
/// Filters that are not worth a split.
const FEW: usize = 6;
/// How many times a filter may be in one tree: the fewer they are, the more, until this many copies come of it.
const COPIES: std::ops::RangeInclusive<f64> = 6.0..=12.0;
const MANY_COPIES: f64 = 200_000.0;
/// Lists as long as this are kept to be found again.
const SHARED: usize = 24;

pub(super) mod kind {
    pub(crate) const SPLIT: u64 = 1;
    pub(crate) const DIRECT: u64 = 2;
    pub(crate) const LEAF: u64 = 3;
    pub(crate) const BLOCK: u64 = 4;
}

/// Where to go on: an offset, and above it the first rank that can be found from there on. 0 is the end.
pub(super) type Pointer = u64;

pub(super) const NO_RANK: u64 = 0xff_ffff;

pub(super) const fn rank_of(pointer: Pointer) -> u64 {
    pointer >> 32 & NO_RANK
}

const fn first_rank(pointer: Pointer) -> u64 {
    if pointer == 0 { NO_RANK } else { rank_of(pointer) }
}

/// A filter on its way through the tree: which, and what of it is not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Candidate {
    pub(super) rule: u32,
    pub(super) open: u32,
}

/// What is known of a filter.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) asked: Asked,
    pub(super) rank: u32,
    pub(super) group: u8,
    /// Where its words are.
    pub(super) offset: u64,
}

impl Rule {
    /// All that it asks, as bits of [`Candidate::open`].
    pub(super) fn open(&self) -> u32 {
        let fields = self.asked.fields.iter().fold(0, |bits, (field, _)| bits | 1 << field);
        self.asked.lineages.iter().fold(fields, |bits, asked| bits | 1 << (field::COUNT + asked.lineage))
    }

    fn numbers(&self, field: usize) -> &Set<u32> {
        let found = self.asked.fields.iter().find(|(asked, _)| *asked == field);
        found.map(|(_, numbers)| numbers).expect("only fields are asked for that a filter asks")
    }

    fn word(&self) -> u64 {
        self.offset | u64::from(self.rank) << 32 | u64::from(self.group) << 56
    }
}

/// The longest way from somewhere on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Way {
    pub(super) steps: u32,
    pub(super) checks: u32,
}

/// What building has come to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    pub(super) nodes: u64,
    pub(super) candidates: u64,
    pub(super) in_blocks: u64,
}

/// Builds the trees of one layer.
pub(super) struct Builder<'b> {
    pub(super) rules: &'b [Rule],
    pub(super) writer: &'b mut Writer,
    ways: HashMap<u32, Way>,
    known: HashMap<(Vec<Candidate>, Pointer), Pointer>,
    pub(super) count: Count,
    pub(super) hiding: Hiding,
}

/// How a field would split candidates.
struct Survey {
    field: usize,
    /// Where pieces begin, but for the first.
    edges: Vec<u32>,
    /// Candidates that there would be in all pieces together.
    copies: f64,
}

/// For each piece of a field the filters of a block that hold there.
struct Rows {
    field: usize,
    pieces: usize,
    /// Where pieces begin.
    edges: u64,
    /// Where the rows are named.
    at: u64,
}

impl Survey {
    fn per_piece(&self) -> f64 {
        self.copies / (self.edges.len() + 1) as f64
    }
}

impl<'b> Builder<'b> {
    pub(super) fn new(rules: &'b [Rule], writer: &'b mut Writer) -> Self {
        Self {
            rules,
            writer,
            ways: HashMap::new(),
            known: HashMap::new(),
            count: Count::default(),
            hiding: Hiding::default(),
        }
    }

    /// Where to begin with these candidates.
    pub(super) fn tree(&mut self, candidates: Vec<Candidate>) -> Pointer {
        let copies = (MANY_COPIES / candidates.len() as f64).clamp(*COPIES.start(), *COPIES.end());
        self.build(candidates, 0, copies)
    }

    /// The longest way from there.
    pub(super) fn way(&self, pointer: Pointer) -> Way {
        self.ways.get(&(pointer as u32)).copied().unwrap_or_default()
    }

    fn build(&mut self, candidates: Vec<Candidate>, next: Pointer, copies: f64) -> Pointer {
        let candidates = self.without_hidden(candidates);
        if candidates.is_empty() {
            return next;
        }
        let key = (candidates.len() <= SHARED).then(|| (candidates.clone(), next));
        if let Some(known) = key.as_ref().and_then(|key| self.known.get(key)) {
            return *known;
        }
        let pointer = self.place(candidates, next, copies);
        if let Some(key) = key {
            self.known.insert(key, pointer);
        }
        pointer
    }

    fn place(&mut self, candidates: Vec<Candidate>, next: Pointer, copies: f64) -> Pointer {
        if candidates.len() <= FEW {
            return self.leaf(&candidates, next);
        }
        let surveys = self.survey(&candidates);
        if let Some(survey) = best_split(&surveys, candidates.len(), copies) {
            let left = copies * candidates.len() as f64 / survey.copies.max(candidates.len() as f64);
            return self.split(&candidates, survey, next, left);
        }
        if candidates.len() <= LEAF {
            return self.leaf(&candidates, next);
        }
        match self.separate(&candidates, &surveys) {
            Some((narrow, others)) => {
                let others = self.build(others, next, copies);
                self.build(narrow, others, copies)
            }
            None => self.blocks(&candidates, next),
        }
    }

    /// Candidates are in the order of their ranks.
    fn without_hidden(&mut self, candidates: Vec<Candidate>) -> Vec<Candidate> {
        let rules = self.rules;
        let mut hidden_by = [None; 256];
        let mut seen = candidates;
        seen.retain(|candidate| {
            let by = &mut hidden_by[usize::from(rules[candidate.rule as usize].group)];
            match *by {
                Some(by) => self.hiding.note(by, candidate.rule),
                None if candidate.open == 0 => *by = Some(candidate.rule),
                None => return true,
            }
            *by == Some(candidate.rule)
        });
        seen
    }

    fn groups(&self, candidates: &[Candidate]) -> usize {
        let groups: BTreeSet<u8> = candidates.iter().map(|one| self.rules[one.rule as usize].group).collect();
        groups.len()
    }

    fn edges(&self, candidates: &[Candidate], field: usize) -> Vec<u32> {
        let asking = candidates.iter().filter(|candidate| candidate.open >> field & 1 == 1);
        let edges = asking.flat_map(|candidate| self.rules[candidate.rule as usize].numbers(field).edges());
        let mut edges: Vec<u32> = edges.filter(|edge| *edge > 0).collect();
        edges.sort_unstable();
        edges.dedup();
        edges
    }

    fn survey(&self, candidates: &[Candidate]) -> Vec<Survey> {
        let open = candidates.iter().fold(0, |bits, candidate| bits | candidate.open);
        let groups = self.groups(candidates);
        let fields = (0..field::COUNT).filter(|field| open >> field & 1 == 1);
        fields.map(|field| self.survey_field(candidates, field, groups)).collect()
    }

    fn survey_field(&self, candidates: &[Candidate], field: usize, groups: usize) -> Survey {
        let edges = self.edges(candidates, field);
        let pieces = edges.len() + 1;
        let (mut partial, mut whole) = (0, 0);
        for candidate in candidates {
            if candidate.open >> field & 1 == 0 {
                partial += pieces;
            } else if candidate.open == 1 << field {
                whole += self.pieces_of(candidate, field, &edges);
            } else {
                partial += self.pieces_of(candidate, field, &edges);
            }
        }
        // Of those that ask nothing else the first of a group hides the others.
        let copies = (partial + whole.min(pieces * groups)) as f64;
        Survey { field, edges, copies }
    }

    fn pieces_of(&self, candidate: &Candidate, field: usize, edges: &[u32]) -> usize {
        let numbers = self.rules[candidate.rule as usize].numbers(field);
        numbers
            .intervals()
            .iter()
            .map(|interval| pieces(interval, edges))
            .map(|(first, end)| end - first)
            .sum()
    }

    fn split(&mut self, candidates: &[Candidate], survey: &Survey, next: Pointer, copies: f64) -> Pointer {
        let Survey { field, edges, .. } = survey;
        let lists = self.divide(candidates, *field, edges);
        let children: Vec<Pointer> = lists.into_iter().map(|list| self.build(list, next, copies)).collect();
        let last = edges.last().map_or(0, |edge| *edge as usize);
        let first = children.iter().map(|child| first_rank(*child)).min().unwrap_or(NO_RANK);
        let way = self.longest(&children);
        let node = if last <= 4 * children.len() + 8 {
            self.direct(*field, edges, &children)
        } else {
            let numbers: Vec<u64> = edges.iter().map(|edge| u64::from(*edge)).collect();
            let Array(array) = self.writer.array(&numbers);
            let children = self.writer.append(children);
            self.writer.place(&[kind::SPLIT | (*field as u64) << 8, array, children, 0])
        };
        self.point(node, first, Way { steps: way.steps + 1, ..way })
    }

    /// A child for each number instead of each piece.
    fn direct(&mut self, field: usize, edges: &[u32], children: &[Pointer]) -> u64 {
        let mut each = Vec::new();
        for (edge, child) in edges.iter().zip(children) {
            each.resize(*edge as usize, *child);
        }
        let beyond = children[children.len() - 1];
        let count = each.len() as u64;
        let at = self.writer.append(each);
        self.writer.place(&[kind::DIRECT | (field as u64) << 8, count, at, beyond])
    }

    /// The candidates of each piece.
    fn divide(&mut self, candidates: &[Candidate], field: usize, edges: &[u32]) -> Vec<Vec<Candidate>> {
        let (mut begin, mut end) = (vec![Vec::new(); edges.len() + 2], vec![Vec::new(); edges.len() + 2]);
        for (index, candidate) in candidates.iter().enumerate() {
            if candidate.open >> field & 1 == 0 {
                begin[0].push(index);
                continue;
            }
            for interval in self.rules[candidate.rule as usize].numbers(field).intervals() {
                let (first, after) = pieces(interval, edges);
                begin[first].push(index);
                end[after].push(index);
            }
        }
        let groups = self.groups(candidates);
        let mut here = BTreeSet::new();
        let mut lists = Vec::with_capacity(edges.len() + 1);
        for piece in 0..=edges.len() {
            for index in &end[piece] {
                here.remove(index);
            }
            here.extend(&begin[piece]);
            lists.push(self.seen_here(candidates, &here, field, groups));
        }
        lists
    }

    /// Up to where every group is hidden.
    fn seen_here(
        &mut self,
        candidates: &[Candidate],
        here: &BTreeSet<usize>,
        field: usize,
        groups: usize,
    ) -> Vec<Candidate> {
        let (mut hidden_by, mut count) = ([None; 256], 0);
        let group_of = |rule: u32| usize::from(self.rules[rule as usize].group);
        let mut seen = Vec::new();
        let mut rest = here.iter().map(|index| candidates[*index]);
        for Candidate { rule, open } in rest.by_ref() {
            let candidate = Candidate { rule, open: open & !(1 << field) };
            let by = &mut hidden_by[group_of(rule)];
            if let Some(by) = *by {
                self.hiding.note(by, rule);
                continue;
            }
            seen.push(candidate);
            if candidate.open == 0 {
                *by = Some(rule);
                count += 1;
                if count == groups {
                    break;
                }
            }
        }
        let hidden = rest.filter_map(|one| Some((hidden_by[group_of(one.rule)]?, one.rule)));
        self.hiding.note_all(hidden);
        seen
    }

    /// Those that ask little of the field by which most do, and the others.
    fn separate(
        &self,
        candidates: &[Candidate],
        surveys: &[Survey],
    ) -> Option<(Vec<Candidate>, Vec<Candidate>)> {
        let narrow = surveys.iter().map(|survey| self.narrow(candidates, survey));
        let narrow = narrow.max_by_key(BTreeSet::len)?;
        let worth_it = narrow.len() >= 2 * LEAF && narrow.len() >= candidates.len() / 8;
        (worth_it && narrow.len() < candidates.len())
            .then(|| candidates.iter().partition(|candidate| narrow.contains(&candidate.rule)))
    }

    /// The narrowest, as many as are in two pieces each on an average.
    fn narrow(&self, candidates: &[Candidate], survey: &Survey) -> BTreeSet<u32> {
        let asking = candidates.iter().filter(|candidate| candidate.open >> survey.field & 1 == 1);
        let mut widths: Vec<(usize, u32)> = asking
            .map(|candidate| (self.pieces_of(candidate, survey.field, &survey.edges), candidate.rule))
            .collect();
        widths.sort_unstable();
        let mut sum = 0;
        let fits = |(count, (width, _)): &(usize, (usize, u32))| {
            sum += *width;
            sum <= 2 * (count + 1) && *width < survey.edges.len() / 2
        };
        widths.into_iter().enumerate().take_while(fits).map(|(_, (_, rule))| rule).collect()
    }

    fn leaf(&mut self, candidates: &[Candidate], next: Pointer) -> Pointer {
        let mut words = vec![kind::LEAF | (candidates.len() as u64) << 8, next];
        words.extend(candidates.iter().map(|candidate| self.rules[candidate.rule as usize].word()));
        self.count.candidates += candidates.len() as u64;
        let node = self.writer.place(&words);
        self.last(node, candidates, next, candidates.len())
    }

    fn blocks(&mut self, candidates: &[Candidate], next: Pointer) -> Pointer {
        candidates.chunks(BLOCK).rev().fold(next, |next, block| self.block(block, next))
    }

    fn block(&mut self, candidates: &[Candidate], next: Pointer) -> Pointer {
        let open = candidates.iter().fold(0, |bits, candidate| bits | candidate.open);
        let fields = (0..field::COUNT).filter(|field| open >> field & 1 == 1);
        let mut rows: Vec<Rows> = fields.map(|field| self.rows(candidates, field)).collect();
        // What tells most apart is asked first: often nothing is left to ask then.
        rows.sort_by_key(|rows| std::cmp::Reverse(rows.pieces));
        let words = candidates.iter().map(|candidate| self.rules[candidate.rule as usize].word());
        let listed = self.writer.append(words.collect::<Vec<_>>());
        let count = candidates.len() as u64;
        let head = kind::BLOCK | (rows.len() as u64) << 8 | count << 32;
        let mut node = vec![head, next, listed, 0];
        node.extend(rows.iter().flat_map(|rows| [rows.edges, rows.at | (rows.field as u64) << 32]));
        self.count.in_blocks += count;
        let node = self.writer.place(&node);
        self.last(node, candidates, next, 1)
    }

    fn rows(&mut self, candidates: &[Candidate], field: usize) -> Rows {
        let edges = self.edges(candidates, field);
        let width = candidates.len().div_ceil(64);
        let mut rows = vec![vec![0_u64; width]; edges.len() + 1];
        for (index, candidate) in candidates.iter().enumerate() {
            let bit = 1 << (index % 64);
            let mut mark = |pieces: std::ops::Range<usize>| {
                rows[pieces].iter_mut().for_each(|row| row[index / 64] |= bit);
            };
            if candidate.open >> field & 1 == 0 {
                mark(0..edges.len() + 1);
                continue;
            }
            for interval in self.rules[candidate.rule as usize].numbers(field).intervals() {
                let (first, end) = pieces(interval, &edges);
                mark(first..end);
            }
        }
        let mut placed: HashMap<Vec<u64>, u64> = HashMap::new();
        let mut offsets = Vec::with_capacity(rows.len());
        for row in rows {
            let at = placed.entry(row).or_insert_with_key(|row| self.writer.place(row));
            offsets.push(*at);
        }
        let numbers: Vec<u64> = edges.iter().map(|edge| u64::from(*edge)).collect();
        let Array(edges) = self.writer.array(&numbers);
        Rows { field, pieces: offsets.len(), edges, at: self.writer.append(offsets) }
    }

    /// A node from which there is one way on.
    fn last(&mut self, node: u64, candidates: &[Candidate], next: Pointer, checks: usize) -> Pointer {
        let own = candidates.first().map_or(NO_RANK, |one| self.rules[one.rule as usize].rank.into());
        let on = self.way(next);
        let way = Way { steps: on.steps + 1, checks: on.checks + checks as u32 };
        self.point(node, own.min(first_rank(next)), way)
    }

    fn longest(&self, pointers: &[Pointer]) -> Way {
        pointers.iter().map(|pointer| self.way(*pointer)).fold(Way::default(), |longest, way| Way {
            steps: longest.steps.max(way.steps),
            checks: longest.checks.max(way.checks),
        })
    }

    fn point(&mut self, node: u64, first: u64, way: Way) -> Pointer {
        self.count.nodes += 1;
        self.ways.insert(node as u32, way);
        node | first << 32
    }
}

/// The pieces that an interval covers: the first, and the one after the last.
fn pieces(interval: &(u32, u32), edges: &[u32]) -> (usize, usize) {
    let piece = |number: u32| edges.partition_point(|edge| *edge <= number);
    (piece(interval.0), piece(interval.1) + 1)
}

fn best_split(surveys: &[Survey], candidates: usize, copies: f64) -> Option<&Survey> {
    let count = candidates as f64;
    surveys
        .iter()
        .filter(|survey| survey.copies <= copies * count && survey.per_piece() <= count / 2.0)
        .min_by(|one, other| one.per_piece().total_cmp(&other.per_piece()))
}

const _: () = assert!(4 + 2 * field::COUNT <= CHUNK && LEAF + 2 <= CHUNK);
