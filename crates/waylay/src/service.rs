use std::{
    env, io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags},
    pipe::PipeFlags,
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::{
    context::{ChainHop, RedirectContext},
    error::{ConnectError, QueryError, ServeError, StartError},
    options::{
        RedirectRecords, query_redirect_chain, query_redirect_context, query_redirect_records,
        set_redirect_records,
    },
    sys,
};

/// A thread for each connection holds little: buffers are on the heap.
const STACK_BYTES: usize = 256 * 1024;
/// How long to leave a listener alone when descriptors or memory run out.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(10);

/// A redirect service: its listening sockets, and the loop over them.
#[derive(Debug)]
pub struct RedirectService {
    listeners: Vec<TcpListener>,
    stopped: OwnedFd,
    stop: Arc<OwnedFd>,
}

impl RedirectService {
    /// Takes the listening sockets the starter passed by `LISTEN_FDS`
    /// (`sd_listen_fds(3)`): descriptors 3 and up.
    ///
    /// # Errors
    /// [`StartError`] says what was not passed, or is not a listener.
    pub fn from_env() -> Result<Self, StartError> {
        let count: i32 = env::var("LISTEN_FDS").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
        if count == 0 {
            return Err(StartError::NoListeners);
        }
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let is_tcp = |index: usize| names.split(':').nth(index).is_none_or(|name| !name.starts_with("udp"));
        let passed = (3..3 + count).enumerate().filter(|&(index, _)| is_tcp(index));
        let listeners = passed.map(|(_, fd)| passed_listener(fd)).collect::<Result<_, _>>()?;
        Self::with_listeners(listeners)
    }

    /// A service on sockets that are listening already. They must have been
    /// created by a process of the registered service.
    ///
    /// From here on what they accept is reset when it is closed, the death of
    /// this process included: see [`Inbound::identify`].
    ///
    /// # Errors
    /// [`StartError::NotAListener`] if an option cannot be set on one,
    /// [`StartError::Pipe`] if the shutdown handle cannot be made.
    pub fn with_listeners(listeners: Vec<TcpListener>) -> Result<Self, StartError> {
        for listener in &listeners {
            SockRef::from(listener)
                .set_linger(Some(Duration::ZERO))
                .map_err(|source| StartError::NotAListener { fd: listener.as_raw_fd(), source })?;
        }
        let (stopped, stop) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| StartError::Pipe(e.into()))?;
        Ok(Self { listeners, stopped, stop: Arc::new(stop) })
    }

    /// A handle that makes [`serve`](Self::serve) stop accepting.
    #[must_use]
    pub fn shutdown(&self) -> Shutdown {
        Shutdown(Arc::clone(&self.stop))
    }

    /// Accepts connections and gives each to `handler`, on a thread of its own.
    ///
    /// Connections that carry no record (somebody dialled the listener
    /// directly, or left before they were accepted) are reset and never reach
    /// the handler. Returns when [`Shutdown::trigger`] was called and every
    /// handler has returned.
    ///
    /// # Errors
    /// Only a failing listener ends it; see [`ServeError`].
    pub fn serve(self, handler: impl Fn(Inbound) + Send + Sync + 'static) -> Result<(), ServeError> {
        let handler = Arc::new(handler);
        let running = Arc::new(AtomicUsize::new(0));
        for listener in &self.listeners {
            listener.set_nonblocking(true).map_err(ServeError::Listener)?;
        }
        while self.wait()? {
            for listener in &self.listeners {
                accept_all(listener, &handler, &running)?;
            }
        }
        while running.load(Ordering::Acquire) > 0 {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Until a connection waits; false once the service is to stop.
    fn wait(&self) -> Result<bool, ServeError> {
        let mut fds: Vec<PollFd<'_>> = self.listeners.iter().map(|l| PollFd::new(l, PollFlags::IN)).collect();
        fds.push(PollFd::new(&self.stopped, PollFlags::IN));
        match rustix::event::poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(ServeError::Listener(errno.into())),
        }
        Ok(fds.last().is_none_or(|stopped| stopped.revents().is_empty()))
    }
}

/// Ends a [`RedirectService::serve`] from another thread.
#[derive(Clone, Debug)]
pub struct Shutdown(Arc<OwnedFd>);

impl Shutdown {
    /// Stops accepting; connections being served go on to their end.
    pub fn trigger(&self) {
        // A full pipe has been triggered before.
        let _already_triggered = rustix::io::write(&self.0, &[0]);
    }
}

fn passed_listener(fd: i32) -> Result<TcpListener, StartError> {
    let listener = sys::adopt_listener(fd);
    let set_up = SockRef::from(&listener)
        .is_listener()
        .and_then(|listens| if listens { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) })
        .and_then(|()| SockRef::from(&listener).set_cloexec(true));
    set_up.map_err(|source| StartError::NotAListener { fd, source })?;
    Ok(listener)
}

