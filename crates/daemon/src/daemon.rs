//! The whole life of one daemon.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};
use thiserror::Error;
use waylay_config::Names;
use waylay_host::{Interruption, Observer, RunError};

use crate::{
    declared::Itself,
    feed::Feed,
    files::Store,
    force::Force,
    history::History,
    keeper::{Keeper, Settings},
    protocol::{Changed, Failure},
    server::{Server, Socket, SocketError},
};

/// How often names are looked up again, at most.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Looking them up again takes at most one part in so many of the time.
const SHARE: u32 = 20;

/// What a daemon is to do.
#[derive(Clone, Debug)]
pub struct DaemonSpec {
    /// The policy's file.
    pub policy: PathBuf,
    /// Whose connections are redirected, as a path below the root of the hierarchy; for people.
    pub scope: PathBuf,
    /// Where the control socket is to be.
    pub socket: PathBuf,
    /// Where what is added for good is kept.
    pub state: PathBuf,
    /// What `scan` finds on its standard input.
    pub patterns: Vec<u8>,
}

/// Why a daemon did not start, or did not end in order.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The policy is not in force.
    #[error(transparent)]
    Policy(#[from] Failure),
    /// The control socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The engine and all around it.
    #[error(transparent)]
    Station(#[from] RunError),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
}

/// What the daemon's own observer is told beside what happens to connections.
pub trait Chronicle: Send + Sync {
    /// A policy is in force, with these remarks.
    fn in_force(&self, changed: &Changed);
    /// A policy is not in force that was to be; the one before it is.
    fn refused(&self, failure: &Failure);
    /// Requests are answered from here on.
    fn ready(&self);
}

enum Wish {
    End,
    Reload,
}

/// Keeps a policy in force until a signal asks for the end. `open` makes what carries it out and `close` ends that.
///
/// # Errors
/// [`DaemonError`]; nothing is left behind then.
pub fn run<F, N>(
    spec: &DaemonSpec,
    observers: (Arc<dyn Observer>, &dyn Chronicle),
    history: History,
    names: impl Fn() -> N + Send + 'static,
    open: impl FnOnce(Arc<dyn Observer>, Interruption) -> Result<F, RunError>,
    close: impl FnOnce(F) -> Result<(), RunError>,
) -> Result<(), DaemonError>
where
    F: Force + 'static,
    N: Names + Send + 'static,
{
    let (observer, chronicle) = observers;
    let interruption = Interruption::default();
    let wishes = listen_to_signals(interruption.clone()).map_err(DaemonError::Signals)?;
    let socket = Socket::listen(&spec.socket)?;
    let feed = Feed::new(observer, history.clone());
    let settings = Settings {
        policy: spec.policy.clone(),
        store: Store::new(spec.state.clone()),
        patterns: spec.patterns.clone(),
        itself: Itself::current(),
    };
    let force = open(Arc::new(feed.clone()), interruption)?;
    let mut keeper = Keeper::new(settings, force, history, names);
    match keeper.reload() {
        Ok(changed) => chronicle.in_force(&changed),
        Err(failure) => {
            // Why nothing is in force is worth more than what cannot be cleaned up after it.
            let _closed = close(keeper.into_force());
            return Err(failure.into());
        }
    }
    let server = Server::new(keeper, feed, spec.scope.clone());
    let served = server
        .serve(&socket)
        .map_err(|source| DaemonError::from(SocketError::Listen { path: spec.socket.clone(), source }));
    if served.is_ok() {
        chronicle.ready();
        notify("READY=1");
        attend(&server, &wishes, chronicle);
        notify("STOPPING=1");
    }
    drop(socket);
    if let Some(keeper) = server.take_keeper() {
        close(keeper.into_force())?;
    }
    served
}

fn listen_to_signals(interruption: Interruption) -> io::Result<Receiver<Wish>> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let (wishes, receiver): (Sender<Wish>, _) = channel();
    thread::spawn(move || {
        for signal in signals.forever() {
            let wish = if signal == SIGHUP { Wish::Reload } else { Wish::End };
            if matches!(wish, Wish::End) {
                interruption.raise(signal);
            }
            if wishes.send(wish).is_err() {
                break;
            }
        }
    });
    Ok(receiver)
}

/// Until somebody wishes for the end.
fn attend<F, N>(server: &Server<F, N>, wishes: &Receiver<Wish>, chronicle: &dyn Chronicle)
where
    F: Force + 'static,
    N: Names + Send + 'static,
{
    let mut pause = LOOK_AGAIN;
    loop {
        match wishes.recv_timeout(pause) {
            Ok(Wish::End) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(Wish::Reload) => match server.with_keeper(Keeper::reload) {
                Some(Ok(changed)) => chronicle.in_force(&changed),
                Some(Err(failure)) => chronicle.refused(&failure),
                None => return,
            },
            Err(RecvTimeoutError::Timeout) => {
                let begun = Instant::now();
                match server.with_keeper(Keeper::look_again) {
                    Some(Ok(true)) => chronicle.in_force(&Changed::default()),
                    Some(Err(failure)) => chronicle.refused(&failure),
                    Some(Ok(false)) | None => {}
                }
                pause = LOOK_AGAIN.max(begun.elapsed() * SHARE);
            }
        }
    }
}

/// Tells the service manager, if it wants to know: sd_notify(3).
fn notify(state: &str) {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return };
    let told = address(&path).and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        socket.send_to_addr(state.as_bytes(), &address)
    });
    // Whoever asked to be told and cannot be finds out by itself.
    let _told = told;
}

fn address(path: &OsStr) -> io::Result<SocketAddr> {
    match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(path),
    }
}
