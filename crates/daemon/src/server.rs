//! The control socket: who connects, what they ask, and what they are told.

use std::{
    collections::BTreeMap,
    fs, io,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::Receiver,
    },
    thread,
    time::{Duration, Instant},
};

use rustix::net::sockopt::socket_peercred;
use thiserror::Error;
use waylay_config::Names;
use waylay_host::user::Identity;

use crate::{
    feed::{Feed, Watched},
    force::Force,
    keeper::{Keeper, Peer},
    ledger::{ROOT, SessionId},
    protocol::{Answer, Code, Failure, Happening, Message, Request, Run, Terms, Text},
};

/// Where the socket is, if nobody says otherwise.
pub const DEFAULT: &str = "/run/waylay/control.sock";

/// Connections of all users together.
const MOST_CONNECTIONS: usize = 256;
/// Connections of one user who is not root.
const MOST_OF_A_USER: usize = 16;
/// Bytes of a request of root, which may add 100,000 filters.
const LONGEST_OF_ROOT: u64 = 64 << 20;
/// Bytes of a request of others.
const LONGEST_OF_A_USER: u64 = 256 << 10;
/// How long somebody may leave an answer unread before the connection is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between looks whether the services of a run have ended.
const LOOK: Duration = Duration::from_millis(10);

/// Why there is no control socket.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Somebody listens there.
    #[error("a daemon runs already: process {pid} listens on {}", path.display())]
    Taken {
        /// The socket.
        path: PathBuf,
        /// The process.
        pid: i32,
    },
    /// It cannot be made.
    #[error("cannot listen on {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A socket of ours, which goes with this.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Listens at a path. What a dead daemon has left there is replaced. Everybody may connect: the kernel says who it is.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn listen(path: &Path) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Listen { path: path.to_owned(), source };
        if let Ok(other) = UnixStream::connect(path) {
            let pid = socket_peercred(&other).map_or(0, |peer| peer.pid.as_raw_nonzero().get());
            return Err(SocketError::Taken { path: path.to_owned(), pid });
        }
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        if fs::symlink_metadata(path).is_ok_and(|metadata| is_socket(&metadata)) {
            fs::remove_file(path).map_err(failed)?;
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned() })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Somebody may have removed it already.
        let _gone = fs::remove_file(&self.path);
    }
}

fn is_socket(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    metadata.file_type().is_socket()
}

/// Answers on a socket. Clones are one and the same.
pub struct Server<F, N> {
    keeper: Arc<Mutex<Option<Keeper<F, N>>>>,
    feed: Feed,
    scope: PathBuf,
    sessions: Arc<AtomicU64>,
    connections: Arc<Mutex<BTreeMap<u32, usize>>>,
}

impl<F, N> Clone for Server<F, N> {
    fn clone(&self) -> Self {
        Self {
            keeper: Arc::clone(&self.keeper),
            feed: self.feed.clone(),
            scope: self.scope.clone(),
            sessions: Arc::clone(&self.sessions),
            connections: Arc::clone(&self.connections),
        }
    }
}

impl<F: Force + 'static, N: Names + Send + 'static> Server<F, N> {
    /// Answers for this keeper, of whose force this is the scope.
    #[must_use]
    pub fn new(keeper: Keeper<F, N>, feed: Feed, scope: PathBuf) -> Self {
        let keeper = Arc::new(Mutex::new(Some(keeper)));
        Self { keeper, feed, scope, sessions: Arc::default(), connections: Arc::default() }
    }

    /// Does something with the keeper, one after the other; nothing once it has been taken.
    pub fn with_keeper<T>(&self, act: impl FnOnce(&mut Keeper<F, N>) -> T) -> Option<T> {
        self.lock().as_mut().map(act)
    }

    /// Takes the keeper away, so that nothing changes any more.
    #[must_use]
    pub fn take_keeper(&self) -> Option<Keeper<F, N>> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Keeper<F, N>>> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers whoever connects, each on a thread of its own, from now on.
    ///
    /// # Errors
    /// If there can be no other descriptor of the socket.
    pub fn serve(&self, socket: &Socket) -> io::Result<()> {
        let listener = socket.listener.try_clone()?;
        let server = self.clone();
        thread::spawn(move || {
            loop {
                match listener.accept() {
                    Ok((stream, _address)) => server.take(stream),
                    // As a rule there are too many descriptors, and some will be closed.
                    Err(_full) => thread::sleep(Duration::from_millis(100)),
                }
            }
        });
        Ok(())
    }

