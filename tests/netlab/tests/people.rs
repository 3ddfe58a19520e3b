//! What people see and type: help, completions, manual pages, colours, and
//! progress on terminals.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    net::Ipv4Addr,
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;
use waylay_netlab::{Finished, Ground, TcpServer, Waylay, python};

const ON_TERMINAL: &str = include_str!("../scripts/on_terminal.py");
/// What people can type.
const COMMANDS: [&str; 18] = [
    "run",
    "doctor",
    "check",
    "filter test",
    "filter ls",
    "filter add",
    "filter rm",
    "service ls",
    "service add",
    "service rm",
    "service order",
    "status",
    "flows",
    "observe",
    "reload",
    "why",
    "completions",
    "man",
];
/// The first part of a colour.
const COLOUR: &str = "\x1b[3";
/// What erases the line that shows progress.
const ERASE: &str = "\r\x1b[K";

/// `waylay` with these arguments.
fn output(arguments: &[&str]) -> Output {
    Command::new(Waylay::binary()).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn stdout(arguments: &[&str]) -> String {
    let output = output(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a command says of itself.
fn help(command: &str) -> String {
    let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
    stdout(&words)
}

/// The file of its manual page.
fn page(command: &str) -> String {
    format!("waylay-{}.1", command.replace(' ', "-"))
}

mod help {
    use super::*;

    #[test]
    fn of_every_command_has_examples_and_exit_codes() {
        for command in COMMANDS {
            let help = super::help(command);
            let wanted = ["Usage: waylay ", "Examples:\n", "Exit status: ", "--color <WHEN>"];
            assert!(wanted.iter().all(|part| help.contains(part)), "{command}: {help}");
            assert!(help.lines().all(|line| line.chars().count() <= 100), "{command}: {help}");
        }
    }

    #[test]
    fn lists_what_people_can_type_and_nothing_else() {
        let help = stdout(&["--help"]);
        let (_, list) = help.split_once("Commands:\n").unwrap();
        let (list, _) = list.split_once("\n\n").unwrap();
        let names: Vec<&str> = list.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
        let mut known = COMMANDS.map(|command| command.split(' ').next().unwrap()).to_vec();
        known.dedup();
        assert_eq!(names, known);
    }

    #[test]
    fn has_examples_whose_options_exist() {
        let mut seen = 0;
        for command in COMMANDS {
            let help = super::help(command);
            let (options, examples) = help.split_once("Examples:\n").unwrap();
            for line in examples.lines().filter(|line| line.contains(&format!("waylay {command} "))) {
                let ours = line.split(" -- ").next().unwrap();
                for option in ours.split_whitespace().filter(|word| word.starts_with("--")) {
                    assert!(options.contains(option), "{command}: {option}");
                    seen += 1;
                }
            }
        }
        assert!(seen > 5);
    }
}

#[test]
fn a_mistyped_command_is_answered_with_the_one_that_may_be_meant() {
    let output = output(&["rn", "--", "true"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text.contains("a similar subcommand exists: 'run'"), "{text}");
}

mod completions {
    use super::*;

    /// Loads the script as a user would and completes the last word.
    fn completed(words: &str) -> BTreeSet<String> {
        const COMPLETE: &str = "
source <(\"$0\" completions bash) || exit
COMP_WORDS=($1) COMP_CWORD=$2
[[ $1 == *' ' ]] && COMP_WORDS+=('')
complete -p waylay >/dev/null || exit
_waylay waylay \"${COMP_WORDS[$COMP_CWORD]}\" \"${COMP_WORDS[$COMP_CWORD-1]}\"
printf '%s\\n' \"${COMPREPLY[@]}\"
";
        let last = words.split(' ').count() - 1;
        let output = Command::new("bash")
            .args(["--norc", "-c", COMPLETE])
            .arg(Waylay::binary())
            .args([words, &last.to_string()])
            .output()
            .unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{words}: {output:?}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    fn set(words: &[&str]) -> BTreeSet<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn in_bash_know_commands_options_and_values() {
        assert_eq!(completed("waylay r"), set(&["run", "reload"]));
        assert_eq!(completed("waylay d"), set(&["doctor"]));
        assert_eq!(completed("waylay run --thr"), set(&["--through"]));
        assert_eq!(completed("waylay run --on-failure "), set(&["open", "closed"]));
        assert_eq!(completed("waylay doctor -o j"), set(&["json"]));
        assert_eq!(
            completed("waylay completions "),
            completed("waylay completions -").into_iter().chain(set(&["bash", "zsh", "fish"])).collect()
        );
    }

    #[test]
    fn in_bash_do_not_know_what_nobody_types() {
        assert!(completed("waylay ").iter().all(|word| !word.contains("__")));
        for shell in ["bash", "zsh", "fish"] {
            let script = stdout(&["completions", shell]);
            assert!(
                COMMANDS.iter().flat_map(|command| command.split(' ')).all(|word| script.contains(word)),
                "{shell}"
            );
            assert!(!script.contains("__launch") && !script.contains("__serve"), "{shell}");
        }
    }

    #[test]
    fn are_scripts_that_the_shells_take() {
        for (shell, check) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(stdout(&["completions", shell]).as_bytes()).unwrap();
            let checked = Command::new(shell).arg(check).arg(file.path()).output().unwrap();
            assert!(checked.status.success(), "{shell}: {checked:?}");
        }
    }
}

mod manual {
    use super::*;

    fn pages() -> TempDir {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("new/man1");
        stdout(&["man", path.to_str().unwrap()]);
        directory
    }

    #[test]
    fn has_a_page_for_every_command() {
        let directory = pages();
        let files = fs::read_dir(directory.path().join("new/man1")).unwrap().flatten();
        let names: BTreeSet<String> = files.map(|entry| entry.file_name().into_string().unwrap()).collect();
        let pages = COMMANDS.map(page).into_iter();
        let of_groups = ["waylay.1", "waylayd.1", "waylay-filter.1", "waylay-service.1"].map(str::to_owned);
        assert_eq!(names, pages.chain(of_groups).collect());
    }

    #[test]
    fn says_what_the_help_says() {
        let directory = pages();
        for command in COMMANDS {
            let path = directory.path().join(format!("new/man1/{}", page(command)));
            let text = fs::read_to_string(path).unwrap();
            for part in
                [".TH", ".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS", ".SH EXAMPLES", ".SH \"EXIT STATUS\""]
            {
                assert!(text.contains(part), "{command}: no {part}");
            }
            // roff(7) wants hyphens of options escaped.
            let help = super::help(command);
            let words =
                help.split(|character: char| !(character.is_ascii_alphanumeric() || character == '-'));
            for option in words.filter(|word| word.starts_with("--") && word.len() > 2) {
                assert!(text.contains(&option.replace('-', r"\-")), "{command}: no {option}");
            }
        }
    }

    #[test]
    fn cannot_be_written_everywhere() {
        let output = output(&["man", "/proc/nowhere"]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(text.contains("cannot write the manual page /proc/nowhere"), "{text}");
    }
}

mod colours {
    use super::*;

    fn doctor(arguments: &[&str], variables: &[(&str, &str)]) -> String {
        let mut command = Command::new(Waylay::binary());
        command.args(arguments).envs(variables.iter().copied());
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    #[test]
    fn are_on_terminals_only() {
        let shown = on_terminal(&["doctor"], &[]).stdout;
        assert!(shown.contains("\x1b[32m✓\x1b[0m"), "{shown}");
        assert!(!doctor(&["doctor"], &[]).contains('\x1b'));
    }

    #[test]
    fn are_nowhere_if_nobody_wants_them() {
        for variables in [[("NO_COLOR", "1")], [("TERM", "dumb")]] {
            let shown = on_terminal(&["doctor"], &variables).stdout;
            assert!(!shown.contains('\x1b'), "{variables:?}: {shown}");
        }
        let shown = on_terminal(&["--color", "never", "doctor"], &[]).stdout;
        assert!(!shown.contains('\x1b'), "{shown}");
    }

    #[test]
    fn are_everywhere_if_somebody_wants_them() {
        assert!(doctor(&["doctor", "--color", "always"], &[]).contains(COLOUR));
        assert!(doctor(&["doctor"], &[("CLICOLOR_FORCE", "1")]).contains(COLOUR));
        assert!(!doctor(&["doctor", "-o", "json", "--color", "always"], &[]).contains('\x1b'));
    }

    #[test]
    fn mark_errors_and_what_did_not_end_in_order() {
        let shown = on_terminal(&["run", "--forget", "nobody", "--", "true"], &[]).stdout;
        assert!(shown.contains("\x1b[31mwaylay:\x1b[0m --forget nobody"), "{shown}");

        let server = TcpServer::start(Ipv4Addr::LOCALHOST.into(), |mut stream| stream.write_all(b"tulip"));
        let dial = format!("read word < /dev/tcp/127.0.0.1/{}", server.address().port());
        let run =
            ["run", "--through", "log", "--through", "scan", "--pattern", "tulip", "--", "bash", "-c", &dial];
        let shown = on_terminal(&run, &[]).stdout;
        let line = |start: &str| shown.lines().any(|line| line.contains(start));
        assert!(line("\x1b[31mscan  bash[") && line("\x1b[33mlog  bash["), "{shown}");
    }
}

mod progress {
    use super::*;

    const RUN: [&str; 7] = ["run", "--through", "log", "--through", "scan", "--", "true"];

    #[test]
    fn shows_on_a_terminal_and_goes_away() {
        let shown = on_terminal(&RUN, &[("NO_COLOR", "1")]).well().stdout;
        for step in [
            "loading the programs …",
            "starting the service log …",
            "starting the service scan …",
            "stopping the services …",
        ] {
            assert!(shown.contains(&format!("{ERASE}waylay: {step}{ERASE}")), "{step}: {shown:?}");
        }
        assert!(shown.trim_end_matches('\n').ends_with(ERASE), "{shown:?}");
    }

    #[test]
    fn counts_processes_in_the_background() {
        let sleep = ["run", "--", "sh", "-c", "sleep 0.4 & exit 3"];
        let finished = on_terminal(&sleep, &[]);
        assert_eq!(finished.code(), 3);
        assert!(finished.stdout.contains("waylay: waiting for 1 process(es) …"), "{finished:?}");
    }

    #[test]
    fn shows_nowhere_else() {
        let finished = Ground::loopback().waylay().through_logs(2).watch(["true"]).well();
        assert_eq!(finished.stderr, "");
        let shown = on_terminal(&RUN, &[("TERM", "dumb")]).well().stdout;
        assert_eq!(shown, "");
    }
}

/// What `waylay` shows on a terminal, where both of its outputs go.
fn on_terminal(arguments: &[&str], variables: &[(&str, &str)]) -> Finished {
    let mut command = Command::new(python());
    command.args(["-c", ON_TERMINAL]).arg(Waylay::binary()).args(arguments);
    command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").env("TERM", "xterm");
    command.envs(variables.iter().copied());
    Waylay::within(command).finish()
}
