//! Instructions that the parts on the way of a connection take, counted by callgrind: a figure that does not
//! depend on how busy a machine is, so that it can be watched. More than a tenth above `budget.txt` is a failure.
//! Only the relay's depends on how often it is woken, from 2,200 on a busy machine to 5,900, so its budget is wide.
//!
//! `cargo bench -p waylay-benches --bench instructions`; needs valgrind.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench: a failed step must show")]

mod cases;
mod relay;

use std::{
    env,
    process::{Command, ExitCode},
};

const BUDGET: &str = include_str!("budget.txt");
/// What another compiler's or C library's habits may add.
const TOLERANCE: f64 = 1.1;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [command, name, times] = &arguments[..]
        && command == "case"
    {
        cases::run(name, times.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    println!("\n## Instructions in user space, by callgrind\n");
    println!("{:<68}{:>12}{:>12}{:>7}", "", "each", "budget", "ratio");
    let counted = cases::NAMES.iter().map(|&name| (name, of_case(name)));
    let over = counted.chain([(relay::NAME, relay::count())]).filter(|&(name, count)| !print(name, count));
    if over.count() == 0 {
        return ExitCode::SUCCESS;
    }
    println!(
        "\nMore than the budget allows: make it less, or say in benches/instructions/budget.txt why it has to be."
    );
    ExitCode::FAILURE
}

/// Prints a figure; whether it is within its budget.
fn print(name: &str, count: f64) -> bool {
    let budget = BUDGET.lines().find_map(|line| line.strip_prefix(name)).expect("a budget for each");
    let budget: f64 = budget.trim().parse().unwrap();
    let fine = count <= budget * TOLERANCE;
    let mark = if fine { "" } else { "   too many" };
    println!("{name:<68}{count:>12.0}{budget:>12.0}{:>7.2}{mark}", count / budget);
    fine
}

/// The difference between doing it often and not at all: what comes before and after does not count.
fn of_case(name: &str) -> f64 {
    const TIMES: u32 = 200;
    let run = |times: u32| {
        let mut command = valgrind();
        command.arg(env::current_exe().unwrap()).args(["case", name, &times.to_string()]);
        let output = command.output().expect("valgrind is needed");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        collected(&String::from_utf8(output.stderr).unwrap())
    };
    (run(TIMES) - run(0)) / f64::from(TIMES)
}

fn valgrind() -> Command {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command
}

/// The last number of instructions that valgrind has written.
fn collected(text: &str) -> f64 {
    let line = text.lines().rfind(|line| line.contains("Collected :")).expect("callgrind's summary");
    line.rsplit(' ').next().unwrap().parse().unwrap()
}
