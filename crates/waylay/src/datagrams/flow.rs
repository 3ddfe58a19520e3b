use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use thiserror::Error;
use tokio::{io::Interest, net::UdpSocket, sync::mpsc, task::AbortHandle};

use super::{
    Content, DatagramBatch, DatagramSocket, FlowFacts, Header, Message, Outgoing, Unreachable, receive, send,
};
use crate::{
    accept::{First, first},
    context::{ChainHop, RedirectContext},
    error::{ConnectError, QueryError},
};

/// Answers that wait for a handler.
const QUEUE: usize = 64;
/// The sockets of a service, by their addresses.
pub(super) type Sockets = HashMap<SocketAddr, Arc<DatagramSocket>>;

/// A flow that was redirected to this service, with all that the kernel knows about it.
///
/// There is no other way to one than from the kernel.
#[derive(Debug)]
pub struct InboundFlow {
    facts: FlowFacts,
    socket: Arc<DatagramSocket>,
    /// All of the service's, by their addresses.
    sockets: Arc<Sockets>,
    queue: mpsc::Receiver<Message>,
    clients: Arc<Clients>,
}

/// What comes next in a flow.
#[derive(Debug)]
pub enum FlowEvent {
    /// A datagram of the application's.
    Datagram(Message),
    /// An answer.
    Answer {
        /// What is in it.
        datagram: Message,
        /// Where it is from: see [`OutboundFlow::recv`].
        from: SocketAddr,
    },
    /// What the network reports of a datagram that was sent on.
    Unreachable(Unreachable),
}

/// Why an answer was not delivered.
#[derive(Debug, Error)]
pub enum ReplyError {
    /// There is no way for it: the flow has ended, or the application's socket takes none from there.
    #[error("no way for an answer")]
    NoWay(#[source] QueryError),
    /// It could not be sent.
    #[error("the answer could not be sent")]
    Send(#[source] io::Error),
}

impl InboundFlow {
    pub(super) fn new(
        facts: FlowFacts,
        socket: Arc<DatagramSocket>,
        sockets: Arc<Sockets>,
        queue: mpsc::Receiver<Message>,
        clients: Arc<Clients>,
    ) -> Self {
        Self { facts, socket, sockets, queue, clients }
    }

    /// Who is behind it.
    #[must_use]
    pub fn context(&self) -> &RedirectContext {
        self.facts.context()
    }

    /// Where the application, or the service before this one, is sending to.
    #[must_use]
    pub fn original_destination(&self) -> SocketAddr {
        self.facts.original_destination()
    }

    /// The services that have had the flow, oldest first; this one is the last.
    #[must_use]
    pub fn chain(&self) -> &[ChainHop] {
        self.facts.chain()
    }

    /// All that is known of it.
    #[must_use]
    pub fn facts(&self) -> &FlowFacts {
        &self.facts
    }

    /// The application's next datagram; `None` when the flow has expired or the service ends.
    pub async fn recv(&mut self) -> Option<Message> {
        self.queue.recv().await
    }

    /// What comes next, from the application or the way on; `None` when the flow has expired or the service ends.
    pub async fn next(&mut self, outbound: &mut OutboundFlow) -> Option<FlowEvent> {
        match first(self.queue.recv(), outbound.answers.recv()).await {
            First::Left(datagram) => datagram.map(FlowEvent::Datagram),
            First::Right(answer) => match answer? {
                Ok((datagram, from)) => Some(FlowEvent::Answer { datagram, from }),
                Err(unreachable) => Some(FlowEvent::Unreachable(unreachable)),
            },
        }
    }

    /// Answers the application, which sees the answer come from the original destination.
    ///
    /// # Errors
    /// [`ReplyError::Send`], with ESTALE if the flow has ended.
    pub fn send<'a>(&self, datagram: impl Into<Content<'a>>) -> Result<(), ReplyError> {
        self.answer(&self.facts, datagram.into())
    }

    /// Answers the application, which sees the answer come from that address.
    ///
    /// # Errors
    /// See [`ReplyError`].
    pub fn reply_from<'a>(
        &self,
        from: SocketAddr,
        datagram: impl Into<Content<'a>>,
    ) -> Result<(), ReplyError> {
        if from == self.original_destination() {
            return self.send(datagram);
        }
        let facts = self.socket.open_reply(self.facts.path(), from).map_err(ReplyError::NoWay)?;
        self.answer(&facts, datagram.into())
    }

    /// Has the application told what became of its datagram: see [`DatagramSocket::report_error`].
    ///
    /// # Errors
    /// [`QueryError::NotRedirected`] if the flow has ended.
    pub fn report_error(&self, error: &io::Error, info: u32) -> Result<(), QueryError> {
        self.socket.report_error(self.facts.path(), error, info)
    }

    /// The way on, to the original destination. All flows of one socket of the application's share a socket, so that
    /// all destinations see one source port; of one that is connected it is connected.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect(&self) -> Result<OutboundFlow, ConnectError> {
        let client = self.clients.of(&self.facts)?;
        let (sender, answers) = mpsc::channel(QUEUE);
        let (destination, connected) = (self.original_destination(), self.facts.is_connected());
        lock(&client.routes).add(destination, sender);
        Ok(OutboundFlow { client, destination, connected, answers })
    }

    fn answer(&self, facts: &FlowFacts, content: Content<'_>) -> Result<(), ReplyError> {
        let mut outcome = Ok(());
        // With IPv6 an answer from elsewhere goes by another of the service's sockets.
        let socket = self.sockets.get(&facts.path().local()).unwrap_or(&self.socket);
        let outgoing = Outgoing::answer(facts.path(), content.bytes).with_header(content.header);
        socket.send(&[outgoing], |_, sent| outcome = sent);
        outcome.map_err(ReplyError::Send)
    }
}