    fn take(&self, stream: UnixStream) {
        let server = self.clone();
        // Without room for a thread the connection is closed: to take none any more would keep everybody out for ever.
        let _closed = thread::Builder::new().spawn(move || {
            // Whoever does not listen to the answer has gone.
            let _gone = server.converse(&stream);
        });
    }

    fn converse(&self, stream: &UnixStream) -> io::Result<()> {
        stream.set_write_timeout(Some(PATIENCE))?;
        let credentials = socket_peercred(stream)?;
        let (uid, pid) = (credentials.uid.as_raw(), credentials.pid.as_raw_nonzero().get().unsigned_abs());
        let writer = Writer(Arc::new(Mutex::new(stream.try_clone()?)));
        let Some(_place) = Place::take(&self.connections, uid) else {
            return writer.say(&Message::Error(Failure::new(Code::Busy, "there are too many connections")));
        };
        let name = Identity::with_uid(uid).ok().and_then(|identity| Some(identity.person?.name));
        let session = SessionId(self.sessions.fetch_add(1, Ordering::Relaxed));
        let peer = Peer { pid, uid, name: name.unwrap_or_else(|| uid.to_string()), session };
        let ended = self.answer_all(stream, &writer, &peer);
        self.feed.forget(session);
        // What cannot be carried out at once is tried again, and shown as overdue until then.
        let changed = self.with_keeper(|keeper| keeper.end_session(session));
        if let Some(Ok(true)) = changed {
            self.feed.changed(format!("what {} had added for a session has ended", peer.name));
        }
        ended
    }

    fn answer_all(&self, stream: &UnixStream, writer: &Writer, peer: &Peer) -> io::Result<()> {
        let longest = if peer.uid == ROOT { LONGEST_OF_ROOT } else { LONGEST_OF_A_USER };
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = Vec::new();
            reader.by_ref().take(longest).read_until(b'\n', &mut line)?;
            if line.is_empty() {
                return Ok(());
            }
            if line.last() != Some(&b'\n') {
                let why = format!("a request is one line of at most {longest} bytes");
                return writer.say(&Message::Error(Failure::new(Code::Malformed, why)));
            }
            let answer = serde_json::from_slice(&line)
                .map_err(|error| Failure::new(Code::Malformed, error.to_string()))
                .and_then(|request| self.answer(request, peer, writer));
            writer.say(&match answer {
                Ok(answer) => Message::Answer(answer),
                Err(failure) => Message::Error(failure),
            })?;
        }
    }

    fn answer(&self, request: Request, peer: &Peer, writer: &Writer) -> Result<Answer, Failure> {
        let ending = || Failure::new(Code::Failed, "the daemon is about to end");
        let answered = |answer: Option<Answer>| answer.ok_or_else(ending);
        match request {
            Request::Status => answered(self.with_keeper(|keeper| keeper.status(&self.scope))),
            Request::Services => answered(self.with_keeper(|keeper| keeper.services())),
            Request::Filters => answered(self.with_keeper(|keeper| keeper.filters(peer))),
            Request::Sublayers => answered(self.with_keeper(|keeper| keeper.sublayers(peer))),
            Request::Flows => self.with_keeper(|keeper| keeper.flows(peer)).ok_or_else(ending)?,
            Request::Why(subject) => {
                self.with_keeper(|keeper| keeper.why(&subject, peer)).ok_or_else(ending)?
            }
            Request::Observe => {
                let busy = |why| Failure::new(Code::Busy, why);
                let happenings = self.feed.listen(peer.session, peer.uid);
                let happenings = happenings.ok_or_else(|| busy("this connection is told already"))?;
                let told = writer.tell_all(happenings);
                told.map_err(|_full| busy("there is no room for another observer"))?;
                Ok(Answer::Observing)
            }
            Request::Run { texts, terms } => self.run(peer, writer, texts, terms).ok_or_else(ending)?,
            Request::Enter { run } => {
                self.with_keeper(|keeper| keeper.enter_run(peer, run)).ok_or_else(ending)??;
                Ok(Answer::Entered)
            }
            Request::Finish => self.finish(peer).ok_or_else(ending)?,
            Request::Reload if peer.uid != ROOT => {
                Err(Failure::new(Code::NotAllowed, "only root may have the files read again"))
            }
            Request::Reload => {
                let changed = self.with_keeper(Keeper::reload).ok_or_else(ending)??;
                self.feed.changed(format!("{} had the files read again", peer.name));
                Ok(Answer::Changed(changed))
            }
            Request::Change { add, remove, lifetime } => {
                let change = |keeper: &mut Keeper<F, N>| keeper.change(peer, add, &remove, lifetime);
                let changed = self.with_keeper(change).ok_or_else(ending)??;
                let (added, removed) = (changed.added.len(), changed.removed.len());
                self.feed.changed(format!("{} added {added} and removed {removed}", peer.name));
                Ok(Answer::Changed(changed))
            }
        }
    }
}

