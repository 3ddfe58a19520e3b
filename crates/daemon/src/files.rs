//! Policies as files: finding and reading them, and keeping what was added for good.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use rustix::fs::Mode;
use thiserror::Error;
use waylay_config::Sources;

use crate::ledger::{Ledger, Lifetime, Number};

/// What is added to a policy, from beside it.
const FOLDER: &str = "conf.d";
/// What the names of files end in that are kept for before there is a daemon.
const BOOT: &str = ".boot";

/// Why a policy's files cannot be read or kept.
#[derive(Debug, Error)]
pub enum FileError {
    /// One of them cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What was added cannot be kept, or its file not be removed.
    #[error("cannot keep {}", path.display())]
    Keep {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The texts of a policy by name: the file, and those in the folder `conf.d` beside it, in the order of their names.
///
/// # Errors
/// [`FileError::Read`].
pub fn texts(file: &Path) -> Result<Vec<(String, String)>, FileError> {
    let added = toml_files(&file.with_file_name(FOLDER))?;
    let paths = std::iter::once(file.to_owned()).chain(added);
    paths.map(|path| Ok((path.display().to_string(), text(&path)?))).collect()
}

/// The same as [`Sources`].
///
/// # Errors
/// [`FileError::Read`].
pub fn sources(file: &Path) -> Result<Sources, FileError> {
    let mut sources = Sources::default();
    texts(file)?.into_iter().for_each(|(name, text)| sources.add(name, text));
    Ok(sources)
}

/// The files of a policy, and what was added for good.
///
/// # Errors
/// [`FileError::Read`].
pub fn ledger(file: &Path, store: &Store) -> Result<Ledger, FileError> {
    let mut ledger = Ledger::default();
    for (number, lifetime, text) in store.read()? {
        ledger.add_again(number, lifetime, text);
    }
    ledger.set_files(texts(file)?);
    Ok(ledger)
}

fn text(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path).map_err(|source| FileError::Read { path: path.to_owned(), source })
}

fn toml_files(folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    let failed = |source| FileError::Read { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
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

/// The directory of what was added for good: a file for each number.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

/// A file that is whole and on its device, and has not its name yet; removed unless it is kept.
#[derive(Debug)]
pub struct Written {
    temporary: PathBuf,
    path: PathBuf,
}

impl Store {
    /// In this directory, which is made when something is kept.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// What is kept, by number.
    ///
    /// # Errors
    /// [`FileError::Read`].
    pub fn read(&self) -> Result<Vec<(Number, Lifetime, String)>, FileError> {
        let mut kept = Vec::new();
        for path in toml_files(&self.directory)? {
            if let Some((number, lifetime)) = kept_as(&path) {
                kept.push((number, lifetime, text(&path)?));
            }
        }
        kept.sort();
        Ok(kept)
    }

    /// Writes a text, to be kept or not.
    ///
    /// # Errors
    /// [`FileError::Keep`].
    pub fn write(&self, number: Number, lifetime: Lifetime, text: &str) -> Result<Written, FileError> {
        let path = self.path(number, lifetime);
        let written = Written { temporary: path.with_extension("new"), path: path.clone() };
        let write = || {
            fs::create_dir_all(&self.directory)?;
            let mut file = File::create(&written.temporary)?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(0o600))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        match write() {
            Ok(()) => Ok(written),
            Err(source) => Err(FileError::Keep { path, source }),
        }
    }

    /// Removes what is kept as this number.
    ///
    /// # Errors
    /// [`FileError::Keep`].
    pub fn remove(&self, number: Number, lifetime: Lifetime) -> Result<(), FileError> {
        let path = self.path(number, lifetime);
        let removed = fs::remove_file(&path).and_then(|()| sync(&self.directory));
        removed.map_err(|source| FileError::Keep { path, source })
    }

    fn path(&self, number: Number, lifetime: Lifetime) -> PathBuf {
        let mark = match lifetime {
            Lifetime::Boot => BOOT,
            Lifetime::Session(_) | Lifetime::Daemon | Lifetime::Persistent => "",
        };
        self.directory.join(format!("{number}{mark}.toml"))
    }
}

impl Written {
    /// Gives it its name: from here on it is there after whatever happens.
    ///
    /// # Errors
    /// [`FileError::Keep`].
    pub fn keep(self) -> Result<(), FileError> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        let kept = fs::rename(&self.temporary, &self.path).and_then(|()| sync(directory));
        kept.map_err(|source| FileError::Keep { path: self.path.clone(), source })
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        // It is gone if it has been kept.
        let _kept = fs::remove_file(&self.temporary);
    }
}

/// What the name of a file in the store says.
fn kept_as(path: &Path) -> Option<(Number, Lifetime)> {
    let stem = path.file_stem()?.to_str()?;
    let (number, lifetime) = match stem.strip_suffix(BOOT) {
        Some(number) => (number, Lifetime::Boot),
        None => (stem, Lifetime::Persistent),
    };
    Some((Number(number.parse().ok()?), lifetime))
}

/// The names in a directory are on its device only after this.
fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
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
        let texts: Vec<String> = texts(&file).unwrap().into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["a", "10-a.toml", "20-b.toml"]);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = sources(Path::new("/no/such/policy.toml")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read /no/such/policy.toml");
    }

    #[test]
    fn what_is_kept_is_there_again_in_the_order_of_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().join("state"));
        assert!(store.read().unwrap().is_empty());
        let (nine, ten) = ((Number(9), Lifetime::Boot), (Number(10), Lifetime::Persistent));
        for (number, lifetime) in [ten, nine] {
            store.write(number, lifetime, &format!("# {number}")).unwrap().keep().unwrap();
        }
        let forgotten = store.write(Number(11), Lifetime::Persistent, "# 11").unwrap();
        let kept = vec![(nine.0, nine.1, "# 9".to_owned()), (ten.0, ten.1, "# 10".to_owned())];
        assert_eq!(store.read().unwrap(), kept);
        drop(forgotten);
        store.remove(nine.0, nine.1).unwrap();
        let names: Vec<_> = fs::read_dir(folder.path().join("state"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["10.toml"]);
    }
}
