//! Policies as files: finding and reading them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use thiserror::Error;
use waylay_config::{Diagnostic, Severity, Sources, Style, render};

use crate::terminal::Paint;

/// Where the policy of a host is.
pub(crate) const DEFAULT: &str = "/etc/waylay/policy.toml";
/// What is added to it, from beside it.
const FOLDER: &str = "conf.d";

/// Why a policy's files cannot be read.
#[derive(Debug, Error)]
pub(crate) enum PolicyFileError {
    /// One of them.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It holds together by no means; what is wrong has been printed.
    #[error("{}: {errors}", path.display())]
    Wrong {
        /// The policy's file.
        path: PathBuf,
        /// How many errors there are.
        errors: Count,
    },
}

/// So many errors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count(pub(crate) usize);

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} error{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

/// The texts of a policy: the file, and those in the folder `conf.d` beside it, by name.
pub(crate) fn sources(file: &Path) -> Result<Sources, PolicyFileError> {
    let mut sources = Sources::default();
    for path in [vec![file.to_owned()], added(file)?].concat() {
        let text = fs::read_to_string(&path)
            .map_err(|source| PolicyFileError::Read { path: path.clone(), source })?;
        sources.add(path.display().to_string(), text);
    }
    Ok(sources)
}

fn added(file: &Path) -> Result<Vec<PathBuf>, PolicyFileError> {
    let folder = file.with_file_name(FOLDER);
    let failed = |source| PolicyFileError::Read { path: folder.clone(), source };
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>().map_err(failed)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    Ok(paths)
}

/// What was found, in words; empty if nothing was.
pub(crate) fn words(diagnostics: &[Diagnostic], sources: &Sources, paint: Paint) -> String {
    let style = if paint.is_on() { Style::Coloured } else { Style::Plain };
    let text = render(diagnostics, sources, style);
    if text.is_empty() { text } else { text + "\n\n" }
}

/// How many there are of a severity.
pub(crate) fn count(diagnostics: &[Diagnostic], severity: Severity) -> usize {
    diagnostics.iter().filter(|diagnostic| diagnostic.severity() == severity).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_a_file_and_what_is_in_the_folder_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policy.toml");
        fs::write(&file, "a").unwrap();
        fs::create_dir(folder.path().join(FOLDER)).unwrap();
        for name in ["20-b.toml", "10-a.toml", "10-a.toml~", "README"] {
            fs::write(folder.path().join(FOLDER).join(name), name).unwrap();
        }
        let sources = sources(&file).unwrap();
        let texts: Vec<&str> = sources.iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["a", "10-a.toml", "20-b.toml"]);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = sources(Path::new("/no/such/policy.toml")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read /no/such/policy.toml");
    }
}