/// Runs of clients.
impl<F: Force + 'static, N: Names + Send + 'static> Server<F, N> {
    /// `None` when the daemon is about to end.
    fn run(
        &self,
        peer: &Peer,
        writer: &Writer,
        texts: Vec<Text>,
        terms: Terms,
    ) -> Option<Result<Answer, Failure>> {
        self.with_keeper(|keeper| {
            let guest = keeper.enclose(peer, terms)?;
            let (run, prefix, cgroup) = (guest.number(), guest.prefix(), guest.directory());
            let watched = Watched { prefix: prefix.clone(), cgroup: guest.cgroup().to_owned() };
            let told = self.feed.watch(peer.session, peer.uid, watched);
            if told.is_none_or(|happenings| writer.tell_all(happenings).is_err()) {
                keeper.dissolve(peer.session);
                return Err(Failure::new(Code::Busy, "nobody can tell this connection what happens"));
            }
            match keeper.begin_run(peer, texts) {
                Ok(warnings) => Ok(Answer::Run(Run { run, prefix, cgroup, warnings })),
                Err(failure) => {
                    self.feed.forget(peer.session);
                    Err(failure)
                }
            }
        })
    }

    /// The same; `finished` comes when the services have.
    fn finish(&self, peer: &Peer) -> Option<Result<Answer, Failure>> {
        let Some(prefix) = self.with_keeper(|keeper| keeper.prefix_of_run(peer.session))? else {
            return Some(Err(Failure::new(Code::Unknown, "this connection has no run")));
        };
        if let Err(failure) = self.with_keeper(|keeper| keeper.end_session(peer.session))? {
            return Some(Err(failure));
        }
        let give_up = Instant::now() + PATIENCE;
        while Instant::now() < give_up && self.with_keeper(|keeper| keeper.has_services(&prefix))? {
            thread::sleep(LOOK);
        }
        self.feed.finish(peer.session);
        Some(Ok(Answer::Finishing))
    }
}

/// One's place among the connections, given up with this.
struct Place {
    connections: Arc<Mutex<BTreeMap<u32, usize>>>,
    uid: u32,
}

impl Place {
    /// Root always finds one: somebody has to be able to remove what the others have added.
    fn take(connections: &Arc<Mutex<BTreeMap<u32, usize>>>, uid: u32) -> Option<Self> {
        let mut counts = connections.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = counts.values().sum();
        let own = counts.entry(uid).or_default();
        if uid != ROOT && (*own >= MOST_OF_A_USER || all >= MOST_CONNECTIONS) {
            return None;
        }
        *own += 1;
        Some(Self { connections: Arc::clone(connections), uid })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = counts.get_mut(&self.uid) {
            *own -= 1;
        }
        counts.retain(|_, own| *own > 0);
    }
}

/// One end of a connection, for answers and what happens. Clones are one and the same.
#[derive(Clone)]
struct Writer(Arc<Mutex<UnixStream>>);

impl Writer {
    fn say(&self, message: &Message) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line)
    }

    /// Passes on what happens, on a thread of its own, until nobody listens.
    fn tell_all(&self, happenings: Receiver<Happening>) -> io::Result<()> {
        let writer = self.clone();
        let tell = move || {
            for happening in happenings {
                if writer.say(&Message::Event(happening)).is_err() {
                    break;
                }
            }
        };
        thread::Builder::new().spawn(tell).map(|_thread| ())
    }
}