fn accept_all(
    listener: &TcpListener,
    handler: &Arc<impl Fn(Inbound) + Send + Sync + 'static>,
    running: &Arc<AtomicUsize>,
) -> Result<(), ServeError> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => dispatch(stream, handler, running),
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN) => return Ok(()),
                Some(libc::ECONNABORTED | libc::EINTR | libc::EPROTO) => {}
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                    thread::sleep(SHORTAGE_PAUSE);
                    return Ok(());
                }
                Some(_) | None => return Err(ServeError::Listener(error)),
            },
        }
    }
}

fn dispatch(
    stream: TcpStream,
    handler: &Arc<impl Fn(Inbound) + Send + Sync + 'static>,
    running: &Arc<AtomicUsize>,
) {
    let handler = Arc::clone(handler);
    let ticket = Ticket::take(running);
    let spawned = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        let _ticket = ticket;
        if let Ok(inbound) = Inbound::identify(stream) {
            handler(inbound);
        }
    });
    if spawned.is_err() {
        // The stream went down with the closure and its peer sees a reset.
        thread::sleep(SHORTAGE_PAUSE);
    }
}

/// Counts a running handler, also when it panics.
struct Ticket(Arc<AtomicUsize>);

impl Ticket {
    fn take(running: &Arc<AtomicUsize>) -> Self {
        running.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(running))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An accepted connection, with all that the kernel knows about it.
///
/// Dropping it resets the application's connection.
#[derive(Debug)]
pub struct Inbound {
    stream: TcpStream,
    records: RedirectRecords,
    context: RedirectContext,
    chain: Vec<ChainHop>,
}

impl Inbound {
    /// Asks the kernel about an accepted connection.
    ///
    /// From here on closing the socket resets the connection, so that a service
    /// that dies does not look like an orderly end. Whoever has shut both
    /// directions down in order may switch `SO_LINGER` off again;
    /// `waylay-relay` does.
    ///
    /// # Errors
    /// See [`QueryError`]; the connection is reset.
    pub fn identify(stream: TcpStream) -> Result<Self, QueryError> {
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).map_err(QueryError::Os)?;
        stream.set_nonblocking(false).map_err(QueryError::Os)?;
        let records = query_redirect_records(&stream)?;
        let context = query_redirect_context(&stream)?;
        let chain = query_redirect_chain(&stream)?;
        Ok(Self { stream, records, context, chain })
    }

    /// Who is behind the connection.
    #[must_use]
    pub fn context(&self) -> &RedirectContext {
        &self.context
    }

    /// Where the application, or the service before this one, was going.
    #[must_use]
    pub fn original_destination(&self) -> SocketAddr {
        self.context.original_destination()
    }

    /// The services that have had the connection, this one last.
    #[must_use]
    pub fn chain(&self) -> &[ChainHop] {
        &self.chain
    }

    /// Connects on to the original destination.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect(&self) -> Result<Outbound, ConnectError> {
        self.connect_to(self.original_destination())
    }

    /// Connects on to another destination. The kernel may still redirect it to
    /// services that have not had the connection.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect_to(&self, destination: SocketAddr) -> Result<Outbound, ConnectError> {
        let socket = Socket::new(Domain::for_address(destination), Type::STREAM, Some(Protocol::TCP))
            .map_err(|source| ConnectError::Socket { destination, source })?;
        self.apply_wishes(&socket, destination).map_err(ConnectError::Wishes)?;
        set_redirect_records(&socket, &self.records)?;
        socket.set_linger(Some(Duration::ZERO)).map_err(ConnectError::Wishes)?;
        socket
            .connect(&destination.into())
            .map_err(|source| ConnectError::Connect { destination, source })?;
        Ok(Outbound { stream: socket.into() })
    }

    /// The stream from the application.
    #[must_use]
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// What the application gave its socket; mark and device the kernel re-applies.
    fn apply_wishes(&self, socket: &Socket, destination: SocketAddr) -> io::Result<()> {
        if destination.is_ipv4() && self.context.type_of_service() != 0 {
            socket.set_tos_v4(self.context.type_of_service().into())?;
        }
        if destination.is_ipv6() && self.context.traffic_class() != 0 {
            socket.set_tclass_v6(self.context.traffic_class().into())?;
        }
        match self.context.source() {
            Some(source) if source.is_ipv4() == destination.is_ipv4() => {
                sys::choose_port_at_connect(socket.as_fd())?;
                socket.bind(&SocketAddr::new(source, 0).into())?;
                Ok(())
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl AsFd for Inbound {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// A connection that was dialled with records; there is no other way to make one.
///
/// Dropping it resets the connection, as with [`Inbound`].
#[derive(Debug)]
pub struct Outbound {
    stream: TcpStream,
}

impl Outbound {
    /// The stream to the destination, or to the next service before it.
    #[must_use]
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }
}

impl AsFd for Outbound {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
