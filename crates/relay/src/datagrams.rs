//! Moving datagrams between applications and their destinations: very many flows in one task.
//!
//! At rest a flow is an entry in a table, and its share of a socket: no task, no timer, no buffer. All sockets are
//! waited for together, datagrams are received and sent by the batch, and what goes the same way in one call.
//!
//! All flows of an application's socket that is not connected go out by one socket, so that all destinations see one
//! source port; what comes back from an address that it has not sent to is offered to the application as well, as
//! from a flow of its own. A connected one has a connected socket, for the system to keep others away from it.
//!
//! Datagrams may be lost, as anywhere: what cannot be sent at once is dropped and counted, and waits for nobody. None
//! is changed, cut, put together with another or sent to anybody else.

mod clients;
mod inbound;
mod returning;

use std::{
    collections::HashMap,
    future::poll_fn,
    io,
    net::{SocketAddr, UdpSocket},
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::{
    task::yield_now,
    time::{Instant as Deadline, timeout_at},
};
use waylay::{
    ConnectError,
    datagrams::{
        DatagramBatch, DatagramService, DatagramSocket, FlowFacts, FlowPath, FlowTable, Parts, Readiness,
    },
};

use crate::{Direction, Verdict};
use clients::Clients;

/// What is told of flows, and decides about them.
pub trait DatagramObserver {
    /// What is kept for each flow.
    type Flow;

    /// A flow begins: its first datagram has come, and is not on its way yet.
    fn opened(&mut self, facts: &FlowFacts) -> Self::Flow;

    /// A datagram is about to be passed on. After [`Verdict::Stop`] neither it nor any other of the flow is.
    fn datagram(&mut self, flow: &mut Self::Flow, direction: Direction, datagram: &[u8]) -> Verdict;

    /// A flow has ended.
    fn closed(&mut self, flow: Self::Flow, end: FlowEnd);

    /// A socket to send on from; connected, if the flow is. With the flow's records, unless the observer knows
    /// better.
    ///
    /// # Errors
    ///
    /// See [`ConnectError`]: the flow goes nowhere then.
    fn dial(&mut self, facts: &FlowFacts) -> Result<UdpSocket, ConnectError> {
        Ok(facts.outbound()?.into_socket())
    }
}

/// How many datagrams and bytes a flow has had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramTransfer {
    /// Datagrams passed on from the application.
    pub datagrams_to_destination: u64,
    /// Their bytes.
    pub bytes_to_destination: u64,
    /// Datagrams passed on to the application.
    pub datagrams_to_application: u64,
    /// Their bytes.
    pub bytes_to_application: u64,
    /// Datagrams that could not be passed on, either way.
    pub dropped: u64,
}

/// How a flow has ended.
#[derive(Debug)]
pub struct FlowEnd {
    /// Why.
    pub cause: EndCause,
    /// What it has had.
    pub transfer: DatagramTransfer,
    /// From the first datagram to the last.
    pub lasted: Duration,
    /// The last error that the network has reported of it, unless something came back later.
    pub error: Option<io::Error>,
}

/// Why a flow has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndCause {
    /// It has been idle for as long as flows may.
    Idle,
    /// There were too many flows, and it had been idle for longest.
    Evicted,
    /// The kernel has ended it.
    Ended,
    /// The observer has stopped it.
    Stopped,
    /// The relay has ended.
    Shutdown,
}

/// Relays all flows of a service until its shutdown is triggered; the observer, once it has been told of the end of
/// each.
///
/// # Errors
///
/// What the system said of a socket that datagrams are redirected to, or of the wait.
///
/// # Example
///
/// ```no_run
/// use waylay::datagrams::{DatagramService, FlowFacts};
/// use waylay_relay::{Direction, Verdict, datagrams::{DatagramObserver, FlowEnd, relay_datagrams}};
///
/// struct Count(u64);
///
/// impl DatagramObserver for Count {
///     type Flow = ();
///     fn opened(&mut self, facts: &FlowFacts) {
///         println!("{} -> {}", facts.context().application(), facts.original_destination());
///     }
///     fn datagram(&mut self, _: &mut (), _: Direction, _: &[u8]) -> Verdict {
///         self.0 += 1;
///         Verdict::Forward
///     }
///     fn closed(&mut self, (): (), _: FlowEnd) {}
/// }
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let Count(datagrams) = relay_datagrams(DatagramService::from_env()?, Count(0)).await?;
/// # Ok(())
/// # }
/// ```
pub async fn relay_datagrams<O: DatagramObserver>(service: DatagramService, observer: O) -> io::Result<O> {
    let Parts { sockets, idle, most_flows, shutdown } = service.into_parts();
    let mut relay = Relay::new(sockets, FlowTable::new(most_flows, idle), observer)?;
    let mut batch = DatagramBatch::new();
    let end = shutdown.triggered();
    let mut end = pin!(end);
    while relay.turn(&mut batch, end.as_mut()).await? {
        // Others of this thread have their turn.
        yield_now().await;
    }
    relay.end(&mut batch)?;
    Ok(relay.observer)
}

/// Keys of the sockets that datagrams are redirected to are their numbers; those of clients begin here.
const FIRST_CLIENT: u64 = 1 << 32;

/// How long to wait at once, with no flow to expire.
const A_WHILE: Duration = Duration::from_secs(3600);

/// Times that a socket is still read when the relay is to end: as much as its buffer holds, and some more.
const TURNS_AT_THE_END: usize = 256;

