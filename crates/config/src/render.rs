//! Diagnostics as people read them: file, line, caret, help.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet, renderer::DecorStyle};

use crate::problem::{Diagnostic, Severity};
use crate::source::{Sources, Span};

/// What the reader's terminal can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Style {
    /// Characters alone.
    #[default]
    Plain,
    /// Colours.
    Coloured,
}

/// The diagnostics as text, one after the other, with an empty line between; without one at the end.
#[must_use]
pub fn render(diagnostics: &[Diagnostic], sources: &Sources, style: Style) -> String {
    let renderer = match style {
        Style::Plain => Renderer::plain(),
        Style::Coloured => Renderer::styled(),
    };
    let renderer = renderer.decor_style(DecorStyle::Ascii);
    let each = diagnostics.iter().map(|diagnostic| renderer.render(&report(diagnostic, sources)));
    each.collect::<Vec<_>>().join("\n\n")
}

fn report<'a>(diagnostic: &'a Diagnostic, sources: &'a Sources) -> [Group<'a>; 1] {
    let level = match diagnostic.severity() {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let mut group = Group::with_title(level.primary_title(diagnostic.problem.to_string()));
    if let Some(span) = &diagnostic.span {
        let is_here = |related: &Span| related.source == span.source;
        let mut snippet = snippet(span, sources).annotation(AnnotationKind::Primary.span(span.bytes()));
        for (related, what) in diagnostic.related.iter().filter(|(related, _)| is_here(related)) {
            snippet = snippet.annotation(AnnotationKind::Context.span(related.bytes()).label(*what));
        }
        group = group.element(snippet);
        for (related, what) in diagnostic.related.iter().filter(|(related, _)| !is_here(related)) {
            let there = AnnotationKind::Context.span(related.bytes()).label(*what);
            group = group.element(self::snippet(related, sources).annotation(there));
        }
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help));
    }
    [group]
}

fn snippet<'a, T: Clone>(span: &Span, sources: &'a Sources) -> Snippet<'a, T> {
    Snippet::source(sources.text(span)).path(sources.name(span))
}
