//! The loop over the sockets, and the tasks it starts.

use std::{collections::HashMap, io, sync::Arc, time::Instant};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant as Deadline, sleep_until},
};

use crate::accept::{First, first};

use super::{
    Datagram, DatagramBatch, DatagramSocket, FlowTable, InboundFlow, Parts, Readiness, flow::Clients,
};

/// Datagrams that wait for a handler.
const QUEUE: usize = 64;

pub(super) async fn serve_flows<F, H>(parts: Parts, handler: F) -> io::Result<()>
where
    F: Fn(InboundFlow) -> H + Send + Sync + 'static,
    H: Future<Output = ()> + Send + 'static,
{
    let Parts { sockets, idle, most_flows, shutdown } = parts;
    let sockets: HashMap<u64, Arc<DatagramSocket>> = (0..).zip(sockets.into_iter().map(Arc::new)).collect();
    let mut readiness = Readiness::new()?;
    for (key, socket) in &sockets {
        readiness.add(&**socket, *key)?;
    }
    let flows = FlowTable::new(most_flows, idle);
    let mut serving = Serving { flows, clients: Arc::default(), handler, handlers: JoinSet::new() };
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
            let Some(socket) = sockets.get(&ready.key) else { continue };
            match socket.receive(&mut batch) {
                Ok(_) => batch.iter().for_each(|datagram| serving.deliver(socket, &datagram, now)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        while serving.handlers.try_join_next().is_some() {}
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
    /// A queue for each flow.
    flows: FlowTable<mpsc::Sender<Vec<u8>>>,
    clients: Arc<Clients>,
    handler: F,
    handlers: JoinSet<()>,
}

impl<F> Serving<F> {
    fn deliver<H>(&mut self, socket: &Arc<DatagramSocket>, datagram: &Datagram<'_>, now: Instant)
    where
        F: Fn(InboundFlow) -> H,
        H: Future<Output = ()> + Send + 'static,
    {
        if datagram.truncated {
            return;
        }
        let place = self.flows.find(&datagram.path).or_else(|| self.open(socket, datagram, now));
        let Some(place) = place else { return };
        self.flows.touch(place, now);
        if let Some((_, queue)) = self.flows.at(place) {
            // Full, or its handler has returned: a datagram may be lost.
            let _lost = queue.try_send(datagram.bytes.to_vec());
        }
    }

    fn open<H>(&mut self, socket: &Arc<DatagramSocket>, datagram: &Datagram<'_>, now: Instant) -> Option<u32>
    where
        F: Fn(InboundFlow) -> H,
        H: Future<Output = ()> + Send + 'static,
    {
        let facts = socket.identify(datagram.path).ok()?;
        let (sender, queue) = mpsc::channel(QUEUE);
        let flow = InboundFlow::new(facts, Arc::clone(socket), queue, Arc::clone(&self.clients));
        self.handlers.spawn((self.handler)(flow));
        Some(self.flows.insert(datagram.path, sender, now).at)
    }
}