struct Relay<O: DatagramObserver> {
    sockets: Vec<DatagramSocket>,
    /// Their numbers by port, for those of which there are many.
    ports: HashMap<u16, u16>,
    readiness: Readiness,
    flows: FlowTable<Flow<O::Flow>>,
    clients: Clients,
    observer: O,
}

/// What is kept of a flow.
struct Flow<T> {
    /// The socket that its datagrams come in at.
    socket: u16,
    /// What they go out by; none if there is no way, or no more.
    client: Option<u32>,
    destination: SocketAddr,
    /// Whether nothing was sent there before something came from there.
    reply: bool,
    opened: Instant,
    last: Instant,
    transfer: DatagramTransfer,
    stopped: bool,
    error: Option<io::Error>,
    observed: T,
}

impl<O: DatagramObserver> Relay<O> {
    fn new(sockets: Vec<DatagramSocket>, flows: FlowTable<Flow<O::Flow>>, observer: O) -> io::Result<Self> {
        let readiness = Readiness::new()?;
        let mut ports = HashMap::new();
        for (number, socket) in (0..).zip(&sockets) {
            readiness.add(socket, number.into())?;
            if socket.reuses_paths() {
                ports.insert(socket.local_address().port(), number);
            }
        }
        Ok(Self { sockets, ports, readiness, flows, clients: Clients::default(), observer })
    }

    /// Waits for a socket or a flow's expiry, and does what there is to do; whether to go on.
    async fn turn(&mut self, batch: &mut DatagramBatch, end: impl Future<Output = ()>) -> io::Result<bool> {
        let expiry = self.flows.next_expiry().map_or_else(|| Deadline::now() + A_WHILE, Deadline::from_std);
        let ready = match unless(end, timeout_at(expiry, self.readiness.wait())).await {
            None => return Ok(false),
            Some(Ok(ready)) => ready?.to_vec(),
            Some(Err(_expired)) => Vec::new(),
        };
        let now = Instant::now();
        for ready in ready {
            match u32::try_from(ready.key.wrapping_sub(FIRST_CLIENT)) {
                Ok(client) => self.take_answers(client, ready.has_error, batch, now),
                Err(_) => self.take_requests(ready.key as usize, batch, now)?,
            }
        }
        while let Some((path, flow)) = self.flows.expire(now) {
            self.close(path, flow, EndCause::Idle);
        }
        Ok(true)
    }

    /// Begins a flow, or one with somebody who answers in the destination's stead; its place.
    fn open(&mut self, facts: &FlowFacts, socket: u16, reply: bool, now: Instant) -> u32 {
        let destination = facts.original_destination();
        let observed = self.observer.opened(facts);
        let observer = &mut self.observer;
        let dialled = self.clients.of(facts, &self.readiness, || observer.dial(facts));
        let (client, error) = match dialled {
            Ok(client) => (Some(client), None),
            Err(error) => (None, Some(clients::reason(error))),
        };
        if let Some(error) = &error {
            // It may have ended meanwhile.
            let _told = self.sockets[usize::from(socket)].report_error(facts.path(), error, 0);
        }
        let flow = Flow {
            socket,
            client,
            destination,
            reply,
            opened: now,
            last: now,
            transfer: DatagramTransfer::default(),
            stopped: false,
            error,
            observed,
        };
        let inserted = self.flows.insert(facts.path(), flow, now);
        if let Some(client) = client {
            self.clients.note(client, destination, inserted.at, reply);
        }
        if let Some((path, evicted)) = inserted.evicted {
            self.close(path, evicted, EndCause::Evicted);
        }
        inserted.at
    }

    /// Ends a flow that is in the table.
    fn remove(&mut self, place: u32, cause: EndCause) {
        if let Some((path, flow)) = self.flows.remove(place) {
            self.close(path, flow, cause);
        }
    }

    /// Ends a flow that has been taken out of the table.
    fn close(&mut self, path: FlowPath, flow: Flow<O::Flow>, cause: EndCause) {
        if let Some(client) = flow.client {
            self.clients.forget(client, flow.destination, path.peer(), flow.reply);
        }
        let cause = if flow.stopped { EndCause::Stopped } else { cause };
        let lasted = flow.last.saturating_duration_since(flow.opened);
        let end = FlowEnd { cause, transfer: flow.transfer, lasted, error: flow.error };
        self.observer.closed(flow.observed, end);
    }

    /// Passes on what has been sent by now, by an application that has ended, say; then ends all flows.
    fn end(&mut self, batch: &mut DatagramBatch) -> io::Result<()> {
        for socket in 0..self.sockets.len() {
            for _ in 0..TURNS_AT_THE_END {
                self.take_requests(socket, batch, Instant::now())?;
                if batch.is_empty() {
                    break;
                }
            }
        }
        let flows: Vec<_> = self.flows.drain().collect();
        for (path, flow) in flows {
            self.close(path, flow, EndCause::Shutdown);
        }
        Ok(())
    }
}

/// What a future says, unless the end comes first. It has the first word, or a flood would put it off for ever.
async fn unless<T>(end: impl Future<Output = ()>, waiting: impl Future<Output = T>) -> Option<T> {
    let (mut end, mut waiting) = (pin!(end), pin!(waiting));
    poll_fn(|context| match end.as_mut().poll(context) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => waiting.as_mut().poll(context).map(Some),
    })
    .await
}