/// The way on of a flow. It has the flow's records.
#[derive(Debug)]
pub struct OutboundFlow {
    client: Arc<Client>,
    destination: SocketAddr,
    connected: bool,
    answers: mpsc::Receiver<Answer>,
}

/// What comes back: a datagram and where it is from, or what the network reports of one that was sent.
type Answer = Result<(Message, SocketAddr), Unreachable>;

impl OutboundFlow {
    /// Sends on, without waiting.
    ///
    /// # Errors
    /// What the system said; `WouldBlock` if there is no room, and the datagram is lost.
    pub fn send<'a>(&self, datagram: impl Into<Content<'a>>) -> io::Result<()> {
        let (mut outcome, to) = (Ok(()), (!self.connected).then_some(self.destination));
        let Content { bytes, header } = datagram.into();
        let outgoing = Outgoing { bytes, to, from: None, header: header.besides(self.client.usual) };
        send(&*self.client.socket, &[outgoing], |_, sent| outcome = sent);
        outcome
    }

    /// The next answer, and where it is from: another address than the destination's, if no other flow goes there
    /// and this one is the last that the application's socket has begun. Or what the network has reported.
    pub async fn recv(&mut self) -> Option<Result<(Message, SocketAddr), Unreachable>> {
        self.answers.recv().await
    }
}

impl Drop for OutboundFlow {
    fn drop(&mut self) {
        self.answers.close();
        lock(&self.client.routes).forget(self.destination);
    }
}

/// Outbound sockets, by the application's socket that each stands for.
#[derive(Debug, Default)]
pub(super) struct Clients(Mutex<HashMap<SocketAddr, Weak<Client>>>);

impl Clients {
    fn of(&self, facts: &FlowFacts) -> Result<Arc<Client>, ConnectError> {
        if facts.is_connected() {
            return Client::new(facts);
        }
        let mut clients = lock(&self.0);
        if let Some(client) = clients.get(&facts.path().peer()).and_then(Weak::upgrade) {
            return Ok(client);
        }
        let client = Client::new(facts)?;
        clients.retain(|_, client| client.strong_count() > 0);
        clients.insert(facts.path().peer(), Arc::downgrade(&client));
        Ok(client)
    }
}

#[derive(Debug)]
struct Client {
    socket: Arc<UdpSocket>,
    usual: Header,
    routes: Arc<Mutex<Routes>>,
    reading: AbortHandle,
}

impl Client {
    fn new(facts: &FlowFacts) -> Result<Arc<Self>, ConnectError> {
        let destination = facts.original_destination();
        let socket = facts.outbound()?.into_socket();
        let usual = Header::usual(&socket);
        let socket =
            UdpSocket::from_std(socket).map_err(|source| ConnectError::Socket { destination, source })?;
        let (socket, routes) = (Arc::new(socket), Arc::<Mutex<Routes>>::default());
        let reading = tokio::spawn(read(Arc::clone(&socket), Arc::clone(&routes))).abort_handle();
        Ok(Arc::new(Self { socket, usual, routes, reading }))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// Whose an answer is.
#[derive(Debug, Default)]
struct Routes {
    flows: HashMap<SocketAddr, mpsc::Sender<Answer>>,
    last: Option<mpsc::Sender<Answer>>,
}

impl Routes {
    fn add(&mut self, destination: SocketAddr, flow: mpsc::Sender<Answer>) {
        self.last = Some(flow.clone());
        self.flows.insert(destination, flow);
    }

    /// Unless another flow goes there by now.
    fn forget(&mut self, destination: SocketAddr) {
        if self.flows.get(&destination).is_some_and(mpsc::Sender::is_closed) {
            self.flows.remove(&destination);
        }
    }

    fn deliver(&self, from: Option<SocketAddr>, answer: Answer) {
        let known = from.and_then(|from| self.flows.get(&from));
        if let Some(flow) = known.or(self.last.as_ref()) {
            // Its handler is slow, or has returned: a datagram may be lost.
            let _lost = flow.try_send(answer);
        }
    }
}

async fn read(socket: Arc<UdpSocket>, routes: Arc<Mutex<Routes>>) {
    let mut batch = DatagramBatch::new();
    loop {
        let interest = Interest::READABLE | Interest::ERROR;
        let received = socket.async_io(interest, || receive(&*socket, &mut batch)).await;
        let routes = lock(&routes);
        while let Some(error) = Unreachable::take(&*socket) {
            routes.deliver(error.destination, Err(error));
        }
        if received.is_err() {
            continue;
        }
        for datagram in batch.iter().filter(|datagram| !datagram.truncated) {
            let from = datagram.path.peer();
            let message = Message { bytes: datagram.bytes.to_vec(), header: datagram.header };
            routes.deliver(Some(from), Ok((message, from)));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
