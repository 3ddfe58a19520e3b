//! From what was typed after `--pattern` to the patterns of `scan`.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use thiserror::Error;
use waylay_inspect::scan::{PatternError, Patterns};

/// Bytes of a file at most: as many as the patterns may have, each with a line feed.
const LONGEST_FILE: u64 = 2 * Patterns::MOST_BYTES as u64;

/// Why there is nothing to look for.
#[derive(Debug, Error)]
pub(crate) enum PatternsError {
    /// A file of patterns cannot be read.
    #[error("--pattern @{0}: cannot read it", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// It is longer than the patterns together may be.
    #[error("--pattern @{0}: longer than {LONGEST_FILE} bytes", path.display())]
    FileTooLong { path: PathBuf },
    /// It has nothing but blank lines.
    #[error("--pattern @{0}: has no pattern, only blank lines", path.display())]
    NoneInFile { path: PathBuf },
    /// They cannot be looked for.
    #[error("--pattern")]
    Pattern(#[from] PatternError),
}

/// The patterns that were asked for; without any, the EICAR test string.
pub(crate) fn read(arguments: &[OsString]) -> Result<Patterns, PatternsError> {
    if arguments.is_empty() {
        return Ok(Patterns::eicar());
    }
    let mut all = Vec::new();
    for argument in arguments {
        match argument.as_bytes().strip_prefix(b"@") {
            Some(path) => all.extend(of_file(Path::new(OsStr::from_bytes(path)))?),
            None => all.push(argument.as_bytes().to_vec()),
        }
    }
    let patterns = Patterns::new(all)?;
    Ok(patterns)
}

fn of_file(path: &Path) -> Result<Vec<Vec<u8>>, PatternsError> {
    let text = bytes_of(path)?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let patterns: Vec<_> = lines.map(<[u8]>::to_vec).collect();
    if patterns.is_empty() {
        return Err(PatternsError::NoneInFile { path: path.into() });
    }
    Ok(patterns)
}

fn bytes_of(path: &Path) -> Result<Vec<u8>, PatternsError> {
    let failed = |source| PatternsError::Read { path: path.into(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    let length = file.take(LONGEST_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if length as u64 > LONGEST_FILE {
        return Err(PatternsError::FileTooLong { path: path.into() });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read_all(arguments: &[&str]) -> Result<Patterns, PatternsError> {
        read(&arguments.iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn file(content: &[u8]) -> (tempfile::NamedTempFile, String) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        let argument = format!("@{}", file.path().display());
        (file, argument)
    }

    #[test]
    fn a_file_has_one_a_line_as_its_bytes_are() {
        let (_file, argument) = file(b"\nfirst one\n \t\n\xff\x00 \r\nlast");
        let patterns = read_all(&["typed", &argument]).unwrap();
        let wanted: [&[u8]; 4] = [b"typed", b"first one", b"\xff\x00 \r", b"last"];
        assert!(patterns.iter().eq(wanted));
    }

    #[test]
    fn without_any_there_is_the_test_string() {
        assert_eq!(read_all(&[]).unwrap(), Patterns::eicar());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let (_blank, blank) = file(b"\n  \n");
        let long = "a".repeat(Patterns::LONGEST + 1);
        for (arguments, words) in [
            (["x", ""], "an empty pattern matches everything"),
            (["x", &long], "a pattern of 65537 bytes is too long: at most 65536 are possible"),
            (["x", &blank], "has no pattern, only blank lines"),
            (["x", "@/no/such/file"], "--pattern @/no/such/file: cannot read it"),
            (["x", "@/dev/zero"], "--pattern @/dev/zero: longer than 2097152 bytes"),
        ] {
            let error = read_all(&arguments).unwrap_err();
            let text = std::error::Error::source(&error).map_or_else(String::new, |cause| format!("{cause}"));
            assert!(format!("{error}: {text}").contains(words), "{error}: {text}");
        }
    }
}
