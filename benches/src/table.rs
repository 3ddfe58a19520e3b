//! What a contest came to, for people and as raw figures.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::{
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

use crate::contest::{Column, Contest, Figures, Rival, Spread, take_turns};

const NAME: usize = 44;
const CELL: usize = 28;
const RATIO: usize = 7;

impl Contest<'_> {
    /// Lets the rivals take turns, and prints and keeps what came of it.
    pub fn run(mut self, bench: &str, rounds: usize) {
        let figures = take_turns(&mut self.rivals, rounds);
        print(&self, &figures);
        save(bench, &self, &figures);
    }
}

/// Prints each rival's median, least and most, and the median of its rounds' ratios to the one it is compared with.
fn print(contest: &Contest<'_>, figures: &Figures) {
    let rounds = figures.first().map_or(0, Vec::len);
    println!("\n## {}, {rounds} rounds in turns: median [least .. most]\n", contest.title);
    let mut head = format!("{:<NAME$}", "");
    for column in &contest.columns {
        write!(head, "{:>CELL$}{:>RATIO$}", column.unit, "ratio").unwrap();
    }
    println!("{head}");
    for (rival, own) in contest.rivals.iter().zip(figures) {
        println!("{}", line(rival, &contest.columns, own, &figures[rival.against]));
    }
}

fn line(
    rival: &Rival<'_>,
    columns: &[Column],
    own: &[Vec<Option<f64>>],
    other: &[Vec<Option<f64>>],
) -> String {
    let mut line = format!("{:<NAME$}", rival.name);
    for (index, column) in columns.iter().enumerate() {
        let figures = own.iter().filter_map(|round| round[index]).collect();
        let ratios = own.iter().zip(other).filter_map(|(own, other)| Some(own[index]? / other[index]?));
        let cell = Spread::of(figures).map_or("-".into(), |spread| cell(spread, column.digits));
        let ratio = Spread::of(ratios.collect()).map_or("-".into(), |ratios| format!("{:.2}", ratios.median));
        write!(line, "{cell:>CELL$}{ratio:>RATIO$}").unwrap();
    }
    if let Some(goal) = rival.goal {
        write!(line, "   goal {goal}").unwrap();
    }
    line
}

fn cell(spread: Spread, digits: usize) -> String {
    let Spread { median, least, most } = spread;
    format!("{median:.digits$} [{least:.digits$} .. {most:.digits$}]")
}

/// Writes every figure to the bench's file, behind those of its earlier contests: contest, rival, round, unit, figure.
fn save(bench: &str, contest: &Contest<'_>, figures: &Figures) {
    static EARLIER: Mutex<String> = Mutex::new(String::new());
    let path = directory().join(format!("{bench}.csv"));
    let mut text = EARLIER.lock().unwrap();
    if text.is_empty() {
        text.push_str("contest,rival,round,unit,figure\n");
    }
    for (rival, rounds) in contest.rivals.iter().zip(figures) {
        for (round, own) in rounds.iter().enumerate() {
            for (column, figure) in contest.columns.iter().zip(own) {
                let Some(figure) = figure else { continue };
                let (title, name, unit) = (contest.title, &rival.name, column.unit);
                writeln!(text, "\"{title}\",\"{name}\",{},\"{unit}\",{figure}", round + 1).unwrap();
            }
        }
    }
    fs::create_dir_all(directory()).unwrap();
    fs::write(&path, &*text).unwrap();
    println!("\nevery figure: {}", path.display());
}

/// `figures`, beside the profile's directory the bench was built into.
fn directory() -> PathBuf {
    let own = env::current_exe().unwrap();
    own.ancestors().nth(3).unwrap_or(Path::new(".")).join("figures")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_ratios() {
        let columns = [Column { unit: "ns", digits: 0 }, Column { unit: "s/GB", digits: 2 }];
        let other = [vec![Some(1.0), None], vec![Some(10.0), None], vec![Some(100.0), None]];
        let own = [vec![Some(2.0), Some(0.5)], vec![Some(30.0), Some(0.25)], vec![Some(100.0), Some(1.0)]];
        let rival = Rival::new("ours", Vec::new).goal(1.5);
        let line = line(&rival, &columns, &own, &other);
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            words,
            ["ours", "30", "[2", "..", "100]", "2.00", "0.50", "[0.25", "..", "1.00]", "-", "goal", "1.5"]
        );
    }
}
