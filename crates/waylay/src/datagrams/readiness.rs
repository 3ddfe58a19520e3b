use std::io;

use crate::{platform, socket::AsSocket};

/// Waits for any of very many sockets, without a task or a registration with the runtime for each.
///
/// # Example
/// ```no_run
/// use waylay::datagrams::Readiness;
///
/// # async fn wait(socket: &std::net::UdpSocket) -> std::io::Result<()> {
/// let mut readiness = Readiness::new()?;
/// readiness.add(socket, 7)?;
/// let ready = readiness.wait().await?;
/// assert_eq!(ready[0].key, 7);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Readiness {
    system: platform::Readiness,
    ready: Vec<Ready>,
}

/// A socket that has something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// What it was added with.
    pub key: u64,
    /// Whether there is an error to be [taken](super::Unreachable::take).
    pub has_error: bool,
}

impl Readiness {
    /// Of no socket yet. The current runtime needs I/O enabled.
    ///
    /// # Errors
    /// What the system said; `Unsupported` on Windows.
    pub fn new() -> io::Result<Self> {
        Ok(Self { system: platform::Readiness::new()?, ready: Vec::new() })
    }

    /// Waits for this socket, too, until it is closed.
    ///
    /// # Errors
    /// What the system said.
    pub fn add(&self, socket: &impl AsSocket, key: u64) -> io::Result<()> {
        self.system.add(socket, key)
    }

    /// Those that are ready, a few hundred at most, as soon as there is one.
    ///
    /// # Errors
    /// What the system said.
    pub async fn wait(&mut self) -> io::Result<&[Ready]> {
        self.system.wait(&mut self.ready).await?;
        Ok(&self.ready)
    }
}
