//! Network namespaces that processes are in, and what is done inside of one.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::Path,
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use waylay_core::Namespace;
use waylay_engine_ebpf::netns_cookie;

/// Of this thread: that of the process may be another one.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace.
#[derive(Debug)]
pub(crate) struct Netns {
    /// `None` of the own one.
    file: Option<File>,
    namespace: Namespace,
}

impl Netns {
    /// That of this process.
    pub(crate) const fn own() -> Self {
        Self { file: None, namespace: Namespace::Own }
    }

    /// Those that processes are in besides the own one; each process that ends meanwhile is in none.
    ///
    /// # Errors
    /// If one cannot be entered.
    pub(crate) fn others_of(pids: impl IntoIterator<Item = u32>) -> io::Result<Vec<Self>> {
        let own = id(Path::new(OWN))?;
        let mut files = BTreeMap::new();
        for pid in pids {
            let path = format!("/proc/{pid}/ns/net");
            let Ok(id) = id(Path::new(&path)) else { continue };
            if id != own && !files.contains_key(&id) {
                files.extend(File::open(&path).ok().map(|file| (id, file)));
            }
        }
        files.into_values().map(Self::entered).collect()
    }

    /// The one that a file stands for.
    ///
    /// # Errors
    /// If it cannot be entered.
    pub(crate) fn entered(file: File) -> io::Result<Self> {
        let own = netns_cookie()?;
        let cookie = within(&file, netns_cookie)??;
        Ok(if cookie == own {
            Self::own()
        } else {
            Self { file: Some(file), namespace: Namespace::Foreign(cookie) }
        })
    }

    /// As filters know it.
    pub(crate) const fn namespace(&self) -> Namespace {
        self.namespace
    }

    /// Does something inside of it.
    ///
    /// # Errors
    /// If it cannot be entered.
    pub(crate) fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> io::Result<T> {
        match &self.file {
            None => Ok(act()),
            Some(file) => within(file, act),
        }
    }
}

/// What tells it from all others while it is there.
fn id(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// By a thread of its own: one that has entered another namespace is of no use for anything else.
fn within<T: Send>(file: &File, act: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|threads| {
        let entered = threads.spawn(|| {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(act())
        });
        entered.join().unwrap_or_else(|_panic| Err(io::ErrorKind::Other.into()))
    })
}
