//! Finding and reading the project's own files, for the tests beside it.
//!
//! It knows nothing of what the files mean and nothing of the other crates: the
//! rules are in `tests/`.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A file of the project.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its path, from the root of the workspace.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// The root of the workspace.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The files that people write, of these extensions.
///
/// # Panics
/// If one cannot be read.
#[must_use]
pub fn sources(extensions: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    for directory in ["crates", "examples", "tests"] {
        collect(&root().join(directory), extensions, &mut found);
    }
    found
}

fn collect(directory: &Path, extensions: &[&str], found: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).expect("a readable directory") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            collect(&path, extensions, found);
        } else if path.extension().is_some_and(|extension| extensions.iter().any(|known| extension == *known))
        {
            let text = fs::read_to_string(&path).expect("a file of UTF-8");
            let path = path.strip_prefix(root()).expect("below the root").display().to_string();
            found.push(Source { path, text });
        }
    }
}

/// A line of Rust without its comment and with empty string literals.
#[must_use]
pub fn code_of(line: &str) -> String {
    let mut code = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(['"', '/']) {
        let (before, from) = rest.split_at(at);
        code.push_str(before);
        if from.starts_with("//") {
            return code;
        }
        code.push_str(&from[..1]);
        rest = &from[1..];
        if from.starts_with('"') && !before.ends_with('\'') {
            rest = after_literal(rest);
        }
    }
    code + rest
}

/// What follows the closing quote.
fn after_literal(text: &str) -> &str {
    let mut escaped = false;
    let end = text.find(|character| {
        let ends = character == '"' && !escaped;
        escaped = character == '\\' && !escaped;
        ends
    });
    end.map_or("", |end| &text[end + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_no_code() {
        assert_eq!(code_of("let a = b; // danger"), "let a = b; ");
        assert_eq!(code_of(r#"print("danger \" {"); c / d"#), r#"print("); c / d"#);
        assert_eq!(code_of(r#"x == '"' && y"#), r#"x == '"' && y"#);
        assert_eq!(code_of("plain"), "plain");
    }
}
