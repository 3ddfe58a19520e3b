//! The loop over the sockets, and the tasks it starts.

use std::{io, net::SocketAddr, sync::Arc, time::Instant};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant as Deadline, sleep_until},
};

use crate::accept::{First, first};

use super::{
    Datagram, DatagramBatch, DatagramSocket, FlowTable, InboundFlow, Message, Parts, Readiness,
    flow::{Clients, Sockets},
};

/// Datagrams that wait for a handler.
const QUEUE: usize = 64;
/// Batches of a socket that are still taken when the service is to end.
const TURNS_AT_THE_END: usize = 256;

pub(super) async fn serve_flows<F, H>(parts: Parts, handler: F) -> io::Result<()>
where
    F: Fn(InboundFlow) -> H + Send + Sync + 'static,
    H: Future<Output = ()> + Send + 'static,
{
    let Parts { sockets, idle, most_flows, shutdown } = parts;
    let sockets: Vec<Arc<DatagramSocket>> = sockets.into_iter().map(Arc::new).collect();
    let mut readiness = Readiness::new()?;
    for (key, socket) in (0..).zip(&sockets) {
        readiness.add(&**socket, key)?;
    }
    let flows = FlowTable::new(most_flows, idle);
    let by_address = sockets.iter().map(|socket| (socket.local_address(), Arc::clone(socket)));
    let by_address = Arc::new(by_address.collect());
    let mut serving =
        Serving { flows, by_address, clients: Arc::default(), handler, handlers: JoinSet::new() };
    let mut batch = DatagramBatch::new();
    loop {
        let now = Instant::now();
        while serving.flows.expire(now).is_some() {}
        let next = serving.flows.next_expiry();
        let ready = match first(shutdown.triggered(), first(readiness.wait(), until(next))).await {
            First::Left(()) => break,
            First::Right(First::Left(ready)) => ready?,
            First::Right(First::Right(())) => continue,
        };
        for ready in ready {
            serving.take(&sockets[ready.key as usize], &mut batch, now)?;
        }
        while serving.handlers.try_join_next().is_some() {}
    }
    // What has been sent by now, by an application that has ended, say, is still passed on.
    for socket in &sockets {
        for _ in 0..TURNS_AT_THE_END {
            if !serving.take(socket, &mut batch, Instant::now())? {
                break;
            }
        }
    }
    // Their queues end, and with them they.
    drop(serving.flows);
    while serving.handlers.join_next().await.is_some() {}
    Ok(())
}

async fn until(next: Option<Instant>) {
    match next {
        Some(next) => sleep_until(Deadline::from_std(next)).await,
        None => std::future::pending().await,
    }
}

struct Serving<F> {
    flows: FlowTable<Queue>,
    by_address: Arc<Sockets>,
    clients: Arc<Clients>,
    handler: F,
    handlers: JoinSet<()>,
}

/// What waits for a handler.
struct Queue {
    destination: SocketAddr,
    sender: mpsc::Sender<Message>,
}

impl<F> Serving<F> {
    /// Takes a batch of what has arrived; whether there was any.
    fn take<H>(
        &mut self,
        socket: &Arc<DatagramSocket>,
        batch: &mut DatagramBatch,
        now: Instant,
    ) -> io::Result<bool>
    where
        F: Fn(InboundFlow) -> H,
        H: Future<Output = ()> + Send + 'static,
    {
        match socket.receive(batch) {
            Ok(_) => batch.iter().for_each(|datagram| self.deliver(socket, &datagram, now)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    fn deliver<H>(&mut self, socket: &Arc<DatagramSocket>, datagram: &Datagram<'_>, now: Instant)
    where
        F: Fn(InboundFlow) -> H,
        H: Future<Output = ()> + Send + 'static,
    {
        if datagram.truncated {
            return;
        }
        let place = self.known(socket, datagram).or_else(|| self.open(socket, datagram, now));
        let Some(place) = place else { return };
        self.flows.touch(place, now);
        if let Some((_, queue)) = self.flows.at(place) {
            // Full, or its handler has returned: a datagram may be lost.
            let message = Message { bytes: datagram.bytes.to_vec(), header: datagram.header };
            let _lost = queue.sender.try_send(message);
        }
    }

    /// The place of the datagram's flow; not that of another that had its path before.
    fn known(&mut self, socket: &DatagramSocket, datagram: &Datagram<'_>) -> Option<u32> {
        let place = self.flows.find(&datagram.path)?;
        if !socket.reuses_paths() {
            return Some(place);
        }
        let destination = socket.destination(datagram.path).ok()?;
        let (_, queue) = self.flows.at(place)?;
        (queue.destination == destination).then_some(place)
    }

    fn open<H>(&mut self, socket: &Arc<DatagramSocket>, datagram: &Datagram<'_>, now: Instant) -> Option<u32>
    where
        F: Fn(InboundFlow) -> H,
        H: Future<Output = ()> + Send + 'static,
    {
        if let Some(place) = self.flows.find(&datagram.path) {
            self.flows.remove(place);
        }
        let facts = socket.identify(datagram.path).ok()?;
        let destination = facts.original_destination();
        let (sender, queue) = mpsc::channel(QUEUE);
        let (socket, sockets) = (Arc::clone(socket), Arc::clone(&self.by_address));
        let flow = InboundFlow::new(facts, socket, sockets, queue, Arc::clone(&self.clients));
        self.handlers.spawn((self.handler)(flow));
        Some(self.flows.insert(datagram.path, Queue { destination, sender }, now).at)
    }
}
