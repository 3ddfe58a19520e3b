//! `waylay check`: what is wrong with a policy, before it is used.

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use serde::Serialize;
use waylay_config::{
    Declarations, Diagnostic, Lowered, Severity, Sources, lint, lower, paper::Paper, read, strangers,
};
use waylay_host::names::HostNames;

use crate::{
    args::{CheckArgs, Format},
    policy::{self, Count},
    terminal::{self, Colour, Paint},
};

/// The policy cannot be used.
const WRONG: u8 = 1;

pub(crate) fn check(args: &CheckArgs) -> Result<ExitCode, Box<dyn Error>> {
    let sources = policy::sources(&args.policy)?;
    let findings = Findings::of(&sources);
    let text = match args.output {
        Format::Human => findings.words(&sources, terminal::stdout()),
        Format::Json => serde_json::to_string_pretty(&findings.written(&sources))? + "\n",
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(if findings.is_usable() { ExitCode::SUCCESS } else { ExitCode::from(WRONG) })
}

/// What there is to say of a policy.
struct Findings {
    declarations: Declarations,
    diagnostics: Vec<Diagnostic>,
    lowered: Option<Lowered>,
}

#[derive(Serialize)]
struct Written<'a> {
    files: Vec<&'a str>,
    errors: usize,
    warnings: usize,
    /// In their solved order; empty if there is none.
    services: Vec<&'a str>,
    sublayers: Vec<&'a str>,
    filters: usize,
    diagnostics: Vec<WrittenDiagnostic<'a>>,
}

#[derive(Serialize)]
struct WrittenDiagnostic<'a> {
    severity: String,
    message: String,
    file: Option<&'a str>,
    line: Option<usize>,
    column: Option<usize>,
    help: Option<&'a str>,
}

impl Findings {
    fn of(sources: &Sources) -> Self {
        let host = HostNames::new();
        let (declarations, mut diagnostics) = read(sources);
        // Whether a filter shadows another does not depend on what is installed today.
        let lowered = lower(&declarations, &Paper::new(&host), &mut diagnostics);
        if let Some(lowered) = &lowered {
            diagnostics.extend(strangers(&declarations, &host));
            diagnostics.extend(lint(&declarations, lowered, sources));
        }
        Self { declarations, diagnostics, lowered }
    }

    /// There may be a policy that no engine takes.
    fn is_usable(&self) -> bool {
        self.lowered.is_some() && policy::count(&self.diagnostics, Severity::Error) == 0
    }

    fn words(&self, sources: &Sources, paint: Paint) -> String {
        let findings = policy::words(&self.diagnostics, sources, paint);
        format!("{findings}{}\n", self.summary(sources, paint))
    }

    /// In one line, as the last.
    fn summary(&self, sources: &Sources, paint: Paint) -> String {
        let files: Vec<&str> = sources.iter().map(|(name, _)| name).collect();
        let files = files.join(", ");
        let errors = policy::count(&self.diagnostics, Severity::Error);
        let usable = self.lowered.as_ref().filter(|_| self.is_usable());
        let Some(lowered) = usable else {
            return format!("{} {files}: {}", paint.paint(Colour::Red, "wrong"), Count(errors));
        };
        let order: Vec<&str> =
            lowered.policy.services().iter().map(|service| service.name.as_str()).collect();
        let order = if order.is_empty() { "none".to_owned() } else { order.join(" -> ") };
        let warnings = policy::count(&self.diagnostics, Severity::Warning);
        let verdict = match warnings {
            0 => paint.paint(Colour::Green, "good"),
            _ => paint.paint(Colour::Yellow, "usable"),
        };
        let warnings = match warnings {
            0 => String::new(),
            1 => ", 1 warning".to_owned(),
            many => format!(", {many} warnings"),
        };
        format!(
            "{verdict} {files}: services {order}; sublayers {}; filters {}{warnings}",
            self.declarations.sublayers.len(),
            self.declarations.filters.len(),
        )
    }

    fn written<'a>(&'a self, sources: &'a Sources) -> Written<'a> {
        let policy = self.lowered.as_ref().map(|lowered| &lowered.policy);
        let services = policy.map(|policy| policy.services()).unwrap_or_default();
        let sublayers = policy.map(|policy| policy.sublayers()).unwrap_or_default();
        Written {
            files: sources.iter().map(|(name, _)| name).collect(),
            errors: policy::count(&self.diagnostics, Severity::Error),
            warnings: policy::count(&self.diagnostics, Severity::Warning),
            services: services.iter().map(|service| service.name.as_str()).collect(),
            sublayers: sublayers.iter().map(|sublayer| sublayer.name.as_str()).collect(),
            filters: self.declarations.filters.len(),
            diagnostics: self.diagnostics.iter().map(|diagnostic| write(diagnostic, sources)).collect(),
        }
    }
}

fn write<'a>(diagnostic: &'a Diagnostic, sources: &'a Sources) -> WrittenDiagnostic<'a> {
    let span = diagnostic.span.as_ref();
    WrittenDiagnostic {
        severity: diagnostic.severity().to_string(),
        message: diagnostic.problem.to_string(),
        file: span.map(|span| sources.name(span)),
        line: span.map(|span| sources.line(span)),
        column: span.map(|span| sources.column(span)),
        help: diagnostic.help.as_deref(),
    }
}
