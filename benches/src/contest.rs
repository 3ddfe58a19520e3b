//! Rounds in which rivals take turns.

use std::{env, fmt, hint::black_box, time::Instant};

/// One way to do something.
pub struct Rival<'r> {
    /// As the table names it.
    pub name: String,
    /// Takes its turn: a figure for each column, unless it has none there.
    pub act: Box<dyn FnMut() -> Vec<Option<f64>> + 'r>,
    /// Whose figures of the same round its own are divided by: an index.
    pub against: usize,
    /// What the first column's ratio should be at most, or at least where more is better.
    pub goal: Option<f64>,
}

impl<'r> Rival<'r> {
    /// One with a figure for each column, compared with the first rival.
    pub fn new(name: impl Into<String>, act: impl FnMut() -> Vec<Option<f64>> + 'r) -> Self {
        Self { name: name.into(), act: Box::new(act), against: 0, goal: None }
    }

    /// One with a single figure.
    pub fn single(name: impl Into<String>, mut act: impl FnMut() -> f64 + 'r) -> Self {
        Self::new(name, move || vec![Some(act())])
    }

    /// Compares it with another than the first.
    #[must_use]
    pub fn against(self, against: usize) -> Self {
        Self { against, ..self }
    }

    /// Says what its ratio should be.
    #[must_use]
    pub fn goal(self, goal: f64) -> Self {
        Self { goal: Some(goal), ..self }
    }
}

impl fmt::Debug for Rival<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Nanoseconds that each of so many calls takes.
pub fn timed(times: u32, mut act: impl FnMut()) -> impl FnMut() -> f64 {
    move || {
        let start = Instant::now();
        for _ in 0..times {
            black_box(&mut act)();
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(times)
    }
}

/// How many rounds: the number that follows `--rounds` on the bench's command line, or the usual one.
#[must_use]
pub fn rounds(usual: usize) -> usize {
    let mut arguments = env::args().skip_while(|argument| argument != "--rounds").skip(1);
    arguments.next().map_or(usual, |number| number.parse().expect("--rounds takes a number"))
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its unit, with what it is of where that is not plain.
    pub unit: &'static str,
    /// Digits behind the point.
    pub digits: usize,
}

/// Rivals who do the same.
#[derive(Debug)]
pub struct Contest<'c> {
    /// What they do.
    pub title: &'static str,
    /// What is measured.
    pub columns: Vec<Column>,
    /// Who takes part.
    pub rivals: Vec<Rival<'c>>,
}

/// What each rival's turns came to: by rival, round and column.
pub type Figures = Vec<Vec<Vec<Option<f64>>>>;

pub(crate) fn take_turns(rivals: &mut [Rival<'_>], rounds: usize) -> Figures {
    let mut figures = vec![Vec::with_capacity(rounds); rivals.len()];
    // The first round fills caches and does not count.
    for round in 0..=rounds {
        for (rival, figures) in rivals.iter_mut().zip(&mut figures) {
            let figure = (rival.act)();
            if round > 0 {
                figures.push(figure);
            }
        }
    }
    figures
}

/// Where the figures of several rounds lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Half of them are below.
    pub median: f64,
    /// The least of them.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl Spread {
    /// That of these figures, unless there are none.
    #[must_use]
    pub fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        let (least, most) = (*figures.first()?, *figures.last()?);
        Some(Self { median: figures[figures.len() / 2], least, most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rivals_take_turns_and_the_first_round_does_not_count() {
        let order = std::cell::RefCell::new(String::new());
        let rival = |name: &'static str| {
            let act = || {
                order.borrow_mut().push_str(name);
                1.0
            };
            Rival::single(name, act)
        };
        let mut rivals = [rival("a"), rival("b")];
        let figures = take_turns(&mut rivals, 2);
        assert_eq!(figures.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
        drop(rivals);
        assert_eq!(order.into_inner(), "ababab");
    }

    #[test]
    fn the_spread_is_that_of_the_sorted_figures() {
        let spread = Spread { median: 2.0, least: 1.0, most: 3.0 };
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Some(spread));
        assert_eq!(Spread::of(vec![]), None);
    }

    #[test]
    fn what_is_timed_is_done_so_many_times() {
        let count = std::cell::Cell::new(0);
        let each = timed(3, || count.set(count.get() + 1))();
        assert!(each >= 0.0);
        assert_eq!(count.get(), 3);
    }
}
