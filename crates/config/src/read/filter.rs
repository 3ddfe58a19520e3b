//! Filters.

use waylay_core::{Errno, Right};

use super::conditions;
use super::table::{Problems, Scalar, Table, number, string, word};
use crate::declaration::{
    ActionDeclaration, ConditionDeclarations, FilterDeclaration, FilterLifetime, LayerDeclaration,
};
use crate::problem::{Diagnostic, Problem};
use crate::source::Located;
use crate::values;

/// TOML has numbers up to this.
const HEAVIEST: u64 = i64::MAX as u64;
const LIFETIMES: &[&str] = &["persistent", "boot"];

#[derive(Clone, Copy)]
enum Verb {
    Redirect,
    Permit,
    Block,
    Continue,
}

pub(super) fn read(table: &Table<'_>, problems: &mut Problems) -> Option<FilterDeclaration> {
    let name = table.one("name", problems, name);
    let weight = table.one("weight", problems, |value| number(value, HEAVIEST)).unwrap_or(0);
    let lifetimes = [FilterLifetime::Persistent, FilterLifetime::Boot];
    let lifetime = table.one("lifetime", problems, |value| word(value, LIFETIMES, &lifetimes));
    let lifetime = lifetime.unwrap_or_default();
    let wanted = conditions::read(table, "if", problems);
    let excluded = conditions::read(table, "unless", problems);
    let layer = layer(table, wanted.flags, problems)?;
    refuse_foreign_redirects(&layer, [&wanted.lists, &excluded.lists], problems);
    refuse_passing_by_name(&layer, &wanted.lists, &excluded.lists, problems);
    let span = table.span;
    let (wanted, excluded) = (wanted.lists, excluded.lists);
    Some(FilterDeclaration { name, span, lifetime, weight, layer, wanted, excluded })
}

fn layer(table: &Table<'_>, flags: conditions::Flags, problems: &mut Problems) -> Option<LayerDeclaration> {
    let words = &["redirect", "permit", "block", "continue"];
    let verbs = [Verb::Redirect, Verb::Permit, Verb::Block, Verb::Continue];
    if table.place("action").is_none() {
        problems.push(table.missing("action"));
        return None;
    }
    let verb = table.one("action", problems, |value| word(value, words, &verbs))?;
    refuse_keys_of_others(table, verb, flags, problems);
    match verb {
        Verb::Redirect => {
            let service = named(table, "service", problems)?;
            Some(LayerDeclaration::Redirect { service })
        }
        Verb::Permit | Verb::Block | Verb::Continue => {
            let action = action(table, verb, problems);
            let sublayer = named(table, "sublayer", problems)?;
            let conditions::Flags { redirected, proxied } = flags;
            Some(LayerDeclaration::Auth { sublayer, action, redirected, proxied })
        }
    }
}

fn refuse_keys_of_others(table: &Table<'_>, verb: Verb, flags: conditions::Flags, problems: &mut Problems) {
    match verb {
        Verb::Redirect => {
            table.misplaced(&["sublayer"], "\"permit\", \"block\" and \"continue\"", problems);
            table.misplaced(&["right"], "\"permit\" and \"block\"", problems);
            table.misplaced(&["errno"], "\"block\"", problems);
            let asked = [("redirected", flags.redirected), ("proxied", flags.proxied)];
            for (key, _) in asked.into_iter().filter(|(_, asked)| asked.is_some()) {
                let problem = Problem::MisplacedKey { key, with: "\"permit\", \"block\" and \"continue\"" };
                problems.push(problem.at(table.place("if").unwrap_or(&table.span)));
            }
        }
        Verb::Permit => {
            table.misplaced(&["service"], "\"redirect\"", problems);
            table.misplaced(&["errno"], "\"block\"", problems);
        }
        Verb::Block => table.misplaced(&["service"], "\"redirect\"", problems),
        Verb::Continue => {
            table.misplaced(&["service"], "\"redirect\"", problems);
            table.misplaced(&["right"], "\"permit\" and \"block\"", problems);
            table.misplaced(&["errno"], "\"block\"", problems);
        }
    }
}

/// Legs of other network namespaces are never redirected.
fn refuse_foreign_redirects(
    layer: &LayerDeclaration,
    asked: [&ConditionDeclarations; 2],
    problems: &mut Problems,
) {
    match layer {
        LayerDeclaration::Redirect { .. } => {
            let misplaced = Problem::MisplacedKey {
                key: "network_namespace",
                with: "\"permit\", \"block\" and \"continue\"",
            };
            let places = asked.into_iter().filter_map(|lists| Some(&lists.namespace.as_ref()?.span));
            problems.extend(places.map(|span| misplaced.clone().at(span)));
        }
        LayerDeclaration::Auth { .. } => {}
    }
}

/// The rule is told at [`waylay_core::PolicyError::PassesByName`]; here the place is known.
fn refuse_passing_by_name(
    layer: &LayerDeclaration,
    wanted: &ConditionDeclarations,
    excluded: &ConditionDeclarations,
    problems: &mut Problems,
) {
    let (action, place, lists) = match layer {
        LayerDeclaration::Redirect { .. } => ("redirect", "unless", excluded),
        LayerDeclaration::Auth { action: ActionDeclaration::Permit(_), .. } => ("permit", "if", wanted),
        LayerDeclaration::Auth { action: ActionDeclaration::Block(..), .. } => ("block", "unless", excluded),
        LayerDeclaration::Auth { action: ActionDeclaration::Continue, .. } => return,
    };
    if let Some(host) = &lists.host {
        problems.push(Problem::PassesByName { place, action }.at(&host.span));
    }
}

fn action(table: &Table<'_>, verb: Verb, problems: &mut Problems) -> ActionDeclaration {
    let rights = [Right::Soft, Right::Hard];
    let right = table.one("right", problems, |value| word(value, &["soft", "hard"], &rights));
    let errno = table.one("errno", problems, |value| {
        let text = string(value)?;
        values::errno(text.value).map_err(|problem| problem.at(&text.span))
    });
    match verb {
        Verb::Permit => ActionDeclaration::Permit(right.unwrap_or(Right::Soft)),
        Verb::Block => ActionDeclaration::Block(right.unwrap_or(Right::Hard), errno.unwrap_or(Errno::EACCES)),
        Verb::Continue | Verb::Redirect => ActionDeclaration::Continue,
    }
}

/// The name behind a key that has to be there.
fn named(table: &Table<'_>, key: &'static str, problems: &mut Problems) -> Option<Located<String>> {
    if table.place(key).is_none() {
        problems.push(table.missing(key));
    }
    table.one(key, problems, |value| Ok(string(value)?.map(str::to_owned)))
}

fn name(value: Scalar<'_>) -> Result<Located<String>, Diagnostic> {
    let text = string(value)?;
    values::name(text.value, values::LONGEST_NAME).map_err(|problem| problem.at(&text.span))?;
    Ok(text.map(str::to_owned))
}
