//! What the benches share: rounds in which the rivals take turns, and the table
//! at the end.
//!
//! It never decides whether a figure is good: it prints medians and their
//! spread, and the reader of `docs` finds the goals there.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::{fmt, hint::black_box, time::Instant};

/// One way to do something.
pub struct Rival<'r> {
    /// As the table names it.
    pub name: &'static str,
    /// Does it once.
    pub act: Box<dyn FnMut() + 'r>,
}

impl fmt::Debug for Rival<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Lets the rivals take turns, `rounds` times, each doing it `times` times in its turn; nanoseconds each took
/// for one, round by round.
pub fn take_turns(rivals: &mut [Rival<'_>], rounds: usize, times: u32) -> Vec<Vec<f64>> {
    let mut figures = vec![Vec::with_capacity(rounds); rivals.len()];
    // The first round fills caches and does not count.
    for round in 0..=rounds {
        for (rival, figures) in rivals.iter_mut().zip(&mut figures) {
            let took = time(times, &mut rival.act);
            if round > 0 {
                figures.push(took);
            }
        }
    }
    figures
}

fn time(times: u32, act: &mut dyn FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..times {
        black_box(&mut *act)();
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(times)
}

/// Prints each rival's median, fastest and slowest round, and the median of its rounds' ratios to the first rival's.
pub fn print_table(rivals: &[Rival<'_>], figures: &[Vec<f64>]) {
    println!("{:<44}{:>10}{:>10}{:>10}{:>10}", "", "median ns", "fastest", "slowest", "ratio");
    for (rival, own) in rivals.iter().zip(figures) {
        let ratios: Vec<f64> = own.iter().zip(&figures[0]).map(|(own, first)| own / first).collect();
        let spread = Spread::of(own);
        let ratio = Spread::of(&ratios).median;
        println!(
            "{:<44}{:>10.0}{:>10.0}{:>10.0}{:>10.2}",
            rival.name, spread.median, spread.least, spread.most, ratio
        );
    }
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
    /// That of these figures, of which there is one at least.
    #[must_use]
    pub fn of(figures: &[f64]) -> Self {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self { median: sorted[sorted.len() / 2], least: sorted[0], most: sorted[sorted.len() - 1] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rivals_take_turns_and_the_first_round_does_not_count() {
        let order = std::cell::RefCell::new(String::new());
        let rival = |name: &'static str| Rival { name, act: Box::new(|| order.borrow_mut().push_str(name)) };
        let mut rivals = [rival("a"), rival("b")];
        let figures = take_turns(&mut rivals, 2, 2);
        assert_eq!(figures.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
        drop(rivals);
        assert_eq!(order.into_inner(), "aabbaabbaabb");
    }

    #[test]
    fn the_spread_is_that_of_the_sorted_figures() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Spread { median: 2.0, least: 1.0, most: 3.0 });
    }
}
